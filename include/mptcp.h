/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * mptcp.h - the RFC 6897 interface to Multipath TCP on Linux (libmptcpapi)
 *
 * Every function returns 0, a count or a descriptor, or -1 with errno set.
 * errno is left alone on success; outputs are written only on success, but for
 * *optlen with ENOBUFS. mptcp_errmsg() says in words why the calling thread's
 * last failure happened. Address lists are sockaddr_in and sockaddr_in6 one
 * behind the other. Generated from src/capi by `make header`: don't edit.
 */

#ifndef LIBMPTCPAPI_MPTCP_H
#define LIBMPTCPAPI_MPTCP_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/socket.h>

/* Version of the interface described here. */
#define MPTCPAPI_VERSION "0.1.0"

/**
 * The same as a number, 0xMMmmpp. struct mptcp_caps.library has that of the
 * library loaded.
 */
#define MPTCPAPI_VERSION_NUMBER 0x000100

/**
 * int, boolean; get and set. RFC 6897 5.3.2.
 *
 * Set, before connect(2) and listen(2): non-zero makes the descriptor's
 * socket one of Multipath TCP, 0 one of TCP, with its options, flags, bound
 * address and owner; dup()s and epoll registrations made earlier go on naming
 * the old socket. Get: before the connection what was asked for; on it
 * whether Multipath TCP is in use now; after its end the last truth known.
 */
#define TCP_MULTIPATH_ENABLE 0x689701

/**
 * Packed sockaddr_in and sockaddr_in6; set. RFC 6897 5.3.3.
 *
 * Before the connection: use these local addresses and no others. On a
 * connection: allow, use and advertise these too. Port 0: any.
 */
#define TCP_MULTIPATH_ADD 0x689702

/**
 * Packed sockaddr_in and sockaddr_in6; set. RFC 6897 5.3.3.
 *
 * Takes local addresses back. On a connection alternatives are made first,
 * then the peer is told, then their subflows are closed. Port 0: every port.
 */
#define TCP_MULTIPATH_REMOVE 0x689703

/**
 * struct mptcp_subflow[]; get. RFC 6897 5.3.4.
 *
 * The established subflows, one consistent snapshot in order of creation.
 */
#define TCP_MULTIPATH_SUBFLOWS 0x689704

/**
 * uint32_t, never 0; get. RFC 6897 5.3.5.
 *
 * The connection's token, unique among this host's live connections.
 */
#define TCP_MULTIPATH_CONNID 0x689705

/**
 * int, 1 to 255; get and set. RFC 6897 REQ7.
 *
 * Subflows of the connection at most, the initial one included; 0: the
 * default, 255. Lowered, the least useful ones are closed, never the last;
 * raised, those are made that the list asks for.
 */
#define TCP_MULTIPATH_MAX_SUBFLOWS 0x689706

/**
 * int, MPTCP_PROFILE_*; get and set. RFC 6897 REQ8.
 *
 * What the connection is for: which subflows it has, and which of them are
 * for backup.
 */
#define TCP_MULTIPATH_PROFILE 0x689707

/**
 * struct mptcp_traffic; get and set. RFC 6897 REQ9.
 *
 * What the connection will carry. One of less than 1 MiB gets no further
 * subflows, unless it carries that much after all.
 */
#define TCP_MULTIPATH_TRAFFIC 0x689708

/**
 * struct mptcp_path_policy, or an int, its mode; get and set. RFC 6897 REQ10.
 *
 * When further subflows are made.
 */
#define TCP_MULTIPATH_PATH_POLICY 0x689709

/**
 * int, MPTCP_REDUNDANCY_*; get and set. RFC 6897 REQ12.
 *
 * Takes a kernel with a packet scheduler that does it, which sockets get when
 * they are made (net.mptcp.scheduler): EOPNOTSUPP where there is none.
 */
#define TCP_MULTIPATH_REDUNDANCY 0x68970a

/**
 * int, boolean; get and set. RFC 6897 REQ13.
 *
 * The connection ends with its initial subflow. The default is the
 * administrator's (mptcpapid.conf(5)), else 0.
 */
#define TCP_MULTIPATH_FATE_SHARING 0x68970b

/**
 * TCP_MULTIPATH_PROFILE: all paths at once. The default.
 */
#define MPTCP_PROFILE_AGGREGATE 0

/**
 * TCP_MULTIPATH_PROFILE: the path with the lowest delay.
 */
#define MPTCP_PROFILE_INTERACTIVE 1

/**
 * TCP_MULTIPATH_PROFILE: one path, one warm spare.
 */
#define MPTCP_PROFILE_HANDOVER 2

/**
 * TCP_MULTIPATH_PROFILE: one path, a second when it is full.
 */
#define MPTCP_PROFILE_OVERFLOW 3

/**
 * struct mptcp_path_policy.mode: subflows as soon as possible. The default.
 */
#define MPTCP_PATHS_EAGER 0

/**
 * struct mptcp_path_policy.mode: after so many bytes or milliseconds.
 */
#define MPTCP_PATHS_ON_DEMAND 1

/**
 * struct mptcp_path_policy.mode: by hand only.
 */
#define MPTCP_PATHS_MANUAL 2

/**
 * TCP_MULTIPATH_REDUNDANCY: none. The default.
 */
#define MPTCP_REDUNDANCY_NONE 0

/**
 * TCP_MULTIPATH_REDUNDANCY: duplicates where capacity is idle.
 */
#define MPTCP_REDUNDANCY_SPARE 1

/**
 * TCP_MULTIPATH_REDUNDANCY: everything on every path.
 */
#define MPTCP_REDUNDANCY_FULL 2

/**
 * struct mptcp_subflow.flags: the connection's first subflow.
 */
#define MPTCP_SUBFLOW_INITIAL 0x1

/**
 * struct mptcp_subflow.flags: plain TCP, this pair is all there is.
 */
#define MPTCP_SUBFLOW_FALLBACK 0x2

/**
 * struct mptcp_subflow.flags: the next two bits were looked up.
 */
#define MPTCP_SUBFLOW_PRIO_KNOWN 0x4

