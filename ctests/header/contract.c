/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The basic part and the statistics of the contract as assertions: layouts, numbers (written here
 * once more, by hand) and prototypes. Also compiled as C++.
 */
#include <mptcp.h>
#include <string.h>

/* Without __STDC_LIMIT_MACROS and the like: plain compile-time arithmetic. */
#define GLUE_(a, b) a##b
#define GLUE(a, b) GLUE_(a, b)
#define HOLDS(e) typedef char GLUE(holds_, __LINE__)[(e) ? 1 : -1]
#define AT(t, f, n) HOLDS(offsetof(struct t, f) == (n))
#define WIDTH(t, f, n) HOLDS(sizeof(((struct t *)0)->f) == (n))
#define IS(name, n) HOLDS((name) == (n))

HOLDS(sizeof(struct mptcp_subflow) == 288);
AT(mptcp_subflow, local, 0);
WIDTH(mptcp_subflow, local, 128);
AT(mptcp_subflow, remote, 128);
WIDTH(mptcp_subflow, remote, 128);
AT(mptcp_subflow, id, 256);
WIDTH(mptcp_subflow, id, 4);
AT(mptcp_subflow, flags, 260);
WIDTH(mptcp_subflow, flags, 4);
AT(mptcp_subflow, reserved, 264);
WIDTH(mptcp_subflow, reserved, 24);

HOLDS(sizeof(struct mptcp_caps) == 256);
AT(mptcp_caps, works, 0);
WIDTH(mptcp_caps, works, 8);
AT(mptcp_caps, known, 8);
WIDTH(mptcp_caps, known, 8);
AT(mptcp_caps, backend, 16);
AT(mptcp_caps, backend_errno, 20);
AT(mptcp_caps, control, 24);
AT(mptcp_caps, library, 28);
AT(mptcp_caps, subflows_max, 32);
AT(mptcp_caps, addrs_max, 36);
AT(mptcp_caps, reserved, 40);
WIDTH(mptcp_caps, reserved, 8);
AT(mptcp_caps, reason, 48);
WIDTH(mptcp_caps, reason, 208);

HOLDS(sizeof(struct mptcp_conn_stats) == 104);
AT(mptcp_conn_stats, valid, 0);
WIDTH(mptcp_conn_stats, valid, 8);
AT(mptcp_conn_stats, bytes_sent, 8);
WIDTH(mptcp_conn_stats, bytes_sent, 8);
AT(mptcp_conn_stats, bytes_received, 16);
WIDTH(mptcp_conn_stats, bytes_received, 8);
AT(mptcp_conn_stats, bytes_acked, 24);
WIDTH(mptcp_conn_stats, bytes_acked, 8);
AT(mptcp_conn_stats, bytes_retrans, 32);
WIDTH(mptcp_conn_stats, bytes_retrans, 8);
AT(mptcp_conn_stats, closed_bytes_sent, 40);
WIDTH(mptcp_conn_stats, closed_bytes_sent, 8);
AT(mptcp_conn_stats, closed_bytes_received, 48);
WIDTH(mptcp_conn_stats, closed_bytes_received, 8);
AT(mptcp_conn_stats, connid, 56);
AT(mptcp_conn_stats, flags, 60);
AT(mptcp_conn_stats, subflows, 64);
AT(mptcp_conn_stats, subflows_pending, 68);
AT(mptcp_conn_stats, subflows_max, 72);
AT(mptcp_conn_stats, retransmits, 76);
AT(mptcp_conn_stats, last_data_sent_ms, 80);
AT(mptcp_conn_stats, last_data_received_ms, 84);
AT(mptcp_conn_stats, last_ack_received_ms, 88);
AT(mptcp_conn_stats, addrs_announced, 92);
AT(mptcp_conn_stats, addrs_received, 96);
AT(mptcp_conn_stats, reserved, 100);

