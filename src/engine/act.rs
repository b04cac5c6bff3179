// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is compared with what should be; the difference becomes commands, and
//! their outcomes are taken in.

use super::connection::{Addition, Connection, Phase, Ready, Removal, State, Subflow, Wanted};
use super::event::{Action, Command, Handle, Incident, Notice, Outcome, RequestId, Time};
use super::judge::Path;
use super::note::{announced_or_not, created_or_not, fail, note, port_is_denied, refused, undo, why};
use super::{Engine, unspecified};
use crate::addr;
use crate::error::Error;
use std::net::SocketAddr;

#[derive(Clone, Copy, Debug)]
pub(super) struct Outstanding {
    pub handle: Handle,
    pub action: Action,
    /// The address that it is for, where an ADD of that address waits for it.
    pub source: Option<SocketAddr>,
    /// The connection was known to be fully established.
    pub ready: bool,
}

impl Outstanding {
    /// Whether the port of a join was our choice, and can't be had: any other
    /// will do.
    pub fn lacks_port(&self, outcome: Outcome) -> bool {
        matches!(self.action, Action::Create { local, .. }
            if self.source.is_some_and(|source| port_is_denied(&source, &local, outcome)))
    }
}

impl Engine {
    pub(super) fn emit(&mut self, handle: Handle, action: Action, source: Option<SocketAddr>) -> Option<u64> {
        let c = self.connections.get_mut(&handle)?;
        let token = c.token?;
        self.tags += 1;
        let tag = self.tags;
        let waits = |a: &&mut Addition| source.is_some_and(|source| a.added.contains(&source));
        c.additions.iter_mut().filter(waits).for_each(|addition| addition.commands.push(tag));
        let ready = c.ready == Ready::Yes;
        self.outstanding.insert(tag, Outstanding { handle, action, source, ready });
        self.commands.push_back(Command { tag, token, key: c.key, action });
        Some(tag)
    }

    /// Makes what is into what should be.
    pub(super) fn reconcile(&mut self, handle: Handle, now: Time) {
        self.announce(handle, now);
        self.share_fate(handle);
        self.expel(handle, now);
        self.retire(handle);
        self.weigh(handle, now);
        if let Some(c) = self.connections.get_mut(&handle) {
            c.choose(&self.host, now);
        }
        self.open_asked(handle, now);
        self.trim(handle);
        self.create(handle, now);
        self.finish_removals(handle, now);
        self.prioritise(handle, now);
        self.finish_additions(handle);
        self.give_again(handle, now);
        self.watch(handle, now);
        self.end(handle, now);
        if let Some(c) = self.connections.get_mut(&handle) {
            c.land();
            c.tidy();
        }
    }

    pub(super) fn open(&self, handle: Handle) -> Option<&Connection> {
        let c = self.connections.get(&handle)?.as_ref();
        (c.phase == Phase::Open && c.ready != Ready::No && !c.foreign && !c.blind).then_some(c)
    }

    /// Tells the peer of addresses, and sees to it that joins to them find a
    /// listening socket.
    fn announce(&mut self, handle: Handle, now: Time) {
        let Some(c) = self.open(handle) else { return };
        let fresh = c.to_announce(&self.host, now);
        // The kernel listens for endpoints with a port, applications for others.
        let listens = c.unclaimed.is_none();
        if fresh.is_empty() && (!listens || c.listening.len() == c.announced.len()) {
            return;
        }
        let Some(c) = self.connections.get_mut(&handle).map(Box::as_mut) else { return };
        let mut announces = Vec::new();
        for addr in fresh {
            let wish = match c.unclaimed {
                Some(_) => self.host.endpoint(&addr).map_or(0, |endpoint| endpoint.id),
                None => 0,
            };
            if let Some(slot) = c.ids.allocate_as(addr, addr.port(), wish) {
                c.announced.push((addr, slot.id));
                c.flight().tells(addr, 0);
                announces.push((addr, slot.id));
            }
        }
        let mut missing = Vec::new();
        let mut sockets = Vec::new();
        for (addr, _) in c.announced.iter().filter(|_| listens) {
            let socket = c.joined_at(addr);
            if !c.listening.contains(&socket) {
                missing.push((*addr, socket));
            }
            sockets.push(socket);
        }
        c.listening = sockets.into();
        for (addr, local) in missing {
            self.emit(handle, Action::Listen { local }, Some(addr));
        }
        for (local, id) in announces {
            self.tell(handle, local, id, Some(local));
        }
    }

