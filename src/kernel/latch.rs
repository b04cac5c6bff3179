// SPDX-License-Identifier: MIT OR Apache-2.0
//! The per-socket switch of the path manager.
//!
//! A socket keeps the path manager that its network namespace named when the
//! socket was made, or when it was last disconnected by connect(AF_UNSPEC). So
//! for a moment the namespace is told "userspace", one unconnected socket is
//! disconnected, and the namespace gets its value back: that socket alone is
//! under per-connection control. Between those two writes other new sockets of
//! the namespace are caught too, so the window is as short as it can be: no
//! signal, no path look-up, no allocation in it.
//!
//! Two who do this at once would undo each other, and one who dies in it would
//! leave the namespace switched. Therefore a lock file, and in it, while the
//! switch is under way, the value to restore: whoever takes the lock next
//! repairs.

use super::{process, sockopt};
use crate::error::{Errno, KernelResult};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Read;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const USERSPACE: &[u8] = b"userspace";
/// How often one who waits for the lock lets others run before it sleeps.
const YIELDS: u32 = 8;
/// Where the lock lives for everybody who may write there.
const SHARED: &str = "/run/mptcpapi";

/// Bytes that a namespace has in the lock file, which is sparse.
const PLACE: usize = 64;

/// What stands in the way, by stage: the words are made from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The kernel has no choice of path manager (before 5.19), or /proc is not
    /// there.
    NoSysctl(Errno),
    /// /proc/sys can't be written.
    ReadOnly(Errno),
    /// No place for the lock file.
    NoLock(Errno),
    /// Somebody keeps the lock.
    Locked,
    /// The window was closed by its warden before it was done with.
    Cut,
    /// The kernel refused the switch itself.
    Kernel(Errno),
}

/// Sees to it that no window stays open: what happens in one can wait for a
/// socket's lock without end.
pub trait Warden: std::fmt::Debug + Send + Sync {
    /// Opens a window by `open`; its number. [`Undo::undo`] is to be called
    /// soon, unless it is closed before. Cut: there are to be no more windows.
    fn open(&self, undo: Undo, open: &mut dyn FnMut() -> KernelResult<()>) -> Result<u64, Fault>;
    /// Closes the one of this number, by [`Undo::restore`]. Cut: that was done,
    /// and the one that is open by now is another's.
    fn close(&self, window: u64) -> Result<(), Fault>;
    /// Whose namespaces are that [`Latch::hold`] has put in userspace mode.
    fn name(&self) -> u16;
}

/// Closes a window in the place of who opened it.
#[derive(Debug)]
pub struct Undo {
    sysctl: Arc<File>,
    lock: Arc<File>,
    place: u64,
    /// What was changed, if anything.
    original: Option<Value>,
}

impl Undo {
    /// Whether there is anything to give back.
    pub fn changes(&self) -> bool {
        self.original.is_some()
    }

    /// Gives the namespace its value back. Where that fails the record stays:
    /// whoever takes the lock next repairs.
    pub fn restore(&self) -> Result<(), Fault> {
        let Some(original) = &self.original else { return Ok(()) };
        write(&self.sysctl, original.text()).map_err(Fault::ReadOnly)?;
        self.lock.write_all_at(&[0; PLACE], self.place).map_err(|e| Fault::NoLock(Errno::of(&e)))
    }

    /// The same, and the lock.
    pub fn undo(self) -> Result<(), Fault> {
        let restored = self.restore();
        let _ = sockopt::lock_range(&*self.lock, self.place, PLACE as u64, false);
        restored
    }
}

/// Writes a sysctl.
fn write(sysctl: &File, text: &[u8]) -> KernelResult<()> {
    loop {
        match sysctl.write_at(text, 0) {
            Ok(_) => return Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Errno::of(&e)),
        }
    }
}

