// SPDX-License-Identifier: MIT OR Apache-2.0
//! MPTCP address ids of one connection (RFC 8684 section 3.4.1).
//!
//! The kernel keeps a table of its own, keyed by address *and* port, and takes
//! whatever id a command names (KERNEL pm_userspace.c). So an address keeps one
//! id, and with it the port that the kernel's entry was made with, until it is
//! removed; id 0 is the initial subflow's address and never given out.

use crate::addr;
use std::net::SocketAddr;

/// One id in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot {
    /// The id.
    pub id: u8,
    /// The address as it is known to the application: port 0 for any.
    pub addr: SocketAddr,
    /// The port that commands for it name.
    pub port: u16,
}

impl Slot {
    /// Whether the id is another's, whose address isn't known.
    pub fn is_aside(&self) -> bool {
        addr::is_wildcard(&self.addr)
    }
}

/// The table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ids {
    slots: Box<[Slot]>,
    last: u8,
}

impl Ids {
    /// A table that was: what contradicts itself in it is left out.
    pub fn from(slots: Vec<Slot>, last: u8) -> Self {
        let mut ids = Self { last, ..Self::default() };
        for mut slot in slots {
            if slot.addr.port() != 0 {
                slot.port = slot.addr.port();
            }
            let taken = |known: &Slot| known.id == slot.id || known.addr == slot.addr;
            if !ids.slots.iter().any(taken) {
                ids.put(slot);
            }
        }
        ids
    }

    fn keep(&mut self, keep: impl FnMut(&Slot) -> bool) {
        let mut slots = std::mem::take(&mut self.slots).into_vec();
        slots.retain(keep);
        self.slots = slots.into_boxed_slice();
    }

    fn put(&mut self, slot: Slot) {
        let mut slots = std::mem::take(&mut self.slots).into_vec();
        slots.reserve_exact(1);
        slots.push(slot);
        self.slots = slots.into_boxed_slice();
    }

    /// The id given out last.
    pub fn last(&self) -> u8 {
        self.last
    }

    /// The slot of an address, exactly this port.
    pub fn get(&self, addr: &SocketAddr) -> Option<Slot> {
        self.slots.iter().find(|slot| slot.addr == *addr).copied()
    }

    /// Notes an id that the kernel gave, whatever we knew of it.
    pub fn reserve(&mut self, id: u8, addr: SocketAddr, port: u16) {
        self.keep(|slot| slot.id != id && slot.addr != addr);
        self.put(Slot { id, addr, port });
    }

    /// Notes that an id is another's, under an address that nobody asks for.
    pub fn set_aside(&mut self, id: u8, anywhere: SocketAddr) {
        self.reserve(id, addr::with_port(anywhere, id.into()), id.into());
    }

    /// The address's id, or a new one: 1 to 255, the one longest unused first.
    /// `None` when all are taken.
    pub fn allocate(&mut self, addr: SocketAddr, port: u16) -> Option<Slot> {
        self.allocate_as(addr, port, 0)
    }

    /// The same; a new id is this one, if it is free and not 0.
    pub fn allocate_as(&mut self, addr: SocketAddr, port: u16, wish: u8) -> Option<Slot> {
        if let Some(slot) = self.get(&addr) {
            return Some(slot);
        }
        if wish != 0 && !self.slots.iter().any(|slot| slot.id == wish) {
            let slot = Slot { id: wish, addr, port };
            self.put(slot);
            return Some(slot);
        }
        let id = self.longest_unused().or_else(|| {
            // What was another's may not be any more.
            self.keep(|slot| !slot.is_aside());
            self.longest_unused()
        })?;
        let slot = Slot { id, addr, port };
        self.put(slot);
        self.last = id;
        Some(slot)
    }

    fn longest_unused(&self) -> Option<u8> {
        let after = (1..=u8::MAX).filter(|id| *id > self.last);
        let mut ids = after.chain(1..=self.last);
        ids.find(|id| !self.slots.iter().any(|slot| slot.id == *id))
    }

    /// From now on commands for this address name another port.
    pub fn set_port(&mut self, addr: &SocketAddr, port: u16) {
        for slot in self.slots.iter_mut().filter(|slot| slot.addr == *addr) {
            slot.port = port;
        }
    }

    /// Gives the id of an address up.
    pub fn free(&mut self, addr: &SocketAddr) {
        self.keep(|slot| slot.addr != *addr);
    }

    /// Every slot, in the order in which they were taken.
    pub fn iter(&self) -> impl Iterator<Item = Slot> + '_ {
        self.slots.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn addr(n: u16) -> SocketAddr {
        let [a, b] = n.to_be_bytes();
        (Ipv4Addr::new(10, 0, a, b), 0).into()
    }

    #[test]
    fn an_address_keeps_its_id_and_zero_is_never_given() {
        let mut ids = Ids::default();
        let given: Vec<u8> = (0..255).map(|n| ids.allocate(addr(n), 0).unwrap().id).collect();
        assert!(!given.contains(&0));
        assert_eq!(given.iter().collect::<std::collections::BTreeSet<_>>().len(), 255);
        assert!(ids.allocate(addr(300), 0).is_none());
        assert_eq!(ids.allocate(addr(7), 0).unwrap().id, given[7]);
        ids.free(&addr(7));
        assert_eq!(ids.allocate(addr(300), 0).unwrap().id, given[7]);
    }

    #[test]
    fn an_id_that_was_another_s_is_better_than_none() {
        let mut ids = Ids::default();
        for n in 0..255 {
            let id = ids.allocate(addr(n), 0).unwrap().id;
            if n < 200 {
                ids.set_aside(id, (Ipv4Addr::UNSPECIFIED, 0).into());
            }
        }
        assert_eq!(ids.allocate(addr(300), 0).unwrap().id, 1);
        assert_eq!(ids.iter().count(), 56);
    }

    #[test]
    fn a_freed_id_is_not_used_again_at_once() {
        let mut ids = Ids::default();
        let first = ids.allocate(addr(1), 0).unwrap().id;
        ids.free(&addr(1));
        assert_ne!(ids.allocate(addr(2), 0).unwrap().id, first);
    }
}
