// SPDX-License-Identifier: MIT OR Apache-2.0
//! inet_diag: what is known of sockets that are not ours to ask, without
//! privilege.

use super::netlink::{Message, Received, Refusal, Socket, find};
use super::route;
use super::sockopt::Listed;
use super::uapi::*;
use crate::error::{Errno, KernelResult};
use crate::quick::Map;
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
    /// Owner of the application's socket; of nobody before accept(2): 0.
    pub uid: u32,
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

/// How a TCP socket fares: what it asks of struct tcp_info. What this kernel
/// does not tell is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpFacts {
    /// tcp(7) state.
    pub state: u8,
    /// Retransmission timeouts in a row without an answer.
    pub retransmits: u8,
    /// Window probes in a row without an answer.
    pub probes: u8,
    /// How often the timer was doubled; probes of a closed window double it
    /// too, though they are answered.
    pub backoff: u8,
    /// Retransmission timeout, doublings included.
    pub rto_us: u32,
    /// Largest segment it sends.
    pub snd_mss: u32,
    /// Segments sent and not acknowledged.
    pub unacked: u32,
    /// Of these, arrived out of order.
    pub sacked: u32,
    /// Of these, thought to be lost.
    pub lost: u32,
    /// Of these, sent again and under way.
    pub retrans: u32,
    /// Since data was last sent.
    pub last_data_sent_ms: u32,
    /// Since data last came.
    pub last_data_recv_ms: u32,
    /// Since an acknowledgement last came.
    pub last_ack_recv_ms: u32,
    /// Smoothed round trip time.
    pub rtt_us: u32,
    /// Its variation.
    pub rttvar_us: u32,
    /// Shortest round trip seen lately; all bits set: none yet.
    pub min_rtt_us: u32,
    /// Congestion window in segments.
    pub cwnd: u32,
    /// Window that the peer offers, in bytes (5.4).
    pub snd_wnd: u32,
    /// Segments sent again, ever.
    pub total_retrans: u32,
    /// Bytes that the peer has acknowledged.
    pub bytes_acked: u64,
    /// Bytes received in order.
    pub bytes_received: u64,
    /// Bytes of data sent, those sent again included.
    pub bytes_sent: u64,
    /// Bytes of data sent again.
    pub bytes_retrans: u64,
    /// Segments sent, empty ones included.
    pub segs_out: u32,
    /// Segments received, empty ones included.
    pub segs_in: u32,
    /// Bytes in the send buffer that wait for their turn.
    pub notsent_bytes: u32,
    /// Segments that reached the peer.
    pub delivered: u32,
}

impl TcpFacts {
    /// Reads a tcp_info of any length.
    pub fn parse(info: &[u8]) -> Self {
        let byte = |at: usize| info.get(at).copied().unwrap_or(0);
        let word = |at| read(info, at).map_or(0, u32::from_ne_bytes);
        let long = |at| read(info, at).map_or(0, u64::from_ne_bytes);
        Self {
            state: byte(0),
            retransmits: byte(2),
            probes: byte(3),
            backoff: byte(4),
            rto_us: word(8),
            snd_mss: word(16),
            unacked: word(24),
            sacked: word(28),
            lost: word(32),
            retrans: word(36),
            last_data_sent_ms: word(44),
            last_data_recv_ms: word(52),
            last_ack_recv_ms: word(56),
            rtt_us: word(68),
            rttvar_us: word(72),
            cwnd: word(80),
            total_retrans: word(100),
            bytes_acked: long(120),
            bytes_received: long(128),
            segs_out: word(136),
            segs_in: word(140),
            notsent_bytes: word(144),
            min_rtt_us: word(148),
            delivered: word(192),
            bytes_sent: long(200),
            bytes_retrans: long(208),
            snd_wnd: word(228),
        }
    }
}

impl AsFd for Diag {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

const REQUEST: usize = 56;
const ALL_STATES: u32 = u32::MAX;
/// No listeners; nor TIME_WAIT, of which a busy host has more than of all
/// others together.
const SUBFLOW_STATES: u32 = ALL_STATES & !(1 << TCP_LISTEN | 1 << TCP_TIME_WAIT);

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
    /// Reads struct inet_diag_msg and its attributes.
    pub fn parse(reply: &Received<'_>) -> Option<Self> {
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
            uid: u32::from_ne_bytes(read(body, 64)?),
            subflow: body.get(72..).and_then(Subflow::parse),
        })
    }
}

