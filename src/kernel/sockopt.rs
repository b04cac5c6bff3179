// SPDX-License-Identifier: MIT OR Apache-2.0
//! Socket calls: options, names, states, and MPTCP's own listings.

use super::info::{MptcpInfo, TcpInfo};
use super::uapi::*;
use crate::addr;
use crate::error::{Errno, KernelResult};
use socket2::SockRef;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// An address pair of the kernel's list with its state.
#[derive(Clone, Copy, Debug)]
pub struct Listed {
    /// The kernel's number of the subflow, 0 where it has none.
    pub id: u32,
    /// tcp(7) state.
    pub state: u8,
    /// As the kernel names it, IPv4-mapped addresses included.
    pub local: SocketAddr,
    /// As the kernel names it.
    pub remote: SocketAddr,
}

/// Makes a socket by system call, so that no interposed socket() turns it
/// into something else.
pub fn socket(domain: i32, kind: i32, protocol: i32) -> KernelResult<OwnedFd> {
    // SAFETY: socket(2) takes three integers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_socket, domain, kind, protocol) };
    let fd = i32::try_from(fd).map_err(|_| Errno(libc::EIO))?;
    if fd < 0 {
        return Err(Errno::last());
    }
    // SAFETY: the call just returned this descriptor and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn check(rc: libc::c_int) -> KernelResult<libc::c_int> {
    if rc < 0 { Err(Errno::last()) } else { Ok(rc) }
}

/// getsockopt(2) by system call; the length the kernel wrote.
pub fn get(fd: BorrowedFd<'_>, level: i32, name: i32, buffer: &mut [u8]) -> KernelResult<usize> {
    let mut len = libc::socklen_t::try_from(buffer.len()).map_err(|_| Errno(libc::EINVAL))?;
    // SAFETY: pointer and length describe `buffer`, which is ours to write;
    // `len` lives until the call returns.
    let rc = unsafe {
        libc::syscall(libc::SYS_getsockopt, fd.as_raw_fd(), level, name, buffer.as_mut_ptr(), &raw mut len)
    };
    if rc < 0 { Err(Errno::last()) } else { Ok(len as usize) }
}

/// setsockopt(2) by system call.
pub fn set(fd: BorrowedFd<'_>, level: i32, name: i32, value: &[u8]) -> KernelResult<()> {
    // SAFETY: pointer and length describe `value`, which the kernel only reads.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_setsockopt,
            fd.as_raw_fd(),
            level,
            name,
            value.as_ptr(),
            value.len() as libc::socklen_t,
        )
    };
    if rc < 0 { Err(Errno::last()) } else { Ok(()) }
}

/// setsockopt(2) with the caller's own arguments.
///
/// # Safety
/// `value` leads to `len` readable bytes, or to memory that is not there at all
/// (EFAULT).
pub unsafe fn set_raw(fd: i32, level: i32, name: i32, value: *const u8, len: u32) -> KernelResult<()> {
    // SAFETY: by the contract above; the kernel checks everything else.
    let rc = unsafe { libc::syscall(libc::SYS_setsockopt, fd, level, name, value, len) };
    if rc < 0 { Err(Errno::last()) } else { Ok(()) }
}

/// getsockopt(2) with the caller's own arguments.
///
/// # Safety
/// `len` leads to a socklen_t and `value` to as many writable bytes as that
/// says, or they lead to memory that is not there at all (EFAULT).
pub unsafe fn get_raw(fd: i32, level: i32, name: i32, value: *mut u8, len: *mut u32) -> KernelResult<()> {
    // SAFETY: by the contract above; the kernel checks everything else.
    let rc = unsafe { libc::syscall(libc::SYS_getsockopt, fd, level, name, value, len) };
    if rc < 0 { Err(Errno::last()) } else { Ok(()) }
}

/// An integer option.
pub fn get_int(fd: BorrowedFd<'_>, level: i32, name: i32) -> KernelResult<i32> {
    let mut bytes = [0; 4];
    get(fd, level, name, &mut bytes)?;
    Ok(i32::from_ne_bytes(bytes))
}

/// Sets an integer option.
pub fn set_int(fd: BorrowedFd<'_>, level: i32, name: i32, value: i32) -> KernelResult<()> {
    set(fd, level, name, &value.to_ne_bytes())
}

