// SPDX-License-Identifier: MIT OR Apache-2.0
//! Events (RFC 6897 REQ14).
#![allow(non_camel_case_types, reason = "the names are C's")]

use super::types::*;
use super::{borrowed, boundary, count, fault, outside, struct_size, write_struct};
use crate::addr;
use crate::error::Error;
use crate::events::{self, About, Event, Next, Origin, What};
use std::ffi::{c_int, c_void};
use std::net::SocketAddr;
use std::os::fd::IntoRawFd;

/// A further subflow is established.
pub const MPTCP_EV_SUBFLOW_UP: u32 = 0x1;
/// A subflow was closed, refused or given up; error tells why, if known.
pub const MPTCP_EV_SUBFLOW_DOWN: u32 = 0x2;
/// A subflow is for backup, or not any more, by either side's wish.
pub const MPTCP_EV_PRIORITY: u32 = 0x4;
/// The peer announced an address.
pub const MPTCP_EV_PEER_ADDR: u32 = 0x8;
/// The peer withdrew an address.
pub const MPTCP_EV_PEER_ADDR_GONE: u32 = 0x10;
/// The connection is plain TCP now.
pub const MPTCP_EV_FALLBACK: u32 = 0x20;
/// A connection is established; subflow is the initial one.
pub const MPTCP_EV_UP: u32 = 0x40;
/// A connection ended: its last event.
pub const MPTCP_EV_DOWN: u32 = 0x80;
/// A request that was accepted can't be met (yet): a subflow to be made from an
/// address that was ADDed, or opened by hand, was refused.
pub const MPTCP_EV_REQUEST_FAILED: u32 = 0x100;
/// mptcp_subscribe(): every event, those of later versions included.
pub const MPTCP_EV_ALL: u32 = 0x0fffffff;
/// mptcp_subscribe(): first tell what is there, by UP and SUBFLOW_UP.
pub const MPTCP_EV_CURRENT: u32 = 0x40000000;
/// Events were lost in this place: look again. Sent whether asked for or not.
pub const MPTCP_EV_OVERFLOW: u32 = 0x80000000;

/// struct mptcp_event.origin: it can't be told.
pub const MPTCP_ORIGIN_UNKNOWN: u32 = 0;
/// struct mptcp_event.origin: a call of this interface.
pub const MPTCP_ORIGIN_APP: u32 = 1;
/// struct mptcp_event.origin: the library, the broker or the in-kernel path
/// manager, by itself.
pub const MPTCP_ORIGIN_POLICY: u32 = 2;
/// struct mptcp_event.origin: the other end.
pub const MPTCP_ORIGIN_PEER: u32 = 3;
/// struct mptcp_event.origin: the network between, or the loss of an address.
pub const MPTCP_ORIGIN_NETWORK: u32 = 4;

/// One event.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mptcp_event {
    /// One MPTCP_EV_*; those that are not known are to be skipped.
    pub what: u32,
    /// TCP_MULTIPATH_CONNID of the connection; 0 with OVERFLOW.
    pub connid: u32,
    /// CLOCK_MONOTONIC when it was noticed, in nanoseconds.
    pub time_ns: u64,
    /// Zero where there is none; with PEER_ADDR and PEER_ADDR_GONE the remote
    /// address only.
    pub subflow: mptcp_subflow,
    /// errno of a failure, 0 none.
    pub error: i32,
    /// Why the peer reset the subflow (RFC 8684 3.6), 0 not known.
    pub reset_reason: u32,
    /// PEER_ADDR, PEER_ADDR_GONE: the peer's id of the address; else 0.
    pub addr_id: u32,
    /// Interface of the subflow, 0 not known.
    pub ifindex: i32,
    /// MPTCP_ORIGIN_*: who was the cause.
    pub origin: u32,
    /// OVERFLOW: how many were lost, 0 not known.
    pub lost: u32,
    /// Zero.
    pub reserved: [u32; 2],
}

const _: () = {
    assert!(size_of::<mptcp_event>() == 336);
    assert!(std::mem::offset_of!(mptcp_event, time_ns) == 8);
    assert!(std::mem::offset_of!(mptcp_event, subflow) == 16);
    assert!(std::mem::offset_of!(mptcp_event, error) == 304);
    assert!(std::mem::offset_of!(mptcp_event, reserved) == 328);
};

/// What mptcp_dispatch() calls for each event: event is good until it returns,
/// size is sizeof(struct mptcp_event) of the library. Non-zero ends the
/// dispatch.
pub type mptcp_event_fn =
    Option<unsafe extern "C" fn(event: *const mptcp_event, size: usize, arg: *mut c_void) -> c_int>;

