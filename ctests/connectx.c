/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * mptcp_connectx(): several addresses of one peer in turn, blocking and in
 * steps, interrupted, bounded by SO_SNDTIMEO; with and without a list, on MPTCP
 * and TCP sockets, with and without anybody who can act on paths.
 *
 * lab:
 * lab: --user
 * lab: --userspace
 * lab: --broker= --user
 */
#include "raw.h"

static int control;
static char text[512];

/* kind 0: TCP; 1: MPTCP; 2: MPTCP with a list. */
static int make(const struct fam *f, int kind)
{
	int fd = kind ? (int)OK(mptcp_socket(f->domain, SOCK_STREAM | SOCK_CLOEXEC, 0))
		: tcp_socket(f->domain);

	REQUIRE(fd >= 0);
	if (kind == 2)
		OK(add(fd, f->p1));
	return fd;
}

/* A port where nobody listens. */
static int dead_port(const struct fam *f)
{
	int port, l = listen_at(f->server, IPPROTO_TCP, 1);

	port = sockport(l);
	close(l);
	return port;
}

static const char *both(const char *a, const char *b)
{
	snprintf(text, sizeof text, "%s %s", a, b);
	return text;
}

static void check_connected(struct pair *p, const struct fam *f, int kind, uint32_t id)
{
	CHECK_INT(id, kind ? connid(p->c) : 0);
	CHECK(!kind || id);
	if (kind == 2)
		CHECK_STR(locals(p->c), f->s1);
	settle(p);
	CHECK_INT(enabled(p->c), kind != 0);
}

static void blocking(const struct fam *f, int kind)
{
	struct pair p = pair_listen(f->server, IPPROTO_MPTCP);
	uint32_t id = 77;
	int c = make(f, kind), dead = dead_port(f);

	/* All refused: the last one's errno, nothing written. */
	FAILS(ECONNREFUSED, connx(c, at(f->server, dead), &id));
	FAILS(ECONNREFUSED, connx(c, both(at(f->server, dead), at(f->p3, dead)), &id));
	CHECK_INT(id, 77);
	CHECK_INT(enabled(c), kind != 0);
	if (kind == 2)
		CHECK_STR(laddrs_np(c), f->s1);         /* the list has outlived it */
	/* The first refused, the second answers; connid may be NULL (see pair_connectx). */
	OK(connx(c, both(at(f->server, dead), at(f->server, p.port)), &id));
	p.c = c;
	p.s = t_accept(p.l);
	check_connected(&p, f, kind, id);
	/* Again: connected to one of the list is 0, to none of it EISCONN. */
	id = 77;
	OK(connx(c, both(at(f->server, dead), at(f->server, p.port)), &id));
	CHECK_INT(id, kind ? connid(c) : 0);
	id = 77;
	FAILS(EISCONN, connx(c, at(f->server, dead), &id));
	CHECK_INT(id, 77);
	settle(&p);
	pair_close(&p);
}

static int poll_out(int fd)
{
	struct pollfd pf;

	pf.fd = fd;
	pf.events = POLLOUT;
	return poll(&pf, 1, 5000);
}

