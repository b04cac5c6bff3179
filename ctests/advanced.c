/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The control half of RFC 6897 appendix A.3: settings of a connection, before it
 * and on it, and subflows opened, closed and put behind by hand.
 *
 * lab:
 * lab: --userspace
 * lab: --broker= T_USER=1
 */
#include "raw.h"

static int fresh(const struct fam *f)
{
	int fd = (int)OK(mptcp_socket(f->domain, SOCK_STREAM | SOCK_CLOEXEC, 0));

	REQUIRE(fd >= 0);
	return fd;
}

static const char *all_of(const struct fam *f)
{
	static char buf[200];

	snprintf(buf, sizeof buf, "%s %s %s", f->s1, f->s2, f->s3);
	return buf;
}

/* A socket with this list; and one connected. */
static int listed(const struct fam *f, const char *list)
{
	int fd = fresh(f);

	OK(add(fd, list));
	return fd;
}

static struct pair start(const struct fam *f, int fd)
{
	struct pair p = pair_listen(f->server, IPPROTO_MPTCP);

	pair_connectx(&p, f->server, fd);
	return p;
}

static const char *every(const struct fam *f)
{
	static char buf[200];

	snprintf(buf, sizeof buf, "%s %s %s", f->p1, f->p2, f->p3);
	return buf;
}

static int value(int fd, int opt)
{
	int v = -1;

	OK(get_int(fd, opt, &v));
	return v;
}

static int policy(int fd, uint32_t mode, uint32_t ms, uint64_t bytes)
{
	struct mptcp_path_policy p;

	p.mode = mode;
	p.after_ms = ms;
	p.after_bytes = bytes;
	return mptcp_setsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_PATH_POLICY, &p, sizeof p);
}

/* The subflow from this address; 0 when there is none. */
static int subflow_from(int fd, const char *local, struct mptcp_subflow *out)
{
	struct mptcp_subflow *sf = NULL;
	int i, n = mptcp_getsubflows(fd, &sf), found = 0;

	for (i = 0; i < n && !found; i++)
		if (!strcmp(show(&sf[i].local, 0), local)) {
			*out = sf[i];
			found = 1;
		}
	mptcp_freesubflows(sf);
	return found;
}

/* Local addresses of subflows that this end (or the peer) has for backup, sorted. */
static const char *backups(int fd, uint32_t bit)
{
	struct mptcp_subflow_stats *list = NULL;
	struct words set;
	int i, n = mptcp_getallstats(fd, NULL, 0, &list, sizeof *list);

	set.n = 0;
	for (i = 0; i < n; i++)
		if (list[i].subflow.flags & bit)
			add_word(&set, show(bit == MPTCP_SUBFLOW_BACKUP ? &list[i].subflow.local
					    : &list[i].subflow.remote, 0), 1);
	mptcp_freeallstats(list);
	return join_words(&set);
}
#define behind(fd) backups(fd, MPTCP_SUBFLOW_BACKUP)
#define peer_behind(fd) backups(fd, MPTCP_SUBFLOW_PEER_BACKUP)

static int open_from(int fd, const char *local, const char *remote, int flags)
{
	struct list l, r;

	l = addrs(local ? local : "");
	r = addrs(remote ? remote : "");
	return mptcp_opensubflow(fd, local ? SA(&l) : NULL, remote ? SA(&r) : NULL, flags);
}

static const char *two_words(const char *a, const char *b)
{
	static char buf[4][160];
	static int k;

	k = (k + 1) % 4;
	snprintf(buf[k], sizeof buf[k], "%s %s", a, b);
	return buf[k];
}

/* Names a subflow by these addresses, no ports. */
static void put_subflow(struct mptcp_subflow *sf, const char *local, const char *remote)
{
	struct list l = addrs(local), r = addrs(remote);

	memcpy(&sf->local, l.b, l.len);
	memcpy(&sf->remote, r.b, r.len);
}

/* The next event of this kind, others left out; 0 when there is none for long. */
static int next_event(int ev, uint32_t what, struct mptcp_event *out)
{
	double end = t_now() + 5;
	int n;

	while ((n = mptcp_nextevent(ev, out, sizeof *out)) == 1 || (n < 0 && errno == EAGAIN && t_now() < end)) {
		struct pollfd pf;

		if (n == 1 && out->what == what)
			return 1;
		pf.fd = ev;
		pf.events = POLLIN;
		if (n < 0)
			poll(&pf, 1, 20);
	}
	return 0;
}