fn get_u64(fd: BorrowedFd<'_>, level: i32, name: i32) -> KernelResult<u64> {
    let mut bytes = [0; 8];
    get(fd, level, name, &mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}

/// SO_COOKIE: names the socket for as long as the machine runs.
pub fn cookie(fd: BorrowedFd<'_>) -> KernelResult<u64> {
    get_u64(fd, libc::SOL_SOCKET, libc::SO_COOKIE)
}

/// SO_NETNS_COOKIE of the socket.
pub fn netns_cookie(fd: BorrowedFd<'_>) -> KernelResult<u64> {
    get_u64(fd, libc::SOL_SOCKET, SO_NETNS_COOKIE)
}

/// Cookie of the calling thread's network namespace.
pub fn thread_netns() -> KernelResult<u64> {
    let probe = socket(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0).or_else(|_| {
        // A service's sandbox may refuse any family but those that path control
        // can't do without (RestrictAddressFamilies=).
        socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_GENERIC)
    })?;
    netns_cookie(probe.as_fd())
}

/// Inode of the descriptor, with its file type bits.
pub fn stat(fd: BorrowedFd<'_>) -> KernelResult<(u64, u32)> {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the kernel writes one struct stat, for which there is room.
    check(unsafe { libc::fstat(fd.as_raw_fd(), stat.as_mut_ptr()) })?;
    // SAFETY: fstat succeeded, so the struct is filled.
    let stat = unsafe { stat.assume_init() };
    Ok((stat.st_ino, stat.st_mode))
}

/// Descriptor and status flags: fcntl(2) without a pointer argument.
pub fn fcntl(fd: BorrowedFd<'_>, command: i32, argument: i32) -> KernelResult<i32> {
    // SAFETY: callers pass commands whose argument is an integer, so no memory
    // is read or written.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), command, argument) })
}

const F_SETOWN_EX: i32 = 15;
const F_GETOWN_EX: i32 = 16;

/// F_GETOWN_EX: who gets the signals of O_ASYNC, as (kind, id).
pub fn owner(fd: BorrowedFd<'_>) -> KernelResult<(i32, i32)> {
    let mut owner = [0i32; 2];
    // SAFETY: F_GETOWN_EX writes a struct f_owner_ex, two ints.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), F_GETOWN_EX, owner.as_mut_ptr()) })?;
    let [kind, id] = owner;
    Ok((kind, id))
}

/// F_SETOWN_EX.
pub fn set_owner(fd: BorrowedFd<'_>, kind: i32, id: i32) -> KernelResult<()> {
    let owner = [kind, id];
    // SAFETY: F_SETOWN_EX reads a struct f_owner_ex, two ints.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), F_SETOWN_EX, owner.as_ptr()) }).map(drop)
}

/// Whether calls on this descriptor don't wait.
pub fn nonblocking(fd: BorrowedFd<'_>) -> bool {
    fcntl(fd, libc::F_GETFL, 0).is_ok_and(|flags| flags & libc::O_NONBLOCK != 0)
}

/// Locks a range of a file, or frees it, without waiting: EAGAIN where
/// somebody else has it. The lock belongs to the open file and ends with it.
pub fn lock_range(file: &impl AsFd, start: u64, len: u64, lock: bool) -> KernelResult<()> {
    let mut range = whole_file();
    range.l_type = if lock { libc::F_WRLCK } else { libc::F_UNLCK } as libc::c_short;
    range.l_start = libc::off_t::try_from(start).map_err(|_| Errno(libc::EOVERFLOW))?;
    range.l_len = libc::off_t::try_from(len).map_err(|_| Errno(libc::EOVERFLOW))?;
    // SAFETY: F_OFD_SETLK reads one struct flock.
    check(unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_OFD_SETLK, &raw const range) }).map(drop)
}

/// Locks a whole file for this process, without waiting: EAGAIN where another
/// has it. The lock ends when this process closes any descriptor of the file,
/// or has ended with all its threads.
pub fn lock_file(file: &impl AsFd) -> KernelResult<()> {
    let mut range = whole_file();
    // SAFETY: F_SETLK reads one struct flock.
    check(unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_SETLK, &raw mut range) }).map(drop)
}

