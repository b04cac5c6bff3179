// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which local addresses can be used now: they are there, and their link has a
//! carrier.

use mptcpapi::kernel::rtnl::{Change, Monitor};
use mptcpapi::manager::Manager;
use mptcpapi::{Errno, Error};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

/// The namespace's links and addresses.
pub struct Links {
    monitor: Monitor,
    links: BTreeMap<u32, Link>,
    addresses: BTreeMap<IpAddr, BTreeSet<u32>>,
    /// Addresses that something was said of and that can't be used.
    unusable: BTreeSet<IpAddr>,
}

struct Link {
    name: String,
    usable: bool,
}

impl AsFd for Links {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.monitor.as_fd()
    }
}

impl Links {
    /// Begins to listen.
    pub fn open() -> Result<Self, Error> {
        let monitor = Monitor::open().map_err(|errno| Error::kernel(errno, "listening to rtnetlink"))?;
        Ok(Self { monitor, links: BTreeMap::new(), addresses: BTreeMap::new(), unusable: BTreeSet::new() })
    }

    /// Looks at everything as it is now.
    pub fn look(&mut self, manager: &mut Manager) {
        let Ok(changes) = self.monitor.dump() else { return };
        self.links.clear();
        let before = std::mem::take(&mut self.addresses);
        let mut touched: BTreeSet<IpAddr> = before.into_keys().collect();
        changes.into_iter().for_each(|change| self.take(change, &mut touched));
        self.tell(touched, manager);
    }

    /// Takes what has changed.
    pub fn read(&mut self, manager: &mut Manager) {
        let mut changes = Vec::new();
        let lost = self.monitor.drain(|change| changes.push(change)) == Err(Errno(libc::ENOBUFS));
        let mut touched = BTreeSet::new();
        changes.into_iter().for_each(|change| self.take(change, &mut touched));
        self.tell(touched, manager);
        if lost {
            self.look(manager);
        }
    }

    /// Whether this host has an address, ready to be used; a link-local one at
    /// the interface of its scope.
    pub fn has(&self, addr: &SocketAddr) -> bool {
        self.index_of(addr).is_some()
    }

    fn index_of(&self, addr: &SocketAddr) -> Option<u32> {
        let holders = self.addresses.get(&addr.ip().to_canonical())?;
        match addr {
            SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() => holders.get(&v6.scope_id()).copied(),
            _ => holders.first().copied(),
        }
    }

    /// The interface that holds an address.
    pub fn holder(&self, addr: &SocketAddr) -> Option<&str> {
        self.links.get(&self.index_of(addr)?).map(|link| link.name.as_str())
    }

    fn take(&mut self, change: Change, touched: &mut BTreeSet<IpAddr>) {
        match change {
            Change::Address { addr, ifindex, present, tentative } => {
                let holders = self.addresses.entry(addr).or_default();
                if present && !tentative {
                    holders.insert(ifindex);
                } else {
                    holders.remove(&ifindex);
                }
                if holders.is_empty() {
                    self.addresses.remove(&addr);
                }
                touched.insert(addr);
            }
            Change::Link { ifindex, name, usable, present } => {
                if present {
                    self.links.insert(ifindex, Link { name, usable });
                } else {
                    self.links.remove(&ifindex);
                }
                let held = self.addresses.iter().filter(|(_, holders)| holders.contains(&ifindex));
                touched.extend(held.map(|(addr, _)| *addr));
            }
        }
    }

    fn tell(&mut self, touched: BTreeSet<IpAddr>, manager: &mut Manager) {
        for addr in touched {
            let usable = self.addresses.get(&addr).is_some_and(|holders| {
                // Of a link not told of yet nothing bad is known.
                holders.iter().any(|ifindex| self.links.get(ifindex).is_none_or(|link| link.usable))
            });
            let changed = if usable { self.unusable.remove(&addr) } else { self.unusable.insert(addr) };
            if changed {
                manager.address(addr, usable);
            }
        }
    }
}