/* Lets the library work while data moves. */
static void touch(struct pair *p, uint64_t moved, void *arg)
{
	(void)moved;
	(void)arg;
	(void)count_subflows(p->c);
}

/* Each option: its default, what it takes, what it refuses; nothing else changes. */
static void options(const struct fam *f)
{
	static const struct { int opt, def, some, bad; } ints[] = {
		{ TCP_MULTIPATH_MAX_SUBFLOWS, 255, 7, 256 },
		{ TCP_MULTIPATH_PROFILE, MPTCP_PROFILE_AGGREGATE, MPTCP_PROFILE_OVERFLOW, 4 },
		{ TCP_MULTIPATH_FATE_SHARING, 0, 1, 0 },
	};
	struct mptcp_traffic t, got;
	struct mptcp_path_policy pp, pq;
	socklen_t len;
	size_t i;
	int c = listed(f, f->p1), v, round;
	struct pair p;
	char big[64];

	memset(&p, 0, sizeof p);
	for (round = 0; round < 2; round++) {
		for (i = 0; i < sizeof ints / sizeof *ints; i++) {
			CHECK_INT(value(c, ints[i].opt), ints[i].def);
			OK(set_int(c, ints[i].opt, ints[i].some));
			CHECK_INT(value(c, ints[i].opt), ints[i].some);
			if (ints[i].bad) {
				FAILS(EINVAL, set_int(c, ints[i].opt, ints[i].bad));
				FAILS(EINVAL, set_int(c, ints[i].opt, -1));
			}
			FAILS(EINVAL, mptcp_setsockopt(c, IPPROTO_TCP, ints[i].opt, &v, 3));
			FAILS(EFAULT, mptcp_setsockopt(c, IPPROTO_TCP, ints[i].opt, NULL, 4));
			CHECK_INT(value(c, ints[i].opt), ints[i].some);
			OK(set_int(c, ints[i].opt, ints[i].def == 255 ? 0 : ints[i].def));
			CHECK_INT(value(c, ints[i].opt), ints[i].def);
		}
		/* The kernel has no scheduler for this. */
		CHECK_INT(value(c, TCP_MULTIPATH_REDUNDANCY), MPTCP_REDUNDANCY_NONE);
		OK(set_int(c, TCP_MULTIPATH_REDUNDANCY, MPTCP_REDUNDANCY_NONE));
		FAILS(EINVAL, set_int(c, TCP_MULTIPATH_REDUNDANCY, 3));
		FAILS(EOPNOTSUPP, set_int(c, TCP_MULTIPATH_REDUNDANCY, MPTCP_REDUNDANCY_FULL));
		FAILS(EOPNOTSUPP, set_int(c, TCP_MULTIPATH_REDUNDANCY, MPTCP_REDUNDANCY_SPARE));
		CHECK_INT(value(c, TCP_MULTIPATH_REDUNDANCY), MPTCP_REDUNDANCY_NONE);

		/* Structs: cut, longer, and what this version doesn't know. */
		memset(&t, 0, sizeof t);
		t.bytes_to_send = 1;
		t.bytes_to_receive = UINT64_MAX;
		t.rate = 3;
		t.duration_ms = 4;
		OK(mptcp_setsockopt(c, IPPROTO_TCP, TCP_MULTIPATH_TRAFFIC, &t, sizeof t));
		memset(&got, 0xee, sizeof got);
		len = sizeof got;
		OK(mptcp_getsockopt(c, IPPROTO_TCP, TCP_MULTIPATH_TRAFFIC, &got, &len));
		CHECK(len == sizeof t && !memcmp(&t, &got, sizeof t));
		t.flags = 1;
		FAILS(EINVAL, mptcp_setsockopt(c, IPPROTO_TCP, TCP_MULTIPATH_TRAFFIC, &t, sizeof t));
		FAILS(EINVAL, mptcp_setsockopt(c, IPPROTO_TCP, TCP_MULTIPATH_TRAFFIC, &t, 7));
		memset(big, 0, sizeof big);
		big[40] = 1;
		FAILS(E2BIG, mptcp_setsockopt(c, IPPROTO_TCP, TCP_MULTIPATH_TRAFFIC, big, sizeof big));
		len = 8;
		OK(mptcp_getsockopt(c, IPPROTO_TCP, TCP_MULTIPATH_TRAFFIC, &got, &len));
		CHECK(len == 8 && got.bytes_to_send == 1);
		big[40] = 0;
		OK(mptcp_setsockopt(c, IPPROTO_TCP, TCP_MULTIPATH_TRAFFIC, big, sizeof big));
		memset(big, 0xee, sizeof big);
		len = sizeof big;
		OK(mptcp_getsockopt(c, IPPROTO_TCP, TCP_MULTIPATH_TRAFFIC, big, &len));
		CHECK(len == sizeof big && !big[0] && !big[63]);

		OK(policy(c, MPTCP_PATHS_ON_DEMAND, 5, 6));
		len = sizeof pq;
		OK(mptcp_getsockopt(c, IPPROTO_TCP, TCP_MULTIPATH_PATH_POLICY, &pq, &len));
		CHECK(len == sizeof pq && pq.mode == MPTCP_PATHS_ON_DEMAND && pq.after_ms == 5
		      && pq.after_bytes == 6);
		FAILS(EINVAL, policy(c, 3, 0, 0));
		CHECK_INT(value(c, TCP_MULTIPATH_PATH_POLICY), MPTCP_PATHS_ON_DEMAND);
		/* An int, the mode, is a valid prefix. */
		OK(set_int(c, TCP_MULTIPATH_PATH_POLICY, MPTCP_PATHS_MANUAL));
		len = sizeof pp;
		OK(mptcp_getsockopt(c, IPPROTO_TCP, TCP_MULTIPATH_PATH_POLICY, &pp, &len));
		CHECK(pp.mode == MPTCP_PATHS_MANUAL && !pp.after_ms && !pp.after_bytes);
		OK(set_int(c, TCP_MULTIPATH_PATH_POLICY, MPTCP_PATHS_EAGER));

		if (!round) {
			OK(set_int(c, TCP_MULTIPATH_PROFILE, MPTCP_PROFILE_HANDOVER));
			p = start(f, c);
			settle(&p);
			CHECK_INT(value(c, TCP_MULTIPATH_PROFILE), MPTCP_PROFILE_HANDOVER);
			OK(set_int(c, TCP_MULTIPATH_PROFILE, MPTCP_PROFILE_AGGREGATE));
		}
	}
	pair_close(&p);

	/* On plain TCP there is the default, which can always be set. */
	c = tcp_socket(f->domain);
	CHECK_INT(value(c, TCP_MULTIPATH_PROFILE), MPTCP_PROFILE_AGGREGATE);
	OK(set_int(c, TCP_MULTIPATH_PROFILE, MPTCP_PROFILE_AGGREGATE));
	OK(set_int(c, TCP_MULTIPATH_MAX_SUBFLOWS, 255));
	FAILS(EOPNOTSUPP, set_int(c, TCP_MULTIPATH_PROFILE, MPTCP_PROFILE_HANDOVER));
	close(c);

	/* After a fallback nothing is in force any more. */
	p = pair_listen(f->server, IPPROTO_TCP);
	c = fresh(f);
	OK(set_int(c, TCP_MULTIPATH_PROFILE, MPTCP_PROFILE_HANDOVER));
	OK(set_int(c, TCP_MULTIPATH_MAX_SUBFLOWS, 2));
	OK(connx(c, at(f->server, p.port), NULL));
	p.c = c;
	p.s = t_accept(p.l);
	CHECK_INT(value(c, TCP_MULTIPATH_PROFILE), MPTCP_PROFILE_AGGREGATE);
	CHECK_INT(value(c, TCP_MULTIPATH_MAX_SUBFLOWS), 255);
	OK(set_int(c, TCP_MULTIPATH_PROFILE, MPTCP_PROFILE_AGGREGATE));
	OK(set_int(c, TCP_MULTIPATH_MAX_SUBFLOWS, 0));
	FAILS(EOPNOTSUPP, set_int(c, TCP_MULTIPATH_PROFILE, MPTCP_PROFILE_HANDOVER));
	settle(&p);
	pair_close(&p);

	/* connect(AF_UNSPEC) forgets it. */
	c = fresh(f);
	OK(set_int(c, TCP_MULTIPATH_MAX_SUBFLOWS, 2));
	CHECK_INT(value(c, TCP_MULTIPATH_MAX_SUBFLOWS), 2);
	OK(set_int(c, TCP_MULTIPATH_MAX_SUBFLOWS, 0));
	OK(set_int(c, TCP_MULTIPATH_ENABLE, 0));
	CHECK_INT(value(c, TCP_MULTIPATH_MAX_SUBFLOWS), 255);
	close(c);
}

