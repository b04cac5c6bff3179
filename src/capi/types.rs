// SPDX-License-Identifier: MIT OR Apache-2.0
//! Numbers and layouts of the C interface.
#![allow(non_camel_case_types, reason = "the names are C's")]

use std::ffi::c_char;

/// Version of the interface that this header describes.
pub const MPTCPAPI_VERSION: &str = "0.1.0";
/// The same as a number, 0xMMmmpp. struct mptcp_caps.library has that of the
/// library loaded.
pub const MPTCPAPI_VERSION_NUMBER: u32 = 0x000100;

/// int, boolean; get and set. RFC 6897 5.3.2.
///
/// Set, before connect(2) and listen(2): non-zero makes the descriptor's
/// socket one of Multipath TCP, 0 one of TCP, with its options, flags, bound
/// address and owner; dup()s and epoll registrations made earlier go on naming
/// the old socket. Get: before the connection what was asked for; on it
/// whether Multipath TCP is in use now; after its end the last truth known.
pub const TCP_MULTIPATH_ENABLE: i32 = 0x689701;
/// Packed sockaddr_in and sockaddr_in6; set. RFC 6897 5.3.3.
///
/// Before the connection: use these local addresses and no others. On a
/// connection: allow, use and advertise these too. Port 0: any.
pub const TCP_MULTIPATH_ADD: i32 = 0x689702;
/// Packed sockaddr_in and sockaddr_in6; set. RFC 6897 5.3.3.
///
/// Takes local addresses back. On a connection alternatives are made first,
/// then the peer is told, then their subflows are closed. Port 0: every port.
pub const TCP_MULTIPATH_REMOVE: i32 = 0x689703;
/// struct mptcp_subflow[]; get. RFC 6897 5.3.4.
///
/// The established subflows, one consistent snapshot in order of creation.
pub const TCP_MULTIPATH_SUBFLOWS: i32 = 0x689704;
/// uint32_t, never 0; get. RFC 6897 5.3.5.
///
/// The connection's token, unique among this host's live connections.
pub const TCP_MULTIPATH_CONNID: i32 = 0x689705;

/// int, 1 to 255; get and set. RFC 6897 REQ7.
///
/// Subflows of the connection at most, the initial one included; 0: the
/// default, 255. Lowered, the least useful ones are closed, never the last;
/// raised, those are made that the list asks for.
pub const TCP_MULTIPATH_MAX_SUBFLOWS: i32 = 0x689706;
/// int, MPTCP_PROFILE_*; get and set. RFC 6897 REQ8.
///
/// What the connection is for: which subflows it has, and which of them are
/// for backup.
pub const TCP_MULTIPATH_PROFILE: i32 = 0x689707;
/// struct mptcp_traffic; get and set. RFC 6897 REQ9.
///
/// What the connection will carry. One of less than 1 MiB gets no further
/// subflows, unless it carries that much after all.
pub const TCP_MULTIPATH_TRAFFIC: i32 = 0x689708;
/// struct mptcp_path_policy, or an int, its mode; get and set. RFC 6897 REQ10.
///
/// When further subflows are made.
pub const TCP_MULTIPATH_PATH_POLICY: i32 = 0x689709;
/// int, MPTCP_REDUNDANCY_*; get and set. RFC 6897 REQ12.
///
/// Takes a kernel with a packet scheduler that does it, which sockets get when
/// they are made (net.mptcp.scheduler): EOPNOTSUPP where there is none.
pub const TCP_MULTIPATH_REDUNDANCY: i32 = 0x68970a;
/// int, boolean; get and set. RFC 6897 REQ13.
///
/// The connection ends with its initial subflow. The default is the
/// administrator's (mptcpapid.conf(5)), else 0.
pub const TCP_MULTIPATH_FATE_SHARING: i32 = 0x68970b;

