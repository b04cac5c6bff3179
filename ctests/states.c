/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Queries, and what may be set, in every state of a socket's life, over IPv4,
 * IPv6 and v4-mapped addresses. No path control is used here, so the same must
 * hold for every user and in both modes of the kernel's path manager.
 *
 * lab:
 * lab: --user
 * lab: --broker= T_USER=1
 * lab: --userspace
 * lab: MPTCPAPI_BACKEND=none
 */
#include "raw.h"

static int control;             /* is there anybody who can act on paths? */

/* No connection: nothing can be listed. */
static void check_unconnected(int fd)
{
	struct mptcp_subflow one, *sf = &one;
	socklen_t len = sizeof one;

	memset(&one, 0xa5, sizeof one);
	FAILS(ENOTCONN, mptcp_getsubflows(fd, &sf));
	CHECK(sf == &one);
	FAILS(ENOTCONN, mptcp_getsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_SUBFLOWS, &one, &len));
	CHECK_INT(len, sizeof one);
	len = 0;
	FAILS(ENOTCONN, mptcp_getsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_SUBFLOWS, NULL, &len));
	CHECK_INT(one.id, 0xa5a5a5a5);
	CHECK_INT(connid(fd), 0);
	CHECK(errno == ENOTCONN || (errno == EOPNOTSUPP && !enabled(fd)));      /* both are true */
	CHECK_STR(paddrs(fd), "errno 107");
}

/* A sockaddr_storage must be exactly this address: every other byte is zero. */
static void check_address(const struct sockaddr_storage *got, const struct sockaddr_storage *want)
{
	struct sockaddr_storage w;
	const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)want;

	memset(&w, 0, sizeof w);
	if (want->ss_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&six->sin6_addr)) {
		struct sockaddr_in *four = (struct sockaddr_in *)&w;

		four->sin_family = AF_INET;
		four->sin_port = six->sin6_port;
		memcpy(&four->sin_addr, six->sin6_addr.s6_addr + 12, 4);
	} else if (want->ss_family == AF_INET6)
		memcpy(&w, want, sizeof(struct sockaddr_in6));
	else
		memcpy(&w, want, sizeof(struct sockaddr_in));
	CHECK_STR(show(got, 1), show(&w, 1));
	CHECK(!memcmp(got, &w, sizeof w));
}

/* One subflow: the pair that getsockname and getpeername say. */
static void check_listed(int fd, int fallback, int list)
{
	static const unsigned char zero[24];
	struct mptcp_subflow *sf = NULL, two[2], small;
	struct sockaddr_storage local, remote;
	socklen_t len = sizeof local;
	int n;

	REQUIRE(!getsockname(fd, (struct sockaddr *)&local, &len));
	len = sizeof remote;
	REQUIRE(!getpeername(fd, (struct sockaddr *)&remote, &len));
	n = (int)OK(mptcp_getsubflows(fd, &sf));
	CHECK_INT(n, 1);
	if (n != 1)
		return;
	check_address(&sf->local, &local);
	check_address(&sf->remote, &remote);
	CHECK(!memcmp(sf->reserved, zero, sizeof zero));
	if (fallback)
		CHECK(sf->flags & MPTCP_SUBFLOW_FALLBACK);
	else
		CHECK_INT(sf->flags, MPTCP_SUBFLOW_INITIAL);
	CHECK(!(sf->flags & ~(uint32_t)(MPTCP_SUBFLOW_INITIAL | MPTCP_SUBFLOW_FALLBACK)));
	if (!fallback) {
		struct raw_subflow raw;

		CHECK_INT(raw_list(fd, &raw, 1, RAW_UP), 1);
		CHECK_INT(sf->id, raw.id);
	}

	/* The option says the same, by its own protocol for lengths. */
	len = 0;
	FAILS(ENOBUFS, mptcp_getsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_SUBFLOWS, NULL, &len));
	CHECK_INT(len, 288);
	memset(&small, 0xa5, sizeof small);
	for (len = 0; len < 288; len += 41) {
		socklen_t given = len;

		FAILS(ENOBUFS, mptcp_getsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_SUBFLOWS, &small, &given));
		CHECK_INT(given, 288);
	}
	len = 287;
	FAILS(ENOBUFS, mptcp_getsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_SUBFLOWS, &small, &len));
	CHECK_INT(len, 288);
	CHECK(small.id == 0xa5a5a5a5 && small.local.ss_family == 0xa5a5);
	OK(mptcp_getsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_SUBFLOWS, &small, &len));
	CHECK_INT(len, 288);
	CHECK(!memcmp(&small, sf, sizeof small));
	memset(two, 0xa5, sizeof two);
	len = sizeof two;
	OK(mptcp_getsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_SUBFLOWS, two, &len));
	CHECK_INT(len, 288);
	CHECK(!memcmp(&two[0], sf, sizeof *sf));
	CHECK(two[1].id == 0xa5a5a5a5);
	len = 288;
	FAILS(EFAULT, mptcp_getsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_SUBFLOWS, NULL, &len));
	mptcp_freesubflows(sf);

	/* Both lists: without a list of ours what is in use. */
	if (!list)
		CHECK_STR(laddrs_np(fd), locals(fd));
	CHECK_STR(paddrs_np(fd), remotes(fd));
}

