// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who is to be told of what: the kernel's events, and what the engine knows
//! about them, become [`events::Event`]s for those who asked.
//!
//! This watches connections that the engine has nothing to do with as well:
//! whoever asks about a connection is told of it, whoever manages its paths.

use super::rolls::Roll;
use crate::addr;
use crate::engine::{Connection, Engine, Incident, Key, Phase, State, Subflow, Time};
use crate::events::{Event, Origin, Pair, What};
use crate::kernel::pm;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

/// Names a subscription; chosen by the owner.
pub type SubscriberId = u64;

/// A socket as it was found when somebody asked about it.
#[derive(Clone, Debug)]
pub enum Shown {
    /// Not connected yet; and the roll that it is on.
    Waiting(Arc<Roll>),
    /// Listening; and the connections that wait to be accepted.
    Listening(Vec<Found>),
    /// Connected.
    Connected(Found),
}

/// A connection that was there already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The kernel's token.
    pub token: u32,
    /// The socket; before accept(2) it has no inode.
    pub key: Key,
    /// The initial pair, canonical.
    pub initial: (SocketAddr, SocketAddr),
    /// This end accepted it, if that can be told.
    pub server: Option<bool>,
    /// Established subflows, canonical, the initial one first if it is there.
    pub subflows: Vec<(SocketAddr, SocketAddr)>,
}

/// An event, and for whom it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tiding {
    /// Those who asked about this socket. Who asked about all is for the owner
    /// to say.
    pub to: Vec<SubscriberId>,
    /// The connection.
    pub key: Key,
    /// Who said that he would connect it ([`Subscribers::expect`]).
    pub whose: Option<u64>,
    /// Only `to` are concerned.
    pub only: bool,
    /// What they are told.
    pub event: Told,
}

/// What a subscriber is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// This.
    Event(Event),
    /// Events may have been lost.
    Doubt(Time),
    /// Nothing will follow.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    /// The socket, and how many connections had been missed by then.
    Socket(Key, u64),
    Listener(u64),
    Connection(u32),
    All,
}

/// A connection that somebody is told of.
#[derive(Debug)]
struct Watched {
    key: Key,
    initial: (SocketAddr, SocketAddr),
    initial_gone: bool,
    server: Option<bool>,
    whose: Option<u64>,
    to: Vec<SubscriberId>,
    /// Established subflows, canonical; `None` where events were lost.
    up: Option<Vec<(SocketAddr, SocketAddr)>>,
    announced: Vec<(u8, SocketAddr)>,
    plain: bool,
    due: Time,
    wait: Time,
}

/// What a look at a connection has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It is there.
    Alive,
    /// It is plain TCP.
    Plain,
    /// It has ended.
    Over,
}

/// How soon a connection is looked at for what no event tells of: at first, and
/// then each time after twice as long.
const LOOK_FIRST: Time = Time::from_secs(1);
const LOOK_LAST: Time = Time::from_secs(64);
/// Events remembered while sockets are looked at.
const RECENT: usize = 65536;
/// Sockets that one says to be about to connect.
const EXPECTED: usize = 1024;

/// All subscriptions of a namespace.
#[derive(Debug, Default)]
pub struct Subscribers {
    targets: HashMap<SubscriberId, Target>,
    connections: HashMap<u32, Watched>,
    /// Sockets not connected, by cookie; each with its inode and its roll.
    sockets: HashMap<u64, Vec<(u64, SubscriberId, Arc<Roll>)>>,
    /// Connections that had ended before it could be seen whose they were.
    missed: u64,
    listeners: HashMap<u64, Vec<SubscriberId>>,
    /// Listeners that are closed, with connections that are not.
    closed: HashSet<SubscriberId>,
    all: usize,
    /// Sockets about to be connected, by cookie, with their inodes.
    expected: HashMap<u64, (u64, u64)>,
    /// The same in order, for each who expects them.
    expecting: HashMap<u64, VecDeque<u64>>,
    looks: BTreeSet<(Time, u32)>,
    told: VecDeque<Tiding>,
    /// What happened while sockets were looked at.
    recent: VecDeque<(pm::Event, Option<Key>, Time)>,
    recent_from: u64,
    /// Those that are being looked at, since when of `recent`.
    coming: HashMap<SubscriberId, (u64, Key)>,
    coming_cookies: HashMap<u64, usize>,
}

impl Subscribers {
    /// Nobody is to be told of anything.
    pub fn is_empty(&self) -> bool {
        self.targets.is_empty() && self.coming.is_empty()
    }

    /// The next thing to tell.
    pub fn poll(&mut self) -> Option<Tiding> {
        self.told.pop_front()
    }