/// The process that has locked a file so, if any; 0 where it can't be seen.
pub fn lock_holder(file: &impl AsFd) -> KernelResult<Option<i32>> {
    let mut range = whole_file();
    // SAFETY: F_GETLK reads and writes one struct flock.
    check(unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_GETLK, &raw mut range) })?;
    Ok((range.l_type != libc::F_UNLCK as libc::c_short).then_some(range.l_pid))
}

fn whole_file() -> libc::flock {
    // SAFETY: every field of struct flock is an integer.
    let mut range = unsafe { std::mem::zeroed::<libc::flock>() };
    range.l_type = libc::F_WRLCK as libc::c_short;
    range.l_whence = libc::SEEK_SET as libc::c_short;
    range
}

/// Puts `from`'s open file under the number of `to`, by system call.
pub fn replace(from: BorrowedFd<'_>, to: BorrowedFd<'_>, cloexec: bool) -> KernelResult<()> {
    let flags = if cloexec { libc::O_CLOEXEC } else { 0 };
    loop {
        // SAFETY: dup3 takes integers. The number of `to` keeps naming an open
        // descriptor throughout, so its owner's claim to it stays true.
        let rc = unsafe { libc::syscall(libc::SYS_dup3, from.as_raw_fd(), to.as_raw_fd(), flags) };
        match Errno::last() {
            _ if rc >= 0 => return Ok(()),
            // EBUSY: a race with open(2) in another thread (dup(2)).
            Errno(libc::EINTR | libc::EBUSY) => {}
            errno => return Err(errno),
        }
    }
}

/// A second descriptor for the same open file.
pub fn duplicate(fd: BorrowedFd<'_>) -> KernelResult<OwnedFd> {
    fd.try_clone_to_owned().map_err(|e| Errno::of(&e))
}

fn of_io<T>(result: std::io::Result<T>) -> KernelResult<T> {
    result.map_err(|error| Errno::of(&error))
}

/// bind(2).
pub fn bind(fd: BorrowedFd<'_>, addr: &SocketAddr) -> KernelResult<()> {
    of_io(SockRef::from(&fd).bind(&(*addr).into()))
}

/// connect(2), once: EINTR and EINPROGRESS are the caller's.
pub fn connect(fd: BorrowedFd<'_>, addr: &SocketAddr) -> KernelResult<()> {
    of_io(SockRef::from(&fd).connect(&(*addr).into()))
}

/// connect(2) to AF_UNSPEC: back to the start, options and binding kept.
pub fn disconnect(fd: BorrowedFd<'_>) -> KernelResult<()> {
    let bytes = [0u8; 16];
    // SAFETY: pointer and length describe `bytes`; family 0 is AF_UNSPEC.
    check(unsafe { libc::connect(fd.as_raw_fd(), bytes.as_ptr().cast(), 16) }).map(drop)
}

/// listen(2).
pub fn listen(fd: BorrowedFd<'_>, backlog: i32) -> KernelResult<()> {
    of_io(SockRef::from(&fd).listen(backlog))
}

/// Takes one waiting connection, never waiting for it; CLOEXEC.
pub fn accept(fd: BorrowedFd<'_>) -> KernelResult<OwnedFd> {
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: null address and length: the kernel writes nothing.
    let new =
        check(unsafe { libc::accept4(fd.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut(), flags) })?;
    // SAFETY: accept4 just returned this descriptor and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(new) })
}

/// getsockname(2), as the socket's family has it.
pub fn sockname(fd: BorrowedFd<'_>) -> KernelResult<SocketAddr> {
    of_io(SockRef::from(&fd).local_addr())?.as_socket().ok_or(Errno(libc::EAFNOSUPPORT))
}

/// getpeername(2), as the socket's family has it.
pub fn peername(fd: BorrowedFd<'_>) -> KernelResult<SocketAddr> {
    of_io(SockRef::from(&fd).peer_addr())?.as_socket().ok_or(Errno(libc::EAFNOSUPPORT))
}

