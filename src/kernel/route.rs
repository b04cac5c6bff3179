// SPDX-License-Identifier: MIT OR Apache-2.0
//! Addresses of this host and routes to others, asked by sockets that send
//! nothing: what the kernel answers is what it would do.

use super::netlink::{Message, Socket, find};
use super::sockopt;
use super::uapi::*;
use crate::addr;
use crate::error::{Errno, KernelResult};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, OwnedFd};

/// An address of this host and its interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostAddress {
    /// The address, port 0; link-local ones with their scope id.
    pub addr: SocketAddr,
    /// The interface that holds it.
    pub ifindex: u32,
    /// The interface's name.
    pub interface: String,
}

fn probe(addr: &SocketAddr, kind: i32) -> KernelResult<OwnedFd> {
    let family = if addr.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    sockopt::socket(family, kind | libc::SOCK_CLOEXEC, 0)
}

/// Whether a socket can be bound to this local address: EADDRNOTAVAIL where it
/// is not of this host; where the port is not 0 also EADDRINUSE and EACCES.
pub fn bindable(local: &SocketAddr) -> KernelResult<()> {
    Binder::default().bindable(local)
}

/// The same of several, by as few sockets as will do.
#[derive(Debug, Default)]
pub struct Binder {
    /// Of IPv4 and of IPv6; as they take no port they can be bound again.
    again: [Option<OwnedFd>; 2],
}

impl Binder {
    /// See [`bindable`].
    pub fn bindable(&mut self, local: &SocketAddr) -> KernelResult<()> {
        // A link-local address binds to its interface too.
        let once = local.port() != 0 || matches!(local, SocketAddr::V6(v6) if addr::is_link_local(v6.ip()));
        let [v4, v6] = &mut self.again;
        let slot = if local.is_ipv4() { v4 } else { v6 };
        if !once && slot.is_none() {
            let fresh = probe(local, libc::SOCK_DGRAM)?;
            let no_port = libc::IP_BIND_ADDRESS_NO_PORT;
            *slot = sockopt::set_int(fresh.as_fd(), libc::IPPROTO_IP, no_port, 1).is_ok().then_some(fresh);
        }
        match slot {
            Some(socket) if !once => sockopt::bind(socket.as_fd(), local),
            _ => sockopt::bind(probe(local, libc::SOCK_STREAM)?.as_fd(), local),
        }?;
        if is_broadcast(local) { Err(Errno(libc::EADDRNOTAVAIL)) } else { Ok(()) }
    }
}

/// Whether it is the broadcast address of a network of this host: a socket can
/// be bound to that, and then begins from any address.
fn is_broadcast(local: &SocketAddr) -> bool {
    // Networks have two bits for their hosts at least, all set in this one.
    let all = matches!(local, SocketAddr::V4(v4) if u32::from(*v4.ip()) & 3 == 3);
    // To send there takes SO_BROADCAST.
    all && source(local) == Err(Errno(libc::EACCES))
}

/// The local address, port 0, that routing chooses towards `remote`.
pub fn source(remote: &SocketAddr) -> KernelResult<SocketAddr> {
    let socket = probe(remote, libc::SOCK_DGRAM)?;
    sockopt::connect(socket.as_fd(), &at_some_port(remote))?;
    Ok(addr::with_port(addr::canonical(sockopt::sockname(socket.as_fd())?), 0))
}

/// Whether there is a route to `remote` from this local address.
pub fn reaches(local: &SocketAddr, remote: &SocketAddr) -> bool {
    let attempt = || -> KernelResult<()> {
        let socket = probe(remote, libc::SOCK_DGRAM)?;
        sockopt::bind(socket.as_fd(), &addr::with_port(*local, 0))?;
        sockopt::connect(socket.as_fd(), &at_some_port(remote))
    };
    local.is_ipv4() == remote.is_ipv4() && attempt().is_ok()
}

/// connect(2) wants a port, routing doesn't.
fn at_some_port(remote: &SocketAddr) -> SocketAddr {
    if remote.port() == 0 { addr::with_port(*remote, 9) } else { *remote }
}

