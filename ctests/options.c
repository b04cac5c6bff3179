/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * ENABLE replaces the socket: every option that was set, its flags, owner and
 * address must be there afterwards, in both directions; and where MPTCP can't
 * have one, the TCP socket must stay what it was and the words name it.
 *
 * lab:
 * lab: --user
 * lab: --broker= --user
 */
#include "raw.h"
#include <linux/filter.h>

#ifndef SO_BUF_LOCK
#define SO_BUF_LOCK 72
#endif
#ifndef SO_PREFER_BUSY_POLL
#define SO_PREFER_BUSY_POLL 69
#endif
#ifndef TCP_INQ
#define TCP_INQ 36
#endif
#ifndef TCP_TX_DELAY
#define TCP_TX_DELAY 37
#endif
#ifndef IP_LOCAL_PORT_RANGE
#define IP_LOCAL_PORT_RANGE 51
#endif
#ifndef IPV6_FREEBIND
#define IPV6_FREEBIND 78
#endif

/* fate: what ENABLE 1 must do with it */
enum { KEPT, REFUSED, EITHER };

struct opt {
	const char *name;
	int level, opt;
	int value;              /* or, for longer ones, data */
	int fate;
	int root;               /* needs a privilege to be set */
	int only;               /* a family, or 0 */
	const void *data;
	socklen_t len;
};

static const struct timeval tv3 = { 3, 250000 }, tv4 = { 4, 500000 };
static const struct linger lingering = { 1, 7 };
static struct sock_filter accept_all = { BPF_RET | BPF_K, 0, 0, 0xffff };
static struct sock_fprog filter = { 1, &accept_all };

#define I(level, name, value, fate) { #name, level, name, value, fate, 0, 0, NULL, 0 }
#define R(level, name, value, fate) { #name, level, name, value, fate, 1, 0, NULL, 0 }
#define F(level, name, value, fate, family) { #name, level, name, value, fate, 0, family, NULL, 0 }
#define D(level, name, data, fate) { #name, level, name, 0, fate, 0, 0, &(data), sizeof(data) }

