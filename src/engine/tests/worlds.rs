// SPDX-License-Identifier: MIT OR Apache-2.0
//! Many connections over one model of a network namespace, and an owner of the
//! engine that is slow, loses events, looks again, and is restarted. What must
//! always hold is in [`Many::check_command`] and [`Many::invariants`], what
//! must hold once all has come to rest in [`Many::at_rest`] and
//! [`Many::agree`].

use super::*;
use crate::engine::{Endpoint, Limits};
use std::collections::BTreeSet;

const LOCALS: usize = 4;
const REMOTES: usize = 4;

/// What becomes of a join, by KERNEL.md.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Join {
    Answer,
    /// RST to the SYN.
    Reset,
    /// Nobody answers the SYN.
    Timeout,
    /// Refused at the third ACK.
    Late,
    /// connect() or bind() fails.
    Fails(i32),
}

#[derive(Clone, Debug)]
enum Op {
    /// A client connects: its list, whether anybody asked us, whether the
    /// in-kernel path manager has it.
    Connect(Vec<usize>, bool, bool),
    Listen(Vec<usize>),
    /// Somebody connects to a listener.
    Arrive(usize),
    Accept(usize),
    Add(usize, Vec<usize>, bool, bool),
    Remove(usize, Vec<usize>, bool),
    Set(usize, Setting),
    /// A subflow by hand: from where, to which address, for backup, whether
    /// somebody waits.
    Open(usize, Option<usize>, Option<usize>, bool, Option<u64>),
    CloseByHand(usize, usize),
    Pin(usize, usize, bool),
    /// The application closes, half-closes, or its process dies.
    Close(usize),
    HalfClose(usize),
    Forget(usize),
    Acknowledge(usize),
    /// The peer.
    Announce(usize, usize),
    Withdraw(usize, usize),
    PeerJoins(usize, usize),
    Die(usize, usize),
    /// The kernel.
    Next(Join),
    /// The next command of another kind is refused.
    RefuseNext,
    Carrier(usize, bool),
    Silent(usize, bool),
    Endpoints(u8, u8, bool),
    /// The owner: reads events, carries commands out, hands outcomes in, looks.
    Deliver(usize),
    Work(usize),
    Finish(usize),
    Look(usize),
    Looked(usize),
    Flush,
    /// Misfortunes.
    Lose,
    Repeat,
    Reorder,
    Overrun,
    Restart,
    Wait(u64),
}

/// Any setting; most often back to the default.
fn settings() -> impl Strategy<Value = Setting> {
    let policy = |mode, after_ms, after_bytes| Setting::Policy(PathPolicy { mode, after_ms, after_bytes });
    prop_oneof![
        (0u8..4).prop_map(Setting::MaxSubflows),
        Just(Setting::MaxSubflows(0)),
        Just(policy(Mode::Eager, 0, 0)),
        Just(policy(Mode::Manual, 0, 0)),
        Just(policy(Mode::OnDemand, 700, 0)),
        Just(policy(Mode::OnDemand, 0, 5000)),
        (0u64..2).prop_map(|n| Setting::Traffic(Traffic { bytes_to_send: n * 20_000, ..Traffic::default() })),
        proptest::sample::select(vec![
            Profile::Aggregate,
            Profile::Interactive,
            Profile::Handover,
            Profile::Overflow
        ])
        .prop_map(Setting::Profile),
        any::<bool>().prop_map(Setting::FateSharing),
    ]
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let addrs = || proptest::collection::vec(0..LOCALS, 0..4);
    let some = || proptest::collection::vec(0..LOCALS, 1..3);
    let errnos = vec![
        libc::EADDRINUSE,
        libc::EACCES,
        libc::EADDRNOTAVAIL,
        libc::ENETUNREACH,
        libc::ENODEV,
        libc::EPERM,
        libc::ENOMEM,
    ];
    let join = prop_oneof![
        Just(Join::Answer),
        Just(Join::Reset),
        Just(Join::Timeout),
        Just(Join::Late),
        proptest::sample::select(errnos).prop_map(Join::Fails),
    ];
    let i = || 0usize..6;
    let maybe = |n: usize| proptest::option::of(0..n);
    let op = prop_oneof![
        4 => (addrs(), any::<bool>(), 0u8..8).prop_map(|(list, ours, n)| Op::Connect(list, ours, n == 0)),
        1 => some().prop_map(Op::Listen),
        2 => i().prop_map(Op::Arrive),
        1 => i().prop_map(Op::Accept),
        5 => (i(), some(), any::<bool>(), any::<bool>()).prop_map(|(i, a, b, c)| Op::Add(i, a, b, c)),
        4 => (i(), some(), any::<bool>()).prop_map(|(i, a, b)| Op::Remove(i, a, b)),
        3 => (i(), settings()).prop_map(|(i, setting)| Op::Set(i, setting)),
        2 => (i(), maybe(LOCALS), maybe(REMOTES), any::<bool>(), proptest::option::of(1u64..3000))
            .prop_map(|(i, from, to, backup, wait)| Op::Open(i, from, to, backup, wait)),
        1 => (i(), 0usize..4).prop_map(|(i, n)| Op::CloseByHand(i, n)),
        1 => (i(), 0usize..4, any::<bool>()).prop_map(|(i, n, on)| Op::Pin(i, n, on)),
        1 => i().prop_map(Op::Close),
        1 => i().prop_map(Op::HalfClose),
        1 => i().prop_map(Op::Forget),
        5 => i().prop_map(Op::Acknowledge),
        2 => (i(), 1..REMOTES).prop_map(|(i, n)| Op::Announce(i, n)),
        1 => (i(), 0..REMOTES).prop_map(|(i, n)| Op::Withdraw(i, n)),
        3 => (i(), 0..LOCALS).prop_map(|(i, n)| Op::PeerJoins(i, n)),
        3 => (i(), 0usize..4).prop_map(|(i, n)| Op::Die(i, n)),
        4 => join.prop_map(Op::Next),
        1 => Just(Op::RefuseNext),
        2 => (0..LOCALS, any::<bool>()).prop_map(|(n, up)| Op::Carrier(n, up)),
        2 => (0..LOCALS, any::<bool>()).prop_map(|(n, silent)| Op::Silent(n, silent)),
        1 => (any::<u8>(), 0u8..4, any::<bool>()).prop_map(|(e, l, s)| Op::Endpoints(e, l, s)),
        8 => (1usize..4).prop_map(Op::Deliver),
        6 => i().prop_map(Op::Work),
        6 => i().prop_map(Op::Finish),
        1 => i().prop_map(Op::Look),
        2 => i().prop_map(Op::Looked),
        5 => Just(Op::Flush),
        1 => Just(Op::Lose),
        1 => Just(Op::Repeat),
        1 => Just(Op::Reorder),
        1 => Just(Op::Overrun),
        1 => Just(Op::Restart),
        4 => (1u64..3000).prop_map(Op::Wait),
    ];
    proptest::collection::vec(op, 0..70)
}

