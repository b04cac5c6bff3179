// SPDX-License-Identifier: MIT OR Apache-2.0
//! rtnetlink: which addresses and links the network namespace has, and what
//! becomes of them. The path managers don't look (a dead link's subflows
//! stay until their timers end), so somebody must.

use super::netlink::{Message, Received, Refusal, Socket, find};
use super::sockopt;
use super::uapi::*;
use crate::error::{Errno, KernelResult};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd};

/// What is so from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// An address of this host.
    Address {
        /// The address.
        addr: IpAddr,
        /// The interface that holds it.
        ifindex: u32,
        /// Whether it is there, or was removed.
        present: bool,
        /// It can't be used yet, or never, if another host has it (IPv6's
        /// duplicate address detection). Told again when it can.
        tentative: bool,
    },
    /// A network interface.
    Link {
        /// Its number.
        ifindex: u32,
        /// Its name now.
        name: String,
        /// Packets can leave: it is up, has a carrier, and waits for nothing.
        usable: bool,
        /// Whether it is there, or was removed from the namespace.
        present: bool,
    },
}

impl Change {
    /// Reads one message; `None` for those of other matters.
    pub fn parse(message: &Received<'_>) -> Option<Self> {
        match message.kind {
            libc::RTM_NEWLINK => Self::link(message.payload, true),
            libc::RTM_DELLINK => Self::link(message.payload, false),
            libc::RTM_NEWADDR => Self::address(message.payload, true),
            libc::RTM_DELADDR => Self::address(message.payload, false),
            _ => None,
        }
    }

    /// struct ifinfomsg and its attributes.
    fn link(payload: &[u8], present: bool) -> Option<Self> {
        let (header, attributes) = payload.split_at_checked(16)?;
        // A bridge tells of its ports in messages of the same kinds; one that
        // leaves it isn't gone.
        if i32::from(*header.first()?) != libc::AF_UNSPEC {
            return None;
        }
        let word = |at: usize| Some(u32::from_ne_bytes(header.get(at..at + 4)?.try_into().ok()?));
        let name = find(attributes, libc::IFLA_IFNAME).unwrap_or_default();
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        Some(Self::Link {
            ifindex: word(4)?,
            name: String::from_utf8_lossy(name).into_owned(),
            // RUNNING: its operational state (RFC 2863) is up, or unknown
            // where the driver doesn't tell.
            usable: present && word(8)? & USABLE == USABLE,
            present,
        })
    }

    /// struct ifaddrmsg and its attributes.
    fn address(payload: &[u8], present: bool) -> Option<Self> {
        let (header, attributes) = payload.split_at_checked(8)?;
        let [family, _, flags, _, i0, i1, i2, i3] = *header else { return None };
        // On a point-to-point link IFA_ADDRESS is the other end.
        let bytes = find(attributes, libc::IFA_LOCAL).or_else(|| find(attributes, libc::IFA_ADDRESS))?;
        let addr: IpAddr = match i32::from(family) {
            libc::AF_INET => Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into(),
            libc::AF_INET6 => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into(),
            _ => return None,
        };
        let wide = find(attributes, IFA_FLAGS).and_then(|bytes| bytes.try_into().ok());
        let flags = wide.map_or(u32::from(flags), u32::from_ne_bytes);
        let undecided = flags & libc::IFA_F_TENTATIVE != 0 && flags & libc::IFA_F_OPTIMISTIC == 0;
        Some(Self::Address {
            addr,
            ifindex: u32::from_ne_bytes([i0, i1, i2, i3]),
            present,
            tentative: undecided || flags & libc::IFA_F_DADFAILED != 0,
        })
    }
}

const USABLE: u32 = (libc::IFF_UP | libc::IFF_RUNNING | libc::IFF_LOWER_UP) as u32;

