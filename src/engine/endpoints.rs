// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connections that nobody claimed get what the in-kernel path manager would
//! give them, by the endpoints and limits of `ip mptcp` (KERNEL pm_kernel.c):
//! `signal` endpoints are announced, a client joins from `subflow` endpoints to
//! where it connected, announced addresses of the peer are joined from where
//! routing says, or from all `fullmesh` endpoints, or from an unused `laminar`
//! one. Each pair is tried once. The limits hold for what we join, and joins of
//! the peer beyond them are closed.

use super::Engine;
use super::connection::{Connection, Phase, Subflow, Wanted};
use super::event::{Action, Handle, Time};
use super::few::Few;
use super::host::Host;
use super::unspecified;
use crate::addr;
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// An endpoint of the network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address id.
    pub id: u8,
    /// Its address; port 0 unless it has one of its own.
    pub addr: SocketAddr,
    /// Interface, 0 none.
    pub ifindex: u32,
    /// Announced to peers.
    pub signal: bool,
    /// Clients join from it.
    pub subflow: bool,
    /// Its subflows are for backup.
    pub backup: bool,
    /// Joins from it go to every address of the peer.
    pub fullmesh: bool,
    /// An announced address of the peer is joined from it, if nothing else is.
    pub laminar: bool,
    /// The kernel made it for itself.
    pub implicit: bool,
}

/// Limits of the network namespace for one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Subflows besides the initial one.
    pub subflows: u32,
    /// Announced addresses of the peer that are joined.
    pub add_addr_accepted: u32,
}

/// Endpoints that are kept; the kernel has eight at most.
const ENDPOINTS_MAX: usize = 255;

/// What was done for a connection that nobody claimed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Unclaimed {
    /// Pairs that were tried; a local address that routing chooses is the
    /// unspecified one.
    pub tried: Few<(SocketAddr, SocketAddr)>,
    /// Ids of the peer whose announcement was accepted.
    pub taken: Few<u8>,
}

impl Unclaimed {
    fn has_tried(&self, local: &SocketAddr, remote: &SocketAddr) -> bool {
        self.tried.iter().any(|(from, to)| from == local && addr::same(to, remote))
    }

    /// Notes that a pair was tried.
    pub fn try_once(&mut self, local: SocketAddr, remote: SocketAddr) {
        if !self.has_tried(&local, &remote) {
            self.tried.push((local, remote));
        }
    }

    /// It was not, after all.
    pub fn untried(&mut self, local: &SocketAddr, remote: &SocketAddr) {
        self.tried.retain(|(from, to)| from != local || !addr::same(to, remote));
    }
}

impl Host {
    /// The endpoint that a local address belongs to.
    pub fn endpoint(&self, local: &SocketAddr) -> Option<&Endpoint> {
        let named = self.endpoints().iter().find(|endpoint| endpoint.addr == *local);
        named.or_else(|| self.endpoints().iter().find(|endpoint| addr::covers(&endpoint.addr, local)))
    }

    /// Endpoints that an administrator made.
    fn explicit(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints().iter().filter(|endpoint| !endpoint.implicit)
    }
}

impl Connection {
    /// Subflows besides the initial one, those on their way included.
    fn extra(&self) -> usize {
        self.subflows.iter().filter(|s| !s.initial && !s.closing && !s.surplus).count()
    }

    fn most(&self, host: &Host) -> usize {
        match self.unclaimed {
            Some(_) => host.limits.subflows as usize,
            None => super::SUBFLOWS_MAX,
        }
    }

    /// Whether there are too many subflows.
    pub(super) fn is_full(&self, host: &Host) -> bool {
        self.extra() > self.most(host)
    }

    /// Whether there may be another.
    pub(super) fn has_room(&self, host: &Host) -> bool {
        self.extra() < self.most(host)
    }

    /// Whether a join to an address of the peer, from where routing says, is
    /// still to be made.
    pub(super) fn lacks(&self, local: &SocketAddr, remote: &SocketAddr, host: &Host) -> bool {
        let joined = self.subflows.iter().any(|s| {
            let same = self.unclaimed.is_none() || addr::same_ip(&s.from(), local);
            !s.closing && same && addr::same(&s.to(), remote)
        });
        !joined && self.has_room(host) && self.peers.iter().any(|peer| addr::same(&peer.addr, remote))
    }