/// Every address of this host, by getifaddrs(3).
pub fn host_addresses() -> KernelResult<Vec<HostAddress>> {
    let mut list = std::ptr::null_mut::<libc::ifaddrs>();
    // SAFETY: getifaddrs writes one pointer on success.
    if unsafe { libc::getifaddrs(&raw mut list) } != 0 {
        return Err(Errno::last());
    }
    let mut found = Vec::new();
    let mut next = list;
    // SAFETY: `next` is null or an element of the list, which lives until
    // freeifaddrs below.
    while let Some(item) = unsafe { next.as_ref() } {
        next = item.ifa_next;
        // SAFETY: ifa_name is a C string of the same list.
        let name = unsafe { std::ffi::CStr::from_ptr(item.ifa_name) };
        // SAFETY: ifa_name ends with a NUL, as if_nametoindex wants.
        let ifindex = unsafe { libc::if_nametoindex(item.ifa_name) };
        // SAFETY: ifa_addr is null or a sockaddr of the family it names.
        if let Some(addr) = unsafe { address_at(item.ifa_addr) } {
            found.push(HostAddress {
                addr: addr::with_port(addr::canonical(addr), 0),
                ifindex,
                interface: name.to_string_lossy().into_owned(),
            });
        }
    }
    // SAFETY: the list came from getifaddrs and nothing refers to it any more.
    unsafe { libc::freeifaddrs(list) };
    Ok(found)
}

/// # Safety
/// `at` is null or leads to a whole sockaddr of the family that it names.
unsafe fn address_at(at: *const libc::sockaddr) -> Option<SocketAddr> {
    // SAFETY: by the contract above the family can be read.
    let family = i32::from(unsafe { at.as_ref() }?.sa_family);
    match family {
        libc::AF_INET => {
            // SAFETY: the family says that a sockaddr_in is there.
            let v4 = unsafe { at.cast::<libc::sockaddr_in>().read_unaligned() };
            Some((Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr)), 0).into())
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that a sockaddr_in6 is there.
            let v6 = unsafe { at.cast::<libc::sockaddr_in6>().read_unaligned() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            Some(SocketAddrV6::new(ip, 0, 0, v6.sin6_scope_id).into())
        }
        _ => None,
    }
}

/// Every address of this host with the interface that holds it: without the
/// rest of [`host_addresses`], at a fifth of its price.
pub fn holders() -> KernelResult<Vec<(IpAddr, u32)>> {
    let mut found = Vec::new();
    let any = Message::new(RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP).raw(&[0; 8]);
    let mut socket = Socket::open(libc::NETLINK_ROUTE)?;
    let dump = socket.converse(any, |reply| {
        if reply.kind == RTM_NEWADDR {
            found.extend(held(reply.payload));
        }
    });
    dump.map_err(|refusal| refusal.errno)?;
    Ok(found)
}

/// struct ifaddrmsg and its attributes: of a pair with a peer IFA_ADDRESS is
/// the peer.
fn held(message: &[u8]) -> Option<(IpAddr, u32)> {
    let index = u32::from_ne_bytes(message.get(4..8)?.try_into().ok()?);
    let attributes = message.get(8..)?;
    let bytes = find(attributes, IFA_LOCAL).or_else(|| find(attributes, IFA_ADDRESS))?;
    let ip = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        _ => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
    };
    Some((ip, index))
}

/// The interface that holds an address of this host: a link-local one's scope.
pub fn holder(local: &IpAddr) -> Option<u32> {
    holders().ok()?.into_iter().find(|(ip, _)| ip == local).map(|(_, ifindex)| ifindex)
}

#[cfg(test)]
mod tests {
    use super::super::lab;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_listings_agree() {
        // Interfaces of other tests may come and go, but not lo.
        let lo = |list: Vec<(IpAddr, u32)>| {
            let mut list: Vec<_> = list.into_iter().filter(|(ip, _)| ip.is_loopback()).collect();
            list.sort();
            list
        };
        let slow = host_addresses().unwrap().into_iter().map(|host| (host.addr.ip(), host.ifindex));
        assert_eq!(lo(holders().unwrap()), lo(slow.collect()));
    }

    #[test]
    fn a_broadcast_address_is_nobodys() {
        lab::alone(|| {
            lab::run("ip link add d0 type veth peer name d1");
            lab::run("ip addr add 10.20.0.1/24 brd + dev d0");
            lab::run("ip addr add 10.30.0.3/32 dev d0");
            lab::run("ip addr add 10.40.0.1/31 dev d0");
            lab::run("ip link set d0 up");
            let mut binder = Binder::default();
            for (addr, port) in [("10.20.0.1", 0), ("10.30.0.3", 0), ("10.40.0.1", 0), ("10.30.0.3", 4000)] {
                assert_eq!(
                    binder.bindable(&(addr.parse::<IpAddr>().unwrap(), port).into()),
                    Ok(()),
                    "{addr}"
                );
            }
            for addr in ["10.20.0.255:0", "10.20.0.255:4000", "10.20.0.7:0", "10.20.0.0:0"] {
                assert_eq!(
                    binder.bindable(&addr.parse().unwrap()),
                    Err(Errno(libc::EADDRNOTAVAIL)),
                    "{addr}"
                );
            }
        });
    }

    proptest! {
        #[test]
        fn garbage_never_panics(message in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = held(&message);
        }
    }
}