/* The greatest number of subflows: before the connection, raised, lowered. */
static void number(const struct fam *f)
{
	int c = listed(f, every(f));
	struct pair p;

	OK(set_int(c, TCP_MULTIPATH_MAX_SUBFLOWS, 1));
	p = start(f, c);
	settle(&p);
	ALWAYS(count_subflows(c) == 1, 100);
	CHECK_STR(laddrs(c), all_of(f));
	OK(set_int(c, TCP_MULTIPATH_MAX_SUBFLOWS, 2));
	AWAIT(count_subflows(c) == 2);
	ALWAYS(count_subflows(c) == 2, 100);
	OK(set_int(c, TCP_MULTIPATH_MAX_SUBFLOWS, 0));
	AWAIT_STR(locals(c), all_of(f));
	/* What is for backup goes first. */
	OK(add_flags(c, f->p2, MPTCP_BINDX_BACKUP));
	AWAIT_STR(behind(c), f->s2);
	settle(&p);
	OK(set_int(c, TCP_MULTIPATH_MAX_SUBFLOWS, 2));
	AWAIT(count_subflows(c) == 2);
	CHECK(!within(f->s2, locals(c)));
	OK(set_int(c, TCP_MULTIPATH_MAX_SUBFLOWS, 1));
	AWAIT(count_subflows(c) == 1);
	CHECK_INT(pump(&p, 100000, NULL, NULL), 0);
	ALWAYS(count_subflows(c) == 1, 100);
	/* An address that goes is replaced all the same. */
	OK(rem(c, locals(c)));
	AWAIT(count_subflows(c) == 1);
	CHECK_INT(pump(&p, 100000, NULL, NULL), 0);
	FAILS(ENOSPC, open_from(c, NULL, NULL, 0));
	pair_close(&p);
}

