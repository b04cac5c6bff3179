/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Events (RFC 6897 REQ14): both ends of each connection are the test's own, so
 * that what one does is what the other hears.
 *
 * lab:
 * lab: --userspace
 * lab: --broker= T_USER=1
 * lab: --user
 */
#include "raw.h"

#include <sys/epoll.h>
#include <sys/select.h>

static int readable(int fd, int ms)
{
	struct pollfd p = { fd, POLLIN, 0 };

	return poll(&p, 1, ms) == 1;
}

static int subscribe(int fd, uint32_t events)
{
	int evfd = (int)OK(mptcp_subscribe(fd, events));

	REQUIRE(evfd >= 0);
	return evfd;
}

/* The next event within 5 s; nothing but the descriptor says when. 0 at the end. */
static int next_event(int evfd, struct mptcp_event *e)
{
	double end = t_now() + 5;
	int rc;

	do {
		memset(e, 0xaa, sizeof *e);
		rc = mptcp_nextevent(evfd, e, sizeof *e);
		if (rc >= 0)
			return rc;
		REQUIRE(errno == EAGAIN);
		readable(evfd, 1000);
	} while (t_now() < end);
	return -1;
}

#define EXPECT(evfd, kind) t_expect(__LINE__, evfd, kind, #kind)
static struct mptcp_event t_expect(int line, int evfd, uint32_t kind, const char *name)
{
	struct mptcp_event e;
	int rc = next_event(evfd, &e);

	if (rc != 1)
		t_fail(__FILE__, line, "%s instead of %s", rc ? "nothing within 5 s" : "the end", name);
	else if (e.what != kind)
		t_fail(__FILE__, line, "event %#x (connid %u, %s - %s, error %d, origin %u) instead of %s", e.what,
		       e.connid, show(&e.subflow.local, 1), show(&e.subflow.remote, 1), e.error, e.origin, name);
	if (rc != 1 || e.what != kind)
		exit(1);
	CHECK(e.reserved[0] == 0 && e.reserved[1] == 0 && e.subflow.reserved[0] == 0);
	CHECK(e.time_ns / 1e9 <= t_now() && e.time_ns / 1e9 > t_now() - 60);
	return e;
}

static void none(int evfd)
{
	struct mptcp_event e;

	FAILS(EAGAIN, mptcp_nextevent(evfd, &e, sizeof e));
}

/* Whether it ends within 5 s; nothing is asked before the descriptor says so. */
static int ended(int evfd)
{
	double end = t_now() + 5;
	struct mptcp_event e;
	int rc = -1;

	while (rc < 0 && t_now() < end && readable(evfd, 5000))
		rc = mptcp_nextevent(evfd, &e, sizeof e);
	if (rc == 1)
		fprintf(stderr, "event %#x instead of the end\n", e.what);
	return !rc;
}

static const char *local(const struct mptcp_event *e)
{
	return show(&e->subflow.local, 0);
}

static int fresh(const struct fam *f)
{
	int fd = (int)OK(mptcp_socket(f->domain, SOCK_STREAM | SOCK_CLOEXEC, 0));

	REQUIRE(fd >= 0);
	return fd;
}

