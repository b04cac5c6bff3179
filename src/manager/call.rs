// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an application asks about one of its sockets: looked at with its
//! descriptor ([`prepare`]), decided by the engine, finished with the
//! descriptor again where the socket is not connected ([`settle`]).
//!
//! Both halves run in a pair of [`Hands`]: they take the socket's lock.

use super::rolls::Roll;
use super::subscribers::{self, Shown, SubscriberId};
use super::{Control, Hands, Prepared, Start};
use crate::addr::{self, LIST_MAX};
use crate::engine::{Connection, Device, Entry, Event, Key, Phase, Request, Settings, Time};
use crate::error::{Errno, Error, Result};
use crate::kernel::{route, sockopt};
use crate::stream::{Socket, Stage, is_up};
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// What is asked.
#[derive(Clone, Debug)]
pub enum Call {
    /// What the engine decides about. The entries of an ADD have passed
    /// [`crate::addr::checked`]; a subflow to be closed or pinned is one that
    /// is up.
    Ask(Request),
    /// Bring an unconnected socket that is bound to an address or a device
    /// under the restriction to it.
    RespectBinding,
    /// Make an unconnected socket ready for connect(2) to the first of these
    /// addresses of one peer.
    BeforeConnect(Vec<SocketAddr>),
    /// Put a socket under control that nothing is asked of yet.
    Take,
    /// Who decides about its paths?
    Control,
    /// What is known of it?
    Facts,
    /// What is in force of the settings?
    Settings,
    /// Tell of what happens to it, or to what it accepts.
    Subscribe {
        /// Who is told.
        id: SubscriberId,
        /// Of what is there as well.
        current: bool,
        /// For a socket that is not connected: [`super::Manager::roll`].
        roll: Arc<Roll>,
    },
}

impl Call {
    /// Whether it only finds out: of a socket that is asked about nothing is
    /// kept.
    pub fn is_query(&self) -> bool {
        matches!(self, Self::Control | Self::Facts | Self::Settings | Self::Subscribe { .. })
    }

    /// Whether it waits for the peer.
    pub fn is_long(&self) -> bool {
        matches!(self, Self::Ask(Request::Open { wait: Some(_), .. }))
    }

    /// How long it may wait for what is asked for.
    pub fn patience(&self) -> Time {
        match self {
            Self::Ask(Request::Remove { patience, .. }) => *patience,
            Self::Ask(Request::Open { wait, .. }) => wait.unwrap_or_default(),
            _ => Time::ZERO,
        }
    }
}

/// What comes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// In force, or accepted for later.
    Done,
    /// For [`Call::BeforeConnect`]; for [`Request::Add`] where it is known
    /// what that would say, and told ([`Leave::owner`]).
    Start(Start),
    /// For [`Call::Control`].
    Control(Control),
    /// For [`Call::Facts`].
    Facts(Facts),
    /// For [`Call::Settings`].
    Settings(Settings),
}

/// What is known of a socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The list, `None` where there is none.
    pub list: Option<Vec<SocketAddr>>,
    /// Addresses of the peer, announced or named.
    pub peers: Vec<SocketAddr>,
}

/// A call with what is known of its socket so far.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The socket.
    pub key: Key,
    /// What is asked.
    pub call: Call,
    /// What the engine knows, if anything.
    pub known: Option<Connection>,
    /// What was done to it.
    pub prepared: Prepared,
    /// The engine was asked for the token that the socket has.
    pub adopted: bool,
    /// What its user may do.
    pub leave: Leave,
}

/// What the user of a call may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leave {
    /// What a list on a listener may do.
    pub servers: Servers,
    /// Subflows may go to addresses that only the application calls the
    /// peer's: else to those that the peer itself has shown.
    pub peers: bool,
    /// The addresses of the call are known to be this host's.
    pub local: bool,
    /// The socket is its own, so that it may be told with a list where connect(2)
    /// is to begin: it need not ask then. From others it must be heard who
    /// connects.
    pub owner: bool,
    /// Connections end with their initial subflow, unless their application
    /// says otherwise.
    pub fate_sharing: bool,
}

/// Whether a list on a listener may put the whole namespace in userspace mode,
/// which is the only way to control accepted connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Servers {
    /// Nobody here does that.
    #[default]
    Never,
    /// It could be, but this user may not.
    Forbidden,
    /// It may.
    Allowed,
}

/// What the descriptor shows.
#[derive(Clone, Debug)]
pub enum Seen {
    /// Its token, which the engine may know.
    Token(u32),
    /// All that is needed.
    Socket(Box<Sight>),
}