/* By hand only; after so many bytes; after so long; not for a small transfer. */
static void when(const struct fam *f)
{
	struct mptcp_traffic t;
	struct pair p;
	long joins;
	int c;

	/* By hand only. */
	c = listed(f, every(f));
	OK(policy(c, MPTCP_PATHS_MANUAL, 0, 0));
	joins = raw_mib("MPJoinSynRx");
	p = start(f, c);
	CHECK_INT(pump(&p, 2000000, NULL, NULL), 0);
	ALWAYS(count_subflows(c) == 1, 100);
	CHECK_INT(raw_mib("MPJoinSynRx"), joins);
	OK(open_from(c, f->p3, NULL, 0));
	AWAIT(count_subflows(c) == 2 && within(f->s3, locals(c)));
	OK(add(c, f->p2));                      /* allowed, not used */
	ALWAYS(count_subflows(c) == 2, 100);
	OK(policy(c, MPTCP_PATHS_EAGER, 0, 0));
	AWAIT_STR(locals(c), all_of(f));
	pair_close(&p);

	/* After so many bytes. */
	c = listed(f, every(f));
	OK(policy(c, MPTCP_PATHS_ON_DEMAND, 0, 300000));
	joins = raw_mib("MPJoinSynRx");
	p = start(f, c);
	CHECK_INT(pump(&p, 100000, NULL, NULL), 0);
	ALWAYS(count_subflows(c) == 1, 200);
	CHECK_INT(raw_mib("MPJoinSynRx"), joins);
	CHECK_INT(pump(&p, 100000, NULL, NULL), 0);
	AWAIT_STR(locals(c), all_of(f));
	pair_close(&p);

	/* After so long. */
	c = listed(f, every(f));
	OK(policy(c, MPTCP_PATHS_ON_DEMAND, 300, 0));
	p = start(f, c);
	settle(&p);
	ALWAYS(count_subflows(c) == 1, 100);
	AWAIT_STR(locals(c), all_of(f));
	pair_close(&p);

	/* 20 kB with a hint make no join; a hint can be wrong. */
	c = listed(f, every(f));
	memset(&t, 0, sizeof t);
	t.bytes_to_send = 20000;
	OK(mptcp_setsockopt(c, IPPROTO_TCP, TCP_MULTIPATH_TRAFFIC, &t, sizeof t));
	joins = raw_mib("MPJoinSynRx");
	p = start(f, c);
	CHECK_INT(pump(&p, 20000, NULL, NULL), 0);
	ALWAYS(count_subflows(c) == 1, 200);
	CHECK_INT(raw_mib("MPJoinSynRx"), joins);
	CHECK_INT(pump(&p, 1100000, NULL, NULL), 0);
	AWAIT_STR(locals(c), all_of(f));
	pair_close(&p);

	/* What is known to be much is worth it at once. */
	c = listed(f, every(f));
	t.bytes_to_send = 5 << 20;
	OK(policy(c, MPTCP_PATHS_ON_DEMAND, 0, 0));
	p = start(f, c);
	settle(&p);
	ALWAYS(count_subflows(c) == 1, 100);
	OK(mptcp_setsockopt(c, IPPROTO_TCP, TCP_MULTIPATH_TRAFFIC, &t, sizeof t));
	AWAIT_STR(locals(c), all_of(f));
	pair_close(&p);
}

