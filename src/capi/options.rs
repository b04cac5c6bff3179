// SPDX-License-Identifier: MIT OR Apache-2.0
//! The options of RFC 6897 section 5.3, in the shape of the system calls.

use super::types::*;
use super::{allocate, borrowed, boundary, bytes, count, fault, release};
use crate::addr;
use crate::error::{Error, Result};
use crate::kernel::sockopt;
use crate::socket::{self, Subflow, Usage};
use crate::stream::Socket;
use std::ffi::{c_int, c_void};
use std::net::SocketAddr;

const SUBFLOW: usize = size_of::<mptcp_subflow>();

fn is_ours(level: c_int, optname: c_int) -> bool {
    level == libc::IPPROTO_TCP && (0x689700..=0x6897ff).contains(&optname)
}

fn no_such_option(optname: c_int, way: &str) -> Error {
    Error::new(
        libc::ENOPROTOOPT,
        format!("option {optname:#x} can't be {way} (or this version has none of the name)"),
    )
}

/// setsockopt(2) with the TCP_MULTIPATH_* options besides.
///
/// Level IPPROTO_TCP with a number in 0x689700-0x6897ff is handled here; all
/// else goes to the system call unchanged, with its return and errno. An
/// integer option reads the first four bytes of optval.
///
/// Returns 0, or -1 and errno: EBADF, ENOTSOCK, EOPNOTSUPP (not a stream
/// socket of TCP or MPTCP; no MPTCP, a fallback to TCP, the in-kernel path
/// manager, another network namespace), EFAULT, EINVAL (optlen under 4; a list
/// that is empty, cut short, over 64 entries, or has a wildcard or a link-local
/// address without scope id), ENOPROTOOPT, EISCONN (ENABLE: connected,
/// connecting or listening), EADDRNOTAVAIL, EADDRINUSE, EAFNOSUPPORT, EPERM
/// (nobody may act for this process), EACCES, ENOSPC, ENOTCONN (ADD, REMOVE: the
/// connection ended), E2BIG (a struct with more than this version knows), EIO
/// (another process holds the switch of path managers: try again), ENOMEM,
/// EMFILE, ENFILE, ENOTRECOVERABLE (a bug of ours). On failure nothing was changed; mptcp_errmsg() says why.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mptcp_setsockopt(
    fd: c_int,
    level: c_int,
    optname: c_int,
    optval: *const c_void,
    optlen: libc::socklen_t,
) -> c_int {
    boundary(|| {
        if !is_ours(level, optname) {
            // SAFETY: the caller's arguments, as setsockopt(2) wants them.
            return unsafe { sockopt::set_raw(fd, level, optname, optval.cast(), optlen) }
                .map(|()| 0)
                .map_err(|errno| Error::kernel(errno, "setsockopt"));
        }
        let fd = borrowed(fd)?;
        Socket::of(fd)?;
        match optname {
            TCP_MULTIPATH_ENABLE => {
                if optlen < 4 {
                    return Err(Error::new(libc::EINVAL, "optlen is under 4, the size of an int"));
                }
                // SAFETY: optlen says that there are at least four bytes.
                let value = unsafe { bytes(optval.cast(), 4, "optval")? };
                socket::enable(fd, value.iter().any(|byte| *byte != 0))?;
            }
            TCP_MULTIPATH_ADD | TCP_MULTIPATH_REMOVE => {
                if optlen as usize > addr::LIST_MAX * size_of::<libc::sockaddr_in6>() {
                    let words = format!("optlen {optlen} is more than {} addresses take", addr::LIST_MAX);
                    return Err(Error::new(libc::EINVAL, words));
                }
                // SAFETY: the caller says that optval has optlen bytes.
                let list = addr::unpack(unsafe { bytes(optval.cast(), optlen as usize, "optval")? })?;
                if optname == TCP_MULTIPATH_ADD {
                    socket::add(fd, list, Usage::default())?;
                } else {
                    socket::remove(fd, list)?;
                }
            }
            _ => {
                let option = Advanced::of(optname).ok_or_else(|| no_such_option(optname, "set"))?;
                let size = option.size(optlen as usize)?;
                // SAFETY: the caller says that optval has optlen bytes, and
                // `size` is no more.
                option.set(unsafe { bytes(optval.cast(), size, "optval")? })?;
            }
        }
        Ok(0)
    })
}

