// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is heard is noted: changes of one connection, with no thought of what
//! follows from them.

use super::connection::{Addition, Connection, Entry, Failure, Peer, Phase, Ready, Refused, State, Subflow};
use super::event::{Action, Outcome, RequestId, Seen, Time};
use super::host::Host;
use super::judge::Path;
use super::unspecified;
use crate::addr;
use crate::error::{Errno, Error, Result};
use std::borrow::Cow;
use std::net::SocketAddr;

pub(super) const RETRY_FIRST: Time = Time::from_secs(1);
const RETRY_MAX: Time = Time::from_secs(64);
/// A subflow that lived this long was no failure.
const LIVED: Time = Time::from_secs(10);

impl State {
    pub(super) fn asked(self) -> bool {
        self == Self::Asked
    }
}

pub(super) fn same_pair(subflow: &Subflow, local: &SocketAddr, remote: &SocketAddr) -> bool {
    let (from, local) = (subflow.from(), addr::canonical(*local));
    addr::same(&subflow.to(), &addr::canonical(*remote))
        && addr::same_ip(&from, &local)
        && (from.port() == local.port() || from.port() == 0)
}

/// The subflow that the kernel names so; else one whose port isn't known yet,
/// which is rather one that is wanted.
pub(super) fn position(c: &Connection, local: &SocketAddr, remote: &SocketAddr) -> Option<usize> {
    position_of(c, local, remote, false)
}

fn position_of(c: &Connection, local: &SocketAddr, remote: &SocketAddr, closing: bool) -> Option<usize> {
    let exact = |s: &Subflow| s.local.port() == local.port() && same_pair(s, local, remote);
    let exact = c.subflows.iter().position(exact);
    let rather = || c.subflows.iter().position(|s| s.closing == closing && same_pair(s, local, remote));
    exact.or_else(rather).or_else(|| c.subflows.iter().position(|s| same_pair(s, local, remote)))
}

/// Appends without much room to spare: most connections have one or two.
pub(super) fn note<T>(list: &mut Vec<T>, item: T) {
    if list.len() == list.capacity() {
        list.reserve_exact(if list.len() < 4 { 1 } else { list.len() / 2 });
    }
    list.push(item);
}