/* What is no subscription, and what can't be one. */
static void arguments(void)
{
	struct mptcp_event e;
	unsigned char room[4200];
	int tcp = tcp_socket(AF_INET), udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int epoll = epoll_create1(EPOLL_CLOEXEC), pipes[2], evfd, i;

	REQUIRE(!pipe2(pipes, O_CLOEXEC));
	FAILS(EBADF, mptcp_subscribe(-2, MPTCP_EV_ALL));
	FAILS(EBADF, mptcp_subscribe(4000, MPTCP_EV_ALL));
	FAILS(ENOTSOCK, mptcp_subscribe(pipes[0], MPTCP_EV_ALL));
	FAILS(EOPNOTSUPP, mptcp_subscribe(udp, MPTCP_EV_ALL));
	FAILS(EBADF, mptcp_nextevent(-1, &e, sizeof e));
	FAILS(EBADF, mptcp_nextevent(4000, &e, sizeof e));
	FAILS(EBADF, mptcp_dispatch(4000, NULL, NULL));
	FAILS(EINVAL, mptcp_nextevent(pipes[0], &e, sizeof e));
	CHECK(strstr(mptcp_errmsg(), "not one of mptcp_subscribe()"));
	FAILS(EINVAL, mptcp_nextevent(tcp, &e, sizeof e));
	FAILS(EINVAL, mptcp_nextevent(epoll, &e, sizeof e));
	FAILS(EINVAL, mptcp_dispatch(epoll, NULL, NULL));
	if (!t_control()) {
		FAILS(EPERM, mptcp_subscribe(-1, MPTCP_EV_ALL));
		FAILS(EPERM, mptcp_subscribe(-1, 0));
		FAILS(EPERM, mptcp_subscribe(tcp, MPTCP_EV_ALL));
	} else {
		FAILS(EOPNOTSUPP, mptcp_subscribe(tcp, MPTCP_EV_ALL));
		FAILS(EINVAL, mptcp_subscribe(-1, 0x10000000));
		FAILS(EINVAL, mptcp_subscribe(-1, 0x20000000 | MPTCP_EV_ALL));
		evfd = subscribe(-1, MPTCP_EV_ALL | MPTCP_EV_OVERFLOW | MPTCP_EV_CURRENT);
		CHECK(fcntl(evfd, F_GETFD) & FD_CLOEXEC);
		CHECK(fcntl(evfd, F_GETFL) & O_NONBLOCK);
		CHECK(!readable(evfd, 0));
		none(evfd);
		FAILS(EFAULT, mptcp_nextevent(evfd, NULL, sizeof e));
		FAILS(EINVAL, mptcp_nextevent(evfd, &e, 0));
		FAILS(EINVAL, mptcp_nextevent(evfd, &e, 3));
		FAILS(E2BIG, mptcp_nextevent(evfd, (struct mptcp_event *)(void *)room, 4097));
		CHECK_INT(OK(mptcp_dispatch(evfd, NULL, NULL)), 0);
		close(evfd);
		FAILS(EBADF, mptcp_nextevent(evfd, &e, sizeof e));
		/* The number is another's now. */
		i = epoll_create1(EPOLL_CLOEXEC);
		FAILS(EINVAL, mptcp_nextevent(i, &e, sizeof e));
		close(i);
		evfd = subscribe(-1, 0);
		CHECK_INT(OK(mptcp_dispatch(evfd, NULL, NULL)), 0);
		none(evfd);
		close(evfd);
	}
	close(tcp);
	close(udp);
	close(epoll);
	close(pipes[0]);
	close(pipes[1]);
}