/* Subflows opened and closed by hand, one by one. */
static void by_hand(const struct fam *f)
{
	struct mptcp_subflow sf, other;
	struct pair p;
	struct timeval tv = { 0, 300000 };
	char text[160];
	int c = listed(f, every(f)), ev;
	struct mptcp_event e;

	OK(policy(c, MPTCP_PATHS_MANUAL, 0, 0));
	FAILS(ENOTCONN, open_from(c, f->p2, NULL, 0));
	memset(&sf, 0, sizeof sf);
	put_subflow(&sf, f->s1, f->shown_server);
	FAILS(ENOTCONN, mptcp_closesubflow(c, &sf));
	FAILS(ENOTCONN, mptcp_setbackup(c, &sf, 1));
	p = start(f, c);
	ev = (int)OK(mptcp_subscribe(c, MPTCP_EV_ALL));

	/* Before the connection is fully established it is kept. */
	OK(open_from(c, f->p2, NULL, MPTCP_OPEN_BACKUP));
	CHECK_INT(count_subflows(c), 1);
	settle(&p);
	AWAIT(count_subflows(c) == 2 && within(f->s2, locals(c)));
	AWAIT_STR(behind(c), f->s2);
	AWAIT_STR(peer_behind(p.s), f->s2);
	CHECK(next_event(ev, MPTCP_EV_SUBFLOW_UP, &e) && e.origin == MPTCP_ORIGIN_APP);
	CHECK_STR(show(&e.subflow.local, 0), f->s2);

	/* Bad ones. */
	FAILS(EINVAL, open_from(c, f->p3, NULL, 4));
	FAILS(EINVAL, open_from(c, f->domain == AF_INET ? "0.0.0.0" : "::", NULL, 0));
	FAILS2(EADDRNOTAVAIL, EAFNOSUPPORT, open_from(c, f->domain == AF_INET ? "10.77.0.1" : "fd77::1", NULL, 0));
	FAILS(EADDRNOTAVAIL, open_from(c, f->server, NULL, 0));
	FAILS(EAFNOSUPPORT, open_from(c, f->p3, strchr(f->s3, ':') ? "10.9.0.1" : "fd09::1", 0));
	sf.local.ss_family = AF_UNIX;
	FAILS(EAFNOSUPPORT, mptcp_closesubflow(c, &sf));
	FAILS(EFAULT, mptcp_closesubflow(c, NULL));
	FAILS(EFAULT, mptcp_setbackup(c, NULL, 0));
	CHECK_INT(count_subflows(c), 2);

	/* Waited for: established, refused, no answer. */
	OK(open_from(c, f->p3, at(f->server, p.port), MPTCP_OPEN_WAIT));
	CHECK_STR(locals(c), all_of(f));
	CHECK_STR(raw_locals(c), all_of(f));
	if (t_broker()) {
		FAILS(EACCES, open_from(c, f->p3, at(f->server, 1), MPTCP_OPEN_WAIT));
	} else {
		FAILS(ECONNREFUSED, open_from(c, f->p3, at(f->server, 1), MPTCP_OPEN_WAIT));
		OK(open_from(c, f->p3, at(f->server, 1), 0));
		CHECK(next_event(ev, MPTCP_EV_REQUEST_FAILED, &e) && e.error == ECONNREFUSED);
	}
	REQUIRE(subflow_from(c, f->s3, &sf));
	OK(mptcp_closesubflow(c, &sf));
	AWAIT(count_subflows(c) == 2 && !within(f->s3, locals(c)));
	snprintf(text, sizeof text, "nft add table inet t && nft 'add chain inet t o { type filter hook output"
		 " priority 0; }' && nft add rule inet t o tcp dport %d tcp flags syn drop", p.port);
	sh(text);
	REQUIRE(!setsockopt(c, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv));
	FAILS(ETIMEDOUT, open_from(c, f->p3, NULL, MPTCP_OPEN_WAIT));
	tv.tv_usec = 0;
	REQUIRE(!setsockopt(c, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv));
	sh("nft flush ruleset");
	ALWAYS(count_subflows(c) == 2, 100);
	nonblock(c);
	FAILS(EINVAL, open_from(c, f->p3, NULL, MPTCP_OPEN_WAIT));
	OK(open_from(c, f->p3, NULL, 0));
	AWAIT_STR(locals(c), all_of(f));
	settle(&p);

	/* Priority by hand, both ways, in both directions; the list has no say any more. */
	REQUIRE(subflow_from(c, f->s2, &sf) && subflow_from(c, f->s3, &other));
	OK(mptcp_setbackup(c, &sf, 0));
	AWAIT_STR(behind(c), "");
	AWAIT_STR(peer_behind(p.s), "");
	OK(mptcp_setbackup(c, &other, 1));
	AWAIT_STR(behind(c), f->s3);
	AWAIT_STR(peer_behind(p.s), f->s3);
	CHECK(next_event(ev, MPTCP_EV_PRIORITY, &e));
	OK(add_flags(c, f->p2, MPTCP_BINDX_BACKUP));
	ALWAYS(!strcmp(behind(c), f->s3), 100);

	/* Closed by hand it isn't opened again by policy, but by hand. */
	OK(policy(c, MPTCP_PATHS_EAGER, 0, 0));
	OK(mptcp_closesubflow(c, &sf));
	AWAIT(!within(f->s2, locals(c)));
	FAILS(ENOENT, mptcp_closesubflow(c, &sf));
	FAILS(ENOENT, mptcp_setbackup(c, &sf, 1));
	CHECK_INT(pump(&p, 100000, NULL, NULL), 0);
	ALWAYS(!within(f->s2, locals(c)), 1300);
	CHECK_STR(laddrs(c), all_of(f));
	OK(open_from(c, f->p2, NULL, 0));
	AWAIT_STR(locals(c), all_of(f));
	AWAIT_STR(behind(c), two_words(f->s2, f->s3));  /* its address is for backup */
	/* With an id that is another's it is no such. */
	REQUIRE(subflow_from(c, f->s2, &sf));
	sf.id++;
	FAILS(ENOENT, mptcp_closesubflow(c, &sf));
	sf.id = 0;
	OK(mptcp_closesubflow(c, &sf));
	AWAIT(!within(f->s2, locals(c)));
	OK(add(c, f->p2));                              /* asked for again */
	AWAIT_STR(locals(c), all_of(f));

	/* All of them, and back. */
	OK(policy(c, MPTCP_PATHS_MANUAL, 0, 0));
	while (subflow_from(c, f->s1, &sf) || subflow_from(c, f->s2, &sf) || subflow_from(c, f->s3, &sf))
		OK(mptcp_closesubflow(c, &sf));
	AWAIT_STR(locals(c), "");
	OK(open_from(c, NULL, NULL, 0));
	AWAIT(count_subflows(c) == 1);
	CHECK_INT(pump(&p, 100000, NULL, NULL), 0);
	close(ev);
	pair_close(&p);
}