    /// When to look at a connection again.
    pub fn next_timeout(&self) -> Option<Time> {
        self.looks.first().map(|(due, _)| *due)
    }

    /// One who asked about this connection's socket.
    pub fn of(&self, token: u32) -> Option<SubscriberId> {
        self.connections.get(&token)?.to.first().copied()
    }

    /// Whether a new connection may concern anybody.
    pub fn awaits(&self) -> bool {
        !(self.listeners.is_empty()
            && self.sockets.is_empty()
            && self.coming.is_empty()
            && self.expected.is_empty())
    }

    /// Whether one with this cookie does.
    pub fn awaits_cookie(&self, cookie: u64) -> bool {
        self.listeners.contains_key(&cookie)
            || self.sockets.contains_key(&cookie)
            || self.coming_cookies.contains_key(&cookie)
            || self.expected.contains_key(&cookie)
    }

    /// The cookies that somebody waits for.
    pub fn cookies(&self) -> impl Iterator<Item = u64> {
        self.listeners.keys().chain(self.sockets.keys()).copied()
    }

    /// Somebody asks about a socket, which is to be looked at:
    /// [`Subscribers::arrived`] must follow, or [`Subscribers::remove`].
    pub fn begin(&mut self, id: SubscriberId, key: Key) {
        self.remove(id);
        self.coming.insert(id, (self.recent_from + self.recent.len() as u64, key));
        *self.coming_cookies.entry(key.cookie).or_default() += 1;
    }

    fn came(&mut self, id: SubscriberId) -> Option<(u64, Key)> {
        let (from, key) = self.coming.remove(&id)?;
        if let Some(count) = self.coming_cookies.get_mut(&key.cookie) {
            *count -= 1;
            if *count == 0 {
                self.coming_cookies.remove(&key.cookie);
            }
        }
        Some((from, key))
    }

    /// The socket has been looked at. What happened meanwhile is made up for;
    /// with `current` what is there is told.
    pub fn arrived(&mut self, id: SubscriberId, shown: Shown, current: bool, engine: &Engine, now: Time) {
        let Some((from, key)) = self.came(id) else { return };
        let mut fresh = Vec::new();
        match shown {
            Shown::Waiting(roll) => {
                self.targets.insert(id, Target::Socket(key, self.missed));
                self.sockets.entry(key.cookie).or_default().push((key.inode, id, roll));
            }
            Shown::Listening(found) => {
                self.targets.insert(id, Target::Listener(key.cookie));
                self.listeners.entry(key.cookie).or_default().push(id);
                for found in found {
                    let token = found.token;
                    if !self.connections.contains_key(&token) {
                        self.insert(found, now);
                    }
                    if let Some(watched) = self.connections.get_mut(&token) {
                        watched.to.push(id);
                        fresh.push(token);
                    }
                }
            }
            Shown::Connected(found) => {
                let token = found.token;
                self.targets.insert(id, Target::Connection(token));
                let known = self.connections.get_mut(&token).filter(|known| known.key.cookie == key.cookie);
                match known {
                    Some(known) => {
                        known.key = key;
                        known.up.get_or_insert(found.subflows);
                        known.server = known.server.or(found.server);
                    }
                    None => self.insert(found, now),
                }
                if let Some(watched) = self.connections.get_mut(&token) {
                    watched.to.push(id);
                }
                if current {
                    fresh.push(token);
                }
            }
        }
        self.make_up(id, from, engine);
        for token in fresh {
            self.tell_current(token, id, engine, now);
        }
        if self.coming.is_empty() {
            self.recent_from += self.recent.len() as u64;
            self.recent.clear();
        }
    }

    /// Takes in what happened while a socket was looked at: nobody is told but
    /// of new connections and ends.
    fn make_up(&mut self, id: SubscriberId, from: u64, engine: &Engine) {
        let skip = usize::try_from(from.saturating_sub(self.recent_from)).unwrap_or(usize::MAX);
        if from < self.recent_from {
            self.tell(vec![id], Told::Doubt(Time::ZERO));
        }
        let missed: Vec<_> = self.recent.iter().skip(skip).copied().collect();
        for (event, key, time) in missed {
            match event {
                pm::Event::Created { token, .. } if !self.connections.contains_key(&token) => {
                    self.take(&event, key, engine, time);
                }
                pm::Event::Closed { token } if self.concerns(token, id) => {
                    self.take(&event, key, engine, time);
                }
                pm::Event::SubflowUp { token, pair } if self.concerns(token, id) => {
                    self.note_up(token, ends(&pair));
                }
                pm::Event::SubflowDown { token, pair } if self.concerns(token, id) => {
                    self.note_down(token, ends(&pair));
                }
                _ => {}
            }
        }
    }

