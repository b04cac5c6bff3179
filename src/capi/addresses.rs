// SPDX-License-Identifier: MIT OR Apache-2.0
//! Address lists in the manner of RFC 6458 (RFC 6897 appendix A.4).

use super::options::address_count;
use super::types::*;
use super::{allocate, borrowed, boundary, count, fault, release};
use crate::addr;
use crate::connect;
use crate::error::{Error, Result};
use crate::socket::{self, Usage};
use crate::stream::Socket;
use std::ffi::c_int;
use std::net::SocketAddr;

/// The caller's list of `addrcnt` packed addresses.
///
/// # Safety
/// `addrs` leads to that many sockaddr_in or sockaddr_in6, one behind the
/// other by family.
pub(super) unsafe fn list(addrs: *const libc::sockaddr, addrcnt: c_int) -> Result<Vec<SocketAddr>> {
    let number = address_count(addrcnt)?;
    if addrs.is_null() {
        return Err(fault("addrs"));
    }
    let mut at = addrs.cast::<u8>();
    let mut list = Vec::with_capacity(number);
    for _ in 0..number {
        // SAFETY: by the contract an address begins here, and every address
        // begins with its family.
        let family = i32::from(unsafe { at.cast::<u16>().read_unaligned() });
        let len = addr::packed_len(family).ok_or_else(|| {
            Error::new(libc::EAFNOSUPPORT, format!("address family {family} is neither AF_INET nor AF_INET6"))
        })?;
        // SAFETY: an address of this family has `len` bytes.
        let bytes = unsafe { std::slice::from_raw_parts(at, len) };
        list.push(addr::canonical(addr::unpack_one(bytes)?.0));
        // SAFETY: the end of this address is the begin of the next, or one
        // past the end of the list.
        at = unsafe { at.add(len) };
    }
    Ok(list)
}

/// Adds local addresses to a socket's list, or removes them: sctp_bindx(3)'s
/// shape for TCP_MULTIPATH_ADD and TCP_MULTIPATH_REMOVE.
///
/// addrs are addrcnt (1 to 64) sockaddr_in and sockaddr_in6 one behind the
/// other; all or nothing. flags: exactly one of MPTCP_BINDX_ADD_ADDR and
/// MPTCP_BINDX_REM_ADDR; with ADD_ADDR also MPTCP_BINDX_BACKUP,
/// MPTCP_BINDX_NO_ADVERTISE, MPTCP_BINDX_NO_SUBFLOW, which hold for all
/// addresses of the call; the last flags given to an address win, on a live
/// connection too. NO_ADVERTISE with NO_SUBFLOW is EINVAL.
///
/// Returns 0, or -1 and errno: as mptcp_setsockopt(); ENOTCONN where the
/// connection ended meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mptcp_bindx(
    fd: c_int,
    addrs: *const libc::sockaddr,
    addrcnt: c_int,
    flags: c_int,
) -> c_int {
    boundary(|| {
        let socket = Socket::of(borrowed(fd)?)?;
        let usage_bits = MPTCP_BINDX_BACKUP | MPTCP_BINDX_NO_ADVERTISE | MPTCP_BINDX_NO_SUBFLOW;
        let verb = flags & !usage_bits;
        let adds = verb == MPTCP_BINDX_ADD_ADDR;
        if !adds && (verb != MPTCP_BINDX_REM_ADDR || flags & usage_bits != 0) {
            let words = format!(
                "flags {flags:#x}: exactly one of ADD_ADDR and REM_ADDR, the others with ADD_ADDR only"
            );
            return Err(Error::new(libc::EINVAL, words));
        }
        // SAFETY: the caller gives addrcnt packed addresses.
        let list = unsafe { list(addrs, addrcnt)? };
        if adds {
            let usage = Usage {
                backup: flags & MPTCP_BINDX_BACKUP != 0,
                advertise: flags & MPTCP_BINDX_NO_ADVERTISE == 0,
                subflow: flags & MPTCP_BINDX_NO_SUBFLOW == 0,
            };
            socket::add_to(&socket, list, usage)?;
        } else {
            socket::remove_from(&socket, list)?;
        }
        Ok(0)
    })
}