/// getsockopt(2) with the TCP_MULTIPATH_* options besides.
///
/// Level IPPROTO_TCP with a number in 0x689700-0x6897ff is handled here; all
/// else goes to the system call unchanged. ENABLE and CONNID need *optlen of 4
/// or more, write four bytes and set *optlen to 4. SUBFLOWS writes all
/// established subflows, 288 bytes each, and sets *optlen to the bytes written;
/// if they don't fit, ENOBUFS, and *optlen is what is needed. optval may be
/// NULL when *optlen is 0.
///
/// Returns 0, or -1 and errno: EBADF, ENOTSOCK, EOPNOTSUPP (not a stream
/// socket of TCP or MPTCP; CONNID of plain TCP; SUBFLOWS before Linux 5.16
/// without inet_diag), EFAULT, EINVAL, ENOPROTOOPT, ENOTCONN (no connection,
/// or it ended), ENOBUFS, E2BIG, ENOMEM, ENOTRECOVERABLE. Needs no privilege.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mptcp_getsockopt(
    fd: c_int,
    level: c_int,
    optname: c_int,
    optval: *mut c_void,
    optlen: *mut libc::socklen_t,
) -> c_int {
    boundary(|| {
        if !is_ours(level, optname) {
            // SAFETY: the caller's arguments, as getsockopt(2) wants them.
            return unsafe { sockopt::get_raw(fd, level, optname, optval.cast(), optlen) }
                .map(|()| 0)
                .map_err(|errno| Error::kernel(errno, "getsockopt"));
        }
        let fd = borrowed(fd)?;
        if optlen.is_null() {
            Socket::of(fd)?;
            return Err(fault("optlen"));
        }
        // SAFETY: not null; the caller's socklen_t, possibly misaligned.
        let room = unsafe { optlen.read_unaligned() } as usize;
        let word = |value: u32| {
            // SAFETY: `number` checked that optval is not null and has room
            // for four bytes; optlen is not null.
            unsafe {
                optval.cast::<u32>().write_unaligned(value);
                optlen.write_unaligned(4);
            }
        };
        let number = || {
            if room < 4 || room > i32::MAX as usize {
                return Err(Error::new(libc::EINVAL, "*optlen is under 4, the size of an int"));
            }
            if optval.is_null() { Err(fault("optval")) } else { Ok(()) }
        };
        match optname {
            TCP_MULTIPATH_ENABLE => {
                let enabled = socket::enabled(fd)?;
                number()?;
                word(u32::from(enabled));
            }
            TCP_MULTIPATH_CONNID => {
                let id = socket::connection_id(fd)?;
                number()?;
                word(id);
            }
            TCP_MULTIPATH_SUBFLOWS => {
                let subflows = socket::subflows(fd)?;
                let needed = subflows.len() * SUBFLOW;
                if needed > room || room > i32::MAX as usize {
                    // SAFETY: not null, as above.
                    unsafe { optlen.write_unaligned(count(needed)? as u32) };
                    let words =
                        format!("{} subflows take {needed} bytes, *optlen says {room}", subflows.len());
                    return Err(Error::new(libc::ENOBUFS, words));
                }
                if optval.is_null() && room != 0 {
                    return Err(fault("optval"));
                }
                // SAFETY: optval has room for `needed` bytes, or that is 0 and
                // it is not used; optlen is not null.
                unsafe {
                    write_subflows(&subflows, optval.cast());
                    optlen.write_unaligned(count(needed)? as u32);
                }
            }
            _ => {
                Socket::of(fd)?;
                let option = Advanced::of(optname).ok_or_else(|| no_such_option(optname, "read"))?;
                let size = option.size(room)?;
                if optval.is_null() {
                    return Err(fault("optval"));
                }
                // SAFETY: optval is not null and has `room` bytes, of which
                // `size` are written; optlen is not null.
                unsafe {
                    optval.cast::<u8>().write_bytes(0, size);
                    if size == 4 {
                        optval.cast::<i32>().write_unaligned(option.default_number());
                    }
                    optlen.write_unaligned(count(size)? as u32);
                }
            }
        }
        Ok(0)
    })
}

