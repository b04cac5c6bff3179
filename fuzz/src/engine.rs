// SPDX-License-Identifier: MIT OR Apache-2.0
//! The engine, told anything in any order by applications, peers and a kernel
//! that carries commands out, refuses them, or takes its time.

use crate::memory;
use crate::past::written;
use crate::script::Script;
use arbitrary::Result;
use mptcpapi::addr::{self, LIST_MAX};
use mptcpapi::engine::{
    Action, Command, Connection, Engine, Event, Facts, Key, Notice, Outcome, Phase, Saved, Seen, State, Time,
};
use std::collections::{BTreeMap, BTreeSet};

/// So many events and answers make a world; more would only take longer.
const STEPS: usize = 600;
/// No event makes more of a connection's commands.
const COMMANDS: usize = 1500;
/// After so many answers to a connection's commands it must be content.
const ROUNDS: usize = 4000;
/// What a connection may take with all its lists full.
const CONNECTION: usize = 160 << 10;

/// A sequence of events.
pub fn engine(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let mut world = World::default();
    while !script.ended() && world.steps < STEPS {
        if world.step(&mut script).is_err() {
            break;
        }
    }
    world.end();
}

/// Two engines that are told the same.
#[derive(Default)]
struct World {
    engine: Engine,
    twin: Engine,
    now: Time,
    steps: usize,
    keeps: bool,
    last: Option<Event>,
    /// Commands that were not answered yet.
    out: Vec<Command>,
    out_most: usize,
    known_most: usize,
    requests: u64,
    waiting: BTreeSet<u64>,
    /// What was last said to have changed, as it was then.
    durable: BTreeMap<Key, Saved>,
}

impl World {
    fn step(&mut self, script: &mut Script<'_>) -> Result<()> {
        let event = match script.upto(34)? {
            0 => {
                let key = script.key()?;
                Event::Binding { key, bound: script.bound()?, device: script.device()? }
            }
            1 => Event::PeerAddresses { key: script.key()?, addrs: script.peers()? },
            2..=4 => Event::Request { id: 0, key: script.key()?, request: script.request()? },
            5 => Event::Forget { key: script.key()? },
            6 | 7 => {
                let (token, server) = (script.token()?, script.bit()?);
                Event::Created { token, key: script.any_key()?, initial: script.seen(true)?, server }
            }
            8 => Event::Established { token: script.token()? },
            9 => Event::Closed { token: script.token()? },
            10 => Event::Announced { token: script.token()?, id: script.id()?, addr: script.addr()? },
            11 => Event::Withdrawn { token: script.token()?, id: script.id()? },
            12 => Event::SubflowUp { token: script.token()?, subflow: script.seen(false)? },
            13 => {
                let Some((token, Seen { local, remote, .. })) = self.subflow(script)? else { return Ok(()) };
                Event::NotBackup { token, local, remote }
            }
            14 | 15 => {
                let Some((token, Seen { local, remote, .. })) = self.subflow(script)? else { return Ok(()) };
                Event::SubflowDown { token, local, remote, error: script.byte()?.into() }
            }
            16 => {
                let (token, local, remote) = (script.token()?, script.addr()?, script.addr()?);
                Event::SubflowDown { token, local, remote, error: 0 }
            }
            17 | 18 => return self.look(script),
            19..=21 => {
                let outcome = script.outcome()?;
                let at = script.upto(self.out.len().max(1) - 1)?;
                return self.answer(at, outcome, script);
            }
            22 => {
                // The kernel takes a join, and the peer too.
                let create = |c: &Command| matches!(c.action, Action::Create { .. });
                let Some(at) = self.out.iter().position(create) else { return Ok(()) };
                let Action::Create { local, remote, id, .. } = self.out[at].action else { return Ok(()) };
                let token = self.out[at].token;
                self.answer(at, Outcome::Taken, script)?;
                let mut subflow = Seen {
                    local,
                    remote,
                    local_id: id,
                    remote_id: 0,
                    up: true,
                    initial: false,
                    backup: None,
                };
                if local.port() == 0 {
                    subflow.local.set_port(script.word()?);
                }
                Event::SubflowUp { token, subflow }
            }
            23 | 24 => {
                let (outcome, facts) = (script.outcome()?, script.facts()?);
                return self.quiet(outcome, facts);
            }
            25 => Event::Unusable { addr: script.ip()? },
            26 => Event::Usable { addr: script.ip()? },
            27 => Event::Restore(Box::new(script.saved()?)),
            28 => {
                self.now += script.time()?;
                Event::Tick
            }
            29 => {
                let (token, key) = (script.token()?, script.key()?);
                for engine in [&mut self.engine, &mut self.twin] {
                    engine.adopt(token, key);
                }
                self.look_around();
                return Ok(());
            }
            30 => {
                // The same again, often.
                let Some(event) = self.last.clone() else { return Ok(()) };
                for _ in 0..script.upto(63)? {
                    self.tell(event.clone());
                }
                event
            }
            31 => {
                let after = script.time()?;
                Event::Settings { close_timeout: if script.bit()? { Some(after) } else { None } }
            }
            32 => {
                let (endpoints, limits) = script.endpoints()?;
                Event::Endpoints { endpoints, limits, serve: script.upto(3)? != 0 }
            }
            33 => Event::FateSharing { key: script.key()?, on: script.bit()? },
            _ => {
                self.keeps = true;
                for engine in [&mut self.engine, &mut self.twin] {
                    engine.keep_changes(true);
                    while engine.poll_changed().is_some() {}
                }
                self.durable = durable(&self.engine);
                return Ok(());
            }
        };
        self.tell(event);
        Ok(())
    }

