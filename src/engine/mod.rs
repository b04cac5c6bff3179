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

mod act;
pub mod connection;
mod endpoints;
mod event;
mod few;
mod host;
pub mod ids;
mod judge;
mod note;
mod profile;
mod saved;
pub mod settings;
mod steering;
mod watch;

pub(crate) use act::not_ours;
pub use connection::{Connection, Device, Entry, Peer, Phase, Ready, State, Subflow};
pub use endpoints::{Endpoint, Limits};
pub use event::{
    Action, Command, Event, Handle, Incident, Key, Notice, Outcome, Request, RequestId, Seen, Time,
};
pub use judge::Facts;
pub use saved::{Saved, Wishes};
pub use settings::{Mode, PathPolicy, Profile, Redundancy, Setting, Settings, Traffic};

use crate::addr;
use crate::error::Error;
use crate::quick::Map;
use act::Outstanding;
use connection::Removal;
use host::Host;
use note::{add, admit, begin, credible, down, peer_has, position, remove, seen, snapshot, succeed};
use std::collections::{BTreeSet, VecDeque};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU64;

/// Subflows of one connection; the kernel sets no bound of its own.
const SUBFLOWS_MAX: usize = 255;
/// Requests of one connection that wait for their answer.
const PENDING_MAX: usize = 64;

pub(crate) fn unspecified(like: &SocketAddr) -> SocketAddr {
    if like.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() }
}

/// What is known by a cookie: accepted sockets share their listener's.
#[derive(Debug, Default)]
struct Family {
    members: u32,
    /// The one that is no connection: the listener, where it has children.
    prepared: Option<Handle>,
}

/// The state machine.
#[derive(Debug, Default)]
pub struct Engine {
    /// Looked into many times with each event, gone through seldom.
    connections: Map<Handle, Box<Connection>>,
    host: Host,
    by_token: Map<u32, Handle>,
    by_key: Map<Key, Handle>,
    families: Map<u64, Family>,
    timers: BTreeSet<(Time, Handle)>,
    waiting: usize,
    /// `None`: nobody asked to be told.
    changed: Option<BTreeSet<Key>>,
    handles: u64,
    tags: u64,
    commands: VecDeque<Command>,
    outstanding: Map<u64, Outstanding>,
    notices: VecDeque<Notice>,
    /// `None`: nobody asked to be told.
    incidents: Option<VecDeque<Incident>>,
    budget: watch::Budget,
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

    /// Whether a subflow can use this local address now, by what
    /// [`Event::Unusable`] and [`Event::Usable`] said.
    pub fn usable(&self, addr: &SocketAddr) -> bool {
        self.host.usable(addr)
    }

    /// How many known sockets are no connection: not connected, or listening.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Everything known, in order of its becoming known.
    pub fn connections(&self) -> impl Iterator<Item = &Connection> {
        let handles = self.handles_of(|_| true);
        handles.into_iter().filter_map(|handle| self.connections.get(&handle).map(Box::as_ref))
    }

    /// Whether one of them is such.
    pub fn any(&self, such: impl Fn(&Connection) -> bool) -> bool {
        self.connections.values().any(|c| such(c))
    }

    /// Those that are such, in order of their becoming known.
    fn handles_of(&self, such: impl Fn(&Connection) -> bool) -> Vec<Handle> {
        let such = self.connections.iter().filter(|(_, c)| such(c));
        let mut handles: Vec<Handle> = such.map(|(handle, _)| *handle).collect();
        handles.sort_unstable();
        handles
    }

    /// Whether the in-kernel path manager has addresses of its own here that
    /// it would do something with: a server only tells of them.
    pub fn has_endpoints(&self, server: bool) -> bool {
        self.host.endpoints().iter().any(|endpoint| endpoint.signal || !server)
    }

    /// Whether [`Event::Endpoints`] would say anything new.
    pub fn has(&self, endpoints: &[Endpoint], limits: Limits, serve: bool) -> bool {
        let host = &self.host;
        host.knows_endpoints()
            && host.endpoints() == endpoints
            && host.limits == limits
            && host.serve == serve
    }

    /// The next command for the kernel. Each is answered by one
    /// [`Event::Done`] (or [`Event::Routed`], [`Event::Watched`]).
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

    /// Whether [`Engine::poll_incident`] is to have something to say.
    pub fn keep_incidents(&mut self, on: bool) {
        self.incidents = on.then(|| self.incidents.take().unwrap_or_default());
    }

    /// The next thing that we did, or could not do, to a connection.
    pub fn poll_incident(&mut self) -> Option<Incident> {
        self.incidents.as_mut()?.pop_front()
    }

