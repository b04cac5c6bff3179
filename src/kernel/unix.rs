// SPDX-License-Identifier: MIT OR Apache-2.0
//! Unix sockets that keep message boundaries (SOCK_SEQPACKET) and carry
//! descriptors.

use super::sockopt;
use crate::error::{Errno, KernelResult};
use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

pub use super::sockopt::accept;

/// Most descriptors that the kernel lets one message carry (SCM_MAX_FD).
pub const MAX_FDS: usize = 253;

/// Who is at the other end, as of its connect(2) or listen(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Process, 0 where it is of a namespace that is not seen from here.
    pub pid: i32,
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
}

/// What [`receive`] brought.
#[derive(Debug)]
pub struct Received {
    /// Bytes in the buffer. 0 is the end of the stream; an empty message,
    /// which [`send`] doesn't send, looks the same.
    pub len: usize,
    /// The message was longer than the buffer; the rest is gone.
    pub truncated: bool,
    /// Descriptors that came but found no number free in this process.
    pub fds_lost: bool,
    /// The descriptors that came with it, CLOEXEC, in the sender's order.
    /// Closing one that came from outside can block.
    pub fds: Vec<OwnedFd>,
}

/// A sockaddr_un and its length.
struct Name(libc::sockaddr_un, libc::socklen_t);

impl Name {
    /// A path; where it begins with '@', a name without a file.
    fn new(path: &Path) -> KernelResult<Self> {
        let bytes = path.as_os_str().as_bytes();
        let name_at = std::mem::offset_of!(libc::sockaddr_un, sun_path);
        let mut name = libc::sockaddr_un { sun_family: libc::AF_UNIX as u16, sun_path: [0; 108] };
        let mut len = bytes.len();
        if bytes.first() == Some(&b'@') {
            // A NUL in place of the '@', and none at the end.
            for (slot, byte) in name.sun_path.iter_mut().zip(bytes).skip(1) {
                *slot = *byte as libc::c_char;
            }
        } else {
            if bytes.is_empty() || bytes.contains(&0) {
                return Err(Errno(libc::EINVAL));
            }
            for (slot, byte) in name.sun_path.iter_mut().zip(bytes) {
                *slot = *byte as libc::c_char;
            }
            len += 1;
        }
        if len > name.sun_path.len() {
            return Err(Errno(libc::ENAMETOOLONG));
        }
        Ok(Self(name, (name_at + len) as libc::socklen_t))
    }

    fn connect(&self, socket: BorrowedFd<'_>) -> KernelResult<()> {
        loop {
            // SAFETY: pointer and length describe the sockaddr_un in `self`,
            // which the kernel only reads.
            let rc = unsafe { libc::connect(socket.as_raw_fd(), (&raw const self.0).cast(), self.1) };
            match Errno::last() {
                _ if rc == 0 => return Ok(()),
                Errno(libc::EINTR) => {}
                errno => return Err(errno),
            }
        }
    }

    fn bind(&self, socket: BorrowedFd<'_>) -> KernelResult<()> {
        // SAFETY: as for connect.
        let rc = unsafe { libc::bind(socket.as_raw_fd(), (&raw const self.0).cast(), self.1) };
        if rc == 0 { Ok(()) } else { Err(Errno::last()) }
    }
}

fn socket(kind: i32) -> KernelResult<OwnedFd> {
    sockopt::socket(libc::AF_UNIX, kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0)
}

/// Connects to the socket of this path, or of this name without a file where
/// it begins with '@'. The socket is CLOEXEC, and is and stays non-blocking:
/// EAGAIN where the server has more callers than it takes.
pub fn connect(path: &Path) -> KernelResult<OwnedFd> {
    let socket = socket(libc::SOCK_SEQPACKET)?;
    Name::new(path)?.connect(socket.as_fd())?;
    Ok(socket)
}

/// Whether a socket is connected to the one of this path, or was until that
/// was closed.
pub fn is_connected_to(fd: BorrowedFd<'_>, path: &Path) -> bool {
    let Ok(Name(wanted, len)) = Name::new(path) else { return false };
    let mut peer = libc::sockaddr_un { sun_family: 0, sun_path: [0; 108] };
    let mut peer_len = size_of::<libc::sockaddr_un>() as libc::socklen_t;
    // SAFETY: pointer and length describe `peer`, which the kernel writes.
    let rc = unsafe { libc::getpeername(fd.as_raw_fd(), (&raw mut peer).cast(), &raw mut peer_len) };
    let name_at = std::mem::offset_of!(libc::sockaddr_un, sun_path) as libc::socklen_t;
    let nameless = wanted.sun_path.first() == Some(&0);
    rc == 0
        && peer.sun_family == libc::AF_UNIX as u16
        && peer_len > name_at
        // Without a file the length counts, else the path ends at its NUL.
        && (!nameless || peer_len == len)
        && peer.sun_path == wanted.sun_path
}