    /// A subflow that some connection is thought to have.
    fn subflow(&self, script: &mut Script<'_>) -> Result<Option<(u32, Seen)>> {
        let all: Vec<(u32, Seen)> = self.engine.connections().flat_map(subflows).collect();
        Ok(all.get(script.upto(all.len().max(1) - 1)?).copied())
    }

    /// The kernel's list, which is much what it was thought to be.
    fn look(&mut self, script: &mut Script<'_>) -> Result<()> {
        let token = script.token()?;
        let known = self.engine.by_token(token);
        let mut list: Vec<Seen> = known.into_iter().flat_map(subflows).map(|(_, seen)| seen).collect();
        let holes = script.word()?;
        let mut bit = 0;
        list.retain(|_| {
            bit += 1;
            holes >> (bit % 16) & 1 == 0
        });
        let (key, server, initial) = match known {
            Some(c) if script.bit()? => (c.key, c.server, c.initial),
            _ => (script.any_key()?, script.bit()?, None),
        };
        let initial = match initial {
            Some(initial) => initial,
            None => script.pair()?,
        };
        if script.bit()? {
            list.extend(script.subflows()?);
        }
        let ready = script.bit()?;
        self.tell(Event::Snapshot { token, key, server, initial, ready, subflows: list });
        Ok(())
    }

    /// One command's outcome.
    fn answer(&mut self, at: usize, outcome: Outcome, script: &mut Script<'_>) -> Result<()> {
        if at >= self.out.len() {
            // Of a command that there never was, or that was answered.
            self.tell(Event::Done { tag: u64::from(script.byte()?), outcome });
            return Ok(());
        }
        let Command { tag, action, .. } = self.out.remove(at);
        self.tell(match action {
            Action::Watch { .. } => {
                Event::Watched { tag, facts: if script.bit()? { Some(script.facts()?) } else { None } }
            }
            Action::Route { remote } => {
                let local = if script.bit()? { Some(script.addr()?) } else { None };
                Event::Routed {
                    tag,
                    local: local.filter(|local| addr::pair(&addr::canonical(*local), &remote)),
                }
            }
            _ => Event::Done { tag, outcome },
        });
        Ok(())
    }

    /// Every command is answered, until there are no more.
    fn quiet(&mut self, outcome: Outcome, facts: Facts) -> Result<()> {
        let mut rounds = 0;
        while !self.out.is_empty() {
            let Command { tag, action, .. } = self.out.remove(0);
            self.tell(match action {
                Action::Route { remote } if remote.is_ipv4() => {
                    Event::Routed { tag, local: Some(([10, 1, 0, 1], 0).into()) }
                }
                Action::Route { .. } => Event::Routed { tag, local: None },
                Action::Watch { .. } => Event::Watched { tag, facts: Some(facts) },
                _ => Event::Done { tag, outcome },
            });
            rounds += 1;
            let most = ROUNDS * (1 + self.engine.connections().count());
            assert!(rounds <= most, "it is never content: {:?}", self.out);
        }
        Ok(())
    }