/// The socket as it was found, and what was done to it.
#[derive(Clone, Debug)]
pub struct Sight {
    /// How far it is.
    pub stage: Stage,
    /// It was disconnected, and what was known of it counts no more.
    pub lost: bool,
    /// It has been switched.
    pub switched: Option<Switched>,
    /// What the application bound it to.
    pub binding: Option<(Option<SocketAddr>, Option<Device>)>,
    /// What we have bound it to.
    pub late: Option<SocketAddr>,
    /// The connection, where the engine had not seen it begin.
    pub snapshot: Option<Event>,
    /// This host's addresses, where a start may be chosen from them.
    pub host: Vec<SocketAddr>,
    /// Who decides about its paths.
    pub control: Control,
    /// The namespace was put in userspace mode; what it said before.
    pub held: Option<String>,
    /// For [`Call::Subscribe`].
    pub shown: Option<Shown>,
    /// For [`Request::Close`]: it is closed already.
    pub closed: bool,
}

/// A socket is under the userspace path manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switched {
    /// It was never disconnected, which the kernel shows.
    pub virgin: bool,
    /// MPTCP_INFO tells the program itself whether it still is.
    pub shown: bool,
}

/// What became of a list's consequences.
#[derive(Clone, Debug)]
pub struct Settled {
    /// It was given back to the namespace's path manager.
    pub released: bool,
    /// Why it could not be.
    pub result: Result<()>,
}