    /// Whether somebody asked something of this socket, or of its listener.
    pub fn is_claimed(&self, key: &Key) -> bool {
        let family = self.families.get(&key.cookie).and_then(|family| family.prepared);
        let listener = family.and_then(|handle| self.connections.get(&handle));
        self.by_key(key).is_some_and(|c| !c.is_unclaimed()) || listener.is_some_and(|c| c.key.inode != 0)
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
            Event::FateSharing { key, on } => {
                let handle = self.known(key);
                self.with(handle, now, |c| {
                    if on || c.steering.is_some() {
                        c.steering().fate_default = on;
                    }
                });
            }
            Event::Binding { key, bound, device } => {
                let handle = self.known(key);
                let claimed = self.claim(handle);
                self.with(handle, now, |c| {
                    if c.phase == Phase::Prepared || claimed {
                        (c.bound, c.device) = (bound, device.map(Box::new));
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
            Event::Request { id, key, request } => {
                let handle = self.known(key);
                self.request(handle, id, request, now);
                self.index(handle);
            }
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
            Event::Announced { token, id, addr } => self.with_host(token, now, |c, host| {
                let peer = Peer { id: Some(id), addr: addr::canonical(addr) };
                if id == 0 || !credible(c, &peer.addr) {
                    return;
                }
                peer_has(c, peer);
                c.accept(host, id, &peer.addr);
            }),
            Event::Withdrawn { token, id } => {
                self.with_token(token, now, |c| {
                    if let Some(unclaimed) = c.unclaimed.as_mut().filter(|_| id != 0) {
                        unclaimed.taken.retain(|taken| *taken != id);
                        let gone = c.peers.iter().find(|peer| peer.id == Some(id));
                        unclaimed.tried.retain(|(_, to)| gone.is_none_or(|gone| gone.addr != *to));
                    }
                    c.peers.retain(|peer| peer.id != Some(id));
                });
            }
            Event::SubflowUp { token, subflow } => self.with_host(token, now, |c, host| {
                c.heard += 1;
                // Only a fully established connection has further subflows.
                if c.ready != Ready::Over {
                    c.ready = Ready::Yes;
                }
                succeed(c, &subflow);
                if seen(c, &subflow, now) {
                    admit(c, host);
                }
            }),
            Event::NotBackup { token, local, remote } => self.with_token(token, now, |c| {
                if let Some(known) = position(c, &local, &remote).and_then(|at| c.subflows.get_mut(at)) {
                    known.backup = false;
                }
            }),
            Event::SubflowDown { token, local, remote, error } => {
                let usable = self.host.usable(&local);
                self.with_token(token, now, |c| {
                    c.heard += 1;
                    if let Some(gone) = down(c, &local, &remote, error, now).filter(|_| !usable) {
                        c.miss(&gone);
                    }
                });
            }
            Event::Snapshot { token, key, server, initial, ready, subflows } => {
                self.adopt(token, key);
                let handle = self.by_token.get(&token).copied().filter(|handle| {
                    self.connections.get(handle).is_some_and(|c| c.key.cookie == key.cookie)
                });
                let handle = handle.unwrap_or_else(|| self.known(key));
                self.name(handle, token);
                let Some(c) = self.connections.get_mut(&handle) else { return };
                let (fresh, blind) = (c.phase == Phase::Prepared, c.blind);
                if fresh {
                    c.server = server;
                    begin(c, (addr::canonical(initial.0), addr::canonical(initial.1)), now);
                }
                let host = (!fresh && !blind).then_some(&self.host);
                snapshot(c, ready, &subflows, host, now);
                if blind {
                    self.lapse_unseen(handle);
                }
                self.settle(handle, now);
            }
            Event::Done { tag, outcome } => self.done(tag, outcome, now),
            Event::Routed { tag, local } => self.routed(tag, local, now),
            Event::Watched { tag, facts } => self.watched(tag, facts, now),
            Event::Settings { close_timeout } => {
                self.host.close_timeout = close_timeout;
                self.with_all(now, |c| c.bare.is_some(), |_| {});
            }
            Event::Endpoints { endpoints, limits, serve } => self.endpoints(endpoints, limits, serve, now),
            Event::Unusable { addr } => {
                let addr = addr.to_canonical();
                self.host.lose(addr);
                self.with_all(now, |c| c.uses(addr), |_| {});
            }
            Event::Usable { addr } => {
                let addr = addr.to_canonical();
                self.host.regain(addr);
                let concerns = |f: &connection::Failure| {
                    let ip = f.local.ip();
                    ip == addr || (ip.is_unspecified() && ip.is_ipv4() == addr.is_ipv4())
                };
                self.with_all(
                    now,
                    |c| c.names(addr) || c.failures.iter().any(concerns),
                    |c| c.failures.retain(|f| !concerns(f)),
                );
            }
            Event::Restore(saved) => self.restore(*saved, now),
            Event::Tick => {
                let later = self.timers.split_off(&(now, Handle(NonZeroU64::MAX)));
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
        let handle = Handle(NonZeroU64::MIN.saturating_add(self.handles));
        self.handles += 1;
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
        if prepared != c.counted {
            c.counted = prepared;
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
        self.waiting -= usize::from(c.counted);
        if let Some(changed) = self.changed.as_mut().filter(|_| c.key.inode != 0) {
            changed.insert(c.key);
        }
        let ended = || Err(Error::new(libc::ENOTCONN, "the connection ended"));
        let opens = c.steering.iter().flat_map(|steering| steering.opens.iter());
        for id in opens.filter_map(|open| open.request) {
            self.notices.push_back(Notice::Answer { id, result: ended() });
        }
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

    /// The same for every connection that is concerned.
    fn with_all(
        &mut self,
        now: Time,
        concerned: impl Fn(&Connection) -> bool,
        change: impl Fn(&mut Connection),
    ) {
        for handle in self.handles_of(|c| c.phase == Phase::Open && concerned(c)) {
            self.with(handle, now, &change);
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
        let due = c.due(&self.host, now);
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

    fn with_host(&mut self, token: u32, now: Time, change: impl FnOnce(&mut Connection, &Host)) {
        if let Some(handle) = self.by_token.get(&token).copied()
            && let Some(c) = self.connections.get_mut(&handle)
        {
            change(c, &self.host);
            self.settle(handle, now);
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
        let known = if server { None } else { self.by_key.get(&key).copied() };
        let handle = match known {
            Some(handle) => handle,
            None => {
                let child = if server { self.child_of(key) } else { None };
                let stranger = || self.host.serve.then(|| Connection::stranger(key));
                let Some(new) = child.or_else(stranger) else { return };
                let handle = self.insert(new);
                if key.inode != 0 {
                    // Ours, or accepted already.
                    self.identify(handle, key);
                }
                handle
            }
        };
        self.name(handle, token);
        self.with(handle, now, |c| {
            c.heard += 1;
            c.server = server;
            c.ready = if server { Ready::Yes } else { Ready::No };
            begin(c, pair, now);
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
        child.steering = listener.steering.as_ref().map(|steering| Box::new(steering.inherited()));
        child.server = true;
        Some(child)
    }

    fn request(&mut self, handle: Handle, id: RequestId, request: Request, now: Time) {
        self.claim(handle);
        let Some(c) = self.connections.get_mut(&handle) else { return };
        if c.foreign {
            self.notices.push_back(Notice::Answer { id, result: Err(not_ours()) });
            return;
        }
        let opens = c.steering.as_ref().map_or(0, |steering| steering.opens.len());
        if c.additions.len() + c.removals.len() + opens >= PENDING_MAX {
            let error = Error::new(libc::EDQUOT, "too many requests for this socket are under way");
            self.notices.push_back(Notice::Answer { id, result: Err(error) });
            return;
        }
        match request {
            Request::Add(entries) => match add(c, id, entries) {
                Err(error) => self.notices.push_back(Notice::Answer { id, result: Err(error) }),
                Ok(mut addition) => {
                    // What is under way for the same address counts for both.
                    let under_way: BTreeSet<u64> =
                        c.additions.iter().flat_map(|earlier| &earlier.commands).copied().collect();
                    let same = |tag: &u64| {
                        let source = self.outstanding.get(tag).and_then(|command| command.source);
                        source.is_some_and(|source| addition.added.contains(&source))
                    };
                    addition.commands = under_way.into_iter().filter(same).collect();
                    for addr in &addition.added {
                        c.failures.retain(|f| f.local != *addr);
                        for removal in c.removals.iter_mut() {
                            removal.addrs.retain(|gone| !addr::covers(gone, addr));
                        }
                        if let Some(flight) = &mut c.flight {
                            flight.departing.retain(|gone| !addr::covers(gone, addr));
                        }
                    }
                    c.listed = c.listed || c.phase == Phase::Prepared;
                    c.additions.push(addition);
                }
            },
            Request::Remove { addrs, patience } => match remove(c, &addrs) {
                Err(error) => self.notices.push_back(Notice::Answer { id, result: Err(error) }),
                Ok(()) => {
                    let deadline = now.saturating_add(patience);
                    // Accepted for later, where nothing can be done yet.
                    let queued = c.ready == Ready::No || c.blind || c.phase == Phase::Prepared;
                    if c.phase == Phase::Open {
                        c.removals.push(Removal { addrs, deadline, request: (!queued).then_some(id) });
                    }
                    if queued {
                        self.notices.push_back(Notice::Answer { id, result: Ok(()) });
                    }
                }
            },
            Request::Set(setting) => {
                let result = self.set(handle, setting);
                self.notices.push_back(Notice::Answer { id, result });
            }
            Request::Open { local, remote, backup, wait } => {
                let deadline = wait.map(|wait| now.saturating_add(wait));
                let request = wait.map(|_| id);
                let result = self.open_by_hand(handle, (local, remote), backup, request, deadline);
                if wait.is_none() || result.is_err() {
                    self.notices.push_back(Notice::Answer { id, result });
                }
            }
            Request::Close { local, remote } => {
                let result = self.close_by_hand(handle, &local, &remote);
                self.notices.push_back(Notice::Answer { id, result });
            }
            Request::Pin { local, remote, backup } => {
                let result = self.pin(handle, &local, &remote, backup);
                self.notices.push_back(Notice::Answer { id, result });
            }
        }
        self.settle(handle, now);
    }
}

#[cfg(test)]
mod tests;
