/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Statistics: sizes and arguments, every number against the kernel's own, plain
 * TCP, subflows that die, and many.
 *
 * lab:
 * lab: --user
 * lab: --userspace
 */
#include "raw.h"
#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <sched.h>
#include <sys/prctl.h>

#define MANY 300

static int privileged;          /* more than one subflow can be had */

/* ---- the kernel's numbers, read by hand ------------------------------- */

struct all {
	int n;                  /* subflows listed, in whatever state */
	int whole;              /* by MPTCP_FULL_INFO */
	socklen_t info_len;     /* bytes of mptcp_info that the kernel has */
	unsigned char info[96];
	struct raw_subflow sf[MANY + 10];
	unsigned char tcp[MANY + 10][256];
	/* The times, at their places; they are zero above. */
	unsigned char info_age[96], tcp_age[MANY + 10][64];
};

static uint64_t num(const unsigned char *b, size_t at, size_t width)
{
	uint64_t v64;
	uint32_t v32;

	if (width == 1)
		return b[at];
	memcpy(&v32, b + at, 4);
	memcpy(&v64, b + at, 8);
	return width == 4 ? v32 : v64;
}

static void read_into(int fd, struct all *a)
{
	struct raw_full f;
	socklen_t len = sizeof f;
	struct sockaddr_storage pairs[64][2];
	int i;

	memset(a, 0, sizeof *a);
	memset(&f, 0, sizeof f);
	f.tcp_user = sizeof a->tcp[0];
	f.sf_user = sizeof a->sf[0];
	f.slots = MANY + 10;
	f.sf = (uint64_t)(uintptr_t)a->sf;
	f.tcp = (uint64_t)(uintptr_t)a->tcp;
	if (!getsockopt(fd, RAW_SOL_MPTCP, RAW_FULL_INFO, &f, &len)) {
		a->whole = 1;
		a->n = (int)f.n;
		a->info_len = len - 40;
		memcpy(a->info, f.info, sizeof a->info);
		for (i = a->n - 1; i >= 0; i--)         /* the stride is the kernel's */
			memmove(a->tcp[i], a->tcp[0] + (size_t)i * f.tcp_user, f.tcp_user);
		return;
	}
	a->info_len = sizeof a->info;
	if (getsockopt(fd, RAW_SOL_MPTCP, RAW_INFO, a->info, &a->info_len)) {
		len = sizeof a->tcp[0];
		REQUIRE(!getsockopt(fd, IPPROTO_TCP, TCP_INFO, a->tcp[0], &len));
		a->n = -1;                              /* plain TCP */
		return;
	}
	a->n = raw_array(fd, RAW_ADDRS, pairs, sizeof pairs[0], 64);
	REQUIRE(a->n >= 0 && raw_array(fd, RAW_TCPINFO, a->tcp, sizeof a->tcp[0], 64) == a->n);
	for (i = 0; i < a->n; i++) {
		a->sf[i].local = pairs[i][0];
		a->sf[i].remote = pairs[i][1];
	}
}

static struct all *read_all(int fd)
{
	static struct all two[2];
	static int k;
	struct all *a = &two[k ^= 1];
	int i;

	read_into(fd, a);
	memcpy(a->info_age + 84, a->info + 84, 12);
	memset(a->info + 84, 0, 12);
	for (i = 0; i < (a->n < 0 ? 1 : a->n); i++) {
		memcpy(a->tcp_age[i] + 44, a->tcp[i] + 44, 16);
		memset(a->tcp[i] + 44, 0, 16);
		memset(a->tcp[i] + 168, 0, 24);         /* how long it was busy */
		memset(a->tcp[i] + 216, 0, 40);         /* how long it waited; the next one */
	}
	return a;
}

/* Nothing is on its way any more, so the numbers stay. */
static int still(int fd)
{
	struct all *a = read_all(fd);
	int i;

	for (i = 0; i < (a->n < 0 ? 1 : a->n); i++)
		if (num(a->tcp[i], 24, 4))
			return 0;
	return num(a->info, 72, 8) >= num(a->info, 56, 8);
}

static int up(const struct all *a, int i)
{
	return a->tcp[i][0] == 1 || a->tcp[i][0] == 8;
}

/* Has this kernel totals (6.5), and the connection's times (6.10)? Does it show this
 * user what inet_diag knows of MPTCP (before 6.15 CAP_NET_ADMIN alone)? */
static int has_totals, has_times, has_ulp;

struct field {
	uint64_t bit;
	size_t at, width;               /* in our struct */
	size_t raw_at, raw_width;       /* in the kernel's */
};
#define CS(bit, field, raw_at, raw_width) { MPTCP_CS_##bit, offsetof(struct mptcp_conn_stats, field), \
	sizeof(((struct mptcp_conn_stats *)0)->field), raw_at, raw_width }
#define SS(bit, field, raw_at, raw_width) { MPTCP_SS_##bit, offsetof(struct mptcp_subflow_stats, field), \
	sizeof(((struct mptcp_subflow_stats *)0)->field), raw_at, raw_width }

static const struct field totals[] = {
	CS(BYTES_RETRANS, bytes_retrans, 48, 8), CS(BYTES_SENT, bytes_sent, 56, 8),
	CS(BYTES_RECEIVED, bytes_received, 64, 8), CS(BYTES_ACKED, bytes_acked, 72, 8),
	CS(RETRANSMITS, retransmits, 44, 4),
};
static const struct field times[] = {
	CS(LAST_DATA_SENT, last_data_sent_ms, 84, 4), CS(LAST_DATA_RECEIVED, last_data_received_ms, 88, 4),
	CS(LAST_ACK_RECEIVED, last_ack_received_ms, 92, 4),
};
static const struct field tcp_fields[] = {
	SS(BYTES_SENT, bytes_sent, 200, 8), SS(BYTES_RECEIVED, bytes_received, 128, 8),
	SS(BYTES_ACKED, bytes_acked, 120, 8), SS(BYTES_RETRANS, bytes_retrans, 208, 8),
	SS(STATE, state, 0, 1), SS(RTO, rto_us, 8, 4), SS(BACKOFF, backoff, 4, 1), SS(CWND, cwnd, 80, 4),
	SS(SSTHRESH, ssthresh, 76, 4), SS(MSS, mss, 16, 4), SS(UNACKED, unacked, 24, 4), SS(LOST, lost, 32, 4),
	SS(RETRANS, retrans, 100, 4), SS(REORDERING, reordering, 88, 4),
};
/* Not known where nothing was measured. */
static const struct field measured[] = {
	SS(DELIVERY_RATE, delivery_rate, 160, 8), SS(PACING_RATE, pacing_rate, 104, 8), SS(RTT, rtt_us, 68, 4),
	SS(RTTVAR, rttvar_us, 72, 4), SS(MIN_RTT, min_rtt_us, 148, 4),
};
static const struct field tcp_times[] = {
	SS(LAST_DATA_SENT, last_data_sent_ms, 44, 4), SS(LAST_DATA_RECEIVED, last_data_received_ms, 52, 4),
	SS(LAST_ACK_RECEIVED, last_ack_received_ms, 56, 4),
};
#define EACH(list) list, sizeof(list) / sizeof((list)[0])

