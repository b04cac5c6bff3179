// SPDX-License-Identifier: MIT OR Apache-2.0
//! inet_diag: what is known of sockets that are not ours to ask, without
//! privilege.

use super::netlink::{Message, Received, Refusal, Socket, find};
use super::sockopt::Listed;
use super::uapi::*;
use crate::error::{Errno, KernelResult};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, BorrowedFd};

/// Asks inet_diag.
#[derive(Debug)]
pub struct Diag(Socket);

/// One socket as inet_diag shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// tcp(7) state.
    pub state: u8,
    /// Local address.
    pub local: SocketAddr,
    /// Remote address.
    pub remote: SocketAddr,
    /// Device it is bound to, 0 none.
    pub device: u32,
    /// SO_COOKIE.
    pub cookie: u64,
    /// Inode of the application's descriptor, 0 before accept(2).
    pub inode: u64,
    /// MPTCP's part, where it was asked for and there is one.
    pub subflow: Option<Subflow>,
}

/// What the subflow's own record adds (INET_DIAG_ULP_INFO).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subflow {
    /// Token of the connection it belongs to.
    pub token: u32,
    /// MPTCP address id.
    pub local_id: u8,
    /// MPTCP address id.
    pub remote_id: u8,
    /// SUBFLOW_FLAG_*.
    pub flags: u32,
}

impl AsFd for Diag {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

const REQUEST: usize = 56;
const ALL_STATES: u32 = u32::MAX;

fn request(family: u8, protocol: u8, ext: u8, states: u32) -> [u8; REQUEST] {
    let mut bytes = [0; REQUEST];
    let [s0, s1, s2, s3] = states.to_ne_bytes();
    for (slot, byte) in bytes.iter_mut().zip([family, protocol, ext, 0, s0, s1, s2, s3]) {
        *slot = byte;
    }
    // No cookie: any socket.
    bytes.iter_mut().skip(48).for_each(|b| *b = 0xff);
    bytes
}

/// A request for the TCP socket between these two, as the kernel lists them.
/// One that is bound to a device is found only where `device` is that one; one
/// that is not is found with any.
fn exactly(local: &SocketAddr, remote: &SocketAddr, device: Option<u32>, ext: u8) -> [u8; REQUEST] {
    let family = if local.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let mut body = request(family as u8, libc::IPPROTO_TCP as u8, ext, ALL_STATES);
    put_address(&mut body, 8, 12, local);
    put_address(&mut body, 10, 28, remote);
    let scope = if let SocketAddr::V6(v6) = remote { v6.scope_id() } else { 0 };
    put(&mut body, 44, &device.unwrap_or(scope).to_ne_bytes());
    body
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    for (slot, byte) in bytes.iter_mut().skip(at).zip(value) {
        *slot = *byte;
    }
}

fn put_address(bytes: &mut [u8], ports_at: usize, addr_at: usize, addr: &SocketAddr) {
    put(bytes, ports_at, &addr.port().to_be_bytes());
    match addr.ip() {
        IpAddr::V4(ip) => put(bytes, addr_at, &ip.octets()),
        IpAddr::V6(ip) => put(bytes, addr_at, &ip.octets()),
    }
}

fn read<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

impl Record {
    fn parse(reply: &Received<'_>) -> Option<Self> {
        let body = reply.payload;
        let family = i32::from(*body.first()?);
        let device = u32::from_ne_bytes(read(body, 40)?);
        let addr = |port_at, ip_at| -> Option<SocketAddr> {
            let port = u16::from_be_bytes(read(body, port_at)?);
            if family == libc::AF_INET {
                return Some((Ipv4Addr::from(read::<4>(body, ip_at)?), port).into());
            }
            Some(SocketAddrV6::new(Ipv6Addr::from(read::<16>(body, ip_at)?), port, 0, 0).into())
        };
        Some(Self {
            state: *body.get(1)?,
            local: addr(4, 8)?,
            remote: addr(6, 24)?,
            device,
            cookie: u64::from_ne_bytes(read(body, 44)?),
            inode: u64::from(u32::from_ne_bytes(read(body, 68)?)),
            subflow: body.get(72..).and_then(Subflow::parse),
        })
    }
}

impl Subflow {
    fn parse(attributes: &[u8]) -> Option<Self> {
        let mptcp = find(find(attributes, INET_DIAG_ULP_INFO)?, ULP_INFO_MPTCP)?;
        let word = |kind| find(mptcp, kind).and_then(|v| v.try_into().ok()).map(u32::from_ne_bytes);
        let byte = |kind| find(mptcp, kind).and_then(|v| v.first()).copied();
        Some(Self {
            token: word(SUBFLOW_ATTR_TOKEN_LOC)?,
            local_id: byte(SUBFLOW_ATTR_ID_LOC)?,
            remote_id: byte(SUBFLOW_ATTR_ID_REM)?,
            flags: word(SUBFLOW_ATTR_FLAGS)?,
        })
    }
}

impl Diag {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open() -> KernelResult<Self> {
        Socket::open(libc::NETLINK_SOCK_DIAG).map(Self)
    }

