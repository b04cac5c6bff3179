/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * ADD and REMOVE on a live connection, while data flows and every byte is
 * looked at.
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

/* A connection whose list is f->p1 alone. */
static struct pair start(const struct fam *f)
{
	struct pair p = pair_listen(f->server, IPPROTO_MPTCP);
	int c = fresh(f);

	OK(add(c, f->p1));
	pair_connectx(&p, f->server, c);
	return p;
}

static const char *two_of(const char *a, const char *b)
{
	static char buf[4][160];
	static int k;

	k = (k + 1) % 4;
	snprintf(buf[k], sizeof buf[k], "%s %s", strcmp(a, b) < 0 ? a : b, strcmp(a, b) < 0 ? b : a);
	return buf[k];
}

/* ADD before the connection is fully established is kept and done later. */
static void early(const struct fam *f)
{
	struct pair p = start(f);

	OK(add(p.c, f->p2));
	OK(add(p.c, f->p3));
	CHECK_STR(locals(p.c), f->s1);
	CHECK_INT(count_subflows(p.c), 1);
	settle(&p);
	AWAIT(count_subflows(p.c) == 3);
	AWAIT(within(f->s3, locals(p.c)) && within(f->s2, locals(p.c)));
	pair_close(&p);
}

/* All the way: add, add, remove, remove, remove the last, and add again. */
static void sequence(const struct fam *f)
{
	struct pair p = start(f);
	struct mptcp_subflow *sf = NULL, one;
	long rm = raw_mib("RmAddr");
	socklen_t len;
	uint32_t id;

	settle(&p);
	id = connid(p.c);
	CHECK_STR(locals(p.c), f->s1);
	OK(add(p.c, f->p2));
	AWAIT_STR(locals(p.c), two_of(f->s1, f->s2));
	OK(add(p.c, f->p2));                            /* twice succeeds, and makes no second */
	settle(&p);
	ALWAYS(count_subflows(p.c) == 2, 100);
	CHECK_STR(laddrs(p.c), two_of(f->s1, f->s2));
	CHECK_STR(raw_locals(p.c), two_of(f->s1, f->s2));

	/* Bad ones change nothing. */
	FAILS(EADDRNOTAVAIL, add(p.c, f->domain == AF_INET ? "10.3.0.1 10.77.0.1" : "fd03::1 fd77::1"));
	FAILS(EADDRNOTAVAIL, rem(p.c, f->server));
	FAILS(EADDRNOTAVAIL, rem(p.c, two_of(f->p1, f->p3)));
	CHECK_STR(laddrs(p.c), two_of(f->s1, f->s2));
	settle(&p);
	CHECK_STR(locals(p.c), two_of(f->s1, f->s2));

	/* The initial subflow's address goes: the other carries on, the peer is told. */
	OK(rem(p.c, f->p1));
	AWAIT_STR(locals(p.c), f->s2);
	CHECK_STR(raw_locals(p.c), f->s2);
	CHECK_STR(laddrs(p.c), f->s2);
	AWAIT((count_subflows(p.c), raw_mib("RmAddr") > rm));
	CHECK_INT(pump(&p, 200000, NULL, NULL), 0);
	CHECK_STR(ss_locals(p.port, NULL), f->s2);
	CHECK_INT(connid(p.c), id);
	CHECK_INT(enabled(p.c), 1);
	FAILS(EADDRNOTAVAIL, rem(p.c, f->p1));

	/* And back. */
	OK(add(p.c, f->p1));
	AWAIT_STR(locals(p.c), two_of(f->s1, f->s2));
	settle(&p);

	/* All of it: alive without a subflow; ADD revives it. */
	OK(rem(p.c, two_of(f->p1, f->p2)));
	AWAIT_STR(locals(p.c), "");
	CHECK_INT(OK(mptcp_getsubflows(p.c, &sf)), 0);
	CHECK(sf == NULL);
	len = sizeof one;
	OK(mptcp_getsockopt(p.c, IPPROTO_TCP, TCP_MULTIPATH_SUBFLOWS, &one, &len));
	CHECK_INT(len, 0);
	len = 0;
	OK(mptcp_getsockopt(p.c, IPPROTO_TCP, TCP_MULTIPATH_SUBFLOWS, NULL, &len));
	CHECK_INT(len, 0);
	CHECK_INT(connid(p.c), id);
	CHECK_STR(laddrs(p.c), "");
	CHECK_INT(enabled(p.c), 1);
	ALWAYS(!*locals(p.c), 100);             /* the restriction stays */
	CHECK(send(p.c, "x", 1, MSG_DONTWAIT | MSG_NOSIGNAL) == 1);     /* it waits */
	OK(add(p.c, f->p3));
	AWAIT_STR(locals(p.c), f->s3);
	{
		struct pollfd pf;
		char c = 0;

		pf.fd = p.s;
		pf.events = POLLIN;
		CHECK(poll(&pf, 1, 5000) == 1 && recv(p.s, &c, 1, 0) == 1 && c == 'x');
	}
	CHECK_INT(pump(&p, 200000, NULL, NULL), 0);
	CHECK_STR(locals(p.c), f->s3);
	CHECK_STR(raw_locals(p.c), f->s3);
	CHECK_INT(connid(p.c), id);
	pair_close(&p);
}

