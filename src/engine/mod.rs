// SPDX-License-Identifier: MIT OR Apache-2.0
//! The path manager's mind: a state machine without I/O and without a clock.
//!
//! Events and the time go in ([`Engine::handle`]); commands for the kernel
//! ([`Engine::poll_command`]) and answers to requests
//! ([`Engine::poll_notification`]) come out; [`Engine::next_timeout`] says when
//! to come back if nothing happens. The same inputs give the same outputs.
//!
//! What should be is compared with what is after every event, and the
//! difference becomes commands: an event lost, repeated or out of order is
//! mended by the next look.

pub mod connection;
mod few;
mod ids;

pub use connection::{Connection, Device, Entry, Peer, Phase, Ready, State, Subflow};

use crate::addr;
use crate::error::{Error, Result};
use connection::{Addition, Failure, Removal, Wanted};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

/// Monotonic time since a moment of the owner's choice.
pub type Time = std::time::Duration;

/// Names a request in its answer.
pub type RequestId = u64;

/// Names a connection inside the engine; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle(u64);

/// Identity of a socket: accepted sockets share their listener's cookie, so
/// the inode belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
}

/// What an application asks for.
#[derive(Clone, Debug)]
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
}

/// What goes in.
#[derive(Clone, Debug)]
pub enum Event {
    /// What an unconnected or listening socket is bound to; makes it known.
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
    /// A connection began. One that the engine does not know is ignored,
    /// unless its listener is known.
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
    },
    /// All subflows as they are now, in order of creation.
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
}

/// A command for one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command {
    /// Names it in [`Event::Done`] and [`Event::Routed`].
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

#[derive(Clone, Copy, Debug)]
struct Outstanding {
    handle: Handle,
    action: Action,
    /// The address of a list that a Create or Announce is for.
    source: SocketAddr,
}

const RETRY_FIRST: Time = Time::from_secs(1);
const RETRY_MAX: Time = Time::from_secs(64);
/// A subflow that lived this long was no failure.
const LIVED: Time = Time::from_secs(10);
/// Subflows of one connection; the kernel sets no bound of its own.
const SUBFLOWS_MAX: usize = 255;

pub(crate) fn unspecified(like: &SocketAddr) -> SocketAddr {
    if like.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() }
}

/// What is known by a cookie: accepted sockets share their listener's.
#[derive(Debug, Default)]
struct Family {
    members: usize,
    /// The one that is no connection: the listener, where it has children.
    prepared: Option<Handle>,
}

/// The state machine.
#[derive(Debug, Default)]
pub struct Engine {
    connections: BTreeMap<Handle, Box<Connection>>,
    by_token: HashMap<u32, Handle>,
    by_key: HashMap<Key, Handle>,
    families: HashMap<u64, Family>,
    timers: BTreeSet<(Time, Handle)>,
    waiting: usize,
    /// `None`: nobody asked to be told.
    changed: Option<BTreeSet<Key>>,
    handles: u64,
    tags: u64,
    commands: VecDeque<Command>,
    outstanding: HashMap<u64, Outstanding>,
    notices: VecDeque<Notice>,
}

impl Engine {
    /// The connection or socket with this identity.
    pub fn by_key(&self, key: &Key) -> Option<&Connection> {
        self.connections.get(self.by_key.get(key)?).map(Box::as_ref)
    }

    /// The connection with this token.
    pub fn by_token(&self, token: u32) -> Option<&Connection> {
        self.connections.get(self.by_token.get(&token)?).map(Box::as_ref)
    }

    /// Whether a socket or connection with this cookie is known; accepted
    /// sockets share their listener's.
    pub fn knows_cookie(&self, cookie: u64) -> bool {
        self.families.contains_key(&cookie)
    }

    /// How many known sockets are no connection: not connected, or listening.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Everything known, in order of its becoming known.
    pub fn connections(&self) -> impl Iterator<Item = &Connection> {
        self.connections.values().map(Box::as_ref)
    }

    /// The next command for the kernel. Each is answered by one
    /// [`Event::Done`] (or [`Event::Routed`]).
    pub fn poll_command(&mut self) -> Option<Command> {
        while let Some(command) = self.commands.pop_front() {
            let handle = self.outstanding.get(&command.tag).map(|known| known.handle);
            if handle.is_some_and(|handle| self.connections.contains_key(&handle)) {
                return Some(command);
            }
            // Its connection is gone.
            self.outstanding.remove(&command.tag);
        }
        None
    }

