// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an application asks of a connection's subflows besides its list: how
//! many there may be, when they are made, which are opened, closed and put
//! behind by hand.

use super::act::Outstanding;
use super::connection::{Connection, Phase, Ready, State, Subflow};
use super::event::{Handle, Incident, Notice, Outcome, RequestId, Time};
use super::few::Few;
use super::host::Host;
use super::note::{not_made, same_pair};
use super::profile::Choice;
use super::settings::{Demand, Mode, Setting, Settings};
use super::{Engine, SUBFLOWS_MAX, unspecified};
use crate::addr;
use crate::error::{Error, Result};
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;

/// What was asked for, and how far it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steering {
    pub settings: Settings,
    /// [`Settings::fate_sharing`] where the application says nothing.
    pub fate_default: bool,
    /// When the connection began, or was first seen.
    pub began: Time,
    /// Bytes that it has carried, as far as they were looked at.
    pub moved: u64,
    /// It has shown that further subflows are worth it.
    pub demanded: bool,
    /// Priorities that were set by hand, by the kernel's names.
    pub pinned: Few<(SocketAddr, SocketAddr, bool)>,
    /// Pairs that were closed by hand, any port of this end.
    pub barred: Few<(SocketAddr, SocketAddr)>,
    /// Subflows to be opened by hand.
    pub opens: Few<Open>,
    /// Subflows that were closed by hand, 0, or given up, the errno, until the
    /// kernel tells of their end.
    pub parting: Few<(SocketAddr, SocketAddr, i32)>,
    /// What the profile has chosen.
    pub choice: Choice,
    /// Its initial subflow has gone, whose fate it shares.
    pub doomed: bool,
}

/// A subflow that was asked for by hand.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Open {
    /// Who waits for its end.
    pub request: Option<RequestId>,
    /// `None`: any of the list.
    pub local: Option<SocketAddr>,
    pub remote: SocketAddr,
    pub backup: bool,
    /// When nobody waits any more.
    pub deadline: Option<Time>,
    /// The command, 0 where it wasn't given.
    pub tag: u64,
    /// Where that starts from: `local`, or the one of the list that was chosen.
    pub source: Option<SocketAddr>,
    /// It was given so often.
    pub tries: u8,
    /// Why it failed.
    pub error: i32,
}

impl Open {
    /// As it is written down.
    pub fn written(&self) -> (SocketAddr, SocketAddr, bool) {
        (self.local.unwrap_or(unspecified(&self.remote)), self.remote, self.backup)
    }

    /// The other way round.
    pub fn of((local, remote, backup): &(SocketAddr, SocketAddr, bool)) -> Self {
        Self {
            request: None,
            local: Some(*local).filter(|local| !addr::is_wildcard(local)),
            remote: *remote,
            backup: *backup,
            deadline: None,
            tag: 0,
            source: None,
            tries: 0,
            error: 0,
        }
    }
}

/// So often a join is asked for in another way.
const TRIES: u8 = 6;
/// Pairs remembered as closed by hand.
const BARRED_MAX: usize = 64;
/// Subflows of whose end the kernel is to tell yet.
const PARTING_MAX: usize = 16;

impl Steering {
    /// What must survive a restart.
    pub fn lasting(&self, hasher: &mut impl Hasher) {
        (self.settings, self.fate_default, self.demanded, self.doomed).hash(hasher);
        (&self.pinned, &self.barred).hash(hasher);
        self.queued().for_each(|open| (open.local, open.remote, open.backup).hash(hasher));
    }

    /// What was accepted and not carried out.
    pub fn queued(&self) -> impl Iterator<Item = &Open> {
        self.opens.iter().filter(|open| open.tag == 0 && open.request.is_none())
    }

    /// Nothing is asked for.
    fn is_idle(&self) -> bool {
        let by_hand = self.pinned.len() + self.barred.len() + self.opens.len() + self.parting.len();
        self.settings == Settings::default() && !self.fate_default && !self.doomed && by_hand == 0
    }

