// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is known of one connection, and what it may and should use: facts and
//! pure questions. [`super::Engine`] acts on the answers.

use super::endpoints::Unclaimed;
use super::few::Few;
use super::host::Host;
use super::ids::Ids;
use super::judge::Path;
use super::settings::Settings;
use super::steering::Steering;
use super::watch::Watch;
use super::{Action, Key, RequestId, Time};
use crate::addr;
use crate::quick::Quick;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};

/// A local address that the application listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Canonical; port 0 for any.
    pub addr: SocketAddr,
    /// Its subflows are for backup.
    pub backup: bool,
    /// The peer may be told of it.
    pub advertise: bool,
    /// We open subflows from it.
    pub subflow: bool,
}

impl From<SocketAddr> for Entry {
    fn from(addr: SocketAddr) -> Self {
        Self { addr, backup: false, advertise: true, subflow: true }
    }
}

/// The device a socket is bound to, and the addresses on it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Device {
    /// Interface index.
    pub ifindex: u32,
    /// Canonical, port 0.
    pub addrs: Vec<SocketAddr>,
}

/// How far the socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not connected; also while it listens.
    Prepared,
    /// A connection.
    Open,
}

/// Whether subflows can be made yet (KERNEL: SUBFLOW_CREATE needs a
/// connection that the peer has acknowledged).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// Nobody said; trying tells.
    Unknown,
    /// The event is still to come.
    No,
    /// They can.
    Yes,
    /// They could: a direction is closed, or it fell back.
    Over,
}

/// How far a subflow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// A command is out.
    Asked,
    /// The SYN is out.
    Syn,
    /// Established, since when.
    Up(Time),
}

/// A subflow, or one that may become so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subflow {
    /// As the kernel names it; the port is 0 while it isn't known.
    pub local: SocketAddr,
    /// As the kernel names it.
    pub remote: SocketAddr,
    /// MPTCP address id.
    pub local_id: u8,
    /// How far.
    pub state: State,
    /// The connection's first.
    pub initial: bool,
    /// What the kernel was last asked for.
    pub backup: bool,
    /// A command to close it is out.
    pub closing: bool,
    /// The peer made it, beyond the limit.
    pub surplus: bool,
    /// It was opened by hand.
    pub hand: bool,
    /// Its priority is what the list says.
    pub(super) listed: bool,
    pub(super) path: Path,
    /// The command that asked for it, 0 where we didn't.
    pub(super) tag: u64,
}

impl Subflow {
    /// Local address in the form of lists.
    pub fn from(&self) -> SocketAddr {
        addr::canonical(self.local)
    }

    /// Remote address in the form of lists.
    pub fn to(&self) -> SocketAddr {
        addr::canonical(self.remote)
    }

    /// Carries data, as far as we know.
    pub fn up(&self) -> bool {
        matches!(self.state, State::Up(_)) && !self.closing
    }
}

/// An address of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    /// The peer's id for it; 0 for the initial one, `None` where the
    /// application named it.
    pub id: Option<u8>,
    /// Canonical.
    pub addr: SocketAddr,
}

impl Peer {
    /// Whether the peer itself has shown this address, with this port or, for
    /// 0, any.
    pub fn shows(&self, addr: &SocketAddr) -> bool {
        self.id.is_some() && addr::covers(addr, &self.addr)
    }
}

/// A pair that did not work, and when to try it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub until: Time,
    pub wait: Time,
    /// How often the path is known to have come back, if it does so at once.
    pub comebacks: u8,
}

/// A command that was refused, and when to give it again; never, while it is
/// under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub action: Action,
    pub until: Time,
    pub wait: Time,
}

/// Addresses on their way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Removal {
    pub addrs: Vec<SocketAddr>,
    pub deadline: Time,
    /// Who waits for it; answered when the kernel has been told.
    pub request: Option<RequestId>,
}

/// What was asked of the kernel and is not confirmed: a restart must not take
/// it for done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Flight {
    /// Announced, perhaps, and by which command; 0 where it isn't given yet.
    pub untold: Few<(SocketAddr, u64)>,
    /// Announced no more, perhaps.
    pub withdrawn: Few<(SocketAddr, u8)>,
    /// Removed, while their subflows are being closed.
    pub departing: Few<SocketAddr>,
}

