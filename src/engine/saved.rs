// SPDX-License-Identifier: MIT OR Apache-2.0
//! What must outlive the process that holds the engine: plain data, to be
//! written down whenever [`Engine::poll_changed`] names a key, and given back
//! with [`Event::Restore`](super::Event::Restore).

use super::connection::{Connection, Device, Entry, Peer, Phase, Ready, Refused, Removal, State};
use super::endpoints::Unclaimed;
use super::event::{Action, Key, Time};
use super::ids::{Ids, Slot};
use super::settings::Settings;
use super::steering::{Open, Steering};
use super::{Engine, PENDING_MAX};
use crate::addr::{self, LIST_MAX};
use std::net::SocketAddr;

/// The durable part of what was asked for besides a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// What was set.
    pub settings: Settings,
    /// What holds for [`Settings::fate_sharing`] where nothing is said.
    pub fate_default: bool,
    /// It has shown that further subflows are worth it.
    pub demanded: bool,
    /// It is to end, as its initial subflow has.
    pub doomed: bool,
    /// Priorities that were set by hand.
    pub pinned: Vec<(SocketAddr, SocketAddr, bool)>,
    /// Pairs that were closed by hand.
    pub barred: Vec<(SocketAddr, SocketAddr)>,
    /// Subflows to be opened by hand, from where, where to, for backup; any
    /// local address is the unspecified one.
    pub opens: Vec<(SocketAddr, SocketAddr, bool)>,
}

/// The durable part of what is known of a socket or connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// Identity of the socket.
    pub key: Key,
    /// The kernel's token, where there is a connection.
    pub token: Option<u32>,
    /// It was accepted, not made.
    pub server: bool,
    /// There is a list.
    pub listed: bool,
    /// The list.
    pub entries: Vec<Entry>,
    /// The specific address that the application bound the socket to.
    pub bound: Option<SocketAddr>,
    /// The device that the application bound the socket to.
    pub device: Option<Device>,
    /// Removed without having been listed.
    pub excluded: Vec<SocketAddr>,
    /// Removed, but the kernel hasn't been told.
    pub leaving: Vec<SocketAddr>,
    /// Address pair of the initial subflow.
    pub initial: Option<(SocketAddr, SocketAddr)>,
    /// Addresses of the peer, the initial one first.
    pub peers: Vec<Peer>,
    /// MPTCP address ids in use.
    pub ids: Vec<Slot>,
    /// The id given out last.
    pub last_id: u8,
    /// What the peer was told of, and under which id.
    pub announced: Vec<(SocketAddr, u8)>,
    /// Those of which it isn't certain: the peer is told again.
    pub untold: Vec<SocketAddr>,
    /// What the peer was to be told the end of, of which it isn't certain
    /// either.
    pub withdrawn: Vec<(SocketAddr, u8)>,
    /// Subflows that should come back though no list asks for them.
    pub missed: Vec<(SocketAddr, SocketAddr)>,
    /// What was asked for besides the list.
    pub wishes: Wishes,
    /// The in-kernel path manager has it.
    pub foreign: bool,
    /// Nobody asked for anything: it gets what the in-kernel path manager
    /// would give it.
    pub unclaimed: bool,
    /// For such a one: pairs that were tried.
    pub tried: Vec<(SocketAddr, SocketAddr)>,
    /// For such a one: ids of the peer's addresses that were accepted.
    pub taken: Vec<u8>,
}

impl Engine {
    /// The durable state of the socket or connection with this identity.
    pub fn save(&self, key: &Key) -> Option<Saved> {
        self.by_key(key).map(Saved::of)
    }

    /// Makes a connection known as it was; what is known already stays.
    pub(super) fn restore(&mut self, saved: Saved, now: Time) {
        let known = self.by_key.contains_key(&saved.key)
            || saved.token.is_some_and(|token| self.by_token.contains_key(&token));
        if known || saved.key.inode == 0 {
            return;
        }
        let (key, token) = (saved.key, saved.token.filter(|_| saved.initial.is_some()));
        let handle = self.insert(saved.revive(now));
        self.identify(handle, key);
        if let Some(token) = token {
            self.name(handle, token);
        }
        self.settle(handle, now);
    }
}

impl Wishes {
    fn of(steering: &Steering) -> Self {
        Self {
            settings: steering.settings,
            fate_default: steering.fate_default,
            demanded: steering.demanded,
            doomed: steering.doomed,
            pinned: steering.pinned.to_vec(),
            barred: steering.barred.to_vec(),
            opens: steering.queued().map(Open::written).collect(),
        }
    }

