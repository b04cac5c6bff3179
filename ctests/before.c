/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Address lists made before the connection: what they hold, that they bind
 * from the first packet, and that nothing outside them is ever used.
 *
 * lab:
 * lab: --userspace
 * lab: --broker=--config=ctests/generous.toml T_USER=1
 */
#include "raw.h"

/* The kernel and ss agree with the library, and nothing is outside the list. */
static void check_inside(struct pair *p, const char *list)
{
	CHECK(within(locals(p->c), list));
	CHECK(within(raw_locals(p->c), list));
	CHECK_STR(raw_locals(p->c), locals(p->c));
	CHECK(within(ss_locals(p->port, NULL), list));
}

static void check_open(struct pair *p, const char *want)
{
	settle(p);
	AWAIT_STR(locals(p->c), want);
	check_inside(p, want);
	CHECK_STR(ss_locals(p->port, NULL), want);
	settle(p);
	CHECK_INT(pump(p, 300000, NULL, NULL), 0);
	check_inside(p, want);
}

static int fresh(const struct fam *f)
{
	int fd = (int)OK(mptcp_socket(f->domain, SOCK_STREAM | SOCK_CLOEXEC, 0));

	REQUIRE(fd >= 0);
	return fd;
}

static const char *three(const struct fam *f, int shown)
{
	static char buf[2][256];

	snprintf(buf[shown], sizeof buf[shown], "%s %s %s", shown ? f->s1 : f->p1,
		 shown ? f->s2 : f->p2, shown ? f->s3 : f->p3);
	return buf[shown];
}

/* connectx: the initial subflow from the list, the others after data. */
static void by_connectx(const struct fam *f)
{
	struct pair p = pair_listen(f->server, IPPROTO_MPTCP);
	struct mptcp_caps caps;
	struct mptcp_subflow *sf = NULL;
	uint32_t id = 77;
	int i, n, c = fresh(f);

	OK(add(c, three(f, 0)));
	CHECK_STR(laddrs(c), three(f, 1));
	CHECK_INT(enabled(c), 1);
	OK(mptcp_getcaps(c, &caps, sizeof caps));
	CHECK_INT(caps.backend, T_BACKEND);
	CHECK_INT(caps.control, MPTCP_CONTROL_CONNECTION);
	OK(connx(c, at(f->server, p.port), &id));
	CHECK(id && id == raw_token(c) && id == connid(c));
	CHECK(within(locals(c), three(f, 1)));
	CHECK_INT(count_subflows(c), 1);
	p.c = c;
	p.s = t_accept(p.l);
	check_open(&p, three(f, 1));
	/* The list is still the list, and no pair was made twice. */
	CHECK_STR(laddrs(c), three(f, 1));
	n = (int)OK(mptcp_getsubflows(c, &sf));
	CHECK_INT(n, 3);
	if (n == 3) {
		CHECK(sf[0].flags & MPTCP_SUBFLOW_INITIAL);
		/* The same local port where it is free: RFC 6897 5.3.3 recommends it. */
		for (i = 1; i < n; i++) {
			const char *a = show(&sf[i].local, 1), *b = show(&sf[0].local, 1);

			CHECK_STR(strchr(a, '/'), strchr(b, '/'));
		}
	}
	mptcp_freesubflows(sf);
	ALWAYS(count_subflows(c) == 3, 200);
	/* Connected to a peer of the list: 0 again; to another: EISCONN. */
	id = 77;
	OK(connx(c, at(f->server, p.port), &id));
	CHECK_INT(id, connid(c));
	id = 77;
	FAILS(EISCONN, connx(c, at(f->p3, p.port), &id));
	CHECK_INT(id, 77);
	pair_close(&p);
}