    fn tell(&mut self, handle: Handle, local: SocketAddr, id: u8, source: Option<SocketAddr>) {
        let tag = self.emit(handle, Action::Announce { local, id }, source);
        if let (Some(tag), Some(c)) = (tag, self.connections.get_mut(&handle)) {
            c.flight().tells(local, tag);
        }
    }

    /// Closes what may not be used.
    fn expel(&mut self, handle: Handle, now: Time) {
        let Some(c) = self.open(handle) else { return };
        let replaceable = c.has_alternative(&self.host);
        let out: Vec<Subflow> = c
            .subflows
            .iter()
            .filter(|s| !s.closing && !s.surplus && !s.state.asked())
            .filter(|s| !c.allows(&s.local) && !c.leaving(&s.local))
            // The first subflow was routing's choice: replaced, not dropped.
            .filter(|s| !s.initial || (!c.server && replaceable && !c.shares_fate()))
            .copied()
            .collect();
        let surplus: Vec<Subflow> = c.subflows.iter().filter(|s| s.surplus && !s.closing).copied().collect();
        for subflow in out {
            if let Some(c) = self.connections.get_mut(&handle) {
                // Whatever made it, it isn't made again at once.
                fail(c, addr::with_port(subflow.from(), 0), subflow.to(), now);
            }
            self.part(handle, &[subflow], &[]);
        }
        self.destroy(handle, &surplus);
    }

    /// Closes subflows from addresses that can't be used, and takes back that
    /// they were announced, where another subflow can do instead: the last one
    /// may come back by itself.
    fn retire(&mut self, handle: Handle) {
        let Some(c) = self.open(handle).filter(|c| c.unclaimed.is_none()) else { return };
        let host = &self.host;
        let spared = c.shares_fate();
        let lost = |s: &&Subflow| {
            let named = !s.closing && s.local.port() != 0;
            named && !host.usable(&s.from()) && (!s.initial || !spared)
        };
        let lost: Vec<Subflow> = c.subflows.iter().filter(lost).copied().collect();
        let untold: Vec<(SocketAddr, u8)> =
            c.announced.iter().filter(|(addr, _)| !host.usable(addr)).copied().collect();
        if (lost.is_empty() && untold.is_empty()) || !c.has_alternative(host) {
            return;
        }
        if let Some(c) = self.connections.get_mut(&handle) {
            lost.iter().for_each(|s| c.miss(s));
        }
        self.part(handle, &lost, &untold);
    }

    /// Closes subflows and takes announcements back. The peer is told of each
    /// id that nothing uses any more, before the subflows are closed: that
    /// deletes the id (KERNEL pm_userspace.c).
    pub(super) fn part(&mut self, handle: Handle, closing: &[Subflow], untold: &[(SocketAddr, u8)]) {
        let Some(c) = self.connections.get_mut(&handle) else { return };
        c.announced.retain(|told| !untold.contains(told));
        let mut ids: Vec<u8> = Vec::new();
        for id in closing.iter().map(|s| s.local_id).chain(untold.iter().map(|(_, id)| *id)) {
            let stays = |s: &Subflow| {
                !s.closing && !closing.iter().any(|gone| gone.local == s.local && gone.remote == s.remote)
            };
            let used = c.subflows.iter().any(|s| s.local_id == id && stays(s))
                || c.announced.iter().any(|(_, told)| *told == id);
            if !used && !ids.contains(&id) {
                ids.push(id);
            }
        }
        for told in untold.iter().filter(|(_, id)| ids.contains(id)) {
            c.flight().withdrawn.push(*told);
        }
        for id in ids {
            self.emit(handle, Action::Remove { id }, None);
        }
        self.destroy(handle, closing);
    }