/**
 * struct mptcp_subflow.flags: we asked for backup only.
 */
#define MPTCP_SUBFLOW_BACKUP 0x8

/**
 * struct mptcp_subflow.flags: the peer asked for backup only.
 */
#define MPTCP_SUBFLOW_PEER_BACKUP 0x10

/**
 * mptcp_bindx(): as TCP_MULTIPATH_ADD. Exactly one of this and the next.
 */
#define MPTCP_BINDX_ADD_ADDR 0x1

/**
 * mptcp_bindx(): as TCP_MULTIPATH_REMOVE.
 */
#define MPTCP_BINDX_REM_ADDR 0x2

/**
 * mptcp_bindx(), with ADD_ADDR: the addresses' subflows are for backup.
 */
#define MPTCP_BINDX_BACKUP 0x10

/**
 * mptcp_bindx(), with ADD_ADDR: use them, never tell the peer.
 */
#define MPTCP_BINDX_NO_ADVERTISE 0x20

/**
 * mptcp_bindx(), with ADD_ADDR: tell the peer, open no subflow from them.
 */
#define MPTCP_BINDX_NO_SUBFLOW 0x40

/**
 * mptcp_opensubflow(): for backup only.
 */
#define MPTCP_OPEN_BACKUP 0x1

/**
 * mptcp_opensubflow(): return when it is established or refused.
 */
#define MPTCP_OPEN_WAIT 0x2

/**
 * struct mptcp_connect_opts.flags: the descriptor is O_NONBLOCK.
 */
#define MPTCP_CONNECT_NONBLOCK 0x1

/**
 * struct mptcp_connect_opts.flags: fail rather than return plain TCP.
 */
#define MPTCP_CONNECT_NO_FALLBACK 0x2

/**
 * struct mptcp_connect_opts.flags: plain TCP only.
 */
#define MPTCP_CONNECT_NO_MPTCP 0x4

/**
 * struct mptcp_connect_opts.flags: node is an address, service a port.
 */
#define MPTCP_CONNECT_NUMERIC 0x8

/**
 * struct mptcp_caps.backend: nobody controls paths.
 */
#define MPTCP_BACKEND_NONE 0

/**
 * struct mptcp_caps.backend: mptcpapid does.
 */
#define MPTCP_BACKEND_BROKER 1

/**
 * struct mptcp_caps.backend: this process does, with CAP_NET_ADMIN.
 */
#define MPTCP_BACKEND_DIRECT 2

/**
 * struct mptcp_caps.control: it can't be told.
 */
#define MPTCP_CONTROL_UNKNOWN 0

/**
 * struct mptcp_caps.control: the in-kernel path manager.
 */
#define MPTCP_CONTROL_KERNEL 1

/**
 * struct mptcp_caps.control: this library, for the one connection.
 */
#define MPTCP_CONTROL_CONNECTION 2

/**
 * struct mptcp_caps.works: Multipath TCP sockets can be made.
 */
#define MPTCP_CAP_ENABLE 0x1

/**
 * struct mptcp_caps.works: subflows can be listed.
 */
#define MPTCP_CAP_SUBFLOWS 0x2

/**
 * struct mptcp_caps.works: connections have an identifier.
 */
#define MPTCP_CAP_CONNID 0x4

/**
 * struct mptcp_caps.works: statistics of connections.
 */
#define MPTCP_CAP_CONN_STATS 0x8

/**
 * struct mptcp_caps.works: statistics of subflows.
 */
#define MPTCP_CAP_SUBFLOW_STATS 0x10

/**
 * struct mptcp_caps.works: lists before connect(2).
 */
#define MPTCP_CAP_ADD_BEFORE 0x20

/**
 * struct mptcp_caps.works: ADD and REMOVE on a connection.
 */
#define MPTCP_CAP_ADD_LIVE 0x40

/**
 * struct mptcp_caps.works: single subflows can be closed.
 */
#define MPTCP_CAP_CLOSE_SUBFLOW 0x80

/**
 * struct mptcp_caps.works: lists on listeners.
 */
#define MPTCP_CAP_LISTEN 0x100

/**
 * struct mptcp_caps.works: addresses for backup only.
 */
#define MPTCP_CAP_BACKUP 0x200

/**
 * struct mptcp_caps.works: profiles, traffic hints, path policies and numbers
 * of subflows.
 */
#define MPTCP_CAP_PROFILE 0x400

/**
 * struct mptcp_caps.works: a packet scheduler can send data twice.
 */
#define MPTCP_CAP_REDUNDANCY 0x800

/**
 * struct mptcp_caps.works: fate sharing.
 */
#define MPTCP_CAP_FATE_SHARING 0x1000

/**
 * struct mptcp_caps.works: events.
 */
#define MPTCP_CAP_EVENTS 0x2000

/**
 * struct mptcp_caps.works: bind(2) still works after ADD (Linux 6.8).
 */
#define MPTCP_CAP_LATE_BIND 0x4000

/**
 * struct mptcp_conn_stats.valid: bytes_sent is known.
 */
#define MPTCP_CS_BYTES_SENT 0x1

/**
 * struct mptcp_conn_stats.valid: bytes_received is known.
 */
#define MPTCP_CS_BYTES_RECEIVED 0x2

/**
 * struct mptcp_conn_stats.valid: bytes_acked is known.
 */
#define MPTCP_CS_BYTES_ACKED 0x4

/**
 * struct mptcp_conn_stats.valid: bytes_retrans is known.
 */
#define MPTCP_CS_BYTES_RETRANS 0x8

/**
 * struct mptcp_conn_stats.valid: closed_bytes_sent is known.
 */
#define MPTCP_CS_CLOSED_SENT 0x10

/**
 * struct mptcp_conn_stats.valid: closed_bytes_received is known.
 */
#define MPTCP_CS_CLOSED_RECEIVED 0x20

/**
 * struct mptcp_conn_stats.valid: connid is known.
 */
#define MPTCP_CS_CONNID 0x40

/**
 * struct mptcp_conn_stats.valid: flags is known.
 */
#define MPTCP_CS_FLAGS 0x80

/**
 * struct mptcp_conn_stats.valid: subflows is known.
 */
