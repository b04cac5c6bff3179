// SPDX-License-Identifier: MIT OR Apache-2.0
//! Profiles (RFC 6897 REQ8): which subflows a connection has and which of them
//! are for backup.
//!
//! * **Aggregate**: every address of the list has a subflow, all carry data.
//! * **Interactive**: every address has one; that with the lowest delay carries
//!   data, the others are for backup. Another takes its place when it has been
//!   quicker by a quarter and [`MARGIN`] for [`CONFIRMED`], and the one in use
//!   has been for [`HOLD`]. What isn't in use is not measured: its delay is
//!   thought to go back to the lowest that it has shown in [`FORGOTTEN`], and in
//!   twice as long each time that this was soon found not to be so. When the
//!   one in use has become slower by as much as makes a difference, another is
//!   tried that would not be worse by that, once.
//! * **Handover**: two subflows; the older carries data, the other is for
//!   backup. When the older one goes, or data waits on it for longer than a
//!   retransmission timeout, the other takes over, stays, and gets a spare.
//! * **Overflow**: one subflow; when data has waited for its turn on it for
//!   [`FULL`], a second is made. That is for backup again once nothing has
//!   waited for [`SPARE`].
//!
//! What is set by hand and what the list says is for backup comes before all
//! this, unless nothing else is up.

use super::SUBFLOWS_MAX;
use super::connection::{Connection, Subflow};
use super::event::Time;
use super::few::Few;
use super::host::Host;
use super::judge::{Facts, Look};
use super::settings::Profile;
use std::net::SocketAddr;

/// A subflow by the kernel's names.
type Pair = (SocketAddr, SocketAddr);

/// By so much another path must be quicker at least.
pub const MARGIN: Time = Time::from_millis(5);
/// For so long it must be.
pub const CONFIRMED: Time = Time::from_millis(200);
/// So long a path is kept once it was chosen.
pub const HOLD: Time = Time::from_secs(1);
/// Paths that are doubted.
const DOUBTS: usize = 16;
/// So long after its last use a path's delay is thought to be its lowest.
pub const FORGOTTEN: Time = Time::from_secs(30);
const FORGOTTEN_LAST: Time = Time::from_secs(240);
/// So long data may wait for its turn on a path that isn't full.
const WAITING: Time = Time::from_millis(10);
/// A path is full when data has waited for so long.
pub const FULL: Time = Time::from_millis(250);
/// It is not any more when nothing has waited for so long.
pub const SPARE: Time = Time::from_secs(1);

/// What a profile has chosen for a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// What carries data.
    active: Option<Pair>,
    /// Since when.
    since: Time,
    /// What didn't last, and how long it takes to forget that.
    doubts: Few<(Pair, Time)>,
    /// What would be better, and since when.
    better: Option<(Pair, Time)>,
    /// Delays, by the last look.
    delays: Few<(Pair, Time)>,
    /// The lowest delay of what carries data, since it has for [`HOLD`].
    calm: Option<Time>,
    /// Overflow: the second path is in use.
    second: bool,
    /// Overflow: since when data waits, or nothing does.
    turned: Option<Time>,
}

impl Choice {
    /// How many subflows are to be made.
    pub fn most(&self, profile: Profile) -> usize {
        match profile {
            Profile::Overflow if !self.second => 1,
            profile => self.kept(profile),
        }
    }

    /// How many may stay.
    pub fn kept(&self, profile: Profile) -> usize {
        match profile {
            Profile::Aggregate | Profile::Interactive => SUBFLOWS_MAX,
            Profile::Handover | Profile::Overflow => 2,
        }
    }

    /// Whether a subflow is for backup; a new one, where it is `None`.
    fn backup(&self, profile: Profile, pair: Option<Pair>) -> bool {
        match profile {
            Profile::Aggregate => false,
            Profile::Overflow if self.second => false,
            _ => self.active.is_some() && self.active != pair,
        }
    }

    fn delay(&self, pair: &Pair) -> Time {
        self.delays.iter().find(|(known, _)| known == pair).map_or(Time::MAX, |(_, delay)| *delay)
    }