/// The connection is there.
pub(super) fn begin(c: &mut Connection, initial: (SocketAddr, SocketAddr), now: Time) {
    if let Some(steering) = &mut c.steering {
        steering.began = now;
    }
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

/// Notes all that the kernel has. Where `host` is given, nothing was missed
/// before, and what is new may be too much.
pub(super) fn snapshot(c: &mut Connection, ready: bool, subflows: &[Seen], host: Option<&Host>, now: Time) {
    c.blind = false;
    let exact = |known: &Subflow, s: &Seen| known.local == s.local && known.remote == s.remote;
    // Each of those whose port isn't known is one that has no other name.
    let mut nameless: Vec<&Seen> =
        subflows.iter().filter(|s| !c.subflows.iter().any(|known| exact(known, s))).collect();
    let mut named: Vec<&Seen> = Vec::new();
    c.subflows.retain(|known| {
        if known.state.asked() {
            return true;
        }
        if let Some(s) = subflows.iter().find(|s| exact(known, s)) {
            // A name is one subflow's.
            let new = !named.contains(&s);
            named.push(s);
            return new;
        }
        let at = nameless.iter().position(|s| same_pair(known, &s.local, &s.remote));
        at.map(|at| nameless.swap_remove(at)).is_some()
    });
    for subflow in subflows {
        if seen(c, subflow, now)
            && let Some(host) = host
        {
            admit(c, host);
        }
    }
    if c.ready == Ready::Over {
        // It stays so.
    } else if ready || subflows.len() > 1 {
        c.ready = Ready::Yes;
    } else if c.ready == Ready::No {
        c.ready = Ready::Unknown;
    }
}

/// A subflow has come up. Where one of its name is thought to be up and a join
/// of that name is under way, it is that join: a name is one subflow's, so the
/// other is gone, which was not heard.
pub(super) fn succeed(c: &mut Connection, new: &Seen) {
    c.unpart(&new.local, &new.remote);
    let named = |s: &Subflow| (s.local, s.remote) == (new.local, new.remote);
    let joins = c.subflows.iter().any(|s| named(s) && !matches!(s.state, State::Up(_)));
    if joins {
        c.subflows.retain(|s| !(named(s) && matches!(s.state, State::Up(_))));
    }
}

/// Notes a subflow that the kernel has; whether it was not known.
pub(super) fn seen(c: &mut Connection, subflow: &Seen, now: Time) -> bool {
    let port = addr::canonical(subflow.local).port();
    let source = addr::with_port(addr::canonical(subflow.local), 0);
    if !c.ids.iter().any(|slot| slot.id == subflow.local_id && addr::same_ip(&slot.addr, &source)) {
        if c.told(&source).is_some() {
            // The kernel has it twice, once for a port.
            c.ids.set_aside(subflow.local_id, unspecified(&source));
        } else {
            // A join of the peer's to the connection's port has it for any.
            let any = subflow.initial || c.initial.is_some_and(|(first, _)| first.port() == port);
            c.ids.reserve(subflow.local_id, source, if any { 0 } else { port });
        }
    }
    let state = if subflow.up { State::Up(now) } else { State::Syn };
    if subflow.up && !c.missed.is_empty() {
        let to = addr::canonical(subflow.remote);
        c.missed.retain(|(local, remote)| !(addr::same_ip(local, &source) && addr::same(remote, &to)));
    }
    match position(c, &subflow.local, &subflow.remote).and_then(|at| c.subflows.get_mut(at)) {
        Some(known) => {
            if known.closing && (known.local, known.remote) != (subflow.local, subflow.remote) {
                // It was asked for by a name that the kernel doesn't know.
                let (local, remote) = (subflow.local, subflow.remote);
                let action = Action::Destroy { local, remote };
                c.refused.push(Refused { action, until: now, wait: Time::ZERO });
            }
            (known.local, known.remote, known.local_id) = (subflow.local, subflow.remote, subflow.local_id);
            known.backup = subflow.backup.unwrap_or(known.backup);
            if !matches!(known.state, State::Up(_)) {
                known.state = state;
            }
            false
        }
        None => {
            let new = Subflow {
                local: subflow.local,
                remote: subflow.remote,
                local_id: subflow.local_id,
                state,
                initial: subflow.initial,
                backup: subflow.backup.unwrap_or(false),
                closing: false,
                surplus: false,
                hand: false,
                listed: false,
                path: Path::default(),
                tag: 0,
            };
            note(&mut c.subflows, new);
            true
        }
    }
}

/// Marks the latest subflow, which is none of ours, if it is one too many.
pub(super) fn admit(c: &mut Connection, host: &Host) {
    let full = c.is_full(host);
    if let Some(latest) = c.subflows.last_mut() {
        latest.surplus = full && !latest.initial;
    }
}

/// Whether a peer may have announced this address as its own: none that leads
/// back to this host or to many, unless the peer itself is on this host.
pub(super) fn credible(c: &Connection, addr: &SocketAddr) -> bool {
    let ip = addr.ip();
    let local_peer = c.initial.is_some_and(|(_, remote)| remote.ip().is_loopback());
    addr.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && (local_peer || !ip.is_loopback())
}

/// Notes an address that the peer announced. One id names one address, one
/// address has one id, the latest; the initial one has none but 0, which can't
/// be withdrawn by another.
pub(super) fn peer_has(c: &mut Connection, peer: Peer) {
    let initial = c.peers.iter().any(|known| known.id == Some(0) && known.addr == peer.addr);
    let old = |known: &Peer| known.id == peer.id || (known.addr == peer.addr && !initial);
    let at = c.peers.iter().position(old);
    c.peers.retain(|known| !old(known));
    match at {
        _ if initial => {}
        Some(at) => c.peers.insert(at, peer),
        None => note(&mut c.peers, peer),
    }
}

/// Notes the end of a subflow.
pub(super) fn down(
    c: &mut Connection,
    local: &SocketAddr,
    remote: &SocketAddr,
    error: i32,
    now: Time,
) -> Option<Subflow> {
    c.unpart(local, remote);
    // One that was to be closed, rather.
    let at = position_of(c, local, remote, true)?;
    let subflow = c.subflows.remove(at);
    c.note_error(subflow.tag, error);
    if subflow.closing {
        // As we asked for.
        return None;
    }
    let (from, to) = (subflow.from(), subflow.to());
    let source = c.sources_of(&from);
    if let State::Up(since) = subflow.state
        && now.saturating_sub(since) >= LIVED
    {
        c.failures.retain(|f| f.local != source || f.remote != to);
    }
    fail(c, source, to, now);
    Some(subflow)
}

impl Connection {
    /// The listed address that a subflow's local address stands for.
    pub(super) fn sources_of(&self, from: &SocketAddr) -> SocketAddr {
        self.entry(from).map_or(addr::with_port(*from, 0), |entry| entry.addr)
    }
}

/// Notes that a command was refused: it is given again later, each time after
/// twice as long.
pub(super) fn refused(c: &mut Connection, action: Action, now: Time) {
    let old = c.refused.iter().position(|known| known.action == action);
    let wait = old.and_then(|at| c.refused.take_at(at)).map_or(Time::ZERO, |known| known.wait);
    let wait = wait.saturating_mul(2).clamp(RETRY_FIRST, RETRY_MAX);
    c.refused.push(Refused { action, until: now.saturating_add(wait), wait });
}

/// Puts a pair off, each time for twice as long; an address, whatever it is to
/// be used for, as a pair with itself.
pub(super) fn fail(c: &mut Connection, local: SocketAddr, remote: SocketAddr, now: Time) {
    let old = c.failures.iter().position(|f| f.local == local && f.remote == remote);
    let old = old.and_then(|at| c.failures.take_at(at));
    let wait = old.map_or(RETRY_FIRST, |failure| failure.wait.saturating_mul(2).min(RETRY_MAX));
    c.failures.push(Failure { local, remote, until: now.saturating_add(wait), wait, comebacks: 0 });
    // Pairs of addresses long gone; a list and its peers are far smaller.
    if c.failures.len() > 1024 {
        c.failures.take_at(0);
    }
}

/// The peer was told of an address, or why not. An error is one that the
/// application must hear of.
pub(super) fn announced_or_not(
    c: &mut Connection,
    tag: u64,
    local: &SocketAddr,
    id: u8,
    outcome: Outcome,
    now: Time,
) -> Option<Error> {
    if let Some(flight) = &mut c.flight {
        flight.untold.retain(|untold| *untold != (*local, tag));
        if flight.is_untold(local) {
            // What becomes of a later one tells.
            return None;
        }
    }
    if outcome == Outcome::Taken {
        c.mismatches.retain(|(known, _)| known != local);
        if c.announced.contains(&(*local, id)) && c.ids.get(local).is_none_or(|slot| slot.id != id) {
            // A join of it looked for another meanwhile.
            c.ids.reserve(id, *local, local.port());
        }
        return None;
    }
    c.announced.retain(|(addr, _)| addr != local);
    if outcome == Outcome::Mismatch {
        let tried = mismatch(c, local, id);
        // Another has that id; or the kernel gave the address one by itself.
        if renew(c, local, id, local.port()) && tried > 0 {
            guess(c, local, local.port());
        }
        if tried < GUESSES {
            return None;
        }
    }
    fail(c, *local, *local, now);
    match outcome {
        Outcome::Refused(errno) => {
            Some(Error::new(errno, format!("{} can't be announced: {}", local.ip(), Errno(errno))))
        }
        _ => None,
    }
}

/// The peer is to be told of this address again, if it was.
fn tell_again(c: &mut Connection, local: &SocketAddr, now: Time) {
    let told: Vec<(SocketAddr, u8)> =
        c.announced.iter().filter(|(addr, _)| addr::same_ip(addr, local)).copied().collect();
    for (local, id) in told {
        let action = Action::Announce { local, id };
        if !c.flight().is_untold(&local) {
            c.flight().tells(local, 0);
            c.refused.push(Refused { action, until: now, wait: Time::ZERO });
        }
    }
}

/// Notes a try with an id that the kernel has for something else, or something
/// else for; how many there were before.
fn mismatch(c: &mut Connection, source: &SocketAddr, id: u8) -> usize {
    let at = c.mismatches.iter().position(|(known, _)| known == source).unwrap_or_else(|| {
        if c.mismatches.len() >= MISMATCHES_MAX {
            c.mismatches.take_at(0);
        }
        c.mismatches.push((*source, Vec::new()));
        c.mismatches.len() - 1
    });
    let Some((_, ids)) = c.mismatches.get_mut(at) else { return 0 };
    let tried = ids.len();
    if tried < usize::from(u8::MAX) {
        ids.push(id);
    }
    tried
}

/// Addresses of which that is remembered: more than may be wanted at a time.
const MISMATCHES_MAX: usize = 256;
/// So many ids are tried at once for an address that the kernel has under an
/// unknown one; then one each time that it is tried again.
const GUESSES: usize = 8;
/// The same for a join, which can change its port too.
const JOIN_GUESSES: usize = 5;

/// Gives an address the id that the kernel most likely has it under: the kernel
/// takes the lowest that is free, for a join that we didn't hear of.
fn guess(c: &mut Connection, source: &SocketAddr, port: u16) {
    let tried = |id| c.mismatches.iter().any(|(known, ids)| known == source && ids.contains(&id));
    let taken = |id: u8| c.ids.iter().any(|s| s.id == id && s.addr != *source && !s.is_aside());
    match (1..=u8::MAX).find(|id| !tried(*id) && !taken(*id)) {
        Some(id) => c.ids.reserve(id, *source, port),
        // What was so may not be any more.
        None => c.mismatches.retain(|(known, _)| known != source),
    }
}

/// Gives an address another id, unless it has one meanwhile, and the port that
/// commands for it name; whether it does.
fn renew(c: &mut Connection, source: &SocketAddr, id: u8, port: u16) -> bool {
    if c.ids.get(source).is_none_or(|slot| slot.id != id) {
        return false;
    }
    c.ids.free(source);
    c.ids.set_aside(id, unspecified(source));
    c.ids.allocate(*source, port);
    true
}

/// A join that was not made, and is to be, in another way or later.
fn untried(c: &mut Connection, source: &SocketAddr, remote: &SocketAddr) {
    if let Some(unclaimed) = &mut c.unclaimed {
        unclaimed.untried(source, remote);
    }
}

/// A join that was refused has been taken for another of the same name, of which
/// an event came first: it is that one.
fn misnamed(c: &mut Connection, tag: u64) {
    let Some(taken) = c.subflows.iter().find(|s| s.tag == tag).copied() else { return };
    let same = |s: &Subflow| s.state.asked() && s.local == taken.local && s.remote == taken.remote;
    if let Some(other) = c.subflows.iter().position(same).map(|at| c.subflows.remove(at))
        && let Some(known) = c.subflows.iter_mut().find(|s| s.tag == tag)
    {
        (known.tag, known.hand) = (other.tag, other.hand);
    }
}

/// Whether a port that `source` didn't ask for can't be had: taken, or one that
/// takes privilege.
pub(super) fn port_is_denied(source: &SocketAddr, local: &SocketAddr, outcome: Outcome) -> bool {
    let denied = matches!(outcome, Outcome::Refused(libc::EADDRINUSE | libc::EACCES));
    denied && source.port() == 0 && local.port() != 0
}

/// Why the kernel makes no socket at this local port, or what ended a subflow
/// before it was one, in words.
pub(super) fn why(errno: i32, port: u16) -> Cow<'static, str> {
    let words = match errno {
        libc::EADDRINUSE if port != 0 => "the local port is taken",
        libc::EADDRINUSE => "no local port is free",
        libc::EACCES if port != 0 => "the local port needs CAP_NET_BIND_SERVICE, or a route prohibits it",
        libc::EACCES => "a route of this host prohibits it",
        libc::EADDRNOTAVAIL => "the local address is not one of this host",
        libc::ENETUNREACH | libc::EHOSTUNREACH => "there is no way there from this address",
        libc::ECONNREFUSED => "the peer, or something on the way, refused it",
        libc::ECONNRESET => "the peer, or something on the way, reset it",
        libc::ECONNABORTED => "it was closed before it was established",
        libc::ETIMEDOUT => "no answer in time",
        errno => return Errno(errno).to_string().into(),
    };
    words.into()
}