/* The fields are known, and between what the kernel said before and after. */
static void between(const char *what, const void *ours, uint64_t valid, const unsigned char *low,
		    const unsigned char *high, const struct field *f, size_t n)
{
	for (; n; n--, f++) {
		uint64_t got = num(ours, f->at, f->width), from = num(low, f->raw_at, f->raw_width);
		uint64_t to = num(high, f->raw_at, f->raw_width);

		if (!(valid & f->bit))
			t_fail(__FILE__, __LINE__, "%s: bit %#llx is not set", what, (unsigned long long)f->bit);
		else if (got < from || got > to)
			t_fail(__FILE__, __LINE__, "%s: bit %#llx: %llu, not %llu to %llu", what,
			       (unsigned long long)f->bit, (unsigned long long)got, (unsigned long long)from,
			       (unsigned long long)to);
	}
}

static void compare(const char *what, const void *ours, uint64_t valid, const unsigned char *raw,
		    const struct field *f, size_t n)
{
	between(what, ours, valid, raw, raw, f, n);
}

/* What is not valid is zero; no bits but those that there are. */
static void check_mask(const void *ours, size_t first, size_t longs, size_t words, uint64_t valid)
{
	size_t i;

	for (i = 0; i < longs + words; i++) {
		size_t at = i < longs ? first + 8 * i : first + 8 * longs + 4 * (i - longs);

		if (!(valid >> i & 1) && num(ours, at, i < longs ? 8 : 4))
			t_fail(__FILE__, __LINE__, "bit %zu is not set, its field is", i);
	}
	CHECK_INT(valid >> i, 0);
}

/* Payload that a subflow took to send, and received. */
static uint64_t sent_by(const unsigned char *tcp)
{
	return num(tcp, 200, 8) - num(tcp, 208, 8) + num(tcp, 144, 4);
}

static uint64_t received_by(const unsigned char *tcp)
{
	return num(tcp, 128, 8) - (tcp[0] == 8);
}