/// What poll(2) says of the descriptor within `timeout_ms`: its event bits, 0
/// after the time. EINTR is the caller's.
pub fn poll(fd: BorrowedFd<'_>, events: i16, timeout_ms: i32) -> KernelResult<i16> {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
    // SAFETY: one pollfd, alive until the call returns.
    check(unsafe { libc::poll(&raw mut poll, 1, timeout_ms) })?;
    Ok(poll.revents)
}

/// Sixteen bytes of MPTCP_INFO: what tells whether there is MPTCP, and on
/// which connection.
#[derive(Clone, Copy, Debug)]
pub struct Info {
    /// Greatest number of further subflows the in-kernel path manager allows;
    /// 0 under the userspace path manager (6.18).
    pub subflows_max: u8,
    /// MPTCP_INFO_FLAG_*.
    pub flags: u32,
    /// The connection's local token, 0 before and after the connection.
    pub token: u32,
}

/// MPTCP_INFO. EOPNOTSUPP or ENOPROTOOPT on anything that is not MPTCP now.
pub fn info(fd: BorrowedFd<'_>) -> KernelResult<Info> {
    let mut bytes = [0u8; 16];
    get(fd, SOL_MPTCP, MPTCP_INFO, &mut bytes)?;
    let [_, _, _, subflows_max, _, _, _, _, f0, f1, f2, f3, t0, t1, t2, t3] = bytes;
    Ok(Info {
        subflows_max,
        flags: u32::from_ne_bytes([f0, f1, f2, f3]),
        token: u32::from_ne_bytes([t0, t1, t2, t3]),
    })
}

/// Subflows that fit on the stack; more cost an allocation.
const INLINE: usize = 8;

const EMPTY: SubflowInfo = SubflowInfo { id: 0, pad: 0, addrs: [0; 256] };

/// Every subflow in creation order, the initial one first, by MPTCP_FULL_INFO:
/// one atomic snapshot in one call (6.5).
pub fn full_info(fd: BorrowedFd<'_>) -> KernelResult<Vec<Listed>> {
    with_full_info(fd, |info, tcp| {
        info.iter().zip(tcp).filter_map(|(sf, [state, ..])| entry(sf.id, &sf.addrs, *state)).collect()
    })
}

/// The same as the kernel wrote it, for the time of `look`: addresses and
/// number, and the first eight bytes of tcp_info, subflow by subflow.
pub fn with_full_info<R>(
    fd: BorrowedFd<'_>,
    look: impl FnOnce(&[SubflowInfo], &[[u8; 8]]) -> R,
) -> KernelResult<R> {
    with_full(fd, FULL_INFO_HEAD, |_, info, tcp| look(info, tcp))
}

/// A connection and its subflows, the initial one first, in numbers.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The connection.
    pub info: MptcpInfo,
    /// Its subflows in every state, in order of creation.
    pub subflows: Vec<(Listed, TcpInfo)>,
}

/// All numbers, by MPTCP_FULL_INFO: one snapshot in one call (6.5).
pub fn full_snapshot(fd: BorrowedFd<'_>) -> KernelResult<Snapshot> {
    with_full::<TCP_INFO_SIZE, _>(fd, size_of::<FullInfo>(), |info, subflows, tcp| Snapshot {
        info: MptcpInfo::parse(info),
        subflows: subflows
            .iter()
            .zip(tcp)
            .filter_map(|(sf, tcp)| {
                let tcp = TcpInfo::parse(tcp);
                Some((entry(sf.id, &sf.addrs, tcp.state)?, tcp))
            })
            .collect(),
    })
}

/// The same from 5.16 to 6.4, by three options.
pub fn snapshot_in_parts(fd: BorrowedFd<'_>) -> KernelResult<Snapshot> {
    let mut bytes = [0; INFO_SIZE];
    let len = get(fd, SOL_MPTCP, MPTCP_INFO, &mut bytes)?;
    let subflows = agreeing::<TCP_INFO_SIZE>(fd)?;
    Ok(Snapshot {
        info: MptcpInfo::parse(bytes.get(..len).unwrap_or_default()),
        subflows: subflows
            .iter()
            .filter_map(|(addrs, tcp)| {
                let tcp = TcpInfo::parse(tcp);
                Some((entry(0, addrs, tcp.state)?, tcp))
            })
            .collect(),
    })
}

