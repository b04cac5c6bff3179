// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a manager has done for it: kernel work that can wait for a socket's
//! lock, whose owner can hold it without end.
//!
//! A manager hands out [`Job`]s and takes [`Found`]s. Where nobody else's
//! sockets are about, one pair of hands does them on the spot; a broker has
//! several, each in a thread that it can do without.

use super::call::{Asked, Seen, Settled, Switched};
use super::rolls::Roll;
use super::subscribers::{self, Condition};
use super::{Prepared, fault, no_privilege, refused, scoped};
use crate::addr;
use crate::engine::{
    Action, Command, Endpoint, Event, Facts, Key, Limits, Outcome, Seen as SeenSubflow, Time,
};
use crate::error::{Errno, Error, Result};
use crate::kernel::diag::{Diag, Record, TcpFacts};
use crate::kernel::latch::{Fault, Latch};
use crate::kernel::netlink::Refusal;
use crate::kernel::sockopt::Listed;
use crate::kernel::{pm, process, route, sockopt, uapi};
use crate::quick::Map;
use crate::stream::is_up;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// Names a call of an application while it is under way.
pub type CallId = u64;

/// Jobs of one lane are done one after the other, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// An application's calls on one socket.
    Socket(Key),
    /// Commands to one connection, by its token.
    Connection(u32),
    /// A user's rolls.
    Rolls(u32),
    /// What concerns the whole namespace.
    Namespace,
}

/// A piece of work.
#[derive(Debug)]
pub struct Job {
    /// What it must not overtake.
    pub lane: Lane,
    /// The application's call that it is part of; its descriptor is needed.
    pub call: Option<CallId>,
    /// What to do.
    pub work: Work,
}

/// What to do.
#[derive(Debug)]
pub enum Work {
    /// Carry out a command of the engine.
    Command {
        /// Which.
        command: Command,
        /// The connection's initial pair, where that matters, and its inode.
        initial: Option<(SocketAddr, SocketAddr, u64)>,
        /// The connection was heard of just now: the token is still its own.
        fresh: bool,
    },
    /// See how subflows of one connection fare.
    Watch(Vec<Command>),
    /// List every socket of the namespace.
    Survey,
    /// Look at one connection's subflows.
    Look(Look),
    /// Find out whose a connection is that nobody heard begin.
    Identify {
        /// As the survey has it.
        record: Record,
        /// Its subflows, as the survey has them.
        pairs: Vec<Listed>,
    },
    /// Put the namespace in userspace mode, for a listener's list.
    Hold,
    /// Put the namespace back to what it was before userspace mode.
    Unhold(String),
    /// Read the in-kernel path manager's endpoints and limits.
    Endpoints,
    /// See whether a connection that nobody asked for was caught in a switch
    /// of the path manager all the same.
    Stray {
        /// [`Event::Created`] of it.
        event: Event,
    },
    /// See which sockets of a user's rolls are closed.
    Rolls {
        /// Whose.
        user: u32,
        /// All of them.
        rolls: Vec<Arc<Roll>>,
    },
    /// See whether a connection is there, and is one of Multipath TCP.
    Check {
        /// Its token.
        token: u32,
        /// The socket.
        key: Key,
    },
    /// See whether a subflow asked for as backup is one.
    Backup {
        /// The connection.
        token: u32,
        /// The subflow.
        local: SocketAddr,
        /// The subflow.
        remote: SocketAddr,
    },
    /// Look at a call's socket, and switch it where that is due.
    Prepare(Box<Asked>),
    /// Bind, unbind, give back, after a list has changed.
    Settle(Box<Asked>),
}

impl Work {
    /// Whether it only finds out what the kernel has: nobody waits for it.
    pub fn is_look(&self) -> bool {
        matches!(
            self,
            Self::Watch(_)
                | Self::Survey
                | Self::Look(_)
                | Self::Identify { .. }
                | Self::Rolls { .. }
                | Self::Check { .. }
        )
    }
}