static uint64_t above(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

/* Shares against what was carried: each right to a millionth, all together whole. */
static void check_shares(const struct mptcp_subflow_stats *s, int n, const uint64_t *carried,
			 uint64_t closed, int received)
{
	uint64_t bit = received ? MPTCP_SS_SHARE_RECEIVED : MPTCP_SS_SHARE_SENT, all = closed, sum = 0;
	int i;

	for (i = 0; i < n; i++)
		all += carried[i];
	for (i = 0; i < n; i++) {
		uint32_t share = received ? s[i].share_received_ppm : s[i].share_sent_ppm;
		uint64_t want = all ? carried[i] * 1000000 / all : 0;

		CHECK_INT(!!(s[i].valid & bit), all != 0);
		CHECK(share == want || share == want + 1);
		sum += share;
	}
	if (all && n) {
		uint64_t rest = closed * 1000000 / all;

		CHECK(1000000 - sum == rest || 1000000 - sum == rest + 1);
		CHECK(closed || sum == 1000000);
	}
}

/* ---- one connection, all its numbers ----------------------------------- */

/* Everything against the kernel, on a connection that is still. */
static void check_numbers(int fd)
{
	static uint64_t sent[MANY + 10], received[MANY + 10];
	static struct mptcp_subflow_stats alone[20];
	struct mptcp_subflow_stats *list = NULL;
	struct mptcp_conn_stats conn, again;
	struct mptcp_subflow *sf = NULL;
	struct all *a, *b;
	double end = t_now() + 5;
	uint64_t all_sent = 0, all_received = 0;
	int i, k, m, n, live = 0, pending = 0;

	/* The library is asked between two looks that agree. */
	for (;;) {
		mptcp_freeallstats(list);
		mptcp_freesubflows(sf);
		a = read_all(fd);
		m = (int)OK(mptcp_getsubflows(fd, &sf));
		for (i = 0; i < m && m < 20; i++) {
			struct mptcp_subflow name = sf[i];

			name.flags = 0xffffffff;
			memset(name.reserved, 0xff, sizeof name.reserved);
			OK(mptcp_getsubflowstats(fd, &name, &alone[i], sizeof alone[i]));
		}
		n = (int)OK(mptcp_getallstats(fd, &conn, sizeof conn, &list, sizeof *list));
		OK(mptcp_getconnstats(fd, &again, sizeof again));
		b = read_all(fd);
		if (a->n == b->n && !memcmp(a->info, b->info, sizeof a->info)
		    && !memcmp(a->tcp, b->tcp, sizeof a->tcp))
			break;
		REQUIRE(t_now() < end);
	}
	REQUIRE(n >= 0 && n == m);

	/* The subflows: those of mptcp_getsubflows(), in its order. */
	for (i = k = 0; i < a->n && k < n; i++) {
		struct mptcp_subflow_stats *s = &list[k];
		const uint64_t ids = MPTCP_SS_LOCAL_ID | MPTCP_SS_REMOTE_ID;
		const uint32_t prio = MPTCP_SUBFLOW_PRIO_KNOWN | MPTCP_SUBFLOW_BACKUP | MPTCP_SUBFLOW_PEER_BACKUP;

		pending += a->tcp[i][0] == 2 || a->tcp[i][0] == 3;
		if (!up(a, i))
			continue;
		CHECK(!memcmp(&s->subflow.local, &sf[k].local, sizeof sf->local));
		CHECK(!memcmp(&s->subflow.remote, &sf[k].remote, sizeof sf->remote));
		CHECK_INT(s->subflow.id, sf[k].id);
		CHECK_INT(s->subflow.flags & ~prio, sf[k].flags);
		CHECK_INT(!!(s->subflow.flags & MPTCP_SUBFLOW_PRIO_KNOWN), has_ulp);
		CHECK_INT(!!(s->subflow.flags & MPTCP_SUBFLOW_INITIAL), i == 0);
		CHECK_INT(s->subflow.id, a->sf[i].id);
		compare("subflow", s, s->valid, a->tcp[i], EACH(tcp_fields));
		between("subflow", s, s->valid, a->tcp_age[i], b->tcp_age[i], EACH(tcp_times));
		{
			const struct field *f;

			for (f = measured; f < measured + sizeof measured / sizeof measured[0]; f++)
				if (s->valid & f->bit)
					compare("subflow", s, s->valid, a->tcp[i], f, 1);
		}
		CHECK(s->valid & MPTCP_SS_RTT && s->valid & MPTCP_SS_PACING_RATE);
		check_mask(s, 296, 6, 21, s->valid);
		CHECK_INT(s->reserved, 0);
		CHECK_INT(s->valid & ids, has_ulp ? ids : 0);
		if (i == 0)
			CHECK(s->local_id == 0 && s->remote_id == 0);
		CHECK(s->valid & MPTCP_SS_IFINDEX && s->ifindex == (int)if_nametoindex("lo"));
		sent[k] = sent_by(a->tcp[i]);
		received[k] = received_by(a->tcp[i]);
		all_sent += sent[k];
		all_received += received[k];

		/* The same, asked for alone. */
		if (n < 20) {
			const struct mptcp_subflow_stats *one = &alone[k];

			compare("alone", one, one->valid, a->tcp[i], EACH(tcp_fields));
			CHECK(!memcmp(&one->subflow, &s->subflow, sizeof one->subflow));
			CHECK_INT(one->valid, s->valid);
			CHECK_INT(one->local_id, s->local_id);
			CHECK_INT(one->share_sent_ppm, s->share_sent_ppm);
			CHECK_INT(one->share_received_ppm, s->share_received_ppm);
		}
		k++;
	}
	CHECK_INT(k, n);
	for (; i < a->n; i++) {
		live += up(a, i);
		pending += a->tcp[i][0] == 2 || a->tcp[i][0] == 3;
	}
	CHECK_INT(live, 0);

	/* The connection. */
	if (has_totals) {
		uint64_t s = num(a->info, 56, 8) + num(a->info, 48, 8), r = num(a->info, 64, 8);

		compare("connection", &conn, conn.valid, a->info, EACH(totals));
		CHECK(conn.valid & MPTCP_CS_CLOSED_SENT && conn.valid & MPTCP_CS_CLOSED_RECEIVED);
		CHECK_INT(conn.closed_bytes_sent, above(s, all_sent));
		CHECK_INT(conn.closed_bytes_received, above(r, all_received));
		check_shares(list, n, sent, conn.closed_bytes_sent, 0);
		check_shares(list, n, received, conn.closed_bytes_received, 1);
	} else
		CHECK(!(conn.valid & (MPTCP_CS_BYTES_SENT | MPTCP_CS_CLOSED_SENT | MPTCP_CS_RETRANSMITS)));
	if (has_times)
		between("connection", &conn, conn.valid, a->info_age, b->info_age, EACH(times));
	else
		CHECK(!(conn.valid & (MPTCP_CS_LAST_DATA_SENT | MPTCP_CS_LAST_ACK_RECEIVED)));
	CHECK_INT(conn.connid, connid(fd));
	CHECK(conn.valid & MPTCP_CS_CONNID && conn.valid & MPTCP_CS_FLAGS && conn.valid & MPTCP_CS_ADDRS_ANNOUNCED);
	CHECK(conn.valid & MPTCP_CS_SUBFLOWS && conn.valid & MPTCP_CS_SUBFLOWS_PENDING);
	CHECK_INT(conn.subflows, n);
	CHECK_INT(conn.subflows_pending, pending);
	CHECK_INT(!!(conn.valid & MPTCP_CS_SUBFLOWS_MAX), a->info[3] != 0);
	CHECK_INT(conn.subflows_max, a->info[3] ? a->info[3] + 1 : 0);
	CHECK_INT(conn.addrs_announced, a->info[1]);
	CHECK(conn.addrs_received >= a->info[2]);
	CHECK_INT(conn.flags & MPTCP_CONN_FALLBACK, 0);
	check_mask(&conn, 8, 6, 11, conn.valid);
	CHECK_INT(conn.reserved, 0);
	again.last_data_sent_ms = conn.last_data_sent_ms;
	again.last_data_received_ms = conn.last_data_received_ms;
	again.last_ack_received_ms = conn.last_ack_received_ms;
	CHECK(!memcmp(&conn, &again, sizeof conn));
	mptcp_freesubflows(sf);
	mptcp_freeallstats(list);
}

static uint32_t conn_flags(int fd)
{
	struct mptcp_conn_stats conn;

	OK(mptcp_getconnstats(fd, &conn, sizeof conn));
	CHECK(conn.valid & MPTCP_CS_FLAGS);
	return conn.flags;
}

static void simple(const struct fam *f)
{
	struct pair p = pair_listen(f->server, IPPROTO_MPTCP);

	pair_connectx(&p, f->server, raw_socket(f->domain));
	/* Nothing has come back yet. */
	CHECK_INT(conn_flags(p.c), 0);
	CHECK_INT(conn_flags(p.s), has_ulp ? MPTCP_CONN_SERVER | MPTCP_CONN_FULL : 0);
	check_numbers(p.c);
	check_numbers(p.s);
	settle(&p);
	CHECK_INT(conn_flags(p.c), MPTCP_CONN_FULL);
	CHECK_INT(conn_flags(p.s), MPTCP_CONN_FULL | (has_ulp ? MPTCP_CONN_SERVER : 0));
	check_numbers(p.c);
	check_numbers(p.s);
	CHECK_INT(pump(&p, 300000, NULL, NULL), 0);
	check_numbers(p.c);
	check_numbers(p.s);
	/* Half closed, this way and that. */
	REQUIRE(!shutdown(p.c, SHUT_WR));
	poll(NULL, 0, 20);
	check_numbers(p.c);
	check_numbers(p.s);
	pair_close(&p);
}

/* Checksums are a matter of the namespace when the socket is made. */
static void checksums(const struct fam *f)
{
	struct pair p;

	sh("echo 1 > /proc/sys/net/mptcp/checksum_enabled");
	p = pair_listen(f->server, IPPROTO_MPTCP);
	pair_connectx(&p, f->server, raw_socket(f->domain));
	sh("echo 0 > /proc/sys/net/mptcp/checksum_enabled");
	settle(&p);
	CHECK_INT(conn_flags(p.c), MPTCP_CONN_FULL | MPTCP_CONN_CHECKSUM);
	CHECK_INT(conn_flags(p.s), MPTCP_CONN_SERVER | MPTCP_CONN_FULL | MPTCP_CONN_CHECKSUM);
	check_numbers(p.c);
	pair_close(&p);
}

/* A socket bound to a device has subflows that are found with the device only. */
static void bound_to_device(const struct fam *f)
{
	struct pair p = pair_listen(f->server, IPPROTO_MPTCP);
	int c = raw_socket(f->domain);

	REQUIRE(!setsockopt(c, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3));
	p.c = c;
	REQUIRE(!do_connect(c, at(f->server, p.port)));
	p.s = t_accept(p.l);
	settle(&p);
	check_numbers(p.c);
	check_numbers(p.s);
	CHECK_INT(conn_flags(p.c), MPTCP_CONN_FULL);
	pair_close(&p);
}

/* From a thread in another network namespace: what inet_diag there doesn't have
 * isn't known, and nothing of others is taken for it. */
static void *ask_elsewhere(void *arg)
{
	const uint64_t ids = MPTCP_SS_LOCAL_ID | MPTCP_SS_REMOTE_ID | MPTCP_SS_IFINDEX;
	struct mptcp_subflow_stats *list = NULL;
	struct mptcp_conn_stats conn;
	int fd = *(int *)arg;

	REQUIRE(!unshare(CLONE_NEWNET));
	CHECK_INT(OK(mptcp_getallstats(fd, &conn, sizeof conn, &list, sizeof *list)), 1);
	CHECK_INT(conn.flags & MPTCP_CONN_SERVER, 0);
	CHECK_INT(conn.flags & MPTCP_CONN_FULL, MPTCP_CONN_FULL);
	CHECK_INT(list->valid & ids, 0);
	CHECK_INT(list->subflow.flags, MPTCP_SUBFLOW_INITIAL);
	CHECK(list->valid & MPTCP_SS_BYTES_SENT && list->bytes_sent >= 2000);
	mptcp_freeallstats(list);
	return NULL;
}

static void elsewhere(const struct fam *f)
{
	struct pair p = pair_listen(f->server, IPPROTO_MPTCP);
	pthread_t thread;

	pair_connectx(&p, f->server, raw_socket(f->domain));
	settle(&p);
	REQUIRE(!pthread_create(&thread, NULL, ask_elsewhere, &p.s));
	REQUIRE(!pthread_join(thread, NULL));
	pair_close(&p);
}

/* ---- sizes and arguments ------------------------------------------------ */

static int all_are(const unsigned char *b, size_t from, size_t to, unsigned char c)
{
	for (; from < to; from++)
		if (b[from] != c)
			return 0;
	return 1;
}

static void sizes(int fd)
{
	static const size_t conn_sizes[] = { 8, 9, 16, 56, 100, 103, 104, 105, 112, 1000, 4096 };
	static const size_t sub_sizes[] = { 288, 289, 296, 424, 431, 432, 433, 440, 1000, 4096 };
	static const size_t strides[] = { 288, 296, 424, 432, 440, 4096 };
	static const size_t too_big[] = { 4097, 4104, (size_t)1 << 31, (size_t)-1, (size_t)-8 };
	static unsigned char big[5000], *const b = big + 1;     /* no alignment is needed */
	struct mptcp_subflow_stats *list, *const untouched = (void *)big, whole_sub;
	struct mptcp_conn_stats whole;
	struct mptcp_subflow *sf = NULL;
	unsigned char name[300], odd[sizeof(void *) + 1];
	int n = (int)OK(mptcp_getsubflows(fd, &sf));
	size_t i;
	int k;

	REQUIRE(n >= 1);
	AWAIT(still(fd));
	memcpy(name + 3, &sf[0], sizeof sf[0]);

	for (i = 0; i < sizeof conn_sizes / sizeof conn_sizes[0]; i++) {
		size_t size = conn_sizes[i], known = size < sizeof whole ? size : sizeof whole;

		memset(big, 0xa5, sizeof big);
		OK(mptcp_getconnstats(fd, &whole, sizeof whole));
		OK(mptcp_getconnstats(fd, (void *)b, size));
		CHECK(!memcmp(b, &whole, known < 80 ? known : 80));     /* the times may differ */
		CHECK(all_are(b, known, size, 0) && all_are(b, size, 4999, 0xa5));
	}
	for (i = 0; i < sizeof sub_sizes / sizeof sub_sizes[0]; i++) {
		size_t size = sub_sizes[i], known = size < sizeof whole_sub ? size : sizeof whole_sub;

		memset(big, 0xa5, sizeof big);
		OK(mptcp_getsubflowstats(fd, &sf[0], &whole_sub, sizeof whole_sub));
		OK(mptcp_getsubflowstats(fd, (void *)(name + 3), (void *)b, size));
		CHECK(!memcmp(b, &whole_sub, known < 404 ? known : 404));
		CHECK(all_are(b, known, size, 0) && all_are(b, size, 4999, 0xa5));
	}
	for (i = 0; i < sizeof strides / sizeof strides[0]; i++) {
		size_t size = strides[i], known = size < sizeof whole_sub ? size : sizeof whole_sub;

		CHECK_INT(OK(mptcp_getallstats(fd, NULL, 0, (void *)(odd + 1), size)), n);
		memcpy(&list, odd + 1, sizeof list);
		for (k = 0; k < n; k++) {
			const unsigned char *element = (unsigned char *)list + (size_t)k * size;

			OK(mptcp_getsubflowstats(fd, &sf[k], &whole_sub, sizeof whole_sub));
			CHECK(!memcmp(element, &whole_sub, known < 404 ? known : 404));
			CHECK(all_are(element, known, size, 0));
		}
		errno = SENTINEL;
		mptcp_freeallstats(list);
		CHECK_INT(errno, SENTINEL);
	}
	memset(big, 0xa5, sizeof big);
	CHECK_INT(OK(mptcp_getallstats(fd, (void *)b, 112, &list, sizeof *list)), n);
	CHECK(!memcmp(b, &whole, 80) && all_are(b, 104, 112, 0) && all_are(b, 112, 4999, 0xa5));
	mptcp_freeallstats(list);
	errno = SENTINEL;
	mptcp_freeallstats(NULL);
	CHECK_INT(errno, SENTINEL);

	/* What is refused writes nothing. */
	memset(big, 0xa5, sizeof big);
	list = untouched;
	for (i = 0; i < 8; i++) {
		FAILS(EINVAL, mptcp_getconnstats(fd, (void *)b, i));
		FAILS(EINVAL, mptcp_getallstats(fd, (void *)b, i, &list, sizeof *list));
	}
	for (i = 0; i < 288; i += i < 280 ? 40 : 1) {
		FAILS(EINVAL, mptcp_getsubflowstats(fd, &sf[0], (void *)b, i));
		FAILS(EINVAL, mptcp_getallstats(fd, (void *)b, sizeof whole, &list, i));
	}
	for (i = 289; i < 296; i++)
		FAILS(EINVAL, mptcp_getallstats(fd, (void *)b, sizeof whole, &list, i));
	FAILS(EINVAL, mptcp_getallstats(fd, NULL, 0, &list, 436));
	for (i = 0; i < sizeof too_big / sizeof too_big[0]; i++) {
		FAILS(E2BIG, mptcp_getconnstats(fd, (void *)b, too_big[i]));
		FAILS(E2BIG, mptcp_getsubflowstats(fd, &sf[0], (void *)b, too_big[i]));
		FAILS(E2BIG, mptcp_getallstats(fd, (void *)b, too_big[i], &list, sizeof *list));
		FAILS(E2BIG, mptcp_getallstats(fd, (void *)b, sizeof whole, &list, too_big[i]));
	}
	FAILS(EFAULT, mptcp_getconnstats(fd, NULL, sizeof whole));
	FAILS(EFAULT, mptcp_getsubflowstats(fd, NULL, (void *)b, sizeof whole_sub));
	FAILS(EFAULT, mptcp_getsubflowstats(fd, &sf[0], NULL, sizeof whole_sub));
	FAILS(EFAULT, mptcp_getallstats(fd, (void *)b, sizeof whole, NULL, sizeof *list));
	FAILS(EFAULT, mptcp_getallstats(fd, NULL, sizeof whole, &list, sizeof *list));
	CHECK(all_are(big, 0, sizeof big, 0xa5));
	CHECK(list == untouched);
	mptcp_freesubflows(sf);
}

/* How a subflow is named. */
static void naming(const struct fam *f)
{
	struct pair p = pair_listen(f->server, IPPROTO_MPTCP), q = pair_listen(f->server, IPPROTO_MPTCP);
	struct mptcp_subflow_stats stats, before;
	struct mptcp_subflow *sf = NULL, *other = NULL, name;

	pair_connectx(&p, f->server, raw_socket(f->domain));
	pair_connectx(&q, f->server, raw_socket(f->domain));
	settle(&p);
	settle(&q);
	CHECK_INT(OK(mptcp_getsubflows(p.c, &sf)), 1);
	CHECK_INT(OK(mptcp_getsubflows(q.c, &other)), 1);
	memset(&before, 0xa5, sizeof before);
	stats = before;

	name = *other;
	FAILS(ENOENT, mptcp_getsubflowstats(p.c, &name, &stats, sizeof stats));
	FAILS(ENOENT, mptcp_getsubflowstats(p.s, sf, &stats, sizeof stats));    /* it is the other way round */
	name = *sf;
	((struct sockaddr_in *)&name.local)->sin_port ^= htons(1);              /* at one place in both families */
	FAILS(ENOENT, mptcp_getsubflowstats(p.c, &name, &stats, sizeof stats));
	name = *sf;
	if (has_totals) {
		name.id++;
		FAILS(ENOENT, mptcp_getsubflowstats(p.c, &name, &stats, sizeof stats));
	}
	memset(&name, 0, sizeof name);
	FAILS(EAFNOSUPPORT, mptcp_getsubflowstats(p.c, &name, &stats, sizeof stats));
	name = *sf;
	name.remote.ss_family = AF_UNIX;
	FAILS(EAFNOSUPPORT, mptcp_getsubflowstats(p.c, &name, &stats, sizeof stats));
	CHECK(!memcmp(&stats, &before, sizeof stats));

	name = *sf;
	name.id = 0;                                                            /* not known is no difference */
	OK(mptcp_getsubflowstats(p.c, &name, &stats, sizeof stats));
	CHECK_INT(stats.subflow.id, sf->id);
	if (sf->local.ss_family == AF_INET) {
		/* The v4-mapped name of the same; what doesn't count in it is ignored. */
		struct sockaddr_in6 *six[2];
		int i;

		six[0] = (struct sockaddr_in6 *)&name.local;
		six[1] = (struct sockaddr_in6 *)&name.remote;
		for (i = 0; i < 2; i++) {
			struct sockaddr_in four;

			memcpy(&four, i ? &sf->remote : &sf->local, sizeof four);
			memset(six[i], 0, sizeof *six[i]);
			six[i]->sin6_family = AF_INET6;
			six[i]->sin6_port = four.sin_port;
			six[i]->sin6_flowinfo = htonl(77);
			six[i]->sin6_scope_id = 5;
			memset(six[i]->sin6_addr.s6_addr + 10, 0xff, 2);
			memcpy(six[i]->sin6_addr.s6_addr + 12, &four.sin_addr, 4);
		}
		OK(mptcp_getsubflowstats(p.c, &name, &stats, sizeof stats));
		CHECK_INT(stats.subflow.local.ss_family, AF_INET);
	}
	mptcp_freesubflows(sf);
	mptcp_freesubflows(other);
	pair_close(&p);
	pair_close(&q);
}

/* ---- states --------------------------------------------------------------- */

static void none(int fd)
{
	struct mptcp_subflow_stats one, *list = &one;
	struct mptcp_conn_stats conn, before;
	struct mptcp_subflow sf;
	struct list l = addrs("10.1.0.1/1 10.9.0.1/2");

	memset(&sf, 0, sizeof sf);
	memcpy(&sf.local, l.b, 16);
	memcpy(&sf.remote, l.b + 16, 16);
	memset(&conn, 0xa5, sizeof conn);
	before = conn;
	FAILS(ENOTCONN, mptcp_getconnstats(fd, &conn, sizeof conn));
	FAILS(ENOTCONN, mptcp_getallstats(fd, &conn, sizeof conn, &list, sizeof *list));
	FAILS(ENOTCONN, mptcp_getsubflowstats(fd, &sf, &one, sizeof one));
	CHECK(!memcmp(&conn, &before, sizeof conn) && list == &one);
}

static void states(const struct fam *f)
{
	int proto;

	for (proto = 0; proto < 2; proto++) {
		struct pair p;
		int filler, l, fd = proto ? raw_socket(f->domain) : tcp_socket(f->domain);

		none(fd);                               /* fresh */
		REQUIRE(!do_bind(fd, f->p1));
		none(fd);                               /* bound */
		close(fd);
		fd = listen_at(f->server, proto ? IPPROTO_MPTCP : IPPROTO_TCP, 4);
		none(fd);                               /* listening */
		close(fd);
		l = full_listener(f->server, &filler);
		fd = proto ? raw_socket(f->domain) : tcp_socket(f->domain);
		nonblock(fd);
		REQUIRE(do_connect(fd, at(f->server, sockport(l))) < 0 && errno == EINPROGRESS);
		none(fd);                               /* connecting */
		close(fd);
		close(filler);
		close(l);

		p = pair_listen(f->server, proto ? IPPROTO_MPTCP : IPPROTO_TCP);
		pair_connect(&p, f->server, proto ? raw_socket(f->domain) : tcp_socket(f->domain));
		say(p.c, p.s);
		reset_close(p.s);
		p.s = -1;
		AWAIT(mptcp_getconnstats(p.c, &(struct mptcp_conn_stats){ 0 }, 8) < 0);
		none(p.c);                              /* reset */
		pair_close(&p);

		p = pair_listen(f->server, proto ? IPPROTO_MPTCP : IPPROTO_TCP);
		pair_connect(&p, f->server, proto ? raw_socket(f->domain) : tcp_socket(f->domain));
		settle(&p);
		close(p.s);
		p.s = -1;
		shutdown(p.c, SHUT_WR);
		AWAIT(mptcp_getconnstats(p.c, &(struct mptcp_conn_stats){ 0 }, 8) < 0);
		none(p.c);                              /* ended on both sides */
		disconnect(p.c);
		none(p.c);
		pair_close(&p);
	}
}

/* ---- plain TCP -------------------------------------------------------------- */

static void check_tcp(int fd, uint32_t server_flag)
{
	struct mptcp_subflow_stats *list = NULL, one;
	struct mptcp_conn_stats conn, again;
	struct all *a, *b;

	AWAIT(still(fd));
	a = read_all(fd);
	CHECK_INT(a->n, -1);
	CHECK_INT(OK(mptcp_getallstats(fd, &conn, sizeof conn, &list, sizeof *list)), 1);
	b = read_all(fd);
	OK(mptcp_getconnstats(fd, &again, sizeof again));
	CHECK_INT(again.valid, conn.valid);
	CHECK_INT(conn.flags, MPTCP_CONN_FALLBACK | server_flag);
	CHECK_INT(conn.bytes_sent, num(a->tcp[0], 200, 8) - num(a->tcp[0], 208, 8));
	CHECK_INT(conn.bytes_received, num(a->tcp[0], 128, 8));
	CHECK_INT(conn.bytes_acked, num(a->tcp[0], 120, 8));
	CHECK_INT(conn.bytes_retrans, num(a->tcp[0], 208, 8));
	CHECK_INT(conn.closed_bytes_sent, 0);
	CHECK_INT(conn.closed_bytes_received, 0);
	CHECK_INT(conn.subflows, a->tcp[0][0] == 1 || a->tcp[0][0] == 8);
	CHECK_INT(conn.subflows_max, 1);
	/* All but what only MPTCP has. */
	CHECK_INT(conn.valid, 0x1ffff & ~(MPTCP_CS_CONNID | MPTCP_CS_ADDRS_ANNOUNCED | MPTCP_CS_ADDRS_RECEIVED));
	check_mask(&conn, 8, 6, 11, conn.valid);
	CHECK_INT(list->subflow.flags, MPTCP_SUBFLOW_INITIAL | MPTCP_SUBFLOW_FALLBACK);
	CHECK_INT(list->subflow.id, 0);
	CHECK_STR(show(&list->subflow.local, 0), !strncmp(sockname(fd), "::ffff:", 7) ? sockname(fd) + 7 : sockname(fd));
	compare("TCP", list, list->valid, a->tcp[0], EACH(tcp_fields));
	between("TCP", list, list->valid, a->tcp_age[0], b->tcp_age[0], EACH(tcp_times));
	check_mask(list, 296, 6, 21, list->valid);
	CHECK(!(list->valid & (MPTCP_SS_LOCAL_ID | MPTCP_SS_REMOTE_ID)));
	if (a->tcp[0][0] == 1)
		CHECK_INT(list->ifindex, if_nametoindex("lo"));
	if (conn.bytes_sent) {
		CHECK(list->valid & MPTCP_SS_SHARE_SENT);
		CHECK_INT(list->share_sent_ppm, 1000000);
	}
	OK(mptcp_getsubflowstats(fd, &list->subflow, &one, sizeof one));
	CHECK(!memcmp(&one.subflow, &list->subflow, sizeof one.subflow));
	list->subflow.remote = list->subflow.local;
	FAILS(ENOENT, mptcp_getsubflowstats(fd, &list->subflow, &one, sizeof one));
	mptcp_freeallstats(list);
}

static void plain(const struct fam *f)
{
	int way;

	for (way = 0; way < 3; way++) {
		/* To a TCP server, from a TCP client, and both. */
		struct pair p = pair_listen(f->server, way == 1 ? IPPROTO_MPTCP : IPPROTO_TCP);

		pair_connect(&p, f->server, way == 0 ? raw_socket(f->domain) : tcp_socket(f->domain));
		check_tcp(p.c, 0);
		CHECK_INT(pump(&p, 100000, NULL, NULL), 0);
		check_tcp(p.c, 0);
		check_tcp(p.s, 0);
		sizes(p.c);
		/* Half closed it still tells, of the one pair. */
		REQUIRE(!shutdown(p.c, SHUT_WR));
		poll(NULL, 0, 20);
		check_tcp(p.c, 0);
		check_tcp(p.s, 0);
		pair_close(&p);
	}
}

/* ---- several subflows ---------------------------------------------------------- */

static struct pair three(const struct fam *f, int backup)
{
	struct pair p = pair_listen(f->server, IPPROTO_MPTCP);
	int c = (int)OK(mptcp_socket(f->domain, SOCK_STREAM | SOCK_CLOEXEC, 0));

	OK(add(c, f->p1));
	OK(add(c, f->p2));
	OK(add_flags(c, f->p3, backup ? MPTCP_BINDX_BACKUP : 0));
	pair_connectx(&p, f->server, c);
	settle(&p);
	AWAIT(count_subflows(p.c) == 3);
	AWAIT(count_subflows(p.s) == 3);
	settle(&p);
	return p;
}

/* Resets the client's subflow from `local`; 0 where ss or the kernel can't. */
static int kill_subflow(struct pair *p, const char *local)
{
	char command[256];
	int before = count_subflows(p->c);
	double end = t_now() + 2;

	snprintf(command, sizeof command, "ss -K src '%s%s%s' dport = %d >/dev/null 2>&1",
		 strchr(local, ':') ? "[" : "", local, strchr(local, ':') ? "]" : "", p->port);
	if (system(command))
		return 0;
	while (count_subflows(p->c) == before && t_now() < end)
		poll(NULL, 0, 2);
	return count_subflows(p->c) < before;
}

/* During a transfer the shares are whole at any moment, and totals only grow. */
struct watch {
	uint64_t sent, received;
	int looked, closes;
};

static void watch(struct pair *p, uint64_t moved, void *arg)
{
	struct watch *w = arg;
	struct mptcp_subflow_stats *list = NULL;
	struct mptcp_conn_stats conn;
	int i, n = (int)OK(mptcp_getallstats(p->c, &conn, sizeof conn, &list, sizeof *list));
	uint64_t sent = 0, received = 0;

	(void)moved;
	w->looked++;
	CHECK_INT(conn.subflows, n);
	CHECK(conn.bytes_sent >= w->sent && conn.bytes_received >= w->received);
	w->sent = conn.bytes_sent;
	w->received = conn.bytes_received;
	for (i = 0; i < n; i++) {
		sent += list[i].share_sent_ppm;
		received += list[i].share_received_ppm;
	}
	CHECK(sent <= 1000000 && received <= 1000000);
	if (has_totals && !w->closes && n == 3) {
		CHECK_INT(sent, 1000000);
		CHECK_INT(conn.closed_bytes_sent, 0);
		CHECK_INT(conn.closed_bytes_received, 0);
	}
	CHECK(conn.closed_bytes_sent <= conn.bytes_sent + conn.bytes_retrans);
	mptcp_freeallstats(list);
}

static void death(const struct fam *f)
{
	struct pair p = three(f, 0);
	struct mptcp_subflow_stats *list = NULL, one;
	struct mptcp_conn_stats conn;
	struct watch w;
	uint64_t sent, received;
	int i, n;

	memset(&w, 0, sizeof w);
	check_numbers(p.c);
	check_numbers(p.s);
	CHECK_INT(pump(&p, 2000000, watch, &w), 0);
	CHECK(w.looked > 3);
	AWAIT(still(p.c));
	check_numbers(p.c);
	check_numbers(p.s);
	CHECK_INT(OK(mptcp_getallstats(p.c, &conn, sizeof conn, &list, sizeof *list)), 3);
	if (has_totals) {
		CHECK_INT(conn.bytes_sent, p.sent[0]);
		CHECK_INT(conn.bytes_received, p.got[1]);
		CHECK_INT(conn.bytes_acked, p.sent[0]);
		CHECK_INT(conn.closed_bytes_sent, 0);
		CHECK_INT(conn.closed_bytes_received, 0);
	}

	/* One that carried something is reset. Nothing is lost, so the sums stay. */
	if (!kill_subflow(&p, f->s2)) {
		OK(rem(p.c, f->s2));
		AWAIT(!within(f->s2, locals(p.c)));
	}
	w.closes = 1;
	for (i = 0; i < 3; i++)
		if (!strcmp(show(&list[i].subflow.local, 0), f->s2))
			break;
	REQUIRE(i < 3);
	FAILS(ENOENT, mptcp_getsubflowstats(p.c, &list[i].subflow, &one, sizeof one));
	sent = list[i].bytes_sent - list[i].bytes_retrans;
	received = list[i].bytes_received;
	mptcp_freeallstats(list);
	OK(mptcp_getconnstats(p.c, &conn, sizeof conn));
	if (has_totals) {
		/* Probes of a closed window, a byte each, and what came twice are the living's. */
		CHECK(conn.closed_bytes_sent <= sent && sent - conn.closed_bytes_sent < 1000);
		CHECK(conn.closed_bytes_received <= received);
		CHECK_INT(conn.bytes_sent, p.sent[0]);
	}
	check_numbers(p.c);
	CHECK_INT(pump(&p, 500000, watch, &w), 0);
	AWAIT(raw_list(p.c, (struct raw_subflow[64]){ { 0 } }, 64, RAW_UP) >= 2);
	check_numbers(p.c);
	check_numbers(p.s);

	/* In the middle of a transfer, and the initial one. */
	OK(rem(p.c, f->s1));
	AWAIT(!within(f->s1, raw_locals(p.c)));
	CHECK_INT(pump(&p, 500000, watch, &w), 0);
	check_numbers(p.c);
	check_numbers(p.s);
	OK(mptcp_getconnstats(p.c, &conn, sizeof conn));
	if (has_totals)
		CHECK(conn.closed_bytes_sent > sent && conn.closed_bytes_received > received);
	CHECK_INT(conn.flags & ~(uint32_t)MPTCP_CONN_SERVER, MPTCP_CONN_FULL);
	sent = conn.bytes_sent;

	/* None is left: the connection goes on telling. */
	OK(rem(p.c, laddrs_np(p.c)));
	AWAIT(count_subflows(p.c) == 0);
	list = &one;
	n = (int)OK(mptcp_getallstats(p.c, &conn, sizeof conn, &list, sizeof *list));
	CHECK_INT(n, 0);
	CHECK(list == NULL);
	CHECK_INT(conn.subflows, 0);
	CHECK_INT(conn.bytes_sent, sent);
	if (has_totals) {
		CHECK_INT(conn.closed_bytes_sent, conn.bytes_sent + conn.bytes_retrans);
		CHECK_INT(conn.closed_bytes_received, conn.bytes_received);
		CHECK_INT(conn.flags, MPTCP_CONN_FULL);
	}
	pair_close(&p);
}

/* Bits and ids that only inet_diag has. */
static void priorities(const struct fam *f)
{
	struct pair p = three(f, 1);
	int d;

	for (d = 0; d < 2; d++) {
		struct mptcp_subflow_stats *list = NULL;
		uint32_t want = d ? MPTCP_SUBFLOW_PEER_BACKUP : MPTCP_SUBFLOW_BACKUP, seen = 0;
		int fd = d ? p.s : p.c, i, n;

		check_numbers(fd);
		n = (int)OK(mptcp_getallstats(fd, NULL, 0, &list, sizeof *list));
		CHECK_INT(n, 3);
		for (i = 0; i < n; i++) {
			const char *path = show(d ? &list[i].subflow.remote : &list[i].subflow.local, 0);
			uint32_t got = list[i].subflow.flags & (MPTCP_SUBFLOW_BACKUP | MPTCP_SUBFLOW_PEER_BACKUP);
			uint32_t here = d ? list[i].remote_id : list[i].local_id;
			uint32_t there = d ? list[i].local_id : list[i].remote_id;

			CHECK_INT(got, !strcmp(path, f->s3) ? want : 0);
			CHECK_INT(there, 0);
			CHECK_INT(here == 0, i == 0);
			CHECK(here < 32 && !(seen >> here & 1));
			seen |= (uint32_t)1 << here;
		}
		mptcp_freeallstats(list);
	}
	pair_close(&p);
}

/* ---- many ------------------------------------------------------------------------ */

static void attribute(unsigned char *buf, size_t *len, unsigned type, const void *value, size_t size)
{
	struct nlattr a;

	a.nla_len = (uint16_t)(sizeof a + size);
	a.nla_type = (uint16_t)type;
	memcpy(buf + *len, &a, sizeof a);
	memcpy(buf + *len + sizeof a, value, size);
	*len += (sizeof a + size + 3) & ~(size_t)3;
}

/* Sends a generic netlink command; the answer's length, in buf. */
static ssize_t command(int nl, unsigned char *buf, size_t len, unsigned family, unsigned char cmd, unsigned flags)
{
	struct nlmsghdr h;
	struct genlmsghdr g;

	memset(&h, 0, sizeof h);
	memset(&g, 0, sizeof g);
	h.nlmsg_len = (uint32_t)len;
	h.nlmsg_type = (uint16_t)family;
	h.nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags);
	g.cmd = cmd;
	g.version = 1;
	memcpy(buf, &h, sizeof h);
	memcpy(buf + sizeof h, &g, sizeof g);
	REQUIRE(send(nl, buf, len, 0) == (ssize_t)len);
	return recv(nl, buf, 4096, 0);
}