impl Flight {
    /// Whether an announcement of this address is under way.
    pub fn is_untold(&self, addr: &SocketAddr) -> bool {
        self.untold.iter().any(|(untold, _)| untold == addr)
    }

    /// An announcement of this address is under way: the last one counts.
    pub fn tells(&mut self, addr: SocketAddr, tag: u64) {
        self.untold.retain(|(untold, _)| *untold != addr);
        self.untold.push((addr, tag));
    }
}

/// An ADD whose commands are out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Addition {
    pub request: RequestId,
    pub commands: Vec<u64>,
    pub added: Vec<SocketAddr>,
    /// The list's entries for them before.
    pub before: Vec<Option<Entry>>,
    /// Exclusions that ended with it.
    pub lifted: Vec<SocketAddr>,
    /// Local addresses that subflows had before.
    pub used: Vec<SocketAddr>,
}

impl Addition {
    /// Leaves to a later one what that asked for too.
    pub fn yield_to(&mut self, later: &Self) {
        self.leave(|addr| later.added.contains(addr));
        self.lifted.retain(|gone| !later.added.iter().any(|added| addr::covers(gone, added)));
    }

    /// What somebody has decided since is not for this to undo.
    pub fn leave(&mut self, decided: impl Fn(&SocketAddr) -> bool) {
        let pairs = self.added.iter().copied().zip(self.before.iter().copied());
        (self.added, self.before) = pairs.filter(|(addr, _)| !decided(addr)).unzip();
    }
}

/// One socket: before, during its connection, or listening.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Identity of the socket.
    pub key: Key,
    /// The kernel's token, once there is a connection.
    pub token: Option<u32>,
    /// How far it is.
    pub phase: Phase,
    /// It was accepted, not made.
    pub server: bool,
    /// Whether subflows can be made.
    pub ready: Ready,
    /// The in-kernel path manager has it: nothing can be done.
    pub foreign: bool,
    /// It was restored and its subflows have not been looked at: nothing is
    /// done.
    pub blind: bool,
    /// There is a list: nothing but it may be used.
    pub listed: bool,
    /// The list; where `listed` is false, what was added to all the rest.
    pub entries: Vec<Entry>,
    /// The specific address that the application bound the socket to.
    pub bound: Option<SocketAddr>,
    /// The device that the application bound the socket to.
    pub device: Option<Box<Device>>,
    /// Removed without having been listed.
    pub excluded: Few<SocketAddr>,
    /// Address pair of the initial subflow, canonical.
    pub initial: Option<(SocketAddr, SocketAddr)>,
    /// Subflows, in order of creation.
    pub subflows: Vec<Subflow>,
    /// Addresses of the peer, the initial one first.
    pub peers: Vec<Peer>,
    /// Grows with all that is heard of subflows: whoever looked at them before
    /// must look again.
    pub heard: u64,
    /// When the connection began, or was first seen.
    pub(super) began: Time,
    pub(super) ids: Ids,
    pub(super) announced: Few<(SocketAddr, u8)>,
    pub(super) listening: Few<SocketAddr>,
    pub(super) failures: Few<Failure>,
    pub(super) removals: Few<Removal>,
    pub(super) additions: Few<Addition>,
    pub(super) routing: Few<SocketAddr>,
    /// Ids that were tried for an address, and that the kernel has for another,
    /// or the address under another.
    pub(super) mismatches: Few<(SocketAddr, Vec<u8>)>,
    pub(super) refused: Few<Refused>,
    pub(super) flight: Option<Box<Flight>>,
    /// Since when there has been no subflow.
    pub(super) bare: Option<Time>,
    /// Its end was asked for.
    pub(super) ended: bool,
    /// Nobody asked for anything: what was done for it.
    pub(super) unclaimed: Option<Box<Unclaimed>>,
    /// Pairs that no list asks for and that we closed, or lost with their
    /// address: wanted back.
    pub(super) missed: Few<(SocketAddr, SocketAddr)>,
    pub(super) watch: Option<Box<Watch>>,
    /// What was asked for besides the list.
    pub(super) steering: Option<Box<Steering>>,
    pub(super) indexed: Indexed,
    /// Counted among those that wait for a connection.
    pub(super) counted: bool,
}

/// What [`super::Engine`] last noted of a connection in its indexes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Indexed {
    pub due: Option<Time>,
    pub digest: u64,
}

