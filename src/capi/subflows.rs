// SPDX-License-Identifier: MIT OR Apache-2.0
//! Subflows by hand (RFC 6897 REQ7, REQ11).

use super::stats::named;
use super::types::*;
use super::{borrowed, boundary};
use crate::addr;
use crate::advanced;
use crate::error::{Error, Result};
use crate::stream::Socket;
use std::ffi::c_int;
use std::net::SocketAddr;

/// One packed address of the caller's, `None` for NULL.
///
/// # Safety
/// `at` is null or leads to a sockaddr_in or sockaddr_in6, as its family says.
unsafe fn address(at: *const libc::sockaddr) -> Result<Option<SocketAddr>> {
    if at.is_null() {
        return Ok(None);
    }
    let at = at.cast::<u8>();
    // SAFETY: not null; every address begins with its family.
    let family = i32::from(unsafe { at.cast::<u16>().read_unaligned() });
    let len = addr::packed_len(family).ok_or_else(|| {
        Error::new(libc::EAFNOSUPPORT, format!("address family {family} is neither AF_INET nor AF_INET6"))
    })?;
    // SAFETY: an address of this family has `len` bytes.
    let bytes = unsafe { std::slice::from_raw_parts(at, len) };
    Ok(Some(addr::canonical(addr::unpack_one(bytes)?.0)))
}

/// Opens a subflow of a connection.
///
/// local is a sockaddr_in or sockaddr_in6, port 0 any port; NULL: any address
/// of the list. remote is one too, port 0 the initial subflow's; NULL: where
/// the initial subflow leads. flags: MPTCP_OPEN_BACKUP, MPTCP_OPEN_WAIT.
///
/// 0 means accepted: the subflow is asked for as soon as the connection is
/// fully established, once; what becomes of it is an event, MPTCP_EV_SUBFLOW_UP
/// or MPTCP_EV_REQUEST_FAILED. With MPTCP_OPEN_WAIT, on a blocking socket, the
/// call returns when it is established or refused, after SO_SNDTIMEO at the
/// latest, ten seconds where that is not set.
///
/// Returns 0, or -1 and errno: EBADF, ENOTSOCK, EOPNOTSUPP (no MPTCP, a fallback
/// to TCP, the in-kernel path manager, another network namespace, an older
/// broker), EINVAL (an unknown flag; WAIT on a non-blocking socket; a wildcard,
/// a link-local address without scope id), ENOTCONN, EADDRNOTAVAIL (local is
/// not in the list, or not of this host), EAFNOSUPPORT (unlike families, or one
/// that the socket can't use), ENOSPC (MAX_SUBFLOWS reached), EPERM, EACCES,
/// EDQUOT, EIO, ENOMEM, EMFILE, ENFILE, ENOTRECOVERABLE; with WAIT also
/// ETIMEDOUT, EINTR (the attempt goes on), ECONNREFUSED and what else connect(2)
/// says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mptcp_opensubflow(
    fd: c_int,
    local: *const libc::sockaddr,
    remote: *const libc::sockaddr,
    flags: c_int,
) -> c_int {
    boundary(|| {
        let fd = borrowed(fd)?;
        Socket::of(fd)?;
        if flags & !(MPTCP_OPEN_BACKUP | MPTCP_OPEN_WAIT) != 0 {
            return Err(Error::new(libc::EINVAL, format!("flags {flags:#x}: there is no such flag")));
        }
        // SAFETY: the caller's addresses, or NULL.
        let (local, remote) = unsafe { (address(local)?, address(remote)?) };
        let (backup, wait) = (flags & MPTCP_OPEN_BACKUP != 0, flags & MPTCP_OPEN_WAIT != 0);
        advanced::open_subflow(fd, local, remote, backup, wait)?;
        Ok(0)
    })
}

/// Closes a subflow of a connection; the last one too.
///
/// It is named by its addresses and ports, and by its id where that is not 0.
/// It is not opened again by policy, but by mptcp_opensubflow() or when its
/// local address is ADDed again. Under the in-kernel path manager a subflow can
/// be closed too; the kernel may then open others.
///
/// Returns 0, or -1 and errno: EBADF, ENOTSOCK, EOPNOTSUPP (no MPTCP, a fallback
/// to TCP, another network namespace, an older broker, a kernel without
/// CONFIG_INET_DIAG_DESTROY), EFAULT, EAFNOSUPPORT, ENOTCONN, ENOENT (no such
/// subflow, or no more), EPERM, EDQUOT, EIO, ENOMEM, EMFILE, ENFILE,
/// ENOTRECOVERABLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mptcp_closesubflow(fd: c_int, subflow: *const mptcp_subflow) -> c_int {
    boundary(|| {
        let fd = borrowed(fd)?;
        Socket::of(fd)?;
        // SAFETY: the caller's struct, or NULL.
        let subflow = unsafe { named(subflow)? };
        advanced::close_subflow(fd, &subflow)?;
        Ok(0)
    })
}

/// Makes a subflow one for backup (on is not 0), or not, and tells the peer:
/// neither end then uses it while another is there.
///
/// It is named as for mptcp_closesubflow(). It stays so whatever the list and
/// the profile say. Returns 0, or -1 and errno: as mptcp_closesubflow();
/// EOPNOTSUPP also where the in-kernel path manager has the connection.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mptcp_setbackup(fd: c_int, subflow: *const mptcp_subflow, on: c_int) -> c_int {
    boundary(|| {
        let fd = borrowed(fd)?;
        Socket::of(fd)?;
        // SAFETY: the caller's struct, or NULL.
        let subflow = unsafe { named(subflow)? };
        advanced::set_backup(fd, &subflow, on != 0)?;
        Ok(0)
    })
}