static const struct opt options[] = {
	I(SOL_SOCKET, SO_KEEPALIVE, 1, KEPT),
	I(SOL_SOCKET, SO_REUSEADDR, 1, KEPT),
	I(SOL_SOCKET, SO_REUSEPORT, 1, KEPT),
	I(SOL_SOCKET, SO_PRIORITY, 5, KEPT),
	I(SOL_SOCKET, SO_RCVBUF, 60000, KEPT),
	I(SOL_SOCKET, SO_SNDBUF, 50000, KEPT),
	I(SOL_SOCKET, SO_RCVLOWAT, 9, KEPT),
	I(SOL_SOCKET, SO_TIMESTAMP, 1, KEPT),
	I(SOL_SOCKET, SO_INCOMING_CPU, 1, EITHER),
	R(SOL_SOCKET, SO_MARK, 77, KEPT),
	R(SOL_SOCKET, SO_DEBUG, 1, KEPT),
	R(SOL_SOCKET, SO_BUSY_POLL, 40, KEPT),
	R(SOL_SOCKET, SO_PREFER_BUSY_POLL, 1, KEPT),
	D(SOL_SOCKET, SO_LINGER, lingering, KEPT),
	D(SOL_SOCKET, SO_RCVTIMEO, tv3, KEPT),
	D(SOL_SOCKET, SO_SNDTIMEO, tv4, KEPT),
	{ "SO_BINDTODEVICE", SOL_SOCKET, SO_BINDTODEVICE, 0, KEPT, 0, 0, "lo", 3 },
	I(IPPROTO_TCP, TCP_NODELAY, 1, KEPT),
	I(IPPROTO_TCP, TCP_CORK, 1, KEPT),
	I(IPPROTO_TCP, TCP_KEEPIDLE, 111, KEPT),
	I(IPPROTO_TCP, TCP_KEEPINTVL, 22, KEPT),
	I(IPPROTO_TCP, TCP_KEEPCNT, 3, KEPT),
	I(IPPROTO_TCP, TCP_MAXSEG, 800, KEPT),
	I(IPPROTO_TCP, TCP_NOTSENT_LOWAT, 16384, KEPT),
	I(IPPROTO_TCP, TCP_INQ, 1, KEPT),
	I(IPPROTO_TCP, TCP_DEFER_ACCEPT, 3, KEPT),
	I(IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1, KEPT),
	{ "TCP_CONGESTION", IPPROTO_TCP, TCP_CONGESTION, 0, KEPT, 0, 0, "reno", 4 },
	F(IPPROTO_IP, IP_TOS, 0x28, KEPT, AF_INET),
	F(IPPROTO_IP, IP_FREEBIND, 1, KEPT, AF_INET),
	F(IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1, KEPT, AF_INET),
	F(IPPROTO_IP, IP_LOCAL_PORT_RANGE, (21100 << 16 | 21000), KEPT, AF_INET),
	F(IPPROTO_IPV6, IPV6_V6ONLY, 1, KEPT, AF_INET6),
	F(IPPROTO_IPV6, IPV6_FREEBIND, 1, KEPT, AF_INET6),

	/* MPTCP sockets don't have these. */
	I(SOL_SOCKET, SO_OOBINLINE, 1, REFUSED),
	I(SOL_SOCKET, SO_MAX_PACING_RATE, 1000000, REFUSED),
	I(SOL_SOCKET, SO_ZEROCOPY, 1, REFUSED),
	{ "SO_ATTACH_FILTER", SOL_SOCKET, SO_ATTACH_FILTER, 0, REFUSED, 1, 0, &filter, sizeof filter },
	I(SOL_SOCKET, SO_BUF_LOCK, 1, EITHER),
	I(IPPROTO_TCP, TCP_USER_TIMEOUT, 12345, REFUSED),
	I(IPPROTO_TCP, TCP_SYNCNT, 3, REFUSED),
	I(IPPROTO_TCP, TCP_LINGER2, 12, REFUSED),
	I(IPPROTO_TCP, TCP_WINDOW_CLAMP, 20000, REFUSED),
	I(IPPROTO_TCP, TCP_THIN_LINEAR_TIMEOUTS, 1, REFUSED),
	I(IPPROTO_TCP, TCP_SAVE_SYN, 1, REFUSED),
	I(IPPROTO_TCP, TCP_TX_DELAY, 100, EITHER),
	F(IPPROTO_IP, IP_TTL, 33, REFUSED, AF_INET),
	F(IPPROTO_IP, IP_MTU_DISCOVER, 2, REFUSED, AF_INET),
	F(IPPROTO_IP, IP_RECVERR, 1, REFUSED, AF_INET),
	F(IPPROTO_IP, IP_MINTTL, 2, REFUSED, AF_INET),
	F(IPPROTO_IPV6, IPV6_TCLASS, 0x28, REFUSED, AF_INET6),
	F(IPPROTO_IPV6, IPV6_UNICAST_HOPS, 33, REFUSED, AF_INET6),

	/* MPTCP takes and forgets them: to lose one unsaid would be wrong. */
	I(SOL_SOCKET, SO_DONTROUTE, 1, EITHER),
	I(SOL_SOCKET, SO_BROADCAST, 1, EITHER),
	I(IPPROTO_TCP, TCP_QUICKACK, 0, EITHER),
};
#define OPTIONS (sizeof options / sizeof options[0])

struct value {
	socklen_t len;
	unsigned char b[64];
};

static struct value get(int fd, const struct opt *o)
{
	struct value v;

	memset(&v, 0, sizeof v);
	v.len = sizeof v.b;
	if (o->opt == SO_ATTACH_FILTER && o->level == SOL_SOCKET)
		v.len = 1;      /* asked for as SO_GET_FILTER: how many instructions */
	if (getsockopt(fd, o->level, o->opt, v.b, &v.len)) {
		v.len = (socklen_t)-1;
		v.b[0] = (unsigned char)errno;
	}
	return v;
}

static int same(struct value a, struct value b)
{
	return a.len == b.len && !memcmp(a.b, b.b, sizeof a.b);
}

/* What must be kept where this kernel's MPTCP sockets have it; older ones lack
 * some: TCP_MAXSEG, TCP_NOTSENT_LOWAT, IP_BIND_ADDRESS_NO_PORT, IP_LOCAL_PORT_RANGE on 6.1. */
static int fate(int domain, const struct opt *o)
{
	int fd, rc;

	if (o->fate != KEPT)
		return o->fate;
	fd = raw_socket(domain);
	rc = o->data ? setsockopt(fd, o->level, o->opt, o->data, o->len)
		: setsockopt(fd, o->level, o->opt, &o->value, sizeof o->value);
	rc = rc && (errno == EOPNOTSUPP || errno == ENOPROTOOPT) ? REFUSED : KEPT;
	close(fd);
	return rc;
}

