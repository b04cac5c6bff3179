// SPDX-License-Identifier: MIT OR Apache-2.0
//! Looking at the subflows of connections that have a choice: all of one
//! connection in a round, often while data moves, seldom while it doesn't.

use super::act::Outstanding;
use super::connection::{Phase, Subflow};
use super::event::{Action, Handle, Time};
use super::few::Few;
use super::judge::{Facts, Look, Verdict, worth_leaving};
use super::note::fail;
use super::settings::Profile;
use super::{Engine, Ready};
use std::net::SocketAddr;

/// Between two rounds while anything moves.
const LIVELY: Time = Time::from_millis(50);
/// Before the first round.
const FIRST: Time = Time::from_millis(400);
/// Between two rounds when nothing has for long.
const IDLE: Time = Time::from_secs(4);
/// The same where bytes are counted.
const IDLE_COUNTED: Time = Time::from_secs(1);
/// An answer that is due is waited for at least so long.
const SOON: Time = Time::from_millis(10);
/// A silence of this many rounds makes them rarer.
const PATIENCE: u32 = 16;

/// The rounds of one connection.
#[derive(Clone, Debug)]
pub struct Watch {
    /// When the next begins.
    next: Time,
    /// In milliseconds.
    interval: u32,
    /// Commands of the round under way.
    awaited: Few<u64>,
    /// What it has shown so far.
    looks: Few<(SocketAddr, SocketAddr, Look)>,
}

/// What looking may cost: where very many connections are busy, each is
/// looked at less often.
#[derive(Debug, Default)]
pub struct Budget {
    since: Time,
    spent: usize,
}

/// The time that a budget is for, and the looks in it: a few hundredths of a
/// processor.
const SPELL: Time = Time::from_millis(50);
const LOOKS: usize = 500;

impl Budget {
    fn spend(&mut self, looks: usize, now: Time) -> bool {
        if now.saturating_sub(self.since) >= SPELL {
            (self.since, self.spent) = (now, 0);
        }
        let enough = self.spent < LOOKS;
        if enough {
            self.spent += looks;
        }
        enough
    }
}

impl Watch {
    /// When there is something to do.
    pub fn due(&self) -> Option<Time> {
        self.awaited.is_empty().then_some(self.next)
    }
}

impl Engine {
    /// Begins a round where one is due.
    pub(super) fn watch(&mut self, handle: Handle, now: Time) {
        let watchable = self.open(handle).is_some_and(|c| c.watchable(&self.host) || c.counts_bytes());
        let Some(c) = self.connections.get_mut(&handle) else { return };
        if !watchable {
            c.watch = None;
            return;
        }
        let first = if c.counts_bytes() { LIVELY } else { FIRST };
        let begin = || {
            let next = now.saturating_add(first);
            Box::new(Watch {
                next,
                interval: first.as_millis() as u32,
                awaited: Few::default(),
                looks: Few::default(),
            })
        };
        let watch = c.watch.get_or_insert_with(begin);
        if watch.due().is_none_or(|due| due > now) {
            return;
        }
        let up: Vec<Subflow> = c.subflows.iter().filter(|s| s.up()).copied().collect();
        if !self.budget.spend(up.len(), now) {
            watch.next = now.saturating_add(LIVELY);
            return;
        }
        for s in up {
            let tag = self.emit(handle, Action::Watch { local: s.local, remote: s.remote }, None);
            if let Some(watch) = self.connections.get_mut(&handle).and_then(|c| c.watch.as_mut()) {
                tag.into_iter().for_each(|tag| watch.awaited.push(tag));
            }
        }
    }

    /// Takes in what one subflow shows; the last of a round decides.
    pub(super) fn watched(&mut self, tag: u64, facts: Option<Facts>, now: Time) {
        let Some(Outstanding { handle, action: Action::Watch { local, remote }, .. }) =
            self.outstanding.remove(&tag)
        else {
            return;
        };
        let Some(watch) = self.connections.get_mut(&handle).and_then(|c| c.watch.as_mut()) else { return };
        if !watch.awaited.contains(&tag) {
            return;
        }
        watch.awaited.retain(|known| *known != tag);
        facts.into_iter().for_each(|facts| watch.looks.push((local, remote, Look { at: now, facts })));
        if watch.awaited.is_empty() {
            if self.conclude(handle, now) {
                self.settle(handle, now);
            } else {
                self.schedule(handle, now);
            }
        }
    }