/* From before the connection to after it, as either end hears it. */
static void story(const struct fam *f)
{
	struct pair p = pair_listen(f->server, IPPROTO_MPTCP);
	struct mptcp_event e;
	int evfd, theirs, c = fresh(f);
	char text[80];

	evfd = subscribe(c, MPTCP_EV_ALL);
	none(evfd);
	OK(add(c, f->p1));
	none(evfd);
	pair_connectx(&p, f->server, c);
	e = EXPECT(evfd, MPTCP_EV_UP);
	CHECK_INT(e.connid, connid(c));
	CHECK_INT(e.origin, MPTCP_ORIGIN_APP);
	CHECK_INT(e.subflow.flags & MPTCP_SUBFLOW_INITIAL, MPTCP_SUBFLOW_INITIAL);
	snprintf(text, sizeof text, "%s/%d", f->s1, sockport(c));
	CHECK_STR(show(&e.subflow.local, 1), text);
	snprintf(text, sizeof text, "%s/%d", f->shown_server, p.port);
	CHECK_STR(show(&e.subflow.remote, 1), text);
	theirs = subscribe(p.s, MPTCP_EV_ALL | MPTCP_EV_CURRENT);
	e = EXPECT(theirs, MPTCP_EV_UP);
	CHECK_INT(e.connid, connid(p.s));
	CHECK_STR(local(&e), f->shown_server);
	none(theirs);
	settle(&p);
	none(evfd);

	OK(add_flags(c, f->p2, MPTCP_BINDX_BACKUP));
	e = EXPECT(evfd, MPTCP_EV_SUBFLOW_UP);
	CHECK_STR(local(&e), f->s2);
	CHECK_INT(e.origin, MPTCP_ORIGIN_APP);
	CHECK_INT(e.subflow.flags, MPTCP_SUBFLOW_PRIO_KNOWN | MPTCP_SUBFLOW_BACKUP);
	e = EXPECT(theirs, MPTCP_EV_SUBFLOW_UP);
	CHECK_STR(show(&e.subflow.remote, 0), f->s2);
	CHECK_INT(e.origin, MPTCP_ORIGIN_PEER);
	if (late_backup()) {
		CHECK_INT(e.subflow.flags & MPTCP_SUBFLOW_PEER_BACKUP, 0);
		e = EXPECT(theirs, MPTCP_EV_PRIORITY);
	}
	CHECK_INT(e.subflow.flags & MPTCP_SUBFLOW_PEER_BACKUP, MPTCP_SUBFLOW_PEER_BACKUP);
	OK(add(c, f->p2));
	e = EXPECT(evfd, MPTCP_EV_PRIORITY);
	if (late_backup() && e.subflow.flags & MPTCP_SUBFLOW_BACKUP)
		e = EXPECT(evfd, MPTCP_EV_PRIORITY);
	CHECK_STR(local(&e), f->s2);
	CHECK_INT(e.origin, MPTCP_ORIGIN_APP);
	CHECK_INT(e.subflow.flags, MPTCP_SUBFLOW_PRIO_KNOWN);
	e = EXPECT(theirs, MPTCP_EV_PRIORITY);
	CHECK_INT(e.origin, MPTCP_ORIGIN_PEER);
	CHECK_INT(e.subflow.flags & MPTCP_SUBFLOW_PEER_BACKUP, 0);
	OK(rem(c, f->p2));
	e = EXPECT(evfd, MPTCP_EV_SUBFLOW_DOWN);
	CHECK_STR(local(&e), f->s2);
	CHECK_INT(e.origin, MPTCP_ORIGIN_APP);
	CHECK_INT(e.error, 0);
	do
		REQUIRE(next_event(theirs, &e) == 1);
	while (e.what == MPTCP_EV_PEER_ADDR_GONE);
	CHECK_INT(e.what, MPTCP_EV_SUBFLOW_DOWN);
	CHECK_STR(show(&e.subflow.remote, 0), f->s2);
	none(evfd);

	/* The descriptor of the connection goes, in any of its copies; not before the last. */
	c = dup(p.c);
	close(p.c);
	p.c = c;
	settle(&p);
	none(evfd);
	close(p.c);
	p.c = -1;
	e = EXPECT(evfd, MPTCP_EV_DOWN);
	CHECK_INT(e.origin, MPTCP_ORIGIN_APP);
	CHECK(readable(evfd, 5000));
	CHECK_INT(OK(mptcp_nextevent(evfd, &e, sizeof e)), 0);
	CHECK_INT(OK(mptcp_nextevent(evfd, &e, sizeof e)), 0);
	CHECK(readable(evfd, 5000));
	close(evfd);
	close(theirs);
	pair_close(&p);
}