static void in_steps(const struct fam *f, int kind)
{
	struct pair p = pair_listen(f->server, IPPROTO_MPTCP);
	uint32_t id = 77;
	int c = make(f, kind), dead = dead_port(f), dead2 = dead_port(f), rc, n, l, filler;
	struct list peers;

	nonblock(c);
	snprintf(text, sizeof text, "%s %s %s", at(f->server, dead), at(f->p3, dead2),
		 at(f->server, p.port));
	peers = addrs(text);
	FAILS2(EINPROGRESS, ECONNREFUSED, mptcp_connectx(c, SA(&peers), peers.n, &id));
	CHECK_INT(errno, EINPROGRESS);
	CHECK_INT(id, 77);
	for (n = 0, rc = -1; n < 20 && rc; n++) {
		CHECK_INT(poll_out(c), 1);
		errno = SENTINEL;
		rc = mptcp_connectx(c, SA(&peers), peers.n, &id);
		if (!rc)
			CHECK_INT(errno, SENTINEL);
		else if (errno != EINPROGRESS && errno != EALREADY) {
			t_fail(__FILE__, __LINE__, "step %d: %d, errno %d %s", n, rc, errno, strerror(errno));
			break;
		}
	}
	CHECK_INT(rc, 0);
	CHECK(n <= 4);          /* one step a peer; a spurious one is allowed */
	p.c = c;
	p.s = t_accept(p.l);
	CHECK_STR(remotes(c), f->shown_server);
	check_connected(&p, f, kind, id);
	pair_close(&p);

	/* All refused. */
	c = make(f, kind);
	nonblock(c);
	peers = addrs(both(at(f->server, dead), at(f->p3, dead2)));
	id = 77;
	FAILS(EINPROGRESS, mptcp_connectx(c, SA(&peers), peers.n, &id));
	for (n = 0; n < 20; n++) {
		CHECK_INT(poll_out(c), 1);
		CHECK_INT(mptcp_connectx(c, SA(&peers), peers.n, &id), -1);
		if (errno != EINPROGRESS && errno != EALREADY)
			break;
	}
	CHECK_INT(errno, ECONNREFUSED);
	CHECK_INT(id, 77);
	if (kind == 2)
		CHECK_STR(laddrs_np(c), f->s1);
	/* And from the beginning, now with somebody there. */
	p = pair_listen(f->server, IPPROTO_MPTCP);
	peers = addrs(at(f->server, p.port));
	if (mptcp_connectx(c, SA(&peers), peers.n, &id) < 0) {
		CHECK_INT(errno, EINPROGRESS);
		CHECK_INT(poll_out(c), 1);
		OK(mptcp_connectx(c, SA(&peers), peers.n, &id));
	}
	p.c = c;
	p.s = t_accept(p.l);
	check_connected(&p, f, kind, id);
	pair_close(&p);

	/* Still under way: EALREADY, as often as one asks. */
	l = full_listener(f->server, &filler);
	c = make(f, kind);
	nonblock(c);
	peers = addrs(at(f->server, sockport(l)));
	FAILS(EINPROGRESS, mptcp_connectx(c, SA(&peers), peers.n, NULL));
	for (n = 0; n < 5; n++)
		FAILS(EALREADY, mptcp_connectx(c, SA(&peers), peers.n, NULL));
	CHECK_INT(enabled(c), kind != 0);
	if (kind == 2) {
		CHECK_STR(laddrs_np(c), f->s1);
		/* While connecting a list that exists may grow. */
		OK(add(c, f->p2));
		OK(rem(c, f->p2));
	} else if (kind == 1 && control)
		FAILS(EOPNOTSUPP, add(c, f->p2));
	close(c);
	close(filler);
	close(l);
}

static volatile sig_atomic_t rings;

static void ring(int sig)
{
	(void)sig;
	rings++;
}

static void alarm_in(long us)
{
	struct itimerval it;

	memset(&it, 0, sizeof it);
	it.it_value.tv_usec = us;
	REQUIRE(!setitimer(ITIMER_REAL, &it, NULL));
}

/* EINTR: the connection goes on; the same call takes it up again. */
static void interrupted(const struct fam *f, int kind)
{
	int c = make(f, kind), filler, l = full_listener(f->server, &filler), s;
	struct list peers = addrs(at(f->server, sockport(l)));
	struct sigaction sa;
	uint32_t id = 77;
	struct pair p;

	memset(&sa, 0, sizeof sa);
	sa.sa_handler = ring;
	REQUIRE(!sigaction(SIGALRM, &sa, NULL));
	rings = 0;
	alarm_in(50000);
	FAILS(EINTR, mptcp_connectx(c, SA(&peers), peers.n, &id));
	CHECK_INT(rings, 1);
	CHECK_INT(id, 77);
	close(t_accept(l));             /* room again: the next SYN is answered */
	OK(mptcp_connectx(c, SA(&peers), peers.n, &id));
	s = t_accept(l);
	CHECK_INT(id, 0);               /* that listener speaks plain TCP */
	memset(&p, 0, sizeof p);
	p.l = l;
	p.c = c;
	p.s = s;
	settle(&p);
	if (kind == 2)
		CHECK_STR(locals(c), f->s1);
	pair_close(&p);
	close(filler);
}