#[derive(Clone, Copy, Debug)]
struct Sub {
    local: SocketAddr,
    remote: SocketAddr,
    id: u8,
    up: bool,
    since: Time,
    initial: bool,
    backup: bool,
}

impl Sub {
    fn seen(&self) -> Seen {
        Seen {
            local: self.local,
            remote: self.remote,
            local_id: self.id,
            remote_id: 0,
            up: self.up,
            initial: self.initial,
            backup: Some(self.backup),
        }
    }

    /// As an event tells of it.
    fn told(&self) -> Seen {
        Seen { backup: None, ..self.seen() }
    }
}

/// A connection in the kernel.
#[derive(Clone, Debug)]
struct Conn {
    cookie: u64,
    /// 0 before accept(2).
    inode: u64,
    server: bool,
    /// The in-kernel path manager has it.
    foreign: bool,
    ready: bool,
    over: bool,
    initial: (SocketAddr, SocketAddr),
    subs: Vec<Sub>,
    /// Address ids, and what the peer was told.
    table: Table,
    told: BTreeMap<u8, SocketAddr>,
}

impl Conn {
    fn key(&self) -> Key {
        Key { cookie: self.cookie, inode: self.inode }
    }
}

struct Many {
    engine: Engine,
    now: Time,
    /// The kernel.
    conns: BTreeMap<u32, Conn>,
    events: VecDeque<Event>,
    joins: VecDeque<Join>,
    refuse_next: bool,
    tokens: u32,
    ports: u16,
    unusable: BTreeSet<usize>,
    silent: BTreeMap<usize, Time>,
    endpoints: Vec<Endpoint>,
    limits: Limits,
    highest: u32,
    serve: bool,
    /// The owner.
    pending: VecDeque<Command>,
    finished: VecDeque<(u32, Event)>,
    looks: VecDeque<(u32, u64, Event)>,
    journal: BTreeMap<Key, Saved>,
    /// Applications.
    cookies: u64,
    sockets: Vec<Key>,
    listeners: Vec<(Key, SocketAddr)>,
    requests: u64,
    asked: BTreeMap<RequestId, (Key, Request)>,
    answered: BTreeMap<RequestId, Result<()>>,
    /// Unanswered when the engine was restarted: their clients ask again.
    excused: BTreeSet<RequestId>,
    forgotten: BTreeSet<u64>,
    /// Connections that were known, and then forgotten with what was done for
    /// them: by their application's end, or by a restart before accept(2).
    orphans: BTreeSet<u32>,
    log: Vec<String>,
}

impl Many {
    fn new() -> Self {
        let mut many = Self {
            engine: Engine::default(),
            now: Time::from_secs(1),
            conns: BTreeMap::new(),
            events: VecDeque::new(),
            joins: VecDeque::new(),
            refuse_next: false,
            tokens: 100,
            ports: 50_000,
            unusable: BTreeSet::new(),
            silent: BTreeMap::new(),
            endpoints: Vec::new(),
            limits: Limits::default(),
            highest: 0,
            serve: false,
            pending: VecDeque::new(),
            finished: VecDeque::new(),
            looks: VecDeque::new(),
            journal: BTreeMap::new(),
            cookies: 0,
            sockets: Vec::new(),
            listeners: Vec::new(),
            requests: 0,
            asked: BTreeMap::new(),
            answered: BTreeMap::new(),
            excused: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            orphans: BTreeSet::new(),
            log: Vec::new(),
        };
        many.engine.keep_changes(true);
        many
    }

    // The owner.

    fn tell(&mut self, event: Event) {
        self.note(&event);
        self.engine.handle(event, self.now);
        while let Some(command) = self.engine.poll_command() {
            self.note(&command.action);
            self.check_command(&command);
            self.pending.push_back(command);
        }
        while let Some(Notice::Answer { id, result }) = self.engine.poll_notification() {
            assert!(self.asked.contains_key(&id) && !self.excused.contains(&id));
            assert!(self.answered.insert(id, result).is_none(), "request {id} was answered twice");
        }
        while let Some(key) = self.engine.poll_changed() {
            match self.engine.save(&key) {
                Some(saved) => drop(self.journal.insert(key, saved)),
                None => drop(self.journal.remove(&key)),
            }
        }
        self.invariants();
    }

    /// What the engine hears and says; TRACE asks to see it.
    fn note(&mut self, what: &impl std::fmt::Debug) {
        let line = format!("{:?} {what:?}", self.now);
        if std::env::var_os("TRACE").is_some() {
            eprintln!("{line}");
        }
        self.log.push(line);
    }

    fn ask(&mut self, key: Key, request: Request) {
        self.requests += 1;
        self.asked.insert(self.requests, (key, request.clone()));
        self.tell(Event::Request { id: self.requests, key, request });
    }

    fn deliver(&mut self) -> bool {
        let Some(event) = self.events.pop_front() else { return false };
        match event {
            Event::Created { token, initial, server, .. } => self.begin(token, initial, server),
            // A successor on the same ports, made before its end was told.
            Event::SubflowDown { token, local, remote, .. }
                if self.engine.by_token(token).is_some_and(|c| c.has_up(&local, &remote))
                    && self.conns.get(&token).is_some_and(|c| {
                        c.subs.iter().any(|s| s.up && s.local == local && s.remote == remote)
                    }) => {}
            event => self.tell(event),
        }
        true
    }

    /// Tells of a beginning what a look-up adds.
    fn begin(&mut self, token: u32, initial: Seen, server: bool) {
        let Some(conn) = self.conns.get(&token) else { return };
        if self.serve || self.engine.knows_cookie(conn.cookie) {
            self.tell(Event::Created { token, key: conn.key(), initial, server });
        }
    }

    /// The nth of those that no other of its connection is before.
    fn free(tokens: &[u32], n: usize) -> Option<usize> {
        let first = |at: &usize| !tokens.iter().take(*at).any(|earlier| *earlier == tokens[*at]);
        let free: Vec<usize> = (0..tokens.len()).filter(first).collect();
        free.get(n % free.len().max(1)).copied()
    }