/* A list of one: plain connect(2) starts from it where the kernel allows it. */
static void by_connect(const struct fam *f)
{
	struct pair p = pair_listen(f->server, IPPROTO_MPTCP);
	struct mptcp_caps caps;
	int c = fresh(f);

	OK(add(c, f->p2));
	OK(mptcp_getcaps(c, &caps, sizeof caps));
	CHECK_INT(!!(caps.works & MPTCP_CAP_LATE_BIND), has_late_bind());
	if (f->domain == AF_INET && has_late_bind()) {
		CHECK_STR(sockname(c), f->s2);
		/* Taken back by REMOVE; and then the first address is routing's choice. */
		OK(rem(c, f->p2));
		CHECK_STR(sockname(c), "0.0.0.0");
		CHECK_STR(laddrs(c), "");
		OK(add(c, f->p2));
		CHECK_STR(sockname(c), f->s2);
	}
	pair_connect(&p, f->server, c);
	if (f->domain == AF_INET && has_late_bind())
		CHECK_STR(sockname(c), f->s2);
	check_open(&p, f->s2);
	CHECK_STR(laddrs_np(c), f->s2);
	pair_close(&p);

	/* Several: routing chooses (here the server's own address), and what is
	 * outside the list is replaced as soon as the protocol allows. */
	p = pair_listen(f->server, IPPROTO_MPTCP);
	c = fresh(f);
	OK(add(c, three(f, 0)));
	pair_connect(&p, f->server, c);
	check_open(&p, three(f, 1));
	pair_close(&p);

	if (f->domain == AF_INET6) {    /* no other family can come: bound at once */
		int on = 1;

		c = fresh(f);
		if (f == &t_fams[1]) {
			REQUIRE(!setsockopt(c, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on));
			OK(add(c, f->p1));
			CHECK_STR(sockname(c), has_late_bind() ? f->s1 : "::");
		} else {
			OK(add(c, f->p1));
			CHECK_STR(sockname(c), "::");
		}
		close(c);
	}

	/* The list was lifted again: no restriction, plain routing. */
	p = pair_listen(f->server, IPPROTO_MPTCP);
	c = fresh(f);
	OK(add(c, three(f, 0)));
	OK(rem(c, three(f, 0)));
	CHECK_STR(laddrs(c), "");
	pair_connect(&p, f->server, c);
	settle(&p);
	CHECK_STR(locals(c), f->shown_server);
	ALWAYS(!strcmp(locals(c), f->shown_server), 100);
	pair_close(&p);
}