    /// The next answer.
    pub fn poll_notification(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// When to call with [`Event::Tick`] if nothing happens before.
    pub fn next_timeout(&self) -> Option<Time> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// Whether [`Engine::poll_changed`] is to have something to say.
    pub fn keep_changes(&mut self, on: bool) {
        self.changed = on.then(|| self.changed.take().unwrap_or_default());
    }

    /// A socket whose durable state has changed, or that is known no more,
    /// since this last named it.
    pub fn poll_changed(&mut self) -> Option<Key> {
        self.changed.as_mut()?.pop_first()
    }

    /// Takes one event.
    pub fn handle(&mut self, event: Event, now: Time) {
        match event {
            Event::Binding { key, bound, device } => {
                let handle = self.known(key);
                self.with(handle, now, |c| {
                    if c.phase == Phase::Prepared {
                        (c.bound, c.device) = (bound, device);
                    }
                });
            }
            Event::PeerAddresses { key, addrs } => {
                let handle = self.known(key);
                self.with(handle, now, |c| {
                    for addr in addrs {
                        let room = c.peers.len() < 2 * addr::LIST_MAX;
                        if room && !c.peers.iter().any(|peer| peer.addr == addr) {
                            c.peers.push(Peer { id: None, addr });
                        }
                    }
                });
            }
            Event::Request { id, key, request } => self.request(id, key, request, now),
            Event::Forget { key } => {
                if let Some(handle) = self.by_key.get(&key).copied() {
                    self.drop_connection(handle);
                }
            }
            Event::Created { token, key, initial, server } => self.created(token, key, initial, server, now),
            Event::Established { token } => self.with_token(token, now, |c| {
                c.heard += 1;
                c.ready = Ready::Yes;
            }),
            Event::Closed { token } => {
                if let Some(handle) = self.by_token.get(&token).copied() {
                    self.drop_connection(handle);
                }
            }
            Event::Announced { token, id, addr } => self.with_token(token, now, |c| {
                let peer = Peer { id: Some(id), addr: addr::canonical(addr) };
                if id == 0 || !credible(c, &peer.addr) {
                    return;
                }
                match c.peers.iter_mut().find(|known| known.id == Some(id) || known.addr == peer.addr) {
                    Some(known) => *known = peer,
                    None => note(&mut c.peers, peer),
                }
            }),
            Event::Withdrawn { token, id } => {
                self.with_token(token, now, |c| c.peers.retain(|peer| peer.id != Some(id)));
            }
            Event::SubflowUp { token, subflow } => self.with_token(token, now, |c| {
                c.heard += 1;
                // Only a fully established connection has further subflows.
                if c.ready != Ready::Over {
                    c.ready = Ready::Yes;
                }
                seen(c, &subflow, now);
            }),
            Event::NotBackup { token, local, remote } => self.with_token(token, now, |c| {
                if let Some(known) = c.subflows.iter_mut().find(|known| same_pair(known, &local, &remote)) {
                    known.backup = false;
                }
            }),
            Event::SubflowDown { token, local, remote } => {
                self.with_token(token, now, |c| {
                    c.heard += 1;
                    down(c, &local, &remote, now);
                });
            }
            Event::Snapshot { token, key, server, initial, ready, subflows } => {
                self.adopt(token, key);
                let handle = self.by_token.get(&token).copied().filter(|handle| {
                    self.connections.get(handle).is_some_and(|c| c.key.cookie == key.cookie)
                });
                let handle = handle.unwrap_or_else(|| self.known(key));
                self.name(handle, token);
                self.with(handle, now, |c| snapshot(c, token, server, initial, ready, &subflows, now));
            }
            Event::Done { tag, outcome } => self.done(tag, outcome, now),
            Event::Routed { tag, local } => self.routed(tag, local, now),
            Event::Tick => {
                let later = self.timers.split_off(&(now, Handle(u64::MAX)));
                for (_, handle) in std::mem::replace(&mut self.timers, later) {
                    self.with(handle, now, |c| c.indexed.due = None);
                }
            }
        }
    }

    /// Gives an accepted connection, known by its token only, the identity of
    /// its descriptor.
    pub fn adopt(&mut self, token: u32, key: Key) {
        if let Some(handle) = self.by_token.get(&token).copied()
            && let Some(c) = self.connections.get_mut(&handle)
            && c.key.cookie == key.cookie
            && c.key.inode == 0
        {
            c.key = key;
            self.identify(handle, key);
            self.index(handle);
        }
    }

    fn known(&mut self, key: Key) -> Handle {
        if let Some(handle) = self.by_key.get(&key) {
            return *handle;
        }
        let handle = self.insert(Connection::new(key));
        self.identify(handle, key);
        handle
    }

    /// Makes a connection known by its key, another no more.
    fn identify(&mut self, handle: Handle, key: Key) {
        if let Some(other) = self.by_key.insert(key, handle).filter(|other| *other != handle) {
            self.drop_connection(other);
        }
    }

    fn insert(&mut self, mut connection: Connection) -> Handle {
        self.handles += 1;
        let handle = Handle(self.handles);
        // No two connections count the same.
        connection.heard = self.handles << 32;
        self.families.entry(connection.key.cookie).or_default().members += 1;
        self.connections.insert(handle, Box::new(connection));
        self.index(handle);
        handle
    }

    /// Gives a connection its token; another that had it is over.
    fn name(&mut self, handle: Handle, token: u32) {
        if let Some(other) = self.by_token.insert(token, handle).filter(|other| *other != handle) {
            self.drop_connection(other);
        }
        let Some(c) = self.connections.get_mut(&handle) else { return };
        if let Some(old) = c.token.replace(token).filter(|old| *old != token) {
            self.by_token.remove(&old);
        }
    }

    /// Brings what is kept beside the connections in step with one of them.
    fn index(&mut self, handle: Handle) {
        let Some(c) = self.connections.get_mut(&handle) else { return };
        let prepared = c.phase == Phase::Prepared;
        if prepared != c.indexed.prepared {
            c.indexed.prepared = prepared;
            if prepared {
                self.waiting += 1;
            } else {
                self.waiting -= 1;
            }
            if let Some(family) = self.families.get_mut(&c.key.cookie) {
                let first = family.prepared.filter(|known| prepared || *known != handle);
                family.prepared = first.or(prepared.then_some(handle));
            }
        }
        if let Some(changed) = &mut self.changed {
            let digest = c.digest();
            if digest != c.indexed.digest {
                c.indexed.digest = digest;
                // One that is not accepted yet has no name of its own.
                if c.key.inode != 0 {
                    changed.insert(c.key);
                }
            }
        }
    }

    fn drop_connection(&mut self, handle: Handle) {
        let Some(c) = self.connections.remove(&handle) else { return };
        let c = *c;
        if self.by_key.get(&c.key) == Some(&handle) {
            self.by_key.remove(&c.key);
        }
        if let Some(token) = c.token.filter(|token| self.by_token.get(token) == Some(&handle)) {
            self.by_token.remove(&token);
        }
        if let Some(family) = self.families.get_mut(&c.key.cookie) {
            family.members -= 1;
            family.prepared = family.prepared.filter(|prepared| *prepared != handle);
            if family.members == 0 {
                self.families.remove(&c.key.cookie);
            }
        }
        if let Some(due) = c.indexed.due {
            self.timers.remove(&(due, handle));
        }
        self.waiting -= usize::from(c.indexed.prepared);
        if let Some(changed) = self.changed.as_mut().filter(|_| c.key.inode != 0) {
            changed.insert(c.key);
        }
        let ended = || Err(Error::new(libc::ENOTCONN, "the connection ended"));
        for addition in c.additions.iter() {
            self.notices.push_back(Notice::Answer { id: addition.request, result: ended() });
        }
        for request in c.removals.iter().filter_map(|removal| removal.request) {
            // Nothing of it is used any more.
            self.notices.push_back(Notice::Answer { id: request, result: Ok(()) });
        }
    }

    fn with(&mut self, handle: Handle, now: Time, change: impl FnOnce(&mut Connection)) {
        if let Some(c) = self.connections.get_mut(&handle) {
            change(c);
            self.settle(handle, now);
        }
    }

    /// After every change of a connection.
    fn settle(&mut self, handle: Handle, now: Time) {
        self.reconcile(handle, now);
        self.schedule(handle, now);
        self.index(handle);
    }

    /// Sees to it that the connection's next moment isn't missed.
    fn schedule(&mut self, handle: Handle, now: Time) {
        let Some(c) = self.connections.get_mut(&handle) else { return };
        let due = c.due(now);
        if due != c.indexed.due {
            if let Some(old) = std::mem::replace(&mut c.indexed.due, due) {
                self.timers.remove(&(old, handle));
            }
            self.timers.extend(due.map(|due| (due, handle)));
        }
    }

    fn with_token(&mut self, token: u32, now: Time, change: impl FnOnce(&mut Connection)) {
        if let Some(handle) = self.by_token.get(&token).copied() {
            self.with(handle, now, change);
        }
    }

    fn created(&mut self, token: u32, key: Key, initial: Seen, server: bool, now: Time) {
        let pair = (addr::canonical(initial.local), addr::canonical(initial.remote));
        if self.by_token(token).is_some_and(|c| c.key.cookie == key.cookie && c.initial == Some(pair)) {
            // It was told before.
            return;
        }
        if let Some(over) = self.by_key(&key).filter(|c| c.phase == Phase::Open && !server)
            && let Some(handle) = over.token.and_then(|token| self.by_token.get(&token)).copied()
        {
            // The socket was disconnected, and has forgotten its list, unheard.
            self.drop_connection(handle);
        }
        let handle = if server {
            let Some(child) = self.child_of(key) else { return };
            let handle = self.insert(child);
            if key.inode != 0 {
                // Accepted already.
                self.identify(handle, key);
            }
            handle
        } else {
            let Some(handle) = self.by_key.get(&key).copied() else { return };
            handle
        };
        self.name(handle, token);
        self.with(handle, now, |c| {
            c.heard += 1;
            c.server = server;
            c.ready = if server { Ready::Yes } else { Ready::No };
            begin(c, pair);
            seen(c, &initial, now);
        });
    }

    /// A new connection of a listener that is known: children carry their
    /// listener's cookie and inherit what it was told.
    fn child_of(&self, key: Key) -> Option<Connection> {
        let listener = self.connections.get(&self.families.get(&key.cookie)?.prepared?)?;
        if listener.key.inode == 0 {
            return None;
        }
        let mut child = Connection::new(Key { cookie: key.cookie, inode: key.inode });
        child.listed = listener.listed;
        child.entries = listener.entries.clone();
        child.excluded = listener.excluded.clone();
        child.device = listener.device.clone();
        child.server = true;
        Some(child)
    }

    fn request(&mut self, id: RequestId, key: Key, request: Request, now: Time) {
        let handle = self.known(key);
        let Some(c) = self.connections.get_mut(&handle) else { return };
        if c.foreign {
            self.notices.push_back(Notice::Answer { id, result: Err(not_ours()) });
            return;
        }
        match request {
            Request::Add(entries) => {
                let before = (c.entries.clone(), c.excluded.clone());
                let added: Vec<SocketAddr> = entries.iter().map(|e| e.addr).collect();
                if let Err(error) = add(c, entries) {
                    (c.entries, c.excluded) = before;
                    self.notices.push_back(Notice::Answer { id, result: Err(error) });
                    return;
                }
                if c.phase == Phase::Prepared {
                    c.listed = true;
                    self.notices.push_back(Notice::Answer { id, result: Ok(()) });
                    return;
                }
                for addr in &added {
                    c.failures.retain(|f| f.local != *addr);
                    for removal in c.removals.iter_mut() {
                        removal.addrs.retain(|gone| !addr::covers(gone, addr));
                    }
                }
                c.additions.push(Addition {
                    request: id,
                    commands: Vec::new(),
                    entries: before.0,
                    excluded: before.1,
                    added,
                    used: c.subflows.iter().map(Subflow::from).collect(),
                });
                self.settle(handle, now);
            }
            Request::Remove { addrs, patience } => {
                if let Err(error) = remove(c, &addrs) {
                    self.notices.push_back(Notice::Answer { id, result: Err(error) });
                    return;
                }
                if c.phase == Phase::Prepared {
                    self.notices.push_back(Notice::Answer { id, result: Ok(()) });
                    return;
                }
                let deadline = now.saturating_add(patience);
                let queued = c.ready == Ready::No;
                c.removals.push(Removal { addrs, deadline, request: (!queued).then_some(id) });
                if queued {
                    self.notices.push_back(Notice::Answer { id, result: Ok(()) });
                }
                self.settle(handle, now);
            }
        }
    }

    fn emit(&mut self, handle: Handle, action: Action, source: SocketAddr) -> Option<u64> {
        let c = self.connections.get_mut(&handle)?;
        let token = c.token?;
        self.tags += 1;
        let tag = self.tags;
        if let Some(addition) = c.additions.iter_mut().find(|a| a.added.contains(&source)) {
            addition.commands.push(tag);
        }
        self.outstanding.insert(tag, Outstanding { handle, action, source });
        self.commands.push_back(Command { tag, token, key: c.key, action });
        Some(tag)
    }

    /// Makes what is into what should be.
    fn reconcile(&mut self, handle: Handle, now: Time) {
        self.announce(handle);
        self.expel(handle);
        self.create(handle, now);
        self.finish_removals(handle, now);
        self.prioritise(handle);
        self.finish_additions(handle);
    }

    fn open(&self, handle: Handle) -> Option<&Connection> {
        let c = self.connections.get(&handle)?.as_ref();
        (c.phase == Phase::Open && c.ready != Ready::No && !c.foreign).then_some(c)
    }

    fn announce(&mut self, handle: Handle) {
        let Some(c) = self.open(handle) else { return };
        for addr in c.to_announce() {
            let Some(c) = self.connections.get_mut(&handle) else { return };
            let port = c.initial.map_or(0, |(local, _)| local.port());
            let listen = addr::with_port(addr, if addr.port() == 0 { port } else { addr.port() });
            let Some(slot) = c.ids.allocate(addr, addr.port()) else { continue };
            c.announced.push((addr, slot.id));
            let known = c.listening.contains(&listen);
            c.listening.push(listen);
            if !known {
                self.emit(handle, Action::Listen { local: listen }, addr);
            }
            self.emit(handle, Action::Announce { local: addr, id: slot.id }, addr);
        }
    }

    /// Closes what may not be used.
    fn expel(&mut self, handle: Handle) {
        let Some(c) = self.open(handle) else { return };
        let replaceable = c.has_alternative();
        let out: Vec<Subflow> = c
            .subflows
            .iter()
            .filter(|s| !s.closing && !s.state.asked() && !c.allows(&s.local) && !c.leaving(&s.local))
            // The first subflow was routing's choice: replaced, not dropped.
            .filter(|s| !s.initial || (!c.server && replaceable))
            .copied()
            .collect();
        for subflow in out {
            self.close(handle, &subflow);
        }
    }

    /// Tells the peer, if nothing else uses the id, and closes the subflow.
    fn close(&mut self, handle: Handle, subflow: &Subflow) {
        let Some(c) = self.connections.get_mut(&handle) else { return };
        let alone = c.subflows.iter().filter(|s| s.local_id == subflow.local_id && !s.closing).count() < 2;
        let announced = c.announced.iter().any(|(_, id)| *id == subflow.local_id);
        let from = subflow.from();
        for known in c.subflows.iter_mut().filter(|s| same_pair(s, &subflow.local, &subflow.remote)) {
            known.closing = true;
        }
        if alone && !announced {
            self.emit(handle, Action::Remove { id: subflow.local_id }, from);
        }
        let action = Action::Destroy { local: subflow.local, remote: subflow.remote };
        self.emit(handle, action, from);
    }

    fn create(&mut self, handle: Handle, now: Time) {
        let Some(c) = self.open(handle) else { return };
        for wanted in c.wanted(SUBFLOWS_MAX, now) {
            match wanted {
                Wanted::Pair(local, remote) => self.join(handle, local, remote, now),
                Wanted::Routed(remote) => {
                    if let Some(c) = self.connections.get_mut(&handle) {
                        c.routing.push(remote);
                    }
                    self.emit(handle, Action::Route { remote }, remote);
                }
            }
        }
    }

    fn join(&mut self, handle: Handle, source: SocketAddr, remote: SocketAddr, now: Time) {
        let Some(c) = self.connections.get_mut(&handle) else { return };
        let preferred = match (source.port(), c.initial) {
            // The kernel keeps the dead initial subflow in its list, where
            // commands for the same pair of addresses and ports would end.
            (0, Some((initial, _))) if addr::same_ip(&initial, &source) => 0,
            (0, Some((initial, _))) => initial.port(),
            (port, _) => port,
        };
        let Some(slot) = c.ids.allocate(source, preferred) else {
            fail(c, source, remote, now);
            return;
        };
        let local = addr::with_port(source, slot.port);
        let backup = c.entry(&source).is_some_and(|entry| entry.backup);
        let ifindex = c.ifindex(&source);
        note(
            &mut c.subflows,
            Subflow {
                local,
                remote,
                local_id: slot.id,
                state: State::Asked,
                initial: false,
                backup,
                closing: false,
            },
        );
        self.emit(handle, Action::Create { local, id: slot.id, remote, backup, ifindex }, source);
    }

    /// Removes addresses whose alternatives are there, or won't come.
    fn finish_removals(&mut self, handle: Handle, now: Time) {
        let Some(c) = self.open(handle) else { return };
        let wait = !c.has_alternative() && c.awaits_alternative();
        let due = |removal: &Removal| {
            let used = c
                .subflows
                .iter()
                .any(|s| s.up() && removal.addrs.iter().any(|gone| addr::covers(gone, &s.from())));
            !(wait && used) || removal.deadline <= now
        };
        let (ready, later): (Vec<Removal>, Vec<Removal>) = c.removals.iter().cloned().partition(due);
        if ready.is_empty() {
            return;
        }
        if let Some(c) = self.connections.get_mut(&handle) {
            c.removals = later.into();
        }
        for removal in ready {
            self.depart(handle, &removal.addrs);
            if let Some(id) = removal.request {
                self.notices.push_back(Notice::Answer { id, result: Ok(()) });
            }
        }
    }

    fn depart(&mut self, handle: Handle, addrs: &[SocketAddr]) {
        let Some(c) = self.connections.get_mut(&handle) else { return };
        let gone = |local: &SocketAddr| addrs.iter().any(|addr| addr::covers(addr, local));
        let closing: Vec<Subflow> =
            c.subflows.iter().filter(|s| !s.closing && gone(&s.from())).copied().collect();
        // RM_ADDR first: DESTROY deletes the id (KERNEL pm_userspace.c).
        let mut ids: Vec<(u8, SocketAddr)> = Vec::new();
        for (id, addr) in closing
            .iter()
            .map(|s| (s.local_id, s.from()))
            .chain(c.announced.iter().filter(|(addr, _)| gone(addr)).map(|(addr, id)| (*id, *addr)))
        {
            let shared = c.subflows.iter().any(|s| s.local_id == id && !s.closing && !gone(&s.from()));
            if !shared && !ids.iter().any(|(known, _)| *known == id) {
                ids.push((id, addr));
            }
        }
        c.announced.retain(|(addr, _)| !gone(addr));
        c.failures.retain(|f| !gone(&f.local));
        for s in c.subflows.iter_mut().filter(|s| gone(&s.from())) {
            s.closing = true;
        }
        let freed: Vec<SocketAddr> =
            c.ids.iter().filter(|s| s.id != 0 && gone(&s.addr)).map(|s| s.addr).collect();
        for addr in freed {
            c.ids.free(&addr);
        }
        for (id, addr) in ids {
            self.emit(handle, Action::Remove { id }, addr);
        }
        for s in closing {
            self.emit(handle, Action::Destroy { local: s.local, remote: s.remote }, s.from());
        }
    }

    /// Makes subflows backup, or not, as the list says.
    fn prioritise(&mut self, handle: Handle) {
        if self.open(handle).is_none() {
            return;
        }
        let Some(c) = self.connections.get_mut(&handle) else { return };
        let mut changes = Vec::new();
        for i in 0..c.subflows.len() {
            let Some(subflow) = c.subflows.get(i).copied() else { continue };
            let Some(wish) = c.entry(&subflow.local).map(|entry| entry.backup) else { continue };
            if subflow.up() && wish != subflow.backup {
                changes.push((subflow, wish));
                if let Some(subflow) = c.subflows.get_mut(i) {
                    subflow.backup = wish;
                }
            }
        }
        for (subflow, backup) in changes {
            let action = Action::SetBackup { local: subflow.local, remote: subflow.remote, backup };
            self.emit(handle, action, subflow.from());
        }
    }

    /// Answers an ADD when the kernel has taken its commands.
    fn finish_additions(&mut self, handle: Handle) {
        let Some(c) = self.connections.get_mut(&handle) else { return };
        if c.additions.iter().all(|addition| !addition.commands.is_empty()) {
            return;
        }
        let (done, waiting): (Vec<Addition>, Vec<Addition>) =
            c.additions.take().into_iter().partition(|a| a.commands.is_empty());
        c.additions = waiting.into();
        for addition in done {
            self.notices.push_back(Notice::Answer { id: addition.request, result: Ok(()) });
        }
    }

    fn done(&mut self, tag: u64, outcome: Outcome, now: Time) {
        let Some(Outstanding { handle, action, source }) = self.outstanding.remove(&tag) else { return };
        let Some(c) = self.connections.get_mut(&handle) else { return };
        if let Action::Create { .. } | Action::Destroy { .. } = action {
            c.heard += 1;
        }
        for addition in c.additions.iter_mut() {
            addition.commands.retain(|known| *known != tag);
        }
        let mut refusal = None;
        match outcome {
            Outcome::Gone => {
                self.drop_connection(handle);
                return;
            }
            Outcome::NotOurs => {
                refusal = Some(not_ours());
                c.subflows.retain(|s| s.state != State::Asked);
                c.foreign = true;
            }
            _ => match action {
                Action::Create { local, remote, .. } => {
                    refusal = created_or_not(c, &source, &local, &remote, outcome, now);
                }
                Action::Destroy { local, remote } => c.subflows.retain(|s| !same_pair(s, &local, &remote)),
                Action::Announce { local, id } => match outcome {
                    Outcome::Mismatch => {
                        c.announced.retain(|(addr, _)| *addr != local);
                        renew(c, &local, id, local.port());
                    }
                    Outcome::Refused(errno) => {
                        refusal = Some(Error::new(errno, format!("announcing {} was refused", local.ip())));
                    }
                    _ => {}
                },
                Action::Listen { local } => {
                    if let Outcome::Refused(errno) = outcome {
                        refusal = Some(Error::new(
                            errno,
                            format!("no listening socket for joins to {local} could be made"),
                        ));
                    }
                }
                Action::Remove { .. } | Action::SetBackup { .. } | Action::Route { .. } => {}
            },
        }
        if let Some(error) = refusal {
            self.refuse(handle, &source, error);
        }
        self.settle(handle, now);
    }

    /// Undoes the ADD that a refused command was for.
    fn refuse(&mut self, handle: Handle, source: &SocketAddr, error: Error) {
        let Some(c) = self.connections.get_mut(&handle) else { return };
        let at = c.additions.iter().position(|a| a.added.contains(source));
        let Some(addition) = at.and_then(|at| c.additions.take_at(at)) else { return };
        let fresh: Vec<SocketAddr> = addition
            .added
            .iter()
            .filter(|addr| !addition.entries.iter().any(|entry| entry.addr == **addr))
            // What was there before without being listed stays.
            .filter(|addr| !addition.used.iter().any(|used| addr::covers(addr, used)))
            .copied()
            .collect();
        c.entries = addition.entries;
        c.excluded = addition.excluded;
        self.depart(handle, &fresh);
        self.notices.push_back(Notice::Answer { id: addition.request, result: Err(error) });
    }

    fn routed(&mut self, tag: u64, local: Option<SocketAddr>, now: Time) {
        let Some(Outstanding { handle, action: Action::Route { remote }, .. }) =
            self.outstanding.remove(&tag)
        else {
            return;
        };
        let Some(c) = self.connections.get_mut(&handle) else { return };
        c.routing.retain(|peer| *peer != remote);
        match local.map(|local| addr::with_port(addr::canonical(local), 0)) {
            Some(local) if c.allows(&local) && !c.failing(&local, &remote, now) => {
                self.join(handle, local, remote, now);
            }
            _ => fail(c, unspecified(&remote), remote, now),
        }
        self.settle(handle, now);
    }
}

/// Why nothing can be done about a connection.
pub(crate) fn not_ours() -> Error {
    Error::new(
        libc::EOPNOTSUPP,
        "the in-kernel path manager controls this connection: give it a list before it connects, or start the \
         network namespace with net.mptcp.path_manager=userspace",
    )
}

impl State {
    fn asked(self) -> bool {
        self == Self::Asked
    }
}

fn same_pair(subflow: &Subflow, local: &SocketAddr, remote: &SocketAddr) -> bool {
    let (from, local) = (subflow.from(), addr::canonical(*local));
    addr::same(&subflow.to(), &addr::canonical(*remote))
        && addr::same_ip(&from, &local)
        && (from.port() == local.port() || from.port() == 0)
}

/// Appends without much room to spare: most connections have one or two.
fn note<T>(list: &mut Vec<T>, item: T) {
    if list.len() == list.capacity() {
        list.reserve_exact(if list.len() < 4 { 1 } else { list.len() / 2 });
    }
    list.push(item);
}

/// The connection is there.
fn begin(c: &mut Connection, initial: (SocketAddr, SocketAddr)) {
    c.phase = Phase::Open;
    c.initial = Some(initial);
    c.peers.retain(|peer| peer.addr != initial.1);
    c.peers.reserve_exact(1);
    c.peers.insert(0, Peer { id: Some(0), addr: initial.1 });
    if c.server && c.restricted() {
        // A server binds as it always did: where the client came to is allowed.
        c.bound = c.bound.or(Some(initial.0));
    }
}

/// Notes all that the kernel has.
fn snapshot(
    c: &mut Connection,
    token: u32,
    server: bool,
    initial: (SocketAddr, SocketAddr),
    ready: bool,
    subflows: &[Seen],
    now: Time,
) {
    if c.phase == Phase::Prepared {
        c.server = server;
        begin(c, (addr::canonical(initial.0), addr::canonical(initial.1)));
    }
    c.token = Some(token);
    c.subflows.retain(|known| {
        known.state.asked() || subflows.iter().any(|s| same_pair(known, &s.local, &s.remote))
    });
    for subflow in subflows {
        seen(c, subflow, now);
    }
    if c.ready == Ready::Over {
        // It stays so.
    } else if ready || subflows.len() > 1 {
        c.ready = Ready::Yes;
    } else if c.ready == Ready::No {
        c.ready = Ready::Unknown;
    }
}

/// Notes a subflow that the kernel has.
fn seen(c: &mut Connection, subflow: &Seen, now: Time) {
    let port = addr::canonical(subflow.local).port();
    let source = addr::with_port(addr::canonical(subflow.local), 0);
    if !c.ids.iter().any(|slot| slot.id == subflow.local_id && addr::same_ip(&slot.addr, &source)) {
        c.ids.reserve(subflow.local_id, source, if subflow.initial { 0 } else { port });
    }
    let state = if subflow.up { State::Up(now) } else { State::Syn };
    match c.subflows.iter_mut().find(|known| same_pair(known, &subflow.local, &subflow.remote)) {
        Some(known) => {
            (known.local, known.remote, known.local_id) = (subflow.local, subflow.remote, subflow.local_id);
            if !matches!(known.state, State::Up(_)) {
                known.state = state;
            }
        }
        None => note(
            &mut c.subflows,
            Subflow {
                local: subflow.local,
                remote: subflow.remote,
                local_id: subflow.local_id,
                state,
                initial: subflow.initial,
                backup: false,
                closing: false,
            },
        ),
    }
}

/// Whether a peer may have announced this address as its own: none that leads
/// back to this host or to many, unless the peer itself is on this host.
fn credible(c: &Connection, addr: &SocketAddr) -> bool {
    let ip = addr.ip();
    let local_peer = c.initial.is_some_and(|(_, remote)| remote.ip().is_loopback());
    addr.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && (local_peer || !ip.is_loopback())
}

/// Notes the end of a subflow.
fn down(c: &mut Connection, local: &SocketAddr, remote: &SocketAddr, now: Time) {
    let Some(at) = c.subflows.iter().position(|s| same_pair(s, local, remote)) else { return };
    let subflow = c.subflows.remove(at);
    let (from, to) = (subflow.from(), subflow.to());
    let source = c.sources_of(&from);
    if let State::Up(since) = subflow.state
        && now.saturating_sub(since) >= LIVED
    {
        c.failures.retain(|f| f.local != source || f.remote != to);
    }
    fail(c, source, to, now);
}

impl Connection {
    /// The listed address that a subflow's local address stands for.
    fn sources_of(&self, from: &SocketAddr) -> SocketAddr {
        self.entry(from).map_or(addr::with_port(*from, 0), |entry| entry.addr)
    }
}

/// Puts a pair off, each time for twice as long.
fn fail(c: &mut Connection, local: SocketAddr, remote: SocketAddr, now: Time) {
    let old = c.failures.iter().position(|f| f.local == local && f.remote == remote);
    let old = old.and_then(|at| c.failures.take_at(at));
    let wait = old.map_or(RETRY_FIRST, |failure| failure.wait.saturating_mul(2).min(RETRY_MAX));
    c.failures.push(Failure { local, remote, until: now.saturating_add(wait), wait });
    // Pairs of addresses long gone; a list and its peers are far smaller.
    if c.failures.len() > 1024 {
        c.failures.take_at(0);
    }
}

/// Gives an address another id, and the port that commands for it name.
fn renew(c: &mut Connection, source: &SocketAddr, id: u8, port: u16) {
    c.ids.free(source);
    // The old id stays taken, under an address that nobody asks for.
    c.ids.reserve(id, addr::with_port(unspecified(source), u16::from(id)), 0);
    c.ids.allocate(*source, port);
}

/// A join was sent, or why not. An error is one that the application must
/// hear of.
fn created_or_not(
    c: &mut Connection,
    source: &SocketAddr,
    local: &SocketAddr,
    remote: &SocketAddr,
    outcome: Outcome,
    now: Time,
) -> Option<Error> {
    let asked =
        c.subflows.iter().position(|s| s.state == State::Asked && s.local == *local && s.remote == *remote);
    if outcome == Outcome::Taken {
        if let Some(subflow) = asked.and_then(|at| c.subflows.get_mut(at)) {
            subflow.state = State::Syn;
        }
        c.mismatches.retain(|known| known != source);
        return None;
    }
    let id = asked.map(|at| c.subflows.remove(at).local_id);
    // A failed create can delete the kernel's first entry with the same
    // address, an announced one too: tell the peer again.
    c.announced.retain(|(addr, _)| !addr::same_ip(addr, local));
    match outcome {
        Outcome::NotReady => c.ready = if c.ready == Ready::Yes { Ready::Over } else { Ready::No },
        Outcome::Mismatch => {
            fail(c, *source, *remote, now);
            // The kernel has entries that we don't know: another id first, then
            // any port, then odd ones, then no more until it works again.
            let tried = c.mismatches.iter().filter(|known| *known == source).count();
            if let Some(id) = id
                && tried < 5
            {
                c.mismatches.push(*source);
                let port = match (tried, source.port()) {
                    (0, _) => local.port(),
                    (1, port) => port,
                    (_, 0) => 0x8000 | c.initial.map_or(0, |(from, _)| from.port()).rotate_left(tried as u32),
                    (_, port) => port,
                };
                renew(c, source, id, port);
                if let Some(failure) = c.failures.last_mut() {
                    failure.until = now;
                }
            }
        }
        Outcome::Refused(libc::EADDRINUSE) if source.port() == 0 && local.port() != 0 => {
            c.ids.set_port(source, 0);
        }
        Outcome::Refused(errno) => {
            fail(c, *source, *remote, now);
            if let libc::EADDRINUSE | libc::EPERM | libc::ENOMEM | libc::EACCES = errno {
                return Some(Error::new(errno, format!("a subflow from {source} to {remote} was refused")));
            }
        }
        Outcome::Taken | Outcome::Gone | Outcome::NotOurs => {}
    }
    None
}

/// Takes addresses into the list; the last flags win.
fn add(c: &mut Connection, entries: Vec<Entry>) -> Result<()> {
    for entry in entries {
        c.excluded.retain(|gone| !addr::covers(gone, &entry.addr));
        match c.entries.iter_mut().find(|known| known.addr == entry.addr) {
            Some(known) => *known = entry,
            None => note(&mut c.entries, entry),
        }
    }
    if c.entries.len() > addr::LIST_MAX {
        let words = format!("a socket's list holds {} addresses at most", addr::LIST_MAX);
        return Err(Error::new(libc::ENOSPC, words));
    }
    Ok(())
}

/// Takes addresses out of the list, or excludes them where it has none.
fn remove(c: &mut Connection, addrs: &[SocketAddr]) -> Result<()> {
    for addr in addrs {
        let listed = c.entries.iter().any(|entry| addr::covers(addr, &entry.addr));
        let used = c.subflows.iter().any(|s| !s.closing && addr::covers(addr, &s.from()));
        let bound = c.bound.is_some_and(|bound| addr::same_ip(&bound, addr));
        if c.restricted() && !listed && !used && !bound {
            let words = format!("{addr} is neither in the list nor in use");
            return Err(Error::new(libc::EADDRNOTAVAIL, words));
        }
    }
    for addr in addrs {
        let before = c.entries.len();
        c.entries.retain(|entry| !addr::covers(addr, &entry.addr));
        let was_listed = c.entries.len() < before;
        let lifts = c.phase == Phase::Prepared && was_listed;
        if lifts && c.entries.is_empty() {
            c.listed = false;
        }
        if !lifts && c.allows(addr) && !c.excluded.contains(addr) {
            c.excluded.push(*addr);
        }
    }
    if c.excluded.len() > addr::LIST_MAX {
        let surplus = c.excluded.len() - addr::LIST_MAX;
        c.excluded.drain(..surplus);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