    /// What a listener's connections get of it.
    pub fn inherited(&self) -> Self {
        Self { settings: self.settings, fate_default: self.fate_default, ..Self::default() }
    }
}

impl Connection {
    /// What the application has set, the defaults where it hasn't.
    pub fn settings(&self) -> Settings {
        self.steering.as_ref().map_or_else(Settings::default, |steering| steering.settings)
    }

    /// The same where the application says nothing.
    pub fn fate_default(&self) -> bool {
        self.steering.as_ref().is_some_and(|steering| steering.fate_default)
    }

    /// Whether the connection ends with its initial subflow.
    pub fn shares_fate(&self) -> bool {
        self.steering.as_ref().is_some_and(|s| s.settings.fate_sharing.unwrap_or(s.fate_default))
    }

    /// Whether it is to end, as its initial subflow has.
    pub(super) fn is_doomed(&self) -> bool {
        self.steering.as_ref().is_some_and(|steering| steering.doomed)
    }

    /// What was asked for, to be added to.
    pub(super) fn steering(&mut self) -> &mut Steering {
        self.steering.get_or_insert_default()
    }

    /// Drops what says nothing, or of what is gone.
    pub(super) fn tidy(&mut self) {
        if let Some(steering) = self.steering.as_mut().filter(|_| self.phase == Phase::Open && !self.blind) {
            let subflows = &self.subflows;
            let there = |pin: &(SocketAddr, SocketAddr, bool)| {
                subflows.iter().any(|s| s.local == pin.0 && s.remote == pin.1)
            };
            steering.pinned.retain(there);
        }
        if self.steering.as_ref().is_some_and(|steering| steering.is_idle()) {
            self.steering = None;
        }
    }

    /// Subflows at most, by the application's word.
    fn limit(&self) -> usize {
        match self.settings().max_subflows {
            0 => SUBFLOWS_MAX,
            max => max.into(),
        }
    }

    /// Whether a subflow is there, or coming, to stay.
    pub(super) fn stays(&self, host: &Host, s: &Subflow) -> bool {
        let fits = self.allows(&s.local) && host.usable(&s.from());
        !s.closing && !s.surplus && !self.leaving(&s.local) && (fits || (s.initial && self.shares_fate()))
    }

    fn staying(&self, host: &Host) -> usize {
        self.subflows.iter().filter(|s| self.stays(host, s)).count()
    }

    /// Whether further subflows are made by themselves now.
    pub(super) fn has_demand(&self) -> bool {
        match &self.steering {
            None => true,
            Some(steering) => match steering.settings.demand() {
                Demand::Always => true,
                Demand::Never => false,
                Demand::After { .. } => steering.demanded,
            },
        }
    }

    /// Whether bytes are to be looked at until there is a demand.
    pub(super) fn counts_bytes(&self) -> bool {
        let by_volume = |steering: &Steering| {
            !steering.demanded && matches!(steering.settings.demand(), Demand::After { bytes: Some(_), .. })
        };
        self.steering.as_ref().is_some_and(|steering| by_volume(steering))
    }

    /// How many more subflows may be made without being asked for one by one.
    pub(super) fn room(&self, host: &Host) -> usize {
        let Some(steering) = &self.steering else { return SUBFLOWS_MAX.saturating_sub(self.staying(host)) };
        let most = if steering.doomed {
            0
        } else if self.has_demand() {
            self.limit().min(steering.choice.most(steering.settings.profile))
        } else if steering.settings.policy.mode == Mode::Manual {
            0
        } else {
            // There is no use in waiting for demand without any.
            1
        };
        most.saturating_sub(self.staying(host))
    }

    /// Whether a pair was closed by hand.
    pub(super) fn is_barred(&self, local: &SocketAddr, remote: &SocketAddr) -> bool {
        let bars =
            |(from, to): &(SocketAddr, SocketAddr)| addr::same_ip(from, local) && addr::same(to, remote);
        self.steering.as_ref().is_some_and(|steering| steering.barred.iter().any(bars))
    }

