// SPDX-License-Identifier: MIT OR Apache-2.0
//! One network namespace's path manager: the engine joined to the kernel.
//!
//! It never waits and has no thread: whoever owns it steps it, whenever its
//! event socket is readable or a timer of the engine is due, and else when it
//! pleases.

use crate::addr;
use crate::engine::{
    Action, Command, Device, Engine, Event, Key, Notice, Outcome, Phase, Request, RequestId, Seen, Time,
};
use crate::error::{Errno, Error, Result};
use crate::kernel::diag::{Diag, Record};
use crate::kernel::latch::{Fault, Latch};
use crate::kernel::netlink::Refusal;
use crate::kernel::sockopt::Listed;
use crate::kernel::{pm, process, route, sockopt, uapi};
use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What was done to an unconnected socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prepared {
    /// It is under the userspace path manager.
    pub switched: bool,
    /// We bound it, there.
    pub bound: Option<SocketAddr>,
    /// It was never disconnected, which the kernel shows.
    pub virgin: bool,
}

/// A listening socket of our own, for joins only.
#[derive(Debug)]
struct JoinListener {
    socket: OwnedFd,
    addr: SocketAddr,
    /// SO_COOKIE of the application's socket that it serves.
    cookie: u64,
    /// Its own.
    own_cookie: u64,
}

/// The path manager of one network namespace.
#[derive(Debug)]
pub struct Manager {
    namespace: u64,
    commands: pm::Commands,
    commands_cookie: u64,
    events: pm::Events,
    events_cookie: u64,
    diag: Diag,
    diag_cookie: u64,
    latch: Latch,
    engine: Engine,
    prepared: HashMap<Key, Prepared>,
    joins: Vec<JoinListener>,
    joins_checked: u64,
    answers: HashMap<RequestId, Result<()>>,
    /// Commands that take a thread of this namespace, and those behind them.
    deferred: VecDeque<Command>,
    requests: RequestId,
    sweep_at: usize,
    /// Events were lost and not all has been looked at since.
    unsure: bool,
    /// A switched socket has shown that it is one: this kernel shows it.
    shows: bool,
}