    /// Carries a command out.
    fn work(&mut self, n: usize) -> bool {
        let tokens: Vec<u32> = self.pending.iter().map(|command| command.token).collect();
        let Some(command) = Self::free(&tokens, n).and_then(|at| self.pending.remove(at)) else {
            return false;
        };
        let event = self.carry_out(&command);
        self.finished.push_back((command.token, event));
        true
    }

    /// Hands an outcome in.
    fn finish(&mut self, n: usize) -> bool {
        let tokens: Vec<u32> = self.finished.iter().map(|(token, _)| *token).collect();
        let Some((_, event)) = Self::free(&tokens, n).and_then(|at| self.finished.remove(at)) else {
            return false;
        };
        self.tell(event);
        true
    }

    fn look(&mut self, token: u32) {
        let Some(conn) = self.conns.get(&token).filter(|conn| conn.inode != 0) else { return };
        let Some(known) = self.engine.by_token(token).filter(|known| known.key.cookie == conn.cookie) else {
            return;
        };
        let event = Event::Snapshot {
            token,
            key: conn.key(),
            server: conn.server,
            initial: conn.initial,
            ready: conn.ready,
            subflows: conn.subs.iter().map(Sub::seen).collect(),
        };
        self.looks.push_back((token, known.heard, event));
    }

    /// Hands in what a look showed, unless something was heard since.
    fn looked(&mut self, n: usize) -> bool {
        let count = self.looks.len().max(1);
        let Some((token, heard, event)) = self.looks.remove(n % count) else { return false };
        match self.engine.by_token(token) {
            Some(known) if known.heard == heard => self.tell(event),
            Some(_) => self.look(token),
            None => {}
        }
        true
    }

    fn resynchronise(&mut self) {
        let known: Vec<(u32, u64)> =
            self.engine.connections().filter_map(|c| Some((c.token?, c.key.cookie))).collect();
        for (token, cookie) in known {
            if self.conns.get(&token).is_none_or(|conn| conn.cookie != cookie) {
                self.tell(Event::Closed { token });
            }
        }
        for token in self.conns.keys().copied().collect::<Vec<_>>() {
            if self.engine.by_token(token).is_none() {
                let conn = &self.conns[&token];
                let (initial, server) = (self.first(conn.initial).seen(), conn.server);
                self.begin(token, initial, server);
            }
            self.look(token);
        }
    }

    fn flush(&mut self) {
        let mut steps = 0;
        while self.deliver() || self.work(0) || self.finish(0) || self.looked(0) {
            steps += 1;
            assert!(steps < 20_000, "the engine never stops");
        }
    }

    fn restart(&mut self) {
        let unanswered = self.asked.keys().filter(|id| !self.answered.contains_key(id));
        self.excused.extend(unanswered.copied().collect::<Vec<_>>());
        let unnamed = self.engine.connections().filter(|c| c.key.inode == 0);
        self.orphans.extend(unnamed.filter_map(|c| c.token).collect::<Vec<_>>());
        self.engine = Engine::default();
        self.engine.keep_changes(true);
        self.pending.clear();
        self.finished.clear();
        self.looks.clear();
        let mut first: Vec<Event> =
            self.unusable.iter().map(|n| Event::Unusable { addr: local(*n).ip() }).collect();
        let (endpoints, limits, serve) = (self.endpoints.clone(), self.limits, self.serve);
        first.push(Event::Endpoints { endpoints, limits, serve });
        for event in first {
            self.note(&event);
            self.engine.handle(event, self.now);
        }
        for saved in self.journal.values().cloned().collect::<Vec<_>>() {
            let event = Event::Restore(Box::new(saved.clone()));
            self.note(&event);
            self.engine.handle(event, self.now);
            // An announcement under way by an id that the kernel has for
            // something else by now is left out.
            let mut right = saved.clone();
            right.announced.retain(|(addr, id)| saved.ids.iter().any(|s| s.addr == *addr && s.id == *id));
            right.untold.retain(|addr| right.announced.iter().any(|(told, _)| told == addr));
            let key = right.key;
            assert_eq!(self.engine.save(&key).as_ref(), Some(&right));
            self.journal.insert(key, right);
        }
        assert!(self.engine.poll_command().is_none(), "nothing before a look");
        while self.engine.poll_changed().is_some() {}
        self.resynchronise();
    }

    fn pass(&mut self, time: Time) {
        let end = self.now + time;
        let mut rounds = 0;
        while let Some(due) = self.engine.next_timeout().filter(|due| *due <= end && rounds < 40) {
            rounds += 1;
            self.now = self.now.max(due);
            self.expire();
            self.tell(Event::Tick);
            while self.pending.iter().any(|c| matches!(c.action, Action::Watch { .. })) {
                self.work(0);
            }
            while self.finish(0) {}
        }
        self.now = end;
        self.expire();
        self.tell(Event::Tick);
    }

    // The kernel.

    fn usable(&self, local: &SocketAddr) -> bool {
        !self.unusable.iter().any(|n| addr::same_ip(&super::local(*n), local))
    }

    fn silent_since(&self, local: &SocketAddr) -> Option<Time> {
        self.silent.iter().find(|(n, _)| addr::same_ip(&super::local(**n), local)).map(|(_, since)| *since)
    }

    /// SYNs that nobody answers.
    fn expire(&mut self) {
        let now = self.now;
        for (token, conn) in &mut self.conns {
            let over = |s: &Sub| !s.up && now >= s.since + Time::from_secs(3);
            for sub in conn.subs.iter().filter(|s| over(s)) {
                let (local, remote) = (sub.local, sub.remote);
                self.events.push_back(Event::SubflowDown { token: *token, local, remote, error: 0 });
            }
            conn.subs.retain(|s| !over(s));
        }
    }

    fn first(&self, (local, remote): (SocketAddr, SocketAddr)) -> Sub {
        Sub { local, remote, id: 0, up: true, since: self.now, initial: true, backup: false }
    }

    fn open(&mut self, key: Key, server: bool, foreign: bool, at: (SocketAddr, SocketAddr)) {
        self.tokens += 1;
        let initial = self.first(at);
        let conn = Conn {
            cookie: key.cookie,
            inode: key.inode,
            server,
            foreign,
            ready: server,
            over: false,
            initial: at,
            subs: vec![initial],
            table: Table::default(),
            told: BTreeMap::new(),
        };
        self.conns.insert(self.tokens, conn);
        self.events.push_back(Event::Created { token: self.tokens, key, initial: initial.told(), server });
    }