    fn revive(self) -> Steering {
        let opens: Vec<Open> = self.opens.iter().take(PENDING_MAX).map(Open::of).collect();
        Steering {
            settings: self.settings,
            fate_default: self.fate_default,
            demanded: self.demanded,
            doomed: self.doomed,
            pinned: self.pinned.into_iter().take(512).collect::<Vec<_>>().into(),
            barred: self.barred.into_iter().take(LIST_MAX).collect::<Vec<_>>().into(),
            opens: opens.into(),
            ..Steering::default()
        }
    }
}

impl Saved {
    pub(super) fn of(c: &Connection) -> Self {
        let flight = c.flight.as_deref();
        let mut leaving: Vec<SocketAddr> = c.removals.iter().flat_map(|r| r.addrs.iter().copied()).collect();
        leaving.extend(flight.iter().flat_map(|flight| flight.departing.iter()));
        leaving.sort_unstable();
        leaving.dedup();
        let asked = |local: &SocketAddr, remote: &SocketAddr| {
            c.routing.contains(remote)
                || c.subflows.iter().any(|s| {
                    s.state == State::Asked && addr::same_ip(&s.from(), local) && addr::same(&s.to(), remote)
                })
        };
        let (tried, taken) = c.unclaimed.as_deref().map_or_else(Default::default, |known| {
            let tried = known.tried.iter().filter(|(local, remote)| !asked(local, remote));
            (tried.copied().collect(), known.taken.to_vec())
        });
        Self {
            key: c.key,
            token: c.token,
            server: c.server,
            listed: c.listed,
            entries: c.entries.clone(),
            bound: c.bound,
            device: c.device.as_deref().cloned(),
            excluded: c.excluded.to_vec(),
            leaving,
            initial: c.initial,
            peers: c.peers.clone(),
            ids: c.ids.iter().collect(),
            last_id: c.ids.last(),
            announced: c.announced.to_vec(),
            untold: flight.map_or(Vec::new(), |flight| flight.untold.iter().map(|(addr, _)| *addr).collect()),
            withdrawn: flight.map_or(Vec::new(), |flight| flight.withdrawn.to_vec()),
            missed: c.missed.to_vec(),
            wishes: c.steering.as_deref().map_or_else(Wishes::default, Wishes::of),
            foreign: c.foreign,
            unclaimed: c.unclaimed.is_some(),
            tried,
            taken,
        }
    }

    /// The connection again, of whose subflows nothing is known. What was
    /// written down is believed as far as it can be.
    fn revive(self, now: Time) -> Connection {
        let mut c = Connection::new(self.key);
        (c.server, c.listed, c.foreign) = (self.server, self.listed, self.foreign);
        (c.bound, c.device) = (self.bound, self.device.map(Box::new));
        for entry in self.entries.into_iter().take(LIST_MAX) {
            if !c.entries.iter().any(|known| known.addr == entry.addr) {
                c.entries.push(entry);
            }
        }
        c.excluded = self.excluded.into_iter().take(LIST_MAX).collect();
        for peer in self.peers.into_iter().take(512) {
            if !c.peers.iter().any(|known| known.addr == peer.addr) {
                c.peers.push(peer);
            }
        }
        c.ids = Ids::from(self.ids, self.last_id);
        c.missed = self.missed.into_iter().take(LIST_MAX).collect::<Vec<_>>().into();
        for (addr, id) in self.announced {
            if c.ids.get(&addr).is_some_and(|slot| slot.id == id) {
                c.announced.push((addr, id));
                if self.untold.contains(&addr) {
                    c.flight().tells(addr, 0);
                    let action = Action::Announce { local: addr, id };
                    c.refused.push(Refused { action, until: now, wait: Time::ZERO });
                }
            }
        }
        for (addr, id) in self.withdrawn.into_iter().take(LIST_MAX) {
            c.flight().withdrawn.push((addr, id));
            c.refused.push(Refused { action: Action::Remove { id }, until: now, wait: Time::ZERO });
        }
        c.steering = Some(Box::new(self.wishes.revive()));
        c.tidy();
        // Where anything was asked for it is somebody's.
        if self.unclaimed && !c.steers() {
            let tried: Vec<(SocketAddr, SocketAddr)> = self.tried.into_iter().take(1024).collect();
            let taken: Vec<u8> = self.taken.into_iter().take(255).collect();
            c.unclaimed = Some(Box::new(Unclaimed { tried: tried.into(), taken: taken.into() }));
        }
        if let (Some(_), Some(initial)) = (self.token, self.initial) {
            c.phase = Phase::Open;
            c.initial = Some((addr::canonical(initial.0), addr::canonical(initial.1)));
            (c.ready, c.blind, c.began) = (Ready::Unknown, true, now);
            for addrs in self.leaving.chunks(LIST_MAX).take(PENDING_MAX) {
                c.removals.push(Removal { addrs: addrs.to_vec(), deadline: now, request: None });
            }
        }
        c
    }
}