/// Hears of every change of addresses and links in the network namespace.
/// Needs no privilege.
#[derive(Debug)]
pub struct Monitor {
    heard: Socket,
    /// Apart, so that answers and changes don't mix.
    asking: Socket,
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.heard.as_fd()
    }
}

impl Monitor {
    /// Starts to listen in the calling thread's network namespace. A
    /// [`Monitor::dump`] after it and what is drained after that miss nothing.
    pub fn open() -> KernelResult<Self> {
        let heard = Socket::open(libc::NETLINK_ROUTE)?;
        // The default holds some fifty changes of links.
        let size = 1 << 20;
        if sockopt::set_int(heard.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, size).is_err() {
            let _ = sockopt::set_int(heard.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, size);
        }
        for group in [libc::RTNLGRP_LINK, libc::RTNLGRP_IPV4_IFADDR, libc::RTNLGRP_IPV6_IFADDR] {
            heard.join(group)?;
        }
        Ok(Self { heard, asking: Socket::open(libc::NETLINK_ROUTE)? })
    }

    /// Gives what has changed to `each` without waiting. ENOBUFS: changes were
    /// lost, look at everything again ([`Monitor::dump`]).
    pub fn drain(&mut self, mut each: impl FnMut(Change)) -> KernelResult<()> {
        self.heard.drain(|message| Change::parse(&message).into_iter().for_each(&mut each))
    }

    /// Every link and every address as they are now, as if they had just come.
    pub fn dump(&mut self) -> Result<Vec<Change>, Refusal> {
        // Something changes meanwhile: the answer has holes.
        const ATTEMPTS: usize = 16;
        let mut result = Err(Errno(libc::EAGAIN).into());
        for _ in 0..ATTEMPTS {
            result = self.dump_once();
            if !matches!(result, Err(Refusal { errno: Errno(libc::EAGAIN), .. })) {
                break;
            }
        }
        result
    }