static void check_one(int fd, int fallback)
{
	check_listed(fd, fallback, 0);
}

/* ENABLE can't be changed here. */
static void check_eisconn(int fd, int now)
{
	FAILS(EISCONN, set_int(fd, TCP_MULTIPATH_ENABLE, !now));
	CHECK_INT(raw_protocol(fd) == IPPROTO_MPTCP, now);
}

static void check_no_lists(int fd, const struct fam *f, int want)
{
	int e = control ? want : EPERM;

	/* What can never be done may be said before that nobody could. */
	t_fails(__FILE__, __LINE__, "ADD", e, want, (errno = 0, add(fd, f->p1)));
	t_fails(__FILE__, __LINE__, "REMOVE", e, want, (errno = 0, rem(fd, f->p1)));
	t_fails(__FILE__, __LINE__, "bindx", e, want, (errno = 0, add_flags(fd, f->p1, 0)));
}

static void fresh_and_bound(const struct fam *f)
{
	char any[8];
	int fd;

	snprintf(any, sizeof any, "%s", f->domain == AF_INET ? "0.0.0.0" : "::");
	/* TCP, fresh. */
	fd = tcp_socket(f->domain);
	CHECK_INT(enabled(fd), 0);
	OK(set_int(fd, TCP_MULTIPATH_ENABLE, 0));
	check_unconnected(fd);
	CHECK_STR(laddrs(fd), "");
	check_no_lists(fd, f, EOPNOTSUPP);
	REQUIRE(!do_bind(fd, f->p1));
	CHECK_STR(laddrs(fd), at(f->s1, sockport(fd)));
	CHECK_INT(enabled(fd), 0);
	check_unconnected(fd);
	close(fd);

	/* MPTCP, fresh. */
	fd = (int)OK(mptcp_socket(f->domain, SOCK_STREAM, 0));
	CHECK_INT(raw_protocol(fd), IPPROTO_MPTCP);
	CHECK_INT(enabled(fd), 1);
	OK(set_int(fd, TCP_MULTIPATH_ENABLE, 1));
	check_unconnected(fd);
	CHECK_STR(laddrs(fd), "");
	CHECK_STR(sockname(fd), any);
	/* Bound to one address; whoever can may restrict it now, but it works for all. */
	REQUIRE(!do_bind(fd, f->p1));
	CHECK_STR(laddrs(fd), at(f->s1, sockport(fd)));
	CHECK_INT(enabled(fd), 1);
	check_unconnected(fd);
	OK(set_int(fd, TCP_MULTIPATH_ENABLE, 1));
	CHECK_STR(laddrs(fd), at(f->s1, sockport(fd)));
	CHECK_INT(raw_protocol(fd), IPPROTO_MPTCP);
	close(fd);

	/* Bound to the wildcard is not bound. */
	fd = raw_socket(f->domain);
	REQUIRE(!do_bind(fd, any));
	CHECK(sockport(fd) > 0);
	CHECK_STR(laddrs(fd), "");
	CHECK_INT(enabled(fd), 1);
	check_unconnected(fd);
	close(fd);
}

static void listening_and_connecting(const struct fam *f)
{
	int proto, fd, l, filler;

	for (proto = 0; proto < 2; proto++) {
		l = listen_at(f->server, proto ? IPPROTO_MPTCP : IPPROTO_TCP, 4);
		CHECK_INT(enabled(l), proto);
		check_unconnected(l);
		CHECK_STR(laddrs(l), at(f->shown_server, sockport(l)));
		check_eisconn(l, proto);
		if (!proto)
			check_no_lists(l, f, EOPNOTSUPP);
		close(l);

		l = full_listener(f->server, &filler);
		fd = proto ? raw_socket(f->domain) : tcp_socket(f->domain);
		nonblock(fd);
		REQUIRE(do_connect(fd, at(f->server, sockport(l))) < 0 && errno == EINPROGRESS);
		CHECK_INT(enabled(fd), proto);
		check_unconnected(fd);
		check_eisconn(fd, proto);
		check_no_lists(fd, f, EOPNOTSUPP);      /* there is no list yet */
		close(fd);
		close(filler);
		close(l);
	}
}