/// Looks at the socket of a call, and switches it where the call needs that.
pub fn prepare(hands: &mut Hands, mut asked: Asked, fd: BorrowedFd<'_>) -> Result<Seen> {
    let socket = Socket::of(fd)?;
    if !socket.mptcp && !matches!(asked.call, Call::Control | Call::Facts | Call::Settings) {
        return Err(socket.no_mptcp());
    }
    let stage = socket.stage()?;
    // connect(AF_UNSPEC) drops list and control, and nothing tells of it where
    // there was no connection.
    let waiting = asked.known.as_ref().is_some_and(|c| c.phase == Phase::Prepared);
    let lost = waiting && hands.lost(fd, &asked.prepared) && stage == Stage::Unconnected;
    if lost {
        asked.known = None;
        asked.prepared = Prepared::default();
    }
    let token = match stage {
        Stage::Unconnected | Stage::Listening => 0,
        _ => sockopt::info(fd).map_or(0, |info| info.token),
    };
    let known_open = asked.known.as_ref().is_some_and(|c| c.phase == Phase::Open && c.token == Some(token));
    let connected = stage == Stage::Connected;
    if token != 0 && connected && !known_open && !asked.adopted {
        return Ok(Seen::Token(token));
    }
    let mut sight = Sight {
        stage,
        lost,
        switched: None,
        binding: None,
        late: None,
        snapshot: None,
        host: Vec::new(),
        control: Control::Unknown,
        held: None,
        shown: None,
        closed: false,
    };
    let known = asked.known.as_ref();
    match &asked.call {
        Call::Ask(Request::Add(entries)) => match stage {
            Stage::Ended => return Err(socket.not_connected()),
            Stage::Unconnected => {
                check(&socket, known, entries, false, asked.leave.local)?;
                switch(hands, &socket, &asked, &mut sight)?;
            }
            Stage::Listening => {
                // Nothing is changed for a list that is refused.
                check(&socket, known, entries, true, asked.leave.local)?;
                sight.held = serve(hands, &asked)?;
                sight.binding = Some((None, binding(&socket).1));
            }
            Stage::Connecting => {
                if !known.is_some_and(|c| c.listed) {
                    return Err(Error::new(
                        libc::EOPNOTSUPP,
                        "the socket is connecting without a list: ADD before connect(2), or after it",
                    ));
                }
                check(&socket, known, entries, false, asked.leave.local)?;
            }
            Stage::Connected => {
                connection(hands, &socket, &asked, token, &mut sight)?;
                check(&socket, known, entries, false, asked.leave.local)?;
            }
        },
        Call::Ask(Request::Remove { addrs, .. }) => {
            for addr in addrs {
                socket.check_family(addr)?;
            }
            match stage {
                Stage::Connected => connection(hands, &socket, &asked, token, &mut sight)?,
                Stage::Connecting if !known.is_some_and(|c| c.listed) => {
                    return Err(Error::new(libc::EOPNOTSUPP, "the socket is connecting without a list"));
                }
                _ => {}
            }
            if !known.is_some_and(Connection::restricted) {
                for addr in addrs {
                    let probe = addr::with_port(*addr, 0);
                    route::bindable(&probe).map_err(|errno| cannot_bind(errno, addr))?;
                }
            }
            match stage {
                Stage::Unconnected => switch(hands, &socket, &asked, &mut sight)?,
                Stage::Listening => sight.held = serve(hands, &asked)?,
                _ => {}
            }
        }
        Call::RespectBinding => {
            let bound = binding(&socket);
            if bound.0.is_some() || bound.1.is_some() {
                switch(hands, &socket, &asked, &mut sight)?;
            }
        }
        Call::BeforeConnect(peers) => {
            let bound = binding(&socket);
            let free = bound.0.is_none() && bound.1.is_none();
            let steered = known.is_some_and(Connection::steers);
            if steered || !free || peers.len() > 1 {
                switch(hands, &socket, &asked, &mut sight)?;
                if free && !known.is_some_and(Connection::restricted) {
                    // Routing's choice, made now: a switched socket that is
                    // not bound can get another address id than 0 for it.
                    let host = route::host_addresses().unwrap_or_default();
                    sight.host = host.into_iter().map(|host| host.addr).collect();
                }
            }
        }
        Call::Take => sight.switched = Some(hands.switch(fd, asked.prepared)?),
        Call::Control => {
            let ours = match known {
                Some(c) if c.phase == Phase::Open => Some(!c.foreign),
                _ if asked.prepared.switched => Some(true),
                _ => None,
            };
            let ours = match ours {
                Some(ours) => ours,
                None if token != 0 && connected => hands.controls(token)?,
                None => hands.in_userspace_mode(),
            };
            sight.control = if ours { Control::Connection } else { Control::Kernel };
        }
        Call::Subscribe { roll, .. } => {
            sight.shown = Some(show(hands, &socket, asked.key, stage, token, roll)?);
        }
        Call::Facts | Call::Settings => {}
        Call::Ask(Request::Set(_)) => match stage {
            Stage::Ended => return Err(socket.not_connected()),
            Stage::Unconnected => switch(hands, &socket, &asked, &mut sight)?,
            Stage::Listening => {
                sight.held = serve(hands, &asked)?;
                sight.binding = Some((None, binding(&socket).1));
            }
            Stage::Connecting if !asked.prepared.switched => {
                let words =
                    "the socket is connecting without a list: set this before connect(2), or after it";
                return Err(Error::new(libc::EOPNOTSUPP, words));
            }
            Stage::Connecting => {}
            Stage::Connected => connection(hands, &socket, &asked, token, &mut sight)?,
        },
        Call::Ask(Request::Open { local, remote, .. }) => {
            if stage != Stage::Connected {
                return Err(socket.not_connected());
            }
            for addr in local.iter().chain(remote) {
                socket.check_family(addr)?;
            }
            connection(hands, &socket, &asked, token, &mut sight)?;
            let unlisted = local.filter(|addr| known.is_none_or(|c| c.entry(addr).is_none()));
            if let Some(addr) = unlisted {
                let probe = addr::with_port(addr, 0);
                route::bindable(&probe).map_err(|errno| cannot_bind(errno, &addr))?;
            }
        }
        Call::Ask(Request::Close { local, remote }) => {
            if stage != Stage::Connected {
                return Err(socket.not_connected());
            }
            if token == 0 {
                return Err(socket.no_mptcp());
            }
            let ours = match known {
                Some(c) if c.phase == Phase::Open && c.token == Some(token) => !c.foreign,
                _ => hands.controls(token)?,
            };
            if ours {
                connection(hands, &socket, &asked, token, &mut sight)?;
            } else {
                close_foreign(hands, &socket, local, remote)?;
                sight.closed = true;
            }
        }
        Call::Ask(Request::Pin { .. }) => {
            if stage != Stage::Connected {
                return Err(socket.not_connected());
            }
            connection(hands, &socket, &asked, token, &mut sight)?;
        }
    }
    Ok(Seen::Socket(Box::new(sight)))
}