/// Further subflows made because the *peer* announced an address: a peer that
/// announces 255 must not get 255.
const PEER_DRIVEN_MAX: usize = 8;
const MISSED_MAX: usize = 16;

/// A subflow that should be there and is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// From here to there.
    Pair(SocketAddr, SocketAddr),
    /// The same, as the only one to there.
    Only(SocketAddr, SocketAddr),
    /// To there, from where routing says.
    Routed(SocketAddr),
}

impl Connection {
    pub(super) fn new(key: Key) -> Self {
        Self {
            key,
            token: None,
            phase: Phase::Prepared,
            server: false,
            ready: Ready::Unknown,
            foreign: false,
            blind: false,
            listed: false,
            entries: Vec::new(),
            bound: None,
            device: None,
            excluded: Few::default(),
            initial: None,
            subflows: Vec::new(),
            peers: Vec::new(),
            heard: 0,
            began: Time::ZERO,
            ids: Ids::default(),
            announced: Few::default(),
            listening: Few::default(),
            failures: Few::default(),
            removals: Few::default(),
            additions: Few::default(),
            routing: Few::default(),
            mismatches: Few::default(),
            refused: Few::default(),
            flight: None,
            bare: None,
            ended: false,
            unclaimed: None,
            missed: Few::default(),
            watch: None,
            steering: None,
            indexed: Indexed::default(),
            counted: false,
        }
    }

    /// One that nobody claimed.
    pub(super) fn stranger(key: Key) -> Self {
        Self { unclaimed: Some(Box::default()), ..Self::new(key) }
    }

    /// When there is something to do next, if nothing happens before.
    pub(super) fn due(&self, host: &Host, now: Time) -> Option<Time> {
        let retries = self.failures.iter().map(|f| f.until).chain(self.refused.iter().map(|r| r.until));
        let deadlines = self.removals.iter().map(|r| r.deadline);
        let round = self.watch.as_ref().and_then(|watch| watch.due());
        let end = self.end_at(host).filter(|_| !self.ended);
        let times = retries.chain(deadlines).chain(round).chain(end).chain(self.steering_due());
        times.filter(|time| *time > now && *time != Time::MAX).min()
    }

    /// When it is over unless a subflow comes.
    pub(super) fn end_at(&self, host: &Host) -> Option<Time> {
        Some(self.bare?.saturating_add(host.close_timeout?))
    }

    /// Differs when what must survive a restart differs.
    pub(super) fn digest(&self) -> u64 {
        let mut hasher = Quick::default();
        (self.key, self.token, self.server, self.foreign, self.listed, self.initial).hash(&mut hasher);
        (&self.entries, self.bound, &self.device, &self.excluded).hash(&mut hasher);
        (&self.peers, &self.ids, &self.announced, &self.missed).hash(&mut hasher);
        self.removals.iter().for_each(|removal| removal.addrs.hash(&mut hasher));
        self.flight.hash(&mut hasher);
        if let Some(steering) = &self.steering {
            steering.lasting(&mut hasher);
        }
        if self.unclaimed.is_some() {
            (&self.unclaimed, &self.routing).hash(&mut hasher);
            let asked = self.subflows.iter().filter(|s| s.state.asked());
            asked.for_each(|s| (s.local, s.remote).hash(&mut hasher));
        }
        hasher.finish()
    }

    /// Whether only certain local addresses may be used (RFC 6897 5.3.2).
    pub fn restricted(&self) -> bool {
        self.listed || self.bound.is_some() || self.device.is_some()
    }

    /// Whether nobody asked for anything: it gets what the in-kernel path
    /// manager would give it.
    pub fn is_unclaimed(&self) -> bool {
        self.unclaimed.is_some()
    }

    /// Whether anything here needs control of the connection's paths.
    pub fn steers(&self) -> bool {
        self.restricted()
            || !self.entries.is_empty()
            || !self.excluded.is_empty()
            || self.settings() != Settings::default()
    }

    /// The list that the application sees; `None` where there is none.
    pub fn list(&self) -> Option<Vec<SocketAddr>> {
        self.listed.then(|| self.entries.iter().map(|entry| entry.addr).collect())
    }

    /// Whether a subflow may use this local address.
    pub fn allows(&self, local: &SocketAddr) -> bool {
        let local = addr::canonical(*local);
        if self.excluded.iter().any(|gone| addr::covers(gone, &local)) {
            return false;
        }
        !self.restricted()
            || self.entries.iter().any(|entry| addr::covers(&entry.addr, &local))
            || self.bound.is_some_and(|bound| addr::same_ip(&bound, &local))
            || self.device.as_ref().is_some_and(|d| d.addrs.iter().any(|a| addr::same_ip(a, &local)))
    }