    fn tell(&mut self, mut event: Event) {
        self.steps += 1;
        if let Event::Request { id, .. } = &mut event {
            self.requests += 1;
            *id = self.requests;
            self.waiting.insert(*id);
        }
        if told() {
            eprintln!("{:?} {event:?}", self.now);
        }
        self.last = Some(event.clone());
        let ticked = matches!(event, Event::Tick);
        self.engine.handle(event.clone(), self.now);
        self.twin.handle(event, self.now);
        self.look_around();
        if ticked {
            let next = self.engine.next_timeout();
            assert!(next.is_none_or(|next| next > self.now), "it comes back at once, for ever");
        }
    }

    /// What came of it, and what must always hold.
    fn look_around(&mut self) {
        let mut commands = 0;
        while let Some(command) = self.engine.poll_command() {
            commands += 1;
            assert_eq!(self.twin.poll_command(), Some(command), "the same gives the same");
            let c = self.engine.by_token(command.token).expect("a command of a connection that is known");
            assert_eq!(c.key, command.key);
            sound(&command, c);
            if told() {
                eprintln!("    {command:?}");
            }
            self.out.push(command);
        }
        assert_eq!(self.twin.poll_command(), None);
        let known = self.engine.connections().count();
        assert!(commands <= COMMANDS * (1 + known), "{commands} commands at once");

        while let Some(notice) = self.engine.poll_notification() {
            assert_eq!(self.twin.poll_notification().as_ref(), Some(&notice));
            if told() {
                eprintln!("    {notice:?}");
            }
            let Notice::Answer { id, result } = notice;
            assert!(self.waiting.remove(&id), "answered twice, or never asked");
            assert!(result.is_ok() || result.is_err_and(|error| error.errno() > 0));
        }
        assert_eq!(self.twin.poll_notification(), None);
        assert_eq!(self.engine.next_timeout(), self.twin.next_timeout());

        self.out_most = self.out_most.max(self.out.len());
        self.known_most = self.known_most.max(known);
        let mut prepared = 0;
        for c in self.engine.connections() {
            prepared += usize::from(c.phase == Phase::Prepared);
            self.consistent(c);
        }
        assert_eq!(self.engine.waiting(), prepared);
        self.changes();
    }

    fn consistent(&self, c: &Connection) {
        let same = |other: Option<&Connection>| other.is_some_and(|other| std::ptr::eq(other, c));
        assert!(self.engine.knows_cookie(c.key.cookie));
        assert_eq!(c.token.is_some(), c.phase == Phase::Open, "{c:?}");
        assert!(c.token.is_none_or(|token| same(self.engine.by_token(token))), "{c:?}");
        assert!(c.entries.len() <= LIST_MAX && c.excluded.len() <= LIST_MAX);
        assert!(c.peers.len() <= 512);
        if c.key.inode == 0 {
            return;
        }
        assert!(same(self.engine.by_key(&c.key)), "{c:?}");
        let Some(saved) = self.engine.save(&c.key) else { return };
        let ids: BTreeSet<u8> = saved.ids.iter().map(|slot| slot.id).collect();
        let named: BTreeSet<_> = saved.ids.iter().map(|slot| slot.addr).collect();
        assert_eq!(ids.len(), saved.ids.len(), "an id names two addresses: {:?}", saved.ids);
        assert_eq!(named.len(), saved.ids.len(), "an address has two ids: {:?}", saved.ids);
    }

    /// What is durable has not changed unsaid.
    fn changes(&mut self) {
        if !self.keeps {
            return;
        }
        while let Some(key) = self.engine.poll_changed() {
            assert_eq!(self.twin.poll_changed(), Some(key));
            match self.engine.save(&key) {
                Some(saved) => drop(self.durable.insert(key, saved)),
                None => drop(self.durable.remove(&key)),
            }
        }
        assert_eq!(self.durable, durable(&self.engine), "it changed and nobody was told");
    }

    /// The time after all that.
    fn end(mut self) {
        self.restart();
        let lists = |c: &Connection| c.subflows.len() * 256 + c.peers.len() * 64;
        let room = self.known_most * 4096
            + self.engine.connections().map(|c| CONNECTION + lists(c)).sum::<usize>()
            + self.out_most * 512
            + self.waiting.len() * 8192
            + (64 << 10);
        let before = memory::live();
        drop(std::mem::take(&mut self.engine));
        let held = (before - memory::live()) as usize;
        assert!(held <= room, "{held} bytes, more than {room}");
        self.engine = std::mem::take(&mut self.twin);
        // From here on there is one.
        self.rest();
        self.part();
    }