/* A listener's: those that wait to be accepted, those that come, and the end. */
static void listener(const struct fam *f)
{
	struct pair p = pair_listen(f->server, IPPROTO_MPTCP);
	struct mptcp_event e;
	uint32_t ids[2];
	int evfd, first, second, a, b;

	first = raw_socket(f->domain);
	REQUIRE(!do_connect(first, at(f->server, p.port)));
	evfd = subscribe(p.l, MPTCP_EV_UP | MPTCP_EV_DOWN);
	a = t_accept(p.l);
	ids[0] = connid(a);
	second = raw_socket(f->domain);
	REQUIRE(!do_connect(second, at(f->server, p.port)));
	b = t_accept(p.l);
	ids[1] = connid(b);
	e = EXPECT(evfd, MPTCP_EV_UP);
	CHECK_INT(e.connid, ids[0]);
	e = EXPECT(evfd, MPTCP_EV_UP);
	CHECK_INT(e.connid, ids[1]);
	CHECK_INT(e.origin, MPTCP_ORIGIN_PEER);
	CHECK_STR(local(&e), f->shown_server);
	none(evfd);
	close(b);
	e = EXPECT(evfd, MPTCP_EV_DOWN);
	CHECK_INT(e.connid, ids[1]);
	pair_close(&p);
	none(evfd);
	close(a);
	e = EXPECT(evfd, MPTCP_EV_DOWN);
	CHECK_INT(e.connid, ids[0]);
	REQUIRE(next_event(evfd, &e) == 0);
	close(evfd);
	close(first);
	close(second);
}

/* All that this process has made known, and nobody else's. */
static void everything(const struct fam *f)
{
	struct pair p = pair_listen(f->server, IPPROTO_MPTCP);
	struct mptcp_event e;
	uint32_t ids[3] = { 0 };
	int evfd = subscribe(-1, MPTCP_EV_ALL), known[2], stranger, status, i, seen = 0, again;
	pid_t pid;

	for (i = 0; i < 2; i++) {
		known[i] = fresh(f);
		if (!i)
			OK(add(known[i], f->p1));
		OK(connx(known[i], at(f->server, p.port), &ids[i]));
	}
	stranger = raw_socket(f->domain);
	REQUIRE(!do_connect(stranger, at(f->server, p.port)));
	/* Another process of the same user is another. */
	pid = fork();
	if (!pid) {
		int fd = fresh(f), bad = 0;

		bad |= add(fd, f->p1) || connx(fd, at(f->server, p.port), NULL);
		_exit(bad);
	}
	REQUIRE(waitpid(pid, &status, 0) == pid && !status);
	for (i = 0; i < 2; i++) {
		e = EXPECT(evfd, MPTCP_EV_UP);
		CHECK(e.connid == ids[0] || e.connid == ids[1]);
		seen |= e.connid == ids[0] ? 1 : 2;
	}
	CHECK_INT(seen, 3);
	none(evfd);
	again = subscribe(-1, MPTCP_EV_ALL | MPTCP_EV_CURRENT);
	EXPECT(again, MPTCP_EV_UP);
	EXPECT(again, MPTCP_EV_UP);
	none(again);
	/* Asked about by itself it is known as well. */
	i = subscribe(stranger, MPTCP_EV_DOWN);
	ids[2] = connid(stranger);
	close(stranger);
	CHECK_INT(EXPECT(i, MPTCP_EV_DOWN).connid, ids[2]);
	CHECK_INT(EXPECT(evfd, MPTCP_EV_DOWN).connid, ids[2]);
	close(i);
	close(known[0]);
	CHECK_INT(EXPECT(evfd, MPTCP_EV_DOWN).connid, ids[0]);
	close(known[1]);
	CHECK_INT(EXPECT(evfd, MPTCP_EV_DOWN).connid, ids[1]);
	none(evfd);
	close(evfd);
	close(again);
	pair_close(&p);
}

struct counted {
	int calls, stop_at, close_it, evfd;
	uint32_t last;
};

static int count(const struct mptcp_event *e, size_t size, void *arg)
{
	struct counted *c = arg;
	struct mptcp_event other;

	CHECK_INT(size, sizeof *e);
	c->last = e->what;
	/* It may call anything, for the same descriptor too. */
	(void)mptcp_dispatch(c->evfd, NULL, NULL);
	(void)mptcp_nextevent(c->evfd, NULL, sizeof other);
	if (c->close_it)
		close(c->evfd);
	return ++c->calls == c->stop_at;
}