/// The same for a socket of datagrams, as systemd's is.
pub fn connect_datagram(path: &Path) -> KernelResult<OwnedFd> {
    let socket = socket(libc::SOCK_DGRAM)?;
    Name::new(path)?.connect(socket.as_fd())?;
    Ok(socket)
}

/// Listens on this path, whose file gets exactly this mode, or on this name
/// without a file where it begins with '@'. A socket file that nobody answers
/// any more is replaced; EADDRINUSE where somebody does, and where the file is
/// no socket. CLOEXEC and non-blocking. A lock file stands beside the path.
pub fn listen(path: &Path, mode: u32) -> KernelResult<OwnedFd> {
    let name = Name::new(path)?;
    let socket = socket(libc::SOCK_SEQPACKET)?;
    if path.as_os_str().as_bytes().starts_with(b"@") {
        name.bind(socket.as_fd())?;
        sockopt::listen(socket.as_fd(), BACKLOG)?;
        return Ok(socket);
    }
    // Two that start together would take each other's socket for a stale one.
    let mut beside = path.as_os_str().to_owned();
    beside.push(".lock");
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(PathBuf::from(beside))
        .map_err(|e| Errno::of(&e))?;
    sockopt::lock_range(&lock, 0, 0, true).map_err(|errno| match errno {
        Errno(libc::EAGAIN | libc::EACCES) => Errno(libc::EADDRINUSE),
        errno => errno,
    })?;
    match name.bind(socket.as_fd()) {
        Err(Errno(libc::EADDRINUSE)) if stale(path)? => {
            fs::remove_file(path).map_err(|e| Errno::of(&e))?;
            name.bind(socket.as_fd())?;
        }
        other => other?,
    }
    // Until it listens nobody gets in, whatever the mode.
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).map_err(|e| Errno::of(&e))?;
    sockopt::listen(socket.as_fd(), BACKLOG)?;
    Ok(socket)
}

/// Takes a name, as [`listen`] does, for nothing but to have it: a socket of
/// datagrams that nobody reads.
pub fn claim(path: &Path) -> KernelResult<OwnedFd> {
    let socket = socket(libc::SOCK_DGRAM)?;
    Name::new(path)?.bind(socket.as_fd())?;
    Ok(socket)
}

const BACKLOG: i32 = 4096;

/// Whether this is a socket file that nobody answers.
fn stale(path: &Path) -> KernelResult<bool> {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.file_type().is_socket() => match connect(path) {
            Err(Errno(libc::ECONNREFUSED)) => Ok(true),
            Ok(_) | Err(Errno(libc::EAGAIN | libc::EPROTOTYPE)) => Ok(false),
            Err(errno) => Err(errno),
        },
        Ok(_) => Ok(false),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(Errno::of(&e)),
    }
}

/// SO_PEERCRED: who connected, or who listens.
pub fn credentials(fd: BorrowedFd<'_>) -> KernelResult<Credentials> {
    let mut bytes = [0u8; 12];
    sockopt::get(fd, libc::SOL_SOCKET, libc::SO_PEERCRED, &mut bytes)?;
    let [p0, p1, p2, p3, u0, u1, u2, u3, g0, g1, g2, g3] = bytes;
    Ok(Credentials {
        pid: i32::from_ne_bytes([p0, p1, p2, p3]),
        uid: u32::from_ne_bytes([u0, u1, u2, u3]),
        gid: u32::from_ne_bytes([g0, g1, g2, g3]),
    })
}

/// Room for control messages: 253 descriptors, and what a socket with
/// SO_PASSCRED, SO_PASSSEC or SO_PASSPIDFD gets besides. Words, since a
/// cmsghdr has their alignment.
type Control = [MaybeUninit<u64>; 256];

const HEADER: usize = control_len(0);

/// CMSG_LEN: header and this many bytes of data.
const fn control_len(data: usize) -> usize {
    // SAFETY: arithmetic only.
    unsafe { libc::CMSG_LEN(data as u32) as usize }
}