/* The set changes all the time while megabytes flow both ways. */
struct change {
	const struct fam *f;
	int step;
	char allowed[256];      /* what the list has now */
};

static void change(struct pair *p, uint64_t moved, void *arg)
{
	struct change *c = arg;
	const struct fam *f = c->f;

	(void)count_subflows(p->c);             /* lets the library work */
	if (c->step == 8 || moved < (uint64_t)(c->step + 1) * 400000)
		return;
	switch (c->step++) {
	case 0: OK(add(p->c, f->p2)); break;
	case 1: OK(add(p->c, f->p3)); break;
	case 2: OK(rem(p->c, f->p1)); break;
	case 3: OK(add(p->c, f->p1)); break;
	case 4: OK(rem(p->c, f->p2)); break;
	case 5: OK(rem(p->c, f->p3)); break;
	case 6: OK(add(p->c, f->p3)); break;
	case 7: OK(add(p->c, f->p2)); break;
	}
	/* What REMOVE names is gone when it returns, or at least very soon. */
	if (c->step == 3)
		AWAIT(!within(f->s1, raw_locals(p->c)));
	if (c->step == 5)
		AWAIT(!within(f->s2, raw_locals(p->c)));
	if (c->step == 6)
		AWAIT(!within(f->s3, raw_locals(p->c)));
	snprintf(c->allowed, sizeof c->allowed, "%s", laddrs(p->c));
	CHECK(within(raw_locals(p->c), c->allowed));
}

static void transfer(const struct fam *f)
{
	struct pair p = start(f);
	struct change c;
	char all[256];

	memset(&c, 0, sizeof c);
	c.f = f;
	settle(&p);
	CHECK_INT(pump(&p, 4000000, change, &c), 0);
	CHECK_INT(c.step, 8);
	snprintf(all, sizeof all, "%s %s %s", f->s1, f->s2, f->s3);
	AWAIT_STR(locals(p.c), all);
	CHECK_INT(pump(&p, 100000, NULL, NULL), 0);
	CHECK_STR(ss_locals(p.port, NULL), all);
	pair_close(&p);
}