/* Under the in-kernel path manager one subflow can be closed, and no more. */
static void in_kernel(const struct fam *f)
{
	struct pair p = pair_listen(f->domain == AF_INET ? "0.0.0.0" : "::", IPPROTO_MPTCP);
	struct mptcp_subflow sf;
	struct mptcp_caps caps;
	char text[160];
	int c = raw_socket(f->domain);

	snprintf(text, sizeof text, "ip mptcp endpoint add %s signal", f->s3);
	sh(text);
	pair_connect(&p, f->server, c);
	settle(&p);
	AWAIT(count_subflows(c) == 2);
	OK(mptcp_getcaps(c, &caps, sizeof caps));
	CHECK(caps.works & MPTCP_CAP_CLOSE_SUBFLOW && !(caps.works & MPTCP_CAP_PROFILE));
	REQUIRE(subflow_from(c, f->s3, &sf));
	FAILS(EOPNOTSUPP, mptcp_setbackup(c, &sf, 1));
	FAILS(EOPNOTSUPP, open_from(c, f->p3, NULL, 0));
	FAILS(EOPNOTSUPP, set_int(c, TCP_MULTIPATH_MAX_SUBFLOWS, 2));
	CHECK_INT(value(c, TCP_MULTIPATH_MAX_SUBFLOWS), 255);
	OK(set_int(c, TCP_MULTIPATH_MAX_SUBFLOWS, 0));
	OK(mptcp_closesubflow(c, &sf));
	AWAIT_STR(locals(c), f->shown_server);
	FAILS(ENOENT, mptcp_closesubflow(c, &sf));
	CHECK_INT(pump(&p, 100000, NULL, NULL), 0);
	ALWAYS(!strcmp(locals(c), f->shown_server), 300);
	pair_close(&p);
	sh("ip mptcp endpoint flush");
}

