// SPDX-License-Identifier: MIT OR Apache-2.0
//! Statistics (RFC 6897 appendix A.3, REQ6).

use super::types::*;
use super::{allocate, borrowed, boundary, bytes, count, fault, release, struct_size, write_struct};
use crate::addr;
use crate::error::{Error, Result};
use crate::socket::Subflow;
use crate::stats::{self, ConnectionStats, SubflowStats};
use crate::stream::Socket;
use std::ffi::c_int;
use std::mem::offset_of;

/// Gives the numbers of a connection.
///
/// size is sizeof(struct mptcp_conn_stats): what the caller's struct lacks is
/// left out, what it has more is zero. stats->valid tells which fields are
/// known: most totals since Linux 6.5, the times since 6.10. Needs no
/// privilege.
///
/// Returns 0, or -1 and errno: EBADF, ENOTSOCK, EFAULT, EINVAL (size under 8),
/// E2BIG (over 4096), ENOTCONN (no connection, or it ended), EOPNOTSUPP (not a
/// stream socket of TCP or MPTCP; MPTCP before Linux 5.16), ENOMEM,
/// ENOTRECOVERABLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mptcp_getconnstats(fd: c_int, stats: *mut mptcp_conn_stats, size: usize) -> c_int {
    boundary(|| {
        let fd = borrowed(fd)?;
        Socket::of(fd)?;
        if stats.is_null() {
            return Err(fault("stats"));
        }
        struct_size(size, size_of::<u64>())?;
        let value = connection(&stats::connection_stats(fd)?);
        // SAFETY: not null, and the caller says that it has `size` bytes; the
        // struct has no padding (its layout is asserted).
        unsafe { write_struct(stats.cast(), size, &value) };
        Ok(0)
    })
}

/// Gives the numbers of one established subflow. Of subflow only the
/// addresses with their ports are read, and its id, which counts where neither
/// side has 0.
///
/// size is sizeof(struct mptcp_subflow_stats). Returns 0, or -1 and errno: as
/// mptcp_getconnstats(); EINVAL (size under 288); ENOENT (no such subflow, or
/// no more); EAFNOSUPPORT (an address that is neither AF_INET nor AF_INET6).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mptcp_getsubflowstats(
    fd: c_int,
    subflow: *const mptcp_subflow,
    stats: *mut mptcp_subflow_stats,
    size: usize,
) -> c_int {
    boundary(|| {
        let fd = borrowed(fd)?;
        Socket::of(fd)?;
        // SAFETY: the caller's struct, or NULL.
        let wanted = unsafe { named(subflow)? };
        if stats.is_null() {
            return Err(fault("stats"));
        }
        struct_size(size, size_of::<mptcp_subflow>())?;
        let value = of_subflow(&stats::subflow_stats(fd, &wanted)?);
        // SAFETY: not null, and the caller says that it has `size` bytes; the
        // struct has no padding (its layout is asserted).
        unsafe { write_struct(stats.cast(), size, &value) };
        Ok(0)
    })
}