/* 0: set and it shows; 1: this kernel, family or user can't. */
static int set(int fd, const struct opt *o)
{
	struct value before = get(fd, o);

	if (o->data ? setsockopt(fd, o->level, o->opt, o->data, o->len)
	    : setsockopt(fd, o->level, o->opt, &o->value, sizeof o->value))
		return 1;
	return same(before, get(fd, o)) && o->fate == KEPT;
}

/* Each alone: TCP, to MPTCP, and back. */
static void single(int domain, const struct opt *o)
{
	static char ctx[64];
	struct value v;
	int fd, rc, want;

	if ((o->root && geteuid()) || (o->only && o->only != domain))
		return;
	snprintf(ctx, sizeof ctx, "%s, %s", domain == AF_INET ? "IPv4" : "IPv6", o->name);
	t_ctx = ctx;
	want = fate(domain, o);
	fd = tcp_socket(domain);
	if (set(fd, o)) {
		/* Root of a user namespace may not all. */
		if (!o->root || (errno != EPERM && errno != EACCES))
			t_fail(__FILE__, __LINE__, "can't be set on TCP: %s", strerror(errno));
		close(fd);
		return;
	}
	v = get(fd, o);
	errno = 0;
	rc = set_int(fd, TCP_MULTIPATH_ENABLE, 1);
	if (rc) {
		CHECK(want != KEPT);
		CHECK_INT(errno, EOPNOTSUPP);
		if (!strstr(mptcp_errmsg(), o->name))
			t_fail(__FILE__, __LINE__, "not named: \"%s\"", mptcp_errmsg());
		CHECK_INT(raw_protocol(fd), IPPROTO_TCP);
		CHECK(same(get(fd, o), v));
	} else {
		CHECK(want != REFUSED);
		CHECK_INT(raw_protocol(fd), IPPROTO_MPTCP);
		if (want != REFUSED && !same(get(fd, o), v))
			t_fail(__FILE__, __LINE__, "lost on the way to MPTCP");
		OK(set_int(fd, TCP_MULTIPATH_ENABLE, 0));
		CHECK_INT(raw_protocol(fd), IPPROTO_TCP);
		if (!same(get(fd, o), v))
			t_fail(__FILE__, __LINE__, "lost on the way back");
	}
	close(fd);

	/* Set on an MPTCP socket, and to TCP. */
	if (want == KEPT) {
		fd = (int)OK(mptcp_socket(domain, SOCK_STREAM, 0));
		if (!set(fd, o)) {
			v = get(fd, o);
			OK(set_int(fd, TCP_MULTIPATH_ENABLE, 0));
			CHECK_INT(raw_protocol(fd), IPPROTO_TCP);
			if (!same(get(fd, o), v))
				t_fail(__FILE__, __LINE__, "lost from MPTCP to TCP");
		} else
			t_fail(__FILE__, __LINE__, "can't be set on MPTCP: %s", strerror(errno));
		close(fd);
	}
}

/* All that can be kept at once, with flags, owner and address. */
static void together(int domain)
{
	const char *host = domain == AF_INET ? "10.1.0.1" : "fd01::1";
	struct value v[OPTIONS];
	int set_at[OPTIONS], fd, other, i, step, port;
	struct f_owner_ex owner, got;

	t_ctx = domain == AF_INET ? "IPv4, together" : "IPv6, together";
	fd = tcp_socket(domain);
	port = domain == AF_INET ? 45100 : 45101;
	for (i = 0; i < (int)OPTIONS; i++) {
		const struct opt *o = &options[i];

		set_at[i] = !(o->root && geteuid()) && !(o->only && o->only != domain)
			&& fate(domain, o) == KEPT;
		/* Without these two: nobody else may get the port. */
		if (o->level == SOL_SOCKET && (o->opt == SO_REUSEADDR || o->opt == SO_REUSEPORT))
			set_at[i] = 0;
		if (set_at[i] && set(fd, o)) {
			set_at[i] = 0;
			if (!o->root || (errno != EPERM && errno != EACCES))
				t_fail(__FILE__, __LINE__, "%s can't be set: %s", o->name, strerror(errno));
		}
	}
	REQUIRE(!do_bind(fd, at(host, port)));
	for (i = 0; i < (int)OPTIONS; i++)
		v[i] = get(fd, &options[i]);
	owner.type = F_OWNER_PID;
	owner.pid = getpid();
	REQUIRE(!fcntl(fd, F_SETOWN_EX, &owner));
	REQUIRE(!fcntl(fd, F_SETSIG, SIGUSR2));
	REQUIRE(!fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK));
	REQUIRE(!fcntl(fd, F_SETFD, FD_CLOEXEC));

	for (step = 0; step < 3; step++) {      /* MPTCP, TCP, MPTCP */
		OK(set_int(fd, TCP_MULTIPATH_ENABLE, step != 1));
		CHECK_INT(raw_protocol(fd), step != 1 ? IPPROTO_MPTCP : IPPROTO_TCP);
		for (i = 0; i < (int)OPTIONS; i++)
			if (set_at[i] && !same(get(fd, &options[i]), v[i]))
				t_fail(__FILE__, __LINE__, "step %d: %s lost", step, options[i].name);
		CHECK_STR(sockname(fd), host);
		CHECK_INT(sockport(fd), port);
		CHECK(fcntl(fd, F_GETFL) & O_NONBLOCK);
		CHECK_INT(fcntl(fd, F_GETFD), FD_CLOEXEC);
		memset(&got, 0, sizeof got);
		CHECK(!fcntl(fd, F_GETOWN_EX, &got));
		CHECK(got.type == F_OWNER_PID && got.pid == getpid());
		CHECK_INT(fcntl(fd, F_GETSIG), SIGUSR2);
		/* Only for the moment of the exchange could two have the port. */
		other = tcp_socket(domain);
		CHECK(do_bind(other, at(host, port)) < 0 && errno == EADDRINUSE);
		close(other);
	}
	close(fd);
	/* And nothing keeps it. */
	fd = tcp_socket(domain);
	CHECK_INT(do_bind(fd, at(host, port)), 0);
	close(fd);
}

