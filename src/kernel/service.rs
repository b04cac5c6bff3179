// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a service needs of systemd (sd_listen_fds(3), sd_notify(3)) and of
//! the kernel to wait for many things with few rights.

use super::unix;
use super::{process, sockopt};
use crate::error::{Errno, KernelResult};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The descriptors that systemd has opened for this process or kept for it,
/// with their names (FileDescriptorName=, FDNAME=), CLOEXEC from now on. The
/// first caller gets them, later ones none.
pub fn listen_fds() -> Vec<(String, OwnedFd)> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let variable = |name| std::env::var(name).unwrap_or_default();
    if variable("LISTEN_PID") != std::process::id().to_string() || TAKEN.swap(true, Ordering::Relaxed) {
        return Vec::new();
    }
    let count: RawFd = variable("LISTEN_FDS").parse().unwrap_or(0);
    let names = variable("LISTEN_FDNAMES");
    // What systemd calls those without a name.
    let names = names.split(':').filter(|_| !names.is_empty()).chain(std::iter::repeat("unknown"));
    let mut fds = Vec::new();
    for (number, name) in (FIRST_FD..FIRST_FD.saturating_add(count.clamp(0, 1 << 16))).zip(names) {
        // SAFETY: F_SETFD takes an integer and touches no memory.
        if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } != 0 {
            continue;
        }
        // SAFETY: the descriptor is open; systemd says in the environment that
        // it is this process's, and TAKEN that it is given away once.
        fds.push((name.to_owned(), unsafe { OwnedFd::from_raw_fd(number) }));
    }
    fds
}

/// SD_LISTEN_FDS_START.
const FIRST_FD: RawFd = 3;

/// Tells systemd what became of the service, such as `READY=1`, or with
/// descriptors `FDSTORE=1\nFDNAME=events`. Where nobody has asked
/// (NOTIFY_SOCKET) nothing happens. Waits a second at most: EAGAIN.
pub fn notify(state: &str, fds: &[BorrowedFd<'_>]) -> KernelResult<()> {
    match std::env::var_os("NOTIFY_SOCKET") {
        Some(address) => notify_at(Path::new(&address), state, fds),
        None => Ok(()),
    }
}

fn notify_at(address: &Path, state: &str, fds: &[BorrowedFd<'_>]) -> KernelResult<()> {
    if !matches!(address.as_os_str().as_bytes().first(), Some(b'/' | b'@')) {
        return Err(Errno(libc::EAFNOSUPPORT));
    }
    let socket = unix::connect_datagram(address)?;
    let end = process::milliseconds() + 1000;
    loop {
        match unix::send_all(socket.as_fd(), state.as_bytes(), fds, true) {
            Err(Errno(libc::EAGAIN)) if process::milliseconds() < end => {
                let left = end.saturating_sub(process::milliseconds());
                let _ = sockopt::poll(socket.as_fd(), libc::POLLOUT, i32::try_from(left).unwrap_or(0));
            }
            other => return other,
        }
    }
}

/// struct __user_cap_header_struct of version 3, for the calling thread.
#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

/// struct __user_cap_data_struct: 32 capabilities.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapabilitySet {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const CAP_NET_ADMIN: u32 = 12;

fn prctl(option: i32, first: libc::c_ulong, second: libc::c_ulong) -> KernelResult<()> {
    let none: libc::c_ulong = 0;
    // SAFETY: the options used here take integers and touch no memory.
    match unsafe { libc::prctl(option, first, second, none, none) } {
        -1 => Err(Errno::last()),
        _ => Ok(()),
    }
}

/// Gives up every capability but CAP_NET_ADMIN, for good and for whatever is
/// started later: EPERM where that one is not there. Counts for the calling
/// thread and those it starts, so it comes before any other thread.
pub fn keep_net_admin_only() -> KernelResult<()> {
    let header = CapabilityHeader { version: 0x2008_0522, pid: 0 };
    let mut sets = [CapabilitySet::default(); 2];
    // SAFETY: version 3 reads the header and writes two sets.
    if unsafe { libc::syscall(libc::SYS_capget, &raw const header, sets.as_mut_ptr()) } != 0 {
        return Err(Errno::last());
    }
    let [low, _] = sets;
    if low.permitted & 1 << CAP_NET_ADMIN == 0 {
        return Err(Errno(libc::EPERM));
    }
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0)?;
    // EPERM without CAP_SETPCAP: then no_new_privs alone does it.
    for capability in (0..64).filter(|one| *one != libc::c_ulong::from(CAP_NET_ADMIN)) {
        if prctl(libc::PR_CAPBSET_DROP, capability, 0).is_err() {
            break;
        }
    }
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong, 0)?;
    let keep = 1 << CAP_NET_ADMIN;
    let sets = [CapabilitySet { effective: keep, permitted: keep, inheritable: 0 }, CapabilitySet::default()];
    // SAFETY: version 3 reads the header and two sets.
    if unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) } != 0 {
        return Err(Errno::last());
    }
    Ok(())
}

