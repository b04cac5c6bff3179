/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Lists on the server's side: listeners and accepted connections. They can be
 * controlled only where the namespace is in userspace mode; elsewhere that is
 * said in words, but where the broker's policy lets it be put in that mode.
 *
 * lab: --userspace
 * lab:
 * lab: --broker= --user --userspace
 * lab: --broker= --user
 * lab: --broker=--config=ctests/generous.toml --user T_SERVERS=1
 */
#include "raw.h"

static int fresh(const struct fam *f)
{
	int fd = (int)OK(mptcp_socket(f->domain, SOCK_STREAM | SOCK_CLOEXEC, 0));

	REQUIRE(fd >= 0);
	return fd;
}

static const char *sorted(const char *a, const char *b)
{
	static char buf[4][160];
	static int k;

	k = (k + 1) % 4;
	snprintf(buf[k], sizeof buf[k], "%s %s", strcmp(a, b) < 0 ? a : b, strcmp(a, b) < 0 ? b : a);
	return buf[k];
}

/* Who listens at a port, by ss: local addresses, sorted. A call on fd steps the library. */
static const char *listening(int port, int fd)
{
	static char command[128], local[128];
	struct words set;
	FILE *f;

	(void)count_subflows(fd);
	set.n = 0;
	snprintf(command, sizeof command, "ss -Htln sport = :%d", port);
	REQUIRE((f = popen(command, "r")));
	while (fscanf(f, "%*s %*s %*s %127s%*[^\n]", local) == 1) {
		char *p = strrchr(local, ':'), *host = local;

		if (p)
			*p = '\0';
		if (*host == '[')
			host++;
		if ((p = strpbrk(host, "]%")))
			*p = '\0';
		add_word(&set, host, 1);
	}
	REQUIRE(!pclose(f));
	return join_words(&set);
}

/* when: ADD before (0) or after (1) listen. */
static void server(const struct fam *f, int when)
{
	struct pair p, q;
	struct mptcp_caps caps;
	long announced;
	char text[256];

	memset(&p, 0, sizeof p);
	p.l = fresh(f);
	REQUIRE(!do_bind(p.l, f->server));
	p.port = sockport(p.l);
	snprintf(text, sizeof text, "%s %s", f->server, f->p2);
	if (!when)
		OK(add(p.l, text));
	REQUIRE(!listen(p.l, 8));
	if (when)
		OK(add(p.l, text));
	CHECK_INT(enabled(p.l), 1);
	snprintf(text, sizeof text, "%s %s", f->shown_server, f->s2);
	CHECK_STR(laddrs_np(p.l), text);
	OK(mptcp_getcaps(p.l, &caps, sizeof caps));
	CHECK(caps.works & MPTCP_CAP_LISTEN);
	CHECK_STR(paddrs(p.l), "errno 107");

	announced = raw_mib("AddAddr");
	p.c = fresh(f);
	OK(add(p.c, f->p1));
	pair_connectx(&p, f->server, p.c);
	/* Inherited, announced, and the client comes to the announced address. */
	AWAIT_STR(laddrs_np(p.s), text);
	CHECK_INT(enabled(p.s), 1);
	settle(&p);
	AWAIT((count_subflows(p.s), count_subflows(p.c), raw_mib("AddAddr") > announced));
	AWAIT(within(f->s2, paddrs_np(p.c)));
	AWAIT_STR(remotes(p.c), sorted(f->shown_server, f->s2));
	AWAIT_STR(locals(p.s), sorted(f->shown_server, f->s2));
	CHECK_STR(locals(p.c), f->s1);
	CHECK_STR(raw_locals(p.s), locals(p.s));
	/* That took a listening socket which the application has not made. */
	CHECK_STR(listening(p.port, p.c), sorted(f->shown_server, f->s2));
	CHECK_INT(pump(&p, 300000, NULL, NULL), 0);

	/* A second connection; what one does is not the other's business. */
	memset(&q, 0, sizeof q);
	q.l = -1;
	q.c = fresh(f);
	OK(add(q.c, f->p3));
	OK(connx(q.c, at(f->server, p.port), NULL));
	q.s = t_accept(p.l);
	AWAIT_STR(laddrs_np(q.s), text);
	settle(&q);
	AWAIT_STR(locals(q.s), sorted(f->shown_server, f->s2));
	OK(rem(q.s, f->p2));
	AWAIT_STR(locals(q.s), f->shown_server);
	AWAIT_STR(locals(q.c), f->s3);
	AWAIT_STR(remotes(q.c), f->shown_server);
	CHECK_STR(laddrs_np(q.s), f->shown_server);
	CHECK_STR(locals(p.s), sorted(f->shown_server, f->s2));
	settle(&p);
	settle(&q);

	/* Live on an accepted connection: ADD announces one more. */
	OK(add(q.s, f->p1));
	AWAIT_STR((count_subflows(q.c), locals(q.s)), sorted(f->s1, f->shown_server));
	CHECK_INT(pump(&q, 50000, NULL, NULL), 0);
	CHECK_STR(raw_locals(p.s), sorted(f->shown_server, f->s2));

	/* The listener goes, and what was made for it; connections stay. */
	close(p.l);
	p.l = -1;
	pair_close(&q);
	AWAIT_STR(listening(p.port, p.c), "");
	CHECK_INT(pump(&p, 50000, NULL, NULL), 0);
	pair_close(&p);
}

