// SPDX-License-Identifier: MIT OR Apache-2.0
//! Statistics of a connection and of its subflows: RFC 6897 appendix A.3, REQ6.
//!
//! The kernel counts; nothing is kept here. Its totals outlive the subflows
//! that moved the bytes, so what closed ones carried is the difference between
//! the totals and what the living ones count.

use crate::addr;
use crate::error::{Errno, Error, Result};
use crate::kernel::diag::{Diag, Record};
use crate::kernel::info::{MptcpInfo, TcpInfo};
use crate::kernel::route;
use crate::kernel::sockopt::{self, Listed};
use crate::kernel::uapi;
use crate::path;
use crate::pending;
use crate::socket::{self, Subflow};
use crate::stream::{Socket, Stage, is_up};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

/// A connection in numbers; `None` is not known (an older kernel, or nothing
/// to be known).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionStats {
    /// Payload given to the subflows, each byte once (Linux 6.5).
    pub bytes_sent: Option<u64>,
    /// Payload received in order, each byte once (Linux 6.5).
    pub bytes_received: Option<u64>,
    /// Bytes the peer acknowledged; the end of the stream counts as one, and
    /// so does the SYN of plain TCP (Linux 6.5).
    pub bytes_acked: Option<u64>,
    /// Payload given to a subflow once more since the peer did not acknowledge
    /// it in time; of plain TCP, retransmitted (Linux 6.5).
    pub bytes_retrans: Option<u64>,
    /// Payload sent on subflows that are gone. What they had not delivered,
    /// and others sent again when they closed, doesn't count (Linux 6.5).
    pub closed_bytes_sent: Option<u64>,
    /// Payload received on subflows that are gone, at least: bytes that came
    /// twice, or ahead of others, are taken for those of the living (Linux 6.5).
    pub closed_bytes_received: Option<u64>,
    /// The connection's id, `None` for plain TCP.
    pub id: Option<u32>,
    /// It is plain TCP.
    pub fallback: bool,
    /// This end accepted it. The first subflow tells while it lives.
    pub server: Option<bool>,
    /// Checksums are in use.
    pub checksum: Option<bool>,
    /// Subflows can be made.
    pub fully_established: Option<bool>,
    /// Established subflows.
    pub subflows: u32,
    /// Subflows whose SYN is out.
    pub subflows_pending: u32,
    /// Subflows at most, the first included, where the in-kernel path manager
    /// sets a limit; 1 for plain TCP.
    pub subflows_max: Option<u32>,
    /// How often in a row the connection's own timer ran out (Linux 6.5).
    pub retransmits: Option<u32>,
    /// Milliseconds since data was sent (Linux 6.10).
    pub last_data_sent_ms: Option<u32>,
    /// Milliseconds since data was received (Linux 6.10).
    pub last_data_received_ms: Option<u32>,
    /// Milliseconds since an acknowledgement was received (Linux 6.10).
    pub last_ack_received_ms: Option<u32>,
    /// Addresses announced to the peer, repetitions included.
    pub addrs_announced: Option<u32>,
    /// Addresses of the peer that the in-kernel path manager took, or that the
    /// library knows of.
    pub addrs_received: Option<u32>,
}

/// A subflow in numbers; `None` is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubflowStats {
    /// Which one.
    pub subflow: Subflow,
    /// This end asked that it be used for backup only.
    pub backup: Option<bool>,
    /// The peer asked for that.
    pub peer_backup: Option<bool>,
    /// What TCP counts.
    pub tcp: TcpInfo,
    /// Its part of what the connection's subflows, living and gone, have sent,
    /// in millionths; `None` before anything was sent (Linux 6.5).
    pub share_sent_ppm: Option<u32>,
    /// The same of what they received.
    pub share_received_ppm: Option<u32>,
    /// MPTCP address id of the local end.
    pub local_id: Option<u32>,
    /// MPTCP address id of the remote end.
    pub remote_id: Option<u32>,
    /// The interface it is bound to, else the one that holds its local address.
    pub ifindex: Option<u32>,
}