/// Keeps all threads to one heap: what one has taken for a moment others can
/// have, and the process stays small. For one that allocates little at a time.
pub fn one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: two numbers.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// What a system call returned: a new descriptor, or errno is set.
///
/// # Safety
/// A descriptor is open and nobody else's.
unsafe fn owned(fd: libc::c_int) -> KernelResult<OwnedFd> {
    if fd < 0 {
        return Err(Errno::last());
    }
    // SAFETY: by the contract above.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Signals as something to wait for (signalfd(2)).
#[derive(Debug)]
pub struct Signals(OwnedFd);

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Signals {
    /// Takes these signals out of the hands of their handlers, in the calling
    /// thread and those it starts; so it comes before any other thread.
    pub fn new(signals: &[libc::c_int]) -> KernelResult<Self> {
        // SAFETY: the set is plain memory that the calls fill and read;
        // signalfd returns a new descriptor.
        unsafe {
            let mut set = std::mem::zeroed::<libc::sigset_t>();
            libc::sigemptyset(&raw mut set);
            for signal in signals {
                if libc::sigaddset(&raw mut set, *signal) != 0 {
                    return Err(Errno::last());
                }
            }
            match libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) {
                0 => owned(libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)),
                errno => Err(Errno(errno)),
            }
        }
        .map(Self)
    }

    /// The next that has come, without waiting.
    pub fn next(&self) -> Option<libc::c_int> {
        let mut bytes = [0u8; size_of::<libc::signalfd_siginfo>()];
        let len = read(self.as_fd(), &mut bytes).ok()?;
        // ssi_signo is the first.
        let number = bytes.get(..len)?.get(..4)?.try_into().ok()?;
        libc::c_int::try_from(u32::from_ne_bytes(number)).ok()
    }
}

fn read(fd: BorrowedFd<'_>, bytes: &mut [u8]) -> KernelResult<usize> {
    loop {
        // SAFETY: pointer and length describe `bytes`, which is ours to write.
        let len = unsafe { libc::read(fd.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len()) };
        match Errno::last() {
            _ if len >= 0 => return Ok(len as usize),
            Errno(libc::EINTR) => {}
            errno => return Err(errno),
        }
    }
}

/// Ends the wait of another thread (eventfd(2)).
#[derive(Debug)]
pub struct Waker(OwnedFd);

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Waker {
    /// Not set.
    pub fn new() -> KernelResult<Self> {
        // SAFETY: takes integers, touches no memory, returns a new descriptor.
        unsafe { owned(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK)) }.map(Self)
    }

    /// Sets it: readable until [`Waker::clear`]. Never waits.
    pub fn wake(&self) {
        let one = 1u64.to_ne_bytes();
        // It fails where 2^64 - 2 have not been cleared: it is set then.
        // SAFETY: pointer and length describe `one`.
        unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Whether it was set; it no longer is.
    pub fn clear(&self) -> bool {
        read(self.as_fd(), &mut [0; 8]).is_ok()
    }
}

/// Waits for many descriptors (epoll(7)).
#[derive(Debug)]
pub struct Epoll(OwnedFd);

/// A descriptor that [`Epoll::wait`] found ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// What it was added under.
    pub key: u64,
    /// EPOLLIN, EPOLLHUP and so on.
    pub events: u32,
}

impl Epoll {
    /// Waits for nothing yet.
    pub fn new() -> KernelResult<Self> {
        // SAFETY: takes an integer, touches no memory, returns a new descriptor.
        unsafe { owned(libc::epoll_create1(libc::EPOLL_CLOEXEC)) }.map(Self)
    }