static void dispatched(const struct fam *f)
{
	struct pair p = pair_listen(f->server, IPPROTO_MPTCP);
	struct counted c;
	struct mptcp_event e;
	unsigned char big[400];
	int fd = fresh(f), i;

	memset(&c, 0, sizeof c);
	OK(add(fd, f->p1));
	pair_connectx(&p, f->server, fd);
	settle(&p);
	OK(add(fd, f->p2));
	AWAIT(count_subflows(fd) == 2);
	c.evfd = subscribe(fd, MPTCP_EV_ALL | MPTCP_EV_CURRENT);
	CHECK_INT(OK(mptcp_dispatch(c.evfd, NULL, NULL)), 0);
	c.stop_at = 1;
	AWAIT(mptcp_dispatch(c.evfd, count, &c) == 1);
	CHECK_INT(c.last, MPTCP_EV_UP);
	c.stop_at = 0;
	AWAIT(mptcp_dispatch(c.evfd, count, &c) == 1);
	CHECK_INT(c.last, MPTCP_EV_SUBFLOW_UP);
	CHECK_INT(OK(mptcp_dispatch(c.evfd, count, &c)), 0);
	for (i = 0; i < 4; i++)
		OK(add_flags(fd, f->p2, i % 2 ? 0 : MPTCP_BINDX_BACKUP));
	AWAIT(readable(c.evfd, 1000));
	/* Structs of other sizes: cut, or the rest zero. */
	AWAIT(mptcp_nextevent(c.evfd, (struct mptcp_event *)(void *)big, 4) == 1);
	memset(big, 0xff, sizeof big);
	AWAIT(mptcp_nextevent(c.evfd, (struct mptcp_event *)(void *)big, sizeof big) == 1);
	memcpy(&e, big, sizeof e);
	CHECK_INT(e.what, MPTCP_EV_PRIORITY);
	for (i = sizeof e; i < (int)sizeof big; i++)
		CHECK(big[i] == 0);
	c.calls = 0;
	c.close_it = c.stop_at = 1;
	AWAIT(mptcp_dispatch(c.evfd, count, &c) == 1);
	FAILS(EBADF, mptcp_dispatch(c.evfd, count, &c));
	pair_close(&p);
}

/* Who doesn't read is told how much it has missed, and where. */
static void overflow(const struct fam *f)
{
	struct pair p = pair_listen(f->server, IPPROTO_MPTCP);
	struct mptcp_event e;
	int fd = fresh(f), evfd, i, total = 600, told = 0, overflows = 0;

	OK(add(fd, f->p1));
	pair_connectx(&p, f->server, fd);
	settle(&p);
	OK(add_flags(fd, f->p2, MPTCP_BINDX_BACKUP));
	AWAIT(count_subflows(fd) == 2);
	settle(&p);
	evfd = subscribe(fd, MPTCP_EV_PRIORITY | MPTCP_EV_DOWN);
	for (i = 0; i < total; i++)
		REQUIRE(!add_flags(fd, f->p2, i % 2 ? MPTCP_BINDX_BACKUP : 0));
	pair_close(&p);
	for (;;) {
		REQUIRE(next_event(evfd, &e) == 1);
		if (e.what == MPTCP_EV_DOWN)
			break;
		if (e.what == MPTCP_EV_OVERFLOW) {
			CHECK(e.lost > 0);
			CHECK_INT(e.connid, 0);
			overflows++;
			told += (int)e.lost;
			continue;
		}
		CHECK_INT(e.what, MPTCP_EV_PRIORITY);
		/* In order: backup and not, in turns. */
		CHECK_INT(!!(e.subflow.flags & MPTCP_SUBFLOW_BACKUP), told % 2);
		told++;
	}
	CHECK_INT(told, total);
	CHECK(overflows >= 1);
	REQUIRE(next_event(evfd, &e) == 0);
	close(evfd);
}