/// Gives a descriptor that tells what happens to connections (RFC 6897 REQ14).
///
/// fd is a connection, or a socket still to be connected; or a listener, for
/// every connection accepted from then on; or -1 for all connections that this
/// process has made known to the library. events are MPTCP_EV_* bits, with
/// MPTCP_EV_CURRENT to be told of what is there first; 0: nothing is told, the
/// descriptor only says when the direct backend has work, which
/// mptcp_dispatch(evfd, NULL, NULL) does.
///
/// The descriptor is CLOEXEC and non-blocking, and fits into poll(2), select(2),
/// epoll(7) and io_uring: when it is readable, which may be without reason, call
/// mptcp_nextevent() or mptcp_dispatch(). It is for nothing else but close(2),
/// which is all that is needed to end it. Use it in one process only.
///
/// Returns it, or -1 and errno: EPERM (nobody may act for this process), EINVAL
/// (an unknown bit), EOPNOTSUPP (not Multipath TCP), ENOTCONN (the connection
/// ended), EIO, EDQUOT, EMFILE, ENFILE, ENOMEM, EBADF, ENOTSOCK.
#[unsafe(no_mangle)]
pub extern "C" fn mptcp_subscribe(fd: c_int, events: u32) -> c_int {
    boundary(|| {
        let about = if fd == -1 { About::Process } else { About::Socket(borrowed(fd)?) };
        Ok(events::subscribe(about, events)?.into_raw_fd())
    })
}

/// Gives the next event of a descriptor of mptcp_subscribe()'s; size is
/// sizeof(struct mptcp_event).
///
/// Returns 1; 0 after the last one, when the connection has ended or the
/// descriptor it was about was closed; or -1 and errno: EAGAIN (none now), EIO
/// (once, when the broker has gone: subscribe again, with MPTCP_EV_CURRENT),
/// EINVAL (not a descriptor of mptcp_subscribe()'s, or size under 4), E2BIG
/// (size over 4096), EFAULT, EBADF.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mptcp_nextevent(evfd: c_int, event: *mut mptcp_event, size: usize) -> c_int {
    boundary(|| {
        let fd = borrowed(evfd)?;
        if event.is_null() {
            return Err(fault("event"));
        }
        struct_size(size, size_of::<u32>())?;
        match events::next(fd)? {
            Next::End => Ok(0),
            Next::Nothing => Err(Error::new(libc::EAGAIN, "no event now")),
            Next::Event(next) => {
                // SAFETY: not null, and the caller says that it has `size`
                // bytes; the struct has no padding (its layout is asserted).
                unsafe { write_struct(event.cast(), size, &raw(&next)) };
                Ok(1)
            }
        }
    })
}

/// Does what there is to do for a descriptor of mptcp_subscribe()'s, and calls
/// callback for each event, in the calling thread, until there is none or it
/// returns non-zero. It may call anything, and close evfd if it then returns
/// non-zero; it must not leave by longjmp(3) or an exception.
///
/// With callback NULL no event is taken: the direct backend does what there is
/// to do, which costs next to nothing when that is nothing. Returns how many
/// were called for, or -1 and errno as mptcp_nextevent() but for EAGAIN.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mptcp_dispatch(evfd: c_int, callback: mptcp_event_fn, arg: *mut c_void) -> c_int {
    boundary(|| {
        let fd = borrowed(evfd)?;
        let Some(callback) = callback else {
            return events::serve(fd).map(|()| 0);
        };
        let told = events::dispatch(fd, |event| {
            let event = raw(event);
            // SAFETY: the caller gave a function of this type, and `arg` is for
            // it; the event lives until it returns.
            outside(|| unsafe { callback(&raw const event, size_of::<mptcp_event>(), arg) }) == 0
        })?;
        count(told)
    })
}

/// The event as C sees it.
fn raw(event: &Event) -> mptcp_event {
    mptcp_event {
        what: event.what.bit(),
        connid: event.connection,
        time_ns: u64::try_from(event.time.as_nanos()).unwrap_or(u64::MAX),
        subflow: subflow(event),
        error: event.error,
        reset_reason: event.reset_reason,
        addr_id: event.addr_id.into(),
        ifindex: i32::try_from(event.ifindex).unwrap_or(0),
        origin: match event.origin {
            Origin::Unknown => MPTCP_ORIGIN_UNKNOWN,
            Origin::App => MPTCP_ORIGIN_APP,
            Origin::Policy => MPTCP_ORIGIN_POLICY,
            Origin::Peer => MPTCP_ORIGIN_PEER,
            Origin::Network => MPTCP_ORIGIN_NETWORK,
        },
        lost: event.lost,
        reserved: [0; 2],
    }
}

fn subflow(event: &Event) -> mptcp_subflow {
    // SAFETY: every field is an integer or an array of them.
    let mut subflow = unsafe { std::mem::zeroed::<mptcp_subflow>() };
    let Some(pair) = &event.subflow else { return subflow };
    if let Some(local) = &pair.local {
        subflow.local = storage(local);
    }
    subflow.remote = storage(&pair.remote);
    for (on, bit) in [
        (pair.initial, MPTCP_SUBFLOW_INITIAL),
        (event.what == What::Fallback, MPTCP_SUBFLOW_FALLBACK),
        (pair.priority_known, MPTCP_SUBFLOW_PRIO_KNOWN),
        (pair.backup, MPTCP_SUBFLOW_BACKUP),
        (pair.peer_backup, MPTCP_SUBFLOW_PEER_BACKUP),
    ] {
        if on {
            subflow.flags |= bit;
        }
    }
    subflow
}

fn storage(addr: &SocketAddr) -> libc::sockaddr_storage {
    let (bytes, _) = addr::sockaddr(addr);
    // SAFETY: every field is an integer or an array of them.
    let mut storage = unsafe { std::mem::zeroed::<libc::sockaddr_storage>() };
    // SAFETY: a packed address takes 28 of the 128 bytes.
    unsafe { (&raw mut storage).cast::<[u8; addr::PACKED_MAX]>().write_unaligned(bytes) };
    storage
}