    /// Notes the end of a subflow that the application wanted, or waited for in
    /// vain: why, and what its name is.
    fn part(&mut self, s: &Subflow, errno: i32) {
        self.unpart(&s.local, &s.remote);
        let parting = &mut self.steering().parting;
        if parting.len() >= PARTING_MAX {
            parting.take_at(0);
        }
        parting.push((s.local, s.remote, errno));
    }

    /// That is told, or another has its name.
    pub(super) fn unpart(&mut self, local: &SocketAddr, remote: &SocketAddr) {
        if let Some(steering) = &mut self.steering {
            steering.parting.retain(|(from, to, _)| !is_named((from, to), (local, remote)));
        }
    }

    /// Where a subflow led whose end was wanted by the application or waited
    /// for, 0 or the errno, as the kernel tells of it now.
    pub fn parted(&self, local: &SocketAddr, remote: &SocketAddr) -> Option<(SocketAddr, i32)> {
        let parting = &self.steering.as_ref()?.parting;
        let known = parting.iter().find(|(from, to, _)| is_named((from, to), (local, remote)))?;
        Some((addr::canonical(known.1), known.2))
    }

    /// The priority of a subflow that was set by hand.
    pub(super) fn pinned(&self, s: &Subflow) -> Option<bool> {
        let pins = self.steering.as_ref()?.pinned.iter();
        pins.filter(|(local, remote, _)| *local == s.local && *remote == s.remote).map(|pin| pin.2).next()
    }

    /// The subflow that a command by hand asked for.
    pub(super) fn opened(&self, tag: u64) -> Option<&Open> {
        self.steering.as_ref()?.opens.iter().find(|open| open.tag == tag)
    }

    /// When there is something of all this to do.
    pub(super) fn steering_due(&self) -> Option<Time> {
        let steering = self.steering.as_ref()?;
        let demand = match steering.settings.demand() {
            Demand::After { time: Some(time), .. } if !steering.demanded && self.phase == Phase::Open => {
                Some(steering.began.saturating_add(time))
            }
            _ => None,
        };
        demand.into_iter().chain(steering.opens.iter().filter_map(|open| open.deadline)).min()
    }

    /// Notes that so much was carried.
    pub(super) fn note_moved(&mut self, bytes: u64) {
        if let Some(steering) = &mut self.steering {
            steering.moved = steering.moved.max(bytes);
        }
    }

    /// A subflow is gone, and what was said of it.
    pub(super) fn unpin(&mut self, local: &SocketAddr, remote: &SocketAddr) {
        if let Some(steering) = &mut self.steering {
            steering.pinned.retain(|(from, to, _)| from != local || to != remote);
        }
    }

    /// A local address is asked for again, whatever was closed of it before.
    pub(super) fn unbar(&mut self, local: &SocketAddr) {
        if let Some(steering) = &mut self.steering {
            steering.barred.retain(|(from, _)| !addr::same_ip(from, local));
        }
    }

    /// Where a subflow by hand may start from, the least used first.
    fn start_of(&self, host: &Host, remote: &SocketAddr) -> Option<SocketAddr> {
        let mut sources = self.sources();
        sources.extend(self.device.iter().flat_map(|device| device.addrs.iter().copied()));
        if !self.restricted() {
            sources.extend(self.initial.map(|(local, _)| addr::with_port(local, 0)));
        }
        sources.retain(|source| addr::pair(source, remote) && self.allows(source) && host.usable(source));
        let backup = |source: &SocketAddr| self.entry(source).is_some_and(|entry| entry.backup);
        let uses = |source: &SocketAddr| {
            self.subflows.iter().filter(|s| !s.closing && addr::covers(source, &s.from())).count()
        };
        sources.into_iter().min_by_key(|source| (uses(source), backup(source)))
    }