/// One connection to look at.
#[derive(Clone, Debug)]
pub struct Look {
    /// The kernel's token.
    pub token: u32,
    /// The socket.
    pub key: Key,
    /// This end accepted it.
    pub server: bool,
    /// The initial pair.
    pub initial: (SocketAddr, SocketAddr),
    /// Its subflows as they were listed.
    pub pairs: Vec<Listed>,
    /// What had been heard of it by then.
    pub heard: u64,
}

/// Every socket of a namespace.
#[derive(Debug, Default)]
pub struct Census {
    /// TCP sockets by their descriptor's inode.
    pub by_inode: Map<u64, Vec<Record>>,
    /// MPTCP connections.
    pub connections: Vec<Record>,
}

/// What came of a job.
#[derive(Debug)]
pub enum Found {
    /// For the engine as it is.
    Event(Event),
    /// The same, several.
    Events(Vec<Event>),
    /// Nothing.
    Nothing,
    /// A listening socket was made, for the command with this tag.
    Listener {
        /// The command.
        tag: u64,
        /// Of the application's socket that it serves.
        key: Key,
        /// The socket.
        socket: OwnedFd,
        /// Where.
        addr: SocketAddr,
    },
    /// The survey, or that it is to be done again.
    Census(std::result::Result<Census, Refusal>),
    /// The namespace is in userspace mode; what it said before, if something
    /// else.
    Held(Option<String>),
    /// The namespace is what it was.
    Unheld,
    /// What the in-kernel path manager would do.
    Endpoints(Vec<Endpoint>, Limits),
    /// The state of a connection; `heard` as it was asked.
    Snapshot {
        /// For the engine.
        event: Event,
        /// From the look.
        look: Look,
    },
    /// A connection that began unheard.
    Identified {
        /// [`Event::Created`].
        event: Event,
        /// Its subflows.
        pairs: Vec<Listed>,
    },
    /// Sockets of a user's rolls are closed.
    Closed {
        /// Whose.
        user: u32,
        /// They.
        keys: Vec<Key>,
    },
    /// What a check has shown.
    Checked {
        /// The connection's token.
        token: u32,
        /// The socket.
        key: Key,
        /// How it is.
        condition: Condition,
    },
    /// A call's socket.
    Prepared(Result<Seen>),
    /// What was bound and given back.
    Settled(Settled),
}

/// The kernel, as far as it can make one wait.
#[derive(Debug)]
pub struct Hands {
    namespace: u64,
    commands: pm::Commands,
    commands_cookie: u64,
    diag: Diag,
    diag_cookie: u64,
    latch: Latch,
    /// A switched socket has shown that it is one: this kernel shows it.
    shows: bool,
    /// The sockets are strangers': see that each can be locked before a
    /// command takes generic netlink along.
    wary: bool,
}