/// TCP_MULTIPATH_PROFILE: all paths at once. The default.
pub const MPTCP_PROFILE_AGGREGATE: i32 = 0;
/// TCP_MULTIPATH_PROFILE: the path with the lowest delay.
pub const MPTCP_PROFILE_INTERACTIVE: i32 = 1;
/// TCP_MULTIPATH_PROFILE: one path, one warm spare.
pub const MPTCP_PROFILE_HANDOVER: i32 = 2;
/// TCP_MULTIPATH_PROFILE: one path, a second when it is full.
pub const MPTCP_PROFILE_OVERFLOW: i32 = 3;

/// struct mptcp_path_policy.mode: subflows as soon as possible. The default.
pub const MPTCP_PATHS_EAGER: u32 = 0;
/// struct mptcp_path_policy.mode: after so many bytes or milliseconds.
pub const MPTCP_PATHS_ON_DEMAND: u32 = 1;
/// struct mptcp_path_policy.mode: by hand only.
pub const MPTCP_PATHS_MANUAL: u32 = 2;

/// TCP_MULTIPATH_REDUNDANCY: none. The default.
pub const MPTCP_REDUNDANCY_NONE: i32 = 0;
/// TCP_MULTIPATH_REDUNDANCY: duplicates where capacity is idle.
pub const MPTCP_REDUNDANCY_SPARE: i32 = 1;
/// TCP_MULTIPATH_REDUNDANCY: everything on every path.
pub const MPTCP_REDUNDANCY_FULL: i32 = 2;

/// struct mptcp_subflow.flags: the connection's first subflow.
pub const MPTCP_SUBFLOW_INITIAL: u32 = 0x1;
/// struct mptcp_subflow.flags: plain TCP, this pair is all there is.
pub const MPTCP_SUBFLOW_FALLBACK: u32 = 0x2;
/// struct mptcp_subflow.flags: the next two bits were looked up.
pub const MPTCP_SUBFLOW_PRIO_KNOWN: u32 = 0x4;
/// struct mptcp_subflow.flags: we asked for backup only.
pub const MPTCP_SUBFLOW_BACKUP: u32 = 0x8;
/// struct mptcp_subflow.flags: the peer asked for backup only.
pub const MPTCP_SUBFLOW_PEER_BACKUP: u32 = 0x10;

/// mptcp_bindx(): as TCP_MULTIPATH_ADD. Exactly one of this and the next.
pub const MPTCP_BINDX_ADD_ADDR: i32 = 0x1;
/// mptcp_bindx(): as TCP_MULTIPATH_REMOVE.
pub const MPTCP_BINDX_REM_ADDR: i32 = 0x2;
/// mptcp_bindx(), with ADD_ADDR: the addresses' subflows are for backup.
pub const MPTCP_BINDX_BACKUP: i32 = 0x10;
/// mptcp_bindx(), with ADD_ADDR: use them, never tell the peer.
pub const MPTCP_BINDX_NO_ADVERTISE: i32 = 0x20;
/// mptcp_bindx(), with ADD_ADDR: tell the peer, open no subflow from them.
pub const MPTCP_BINDX_NO_SUBFLOW: i32 = 0x40;

/// mptcp_opensubflow(): for backup only.
pub const MPTCP_OPEN_BACKUP: i32 = 0x1;
/// mptcp_opensubflow(): return when it is established or refused.
pub const MPTCP_OPEN_WAIT: i32 = 0x2;

/// struct mptcp_connect_opts.flags: the descriptor is O_NONBLOCK.
pub const MPTCP_CONNECT_NONBLOCK: u32 = 0x1;
/// struct mptcp_connect_opts.flags: fail rather than return plain TCP.
pub const MPTCP_CONNECT_NO_FALLBACK: u32 = 0x2;
/// struct mptcp_connect_opts.flags: plain TCP only.
pub const MPTCP_CONNECT_NO_MPTCP: u32 = 0x4;
/// struct mptcp_connect_opts.flags: node is an address, service a port.
pub const MPTCP_CONNECT_NUMERIC: u32 = 0x8;