HOLDS(sizeof(struct mptcp_subflow_stats) == 432);
AT(mptcp_subflow_stats, subflow, 0);
WIDTH(mptcp_subflow_stats, subflow, 288);
AT(mptcp_subflow_stats, valid, 288);
WIDTH(mptcp_subflow_stats, valid, 8);
AT(mptcp_subflow_stats, bytes_sent, 296);
WIDTH(mptcp_subflow_stats, bytes_sent, 8);
AT(mptcp_subflow_stats, bytes_received, 304);
WIDTH(mptcp_subflow_stats, bytes_received, 8);
AT(mptcp_subflow_stats, bytes_acked, 312);
WIDTH(mptcp_subflow_stats, bytes_acked, 8);
AT(mptcp_subflow_stats, bytes_retrans, 320);
WIDTH(mptcp_subflow_stats, bytes_retrans, 8);
AT(mptcp_subflow_stats, delivery_rate, 328);
WIDTH(mptcp_subflow_stats, delivery_rate, 8);
AT(mptcp_subflow_stats, pacing_rate, 336);
WIDTH(mptcp_subflow_stats, pacing_rate, 8);
AT(mptcp_subflow_stats, share_sent_ppm, 344);
AT(mptcp_subflow_stats, share_received_ppm, 348);
AT(mptcp_subflow_stats, state, 352);
AT(mptcp_subflow_stats, rtt_us, 356);
AT(mptcp_subflow_stats, rttvar_us, 360);
AT(mptcp_subflow_stats, min_rtt_us, 364);
AT(mptcp_subflow_stats, rto_us, 368);
AT(mptcp_subflow_stats, backoff, 372);
AT(mptcp_subflow_stats, cwnd, 376);
AT(mptcp_subflow_stats, ssthresh, 380);
AT(mptcp_subflow_stats, mss, 384);
AT(mptcp_subflow_stats, unacked, 388);
AT(mptcp_subflow_stats, lost, 392);
AT(mptcp_subflow_stats, retrans, 396);
AT(mptcp_subflow_stats, reordering, 400);
AT(mptcp_subflow_stats, last_data_sent_ms, 404);
AT(mptcp_subflow_stats, last_data_received_ms, 408);
AT(mptcp_subflow_stats, last_ack_received_ms, 412);
AT(mptcp_subflow_stats, local_id, 416);
AT(mptcp_subflow_stats, remote_id, 420);
AT(mptcp_subflow_stats, ifindex, 424);
AT(mptcp_subflow_stats, reserved, 428);

/* The alignment that C sees: 8 where pointers are 8 bytes, at most 8 elsewhere. */
struct align_probe { char c; struct mptcp_subflow s; };
HOLDS(offsetof(struct align_probe, s) <= 8);

