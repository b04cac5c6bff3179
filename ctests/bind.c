/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What bind(2) and SO_BINDTODEVICE mean to an MPTCP socket (RFC 6897 5.3.2:
 * only what the application gave may be used), before and after ADD, and the
 * way back to the in-kernel path manager when nothing restricts any more.
 *
 * lab:
 * lab: --userspace
 * lab: --broker= T_USER=1
 */
#include "raw.h"

/* An endpoint of the in-kernel path manager: used wherever nothing restricts. */
static const char *const tempt[2] = { "10.20.0.1", "fd20::1" };

static int fresh(const struct fam *f)
{
	int fd = (int)OK(mptcp_socket(f->domain, SOCK_STREAM | SOCK_CLOEXEC, 0));

	REQUIRE(fd >= 0);
	return fd;
}

static const char *pair_of(const char *a, const char *b)
{
	static char buf[4][160];
	static int k;

	k = (k + 1) % 4;
	snprintf(buf[k], sizeof buf[k], "%s %s", strcmp(a, b) < 0 ? a : b, strcmp(a, b) < 0 ? b : a);
	return buf[k];
}

static void check_only(struct pair *p, const char *want)
{
	settle(p);
	AWAIT_STR(locals(p->c), want);
	settle(p);
	ALWAYS(within(raw_locals(p->c), want) && count_subflows(p->c) >= 1, 100);
	CHECK(within(ss_locals(p->port, NULL), want));
	pair_close(p);
}

static void free_one(const struct fam *f, int c)        /* the kernel's choice */
{
	struct pair p = pair_listen(f->server, IPPROTO_MPTCP);
	const char *extra = tempt[f->domain == AF_INET6 && f->shown_server[0] == 'f'];

	pair_connect(&p, f->server, c);
	settle(&p);
	AWAIT(within(extra, raw_locals(c)));
	pair_close(&p);
}

static void unbound(const struct fam *f)
{
	struct mptcp_caps caps;
	int c;

	/* The temptation works: else all that follows would show nothing. */
	free_one(f, raw_socket(f->domain));
	c = fresh(f);
	OK(set_int(c, TCP_MULTIPATH_ENABLE, 1));
	free_one(f, c);
	/* A wildcard bind does not bind. */
	c = tcp_socket(f->domain);
	REQUIRE(!do_bind(c, f->domain == AF_INET ? "0.0.0.0" : "::"));
	OK(set_int(c, TCP_MULTIPATH_ENABLE, 1));
	OK(mptcp_getcaps(c, &caps, sizeof caps));
	CHECK_INT(caps.control, MPTCP_CONTROL_KERNEL);
	free_one(f, c);
	/* Back again: a list, and no list any more. */
	c = fresh(f);
	OK(add(c, pair_of(f->p1, f->p2)));
	OK(mptcp_getcaps(c, &caps, sizeof caps));
	CHECK_INT(caps.control, MPTCP_CONTROL_CONNECTION);
	OK(rem(c, pair_of(f->p1, f->p2)));
	OK(mptcp_getcaps(c, &caps, sizeof caps));
	CHECK_INT(caps.control, MPTCP_CONTROL_KERNEL);
	free_one(f, c);
	c = fresh(f);
	OK(add(c, f->p1));
	OK(rem(c, f->p1));
	free_one(f, c);
	/* connect(AF_UNSPEC) drops list and control. */
	c = fresh(f);
	OK(add(c, f->p1));
	disconnect(c);
	(void)enabled(c);               /* the next call notices */
	if (f->domain == AF_INET6)      /* there ADD has not bound it, which would stay */
		free_one(f, c);
	else
		close(c);
}