    /// Accepts an address that the peer announced, or not.
    pub(super) fn accept(&mut self, host: &Host, id: u8, remote: &SocketAddr) {
        let room = self.has_room(host);
        let joined = self.subflows.iter().any(|s| !s.closing && addr::same(&s.to(), remote));
        if let Some(unclaimed) = &mut self.unclaimed
            && room
            && !joined
            && unclaimed.taken.len() < host.limits.add_addr_accepted as usize
            && !unclaimed.taken.contains(&id)
        {
            unclaimed.taken.push(id);
        }
    }

    /// Joins that are to be made.
    pub(super) fn wanted_by_endpoints(&self, unclaimed: &Unclaimed, host: &Host) -> Vec<Wanted> {
        let mut wanted = Vec::new();
        let Some((first, to)) = self.initial else { return wanted };
        let room = (host.limits.subflows as usize).saturating_sub(self.extra());
        let live = || self.subflows.iter().filter(|s| !s.closing && !s.surplus);
        let free = |local: &SocketAddr, remote: &SocketAddr| {
            addr::pair(local, remote)
                && !unclaimed.has_tried(local, remote)
                && !live().any(|s| addr::same_ip(&s.from(), local) && addr::same(&s.to(), remote))
        };
        let joins = |endpoint: &&Endpoint| endpoint.subflow && !addr::covers(&endpoint.addr, &first);
        for endpoint in host.explicit().filter(joins).filter(|_| !self.server) {
            let mut remotes = vec![to];
            if endpoint.fullmesh {
                remotes.extend(live().map(Subflow::to).filter(|remote| !addr::same(remote, &to)));
            }
            for remote in remotes {
                if free(&endpoint.addr, &remote) {
                    wanted.push(Wanted::Pair(endpoint.addr, remote));
                }
            }
        }
        let taken = |id: Option<u8>| id.is_some_and(|id| unclaimed.taken.contains(&id));
        for peer in self.peers.iter().filter(|peer| taken(peer.id)) {
            let anywhere = unspecified(&peer.addr);
            if host.explicit().any(|endpoint| endpoint.fullmesh) {
                let all = host.explicit().filter(|e| e.fullmesh && free(&e.addr, &peer.addr));
                wanted.extend(all.map(|endpoint| Wanted::Pair(endpoint.addr, peer.addr)));
            } else if !free(&anywhere, &peer.addr) {
                continue;
            } else if host.explicit().any(|endpoint| endpoint.laminar) {
                let unused = host.explicit().find(|e| {
                    e.laminar
                        && addr::pair(&e.addr, &peer.addr)
                        && !live().any(|s| addr::same_ip(&s.from(), &e.addr))
                });
                wanted.extend(unused.map(|endpoint| Wanted::Only(endpoint.addr, peer.addr)));
            } else {
                wanted.push(Wanted::Routed(peer.addr));
            }
        }
        wanted.dedup();
        wanted.truncate(room);
        wanted
    }

    /// Endpoints that the peer is to be told of.
    pub(super) fn endpoints_to_announce<'a>(&'a self, host: &'a Host) -> impl Iterator<Item = SocketAddr> {
        let first = self.initial.map(|(local, _)| local);
        host.explicit()
            .filter(|endpoint| endpoint.signal)
            .map(|endpoint| endpoint.addr)
            .filter(move |addr| !first.is_some_and(|first| addr::covers(addr, &first)))
            .filter(|addr| !self.announced.iter().any(|(known, _)| known == addr))
    }

    /// Addresses in use that are no endpoints any more.
    fn lapsed(&self, host: &Host) -> Vec<SocketAddr> {
        let Some(unclaimed) = &self.unclaimed else { return Vec::new() };
        let announced = self.announced.iter().map(|(addr, _)| *addr);
        let silent = |addr: &SocketAddr| host.endpoint(addr).is_none_or(|endpoint| !endpoint.signal);
        // A pair that routing chose has no endpoint.
        let routed = |remote: &SocketAddr| unclaimed.has_tried(&unspecified(remote), remote);
        let tried =
            unclaimed.tried.iter().filter(|(local, remote)| !addr::is_wildcard(local) && !routed(remote));
        let tried = tried.map(|(local, _)| *local).filter(|local| host.endpoint(local).is_none());
        announced.filter(silent).chain(tried).collect()
    }
}