/* Buffers that nobody set must go on growing by themselves. */
static void autotuning(int domain)
{
	int fd = tcp_socket(domain), fresh, a, b, i, lock;
	socklen_t len = sizeof a;

	t_ctx = "autotuning";
	OK(set_int(fd, TCP_MULTIPATH_ENABLE, 1));
	fresh = raw_socket(domain);
	for (i = 0; i < 2; i++) {
		int opt = i ? SO_SNDBUF : SO_RCVBUF;

		CHECK(!getsockopt(fd, SOL_SOCKET, opt, &a, &len));
		CHECK(!getsockopt(fresh, SOL_SOCKET, opt, &b, &len));
		CHECK_INT(a, b);
	}
	CHECK(!getsockopt(fd, SOL_SOCKET, SO_BUF_LOCK, &lock, &len));
	CHECK_INT(lock, 0);
	OK(set_int(fd, TCP_MULTIPATH_ENABLE, 0));
	CHECK(!getsockopt(fd, SOL_SOCKET, SO_BUF_LOCK, &lock, &len));
	CHECK_INT(lock, 0);
	close(fd);
	close(fresh);

	/* One of the two was set: that one is locked, with its size; the other isn't. */
	fd = tcp_socket(domain);
	a = 30000;
	REQUIRE(!setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &a, sizeof a));
	REQUIRE(!getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &a, &len));
	OK(set_int(fd, TCP_MULTIPATH_ENABLE, 1));
	CHECK(!getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &b, &len));
	CHECK_INT(b, a);
	CHECK(!getsockopt(fd, SOL_SOCKET, SO_BUF_LOCK, &lock, &len));
	CHECK_INT(lock, 2);     /* SOCK_RCVBUF_LOCK */
	close(fd);
}

/* One refused option among many: nothing at all has changed. */
static void refused(int domain)
{
	const char *host = domain == AF_INET ? "10.1.0.1" : "fd01::1";
	int fd = tcp_socket(domain), port, v = 9000, on = 1;
	struct stat a, b;
	struct pair p;
	socklen_t len = sizeof v;

	t_ctx = "refused";
	REQUIRE(!setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &v, sizeof v));
	REQUIRE(!setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on));
	REQUIRE(!do_bind(fd, host));
	port = sockport(fd);
	REQUIRE(!fcntl(fd, F_SETFD, FD_CLOEXEC));
	REQUIRE(!fstat(fd, &a));
	FAILS(EOPNOTSUPP, set_int(fd, TCP_MULTIPATH_ENABLE, 1));
	CHECK(strstr(mptcp_errmsg(), "TCP_USER_TIMEOUT") != NULL);
	REQUIRE(!fstat(fd, &b));
	CHECK(a.st_ino == b.st_ino);            /* the very same socket */
	CHECK_INT(enabled(fd), 0);
	CHECK_INT(sockport(fd), port);
	CHECK_INT(fcntl(fd, F_GETFD), FD_CLOEXEC);
	v = 0;
	CHECK(!getsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &v, &len) && v == 9000);
	v = 0;
	CHECK(!getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &v, &len) && v == 1);
	/* And usable. */
	p = pair_listen(domain == AF_INET ? "10.9.0.1" : "fd09::1", IPPROTO_MPTCP);
	pair_connect(&p, domain == AF_INET ? "10.9.0.1" : "fd09::1", fd);
	CHECK_STR(sockname(fd), host);
	settle(&p);
	pair_close(&p);
}

