/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The basic part of the contract as assertions: layouts, numbers (written here
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