impl Hands {
    /// Opens the calling thread's network namespace, whose cookie is
    /// `namespace`. EPERM without CAP_NET_ADMIN over it; EOPNOTSUPP where the
    /// kernel can't control single connections (before 5.19).
    pub fn open(namespace: u64, wary: bool) -> Result<Self> {
        let commands = pm::Commands::open().map_err(|refusal| match refusal.errno {
            Errno(libc::ENOENT) => Error::new(libc::EOPNOTSUPP, "this kernel has no Multipath TCP"),
            _ => refused(&refusal, "opening generic netlink"),
        })?;
        if !commands.family().userspace {
            return Err(Error::new(
                libc::EOPNOTSUPP,
                "this kernel can't control the paths of single connections (Linux 5.19 can)",
            ));
        }
        let cookie = |fd: BorrowedFd<'_>| {
            sockopt::cookie(fd).map_err(|e| Error::kernel(e, "asking a socket's cookie"))
        };
        let diag = Diag::open().map_err(|e| Error::kernel(e, "opening inet_diag"))?;
        let (commands_cookie, diag_cookie) = (cookie(commands.as_fd())?, cookie(diag.as_fd())?);
        let latch = Latch::open(namespace).map_err(fault)?;
        let shows = shows_since_long();
        Ok(Self { namespace, commands, commands_cookie, diag, diag_cookie, latch, shows, wary })
    }

    /// The path manager's family.
    pub fn family(&self) -> pm::Family {
        self.commands.family()
    }

    /// Whether all its descriptors are still the ones it opened.
    pub fn intact(&self) -> bool {
        let own = |fd: BorrowedFd<'_>, cookie| sockopt::cookie(fd) == Ok(cookie);
        own(self.commands.as_fd(), self.commands_cookie)
            && own(self.diag.as_fd(), self.diag_cookie)
            && self.latch.intact()
    }

    /// The same for what commands need.
    pub fn commands_intact(&self) -> bool {
        sockopt::cookie(self.commands.as_fd()) == Ok(self.commands_cookie)
            && sockopt::cookie(self.diag.as_fd()) == Ok(self.diag_cookie)
    }

    /// Whether the calling thread is in the network namespace.
    pub fn at_home(&self) -> bool {
        sockopt::thread_netns().map_or(true, |namespace| namespace == self.namespace)
    }

    /// Whether the whole namespace is in userspace mode.
    pub fn userspace_mode(&self) -> bool {
        self.latch.userspace() == Ok(true)
    }

    /// The same, after a look whether that is what a killed process left.
    pub fn in_userspace_mode(&mut self) -> bool {
        // Without a lock file there is no record either.
        self.userspace_mode() && (self.latch.repair().is_err() || self.userspace_mode())
    }

    /// Puts the whole namespace in userspace mode, for a listener's list. What
    /// it said before, if something else.
    pub(super) fn hold_userspace_mode(&mut self) -> Result<Option<String>> {
        self.latch.hold().map_err(fault)
    }

    /// Why sockets can't be switched here, if so.
    pub fn switchable(&self) -> Result<()> {
        match self.latch.writable() {
            Err(errno) if !self.userspace_mode() => Err(fault(Fault::ReadOnly(errno))),
            _ => Ok(()),
        }
    }

    /// The switch's sysctl and lock.
    pub fn latch(&mut self) -> &mut Latch {
        &mut self.latch
    }

    /// Looks that take no lock.
    pub fn diag(&mut self) -> &mut Diag {
        &mut self.diag
    }

    /// Reads what the kernel's own path manager would do here.
    pub fn commands(&mut self) -> &mut pm::Commands {
        &mut self.commands
    }

    /// Does a job; `fd` is the descriptor of the call that it is part of.
    pub fn run(&mut self, work: Work, fd: Option<BorrowedFd<'_>>) -> Found {
        let lost = || Error::new(libc::EBADF, "the socket was closed meanwhile");
        match work {
            Work::Command { command, initial, fresh } => self.command(&command, initial, fresh),
            Work::Watch(commands) => {
                Found::Events(commands.iter().filter_map(|command| self.watch(command)).collect())
            }
            Work::Survey => Found::Census(self.survey()),
            Work::Rolls { user, rolls } => {
                let open = || if self.wary { None } else { process::open_sockets() };
                let keys = rolls.iter().flat_map(|roll| roll.take_closed(open)).collect();
                Found::Closed { user, keys }
            }
            Work::Check { token, key } => match self.diag.condition(token) {
                Ok(Some((record, flags))) if record.cookie == key.cookie => {
                    let condition = if flags & uapi::INFO_FALLBACK != 0 {
                        Condition::Plain
                    } else if record.state == uapi::TCP_CLOSE {
                        Condition::Over
                    } else {
                        Condition::Alive
                    };
                    Found::Checked { token, key, condition }
                }
                Ok(_) => Found::Checked { token, key, condition: Condition::Over },
                Err(_) => Found::Nothing,
            },
            Work::Look(look) => self.look(look),
            Work::Hold => self.latch.hold().map_or(Found::Nothing, Found::Held),
            Work::Unhold(original) => match self.latch.unhold(&original) {
                Ok(()) => Found::Unheld,
                Err(_) => Found::Nothing,
            },
            Work::Endpoints => match (self.commands.endpoints(), self.commands.limits()) {
                (Ok(endpoints), Ok(limits)) => Found::Endpoints(
                    endpoints.iter().map(endpoint).collect(),
                    Limits { subflows: limits.subflows, add_addr_accepted: limits.add_addr_accepted },
                ),
                _ => Found::Nothing,
            },
            Work::Stray { event } => self.stray(event),
            Work::Identify { record, pairs } => self.identify(&record, pairs),
            Work::Backup { token, local, remote } => match self.diag.subflow(&local, &remote) {
                Ok(Some(Record { subflow: Some(facts), .. }))
                    if facts.flags & uapi::SUBFLOW_FLAG_BKUP_LOC == 0 =>
                {
                    Found::Event(Event::NotBackup { token, local, remote })
                }
                _ => Found::Nothing,
            },
            Work::Prepare(asked) => Found::Prepared(match fd {
                Some(fd) => super::call::prepare(self, *asked, fd),
                None => Err(lost()),
            }),
            Work::Settle(asked) => Found::Settled(match fd {
                Some(fd) => super::call::settle(self, &asked, fd),
                None => Settled { released: false, result: Err(lost()) },
            }),
        }
    }

    fn command(
        &mut self,
        command: &Command,
        initial: Option<(SocketAddr, SocketAddr, u64)>,
        fresh: bool,
    ) -> Found {
        let tag = command.tag;
        if let Action::Route { remote } = command.action {
            return Found::Event(Event::Routed { tag, local: route::source(&remote).ok() });
        }
        if (self.wary || !fresh) && !self.recognises(command) {
            return Found::Event(Event::Done { tag, outcome: Outcome::Gone });
        }
        if let Action::Listen { local } = command.action {
            return match self.listen_for_joins(&local) {
                Ok(Some(socket)) => Found::Listener { tag, key: command.key, socket, addr: local },
                Ok(None) => Found::Event(Event::Done { tag, outcome: Outcome::Taken }),
                Err(refusal) => Found::Event(Event::Done { tag, outcome: Outcome::Refused(refusal.errno.0) }),
            };
        }
        Found::Event(Event::Done { tag, outcome: self.carry_out(command, initial) })
    }

    /// Whether the token is still the connection's: it could be another's.
    fn recognises(&mut self, command: &Command) -> bool {
        let record =
            if self.wary { self.diag.probe(command.token) } else { self.diag.connection(command.token) };
        match record {
            Ok(None) => false,
            Ok(Some(record)) => record.cookie == command.key.cookie,
            Err(_) => !self.wary,
        }
    }

    fn watch(&mut self, command: &Command) -> Option<Event> {
        let Action::Watch { local, remote } = command.action else { return None };
        let facts = self.diag.facts(&local, &remote).ok().flatten().map(|tcp| fares(&tcp));
        Some(Event::Watched { tag: command.tag, facts })
    }

    fn carry_out(&mut self, command: &Command, initial: Option<(SocketAddr, SocketAddr, u64)>) -> Outcome {
        let token = command.token;
        let result = match command.action {
            Action::Create { local, id, remote, backup, ifindex } => {
                self.commands.create(token, &pm::Local { addr: local, id, backup, ifindex }, &remote)
            }
            Action::Destroy { local, remote } => self.close_subflow(token, &local, &remote, initial),
            Action::Announce { local, id } => {
                let ifindex = 0;
                self.commands.announce(token, &pm::Local { addr: local, id, backup: false, ifindex })
            }
            Action::Remove { id } => self.commands.remove(token, id),
            Action::SetBackup { local, remote, backup } => {
                self.commands.set_backup(token, &local, &remote, backup)
            }
            Action::End => match initial {
                Some((local, remote, _)) => {
                    self.commands.end(&mut self.diag, token, (&local, &remote), END_ID)
                }
                None => Ok(()),
            },
            Action::Listen { .. } | Action::Route { .. } | Action::Watch { .. } => Ok(()),
        };
        match result {
            Ok(()) => Outcome::Taken,
            Err(Refusal { errno: Errno(libc::ENOTCONN), .. }) => Outcome::NotReady,
            Err(Refusal { errno: Errno(libc::EINVAL), text }) => {
                if text.contains("userspace PM not selected") {
                    Outcome::NotOurs
                } else if text.contains("token") {
                    Outcome::Gone
                } else if text.contains("did not match") {
                    Outcome::Mismatch
                } else {
                    Outcome::Refused(libc::EINVAL)
                }
            }
            Err(refusal) => Outcome::Refused(refusal.errno.0),
        }
    }

    /// Closes one subflow. Where the initial one is dead and another has its
    /// addresses and ports, the kernel's command ends at the dead one and says
    /// that it is done.
    fn close_subflow(
        &mut self,
        token: u32,
        local: &SocketAddr,
        remote: &SocketAddr,
        initial: Option<(SocketAddr, SocketAddr, u64)>,
    ) -> std::result::Result<(), Refusal> {
        self.commands.destroy(token, local, remote)?;
        if let Some((_, _, inode)) = initial
            && let Ok(Some(record)) = self.diag.tuple(local, remote)
            && is_up(record.state)
            && record.inode == inode
        {
            self.diag.destroy(local, remote)?;
        }
        Ok(())
    }

    /// Opens a listening socket at this address, unless one is there that
    /// takes joins.
    fn listen_for_joins(&mut self, local: &SocketAddr) -> std::result::Result<Option<OwnedFd>, Refusal> {
        let domain = if local.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        let socket = sockopt::socket(domain, kind, libc::IPPROTO_MPTCP)?;
        let fd = socket.as_fd();
        sockopt::set_int(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
        if local.is_ipv6() {
            sockopt::set_int(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
        }
        match sockopt::bind(fd, local).and_then(|()| sockopt::listen(fd, 1024)) {
            Ok(()) => Ok(Some(socket)),
            // Whether the port takes privilege is asked before whether it is taken.
            Err(errno @ Errno(libc::EADDRINUSE | libc::EACCES)) => {
                let covered = self.diag.listeners()?.iter().any(|listener| {
                    let there = addr::canonical(listener.local);
                    listener.local.port() == local.port()
                        && (addr::is_wildcard(&there) || addr::same_ip(&there, local))
                });
                if covered { Ok(None) } else { Err(errno.into()) }
            }
            Err(errno) => Err(errno.into()),
        }
    }

    fn survey(&mut self) -> std::result::Result<Census, Refusal> {
        // Connections first: one that begins in between has an event to come.
        let connections = self.diag.connections()?;
        Ok(Census { by_inode: self.diag.by_inode()?, connections })
    }

    /// All subflows of a connection, with what inet_diag adds.
    pub(super) fn look(&mut self, look: Look) -> Found {
        let (token, key, server, initial) = (look.token, look.key, look.server, look.initial);
        match self.diag.connection(token) {
            // Not accepted yet: its subflows have no inode to find them by.
            Ok(Some(record)) if record.cookie == key.cookie && record.inode == 0 => return Found::Nothing,
            Ok(Some(record)) if record.cookie == key.cookie => {}
            Ok(_) => return Found::Event(Event::Closed { token }),
            Err(_) => return Found::Nothing,
        }
        let mut subflows = Vec::new();
        let mut ready = false;
        for pair in look.pairs.iter().filter(|p| is_up(p.state) || p.state == uapi::TCP_SYN_SENT) {
            let Ok(Some(Record { subflow: Some(facts), device, .. })) =
                self.diag.subflow(&pair.local, &pair.remote)
            else {
                continue;
            };
            if facts.token != token {
                continue;
            }
            let first = facts.flags & uapi::SUBFLOW_FLAG_MCAP != 0;
            ready |= facts.flags & uapi::SUBFLOW_FLAG_FULLY_ESTABLISHED != 0;
            subflows.push(SeenSubflow {
                local: scoped(pair.local, device),
                remote: scoped(pair.remote, device),
                local_id: facts.local_id,
                remote_id: facts.remote_id,
                up: is_up(pair.state),
                initial: first,
                backup: Some(facts.flags & uapi::SUBFLOW_FLAG_BKUP_LOC != 0),
            });
        }
        let event = Event::Snapshot { token, key, server, initial, ready, subflows };
        Found::Snapshot { event, look }
    }

    /// The token and role of a connection that the survey found.
    fn identify(&mut self, record: &Record, mut pairs: Vec<Listed>) -> Found {
        let first = Listed { id: 0, state: record.state, local: record.local, remote: record.remote };
        if pairs.is_empty() {
            pairs.push(first);
        }
        // The initial subflow, or where it is gone any other.
        let mut facts = None;
        for pair in std::iter::once(&first).chain(&pairs) {
            if let Ok(Some(Record { subflow: Some(found), .. })) =
                self.diag.subflow(&pair.local, &pair.remote)
            {
                facts = Some(found);
                break;
            }
        }
        let Some(facts) = facts.filter(|f| f.token != 0) else { return Found::Nothing };
        let is_initial = facts.flags & uapi::SUBFLOW_FLAG_MCAP != 0;
        let initial = SeenSubflow {
            local: scoped(record.local, record.device),
            remote: scoped(record.remote, record.device),
            local_id: if is_initial { facts.local_id } else { 0 },
            remote_id: if is_initial { facts.remote_id } else { 0 },
            up: true,
            initial: true,
            backup: None,
        };
        let event = Event::Created {
            token: facts.token,
            key: Key { cookie: record.cookie, inode: record.inode },
            initial,
            server: facts.flags & uapi::SUBFLOW_FLAG_ACTIVE == 0,
        };
        Found::Identified { event, pairs }
    }

    /// A connection that may be under the userspace path manager by accident.
    fn stray(&mut self, event: Event) -> Found {
        let Event::Created { token, ref initial, .. } = event else { return Found::Nothing };
        if self.wary && !matches!(self.diag.probe(token), Ok(Some(_))) {
            return Found::Nothing;
        }
        if !matches!(self.commands.controls(token), Ok(true)) {
            return Found::Nothing;
        }
        let state = uapi::TCP_ESTABLISHED;
        let pairs = vec![Listed { id: 0, state, local: initial.local, remote: initial.remote }];
        Found::Identified { event, pairs }
    }

    /// Connections of a listener that wait to be accepted. They carry its
    /// cookie where that was asked for before they came; else they are its own
    /// if no other listens on the port.
    pub(super) fn backlog(&mut self, cookie: u64, local: &SocketAddr) -> Vec<subscribers::Found> {
        let listeners = self.diag.listeners().unwrap_or_default();
        let alone = listeners.iter().filter(|record| record.local.port() == local.port()).count() == 1;
        let mut waiting = Vec::new();
        for record in self.diag.connections().unwrap_or_default() {
            let its_own = record.cookie == cookie || (alone && record.local.port() == local.port());
            if record.inode != 0 || !its_own {
                continue;
            }
            if let Ok(Some(Record { subflow: Some(facts), .. })) =
                self.diag.subflow(&record.local, &record.remote)
            {
                let initial = (addr::canonical(record.local), addr::canonical(record.remote));
                waiting.push(subscribers::Found {
                    token: facts.token,
                    key: Key { cookie: record.cookie, inode: 0 },
                    initial,
                    server: Some(true),
                    subflows: vec![initial],
                });
            }
        }
        waiting
    }

    /// Whether this end accepted the connection of these subflows, as the
    /// kernel lists them; `None` where none of them tells.
    pub(super) fn accepted(&mut self, pairs: &[(SocketAddr, SocketAddr)]) -> Option<bool> {
        pairs.iter().find_map(|(local, remote)| {
            let facts = self.diag.subflow(local, remote).ok()??.subflow?;
            let initial = facts.flags & uapi::SUBFLOW_FLAG_MCAP != 0;
            initial.then_some(facts.flags & uapi::SUBFLOW_FLAG_ACTIVE == 0)
        })
    }

    /// A connection that the engine has not seen begin, for a call.
    /// EOPNOTSUPP where the in-kernel path manager has it.
    pub(super) fn discover(
        &mut self,
        fd: BorrowedFd<'_>,
        key: Key,
        token: u32,
        pairs: Vec<Listed>,
    ) -> Result<Event> {
        if !self.controls(token)? {
            return Err(crate::engine::not_ours());
        }
        let asking = |e| Error::kernel(e, "asking the connection's addresses");
        let initial = (sockopt::sockname(fd).map_err(asking)?, sockopt::peername(fd).map_err(asking)?);
        let mut active = None;
        for pair in &pairs {
            if let Ok(Some(Record { subflow: Some(facts), .. })) =
                self.diag.subflow(&pair.local, &pair.remote)
            {
                let asked = facts.flags & uapi::SUBFLOW_FLAG_ACTIVE != 0;
                active = Some(active.unwrap_or(false) || asked);
            }
        }
        let look = Look { token, key, server: active == Some(false), initial, pairs, heard: 0 };
        match self.look(look) {
            Found::Snapshot { event, .. } => Ok(event),
            _ => Err(Error::new(libc::ENOTCONN, "the connection ended")),
        }
    }

    /// Whether a connection is under the userspace path manager.
    pub(super) fn controls(&mut self, token: u32) -> Result<bool> {
        self.commands.controls(token).map_err(|refusal| match refusal.errno {
            Errno(libc::EPERM) => no_privilege(),
            _ => refused(&refusal, "asking for control of the connection"),
        })
    }

    /// Puts an unconnected socket under the userspace path manager. What the
    /// switch would lose is kept.
    pub(super) fn switch(&mut self, fd: BorrowedFd<'_>, before: Prepared) -> Result<Switched> {
        if before.switched {
            return Ok(Switched { virgin: before.virgin, shown: self.shows && !before.virgin });
        }
        // A namespace in userspace mode gave the socket that path manager when
        // it was made; where the kernel shows it, leave the socket alone.
        let shown = || sockopt::info(fd).is_ok_and(|info| info.subflows_max == 0);
        let as_made = shown() && self.in_userspace_mode();
        if !as_made {
            let mut tries = 0;
            loop {
                tries += 1;
                match keeping(fd, |fd| self.latch.switch(fd)) {
                    // A crowded machine: it may have been in time all the same.
                    Err(Fault::Cut) if !(self.shows && shown()) && tries < TRIES_WHEN_CUT => continue,
                    Err(Fault::Cut) if self.shows && shown() => break,
                    other => other.map_err(fault)?,
                }
                // Somebody without our lock can undo the switch; a kernel that
                // doesn't show it, or a namespace without limits, is believed.
                if shown() {
                    self.shows = self.shows || tells_limits();
                    break;
                }
                if !self.shows || !tells_limits() {
                    break;
                }
                if tries >= 3 {
                    return Err(Error::new(
                        libc::EIO,
                        "another process changes net.mptcp.path_manager without the common lock: the socket is not \
                         under path control",
                    ));
                }
            }
        }
        let virgin = as_made && sockopt::first_id(fd) != Some(0);
        Ok(Switched { virgin, shown: self.shows && !as_made })
    }

    /// Gives an unconnected socket back to the namespace's path manager.
    pub(super) fn release(&mut self, fd: BorrowedFd<'_>) -> Result<()> {
        let mut tries = 0;
        loop {
            tries += 1;
            match keeping(fd, |fd| self.latch.release(fd)) {
                // It may have been given back in another's switch.
                Err(Fault::Cut) if tries < TRIES_WHEN_CUT => {}
                other => return other.map_err(fault),
            }
        }
    }

    /// Makes a socket under the userspace path manager.
    pub fn socket(&mut self, domain: i32, kind: i32) -> Result<OwnedFd> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.latch.socket(domain, kind, libc::IPPROTO_MPTCP) {
                Err(Fault::Cut) if tries < TRIES_WHEN_CUT => {}
                other => return other.map_err(fault),
            }
        }
    }

    /// Whether the application has disconnected an unconnected socket, which
    /// took it from our control. The kernel shows that by the path manager
    /// (6.12, in a namespace of the in-kernel one), or by a first subflow that
    /// has lost its number.
    pub fn lost(&self, fd: BorrowedFd<'_>, prepared: &Prepared) -> bool {
        let in_kernel = || self.shows && sockopt::info(fd).is_ok_and(|info| info.subflows_max != 0);
        prepared.switched && (in_kernel() || (prepared.virgin && sockopt::first_id(fd) == Some(0)))
    }
}