static void connected(const struct fam *f)
{
	struct pair p = pair_listen(f->server, IPPROTO_MPTCP);
	uint32_t a, b, other;
	socklen_t len;
	int c2, s2;

	pair_connect(&p, f->server, raw_socket(f->domain));
	/* Right after connect, and after data went both ways. */
	for (b = 0; b < 2; b++) {
		CHECK_INT(enabled(p.c), 1);
		CHECK_INT(enabled(p.s), 1);
		check_one(p.c, 0);
		check_one(p.s, 0);
		settle(&p);
	}
	check_eisconn(p.c, 1);
	check_eisconn(p.s, 1);
	CHECK_STR(remotes(p.c), f->shown_server);
	CHECK_STR(locals(p.s), f->shown_server);

	a = connid(p.c);
	b = connid(p.s);
	CHECK(a && b && a != b);
	CHECK_INT(a, raw_token(p.c));
	CHECK_INT(b, raw_token(p.s));
	CHECK_INT(connid(p.c), a);
	for (len = 0; len < 4; len++) {
		socklen_t given = len;

		other = 77;
		FAILS(EINVAL, mptcp_getsockopt(p.c, IPPROTO_TCP, TCP_MULTIPATH_CONNID, &other, &given));
		CHECK(other == 77 && given == len);
	}
	c2 = raw_socket(f->domain);
	REQUIRE(!do_connect(c2, at(f->server, p.port)));
	s2 = t_accept(p.l);
	other = connid(c2);
	CHECK(other && other != a && other != b && other != connid(s2));
	close(c2);
	close(s2);

	/* One side has closed its direction: still a connection. */
	REQUIRE(!shutdown(p.s, SHUT_WR));
	AWAIT(recv(p.c, &a, 1, MSG_DONTWAIT | MSG_PEEK) == 0);
	CHECK_INT(enabled(p.c), 1);
	CHECK_INT(enabled(p.s), 1);
	check_one(p.c, 0);
	CHECK(connid(p.c) == raw_token(p.c) && connid(p.c));
	/* Both: it has ended, and the last truth stays. */
	REQUIRE(!shutdown(p.c, SHUT_WR));
	AWAIT(count_subflows(p.c) == -1);
	AWAIT(count_subflows(p.s) == -1);
	check_unconnected(p.c);
	check_unconnected(p.s);
	CHECK_INT(enabled(p.c), 1);
	CHECK_INT(enabled(p.s), 1);
	if (control)
		FAILS2(ENOTCONN, EOPNOTSUPP, add(p.c, f->p1));
	pair_close(&p);

	/* Closed by the peer. */
	p = pair_listen(f->server, IPPROTO_MPTCP);
	pair_connect(&p, f->server, raw_socket(f->domain));
	settle(&p);
	close(p.s);
	p.s = -1;
	AWAIT(recv(p.c, &a, 1, MSG_DONTWAIT) == 0);
	CHECK_INT(enabled(p.c), 1);
	check_one(p.c, 0);
	pair_close(&p);

	/* Reset by the peer. */
	p = pair_listen(f->server, IPPROTO_MPTCP);
	pair_connect(&p, f->server, raw_socket(f->domain));
	settle(&p);
	reset_close(p.s);
	p.s = -1;
	AWAIT(recv(p.c, &a, 1, MSG_DONTWAIT) <= 0 && errno != EAGAIN);
	AWAIT(count_subflows(p.c) == -1);
	check_unconnected(p.c);
	CHECK_INT(enabled(p.c), 1);
	pair_close(&p);

	/* Unconnected again by connect(AF_UNSPEC), and connected once more. */
	p = pair_listen(f->server, IPPROTO_MPTCP);
	pair_connect(&p, f->server, raw_socket(f->domain));
	settle(&p);
	disconnect(p.c);
	CHECK_INT(enabled(p.c), 1);
	check_unconnected(p.c);
	close(p.s);
	pair_connect(&p, f->server, p.c);
	memset(p.sent, 0, sizeof p.sent);
	memset(p.got, 0, sizeof p.got);
	settle(&p);
	CHECK_INT(enabled(p.c), 1);
	AWAIT(count_subflows(p.c) == 1);
	pair_close(&p);

	/* Refused. */
	c2 = raw_socket(f->domain);
	p = pair_listen(f->server, IPPROTO_MPTCP);
	close(p.l);
	REQUIRE(do_connect(c2, at(f->server, p.port)) < 0 && errno == ECONNREFUSED);
	CHECK_INT(enabled(c2), 1);
	check_unconnected(c2);
	close(c2);
}