const _: () = assert!(size_of::<Control>() >= control_len(4 * MAX_FDS) + 512);

/// Sends one message and, with it, perhaps a descriptor. `bytes` must not be
/// empty (EINVAL). Never SIGPIPE. With `dontwait` EAGAIN where the receiver
/// is behind, as always on a non-blocking socket; EMSGSIZE where the message
/// is more than the socket's buffer.
pub fn send(
    fd: BorrowedFd<'_>,
    bytes: &[u8],
    attached: Option<BorrowedFd<'_>>,
    dontwait: bool,
) -> KernelResult<()> {
    send_all(fd, bytes, attached.as_slice(), dontwait)
}

/// The same with up to [`MAX_FDS`] descriptors, more are EINVAL.
pub fn send_all(
    fd: BorrowedFd<'_>,
    bytes: &[u8],
    attached: &[BorrowedFd<'_>],
    dontwait: bool,
) -> KernelResult<()> {
    if bytes.is_empty() || attached.len() > MAX_FDS {
        return Err(Errno(libc::EINVAL));
    }
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut control: Control = [const { MaybeUninit::zeroed() }; 256];
    // SAFETY: every field of a msghdr is an integer or a pointer.
    let mut message = unsafe { std::mem::zeroed::<libc::msghdr>() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    if !attached.is_empty() {
        let len = control_len(size_of_val(attached));
        let header = control.as_mut_ptr().cast::<libc::cmsghdr>();
        // SAFETY: `control` is aligned for a cmsghdr, zeroed, and has room for
        // one with MAX_FDS descriptors; BorrowedFd is a descriptor's number
        // and nothing else, by its documentation.
        unsafe {
            (*header).cmsg_len = len as _;
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            let data = libc::CMSG_DATA(header).cast::<BorrowedFd<'_>>();
            std::ptr::copy_nonoverlapping(attached.as_ptr(), data, attached.len());
        }
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = len as _;
    }
    let flags = libc::MSG_NOSIGNAL | if dontwait { libc::MSG_DONTWAIT } else { 0 };
    loop {
        // SAFETY: `message` leads to `part`, which describes `bytes`, and to
        // the control message written above; the kernel only reads them.
        let rc = unsafe { libc::sendmsg(fd.as_raw_fd(), &raw const message, flags) };
        match Errno::last() {
            _ if rc >= 0 => return Ok(()),
            Errno(libc::EINTR) => {}
            errno => return Err(errno),
        }
    }
}

/// Receives one message with every descriptor that it carries. With
/// `dontwait` EAGAIN where none is there, as always on a non-blocking socket.
pub fn receive(fd: BorrowedFd<'_>, buffer: &mut [u8], dontwait: bool) -> KernelResult<Received> {
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut control: Control = [const { MaybeUninit::zeroed() }; 256];
    // SAFETY: every field of a msghdr is an integer or a pointer.
    let mut message = unsafe { std::mem::zeroed::<libc::msghdr>() };
    let flags = libc::MSG_CMSG_CLOEXEC | if dontwait { libc::MSG_DONTWAIT } else { 0 };
    let len = loop {
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of::<Control>() as _;
        // SAFETY: `message` leads to `part`, which describes `buffer`, and to
        // `control` with its size: both are ours to write.
        let rc = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut message, flags) };
        match Errno::last() {
            _ if rc >= 0 => break rc as usize,
            Errno(libc::EINTR) => {}
            errno => return Err(errno),
        }
    };
    // SAFETY: `control` was zeroed, so all of it is initialised.
    let control = unsafe { std::slice::from_raw_parts(control.as_ptr().cast::<u8>(), size_of::<Control>()) };
    let written = control.get(..message.msg_controllen as usize).unwrap_or_default();
    let mut fds = Vec::new();
    for (kind, data) in control_messages(written) {
        let numbers =
            data.chunks_exact(4).filter_map(|chunk| Some(RawFd::from_ne_bytes(chunk.try_into().ok()?)));
        // SAFETY: the kernel opened these descriptors for this message, and
        // each number is taken over once.
        let owned = numbers.map(|number| unsafe { OwnedFd::from_raw_fd(number) });
        match kind {
            libc::SCM_RIGHTS => {
                fds.reserve_exact(data.len() / 4);
                fds.extend(owned);
            }
            SCM_PIDFD => owned.for_each(drop),
            _ => {}
        }
    }
    Ok(Received {
        len,
        truncated: message.msg_flags & libc::MSG_TRUNC != 0,
        fds_lost: message.msg_flags & libc::MSG_CTRUNC != 0,
        fds,
    })
}

