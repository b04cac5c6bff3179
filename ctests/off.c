/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * MPTCP switched off in the namespace (net.mptcp.enabled=0), or a kernel without
 * it: everything goes on as TCP, and says so.
 *
 * lab:
 * lab: --userspace
 * lab: --broker= T_USER=1
 */
#include "raw.h"

static void off(const struct fam *f, int old)
{
	struct pair p = pair_listen(f->server, IPPROTO_TCP);
	struct mptcp_subflow_stats *list = NULL;
	struct mptcp_conn_stats conn;
	struct mptcp_caps caps;
	static const int protocols[] = { 0, IPPROTO_TCP, IPPROTO_MPTCP };
	uint32_t id;
	int i, v = 1, c;
	socklen_t len;

	for (i = 0; i < 3; i++) {
		c = (int)OK(mptcp_socket(f->domain, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC,
					 protocols[i]));
		CHECK_INT(raw_protocol(c), IPPROTO_TCP);
		CHECK(fcntl(c, F_GETFL) & O_NONBLOCK);
		CHECK(fcntl(c, F_GETFD) & FD_CLOEXEC);
		CHECK_INT(enabled(c), 0);
		close(c);
	}

	/* ENABLE is refused and leaves the TCP socket as it was. */
	c = tcp_socket(f->domain);
	REQUIRE(!do_bind(c, f->p1));
	REQUIRE(!setsockopt(c, SOL_SOCKET, SO_KEEPALIVE, &v, sizeof v));
	i = sockport(c);
	FAILS(EOPNOTSUPP, set_int(c, TCP_MULTIPATH_ENABLE, 1));
	OK(set_int(c, TCP_MULTIPATH_ENABLE, 0));
	CHECK_INT(raw_protocol(c), IPPROTO_TCP);
	CHECK_STR(sockname(c), f->p1);
	CHECK_INT(sockport(c), i);
	len = sizeof v;
	CHECK(!getsockopt(c, SOL_SOCKET, SO_KEEPALIVE, &v, &len) && v == 1);
	CHECK_INT(enabled(c), 0);
	FAILS(EOPNOTSUPP, add(c, f->p1));
	FAILS(EOPNOTSUPP, rem(c, f->p1));
	OK(mptcp_getcaps(c, &caps, sizeof caps));
	CHECK_INT(caps.works & (MPTCP_CAP_ENABLE | MPTCP_CAP_ADD_BEFORE | MPTCP_CAP_ADD_LIVE
				| MPTCP_CAP_LISTEN), 0);
	CHECK(caps.known & MPTCP_CAP_ENABLE);
	CHECK(*caps.reason);
	id = 77;
	OK(connx(c, at(f->server, p.port), &id));
	CHECK_INT(id, 0);
	p.c = c;
	p.s = t_accept(p.l);
	CHECK_STR(locals(c), f->s1);
	settle(&p);
	CHECK_INT(OK(mptcp_getallstats(c, &conn, sizeof conn, &list, sizeof *list)), 1);
	CHECK_INT(conn.flags, MPTCP_CONN_FALLBACK);
	CHECK_INT(conn.bytes_sent, 2000);
	CHECK_INT(list->share_sent_ppm, 1000000);
	CHECK_INT(list->subflow.flags, MPTCP_SUBFLOW_INITIAL | MPTCP_SUBFLOW_FALLBACK);
	mptcp_freeallstats(list);
	OK(mptcp_getcaps(c, &caps, sizeof caps));
	CHECK(caps.works & MPTCP_CAP_CONN_STATS && caps.works & MPTCP_CAP_SUBFLOW_STATS);
	pair_close(&p);

	OK(mptcp_getcaps(-1, &caps, sizeof caps));
	CHECK_INT(caps.works & (MPTCP_CAP_ENABLE | MPTCP_CAP_ADD_BEFORE | MPTCP_CAP_ADD_LIVE), 0);
	CHECK(*caps.reason);

	if (old < 0)
		return;
	/* A socket made before is MPTCP still, and can be made TCP. */
	CHECK_INT(enabled(old), 1);
	OK(set_int(old, TCP_MULTIPATH_ENABLE, 1));
	CHECK_INT(enabled(old), 1);
	OK(set_int(old, TCP_MULTIPATH_ENABLE, 0));
	CHECK_INT(raw_protocol(old), IPPROTO_TCP);
	FAILS(EOPNOTSUPP, set_int(old, TCP_MULTIPATH_ENABLE, 1));
	close(old);
}

int main(void)
{
	struct mptcp_caps caps;
	int i, old[3], fd, before = open_fds();

	if (access("/proc/sys/net/mptcp/enabled", F_OK)) {
		for (i = 0; i < 3; i++) {
			t_ctx = t_fams[i].name;
			off(&t_fams[i], -1);
		}
		return t_done();
	}
	for (i = 0; i < 3; i++)
		old[i] = (int)OK(mptcp_socket(t_fams[i].domain, SOCK_STREAM, 0));
	sh("echo 0 > /proc/sys/net/mptcp/enabled");
	for (i = 0; i < 3; i++) {
		t_ctx = t_fams[i].name;
		off(&t_fams[i], old[i]);
	}
	t_ctx = "";
	/* And on again: nothing was remembered. */
	sh("echo 1 > /proc/sys/net/mptcp/enabled");
	fd = (int)OK(mptcp_socket(AF_INET, SOCK_STREAM, 0));
	CHECK_INT(enabled(fd), 1);
	OK(add(fd, "10.1.0.1"));
	close(fd);
	OK(mptcp_getcaps(-1, &caps, sizeof caps));
	CHECK(caps.works & MPTCP_CAP_ENABLE);
	CHECK(open_fds() - before <= t_own_fds());
	return t_done();
}