/// What there is for somebody who asks about a socket.
fn show(
    hands: &mut Hands,
    socket: &Socket<'_>,
    key: Key,
    stage: Stage,
    token: u32,
    roll: &Arc<Roll>,
) -> Result<Shown> {
    match stage {
        Stage::Ended => Err(socket.not_connected()),
        Stage::Unconnected | Stage::Connecting => {
            if socket.mptcp {
                let entering = |errno| match errno {
                    Errno(libc::EDQUOT) => {
                        Error::new(errno.0, "too many sockets are asked about before they connect")
                    }
                    _ => Error::kernel(errno, "watching whether the socket is closed"),
                };
                roll.enter(socket.fd, key).map_err(entering)?;
                Ok(Shown::Waiting(Arc::clone(roll)))
            } else {
                Err(socket.no_mptcp())
            }
        }
        Stage::Listening => {
            if socket.mptcp {
                let local = sockopt::sockname(socket.fd);
                let local = local.map_err(|e| Error::kernel(e, "asking where the socket listens"))?;
                Ok(Shown::Listening(hands.backlog(key.cookie, &local)))
            } else {
                Err(socket.no_mptcp())
            }
        }
        Stage::Connected => {
            if token == 0 {
                return Err(socket.no_mptcp());
            }
            let asking = |e| Error::kernel(e, "asking the connection's addresses");
            let initial = (sockopt::sockname(socket.fd), sockopt::peername(socket.fd));
            let initial =
                (addr::canonical(initial.0.map_err(asking)?), addr::canonical(initial.1.map_err(asking)?));
            let up = socket.listed()?.into_iter().filter(|pair| is_up(pair.state));
            let pairs: Vec<(SocketAddr, SocketAddr)> = up.map(|pair| (pair.local, pair.remote)).collect();
            let server = hands.accepted(&pairs);
            let subflows = pairs.into_iter().map(|(l, r)| (addr::canonical(l), addr::canonical(r))).collect();
            Ok(Shown::Connected(subscribers::Found { token, key, initial, server, subflows }))
        }
    }
}

/// Puts an unconnected socket under control.
fn switch(hands: &mut Hands, socket: &Socket<'_>, asked: &Asked, sight: &mut Sight) -> Result<()> {
    let bound = socket.bound();
    sight.late = bound.filter(|(_, late)| *late).map(|(addr, _)| addr);
    sight.binding = Some((bound.filter(|(_, late)| !*late).map(|(addr, _)| addr), socket.device()));
    sight.switched = Some(hands.switch(socket.fd, asked.prepared)?);
    Ok(())
}

/// Closes a subflow of a connection that the in-kernel path manager has, which
/// doesn't make that one again.
fn close_foreign(
    hands: &mut Hands,
    socket: &Socket<'_>,
    local: &SocketAddr,
    remote: &SocketAddr,
) -> Result<()> {
    let is = |known: SocketAddr, addr: &SocketAddr| addr::same(&addr::canonical(known), addr);
    let listed = socket.listed()?;
    let named =
        listed.iter().find(|pair| is_up(pair.state) && is(pair.local, local) && is(pair.remote, remote));
    let Some(pair) = named else {
        let words = format!("the connection has no subflow {local} - {remote} (any more)");
        return Err(Error::new(libc::ENOENT, words));
    };
    hands.diag().destroy(&pair.local, &pair.remote).map_err(|refusal| match refusal.errno {
        Errno(libc::ENOENT) => Error::new(libc::ENOENT, "the subflow has ended meanwhile"),
        Errno(libc::EOPNOTSUPP | libc::EINVAL) => Error::new(
            libc::EOPNOTSUPP,
            "this kernel can't close a subflow that its own path manager made (CONFIG_INET_DIAG_DESTROY)",
        ),
        _ => super::refused(&refusal, "closing the subflow"),
    })
}

/// Accepted connections are under control in userspace mode only.
fn serve(hands: &mut Hands, asked: &Asked) -> Result<Option<String>> {
    if hands.in_userspace_mode() {
        return Ok(None);
    }
    match asked.leave.servers {
        Servers::Allowed => hands.hold_userspace_mode(),
        Servers::Forbidden => Err(Error::new(
            libc::EACCES,
            "the broker's policy lets this user have no server list: it would put the whole network namespace \
             in userspace mode",
        )),
        Servers::Never => Err(Error::new(
            libc::EOPNOTSUPP,
            "accepted connections are the in-kernel path manager's: a server's list needs \
             net.mptcp.path_manager=userspace in this network namespace",
        )),
    }
}

/// Makes the connection behind a connected socket known.
fn connection(
    hands: &mut Hands,
    socket: &Socket<'_>,
    asked: &Asked,
    token: u32,
    sight: &mut Sight,
) -> Result<()> {
    if token == 0 {
        return Err(socket.no_mptcp());
    }
    if asked.known.as_ref().is_some_and(|c| c.phase == Phase::Open && c.token == Some(token)) {
        return Ok(());
    }
    let pairs = socket.listed()?;
    sight.snapshot = Some(hands.discover(socket.fd, asked.key, token, pairs)?);
    Ok(())
}