impl Subflow {
    /// Reads the attributes of a record.
    pub fn parse(attributes: &[u8]) -> Option<Self> {
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

    /// Gives the part of every answer that is inet_diag's to `each`.
    fn ask(&mut self, message: Message, mut each: impl FnMut(&Received<'_>)) -> Result<(), Refusal> {
        self.0.converse(message, |reply| {
            if reply.kind == SOCK_DIAG_BY_FAMILY {
                each(&reply);
            }
        })
    }

    /// The first answer, `None` where the kernel knows no such socket.
    fn one<T>(
        &mut self,
        message: Message,
        parse: impl Fn(&Received<'_>) -> Option<T>,
    ) -> Result<Option<T>, Refusal> {
        let mut found = None;
        match self.ask(message, |reply| found = found.take().or_else(|| parse(reply))) {
            Err(refusal) if refusal.errno == Errno(libc::ENOENT) => Ok(None),
            other => other.map(|()| found),
        }
    }

    /// Every socket of this protocol in these states, without taking a lock.
    fn dump(&mut self, protocol: i32, states: u32, mut each: impl FnMut(Record)) -> Result<(), Refusal> {
        for family in [libc::AF_INET, libc::AF_INET6] {
            // MPTCP's number doesn't fit into the request.
            let body = request(family as u8, u8::try_from(protocol).unwrap_or(255), 0, states);
            let message = Message::new(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP)
                .raw(&body)
                .attr(INET_DIAG_REQ_PROTOCOL, &(protocol as u32).to_ne_bytes());
            self.ask(message, |reply| {
                if let Some(record) = Record::parse(reply) {
                    each(record);
                }
            })?;
        }
        Ok(())
    }

    fn by_token(&mut self, token: u32, ext: u8) -> Result<Option<Record>, Refusal> {
        self.by_token_with(token, ext, Record::parse)
    }

    fn by_token_with<T>(
        &mut self,
        token: u32,
        ext: u8,
        parse: impl Fn(&Received<'_>) -> Option<T>,
    ) -> Result<Option<T>, Refusal> {
        let mut body = request(libc::AF_INET as u8, 255, ext, ALL_STATES);
        put(&mut body, 48, &token.to_ne_bytes());
        let message = Message::new(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST)
            .raw(&body)
            .attr(INET_DIAG_REQ_PROTOCOL, &(libc::IPPROTO_MPTCP as u32).to_ne_bytes());
        self.one(message, parse)
    }

    /// The MPTCP connection with this token, without taking its lock.
    pub fn connection(&mut self, token: u32) -> Result<Option<Record>, Refusal> {
        self.by_token(token, 0)
    }

    /// The same, taking its lock: returns when no system call of its owner's
    /// holds the connection. That can be never, and no signal ends the wait.
    /// Meanwhile it holds up nobody, as a command on the connection would;
    /// before 6.9, everybody's look-ups by inet_diag.
    pub fn probe(&mut self, token: u32) -> Result<Option<Record>, Refusal> {
        self.by_token(token, INET_DIAG_EXT_INFO)
    }

    /// The same with the flags of its struct mptcp_info (INFO_*).
    pub fn condition(&mut self, token: u32) -> Result<Option<(Record, u32)>, Refusal> {
        self.by_token_with(token, INET_DIAG_EXT_INFO, |reply| {
            let info = find(reply.payload.get(72..)?, INET_DIAG_INFO).unwrap_or_default();
            Some((Record::parse(reply)?, read(info, 8).map_or(0, u32::from_ne_bytes)))
        })
    }

    /// Every MPTCP listener of the namespace.
    pub fn listeners(&mut self) -> Result<Vec<Record>, Refusal> {
        let mut all = Vec::new();
        self.dump(libc::IPPROTO_MPTCP, 1 << TCP_LISTEN, |record| all.push(record))?;
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
        self.look_up_with(local, remote, device, ext, Record::parse)
    }

    /// Without a device: neither bound to one nor, second, to the one that holds
    /// the local address.
    fn look_up_with<T>(
        &mut self,
        local: &SocketAddr,
        remote: &SocketAddr,
        device: Option<u32>,
        ext: u8,
        parse: impl Fn(&Received<'_>) -> Option<T>,
    ) -> Result<Option<T>, Refusal> {
        let ask = |device| {
            Message::new(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST).raw(&exactly(local, remote, device, ext))
        };
        let found = self.one(ask(device), &parse)?;
        if found.is_some() || device.is_some() {
            return Ok(found);
        }
        match route::holder(&local.ip().to_canonical()) {
            Some(device) => self.one(ask(Some(device)), &parse),
            None => Ok(None),
        }
    }

    /// How the TCP socket between these two fares, the addresses as the
    /// kernel lists them; takes the socket's lock, not the connection's.
    /// `None` also for those that wait for nothing but their time (TIME_WAIT).
    pub fn facts(&mut self, local: &SocketAddr, remote: &SocketAddr) -> Result<Option<TcpFacts>, Refusal> {
        self.look_up_with(local, remote, None, INET_DIAG_EXT_INFO, |reply| {
            find(reply.payload.get(72..)?, INET_DIAG_INFO).map(TcpFacts::parse)
        })
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
        let states = 1 << TCP_ESTABLISHED | 1 << TCP_CLOSE_WAIT;
        self.dump(libc::IPPROTO_MPTCP, states, |record| all.push(record))?;
        Ok(all)
    }

    /// Every TCP socket of the namespace by its descriptor's inode, listeners,
    /// those without a descriptor and what the kernel keeps of ended ones left
    /// out: one dump for all, without taking a lock.
    pub fn by_inode(&mut self) -> Result<Map<u64, Vec<Record>>, Refusal> {
        let mut all: Map<u64, Vec<Record>> = Map::default();
        self.dump(libc::IPPROTO_TCP, SUBFLOW_STATES, |record| {
            if record.inode != 0 {
                all.entry(record.inode).or_default().push(record);
            }
        })?;
        Ok(all)
    }

    /// Every TCP socket of this descriptor inode: the subflows of a
    /// connection, without taking a lock. They are looked up one by one for
    /// the rest.
    pub fn of_inode(&mut self, inode: u64) -> Result<Vec<Record>, Refusal> {
        let mut all = Vec::new();
        self.dump(libc::IPPROTO_TCP, SUBFLOW_STATES, |record| {
            if inode != 0 && record.inode == inode {
                all.push(record);
            }
        })?;
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
    use super::super::{lab, process, sockopt};
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn garbage_never_panics(payload in proptest::collection::vec(any::<u8>(), 0..300)) {
            let reply = Received { kind: SOCK_DIAG_BY_FAMILY, flags: 0, sequence: 0, payload: &payload };
            let _ = Record::parse(&reply);
            let _ = TcpFacts::parse(&payload);
        }
    }

    #[test]
    fn a_connection_is_found_in_every_way() {
        lab::alone(|| {
            let (client, server) = lab::connection(libc::IPPROTO_MPTCP);
            let mut diag = Diag::open().unwrap();
            for end in [&client, &server] {
                let token = sockopt::info(end.as_fd()).unwrap().token;
                let (inode, _) = sockopt::stat(end.as_fd()).unwrap();
                let record = diag.connection(token).unwrap().unwrap();
                assert_eq!((record.inode, record.uid), (inode, process::effective_uid()));
                assert_eq!(record.cookie, sockopt::cookie(end.as_fd()).unwrap());
                assert_eq!(diag.probe(token), Ok(Some(record)));
                assert!(diag.connections().unwrap().contains(&record));
                let subflows = diag.by_inode().unwrap().remove(&inode).unwrap();
                assert_eq!(subflows, diag.of_inode(inode).unwrap());
                let [subflow] = subflows[..] else { panic!("{subflows:?}") };
                assert_eq!(subflow.uid, process::effective_uid());
                let full = diag.subflow(&subflow.local, &subflow.remote).unwrap().unwrap();
                assert_eq!(full.subflow.unwrap().token, token);
                assert_eq!(diag.tuple(&subflow.local, &subflow.remote), Ok(Some(subflow)));
            }
            assert_eq!(diag.probe(0), Ok(None));
            let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
            assert_eq!(diag.facts(&nobody, &nobody), Ok(None));
        });
    }

    #[test]
    fn a_subflow_that_is_not_heard_shows_it() {
        lab::alone(|| {
            let (client, server) = lab::connection(libc::IPPROTO_MPTCP);
            let mut diag = Diag::open().unwrap();
            let (local, remote) =
                (sockopt::sockname(client.as_fd()).unwrap(), sockopt::peername(client.as_fd()).unwrap());
            let mut facts = || diag.facts(&local, &remote).unwrap().unwrap();
            lab::send(&client, &[0; 1000]);
            lab::until("it is acknowledged", || facts().unacked == 0);
            let healthy = facts();
            assert_eq!(healthy.state, TCP_ESTABLISHED);
            // The first byte carried the handshake on, the SYN counts as one.
            assert!((1001..=1002).contains(&healthy.bytes_acked), "{healthy:?}");
            assert_eq!((healthy.backoff, healthy.retransmits, healthy.bytes_retrans), (0, 0, 0));
            assert_eq!((healthy.bytes_sent, healthy.bytes_received), (1001, 1));
            for time in [healthy.rto_us, healthy.rtt_us, healthy.min_rtt_us, healthy.rttvar_us] {
                assert!((1..1_000_000).contains(&time), "{healthy:?}");
            }
            assert!(healthy.cwnd >= 2 && healthy.snd_wnd > 1000 && healthy.snd_mss > 500, "{healthy:?}");
            assert!(healthy.last_ack_recv_ms < 10_000 && healthy.last_data_sent_ms < 10_000);
            assert!(healthy.segs_out >= 4 && healthy.segs_in >= 3 && healthy.delivered >= 2);
            lab::run("ip link set lo down");
            lab::send(&client, &[0; 1000]);
            lab::until("the timer was doubled", || facts().backoff >= 1);
            let sick = facts();
            assert!(sick.unacked >= 1 && sick.retransmits >= 1, "{sick:?}");
            assert!(sick.rto_us > healthy.rto_us && sick.bytes_acked == healthy.bytes_acked, "{sick:?}");
            assert!(sick.last_ack_recv_ms >= 200 && sick.bytes_sent > healthy.bytes_sent, "{sick:?}");
            drop(server);
        });
    }
}