/// A connection and all its subflows at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllStats {
    /// The connection.
    pub connection: ConnectionStats,
    /// The established subflows in order of creation, the initial one first;
    /// of plain TCP, its one pair, also half closed.
    pub subflows: Vec<SubflowStats>,
}

/// Numbers of a connection. ENOTCONN; EOPNOTSUPP before Linux 5.16, where only
/// plain TCP can be asked.
pub fn connection_stats(fd: impl AsFd) -> Result<ConnectionStats> {
    let moment = Moment::of(fd.as_fd())?;
    Ok(moment.connection(&mut Inspector::new(moment.socket.fd)))
}

/// Numbers of one subflow, named by its addresses and ports, and by its id
/// where both sides have one. ENOENT: there is none such (any more); and as
/// [`connection_stats`].
pub fn subflow_stats(fd: impl AsFd, subflow: &Subflow) -> Result<SubflowStats> {
    let moment = Moment::of(fd.as_fd())?;
    let shares = moment.shares();
    let mut inspector = Inspector::new(moment.socket.fd);
    let mut living = moment.subflows.iter().zip(shares);
    let (seen, shares) = living.find(|(seen, _)| seen.is(subflow)).ok_or_else(|| {
        Error::new(
            libc::ENOENT,
            format!("the connection has no subflow {} - {} (any more)", subflow.local, subflow.remote),
        )
    })?;
    Ok(seen.stats(shares, moment.info.is_some(), &mut inspector))
}

/// All numbers of a connection and its subflows, of one moment. The shares of
/// the subflows add up to 1,000,000, less what closed ones had. As
/// [`connection_stats`].
pub fn all_stats(fd: impl AsFd) -> Result<AllStats> {
    let moment = Moment::of(fd.as_fd())?;
    let mut inspector = Inspector::new(moment.socket.fd);
    let mptcp = moment.info.is_some();
    let shares = moment.shares();
    let connection = moment.connection(&mut inspector);
    let subflows =
        moment.subflows.iter().zip(shares).map(|(seen, shares)| seen.stats(shares, mptcp, &mut inspector));
    Ok(AllStats { connection, subflows: subflows.collect() })
}

/// What the socket itself says at one moment.
struct Moment<'fd> {
    socket: Socket<'fd>,
    /// `None`: plain TCP.
    info: Option<MptcpInfo>,
    /// The living ones.
    subflows: Vec<Seen>,
    pending: u32,
}

/// A living subflow.
struct Seen {
    listed: Listed,
    shown: Subflow,
    tcp: TcpInfo,
}

/// Parts of what was sent and received, in millionths.
#[derive(Clone, Copy, Default)]
struct Shares {
    sent: Option<u32>,
    received: Option<u32>,
}

impl<'fd> Moment<'fd> {
    fn of(fd: BorrowedFd<'fd>) -> Result<Self> {
        let socket = Socket::of(fd)?;
        pending::settle(fd);
        path::touch();
        let snapshot = match sockopt::full_snapshot(fd) {
            Err(errno) if socket::is_unsupported(errno) => match sockopt::info(fd) {
                Ok(_) => sockopt::snapshot_in_parts(fd),
                Err(_) => return Self::of_tcp(socket),
            },
            other => other,
        };
        let snapshot = snapshot.map_err(|e| Error::kernel(e, "asking for the connection's numbers"))?;
        let mut moment = Self { socket, info: Some(snapshot.info), subflows: Vec::new(), pending: 0 };
        for (at, (listed, tcp)) in snapshot.subflows.into_iter().enumerate() {
            match listed.state {
                state if is_up(state) => {
                    moment.subflows.push(Seen { listed, shown: socket::shown(&listed, at == 0, false), tcp });
                }
                uapi::TCP_SYN_SENT | uapi::TCP_SYN_RECV => moment.pending += 1,
                _ => {}
            }
        }
        if moment.subflows.is_empty() && sockopt::peername(fd).is_err() {
            return Err(moment.socket.not_connected());
        }
        Ok(moment)
    }