/// The sysctl of one network namespace, and the lock that guards it.
#[derive(Debug)]
pub struct Latch {
    warden: Option<Arc<dyn Warden>>,
    sysctl: Arc<File>,
    numeric: bool,
    writable: Result<(), Errno>,
    lock: Option<Arc<File>>,
    sysctl_identity: Option<(u64, u64)>,
    lock_identity: Option<(u64, u64)>,
    /// Somebody else has the lock, and we wait for it.
    waits: Arc<AtomicBool>,
    /// Where the lock file has this namespace's place: its cookie is unique
    /// until the machine restarts, and a small number.
    place: u64,
    /// The boot id: the file can outlive the machine's restart.
    boot: String,
}

impl Latch {
    /// Opens the sysctl of the calling thread's network namespace, whose
    /// cookie is `namespace`.
    pub fn open(namespace: u64) -> Result<Self, Fault> {
        let open = |path: &str| match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => Ok((file, Ok(()))),
            Err(error) => {
                let why = Errno::of(&error);
                File::open(path).map(|file| (file, Err(why))).map_err(|e| Errno::of(&e))
            }
        };
        let (numeric, (sysctl, writable)) = match open("/proc/sys/net/mptcp/path_manager") {
            Ok(opened) => (false, opened),
            Err(_) => match open("/proc/sys/net/mptcp/pm_type") {
                Ok(opened) => (true, opened),
                Err(errno) => return Err(Fault::NoSysctl(errno)),
            },
        };
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let place = namespace.saturating_mul(PLACE as u64);
        Ok(Self {
            warden: None,
            sysctl_identity: identity(&sysctl),
            sysctl: Arc::new(sysctl),
            numeric,
            writable,
            lock: None,
            lock_identity: None,
            waits: Arc::default(),
            place,
            boot: boot.trim().to_owned(),
        })
    }

    /// Whether both descriptors are still the files that were opened.
    pub fn intact(&self) -> bool {
        identity(&self.sysctl) == self.sysctl_identity
            && self.lock.as_ref().is_none_or(|lock| identity(lock) == self.lock_identity)
    }

    /// From now on windows are watched.
    pub fn watch(&mut self, warden: Arc<dyn Warden>) {
        self.warden = Some(warden);
    }

    /// True while a thread that has this latch waits for somebody else's switch.
    pub fn waits(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.waits)
    }

    /// Whether the namespace as a whole is in userspace mode now.
    pub fn userspace(&self) -> KernelResult<bool> {
        let mut value = Value::default();
        self.read(&mut value)?;
        Ok(self.is_userspace(&value))
    }

    /// Why the sysctl can't be written, if so.
    pub fn writable(&self) -> Result<(), Errno> {
        self.writable
    }

    fn is_userspace(&self, value: &Value) -> bool {
        if self.numeric { value.text() == b"1" } else { value.text() == USERSPACE }
    }

    fn read(&self, value: &mut Value) -> KernelResult<()> {
        let len = self.sysctl.read_at(&mut value.bytes, 0).map_err(|e| Errno::of(&e))?;
        value.len = len.min(value.bytes.len());
        Ok(())
    }

    fn write(&self, text: &[u8]) -> KernelResult<()> {
        write(&self.sysctl, text)
    }

    /// Puts an unconnected socket under the userspace path manager. It must
    /// not be connected, connecting or listening: that kills it.
    pub fn switch(&mut self, fd: BorrowedFd<'_>) -> Result<(), Fault> {
        self.within(|| disconnect_idle(fd))?.map_err(Fault::Kernel)
    }

    /// Makes a socket under the userspace path manager.
    pub fn socket(&mut self, domain: i32, kind: i32, protocol: i32) -> Result<OwnedFd, Fault> {
        self.within(|| sockopt::socket(domain, kind, protocol))?.map_err(Fault::Kernel)
    }

    /// Gives an unconnected socket back to the path manager that the namespace
    /// names.
    pub fn release(&mut self, fd: BorrowedFd<'_>) -> Result<(), Fault> {
        let guard = self.locked()?;
        let window = guard.open(None, &mut || Ok(()))?;
        let result = disconnect_idle(fd).map_err(Fault::Kernel);
        guard.close(window, None)?;
        result
    }

    /// Puts the whole namespace in userspace mode; what it said before, unless
    /// that is what it said.
    pub fn hold(&mut self) -> Result<Option<String>, Fault> {
        let guard = self.locked()?;
        let mut original = Value::default();
        guard.latch.read(&mut original).map_err(Fault::NoSysctl)?;
        if guard.latch.is_userspace(&original) {
            return Ok(None);
        }
        // It stays: nobody else would know, were this process to end now.
        guard.record(Some((original.text(), Some(guard.latch.name())))).map_err(Fault::NoLock)?;
        let text: &[u8] = if guard.latch.numeric { b"1" } else { USERSPACE };
        // None is to be put in that mode any more once there are no windows.
        match guard.open(None, &mut || guard.latch.write(text)) {
            Ok(window) => drop(guard.close(window, None)),
            Err(fault) => {
                let _ = guard.record(None);
                return Err(fault);
            }
        }
        Ok(Some(String::from_utf8_lossy(original.text()).into_owned()))
    }

    /// What the namespace said before [`Latch::hold`], where one of our name
    /// has done that and ended since.
    pub fn held(&mut self) -> Result<Option<String>, Fault> {
        let guard = self.locked()?;
        let ours = guard.recorded()?.filter(|recorded| recorded.holder == Some(guard.latch.name()));
        let Some(Recorded { original, .. }) = ours else { return Ok(None) };
        if !guard.latch.userspace().map_err(Fault::NoSysctl)? {
            guard.record(None).map_err(Fault::NoLock)?;
            return Ok(None);
        }
        Ok(Some(String::from_utf8_lossy(&original).into_owned()))
    }

    fn name(&self) -> u16 {
        self.warden.as_ref().map_or(0, |warden| warden.name())
    }

    /// Undoes [`Latch::hold`], unless somebody has said something else since.
    pub fn unhold(&mut self, original: &str) -> Result<(), Fault> {
        let guard = self.locked()?;
        if guard.latch.userspace().map_err(Fault::NoSysctl)? {
            guard.latch.write(original.as_bytes()).map_err(Fault::ReadOnly)?;
        }
        guard.record(None).map_err(Fault::NoLock)
    }

    /// Undoes what one left who died in the switch, if so; whoever finds a
    /// namespace in userspace mode calls it before believing that.
    pub fn repair(&mut self) -> Result<(), Fault> {
        self.locked().map(drop)
    }

    /// Runs `act` while the namespace says "userspace".
    fn within<T>(&mut self, act: impl FnOnce() -> T) -> Result<T, Fault> {
        if let Err(errno) = self.writable {
            // Read-only /proc/sys: fine in a namespace that was set up for it.
            let userspace = self.userspace().map_err(Fault::NoSysctl)?;
            return if userspace { Ok(act()) } else { Err(Fault::ReadOnly(errno)) };
        }
        let guard = self.locked()?;
        let window = Window::open(&guard)?;
        let result = act();
        window.close()?;
        Ok(result)
    }

    /// Takes the lock, and repairs what a dead owner left.
    fn locked(&mut self) -> Result<Locked<'_>, Fault> {
        if self.lock.is_none() {
            let lock = lock_file().map_err(Fault::NoLock)?;
            self.lock_identity = identity(&lock);
            self.lock = Some(Arc::new(lock));
        }
        let lock = self.lock.as_ref().ok_or(Fault::NoLock(Errno(libc::ENOENT)))?;
        let deadline = process::milliseconds() + 3000;
        let mut tries = 0;
        // Not a waiting lock: one who was stopped in the switch must not stop
        // everybody else for ever.
        let taken = loop {
            match sockopt::lock_range(&**lock, self.place, PLACE as u64, true) {
                Ok(()) => break Ok(()),
                Err(Errno(libc::EAGAIN | libc::EACCES | libc::EINTR))
                    if process::milliseconds() < deadline =>
                {
                    self.waits.store(true, Ordering::Relaxed);
                    // It is held for microseconds, as a rule.
                    tries += 1;
                    if tries <= YIELDS {
                        std::thread::yield_now();
                    } else {
                        std::thread::sleep(std::time::Duration::from_micros(30));
                    }
                }
                Err(Errno(libc::EAGAIN | libc::EACCES | libc::EINTR)) => break Err(Fault::Locked),
                Err(errno) => break Err(Fault::NoLock(errno)),
            }
        };
        self.waits.store(false, Ordering::Relaxed);
        taken?;
        // No handler of the application's runs with the lock held. The owner of a
        // warden has seen to its signals.
        let signals = self.warden.is_none().then(process::SignalsHeld::new);
        let locked = Locked { latch: self, lock, signals };
        locked.repair()?;
        Ok(locked)
    }
}