/* What the list holds, in the order in which it was added. */
static void contents(const struct fam *f)
{
	char want[256], text[256];
	int c = fresh(f), d, i, count;
	struct sockaddr *list;
	struct pair p;

	OK(add(c, f->p3));
	OK(add(c, f->p1));
	OK(add(c, f->p3));              /* twice succeeds, and is there once */
	snprintf(want, sizeof want, "%s %s", f->s3, f->s1);
	CHECK_STR(laddrs(c), want);
	OK(add(c, three(f, 0)));
	snprintf(want, sizeof want, "%s %s %s", f->s3, f->s1, f->s2);
	CHECK_STR(laddrs(c), want);
	CHECK_INT(mptcp_getladdrs(c, &list), 3);
	mptcp_freeladdrs(list);

	/* All or nothing: a bad entry in the middle changes nothing. */
	snprintf(text, sizeof text, "%s %s %s", f->server, f->domain == AF_INET ? "10.77.0.1" : "fd77::1",
		 f->p1);
	FAILS(EADDRNOTAVAIL, add(c, text));
	CHECK_STR(laddrs(c), want);
	FAILS(EADDRNOTAVAIL, add_flags(c, text, MPTCP_BINDX_BACKUP));
	CHECK_STR(laddrs(c), want);
	snprintf(text, sizeof text, "%s %s %s", f->p1, f->domain == AF_INET ? "0.0.0.0" : "::", f->p2);
	FAILS(EINVAL, rem(c, text));
	CHECK_STR(laddrs(c), want);
	/* Not in the list: not to be removed, though it is this host's. */
	FAILS(EADDRNOTAVAIL, rem(c, f->server));
	snprintf(text, sizeof text, "%s %s", f->p1, f->server);
	FAILS(EADDRNOTAVAIL, rem(c, text));
	CHECK_STR(laddrs(c), want);

	OK(rem(c, f->p1));
	snprintf(want, sizeof want, "%s %s", f->s3, f->s2);
	CHECK_STR(laddrs(c), want);
	FAILS(EADDRNOTAVAIL, rem(c, f->p1));

	/* dup() names the same socket; the list outlives the first number. */
	d = dup(c);
	CHECK_STR(laddrs(d), want);
	OK(rem(d, f->p3));
	CHECK_STR(laddrs(c), f->s2);
	close(c);
	CHECK_STR(laddrs(d), f->s2);
	close(d);

	/* A number used again inherits nothing, whatever comes to bear it. */
	for (i = 0; i < 3; i++) {
		d = i == 0 ? raw_socket(f->domain) : i == 1 ? tcp_socket(f->domain) : fresh(f);
		CHECK_INT(d, c);
		CHECK_STR(laddrs(d), "");
		if (i == 2) {
			p = pair_listen(f->server, IPPROTO_MPTCP);
			pair_connect(&p, f->server, d);
			settle(&p);
			CHECK_STR(locals(d), f->shown_server);
			pair_close(&p);
		} else {
			if (i == 0)
				OK(add(d, f->p1));
			close(d);
		}
	}

	/* connect(AF_UNSPEC) drops list and control. Of a socket that was never connected
	 * the kernel shows that only where the path manager becomes another by it, and
	 * where MPTCP_INFO tells which one that is. */
	c = fresh(f);
	OK(add(c, three(f, 0)));
	disconnect(c);
	CHECK_INT(enabled(c), 1);
	if (kernel_pm() && shows_switch())
		CHECK_STR(laddrs(c), "");
	close(c);
	p = pair_listen(f->server, IPPROTO_MPTCP);
	c = fresh(f);
	OK(add(c, three(f, 0)));
	pair_connectx(&p, f->server, c);
	settle(&p);
	if (!shows_switch())            /* then only events tell of it: let the library hear them */
		AWAIT(count_subflows(c) == 3);
	disconnect(c);
	CHECK_INT(enabled(c), 1);
	AWAIT(!within(f->s3, laddrs_np(c)) || !within(f->s2, laddrs_np(c)));    /* one may be bound */
	pair_close(&p);

	/* ENABLE: kept by 1, dropped by 0. */
	c = fresh(f);
	OK(add(c, f->p1));
	OK(set_int(c, TCP_MULTIPATH_ENABLE, 1));
	CHECK_STR(laddrs_np(c), f->s1);
	OK(set_int(c, TCP_MULTIPATH_ENABLE, 0));
	CHECK_INT(raw_protocol(c), IPPROTO_TCP);
	OK(set_int(c, TCP_MULTIPATH_ENABLE, 1));
	CHECK(!*laddrs(c) || !strcmp(laddrs_np(c), sockname(c)));
	for (count = 0; count < 5; count++) {
		OK(add(c, f->p1));
		OK(rem(c, f->p1));
	}
	close(c);
}

/* The limits: 64 addresses in all. */
static void limits(void)
{
	char text[4096] = "", command[8192];
	int i, c = fresh(&t_fams[0]);
	struct sockaddr *list = NULL;

	snprintf(command, sizeof command, "for i in $(seq 1 65); do ip addr add 10.50.0.$i/32 dev lo; done");
	sh(command);
	for (i = 1; i <= 64; i++)
		snprintf(text + strlen(text), sizeof text - strlen(text), "10.50.0.%d ", i);
	OK(add(c, text));
	CHECK_INT(mptcp_getladdrs(c, &list), 64);
	mptcp_freeladdrs(list);
	FAILS(ENOSPC, add(c, "10.50.0.65"));
	FAILS(ENOSPC, add(c, "10.50.0.1 10.50.0.65"));
	OK(add(c, text));
	CHECK_INT(mptcp_getladdrs(c, &list), 64);
	mptcp_freeladdrs(list);
	OK(rem(c, "10.50.0.7"));
	OK(add(c, "10.50.0.65"));
	CHECK_INT(mptcp_getladdrs(c, &list), 64);
	mptcp_freeladdrs(list);
	close(c);
	sh("for i in $(seq 1 65); do ip addr del 10.50.0.$i/32 dev lo; done");
}