/// Gives the numbers of a connection and of all its established subflows, of
/// one moment: only here the shares of the subflows add up, to 1,000,000 less
/// what closed subflows had.
///
/// conn_size is sizeof(struct mptcp_conn_stats); conn may be NULL with 0.
/// subflow_size is sizeof(struct mptcp_subflow_stats), and the distance of the
/// array's elements, a multiple of 8. Returns the number of subflows and sets
/// *subflows to the array, to be freed by mptcp_freeallstats(); NULL when there
/// are none just now. A plain TCP connection has its one pair, with
/// MPTCP_SUBFLOW_FALLBACK. -1 and errno: as mptcp_getconnstats(); EINVAL
/// (subflow_size under 288, or no multiple of 8).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mptcp_getallstats(
    fd: c_int,
    conn: *mut mptcp_conn_stats,
    conn_size: usize,
    subflows: *mut *mut mptcp_subflow_stats,
    subflow_size: usize,
) -> c_int {
    boundary(|| {
        let fd = borrowed(fd)?;
        Socket::of(fd)?;
        if subflows.is_null() {
            return Err(fault("subflows"));
        }
        if conn.is_null() && conn_size != 0 {
            return Err(fault("conn"));
        }
        if !conn.is_null() {
            struct_size(conn_size, size_of::<u64>())?;
        }
        struct_size(subflow_size, size_of::<mptcp_subflow>())?;
        if !subflow_size.is_multiple_of(8) {
            let words = format!("subflow_size {subflow_size} is no multiple of 8");
            return Err(Error::new(libc::EINVAL, words));
        }
        let all = stats::all_stats(fd)?;
        let number = count(all.subflows.len())?;
        let mut array = std::ptr::null_mut();
        if number > 0 {
            array = allocate(all.subflows.len() * subflow_size)?;
            for (at, subflow) in all.subflows.iter().enumerate() {
                let value = of_subflow(subflow);
                // SAFETY: element `at` of the array just allocated, with
                // `subflow_size` bytes; the struct has no padding.
                unsafe { write_struct(array.add(at * subflow_size), subflow_size, &value) };
            }
        }
        if !conn.is_null() {
            let value = connection(&all.connection);
            // SAFETY: not null, and the caller says that it has `conn_size`
            // bytes; the struct has no padding.
            unsafe { write_struct(conn.cast(), conn_size, &value) };
        }
        // SAFETY: not null; the caller's pointer, possibly misaligned.
        unsafe { subflows.write_unaligned(array.cast()) };
        Ok(number)
    })
}

/// Frees what mptcp_getallstats() gave. NULL is fine; errno stays.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mptcp_freeallstats(subflows: *mut mptcp_subflow_stats) {
    // SAFETY: the caller gives what mptcp_getallstats allocated, or NULL.
    unsafe { release(subflows.cast()) };
}

/// The subflow that a caller names: addresses with ports, and id.
///
/// # Safety
/// `subflow` is null or leads to a whole struct, at any alignment.
pub(super) unsafe fn named(subflow: *const mptcp_subflow) -> Result<Subflow> {
    const REMOTE: usize = offset_of!(mptcp_subflow, remote);
    const ID: usize = offset_of!(mptcp_subflow, id);
    // SAFETY: by the contract above.
    let bytes = unsafe { bytes(subflow.cast(), size_of::<mptcp_subflow>(), "subflow")? };
    let (local, rest) = bytes.split_at(REMOTE);
    let (remote, rest) = rest.split_at(ID - REMOTE);
    Ok(Subflow {
        local: addr::canonical(addr::unpack_one(local)?.0),
        remote: addr::canonical(addr::unpack_one(remote)?.0),
        id: rest.first_chunk().map_or(0, |id| u32::from_ne_bytes(*id)),
        initial: false,
        fallback: false,
    })
}

/// The value, and its bit in the mask where it is known; else zero.
fn known<T: Default>(valid: &mut u64, bit: u64, value: Option<T>) -> T {
    if value.is_some() {
        *valid |= bit;
    }
    value.unwrap_or_default()
}