    /// Checks what is to be opened by hand.
    fn check_open(&self, host: &Host, open: &Open) -> Result<()> {
        if self.phase != Phase::Open || self.ready == Ready::Over || self.is_doomed() {
            return Err(not_connected());
        }
        if let Some(local) = open.local {
            if !addr::pair(&local, &open.remote) {
                let words = format!("{} and {} are of unlike families", local.ip(), open.remote.ip());
                return Err(Error::new(libc::EAFNOSUPPORT, words));
            }
            if !self.allows(&local) {
                return Err(not_listed(open.local, &open.remote));
            }
        } else if self.start_of(host, &open.remote).is_none() {
            return Err(not_listed(None, &open.remote));
        }
        let queued =
            self.steering.as_ref().map_or(0, |s| s.opens.iter().filter(|open| open.tag == 0).count());
        if self.staying(host) + queued >= self.limit() {
            let words = format!("the connection has {} subflows, as many as it may", self.limit());
            return Err(Error::new(libc::ENOSPC, words));
        }
        Ok(())
    }
}

impl Engine {
    /// One of the settings changes.
    pub(super) fn set(&mut self, handle: Handle, setting: Setting, now: Time) -> Result<()> {
        let Some(c) = self.connections.get_mut(&handle) else { return Ok(()) };
        if setting == Setting::FateSharing(true) && c.phase == Phase::Open && !c.blind && !c.has_initial() {
            let words = "the initial subflow is gone already: there is no fate to share";
            return Err(Error::new(libc::ENOENT, words));
        }
        let fresh = c.steering.is_none();
        let steering = c.steering();
        if fresh {
            steering.began = now;
        }
        steering.settings = steering.settings.with(setting);
        match setting {
            Setting::Policy(_) | Setting::Traffic(_) => steering.demanded = false,
            Setting::Profile(_) => steering.choice = Choice::default(),
            _ => {}
        }
        Ok(())
    }

    /// A subflow is to be opened by hand.
    pub(super) fn open_by_hand(
        &mut self,
        handle: Handle,
        (local, remote): (Option<SocketAddr>, Option<SocketAddr>),
        backup: bool,
        request: Option<RequestId>,
        deadline: Option<Time>,
    ) -> Result<()> {
        let Some(c) = self.connections.get_mut(&handle) else { return Ok(()) };
        let Some((_, initial)) = c.initial else { return Err(not_connected()) };
        let mut remote = remote.unwrap_or(initial);
        if remote.port() == 0 {
            remote = addr::with_port(remote, initial.port());
        }
        let local = local.filter(|local| !addr::is_wildcard(local));
        let open = Open { request, local, deadline, ..Open::of(&(remote, remote, backup)) };
        c.check_open(&self.host, &open)?;
        if let Some(local) = open.local {
            let steering = c.steering();
            steering
                .barred
                .retain(|(from, to)| !(addr::same_ip(from, &local) && addr::same(to, &open.remote)));
        }
        c.steering().opens.push(open);
        Ok(())
    }

    /// A subflow is to be closed by hand.
    pub(super) fn close_by_hand(
        &mut self,
        handle: Handle,
        local: &SocketAddr,
        remote: &SocketAddr,
    ) -> Result<()> {
        let Some(c) = self.connections.get_mut(&handle) else { return Ok(()) };
        let subflow = c.named(local, remote).copied().ok_or_else(|| no_such(local, remote))?;
        let pair = (addr::with_port(subflow.from(), 0), subflow.to());
        let barred = &mut c.steering().barred;
        barred.retain(|known| *known != pair);
        if barred.len() >= BARRED_MAX {
            barred.take_at(0);
        }
        barred.push(pair);
        c.missed.retain(|known| *known != pair);
        c.part(&subflow, 0);
        self.destroy(handle, &[subflow]);
        Ok(())
    }

    /// A subflow's priority is set by hand.
    pub(super) fn pin(
        &mut self,
        handle: Handle,
        local: &SocketAddr,
        remote: &SocketAddr,
        backup: bool,
    ) -> Result<()> {
        let Some(c) = self.connections.get_mut(&handle) else { return Ok(()) };
        let subflow = c.named(local, remote).copied().ok_or_else(|| no_such(local, remote))?;
        c.unpin(&subflow.local, &subflow.remote);
        c.steering().pinned.push((subflow.local, subflow.remote, backup));
        Ok(())
    }