#define MPTCP_CS_SUBFLOWS 0x100

/**
 * struct mptcp_conn_stats.valid: subflows_pending is known.
 */
#define MPTCP_CS_SUBFLOWS_PENDING 0x200

/**
 * struct mptcp_conn_stats.valid: subflows_max is known.
 */
#define MPTCP_CS_SUBFLOWS_MAX 0x400

/**
 * struct mptcp_conn_stats.valid: retransmits is known.
 */
#define MPTCP_CS_RETRANSMITS 0x800

/**
 * struct mptcp_conn_stats.valid: last_data_sent_ms is known.
 */
#define MPTCP_CS_LAST_DATA_SENT 0x1000

/**
 * struct mptcp_conn_stats.valid: last_data_received_ms is known.
 */
#define MPTCP_CS_LAST_DATA_RECEIVED 0x2000

/**
 * struct mptcp_conn_stats.valid: last_ack_received_ms is known.
 */
#define MPTCP_CS_LAST_ACK_RECEIVED 0x4000

/**
 * struct mptcp_conn_stats.valid: addrs_announced is known.
 */
#define MPTCP_CS_ADDRS_ANNOUNCED 0x8000

/**
 * struct mptcp_conn_stats.valid: addrs_received is known.
 */
#define MPTCP_CS_ADDRS_RECEIVED 0x10000

/**
 * struct mptcp_conn_stats.flags: the connection is plain TCP.
 */
#define MPTCP_CONN_FALLBACK 0x1

/**
 * struct mptcp_conn_stats.flags: this end accepted it. Only the first subflow
 * tells, while it lives; without the bit it may not be known.
 */
#define MPTCP_CONN_SERVER 0x2

/**
 * struct mptcp_conn_stats.flags: Multipath TCP's checksums are in use.
 */
#define MPTCP_CONN_CHECKSUM 0x4

/**
 * struct mptcp_conn_stats.flags: fully established, subflows can be made.
 */
#define MPTCP_CONN_FULL 0x8

/**
 * struct mptcp_subflow_stats.valid: bytes_sent is known.
 */
#define MPTCP_SS_BYTES_SENT 0x1

/**
 * struct mptcp_subflow_stats.valid: bytes_received is known.
 */
#define MPTCP_SS_BYTES_RECEIVED 0x2

/**
 * struct mptcp_subflow_stats.valid: bytes_acked is known.
 */
#define MPTCP_SS_BYTES_ACKED 0x4

/**
 * struct mptcp_subflow_stats.valid: bytes_retrans is known.
 */
#define MPTCP_SS_BYTES_RETRANS 0x8

/**
 * struct mptcp_subflow_stats.valid: delivery_rate is known.
 */
#define MPTCP_SS_DELIVERY_RATE 0x10

/**
 * struct mptcp_subflow_stats.valid: pacing_rate is known.
 */
#define MPTCP_SS_PACING_RATE 0x20

/**
 * struct mptcp_subflow_stats.valid: share_sent_ppm is known.
 */
#define MPTCP_SS_SHARE_SENT 0x40

/**
 * struct mptcp_subflow_stats.valid: share_received_ppm is known.
 */
#define MPTCP_SS_SHARE_RECEIVED 0x80

/**
 * struct mptcp_subflow_stats.valid: state is known.
 */
#define MPTCP_SS_STATE 0x100

/**
 * struct mptcp_subflow_stats.valid: rtt_us is known.
 */
#define MPTCP_SS_RTT 0x200

/**
 * struct mptcp_subflow_stats.valid: rttvar_us is known.
 */
#define MPTCP_SS_RTTVAR 0x400

/**
 * struct mptcp_subflow_stats.valid: min_rtt_us is known.
 */
#define MPTCP_SS_MIN_RTT 0x800

/**
 * struct mptcp_subflow_stats.valid: rto_us is known.
 */
#define MPTCP_SS_RTO 0x1000

/**
 * struct mptcp_subflow_stats.valid: backoff is known.
 */
#define MPTCP_SS_BACKOFF 0x2000

/**
 * struct mptcp_subflow_stats.valid: cwnd is known.
 */
#define MPTCP_SS_CWND 0x4000

/**
 * struct mptcp_subflow_stats.valid: ssthresh is known.
 */
#define MPTCP_SS_SSTHRESH 0x8000

/**
 * struct mptcp_subflow_stats.valid: mss is known.
 */
#define MPTCP_SS_MSS 0x10000

/**
 * struct mptcp_subflow_stats.valid: unacked is known.
 */
#define MPTCP_SS_UNACKED 0x20000

/**
 * struct mptcp_subflow_stats.valid: lost is known.
 */
#define MPTCP_SS_LOST 0x40000

/**
 * struct mptcp_subflow_stats.valid: retrans is known.
 */
#define MPTCP_SS_RETRANS 0x80000

/**
 * struct mptcp_subflow_stats.valid: reordering is known.
 */
#define MPTCP_SS_REORDERING 0x100000

/**
 * struct mptcp_subflow_stats.valid: last_data_sent_ms is known.
 */
#define MPTCP_SS_LAST_DATA_SENT 0x200000

/**
 * struct mptcp_subflow_stats.valid: last_data_received_ms is known.
 */
#define MPTCP_SS_LAST_DATA_RECEIVED 0x400000

/**
 * struct mptcp_subflow_stats.valid: last_ack_received_ms is known.
 */
#define MPTCP_SS_LAST_ACK_RECEIVED 0x800000

/**
 * struct mptcp_subflow_stats.valid: local_id is known.
 */
#define MPTCP_SS_LOCAL_ID 0x1000000

/**
 * struct mptcp_subflow_stats.valid: remote_id is known.
 */
#define MPTCP_SS_REMOTE_ID 0x2000000

/**
 * struct mptcp_subflow_stats.valid: ifindex is known.
 */
#define MPTCP_SS_IFINDEX 0x4000000

/**
 * A further subflow is established.
 */
#define MPTCP_EV_SUBFLOW_UP 0x1

/**
 * A subflow was closed, refused or given up; error tells why, if known.
 */
#define MPTCP_EV_SUBFLOW_DOWN 0x2