    /// Whether a subflow between the two is known to be up.
    pub fn has_up(&self, local: &SocketAddr, remote: &SocketAddr) -> bool {
        let (local, remote) = (addr::canonical(*local), addr::canonical(*remote));
        self.subflows.iter().any(|s| s.up() && addr::same(&s.from(), &local) && addr::same(&s.to(), &remote))
    }

    /// Whether these pairs are all its subflows and all are up, as is known:
    /// then a [`Event::Snapshot`](super::Event::Snapshot) would tell nothing.
    pub fn is_settled_with(&self, pairs: &[(SocketAddr, SocketAddr)]) -> bool {
        self.ready == Ready::Yes
            && !pairs.is_empty()
            && pairs.len() == self.subflows.len()
            && pairs.iter().all(|(local, remote)| self.has_up(local, remote))
    }

    /// Whether a subflow between the two was asked for as backup.
    pub fn has_backup(&self, local: &SocketAddr, remote: &SocketAddr) -> bool {
        let (local, remote) = (addr::canonical(*local), addr::canonical(*remote));
        self.subflows
            .iter()
            .any(|s| s.up() && s.backup && addr::same(&s.from(), &local) && addr::same(&s.to(), &remote))
    }

    /// The list's entry for a local address, the one with its port first.
    pub fn entry(&self, local: &SocketAddr) -> Option<&Entry> {
        let local = addr::canonical(*local);
        let named = self.entries.iter().find(|entry| entry.addr == local);
        named.or_else(|| self.entries.iter().find(|entry| addr::covers(&entry.addr, &local)))
    }

    /// Whether subflows from a local address are for backup; `None` where
    /// nobody said.
    pub(super) fn backup(&self, host: &Host, local: &SocketAddr) -> Option<bool> {
        match &self.unclaimed {
            None => self.entry(local).map(|entry| entry.backup),
            Some(_) => Some(host.endpoint(&addr::canonical(*local)).is_some_and(|e| e.backup)),
        }
    }

    /// The interface that a subflow from this address keeps to.
    pub(super) fn ifindex(&self, host: &Host, local: &SocketAddr) -> u32 {
        let endpoint = self.unclaimed.as_ref().and_then(|_| host.endpoint(local));
        if let Some(endpoint) = endpoint.filter(|endpoint| endpoint.ifindex != 0) {
            return endpoint.ifindex;
        }
        match &self.device {
            Some(device) if device.addrs.iter().any(|a| addr::same_ip(a, local)) => device.ifindex,
            _ => match local {
                SocketAddr::V6(v6) => v6.scope_id(),
                SocketAddr::V4(_) => 0,
            },
        }
    }

    /// Where the first subflow may start from, best first: what is bound,
    /// then the list in its order, backup addresses last.
    pub fn first_choices(&self) -> Vec<SocketAddr> {
        let mut choices: Vec<SocketAddr> = self.bound.into_iter().collect();
        for backup in [false, true] {
            choices.extend(self.entries.iter().filter(|e| e.subflow && e.backup == backup).map(|e| e.addr));
        }
        if let Some(device) = &self.device {
            choices.extend(device.addrs.iter().copied());
        }
        choices.retain(|choice| self.allows(choice));
        choices
    }

    /// Local addresses that should each have a subflow.
    pub(super) fn sources(&self) -> Vec<SocketAddr> {
        let listed = self.entries.iter().filter(|entry| entry.subflow).map(|entry| entry.addr);
        let bound = self.bound.map(|bound| addr::with_port(bound, 0));
        let mut sources: Vec<SocketAddr> = Vec::new();
        for source in listed.chain(bound) {
            let excluded = self.excluded.iter().any(|gone| addr::covers(gone, &source));
            if !excluded && !sources.iter().any(|known| addr::covers(known, &source)) {
                sources.push(source);
            }
        }
        sources
    }

    /// Whether a pair is put off still, or its address is.
    pub(super) fn failing(&self, local: &SocketAddr, remote: &SocketAddr, now: Time) -> bool {
        let to = |f: &Failure| f.remote == *remote || f.remote == *local;
        self.failures.iter().any(|f| f.local == *local && to(f) && f.until > now)
    }