/// The address id of what ends a connection: the last that is given out.
const END_ID: u8 = 255;

/// How a subflow fares, in the engine's words.
fn fares(tcp: &TcpFacts) -> Facts {
    let micros = |us: u32| Time::from_micros(us.into());
    let millis = |ms: u32| Time::from_millis(ms.into());
    Facts {
        unacked: tcp.unacked,
        flight: tcp.unacked.saturating_add(tcp.retrans).saturating_sub(tcp.sacked.saturating_add(tcp.lost)),
        // Probes of a closed window are answered.
        backoff: if tcp.probes == 0 { tcp.backoff.into() } else { 0 },
        rto: micros(tcp.rto_us),
        rtt: micros(tcp.rtt_us),
        rttvar: micros(tcp.rttvar_us),
        rtt_min: if tcp.min_rtt_us == u32::MAX { Time::ZERO } else { micros(tcp.min_rtt_us) },
        cwnd: tcp.cwnd,
        notsent: tcp.notsent_bytes,
        since_ack: millis(tcp.last_ack_recv_ms),
        since_sent: millis(tcp.last_data_sent_ms),
        bytes_acked: tcp.bytes_acked,
        bytes_sent: tcp.bytes_sent,
        bytes_retrans: tcp.bytes_retrans,
        bytes_received: tcp.bytes_received,
        segs_out: tcp.segs_out,
        total_retrans: tcp.total_retrans,
    }
}