/**
 * A subflow is for backup, or not any more, by either side's wish.
 */
#define MPTCP_EV_PRIORITY 0x4

/**
 * The peer announced an address.
 */
#define MPTCP_EV_PEER_ADDR 0x8

/**
 * The peer withdrew an address.
 */
#define MPTCP_EV_PEER_ADDR_GONE 0x10

/**
 * The connection is plain TCP now.
 */
#define MPTCP_EV_FALLBACK 0x20

/**
 * A connection is established; subflow is the initial one.
 */
#define MPTCP_EV_UP 0x40

/**
 * A connection ended: its last event.
 */
#define MPTCP_EV_DOWN 0x80

/**
 * A request that was accepted can't be met (yet): a subflow to be made from an
 * address that was ADDed, or opened by hand, was refused.
 */
#define MPTCP_EV_REQUEST_FAILED 0x100

/**
 * mptcp_subscribe(): every event, those of later versions included.
 */
#define MPTCP_EV_ALL 0x0fffffff

/**
 * mptcp_subscribe(): first tell what is there, by UP and SUBFLOW_UP.
 */
#define MPTCP_EV_CURRENT 0x40000000

/**
 * Events were lost in this place: look again. Sent whether asked for or not.
 */
#define MPTCP_EV_OVERFLOW 0x80000000

/**
 * struct mptcp_event.origin: it can't be told.
 */
#define MPTCP_ORIGIN_UNKNOWN 0

/**
 * struct mptcp_event.origin: a call of this interface.
 */
#define MPTCP_ORIGIN_APP 1

/**
 * struct mptcp_event.origin: the library, the broker or the in-kernel path
 * manager, by itself.
 */
#define MPTCP_ORIGIN_POLICY 2

/**
 * struct mptcp_event.origin: the other end.
 */
#define MPTCP_ORIGIN_PEER 3

/**
 * struct mptcp_event.origin: the network between, or the loss of an address.
 */
#define MPTCP_ORIGIN_NETWORK 4

/**
 * A subflow: 288 bytes, frozen.
 */
struct mptcp_subflow {
        /**
         * Local address and port; IPv4-mapped ones are shown as AF_INET.
         */
        struct sockaddr_storage local;
        /**
         * Remote address and port, of the same family.
         */
        struct sockaddr_storage remote;
        /**
         * The kernel's number, in order of creation from 1; 0 not known.
         */
        uint32_t id;
        /**
         * MPTCP_SUBFLOW_*.
         */
        uint32_t flags;
        /**
         * Zero.
         */
        uint32_t reserved[6];
};

/**
 * How mptcp_connectbyname() goes about it; all zero: the defaults.
 */
struct mptcp_connect_opts {
        /**
         * Local addresses as TCP_MULTIPATH_ADD takes them: these and no others.
         */
        const struct sockaddr *local;
        /**
         * How many, 64 at most; 0: any.
         */
        uint32_t local_count;
        /**
         * MPTCP_CONNECT_*.
         */
        uint32_t flags;
        /**
         * AF_UNSPEC, AF_INET or AF_INET6.
         */
        int32_t family;
        /**
         * MPTCP_PROFILE_*.
         */
        int32_t profile;
        /**
         * For all attempts together, in milliseconds from the resolver's answer; 0:
         * as long as the system tries.
         */
        uint32_t timeout_ms;
        /**
         * From one address to the next, in milliseconds; 0: 250; at least 10.
         */
        uint32_t attempt_delay_ms;
        /**
         * Multipath TCP's head start over TCP, in milliseconds; 0: 150.
         */
        uint32_t tcp_delay_ms;
        /**
         * Zero.
         */
        uint32_t reserved;
};

/**
 * A connection in numbers.
 */
struct mptcp_conn_stats {
        /**
         * MPTCP_CS_*: bit k is set where the k-th field after this one is known;
         * the others are zero.
         */
        uint64_t valid;
        /**
         * Payload given to the subflows, each byte once.
         */
        uint64_t bytes_sent;
        /**
         * Payload received in order, each byte once.
         */
        uint64_t bytes_received;
        /**
         * Bytes the peer acknowledged; the end of the stream counts as one, the
         * SYN of plain TCP too.
         */
        uint64_t bytes_acked;
        /**
         * Payload given to a subflow once more, since the peer did not acknowledge
         * it in time.
         */
        uint64_t bytes_retrans;
        /**
         * Payload sent on subflows that are gone.
         */
        uint64_t closed_bytes_sent;
        /**
         * Payload received on subflows that are gone, at least.
         */
        uint64_t closed_bytes_received;
        /**
         * The connection's id.
         */
        uint32_t connid;
        /**
         * MPTCP_CONN_*.
         */
        uint32_t flags;
        /**
         * Established subflows.
         */
        uint32_t subflows;
        /**
         * Subflows whose SYN is out.
         */
        uint32_t subflows_pending;
        /**
         * Subflows at most, the first included, where the in-kernel path manager
         * sets the limit.
         */
        uint32_t subflows_max;
        /**
         * How often in a row the connection's own retransmission timer ran out.
         */
        uint32_t retransmits;
        /**
         * Milliseconds since data was sent.
         */
        uint32_t last_data_sent_ms;
        /**
         * Milliseconds since data was received.
         */
        uint32_t last_data_received_ms;
        /**
         * Milliseconds since an acknowledgement was received.
         */
        uint32_t last_ack_received_ms;
        /**
         * Addresses announced to the peer, repetitions included.
         */
        uint32_t addrs_announced;
        /**
         * Addresses of the peer that the in-kernel path manager took or the
         * library knows of.
         */
        uint32_t addrs_received;
        /**
         * Zero.
         */
        uint32_t reserved;
};

/**
 * A subflow in numbers: what TCP counts, as ss(8) shows it.
 */
