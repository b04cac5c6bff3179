// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel's list of a connection's local addresses and their ids (KERNEL
//! pm_userspace.c): in order of insertion, keyed by address and port, looked up
//! by the address alone where something is deleted or the peer joins.

use super::*;

#[derive(Clone, Debug, Default)]
pub struct Table(Vec<(u8, SocketAddr)>);

impl Table {
    /// An address is named with an id: whether they fit what is there.
    pub fn append(&mut self, id: u8, addr: SocketAddr) -> bool {
        match self.0.iter().find(|known| known.0 == id || known.1 == addr) {
            Some(known) => *known == (id, addr),
            None => {
                self.0.push((id, addr));
                true
            }
        }
    }

    /// A subflow from here was destroyed, or not made: the first entry with the
    /// address goes, whatever it was made for.
    pub fn delete(&mut self, addr: &SocketAddr) {
        if let Some(at) = self.0.iter().position(|known| addr::same_ip(&known.1, addr)) {
            self.0.remove(at);
        }
    }

    /// An id is removed: whether it was there.
    pub fn remove(&mut self, id: u8) -> bool {
        let before = self.0.len();
        self.0.retain(|known| known.0 != id);
        self.0.len() < before
    }

    /// The peer joins at an address: its id, or the lowest that is free.
    pub fn join(&mut self, addr: SocketAddr) -> u8 {
        if let Some(known) = self.0.iter().find(|known| addr::same_ip(&known.1, &addr)) {
            return known.0;
        }
        let id = (1..).find(|id| !self.0.iter().any(|known| known.0 == *id)).unwrap();
        self.0.push((id, addr));
        id
    }
}