/* The peer hears nothing: what uses a removed address is closed all the same. */
static void deaf(const struct fam *f)
{
	struct pair p = start(f);
	char block[256];

	snprintf(block, sizeof block, "nft add table inet t && nft 'add chain inet t o { type filter hook"
		 " output priority 0; }' && nft add rule inet t o tcp dport %d drop", p.port);
	settle(&p);
	nonblock(p.c);
	OK(add(p.c, f->p2));
	AWAIT(count_subflows(p.c) == 2);
	settle(&p);
	sh(block);
	OK(rem(p.c, f->p2));
	AWAIT_STR(raw_locals(p.c), f->s1);
	CHECK_STR(locals(p.c), f->s1);
	sh("nft flush ruleset");
	settle(&p);

	/* The initial subflow has gone, and one from its address has come again: the
	 * dead one, still in the kernel's list, must not be closed in its stead. */
	OK(add(p.c, f->p2));
	AWAIT(count_subflows(p.c) == 2);
	settle(&p);
	OK(rem(p.c, f->p1));
	AWAIT_STR(locals(p.c), f->s2);
	settle(&p);
	OK(add(p.c, f->p1));
	AWAIT(count_subflows(p.c) == 2);
	settle(&p);
	sh(block);
	OK(rem(p.c, f->p1));
	AWAIT_STR(raw_locals(p.c), f->s2);
	sh("nft flush ruleset");
	settle(&p);
	CHECK_STR(locals(p.c), f->s2);
	pair_close(&p);
}

/* A socket without O_NONBLOCK may wait for the alternative; one with doesn't. */
static void replace(const struct fam *f, int nb)
{
	struct pair p = start(f);
	double t;

	if (nb)
		nonblock(p.c);
	settle(&p);
	OK(add(p.c, f->p2));
	AWAIT(count_subflows(p.c) == 2);
	settle(&p);
	/* p3 is in the list but has not been used when p1 and p2 go. */
	OK(add(p.c, f->p3));
	t = t_now();
	OK(rem(p.c, two_of(f->p1, f->p2)));
	t = t_now() - t;
	CHECK(t < 2.5);
	if (nb)
		CHECK(t < 0.2);
	else
		CHECK(count_subflows(p.c) >= 1);        /* the alternative came first */
	AWAIT_STR(locals(p.c), f->s3);
	CHECK_INT(pump(&p, 100000, NULL, NULL), 0);
	CHECK_STR(ss_locals(p.port, NULL), f->s3);
	pair_close(&p);
}

/* Without a list ADD restricts nothing: the initial subflow stays. */
static void unrestricted(const struct fam *f)
{
	struct pair p = pair_listen(f->server, IPPROTO_MPTCP);
	struct mptcp_caps caps;
	int c = fresh(f), userspace = !kernel_pm();

	pair_connectx(&p, f->server, c);
	settle(&p);
	OK(mptcp_getcaps(c, &caps, sizeof caps));
	if (!userspace) {
		/* The kernel steers it since before we knew of it. */
		CHECK_INT(caps.control, MPTCP_CONTROL_KERNEL);
		CHECK(!(caps.works & MPTCP_CAP_ADD_LIVE));
		FAILS(EOPNOTSUPP, add(c, f->p2));
		CHECK_STR(locals(c), f->shown_server);
	} else {
		CHECK(caps.works & MPTCP_CAP_ADD_LIVE);
		OK(add(c, f->p2));
		AWAIT_STR(locals(c), two_of(f->s2, f->shown_server));
		settle(&p);
		ALWAYS(within(f->shown_server, locals(c)), 100);
		/* Excluded without a list, until ADDed again. */
		OK(rem(c, f->shown_server));
		AWAIT_STR(locals(c), f->s2);
		CHECK_INT(pump(&p, 100000, NULL, NULL), 0);
		OK(add(c, f->shown_server));
		AWAIT_STR(locals(c), two_of(f->s2, f->shown_server));
	}
	pair_close(&p);
}

/* Through dup()s: one socket, one list. */
static void duplicated(const struct fam *f)
{
	struct pair p = start(f);
	int d = dup(p.c);

	REQUIRE(d >= 0);
	settle(&p);
	OK(add(d, f->p2));
	AWAIT_STR(locals(p.c), two_of(f->s1, f->s2));
	CHECK_STR(laddrs(p.c), laddrs(d));
	close(p.c);                     /* the connection lives on in its dup */
	p.c = d;
	settle(&p);
	CHECK_STR(laddrs(d), two_of(f->s1, f->s2));
	OK(rem(d, f->p1));
	AWAIT_STR(locals(d), f->s2);
	CHECK_INT(pump(&p, 100000, NULL, NULL), 0);
	pair_close(&p);
}