/* v4-mapped equals IPv4, both ways. */
static void mapped(void)
{
	struct pair p;
	int c = fresh(&t_fams[0]);

	OK(add(c, "::ffff:10.1.0.1"));
	CHECK_STR(laddrs_np(c), "10.1.0.1");
	OK(add(c, "10.1.0.1"));
	CHECK_STR(laddrs_np(c), "10.1.0.1");
	OK(rem(c, "::ffff:10.1.0.1"));
	CHECK_STR(laddrs(c), "");
	OK(add(c, "10.1.0.1 ::ffff:10.2.0.1"));
	p = pair_listen("10.9.0.1", IPPROTO_MPTCP);
	p.c = c;
	OK(connx(c, at("::ffff:10.9.0.1", p.port), NULL));      /* and as a peer */
	p.s = t_accept(p.l);
	check_open(&p, "10.1.0.1 10.2.0.1");
	pair_close(&p);

	/* An IPv6 socket takes IPv4 peers written as IPv4. */
	c = fresh(&t_fams[1]);
	OK(add(c, "10.1.0.1 10.2.0.1"));
	p = pair_listen("10.9.0.1", IPPROTO_MPTCP);
	p.c = c;
	OK(connx(c, at("10.9.0.1", p.port), NULL));
	p.s = t_accept(p.l);
	check_open(&p, "10.1.0.1 10.2.0.1");
	pair_close(&p);
}

/* Both families in one list. */
static void both_families(void)
{
	struct pair p;
	char peers[128];
	int c = fresh(&t_fams[1]);

	OK(add(c, "10.1.0.1 fd02::1"));
	CHECK_STR(laddrs_np(c), "10.1.0.1 fd02::1");
	p = pair_listen("::", IPPROTO_MPTCP);
	p.c = c;
	/* No IPv4 address of the peer is known: only the IPv6 one can be used. */
	OK(connx(c, at("fd09::1", p.port), NULL));
	p.s = t_accept(p.l);
	check_open(&p, "fd02::1");
	ALWAYS(!strcmp(locals(c), "fd02::1"), 100);
	pair_close(&p);

	/* The caller says both are the peer's: the other gets a subflow too. */
	c = fresh(&t_fams[1]);
	OK(add(c, "10.1.0.1 fd02::1"));
	p = pair_listen("::", IPPROTO_MPTCP);
	p.c = c;
	snprintf(peers, sizeof peers, "%s %s", at("fd09::1", p.port), at("10.9.0.1", p.port));
	OK(connx(c, peers, NULL));
	CHECK_STR(locals(c), "fd02::1");
	p.s = t_accept(p.l);
	check_open(&p, "10.1.0.1 fd02::1");
	CHECK_STR(remotes(c), "10.9.0.1 fd09::1");
	CHECK_STR(paddrs_np(c), "fd09::1 10.9.0.1");
	pair_close(&p);

	/* No address of the list routes to any peer. */
	c = fresh(&t_fams[1]);
	OK(add(c, "fd01::1"));
	p = pair_listen("10.9.0.1", IPPROTO_MPTCP);
	FAILS(EADDRNOTAVAIL, connx(c, at("10.9.0.1", p.port), NULL));
	CHECK_STR(laddrs_np(c), "fd01::1");
	OK(add(c, "10.3.0.1"));         /* the socket is as before: it can go on */
	p.c = c;
	OK(connx(c, at("10.9.0.1", p.port), NULL));
	p.s = t_accept(p.l);
	CHECK_STR(locals(c), "10.3.0.1");
	pair_close(&p);
}

