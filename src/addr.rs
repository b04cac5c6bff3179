// SPDX-License-Identifier: MIT OR Apache-2.0
//! Addresses: packed sockaddr lists to and from [`SocketAddr`].
//!
//! The C interface passes lists as sockaddr_in (16 bytes) and sockaddr_in6
//! (28 bytes) one behind the other (RFC 6458 section 9). Everything here works
//! on bytes, so a list cut short or misaligned is an error and never a fault.

use crate::error::{Error, Result};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Entries that one call may carry, and that one socket may hold.
pub const LIST_MAX: usize = 64;

/// Size of a packed address of this family, `None` where it is neither
/// AF_INET nor AF_INET6.
pub fn packed_len(family: i32) -> Option<usize> {
    match family {
        libc::AF_INET => Some(size_of::<libc::sockaddr_in>()),
        libc::AF_INET6 => Some(size_of::<libc::sockaddr_in6>()),
        _ => None,
    }
}

/// The same address with an IPv4-mapped one turned into IPv4, and flow
/// information and the scope id of all but link-local addresses dropped: the
/// form in which addresses are compared.
pub fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V4(_) => addr,
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::from((v4, v6.port())),
            None => {
                let scope = if is_link_local(v6.ip()) { v6.scope_id() } else { 0 };
                SocketAddrV6::new(*v6.ip(), v6.port(), 0, scope).into()
            }
        },
    }
}

/// fe80::/10
pub fn is_link_local(ip: &Ipv6Addr) -> bool {
    ip.segments().first().is_some_and(|s| s & 0xffc0 == 0xfe80)
}

/// The same address with another port.
pub fn with_port(mut addr: SocketAddr, port: u16) -> SocketAddr {
    addr.set_port(port);
    addr
}

/// Whether both name the same host address; the ports don't count. A scope id
/// that one of them lacks, as the kernel's listings do, is believed.
pub fn same_ip(a: &SocketAddr, b: &SocketAddr) -> bool {
    match (a, b) {
        (SocketAddr::V4(a), SocketAddr::V4(b)) => a.ip() == b.ip(),
        (SocketAddr::V6(a), SocketAddr::V6(b)) => {
            let (one, other) = (a.scope_id(), b.scope_id());
            a.ip() == b.ip() && (one == other || one == 0 || other == 0)
        }
        _ => false,
    }
}

/// Whether both name the same address and port.
pub fn same(a: &SocketAddr, b: &SocketAddr) -> bool {
    a.port() == b.port() && same_ip(a, b)
}

/// Whether `addr` is named by `entry`, whose port 0 stands for every port.
pub fn covers(entry: &SocketAddr, addr: &SocketAddr) -> bool {
    same_ip(entry, addr) && (entry.port() == 0 || entry.port() == addr.port())
}

/// Whether a subflow can join the two: of one family, and both link-local or
/// neither.
pub fn pair(local: &SocketAddr, remote: &SocketAddr) -> bool {
    match (local, remote) {
        (SocketAddr::V4(_), SocketAddr::V4(_)) => true,
        (SocketAddr::V6(a), SocketAddr::V6(b)) => is_link_local(a.ip()) == is_link_local(b.ip()),
        _ => false,
    }
}

/// 0.0.0.0 or ::
pub fn is_wildcard(addr: &SocketAddr) -> bool {
    addr.ip().is_unspecified()
}

/// The address as a socket of an IPv6 family takes it: IPv4 becomes mapped.
pub fn mapped(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V4(v4) => SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0).into(),
        SocketAddr::V6(_) => addr,
    }
}

/// Splits a packed list, which must be whole addresses and nothing else, into
/// canonical addresses. What the addresses mean is not looked at.
pub fn unpack(bytes: &[u8]) -> Result<Vec<SocketAddr>> {
    let mut list = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (addr, len) = unpack_one(rest)?;
        if list.len() == LIST_MAX {
            return Err(Error::new(
                libc::EINVAL,
                format!("the address list has more than {LIST_MAX} entries"),
            ));
        }
        list.push(canonical(addr));
        rest = rest.get(len..).unwrap_or_default();
    }
    if list.is_empty() {
        return Err(Error::new(libc::EINVAL, "the address list is empty"));
    }
    Ok(list)
}

/// The first address of a packed list, and its length in bytes.
pub fn unpack_one(bytes: &[u8]) -> Result<(SocketAddr, usize)> {
    let cut = || Error::new(libc::EINVAL, "the address list ends inside an address");
    let family = i32::from(u16::from_ne_bytes(field(bytes, 0).ok_or_else(cut)?));
    let len = packed_len(family).ok_or_else(|| {
        Error::new(libc::EAFNOSUPPORT, format!("address family {family} is neither AF_INET nor AF_INET6"))
    })?;
    let bytes = bytes.get(..len).ok_or_else(cut)?;
    Ok((from_sockaddr(bytes).ok_or_else(cut)?, len))
}

/// Reads a sockaddr_in or sockaddr_in6; `None` for another family or one cut
/// short. Nothing is canonicalised.
pub fn from_sockaddr(bytes: &[u8]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(field(bytes, 2)?);
    match i32::from(u16::from_ne_bytes(field(bytes, 0)?)) {
        libc::AF_INET => Some((Ipv4Addr::from(field::<4>(bytes, 4)?), port).into()),
        libc::AF_INET6 => Some(
            SocketAddrV6::new(
                Ipv6Addr::from(field::<16>(bytes, 8)?),
                port,
                u32::from_be_bytes(field(bytes, 4)?),
                u32::from_ne_bytes(field(bytes, 24)?),
            )
            .into(),
        ),
        _ => None,
    }
}