/// A subflow was not made, or came to nothing.
pub(super) fn not_made(errno: i32, source: Option<SocketAddr>, remote: &SocketAddr) -> Error {
    let (from, port) = match source {
        Some(source) if source.port() == 0 => (format!(" from {}", source.ip()), 0),
        Some(source) => (format!(" from {source}"), source.port()),
        None => (String::new(), 0),
    };
    Error::new(errno, format!("no subflow{from} to {remote}: {}", why(errno, port)))
}

/// A join was sent, or why not. An error is one that the application must
/// hear of.
pub(super) fn created_or_not(
    c: &mut Connection,
    tag: u64,
    source: &SocketAddr,
    (local, remote): (&SocketAddr, &SocketAddr),
    outcome: Outcome,
    now: Time,
) -> Option<Error> {
    let asked = c.subflows.iter().position(|s| s.state.asked() && s.tag == tag);
    if outcome == Outcome::Taken {
        if let Some(subflow) = asked.and_then(|at| c.subflows.get_mut(at)) {
            subflow.state = State::Syn;
        }
        c.mismatches.retain(|(known, _)| known != source);
        c.failures.retain(|f| (f.local, f.remote) != (*source, *source));
        return None;
    }
    if asked.is_none() {
        misnamed(c, tag);
    }
    let id = asked.map(|at| c.subflows.remove(at).local_id);
    if outcome != Outcome::Mismatch {
        // A failed create can delete the kernel's first entry with the same
        // address, an announced one too.
        tell_again(c, local, now);
    }
    match outcome {
        Outcome::NotReady => untried(c, source, remote),
        Outcome::Mismatch => {
            // The kernel has entries that we don't know: another id first, then
            // any port, then odd ones; then the address is put off.
            let Some(id) = id else {
                fail(c, *source, *remote, now);
                return None;
            };
            let tried = mismatch(c, source, id);
            let port = match (tried, source.port()) {
                (0, _) => local.port(),
                (1, port) => port,
                (_, 0) => 0x8000 | c.initial.map_or(0, |(from, _)| from.port()).rotate_left(tried as u32),
                (_, port) => port,
            };
            if tried == 0 && c.told(source) == Some(id) {
                // The kernel has it for any port.
                c.ids.set_port(source, source.port());
            } else if renew(c, source, id, port) && tried > 0 && source.port() != 0 {
                guess(c, source, port);
            }
            if tried < JOIN_GUESSES {
                untried(c, source, remote);
            } else {
                fail(c, *source, *source, now);
            }
        }
        Outcome::Refused(_) if port_is_denied(source, local, outcome) => {
            c.ids.set_port(source, 0);
            untried(c, source, remote);
        }
        Outcome::Refused(errno) => {
            fail(c, *source, *remote, now);
            if let libc::EADDRINUSE | libc::EPERM | libc::ENOMEM | libc::EACCES = errno {
                return Some(not_made(errno, Some(*source), remote));
            }
        }
        Outcome::Taken | Outcome::Gone | Outcome::NotOurs => {}
    }
    None
}