    fn concerns(&self, token: u32, id: SubscriberId) -> bool {
        self.connections.get(&token).is_some_and(|watched| watched.to.contains(&id))
    }

    /// Somebody asks about all that the engine knows and `mine` says; with
    /// `current` what is there is told.
    pub fn add_all(
        &mut self,
        id: SubscriberId,
        current: bool,
        mine: impl Fn(&Key, Option<u64>, &[SubscriberId]) -> bool,
        engine: &Engine,
        now: Time,
    ) {
        self.remove(id);
        self.targets.insert(id, Target::All);
        self.all += 1;
        for connection in engine.connections() {
            self.insert_known(connection, now);
        }
        if current {
            let is_mine = |watched: &Watched| mine(&watched.key, watched.whose, &watched.to);
            let mut tokens: Vec<u32> =
                self.connections.iter().filter(|(_, watched)| is_mine(watched)).map(|(t, _)| *t).collect();
            tokens.sort_unstable();
            for token in tokens {
                self.tell_current(token, id, engine, now);
            }
        }
    }

    /// Somebody asks no more.
    pub fn remove(&mut self, id: SubscriberId) {
        self.came(id);
        self.closed.remove(&id);
        match self.targets.remove(&id) {
            None => {}
            Some(Target::Socket(key, _)) => {
                drop_from(&mut self.sockets, key.cookie, |(_, known, _)| *known == id)
            }
            Some(Target::All) => {
                self.all -= 1;
                if self.all == 0 {
                    self.expected.clear();
                    self.expecting.clear();
                    self.retain(|watched| !watched.to.is_empty());
                }
            }
            Some(Target::Connection(token)) => {
                if let Some(watched) = self.connections.get_mut(&token) {
                    watched.to.retain(|known| *known != id);
                    if watched.to.is_empty() && self.all == 0 {
                        self.drop_connection(token);
                    }
                }
            }
            Some(Target::Listener(cookie)) => {
                drop_from(&mut self.listeners, cookie, |known| *known == id);
                for watched in self.connections.values_mut() {
                    watched.to.retain(|known| *known != id);
                }
                if self.all == 0 {
                    self.retain(|watched| !watched.to.is_empty());
                }
            }
        }
    }

    fn retain(&mut self, keep: impl Fn(&Watched) -> bool) {
        let gone: Vec<u32> =
            self.connections.iter().filter(|(_, watched)| !keep(watched)).map(|(token, _)| *token).collect();
        for token in gone {
            self.drop_connection(token);
        }
    }

    fn drop_connection(&mut self, token: u32) -> Option<Watched> {
        let watched = self.connections.remove(&token)?;
        self.looks.remove(&(watched.due, token));
        Some(watched)
    }

    /// A connection is watched from now on; another that had this token is
    /// over.
    fn insert(&mut self, found: Found, now: Time) {
        self.end(found.token, Origin::Unknown, now);
        let due = now.saturating_add(LOOK_FIRST);
        self.looks.insert((due, found.token));
        let watched = Watched {
            key: found.key,
            initial: found.initial,
            initial_gone: !found.subflows.contains(&found.initial),
            server: found.server,
            whose: None,
            to: Vec::new(),
            up: Some(found.subflows),
            announced: Vec::new(),
            plain: false,
            due,
            wait: LOOK_FIRST,
        };
        self.connections.insert(found.token, watched);
    }

    /// The same for one that the engine knows, where somebody asks about all.
    fn insert_known(&mut self, connection: &Connection, now: Time) {
        let (Some(token), Some(initial)) = (connection.token, connection.initial) else { return };
        if connection.phase != Phase::Open
            || connection.is_unclaimed()
            || self.connections.contains_key(&token)
        {
            return;
        }
        let up = |s: &&Subflow| matches!(s.state, State::Up(_));
        let subflows = connection.subflows.iter().filter(up).map(|s| (s.from(), s.to())).collect();
        let found = Found { token, key: connection.key, initial, server: Some(connection.server), subflows };
        self.insert(found, now);
        if let Some(watched) = self.connections.get_mut(&token) {
            let told = connection.peers.iter().filter_map(|peer| Some((peer.id?, peer.addr)));
            watched.announced = told.filter(|(id, _)| *id != 0).collect();
        }
    }

