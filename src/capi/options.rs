// SPDX-License-Identifier: MIT OR Apache-2.0
//! The options of RFC 6897 section 5.3, in the shape of the system calls.

use super::types::*;
use super::{allocate, borrowed, boundary, bytes, count, fault, release};
use crate::addr;
use crate::advanced;
use crate::engine::{Mode, PathPolicy, Profile, Redundancy, Setting, Settings, Traffic};
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
        let socket = Socket::of(fd)?;
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
                    socket::add_to(&socket, list, Usage::default())?;
                } else {
                    socket::remove_from(&socket, list)?;
                }
            }
            _ => {
                let option = Advanced::of(optname).ok_or_else(|| no_such_option(optname, "set"))?;
                let size = option.size(optlen as usize)?;
                // SAFETY: the caller says that optval has optlen bytes, and
                // `size` is no more.
                let setting = option.parse(unsafe { bytes(optval.cast(), size, "optval")? })?;
                advanced::set(fd, setting)?;
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
/// or it ended), ENOBUFS, E2BIG, EIO (the broker went), ENOMEM,
/// ENOTRECOVERABLE. Needs no privilege.
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
                let value = option.write(&advanced::settings(fd)?);
                // SAFETY: optval is not null and has `room` bytes, of which
                // `size` are written, no more of the value than that or all;
                // optlen is not null.
                unsafe {
                    optval.cast::<u8>().write_bytes(0, size);
                    optval.cast::<u8>().copy_from_nonoverlapping(value.as_ptr(), value.len().min(size));
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

/// An option of appendix A.3.
struct Advanced {
    name: &'static str,
    optname: c_int,
    /// sizeof its struct, 4 for an int, and its first field.
    full: usize,
    first: usize,
}

const ADVANCED: [Advanced; 6] = {
    const fn of(name: &'static str, optname: c_int, full: usize, first: usize) -> Advanced {
        Advanced { name, optname, full, first }
    }
    [
        of("TCP_MULTIPATH_MAX_SUBFLOWS", TCP_MULTIPATH_MAX_SUBFLOWS, 4, 4),
        of("TCP_MULTIPATH_PROFILE", TCP_MULTIPATH_PROFILE, 4, 4),
        of("TCP_MULTIPATH_TRAFFIC", TCP_MULTIPATH_TRAFFIC, size_of::<mptcp_traffic>(), 8),
        of("TCP_MULTIPATH_PATH_POLICY", TCP_MULTIPATH_PATH_POLICY, size_of::<mptcp_path_policy>(), 4),
        of("TCP_MULTIPATH_REDUNDANCY", TCP_MULTIPATH_REDUNDANCY, 4, 4),
        of("TCP_MULTIPATH_FATE_SHARING", TCP_MULTIPATH_FATE_SHARING, 4, 4),
    ]
};

const MODES: [Mode; 3] = [Mode::Eager, Mode::OnDemand, Mode::Manual];
const REDUNDANCIES: [Redundancy; 3] = [Redundancy::None, Redundancy::Spare, Redundancy::Full];

/// The place of a value in its numbering.
fn number_of<T: PartialEq>(all: &[T], value: &T) -> u32 {
    all.iter().position(|known| known == value).map_or(0, |at| at as u32)
}

/// The words of a struct, and its bytes again.
fn word(bytes: &[u8], at: usize) -> u32 {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>());
    found.map_or(0, |found| u32::from_ne_bytes(*found))
}

fn long(bytes: &[u8], at: usize) -> u64 {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>());
    found.map_or(0, |found| u64::from_ne_bytes(*found))
}

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

    /// What the caller's bytes say; those that a struct lacks are zero.
    fn parse(&self, value: &[u8]) -> Result<Setting> {
        let (known, rest) = value.split_at(value.len().min(self.full));
        if rest.iter().any(|byte| *byte != 0) {
            return Err(Error::new(
                libc::E2BIG,
                format!("{}: the struct has more than this version knows", self.name),
            ));
        }
        let mut bytes = [0u8; 32];
        if let Some(room) = bytes.get_mut(..known.len()) {
            room.copy_from_slice(known);
        }
        let bytes = &bytes[..];
        let first = word(bytes, 0);
        let none = || Error::new(libc::EINVAL, format!("{}: no such value", self.name));
        let at = first as usize;
        Ok(match self.optname {
            TCP_MULTIPATH_MAX_SUBFLOWS => Setting::MaxSubflows(u8::try_from(first).map_err(|_| none())?),
            TCP_MULTIPATH_PROFILE => Setting::Profile(*Profile::ALL.get(at).ok_or_else(none)?),
            TCP_MULTIPATH_TRAFFIC if word(bytes, 28) != 0 => {
                return Err(Error::new(libc::EINVAL, format!("{}: flags is not 0", self.name)));
            }
            TCP_MULTIPATH_TRAFFIC => Setting::Traffic(Traffic {
                bytes_to_send: long(bytes, 0),
                bytes_to_receive: long(bytes, 8),
                rate: long(bytes, 16),
                duration_ms: word(bytes, 24),
            }),
            TCP_MULTIPATH_PATH_POLICY => Setting::Policy(PathPolicy {
                mode: *MODES.get(at).ok_or_else(none)?,
                after_ms: word(bytes, 4),
                after_bytes: long(bytes, 8),
            }),
            TCP_MULTIPATH_REDUNDANCY => Setting::Redundancy(*REDUNDANCIES.get(at).ok_or_else(none)?),
            _ => Setting::FateSharing(first != 0),
        })
    }

    /// What is in force, as bytes of the full size.
    fn write(&self, settings: &Settings) -> Vec<u8> {
        let int = |value: u32| value.to_ne_bytes().to_vec();
        match self.optname {
            TCP_MULTIPATH_MAX_SUBFLOWS => {
                int(if settings.max_subflows == 0 { 255 } else { settings.max_subflows.into() })
            }
            TCP_MULTIPATH_PROFILE => int(number_of(&Profile::ALL, &settings.profile)),
            TCP_MULTIPATH_TRAFFIC => {
                let Traffic { bytes_to_send, bytes_to_receive, rate, duration_ms } = settings.traffic;
                let longs = [bytes_to_send, bytes_to_receive, rate];
                let mut bytes: Vec<u8> = longs.iter().flat_map(|long| long.to_ne_bytes()).collect();
                bytes.extend(duration_ms.to_ne_bytes());
                bytes.extend([0; 4]);
                bytes
            }
            TCP_MULTIPATH_PATH_POLICY => {
                let PathPolicy { mode, after_ms, after_bytes } = settings.policy;
                let mut bytes = int(number_of(&MODES, &mode));
                bytes.extend(after_ms.to_ne_bytes());
                bytes.extend(after_bytes.to_ne_bytes());
                bytes
            }
            TCP_MULTIPATH_REDUNDANCY => int(number_of(&REDUNDANCIES, &settings.redundancy)),
            _ => int(u32::from(settings.fate_sharing == Some(true))),
        }
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