/// TCP_INFO: the numbers of a TCP socket, or of an MPTCP one that fell back.
pub fn tcp_info(fd: BorrowedFd<'_>) -> KernelResult<TcpInfo> {
    let mut bytes = [0; TCP_INFO_SIZE];
    let len = get(fd, libc::IPPROTO_TCP, libc::TCP_INFO, &mut bytes)?;
    Ok(TcpInfo::parse(bytes.get(..len).unwrap_or_default()))
}

/// MPTCP_FULL_INFO with `len` bytes of its struct and N of each tcp_info:
/// `look` gets struct mptcp_info as far as the kernel has it, and both arrays.
fn with_full<const N: usize, R>(
    fd: BorrowedFd<'_>,
    len: usize,
    look: impl FnOnce(&[u8], &[SubflowInfo], &[[u8; N]]) -> R,
) -> KernelResult<R> {
    // Zeroed: tools that follow memory don't see the kernel write through the
    // pointers of the request.
    let mut info = [EMPTY; INLINE];
    let mut tcp = [[0u8; N]; INLINE];
    // SAFETY: both arrays have INLINE elements.
    let whole = unsafe { full_info_into(fd, len, info.as_mut_ptr(), tcp.as_mut_ptr(), INLINE)? };
    if whole.count <= INLINE {
        let (info, tcp) = (info.get(..whole.count), tcp.get(..whole.count));
        return Ok(look(whole.info(), info.unwrap_or_default(), tcp.unwrap_or_default()));
    }
    let mut room = whole.count;
    loop {
        // One more than needed, so that growth shows.
        room = room.saturating_add(1).min(1 << 16);
        let mut info = try_vec(EMPTY, room)?;
        let mut tcp = try_vec([0u8; N], room)?;
        // SAFETY: both vectors have `room` elements.
        let whole = unsafe { full_info_into(fd, len, info.as_mut_ptr(), tcp.as_mut_ptr(), room)? };
        if whole.count <= room || room == 1 << 16 {
            let count = whole.count.min(room);
            let (info, tcp) = (info.get(..count), tcp.get(..count));
            return Ok(look(whole.info(), info.unwrap_or_default(), tcp.unwrap_or_default()));
        }
        room = whole.count;
    }
}

fn try_vec<T: Clone>(value: T, len: usize) -> KernelResult<Vec<T>> {
    let mut vec = Vec::new();
    vec.try_reserve_exact(len).map_err(|_| Errno(libc::ENOMEM))?;
    vec.resize(len, value);
    Ok(vec)
}

/// One entry. `None` where the kernel shows no addresses.
pub fn entry(id: u32, addrs: &SubflowAddrs, state: u8) -> Option<Listed> {
    let (local, remote) = addrs.split_at(128);
    Some(Listed { id, state, local: addr::from_sockaddr(local)?, remote: addr::from_sockaddr(remote)? })
}

/// What MPTCP_FULL_INFO gave besides its arrays.
struct Whole {
    /// Subflows there are, also where the arrays have room for fewer.
    count: usize,
    info: [u8; INFO_SIZE],
    /// Bytes of `info` that the kernel has.
    known: usize,
}

impl Whole {
    fn info(&self) -> &[u8] {
        self.info.get(..self.known).unwrap_or_default()
    }
}

/// # Safety
/// `info` and `tcp` lead to `room` writable elements each.
unsafe fn full_info_into<const N: usize>(
    fd: BorrowedFd<'_>,
    len: usize,
    info: *mut SubflowInfo,
    tcp: *mut [u8; N],
    room: usize,
) -> KernelResult<Whole> {
    let mut request = FullInfo {
        size_tcpinfo_kernel: 0,
        size_tcpinfo_user: N as u32,
        size_sfinfo_kernel: 0,
        size_sfinfo_user: size_of::<SubflowInfo>() as u32,
        num_subflows: 0,
        size_arrays_user: u32::try_from(room).map_err(|_| Errno(libc::ENOMEM))?,
        subflow_info: info as u64,
        tcp_info: tcp as u64,
        info: [0; INFO_SIZE],
    };
    let mut len = len.min(size_of::<FullInfo>()) as libc::socklen_t;
    // SAFETY: the struct has at least the length given; the two pointers in it
    // lead, by the contract above, to `room` elements of the sizes named, and
    // the kernel writes at most the smaller of its element size and ours into
    // each. Every bit pattern is a valid value of the elements.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_getsockopt,
            fd.as_raw_fd(),
            SOL_MPTCP,
            MPTCP_FULL_INFO,
            &raw mut request,
            &raw mut len,
        )
    };
    if rc < 0 {
        return Err(Errno::last());
    }
    if request.size_sfinfo_user as usize != size_of::<SubflowInfo>()
        || request.size_tcpinfo_user as usize != N
    {
        return Err(Errno(libc::EPROTO));
    }
    Ok(Whole {
        count: request.num_subflows as usize,
        info: request.info,
        known: (len as usize).saturating_sub(FULL_INFO_HEAD),
    })
}