    /// Takes an event of the kernel's, before the engine does. `key`: of a new
    /// connection that [`Subscribers::awaits_cookie`] says somebody waits for.
    pub fn heard(&mut self, event: &pm::Event, key: Option<Key>, engine: &Engine, now: Time) {
        if self.is_empty() {
            return;
        }
        if !self.coming.is_empty() {
            self.recent.push_back((*event, key, now));
            if self.recent.len() > RECENT {
                self.recent.pop_front();
                self.recent_from += 1;
            }
        }
        self.take(event, key, engine, now);
    }

    fn take(&mut self, event: &pm::Event, key: Option<Key>, engine: &Engine, now: Time) {
        if let pm::Event::Created { token, pair, server } = event {
            if let Some(key) = key {
                self.created(*token, key, ends(pair), *server, engine, now);
            }
            return;
        }
        let Some(token) = event.token() else { return };
        if self.all > 0
            && !self.connections.contains_key(&token)
            && let Some(connection) = engine.by_token(token)
        {
            self.insert_known(connection, now);
        }
        let Some(watched) = self.connections.get_mut(&token) else { return };
        let known = engine.by_token(token).filter(|c| c.key.cookie == watched.key.cookie);
        let mut told = Event::new(What::SubflowUp, token, now);
        match event {
            pm::Event::Created { .. }
            | pm::Event::Established { .. }
            | pm::Event::ListenerUp { .. }
            | pm::Event::ListenerDown { .. } => return,
            pm::Event::Closed { .. } => {
                self.end(token, Origin::App, now);
                return;
            }
            pm::Event::Announced { id, addr, .. } => {
                let addr = addr::canonical(*addr);
                if watched.announced.contains(&(*id, addr)) {
                    // Said again until it is acknowledged.
                    return;
                }
                watched.announced.retain(|(known, _)| known != id);
                watched.announced.push((*id, addr));
                (told.what, told.origin, told.addr_id) = (What::PeerAddr, Origin::Peer, *id);
                told.subflow = Some(Pair::remote(addr));
            }
            pm::Event::Withdrawn { id, .. } => {
                let at = watched.announced.iter().position(|(known, _)| known == id);
                let addr = at.map(|at| watched.announced.remove(at).1);
                (told.what, told.origin, told.addr_id) = (What::PeerAddrGone, Origin::Peer, *id);
                told.subflow = addr.map(Pair::remote);
            }
            pm::Event::SubflowUp { pair, .. } => {
                let ends = ends(pair);
                told.origin = up_origin(known, &ends, watched.server);
                told.subflow = Some(subflow(known, pair, ends, false));
                told.ifindex = pair.ifindex;
                if !self.note_up(token, ends) {
                    return;
                }
            }
            pm::Event::SubflowDown { pair, .. } => {
                let (ends, error) = whole(known, pair);
                let initial = ends == watched.initial && !watched.initial_gone;
                told.what = What::SubflowDown;
                (told.error, told.reset_reason) = (error, pair.reset_reason);
                told.origin = down_origin(known, &ends, error);
                told.subflow = Some(subflow(known, pair, ends, initial));
                told.ifindex = pair.ifindex;
                let failed = known.filter(|c| asked_for(c, &ends)).map(|_| Event {
                    what: What::RequestFailed,
                    error: if error == 0 { libc::ECONNREFUSED } else { error },
                    ..told
                });
                self.note_down(token, ends);
                self.tell_all(token, told);
                if let Some(failed) = failed {
                    self.tell_all(token, failed);
                }
                return;
            }
            pm::Event::Priority { pair, .. } => {
                let ends = ends(pair);
                let initial = ends == watched.initial && !watched.initial_gone;
                (told.what, told.origin, told.ifindex) = (What::Priority, Origin::Peer, pair.ifindex);
                told.subflow = Some(subflow(known, pair, ends, initial));
            }
        }
        self.tell_all(token, told);
    }

    /// A connection began unheard.
    pub fn appeared(
        &mut self,
        token: u32,
        key: Key,
        initial: (SocketAddr, SocketAddr),
        server: bool,
        engine: &Engine,
        now: Time,
    ) {
        let known = self.connections.get(&token).is_some_and(|watched| watched.key.cookie == key.cookie);
        if !known && !self.is_empty() {
            self.created(token, key, initial, server, engine, now);
        }
    }