struct mptcp_subflow_stats {
        /**
         * Which one, and whether it is for backup.
         */
        struct mptcp_subflow subflow;
        /**
         * MPTCP_SS_*: bit k is set where the k-th field after this one is known;
         * the others are zero.
         */
        uint64_t valid;
        /**
         * Payload sent, retransmissions included.
         */
        uint64_t bytes_sent;
        /**
         * Bytes received in order; the peer's FIN counts as one.
         */
        uint64_t bytes_received;
        /**
         * Bytes the peer acknowledged; a SYN sent and a FIN count as one each.
         */
        uint64_t bytes_acked;
        /**
         * Payload sent again by TCP.
         */
        uint64_t bytes_retrans;
        /**
         * Bytes per second that were delivered of late.
         */
        uint64_t delivery_rate;
        /**
         * Bytes per second at which it may send.
         */
        uint64_t pacing_rate;
        /**
         * Its part of what all subflows of the connection, living and gone, sent,
         * in millionths.
         */
        uint32_t share_sent_ppm;
        /**
         * The same of what they received.
         */
        uint32_t share_received_ppm;
        /**
         * tcp(7) state, 1 = ESTABLISHED.
         */
        uint32_t state;
        /**
         * Smoothed round-trip time in microseconds.
         */
        uint32_t rtt_us;
        /**
         * Its mean deviation.
         */
        uint32_t rttvar_us;
        /**
         * Least round-trip time of late, in microseconds.
         */
        uint32_t min_rtt_us;
        /**
         * Retransmission timeout in microseconds.
         */
        uint32_t rto_us;
        /**
         * How often that was doubled.
         */
        uint32_t backoff;
        /**
         * Congestion window in segments.
         */
        uint32_t cwnd;
        /**
         * Slow start threshold in segments; 0x7fffffff: none yet.
         */
        uint32_t ssthresh;
        /**
         * Payload of a segment at most, in bytes.
         */
        uint32_t mss;
        /**
         * Segments sent and not acknowledged.
         */
        uint32_t unacked;
        /**
         * Segments held to be lost.
         */
        uint32_t lost;
        /**
         * Segments sent again, ever.
         */
        uint32_t retrans;
        /**
         * Segments out of order before one is held to be lost.
         */
        uint32_t reordering;
        /**
         * Milliseconds since data was sent.
         */
        uint32_t last_data_sent_ms;
        /**
         * Milliseconds since data was received.
         */
        uint32_t last_data_received_ms;
        /**
         * Milliseconds since an acknowledgement was received.
         */
        uint32_t last_ack_received_ms;
        /**
         * MPTCP address id of the local end.
         */
        uint32_t local_id;
        /**
         * MPTCP address id of the remote end.
         */
        uint32_t remote_id;
        /**
         * The interface it is bound to, else the one that holds its local address.
         */
        int32_t ifindex;
        /**
         * Zero.
         */
        uint32_t reserved;
};

/**
 * One event.
 */
struct mptcp_event {
        /**
         * One MPTCP_EV_*; those that are not known are to be skipped.
         */
        uint32_t what;
        /**
         * TCP_MULTIPATH_CONNID of the connection; 0 with OVERFLOW.
         */
        uint32_t connid;
        /**
         * CLOCK_MONOTONIC when it was noticed, in nanoseconds.
         */
        uint64_t time_ns;
        /**
         * Zero where there is none; with PEER_ADDR and PEER_ADDR_GONE the remote
         * address only.
         */
        struct mptcp_subflow subflow;
        /**
         * errno of a failure, 0 none.
         */
        int32_t error;
        /**
         * Why the peer reset the subflow (RFC 8684 3.6), 0 not known.
         */
        uint32_t reset_reason;
        /**
         * PEER_ADDR, PEER_ADDR_GONE: the peer's id of the address; else 0.
         */
        uint32_t addr_id;
        /**
         * Interface of the subflow, 0 not known.
         */
        int32_t ifindex;
        /**
         * MPTCP_ORIGIN_*: who was the cause.
         */
        uint32_t origin;
        /**
         * OVERFLOW: how many were lost, 0 not known.
         */
        uint32_t lost;
        /**
         * Zero.
         */
        uint32_t reserved[2];
};

/**
 * What mptcp_dispatch() calls for each event: event is good until it returns,
 * size is sizeof(struct mptcp_event) of the library. Non-zero ends the
 * dispatch.
 */
typedef int (*mptcp_event_fn)(const struct mptcp_event *event,
                              size_t size,
                              void *arg);

/**
 * What works here, told beforehand.
 */
struct mptcp_caps {
        /**
         * MPTCP_CAP_*: works now, for this descriptor.
         */
        uint64_t works;
        /**
         * MPTCP_CAP_*: this library can tell.
         */
        uint64_t known;
        /**
         * MPTCP_BACKEND_*.
         */
        uint32_t backend;
        /**
         * errno: why not a better one; 0: nothing is missing.
         */
        int32_t backend_errno;
        /**
         * MPTCP_CONTROL_*.
         */
        uint32_t control;
        /**
         * MPTCPAPI_VERSION_NUMBER of the library loaded.
         */
        uint32_t library;
        /**
         * Subflows of a connection at most, the initial one included; 0 not known.
         */
        uint32_t subflows_max;
        /**
         * Addresses of a list at most.
         */
        uint32_t addrs_max;
        /**
         * Zero.
         */
        uint32_t reserved[2];
        /**
         * Why not better, in words: UTF-8, NUL at the end.
         */
        char reason[208];
};

/**
 * What a connection will carry; 0: not known.
 */
struct mptcp_traffic {
        /**
         * Bytes.
         */
        uint64_t bytes_to_send;
        /**
         * Bytes.
         */
        uint64_t bytes_to_receive;
        /**
         * Bytes per second.
         */
        uint64_t rate;
        /**
         * Milliseconds.
         */
        uint32_t duration_ms;
        /**
         * Zero.
         */
        uint32_t flags;
};

/**
 * When subflows are made; an int, the mode, is a valid prefix.
 */