static void plain(int fd, const struct fam *f, int list)
{
	CHECK_INT(enabled(fd), 0);
	check_listed(fd, 1, list);
	CHECK_INT(connid(fd), 0);
	CHECK_INT(errno, EOPNOTSUPP);
	FAILS(EISCONN, set_int(fd, TCP_MULTIPATH_ENABLE, 1));
	check_no_lists(fd, f, EOPNOTSUPP);
}

/* client, server: which of the two speaks MPTCP; at most one. */
static void fallback(const struct fam *f, int client, int server)
{
	int i, dummy;

	/* Ended in order, and by a reset of the peer. */
	for (i = 0; i < 2; i++) {
		struct pair p = pair_listen(f->server, server ? IPPROTO_MPTCP : IPPROTO_TCP);

		pair_connect(&p, f->server, client ? raw_socket(f->domain) : tcp_socket(f->domain));
		plain(p.c, f, 0);
		plain(p.s, f, 0);
		settle(&p);
		plain(p.c, f, 0);
		plain(p.s, f, 0);
		if (i == 0) {
			REQUIRE(!shutdown(p.s, SHUT_WR));
			AWAIT(recv(p.c, &dummy, 1, MSG_DONTWAIT) == 0);
			check_one(p.c, 1);              /* CLOSE_WAIT */
			REQUIRE(!shutdown(p.c, SHUT_WR));
		} else {
			reset_close(p.s);
			p.s = -1;
		}
		AWAIT(count_subflows(p.c) == -1);
		check_unconnected(p.c);
		CHECK_INT(enabled(p.c), 0);             /* the last truth known */
		pair_close(&p);
	}
	if (client) {
		/* Unconnected again: it asks for MPTCP, as at first. */
		struct pair p = pair_listen(f->server, IPPROTO_TCP);

		pair_connect(&p, f->server, raw_socket(f->domain));
		settle(&p);
		disconnect(p.c);
		CHECK_INT(enabled(p.c), 1);
		check_unconnected(p.c);
		pair_close(&p);
	}
}

/* Fallback after connect() has returned: a middlebox drops the options of all that
 * follows. Nothing that was true before may be remembered. */
static void late(const struct fam *f, int list)
{
	struct pair p = pair_listen(f->server, IPPROTO_MPTCP);
	uint32_t id = 0;
	int c = (int)OK(mptcp_socket(f->domain, SOCK_STREAM, 0));

	if (list) {
		char two[160];

		snprintf(two, sizeof two, "%s %s", f->p1, f->p2);
		OK(add(c, two));
	}
	p.c = c;
	OK(connx(c, at(f->server, p.port), &id));
	p.s = t_accept(p.l);
	CHECK_INT(enabled(c), 1);
	CHECK(id && id == connid(c));
	check_listed(c, 0, list);
	sh("nft add table inet t && nft 'add chain inet t o { type filter hook output priority 0; }'"
	   " && nft add rule inet t o reset tcp option mptcp");
	say(c, p.s);
	say(p.s, c);
	AWAIT(raw_is_mptcp(c) == 0);
	CHECK_INT(enabled(c), 0);
	plain(c, f, list);
	CHECK_INT(count_subflows(c), 1);
	say(c, p.s);
	say(p.s, c);
	plain(c, f, list);
	sh("nft flush ruleset");
	pair_close(&p);
}