/// Takes addresses into the list; the last flags win.
pub(super) fn add(c: &mut Connection, request: RequestId, entries: Vec<Entry>) -> Result<Addition> {
    let listed = |c: &Connection, addr: &SocketAddr| c.entries.iter().position(|e| e.addr == *addr);
    let fresh = entries.iter().filter(|entry| listed(c, &entry.addr).is_none()).count();
    if c.entries.len() + fresh > addr::LIST_MAX {
        let words = format!("a socket's list holds {} addresses at most", addr::LIST_MAX);
        return Err(Error::new(libc::ENOSPC, words));
    }
    let mut addition = Addition {
        request,
        commands: Vec::new(),
        added: Vec::new(),
        before: Vec::new(),
        lifted: Vec::new(),
        used: c.subflows.iter().map(Subflow::from).collect(),
    };
    for entry in entries {
        c.unbar(&entry.addr);
        addition.lifted.extend(c.excluded.iter().filter(|gone| addr::covers(gone, &entry.addr)));
        c.excluded.retain(|gone| !addr::covers(gone, &entry.addr));
        addition.added.push(entry.addr);
        let known = listed(c, &entry.addr).and_then(|at| c.entries.get_mut(at));
        addition.before.push(known.as_deref().copied());
        match known {
            Some(known) => *known = entry,
            None => note(&mut c.entries, entry),
        }
    }
    Ok(addition)
}