/// Longest packed address.
pub const PACKED_MAX: usize = size_of::<libc::sockaddr_in6>();

/// One packed address and its length; the bytes behind it are zero.
pub fn sockaddr(addr: &SocketAddr) -> ([u8; PACKED_MAX], usize) {
    let mut bytes = [0; PACKED_MAX];
    let mut put = |at: usize, field: &[u8]| {
        for (to, from) in bytes.iter_mut().skip(at).zip(field) {
            *to = *from;
        }
    };
    put(2, &addr.port().to_be_bytes());
    match addr {
        SocketAddr::V4(v4) => {
            put(0, &(libc::AF_INET as u16).to_ne_bytes());
            put(4, &v4.ip().octets());
            (bytes, size_of::<libc::sockaddr_in>())
        }
        SocketAddr::V6(v6) => {
            put(0, &(libc::AF_INET6 as u16).to_ne_bytes());
            put(4, &v6.flowinfo().to_be_bytes());
            put(8, &v6.ip().octets());
            put(24, &v6.scope_id().to_ne_bytes());
            (bytes, PACKED_MAX)
        }
    }
}

/// A packed list.
pub fn pack(list: &[SocketAddr]) -> Vec<u8> {
    let mut out = Vec::with_capacity(list.len() * size_of::<libc::sockaddr_in6>());
    for addr in list {
        let (bytes, len) = sockaddr(addr);
        out.extend(bytes.iter().take(len));
    }
    out
}

/// Checks that every address may stand in a list, and drops repetitions: no
/// wildcard and no link-local address without a scope id (EINVAL), no multicast
/// or broadcast address (EADDRNOTAVAIL).
pub fn checked(list: Vec<SocketAddr>) -> Result<Vec<SocketAddr>> {
    let mut seen: Vec<SocketAddr> = Vec::with_capacity(list.len());
    for addr in list {
        if is_wildcard(&addr) {
            return Err(Error::new(
                libc::EINVAL,
                format!("{} is a wildcard, not the address of a host", addr.ip()),
            ));
        }
        let out_of_place = match addr.ip() {
            IpAddr::V4(ip) => ip.is_multicast() || ip.is_broadcast(),
            IpAddr::V6(ip) => ip.is_multicast(),
        };
        if out_of_place {
            return Err(Error::new(
                libc::EADDRNOTAVAIL,
                format!("{} is a multicast or broadcast address", addr.ip()),
            ));
        }
        if let SocketAddr::V6(v6) = addr
            && is_link_local(v6.ip())
            && v6.scope_id() == 0
        {
            return Err(Error::new(
                libc::EINVAL,
                format!("{} is link-local and needs a scope id (sin6_scope_id)", v6.ip()),
            ));
        }
        if !seen.contains(&addr) {
            seen.push(addr);
        }
    }
    Ok(seen)
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address() -> impl Strategy<Value = SocketAddr> {
        prop_oneof![
            (any::<[u8; 4]>(), any::<u16>()).prop_map(|(ip, port)| (Ipv4Addr::from(ip), port).into()),
            (any::<[u8; 16]>(), any::<u16>(), any::<u32>()).prop_map(|(ip, port, scope)| {
                SocketAddrV6::new(Ipv6Addr::from(ip), port, 0, scope).into()
            }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_packed_unpacks(list in proptest::collection::vec(address(), 1..=LIST_MAX)) {
            let canonical: Vec<_> = list.iter().copied().map(canonical).collect();
            prop_assert_eq!(unpack(&pack(&list))?, canonical);
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = unpack(&bytes);
        }

        #[test]
        fn a_list_cut_short_is_einval(list in proptest::collection::vec(address(), 1..4), cut in 1usize..16) {
            let bytes = pack(&list);
            let short = &bytes[..bytes.len() - cut];
            if !short.is_empty() {
                prop_assert_eq!(unpack(short).map_err(|e| e.errno()), Err(libc::EINVAL));
            }
        }
    }

    #[test]
    fn mapped_addresses_are_ipv4() {
        let addr: SocketAddr = "[::ffff:10.1.2.3]:80".parse().unwrap();
        assert_eq!(canonical(addr), "10.1.2.3:80".parse().unwrap());
        assert_eq!(mapped("10.1.2.3:80".parse().unwrap()), addr);
    }

    #[test]
    fn what_a_list_refuses() {
        for (text, errno) in [
            ("0.0.0.0:0", libc::EINVAL),
            ("[::]:0", libc::EINVAL),
            ("[fe80::1]:0", libc::EINVAL),
            ("224.0.0.1:0", libc::EADDRNOTAVAIL),
            ("255.255.255.255:0", libc::EADDRNOTAVAIL),
            ("[ff02::1]:0", libc::EADDRNOTAVAIL),
        ] {
            let list = vec![text.parse().unwrap()];
            assert_eq!(checked(list).map_err(|e| e.errno()), Err(errno), "{text}");
        }
        let twice = vec!["10.0.0.1:0".parse().unwrap(); 2];
        assert_eq!(checked(twice).unwrap().len(), 1);
    }

    #[test]
    fn port_zero_covers_every_port() {
        let any = "10.0.0.1:0".parse().unwrap();
        let one = "10.0.0.1:5".parse().unwrap();
        assert!(covers(&any, &one) && !covers(&one, &any) && covers(&one, &one));
    }
}