    /// Plain TCP, fallen back or from the start.
    fn of_tcp(socket: Socket<'fd>) -> Result<Self> {
        if socket.stage()? != Stage::Connected {
            return Err(socket.not_connected());
        }
        if socket.mptcp && !socket::answers_mptcp_info() {
            return Err(Error::new(
                libc::EOPNOTSUPP,
                "this kernel tells no numbers of Multipath TCP (Linux 5.16)",
            ));
        }
        let asking = |errno| match errno {
            Errno(libc::ENOTCONN) => socket.not_connected(),
            errno => Error::kernel(errno, "asking for the connection's numbers"),
        };
        let tcp = sockopt::tcp_info(socket.fd).map_err(asking)?;
        let listed = Listed {
            id: 0,
            state: tcp.state,
            local: sockopt::sockname(socket.fd).map_err(asking)?,
            remote: sockopt::peername(socket.fd).map_err(asking)?,
        };
        let shown = socket::shown(&listed, true, true);
        Ok(Self { socket, info: None, subflows: vec![Seen { listed, shown, tcp }], pending: 0 })
    }

    /// Payload that the living have sent, or received. `None`: not all known.
    fn living(&self, count: impl Fn(&TcpInfo) -> Option<u64>) -> Option<Vec<u64>> {
        self.subflows.iter().map(|seen| count(&seen.tcp)).collect()
    }

    /// Payload that those have sent, or received, that are gone.
    fn closed(&self, total: Option<u64>, living: Option<&[u64]>) -> Option<u64> {
        if self.info.is_none() {
            return Some(0);
        }
        Some(total?.saturating_sub(sum(living?)))
    }

    fn closed_sent(&self) -> Option<u64> {
        let total = self.info.and_then(|info| info.carried_sent());
        self.closed(total, self.living(TcpInfo::carried_sent).as_deref())
    }

    fn closed_received(&self) -> Option<u64> {
        let total = self.info.and_then(|info| info.bytes_received);
        self.closed(total, self.living(TcpInfo::carried_received).as_deref())
    }

    fn shares(&self) -> Vec<Shares> {
        let of =
            |living: Option<Vec<u64>>, closed: Option<u64>| living.zip(closed).and_then(|(l, c)| ppm(&l, c));
        let sent = of(self.living(TcpInfo::carried_sent), self.closed_sent());
        let received = of(self.living(TcpInfo::carried_received), self.closed_received());
        let nth = |list: &Option<Vec<u32>>, at: usize| list.as_ref().and_then(|list| list.get(at)).copied();
        (0..self.subflows.len())
            .map(|at| Shares { sent: nth(&sent, at), received: nth(&received, at) })
            .collect()
    }

    fn connection(&self, inspector: &mut Inspector) -> ConnectionStats {
        let first = self.subflows.first();
        let record = first.and_then(|seen| inspector.look(&seen.listed));
        let flags = record.and_then(|record| record.subflow).map(|subflow| subflow.flags);
        let common = ConnectionStats {
            closed_bytes_sent: self.closed_sent(),
            closed_bytes_received: self.closed_received(),
            server: flags
                .filter(|flags| flags & uapi::SUBFLOW_FLAG_MCAP != 0)
                .map(|flags| flags & uapi::SUBFLOW_FLAG_MCAP_LOC == 0),
            subflows: self.subflows.iter().filter(|seen| is_up(seen.tcp.state)).count() as u32,
            subflows_pending: self.pending,
            ..ConnectionStats::default()
        };
        let Some(info) = self.info else {
            let tcp = first.map(|seen| seen.tcp).unwrap_or_default();
            return ConnectionStats {
                bytes_sent: tcp
                    .bytes_sent
                    .zip(tcp.bytes_retrans)
                    .map(|(all, again)| all.saturating_sub(again)),
                bytes_received: tcp.bytes_received,
                bytes_acked: tcp.bytes_acked,
                bytes_retrans: tcp.bytes_retrans,
                fallback: true,
                checksum: Some(false),
                fully_established: Some(false),
                subflows_max: Some(1),
                retransmits: tcp.retransmits,
                last_data_sent_ms: tcp.last_data_sent_ms,
                last_data_received_ms: tcp.last_data_received_ms,
                last_ack_received_ms: tcp.last_ack_received_ms,
                ..common
            };
        };
        // Data of the peer's, an acknowledgement of ours or a join have made it so.
        let answered = info.bytes_acked > Some(0)
            || info.bytes_received > Some(0)
            || self.subflows.iter().any(|seen| !seen.shown.initial || seen.tcp.carried_received() > Some(0));
        let announced = path::own().map_or(0, |control| control.facts(&self.socket).peers.len() as u32);
        let received = announced.max(u32::from(info.addrs_accepted));
        ConnectionStats {
            bytes_sent: info.bytes_sent,
            bytes_received: info.bytes_received,
            bytes_acked: info.bytes_acked,
            bytes_retrans: info.bytes_retrans,
            id: Some(info.token),
            checksum: info.checksum,
            fully_established: match flags {
                Some(flags) => Some(flags & uapi::SUBFLOW_FLAG_FULLY_ESTABLISHED != 0 || answered),
                None => answered.then_some(true),
            },
            subflows_max: (info.subflows_max != 0).then(|| u32::from(info.subflows_max) + 1),
            retransmits: info.retransmits,
            last_data_sent_ms: info.last_data_sent,
            last_data_received_ms: info.last_data_received,
            last_ack_received_ms: info.last_ack_received,
            addrs_announced: Some(u32::from(info.addrs_announced)),
            // The userspace path manager counts none.
            addrs_received: (received != 0 || info.subflows_max != 0).then_some(received),
            ..common
        }
    }
}