fn identity(file: &File) -> Option<(u64, u64)> {
    file.metadata().ok().map(|meta| (meta.dev(), meta.ino()))
}

/// A sysctl's text; never allocates.
#[derive(Clone, Copy, Debug, Default)]
struct Value {
    bytes: [u8; 32],
    len: usize,
}

impl Value {
    fn text(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default().trim_ascii()
    }
}

/// What stands in the lock file.
struct Recorded {
    /// What to go back to.
    original: Vec<u8>,
    /// Who it is that the namespace is held for; else a switch is under way.
    holder: Option<u16>,
}

/// The lock, held.
struct Locked<'a> {
    latch: &'a Latch,
    lock: &'a Arc<File>,
    signals: Option<process::SignalsHeld>,
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let _ = sockopt::lock_range(&**self.lock, self.latch.place, PLACE as u64, false);
    }
}

impl Locked<'_> {
    /// Opens a window by `open`, in which `original` is changed, if anything;
    /// somebody else gives that back, and the lock, if it takes too long.
    fn open(
        &self,
        original: Option<Value>,
        open: &mut dyn FnMut() -> KernelResult<()>,
    ) -> Result<u64, Fault> {
        match &self.latch.warden {
            None => open().map(|()| 0).map_err(Fault::ReadOnly),
            Some(warden) => warden.open(self.undo(original), open),
        }
    }

    /// Closes it again.
    fn close(&self, window: u64, original: Option<Value>) -> Result<(), Fault> {
        match &self.latch.warden {
            None => self.undo(original).restore(),
            Some(warden) => warden.close(window),
        }
    }

    fn undo(&self, original: Option<Value>) -> Undo {
        Undo {
            sysctl: Arc::clone(&self.latch.sysctl),
            lock: Arc::clone(self.lock),
            place: self.latch.place,
            original,
        }
    }

    /// Writes the record, `boot value` and, of what is to last, ` name`, the
    /// rest zero; `None` clears it.
    fn record(&self, what: Option<(&[u8], Option<u16>)>) -> KernelResult<()> {
        let mut bytes = [0u8; PLACE];
        if let Some((value, holder)) = what {
            let digits = holder.into_iter().flat_map(|name| {
                let digit = |shift: u16| b'a' + (name >> shift & 15) as u8;
                [b' ', digit(12), digit(8), digit(4), digit(0)]
            });
            let text = self.latch.boot.bytes().chain([b' ']).chain(value.iter().copied()).chain(digits);
            for (to, from) in bytes.iter_mut().zip(text) {
                *to = from;
            }
        }
        let written = self.lock.write_all_at(&bytes, self.latch.place).map_err(|e| Errno::of(&e));
        if written == Err(Errno(libc::EFBIG))
            && let Some(signals) = &self.signals
        {
            // RLIMIT_FSIZE: the errno is enough.
            signals.discard(libc::SIGXFSZ);
        }
        written
    }

    /// The record, if there is one of this boot.
    fn recorded(&self) -> Result<Option<Recorded>, Fault> {
        let mut bytes = [0u8; PLACE];
        let len =
            self.lock.read_at(&mut bytes, self.latch.place).map_err(|e| Fault::NoLock(Errno::of(&e)))?;
        let text = bytes.get(..len).unwrap_or_default();
        let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
        let mut words = text.split(|byte| *byte == b' ');
        if words.next() != Some(self.latch.boot.as_bytes()) {
            return Ok(None);
        }
        let Some(value) = words.next() else { return Ok(None) };
        let number = |name: &[u8]| {
            name.iter().fold(0u16, |number, digit| number << 4 | u16::from(digit.wrapping_sub(b'a') & 15))
        };
        Ok(Some(Recorded { original: value.to_vec(), holder: words.next().map(number) }))
    }

    /// Undoes the switch of one who died in it.
    fn repair(&self) -> Result<(), Fault> {
        match self.recorded()? {
            Some(Recorded { original, holder: None }) => {
                if self.latch.userspace().map_err(Fault::NoSysctl)? {
                    self.latch.write(&original).map_err(Fault::ReadOnly)?;
                }
                self.record(None).map_err(Fault::NoLock)
            }
            _ => Ok(()),
        }
    }
}

