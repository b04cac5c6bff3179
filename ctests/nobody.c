/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Nobody can act on paths: an ordinary user without a broker, a backend forced
 * to none, a broker that isn't there. Queries and MPTCP itself work all the
 * same; the rest is EPERM with words, and mptcp_getcaps() says so before.
 *
 * lab: --user
 * lab: --user --userspace
 * lab: MPTCPAPI_BACKEND=none
 * lab: MPTCPAPI_BACKEND=broker MPTCPAPI_BROKER=/nonexistent/broker.sock
 */
#include "raw.h"

static void check_caps(int fd)
{
	const uint64_t needs = MPTCP_CAP_ADD_BEFORE | MPTCP_CAP_ADD_LIVE | MPTCP_CAP_CLOSE_SUBFLOW
		| MPTCP_CAP_LISTEN | MPTCP_CAP_PROFILE;
	const uint64_t has = MPTCP_CAP_ENABLE | MPTCP_CAP_SUBFLOWS | MPTCP_CAP_CONNID
		| MPTCP_CAP_CONN_STATS | MPTCP_CAP_SUBFLOW_STATS;
	struct mptcp_caps caps;

	OK(mptcp_getcaps(fd, &caps, sizeof caps));
	CHECK_INT(caps.backend, MPTCP_BACKEND_NONE);
	CHECK(caps.backend_errno != 0);
	CHECK(*caps.reason);
	CHECK_INT(caps.works & needs, 0);
	CHECK_INT(caps.works & has, has);
	CHECK((caps.known & (needs & ~(uint64_t)MPTCP_CAP_PROFILE)) != 0);
}

static void check_refused(int fd, const struct fam *f)
{
	struct list l = addrs(f->p1);

	FAILS(EPERM, add(fd, f->p1));
	FAILS(EPERM, add_flags(fd, f->p1, MPTCP_BINDX_BACKUP));
	FAILS(EPERM, mptcp_bindx(fd, SA(&l), 1, MPTCP_BINDX_ADD_ADDR));
	/* There is no list, and nobody to exclude an address: either may be said. */
	FAILS2(EPERM, EADDRNOTAVAIL, rem(fd, f->p1));
	FAILS2(EPERM, EADDRNOTAVAIL, mptcp_bindx(fd, SA(&l), 1, MPTCP_BINDX_REM_ADDR));
}

static void family(const struct fam *f)
{
	struct pair p = pair_listen(f->server, IPPROTO_MPTCP);
	uint32_t id = 0;
	int c = (int)OK(mptcp_socket(f->domain, SOCK_STREAM | SOCK_CLOEXEC, 0));

	check_caps(c);
	check_refused(c, f);
	CHECK_STR(laddrs(c), "");
	CHECK_STR(sockname(c), f->domain == AF_INET ? "0.0.0.0" : "::");
	CHECK_INT(enabled(c), 1);
	OK(connx(c, at(f->server, p.port), &id));
	CHECK(id && id == connid(c) && id == raw_token(c));
	p.c = c;
	p.s = t_accept(p.l);
	settle(&p);
	check_caps(c);
	check_refused(c, f);
	check_refused(p.s, f);
	CHECK_STR(locals(c), f->shown_server);
	CHECK_STR(laddrs_np(c), f->shown_server);
	CHECK_STR(paddrs_np(c), f->shown_server);
	CHECK(connid(p.s) == raw_token(p.s) && connid(p.s) != id);
	FAILS2(EPERM, EOPNOTSUPP, add(p.l, f->p1));
	settle(&p);
	pair_close(&p);

	/* Bound: ENABLE succeeds without the restriction, and getcaps says so. */
	p = pair_listen(f->server, IPPROTO_MPTCP);
	c = tcp_socket(f->domain);
	REQUIRE(!do_bind(c, f->p1));
	OK(set_int(c, TCP_MULTIPATH_ENABLE, 1));
	CHECK_INT(raw_protocol(c), IPPROTO_MPTCP);
	CHECK_STR(laddrs_np(c), f->s1);
	check_caps(c);
	pair_connect(&p, f->server, c);
	CHECK_STR(locals(c), f->s1);
	settle(&p);
	pair_close(&p);
}

int main(void)
{
	int i, before = (need_mptcp(), open_fds());

	CHECK_STR(mptcp_errmsg(), "");
	check_caps(-1);
	for (i = 0; i < 3; i++) {
		t_ctx = t_fams[i].name;
		family(&t_fams[i]);
	}
	t_ctx = "";
	CHECK_INT(open_fds(), before);
	return t_done();
}