/// Shuts a connection down and reads away what it has received, as long as no
/// descriptors are in it. True: nothing is left, and closing it waits for
/// nothing.
pub fn drain(fd: BorrowedFd<'_>) -> bool {
    // Nothing can come any more, then.
    // SAFETY: integers only.
    if unsafe { libc::shutdown(fd.as_raw_fd(), libc::SHUT_RDWR) } != 0 {
        return false;
    }
    // Its mark is on every message, also an empty one, and not on the end.
    let marked = sockopt::set_int(fd, libc::SOL_SOCKET, libc::SO_PASSCRED, 1).is_ok();
    for _ in 0..DRAIN_MAX {
        match (marked, look(fd)) {
            (_, Err(Errno(libc::ECONNRESET))) => {}
            (true, Ok((0, false))) => return true,
            // A message: with descriptors, or only with its sender's name?
            (true, Ok(_)) => {
                let unmarked = sockopt::set_int(fd, libc::SOL_SOCKET, libc::SO_PASSCRED, 0).is_ok();
                let plain = unmarked && look(fd).is_ok_and(|(_, attached)| !attached);
                // SAFETY: no buffer; a message is dropped that has no
                // descriptors, which this thread would have to close.
                let dropped = plain
                    && unsafe { libc::recv(fd.as_raw_fd(), std::ptr::null_mut(), 0, libc::MSG_DONTWAIT) }
                        >= 0;
                let again = sockopt::set_int(fd, libc::SOL_SOCKET, libc::SO_PASSCRED, 1).is_ok();
                if !(dropped && again) {
                    return false;
                }
            }
            _ => return false,
        }
    }
    false
}

const DRAIN_MAX: usize = 64;

/// The length of the next message, 0 at the end too, and whether something is
/// attached to it, which stays there.
fn look(fd: BorrowedFd<'_>) -> KernelResult<(usize, bool)> {
    // SAFETY: every field of a msghdr is an integer or a pointer, and nothing
    // is to be written anywhere.
    let mut message = unsafe { std::mem::zeroed::<libc::msghdr>() };
    let flags = libc::MSG_DONTWAIT | libc::MSG_PEEK | libc::MSG_TRUNC;
    // SAFETY: as above.
    let rc = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut message, flags) };
    if rc < 0 { Err(Errno::last()) } else { Ok((rc as usize, message.msg_flags & libc::MSG_CTRUNC != 0)) }
}

/// A pidfd of the sender (6.5), on sockets with SO_PASSPIDFD.
const SCM_PIDFD: i32 = 4;