/// Gives the established subflows of a connection: TCP_MULTIPATH_SUBFLOWS
/// without a buffer to size.
///
/// Returns their number and sets *subflows to an array of them, to be freed by
/// mptcp_freesubflows(); NULL when there are none just now. A plain TCP
/// connection shows its one pair with MPTCP_SUBFLOW_FALLBACK. -1 and errno:
/// as mptcp_getsockopt(). Needs no privilege and asks the kernel in one system
/// call where it has MPTCP_FULL_INFO (Linux 6.5).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mptcp_getsubflows(fd: c_int, subflows: *mut *mut mptcp_subflow) -> c_int {
    boundary(|| {
        let fd = borrowed(fd)?;
        if subflows.is_null() {
            Socket::of(fd)?;
            return Err(fault("subflows"));
        }
        let found = socket::subflows(fd)?;
        let number = count(found.len())?;
        let mut array = std::ptr::null_mut();
        if number > 0 {
            array = allocate(found.len() * SUBFLOW)?;
            // SAFETY: just allocated with room for all of them.
            unsafe { write_subflows(&found, array) };
        }
        // SAFETY: not null; the caller's pointer, possibly misaligned.
        unsafe { subflows.write_unaligned(array.cast()) };
        Ok(number)
    })
}

/// Frees what mptcp_getsubflows() gave. NULL is fine; errno stays.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mptcp_freesubflows(subflows: *mut mptcp_subflow) {
    // SAFETY: the caller gives what mptcp_getsubflows allocated, or NULL.
    unsafe { release(subflows.cast()) };
}

/// An option of appendix A.3, of which this version has the default: setting
/// that succeeds, anything else is refused, so nobody takes it for granted.
struct Advanced {
    name: &'static str,
    optname: c_int,
    /// sizeof its struct, 4 for an int, and its first field.
    full: usize,
    first: usize,
    /// Greatest value of the first field that has a meaning.
    greatest: u64,
}

const ADVANCED: [Advanced; 6] = {
    const fn of(name: &'static str, optname: c_int, full: usize, first: usize, greatest: u64) -> Advanced {
        Advanced { name, optname, full, first, greatest }
    }
    [
        of("TCP_MULTIPATH_MAX_SUBFLOWS", TCP_MULTIPATH_MAX_SUBFLOWS, 4, 4, 255),
        of("TCP_MULTIPATH_PROFILE", TCP_MULTIPATH_PROFILE, 4, 4, MPTCP_PROFILE_OVERFLOW as u64),
        of("TCP_MULTIPATH_TRAFFIC", TCP_MULTIPATH_TRAFFIC, size_of::<mptcp_traffic>(), 8, u64::MAX),
        of(
            "TCP_MULTIPATH_PATH_POLICY",
            TCP_MULTIPATH_PATH_POLICY,
            size_of::<mptcp_path_policy>(),
            4,
            MPTCP_PATHS_MANUAL as u64,
        ),
        of("TCP_MULTIPATH_REDUNDANCY", TCP_MULTIPATH_REDUNDANCY, 4, 4, MPTCP_REDUNDANCY_FULL as u64),
        of("TCP_MULTIPATH_FATE_SHARING", TCP_MULTIPATH_FATE_SHARING, 4, 4, u32::MAX as u64),
    ]
};