/// Connects to one peer by any of its addresses.
///
/// addrs are addrcnt (1 to 64) packed addresses of *one* peer, by the caller's
/// word: never the several answers of getaddrinfo(3), which can be several
/// hosts (RFC 6897 6.4). A blocking socket tries each in turn until one
/// answers, SO_SNDTIMEO bounds the whole; the others then get subflows as far
/// as can be, which doesn't change the result. A non-blocking one says
/// EINPROGRESS: when it is writable call again with the same list, which
/// returns 0 when connected, EINPROGRESS while it tries the next, EALREADY
/// while an attempt is under way, else the last address's error. After EINTR
/// the attempt goes on: call again. If the socket has a list, its first
/// subflow starts from the list's address that routes to the peer. On a TCP
/// socket: plain TCP, in turn.
///
/// connid may be NULL; it is written with 0 only: the connection's id, 0 when
/// it is plain TCP. Returns 0, or -1 and errno: those of connect(2), of the
/// peer; EISCONN (connected to another); EADDRNOTAVAIL (no address of the list
/// routes to the peer); and those of mptcp_setsockopt().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mptcp_connectx(
    fd: c_int,
    addrs: *const libc::sockaddr,
    addrcnt: c_int,
    connid: *mut u32,
) -> c_int {
    boundary(|| {
        let socket = Socket::of(borrowed(fd)?)?;
        // SAFETY: the caller gives addrcnt packed addresses.
        let list = unsafe { list(addrs, addrcnt)? };
        let id = connect::connect_to(&socket, &list)?;
        if !connid.is_null() {
            // SAFETY: not null; the caller's uint32_t, possibly misaligned.
            unsafe { connid.write_unaligned(id) };
        }
        Ok(0)
    })
}

/// Hands packed addresses to C.
///
/// # Safety
/// `addrs` is not null and can be written.
unsafe fn give(list: &[SocketAddr], addrs: *mut *mut libc::sockaddr) -> Result<c_int> {
    let packed = addr::pack(list);
    let number = count(list.len())?;
    let mut array = std::ptr::null_mut();
    if number > 0 {
        array = allocate(packed.len())?;
        // SAFETY: just allocated with this length.
        unsafe { array.copy_from_nonoverlapping(packed.as_ptr(), packed.len()) };
    }
    // SAFETY: by the contract above.
    unsafe { addrs.write_unaligned(array.cast()) };
    Ok(number)
}

/// Gives a socket's local addresses: its list; without one, before the
/// connection the address it is bound to (if any), on it the distinct local
/// addresses of the established subflows.
///
/// Returns their number and sets *addrs to packed addresses (step with
/// mptcp_getaddrlen()), to be freed by mptcp_freeladdrs(); NULL when there are
/// none. -1 and errno: EBADF, ENOTSOCK, EOPNOTSUPP, EFAULT, ENOMEM.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mptcp_getladdrs(fd: c_int, addrs: *mut *mut libc::sockaddr) -> c_int {
    boundary(|| {
        let fd = borrowed(fd)?;
        Socket::of(fd)?;
        if addrs.is_null() {
            return Err(fault("addrs"));
        }
        // SAFETY: not null; the caller's pointer.
        unsafe { give(&socket::local_addresses(fd)?, addrs) }
    })
}

/// Frees what mptcp_getladdrs() gave. NULL is fine; errno stays.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mptcp_freeladdrs(addrs: *mut libc::sockaddr) {
    // SAFETY: the caller gives what mptcp_getladdrs allocated, or NULL.
    unsafe { release(addrs.cast()) };
}

/// Gives the peer's addresses: the distinct remote addresses of the
/// established subflows, then those that the peer announced, as far as known
/// here.
///
/// As mptcp_getladdrs(), freed by mptcp_freepaddrs(); ENOTCONN before the
/// connection and after its end.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mptcp_getpaddrs(fd: c_int, addrs: *mut *mut libc::sockaddr) -> c_int {
    boundary(|| {
        let fd = borrowed(fd)?;
        Socket::of(fd)?;
        if addrs.is_null() {
            return Err(fault("addrs"));
        }
        // SAFETY: not null; the caller's pointer.
        unsafe { give(&socket::peer_addresses(fd)?, addrs) }
    })
}

/// Frees what mptcp_getpaddrs() gave. NULL is fine; errno stays.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mptcp_freepaddrs(addrs: *mut libc::sockaddr) {
    // SAFETY: the caller gives what mptcp_getpaddrs allocated, or NULL.
    unsafe { release(addrs.cast()) };
}

/// Size of a packed address of this family, 16 (AF_INET) or 28 (AF_INET6):
/// steps through a packed list. -1 and EAFNOSUPPORT for any other.
/// Async-signal-safe.
#[unsafe(no_mangle)]
pub extern "C" fn mptcp_getaddrlen(family: c_int) -> c_int {
    match addr::packed_len(family) {
        Some(len) => len as c_int,
        // By hand, since this may be called from a signal handler.
        None => {
            super::say("the address family is neither AF_INET nor AF_INET6");
            crate::kernel::process::set_errno(libc::EAFNOSUPPORT);
            -1
        }
    }
}