impl Engine {
    /// Takes the endpoints and limits as they are now.
    pub(super) fn endpoints(&mut self, mut endpoints: Vec<Endpoint>, limits: Limits, serve: bool, now: Time) {
        endpoints.truncate(ENDPOINTS_MAX);
        for endpoint in &mut endpoints {
            endpoint.addr = addr::canonical(endpoint.addr);
        }
        // The kernel has one for an address, but may be read while it changes.
        let mut named = BTreeSet::new();
        endpoints.retain(|endpoint| named.insert(endpoint.addr));
        let max = ENDPOINTS_MAX as u32;
        self.host.limits = Limits {
            subflows: limits.subflows.min(max),
            add_addr_accepted: limits.add_addr_accepted.min(max),
        };
        self.host.serve = serve;
        let before = self.host.set_endpoints(endpoints);
        let after = |old: &Endpoint| self.host.endpoints().iter().find(|new| new.addr == old.addr);
        // Only backup and fullmesh can change without a new endpoint.
        let same = |old: &Endpoint, new: &Endpoint| {
            Endpoint { backup: old.backup, fullmesh: old.fullmesh, ..*new } == *old
        };
        let explicit = || before.iter().filter(|old| !old.implicit);
        let gone: Vec<SocketAddr> = explicit()
            .filter(|old| !after(old).is_some_and(|new| same(old, new)))
            .map(|old| old.addr)
            .collect();
        let meshed: Vec<SocketAddr> = explicit()
            .filter(|old| after(old).is_some_and(|new| same(old, new) && old.fullmesh != new.fullmesh))
            .filter(|old| old.subflow)
            .map(|old| old.addr)
            .collect();
        // For one that is blind, the first look shows what lapsed.
        let able = |c: &Connection| c.phase == Phase::Open && !c.foreign && !c.blind;
        for handle in self.handles_of(|c| able(c) && c.unclaimed.is_some()) {
            self.lapse(handle, &gone);
            self.join_anew(handle, &meshed);
            self.settle(handle, now);
        }
    }

    /// Gives up what is no endpoint any more.
    fn lapse(&mut self, handle: Handle, gone: &[SocketAddr]) {
        let Some(c) = self.connections.get_mut(&handle).filter(|_| !gone.is_empty()) else { return };
        if let Some(unclaimed) = &mut c.unclaimed {
            unclaimed.tried.retain(|(local, _)| !gone.contains(local));
        }
        self.depart(handle, gone);
    }

    /// The same for what was an endpoint before a restart.
    pub(super) fn lapse_unseen(&mut self, handle: Handle) {
        if !self.host.knows_endpoints() {
            return;
        }
        let gone = self.connections.get(&handle).map_or(Vec::new(), |c| c.lapsed(&self.host));
        self.lapse(handle, &gone);
    }

    /// Closes the subflows from these endpoints, which are then made as their
    /// flags say now.
    fn join_anew(&mut self, handle: Handle, endpoints: &[SocketAddr]) {
        let Some(c) = self.connections.get_mut(&handle).filter(|_| !endpoints.is_empty()) else { return };
        if let Some(unclaimed) = &mut c.unclaimed {
            unclaimed.tried.retain(|(local, _)| !endpoints.contains(local));
        }
        let from =
            |s: &&Subflow| !s.closing && endpoints.iter().any(|endpoint| addr::covers(endpoint, &s.from()));
        let closing: Vec<Subflow> = c.subflows.iter().filter(from).copied().collect();
        self.destroy(handle, &closing);
    }

    /// Closes subflows and tells nobody.
    pub(super) fn destroy(&mut self, handle: Handle, closing: &[Subflow]) {
        if let Some(c) = self.connections.get_mut(&handle) {
            for known in &mut c.subflows {
                let goes = |s: &Subflow| s.local == known.local && s.remote == known.remote;
                known.closing = known.closing || closing.iter().any(goes);
            }
        }
        for s in closing {
            self.emit(handle, Action::Destroy { local: s.local, remote: s.remote }, None);
        }
    }

    /// Somebody asks for something: it is theirs from here on, as it is. Whether
    /// it was nobody's.
    pub(super) fn claim(&mut self, handle: Handle) -> bool {
        let Some(c) = self.connections.get_mut(&handle) else { return false };
        if c.unclaimed.take().is_none() {
            return false;
        }
        // Joins to endpoints found their listening sockets without us.
        c.listening = c.announced.iter().map(|(addr, _)| c.joined_at(addr)).collect::<Vec<_>>().into();
        true
    }
}