static void bound(const struct fam *f)
{
	struct pair p;
	int c, way, port;

	for (way = 0; way < 5; way++) {
		p = pair_listen(f->server, IPPROTO_MPTCP);
		c = way < 2 ? tcp_socket(f->domain) : fresh(f);
		REQUIRE(!do_bind(c, f->p1));
		switch (way) {
		case 0:         /* ENABLE on a bound TCP socket, plain connect */
		case 2:         /* on one that is MPTCP already */
			OK(set_int(c, TCP_MULTIPATH_ENABLE, 1));
			pair_connect(&p, f->server, c);
			break;
		case 1:
			OK(set_int(c, TCP_MULTIPATH_ENABLE, 1));
			pair_connectx(&p, f->server, c);
			break;
		case 3:         /* bound after ENABLE: connectx sees it */
			pair_connectx(&p, f->server, c);
			break;
		case 4:         /* or any call */
			CHECK_INT(enabled(c), 1);
			pair_connect(&p, f->server, c);
			break;
		}
		CHECK_STR(sockname(c), f->p1);
		CHECK_STR(laddrs_np(c), f->s1);
		check_only(&p, f->s1);
	}

	/* bind, then ADD: both, and the initial is the bound one. */
	p = pair_listen(f->server, IPPROTO_MPTCP);
	c = fresh(f);
	REQUIRE(!do_bind(c, f->p1));
	OK(add(c, f->p2));
	CHECK(within(f->s2, laddrs_np(c)));
	pair_connectx(&p, f->server, c);
	CHECK_STR(sockname(c), f->p1);
	check_only(&p, pair_of(f->s1, f->s2));

	/* ADD, then bind: it stands. */
	p = pair_listen(f->server, IPPROTO_MPTCP);
	c = fresh(f);
	OK(add(c, f->p2));
	REQUIRE(!do_bind(c, f->p1));
	pair_connectx(&p, f->server, c);
	CHECK_STR(sockname(c), f->p1);
	check_only(&p, pair_of(f->s1, f->s2));

	/* The very address that ADD has bound, with a port of the application's. */
	p = pair_listen(f->server, IPPROTO_MPTCP);
	c = fresh(f);
	OK(add(c, f->p2));
	port = 45010 + (int)(f - t_fams);       /* not one that waits for its end */
	REQUIRE(!do_bind(c, at(f->p2, port)));
	CHECK_INT(sockport(c), port);
	pair_connect(&p, f->server, c);
	CHECK_STR(sockname(c), f->p2);
	CHECK_INT(sockport(c), port);
	check_only(&p, f->s2);

	/* An ephemeral port by bind(A, 0) after ADD is shown at once, as it always is. */
	c = fresh(f);
	OK(add(c, f->p2));
	REQUIRE(!do_bind(c, f->p2));
	CHECK(sockport(c) > 0);
	close(c);
}

/* close() closes: nobody else has the descriptor any more, and the port is free. */
static void closed(const struct fam *f)
{
	int i, c, port = 45020 + (int)(f - t_fams);

	for (i = 0; i < 200 && !t_failed; i++) {
		c = fresh(f);
		REQUIRE(!do_bind(c, at(f->p1, port)));
		if (i % 2)
			OK(set_int(c, TCP_MULTIPATH_ENABLE, 1));
		else
			OK(add(c, f->p2));
		if (i % 4 > 1)
			FAILS(EADDRNOTAVAIL, rem(c, f->p3));
		close(c);
	}
}

static void device(const struct fam *f)
{
	struct pair p;
	int c, way;
	const char *extra = tempt[f->domain == AF_INET6];

	for (way = 0; way < 2; way++) {
		p = pair_listen(f->server, IPPROTO_MPTCP);
		c = tcp_socket(f->domain);
		REQUIRE(!setsockopt(c, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3));
		OK(set_int(c, TCP_MULTIPATH_ENABLE, 1));
		if (way)
			pair_connectx(&p, f->server, c);
		else
			pair_connect(&p, f->server, c);
		settle(&p);
		ALWAYS(!within(extra, raw_locals(c)) && count_subflows(c) >= 1, 300);
		CHECK(!within(extra, laddrs_np(c)));
		settle(&p);
		pair_close(&p);
	}

	/* An address of another device, by ADD: allowed too, and no other. */
	p = pair_listen(f->server, IPPROTO_MPTCP);
	c = fresh(f);
	OK(add(c, pair_of(f->p1, extra)));
	pair_connectx(&p, f->server, c);
	check_only(&p, pair_of(f->s1, extra));

	/* What it was bound to at ADD, and is no more (which takes CAP_NET_RAW), counts no
	 * more, not even where routing would choose it. */
	p = pair_listen(extra, IPPROTO_MPTCP);
	c = fresh(f);
	REQUIRE(!setsockopt(c, SOL_SOCKET, SO_BINDTODEVICE, "d0", 3));
	OK(add(c, f->p1));
	if (!setsockopt(c, SOL_SOCKET, SO_BINDTODEVICE, "", 1)) {
		pair_connectx(&p, extra, c);
		CHECK_STR(sockname(c), f->p1);
		check_only(&p, f->s1);
	} else {
		CHECK_INT(errno, EPERM);
		close(c);
		close(p.l);
	}
}