    fn end(&mut self, token: u32) {
        if self.conns.remove(&token).is_some() {
            self.events.push_back(Event::Closed { token });
        }
    }

    fn down(&mut self, token: u32, at: usize) {
        let Some(conn) = self.conns.get_mut(&token).filter(|conn| at < conn.subs.len()) else { return };
        let sub = conn.subs.remove(at);
        self.events.push_back(Event::SubflowDown { token, local: sub.local, remote: sub.remote, error: 0 });
    }

    fn facts(&self, sub: &Sub) -> Facts {
        let busy = Facts {
            rto: Time::from_millis(220),
            rtt: Time::from_millis(20),
            rttvar: Time::from_millis(5),
            segs_out: 1000,
            bytes_acked: self.now.as_millis() as u64,
            unacked: 5,
            ..Facts::default()
        };
        let Some(since) = self.silent_since(&sub.local) else { return busy };
        let silence = self.now.saturating_sub(since.max(sub.since));
        let backoff = (silence.as_millis() as u32 / 220 + 1).ilog2();
        let rto = busy.rto * (1 << backoff);
        let since_sent = silence.saturating_sub(rto - busy.rto);
        Facts { backoff, rto, since_ack: silence, since_sent, bytes_acked: 7, ..busy }
    }

    fn carry_out(&mut self, command: &Command) -> Event {
        let (tag, token) = (command.tag, command.token);
        let done = |outcome| Event::Done { tag, outcome };
        if self.conns.get(&token).is_none_or(|conn| conn.cookie != command.key.cookie) {
            return done(Outcome::Gone);
        }
        match command.action {
            Action::Route { remote } => {
                let free = (0..LOCALS).find(|n| !self.unusable.contains(n));
                let local = free.filter(|_| remote.is_ipv4()).map(local);
                Event::Routed { tag, local }
            }
            Action::Watch { local, remote } => {
                let conn = &self.conns[&token];
                let sub = conn.subs.iter().find(|s| s.up && s.local == local && s.remote == remote);
                Event::Watched { tag, facts: sub.map(|sub| self.facts(sub)) }
            }
            Action::End => {
                self.end(token);
                done(Outcome::Taken)
            }
            Action::Listen { .. } => done(Outcome::Taken),
            _ if self.conns[&token].foreign => done(Outcome::NotOurs),
            Action::Create { local, id, remote, backup, .. } => {
                done(self.create(token, local, id, remote, backup))
            }
            _ if std::mem::take(&mut self.refuse_next) => done(Outcome::Refused(libc::ENOMEM)),
            Action::Destroy { local, remote } => {
                let conn = self.conns.get_mut(&token).unwrap();
                if local.port() == 0 {
                    return done(Outcome::Refused(libc::EINVAL));
                }
                match conn.subs.iter().position(|s| s.local == local && s.remote == remote) {
                    Some(at) => {
                        conn.table.delete(&local);
                        self.down(token, at);
                        done(Outcome::Taken)
                    }
                    None => done(Outcome::Refused(libc::ESRCH)),
                }
            }
            Action::Remove { id } => {
                let conn = self.conns.get_mut(&token).unwrap();
                conn.told.remove(&id);
                let used = id == 0 && conn.subs.iter().any(|s| s.id == 0);
                let there = if id == 0 { used } else { conn.table.remove(id) };
                done(if there { Outcome::Taken } else { Outcome::Refused(libc::EINVAL) })
            }
            Action::Announce { local, id } => {
                let conn = self.conns.get_mut(&token).unwrap();
                if id == 0 || !conn.table.append(id, local) {
                    return done(Outcome::Mismatch);
                }
                conn.told.insert(id, local);
                done(Outcome::Taken)
            }
            Action::SetBackup { local, remote, backup } => {
                let conn = self.conns.get_mut(&token).unwrap();
                match conn.subs.iter_mut().find(|s| s.local == local && s.remote == remote) {
                    Some(sub) => {
                        sub.backup = backup;
                        done(Outcome::Taken)
                    }
                    None => done(Outcome::Refused(libc::EINVAL)),
                }
            }
        }
    }

    /// SUBFLOW_CREATE of pm_userspace.c, as far as it matters.
    fn create(&mut self, token: u32, local: SocketAddr, id: u8, remote: SocketAddr, backup: bool) -> Outcome {
        let lost = !self.usable(&local);
        let silent = self.silent_since(&local).is_some();
        let since = self.now;
        let conn = self.conns.get_mut(&token).unwrap();
        if !conn.table.append(id, local) {
            return Outcome::Mismatch;
        }
        if !conn.ready || conn.over {
            conn.table.delete(&local);
            return Outcome::NotReady;
        }
        let mut fate = self.joins.pop_front().unwrap_or(Join::Answer);
        if lost {
            fate = Join::Fails(libc::EADDRNOTAVAIL);
        } else if local.port() != 0 && conn.subs.iter().any(|s| s.local == local && s.remote == remote) {
            fate = Join::Fails(libc::EADDRINUSE);
        } else if silent && fate == Join::Answer {
            fate = Join::Timeout;
        }
        if let Join::Fails(errno) = fate {
            conn.table.delete(&local);
            return Outcome::Refused(errno);
        }
        self.ports += 1;
        let port = if local.port() == 0 { self.ports } else { local.port() };
        let up = matches!(fate, Join::Answer | Join::Late);
        let sub = Sub { local: addr::with_port(local, port), remote, id, up, since, initial: false, backup };
        conn.subs.push(sub);
        let at = conn.subs.len() - 1;
        if up {
            self.events.push_back(Event::SubflowUp { token, subflow: sub.told() });
        }
        if matches!(fate, Join::Late | Join::Reset) {
            self.down(token, at);
        }
        Outcome::Taken
    }

    // What happens.

    fn nth(&self, n: usize) -> Option<u32> {
        self.conns.keys().nth(n % self.conns.len().max(1)).copied()
    }

    fn list(which: &[usize], backup: bool) -> Vec<Entry> {
        let mut seen = BTreeSet::new();
        let fresh = which.iter().filter(|n| seen.insert(**n));
        fresh.map(|n| Entry { backup, ..local(*n).into() }).collect()
    }