/* By the kernel's own path manager interface, not by the library. */
static void many(const struct fam *f)
{
	static unsigned char buf[4096];
	static struct mptcp_subflow_stats *list;
	struct pair p = pair_listen(f->server, IPPROTO_MPTCP);
	struct list l = addrs(f->p2);
	struct mptcp_conn_stats conn;
	const size_t head = sizeof(struct nlmsghdr) + sizeof(struct genlmsghdr);
	uint16_t family = 0, inet = AF_INET, port = (uint16_t)p.port;
	uint32_t token;
	uint64_t sent = 0, received = 0;
	unsigned char nest[64], id = 1;
	size_t len, at_byte, in;
	ssize_t got;
	int i, n, nl = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);
	pid_t monitor = fork();

	put(&l, at(f->server, p.port));
	/* Without anybody who listens no join is let in. */
	REQUIRE(monitor >= 0);
	if (!monitor) {
		REQUIRE(!prctl(PR_SET_PDEATHSIG, SIGKILL) && freopen("/dev/null", "w", stdout));
		execlp("ip", "ip", "mptcp", "monitor", (char *)NULL);
		_exit(1);
	}
	REQUIRE(nl >= 0);
	len = head;
	attribute(buf, &len, CTRL_ATTR_FAMILY_NAME, "mptcp_pm", 9);
	got = command(nl, buf, len, GENL_ID_CTRL, CTRL_CMD_GETFAMILY, 0);
	for (at_byte = head; at_byte + 4 <= (size_t)got;) {
		struct nlattr a;

		memcpy(&a, buf + at_byte, sizeof a);
		if (a.nla_type == CTRL_ATTR_FAMILY_ID)
			memcpy(&family, buf + at_byte + 4, 2);
		at_byte += (size_t)((a.nla_len + 3) & ~3);
		if (a.nla_len < 4)
			break;
	}
	REQUIRE(family);

	p.c = raw_socket(f->domain);
	REQUIRE(!do_bind(p.c, f->p1));
	REQUIRE(!do_connect(p.c, at(f->server, p.port)));
	p.s = t_accept(p.l);
	settle(&p);
	token = raw_token(p.c);
	for (i = 1; i < MANY; i++) {
		double end = t_now() + 5;
		int error;

		do {
			len = head;
			attribute(buf, &len, 4, &token, 4);             /* TOKEN */
			in = 0;
			attribute(nest, &in, 1, &inet, 2);              /* FAMILY */
			attribute(nest, &in, 2, &id, 1);                /* ID */
			attribute(nest, &in, 3, l.b + 4, 4);            /* ADDR4 */
			attribute(buf, &len, 1 | NLA_F_NESTED, nest, in);
			in = 0;
			attribute(nest, &in, 1, &inet, 2);
			attribute(nest, &in, 3, l.b + 16 + 4, 4);
			attribute(nest, &in, 5, &port, 2);              /* PORT */
			attribute(buf, &len, 6 | NLA_F_NESTED, nest, in);       /* ADDR_REMOTE */
			got = command(nl, buf, len, family, 10, NLM_F_ACK);     /* SUBFLOW_CREATE */
			REQUIRE(got >= (ssize_t)(sizeof(struct nlmsghdr) + 4));
			memcpy(&error, buf + sizeof(struct nlmsghdr), 4);
		} while (error && t_now() < end);
		CHECK_INT(error, 0);
		if (i == 1)
			AWAIT(count_subflows(p.c) == 2);        /* the monitor is there */
		if (i % 16 == 0)
			AWAIT(count_subflows(p.c) == i + 1);    /* the listener's queue is short */
	}
	AWAIT(count_subflows(p.c) == MANY);
	AWAIT(count_subflows(p.s) == MANY);
	CHECK_INT(pump(&p, 2000000, NULL, NULL), 0);
	if (has_totals) {                               /* read_all() has no more than 64 otherwise */
		check_numbers(p.c);
		check_numbers(p.s);
	}
	n = (int)OK(mptcp_getallstats(p.c, &conn, sizeof conn, &list, 512));
	CHECK_INT(n, MANY);
	CHECK_INT(conn.subflows, MANY);
	for (i = 0; i < n; i++) {
		struct mptcp_subflow_stats s;

		memcpy(&s, (unsigned char *)list + (size_t)i * 512, sizeof s);
		CHECK_STR(show(&s.subflow.local, 0), i ? f->s2 : f->s1);
		CHECK_INT(s.local_id, i ? 1 : 0);
		sent += s.share_sent_ppm;
		received += s.share_received_ppm;
	}
	if (has_totals) {
		CHECK_INT(sent, 1000000);
		CHECK_INT(received, 1000000);
	}
	mptcp_freeallstats(list);
	kill(monitor, SIGTERM);
	REQUIRE(waitpid(monitor, NULL, 0) == monitor);
	close(nl);
	pair_close(&p);
}