/// Disconnects a socket that has no connection. Waiting for the lock can take
/// seconds, in which another thread can have connected it: EISCONN.
fn disconnect_idle(fd: BorrowedFd<'_>) -> KernelResult<()> {
    // Hung up is what unconnected and ended sockets are, and no others.
    match sockopt::poll(fd, 0, 0) {
        Ok(events) if events & libc::POLLHUP == 0 => Err(Errno(libc::EISCONN)),
        _ => sockopt::disconnect(fd),
    }
}

/// The namespace says "userspace", from `open` to `close` or drop.
struct Window<'a> {
    locked: &'a Locked<'a>,
    /// What it said before, if something else.
    original: Option<Value>,
    /// The number of the window, while it is open.
    open: Option<u64>,
}

impl<'a> Window<'a> {
    fn open(locked: &'a Locked<'a>) -> Result<Self, Fault> {
        let mut original = Value::default();
        locked.latch.read(&mut original).map_err(Fault::NoSysctl)?;
        if locked.latch.is_userspace(&original) {
            // What is done in it can wait without end all the same.
            let open = Some(locked.open(None, &mut || Ok(()))?);
            return Ok(Self { locked, original: None, open });
        }
        locked.record(Some((original.text(), None))).map_err(Fault::NoLock)?;
        let text: &[u8] = if locked.latch.numeric { b"1" } else { USERSPACE };
        match locked.open(Some(original), &mut || locked.latch.write(text)) {
            Ok(number) => Ok(Self { locked, original: Some(original), open: Some(number) }),
            Err(fault) => {
                let _ = locked.record(None);
                Err(fault)
            }
        }
    }

