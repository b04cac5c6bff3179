// SPDX-License-Identifier: MIT OR Apache-2.0
//! The advanced operations of RFC 6897 (appendix A.3) on a borrowed
//! descriptor: settings, subflows by hand.

use crate::addr;
use crate::connect;
use crate::engine::{Redundancy, Setting, Settings, Time};
use crate::error::{Error, Result};
use crate::kernel::sockopt;
use crate::path::{self, Open};
use crate::pending;
use crate::redundancy;
use crate::socket::{self, Subflow, steerable};
use crate::stream::{Socket, Stage};
use std::net::SocketAddr;
use std::os::fd::AsFd;

/// How long an open waits where SO_SNDTIMEO says nothing.
const WAIT: Time = Time::from_secs(10);

/// What is in force of the settings of a socket: nothing, after a fallback to
/// TCP.
/// [`Settings::fate_sharing`] is always told.
pub fn settings(fd: impl AsFd) -> Result<Settings> {
    let socket = Socket::of(fd.as_fd())?;
    pending::settle(socket.fd);
    path::touch();
    let speaks = socket.mptcp && !socket::enabled(socket.fd).is_ok_and(|enabled| !enabled);
    let known = path::existing(&socket).filter(|_| speaks);
    let settings = known.map_or_else(|| Ok(Settings::default()), |control| control.settings(&socket))?;
    Ok(Settings { fate_sharing: Some(settings.fate_sharing.unwrap_or(false)), ..settings })
}

/// Changes one of the settings of a socket, before its connection or on it; a
/// listener's hold for what it accepts from then on. What is in force already
/// always succeeds. EPERM, EOPNOTSUPP where nothing could act on it.
pub fn set(fd: impl AsFd, setting: Setting) -> Result<()> {
    let socket = Socket::of(fd.as_fd())?;
    let setting = match setting {
        // The greatest number there is.
        Setting::MaxSubflows(u8::MAX) => Setting::MaxSubflows(0),
        other => other,
    };
    let now = settings(socket.fd);
    if now.is_ok_and(|now| now.with(setting) == now) {
        return Ok(());
    }
    let control = steerable(&socket)?;
    if let Setting::Redundancy(wish) = setting
        && wish != Redundancy::None
    {
        redundancy::check(wish)?;
    }
    control.set(&socket, setting)
}

/// Opens a subflow: `local` `None` stands for any address of the list, port 0
/// for any port; `remote` `None` for where the initial subflow leads, port 0
/// for its port. It is made as soon as the connection is fully established, and
/// not tried again by itself; with `wait` the result is what became of it,
/// within SO_SNDTIMEO, else ten seconds.
///
/// EADDRNOTAVAIL: `local` is not in the list, or not of this host; ENOSPC: there
/// are as many subflows as there may be; ENOTCONN; EAFNOSUPPORT; EINVAL: `wait`
/// on a non-blocking socket; with `wait` also the errno of the attempt,
/// ETIMEDOUT and EINTR.
pub fn open_subflow(
    fd: impl AsFd,
    local: Option<SocketAddr>,
    remote: Option<SocketAddr>,
    backup: bool,
    wait: bool,
) -> Result<()> {
    let socket = Socket::of(fd.as_fd())?;
    let local = local.map(checked).transpose()?;
    let remote = remote.map(checked).transpose()?;
    for addr in local.iter().chain(&remote) {
        socket.check_family(addr)?;
    }
    if let (Some(local), Some(remote)) = (&local, &remote)
        && !addr::pair(local, remote)
    {
        let words = format!("{} and {} are of unlike families", local.ip(), remote.ip());
        return Err(Error::new(libc::EAFNOSUPPORT, words));
    }
    if wait && sockopt::nonblocking(socket.fd) {
        return Err(Error::new(libc::EINVAL, "a non-blocking socket waits for nothing: subscribe to events"));
    }
    let wait = wait.then(|| connect::send_timeout(&socket).map_or(WAIT, Time::from_millis));
    connected(&socket)?.open(&socket, &Open { local, remote, backup, wait })
}

fn checked(addr: SocketAddr) -> Result<SocketAddr> {
    let list = addr::checked(vec![addr::canonical(addr)])?;
    list.first().copied().ok_or_else(|| Error::new(libc::EINVAL, "no address"))
}

/// Closes a subflow, the last one too; it is not made again by itself. Works
/// under the in-kernel path manager as well. ENOENT: there is none such (any
/// more); ENOTCONN.
pub fn close_subflow(fd: impl AsFd, subflow: &Subflow) -> Result<()> {
    let socket = Socket::of(fd.as_fd())?;
    let control = connected(&socket)?;
    let (local, remote) = named(&socket, subflow)?;
    control.close(&socket, local, remote)
}

/// Makes a subflow one for backup, or not, and tells the peer: it holds in both
/// directions. ENOENT: there is none such (any more); ENOTCONN.
pub fn set_backup(fd: impl AsFd, subflow: &Subflow, on: bool) -> Result<()> {
    let socket = Socket::of(fd.as_fd())?;
    let control = connected(&socket)?;
    let (local, remote) = named(&socket, subflow)?;
    control.pin(&socket, local, remote, on)
}

/// The backend for a connection.
fn connected(socket: &Socket<'_>) -> Result<&'static dyn path::PathControl> {
    if socket.stage()? != Stage::Connected {
        return Err(socket.not_connected());
    }
    steerable(socket)
}

/// The pair of an established subflow.
fn named(socket: &Socket<'_>, wanted: &Subflow) -> Result<(SocketAddr, SocketAddr)> {
    let (local, remote) = (addr::canonical(wanted.local), addr::canonical(wanted.remote));
    let is = |s: &&Subflow| {
        let id = wanted.id == 0 || s.id == 0 || s.id == wanted.id;
        id && addr::same(&s.local, &local) && addr::same(&s.remote, &remote)
    };
    let subflows = socket::subflows(socket.fd)?;
    let found = subflows.iter().find(is).ok_or_else(|| {
        Error::new(libc::ENOENT, format!("the connection has no subflow {local} - {remote} (any more)"))
    })?;
    Ok((found.local, found.remote))
}