    /// A connection began.
    fn created(
        &mut self,
        token: u32,
        key: Key,
        initial: (SocketAddr, SocketAddr),
        server: bool,
        engine: &Engine,
        now: Time,
    ) {
        let mut to = Vec::new();
        if server {
            to.extend(self.listeners.get(&key.cookie).into_iter().flatten());
        } else {
            to.extend(self.waiting_for(&key));
        }
        if self.connections.get(&token).is_some_and(|known| known.key == key && known.initial == initial) {
            return;
        }
        let expected = self.expected.get(&key.cookie).filter(|(inode, _)| is(*inode, &key) && !server);
        let whose = expected.map(|(_, whose)| *whose);
        if whose.is_some() {
            self.expected.remove(&key.cookie);
        }
        let known = self.all > 0 && (whose.is_some() || engine.is_claimed(&key));
        if to.is_empty() && !known {
            return;
        }
        if !server {
            drop_from(&mut self.sockets, key.cookie, |(_, id, _)| to.contains(id));
            for id in &to {
                self.targets.insert(*id, Target::Connection(token));
            }
        }
        self.insert(Found { token, key, initial, server: Some(server), subflows: vec![initial] }, now);
        if let Some(watched) = self.connections.get_mut(&token) {
            (watched.to, watched.whose) = (to, whose);
        }
        self.tell_all(token, up(token, initial, server, now));
    }

    /// Notes an established subflow; whether that is new.
    fn note_up(&mut self, token: u32, ends: (SocketAddr, SocketAddr)) -> bool {
        match self.connections.get_mut(&token).and_then(|watched| watched.up.as_mut()) {
            Some(up) if up.contains(&ends) => false,
            Some(up) => {
                up.push(ends);
                true
            }
            None => true,
        }
    }

    fn note_down(&mut self, token: u32, ends: (SocketAddr, SocketAddr)) {
        let Some(watched) = self.connections.get_mut(&token) else { return };
        watched.initial_gone |= watched.initial == ends;
        if let Some(up) = &mut watched.up {
            up.retain(|known| *known != ends);
            if up.is_empty() {
                // It can end without a word.
                watched.wait = LOOK_FIRST;
            }
        }
    }

    /// What the engine has to say.
    pub fn noticed(&mut self, incident: Incident, engine: &Engine, now: Time) {
        let (token, what, local, remote, error) = match incident {
            Incident::Refused { token, local, remote, errno } => {
                (token, What::RequestFailed, local, remote, errno)
            }
            Incident::Prioritised { token, local, remote } => (token, What::Priority, local, remote, 0),
        };
        if self.all > 0
            && let Some(connection) = engine.by_token(token)
        {
            self.insert_known(connection, now);
        }
        let ends = (addr::canonical(local), addr::canonical(remote));
        let known = engine.by_token(token);
        let initial = known
            .and_then(|c| c.subflows.iter().find(|s| s.from() == ends.0 && s.to() == ends.1))
            .is_some_and(|s| s.initial);
        let told = Event {
            error,
            origin: Origin::App,
            subflow: Some(Pair { initial, priority_known: managed(known), ..pair_of(known, ends) }),
            ..Event::new(what, token, now)
        };
        self.tell_all(token, told);
    }

    /// Somebody is about to connect a socket: whoever asks about all that he
    /// has made known is to be told of the connection. Where he says so of many
    /// and connects few, the oldest count no more.
    pub fn expect(&mut self, key: Key, whose: u64) {
        if self.all == 0 {
            return;
        }
        let before = self.expected.insert(key.cookie, (key.inode, whose));
        if before.is_some_and(|(_, known)| known == whose) {
            return;
        }
        let order = self.expecting.entry(whose).or_default();
        order.push_back(key.cookie);
        if order.len() > EXPECTED
            && let Some(oldest) = order.pop_front()
        {
            self.drop_expected(oldest, whose);
        }
    }

    /// He asks no more about all that he has made known.
    pub fn expect_no_more(&mut self, whose: u64) {
        for cookie in self.expecting.remove(&whose).into_iter().flatten() {
            self.drop_expected(cookie, whose);
        }
    }

    /// Unless somebody else expects it by now.
    fn drop_expected(&mut self, cookie: u64, whose: u64) {
        if self.expected.get(&cookie).is_some_and(|(_, known)| *known == whose) {
            self.expected.remove(&cookie);
        }
    }

    /// Whether somebody waits for this socket's connection.
    pub fn waits_for(&self, key: &Key) -> bool {
        self.waiting_for(key).next().is_some()
    }

    /// Who does.
    fn waiting_for(&self, key: &Key) -> impl Iterator<Item = SubscriberId> {
        let waiting = self.sockets.get(&key.cookie).into_iter().flatten();
        waiting.filter(move |(inode, ..)| is(*inode, key)).map(|(_, id, _)| *id)
    }

