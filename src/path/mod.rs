// SPDX-License-Identifier: MIT OR Apache-2.0
//! Path control: what an application asks of its own socket's paths, and who
//! can do it.

mod broker;
mod direct;
mod watchers;

use crate::engine::{Entry, Key, Setting, Settings, Time};
use crate::error::{Error, Result};
use crate::events;
use crate::kernel::process;
use crate::manager::Facts;
use crate::stream::Socket;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};

pub use crate::manager::{Control, Start};
pub use broker::SOCKET as BROKER_SOCKET;
pub use direct::touch;

/// Who acts on paths for this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Nobody.
    None,
    /// mptcpapid.
    Broker,
    /// This process itself, with CAP_NET_ADMIN.
    Direct,
}

/// What a backend can do in the calling thread's network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// Unconnected sockets can be put under control.
    pub switch: bool,
    /// Accepted connections are under control.
    pub listen: bool,
}

/// A subflow to be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    /// Canonical, port 0 for any; `None`: any of the list.
    pub local: Option<SocketAddr>,
    /// Canonical, port 0 for the initial one; `None`: the initial peer.
    pub remote: Option<SocketAddr>,
    /// For backup.
    pub backup: bool,
    /// Wait for what becomes of it: ETIMEDOUT, EINTR.
    pub wait: Option<Time>,
}

/// Path control on one socket at a time. Every method may be called from any
/// thread, and does all of what it says or nothing.
pub trait PathControl {
    /// TCP_MULTIPATH_ADD: `entries` have passed [`crate::addr::checked`].
    fn add(&self, socket: &Socket<'_>, entries: Vec<Entry>) -> Result<()>;
    /// TCP_MULTIPATH_REMOVE.
    fn remove(&self, socket: &Socket<'_>, addrs: Vec<SocketAddr>) -> Result<()>;
    /// Brings an unconnected socket that is bound to an address or a device
    /// under the restriction to it; otherwise does nothing.
    fn respect_binding(&self, socket: &Socket<'_>) -> Result<()>;
    /// Makes an unconnected socket ready for connect(2) to the first of these
    /// addresses of one peer; done again before every attempt.
    fn before_connect(&self, socket: &Socket<'_>, peers: &[SocketAddr]) -> Result<Start>;
    /// The socket is connected, by this token; 0: it is plain TCP.
    fn connected(&self, socket: &Socket<'_>, key: Key, token: u32) {
        let _ = (socket, key, token);
    }
    /// The connection attempt failed and the socket was disconnected.
    fn disconnected(&self, socket: &Socket<'_>);
    /// Makes an MPTCP socket that is under control from the start.
    fn make_socket(&self, domain: i32, kind: i32) -> Result<OwnedFd>;
    /// Forgets all that was asked of the socket.
    fn forget(&self, socket: &Socket<'_>);
    /// What is known of the socket; nothing where that takes making state.
    fn facts(&self, socket: &Socket<'_>) -> Facts;
    /// Who decides about this socket's paths. An error says why nothing can be
    /// done about them.
    fn control(&self, socket: &Socket<'_>) -> Result<Control>;
    /// What is in force of the settings; the defaults where that takes making
    /// state.
    fn settings(&self, socket: &Socket<'_>) -> Result<Settings>;
    /// Changes one of them.
    fn set(&self, socket: &Socket<'_>, setting: Setting) -> Result<()>;
    /// mptcp_opensubflow().
    fn open(&self, socket: &Socket<'_>, open: &Open) -> Result<()>;
    /// mptcp_closesubflow(), of a subflow that is up.
    fn close(&self, socket: &Socket<'_>, local: SocketAddr, remote: SocketAddr) -> Result<()>;
    /// mptcp_setbackup(), of a subflow that is up.
    fn pin(&self, socket: &Socket<'_>, local: SocketAddr, remote: SocketAddr, backup: bool) -> Result<()>;
    /// A descriptor that tells of events: of the socket, or of all connections
    /// that this process has made known.
    fn subscribe(&self, socket: Option<&Socket<'_>>, events: u32) -> Result<OwnedFd>;
    /// What can be done here.
    fn abilities(&self) -> Abilities;
    /// Which one this is.
    fn backend(&self) -> Backend;
}

/// The backend that acts for this process: MPTCPAPI_BACKEND names one, else
/// the broker if it answers, else this process itself if it may; the one that
/// has acted before goes on. It is for the calling thread's network namespace.
/// The error says why there is none.
pub fn control() -> Result<&'static dyn PathControl> {
    choose(None)
}

/// The same for a socket, whose network namespace counts.
pub fn control_of(socket: &Socket<'_>) -> Result<&'static dyn PathControl> {
    choose(Some(socket))
}

fn choose(socket: Option<&Socket<'_>>) -> Result<&'static dyn PathControl> {
    let wish = process::environment(c"MPTCPAPI_BACKEND");
    match wish.as_deref() {
        None | Some("" | "auto") => {
            if let Some(direct) = direct::existing() {
                // A call on a socket finds out by itself whether it can act.
                return if socket.is_some() { Ok(direct) } else { direct::available() };
            }
            let no_broker = match broker::available(socket) {
                Ok(broker) => return Ok(broker),
                Err(error) => error,
            };
            direct::available().map_err(|no_privilege| match no_privilege.errno() {
                libc::EPERM => Error::new(no_broker.errno(), format!("{no_broker}; {no_privilege}")),
                _ => no_privilege,
            })
        }
        Some("direct") => match direct::existing().filter(|_| socket.is_some()) {
            Some(direct) => Ok(direct),
            None => direct::available(),
        },
        Some("broker") => broker::available(socket),
        Some("none") => Err(Error::new(libc::EPERM, "MPTCPAPI_BACKEND=none: path control is switched off")),
        Some(other) => Err(Error::new(
            libc::EPERM,
            format!("MPTCPAPI_BACKEND={other:.40}: not one of auto, broker, direct, none"),
        )),
    }
}

/// The backend that can already know of this socket. A query must not make state:
/// but the broker's stays with the socket, across fork and exec.
pub fn existing(socket: &Socket<'_>) -> Option<&'static dyn PathControl> {
    if let Some(direct) = direct::existing() {
        return Some(direct);
    }
    match process::environment(c"MPTCPAPI_BACKEND").as_deref() {
        None | Some("" | "auto" | "broker") => {
            broker::existing().or_else(|| broker::available(Some(socket)).ok())
        }
        _ => None,
    }
}

/// Does what there is to do for a descriptor of [`PathControl::subscribe`]'s.
pub fn serve(fd: BorrowedFd<'_>) -> Result<()> {
    match direct::serve(fd) {
        // The broker does it all.
        Err(error) if error.errno() == libc::EINVAL && broker::is_line(fd) => Ok(()),
        result => result,
    }
}

/// The next event of a descriptor of [`PathControl::subscribe`]'s.
pub fn next_event(fd: BorrowedFd<'_>) -> Result<events::Next> {
    match direct::next_event(fd) {
        Err(error) if error.errno() == libc::EINVAL && broker::is_line(fd) => broker::next_event(fd),
        result => result,
    }
}

/// Nobody was told of the error that [`next_event`] gave.
pub fn untold(fd: BorrowedFd<'_>) {
    if broker::is_line(fd) {
        broker::untold(fd);
    }
}

/// The list of a socket, `None` where it has none.
pub fn list(socket: &Socket<'_>) -> Option<Vec<SocketAddr>> {
    existing(socket)?.facts(socket).list
}

/// The backend whose state is in this process: asking it costs no round trip.
pub fn own() -> Option<&'static dyn PathControl> {
    direct::existing()
}