/* What was kept also works: a connection through all of it. */
static void used(int domain)
{
	const char *server = domain == AF_INET ? "10.9.0.1" : "fd09::1";
	struct pair p = pair_listen(server, IPPROTO_MPTCP);
	int fd = tcp_socket(domain), on = 1, v = 0, i;
	char name[16] = "";
	socklen_t len;

	t_ctx = "used";
	REQUIRE(!setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on));
	REQUIRE(!setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4));
	for (i = 0; i < 5; i++)
		OK(set_int(fd, TCP_MULTIPATH_ENABLE, i % 2 == 0));
	REQUIRE(!do_bind(fd, domain == AF_INET ? "10.2.0.1" : "fd02::1"));
	OK(set_int(fd, TCP_MULTIPATH_ENABLE, 1));
	pair_connectx(&p, server, fd);
	settle(&p);
	CHECK_INT(enabled(fd), 1);
	len = sizeof v;
	CHECK(!getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &v, &len) && v == 1);
	len = sizeof name;
	CHECK(!getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &len));
	CHECK_STR(name, "reno");
	CHECK_INT(pump(&p, 300000, NULL, NULL), 0);
	pair_close(&p);
}

/* FREEBIND: an address that is not there yet. */
static void freebind(void)
{
	int fd = tcp_socket(AF_INET), on = 1, port;

	t_ctx = "freebind";
	REQUIRE(!setsockopt(fd, IPPROTO_IP, IP_FREEBIND, &on, sizeof on));
	REQUIRE(!do_bind(fd, "10.88.0.1"));
	port = sockport(fd);
	OK(set_int(fd, TCP_MULTIPATH_ENABLE, 1));
	CHECK_STR(sockname(fd), "10.88.0.1");
	CHECK_INT(sockport(fd), port);
	close(fd);
}

/* A switch to per-connection control loses two options: they must be put back. */
static void switched(void)
{
	struct pair p = pair_listen("10.9.0.1", IPPROTO_MPTCP);
	int fd = (int)OK(mptcp_socket(AF_INET, SOCK_STREAM, 0)), v = 700, maxseg;
	char name[16] = "";
	struct linger l;
	socklen_t len;

	t_ctx = "switched";
	REQUIRE(!setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4));
	maxseg = !setsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &v, sizeof v);
	CHECK(maxseg || errno == ENOPROTOOPT || errno == EOPNOTSUPP);   /* before 6.17 */
	REQUIRE(!setsockopt(fd, SOL_SOCKET, SO_LINGER, &lingering, sizeof lingering));
	OK(add(fd, "10.1.0.1 10.2.0.1"));
	len = sizeof name;
	CHECK(!getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &len));
	CHECK_STR(name, "reno");
	len = sizeof v;
	if (maxseg)
		CHECK(!getsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &v, &len) && v == 700);
	len = sizeof l;
	CHECK(!getsockopt(fd, SOL_SOCKET, SO_LINGER, &l, &len) && l.l_onoff && l.l_linger == 7);
	pair_connectx(&p, "10.9.0.1", fd);
	settle(&p);
	AWAIT(count_subflows(fd) == 2);
	len = sizeof name;
	CHECK(!getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &len));
	CHECK_STR(name, "reno");
	l.l_onoff = 0;
	REQUIRE(!setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l));
	pair_close(&p);
}

int main(void)
{
	int before = (need_mptcp(), open_fds());
	size_t i;

	for (i = 0; i < OPTIONS; i++) {
		single(AF_INET, &options[i]);
		single(AF_INET6, &options[i]);
	}
	together(AF_INET);
	together(AF_INET6);
	autotuning(AF_INET);
	autotuning(AF_INET6);
	refused(AF_INET);
	refused(AF_INET6);
	used(AF_INET);
	used(AF_INET6);
	freebind();
	if (t_control())
		switched();
	t_ctx = "";
	CHECK(open_fds() - before <= t_own_fds());
	return t_done();
}