    /// A connection that the application has made itself is plain TCP.
    pub fn is_plain(&mut self, key: Key, ends: (SocketAddr, SocketAddr), now: Time) {
        let to: Vec<SubscriberId> = self.waiting_for(&key).collect();
        if to.is_empty() {
            return;
        }
        drop_from(&mut self.sockets, key.cookie, |(_, id, _)| to.contains(id));
        for id in &to {
            self.targets.remove(id);
        }
        let (local, remote) = ends;
        let pair = Pair { local: Some(local), initial: true, ..Pair::remote(remote) };
        let fallback = Event { subflow: Some(pair), ..Event::new(What::Fallback, 0, now) };
        self.tell_of((to.clone(), key, None), fallback);
        self.tell(to, Told::End);
    }

    /// Connections that are to be looked at now.
    pub fn due(&mut self, now: Time) -> Vec<u32> {
        let later = self.looks.split_off(&(now, u32::MAX));
        let due = std::mem::replace(&mut self.looks, later);
        let tokens: Vec<u32> = due.into_iter().map(|(_, token)| token).collect();
        for token in &tokens {
            if let Some(watched) = self.connections.get_mut(token) {
                watched.wait = watched.wait.saturating_mul(2).min(LOOK_LAST);
                watched.due = now.saturating_add(watched.wait);
                self.looks.insert((watched.due, *token));
            }
        }
        tokens
    }

    /// What a look has shown.
    pub fn checked(&mut self, token: u32, key: Key, condition: Condition, now: Time) {
        let Some(watched) = self.connections.get_mut(&token) else { return };
        if watched.key.cookie != key.cookie {
            return;
        }
        match condition {
            Condition::Alive => {}
            Condition::Over => self.end(token, Origin::Unknown, now),
            Condition::Plain => {
                if !std::mem::replace(&mut watched.plain, true) {
                    let mut fallback = Event::new(What::Fallback, token, now);
                    let (local, remote) = watched.initial;
                    fallback.subflow =
                        Some(Pair { local: Some(local), initial: true, ..Pair::remote(remote) });
                    self.tell_all(token, fallback);
                }
            }
        }
    }

    /// The identity of a connection that is watched.
    pub fn key(&self, token: u32) -> Option<Key> {
        self.connections.get(&token).map(|watched| watched.key)
    }

    /// Listeners with these cookies are all there are.
    pub fn listening(&mut self, cookies: &HashSet<u64>) {
        let gone: Vec<u64> =
            self.listeners.keys().copied().filter(|cookie| !cookies.contains(cookie)).collect();
        let ended: Vec<SubscriberId> =
            gone.iter().filter_map(|cookie| self.listeners.remove(cookie)).flatten().collect();
        for id in ended {
            self.closed.insert(id);
            self.end_listener(id);
        }
    }

    /// Whether anybody asked about a listener.
    pub fn has_listeners(&self) -> bool {
        !self.listeners.is_empty()
    }

    fn end_listener(&mut self, id: SubscriberId) {
        if self.closed.contains(&id) && !self.connections.values().any(|watched| watched.to.contains(&id)) {
            self.closed.remove(&id);
            self.targets.remove(&id);
            self.tell(vec![id], Told::End);
        }
    }

    /// A connection has come and gone, and nobody knows whose it was.
    pub fn missed(&mut self) {
        self.missed += 1;
    }

    /// A socket is closed. Where it was not connected, nothing will follow. It
    /// may have been, though, in one of the connections that were missed.
    pub fn closed(&mut self, key: &Key, now: Time) {
        let ended: Vec<SubscriberId> = self.waiting_for(key).collect();
        for id in ended {
            let missed = self.missed;
            let unsure =
                matches!(self.targets.get(&id), Some(Target::Socket(_, before)) if *before != missed);
            self.remove(id);
            if unsure {
                self.tell(vec![id], Told::Doubt(now));
            }
            self.tell(vec![id], Told::End);
        }
    }

    /// Events were lost: everybody is told, and everything is looked at.
    pub fn doubt(&mut self, now: Time) {
        if self.targets.is_empty() {
            return;
        }
        let to = self.targets.keys().copied().collect();
        self.tell(to, Told::Doubt(now));
        for (token, watched) in &mut self.connections {
            watched.up = None;
            self.looks.remove(&(watched.due, *token));
            (watched.due, watched.wait) = (now, LOOK_FIRST);
            self.looks.insert((now, *token));
        }
    }

    /// A connection is over.
    fn end(&mut self, token: u32, origin: Origin, now: Time) {
        let Some(watched) = self.drop_connection(token) else { return };
        let down = Event { origin, ..Event::new(What::Down, token, now) };
        self.tell_of((watched.to.clone(), watched.key, watched.whose), down);
        let (listeners, mut ended): (Vec<_>, Vec<_>) =
            watched.to.into_iter().partition(|id| matches!(self.targets.get(id), Some(Target::Listener(_))));
        ended.retain(|id| self.targets.remove(id).is_some());
        if !ended.is_empty() {
            self.tell(ended, Told::End);
        }
        for id in listeners {
            self.end_listener(id);
        }
    }