    fn ask(&mut self, message: Message) -> Result<Vec<Record>, Refusal> {
        let mut records = Vec::new();
        self.0.converse(message, |reply| {
            if reply.kind == SOCK_DIAG_BY_FAMILY {
                records.extend(Record::parse(&reply));
            }
        })?;
        Ok(records)
    }

    /// The MPTCP connection with this token, without taking its lock.
    pub fn connection(&mut self, token: u32) -> Result<Option<Record>, Refusal> {
        let mut body = request(libc::AF_INET as u8, 255, 0, ALL_STATES);
        put(&mut body, 48, &token.to_ne_bytes());
        let message = Message::new(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_ACK)
            .raw(&body)
            .attr(INET_DIAG_REQ_PROTOCOL, &(libc::IPPROTO_MPTCP as u32).to_ne_bytes());
        match self.ask(message) {
            Ok(records) => Ok(records.into_iter().next()),
            Err(refusal) if refusal.errno == Errno(libc::ENOENT) => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    /// Every MPTCP listener of the namespace.
    pub fn listeners(&mut self) -> Result<Vec<Record>, Refusal> {
        let mut all = Vec::new();
        for family in [libc::AF_INET, libc::AF_INET6] {
            let body = request(family as u8, 255, 0, 1 << TCP_LISTEN);
            let message = Message::new(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP)
                .raw(&body)
                .attr(INET_DIAG_REQ_PROTOCOL, &(libc::IPPROTO_MPTCP as u32).to_ne_bytes());
            all.extend(self.ask(message)?);
        }
        Ok(all)
    }

    /// One TCP socket, with MPTCP's part of it; the addresses as the kernel
    /// lists them.
    pub fn subflow(&mut self, local: &SocketAddr, remote: &SocketAddr) -> Result<Option<Record>, Refusal> {
        self.look_up(local, remote, None, INET_DIAG_EXT_INFO)
    }

    /// The same of one that may be bound to this device.
    pub fn subflow_on(
        &mut self,
        device: u32,
        local: &SocketAddr,
        remote: &SocketAddr,
    ) -> Result<Option<Record>, Refusal> {
        self.look_up(local, remote, Some(device), INET_DIAG_EXT_INFO)
    }

    /// The same without MPTCP's part, and without taking the socket's lock.
    pub fn tuple(&mut self, local: &SocketAddr, remote: &SocketAddr) -> Result<Option<Record>, Refusal> {
        self.look_up(local, remote, None, 0)
    }

    fn look_up(
        &mut self,
        local: &SocketAddr,
        remote: &SocketAddr,
        device: Option<u32>,
        ext: u8,
    ) -> Result<Option<Record>, Refusal> {
        let body = exactly(local, remote, device, ext);
        let message = Message::new(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_ACK).raw(&body);
        match self.ask(message) {
            Ok(records) => Ok(records.into_iter().next()),
            Err(refusal) if refusal.errno == Errno(libc::ENOENT) => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    /// Resets one TCP socket (SOCK_DESTROY): CAP_NET_ADMIN, and a kernel with
    /// CONFIG_INET_DIAG_DESTROY, else EOPNOTSUPP.
    pub fn destroy(&mut self, local: &SocketAddr, remote: &SocketAddr) -> Result<(), Refusal> {
        self.0.command(
            Message::new(SOCK_DESTROY, NLM_F_REQUEST | NLM_F_ACK).raw(&exactly(local, remote, None, 0)),
        )
    }

    /// Every MPTCP connection of the namespace that is up, without taking a
    /// lock.
    pub fn connections(&mut self) -> Result<Vec<Record>, Refusal> {
        let mut all = Vec::new();
        for family in [libc::AF_INET, libc::AF_INET6] {
            let body = request(family as u8, 255, 0, 1 << TCP_ESTABLISHED | 1 << TCP_CLOSE_WAIT);
            let message = Message::new(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP)
                .raw(&body)
                .attr(INET_DIAG_REQ_PROTOCOL, &(libc::IPPROTO_MPTCP as u32).to_ne_bytes());
            all.extend(self.ask(message)?);
        }
        Ok(all)
    }

    /// Every TCP socket of the namespace by its descriptor's inode, listeners
    /// left out: one dump for all, without taking a lock.
    pub fn by_inode(&mut self) -> Result<HashMap<u64, Vec<Record>>, Refusal> {
        let mut all: HashMap<u64, Vec<Record>> = HashMap::new();
        for family in [libc::AF_INET, libc::AF_INET6] {
            let body = request(family as u8, libc::IPPROTO_TCP as u8, 0, ALL_STATES & !(1 << TCP_LISTEN));
            let message = Message::new(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP).raw(&body);
            for record in self.ask(message)? {
                all.entry(record.inode).or_default().push(record);
            }
        }
        Ok(all)
    }

    /// Every TCP socket of this descriptor inode: the subflows of a
    /// connection, without taking a lock. They are looked up one by one for
    /// the rest.
    pub fn of_inode(&mut self, inode: u64) -> Result<Vec<Record>, Refusal> {
        let mut all = Vec::new();
        for family in [libc::AF_INET, libc::AF_INET6] {
            let body = request(family as u8, libc::IPPROTO_TCP as u8, 0, ALL_STATES & !(1 << TCP_LISTEN));
            let message = Message::new(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP).raw(&body);
            all.extend(self.ask(message)?.into_iter().filter(|r| inode != 0 && r.inode == inode));
        }
        Ok(all)
    }

    /// The subflows of a connection where the socket itself can't be asked
    /// (before 5.16), the initial one first.
    pub fn listing(&mut self, inode: u64) -> Result<Vec<Listed>, Refusal> {
        let mut found = Vec::new();
        for record in self.of_inode(inode)? {
            let full = self.subflow(&record.local, &record.remote)?;
            if let Some(full) = full
                && let Some(subflow) = full.subflow
            {
                let initial = subflow.flags & SUBFLOW_FLAG_MCAP != 0;
                found.push((!initial, full));
            }
        }
        found.sort_by_key(|(later, _)| *later);
        Ok(found
            .into_iter()
            .map(|(_, r)| Listed { id: 0, state: r.state, local: r.local, remote: r.remote })
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn garbage_never_panics(payload in proptest::collection::vec(any::<u8>(), 0..300)) {
            let reply = Received { kind: SOCK_DIAG_BY_FAMILY, flags: 0, sequence: 0, payload: &payload };
            let _ = Record::parse(&reply);
        }
    }
}