IS(MPTCPAPI_VERSION_NUMBER, 256);
IS(TCP_MULTIPATH_ENABLE, 6854401);
IS(TCP_MULTIPATH_ADD, 6854402);
IS(TCP_MULTIPATH_REMOVE, 6854403);
IS(TCP_MULTIPATH_SUBFLOWS, 6854404);
IS(TCP_MULTIPATH_CONNID, 6854405);
#ifdef TCP_MULTIPATH_MAX_SUBFLOWS        /* contract.py says what must be there */
IS(TCP_MULTIPATH_MAX_SUBFLOWS, 6854406);
IS(TCP_MULTIPATH_PROFILE, 6854407);
IS(TCP_MULTIPATH_TRAFFIC, 6854408);
IS(TCP_MULTIPATH_PATH_POLICY, 6854409);
IS(TCP_MULTIPATH_REDUNDANCY, 6854410);
IS(TCP_MULTIPATH_FATE_SHARING, 6854411);
#endif
IS(MPTCP_SUBFLOW_INITIAL, 1);
IS(MPTCP_SUBFLOW_FALLBACK, 2);
IS(MPTCP_SUBFLOW_PRIO_KNOWN, 4);
IS(MPTCP_SUBFLOW_BACKUP, 8);
IS(MPTCP_SUBFLOW_PEER_BACKUP, 16);
IS(MPTCP_BINDX_ADD_ADDR, 1);
IS(MPTCP_BINDX_REM_ADDR, 2);
IS(MPTCP_BINDX_BACKUP, 16);
IS(MPTCP_BINDX_NO_ADVERTISE, 32);
IS(MPTCP_BINDX_NO_SUBFLOW, 64);
IS(MPTCP_BACKEND_NONE, 0);
IS(MPTCP_BACKEND_BROKER, 1);
IS(MPTCP_BACKEND_DIRECT, 2);
IS(MPTCP_CONTROL_UNKNOWN, 0);
IS(MPTCP_CONTROL_KERNEL, 1);
IS(MPTCP_CONTROL_CONNECTION, 2);
IS(MPTCP_CAP_ENABLE, 1);
IS(MPTCP_CAP_SUBFLOWS, 2);
IS(MPTCP_CAP_CONNID, 4);
IS(MPTCP_CAP_CONN_STATS, 8);
IS(MPTCP_CAP_SUBFLOW_STATS, 16);
IS(MPTCP_CAP_ADD_BEFORE, 32);
IS(MPTCP_CAP_ADD_LIVE, 64);
IS(MPTCP_CAP_CLOSE_SUBFLOW, 128);
IS(MPTCP_CAP_LISTEN, 256);
IS(MPTCP_CAP_BACKUP, 512);
IS(MPTCP_CAP_PROFILE, 1024);
IS(MPTCP_CAP_REDUNDANCY, 2048);
IS(MPTCP_CAP_FATE_SHARING, 4096);
IS(MPTCP_CAP_EVENTS, 8192);
IS(MPTCP_CAP_LATE_BIND, 16384);
IS(MPTCP_CS_BYTES_SENT, 1);
IS(MPTCP_CS_BYTES_RECEIVED, 2);
IS(MPTCP_CS_BYTES_ACKED, 4);
IS(MPTCP_CS_BYTES_RETRANS, 8);
IS(MPTCP_CS_CLOSED_SENT, 16);
IS(MPTCP_CS_CLOSED_RECEIVED, 32);
IS(MPTCP_CS_CONNID, 64);
IS(MPTCP_CS_FLAGS, 128);
IS(MPTCP_CS_SUBFLOWS, 256);
IS(MPTCP_CS_SUBFLOWS_PENDING, 512);
IS(MPTCP_CS_SUBFLOWS_MAX, 1024);
IS(MPTCP_CS_RETRANSMITS, 2048);
IS(MPTCP_CS_LAST_DATA_SENT, 4096);
IS(MPTCP_CS_LAST_DATA_RECEIVED, 8192);
IS(MPTCP_CS_LAST_ACK_RECEIVED, 16384);
IS(MPTCP_CS_ADDRS_ANNOUNCED, 32768);
IS(MPTCP_CS_ADDRS_RECEIVED, 65536);
IS(MPTCP_CONN_FALLBACK, 1);
IS(MPTCP_CONN_SERVER, 2);
IS(MPTCP_CONN_CHECKSUM, 4);
IS(MPTCP_CONN_FULL, 8);
IS(MPTCP_SS_BYTES_SENT, 1);
IS(MPTCP_SS_BYTES_RECEIVED, 2);
IS(MPTCP_SS_BYTES_ACKED, 4);
IS(MPTCP_SS_BYTES_RETRANS, 8);
IS(MPTCP_SS_DELIVERY_RATE, 16);
IS(MPTCP_SS_PACING_RATE, 32);
IS(MPTCP_SS_SHARE_SENT, 64);
IS(MPTCP_SS_SHARE_RECEIVED, 128);
IS(MPTCP_SS_STATE, 256);
IS(MPTCP_SS_RTT, 512);
IS(MPTCP_SS_RTTVAR, 1024);
IS(MPTCP_SS_MIN_RTT, 2048);
IS(MPTCP_SS_RTO, 4096);
IS(MPTCP_SS_BACKOFF, 8192);
IS(MPTCP_SS_CWND, 16384);
IS(MPTCP_SS_SSTHRESH, 32768);
IS(MPTCP_SS_MSS, 65536);
IS(MPTCP_SS_UNACKED, 131072);
IS(MPTCP_SS_LOST, 262144);
IS(MPTCP_SS_RETRANS, 524288);
IS(MPTCP_SS_REORDERING, 1048576);
IS(MPTCP_SS_LAST_DATA_SENT, 2097152);
IS(MPTCP_SS_LAST_DATA_RECEIVED, 4194304);
IS(MPTCP_SS_LAST_ACK_RECEIVED, 8388608);
IS(MPTCP_SS_LOCAL_ID, 16777216);
IS(MPTCP_SS_REMOTE_ID, 33554432);
IS(MPTCP_SS_IFINDEX, 67108864);

