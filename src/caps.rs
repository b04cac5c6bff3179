// SPDX-License-Identifier: MIT OR Apache-2.0
//! What works here, told beforehand and without changing anything.

use crate::addr::LIST_MAX;
use crate::error::{Error, Result};
use crate::kernel::{diag, sockopt};
use crate::path::{self, Abilities, Backend, Control};
use crate::redundancy;
use crate::stream::{Socket, Stage};
use std::os::fd::{AsFd, BorrowedFd};

/// MPTCP sockets can be made.
pub const ENABLE: u64 = 0x1;
/// Subflows can be listed.
pub const SUBFLOWS: u64 = 0x2;
/// Connections have an identifier.
pub const CONNID: u64 = 0x4;
/// Connections tell numbers.
pub const CONN_STATS: u64 = 0x8;
/// Subflows tell numbers.
pub const SUBFLOW_STATS: u64 = 0x10;
/// Lists before the connection.
pub const ADD_BEFORE: u64 = 0x20;
/// ADD and REMOVE on a connection.
pub const ADD_LIVE: u64 = 0x40;
/// Single subflows can be closed.
pub const CLOSE_SUBFLOW: u64 = 0x80;
/// Lists on listeners.
pub const LISTEN: u64 = 0x100;
/// Addresses for backup only.
pub const BACKUP: u64 = 0x200;
/// Profiles, traffic hints, policies and a number of subflows.
pub const PROFILE: u64 = 0x400;
/// Data can be sent on several paths at once.
pub const REDUNDANCY: u64 = 0x800;
/// Connections can share their initial subflow's fate.
pub const FATE_SHARING: u64 = 0x1000;
/// Connections tell of events.
pub const EVENTS: u64 = 0x2000;
/// bind(2) still works after ADD (Linux 6.8).
pub const LATE_BIND: u64 = 0x4000;

/// The bits that this version can tell.
pub const KNOWN: u64 =
    ENABLE | SUBFLOWS | CONNID | STATS | ADD_BEFORE | LISTEN | LIVE | REDUNDANCY | EVENTS | LATE_BIND;

const STATS: u64 = CONN_STATS | SUBFLOW_STATS;

/// What control of a connection makes possible.
const LIVE: u64 = ADD_LIVE | CLOSE_SUBFLOW | BACKUP | PROFILE | FATE_SHARING;

/// What works, who makes it work, and what is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Bits of this module: works now.
    pub works: u64,
    /// Who acts on paths.
    pub backend: Backend,
    /// Why nobody better does; `None`: nothing is missing.
    pub missing: Option<Error>,
    /// Who decides about this socket's paths.
    pub control: Control,
    /// Subflows of a connection at most, 0 not known.
    pub subflows_max: u32,
    /// Addresses of a list at most.
    pub addrs_max: u32,
}

/// Tells of one socket, or of this host in the calling thread's network
/// namespace. Never changes anything.
pub fn capabilities(fd: Option<BorrowedFd<'_>>) -> Result<Capabilities> {
    let socket = fd.map(Socket::of).transpose()?;
    let stage = match &socket {
        Some(socket) => socket.stage()?,
        None => Stage::Unconnected,
    };
    let probe = sockopt::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, libc::IPPROTO_MPTCP);
    let mut works = 0;
    let mut missing = None;
    match &probe {
        Ok(fresh) => {
            works |= ENABLE;
            if sockopt::info(fresh.as_fd()).is_ok() {
                works |= SUBFLOWS | CONNID | STATS;
            } else if diag::Diag::open().is_ok_and(|mut diag| diag.listeners().is_ok()) {
                works |= SUBFLOWS;
            }
            let no_port = libc::IP_BIND_ADDRESS_NO_PORT;
            if sockopt::set_int(fresh.as_fd(), libc::IPPROTO_IP, no_port, 1).is_ok() {
                works |= LATE_BIND;
            }
        }
        Err(errno) => missing = Some(crate::stream::no_mptcp_socket(*errno)),
    }
    let connected = stage == Stage::Connected;
    let plain =
        socket.as_ref().is_some_and(|s| if connected { sockopt::info(s.fd).is_err() } else { !s.mptcp });
    if connected && plain {
        // The one pair shows, with its numbers; an identifier there is not.
        works = (works & !CONNID) | SUBFLOWS | STATS;
        missing = socket.as_ref().map(Socket::no_mptcp);
    }
    let control = socket.as_ref().map_or_else(path::control, path::control_of);
    let mut found = Capabilities {
        works,
        backend: control.as_ref().map_or(Backend::None, |control| control.backend()),
        missing,
        control: Control::Unknown,
        subflows_max: 0,
        addrs_max: LIST_MAX as u32,
    };
    match control {
        Err(error) => {
            found.missing = found.missing.or(Some(error));
            found.control = unprivileged_control(socket.as_ref());
        }
        Ok(control) => {
            let Abilities { switch, listen } = control.abilities();
            let multipath = probe.is_ok() && !(connected && plain);
            match socket.as_ref().filter(|socket| socket.mptcp).map(|socket| control.control(socket)) {
                Some(Err(error)) => found.missing = found.missing.or(Some(error)),
                known if multipath => {
                    found.control = known.and_then(Result::ok).unwrap_or(Control::Unknown);
                    found.works |= steering(stage, found.control, switch, listen);
                    found.subflows_max = 255;
                    if stage != Stage::Ended && socket.as_ref().is_none_or(|socket| socket.mptcp) {
                        found.works |= EVENTS;
                    }
                }
                _ => {}
            }
        }
    }
    Ok(found)
}

/// What can be done about paths, on a socket this far.
fn steering(stage: Stage, control: Control, switch: bool, listen: bool) -> u64 {
    let mut works = 0;
    match stage {
        Stage::Unconnected | Stage::Connecting => {
            if switch {
                works |= ADD_BEFORE | LIVE;
            }
            if listen {
                works |= LISTEN;
            }
        }
        Stage::Listening if listen => works |= ADD_BEFORE | LIVE | LISTEN,
        Stage::Connected if control == Control::Connection => works |= LIVE,
        // Whoever may act can close one without control of the others.
        Stage::Connected if control == Control::Kernel => works |= CLOSE_SUBFLOW,
        Stage::Listening | Stage::Connected | Stage::Ended => {}
    }
    if works & PROFILE != 0 && redundancy::is_possible() {
        works |= REDUNDANCY;
    }
    works
}

/// MPTCP_INFO shows the in-kernel limits, which are 0 under the userspace path
/// manager (6.18); more can't be told without privilege.
fn unprivileged_control(socket: Option<&Socket<'_>>) -> Control {
    match socket.map(|socket| sockopt::info(socket.fd)) {
        Some(Ok(info)) if info.subflows_max != 0 => Control::Kernel,
        _ => Control::Unknown,
    }
}