    fn set_endpoints(&mut self, bits: u8, limit: u8, serve: bool) {
        let there = (1..LOCALS).filter(|n| bits >> n & 1 != 0);
        let endpoint = |n: usize| Endpoint {
            id: n as u8 + 10,
            addr: local(n),
            ifindex: 0,
            signal: bits & 0x10 != 0 && n.is_multiple_of(2),
            subflow: bits & 0x10 == 0 || n % 2 == 1,
            backup: bits & 0x20 != 0,
            fullmesh: bits & 0x40 != 0 && n % 2 == 1,
            laminar: bits & 0x80 != 0,
            implicit: false,
        };
        self.endpoints = there.map(endpoint).collect();
        self.limits = Limits { subflows: limit.into(), add_addr_accepted: limit.into() };
        self.highest = self.highest.max(limit.into());
        self.serve = serve;
        let (endpoints, limits) = (self.endpoints.clone(), self.limits);
        self.tell(Event::Endpoints { endpoints, limits, serve });
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Connect(list, ours, foreign) if self.conns.len() < 6 => {
                self.cookies += 1;
                let key = Key { cookie: self.cookies, inode: self.cookies + 1000 };
                if *ours {
                    self.sockets.push(key);
                    self.tell(Event::Binding { key, bound: None, device: None });
                    if !list.is_empty() {
                        self.ask(key, Request::Add(Self::list(list, false)));
                    }
                }
                let from = (0..LOCALS).find(|n| !self.unusable.contains(n)).unwrap_or(0);
                self.open(key, false, *foreign, (addr::with_port(local(from), 40_000), remote(0)));
            }
            Op::Listen(list) if self.listeners.len() < 2 => {
                self.cookies += 1;
                let key = Key { cookie: self.cookies, inode: self.cookies + 1000 };
                self.sockets.push(key);
                self.tell(Event::Binding { key, bound: None, device: None });
                self.ask(key, Request::Add(Self::list(list, false)));
                self.listeners.push((key, addr::with_port(local(list[0]), 80)));
            }
            Op::Arrive(n) if self.conns.len() < 6 && !self.listeners.is_empty() => {
                let (listener, at) = self.listeners[n % self.listeners.len()];
                self.ports += 1;
                let from = addr::with_port(remote(0), self.ports);
                self.open(Key { inode: 0, ..listener }, true, false, (at, from));
            }
            Op::Accept(n) => {
                if let Some(token) = self.nth(*n) {
                    self.accept(token);
                }
            }
            Op::Add(n, which, backup, wait) => {
                if let Some(key) = self.app(*n) {
                    self.ask(key, Request::Add(Self::list(which, *backup)));
                    if *wait {
                        self.flush();
                    }
                }
            }
            Op::Remove(n, which, patient) => {
                if let Some(key) = self.app(*n) {
                    let patience = if *patient { Time::from_secs(2) } else { Time::ZERO };
                    let addrs = Self::list(which, false).iter().map(|entry| entry.addr).collect();
                    self.ask(key, Request::Remove { addrs, patience });
                }
            }
            Op::Set(n, setting) => {
                if let Some(key) = self.app(*n) {
                    self.ask(key, Request::Set(*setting));
                }
            }
            Op::Open(n, from, to, backup, wait) => {
                if let Some(key) = self.app(*n) {
                    let (local, remote) = (from.map(local), to.map(remote));
                    let wait = wait.map(Time::from_millis);
                    self.ask(key, Request::Open { local, remote, backup: *backup, wait });
                }
            }
            Op::CloseByHand(n, at) | Op::Pin(n, at, _) => {
                let Some(key) = self.app(*n) else { return };
                let known = self.engine.by_key(&key).map_or(&[][..], |c| &c.subflows);
                let Some(s) = known.get(at % known.len().max(1)) else { return };
                let (local, remote) = (s.from(), s.to());
                self.ask(
                    key,
                    match op {
                        Op::Pin(_, _, backup) => Request::Pin { local, remote, backup: *backup },
                        _ => Request::Close { local, remote },
                    },
                );
            }
            Op::Close(n) => {
                if let Some(token) = self.nth(*n) {
                    self.end(token);
                }
            }
            Op::HalfClose(n) => {
                if let Some(conn) = self.nth(*n).and_then(|token| self.conns.get_mut(&token)) {
                    conn.over = true;
                }
            }
            Op::Forget(n) => {
                if let Some(key) = self.sockets.get(n % self.sockets.len().max(1)).copied() {
                    self.forgotten.insert(key.cookie);
                    self.orphans.extend(self.engine.by_key(&key).and_then(|c| c.token));
                    self.listeners.retain(|(listener, _)| *listener != key);
                    self.sockets.retain(|known| *known != key);
                    self.tell(Event::Forget { key });
                }
            }
            Op::Acknowledge(n) => {
                if let Some(token) = self.nth(*n) {
                    self.acknowledge(token);
                }
            }
            Op::Announce(n, id) => {
                if let Some(token) = self.nth(*n) {
                    self.events.push_back(Event::Announced { token, id: *id as u8, addr: remote(*id) });
                }
            }
            Op::Withdraw(n, id) => {
                if let Some(token) = self.nth(*n) {
                    self.events.push_back(Event::Withdrawn { token, id: *id as u8 });
                    let to = remote(*id);
                    while let Some(at) = self.conns[&token].subs.iter().position(|s| s.remote == to) {
                        self.down(token, at);
                    }
                }
            }
            Op::PeerJoins(n, at) => self.peer_joins(*n, *at),
            Op::Die(n, at) => {
                if let Some(token) = self.nth(*n) {
                    let at = at % self.conns[&token].subs.len().max(1);
                    self.down(token, at);
                }
            }
            Op::Next(join) => self.joins.push_back(*join),
            Op::RefuseNext => self.refuse_next = true,
            Op::Carrier(n, up) => {
                let addr = local(*n).ip();
                if *up {
                    self.unusable.remove(n);
                    self.tell(Event::Usable { addr });
                } else {
                    self.unusable.insert(*n);
                    self.tell(Event::Unusable { addr });
                }
            }
            Op::Silent(n, true) => {
                self.silent.entry(*n).or_insert(self.now);
            }
            Op::Silent(n, false) => {
                self.silent.remove(n);
            }
            Op::Endpoints(bits, limit, serve) => self.set_endpoints(*bits, *limit, *serve),
            Op::Deliver(n) => {
                for _ in 0..*n {
                    self.deliver();
                }
            }
            Op::Work(n) => {
                self.work(*n);
            }
            Op::Finish(n) => {
                self.finish(*n);
            }
            Op::Look(n) => {
                if let Some(token) = self.nth(*n) {
                    self.look(token);
                }
            }
            Op::Looked(n) => {
                self.looked(*n);
            }
            Op::Flush => self.flush(),
            Op::Lose => {
                self.events.pop_front();
            }
            Op::Repeat => {
                if let Some(event) = self.events.front().cloned() {
                    self.events.push_front(event);
                    self.deliver();
                }
            }
            Op::Reorder if self.events.len() > 1 => self.events.swap(0, 1),
            Op::Overrun => {
                self.events.clear();
                self.resynchronise();
            }
            Op::Restart => self.restart(),
            Op::Wait(millis) => self.pass(Time::from_millis(*millis)),
            Op::Connect(..) | Op::Listen(_) | Op::Arrive(_) | Op::Reorder => {}
        }
    }

    /// A socket whose application may ask for something: one of ours, or an
    /// accepted connection.
    fn app(&mut self, n: usize) -> Option<Key> {
        let mut keys = self.sockets.clone();
        keys.extend(self.conns.values().filter(|conn| conn.server && conn.inode != 0).map(Conn::key));
        let key = *keys.get(n % keys.len().max(1))?;
        // The owner looks whose it is first.
        let conn = self.conns.iter().find(|(_, conn)| conn.key() == key).map(|(token, _)| *token);
        if let Some(token) = conn {
            self.engine.adopt(token, key);
            if self.engine.by_key(&key).is_none_or(|c| c.token != Some(token)) {
                // It has not heard of it: no request before that.
                return None;
            }
        } else if self.engine.by_key(&key).is_some_and(|c| c.phase == Phase::Open) {
            return None;
        }
        Some(key)
    }

    fn accept(&mut self, token: u32) {
        let Some(conn) = self.conns.get_mut(&token).filter(|conn| conn.inode == 0) else { return };
        conn.inode = 5000 + u64::from(token);
        let key = conn.key();
        self.engine.adopt(token, key);
    }

    fn acknowledge(&mut self, token: u32) {
        let Some(conn) = self.conns.get_mut(&token).filter(|conn| !conn.ready) else { return };
        conn.ready = true;
        self.events.push_back(Event::Established { token });
    }

    fn peer_joins(&mut self, n: usize, at: usize) {
        let usable = !self.unusable.contains(&at);
        let Some(token) = self.nth(n).filter(|_| usable) else { return };
        self.ports += 1;
        let (port, since) = (self.ports, self.now);
        let conn = self.conns.get_mut(&token).unwrap();
        if !conn.ready || conn.over || conn.foreign || conn.subs.len() > 20 {
            return;
        }
        let to = local(at);
        let id = if addr::same_ip(&conn.initial.0, &to) { 0 } else { conn.table.join(to) };
        let local = addr::with_port(to, conn.initial.0.port());
        let remote = addr::with_port(remote(3), port);
        let sub = Sub { local, remote, id, up: true, since, initial: false, backup: false };
        conn.subs.push(sub);
        self.events.push_back(Event::SubflowUp { token, subflow: sub.told() });
    }

    // What must hold.

    /// What holds for every command: nothing is closed for being dead or
    /// unusable that is the last one up, nothing is asked for from outside the
    /// list or from an address that can't be used.
    fn check_command(&self, command: &Command) {
        let Some(c) = self.engine.by_token(command.token) else { return };
        match command.action {
            Action::Destroy { local, remote } => {
                let this = c.subflows.iter().find(|s| s.local == local && s.remote == remote);
                let other = c.subflows.iter().any(|s| s.up());
                let for_path = this.is_some_and(|s| {
                    matches!(s.state, State::Up(_)) && !s.surplus && c.allows(&local) && !c.is_unclaimed()
                });
                // REMOVE, or an ADD undone, may close the last.
                let gone = |addr: &SocketAddr| addr::covers(addr, &addr::canonical(local));
                let departs = c.flight.as_ref().is_some_and(|flight| flight.departing.iter().any(gone));
                let again = c.refused.iter().any(|refused| refused.action == command.action);
                let by_hand = c.is_doomed() || c.is_barred(&addr::canonical(local), &addr::canonical(remote));
                assert!(
                    other || !for_path || departs || again || by_hand,
                    "{command:?} closes the last: {c:#?}"
                );
            }
            Action::Create { local, .. } => {
                assert!(c.allows(&local), "{command:?} is outside the list");
                let by_hand = c.subflows.iter().any(|s| s.tag == command.tag && s.hand);
                assert!(c.is_unclaimed() || by_hand || self.engine.usable(&local), "{command:?} can't work");
            }
            _ => {}
        }
    }

    /// What holds at every moment.
    fn invariants(&self) {
        let engine = &self.engine;
        let (mut waiting, mut members) = (0, 0);
        for c in engine.connections() {
            let mut ids: Vec<u8> = c.ids.iter().map(|slot| slot.id).collect();
            ids.sort_unstable();
            assert!(ids.windows(2).all(|two| two[0] != two[1]), "an id names two addresses: {c:#?}");
            let told = |addr: &SocketAddr| !c.flight.as_ref().is_some_and(|f| f.is_untold(addr));
            let mut told: Vec<u8> =
                c.announced.iter().filter(|(addr, _)| told(addr)).map(|(_, id)| *id).collect();
            told.sort_unstable();
            assert!(told.windows(2).all(|two| two[0] != two[1]), "two addresses under one id: {c:#?}");
            assert!(c.entries.len() <= addr::LIST_MAX && c.excluded.len() <= addr::LIST_MAX);
            assert!(c.subflows.len() <= 60, "subflows grow without bound: {c:#?}");
            assert!(
                c.failures.len() <= 100
                    && c.refused.len() <= 60
                    && c.mismatches.iter().map(|(_, ids)| ids.len()).sum::<usize>() <= 100
            );
            assert!(c.removals.len() + c.additions.len() <= 64 && c.listening.len() <= addr::LIST_MAX);
            assert!(c.missed.len() <= 16 && c.peers.len() <= 2 * REMOTES);
            waiting += usize::from(c.phase == Phase::Prepared);
            members += 1;
            if c.key.inode != 0 {
                assert_eq!(engine.save(&c.key).as_ref(), self.journal.get(&c.key), "a change was not told");
                assert!(std::ptr::eq(engine.by_key(&c.key).unwrap(), c));
            }
            if let Some(token) = c.token {
                assert!(std::ptr::eq(engine.by_token(token).unwrap(), c));
            }
            assert!(engine.knows_cookie(c.key.cookie));
        }
        assert_eq!(engine.waiting(), waiting);
        assert_eq!(engine.families.values().map(|family| family.members as usize).sum::<usize>(), members);
        assert!(engine.by_key.len() <= members && engine.by_token.len() <= members);
        assert!(engine.timers.len() <= members);
        assert_eq!(self.journal.len(), engine.by_key.len(), "the journal holds what is known");
        assert_eq!(engine.outstanding.len(), self.pending.len() + self.finished.len());
    }

    /// Nothing fails any more and nothing is lost: what should be, is.
    fn at_rest(&mut self) {
        self.joins.clear();
        self.refuse_next = false;
        self.silent.clear();
        self.unusable.clear();
        for n in 0..LOCALS {
            self.tell(Event::Usable { addr: local(n).ip() });
        }
        for token in self.conns.keys().copied().collect::<Vec<_>>() {
            self.accept(token);
            self.acknowledge(token);
        }
        self.flush();
        for _ in 0..16 {
            self.resynchronise();
            self.flush();
            self.now += Time::from_secs(70);
            self.expire();
            self.tell(Event::Tick);
            self.flush();
        }
        self.resynchronise();
        self.flush();
        assert!(self.engine.outstanding.is_empty() && self.engine.commands.is_empty());
        for id in self.asked.keys().filter(|id| !self.excused.contains(id)) {
            assert!(self.answered.contains_key(id), "request {id} was never answered");
        }
        for c in self.engine.connections().filter(|c| c.phase == Phase::Open) {
            let conn = self.conns.get(&c.token.unwrap());
            let conn = conn.unwrap_or_else(|| panic!("it ended long ago: {c:#?}"));
            assert_eq!(conn.key(), c.key);
            if !c.foreign {
                self.agree(c, conn);
            }
        }
        for (token, conn) in &self.conns {
            let known = self.engine.by_token(*token).is_some();
            let ours = self.sockets.contains(&conn.key()) && !self.forgotten.contains(&conn.cookie);
            assert!(known || !ours, "{token} was never heard of: {conn:#?}");
        }
    }

    /// Kernel and engine agree, and what was asked for is in force.
    fn agree(&self, c: &Connection, conn: &Conn) {
        let context = || format!("{c:#?} {conn:#?}");
        let mut believed: Vec<_> = c.subflows.iter().map(|s| (s.local, s.remote)).collect();
        let mut real: Vec<_> = conn.subs.iter().map(|s| (s.local, s.remote)).collect();
        believed.sort_unstable();
        real.sort_unstable();
        assert_eq!(believed, real, "engine and kernel agree: {}", context());
        assert!(c.flight.is_none() && c.refused.is_empty(), "{}", context());
        let told: Vec<SocketAddr> = conn.told.values().copied().collect();
        if c.is_unclaimed() && self.orphans.contains(&c.token.unwrap()) {
            return;
        }
        if c.is_unclaimed() {
            let extra = conn.subs.iter().filter(|s| !s.initial).count();
            assert!(extra <= self.highest as usize || c.subflows.iter().all(|s| !s.surplus), "{}", context());
            for addr in &told {
                let endpoint = self.endpoints.iter().any(|e| e.signal && e.addr == *addr);
                assert!(endpoint, "{addr} is no endpoint any more: {}", context());
            }
            for endpoint in self.endpoints.iter().filter(|e| e.signal) {
                let initial = addr::same_ip(&endpoint.addr, &conn.initial.0);
                assert!(initial || told.contains(&endpoint.addr), "{}", context());
            }
            return;
        }
        // The list is what the requests that succeeded made of it.
        let asked = || self.asked.iter().filter(|(_, (key, _))| *key == c.key);
        if !c.server && !asked().any(|(id, _)| self.excused.contains(id)) {
            let mut list: Vec<Entry> = Vec::new();
            for (_, (_, request)) in asked().filter(|(id, _)| self.answered[id].is_ok()) {
                match request {
                    Request::Add(entries) => {
                        list.retain(|known| !entries.iter().any(|entry| entry.addr == known.addr));
                        list.extend(entries);
                    }
                    Request::Remove { addrs, .. } => {
                        list.retain(|known| !addrs.iter().any(|gone| addr::covers(gone, &known.addr)));
                    }
                    _ => {}
                }
            }
            let sorted = |mut list: Vec<Entry>| {
                list.sort_by_key(|entry| entry.addr);
                list
            };
            assert_eq!(sorted(c.entries.clone()), sorted(list), "{}", context());
        }
        let alternatives = conn.subs.iter().any(|s| c.allows(&s.local));
        for sub in &conn.subs {
            let tolerated = sub.initial && (c.server || !alternatives || conn.over || c.shares_fate());
            assert!(c.allows(&sub.local) || tolerated, "{sub:?} is outside the list: {}", context());
        }
        for (sub, known) in conn.subs.iter().filter_map(|sub| {
            Some((sub, c.subflows.iter().find(|s| s.local == sub.local && s.remote == sub.remote)?))
        }) {
            // What was asked of one that was forgotten stays, unknown.
            if self.orphans.contains(&c.token.unwrap()) {
                continue;
            }
            assert_eq!(sub.backup, known.backup, "who is for backup: {}", context());
            let wish = c.wish(&self.engine.host, &known.local, Some(known));
            assert!(conn.over || wish.is_none_or(|wish| wish == sub.backup), "{}", context());
        }
        let settings = c.settings();
        let waits = c.steering.as_ref().is_some_and(|steering| !steering.opens.is_empty());
        assert!(!waits, "an open is never forgotten: {}", context());
        if settings.max_subflows != 0 {
            assert!(conn.subs.len() <= settings.max_subflows.into(), "too many: {}", context());
        }
        let pinned = c.steering.as_ref().is_some_and(|steering| !steering.pinned.is_empty());
        let one = matches!(settings.profile, Profile::Interactive | Profile::Handover);
        if one && !pinned && !self.orphans.contains(&c.token.unwrap()) && !conn.over && !conn.subs.is_empty()
        {
            let used = conn.subs.iter().filter(|s| !s.backup).count();
            assert_eq!(used, 1, "one path is in use: {}", context());
        }
        for Entry { addr, .. } in c.entries.iter().filter(|entry| c.allows(&entry.addr)) {
            let there = conn.subs.iter().any(|s| addr::covers(addr, &s.local));
            let all = settings == Settings::default() && !c.is_doomed();
            let barred = c.peers.iter().any(|peer| c.is_barred(addr, &peer.addr));
            let possible = !c.server && !conn.over && !c.peers.is_empty() && all && !barred;
            assert!(there || !possible, "{addr} has no subflow: {}", context());
            let initial = addr::same_ip(addr, &conn.initial.0) || !c.has_demand();
            assert!(initial || !c.server || told.contains(addr), "{addr} is not announced: {}", context());
        }
    }
}