/* In every kind of loop; and several of one connection. */
static void loops(const struct fam *f)
{
	struct pair p = pair_listen(f->server, IPPROTO_MPTCP);
	struct epoll_event ee;
	struct mptcp_event e;
	int evfd[8], edge = epoll_create1(EPOLL_CLOEXEC), outer = epoll_create1(EPOLL_CLOEXEC), fd = fresh(f), i;
	fd_set set;
	struct timeval tv;

	for (i = 0; i < 8; i++)
		evfd[i] = subscribe(fd, MPTCP_EV_UP);
	memset(&ee, 0, sizeof ee);
	ee.events = EPOLLIN | EPOLLET;
	REQUIRE(!epoll_ctl(edge, EPOLL_CTL_ADD, evfd[0], &ee));
	ee.events = EPOLLIN;
	REQUIRE(!epoll_ctl(outer, EPOLL_CTL_ADD, edge, &ee));
	while (epoll_wait(edge, &ee, 1, 0) > 0)
		;
	pair_connectx(&p, f->server, fd);
	CHECK_INT(epoll_wait(outer, &ee, 1, 5000), 1);
	do
		CHECK_INT(epoll_wait(edge, &ee, 1, 5000), 1);
	while (mptcp_nextevent(evfd[0], &e, sizeof e) < 0 && errno == EAGAIN);
	CHECK_INT(e.what, MPTCP_EV_UP);
	FD_ZERO(&set);
	FD_SET(evfd[1], &set);
	tv.tv_sec = 5;
	tv.tv_usec = 0;
	CHECK_INT(select(evfd[1] + 1, &set, NULL, NULL, &tv), 1);
	for (i = 1; i < 8; i++) {
		EXPECT(evfd[i], MPTCP_EV_UP);
		none(evfd[i]);
		close(evfd[i]);
	}
	close(evfd[0]);
	close(edge);
	close(outer);
	pair_close(&p);
}

/* After fork the parent's goes on, and the child makes its own. */
static void forked(const struct fam *f)
{
	struct pair p = pair_listen(f->server, IPPROTO_MPTCP);
	int fd = fresh(f), evfd, status;
	pid_t pid;

	evfd = subscribe(fd, MPTCP_EV_ALL);
	OK(add(fd, f->p1));
	pid = fork();
	if (!pid) {
		int own = mptcp_subscribe(fd, MPTCP_EV_ALL);

		_exit(own < 0);
	}
	REQUIRE(waitpid(pid, &status, 0) == pid);
	CHECK_INT(status, 0);
	pair_connectx(&p, f->server, fd);
	EXPECT(evfd, MPTCP_EV_UP);
	close(evfd);
	pair_close(&p);
}

/* Several threads read one descriptor: each event goes to one. */
struct race {
	int evfd, seen[3];
};

static void *reader(void *arg)
{
	struct race *r = arg;
	struct mptcp_event e;
	int rc;

	while ((rc = mptcp_nextevent(r->evfd, &e, sizeof e)) != 0) {
		if (rc == 1)
			__atomic_add_fetch(&r->seen[e.what == MPTCP_EV_PRIORITY ? 0 : e.what == MPTCP_EV_DOWN ? 1 : 2], 1,
					   __ATOMIC_RELAXED);
		else
			readable(r->evfd, 100);
	}
	return NULL;
}