impl Advanced {
    fn of(optname: c_int) -> Option<&'static Self> {
        ADVANCED.iter().find(|option| option.optname == optname)
    }

    /// Bytes that count of the caller's: an int's four, or the struct's size.
    fn size(&self, optlen: usize) -> Result<usize> {
        if self.full == 4 {
            if optlen < 4 || optlen > i32::MAX as usize {
                return Err(Error::new(libc::EINVAL, "optlen is under 4, the size of an int"));
            }
            return Ok(4);
        }
        super::struct_size(optlen, self.first)?;
        Ok(optlen)
    }

    fn default_number(&self) -> i32 {
        if self.optname == TCP_MULTIPATH_MAX_SUBFLOWS { 255 } else { 0 }
    }

    fn set(&self, value: &[u8]) -> Result<()> {
        let (known, rest) = value.split_at(value.len().min(self.full));
        if rest.iter().any(|byte| *byte != 0) {
            return Err(Error::new(
                libc::E2BIG,
                format!("{}: the struct has more than this version knows", self.name),
            ));
        }
        let first = known.iter().take(self.first).enumerate();
        let first = first.fold(0u64, |sum, (at, byte)| {
            let place = if cfg!(target_endian = "little") { at } else { self.first - 1 - at };
            sum | u64::from(*byte) << (8 * place)
        });
        let flags = known.get(28..32).is_some_and(|flags| flags.iter().any(|byte| *byte != 0));
        if first > self.greatest || (self.optname == TCP_MULTIPATH_TRAFFIC && flags) {
            return Err(Error::new(libc::EINVAL, format!("{}: no such value", self.name)));
        }
        if known.iter().any(|byte| *byte != 0) {
            let words = format!("{}: this version of the library has the default only", self.name);
            return Err(Error::new(libc::EOPNOTSUPP, words));
        }
        Ok(())
    }
}

impl mptcp_subflow {
    /// The subflow as C sees it, without the bits of its priority.
    pub(super) fn of(subflow: &Subflow) -> Self {
        let flag = |on: bool, bit: u32| if on { bit } else { 0 };
        Self {
            local: storage(&subflow.local),
            remote: storage(&subflow.remote),
            id: subflow.id,
            flags: flag(subflow.initial, MPTCP_SUBFLOW_INITIAL)
                | flag(subflow.fallback, MPTCP_SUBFLOW_FALLBACK),
            reserved: [0; 6],
        }
    }
}

fn storage(addr: &SocketAddr) -> libc::sockaddr_storage {
    let (bytes, _) = addr::sockaddr(addr);
    // SAFETY: every field is an integer or an array of them.
    let mut storage = unsafe { std::mem::zeroed::<libc::sockaddr_storage>() };
    // SAFETY: a packed address takes 28 of the 128 bytes.
    unsafe { (&raw mut storage).cast::<[u8; addr::PACKED_MAX]>().write_unaligned(bytes) };
    storage
}

/// # Safety
/// `to` has room for all of them.
unsafe fn write_subflows(subflows: &[Subflow], to: *mut u8) {
    let to = to.cast::<mptcp_subflow>();
    for (at, subflow) in subflows.iter().enumerate() {
        // SAFETY: element `at` is within the room that the contract promises.
        unsafe { to.add(at).write_unaligned(mptcp_subflow::of(subflow)) };
    }
}

/// Checks a count of addresses.
pub(super) fn address_count(addrcnt: c_int) -> Result<usize> {
    match usize::try_from(addrcnt) {
        Ok(n) if (1..=addr::LIST_MAX).contains(&n) => Ok(n),
        _ => {
            Err(Error::new(libc::EINVAL, format!("{addrcnt} addresses: a list has 1 to {}", addr::LIST_MAX)))
        }
    }
}