/// One world; it must be as it should once nothing more happens.
fn come_to_rest(ops: &[Op]) {
    let mut many = Many::new();
    ops.iter().for_each(|op| many.apply(op));
    many.at_rest();
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 20_000, ..simulation(worlds()) })]

    #[test]
    fn every_world_of_many_comes_to_rest_as_it_should(ops in ops()) {
        come_to_rest(&ops);
    }

    #[test]
    fn many_worlds_repeat_themselves(ops in ops()) {
        let run = || {
            let mut many = Many::new();
            ops.iter().for_each(|op| many.apply(op));
            many.log
        };
        prop_assert_eq!(run(), run());
    }
}

/// The kernel gave an address an id for a join that was closed unheard, and two
/// addresses look for theirs at the same time.
#[test]
fn addresses_that_the_kernel_numbered_by_itself_are_announced() {
    let ops = [
        Op::RefuseNext,
        Op::Listen(vec![2]),
        Op::Arrive(0),
        Op::PeerJoins(0, 0),
        Op::Deliver(2),
        Op::Add(0, vec![1, 0], false, false),
        Op::Restart,
        Op::Die(0, 1),
        Op::Flush,
    ];
    come_to_rest(&ops);
}

/// Two ADDs of an address are refused, and it was removed in between.
#[test]
fn an_add_that_is_undone_brings_back_nothing_that_was_removed() {
    let ops = [
        Op::Connect(vec![0], true, false),
        Op::Next(Join::Answer),
        Op::Next(Join::Fails(libc::EADDRINUSE)),
        Op::Acknowledge(0),
        Op::Flush,
        Op::Add(0, vec![0, 1], false, false),
        Op::Remove(0, vec![0], false),
        Op::Add(0, vec![0], false, true),
    ];
    come_to_rest(&ops);
}