    /// So long what was measured of a path counts.
    fn memory(&self, pair: &Pair) -> Time {
        self.doubts.iter().find(|(known, _)| known == pair).map_or(FORGOTTEN, |(_, memory)| *memory)
    }

    /// Another is to carry data from now on.
    fn turn_to(&mut self, pair: Pair, now: Time) {
        if let Some(active) = self.active {
            let at = self.doubts.iter().position(|(known, _)| *known == active);
            let known = at.and_then(|at| self.doubts.take_at(at)).map(|(_, memory)| memory);
            let memory = known.map_or(FORGOTTEN, |memory| memory.saturating_mul(2).min(FORGOTTEN_LAST));
            if now.saturating_sub(self.since) < memory {
                if self.doubts.len() >= DOUBTS {
                    self.doubts.take_at(0);
                }
                self.doubts.push((active, memory));
            }
        }
        self.take(pair, now);
    }

    fn take(&mut self, pair: Pair, now: Time) {
        (self.active, self.since, self.better, self.calm) = (Some(pair), now, None, None);
    }
}

/// Whether a delay is clearly above another.
fn exceeds(delay: Time, other: Time) -> bool {
    delay > other.saturating_add(MARGIN.max(other / 4))
}

impl Facts {
    /// How long data takes on this path, as far as that is known: what was
    /// measured counts the less the longer ago that is.
    fn delay(&self, memory: Time) -> Time {
        let lowest = if self.rtt_min.is_zero() { self.rtt } else { self.rtt_min.min(self.rtt) };
        let micros = |time: Time| time.as_micros().min(u64::MAX.into()) as u64;
        let (age, memory) = (micros(self.since_sent.min(memory)), micros(memory).max(1));
        let excess = u128::from(micros(self.rtt - lowest)) * u128::from(memory - age) / u128::from(memory);
        lowest.saturating_add(Time::from_micros(excess as u64)).max(self.silence())
    }

    /// Data waits on it for longer than a timeout.
    fn is_stalled(&self) -> bool {
        self.unacked > 0 && self.backoff > 0 && self.silence() > self.base().saturating_add(self.rtt)
    }

    /// Data waits for its turn, and will for longer than [`WAITING`] at the
    /// pace of what is out. That some waits, or that the window is used up,
    /// means nothing: TCP keeps small segments and paces others.
    fn is_full(&self) -> bool {
        let out = self.bytes_sent.saturating_sub(self.bytes_retrans).saturating_sub(self.bytes_acked);
        let due = self.rtt.as_micros().saturating_mul(self.notsent.into());
        self.unacked > 0 && due > WAITING.as_micros().saturating_mul(out.into())
    }
}

impl Connection {
    /// Whether subflows from a local address are to be for backup; `s` is the
    /// one, where it is there already. `None` where nobody said.
    pub(super) fn wish(&self, host: &Host, local: &SocketAddr, s: Option<&Subflow>) -> Option<bool> {
        if let Some(pinned) = s.and_then(|s| self.pinned(s)) {
            return Some(pinned);
        }
        // What a list said of it ends with its entry.
        let unlisted = || s.filter(|s| s.listed).map(|_| false);
        let listed = self.backup(host, local).or_else(unlisted);
        let Some(steering) = self.steering.as_ref().filter(|_| self.unclaimed.is_none()) else {
            return listed;
        };
        let pair = s.map(|s| (s.local, s.remote));
        if pair.is_some() && steering.choice.active == pair {
            return Some(false);
        }
        Some(listed.unwrap_or(false) || steering.choice.backup(steering.settings.profile, pair))
    }

    /// Those that may carry data, in order of creation: what is for backup by
    /// other reasons only if there is nothing else.
    fn candidates(&self, host: &Host) -> Vec<Pair> {
        let able = |s: &&Subflow| s.up() && self.stays(host, s);
        let behind =
            |s: &Subflow| self.pinned(s).unwrap_or_else(|| self.backup(host, &s.local).unwrap_or(false));
        let pair = |s: &Subflow| (s.local, s.remote);
        let first: Vec<Pair> = self.subflows.iter().filter(able).filter(|s| !behind(s)).map(pair).collect();
        if first.is_empty() { self.subflows.iter().filter(able).map(pair).collect() } else { first }
    }