struct mptcp_path_policy {
        /**
         * MPTCP_PATHS_*.
         */
        uint32_t mode;
        /**
         * ON_DEMAND: milliseconds, 0 = not by time.
         */
        uint32_t after_ms;
        /**
         * ON_DEMAND: bytes, 0 = not by volume; both 0 = 1 MiB.
         */
        uint64_t after_bytes;
};

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * setsockopt(2) with the TCP_MULTIPATH_* options besides.
 *
 * Level IPPROTO_TCP with a number in 0x689700-0x6897ff is handled here; all
 * else goes to the system call unchanged, with its return and errno. An
 * integer option reads the first four bytes of optval.
 *
 * Returns 0, or -1 and errno: EBADF, ENOTSOCK, EOPNOTSUPP (not a stream
 * socket of TCP or MPTCP; no MPTCP, a fallback to TCP, the in-kernel path
 * manager, another network namespace), EFAULT, EINVAL (optlen under 4; a list
 * that is empty, cut short, over 64 entries, or has a wildcard or a link-local
 * address without scope id), ENOPROTOOPT, EISCONN (ENABLE: connected,
 * connecting or listening), EADDRNOTAVAIL, EADDRINUSE, EAFNOSUPPORT, EPERM
 * (nobody may act for this process), EACCES, EDQUOT, ENOSPC, ENOENT
 * (FATE_SHARING: the initial subflow is gone), ENOTCONN (ADD, REMOVE: the
 * connection ended), E2BIG (a struct with more than this version knows), EIO
 * (the broker went, or another process holds the switch of path managers: try
 * again), ENOMEM, EMFILE, ENFILE, ENOTRECOVERABLE (a bug of ours). On failure
 * nothing was changed; mptcp_errmsg() says why.
 */
int mptcp_setsockopt(int fd,
                     int level,
                     int optname,
                     const void *optval,
                     socklen_t optlen);

/**
 * getsockopt(2) with the TCP_MULTIPATH_* options besides.
 *
 * Level IPPROTO_TCP with a number in 0x689700-0x6897ff is handled here; all
 * else goes to the system call unchanged. ENABLE and CONNID need *optlen of 4
 * or more, write four bytes and set *optlen to 4. SUBFLOWS writes all
 * established subflows, 288 bytes each, and sets *optlen to the bytes written;
 * if they don't fit, ENOBUFS, and *optlen is what is needed. optval may be
 * NULL when *optlen is 0.
 *
 * Returns 0, or -1 and errno: EBADF, ENOTSOCK, EOPNOTSUPP (not a stream
 * socket of TCP or MPTCP; CONNID of plain TCP; SUBFLOWS before Linux 5.16
 * without inet_diag), EFAULT, EINVAL, ENOPROTOOPT, ENOTCONN (no connection,
 * or it ended), ENOBUFS, E2BIG, EIO (the broker went), ENOMEM,
 * ENOTRECOVERABLE. Needs no privilege.
 */
int mptcp_getsockopt(int fd,
                     int level,
                     int optname,
                     void *optval,
                     socklen_t *optlen);

/**
 * Gives the established subflows of a connection: TCP_MULTIPATH_SUBFLOWS
 * without a buffer to size.
 *
 * Returns their number and sets *subflows to an array of them, to be freed by
 * mptcp_freesubflows(); NULL when there are none just now. A plain TCP
 * connection shows its one pair with MPTCP_SUBFLOW_FALLBACK. -1 and errno:
 * as mptcp_getsockopt(). Needs no privilege and asks the kernel in one system
 * call where it has MPTCP_FULL_INFO (Linux 6.5).
 */
int mptcp_getsubflows(int fd, struct mptcp_subflow **subflows);

/**
 * Frees what mptcp_getsubflows() gave. NULL is fine; errno stays.
 */
void mptcp_freesubflows(struct mptcp_subflow *subflows);

/**
 * Adds local addresses to a socket's list, or removes them: sctp_bindx(3)'s
 * shape for TCP_MULTIPATH_ADD and TCP_MULTIPATH_REMOVE.
 *
 * addrs are addrcnt (1 to 64) sockaddr_in and sockaddr_in6 one behind the
 * other; all or nothing. flags: exactly one of MPTCP_BINDX_ADD_ADDR and
 * MPTCP_BINDX_REM_ADDR; with ADD_ADDR also MPTCP_BINDX_BACKUP,
 * MPTCP_BINDX_NO_ADVERTISE, MPTCP_BINDX_NO_SUBFLOW, which hold for all
 * addresses of the call; the last flags given to an address win, on a live
 * connection too. NO_ADVERTISE with NO_SUBFLOW is EINVAL.
 *
 * Returns 0, or -1 and errno: as mptcp_setsockopt(); ENOTCONN where the
 * connection ended meanwhile.
 */
int mptcp_bindx(int fd, const struct sockaddr *addrs, int addrcnt, int flags);

/**
 * Connects to one peer by any of its addresses.
 *
 * addrs are addrcnt (1 to 64) packed addresses of *one* peer, by the caller's
 * word: never the several answers of getaddrinfo(3), which can be several
 * hosts (RFC 6897 6.4). A blocking socket tries each in turn until one
 * answers, SO_SNDTIMEO bounds the whole; the others then get subflows as far
 * as can be, which doesn't change the result. A non-blocking one says
 * EINPROGRESS: when it is writable call again with the same list, which
 * returns 0 when connected, EINPROGRESS while it tries the next, EALREADY
 * while an attempt is under way, else the last address's error. After EINTR
 * the attempt goes on: call again. If the socket has a list, its first
 * subflow starts from the list's address that routes to the peer. On a TCP
 * socket: plain TCP, in turn.
 *
 * connid may be NULL; it is written with 0 only: the connection's id, 0 when
 * it is plain TCP. Returns 0, or -1 and errno: those of connect(2), of the
 * peer; EISCONN (connected to another); EADDRNOTAVAIL (no address of the list
 * routes to the peer); and those of mptcp_setsockopt().
 */
int mptcp_connectx(int fd,
                   const struct sockaddr *addrs,
                   int addrcnt,
                   uint32_t *connid);

/**
 * Gives a socket's local addresses: its list; without one, before the
 * connection the address it is bound to (if any), on it the distinct local
 * addresses of the established subflows.
 *
 * Returns their number and sets *addrs to packed addresses (step with
 * mptcp_getaddrlen()), to be freed by mptcp_freeladdrs(); NULL when there are
 * none. -1 and errno: EBADF, ENOTSOCK, EOPNOTSUPP, EFAULT, ENOMEM.
 */