    /// Ends with the initial subflow what shares its fate. That is the peer's or
    /// the network's doing, or the application's: we close none of these by
    /// ourselves.
    pub(super) fn share_fate(&mut self, handle: Handle) {
        let Some(c) = self.open(handle).filter(|c| c.shares_fate() && !c.is_unclaimed()) else { return };
        let ends = c.is_doomed() || !c.has_initial();
        let all: Vec<Subflow> =
            c.subflows.iter().filter(|s| ends && !s.closing && !s.state.asked()).copied().collect();
        if ends {
            if let Some(c) = self.connections.get_mut(&handle) {
                c.steering().doomed = true;
            }
            self.fail_opens(handle, &not_connected());
            self.destroy(handle, &all);
        }
    }

    /// Sees whether time or volume has made a demand.
    pub(super) fn weigh(&mut self, handle: Handle, now: Time) {
        let Some(c) = self.connections.get_mut(&handle).filter(|c| c.phase == Phase::Open) else { return };
        let Some(steering) = &mut c.steering else { return };
        if let Demand::After { bytes, time } = steering.settings.demand() {
            let lasted = now.saturating_sub(steering.began);
            steering.demanded |=
                bytes.is_some_and(|bytes| steering.moved >= bytes) || time.is_some_and(|time| lasted >= time);
        }
    }

    /// Closes the least useful of too many subflows, never the last.
    pub(super) fn trim(&mut self, handle: Handle) {
        let Some(c) = self.open(handle).filter(|c| c.unclaimed.is_none()) else { return };
        let Some(steering) = &c.steering else { return };
        let host = &self.host;
        let mut staying: Vec<Subflow> = c.subflows.iter().filter(|s| c.stays(host, s)).copied().collect();
        // A name is one subflow's: what is closed by it is the one that is up.
        let up_too = |s: &Subflow| {
            c.subflows.iter().any(|other| other.up() && other.local == s.local && other.remote == s.remote)
        };
        staying.retain(|s| s.up() || !up_too(s));
        let mut up = staying.iter().filter(|s| s.up()).count();
        let total = staying.len();
        // The peer's own are not for a profile to close.
        let by_profile =
            if c.server { SUBFLOWS_MAX } else { steering.choice.kept(steering.settings.profile) };
        let most = c.limit().min(by_profile);
        // Most useful last: carries data, is no backup, is quick, is old.
        staying.reverse();
        staying.sort_by_key(|s| (s.up(), !s.backup, std::cmp::Reverse(s.path.worst())));
        let mut closing = Vec::new();
        for s in staying {
            let over = total - closing.len();
            let surplus = over > c.limit() || (over > most && !s.hand);
            // One that is only asked for has no name to be closed by.
            if !surplus || s.state == State::Asked || s.local.port() == 0 || (s.up() && up <= 1) {
                continue;
            }
            up -= usize::from(s.up());
            closing.push(s);
        }
        self.destroy(handle, &closing);
    }