/// Binds the socket as its list wants it, and gives it back where nothing
/// steers it any more. `known` is the state after the engine's answer.
pub fn settle(hands: &mut Hands, asked: &Asked, fd: BorrowedFd<'_>) -> Settled {
    let mut settled = Settled { released: false, result: Ok(()) };
    let (Ok(socket), Some(known)) = (Socket::of(fd), &asked.known) else { return settled };
    adjust_bind(&socket, known);
    if !known.steers() && asked.prepared.switched {
        settled.result = hands.release(fd);
        settled.released = settled.result.is_ok();
    }
    settled
}

/// Whether [`settle`] has something to do for an unconnected socket that was
/// found with `late`. `known` is the state after the engine's answer.
pub fn is_unsettled(known: &Connection, late: Option<SocketAddr>) -> bool {
    match late {
        _ if !known.steers() => true,
        Some(ours) => !is_listed(known, &ours),
        None => known.entries.len() == 1,
    }
}

fn is_listed(known: &Connection, addr: &SocketAddr) -> bool {
    known.entries.iter().any(|entry| addr::same_ip(&entry.addr, addr))
}

/// What the application bound an unconnected socket to: an address, a device.
fn binding(socket: &Socket<'_>) -> (Option<SocketAddr>, Option<Device>) {
    (socket.bound_by_application(), socket.device())
}

/// Every address must be of this host and of a family the socket can use, and
/// its port free; one that the socket has already was checked before.
fn check(
    socket: &Socket<'_>,
    known: Option<&Connection>,
    entries: &[Entry],
    listening: bool,
    local: bool,
) -> Result<()> {
    let mut binder = route::Binder::default();
    for entry in entries {
        socket.check_family(&entry.addr)?;
        if local && entry.addr.port() == 0 {
            continue;
        }
        if known.is_some_and(|c| c.entries.iter().any(|e| e.addr == entry.addr)) {
            continue;
        }
        let own = sockopt::sockname(socket.fd).ok().map(addr::canonical);
        let probe = match own {
            Some(own) if listening || own == entry.addr => addr::with_port(entry.addr, 0),
            _ => entry.addr,
        };
        binder.bindable(&probe).map_err(|errno| cannot_bind(errno, &entry.addr))?;
    }
    let known = known.map(|c| c.entries.as_slice()).unwrap_or_default();
    let fresh = entries.iter().filter(|e| !known.iter().any(|k| k.addr == e.addr)).count();
    if known.len() + fresh > LIST_MAX {
        return Err(Error::new(libc::ENOSPC, format!("a socket's list holds {LIST_MAX} addresses at most")));
    }
    Ok(())
}

fn cannot_bind(errno: Errno, addr: &SocketAddr) -> Error {
    match errno {
        Errno(libc::EADDRNOTAVAIL | libc::ENODEV | libc::EINVAL | libc::ENXIO) => {
            Error::new(libc::EADDRNOTAVAIL, format!("{} is not an address of this host", addr.ip()))
        }
        Errno(libc::EADDRINUSE) => {
            Error::new(libc::EADDRINUSE, format!("port {} of {} is taken", addr.port(), addr.ip()))
        }
        Errno(libc::EACCES) => Error::new(
            libc::EACCES,
            format!("port {} of {} needs CAP_NET_BIND_SERVICE", addr.port(), addr.ip()),
        ),
        Errno(libc::EAFNOSUPPORT) => Error::new(libc::EOPNOTSUPP, "IPv6 is off on this host"),
        errno => Error::kernel(errno, &format!("binding to {addr}")),
    }
}

/// Without late binding the initial subflow is routing's choice; so where one
/// address is all there is, the socket is bound to it, in a way that the
/// application can still bind it itself.
fn adjust_bind(socket: &Socket<'_>, known: &Connection) {
    match socket.bound_late() {
        Some(ours) if is_listed(known, &ours) => return,
        Some(_) => drop(socket.late_bind(&socket.wildcard())),
        None => {}
    }
    let [entry] = known.entries.as_slice() else { return };
    let only = entry.subflow
        && entry.addr.port() == 0
        && known.bound.is_none()
        && known.device.is_none()
        && socket.only_family(&entry.addr);
    let unbound = || {
        sockopt::sockname(socket.fd)
            .is_ok_and(|name| addr::is_wildcard(&addr::canonical(name)) && name.port() == 0)
    };
    if only && unbound() {
        let _ = socket.late_bind(&entry.addr);
    }
}