impl Seen {
    fn is(&self, named: &Subflow) -> bool {
        addr::same(&self.shown.local, &addr::canonical(named.local))
            && addr::same(&self.shown.remote, &addr::canonical(named.remote))
            && (self.shown.id == named.id || self.shown.id == 0 || named.id == 0)
    }

    fn stats(&self, shares: Shares, mptcp: bool, inspector: &mut Inspector) -> SubflowStats {
        let record = inspector.look(&self.listed);
        let found = record.and_then(|record| record.subflow).filter(|_| mptcp);
        let flag = |bit| found.map(|subflow| subflow.flags & bit != 0);
        SubflowStats {
            subflow: self.shown,
            backup: flag(uapi::SUBFLOW_FLAG_BKUP_LOC),
            peer_backup: flag(uapi::SUBFLOW_FLAG_BKUP_REM),
            tcp: self.tcp,
            share_sent_ppm: shares.sent,
            share_received_ppm: shares.received,
            local_id: found.map(|subflow| u32::from(subflow.local_id)),
            remote_id: found.map(|subflow| u32::from(subflow.remote_id)),
            ifindex: record.and_then(|record| match record.device {
                0 => inspector.holder(&self.listed.local),
                device => Some(device),
            }),
        }
    }
}

/// Looks subflows up in inet_diag. What it can't find stays unknown: the
/// socket of another network namespace, or a subflow that has just gone.
struct Inspector {
    diag: Option<Diag>,
    /// Of the application's descriptor: who finds another's socket, in the
    /// wrong namespace, knows it by that.
    inode: u64,
    holders: Option<Vec<(IpAddr, u32)>>,
    all: Option<Vec<Record>>,
    last: Option<(Listed, Record)>,
}

impl Inspector {
    fn new(fd: BorrowedFd<'_>) -> Self {
        let inode = sockopt::stat(fd).map(|(inode, _)| inode);
        let diag = inode.and_then(|_| Diag::open()).ok();
        Self { diag, inode: inode.unwrap_or(0), holders: None, all: None, last: None }
    }

    fn look(&mut self, listed: &Listed) -> Option<Record> {
        if let Some((last, record)) = &self.last
            && (last.local, last.remote) == (listed.local, listed.remote)
        {
            return Some(*record);
        }
        let record = self
            .exactly(listed, None)
            // It is bound to another device than the one with the address.
            .or_else(|| self.bound_to(listed).and_then(|device| self.exactly(listed, Some(device))))?;
        self.last = Some((*listed, record));
        Some(record)
    }