/// struct mptcp_caps.backend: nobody controls paths.
pub const MPTCP_BACKEND_NONE: u32 = 0;
/// struct mptcp_caps.backend: mptcpapid does.
pub const MPTCP_BACKEND_BROKER: u32 = 1;
/// struct mptcp_caps.backend: this process does, with CAP_NET_ADMIN.
pub const MPTCP_BACKEND_DIRECT: u32 = 2;

/// struct mptcp_caps.control: it can't be told.
pub const MPTCP_CONTROL_UNKNOWN: u32 = 0;
/// struct mptcp_caps.control: the in-kernel path manager.
pub const MPTCP_CONTROL_KERNEL: u32 = 1;
/// struct mptcp_caps.control: this library, for the one connection.
pub const MPTCP_CONTROL_CONNECTION: u32 = 2;

/// struct mptcp_caps.works: Multipath TCP sockets can be made.
pub const MPTCP_CAP_ENABLE: u32 = 0x1;
/// struct mptcp_caps.works: subflows can be listed.
pub const MPTCP_CAP_SUBFLOWS: u32 = 0x2;
/// struct mptcp_caps.works: connections have an identifier.
pub const MPTCP_CAP_CONNID: u32 = 0x4;
/// struct mptcp_caps.works: statistics of connections.
pub const MPTCP_CAP_CONN_STATS: u32 = 0x8;
/// struct mptcp_caps.works: statistics of subflows.
pub const MPTCP_CAP_SUBFLOW_STATS: u32 = 0x10;
/// struct mptcp_caps.works: lists before connect(2).
pub const MPTCP_CAP_ADD_BEFORE: u32 = 0x20;
/// struct mptcp_caps.works: ADD and REMOVE on a connection.
pub const MPTCP_CAP_ADD_LIVE: u32 = 0x40;
/// struct mptcp_caps.works: single subflows can be closed.
pub const MPTCP_CAP_CLOSE_SUBFLOW: u32 = 0x80;
/// struct mptcp_caps.works: lists on listeners.
pub const MPTCP_CAP_LISTEN: u32 = 0x100;
/// struct mptcp_caps.works: addresses for backup only.
pub const MPTCP_CAP_BACKUP: u32 = 0x200;
/// struct mptcp_caps.works: profiles, traffic hints, path policies and numbers
/// of subflows.
pub const MPTCP_CAP_PROFILE: u32 = 0x400;
/// struct mptcp_caps.works: a packet scheduler can send data twice.
pub const MPTCP_CAP_REDUNDANCY: u32 = 0x800;
/// struct mptcp_caps.works: fate sharing.
pub const MPTCP_CAP_FATE_SHARING: u32 = 0x1000;
/// struct mptcp_caps.works: events.
pub const MPTCP_CAP_EVENTS: u32 = 0x2000;
/// struct mptcp_caps.works: bind(2) still works after ADD (Linux 6.8).
pub const MPTCP_CAP_LATE_BIND: u32 = 0x4000;