    fn create(&mut self, handle: Handle, now: Time) {
        let Some(c) = self.open(handle) else { return };
        for wanted in c.wanted(&self.host, now) {
            // One that is to be closed is: once its name is known.
            let (local, remote) = match wanted {
                Wanted::Pair(local, remote) | Wanted::Only(local, remote) => (local, remote),
                Wanted::Routed(remote) => (unspecified(&remote), remote),
            };
            if self.connections.get(&handle).is_some_and(|c| c.is_joining(&local, &remote)) {
                continue;
            }
            match wanted {
                Wanted::Pair(local, remote) => drop(self.join(handle, local, remote, None, now)),
                Wanted::Only(local, remote) => {
                    self.try_once(handle, unspecified(&remote), remote);
                    self.join(handle, local, remote, None, now);
                }
                Wanted::Routed(remote) => {
                    self.try_once(handle, unspecified(&remote), remote);
                    if let Some(c) = self.connections.get_mut(&handle) {
                        c.routing.push(remote);
                    }
                    self.emit(handle, Action::Route { remote }, None);
                }
            }
        }
    }

    fn try_once(&mut self, handle: Handle, source: SocketAddr, remote: SocketAddr) {
        if let Some(unclaimed) = self.connections.get_mut(&handle).and_then(|c| c.unclaimed.as_mut()) {
            unclaimed.try_once(source, remote);
        }
    }