    /// Tells one of what is there.
    fn tell_current(&mut self, token: u32, id: SubscriberId, engine: &Engine, now: Time) {
        let Some(watched) = self.connections.get(&token) else { return };
        let known = engine.by_token(token);
        let (local, remote) = watched.initial;
        let first = Pair { local: Some(local), initial: true, ..Pair::remote(remote) };
        let mut events = vec![Event { subflow: Some(first), ..Event::new(What::Up, token, now) }];
        for ends in watched.up.iter().flatten() {
            if *ends != watched.initial || watched.initial_gone {
                let subflow = Some(pair_of(known, *ends));
                events.push(Event { subflow, ..Event::new(What::SubflowUp, token, now) });
            }
        }
        for (addr_id, addr) in &watched.announced {
            let subflow = Some(Pair::remote(*addr));
            events.push(Event { subflow, addr_id: *addr_id, ..Event::new(What::PeerAddr, token, now) });
        }
        for event in events {
            self.tell(vec![id], Told::Event(event));
        }
    }

    fn tell_all(&mut self, token: u32, event: Event) {
        if let Some(watched) = self.connections.get(&token) {
            self.tell_of((watched.to.clone(), watched.key, watched.whose), event);
        }
    }

    /// Tells these only.
    fn tell(&mut self, to: Vec<SubscriberId>, event: Told) {
        if !to.is_empty() {
            self.told.push_back(Tiding { to, key: Key::default(), whose: None, only: true, event });
        }
    }

    /// Tells whoever asks about all as well.
    fn tell_of(&mut self, watched: (Vec<SubscriberId>, Key, Option<u64>), event: Event) {
        let (to, key, whose) = watched;
        if !to.is_empty() || self.all > 0 {
            self.told.push_back(Tiding { to, key, whose, only: false, event: Told::Event(event) });
        }
    }
}

/// A connection is established.
fn up(token: u32, initial: (SocketAddr, SocketAddr), server: bool, now: Time) -> Event {
    let (local, remote) = initial;
    let pair = Pair { local: Some(local), initial: true, ..Pair::remote(remote) };
    let origin = if server { Origin::Peer } else { Origin::App };
    Event { origin, subflow: Some(pair), ..Event::new(What::Up, token, now) }
}

/// Whether a client's socket with this inode is the one: once it is closed, the
/// kernel knows its cookie only.
fn is(inode: u64, key: &Key) -> bool {
    inode == key.inode || key.inode == 0
}

fn drop_from<T>(map: &mut HashMap<u64, Vec<T>>, at: u64, gone: impl Fn(&T) -> bool) {
    if let Some(list) = map.get_mut(&at) {
        list.retain(|item| !gone(item));
        if list.is_empty() {
            map.remove(&at);
        }
    }
}

fn ends(pair: &pm::Pair) -> (SocketAddr, SocketAddr) {
    let scoped = |addr| addr::canonical(super::scoped(addr, pair.ifindex));
    (scoped(pair.local), scoped(pair.remote))
}

/// The ends of a subflow that is gone, and the errno. Of a join that was closed
/// from this end before it was answered the kernel has forgotten the peer's
/// port, and its errno says no more than that.
fn whole(known: Option<&Connection>, pair: &pm::Pair) -> ((SocketAddr, SocketAddr), i32) {
    let (local, remote) = ends(pair);
    if remote.port() != 0 {
        return ((local, remote), pair.error);
    }
    let same = |s: &&Subflow| s.from() == local && addr::same_ip(&s.to(), &remote);
    let parted = known.and_then(|c| c.parted(&local, &remote));
    let joining = known.and_then(|c| c.subflows.iter().find(same)).map(|s| (s.to(), 0));
    let (remote, error) = parted.or(joining).unwrap_or((remote, 0));
    ((local, remote), error)
}

impl Pair {
    fn remote(remote: SocketAddr) -> Self {
        Self { local: None, remote, initial: false, priority_known: false, backup: false, peer_backup: false }
    }
}

/// The subflow of an event, with this end's wish for backup as far as the
/// engine knows it.
fn subflow(
    known: Option<&Connection>,
    pair: &pm::Pair,
    ends: (SocketAddr, SocketAddr),
    initial: bool,
) -> Pair {
    Pair { initial, peer_backup: pair.backup, priority_known: managed(known), ..pair_of(known, ends) }
}