/// struct mptcp_conn_stats.valid: bytes_sent is known.
pub const MPTCP_CS_BYTES_SENT: u64 = 0x1;
/// struct mptcp_conn_stats.valid: bytes_received is known.
pub const MPTCP_CS_BYTES_RECEIVED: u64 = 0x2;
/// struct mptcp_conn_stats.valid: bytes_acked is known.
pub const MPTCP_CS_BYTES_ACKED: u64 = 0x4;
/// struct mptcp_conn_stats.valid: bytes_retrans is known.
pub const MPTCP_CS_BYTES_RETRANS: u64 = 0x8;
/// struct mptcp_conn_stats.valid: closed_bytes_sent is known.
pub const MPTCP_CS_CLOSED_SENT: u64 = 0x10;
/// struct mptcp_conn_stats.valid: closed_bytes_received is known.
pub const MPTCP_CS_CLOSED_RECEIVED: u64 = 0x20;
/// struct mptcp_conn_stats.valid: connid is known.
pub const MPTCP_CS_CONNID: u64 = 0x40;
/// struct mptcp_conn_stats.valid: flags is known.
pub const MPTCP_CS_FLAGS: u64 = 0x80;
/// struct mptcp_conn_stats.valid: subflows is known.
pub const MPTCP_CS_SUBFLOWS: u64 = 0x100;
/// struct mptcp_conn_stats.valid: subflows_pending is known.
pub const MPTCP_CS_SUBFLOWS_PENDING: u64 = 0x200;
/// struct mptcp_conn_stats.valid: subflows_max is known.
pub const MPTCP_CS_SUBFLOWS_MAX: u64 = 0x400;
/// struct mptcp_conn_stats.valid: retransmits is known.
pub const MPTCP_CS_RETRANSMITS: u64 = 0x800;
/// struct mptcp_conn_stats.valid: last_data_sent_ms is known.
pub const MPTCP_CS_LAST_DATA_SENT: u64 = 0x1000;
/// struct mptcp_conn_stats.valid: last_data_received_ms is known.
pub const MPTCP_CS_LAST_DATA_RECEIVED: u64 = 0x2000;
/// struct mptcp_conn_stats.valid: last_ack_received_ms is known.
pub const MPTCP_CS_LAST_ACK_RECEIVED: u64 = 0x4000;
/// struct mptcp_conn_stats.valid: addrs_announced is known.
pub const MPTCP_CS_ADDRS_ANNOUNCED: u64 = 0x8000;
/// struct mptcp_conn_stats.valid: addrs_received is known.
pub const MPTCP_CS_ADDRS_RECEIVED: u64 = 0x10000;

/// struct mptcp_conn_stats.flags: the connection is plain TCP.
pub const MPTCP_CONN_FALLBACK: u32 = 0x1;
/// struct mptcp_conn_stats.flags: this end accepted it. Only the first subflow
/// tells, while it lives; without the bit it may not be known.
pub const MPTCP_CONN_SERVER: u32 = 0x2;
/// struct mptcp_conn_stats.flags: Multipath TCP's checksums are in use.
pub const MPTCP_CONN_CHECKSUM: u32 = 0x4;
/// struct mptcp_conn_stats.flags: fully established, subflows can be made.
pub const MPTCP_CONN_FULL: u32 = 0x8;