    fn dump_once(&mut self) -> Result<Vec<Change>, Refusal> {
        let flags = NLM_F_REQUEST | NLM_F_DUMP;
        let links = Message::new(libc::RTM_GETLINK, flags)
            .raw(&[0; 16])
            .attr(libc::IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
        let addresses = Message::new(libc::RTM_GETADDR, flags).raw(&[0; 8]);
        let mut all = Vec::new();
        for question in [links, addresses] {
            self.asking.converse(question, |message| all.extend(Change::parse(&message)))?;
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::super::lab;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn garbage_never_panics(kind in 16u16..24, payload in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = Change::parse(&Received { kind, flags: 0, sequence: 0, payload: &payload });
        }
    }

    fn link(name: &str) -> u32 {
        let name = std::ffi::CString::new(name).unwrap();
        // SAFETY: a C string.
        unsafe { libc::if_nametoindex(name.as_ptr()) }
    }

    /// Waits for a change that satisfies `wanted`; what came before is gone.
    fn wait(monitor: &mut Monitor, what: &str, wanted: impl Fn(&Change) -> bool) {
        lab::until(what, || {
            let mut seen = false;
            monitor.drain(|change| seen |= wanted(&change)).unwrap();
            seen
        });
    }

    fn is_link(change: &Change, index: u32, now: (bool, bool)) -> bool {
        matches!(change, Change::Link { ifindex, usable, present, .. }
            if *ifindex == index && (*usable, *present) == now)
    }

    #[test]
    fn links_and_addresses_are_followed() {
        lab::alone(|| {
            let mut monitor = Monitor::open().unwrap();
            lab::run("ip link add here type veth peer name there");
            let here = link("here");
            wait(&mut monitor, "a new link", |change| is_link(change, here, (false, true)));
            lab::run("ip link set here up");
            lab::run("ip link set there up");
            wait(&mut monitor, "a carrier", |change| is_link(change, here, (true, true)));
            lab::run("ip link set there down");
            wait(&mut monitor, "no carrier", |change| is_link(change, here, (false, true)));
            lab::run("ip link set there up");
            wait(&mut monitor, "a carrier again", |change| is_link(change, here, (true, true)));
            lab::run("ip link set here down");
            wait(&mut monitor, "set down", |change| is_link(change, here, (false, true)));
            lab::run("ip link set here up");

            // The other end's address must not be taken for ours.
            for (addr, peer) in [("10.7.0.1", "10.7.0.2/32"), ("fd07::1", "fd07::2/128 nodad")] {
                lab::run(&format!("ip addr add {addr} peer {peer} dev here"));
                let addr: IpAddr = addr.parse().unwrap();
                let now = Change::Address { addr, ifindex: here, present: true, tentative: false };
                wait(&mut monitor, "an address", |change| *change == now);
                assert!(monitor.dump().unwrap().contains(&now));
            }
            lab::run("ip addr del 10.7.0.1 peer 10.7.0.2/32 dev here");
            let gone = Change::Address {
                addr: "10.7.0.1".parse().unwrap(),
                ifindex: here,
                present: false,
                tentative: false,
            };
            wait(&mut monitor, "an address less", |change| *change == gone);

            let all = monitor.dump().unwrap();
            let named = |change: &Change| {
                matches!(change, Change::Link { ifindex, name, usable: true, present: true }
                    if *ifindex == here && name == "here")
            };
            assert_eq!(all.iter().filter(|change| named(change)).count(), 1, "{all:?}");
            assert!(!all.iter().any(|c| matches!(c, Change::Link { present: false, .. })));
            let loopback = Ipv4Addr::LOCALHOST.into();
            let loopback = Change::Address { addr: loopback, ifindex: 1, present: true, tentative: false };
            assert!(all.contains(&loopback), "{all:?}");
            lab::run("ip link del here");
            wait(&mut monitor, "a link less", |change| is_link(change, here, (false, false)));
        });
    }

    #[test]
    fn an_address_is_tentative_until_it_is_known_to_be_unique() {
        lab::alone(|| {
            let mut monitor = Monitor::open().unwrap();
            lab::run("ip link add here type veth peer name there");
            lab::run("ip link set there up");
            lab::run("ip link set here up");
            lab::run("ip -6 addr add fd07::1/64 dev here");
            let addr: IpAddr = "fd07::1".parse().unwrap();
            for undecided in [true, false] {
                wait(&mut monitor, "an IPv6 address", |change| {
                    matches!(change, Change::Address { addr: a, present: true, tentative, .. }
                        if *a == addr && *tentative == undecided)
                });
            }
        });
    }

    #[test]
    fn a_port_that_leaves_its_bridge_is_not_gone() {
        lab::alone(|| {
            lab::run("ip link add here type veth peer name there");
            lab::run("ip link add bridge type bridge");
            let mut monitor = Monitor::open().unwrap();
            let here = link("here");
            lab::run("ip link set here master bridge");
            lab::run("ip link set here nomaster");
            lab::run("ip link set there name last");
            wait(&mut monitor, "the last change", |change| {
                assert!(!is_link(change, here, (false, false)), "{change:?}");
                matches!(change, Change::Link { name, .. } if name == "last")
            });
        });
    }

    #[test]
    fn lost_changes_are_said_to_be_lost() {
        lab::alone(|| {
            let mut monitor = Monitor::open().unwrap();
            sockopt::set_int(monitor.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, 2048).unwrap();
            for n in 0..8 {
                lab::run(&format!("ip link add here{n} type veth peer name there{n}"));
            }
            assert_eq!(monitor.drain(drop), Err(Errno(libc::ENOBUFS)));
            assert_eq!(monitor.drain(drop), Ok(()));
            let all = monitor.dump().unwrap();
            for n in 0..8 {
                let index = link(&format!("here{n}"));
                assert!(all.iter().any(|change| is_link(change, index, (false, true))), "{all:?}");
            }
        });
    }
}