    /// Judges by a round; whether anything follows from it.
    fn conclude(&mut self, handle: Handle, now: Time) -> bool {
        let Some(c) = self.connections.get_mut(&handle).map(Box::as_mut) else { return false };
        let Some(watch) = c.watch.as_mut() else { return false };
        let looks = watch.looks.take();
        let longest = if c.counts_bytes() { IDLE_COUNTED } else { IDLE };
        let (mut next, mut idle) = (longest, true);
        let moved = looks.iter().map(|(_, _, look)| look.facts.moved());
        c.note_moved(moved.fold(0, u64::saturating_add));
        let mut dead = Vec::new();
        let spared = c.shares_fate();
        for (at, (local, remote, look)) in looks.iter().enumerate() {
            let named = |s: &&mut Subflow| s.up() && s.local == *local && s.remote == *remote;
            let Some(subflow) = c.subflows.iter_mut().find(named) else { continue };
            if subflow.path.note(look) {
                (next, idle) = (LIVELY, false);
            } else if look.facts.unacked > 0 {
                next = next.min((look.facts.silence() / PATIENCE).max(LIVELY));
                idle = false;
            }
            let others = looks.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, look)| &look.2);
            match subflow.path.verdict(look, others) {
                Verdict::Alive => {}
                Verdict::Suspect(when) => next = next.min(when.saturating_sub(now).max(SOON)),
                Verdict::Dead if subflow.initial && spared => {}
                Verdict::Dead => dead.push(*subflow),
            }
        }
        let Some(watch) = c.watch.as_mut() else { return false };
        let pause = Time::from_millis(watch.interval.into()).saturating_mul(4);
        let pause = if idle { pause.min(longest) } else { LIVELY };
        watch.interval = pause.as_millis() as u32;
        watch.next = now.saturating_add(if idle { pause } else { next });
        let host = &self.host;
        let counted = c.counts_bytes();
        let changed = c.compare(host, &looks, now) || counted;
        let can =
            |s: &Subflow| s.up() && c.allows(&s.local) && !c.leaving(&s.local) && host.usable(&s.from());
        let same = |a: &Subflow, b: &Subflow| a.local == b.local && a.remote == b.remote;
        let mut others: Vec<Subflow> =
            c.subflows.iter().filter(|s| can(s) && !dead.iter().any(|dead| same(dead, s))).copied().collect();
        if others.iter().any(|s| !s.backup) {
            others.retain(|s| !s.backup);
        }
        let facts = |s: &Subflow| {
            let look = looks.iter().find(|(local, remote, _)| *local == s.local && *remote == s.remote);
            look.map(|(_, _, look)| look.facts).unwrap_or_default()
        };
        dead.retain(|s| worth_leaving(&facts(s), others.iter().map(facts)));
        if others.is_empty() || dead.is_empty() {
            return changed;
        }
        for s in &dead {
            c.miss(s);
            let source = c.sources_of(&s.from());
            fail(c, source, s.to(), now);
            if let Some(failure) = c.failures.last_mut() {
                failure.comebacks = s.path.comebacks().saturating_add(1);
            }
        }
        self.part(handle, &dead, &[]);
        true
    }
}

impl super::Connection {
    /// Whether there is a choice between subflows, or may soon be.
    fn watchable(&self, host: &super::host::Host) -> bool {
        if self.phase != Phase::Open || self.ready == Ready::No || self.is_unclaimed() {
            return false;
        }
        match self.subflows.iter().filter(|s| s.up()).count() {
            0 => false,
            1 => {
                self.subflows.iter().any(|s| !s.up() && !s.closing)
                    || !self.wanted(host, Time::MAX).is_empty()
                    || self.settings().profile == Profile::Overflow
            }
            _ => true,
        }
    }
}