    fn exactly(&mut self, listed: &Listed, device: Option<u32>) -> Option<Record> {
        let diag = self.diag.as_mut()?;
        let found = match device {
            None => diag.subflow(&listed.local, &listed.remote),
            Some(device) => diag.subflow_on(device, &listed.local, &listed.remote),
        };
        found.ok().flatten().filter(|record| record.inode == self.inode)
    }

    /// The interface that holds a local address.
    fn holder(&mut self, local: &SocketAddr) -> Option<u32> {
        let local = addr::canonical(*local).ip();
        let holders = self.holders.get_or_insert_with(|| route::holders().unwrap_or_default());
        holders.iter().find(|(ip, _)| *ip == local).map(|(_, ifindex)| *ifindex)
    }

    /// The device that it is bound to, out of all that belong to the
    /// descriptor.
    fn bound_to(&mut self, listed: &Listed) -> Option<u32> {
        let (diag, inode) = (self.diag.as_mut()?, self.inode);
        let all = self.all.get_or_insert_with(|| diag.of_inode(inode).unwrap_or_default());
        let found = all.iter().find(|record| {
            addr::same(&record.local, &listed.local) && addr::same(&record.remote, &listed.remote)
        });
        found.map(|record| record.device).filter(|device| *device != 0)
    }
}

fn sum(counts: &[u64]) -> u64 {
    counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
}

/// The living's parts of all that they and the closed ones carried, in
/// millionths, rounded so that all parts together make 1,000,000. `None`:
/// nothing was carried.
fn ppm(living: &[u64], closed: u64) -> Option<Vec<u32>> {
    const WHOLE: u64 = 1_000_000;
    let parts = || living.iter().copied().chain([closed]);
    let all: u128 = parts().map(u128::from).sum();
    // Products fit where 44 bits are left, of which millionths need 20.
    let shift = (u128::BITS - all.leading_zeros()).saturating_sub(44);
    let all: u64 = parts().map(|part| part >> shift).sum();
    let mut shares = parts()
        .map(|part| (part >> shift) * WHOLE)
        .map(|part| Some(((part.checked_div(all)?) as u32, part.checked_rem(all)?)))
        .collect::<Option<Vec<_>>>()?;
    let missing = WHOLE as u32 - shares.iter().map(|(share, _)| share).sum::<u32>();
    // To those that rounding took most from.
    let mut order: Vec<&mut (u32, u64)> = shares.iter_mut().collect();
    order.sort_by_key(|(_, rest)| std::cmp::Reverse(*rest));
    for (share, _) in order.into_iter().take(missing as usize) {
        *share += 1;
    }
    shares.truncate(living.len());
    Some(shares.into_iter().map(|(share, _)| share).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn shares_add_up(
            living in proptest::collection::vec(any::<u64>(), 0..40),
            closed in any::<u64>(),
            size in 0u32..64,
        ) {
            let living: Vec<u64> = living.iter().map(|part| part >> size).collect();
            let closed = closed >> size;
            let alone = ppm(&living, 0);
            prop_assert_eq!(alone.is_none(), living.iter().all(|part| *part == 0));
            if let Some(alone) = alone {
                prop_assert_eq!(alone.iter().sum::<u32>(), 1_000_000);
            }
            if let Some(shares) = ppm(&living, closed) {
                let all = living.iter().copied().chain([closed]).map(u128::from).sum::<u128>();
                let exact = |part: u64| (u128::from(part) * 1_000_000 / all) as u32;
                for (share, part) in shares.iter().zip(&living) {
                    prop_assert!(share.abs_diff(exact(*part)) <= 1 && (*part != 0 || *share == 0));
                }
                let rest = 1_000_000 - shares.iter().sum::<u32>();
                prop_assert!(rest.abs_diff(exact(closed)) <= 1 && (closed != 0 || rest == 0));
            }
        }
    }

    #[test]
    fn thirds_are_rounded_to_a_whole() {
        assert_eq!(ppm(&[7, 7, 7], 0), Some(vec![333_334, 333_333, 333_333]));
        assert_eq!(ppm(&[1, 0], 3), Some(vec![250_000, 0]));
        assert_eq!(ppm(&[], 3), Some(vec![]));
        assert_eq!(ppm(&[0], 0), None);
    }
}