/* On the wildcard no other listening socket is needed. */
static void wildcard(const struct fam *f)
{
	struct pair p;
	char text[256];

	memset(&p, 0, sizeof p);
	p.l = fresh(f);
	REQUIRE(!do_bind(p.l, f->domain == AF_INET ? "0.0.0.0" : "::"));
	p.port = sockport(p.l);
	REQUIRE(!listen(p.l, 8));
	snprintf(text, sizeof text, "%s %s", f->server, f->p2);
	OK(add(p.l, text));
	CHECK_STR(laddrs_np(p.l), f->domain == AF_INET ? text : laddrs_np(p.l));
	p.c = fresh(f);
	OK(add(p.c, f->p1));
	pair_connectx(&p, f->server, p.c);
	AWAIT(within(f->s2, laddrs_np(p.s)));
	settle(&p);
	AWAIT_STR((count_subflows(p.c), locals(p.s)), sorted(f->shown_server, f->s2));
	CHECK(!strchr(listening(p.port, p.c), ' '));
	/* REMOVE on the listener: only for those who come later. */
	OK(rem(p.l, f->p2));
	CHECK_STR(laddrs_np(p.l), f->shown_server);
	CHECK_STR(locals(p.s), sorted(f->shown_server, f->s2));
	close(p.c);
	close(p.s);
	memset(p.got, 0, sizeof p.got);
	memset(p.sent, 0, sizeof p.sent);
	p.c = fresh(f);
	OK(add(p.c, f->p1));
	pair_connectx(&p, f->server, p.c);
	AWAIT_STR(laddrs_np(p.s), f->shown_server);
	settle(&p);
	ALWAYS((count_subflows(p.c), !strcmp(locals(p.s), f->shown_server)), 100);
	CHECK_STR(paddrs_np(p.c), f->shown_server);
	pair_close(&p);
}

/* A client that speaks plain TCP comes to a listener with a list. */
static void plain_client(const struct fam *f)
{
	struct pair p;

	memset(&p, 0, sizeof p);
	p.l = fresh(f);
	REQUIRE(!do_bind(p.l, f->server));
	p.port = sockport(p.l);
	OK(add(p.l, f->p2));
	REQUIRE(!listen(p.l, 8));
	pair_connect(&p, f->server, tcp_socket(f->domain));
	CHECK_INT(enabled(p.s), 0);
	CHECK_STR(locals(p.s), f->shown_server);
	FAILS(EOPNOTSUPP, add(p.s, f->p3));
	settle(&p);
	pair_close(&p);
}

/* Under the in-kernel path manager; why, it says in words. */
static void refused(const struct fam *f)
{
	int why = t_broker() ? EACCES : EOPNOTSUPP;
	const char *word = t_broker() ? "policy" : "path manager";
	struct pair p;
	struct mptcp_caps caps;

	OK(mptcp_getcaps(-1, &caps, sizeof caps));
	CHECK(!(caps.works & MPTCP_CAP_LISTEN));
	CHECK(caps.known & MPTCP_CAP_LISTEN);
	memset(&p, 0, sizeof p);
	p.l = fresh(f);
	REQUIRE(!do_bind(p.l, f->server));
	p.port = sockport(p.l);
	OK(add(p.l, f->p2));            /* it can't know what the socket is for */
	OK(mptcp_getcaps(p.l, &caps, sizeof caps));
	CHECK(!(caps.works & MPTCP_CAP_LISTEN));
	REQUIRE(!listen(p.l, 8));
	FAILS(why, add(p.l, f->p3));
	CHECK(strstr(mptcp_errmsg(), word));
	pair_connect(&p, f->server, raw_socket(f->domain));
	settle(&p);
	FAILS(EOPNOTSUPP, add(p.s, f->p3));
	FAILS(EOPNOTSUPP, rem(p.s, f->p3));
	CHECK_INT(enabled(p.s), 1);
	settle(&p);
	pair_close(&p);
	/* A listener that never had a list. */
	p = pair_listen(f->server, IPPROTO_MPTCP);
	FAILS(why, add(p.l, f->p2));
	CHECK(strstr(mptcp_errmsg(), word));
	pair_connect(&p, f->server, raw_socket(f->domain));
	settle(&p);
	pair_close(&p);
}

int main(void)
{
	int i, before = (need_mptcp(), open_fds()), userspace = !kernel_pm();
	int held = getenv("T_SERVERS") != NULL;
	struct mptcp_caps caps;

	for (i = 0; i < 2; i++) {
		t_ctx = t_fams[i].name;
		if (userspace || held) {
			OK(mptcp_getcaps(-1, &caps, sizeof caps));
			CHECK(caps.works & MPTCP_CAP_LISTEN);
			/* The broker hears of listen(2) with the next request. */
			if (!held)
				server(&t_fams[i], 0);
			server(&t_fams[i], 1);
			wildcard(&t_fams[i]);
			plain_client(&t_fams[i]);
		} else
			refused(&t_fams[i]);
	}
	t_ctx = "";
	/* With the last listener that has a list the namespace gets its mode back. */
	AWAIT_FOR(15, kernel_pm() == !userspace);
	CHECK(open_fds() - before <= t_own_fds());
	return t_done();
}