int main(void)
{
	struct mptcp_caps caps;
	struct pair p;
	struct all *a;
	int i, before;

	need_mptcp();
	before = open_fds();
	p = pair_listen("10.9.0.1", IPPROTO_MPTCP);
	pair_connect(&p, "10.9.0.1", raw_socket(AF_INET));
	settle(&p);
	a = read_all(p.c);
	has_totals = a->info_len >= 80;
	has_times = a->info_len >= 96;
	has_ulp = !system("ss -tniHO dst 10.9.0.1 | grep -q tcp-ulp-mptcp");
	OK(mptcp_getcaps(p.c, &caps, sizeof caps));
	CHECK(caps.works & MPTCP_CAP_CONN_STATS && caps.works & MPTCP_CAP_SUBFLOW_STATS);
	OK(mptcp_getcaps(-1, &caps, sizeof caps));
	CHECK(caps.works & MPTCP_CAP_CONN_STATS && caps.works & MPTCP_CAP_SUBFLOW_STATS);
	CHECK(caps.known & MPTCP_CAP_CONN_STATS && caps.known & MPTCP_CAP_SUBFLOW_STATS);
	privileged = caps.backend == MPTCP_BACKEND_DIRECT;
	pair_close(&p);

	for (i = 0; i < 3; i++) {
		const struct fam *f = &t_fams[i];

		t_ctx = f->name;
		simple(f);
		states(f);
		naming(f);
		plain(f);
		if (!privileged)
			continue;
		checksums(f);
		bound_to_device(f);
		elsewhere(f);
		death(f);
		priorities(f);
		p = three(f, 0);
		sizes(p.c);
		sizes(p.s);
		pair_close(&p);
	}
	if (privileged && !kernel_pm()) {
		t_ctx = "many";
		many(&t_fams[0]);
	}
	t_ctx = "";
	CHECK(open_fds() - before <= 8);
	return t_done();
}