    /// Opens by hand what was asked for, and tells what became of it.
    pub(super) fn open_asked(&mut self, handle: Handle, now: Time) {
        let Some(c) = self.connections.get_mut(&handle).map(Box::as_mut) else { return };
        let Some(steering) = c.steering.as_mut().filter(|steering| !steering.opens.is_empty()) else {
            return;
        };
        let mut waiting = Vec::new();
        let mut ended = Vec::new();
        for mut open in steering.opens.take() {
            let subflow = c.subflows.iter().find(|s| open.tag != 0 && s.tag == open.tag);
            let failed = |errno| if open.error == 0 { errno } else { open.error };
            let end = match subflow.map(|s| (s.state, s.closing)) {
                Some((State::Up(_), false)) => Some(0),
                Some((_, true)) => Some(failed(libc::ECONNABORTED)),
                Some(_) => None,
                None if open.tag == 0 && open.error == 0 => None,
                None if self.outstanding.contains_key(&open.tag) => None,
                None => Some(failed(libc::ECONNREFUSED)),
            };
            let late = open.deadline.is_some_and(|deadline| deadline <= now);
            match end {
                Some(errno) => {
                    open.error = errno;
                    ended.push(open);
                }
                None if late => {
                    open.error = libc::ETIMEDOUT;
                    ended.push(open);
                }
                None => waiting.push(open),
            }
        }
        steering.opens = waiting.into();
        let mut late = Vec::new();
        for open in ended {
            let subflow = c.subflows.iter().find(|s| open.tag != 0 && s.tag == open.tag).copied();
            match subflow {
                Some(s) if open.error == 0 && open.backup => {
                    c.unpin(&s.local, &s.remote);
                    c.steering().pinned.push((s.local, s.remote, true));
                }
                // Who was told that there is none must not find one later; but another
                // of this name lives.
                Some(s) if open.error != 0 && !s.closing => {
                    let other = |o: &Subflow| o.tag != s.tag && o.local == s.local && o.remote == s.remote;
                    if !c.subflows.iter().any(other) {
                        c.part(&s, open.error);
                        late.push(s);
                    }
                }
                _ => {}
            }
            if let Some(id) = open.request {
                let result = match open.error {
                    0 => Ok(()),
                    errno @ libc::ETIMEDOUT if open.tag == 0 => {
                        let words = format!("a subflow to {} could not be asked for in time", open.remote);
                        Err(Error::new(errno, words))
                    }
                    errno => Err(not_made(errno, open.source.or(open.local), &open.remote)),
                };
                self.notices.push_back(Notice::Answer { id, result });
            }
        }
        self.destroy(handle, &late);
        self.join_asked(handle, now);
    }

    /// Sends the joins that were asked for and can be made now.
    fn join_asked(&mut self, handle: Handle, now: Time) {
        let Some(c) = self.connections.get_mut(&handle) else { return };
        let (ready, token) = (c.ready, c.token);
        let able = c.phase == Phase::Open && !c.foreign && !c.blind && ready != Ready::No;
        let Some(steering) = c.steering.as_mut().filter(|_| able) else { return };
        let due: Vec<Open> = steering.opens.iter().filter(|open| open.tag == 0).cloned().collect();
        steering.opens.retain(|open| open.tag != 0);
        for mut open in due {
            let Some(c) = self.connections.get_mut(&handle) else { return };
            let local = open.local.or_else(|| c.start_of(&self.host, &open.remote));
            if local.is_some_and(|local| c.is_joining(&local, &open.remote)) {
                c.steering().opens.push(open);
                continue;
            }
            let errno = match local {
                _ if ready == Ready::Over => libc::ENOTCONN,
                None => libc::EADDRNOTAVAIL,
                Some(local) if !c.allows(&local) || !addr::pair(&local, &open.remote) => libc::EADDRNOTAVAIL,
                Some(_) if open.tries > TRIES => libc::EADDRINUSE,
                Some(local) => {
                    let tag = self.join(handle, local, open.remote, Some(open.backup), now);
                    match tag {
                        Some(tag) => {
                            (open.tag, open.source, open.tries) = (tag, Some(local), open.tries + 1);
                            if let Some(c) = self.connections.get_mut(&handle) {
                                c.steering().opens.push(open);
                            }
                            continue;
                        }
                        None => libc::ENOSPC,
                    }
                }
            };
            match (open.request, token) {
                (Some(id), _) => {
                    let result = Err(match errno {
                        libc::ENOTCONN => not_connected(),
                        libc::ENOSPC => Error::new(errno, "the connection has no address id left"),
                        libc::EADDRNOTAVAIL => not_listed(open.local, &open.remote),
                        _ => not_made(errno, local, &open.remote),
                    });
                    self.notices.push_back(Notice::Answer { id, result });
                }
                (None, Some(token)) => {
                    let local = local.unwrap_or(unspecified(&open.remote));
                    let refused = Incident::Refused { token, local, remote: open.remote, errno };
                    self.incidents.iter_mut().for_each(|incidents| incidents.push_back(refused));
                }
                _ => {}
            }
        }
    }