    fn restore(&mut self) -> Result<(), Fault> {
        match self.open.take() {
            Some(number) => self.locked.close(number, self.original),
            None => Ok(()),
        }
    }

    fn close(mut self) -> Result<(), Fault> {
        self.restore()
    }
}

impl Drop for Window<'_> {
    fn drop(&mut self) {
        let _ = self.restore();
    }
}

/// Opens the lock file: in the shared directory where this process may write
/// there, else in one of its user's own. The file is nobody else's to lock.
fn lock_file() -> KernelResult<File> {
    let mut last = Errno(libc::ENOENT);
    for (directory, shared) in places() {
        match open_lock(&directory, shared) {
            Ok(file) => return Ok(file),
            Err(errno) => last = errno,
        }
    }
    Err(last)
}

fn places() -> Vec<(PathBuf, bool)> {
    let uid = process::effective_uid();
    let mut places = vec![(PathBuf::from(SHARED), true)];
    if let Some(runtime) = process::environment(c"XDG_RUNTIME_DIR") {
        places.push((Path::new(&runtime).join("mptcpapi"), false));
    }
    places.push((format!("/run/user/{uid}/mptcpapi").into(), false));
    places.push((format!("/tmp/mptcpapi-{uid}").into(), false));
    places.push((format!("/dev/shm/mptcpapi-{uid}").into(), false));
    places
}