int mptcp_getladdrs(int fd, struct sockaddr **addrs);

/**
 * Frees what mptcp_getladdrs() gave. NULL is fine; errno stays.
 */
void mptcp_freeladdrs(struct sockaddr *addrs);

/**
 * Gives the peer's addresses: the distinct remote addresses of the
 * established subflows, then those that the peer announced, as far as known
 * here.
 *
 * As mptcp_getladdrs(), freed by mptcp_freepaddrs(); ENOTCONN before the
 * connection and after its end.
 */
int mptcp_getpaddrs(int fd, struct sockaddr **addrs);

/**
 * Frees what mptcp_getpaddrs() gave. NULL is fine; errno stays.
 */
void mptcp_freepaddrs(struct sockaddr *addrs);

/**
 * Size of a packed address of this family, 16 (AF_INET) or 28 (AF_INET6):
 * steps through a packed list. -1 and EAFNOSUPPORT for any other.
 * Async-signal-safe.
 */
int mptcp_getaddrlen(int family);

/**
 * Connects to a host by its name.
 *
 * node and service are as getaddrinfo(3) takes them. The addresses are tried
 * as Happy Eyeballs version 2 (RFC 8305) has it, families in turn, each by
 * Multipath TCP and, a head start later, by TCP: the first to answer is
 * returned, the others are ended, so something on the way that eats Multipath
 * TCP's option costs no more than the head start. Several addresses are never
 * taken for one host. opts may be NULL with size 0; else size is sizeof(struct
 * mptcp_connect_opts). Waits, whatever its flags: MPTCP_CONNECT_NONBLOCK is
 * about the descriptor returned.
 *
 * Returns a connected descriptor, CLOEXEC, to be closed with close(2), or -1
 * and errno: ENOENT (no such name, or no address of the family), EAGAIN, EIO
 * (the resolver failed, for now or for good), EINVAL (no such service; flags,
 * profile, reserved; a list that mptcp_setsockopt() would not take),
 * EAFNOSUPPORT, EFAULT, E2BIG; EADDRNOTAVAIL (local: no address of this host,
 * or none that reaches the peer), EPERM, EACCES, EDQUOT, EIO and what else
 * TCP_MULTIPATH_ADD says of the list; EOPNOTSUPP (only plain TCP was to be had
 * with MPTCP_CONNECT_NO_FALLBACK; the profile); ETIMEDOUT (timeout_ms); EINTR
 * (a signal handler ran, also one with SA_RESTART; nothing is left); else that
 * of connect(2) to the best address. mptcp_errmsg() names each attempt.
 */
int mptcp_connectbyname(const char *node,
                        const char *service,
                        const struct mptcp_connect_opts *opts,
                        size_t size);

/**
 * Gives the numbers of a connection.
 *
 * size is sizeof(struct mptcp_conn_stats): what the caller's struct lacks is
 * left out, what it has more is zero. stats->valid tells which fields are
 * known: most totals since Linux 6.5, the times since 6.10. Needs no
 * privilege.
 *
 * Returns 0, or -1 and errno: EBADF, ENOTSOCK, EFAULT, EINVAL (size under 8),
 * E2BIG (over 4096), ENOTCONN (no connection, or it ended), EOPNOTSUPP (not a
 * stream socket of TCP or MPTCP; MPTCP before Linux 5.16), ENOMEM,
 * ENOTRECOVERABLE.
 */
int mptcp_getconnstats(int fd, struct mptcp_conn_stats *stats, size_t size);

/**
 * Gives the numbers of one established subflow. Of subflow only the
 * addresses with their ports are read, and its id, which counts where neither
 * side has 0.
 *
 * size is sizeof(struct mptcp_subflow_stats). Returns 0, or -1 and errno: as
 * mptcp_getconnstats(); EINVAL (size under 288); ENOENT (no such subflow, or
 * no more); EAFNOSUPPORT (an address that is neither AF_INET nor AF_INET6).
 */
int mptcp_getsubflowstats(int fd,
                          const struct mptcp_subflow *subflow,
                          struct mptcp_subflow_stats *stats,
                          size_t size);

/**
 * Gives the numbers of a connection and of all its established subflows, of
 * one moment: only here the shares of the subflows add up, to 1,000,000 less
 * what closed subflows had.
 *
 * conn_size is sizeof(struct mptcp_conn_stats); conn may be NULL with 0.
 * subflow_size is sizeof(struct mptcp_subflow_stats), and the distance of the
 * array's elements, a multiple of 8. Returns the number of subflows and sets
 * *subflows to the array, to be freed by mptcp_freeallstats(); NULL when there
 * are none just now. A plain TCP connection has its one pair, with
 * MPTCP_SUBFLOW_FALLBACK. -1 and errno: as mptcp_getconnstats(); EINVAL
 * (subflow_size under 288, or no multiple of 8).
 */
int mptcp_getallstats(int fd,
                      struct mptcp_conn_stats *conn,
                      size_t conn_size,
                      struct mptcp_subflow_stats **subflows,
                      size_t subflow_size);

/**
 * Frees what mptcp_getallstats() gave. NULL is fine; errno stays.
 */
void mptcp_freeallstats(struct mptcp_subflow_stats *subflows);

/**
 * Opens a subflow of a connection.
 *
 * local is a sockaddr_in or sockaddr_in6, port 0 any port; NULL: any address
 * of the list. remote is one too, port 0 the initial subflow's; NULL: where
 * the initial subflow leads. flags: MPTCP_OPEN_BACKUP, MPTCP_OPEN_WAIT.
 *
 * 0 means accepted: the subflow is asked for as soon as the connection is
 * fully established, once; what becomes of it is an event, MPTCP_EV_SUBFLOW_UP
 * or MPTCP_EV_REQUEST_FAILED. With MPTCP_OPEN_WAIT, on a blocking socket, the
 * call returns when it is established or refused, after SO_SNDTIMEO at the
 * latest, ten seconds where that is not set.
 *
 * Returns 0, or -1 and errno: EBADF, ENOTSOCK, EOPNOTSUPP (no MPTCP, a fallback
 * to TCP, the in-kernel path manager, another network namespace, an older
 * broker), EINVAL (an unknown flag; WAIT on a non-blocking socket; a wildcard,
 * a link-local address without scope id), ENOTCONN, EADDRNOTAVAIL (local is
 * not in the list, or not of this host), EAFNOSUPPORT (unlike families, or one
 * that the socket can't use), ENOSPC (MAX_SUBFLOWS reached), EPERM, EACCES,
 * EDQUOT, EIO, ENOMEM, EMFILE, ENFILE, ENOTRECOVERABLE; with WAIT also
 * ETIMEDOUT, EINTR (the attempt goes on), ECONNREFUSED and what else connect(2)
 * says.
 */