    /// What is saved and restored is as it was.
    fn restart(&self) {
        for (key, saved) in durable(&self.engine) {
            let mut saved = written(saved);
            // Where the kernel has meanwhile given the address another id, it
            // is as if it had not been announced.
            let Saved { ids, announced, untold, .. } = &mut saved;
            announced.retain(|(addr, id)| ids.iter().any(|slot| slot.addr == *addr && slot.id == *id));
            untold.retain(|addr| announced.iter().any(|(told, _)| told == addr));
            let mut fresh = Engine::default();
            fresh.handle(Event::Restore(Box::new(saved.clone())), self.now);
            assert_eq!(fresh.save(&key), Some(saved));
            assert!(fresh.poll_command().is_none());
        }
    }

    fn alone(&mut self, event: Event) {
        if told() {
            eprintln!("{:?} {event:?}", self.now);
        }
        self.engine.handle(event, self.now);
        while let Some(command) = self.engine.poll_command() {
            self.out.push(command);
        }
        while let Some(Notice::Answer { id, .. }) = self.engine.poll_notification() {
            assert!(self.waiting.remove(&id), "answered twice, or never asked");
        }
    }

    /// The kernel takes everything, and time goes by: nobody waits any more.
    fn rest(&mut self) {
        for _ in 0..4 {
            let mut rounds = 0;
            while !self.out.is_empty() {
                let Command { tag, action, .. } = self.out.remove(0);
                self.alone(match action {
                    Action::Route { .. } => Event::Routed { tag, local: None },
                    Action::Watch { .. } => Event::Watched { tag, facts: None },
                    _ => Event::Done { tag, outcome: Outcome::Taken },
                });
                rounds += 1;
                let most = ROUNDS * (1 + self.engine.connections().count());
                assert!(rounds <= most, "it is never content: {:?}", self.out);
            }
            // Nobody waits for longer than a word of seconds.
            self.now += Time::from_secs(1 << 15);
            self.alone(Event::Tick);
        }
        assert!(self.waiting.is_empty(), "not answered: {:?}, {:#?}", self.waiting, self.engine);
    }

    /// Every socket is closed: nothing is left.
    fn part(&mut self) {
        let all: Vec<(Key, Option<u32>)> = self.engine.connections().map(|c| (c.key, c.token)).collect();
        for (key, token) in all {
            self.alone(match token {
                Some(token) => Event::Closed { token },
                None => Event::Forget { key },
            });
            assert!(key.inode == 0 || self.engine.by_key(&key).is_none());
        }
        assert_eq!(self.engine.connections().count(), 0);
        assert_eq!((self.engine.waiting(), self.engine.next_timeout()), (0, None));
        assert!(!(1..=3).any(|cookie| self.engine.knows_cookie(cookie)));
        assert!(!(1..=4).any(|token| self.engine.by_token(token).is_some()));
    }
}

/// TRACE asks to see what happens.
fn told() -> bool {
    static TOLD: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *TOLD.get_or_init(|| std::env::var_os("TRACE").is_some())
}

fn durable(engine: &Engine) -> BTreeMap<Key, Saved> {
    let keys = engine.connections().map(|c| c.key).filter(|key| key.inode != 0);
    keys.filter_map(|key| Some((key, engine.save(&key)?))).collect()
}

fn subflows(c: &Connection) -> impl Iterator<Item = (u32, Seen)> + '_ {
    c.subflows.iter().filter_map(|s| {
        let up = matches!(s.state, State::Up(_));
        let (local, remote, local_id, initial) = (s.local, s.remote, s.local_id, s.initial);
        Some((c.token?, Seen { local, remote, local_id, remote_id: 0, up, initial, backup: None }))
    })
}

/// A command that may be given.
fn sound(command: &Command, c: &Connection) {
    assert!(!c.foreign && !c.blind);
    if let Action::Create { local, remote, .. } = command.action {
        assert_eq!(local.is_ipv4(), remote.is_ipv4(), "a join between two families");
        assert!(c.allows(&local), "{local} may not be used: {c:#?}");
    }
}