    /// Sends a join; by hand, `backup` says what it is for.
    pub(super) fn join(
        &mut self,
        handle: Handle,
        source: SocketAddr,
        remote: SocketAddr,
        by_hand: Option<bool>,
        now: Time,
    ) -> Option<u64> {
        let c = self.connections.get_mut(&handle)?;
        let preferred = match (source.port(), c.initial) {
            // The kernel keeps the dead initial subflow in its list, where
            // commands for the same pair of addresses and ports would end.
            (0, Some((initial, _))) if addr::same_ip(&initial, &source) => 0,
            (0, Some((initial, _))) => initial.port(),
            (port, _) => port,
        };
        if let Some(unclaimed) = &mut c.unclaimed {
            unclaimed.try_once(source, remote);
        }
        let wish = match c.unclaimed {
            Some(_) => self.host.endpoint(&source).map_or(0, |endpoint| endpoint.id),
            None => 0,
        };
        let Some(mut slot) = c.ids.allocate_as(source, preferred, wish) else {
            fail(c, source, remote, now);
            return None;
        };
        if !c.allows(&addr::with_port(source, slot.port)) {
            // Only this port was removed.
            c.ids.set_port(&source, source.port());
            slot.port = source.port();
        }
        let local = addr::with_port(source, slot.port);
        let backup = by_hand == Some(true) || c.wish(&self.host, &source, None).unwrap_or(false);
        let ifindex = c.ifindex(&self.host, &source);
        let tried = c.failures.iter().find(|f| f.local == source && f.remote == remote);
        let comebacks = tried.map_or(0, |failure| failure.comebacks);
        let create = Action::Create { local, id: slot.id, remote, backup, ifindex };
        let tag = self.emit(handle, create, Some(source))?;
        let c = self.connections.get_mut(&handle)?;
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
                surplus: false,
                hand: by_hand.is_some(),
                listed: false,
                path: Path::with_comebacks(comebacks),
                tag,
            },
        );
        Some(tag)
    }

    /// Removes addresses whose alternatives are there, or won't come.
    fn finish_removals(&mut self, handle: Handle, now: Time) {
        let Some(c) = self.open(handle) else { return };
        let wait = !c.has_alternative(&self.host) && c.awaits_alternative();
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

    pub(super) fn depart(&mut self, handle: Handle, addrs: &[SocketAddr]) {
        let Some(c) = self.connections.get_mut(&handle) else { return };
        let gone = |local: &SocketAddr| addrs.iter().any(|addr| addr::covers(addr, local));
        let closing: Vec<Subflow> =
            c.subflows.iter().filter(|s| !s.closing && gone(&s.from())).copied().collect();
        let untold: Vec<(SocketAddr, u8)> =
            c.announced.iter().filter(|(addr, _)| gone(addr)).copied().collect();
        c.failures.retain(|f| !gone(&f.local));
        c.missed.retain(|(local, _)| !gone(local));
        c.mismatches.retain(|(addr, _)| !gone(addr));
        let freed: Vec<SocketAddr> =
            c.ids.iter().filter(|s| s.id != 0 && gone(&s.addr)).map(|s| s.addr).collect();
        for addr in freed {
            c.ids.free(&addr);
        }
        addrs.iter().for_each(|addr| c.flight().departing.push(*addr));
        self.part(handle, &closing, &untold);
    }

    /// Gives commands again that were refused, unless there is no reason any
    /// more.
    fn give_again(&mut self, handle: Handle, now: Time) {
        if self.open(handle).is_none_or(|c| c.refused.is_empty()) {
            return;
        }
        let Some(c) = self.connections.get_mut(&handle).map(Box::as_mut) else { return };
        let mut known = c.refused.take();
        known.retain(|refused| match refused.action {
            Action::Destroy { local, remote } => {
                c.subflows.iter().any(|s| s.closing && s.local == local && s.remote == remote)
            }
            Action::Remove { id } => !c.uses_id(id),
            Action::Announce { local, id } => c.announced.contains(&(local, id)),
            Action::SetBackup { local, remote, backup } => {
                let named = |s: &&Subflow| s.up() && s.local == local && s.remote == remote;
                c.subflows.iter().find(named).is_some_and(|s| s.backup == backup)
            }
            _ => false,
        });
        let mut again = Vec::new();
        for refused in known.iter_mut().filter(|refused| refused.until <= now) {
            if let Action::Remove { id } = refused.action
                && c.asks_id(id)
            {
                // What becomes of the join tells whether it is right still.
                continue;
            }
            refused.until = Time::MAX;
            again.push(refused.action);
        }
        let dropped = c.flight.iter().flat_map(|flight| flight.withdrawn.iter()).map(|(_, id)| *id);
        let dropped: Vec<u8> = dropped.filter(|id| c.uses_id(*id)).collect();
        dropped.into_iter().for_each(|id| c.withdrawn(id));
        c.refused = known.into();
        for action in again {
            match action {
                Action::Announce { local, id } => self.tell(handle, local, id, None),
                action => drop(self.emit(handle, action, None)),
            }
        }
    }

    /// Ends a connection that has been without subflows for too long.
    fn end(&mut self, handle: Handle, now: Time) {
        let Some(c) = self.connections.get_mut(&handle) else { return };
        let there = c.subflows.iter().any(|s| matches!(s.state, State::Up(_)));
        if c.phase != Phase::Open || c.foreign || c.blind || c.is_unclaimed() || there {
            (c.bare, c.ended) = (None, false);
            return;
        }
        c.bare = c.bare.or(Some(now));
        let due = c.is_doomed() || c.end_at(&self.host).is_some_and(|end| end <= now);
        if !c.ended && due {
            c.ended = true;
            self.emit(handle, Action::End, None);
        }
    }

    /// Makes subflows backup, or not, as the list, the profile and the hand
    /// say.
    fn prioritise(&mut self, handle: Handle, now: Time) {
        if self.open(handle).is_none() {
            return;
        }
        let Some(c) = self.connections.get_mut(&handle) else { return };
        c.choose(&self.host, now);
        let mut changes = Vec::new();
        for i in 0..c.subflows.len() {
            let Some(mut subflow) = c.subflows.get(i).copied() else { continue };
            let wish = c.wish(&self.host, &subflow.local, Some(&subflow));
            let listed = c.unclaimed.is_none() && c.entry(&subflow.local).is_some();
            subflow.listed = listed || (subflow.listed && !subflow.up());
            if let Some(wish) = wish.filter(|wish| subflow.up() && *wish != subflow.backup) {
                subflow.backup = wish;
                changes.push((subflow, wish));
            }
            if let Some(known) = c.subflows.get_mut(i) {
                *known = subflow;
            }
        }
        // Never without one that is none.
        changes.sort_by_key(|(_, wish)| *wish);
        for (subflow, backup) in changes {
            let action = Action::SetBackup { local: subflow.local, remote: subflow.remote, backup };
            self.emit(handle, action, None);
        }
    }

    /// Answers an ADD when the kernel has taken its commands.
    fn finish_additions(&mut self, handle: Handle) {
        let Some(c) = self.connections.get_mut(&handle) else { return };
        if c.additions.iter().all(|addition| !addition.commands.is_empty()) {
            return;
        }
        let mut waiting: Vec<Addition> = Vec::new();
        for addition in c.additions.take() {
            if addition.commands.is_empty() {
                // What it asked for stays, whatever becomes of those before it.
                waiting.iter_mut().for_each(|earlier| earlier.yield_to(&addition));
                self.notices.push_back(Notice::Answer { id: addition.request, result: Ok(()) });
            } else {
                waiting.push(addition);
            }
        }
        c.additions = waiting.into();
    }

    pub(super) fn done(&mut self, tag: u64, outcome: Outcome, now: Time) {
        if outcome != Outcome::Gone
            && let Some(Outstanding { action: Action::Watch { .. }, .. }) = self.outstanding.get(&tag)
        {
            // An answer of another kind: nothing is known.
            self.watched(tag, None, now);
            return;
        }
        let Some(known) = self.outstanding.remove(&tag) else { return };
        let Outstanding { handle, action, source, ready } = known;
        let Some(c) = self.connections.get_mut(&handle) else { return };
        if let Action::Create { .. } | Action::Destroy { .. } = action {
            c.heard += 1;
        }
        let mut waiting = Vec::new();
        for addition in c.additions.iter_mut().filter(|addition| addition.commands.contains(&tag)) {
            addition.commands.retain(|known| *known != tag);
            waiting.push(addition.request);
        }
        if let Some(incidents) = &mut self.incidents {
            incidents.extend(incident(c, tag, &known, outcome));
        }
        let mut refusal = None;
        match outcome {
            Outcome::Gone => {
                self.drop_connection(handle);
                return;
            }
            Outcome::NotOurs => {
                c.subflows.retain(|s| s.state != State::Asked);
                if c.is_unclaimed() {
                    // Its own path manager serves it.
                    self.drop_connection(handle);
                    return;
                }
                c.foreign = true;
                self.abandon(handle);
            }
            _ => match action {
                Action::Create { local, remote, .. } => {
                    let source = source.unwrap_or(local);
                    if outcome == Outcome::NotReady {
                        c.ready = match c.ready {
                            _ if ready => Ready::Over,
                            // It is by now.
                            Ready::Yes => Ready::Yes,
                            _ => Ready::No,
                        };
                    }
                    refusal = created_or_not(c, tag, &source, (&local, &remote), outcome, now);
                    self.join_done(tag, &known, outcome);
                }
                Action::Destroy { .. } | Action::Remove { .. } | Action::SetBackup { .. } => {
                    if is_over(&action, outcome) {
                        c.refused.retain(|known| known.action != action);
                        match action {
                            Action::Destroy { local, remote } => {
                                c.subflows.retain(|s| s.local != local || s.remote != remote);
                            }
                            Action::Remove { id } => c.withdrawn(id),
                            _ => {}
                        }
                    } else {
                        refused(c, action, now);
                    }
                }
                Action::Announce { local, id } => {
                    c.refused.retain(|known| known.action != action);
                    refusal = announced_or_not(c, tag, &local, id, outcome, now);
                }
                Action::Listen { local } => {
                    if let Outcome::Refused(errno) = outcome {
                        let what = format!("no listening socket for joins to {local}");
                        refusal = Some(Error::new(errno, format!("{what}: {}", why(errno, local.port()))));
                    }
                }
                Action::Route { .. } | Action::Watch { .. } | Action::End => {}
            },
        }
        if let Some(error) = refusal {
            for request in waiting {
                self.refuse(handle, request, error.clone());
            }
        }
        self.settle(handle, now);
    }

    /// Nothing can be done about this connection: all who wait hear of it.
    fn abandon(&mut self, handle: Handle) {
        let Some(c) = self.connections.get_mut(&handle) else { return };
        let removals = c.removals.take().into_iter().filter_map(|removal| removal.request);
        let mut requests: Vec<RequestId> = removals.collect();
        while let Some(last) = c.additions.len().checked_sub(1) {
            requests.extend(undo(c, last).map(|addition| addition.request));
        }
        for id in requests {
            self.notices.push_back(Notice::Answer { id, result: Err(not_ours()) });
        }
        self.fail_opens(handle, &not_ours());
    }

    /// Undoes an ADD that a refused command was for.
    fn refuse(&mut self, handle: Handle, request: RequestId, error: Error) {
        let Some(c) = self.connections.get_mut(&handle) else { return };
        let at = c.additions.iter().position(|a| a.request == request);
        let Some(addition) = at.and_then(|at| undo(c, at)) else { return };
        let fresh: Vec<SocketAddr> = addition
            .added
            .iter()
            .filter(|addr| !c.entries.iter().any(|entry| entry.addr == **addr))
            // What was there before without being listed stays.
            .filter(|addr| !addition.used.iter().any(|used| addr::covers(addr, used)))
            .copied()
            .collect();
        self.depart(handle, &fresh);
        self.notices.push_back(Notice::Answer { id: addition.request, result: Err(error) });
    }

    pub(super) fn routed(&mut self, tag: u64, local: Option<SocketAddr>, now: Time) {
        let Some(Outstanding { handle, action: Action::Route { remote }, .. }) =
            self.outstanding.remove(&tag)
        else {
            return;
        };
        let Some(c) = self.connections.get_mut(&handle) else { return };
        c.routing.retain(|peer| *peer != remote);
        let able = self.open(handle).is_some_and(|c| c.ready != Ready::Over);
        let Some(c) = self.connections.get_mut(&handle) else { return };
        let host = &self.host;
        let local = local.filter(|_| able).map(|local| addr::with_port(addr::canonical(local), 0));
        let usable =
            |local: &SocketAddr| c.allows(local) && host.usable(local) && !c.failing(local, &remote, now);
        match local.filter(usable) {
            None => fail(c, unspecified(&remote), remote, now),
            // It may not be wanted any more.
            Some(local)
                if !c.is_joining(&local, &remote)
                    && c.lacks(&local, &remote, host)
                    && (c.is_unclaimed() || c.room(host) > 0) =>
            {
                self.join(handle, local, remote, None, now);
            }
            Some(_) => {}
        }
        self.settle(handle, now);
    }
}