int mptcp_opensubflow(int fd,
                      const struct sockaddr *local,
                      const struct sockaddr *remote,
                      int flags);

/**
 * Closes a subflow of a connection; the last one too.
 *
 * It is named by its addresses and ports, and by its id where that is not 0.
 * It is not opened again by policy, but by mptcp_opensubflow() or when its
 * local address is ADDed again. Under the in-kernel path manager a subflow can
 * be closed too; the kernel may then open others.
 *
 * Returns 0, or -1 and errno: EBADF, ENOTSOCK, EOPNOTSUPP (no MPTCP, a fallback
 * to TCP, another network namespace, an older broker, a kernel without
 * CONFIG_INET_DIAG_DESTROY), EFAULT, EAFNOSUPPORT, ENOTCONN, ENOENT (no such
 * subflow, or no more), EPERM, EDQUOT, EIO, ENOMEM, EMFILE, ENFILE,
 * ENOTRECOVERABLE.
 */
int mptcp_closesubflow(int fd, const struct mptcp_subflow *subflow);

/**
 * Makes a subflow one for backup (on is not 0), or not, and tells the peer:
 * neither end then uses it while another is there.
 *
 * It is named as for mptcp_closesubflow(). It stays so whatever the list and
 * the profile say. Returns 0, or -1 and errno: as mptcp_closesubflow();
 * EOPNOTSUPP also where the in-kernel path manager has the connection.
 */
int mptcp_setbackup(int fd, const struct mptcp_subflow *subflow, int on);

/**
 * Gives a descriptor that tells what happens to connections (RFC 6897 REQ14).
 *
 * fd is a connection, or a socket still to be connected; or a listener, for
 * every connection accepted from then on; or -1 for all connections that this
 * process has made known to the library. events are MPTCP_EV_* bits, with
 * MPTCP_EV_CURRENT to be told of what is there first; 0: nothing is told, the
 * descriptor only says when the direct backend has work, which
 * mptcp_dispatch(evfd, NULL, NULL) does.
 *
 * The descriptor is CLOEXEC and non-blocking, and fits into poll(2), select(2),
 * epoll(7) and io_uring: when it is readable, which may be without reason, call
 * mptcp_nextevent() or mptcp_dispatch(). It is for nothing else but close(2),
 * which is all that is needed to end it. Use it in one process only.
 *
 * Returns it, or -1 and errno: EPERM (nobody may act for this process), EINVAL
 * (an unknown bit), EOPNOTSUPP (not Multipath TCP), ENOTCONN (the connection
 * ended), EIO, EDQUOT, EMFILE, ENFILE, ENOMEM, EBADF, ENOTSOCK.
 */
int mptcp_subscribe(int fd, uint32_t events);

/**
 * Gives the next event of a descriptor of mptcp_subscribe()'s; size is
 * sizeof(struct mptcp_event).
 *
 * Returns 1; 0 after the last one, when the connection has ended or the
 * descriptor it was about was closed; or -1 and errno: EAGAIN (none now), EIO
 * (once, when the broker has gone: subscribe again, with MPTCP_EV_CURRENT),
 * EINVAL (not a descriptor of mptcp_subscribe()'s, or size under 4), E2BIG
 * (size over 4096), EFAULT, EBADF.
 */
int mptcp_nextevent(int evfd, struct mptcp_event *event, size_t size);

/**
 * Does what there is to do for a descriptor of mptcp_subscribe()'s, and calls
 * callback for each event, in the calling thread, until there is none or it
 * returns non-zero. It may call anything, and close evfd if it then returns
 * non-zero; it must not leave by longjmp(3) or an exception.
 *
 * With callback NULL no event is taken: the direct backend does what there is
 * to do, which costs next to nothing when that is nothing. Returns how many
 * were called for, or -1 and errno as mptcp_nextevent() but for EAGAIN.
 */
int mptcp_dispatch(int evfd, mptcp_event_fn callback, void *arg);

/**
 * socket(2), but AF_INET or AF_INET6 with SOCK_STREAM (and SOCK_NONBLOCK,
 * SOCK_CLOEXEC) and protocol 0, IPPROTO_TCP or IPPROTO_MPTCP gives a Multipath
 * TCP socket where there is any, else one of TCP; TCP_MULTIPATH_ENABLE tells.
 *
 * Returns a descriptor to be closed with close(2), or -1 and errno: only what
 * socket(2) refuses for TCP too.
 */
int mptcp_socket(int domain, int type, int protocol);

/**
 * Tells what works, for a socket or (fd -1) for this host in the calling
 * thread's network namespace, and what is missing for more. Never changes
 * anything; a bit set is a promise for the next call, not for ever.
 *
 * size is sizeof(struct mptcp_caps). Returns 0, or -1 and errno: EBADF,
 * ENOTSOCK, EOPNOTSUPP, EFAULT, EINVAL (size under 8), E2BIG (over 4096).
 */
int mptcp_getcaps(int fd, struct mptcp_caps *caps, size_t size);

/**
 * Why the calling thread's last failure happened, in words: UTF-8, one line,
 * under 256 bytes. Never NULL; "" before the first failure; unchanged by
 * success, like errno. Valid until the thread's next mptcp call.
 */
const char *mptcp_errmsg(void);

/**
 * The library's version, "0.1.0": static. Async-signal-safe.
 */
const char *mptcp_version(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* LIBMPTCPAPI_MPTCP_H */