/* One path and one warm spare, whatever happens to them. */
static void handover(const struct fam *f)
{
	int c = listed(f, every(f));
	struct mptcp_subflow sf;
	struct pair p;
	char first[64];

	OK(set_int(c, TCP_MULTIPATH_PROFILE, MPTCP_PROFILE_HANDOVER));
	p = start(f, c);
	settle(&p);
	AWAIT(count_subflows(c) == 2);
	AWAIT_STR(behind(c), f->s2);
	AWAIT_STR(peer_behind(p.s), f->s2);
	ALWAYS(count_subflows(c) == 2, 100);
	CHECK_INT(pump(&p, 500000, NULL, NULL), 0);

	/* The one in use goes: the spare takes over, another spare is made. */
	REQUIRE(subflow_from(c, f->s1, &sf));
	OK(mptcp_closesubflow(c, &sf));
	AWAIT(count_subflows(c) == 2);
	AWAIT_STR(behind(c), f->s3);
	CHECK_STR(locals(c), two_words(f->s2, f->s3));
	CHECK_INT(pump(&p, 500000, NULL, NULL), 0);
	OK(rem(c, f->p2));
	AWAIT(!within(f->s2, locals(c)));
	AWAIT_STR(behind(c), "");
	snprintf(first, sizeof first, "%s", locals(c));
	CHECK_STR(first, f->s3);

	/* On a connection with more, all of them are used again by another profile. */
	OK(add(c, f->p1));
	OK(add(c, f->p2));
	AWAIT(count_subflows(c) == 2);
	OK(set_int(c, TCP_MULTIPATH_PROFILE, MPTCP_PROFILE_AGGREGATE));
	AWAIT_STR(locals(c), all_of(f));
	AWAIT_STR(behind(c), "");
	AWAIT_STR(peer_behind(p.s), "");
	OK(set_int(c, TCP_MULTIPATH_PROFILE, MPTCP_PROFILE_HANDOVER));
	AWAIT(count_subflows(c) == 2 && strlen(behind(c)) > 1);
	pair_close(&p);
}

/* All paths are there, one of them in use. */
static void interactive(const struct fam *f)
{
	int c = listed(f, every(f));
	struct pair p;

	OK(set_int(c, TCP_MULTIPATH_PROFILE, MPTCP_PROFILE_INTERACTIVE));
	p = start(f, c);
	settle(&p);
	AWAIT_STR(locals(c), all_of(f));
	AWAIT_STR(behind(c), two_words(f->s2, f->s3));
	/* All are equally quick: it stays as it is. */
	CHECK_INT(pump(&p, 3000000, NULL, NULL), 0);
	CHECK_STR(behind(c), two_words(f->s2, f->s3));
	/* The one in use grows slow: it is left. */
	if (f->domain == AF_INET && !raw_system("tc qdisc add dev lo root handle 1: prio"
	    " && tc qdisc add dev lo parent 1:3 handle 30: netem delay 60ms"
	    " && tc filter add dev lo parent 1: protocol ip u32 match ip src 10.1.0.1 flowid 1:3")) {
		double end = t_now() + 10;

		while (within(f->s2, behind(c)) && within(f->s3, behind(c)) && t_now() < end)
			CHECK_INT(pump(&p, 20000, touch, NULL), 0);
		CHECK(within(f->s1, behind(c)) && !within(two_words(f->s2, f->s3), behind(c)));
	}
	raw_system("tc qdisc del dev lo root 2>/dev/null");     /* whatever became of it */
	OK(rem(c, f->p1));
	AWAIT(!within(f->s1, locals(c)));
	AWAIT(!strcmp(behind(c), f->s2) || !strcmp(behind(c), f->s3));
	CHECK_INT(pump(&p, 100000, NULL, NULL), 0);
	pair_close(&p);
}

/* A second path while the first is full, and no longer. */
static void overflow(const struct fam *f)
{
	int c = listed(f, every(f));
	struct pair p;

	OK(set_int(c, TCP_MULTIPATH_PROFILE, MPTCP_PROFILE_OVERFLOW));
	p = start(f, c);
	settle(&p);
	ALWAYS(count_subflows(c) == 1, 300);
	if (raw_system("tc qdisc add dev lo root tbf rate 40mbit burst 200kb limit 1mb")) {
		pair_close(&p);                 /* a kernel without */
		return;
	}
	CHECK_INT(pump(&p, 4000000, touch, NULL), 0);
	CHECK_INT(count_subflows(c), 2);
	sh("tc qdisc del dev lo root");
	AWAIT_STR(behind(c), f->s2);
	AWAIT_STR(peer_behind(p.s), f->s2);
	CHECK_INT(pump(&p, 2000, NULL, NULL), 0);
	CHECK_STR(behind(c), f->s2);
	pair_close(&p);
}