fn connection(stats: &ConnectionStats) -> mptcp_conn_stats {
    let mut valid = 0;
    let v = &mut valid;
    let flag = |on: Option<bool>, bit: u32| if on == Some(true) { bit } else { 0 };
    let flags = flag(Some(stats.fallback), MPTCP_CONN_FALLBACK)
        | flag(stats.server, MPTCP_CONN_SERVER)
        | flag(stats.checksum, MPTCP_CONN_CHECKSUM)
        | flag(stats.fully_established, MPTCP_CONN_FULL);
    let filled = mptcp_conn_stats {
        valid: 0,
        bytes_sent: known(v, MPTCP_CS_BYTES_SENT, stats.bytes_sent),
        bytes_received: known(v, MPTCP_CS_BYTES_RECEIVED, stats.bytes_received),
        bytes_acked: known(v, MPTCP_CS_BYTES_ACKED, stats.bytes_acked),
        bytes_retrans: known(v, MPTCP_CS_BYTES_RETRANS, stats.bytes_retrans),
        closed_bytes_sent: known(v, MPTCP_CS_CLOSED_SENT, stats.closed_bytes_sent),
        closed_bytes_received: known(v, MPTCP_CS_CLOSED_RECEIVED, stats.closed_bytes_received),
        connid: known(v, MPTCP_CS_CONNID, stats.id),
        flags: known(v, MPTCP_CS_FLAGS, Some(flags)),
        subflows: known(v, MPTCP_CS_SUBFLOWS, Some(stats.subflows)),
        subflows_pending: known(v, MPTCP_CS_SUBFLOWS_PENDING, Some(stats.subflows_pending)),
        subflows_max: known(v, MPTCP_CS_SUBFLOWS_MAX, stats.subflows_max),
        retransmits: known(v, MPTCP_CS_RETRANSMITS, stats.retransmits),
        last_data_sent_ms: known(v, MPTCP_CS_LAST_DATA_SENT, stats.last_data_sent_ms),
        last_data_received_ms: known(v, MPTCP_CS_LAST_DATA_RECEIVED, stats.last_data_received_ms),
        last_ack_received_ms: known(v, MPTCP_CS_LAST_ACK_RECEIVED, stats.last_ack_received_ms),
        addrs_announced: known(v, MPTCP_CS_ADDRS_ANNOUNCED, stats.addrs_announced),
        addrs_received: known(v, MPTCP_CS_ADDRS_RECEIVED, stats.addrs_received),
        reserved: 0,
    };
    mptcp_conn_stats { valid, ..filled }
}

fn of_subflow(stats: &SubflowStats) -> mptcp_subflow_stats {
    let mut valid = 0;
    let v = &mut valid;
    let tcp = &stats.tcp;
    let filled = mptcp_subflow_stats {
        subflow: with_priority(stats),
        valid: 0,
        bytes_sent: known(v, MPTCP_SS_BYTES_SENT, tcp.bytes_sent),
        bytes_received: known(v, MPTCP_SS_BYTES_RECEIVED, tcp.bytes_received),
        bytes_acked: known(v, MPTCP_SS_BYTES_ACKED, tcp.bytes_acked),
        bytes_retrans: known(v, MPTCP_SS_BYTES_RETRANS, tcp.bytes_retrans),
        delivery_rate: known(v, MPTCP_SS_DELIVERY_RATE, tcp.delivery_rate),
        pacing_rate: known(v, MPTCP_SS_PACING_RATE, tcp.pacing_rate),
        share_sent_ppm: known(v, MPTCP_SS_SHARE_SENT, stats.share_sent_ppm),
        share_received_ppm: known(v, MPTCP_SS_SHARE_RECEIVED, stats.share_received_ppm),
        state: known(v, MPTCP_SS_STATE, Some(u32::from(tcp.state))),
        rtt_us: known(v, MPTCP_SS_RTT, tcp.rtt_us),
        rttvar_us: known(v, MPTCP_SS_RTTVAR, tcp.rttvar_us),
        min_rtt_us: known(v, MPTCP_SS_MIN_RTT, tcp.min_rtt_us),
        rto_us: known(v, MPTCP_SS_RTO, tcp.rto_us),
        backoff: known(v, MPTCP_SS_BACKOFF, tcp.backoff),
        cwnd: known(v, MPTCP_SS_CWND, tcp.cwnd),
        ssthresh: known(v, MPTCP_SS_SSTHRESH, tcp.ssthresh),
        mss: known(v, MPTCP_SS_MSS, tcp.mss),
        unacked: known(v, MPTCP_SS_UNACKED, tcp.unacked),
        lost: known(v, MPTCP_SS_LOST, tcp.lost),
        retrans: known(v, MPTCP_SS_RETRANS, tcp.retrans),
        reordering: known(v, MPTCP_SS_REORDERING, tcp.reordering),
        last_data_sent_ms: known(v, MPTCP_SS_LAST_DATA_SENT, tcp.last_data_sent_ms),
        last_data_received_ms: known(v, MPTCP_SS_LAST_DATA_RECEIVED, tcp.last_data_received_ms),
        last_ack_received_ms: known(v, MPTCP_SS_LAST_ACK_RECEIVED, tcp.last_ack_received_ms),
        local_id: known(v, MPTCP_SS_LOCAL_ID, stats.local_id),
        remote_id: known(v, MPTCP_SS_REMOTE_ID, stats.remote_id),
        ifindex: known(v, MPTCP_SS_IFINDEX, stats.ifindex.and_then(|index| i32::try_from(index).ok())),
        reserved: 0,
    };
    mptcp_subflow_stats { valid, ..filled }
}