static void threads(const struct fam *f)
{
	struct pair p = pair_listen(f->server, IPPROTO_MPTCP);
	struct race r;
	pthread_t ids[3];
	int fd = fresh(f), i;

	memset(&r, 0, sizeof r);
	OK(add(fd, f->p1));
	pair_connectx(&p, f->server, fd);
	settle(&p);
	OK(add_flags(fd, f->p2, MPTCP_BINDX_BACKUP));
	AWAIT(count_subflows(fd) == 2);
	r.evfd = subscribe(fd, MPTCP_EV_PRIORITY | MPTCP_EV_DOWN);
	for (i = 0; i < 3; i++)
		REQUIRE(!pthread_create(&ids[i], NULL, reader, &r));
	for (i = 0; i < 50; i++)
		REQUIRE(!add_flags(fd, f->p2, i % 2 ? MPTCP_BINDX_BACKUP : 0));
	pair_close(&p);
	for (i = 0; i < 3; i++)
		pthread_join(ids[i], NULL);
	CHECK_INT(r.seen[0], 50);
	CHECK_INT(r.seen[1], 1);
	CHECK_INT(r.seen[2], 0);
	close(r.evfd);
}

/* A server of plain TCP: what can be told is told. */
static void fallback(const struct fam *f)
{
	struct pair p = pair_listen(f->server, IPPROTO_TCP);
	struct mptcp_event e;
	int fd = fresh(f), evfd = subscribe(fd, MPTCP_EV_ALL);

	pair_connectx(&p, f->server, fd);
	FAILS(EOPNOTSUPP, mptcp_subscribe(fd, MPTCP_EV_ALL));
	if (!t_broker()) {
		e = EXPECT(evfd, MPTCP_EV_FALLBACK);
		CHECK_STR(show(&e.subflow.remote, 0), f->shown_server);
		CHECK_INT(e.subflow.flags, MPTCP_SUBFLOW_INITIAL | MPTCP_SUBFLOW_FALLBACK);
		REQUIRE(next_event(evfd, &e) == 0);
		pair_close(&p);
	} else {
		none(evfd);
		pair_close(&p);
		REQUIRE(ended(evfd));
	}
	close(evfd);
}

/* Connections that were there before anybody asked are looked at too: in a process
 * that has nothing else to look at. */
static void looked_at(const struct fam *f)
{
	struct pair p;
	int fd, evfd, status = -1;
	pid_t pid = fork();

	REQUIRE(pid >= 0);
	if (!pid) {
		t_failed = 0;
		p = pair_listen(f->server, IPPROTO_MPTCP);
		fd = fresh(f);
		OK(add(fd, f->p1));
		pair_connectx(&p, f->server, fd);
		settle(&p);
		evfd = subscribe(-1, MPTCP_EV_DOWN);
		none(evfd);
		CHECK(t_broker() || readable(evfd, 3000));
		none(evfd);
		pair_close(&p);
		EXPECT(evfd, MPTCP_EV_DOWN);
		_exit(t_failed != 0);
	}
	REQUIRE(waitpid(pid, &status, 0) == pid);
	CHECK_INT(status, 0);
}

/* Sockets that never have a connection of Multipath TCP: closed, they end what
 * was asked about them, and only they do. */