    fn live(&self) -> impl Iterator<Item = &Subflow> {
        self.subflows.iter().filter(|subflow| !subflow.closing)
    }

    /// The subflows that are missing: each local address that should be used
    /// gets one, and each address of the peer. Where there is a choice, the
    /// end that has the fewest.
    pub(super) fn wanted(&self, host: &Host, now: Time) -> Vec<Wanted> {
        let mut wanted = Vec::new();
        if let Some(unclaimed) = self.unclaimed.as_ref().filter(|_| self.ready != Ready::Over) {
            return self.wanted_by_endpoints(unclaimed, host);
        }
        if self.server || self.ready == Ready::Over {
            // The client makes them (KERNEL: it is the one who can).
            return wanted;
        }
        let most = self.room(host);
        if most == 0 {
            return wanted;
        }
        let mut sources = self.sources();
        sources.retain(|source| host.usable(source));
        // Where not all can be had, backup comes last.
        sources.sort_by_key(|source| self.entry(source).is_some_and(|entry| entry.backup));
        let mut pairs: Vec<(SocketAddr, SocketAddr)> =
            self.live().map(|subflow| (subflow.from(), subflow.to())).collect();
        let room = |wanted: &Vec<Wanted>| wanted.len() < most;

        for source in &sources {
            if !room(&wanted) || pairs.iter().any(|(from, _)| addr::covers(source, from)) {
                continue;
            }
            let uses = |peer: &Peer| pairs.iter().filter(|(_, to)| addr::same(to, &peer.addr)).count().min(1);
            let best = self
                .peers
                .iter()
                .filter(|peer| addr::pair(source, &peer.addr))
                .filter(|peer| !self.failing(source, &peer.addr, now) && !self.is_barred(source, &peer.addr))
                .min_by_key(|peer| uses(peer));
            if let Some(peer) = best {
                pairs.push((*source, peer.addr));
                wanted.push(Wanted::Pair(*source, peer.addr));
            }
        }
        for (local, remote) in self.missed.iter() {
            let known = self.peers.iter().any(|peer| addr::same(&peer.addr, remote));
            if known
                && room(&wanted)
                && host.usable(local)
                && self.allows(local)
                && !self.failing(local, remote, now)
                && !self.is_barred(local, remote)
                && !pairs.iter().any(|(from, _)| addr::same_ip(from, local))
            {
                pairs.push((*local, *remote));
                wanted.push(Wanted::Pair(*local, *remote));
            }
        }
        for peer in &self.peers {
            let enough = pairs.len() >= PEER_DRIVEN_MAX || !room(&wanted);
            if enough || pairs.iter().any(|(_, to)| addr::same(to, &peer.addr)) {
                continue;
            }
            let uses =
                |source: &SocketAddr| pairs.iter().filter(|(from, _)| addr::covers(source, from)).count();
            let best = sources
                .iter()
                .filter(|source| addr::pair(source, &peer.addr))
                .filter(|source| {
                    !self.failing(source, &peer.addr, now) && !self.is_barred(source, &peer.addr)
                })
                .min_by_key(|source| uses(source));
            match best {
                Some(source) => {
                    pairs.push((*source, peer.addr));
                    wanted.push(Wanted::Pair(*source, peer.addr));
                }
                None if !self.restricted() && sources.is_empty() => {
                    let anywhere = addr::with_port(super::unspecified(&peer.addr), 0);
                    if !self.routing.contains(&peer.addr) && !self.failing(&anywhere, &peer.addr, now) {
                        wanted.push(Wanted::Routed(peer.addr));
                    }
                }
                None => {}
            }
        }
        wanted
    }

    /// Notes a subflow that should come back though no list asks for it.
    pub(super) fn miss(&mut self, gone: &Subflow) {
        let pair = (addr::with_port(gone.from(), 0), gone.to());
        let listed = self.sources().iter().any(|source| addr::covers(source, &gone.from()));
        if !self.server && !listed && !self.missed.contains(&pair) {
            if self.missed.len() >= MISSED_MAX {
                self.missed.take_at(0);
            }
            self.missed.push(pair);
        }
    }

    /// Whether a subflow or an announcement is of this address.
    pub(super) fn uses(&self, addr: IpAddr) -> bool {
        self.subflows.iter().any(|s| s.from().ip() == addr)
            || self.announced.iter().any(|(announced, _)| announced.ip() == addr)
    }