    /// Takes in what became of a join that was asked for by hand.
    pub(super) fn join_done(&mut self, tag: u64, known: &Outstanding, outcome: Outcome) {
        let Some(c) = self.connections.get_mut(&known.handle) else { return };
        let Some(steering) = &mut c.steering else { return };
        let Some(open) = steering.opens.iter_mut().find(|open| open.tag == tag) else { return };
        match outcome {
            Outcome::Taken | Outcome::Gone | Outcome::NotOurs => {}
            Outcome::NotReady | Outcome::Mismatch => open.tag = 0,
            Outcome::Refused(_) if known.lacks_port(outcome) => open.tag = 0,
            Outcome::Refused(errno) => open.error = errno,
        }
    }

    /// Everybody who waits for a subflow by hand hears this.
    pub(super) fn fail_opens(&mut self, handle: Handle, error: &Error) {
        let opens = self.connections.get_mut(&handle).and_then(|c| c.steering.as_mut());
        for open in opens.map_or(Vec::new(), |steering| steering.opens.take()) {
            if let Some(id) = open.request {
                self.notices.push_back(Notice::Answer { id, result: Err(error.clone()) });
            }
        }
    }
}

impl Connection {
    /// The subflow that is up between these two, ports included.
    fn named(&self, local: &SocketAddr, remote: &SocketAddr) -> Option<&Subflow> {
        let up = |s: &&Subflow| s.up() && s.from().port() == local.port() && same_pair(s, local, remote);
        self.subflows.iter().find(up)
    }

    /// Whether a join between these two is under way that has no name of its
    /// own yet: another could not be told from it. An unspecified `local` is
    /// any.
    pub(super) fn is_joining(&self, local: &SocketAddr, remote: &SocketAddr) -> bool {
        let unnamed = |s: &&Subflow| s.state.asked() || s.local.port() == 0;
        let from = |s: &Subflow| addr::is_wildcard(local) || addr::same_ip(&s.from(), local);
        let same = |s: &Subflow| from(s) && addr::same(&s.to(), remote);
        self.subflows.iter().filter(unnamed).any(same)
    }

    /// Whether the initial subflow lives.
    pub(super) fn has_initial(&self) -> bool {
        self.subflows.iter().any(|s| s.initial && !s.closing)
    }

    /// The errno with which a join failed, for whoever asked for it.
    pub(super) fn note_error(&mut self, tag: u64, errno: i32) {
        let opens = self.steering.iter_mut().flat_map(|steering| steering.opens.iter_mut());
        opens.filter(|open| tag != 0 && open.tag == tag).for_each(|open| open.error = errno);
    }
}

/// Whether this is the name of a known subflow, whose own port may not be known.
/// The kernel forgets to which port a join led that is closed before it is
/// answered.
fn is_named(known: (&SocketAddr, &SocketAddr), (local, remote): (&SocketAddr, &SocketAddr)) -> bool {
    let (from, to) = (addr::canonical(*known.0), addr::canonical(*known.1));
    addr::covers(&from, &addr::canonical(*local)) && addr::covers(&addr::canonical(*remote), &to)
}

/// An address that the list doesn't have, or none of it that will do.
fn not_listed(local: Option<SocketAddr>, remote: &SocketAddr) -> Error {
    let words = match local {
        Some(local) => format!("{} is not in the list", local.ip()),
        None => format!("no address of the list can be used to reach {remote}"),
    };
    Error::new(libc::EADDRNOTAVAIL, words)
}

fn not_connected() -> Error {
    Error::new(
        libc::ENOTCONN,
        "no subflow can be made: there is no connection, or a direction of it is closed",
    )
}

fn no_such(local: &SocketAddr, remote: &SocketAddr) -> Error {
    Error::new(libc::ENOENT, format!("the connection has no subflow {local} - {remote} (any more)"))
}