/* A port in the list is bound to. */
static void ports(const struct fam *f)
{
	struct pair p = pair_listen(f->server, IPPROTO_MPTCP);
	char text[256], want[256];
	int c = fresh(f), taken, other;

	snprintf(text, sizeof text, "%s/45001 %s/45002", f->p1, f->p2);
	snprintf(want, sizeof want, "%s/45001 %s/45002", f->s1, f->s2);
	OK(add(c, text));
	CHECK_STR(laddrs(c), want);
	pair_connectx(&p, f->server, c);
	CHECK(within(t_subflows(c, 0, 1), want));
	settle(&p);
	AWAIT_STR(t_subflows(c, 0, 1), want);
	CHECK_STR(laddrs(c), want);
	/* Port 0 names every port of the address. */
	other = strncmp(sockname(c), f->p1, strlen(f->p1)) ? 0 : 1;
	OK(rem(c, other ? f->p2 : f->p1));
	AWAIT_STR(locals(c), other ? f->s1 : f->s2);
	settle(&p);
	pair_close(&p);

	/* Taken already. */
	taken = socket(f->domain, SOCK_STREAM, 0);
	REQUIRE(taken >= 0 && !do_bind(taken, at(f->p3, 45003)) && !listen(taken, 1));
	c = fresh(f);
	if (f->domain == AF_INET) {
		FAILS(EADDRINUSE, add(c, at(f->p3, 45003)));
		CHECK_STR(laddrs(c), "");
	} else {
		/* Which family will be used isn't known yet: connectx says it then. */
		p = pair_listen(f->server, IPPROTO_MPTCP);
		if (add(c, at(f->p3, 45003)))
			CHECK_INT(errno, EADDRINUSE);
		else
			FAILS(EADDRINUSE, connx(c, at(f->server, p.port), NULL));
		close(p.l);
	}
	OK(add(c, f->p3));              /* any other port is fine */
	p = pair_listen(f->server, IPPROTO_MPTCP);
	pair_connectx(&p, f->server, c);
	settle(&p);
	CHECK_STR(locals(c), f->s3);
	close(taken);
	pair_close(&p);
}

/* bindx: SCTP's way to the same list, and its flags. */
static void flags(const struct fam *f)
{
	struct pair p = pair_listen(f->server, IPPROTO_MPTCP);
	struct list l = addrs(f->p2);
	int c = fresh(f);
	long announced;

	OK(mptcp_bindx(c, SA(&l), 1, MPTCP_BINDX_ADD_ADDR));
	CHECK_STR(laddrs(c), f->s2);
	OK(mptcp_bindx(c, SA(&l), 1, MPTCP_BINDX_REM_ADDR));
	CHECK_STR(laddrs(c), "");

	/* Backup: asked for in the join, so ss shows the bit on that subflow only. */
	OK(add_flags(c, f->p1, 0));
	OK(add_flags(c, f->p2, MPTCP_BINDX_BACKUP));
	OK(add_flags(c, f->p3, MPTCP_BINDX_BACKUP));
	OK(add_flags(c, f->p3, 0));                     /* the last flags win */
	CHECK_STR(laddrs(c), three(f, 1));
	pair_connectx(&p, f->server, c);
	check_open(&p, three(f, 1));
	CHECK(strcmp(sockname(c), f->p2));              /* the first is not a backup */
	CHECK_STR(ss_locals(p.port, " flags:Jjb"), f->s2);
	/* On a live connection too: on and off. */
	OK(add_flags(c, f->p2, 0));
	AWAIT((count_subflows(c), !strcmp(ss_locals(p.port, "jb"), "")));
	OK(add_flags(c, f->p3, MPTCP_BINDX_BACKUP));
	AWAIT((count_subflows(c), !strcmp(ss_locals(p.port, "jb"), f->s3)));
	settle(&p);
	pair_close(&p);

	/* Used, but never told to the peer. */
	p = pair_listen(f->server, IPPROTO_MPTCP);
	c = fresh(f);
	announced = raw_mib("AddAddr");
	OK(add_flags(c, f->p1, MPTCP_BINDX_NO_ADVERTISE));
	OK(add_flags(c, f->p2, MPTCP_BINDX_NO_ADVERTISE));
	pair_connectx(&p, f->server, c);
	settle(&p);
	AWAIT(count_subflows(c) == 2);
	settle(&p);
	CHECK_INT(raw_mib("AddAddr"), announced);
	pair_close(&p);

	/* Told, but no subflow is opened from it. */
	p = pair_listen(f->server, IPPROTO_MPTCP);
	c = fresh(f);
	announced = raw_mib("AddAddr");
	OK(add_flags(c, f->p1, 0));
	OK(add_flags(c, f->p2, MPTCP_BINDX_NO_SUBFLOW));
	pair_connectx(&p, f->server, c);
	settle(&p);
	AWAIT((count_subflows(c), raw_mib("AddAddr") > announced));
	ALWAYS((count_subflows(c), !strstr(ss_locals(p.port, "flags:Jj"), f->s2)), 100);
	settle(&p);
	pair_close(&p);
}