/// struct mptcp_subflow_stats.valid: bytes_sent is known.
pub const MPTCP_SS_BYTES_SENT: u64 = 0x1;
/// struct mptcp_subflow_stats.valid: bytes_received is known.
pub const MPTCP_SS_BYTES_RECEIVED: u64 = 0x2;
/// struct mptcp_subflow_stats.valid: bytes_acked is known.
pub const MPTCP_SS_BYTES_ACKED: u64 = 0x4;
/// struct mptcp_subflow_stats.valid: bytes_retrans is known.
pub const MPTCP_SS_BYTES_RETRANS: u64 = 0x8;
/// struct mptcp_subflow_stats.valid: delivery_rate is known.
pub const MPTCP_SS_DELIVERY_RATE: u64 = 0x10;
/// struct mptcp_subflow_stats.valid: pacing_rate is known.
pub const MPTCP_SS_PACING_RATE: u64 = 0x20;
/// struct mptcp_subflow_stats.valid: share_sent_ppm is known.
pub const MPTCP_SS_SHARE_SENT: u64 = 0x40;
/// struct mptcp_subflow_stats.valid: share_received_ppm is known.
pub const MPTCP_SS_SHARE_RECEIVED: u64 = 0x80;
/// struct mptcp_subflow_stats.valid: state is known.
pub const MPTCP_SS_STATE: u64 = 0x100;
/// struct mptcp_subflow_stats.valid: rtt_us is known.
pub const MPTCP_SS_RTT: u64 = 0x200;
/// struct mptcp_subflow_stats.valid: rttvar_us is known.
pub const MPTCP_SS_RTTVAR: u64 = 0x400;
/// struct mptcp_subflow_stats.valid: min_rtt_us is known.
pub const MPTCP_SS_MIN_RTT: u64 = 0x800;
/// struct mptcp_subflow_stats.valid: rto_us is known.
pub const MPTCP_SS_RTO: u64 = 0x1000;
/// struct mptcp_subflow_stats.valid: backoff is known.
pub const MPTCP_SS_BACKOFF: u64 = 0x2000;
/// struct mptcp_subflow_stats.valid: cwnd is known.
pub const MPTCP_SS_CWND: u64 = 0x4000;
/// struct mptcp_subflow_stats.valid: ssthresh is known.
pub const MPTCP_SS_SSTHRESH: u64 = 0x8000;
/// struct mptcp_subflow_stats.valid: mss is known.
pub const MPTCP_SS_MSS: u64 = 0x10000;
/// struct mptcp_subflow_stats.valid: unacked is known.
pub const MPTCP_SS_UNACKED: u64 = 0x20000;
/// struct mptcp_subflow_stats.valid: lost is known.
pub const MPTCP_SS_LOST: u64 = 0x40000;
/// struct mptcp_subflow_stats.valid: retrans is known.
pub const MPTCP_SS_RETRANS: u64 = 0x80000;
/// struct mptcp_subflow_stats.valid: reordering is known.
pub const MPTCP_SS_REORDERING: u64 = 0x100000;
/// struct mptcp_subflow_stats.valid: last_data_sent_ms is known.
pub const MPTCP_SS_LAST_DATA_SENT: u64 = 0x200000;
/// struct mptcp_subflow_stats.valid: last_data_received_ms is known.
pub const MPTCP_SS_LAST_DATA_RECEIVED: u64 = 0x400000;
/// struct mptcp_subflow_stats.valid: last_ack_received_ms is known.
pub const MPTCP_SS_LAST_ACK_RECEIVED: u64 = 0x800000;
/// struct mptcp_subflow_stats.valid: local_id is known.
pub const MPTCP_SS_LOCAL_ID: u64 = 0x1000000;
/// struct mptcp_subflow_stats.valid: remote_id is known.
pub const MPTCP_SS_REMOTE_ID: u64 = 0x2000000;
/// struct mptcp_subflow_stats.valid: ifindex is known.
pub const MPTCP_SS_IFINDEX: u64 = 0x4000000;

/// A subflow: 288 bytes, frozen.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mptcp_subflow {
    /// Local address and port; IPv4-mapped ones are shown as AF_INET.
    pub local: libc::sockaddr_storage,
    /// Remote address and port, of the same family.
    pub remote: libc::sockaddr_storage,
    /// The kernel's number, in order of creation from 1; 0 not known.
    pub id: u32,
    /// MPTCP_SUBFLOW_*.
    pub flags: u32,
    /// Zero.
    pub reserved: [u32; 6],
}

/// What a connection will carry; 0: not known.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct mptcp_traffic {
    /// Bytes.
    pub bytes_to_send: u64,
    /// Bytes.
    pub bytes_to_receive: u64,
    /// Bytes per second.
    pub rate: u64,
    /// Milliseconds.
    pub duration_ms: u32,
    /// Zero.
    pub flags: u32,
}

/// When subflows are made; an int, the mode, is a valid prefix.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct mptcp_path_policy {
    /// MPTCP_PATHS_*.
    pub mode: u32,
    /// ON_DEMAND: milliseconds, 0 = not by time.
    pub after_ms: u32,
    /// ON_DEMAND: bytes, 0 = not by volume; both 0 = 1 MiB.
    pub after_bytes: u64,
}