static short t_poll(int fd)
{
	struct pollfd p;

	p.fd = fd;
	p.events = 0;
	p.revents = 0;
	poll(&p, 1, 0);
	return p.revents;
}

/* SO_SNDTIMEO bounds all attempts together. */
static void bounded(const struct fam *f, int kind)
{
	int c = make(f, kind), filler, filler2, l = full_listener(f->server, &filler);
	int l2 = full_listener(f->p3, &filler2);
	struct timeval tv = { 0, 200000 };
	double t;

	REQUIRE(!setsockopt(c, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv));
	t = t_now();
	/* As connect(2) says it: EINPROGRESS; the table also has ETIMEDOUT. */
	FAILS2(EINPROGRESS, ETIMEDOUT, connx(c, both(at(f->server, sockport(l)),
						     at(f->p3, sockport(l2))), NULL));
	t = t_now() - t;
	CHECK(t > 0.15 && t < 0.6);
	/* The last attempt goes on: calling again waits for it again, and again. */
	if (errno == EINPROGRESS) {
		char last[128];

		snprintf(last, sizeof last, "%s", both(at(f->server, sockport(l)), at(f->p3, sockport(l2))));
		FAILS(EINPROGRESS, connx(c, last, NULL));
		FAILS(EINPROGRESS, connx(c, last, NULL));
		CHECK(!(t_poll(c) & POLLHUP));
	}
	close(c);
	close(filler);
	close(filler2);
	close(l);
	close(l2);
}

/* Nobody listens to signals in all other calls. */
static void storm(const struct fam *f)
{
	struct pair p = pair_listen(f->server, IPPROTO_MPTCP);
	struct itimerval it;
	struct sigaction sa;
	int i;

	memset(&sa, 0, sizeof sa);
	sa.sa_handler = ring;
	REQUIRE(!sigaction(SIGALRM, &sa, NULL));
	memset(&it, 0, sizeof it);
	it.it_value.tv_usec = it.it_interval.tv_usec = 300;
	pair_connectx(&p, f->server, make(f, 2));
	settle(&p);
	rings = 0;
	REQUIRE(!setitimer(ITIMER_REAL, &it, NULL));
	for (i = 0; i < 100 || rings < 50; i++) {
		OK(add(p.c, f->p2));
		OK(count_subflows(p.c));
		OK(mptcp_getcaps(p.c, (struct mptcp_caps *)(void *)text, 256));
		OK(rem(p.c, f->p2));
	}
	memset(&it, 0, sizeof it);
	REQUIRE(!setitimer(ITIMER_REAL, &it, NULL));
	CHECK(rings >= 50);
	settle(&p);
	pair_close(&p);
}

/* A port of any address is no address of the list's, and Linux binds to no second one. */
static void port_of_any(const struct fam *f)
{
	struct pair p = pair_listen(f->server, IPPROTO_MPTCP);
	const char *any = f->domain == AF_INET6 ? "::" : "0.0.0.0";
	int c = make(f, 1), port = dead_port(f);

	REQUIRE(!do_bind(c, at(any, port)));
	OK(add(c, f->p1));
	FAILS(EINVAL, connx(c, at(f->server, p.port), NULL));
	CHECK(strstr(mptcp_errmsg(), "bound to port"));
	CHECK_INT(sockport(c), port);
	close(c);
	pair_close(&p);
}

int main(void)
{
	int i, kind, before = (need_mptcp(), open_fds());

	control = t_control();
	for (i = 0; i < 3; i++)
		for (kind = 0; kind < (control ? 3 : 2); kind++) {
			char ctx[64];

			snprintf(ctx, sizeof ctx, "%s, kind %d", t_fams[i].name, kind);
			t_ctx = ctx;
			blocking(&t_fams[i], kind);
			in_steps(&t_fams[i], kind);
			if (i < 2)
				bounded(&t_fams[i], kind);
			if (i == 0)
				interrupted(&t_fams[i], kind);
			if (kind == 2)
				port_of_any(&t_fams[i]);
		}
	t_ctx = "";
	if (control)
		storm(&t_fams[0]);
	CHECK(open_fds() - before <= t_own_fds());
	return t_done();
}