/// An endpoint in the engine's words.
fn endpoint(endpoint: &pm::Endpoint) -> Endpoint {
    let has = |flag| endpoint.flags & flag != 0;
    Endpoint {
        id: endpoint.id,
        addr: addr::canonical(endpoint.addr),
        ifindex: endpoint.ifindex,
        signal: has(uapi::PM_FLAG_SIGNAL),
        subflow: has(uapi::PM_FLAG_SUBFLOW),
        backup: has(uapi::PM_FLAG_BACKUP),
        fullmesh: has(uapi::PM_FLAG_FULLMESH),
        laminar: has(uapi::PM_FLAG_LAMINAR),
        implicit: has(uapi::PM_FLAG_IMPLICIT),
    }
}

/// A millisecond is long, unless the thread is kept from running.
const TRIES_WHEN_CUT: u32 = 50;

/// Whether MPTCP_INFO of a fresh socket tells the in-kernel limits: then a
/// switched one can show that it is, by saying 0 (not on 6.1).
fn tells_limits() -> bool {
    let Ok(fresh) =
        sockopt::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, libc::IPPROTO_MPTCP)
    else {
        return false;
    };
    sockopt::info(fresh.as_fd()).is_ok_and(|info| info.subflows_max != 0)
}

/// Every kernel with this sysctl (6.15) shows the switch; some before do, as
/// 6.12: the first switched socket tells.
fn shows_since_long() -> bool {
    std::path::Path::new("/proc/sys/net/mptcp/path_manager").exists()
}