fn managed(known: Option<&Connection>) -> bool {
    known.is_some_and(|c| !c.foreign && !c.blind)
}

fn pair_of(known: Option<&Connection>, ends: (SocketAddr, SocketAddr)) -> Pair {
    let backup =
        known.is_some_and(|c| c.subflows.iter().any(|s| s.from() == ends.0 && s.to() == ends.1 && s.backup));
    Pair { local: Some(ends.0), backup, ..Pair::remote(ends.1) }
}

/// The subflow as the engine knows it; its port may not be known yet.
fn find<'a>(known: Option<&'a Connection>, ends: &(SocketAddr, SocketAddr)) -> Option<&'a Subflow> {
    let fits = |s: &&Subflow| {
        let from = s.from();
        addr::same_ip(&from, &ends.0)
            && (from.port() == 0 || from.port() == ends.0.port())
            && s.to() == ends.1
    };
    known?.subflows.iter().find(fits)
}

/// Who made a subflow.
fn up_origin(known: Option<&Connection>, ends: &(SocketAddr, SocketAddr), server: Option<bool>) -> Origin {
    let ours = find(known, ends).is_some_and(|s| !matches!(s.state, State::Up(_)));
    match (known, server) {
        (Some(c), _) if ours && fills(c, ends) => Origin::App,
        (Some(_), _) if ours => Origin::Policy,
        (Some(_), _) => Origin::Peer,
        // The in-kernel path manager makes them at the client.
        (None, Some(false)) => Origin::Policy,
        (None, Some(true)) => Origin::Peer,
        (None, None) => Origin::Unknown,
    }
}

/// Who ended a subflow, or kept it from being. One that the engine has closed
/// it may not know any more.
fn down_origin(known: Option<&Connection>, ends: &(SocketAddr, SocketAddr), error: i32) -> Origin {
    let managed = known.filter(|c| !c.foreign && !c.blind);
    let subflow = find(known, ends);
    if managed.and_then(|c| c.parted(&ends.0, &ends.1)).is_some_and(|(_, errno)| errno == 0) {
        return Origin::App;
    }
    if let Some(c) = managed
        && subflow.is_none_or(|s| s.closing)
    {
        return if subflow.is_some_and(|s| s.surplus) {
            Origin::Policy
        } else if c.allows(&ends.0) {
            Origin::Network
        } else {
            Origin::App
        };
    }
    match error {
        libc::ECONNREFUSED | libc::ECONNRESET => Origin::Peer,
        libc::ETIMEDOUT | libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENETDOWN => Origin::Network,
        0 if managed.is_some() => Origin::Peer,
        _ => Origin::Unknown,
    }
}

/// Whether it was to be made because an address was ADDed, and never was.
fn asked_for(c: &Connection, ends: &(SocketAddr, SocketAddr)) -> bool {
    let coming = find(Some(c), ends).is_some_and(|s| !matches!(s.state, State::Up(_)) && !s.closing);
    coming && fills(c, ends)
}

/// Whether it is the one that an address of the list asks for, or that was
/// opened by hand: further ones from there are made because the peer announced
/// where to.
fn fills(c: &Connection, ends: &(SocketAddr, SocketAddr)) -> bool {
    if find(Some(c), ends).is_some_and(|s| s.hand) {
        return true;
    }
    let listed = c.entry(&ends.0);
    listed.is_some_and(|entry| !c.subflows.iter().any(|s| s.up() && addr::covers(&entry.addr, &s.from())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Many come and go while another asks for ever.
    #[test]
    fn nothing_is_expected_for_who_asks_no_more() {
        let mut subscribers = Subscribers::default();
        let engine = Engine::default();
        let key = |cookie| Key { cookie, inode: 1 };
        subscribers.expect(key(1), 0);
        assert!(!subscribers.awaits());
        subscribers.add_all(1, false, |_, _, _| true, &engine, Time::ZERO);
        for whose in 1..100 {
            subscribers.add_all(2, false, |_, _, _| true, &engine, Time::ZERO);
            for n in 0..2 * EXPECTED as u64 {
                subscribers.expect(key(whose << 32 | n), whose);
            }
            // One that two expect is the later one's.
            subscribers.expect(key(1), 0);
            subscribers.expect(key(1), whose);
            subscribers.expect_no_more(0);
            assert_eq!((subscribers.expecting.len(), subscribers.expected.len()), (1, EXPECTED));
            subscribers.remove(2);
            subscribers.expect_no_more(whose);
        }
        assert!(subscribers.expecting.is_empty() && !subscribers.awaits());
    }
}