fn open_lock(directory: &Path, shared: bool) -> KernelResult<File> {
    let mode = if shared { 0o755 } else { 0o700 };
    match DirBuilder::new().mode(mode).create(directory) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => return Err(Errno::of(&e)),
        _ => {}
    }
    let meta = directory.symlink_metadata().map_err(|e| Errno::of(&e))?;
    let others = meta.permissions().mode() & if shared { 0o002 } else { 0o077 };
    let owner = if shared {
        meta.uid() == 0 || meta.uid() == process::effective_uid()
    } else {
        meta.uid() == process::effective_uid()
    };
    if !meta.is_dir() || others != 0 || !owner {
        return Err(Errno(libc::EPERM));
    }
    // An administrator lets a group in by giving it the directory.
    let file_mode = 0o600 | (meta.permissions().mode() & 0o020) | (meta.permissions().mode() & 0o020) << 1;
    let path = directory.join("latch");
    let open = |create: bool| {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(create)
            .mode(file_mode)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)
    };
    let file = match open(true) {
        Ok(file) => {
            let _ = file.set_permissions(PermissionsExt::from_mode(file_mode));
            file
        }
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => open(false).map_err(|e| Errno::of(&e))?,
        Err(e) => return Err(Errno::of(&e)),
    };
    Ok(file)
}

/// The value of one of MPTCP's sysctls in the calling thread's namespace.
pub fn sysctl(name: &str) -> Option<String> {
    let mut text = String::new();
    File::open(format!("/proc/sys/net/mptcp/{name}")).ok()?.read_to_string(&mut text).ok()?;
    Some(text.trim().to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::{lab, sockopt};
    use super::*;
    use std::os::fd::AsFd;
    use std::sync::Mutex;

    /// One who comes at once, and for whom everybody is too late.
    #[derive(Debug, Default)]
    struct Hasty {
        undone: Mutex<u32>,
    }

    impl Warden for Hasty {
        fn open(&self, undo: Undo, open: &mut dyn FnMut() -> KernelResult<()>) -> Result<u64, Fault> {
            open().map_err(Fault::ReadOnly)?;
            *self.undone.lock().unwrap() += 1;
            undo.undo().map(|()| 0)
        }

        fn close(&self, _: u64) -> Result<(), Fault> {
            Err(Fault::Cut)
        }

        fn name(&self) -> u16 {
            7
        }
    }

    /// The socket's lock can be held by its owner without end, and the lock of
    /// all switches is not held along with it.
    #[test]
    fn whatever_waits_for_a_socket_is_watched() {
        lab::alone(|| {
            let namespace = sockopt::thread_netns().unwrap();
            let warden = Arc::new(Hasty::default());
            let mut latch = Latch::open(namespace).unwrap();
            latch.watch(Arc::clone(&warden) as Arc<dyn Warden>);
            let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
            let socket = sockopt::socket(libc::AF_INET, kind, libc::IPPROTO_MPTCP).unwrap();
            let before = sysctl("path_manager").or(sysctl("pm_type"));
            assert!(matches!(latch.switch(socket.as_fd()), Err(Fault::Cut)));
            assert!(matches!(latch.release(socket.as_fd()), Err(Fault::Cut)));
            assert!(matches!(latch.socket(libc::AF_INET, kind, libc::IPPROTO_MPTCP), Err(Fault::Cut)));
            assert_eq!(*warden.undone.lock().unwrap(), 3);
            assert_eq!(sysctl("path_manager").or(sysctl("pm_type")), before);
            // Where all are, nothing is to be changed for it.
            assert_eq!(latch.hold(), Ok(before.clone()));
            assert!(matches!(latch.switch(socket.as_fd()), Err(Fault::Cut)));
            assert_eq!(*warden.undone.lock().unwrap(), 5);
            assert_eq!(latch.userspace(), Ok(true));
            latch.unhold(&before.unwrap()).unwrap();
        });
    }
}
