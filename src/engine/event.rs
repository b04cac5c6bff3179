// SPDX-License-Identifier: MIT OR Apache-2.0
//! What goes into the engine and what comes out.

use super::connection::{Device, Entry};
use super::endpoints::{Endpoint, Limits};
use super::judge::Facts;
use super::saved::Saved;
use super::settings::Setting;
use crate::error::Result;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU64;

/// Monotonic time since a moment of the owner's choice.
pub type Time = std::time::Duration;

/// Names a request in its answer.
pub type RequestId = u64;

/// Names a connection inside the engine; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle(pub(super) NonZeroU64);

/// Identity of a socket: accepted sockets share their listener's cookie, so
/// the inode belongs to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// SO_COOKIE.
    pub cookie: u64,
    /// Inode of the descriptor, 0 where there is none yet.
    pub inode: u64,
}

/// A subflow as the kernel reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// As the kernel names it.
    pub local: SocketAddr,
    /// As the kernel names it.
    pub remote: SocketAddr,
    /// MPTCP address id.
    pub local_id: u8,
    /// MPTCP address id.
    pub remote_id: u8,
    /// Established, not only asked for.
    pub up: bool,
    /// The connection's first.
    pub initial: bool,
    /// This end has asked for backup, where that was looked up.
    pub backup: Option<bool>,
}

/// What an application asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Allow, use and advertise these addresses.
    Add(Vec<Entry>),
    /// Stop using these; `patience`: how long to wait for alternatives.
    Remove {
        /// Canonical; port 0 names every port.
        addrs: Vec<SocketAddr>,
        /// From now.
        patience: Time,
    },
    /// Change one of the settings.
    Set(Setting),
    /// Open a subflow by hand, as soon as that can be: queued, and not tried
    /// again where it fails.
    Open {
        /// Canonical, port 0 for any; `None`: any of the list.
        local: Option<SocketAddr>,
        /// Canonical, port 0 for the initial one; `None`: where the initial
        /// subflow leads.
        remote: Option<SocketAddr>,
        /// For backup.
        backup: bool,
        /// The answer is what becomes of it, for so long; `None`: that it is
        /// accepted.
        wait: Option<Time>,
    },
    /// Close a subflow by hand: it isn't made again by itself.
    Close {
        /// Canonical.
        local: SocketAddr,
        /// Canonical.
        remote: SocketAddr,
    },
    /// Set a subflow's priority by hand.
    Pin {
        /// Canonical.
        local: SocketAddr,
        /// Canonical.
        remote: SocketAddr,
        /// For backup.
        backup: bool,
    },
}