/// Of two ADDs of an address the first succeeds, and the second is refused.
#[test]
fn an_add_that_is_undone_leaves_the_flags_of_the_one_before() {
    let ops = [
        Op::Next(Join::Answer),
        Op::Next(Join::Fails(libc::EPERM)),
        Op::Connect(vec![], true, false),
        Op::Deliver(1),
        Op::Remove(0, vec![0], false),
        Op::Open(0, None, None, false, None),
        Op::Acknowledge(0),
        Op::Deliver(1),
        Op::Add(0, vec![0], false, false),
        Op::Add(0, vec![1, 0], true, true),
    ];
    come_to_rest(&ops);
}

/// A join of an endpoint looks for its id while the endpoint is announced, and
/// after a restart it is none any more.
#[test]
fn what_was_announced_under_an_id_of_the_kernel_s_is_taken_back() {
    let ops = [
        Op::Connect(vec![], false, false),
        Op::Acknowledge(0),
        Op::PeerJoins(0, 2),
        Op::Endpoints(244, 1, true),
        Op::Die(0, 1),
        Op::Announce(0, 1),
        Op::Flush,
        Op::Restart,
        Op::Endpoints(0, 0, false),
    ];
    come_to_rest(&ops);
}

/// Orders of events that long runs have found: joins of one name by hand and by
/// policy, of which the one is to be closed, fails, or was made when the other
/// had gone unheard.
#[test]
fn joins_of_one_name_are_told_apart() {
    let connect = |list: &[usize]| Op::Connect(list.to_vec(), true, false);
    let open = |backup, wait| Op::Open(0, None, None, backup, wait);
    let found = [
        vec![
            connect(&[]),
            Op::Die(0, 0),
            Op::Acknowledge(0),
            Op::Flush,
            open(false, Some(1)),
            Op::Add(0, vec![0], true, false),
            Op::Wait(1),
        ],
        vec![
            connect(&[]),
            Op::Overrun,
            open(false, None),
            Op::Looked(0),
            Op::Remove(0, vec![0], false),
            Op::Add(0, vec![0], true, false),
        ],
        vec![connect(&[]), Op::Acknowledge(0), Op::Die(0, 0), Op::Flush, open(true, Some(1)), Op::Wait(1050)],
        vec![
            connect(&[2]),
            Op::Withdraw(0, 1),
            Op::Acknowledge(0),
            Op::Flush,
            Op::Open(0, None, Some(1), false, None),
            Op::Arrive(0),
            Op::Die(0, 0),
            Op::Lose,
            open(false, None),
            Op::Flush,
            Op::Set(0, Setting::MaxSubflows(1)),
        ],
        vec![
            connect(&[]),
            Op::Flush,
            Op::Set(0, Setting::Profile(Profile::Interactive)),
            Op::Acknowledge(0),
            Op::Add(0, vec![1], false, false),
            Op::Die(0, 0),
            Op::Flush,
            Op::Die(0, 0),
            Op::Lose,
            Op::Open(0, Some(1), None, false, None),
        ],
    ];
    for ops in found {
        come_to_rest(&ops);
    }
}

/// An endpoint is made anew, and gone, before its announcement has been made.
#[test]
fn an_announcement_that_was_refused_is_none_of_the_next() {
    let ops = [
        Op::Connect(vec![], false, false),
        Op::Endpoints(52, 0, true),
        Op::Overrun,
        Op::RefuseNext,
        Op::Looked(0),
        Op::Endpoints(180, 0, false),
        Op::Flush,
        Op::Endpoints(0, 0, false),
    ];
    come_to_rest(&ops);
}

/// A subflow ended unheard, one of its name was opened by hand, and there are too
/// many of them.
#[test]
fn a_name_that_is_closed_counts_once() {
    let ops = [
        Op::Connect(vec![3, 1], true, false),
        Op::Acknowledge(0),
        Op::Deliver(2),
        Op::Add(0, vec![3], true, false),
        Op::Flush,
        Op::Add(0, vec![0], false, false),
        Op::Open(0, Some(3), None, false, None),
        Op::Open(0, None, None, false, None),
        Op::Die(0, 1),
        Op::Wait(400),
        Op::Set(0, Setting::MaxSubflows(1)),
    ];
    come_to_rest(&ops);
}