    fn control(&self, operation: i32, fd: BorrowedFd<'_>, key: u64, events: u32) -> KernelResult<()> {
        let mut event = libc::epoll_event { events, u64: key };
        // SAFETY: the event lives until the call returns, which reads it.
        match unsafe { libc::epoll_ctl(self.0.as_raw_fd(), operation, fd.as_raw_fd(), &raw mut event) } {
            0 => Ok(()),
            _ => Err(Errno::last()),
        }
    }

    /// Waits for these events of a descriptor too, and tells of them under
    /// this key. A descriptor that was passed on or duplicated is not
    /// forgotten with its close: [`Epoll::remove`] it before.
    pub fn add(&self, fd: BorrowedFd<'_>, key: u64, events: i32) -> KernelResult<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, key, events as u32)
    }

    /// Waits for other events of it from now on.
    pub fn change(&self, fd: BorrowedFd<'_>, key: u64, events: i32) -> KernelResult<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, key, events as u32)
    }

    /// Waits for it no longer.
    pub fn remove(&self, fd: BorrowedFd<'_>) -> KernelResult<()> {
        self.control(libc::EPOLL_CTL_DEL, fd, 0, 0)
    }

    /// Waits until something is ready or the time is over, `None` for ever,
    /// and replaces what is in `ready`: nothing after the time and after a
    /// signal. Descriptors beyond the room of one call come first in the next.
    pub fn wait(&self, timeout: Option<Duration>, ready: &mut Vec<Ready>) -> KernelResult<()> {
        const ROOM: usize = 128;
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; ROOM];
        // Rounded up: a wait that ends early is made again and again.
        let timeout = match timeout {
            None => -1,
            Some(time) => i32::try_from(time.as_micros().div_ceil(1000)).unwrap_or(i32::MAX),
        };
        // SAFETY: `events` has ROOM elements, which are ours to write.
        let count =
            unsafe { libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), ROOM as i32, timeout) };
        ready.clear();
        match (count, Errno::last()) {
            (0.., _) => {}
            (_, Errno(libc::EINTR)) => return Ok(()),
            (_, errno) => return Err(errno),
        }
        let found = events.iter().take(count as usize);
        ready.extend(found.map(|event| Ready { key: event.u64, events: event.events }));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// Starts this test program again as a service that systemd started.
    #[test]
    fn descriptors_from_systemd() {
        const CHILD: &str = "MPTCPAPI_TEST_CHILD";
        if std::env::var_os(CHILD).is_some() {
            let fds = listen_fds();
            let found: Vec<_> = fds.iter().map(|(name, fd)| (name.as_str(), fd.as_raw_fd())).collect();
            assert_eq!(found, [("one", 3), ("two", 4), ("unknown", 6)]);
            for (_, fd) in &fds {
                assert_eq!(sockopt::fcntl(fd.as_fd(), libc::F_GETFD, 0), Ok(libc::FD_CLOEXEC));
            }
            assert!(listen_fds().is_empty());
            return;
        }
        assert!(listen_fds().is_empty());
        let script = "exec 3</dev/null 4</dev/zero 5<&- 6</dev/null; LISTEN_PID=$((${1} + $$)) exec \"$0\" \"$2\" --exact";
        for (more, fds) in [("0", "4"), ("1", "4"), ("0", "many"), ("0", "-1")] {
            let output = Command::new("sh")
                .args(["-c", script])
                .arg(std::env::current_exe().unwrap())
                .args([more, "kernel::service::tests::descriptors_from_systemd"])
                .env("LISTEN_FDS", fds)
                .env("LISTEN_FDNAMES", "one:two")
                .env(CHILD, "")
                .output()
                .unwrap();
            let expected = (more, fds) == ("0", "4");
            assert_eq!(output.status.success(), expected, "{}", String::from_utf8_lossy(&output.stdout));
        }
    }

    #[test]
    fn systemd_is_told() {
        let name = format!("@mptcpapi-notify-{}", std::process::id());
        let systemd = std::os::unix::net::UnixDatagram::bind_addr(&{
            use std::os::linux::net::SocketAddrExt;
            std::os::unix::net::SocketAddr::from_abstract_name(&name[1..]).unwrap()
        })
        .unwrap();
        let waker = Waker::new().unwrap();
        notify_at(Path::new(&name), "FDSTORE=1\nFDNAME=events", &[waker.as_fd()]).unwrap();
        let mut buffer = [0; 64];
        let got = unix::receive(systemd.as_fd(), &mut buffer, true).unwrap();
        assert_eq!((&buffer[..got.len], got.fds.len()), (&b"FDSTORE=1\nFDNAME=events"[..], 1));
        assert_eq!(notify_at(Path::new("vsock:2:1"), "READY=1", &[]), Err(Errno(libc::EAFNOSUPPORT)));
        drop(systemd);
        assert_eq!(notify_at(Path::new(&name), "READY=1", &[]), Err(Errno(libc::ECONNREFUSED)));
    }

    #[test]
    fn a_busy_systemd_is_waited_for_a_while() {
        let name = format!("@mptcpapi-busy-{}", std::process::id());
        let systemd = std::os::unix::net::UnixDatagram::bind_addr(&{
            use std::os::linux::net::SocketAddrExt;
            std::os::unix::net::SocketAddr::from_abstract_name(&name[1..]).unwrap()
        })
        .unwrap();
        let tell = || notify_at(Path::new(&name), "READY=1", &[]);
        let refused = (0..10_000).map(|_| tell()).find_map(Result::err);
        assert_eq!(refused, Some(Errno(libc::EAGAIN)));
        std::thread::scope(|scope| {
            let told = scope.spawn(tell);
            unix::receive(systemd.as_fd(), &mut [0; 64], true).unwrap();
            assert_eq!(told.join().unwrap(), Ok(()));
        });
    }

    #[test]
    fn one_capability_is_left() {
        let status = || std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let field = |name: &str| {
            let status = status();
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            u64::from_str_radix(line.trim_start_matches(':').trim(), 16).unwrap()
        };
        let outside = field("CapEff");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                keep_net_admin_only().unwrap();
                for set in ["CapEff", "CapPrm", "CapBnd"] {
                    assert_eq!(field(set), 1 << CAP_NET_ADMIN, "{set}");
                }
                assert_eq!((field("CapInh"), field("CapAmb"), field("NoNewPrivs")), (0, 0, 1));
                super::super::pm::Commands::open().unwrap();
                // Again changes nothing.
                keep_net_admin_only().unwrap();
                // The rest is of no use.
                assert_eq!(nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET), Err(nix::Error::EPERM));
            });
        });
        assert_eq!(field("CapEff"), outside);
    }

    #[test]
    fn signals_wakers_and_sockets_are_waited_for() {
        // On a thread of its own: it goes on with signals blocked.
        std::thread::spawn(|| {
            let signals = Signals::new(&[libc::SIGHUP, libc::SIGTERM]).unwrap();
            let waker = Waker::new().unwrap();
            let epoll = Epoll::new().unwrap();
            epoll.add(signals.as_fd(), 7, libc::EPOLLIN).unwrap();
            epoll.add(waker.as_fd(), u64::MAX, libc::EPOLLIN).unwrap();
            let mut ready = vec![Ready { key: 0, events: 0 }];
            let start = process::milliseconds();
            epoll.wait(Some(Duration::from_micros(2500)), &mut ready).unwrap();
            assert!(ready.is_empty() && process::milliseconds() >= start + 2);
            assert_eq!((signals.next(), waker.clear()), (None, false));
            // SAFETY: a signal that is blocked, to this thread.
            unsafe { libc::pthread_kill(libc::pthread_self(), libc::SIGHUP) };
            waker.wake();
            waker.wake();
            epoll.wait(None, &mut ready).unwrap();
            ready.sort_by_key(|one| one.key);
            let input = libc::EPOLLIN as u32;
            assert_eq!(ready, [Ready { key: 7, events: input }, Ready { key: u64::MAX, events: input }]);
            assert_eq!((signals.next(), signals.next()), (Some(libc::SIGHUP), None));
            assert_eq!((waker.clear(), waker.clear()), (true, false));
            epoll.wait(Some(Duration::ZERO), &mut ready).unwrap();
            assert!(ready.is_empty());
            epoll.change(waker.as_fd(), 8, libc::EPOLLOUT).unwrap();
            epoll.remove(signals.as_fd()).unwrap();
            epoll.wait(None, &mut ready).unwrap();
            assert_eq!(ready, [Ready { key: 8, events: libc::EPOLLOUT as u32 }]);
            assert_eq!(epoll.remove(signals.as_fd()), Err(Errno(libc::ENOENT)));
            assert_eq!(Signals::new(&[0]).map(drop), Err(Errno(libc::EINVAL)));
        })
        .join()
        .unwrap();
    }
}