static void unconnected(const struct fam *f)
{
	struct pair tcp = pair_listen(f->server, IPPROTO_TCP), p;
	struct mptcp_event e;
	int still = fresh(f), evstill = subscribe(still, MPTCP_EV_ALL), fd, copy, evfd[6], i, before;
	int filler, full = full_listener(f->server, &filler);
	uint32_t id;

	before = open_fds();
	/* Nothing was done with it; the copy is closed last. */
	fd = fresh(f);
	evfd[0] = subscribe(fd, MPTCP_EV_ALL);
	copy = dup(fd);
	close(fd);
	/* It is in a list. */
	fd = fresh(f);
	evfd[1] = subscribe(fd, MPTCP_EV_ALL | MPTCP_EV_CURRENT);
	OK(add(fd, f->p1));
	close(fd);
	/* Nobody listens there. */
	fd = fresh(f);
	evfd[2] = subscribe(fd, MPTCP_EV_ALL);
	CHECK(do_connect(fd, at(f->server, 1)) < 0 && errno == ECONNREFUSED);
	none(evfd[2]);
	close(fd);
	/* Nobody answers. */
	fd = fresh(f);
	evfd[3] = subscribe(fd, MPTCP_EV_ALL);
	nonblock(fd);
	CHECK(do_connect(fd, at(f->server, sockport(full))) < 0 && errno == EINPROGRESS);
	none(evfd[3]);
	close(fd);
	/* It has come to listen. */
	fd = fresh(f);
	evfd[4] = subscribe(fd, MPTCP_EV_ALL);
	REQUIRE(!listen(fd, 1));
	none(evfd[4]);
	close(fd);
	/* A peer of plain TCP. */
	fd = fresh(f);
	evfd[5] = subscribe(fd, MPTCP_EV_ALL);
	pair_connect(&tcp, f->server, fd);
	none(evfd[5]);
	for (i = 1; i < 5; i++)
		REQUIRE(ended(evfd[i]));
	none(evfd[0]);
	none(evfd[5]);
	close(copy);
	pair_close(&tcp);
	REQUIRE(ended(evfd[0]));
	REQUIRE(ended(evfd[5]));
	for (i = 0; i < 6; i++) {
		CHECK_INT(OK(mptcp_nextevent(evfd[i], &e, sizeof e)), 0);
		CHECK(readable(evfd[i], 5000));
		close(evfd[i]);
	}
	CHECK(open_fds() <= before + t_own_fds());
	close(filler);
	close(full);

	/* It has been looked at, and is told of all the same. */
	none(evstill);
	p = pair_listen(f->server, IPPROTO_MPTCP);
	pair_connect(&p, f->server, still);
	id = connid(still);
	CHECK_INT(EXPECT(evstill, MPTCP_EV_UP).connid, id);
	pair_close(&p);
	CHECK_INT(EXPECT(evstill, MPTCP_EV_DOWN).connid, id);
	REQUIRE(ended(evstill));
	close(evstill);
}

/* Connected and closed before anybody looks: nothing is missed silently. */
static void quick(const struct fam *f)
{
	struct pair p = pair_listen(f->server, IPPROTO_MPTCP);
	struct mptcp_event e;
	int i, evfd;

	for (i = 0; i < 8; i++) {
		int fd = fresh(f);

		evfd = subscribe(fd, MPTCP_EV_UP | MPTCP_EV_DOWN);
		REQUIRE(!do_connect(fd, at(f->server, p.port)));
		close(fd);
		close(t_accept(p.l));
		REQUIRE(next_event(evfd, &e) == 1);
		if (e.what == MPTCP_EV_UP)
			REQUIRE(next_event(evfd, &e) == 1 && e.what == MPTCP_EV_DOWN);
		else
			CHECK_INT(e.what, MPTCP_EV_OVERFLOW);
		REQUIRE(next_event(evfd, &e) == 0);
		close(evfd);
	}
	pair_close(&p);
}

int main(void)
{
	struct mptcp_caps caps;
	int i, before;

	t_become_user();
	before = (need_mptcp(), open_fds());
	arguments();
	OK(mptcp_getcaps(-1, &caps, sizeof caps));
	CHECK_INT(!!(caps.works & MPTCP_CAP_EVENTS), t_control());
	CHECK(caps.known & MPTCP_CAP_EVENTS);
	for (i = 0; i < 3 && t_control(); i++) {
		t_ctx = t_fams[i].name;
		story(&t_fams[i]);
		listener(&t_fams[i]);
		everything(&t_fams[i]);
		fallback(&t_fams[i]);
		unconnected(&t_fams[i]);
	}
	if (t_control()) {
		t_ctx = "";
		quick(&t_fams[0]);
		looked_at(&t_fams[0]);
		dispatched(&t_fams[0]);
		overflow(&t_fams[0]);
		loops(&t_fams[0]);
		forked(&t_fams[0]);
		threads(&t_fams[0]);
	}
	CHECK(open_fds() - before <= t_own_fds() + 4);
	return t_done();
}