/* The direct backend serves the calling thread's namespace, and a list binds there too. */
static void *elsewhere(void *arg)
{
	struct pair *p = arg;

	t_thread_new_network();
	FAILS(EOPNOTSUPP, add(p->c, "10.3.0.1"));
	CHECK_STR(laddrs(p->c), "10.1.0.1 10.2.0.1");
	FAILS(EOPNOTSUPP, connx(p->c, "10.9.0.1/1 10.9.0.1/2", NULL));
	FAILS(EOPNOTSUPP, connx(p->c, at("10.9.0.1", p->port), NULL));
	CHECK(strstr(mptcp_errmsg(), "namespace"));
	return NULL;
}

/* A thread that has gone to another namespace: the broker serves the sockets of the
 * first one all the same, and no socket of the second. */
static void *gone(void *arg)
{
	struct pair *p = arg;
	int c = p->c, own;

	t_thread_new_network();
	OK(add(c, "10.1.0.1 10.2.0.1"));
	CHECK_STR(laddrs(c), "10.1.0.1 10.2.0.1");
	OK(rem(c, "10.1.0.1 10.2.0.1"));
	own = raw_socket(AF_INET);
	FAILS(EOPNOTSUPP, add(own, "10.1.0.1"));
	CHECK(strstr(mptcp_errmsg(), "namespace"));
	CHECK_STR(laddrs(own), "");
	close(own);
	/* Here nothing says which of the two routes there. */
	OK(add(c, "10.2.0.1 10.1.0.1"));
	pair_connectx(p, t_fams[0].server, c);
	CHECK(!strcmp(sockname(c), "10.2.0.1") || !strcmp(sockname(c), "10.1.0.1"));
	return NULL;
}

/* The socket's namespace counts, not the caller's; direct refuses where they differ. */
static void namespaces(void)
{
	int c = fresh(&t_fams[0]), plain = tcp_socket(AF_INET), status = -1;
	pid_t pid = fork();

	REQUIRE(pid >= 0);
	if (!pid) {
		struct mptcp_caps caps;

		t_failed = 0;
		t_new_network();
		CHECK_INT(enabled(c), 1);
		/* The broker of the lab can't be reached from another namespace. */
		FAILS(t_broker() ? EPERM : EOPNOTSUPP, add(c, "10.1.0.1"));
		/* ENABLE would move the descriptor to the caller's namespace. */
		FAILS(EOPNOTSUPP, set_int(plain, TCP_MULTIPATH_ENABLE, 1));
		FAILS(EOPNOTSUPP, set_int(c, TCP_MULTIPATH_ENABLE, 0));
		CHECK_INT(raw_protocol(plain), IPPROTO_TCP);
		OK(mptcp_getcaps(c, &caps, sizeof caps));
		CHECK(!(caps.works & MPTCP_CAP_ADD_BEFORE));
		CHECK(*caps.reason);
		_exit(t_failed != 0);
	}
	REQUIRE(waitpid(pid, &status, 0) == pid);
	CHECK_INT(status, 0);
	OK(add(c, "10.1.0.1"));
	OK(rem(c, "10.1.0.1"));
	if (t_broker()) {
		struct pair p = pair_listen(t_fams[0].server, IPPROTO_MPTCP);
		pthread_t t;

		p.c = c;
		REQUIRE(!pthread_create(&t, NULL, gone, &p));
		REQUIRE(!pthread_join(t, NULL));
		c = -1;
		pair_close(&p);
	} else {
		struct pair p;
		pthread_t t;

		p.c = c;
		OK(add(c, "10.1.0.1 10.2.0.1"));
		REQUIRE(!pthread_create(&t, NULL, elsewhere, &p));
		REQUIRE(!pthread_join(t, NULL));
	}
	if (c >= 0)
		close(c);
	close(plain);
}

int main(void)
{
	int i, before = (need_mptcp(), open_fds());

	sh("ip link add d0 type veth peer name d1 && ip link set d0 up && ip link set d1 up && ip addr add 10.20.0.1/32 dev d0"
	   " && ip -6 addr add fd20::1/128 dev d0 nodad"
	   " && ip mptcp endpoint add 10.20.0.1 subflow && ip mptcp endpoint add fd20::1 subflow");
	for (i = 0; i < 3; i++) {
		t_ctx = t_fams[i].name;
		if (kernel_pm())
			unbound(&t_fams[i]);
		bound(&t_fams[i]);
		closed(&t_fams[i]);
		if (i < 2)
			device(&t_fams[i]);
	}
	t_ctx = "";
	namespaces();
	CHECK(open_fds() - before <= t_own_fds());
	return t_done();
}