/* The connection ends with its initial subflow, if that is wanted. */
static void fate(const struct fam *f)
{
	int c = listed(f, two_words(f->p1, f->p2));
	struct mptcp_subflow sf;
	struct pair p;

	OK(set_int(c, TCP_MULTIPATH_FATE_SHARING, 1));
	p = start(f, c);
	settle(&p);
	AWAIT(count_subflows(c) == 2);
	REQUIRE(subflow_from(c, f->s2, &sf));
	OK(mptcp_closesubflow(c, &sf));         /* not this one's */
	AWAIT_STR(locals(c), f->s1);
	OK(open_from(c, f->p2, NULL, 0));
	AWAIT(count_subflows(c) == 2);
	settle(&p);
	REQUIRE(subflow_from(c, f->s1, &sf));
	CHECK(sf.flags & MPTCP_SUBFLOW_INITIAL);
	OK(mptcp_closesubflow(c, &sf));
	AWAIT_STR(raw_locals(c), "");
	ALWAYS(!*locals(c), 100);
	pair_close(&p);

	c = listed(f, two_words(f->p1, f->p2));
	p = start(f, c);
	settle(&p);
	AWAIT(count_subflows(c) == 2);
	REQUIRE(subflow_from(c, f->s1, &sf));
	OK(mptcp_closesubflow(c, &sf));
	AWAIT_STR(locals(c), f->s2);
	FAILS(ENOENT, set_int(c, TCP_MULTIPATH_FATE_SHARING, 1));
	CHECK_INT(value(c, TCP_MULTIPATH_FATE_SHARING), 0);
	CHECK_INT(pump(&p, 100000, NULL, NULL), 0);
	pair_close(&p);
}

/* A listener's settings are those of what it accepts. */
static void listener(const struct fam *f)
{
	struct pair p = pair_listen(f->server, IPPROTO_MPTCP);
	struct mptcp_caps caps;

	OK(mptcp_getcaps(p.l, &caps, sizeof caps));
	if (!(caps.works & MPTCP_CAP_LISTEN)) {
		FAILS2(EOPNOTSUPP, EACCES, set_int(p.l, TCP_MULTIPATH_MAX_SUBFLOWS, 2));
		CHECK_INT(value(p.l, TCP_MULTIPATH_MAX_SUBFLOWS), 255);
		pair_close(&p);
		return;
	}
	OK(set_int(p.l, TCP_MULTIPATH_MAX_SUBFLOWS, 2));
	OK(set_int(p.l, TCP_MULTIPATH_PROFILE, MPTCP_PROFILE_INTERACTIVE));
	pair_connectx(&p, f->server, listed(f, every(f)));
	CHECK_INT(value(p.s, TCP_MULTIPATH_MAX_SUBFLOWS), 2);
	CHECK_INT(value(p.s, TCP_MULTIPATH_PROFILE), MPTCP_PROFILE_INTERACTIVE);
	settle(&p);
	/* The client makes three, of which one is closed here. */
	AWAIT((count_subflows(p.c), count_subflows(p.s)) == 2);
	CHECK_INT(pump(&p, 200000, NULL, NULL), 0);
	OK(set_int(p.l, TCP_MULTIPATH_MAX_SUBFLOWS, 3));
	CHECK_INT(value(p.s, TCP_MULTIPATH_MAX_SUBFLOWS), 2);
	pair_close(&p);
}

int main(void)
{
	int i, before = (need_mptcp(), open_fds());

	for (i = 0; i < 3; i++) {
		t_ctx = t_fams[i].name;
		options(&t_fams[i]);
		number(&t_fams[i]);
		by_hand(&t_fams[i]);
		handover(&t_fams[i]);
	}
	for (i = 0; i < 2; i++) {
		t_ctx = t_fams[i].name;
		when(&t_fams[i]);
		interactive(&t_fams[i]);
		overflow(&t_fams[i]);
		fate(&t_fams[i]);
		listener(&t_fams[i]);
		if (kernel_pm())
			in_kernel(&t_fams[i]);
	}
	t_ctx = "";
	CHECK(open_fds() - before <= t_own_fds());
	return t_done();
}