/// A connection in numbers.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct mptcp_conn_stats {
    /// MPTCP_CS_*: bit k is set where the k-th field after this one is known;
    /// the others are zero.
    pub valid: u64,
    /// Payload given to the subflows, each byte once.
    pub bytes_sent: u64,
    /// Payload received in order, each byte once.
    pub bytes_received: u64,
    /// Bytes the peer acknowledged; the end of the stream counts as one, the
    /// SYN of plain TCP too.
    pub bytes_acked: u64,
    /// Payload given to a subflow once more, since the peer did not acknowledge
    /// it in time.
    pub bytes_retrans: u64,
    /// Payload sent on subflows that are gone.
    pub closed_bytes_sent: u64,
    /// Payload received on subflows that are gone, at least.
    pub closed_bytes_received: u64,
    /// The connection's id.
    pub connid: u32,
    /// MPTCP_CONN_*.
    pub flags: u32,
    /// Established subflows.
    pub subflows: u32,
    /// Subflows whose SYN is out.
    pub subflows_pending: u32,
    /// Subflows at most, the first included, where the in-kernel path manager
    /// sets the limit.
    pub subflows_max: u32,
    /// How often in a row the connection's own retransmission timer ran out.
    pub retransmits: u32,
    /// Milliseconds since data was sent.
    pub last_data_sent_ms: u32,
    /// Milliseconds since data was received.
    pub last_data_received_ms: u32,
    /// Milliseconds since an acknowledgement was received.
    pub last_ack_received_ms: u32,
    /// Addresses announced to the peer, repetitions included.
    pub addrs_announced: u32,
    /// Addresses of the peer that the in-kernel path manager took or the
    /// library knows of.
    pub addrs_received: u32,
    /// Zero.
    pub reserved: u32,
}

/// A subflow in numbers: what TCP counts, as ss(8) shows it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mptcp_subflow_stats {
    /// Which one, and whether it is for backup.
    pub subflow: mptcp_subflow,
    /// MPTCP_SS_*: bit k is set where the k-th field after this one is known;
    /// the others are zero.
    pub valid: u64,
    /// Payload sent, retransmissions included.
    pub bytes_sent: u64,
    /// Bytes received in order; the peer's FIN counts as one.
    pub bytes_received: u64,
    /// Bytes the peer acknowledged; a SYN sent and a FIN count as one each.
    pub bytes_acked: u64,
    /// Payload sent again by TCP.
    pub bytes_retrans: u64,
    /// Bytes per second that were delivered of late.
    pub delivery_rate: u64,
    /// Bytes per second at which it may send.
    pub pacing_rate: u64,
    /// Its part of what all subflows of the connection, living and gone, sent,
    /// in millionths.
    pub share_sent_ppm: u32,
    /// The same of what they received.
    pub share_received_ppm: u32,
    /// tcp(7) state, 1 = ESTABLISHED.
    pub state: u32,
    /// Smoothed round-trip time in microseconds.
    pub rtt_us: u32,
    /// Its mean deviation.
    pub rttvar_us: u32,
    /// Least round-trip time of late, in microseconds.
    pub min_rtt_us: u32,
    /// Retransmission timeout in microseconds.
    pub rto_us: u32,
    /// How often that was doubled.
    pub backoff: u32,
    /// Congestion window in segments.
    pub cwnd: u32,
    /// Slow start threshold in segments; 0x7fffffff: none yet.
    pub ssthresh: u32,
    /// Payload of a segment at most, in bytes.
    pub mss: u32,
    /// Segments sent and not acknowledged.
    pub unacked: u32,
    /// Segments held to be lost.
    pub lost: u32,
    /// Segments sent again, ever.
    pub retrans: u32,
    /// Segments out of order before one is held to be lost.
    pub reordering: u32,
    /// Milliseconds since data was sent.
    pub last_data_sent_ms: u32,
    /// Milliseconds since data was received.
    pub last_data_received_ms: u32,
    /// Milliseconds since an acknowledgement was received.
    pub last_ack_received_ms: u32,
    /// MPTCP address id of the local end.
    pub local_id: u32,
    /// MPTCP address id of the remote end.
    pub remote_id: u32,
    /// The interface it is bound to, else the one that holds its local address.
    pub ifindex: i32,
    /// Zero.
    pub reserved: u32,
}