/// Takes an ADD back: the list is as it would be without it. What later ones
/// changed again stays as they say.
pub(super) fn undo(c: &mut Connection, at: usize) -> Option<Addition> {
    let addition = c.additions.take_at(at)?;
    let later = c.additions.get_mut(at..).unwrap_or_default();
    for (addr, before) in addition.added.iter().zip(&addition.before).rev() {
        let again = later.iter_mut().find_map(|a| {
            let place = a.added.iter().position(|added| added == addr)?;
            a.before.get_mut(place)
        });
        if let Some(again) = again {
            *again = *before;
        } else if let Some(place) = c.entries.iter().position(|entry| entry.addr == *addr) {
            match before {
                Some(entry) => c.entries.splice(place..=place, [*entry]).for_each(drop),
                None => drop(c.entries.remove(place)),
            }
        }
    }
    for gone in &addition.lifted {
        let wanted = later.iter().any(|a| a.added.iter().any(|added| addr::covers(gone, added)));
        if !wanted && !c.excluded.contains(gone) {
            c.excluded.push(*gone);
        }
    }
    Some(addition)
}

/// Takes addresses out of the list, or excludes them where it has none.
pub(super) fn remove(c: &mut Connection, addrs: &[SocketAddr]) -> Result<()> {
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
        c.additions.iter_mut().for_each(|addition| addition.leave(|added| addr::covers(addr, added)));
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
        c.excluded = c.excluded.take().split_off(surplus).into();
    }
    Ok(())
}