    /// Whether this address may be wanted.
    pub(super) fn names(&self, addr: IpAddr) -> bool {
        self.entries.iter().any(|entry| entry.addr.ip() == addr)
            || self.bound.is_some_and(|bound| bound.ip() == addr)
            || self.missed.iter().any(|(local, _)| local.ip() == addr)
    }

    /// Addresses the peer should be told of.
    pub(super) fn to_announce(&self, host: &Host, now: Time) -> Vec<SocketAddr> {
        if self.unclaimed.is_some() {
            return self.endpoints_to_announce(host).filter(|addr| !self.failing(addr, addr, now)).collect();
        }
        let initial = self.initial.map(|(local, _)| local);
        self.entries
            .iter()
            .filter(|entry| entry.advertise && (self.server || !entry.subflow))
            // Told, the peer makes subflows.
            .filter(|entry| !entry.subflow || self.has_demand())
            .map(|entry| entry.addr)
            .filter(|addr| host.usable(addr) && !self.failing(addr, addr, now))
            .filter(|addr| !self.excluded.iter().any(|gone| addr::covers(gone, addr)))
            .filter(|addr| !initial.is_some_and(|initial| addr::covers(addr, &initial)))
            .filter(|addr| !self.announced.iter().any(|(known, _)| known == addr))
            .collect()
    }

    /// What is under way, to be added to.
    pub(super) fn flight(&mut self) -> &mut Flight {
        self.flight.get_or_insert_default()
    }

    /// Notes that the peer was told of an id's end, or need not be.
    pub(super) fn withdrawn(&mut self, id: u8) {
        if let Some(flight) = &mut self.flight {
            flight.withdrawn.retain(|(_, gone)| *gone != id);
        }
    }

    /// Drops what is confirmed of what was under way.
    pub(super) fn land(&mut self) {
        let Some(flight) = &mut self.flight else { return };
        let (subflows, announced, withdrawn) = (&self.subflows, &self.announced, &flight.withdrawn);
        flight.untold.retain(|(addr, _)| announced.iter().any(|(told, _)| told == addr));
        flight.departing.retain(|gone| {
            subflows.iter().any(|s| s.closing && addr::covers(gone, &s.from()))
                || withdrawn.iter().any(|(addr, _)| addr::covers(gone, addr))
        });
        if **flight == Flight::default() {
            self.flight = None;
        }
    }

    /// The id under which the peer was certainly told of an address.
    pub(super) fn told(&self, addr: &SocketAddr) -> Option<u8> {
        let unsure = self.flight.as_ref().is_some_and(|flight| flight.is_untold(addr));
        self.announced.iter().find(|(known, _)| known == addr && !unsure).map(|(_, id)| *id)
    }

    /// Where joins to an address that was announced arrive.
    pub(super) fn joined_at(&self, announced: &SocketAddr) -> SocketAddr {
        match (announced.port(), self.initial) {
            (0, Some((local, _))) => addr::with_port(*announced, local.port()),
            _ => *announced,
        }
    }

    /// Whether the peer knows an id by something that stays.
    pub(super) fn uses_id(&self, id: u8) -> bool {
        self.live().any(|s| s.local_id == id && !s.state.asked())
            || self.announced.iter().any(|(_, told)| *told == id)
    }

    /// Whether a join under an id is being asked for.
    pub(super) fn asks_id(&self, id: u8) -> bool {
        self.live().any(|s| s.local_id == id && s.state.asked())
    }

    /// Whether a subflow is one of those on their way out.
    pub(super) fn leaving(&self, local: &SocketAddr) -> bool {
        let local = addr::canonical(*local);
        self.removals.iter().any(|r| r.addrs.iter().any(|gone| addr::covers(gone, &local)))
    }

    /// A subflow that may stay and carries data.
    pub(super) fn has_alternative(&self, host: &Host) -> bool {
        self.live()
            .any(|s| s.up() && !self.leaving(&s.local) && self.allows(&s.local) && host.usable(&s.from()))
    }

    /// A subflow that may stay and is on its way.
    pub(super) fn awaits_alternative(&self) -> bool {
        let coming = |s: &Subflow| !s.up() && !self.leaving(&s.local) && self.allows(&s.local);
        !self.routing.is_empty() || self.live().any(coming)
    }
}