/* Several subflows, made by the kernel's own path manager. */
static void several(const struct fam *f)
{
	struct pair p;
	struct mptcp_subflow *sf = NULL, four[4], keep[3];
	struct raw_subflow raw[8];
	char command[256];
	socklen_t len;
	int i, n;

	snprintf(command, sizeof command, "ip mptcp endpoint flush && ip mptcp endpoint add %s subflow"
		 " && ip mptcp endpoint add %s subflow", f->s1, f->s2);
	sh(command);
	p = pair_listen(f->server, IPPROTO_MPTCP);
	pair_connect(&p, f->server, raw_socket(f->domain));
	settle(&p);
	AWAIT(count_subflows(p.c) == 3);
	n = (int)OK(mptcp_getsubflows(p.c, &sf));
	CHECK_INT(n, 3);
	CHECK_INT(raw_list(p.c, raw, 8, RAW_UP), 3);
	if (n != 3)
		return;
	for (i = 0; i < 3; i++) {               /* in the order of their creation */
		CHECK_INT(sf[i].id, raw[i].id);
		CHECK_INT(sf[i].flags, i ? 0 : MPTCP_SUBFLOW_INITIAL);
		check_address(&sf[i].local, &raw[i].local);
		check_address(&sf[i].remote, &raw[i].remote);
	}
	memcpy(keep, sf, sizeof keep);
	mptcp_freesubflows(sf);
	for (len = 0; len < 3 * 288; len += 96) {
		socklen_t given = len;

		memset(four, 0xa5, sizeof four);
		FAILS(ENOBUFS, mptcp_getsockopt(p.c, IPPROTO_TCP, TCP_MULTIPATH_SUBFLOWS, four, &given));
		CHECK_INT(given, 3 * 288);
		CHECK(four[0].id == 0xa5a5a5a5 && four[1].id == 0xa5a5a5a5);    /* all or nothing */
	}
	len = sizeof four;
	OK(mptcp_getsockopt(p.c, IPPROTO_TCP, TCP_MULTIPATH_SUBFLOWS, four, &len));
	CHECK_INT(len, 3 * 288);
	CHECK(!memcmp(four, keep, sizeof keep));
	CHECK(four[3].id == 0xa5a5a5a5);
	/* Distinct addresses: the two new ones, and the initial. */
	CHECK(within(f->s1, laddrs_np(p.c)) && within(f->s2, laddrs_np(p.c)));
	CHECK(within(locals(p.c), laddrs_np(p.c)) && within(laddrs_np(p.c), locals(p.c)));
	CHECK_STR(paddrs_np(p.c), f->shown_server);
	CHECK_STR(laddrs_np(p.s), f->shown_server);
	/* The connection was never told to the library: the kernel steers it. */

	/* The initial one dies; the others go on and none is called initial. */
	snprintf(command, sizeof command, "ss -KHtn sport = :%d and dport = :%d >/dev/null",
		 sockport(p.c), p.port);
	sh(command);
	AWAIT(count_subflows(p.c) < 3);
	n = (int)OK(mptcp_getsubflows(p.c, &sf));
	for (i = 0; i < n; i++)
		CHECK(!(sf[i].flags & MPTCP_SUBFLOW_INITIAL));
	mptcp_freesubflows(sf);
	CHECK_INT(enabled(p.c), 1);
	CHECK(connid(p.c) != 0);
	settle(&p);
	pair_close(&p);
	sh("ip mptcp endpoint flush");
}

/* A join that is only under way is not listed. */
static void pending(void)
{
	struct pair p;
	struct raw_subflow raw[8];

	sh("ip rule add prio 100 lookup local && ip rule del prio 0"
	   " && ip rule add prio 10 from 10.9.0.1 to 10.3.0.1 blackhole"
	   " && ip mptcp endpoint flush && ip mptcp endpoint add 10.3.0.1 subflow");
	p = pair_listen("10.9.0.1", IPPROTO_MPTCP);
	pair_connect(&p, "10.9.0.1", raw_socket(AF_INET));
	settle(&p);
	AWAIT(raw_list(p.c, raw, 8, RAW_SYN_SENT) == 1);
	CHECK_INT(count_subflows(p.c), 1);
	CHECK(!strstr(locals(p.c), "10.3.0.1"));
	CHECK_STR(laddrs_np(p.c), "10.9.0.1");
	check_one(p.c, 0);
	pair_close(&p);
	sh("ip mptcp endpoint flush && ip rule del prio 10");
}

int main(void)
{
	int i, before = (need_mptcp(), open_fds());
	const char *backend = getenv("MPTCPAPI_BACKEND");

	control = t_control() && !backend;
	for (i = 0; i < 3; i++) {
		const struct fam *f = &t_fams[i];

		t_ctx = f->name;
		fresh_and_bound(f);
		listening_and_connecting(f);
		connected(f);
		fallback(f, 0, 0);
		fallback(f, 1, 0);
		fallback(f, 0, 1);
	}
	if (t_sets_up())
		for (i = 0; i < 2 * (1 + control); i++) {
			t_ctx = i % 2 ? "late, IPv6" : "late, IPv4";
			late(&t_fams[i % 2], i / 2);
		}
	/* Where the namespace lets us have the kernel make subflows. */
	if (t_sets_up() && kernel_pm()) {
		for (i = 0; i < 2; i++) {
			t_ctx = t_fams[i].name;
			several(&t_fams[i]);
		}
		t_ctx = "pending";
		pending();
	}
	t_ctx = "";
	CHECK(open_fds() - before <= (backend ? 0 : t_own_fds()));
	return t_done();
}