/// The subflow, with the bits that its record in inet_diag adds.
fn with_priority(stats: &SubflowStats) -> mptcp_subflow {
    let mut subflow = mptcp_subflow::of(&stats.subflow);
    if let (Some(ours), Some(peers)) = (stats.backup, stats.peer_backup) {
        let flag = |on: bool, bit: u32| if on { bit } else { 0 };
        subflow.flags |= MPTCP_SUBFLOW_PRIO_KNOWN
            | flag(ours, MPTCP_SUBFLOW_BACKUP)
            | flag(peers, MPTCP_SUBFLOW_PEER_BACKUP);
    }
    subflow
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bit k of `valid` is the k-th field after it: with that one field known,
    /// nothing else in the struct is set.
    #[test]
    fn each_bit_names_its_field() {
        let conn = ConnectionStats::default();
        let words = |stats: &mptcp_conn_stats| {
            let mut bytes = [0u8; size_of::<mptcp_conn_stats>()];
            // SAFETY: `bytes` has room for the whole struct.
            unsafe { write_struct(bytes.as_mut_ptr(), bytes.len(), stats) };
            bytes
        };
        let always = MPTCP_CS_FLAGS | MPTCP_CS_SUBFLOWS | MPTCP_CS_SUBFLOWS_PENDING;
        assert_eq!(connection(&conn).valid, always);
        let cases: [(u64, usize, ConnectionStats); 5] = [
            (MPTCP_CS_BYTES_SENT, 8, ConnectionStats { bytes_sent: Some(255), ..conn }),
            (MPTCP_CS_CLOSED_RECEIVED, 48, ConnectionStats { closed_bytes_received: Some(255), ..conn }),
            (MPTCP_CS_CONNID, 56, ConnectionStats { id: Some(255), ..conn }),
            (MPTCP_CS_SUBFLOWS_MAX, 72, ConnectionStats { subflows_max: Some(255), ..conn }),
            (MPTCP_CS_ADDRS_RECEIVED, 96, ConnectionStats { addrs_received: Some(255), ..conn }),
        ];
        for (bit, offset, stats) in cases {
            let made = connection(&stats);
            assert_eq!(made.valid, always | bit);
            let set: Vec<usize> = (8..104).filter(|at| words(&made)[*at] != 0).collect();
            assert_eq!((set.len(), set[0] / 4 * 4), (1, offset));
        }
    }

    #[test]
    fn a_subflow_is_named_by_addresses_and_id_alone() {
        let subflow = Subflow {
            local: "[fe80::1%3]:9".parse().unwrap(),
            remote: "[fe80::2%3]:10".parse().unwrap(),
            id: 7,
            initial: false,
            fallback: false,
        };
        let mut c = mptcp_subflow::of(&subflow);
        c.flags = u32::MAX;
        c.reserved = [u32::MAX; 6];
        // SAFETY: a whole struct; the null pointer is looked for.
        unsafe {
            assert_eq!(named(&raw const c), Ok(subflow));
            c.remote.ss_family = libc::AF_UNIX as libc::sa_family_t;
            assert_eq!(named(&raw const c).unwrap_err().errno(), libc::EAFNOSUPPORT);
            assert_eq!(named(std::ptr::null()).unwrap_err().errno(), libc::EFAULT);
        }
    }
}