/* Pointers of the exact type: a wrong prototype does not compile. */
#ifdef __cplusplus
extern "C" {
#endif
extern int (*const p_setsockopt)(int, int, int, const void *, socklen_t);
extern int (*const p_getsockopt)(int, int, int, void *, socklen_t *);
extern int (*const p_getsubflows)(int, struct mptcp_subflow **);
extern void (*const p_freesubflows)(struct mptcp_subflow *);
extern int (*const p_bindx)(int, const struct sockaddr *, int, int);
extern int (*const p_connectx)(int, const struct sockaddr *, int, uint32_t *);
extern int (*const p_getladdrs)(int, struct sockaddr **);
extern void (*const p_freeladdrs)(struct sockaddr *);
extern int (*const p_getpaddrs)(int, struct sockaddr **);
extern void (*const p_freepaddrs)(struct sockaddr *);
extern int (*const p_getaddrlen)(int);
extern int (*const p_getconnstats)(int, struct mptcp_conn_stats *, size_t);
extern int (*const p_getsubflowstats)(int, const struct mptcp_subflow *, struct mptcp_subflow_stats *, size_t);
extern int (*const p_getallstats)(int, struct mptcp_conn_stats *, size_t, struct mptcp_subflow_stats **, size_t);
extern void (*const p_freeallstats)(struct mptcp_subflow_stats *);
extern int (*const p_socket)(int, int, int);
extern int (*const p_getcaps)(int, struct mptcp_caps *, size_t);
extern const char *(*const p_errmsg)(void);
extern const char *(*const p_version)(void);

int (*const p_setsockopt)(int, int, int, const void *, socklen_t) = mptcp_setsockopt;
int (*const p_getsockopt)(int, int, int, void *, socklen_t *) = mptcp_getsockopt;
int (*const p_getsubflows)(int, struct mptcp_subflow **) = mptcp_getsubflows;
void (*const p_freesubflows)(struct mptcp_subflow *) = mptcp_freesubflows;
int (*const p_bindx)(int, const struct sockaddr *, int, int) = mptcp_bindx;
int (*const p_connectx)(int, const struct sockaddr *, int, uint32_t *) = mptcp_connectx;
int (*const p_getladdrs)(int, struct sockaddr **) = mptcp_getladdrs;
void (*const p_freeladdrs)(struct sockaddr *) = mptcp_freeladdrs;
int (*const p_getpaddrs)(int, struct sockaddr **) = mptcp_getpaddrs;
void (*const p_freepaddrs)(struct sockaddr *) = mptcp_freepaddrs;
int (*const p_getaddrlen)(int) = mptcp_getaddrlen;
int (*const p_getconnstats)(int, struct mptcp_conn_stats *, size_t) = mptcp_getconnstats;
int (*const p_getsubflowstats)(int, const struct mptcp_subflow *, struct mptcp_subflow_stats *, size_t)
	= mptcp_getsubflowstats;
int (*const p_getallstats)(int, struct mptcp_conn_stats *, size_t, struct mptcp_subflow_stats **, size_t)
	= mptcp_getallstats;
void (*const p_freeallstats)(struct mptcp_subflow_stats *) = mptcp_freeallstats;
int (*const p_socket)(int, int, int) = mptcp_socket;
int (*const p_getcaps)(int, struct mptcp_caps *, size_t) = mptcp_getcaps;
const char *(*const p_errmsg)(void) = mptcp_errmsg;
const char *(*const p_version)(void) = mptcp_version;
#ifdef __cplusplus
}
#endif

/* Linked and run too: the names must link from C and from C++. */
int main(void)
{
#ifdef MPTCPAPI_VERSION
	if (strcmp(MPTCPAPI_VERSION, "0.1.0"))
		return 1;
#endif
	return strcmp(p_version(), "0.1.0")
		|| p_errmsg()[0] != '\0' || p_getaddrlen(AF_INET) != 16;
}