/// The kernel's number of the first subflow, `None` where there is no entry.
pub fn first_id(fd: BorrowedFd<'_>) -> Option<u32> {
    with_full_info(fd, |info, _| info.first().map(|first| first.id)).ok().flatten()
}

/// All subflows by two options (5.16 to 6.4).
pub fn two_calls(fd: BorrowedFd<'_>) -> KernelResult<Vec<Listed>> {
    let pairs = agreeing::<8>(fd)?;
    Ok(pairs
        .iter()
        .filter_map(|(addrs, tcp)| entry(0, addrs, tcp.first().copied().unwrap_or(TCP_CLOSE)))
        .collect())
}

/// Addresses and N bytes of tcp_info, less where the kernel has less: asked
/// for until the addresses are the same before and after the rest was read.
fn agreeing<const N: usize>(fd: BorrowedFd<'_>) -> KernelResult<Vec<(SubflowAddrs, Vec<u8>)>> {
    const SIZE: usize = size_of::<SubflowAddrs>();
    let mut before = array(fd, MPTCP_SUBFLOW_ADDRS, SIZE)?;
    for _ in 0..16 {
        let tcp = array(fd, MPTCP_TCPINFO, N)?;
        let after = array(fd, MPTCP_SUBFLOW_ADDRS, SIZE)?;
        if tcp.len() == after.len() && before == after {
            let addrs = after.into_iter().filter_map(|bytes| bytes.try_into().ok());
            return Ok(addrs.zip(tcp).collect());
        }
        before = after;
    }
    Err(Errno(libc::EAGAIN))
}

/// MPTCP_TCPINFO or MPTCP_SUBFLOW_ADDRS, `size` bytes of each element, less
/// where the kernel's are shorter.
fn array(fd: BorrowedFd<'_>, name: i32, size: usize) -> KernelResult<Vec<Vec<u8>>> {
    const HEADER: usize = size_of::<SubflowData>();
    let mut room = INLINE;
    loop {
        let mut buffer = try_vec(0u8, HEADER + room * size)?;
        let words = [HEADER as u32, 0, 0, size as u32];
        for (slot, word) in buffer.chunks_exact_mut(4).zip(words) {
            slot.copy_from_slice(&word.to_ne_bytes());
        }
        get(fd, SOL_MPTCP, name, &mut buffer)?;
        let (header, elements) = buffer.split_at(HEADER);
        let word = |k: usize| {
            let bytes = header.get(4 * k..4 * k + 4).and_then(|b| b.try_into().ok());
            bytes.map_or(0, u32::from_ne_bytes) as usize
        };
        let (count, stride) = (word(1), word(3));
        if count > room {
            room = count + 1;
            continue;
        }
        if stride == 0 {
            return Ok(Vec::new());
        }
        return Ok(elements.chunks_exact(stride).take(count).map(<[u8]>::to_vec).collect());
    }
}

/// SO_GET_FILTER: whether any filter is attached to the socket.
pub fn has_filter(fd: BorrowedFd<'_>) -> bool {
    // Length 0 asks for the number of instructions; EACCES is a filter whose
    // program can't be shown.
    let mut len: u32 = 0;
    let null = std::ptr::null_mut();
    // SAFETY: `len` is ours, and with length 0 nothing is written.
    match unsafe { get_raw(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, null, &raw mut len) } {
        Ok(()) => len != 0,
        Err(errno) => errno == Errno(libc::EACCES),
    }
}