/// What TCP_MAXSEG shows where nobody has set it (TCP_MSS_DEFAULT).
const MSS_DEFAULT: i32 = 536;

/// Runs `act`, which disconnects the socket, and gives it back the options
/// that this loses: TCP_CONGESTION and TCP_MAXSEG.
fn keeping<E>(
    fd: BorrowedFd<'_>,
    act: impl FnOnce(BorrowedFd<'_>) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let mut congestion = [0u8; 16];
    let len = sockopt::get(fd, libc::IPPROTO_TCP, libc::TCP_CONGESTION, &mut congestion);
    let maxseg = sockopt::get_int(fd, libc::IPPROTO_TCP, libc::TCP_MAXSEG);
    let result = act(fd);
    // Even where it still shows: that is the first subflow's, those that join
    // would have the default.
    if let Ok(name) = len.map(|len| congestion.get(..len).unwrap_or_default()) {
        let _ = sockopt::set(fd, libc::IPPROTO_TCP, libc::TCP_CONGESTION, name);
    }
    if let Ok(before) = maxseg
        && before != MSS_DEFAULT
        && sockopt::get_int(fd, libc::IPPROTO_TCP, libc::TCP_MAXSEG) != Ok(before)
    {
        let _ = sockopt::set_int(fd, libc::IPPROTO_TCP, libc::TCP_MAXSEG, before);
    }
    result
}