/// What is to be told of a command's outcome, to whoever watches.
fn incident(c: &Connection, tag: u64, known: &Outstanding, outcome: Outcome) -> Option<Incident> {
    let token = c.token?;
    match (known.action, outcome) {
        (Action::Create { local, remote, .. }, Outcome::Refused(errno)) => {
            let source = known.source.unwrap_or(local);
            let by_hand = c.opened(tag);
            // Who waits for the answer hears of it there; a port of our own
            // choice is followed by any.
            let answered = c.additions.iter().any(|addition| addition.added.contains(&source))
                || by_hand.is_some_and(|open| open.request.is_some());
            let asked = c.entry(&source).is_some() || by_hand.is_some();
            let asked = asked && !answered && !known.lacks_port(outcome);
            asked.then_some(Incident::Refused { token, local, remote, errno })
        }
        (Action::Create { local, remote, .. }, Outcome::NotOurs) if !c.foreign && !c.is_unclaimed() => {
            Some(Incident::Refused { token, local, remote, errno: libc::EOPNOTSUPP })
        }
        (Action::Announce { local, .. }, Outcome::NotOurs) if !c.foreign && !c.is_unclaimed() => {
            let (_, remote) = c.initial?;
            Some(Incident::Refused { token, local, remote, errno: libc::EOPNOTSUPP })
        }
        (Action::SetBackup { local, remote, .. }, Outcome::Taken) => {
            Some(Incident::Prioritised { token, local, remote })
        }
        _ => None,
    }
}

/// Whether a command was carried out, or there is nothing for it to act on.
fn is_over(action: &Action, outcome: Outcome) -> bool {
    match outcome {
        Outcome::Taken | Outcome::Refused(libc::ESRCH | libc::ENOENT) => true,
        // SUBFLOW_DESTROY says so where a port is missing, SET_FLAGS until the
        // peer has acknowledged the join.
        Outcome::Refused(libc::EINVAL) => {
            !matches!(action, Action::Destroy { .. } | Action::SetBackup { .. })
        }
        _ => false,
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