/// What goes in.
#[derive(Clone, Debug)]
pub enum Event {
    /// What holds for a socket's [`Settings::fate_sharing`] where nothing is
    /// said; makes it known.
    ///
    /// [`Settings::fate_sharing`]: super::Settings::fate_sharing
    FateSharing {
        /// The socket.
        key: Key,
        /// It ends with its initial subflow.
        on: bool,
    },
    /// What an unconnected or listening socket is bound to; makes it known. A
    /// connection that nobody claimed is claimed by it, and restricted to this.
    Binding {
        /// The socket.
        key: Key,
        /// The specific address the application bound it to.
        bound: Option<SocketAddr>,
        /// The device the application bound it to.
        device: Option<Device>,
    },
    /// Further addresses of the peer, by the application's word.
    PeerAddresses {
        /// The socket.
        key: Key,
        /// Canonical.
        addrs: Vec<SocketAddr>,
    },
    /// A request; answered by [`Notice::Answer`].
    Request {
        /// Chosen by the owner.
        id: RequestId,
        /// The socket, which the engine must know.
        key: Key,
        /// What.
        request: Request,
    },
    /// The socket is gone, or starts afresh.
    Forget {
        /// The socket.
        key: Key,
    },
    /// A connection began. One that the engine does not know is ignored, unless
    /// its listener is known or [`Event::Endpoints`] says otherwise.
    Created {
        /// The kernel's token.
        token: u32,
        /// The socket.
        key: Key,
        /// The initial subflow.
        initial: Seen,
        /// This end accepted it.
        server: bool,
    },
    /// It is fully established.
    Established {
        /// The kernel's token.
        token: u32,
    },
    /// The application closed it.
    Closed {
        /// The kernel's token.
        token: u32,
    },
    /// The peer announced an address.
    Announced {
        /// The kernel's token.
        token: u32,
        /// The peer's id.
        id: u8,
        /// Canonical or mapped.
        addr: SocketAddr,
    },
    /// The peer withdrew an address.
    Withdrawn {
        /// The kernel's token.
        token: u32,
        /// The peer's id.
        id: u8,
    },
    /// A subflow answered.
    SubflowUp {
        /// The kernel's token.
        token: u32,
        /// Which.
        subflow: Seen,
    },
    /// A subflow that was asked for as backup is none.
    NotBackup {
        /// The kernel's token.
        token: u32,
        /// As the kernel names it.
        local: SocketAddr,
        /// As the kernel names it.
        remote: SocketAddr,
    },
    /// A subflow ended or never came to be.
    SubflowDown {
        /// The kernel's token.
        token: u32,
        /// As the kernel names it.
        local: SocketAddr,
        /// As the kernel names it.
        remote: SocketAddr,
        /// errno of its failure, 0 none.
        error: i32,
    },
    /// All subflows as they are now, in order of creation. Whoever looked at
    /// them before [`super::Connection::heard`] grew must look again.
    Snapshot {
        /// The kernel's token.
        token: u32,
        /// The socket: makes a connection known that is not yet.
        key: Key,
        /// This end accepted it.
        server: bool,
        /// The initial pair, also where that subflow is gone.
        initial: (SocketAddr, SocketAddr),
        /// It is known to be fully established.
        ready: bool,
        /// All that there are.
        subflows: Vec<Seen>,
    },
    /// A command's outcome.
    Done {
        /// The command.
        tag: u64,
        /// What became of it.
        outcome: Outcome,
    },
    /// The answer to [`Action::Route`].
    Routed {
        /// The command.
        tag: u64,
        /// The local address that routing chooses, `None` where there is none.
        local: Option<SocketAddr>,
    },
    /// The answer to [`Action::Watch`].
    Watched {
        /// The command.
        tag: u64,
        /// What the kernel says, `None` where it has no such subflow.
        facts: Option<Facts>,
    },
    /// What holds for every connection; before, the defaults do.
    Settings {
        /// A connection that has had no subflow for so long is ended; `None`:
        /// never. Default: a minute.
        close_timeout: Option<Time>,
    },
    /// The endpoints and limits of the network namespace (`ip mptcp`), for
    /// connections that nobody claimed.
    Endpoints {
        /// All of them, in their order.
        endpoints: Vec<Endpoint>,
        /// For one connection.
        limits: Limits,
        /// From now on an [`Event::Created`] of a connection that nobody claimed
        /// makes it known, and it gets what the in-kernel path manager would
        /// give it; else it is ignored. A [`Event::Request`] or
        /// [`Event::Binding`] claims it.
        serve: bool,
    },
    /// A local address can't be used: its interface has no carrier or is down,
    /// or it was removed.
    Unusable {
        /// Which.
        addr: IpAddr,
    },
    /// A local address can be used (again).
    Usable {
        /// Which.
        addr: IpAddr,
    },
    /// Makes a socket or connection known again as it was saved, with all that
    /// was asked of it, its ids and what was announced. Nothing is done about a
    /// connection until a [`Event::Snapshot`] shows its subflows. One that is
    /// known stays as it is.
    Restore(Box<Saved>),
    /// Nothing but the time.
    Tick,
}

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The kernel took it.
    Taken,
    /// The connection is not fully established (any more).
    NotReady,
    /// The kernel has the address under another id.
    Mismatch,
    /// The in-kernel path manager has this connection.
    NotOurs,
    /// There is no such connection.
    Gone,
    /// Any other errno.
    Refused(i32),
}

/// What the kernel is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send a join.
    Create {
        /// From here; port 0 for any.
        local: SocketAddr,
        /// MPTCP address id of `local`.
        id: u8,
        /// To there.
        remote: SocketAddr,
        /// For backup.
        backup: bool,
        /// Interface to keep to, 0 none.
        ifindex: u32,
    },
    /// Close one subflow, named as the kernel does.
    Destroy {
        /// Here.
        local: SocketAddr,
        /// There.
        remote: SocketAddr,
    },
    /// Tell the peer of an address.
    Announce {
        /// The address; port 0: the connection's.
        local: SocketAddr,
        /// Its id.
        id: u8,
    },
    /// Tell the peer that an address is gone.
    Remove {
        /// Its id.
        id: u8,
    },
    /// Change a subflow's priority, named as the kernel does.
    SetBackup {
        /// Here.
        local: SocketAddr,
        /// There.
        remote: SocketAddr,
        /// For backup.
        backup: bool,
    },
    /// Have a listening socket for joins to this address, unless one covers it.
    Listen {
        /// With the port.
        local: SocketAddr,
    },
    /// Say which local address routing takes; answered by [`Event::Routed`].
    Route {
        /// To there.
        remote: SocketAddr,
    },
    /// End the connection: its last subflow went and none came.
    End,
    /// Look at a subflow, named as the kernel does; answered by
    /// [`Event::Watched`].
    Watch {
        /// Here.
        local: SocketAddr,
        /// There.
        remote: SocketAddr,
    },
}

/// A command for one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command {
    /// Names it in [`Event::Done`], [`Event::Routed`] or [`Event::Watched`].
    pub tag: u64,
    /// The kernel's token.
    pub token: u32,
    /// The socket.
    pub key: Key,
    /// What to do.
    pub action: Action,
}

/// What comes out for applications.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A request's result.
    Answer {
        /// The request.
        id: RequestId,
        /// In force, accepted for later, or why not.
        result: Result<()>,
    },
}

/// What happened to a connection by our own doing, which the kernel tells
/// nobody of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incident {
    /// A subflow that an application's list asks for can't be made now.
    Refused {
        /// The connection.
        token: u32,
        /// From here.
        local: SocketAddr,
        /// To there.
        remote: SocketAddr,
        /// Why.
        errno: i32,
    },
    /// A subflow is for backup now, or not any more.
    Prioritised {
        /// The connection.
        token: u32,
        /// As the kernel names it.
        local: SocketAddr,
        /// As the kernel names it.
        remote: SocketAddr,
    },
}