    /// Chooses anew where the choice is gone.
    pub(super) fn choose(&mut self, host: &Host, now: Time) {
        let Some(profile) = self.steering.as_ref().map(|steering| steering.settings.profile) else { return };
        let candidates = if profile == Profile::Aggregate { Vec::new() } else { self.candidates(host) };
        let Some(steering) = &mut self.steering else { return };
        let choice = &mut steering.choice;
        if choice.active.is_some_and(|active| candidates.contains(&active)) {
            return;
        }
        let best = match profile {
            Profile::Interactive => candidates.iter().min_by_key(|pair| choice.delay(pair)),
            _ => candidates.first(),
        };
        match best {
            Some(pair) => choice.take(*pair, now),
            None => choice.active = None,
        }
    }

    /// Takes a round of looks in; whether anything follows from it.
    pub(super) fn compare(
        &mut self,
        host: &Host,
        looks: &[(SocketAddr, SocketAddr, Look)],
        now: Time,
    ) -> bool {
        let Some(profile) = self.steering.as_ref().map(|steering| steering.settings.profile) else {
            return false;
        };
        if profile == Profile::Aggregate {
            return false;
        }
        let candidates = self.candidates(host);
        let Some(steering) = &mut self.steering else { return false };
        let choice = &mut steering.choice;
        let facts = |pair: &Pair| {
            looks.iter().find(|(local, remote, _)| (*local, *remote) == *pair).map(|(_, _, look)| look.facts)
        };
        let Some(active) = choice.active else { return false };
        let Some(now_of) = facts(&active) else { return false };
        let others = candidates.iter().filter(|pair| **pair != active);
        match profile {
            Profile::Aggregate => false,
            Profile::Interactive => {
                let delay = |(local, remote, look): &(SocketAddr, SocketAddr, Look)| {
                    let pair = (*local, *remote);
                    (pair, look.facts.delay(choice.memory(&pair)))
                };
                choice.delays = looks.iter().map(delay).collect::<Vec<_>>().into();
                let stalled = now_of.is_stalled();
                let best = others.map(|pair| (*pair, choice.delay(pair))).min_by_key(|(_, delay)| *delay);
                let current = choice.delay(&active);
                let settled = now.saturating_sub(choice.since) >= HOLD;
                let calm = choice.calm.map_or(current, |calm| calm.min(current));
                choice.calm = settled.then_some(calm);
                let better = |delay: Time| {
                    exceeds(current, delay) || (exceeds(current, calm) && !exceeds(delay, current))
                };
                let Some((pair, _)) = best.filter(|(_, delay)| better(*delay)) else {
                    choice.better = None;
                    return false;
                };
                // Which of several others is the best may change.
                let since = *choice.better.map(|(_, since)| since).get_or_insert(now);
                choice.better = Some((pair, since));
                let turns = (settled || stalled) && now.saturating_sub(since) >= CONFIRMED;
                if turns {
                    choice.turn_to(pair, now);
                }
                turns
            }
            Profile::Handover => {
                let fine = |pair: &&Pair| facts(pair).is_some_and(|facts| !facts.is_stalled());
                let spare = others.copied().find(|pair| fine(&pair)).filter(|_| now_of.is_stalled());
                if let Some(spare) = spare {
                    choice.turn_to(spare, now);
                }
                spare.is_some()
            }
            Profile::Overflow => {
                let turns = now_of.is_full() != choice.second;
                let since = choice.turned.filter(|_| turns).or(turns.then_some(now));
                choice.turned = since;
                let patience = if choice.second { SPARE } else { FULL };
                let done = since.is_some_and(|since| now.saturating_sub(since) >= patience);
                if done {
                    (choice.second, choice.turned) = (!choice.second, None);
                }
                done
            }
        }
    }
}