/// The control messages of level SOL_SOCKET: type and data.
fn control_messages(mut bytes: &[u8]) -> impl Iterator<Item = (i32, &[u8])> {
    std::iter::from_fn(move || {
        loop {
            if bytes.len() < HEADER {
                return None;
            }
            // SAFETY: a whole cmsghdr, of integers, is there.
            let header = unsafe { bytes.as_ptr().cast::<libc::cmsghdr>().read_unaligned() };
            #[allow(clippy::unnecessary_cast, reason = "a socklen_t in musl")]
            let len = header.cmsg_len as usize;
            let data = bytes.get(HEADER..len)?;
            bytes = bytes.get(len.next_multiple_of(size_of::<usize>())..).unwrap_or_default();
            if header.cmsg_level == libc::SOL_SOCKET {
                return Some((header.cmsg_type, data));
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A directory that ends with the test.
    struct Directory(PathBuf);

    impl Directory {
        fn new() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let name =
                format!("mptcpapi-unix-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let path = std::env::temp_dir().join(name);
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn socket(&self) -> PathBuf {
            self.0.join("socket")
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn pair() -> (OwnedFd, OwnedFd) {
        let directory = Directory::new();
        let listener = listen(&directory.socket(), 0o600).unwrap();
        let client = connect(&directory.socket()).unwrap();
        let server = accept(listener.as_fd()).unwrap();
        (client, server)
    }

    fn cloexec(fd: &OwnedFd) -> bool {
        sockopt::fcntl(fd.as_fd(), libc::F_GETFD, 0).unwrap() & libc::FD_CLOEXEC != 0
    }

    #[test]
    fn messages_and_descriptors_arrive_as_sent() {
        let (client, server) = pair();
        let file = fs::File::open("/dev/null").unwrap();
        let inode = sockopt::stat(file.as_fd()).unwrap();
        for count in [0, 1, 2, MAX_FDS] {
            let attached = vec![file.as_fd(); count];
            send_all(client.as_fd(), b"some words", &attached, true).unwrap();
            let mut buffer = [0; 64];
            let got = receive(server.as_fd(), &mut buffer, true).unwrap();
            assert_eq!(&buffer[..got.len], b"some words");
            assert_eq!((got.truncated, got.fds_lost, got.fds.len()), (false, false, count));
            assert_eq!(got.fds.capacity(), count);
            for fd in &got.fds {
                assert!(cloexec(fd));
                assert_eq!(sockopt::stat(fd.as_fd()), Ok(inode));
            }
        }
        send(server.as_fd(), b"back", Some(file.as_fd()), false).unwrap();
        assert_eq!(receive(client.as_fd(), &mut [0; 4], false).unwrap().fds.len(), 1);
        let many = vec![file.as_fd(); MAX_FDS + 1];
        assert_eq!(send_all(client.as_fd(), b"x", &many, true), Err(Errno(libc::EINVAL)));
        assert_eq!(send(client.as_fd(), b"", None, true), Err(Errno(libc::EINVAL)));
    }

    #[test]
    fn credentials_don_t_cost_descriptors() {
        let (client, server) = pair();
        sockopt::set_int(server.as_fd(), libc::SOL_SOCKET, libc::SO_PASSCRED, 1).unwrap();
        const SO_PASSPIDFD: i32 = 76;
        let pidfd = sockopt::set_int(server.as_fd(), libc::SOL_SOCKET, SO_PASSPIDFD, 1);
        let file = fs::File::open("/dev/null").unwrap();
        send_all(client.as_fd(), b"x", &vec![file.as_fd(); MAX_FDS], true).unwrap();
        let got = receive(server.as_fd(), &mut [0; 8], true).unwrap();
        assert_eq!((got.fds.len(), got.fds_lost), (MAX_FDS, false), "{pidfd:?}");
    }

    #[test]
    fn a_longer_message_is_cut_and_its_descriptors_are_kept() {
        let (client, server) = pair();
        let file = fs::File::open("/dev/null").unwrap();
        send(client.as_fd(), &[7; 100], Some(file.as_fd()), true).unwrap();
        send(client.as_fd(), b"next", None, true).unwrap();
        let mut buffer = [0; 10];
        let got = receive(server.as_fd(), &mut buffer, true).unwrap();
        assert_eq!((got.len, got.truncated, got.fds.len(), buffer), (10, true, 1, [7; 10]));
        let got = receive(server.as_fd(), &mut buffer, true).unwrap();
        assert_eq!((got.len, got.truncated), (4, false));
    }

    #[test]
    fn what_can_go_wrong_is_an_errno() {
        let (client, server) = pair();
        let errno = |result: KernelResult<Received>| result.map(drop).unwrap_err();
        assert_eq!(errno(receive(server.as_fd(), &mut [0; 8], true)), Errno(libc::EAGAIN));
        assert_eq!(send(client.as_fd(), &vec![0; 8 << 20], None, true), Err(Errno(libc::EMSGSIZE)));
        let full = std::iter::from_fn(|| Some(send(client.as_fd(), &[0; 4096], None, true))).take(10_000);
        assert_eq!(full.filter_map(Result::err).next(), Some(Errno(libc::EAGAIN)));
        drop(client);
        // Another test's child can have the client's end until it calls exec.
        let next = || {
            sockopt::poll(server.as_fd(), libc::POLLIN, 10_000).unwrap();
            receive(server.as_fd(), &mut [0; 4096], true).unwrap().len
        };
        while next() > 0 {}
        assert_eq!(send(server.as_fd(), b"x", None, true), Err(Errno(libc::EPIPE)));
    }

    #[test]
    fn what_has_descriptors_is_not_drained() {
        let file = fs::File::open("/dev/null").unwrap();
        for (messages, drained) in [
            (vec![], true),
            (vec![0], true),
            (vec![0; 20], true),
            (vec![1], false),
            (vec![0, 0, 1], false),
            (vec![0; DRAIN_MAX], false),
        ] {
            let (client, server) = pair();
            for attached in &messages {
                send_all(client.as_fd(), b"x", &vec![file.as_fd(); *attached], true).unwrap();
            }
            assert_eq!(drain(server.as_fd()), drained, "{messages:?}");
            assert_eq!(send(client.as_fd(), b"x", None, true), Err(Errno(libc::EPIPE)));
        }
        let (client, server) = pair();
        // SAFETY: no bytes are read.
        let empty = || unsafe { libc::send(client.as_raw_fd(), std::ptr::null(), 0, 0) };
        assert_eq!((empty(), empty()), (0, 0));
        send(client.as_fd(), b"x", Some(file.as_fd()), true).unwrap();
        assert!(!drain(server.as_fd()));
        let (client, server) = pair();
        drop(client);
        assert!(drain(server.as_fd()));
        let (client, server) = pair();
        send(server.as_fd(), b"unread", None, true).unwrap();
        send(client.as_fd(), b"x", None, true).unwrap();
        drop(client);
        assert!(drain(server.as_fd()));
    }

    #[test]
    fn no_sigpipe() {
        let (client, server) = pair();
        drop(client);
        // SAFETY: the child sets a signal's default action, sends, and leaves.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: the default action has no handler.
            unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
            let refused = send(server.as_fd(), b"x", None, true) == Err(Errno(libc::EPIPE));
            // SAFETY: ends the child without running the harness's handlers.
            unsafe { libc::_exit(i32::from(!refused)) };
        }
        let mut status = 0;
        // SAFETY: waits for the child just made, writes one int.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert_eq!(status, 0);
    }

    #[test]
    fn the_other_end_is_known() {
        let (client, server) = pair();
        assert!(cloexec(&client) && cloexec(&server));
        assert!(sockopt::nonblocking(client.as_fd()) && sockopt::nonblocking(server.as_fd()));
        for end in [client, server] {
            let who = credentials(end.as_fd()).unwrap();
            // SAFETY: always succeeds.
            let gid = unsafe { libc::getegid() };
            let own = (std::process::id() as i32, super::super::process::effective_uid(), gid);
            assert_eq!((who.pid, who.uid, who.gid), own);
        }
    }

    #[test]
    fn only_a_stale_socket_is_replaced() {
        let directory = Directory::new();
        let path = directory.socket();
        let errno = |result: KernelResult<OwnedFd>| result.map(drop).unwrap_err();
        assert_eq!(errno(connect(&path)), Errno(libc::ENOENT));
        let first = listen(&path, 0o660).unwrap();
        assert!(cloexec(&first));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o660);
        assert_eq!(errno(listen(&path, 0o660)), Errno(libc::EADDRINUSE));
        drop(first);
        assert_eq!(errno(connect(&path)), Errno(libc::ECONNREFUSED));
        let second = listen(&path, 0o666).unwrap();
        let _client = connect(&path).unwrap();
        drop(second);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "").unwrap();
        assert_eq!(errno(listen(&path, 0o660)), Errno(libc::EADDRINUSE));
        assert!(path.exists());
        let long = directory.0.join("x".repeat(120));
        assert_eq!(errno(connect(&long)), Errno(libc::ENAMETOOLONG));
    }

    #[test]
    fn a_full_backlog_is_no_wait_and_still_alive() {
        let directory = Directory::new();
        let path = directory.socket();
        let listener = listen(&path, 0o600).unwrap();
        sockopt::listen(listener.as_fd(), 1).unwrap();
        let waiting: Vec<_> = (0..4).map(|_| connect(&path)).collect();
        let last = waiting.into_iter().filter_map(Result::err).next();
        assert_eq!(last, Some(Errno(libc::EAGAIN)));
        assert_eq!(listen(&path, 0o600).map(drop), Err(Errno(libc::EADDRINUSE)));
    }

    #[test]
    fn of_many_that_start_together_one_listens() {
        let directory = Directory::new();
        let path = directory.socket();
        drop(listen(&path, 0o600).unwrap());
        let all: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| listen(&path, 0o600))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(all.iter().filter(|one| one.is_ok()).count(), 1);
        connect(&path).unwrap();
    }

    #[test]
    fn a_name_needs_no_file() {
        let name = PathBuf::from(format!("@mptcpapi-test-{}", std::process::id()));
        let listener = listen(&name, 0).unwrap();
        let client = connect(&name).unwrap();
        let server = accept(listener.as_fd()).unwrap();
        send(client.as_fd(), b"x", None, true).unwrap();
        assert_eq!(receive(server.as_fd(), &mut [0; 8], true).unwrap().len, 1);
        assert_eq!(listen(&name, 0).map(drop), Err(Errno(libc::EADDRINUSE)));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            control_messages(&bytes).for_each(drop);
        }
    }
}