/* The fd of a managed connection is closed, its number goes to an accepted one. */
static void reused(const struct fam *f)
{
	struct pair p = start(f), q;
	int c = p.c;

	settle(&p);
	OK(add(c, f->p2));
	AWAIT(count_subflows(c) == 2);
	q = pair_listen(f->server, IPPROTO_MPTCP);
	q.c = raw_socket(f->domain);
	REQUIRE(!do_connect(q.c, at(f->server, q.port)));
	close(c);
	p.c = -1;
	q.s = t_accept(q.l);
	CHECK_INT(q.s, c);
	settle(&q);
	CHECK_STR(laddrs_np(q.s), f->shown_server);
	CHECK_STR(locals(q.s), f->shown_server);
	ALWAYS(!strcmp(raw_locals(q.s), f->shown_server), 100);
	pair_close(&p);
	pair_close(&q);
}

/* Two connections to one server have nothing to do with one another. */
static void separate(const struct fam *f)
{
	struct pair p = start(f), q;

	q = pair_listen(f->server, IPPROTO_MPTCP);
	q.c = fresh(f);
	OK(add(q.c, f->p3));
	pair_connectx(&q, f->server, q.c);
	settle(&p);
	settle(&q);
	OK(add(p.c, f->p2));
	AWAIT_STR(locals(p.c), two_of(f->s1, f->s2));
	CHECK_STR(locals(q.c), f->s3);
	OK(add(q.c, f->p2));
	AWAIT_STR(locals(q.c), two_of(f->s2, f->s3));
	OK(rem(p.c, f->p2));
	AWAIT_STR(locals(p.c), f->s1);
	ALWAYS(!strcmp(locals(q.c), two_of(f->s2, f->s3)), 100);
	CHECK_INT(pump(&p, 50000, NULL, NULL), 0);
	CHECK_INT(pump(&q, 50000, NULL, NULL), 0);
	pair_close(&p);
	pair_close(&q);
}

/* The peer announces an address: getpaddrs tells, and it is used. */
static void announced(const struct fam *f)
{
	struct pair p;
	char command[256];

	if (!kernel_pm())
		return;                 /* here it is the kernel that announces */
	snprintf(command, sizeof command, "ip mptcp endpoint add %s signal", f->s3);
	sh(command);
	p = pair_listen(f->domain == AF_INET ? "0.0.0.0" : "::", IPPROTO_MPTCP);
	p.c = fresh(f);
	OK(add(p.c, f->p1));
	pair_connectx(&p, f->server, p.c);
	settle(&p);
	AWAIT((count_subflows(p.c), within(f->s3, paddrs_np(p.c))));
	AWAIT_STR(remotes(p.c), two_of(f->s3, f->shown_server));
	CHECK_STR(locals(p.c), f->s1);
	CHECK_INT(pump(&p, 50000, NULL, NULL), 0);
	snprintf(command, sizeof command, "%s %s", f->shown_server, f->s3);
	CHECK_STR(paddrs_np(p.c), command);
	pair_close(&p);
	sh("ip mptcp endpoint flush");
}

int main(void)
{
	int i, before = (need_mptcp(), open_fds());

	for (i = 0; i < 3; i++) {
		t_ctx = t_fams[i].name;
		early(&t_fams[i]);
		sequence(&t_fams[i]);
		transfer(&t_fams[i]);
		unrestricted(&t_fams[i]);
		duplicated(&t_fams[i]);
		reused(&t_fams[i]);
	}
	for (i = 0; i < 2; i++) {
		t_ctx = t_fams[i].name;
		replace(&t_fams[i], 0);
		replace(&t_fams[i], 1);
		separate(&t_fams[i]);
		deaf(&t_fams[i]);
		announced(&t_fams[i]);
	}
	t_ctx = "";
	CHECK(open_fds() - before <= t_own_fds());
	return t_done();
}