/* On a plain TCP socket connectx is connect, one peer after the other. */
static void tcp(const struct fam *f)
{
	struct pair p = pair_listen(f->server, IPPROTO_MPTCP);
	char peers[256];
	uint32_t id = 77;
	int c = tcp_socket(f->domain), dead;

	dead = listen_at(f->server, IPPROTO_TCP, 1);
	snprintf(peers, sizeof peers, "%s %s", at(f->server, sockport(dead)), at(f->server, p.port));
	close(dead);
	OK(connx(c, peers, &id));
	CHECK_INT(id, 0);
	p.c = c;
	p.s = t_accept(p.l);
	CHECK_INT(enabled(c), 0);
	settle(&p);
	pair_close(&p);

	/* MPTCP that fell back: connected, and the id is 0. */
	p = pair_listen(f->server, IPPROTO_TCP);
	c = fresh(f);
	OK(add(c, f->p1));
	id = 77;
	OK(connx(c, at(f->server, p.port), &id));
	CHECK_INT(id, 0);
	p.c = c;
	p.s = t_accept(p.l);
	CHECK_INT(enabled(c), 0);
	CHECK_STR(sockname(c), f->p1);          /* the list holds all the same */
	FAILS(EOPNOTSUPP, add(c, f->p2));
	settle(&p);
	pair_close(&p);
}

/* Without a list REMOVE excludes an address. */
static void exclude(const struct fam *f)
{
	struct pair p;
	char command[256];
	int c, kernel = kernel_pm();

	c = fresh(f);
	FAILS(EADDRNOTAVAIL, rem(c, f->domain == AF_INET ? "10.77.0.1" : "fd77::1"));
	OK(rem(c, f->p1));
	if (kernel) {
		/* The in-kernel path manager would use it: it must not any more. */
		snprintf(command, sizeof command, "ip mptcp endpoint add %s subflow", f->s1);
		sh(command);
	}
	p = pair_listen(f->server, IPPROTO_MPTCP);
	pair_connectx(&p, f->server, c);
	settle(&p);
	ALWAYS(!within(f->s1, locals(c)) && !within(f->s1, raw_locals(c)), 200);
	CHECK(count_subflows(c) >= 1);
	settle(&p);
	if (kernel)
		sh("ip mptcp endpoint flush");
	pair_close(&p);
}

int main(void)
{
	int i, before = open_fds();

	need_mptcp();
	/* An address of the in-kernel path manager that no list below has: a
	 * socket with a list must never use it. */
	if (kernel_pm())
		sh("ip addr add 10.4.0.1/32 dev lo && ip -6 addr add fd04::1/128 dev lo nodad"
		   " && ip mptcp endpoint add 10.4.0.1 subflow"
		   " && ip mptcp endpoint add fd04::1 subflow");
	for (i = 0; i < 3; i++) {
		t_ctx = t_fams[i].name;
		by_connectx(&t_fams[i]);
	}
	sh("ip mptcp endpoint flush");
	for (i = 0; i < 3; i++) {
		t_ctx = t_fams[i].name;
		by_connect(&t_fams[i]);
		contents(&t_fams[i]);
		tcp(&t_fams[i]);
	}
	for (i = 0; i < 2; i++) {
		t_ctx = t_fams[i].name;
		ports(&t_fams[i]);
		flags(&t_fams[i]);
		exclude(&t_fams[i]);
	}
	t_ctx = "";
	limits();
	mapped();
	both_families();
	CHECK(open_fds() - before <= t_own_fds());
	return t_done();
}