impl Manager {
    /// Opens the calling thread's network namespace, whose cookie is
    /// `namespace`. EPERM without CAP_NET_ADMIN over it; EOPNOTSUPP where the
    /// kernel can't control single connections (before 5.19).
    pub fn open(namespace: u64) -> Result<Self> {
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
        let events = pm::Events::open(commands.family()).map_err(|errno| match errno {
            Errno(libc::EPERM) => no_privilege(),
            _ => Error::kernel(errno, "listening to path-manager events"),
        })?;
        let cookie = |fd: BorrowedFd<'_>| {
            sockopt::cookie(fd).map_err(|e| Error::kernel(e, "asking a socket's cookie"))
        };
        let mut diag = Diag::open().map_err(|e| Error::kernel(e, "opening inet_diag"))?;
        // Without it no connection can be recognised, and none be controlled.
        if let Err(Refusal { errno: Errno(libc::ENOENT), .. }) = diag.listeners() {
            return Err(Error::new(
                libc::EOPNOTSUPP,
                "this kernel can't show its Multipath TCP sockets: CONFIG_INET_MPTCP_DIAG, module mptcp_diag",
            ));
        }
        let (commands_cookie, events_cookie, diag_cookie) =
            (cookie(commands.as_fd())?, cookie(events.as_fd())?, cookie(diag.as_fd())?);
        let mut manager = Self {
            namespace,
            commands,
            commands_cookie,
            events,
            events_cookie,
            diag,
            diag_cookie,
            latch: Latch::open(namespace).map_err(fault)?,
            engine: Engine::default(),
            prepared: HashMap::new(),
            joins: Vec::new(),
            joins_checked: 0,
            answers: HashMap::new(),
            deferred: VecDeque::new(),
            requests: 0,
            sweep_at: 64,
            unsure: false,
            shows: shows_since_long(),
        };
        manager.in_userspace_mode();
        Ok(manager)
    }

    /// Cookie of its network namespace.
    pub fn namespace(&self) -> u64 {
        self.namespace
    }

    /// Whether the calling thread is in its network namespace; everything but
    /// making sockets works from any.
    fn at_home(&self) -> bool {
        sockopt::thread_netns().map_or(true, |namespace| namespace == self.namespace)
    }

    /// What the engine knows and decides.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Whether all its descriptors are still the ones it opened: a program may
    /// close those that it doesn't know, all or some, and what has their
    /// numbers then must not be read, written or accepted from.
    pub fn intact(&self) -> bool {
        let own = |fd: BorrowedFd<'_>, cookie| sockopt::cookie(fd) == Ok(cookie);
        own(self.events.as_fd(), self.events_cookie)
            && own(self.commands.as_fd(), self.commands_cookie)
            && own(self.diag.as_fd(), self.diag_cookie)
            && self.latch.intact()
            && self.joins.iter().all(|join| own(join.socket.as_fd(), join.own_cookie))
    }

    /// Opens everything anew and keeps what is known. The old descriptors are
    /// given up without closing them: the numbers are somebody else's now.
    pub fn renew(&mut self) -> Result<()> {
        let mut new = Self::open(self.namespace)?;
        new.engine = std::mem::take(&mut self.engine);
        new.prepared = std::mem::take(&mut self.prepared);
        new.answers = std::mem::take(&mut self.answers);
        new.deferred = std::mem::take(&mut self.deferred);
        (new.requests, new.sweep_at) = (self.requests, self.sweep_at);
        std::mem::forget(std::mem::replace(self, new));
        // Nobody listened meanwhile.
        self.unsure = true;
        Ok(())
    }

    /// Readable when there is something to do.
    pub fn event_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// Whether the whole namespace is in userspace mode.
    pub fn userspace_mode(&self) -> bool {
        self.latch.userspace() == Ok(true)
    }

    /// The same, after a look whether that is what a killed process left.
    fn in_userspace_mode(&mut self) -> bool {
        if self.userspace_mode() {
            // Without a lock file there is no record either.
            let _ = self.latch.repair();
        }
        self.userspace_mode()
    }

    /// Why sockets can't be switched here, if so.
    pub fn switchable(&self) -> Result<()> {
        match self.latch.writable() {
            Err(errno) if !self.userspace_mode() => Err(fault(Fault::ReadOnly(errno))),
            _ => Ok(()),
        }
    }

    fn now() -> Time {
        Time::from_millis(process::milliseconds())
    }

    /// Reads what happened and acts on it.
    pub fn step(&mut self) {
        let mut heard = Vec::new();
        let overrun = self.events.drain(|event| heard.push(event)) == Err(Errno(libc::ENOBUFS));
        let mut listeners_changed = false;
        for event in heard {
            listeners_changed |=
                matches!(event, pm::Event::ListenerUp { .. } | pm::Event::ListenerDown { .. });
            self.translate(event);
        }
        if overrun || self.unsure {
            self.unsure = self.resynchronise().is_err();
        }
        self.engine.handle(Event::Tick, Self::now());
        self.run();
        self.tend_joins(listeners_changed || overrun);
        self.sweep();
    }

    fn tell(&mut self, event: Event) {
        self.engine.handle(event, Self::now());
    }

    /// Gives an event to the engine in its own words.
    fn translate(&mut self, event: pm::Event) {
        let seen = |pair: &pm::Pair, initial| Seen {
            local: scoped(pair.local, pair.ifindex),
            remote: scoped(pair.remote, pair.ifindex),
            local_id: pair.local_id,
            remote_id: pair.remote_id,
            up: true,
            initial,
        };
        match event {
            pm::Event::Created { token, pair, server } => {
                if let Some(key) = self.awaited(token) {
                    self.tell(Event::Created { token, key, initial: seen(&pair, true), server });
                }
            }
            pm::Event::Established { token } => self.tell(Event::Established { token }),
            pm::Event::Closed { token } => {
                if let Some(key) = self.engine.by_token(token).map(|c| c.key) {
                    self.prepared.remove(&key);
                }
                self.tell(Event::Closed { token });
            }
            pm::Event::Announced { token, id, addr } => self.tell(Event::Announced { token, id, addr }),
            pm::Event::Withdrawn { token, id } => self.tell(Event::Withdrawn { token, id }),
            pm::Event::SubflowUp { token, pair } => {
                let subflow = seen(&pair, false);
                self.tell(Event::SubflowUp { token, subflow });
                self.see_to_backup(token, &subflow);
            }
            pm::Event::SubflowDown { token, pair } => {
                let subflow = seen(&pair, false);
                if self.reborn(token, &subflow) {
                    return;
                }
                self.tell(Event::SubflowDown { token, local: subflow.local, remote: subflow.remote });
            }
            pm::Event::Priority { .. } | pm::Event::ListenerUp { .. } | pm::Event::ListenerDown { .. } => {}
        }
    }

    /// Linux before 6.2 takes SUBFLOW_CREATE without its flags: a subflow asked
    /// for as backup is none, and must be made one.
    fn see_to_backup(&mut self, token: u32, subflow: &Seen) {
        let (local, remote) = (subflow.local, subflow.remote);
        if self.engine.by_token(token).is_some_and(|c| c.has_backup(&local, &remote))
            && let Ok(Some(Record { subflow: Some(facts), .. })) = self.diag.subflow(&local, &remote)
            && facts.flags & uapi::SUBFLOW_FLAG_BKUP_LOC == 0
        {
            self.tell(Event::NotBackup { token, local, remote });
        }
    }

    /// Whether a subflow said to be closed is up: a new one on the same ports,
    /// made before the kernel told of the old one's end.
    fn reborn(&mut self, token: u32, subflow: &Seen) -> bool {
        let Some(connection) = self.engine.by_token(token) else { return false };
        let inode = connection.key.inode;
        let up = connection.has_up(&subflow.local, &subflow.remote);
        up && matches!(
            self.diag.tuple(&subflow.local, &subflow.remote),
            Ok(Some(record)) if is_up(record.state) && record.inode == inode
        )
    }

    /// The socket behind a new token, if it can be one of ours.
    fn awaited(&mut self, token: u32) -> Option<Key> {
        if !self.engine.connections().any(|c| c.phase == Phase::Prepared) {
            return None;
        }
        let record = self.diag.connection(token).ok()??;
        let key = Key { cookie: record.cookie, inode: record.inode };
        self.engine.connections().any(|c| c.key.cookie == key.cookie).then_some(key)
    }

    /// Looks at every connection again, after events were lost, and for those
    /// that began unheard. An error: to be done again.
    fn resynchronise(&mut self) -> std::result::Result<(), Refusal> {
        let by_inode = self.diag.by_inode()?;
        let pairs = |inode: u64| -> Vec<Listed> {
            let records = by_inode.get(&inode).map(Vec::as_slice).unwrap_or_default();
            records
                .iter()
                .map(|r| Listed { id: 0, state: r.state, local: r.local, remote: r.remote })
                .collect()
        };
        let known: Vec<_> =
            self.engine.connections().filter_map(|c| Some((c.token?, c.key, c.server, c.initial))).collect();
        for (token, key, server, initial) in known {
            match self.diag.connection(token) {
                // Not accepted yet: its subflows have no inode to find them by.
                Ok(Some(record)) if record.cookie == key.cookie && record.inode == 0 => {}
                Ok(Some(record)) if record.cookie == key.cookie => {
                    if let Some(initial) = initial {
                        self.look(token, key, server, initial, &pairs(record.inode));
                    }
                }
                Ok(_) => self.tell(Event::Closed { token }),
                Err(_) => {}
            }
        }
        let waiting: HashSet<u64> =
            self.engine.connections().filter(|c| c.phase == Phase::Prepared).map(|c| c.key.cookie).collect();
        if waiting.is_empty() {
            return Ok(());
        }
        for record in self.diag.connections()?.into_iter().filter(|r| waiting.contains(&r.cookie)) {
            let first = Listed { id: 0, state: record.state, local: record.local, remote: record.remote };
            let mut all = if record.inode == 0 { Vec::new() } else { pairs(record.inode) };
            if all.is_empty() {
                all.push(first);
            }
            // The initial subflow, or where it is gone any other.
            let mut facts = None;
            for pair in std::iter::once(&first).chain(&all) {
                if let Ok(Some(Record { subflow: Some(found), .. })) =
                    self.diag.subflow(&pair.local, &pair.remote)
                {
                    facts = Some(found);
                    break;
                }
            }
            let Some(facts) = facts.filter(|f| f.token != 0 && self.engine.by_token(f.token).is_none())
            else {
                continue;
            };
            let key = Key { cookie: record.cookie, inode: record.inode };
            let server = facts.flags & uapi::SUBFLOW_FLAG_ACTIVE == 0;
            let is_initial = facts.flags & uapi::SUBFLOW_FLAG_MCAP != 0;
            let initial = Seen {
                local: scoped(record.local, record.device),
                remote: scoped(record.remote, record.device),
                local_id: if is_initial { facts.local_id } else { 0 },
                remote_id: if is_initial { facts.remote_id } else { 0 },
                up: true,
                initial: true,
            };
            self.tell(Event::Created { token: facts.token, key, initial, server });
            if let Some((key, pair)) =
                self.engine.by_token(facts.token).and_then(|c| Some((c.key, c.initial?)))
            {
                self.look(facts.token, key, server, pair, &all);
            }
        }
        Ok(())
    }

    /// Tells the engine all subflows of a connection, with what inet_diag adds.
    fn look(
        &mut self,
        token: u32,
        key: Key,
        server: bool,
        initial: (SocketAddr, SocketAddr),
        pairs: &[Listed],
    ) {
        let mut subflows = Vec::new();
        let mut ready = false;
        for pair in pairs.iter().filter(|p| is_up(p.state) || p.state == uapi::TCP_SYN_SENT) {
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
            subflows.push(Seen {
                local: scoped(pair.local, device),
                remote: scoped(pair.remote, device),
                local_id: facts.local_id,
                remote_id: facts.remote_id,
                up: is_up(pair.state),
                initial: first,
            });
        }
        self.tell(Event::Snapshot { token, key, server, initial, ready, subflows });
    }

    /// Makes a connection known that the engine has not seen begin. EOPNOTSUPP
    /// where the in-kernel path manager has it.
    pub fn discover(&mut self, fd: BorrowedFd<'_>, key: Key, token: u32, pairs: &[Listed]) -> Result<()> {
        match self.commands.controls(token) {
            Ok(true) => {}
            Ok(false) => return Err(crate::engine::not_ours()),
            Err(refusal) if refusal.errno == Errno(libc::EPERM) => return Err(no_privilege()),
            Err(refusal) => return Err(refused(&refusal, "asking for control of the connection")),
        }
        let asking = |e| Error::kernel(e, "asking the connection's addresses");
        let initial = (sockopt::sockname(fd).map_err(asking)?, sockopt::peername(fd).map_err(asking)?);
        let mut active = None;
        for pair in pairs {
            if let Ok(Some(Record { subflow: Some(facts), .. })) =
                self.diag.subflow(&pair.local, &pair.remote)
            {
                let asked = facts.flags & uapi::SUBFLOW_FLAG_ACTIVE != 0;
                active = Some(active.unwrap_or(false) || asked);
            }
        }
        let server = active == Some(false);
        self.look(token, key, server, initial, pairs);
        self.run();
        Ok(())
    }

    /// Whether a connection is under the userspace path manager.
    pub fn controls(&mut self, token: u32) -> Result<bool> {
        self.commands
            .controls(token)
            .map_err(|refusal| refused(&refusal, "asking for control of the connection"))
    }

    /// Puts an unconnected socket under the userspace path manager. What the
    /// switch would lose is kept.
    pub fn switch(&mut self, fd: BorrowedFd<'_>, key: Key) -> Result<()> {
        if self.prepared.get(&key).is_some_and(|p| p.switched) {
            return Ok(());
        }
        // A namespace in userspace mode gave the socket that path manager when
        // it was made; where the kernel shows it, leave the socket alone.
        let shown = || sockopt::info(fd).is_ok_and(|info| info.subflows_max == 0);
        let as_made = self.in_userspace_mode() && shown();
        if !as_made {
            let mut tries = 0;
            loop {
                keeping(fd, |fd| self.latch.switch(fd).map_err(fault))?;
                tries += 1;
                // Somebody without our lock can undo the switch; a kernel that
                // doesn't show it, or a namespace without limits, is believed.
                if shown() {
                    self.shows = self.shows || tells_limits();
                    break;
                }
                if !self.shows || !tells_limits() {
                    break;
                }
                if tries == 3 {
                    return Err(Error::new(
                        libc::EIO,
                        "another process changes net.mptcp.path_manager without the common lock: the socket is not \
                         under path control",
                    ));
                }
            }
        }
        let prepared = self.prepared.entry(key).or_default();
        prepared.switched = true;
        prepared.virgin = as_made && sockopt::first_id(fd) != Some(0);
        Ok(())
    }

    /// Gives an unconnected socket back to the namespace's path manager.
    pub fn release(&mut self, fd: BorrowedFd<'_>, key: Key) -> Result<()> {
        if self.prepared(&key).switched {
            keeping(fd, |fd| self.latch.release(fd).map_err(fault))?;
        }
        self.prepared.remove(&key);
        self.tell(Event::Forget { key });
        Ok(())
    }

    /// Makes a socket under the userspace path manager; its identity is noted.
    pub fn socket(&mut self, domain: i32, kind: i32) -> Result<OwnedFd> {
        let socket = self.latch.socket(domain, kind, libc::IPPROTO_MPTCP).map_err(fault)?;
        let key = key_of(socket.as_fd())?;
        self.prepared.entry(key).or_default().switched = true;
        Ok(socket)
    }

    /// Whether the application has disconnected an unconnected socket, which
    /// took it from our control. The kernel shows that by the path manager
    /// (6.12, in a namespace of the in-kernel one), or by a first subflow that
    /// has lost its number.
    pub fn lost(&self, fd: BorrowedFd<'_>, key: &Key) -> bool {
        let prepared = self.prepared(key);
        let in_kernel = || self.shows && sockopt::info(fd).is_ok_and(|info| info.subflows_max != 0);
        prepared.switched && (in_kernel() || (prepared.virgin && sockopt::first_id(fd) == Some(0)))
    }

    /// What was done to this socket.
    pub fn prepared(&self, key: &Key) -> Prepared {
        self.prepared.get(key).copied().unwrap_or_default()
    }

    /// Notes that we bound the socket, or undid it.
    pub fn note_bound(&mut self, key: Key, bound: Option<SocketAddr>) {
        self.prepared.entry(key).or_default().bound = bound;
    }

    /// Notes that a socket must be switched again before it connects.
    pub fn note_unswitched(&mut self, key: &Key) {
        if let Some(prepared) = self.prepared.get_mut(key) {
            prepared.switched = false;
        }
    }

    /// Tells the engine what the application bound the socket to.
    pub fn binding(&mut self, key: Key, bound: Option<SocketAddr>, device: Option<Device>) {
        self.tell(Event::Binding { key, bound, device });
    }

    /// Tells the engine of further addresses of the peer.
    pub fn peers(&mut self, key: Key, addrs: Vec<SocketAddr>) {
        self.tell(Event::PeerAddresses { key, addrs });
        self.run();
    }

    /// The socket starts afresh or is gone.
    pub fn forget(&mut self, key: Key) {
        self.prepared.remove(&key);
        self.tell(Event::Forget { key });
    }

    /// Gives an accepted connection its descriptor's identity.
    pub fn adopt(&mut self, token: u32, key: Key) {
        self.engine.adopt(token, key);
    }

    /// Makes a request; its answer is asked for by [`Manager::answer`].
    pub fn request(&mut self, key: Key, request: Request) -> RequestId {
        self.requests += 1;
        let id = self.requests;
        self.tell(Event::Request { id, key, request });
        self.run();
        id
    }

    /// The answer to a request, once.
    pub fn answer(&mut self, id: RequestId) -> Option<Result<()>> {
        self.answers.remove(&id)
    }

    /// Carries the engine's commands out.
    fn run(&mut self) {
        let mut verified: HashMap<u32, bool> = HashMap::new();
        let mut waiting = if self.deferred.is_empty() || !self.at_home() {
            VecDeque::new()
        } else {
            std::mem::take(&mut self.deferred)
        };
        while let Some(command) = waiting.pop_front().or_else(|| self.engine.poll_command()) {
            let behind = self.deferred.iter().any(|earlier| earlier.token == command.token);
            let homely = matches!(command.action, Action::Route { .. } | Action::Listen { .. });
            if behind || (homely && !self.at_home()) {
                // A thread of another namespace steps us; one of ours will too.
                self.deferred.push_back(command);
                continue;
            }
            // The token could be another connection's by now.
            let ours = *verified.entry(command.token).or_insert_with(|| {
                let record = self.diag.connection(command.token);
                !matches!(record, Ok(None))
                    && !matches!(record, Ok(Some(r)) if r.cookie != command.key.cookie)
            });
            let event = match command.action {
                Action::Watch { .. } => Event::Watched { tag: command.tag, facts: None },
                Action::Route { remote } => {
                    Event::Routed { tag: command.tag, local: route::source(&remote).ok() }
                }
                _ if !ours => Event::Done { tag: command.tag, outcome: Outcome::Gone },
                _ => Event::Done { tag: command.tag, outcome: self.carry_out(&command) },
            };
            self.tell(event);
        }
        while let Some(Notice::Answer { id, result }) = self.engine.poll_notification() {
            self.answers.insert(id, result);
        }
    }

    fn carry_out(&mut self, command: &Command) -> Outcome {
        let token = command.token;
        let result = match command.action {
            Action::Create { local, id, remote, backup, ifindex } => {
                self.commands.create(token, &pm::Local { addr: local, id, backup, ifindex }, &remote)
            }
            Action::Destroy { local, remote } => self.close_subflow(token, &local, &remote),
            Action::Announce { local, id } => {
                let ifindex = 0;
                self.commands.announce(token, &pm::Local { addr: local, id, backup: false, ifindex })
            }
            Action::Remove { id } => self.commands.remove(token, id),
            Action::SetBackup { local, remote, backup } => {
                self.commands.set_backup(token, &local, &remote, backup)
            }
            Action::Listen { local } => self.listen_for_joins(&local, command.key.cookie),
            Action::Route { .. } | Action::Watch { .. } => Ok(()),
            Action::End => Err(Errno(libc::EOPNOTSUPP).into()),
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
    ) -> std::result::Result<(), Refusal> {
        self.commands.destroy(token, local, remote)?;
        let pair = Some((addr::canonical(*local), addr::canonical(*remote)));
        let Some(connection) = self.engine.by_token(token).filter(|c| c.initial == pair) else {
            return Ok(());
        };
        let inode = connection.key.inode;
        if let Ok(Some(record)) = self.diag.tuple(local, remote)
            && is_up(record.state)
            && record.inode == inode
        {
            self.diag.destroy(local, remote)?;
        }
        Ok(())
    }

    /// Opens a listening socket at this address, unless one is there that
    /// takes joins.
    fn listen_for_joins(&mut self, local: &SocketAddr, cookie: u64) -> std::result::Result<(), Refusal> {
        if self.joins.iter().any(|join| join.addr == *local) {
            return Ok(());
        }
        let domain = if local.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        let socket = sockopt::socket(domain, kind, libc::IPPROTO_MPTCP)?;
        let fd = socket.as_fd();
        sockopt::set_int(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
        if local.is_ipv6() {
            sockopt::set_int(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
        }
        match sockopt::bind(fd, local).and_then(|()| sockopt::listen(fd, 1024)) {
            Ok(()) => {
                let own_cookie = sockopt::cookie(fd)?;
                self.joins.push(JoinListener { socket, addr: *local, cookie, own_cookie });
                Ok(())
            }
            Err(Errno(libc::EADDRINUSE)) => {
                let covered = self.diag.listeners()?.iter().any(|listener| {
                    let there = addr::canonical(listener.local);
                    listener.local.port() == local.port()
                        && (addr::is_wildcard(&there) || addr::same_ip(&there, local))
                });
                if covered { Ok(()) } else { Err(Errno(libc::EADDRINUSE).into()) }
            }
            Err(errno) => Err(errno.into()),
        }
    }

    /// Sends strangers away from our listening sockets, and ends those whose
    /// application's own is gone.
    fn tend_joins(&mut self, listeners_changed: bool) {
        for join in &self.joins {
            while let Ok(stranger) = sockopt::accept(join.socket.as_fd()) {
                let reset = [1i32.to_ne_bytes(), 0i32.to_ne_bytes()].concat();
                let _ = sockopt::set(stranger.as_fd(), libc::SOL_SOCKET, libc::SO_LINGER, &reset);
            }
        }
        let now = process::milliseconds();
        if self.joins.is_empty() || !(listeners_changed || now.saturating_sub(self.joins_checked) > 1000) {
            return;
        }
        self.joins_checked = now;
        let Ok(listeners) = self.diag.listeners() else { return };
        let engine = &self.engine;
        self.joins.retain(|join| {
            listeners.iter().any(|listener| listener.cookie == join.cookie)
                || engine.connections().any(|c| c.key.cookie == join.cookie && !c.server && c.token.is_some())
        });
    }

    /// Forgets unconnected sockets that are closed: no event tells of them.
    fn sweep(&mut self) {
        let waiting = |engine: &Engine| engine.connections().filter(|c| c.phase == Phase::Prepared).count();
        if waiting(&self.engine).max(self.prepared.len()) < self.sweep_at {
            return;
        }
        let Some(open) = process::open_sockets() else {
            self.sweep_at += 64;
            return;
        };
        let gone: Vec<Key> = self
            .engine
            .connections()
            .filter(|c| c.phase == Phase::Prepared && !open.contains(&c.key.inode))
            .map(|c| c.key)
            .collect();
        for key in gone {
            self.forget(key);
        }
        let engine = &self.engine;
        self.prepared.retain(|key, _| open.contains(&key.inode) || engine.by_key(key).is_some());
        self.sweep_at = 64 + 2 * waiting(&self.engine).max(self.prepared.len());
    }
}

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

/// Runs `act`, which disconnects the socket, and gives it back the options
/// that this loses: TCP_CONGESTION and TCP_MAXSEG.
fn keeping(fd: BorrowedFd<'_>, act: impl FnOnce(BorrowedFd<'_>) -> Result<()>) -> Result<()> {
    let mut congestion = [0u8; 16];
    let len = sockopt::get(fd, libc::IPPROTO_TCP, libc::TCP_CONGESTION, &mut congestion);
    let maxseg = sockopt::get_int(fd, libc::IPPROTO_TCP, libc::TCP_MAXSEG);
    let result = act(fd);
    if let Ok(name) = len.map(|len| congestion.get(..len).unwrap_or_default()) {
        let mut now = [0u8; 16];
        let same = sockopt::get(fd, libc::IPPROTO_TCP, libc::TCP_CONGESTION, &mut now)
            .is_ok_and(|len| now.get(..len) == Some(name));
        if !same {
            let _ = sockopt::set(fd, libc::IPPROTO_TCP, libc::TCP_CONGESTION, name);
        }
    }
    if let Ok(before) = maxseg
        && sockopt::get_int(fd, libc::IPPROTO_TCP, libc::TCP_MAXSEG) != Ok(before)
    {
        let _ = sockopt::set_int(fd, libc::IPPROTO_TCP, libc::TCP_MAXSEG, before);
    }
    result
}

/// The identity of a socket.
pub fn key_of(fd: BorrowedFd<'_>) -> Result<Key> {
    let asking = |e| Error::kernel(e, "asking the socket's identity");
    Ok(Key { cookie: sockopt::cookie(fd).map_err(asking)?, inode: sockopt::stat(fd).map_err(asking)?.0 })
}

/// ESTABLISHED or CLOSE_WAIT: what RFC 6897 5.3.4 calls established.
pub fn is_up(state: u8) -> bool {
    state == uapi::TCP_ESTABLISHED || state == uapi::TCP_CLOSE_WAIT
}

/// A link-local address with the interface it belongs to.
fn scoped(addr: SocketAddr, ifindex: u32) -> SocketAddr {
    match addr {
        SocketAddr::V6(mut v6) if addr::is_link_local(v6.ip()) && v6.scope_id() == 0 => {
            v6.set_scope_id(ifindex);
            v6.into()
        }
        _ => addr,
    }
}

fn refused(refusal: &Refusal, doing: &str) -> Error {
    let errno = refusal.errno;
    match errno {
        Errno(libc::EPERM) => no_privilege(),
        _ if refusal.text.is_empty() => Error::kernel(errno, doing),
        _ => Error::new(errno.0, format!("{doing}: {errno} ({})", refusal.text)),
    }
}

/// Nobody may act.
pub fn no_privilege() -> Error {
    Error::new(libc::EPERM, "controlling paths needs CAP_NET_ADMIN over this network namespace")
}

fn fault(fault: Fault) -> Error {
    match fault {
        Fault::NoSysctl(_) => Error::new(
            libc::EOPNOTSUPP,
            "net.mptcp.path_manager can't be read: no such kernel option, or /proc is not mounted",
        ),
        Fault::ReadOnly(Errno(libc::EPERM | libc::EACCES)) => no_privilege(),
        Fault::ReadOnly(errno) => Error::new(
            libc::EOPNOTSUPP,
            format!(
                "net.mptcp.path_manager can't be written ({errno}): start this network namespace \
                 with net.mptcp.path_manager=userspace"
            ),
        ),
        Fault::NoLock(errno) => Error::new(
            libc::EPERM,
            format!("no lock file could be made in /run/mptcpapi or XDG_RUNTIME_DIR ({errno})"),
        ),
        Fault::Locked => Error::new(
            libc::EIO,
            "another process holds the path-manager switch of this network namespace for over three seconds",
        ),
        Fault::Kernel(Errno(libc::EISCONN)) => Error::new(
            libc::EOPNOTSUPP,
            "another thread connected the socket meanwhile, before it could be put under path control",
        ),
        Fault::Kernel(errno) => Error::kernel(errno, "putting the socket under path control"),
    }
}