/// How mptcp_connectbyname() goes about it; all zero: the defaults.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mptcp_connect_opts {
    /// Local addresses as TCP_MULTIPATH_ADD takes them: these and no others.
    pub local: *const libc::sockaddr,
    /// How many, 64 at most; 0: any.
    pub local_count: u32,
    /// MPTCP_CONNECT_*.
    pub flags: u32,
    /// AF_UNSPEC, AF_INET or AF_INET6.
    pub family: i32,
    /// MPTCP_PROFILE_*.
    pub profile: i32,
    /// For all attempts together, in milliseconds from the resolver's answer; 0:
    /// as long as the system tries.
    pub timeout_ms: u32,
    /// From one address to the next, in milliseconds; 0: 250; at least 10.
    pub attempt_delay_ms: u32,
    /// Multipath TCP's head start over TCP, in milliseconds; 0: 150.
    pub tcp_delay_ms: u32,
    /// Zero.
    pub reserved: u32,
}

/// What works here, told beforehand.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mptcp_caps {
    /// MPTCP_CAP_*: works now, for this descriptor.
    pub works: u64,
    /// MPTCP_CAP_*: this library can tell.
    pub known: u64,
    /// MPTCP_BACKEND_*.
    pub backend: u32,
    /// errno: why not a better one; 0: nothing is missing.
    pub backend_errno: i32,
    /// MPTCP_CONTROL_*.
    pub control: u32,
    /// MPTCPAPI_VERSION_NUMBER of the library loaded.
    pub library: u32,
    /// Subflows of a connection at most, the initial one included; 0 not known.
    pub subflows_max: u32,
    /// Addresses of a list at most.
    pub addrs_max: u32,
    /// Zero.
    pub reserved: [u32; 2],
    /// Why not better, in words: UTF-8, NUL at the end.
    pub reason: [c_char; 208],
}

const _: () = {
    assert!(size_of::<mptcp_subflow>() == 288);
    assert!(std::mem::offset_of!(mptcp_subflow, remote) == 128);
    assert!(std::mem::offset_of!(mptcp_subflow, id) == 256);
    assert!(std::mem::offset_of!(mptcp_subflow, reserved) == 264);
    assert!(size_of::<mptcp_traffic>() == 32);
    assert!(size_of::<mptcp_path_policy>() == 16);
    assert!(size_of::<mptcp_conn_stats>() == 104);
    assert!(std::mem::offset_of!(mptcp_conn_stats, connid) == 56);
    assert!(std::mem::offset_of!(mptcp_conn_stats, addrs_received) == 96);
    assert!(size_of::<mptcp_subflow_stats>() == 432);
    assert!(std::mem::offset_of!(mptcp_subflow_stats, valid) == 288);
    assert!(std::mem::offset_of!(mptcp_subflow_stats, share_sent_ppm) == 344);
    assert!(std::mem::offset_of!(mptcp_subflow_stats, state) == 352);
    assert!(std::mem::offset_of!(mptcp_subflow_stats, ifindex) == 424);
    assert!(size_of::<mptcp_connect_opts>() == size_of::<usize>() + 32);
    assert!(std::mem::offset_of!(mptcp_connect_opts, local_count) == size_of::<usize>());
    assert!(size_of::<mptcp_caps>() == 256);
    assert!(std::mem::offset_of!(mptcp_caps, backend) == 16);
    assert!(std::mem::offset_of!(mptcp_caps, reason) == 48);
};
