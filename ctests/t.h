/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Helpers shared by the C tests: checks that count, waiting with a deadline,
 * packed address lists as text, and pairs of connected sockets whose two ends
 * are both held by the test, so that no server thread is needed.
 */
#ifndef T_H
#define T_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <mptcp.h>

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

#define T __attribute__((unused)) static
#define SENTINEL 4242           /* no errno has this number */

/* ---- who runs this --------------------------------------------------- */

#define T_NOBODY 65534

/*
 * With T_USER in the environment the test is an ordinary user's: neither uid is
 * root's and no capability is effective, so that is what the library sees. Only the
 * saved uid is 0, for children that set things up: see t_root().
 */
__attribute__((constructor)) static void t_become_user(void)
{
	if (!getenv("T_USER") || getuid())
		return;
	if (setgroups(0, NULL) || setresgid(T_NOBODY, T_NOBODY, 0) || setresuid(T_NOBODY, T_NOBODY, 0)
	    || prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)) {        /* /proc/self is the user's own */
		perror("becoming an ordinary user");
		_exit(1);
	}
}

/* In a child that never uses the library: root again, where it ever was. */
T void t_root(void)
{
	if (getenv("T_USER") && (setresuid(0, 0, 0) || setresgid(0, 0, 0))) {
		perror("becoming root");
		_exit(1);
	}
}

/* In a child: a network namespace of its own, with nothing in it. */
T void t_new_network(void)
{
	t_root();
	if (unshare(CLONE_NEWNET)) {
		perror("a new network namespace");
		_exit(1);
	}
	t_become_user();
}

/* The same for the calling thread alone, whose credentials are its own to the kernel. */
T void t_thread_new_network(void)
{
	if (syscall(SYS_setresuid, 0, 0, 0) || unshare(CLONE_NEWNET)
	    || syscall(SYS_setresuid, T_NOBODY, T_NOBODY, 0)) {
		perror("a new network namespace for a thread");
		_exit(1);
	}
}

/* Does that work? */
T int t_sets_up(void)
{
	return getenv("T_USER") || !geteuid();
}

/* Is the broker of tests/lab there? */
T int t_broker(void)
{
	const char *name = getenv("MPTCPAPI_BROKER");

	return name && *name == '@';
}

/* Can anybody act on paths? */
T int t_control(void)
{
	return t_broker() || !geteuid();
}

/* So many descriptors the library may keep: a line to the broker for each of a few
 * threads; or what the direct backend has open. */
T int t_own_fds(void)
{
	return t_broker() ? 4 : geteuid() ? 0 : 8;
}

#define T_BACKEND (t_broker() ? MPTCP_BACKEND_BROKER : MPTCP_BACKEND_DIRECT)

/* ---- checks ---------------------------------------------------------- */

T int t_failed;
T const char *t_ctx = "";       /* said with every failure: which variant runs */

T void t_fail(const char *file, int line, const char *fmt, ...)
{
	va_list ap;

	t_failed++;
	fprintf(stderr, "%s:%d: %s%s", file, line, t_ctx, *t_ctx ? ": " : "");
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

#define CHECK(e) ((e) ? (void)0 : t_fail(__FILE__, __LINE__, "%s", #e))
#define REQUIRE(e) do { if (!(e)) { \
	t_fail(__FILE__, __LINE__, "%s (errno %d %s), giving up", #e, errno, strerror(errno)); \
	exit(1); } } while (0)

#define CHECK_STR(got, want) t_str(__FILE__, __LINE__, #got, got, want)
T void t_str(const char *file, int line, const char *text, const char *got, const char *want)
{
	if (strcmp(got, want))
		t_fail(file, line, "%s: \"%s\", not \"%s\"", text, got, want);
}

#define CHECK_INT(got, want) t_int(__FILE__, __LINE__, #got, (long long)(got), (long long)(want))
T void t_int(const char *file, int line, const char *text, long long got, long long want)
{
	if (got != want)
		t_fail(file, line, "%s: %lld, not %lld", text, got, want);
}

/* The words of a failure: there, short, one line, UTF-8. */
T int t_utf8(const char *s)
{
	const unsigned char *p = (const unsigned char *)s;

	while (*p) {
		int n = *p < 0x80 ? 0 : *p >= 0xc2 && *p < 0xe0 ? 1
			: (*p & 0xf0) == 0xe0 ? 2 : *p >= 0xf0 && *p < 0xf5 ? 3 : -1;
		if (n < 0)
			return 0;
		for (p++; n; n--, p++)
			if ((*p & 0xc0) != 0x80)
				return 0;
	}
	return 1;
}

T void t_check_words(const char *file, int line, const char *text, int needed)
{
	const char *w = mptcp_errmsg();

	if (!w)
		t_fail(file, line, "%s: mptcp_errmsg() is NULL", text);
	else if (strlen(w) >= 256 || strchr(w, '\n') || !t_utf8(w))
		t_fail(file, line, "%s: not fit as words: \"%s\"", text, w);
	else if (needed && !*w)
		t_fail(file, line, "%s: no words", text);
}

/* OK(call): must succeed and leave errno alone; its value. */
#define OK(call) t_ok(__FILE__, __LINE__, #call, (errno = SENTINEL, (long)(call)))
T long t_ok(const char *file, int line, const char *text, long rc)
{
	int e = errno;

	if (rc < 0)
		t_fail(file, line, "%s: %ld, errno %d %s, \"%s\"", text, rc, e,
		       strerror(e), mptcp_errmsg());
	else if (e != SENTINEL)
		t_fail(file, line, "%s: succeeded, but errno became %d %s", text, e, strerror(e));
	return rc;
}

/* FAILS(errno, call), FAILS2(errno, errno, call) where the contract leaves two. */
#define FAILS(e, call) t_fails(__FILE__, __LINE__, #call, e, e, (errno = 0, (long)(call)))
#define FAILS2(a, b, call) t_fails(__FILE__, __LINE__, #call, a, b, (errno = 0, (long)(call)))
T int t_fails(const char *file, int line, const char *text, int a, int b, long rc)
{
	int e = errno;

	if (rc != -1 || (e != a && e != b)) {
		t_fail(file, line, "%s: %ld, errno %d %s, \"%s\"; wanted -1 and %s%s%s", text, rc,
		       rc < 0 ? e : 0, rc < 0 ? strerror(e) : "", mptcp_errmsg(),
		       strerror(a), a != b ? " or " : "", a != b ? strerror(b) : "");
		return 0;
	}
	t_check_words(file, line, text, 1);
	return 1;
}

/* The end of main(). */
T int t_done(void)
{
	if (t_failed)
		fprintf(stderr, "%d checks failed\n", t_failed);
	return t_failed != 0;
}

T void t_skip(const char *why)
{
	puts(why);
	exit(77);
}

/* ---- time ------------------------------------------------------------ */

T double t_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* AWAIT(cond): until it holds, at most 5 seconds; then it is a failure. */
#define AWAIT(cond) AWAIT_FOR(5, cond)
#define AWAIT_FOR(seconds, cond) do { \
	double end_ = t_now() + (seconds); \
	while (!(cond)) { \
		if (t_now() > end_) { \
			t_fail(__FILE__, __LINE__, "not within %d s: %s", (seconds), #cond); \
			break; \
		} \
		poll(NULL, 0, 2); \
	} } while (0)

#define AWAIT_STR(got, want) do { \
	double end_ = t_now() + 5; \
	while (strcmp(got, want)) { \
		if (t_now() > end_) { \
			t_fail(__FILE__, __LINE__, "not within 5 s: %s: \"%s\", not \"%s\"", \
			       #got, got, want); \
			break; \
		} \
		poll(NULL, 0, 2); \
	} } while (0)

/* ALWAYS(cond, ms): looked at all the time, it must never not hold. */
#define ALWAYS(cond, ms) do { \
	double end_ = t_now() + (ms) / 1e3; \
	while (t_now() < end_) { \
		if (!(cond)) { \
			t_fail(__FILE__, __LINE__, "stopped being true: %s", #cond); \
			break; \
		} \
		poll(NULL, 0, 2); \
	} } while (0)

/* ---- addresses as text: "10.1.0.1", "fd01::1/80" ---------------------- */

struct list {
	unsigned char b[66 * 28];
	socklen_t len;
	int n;
};
#define SA(l) ((const struct sockaddr *)(const void *)(l)->b)

T void put(struct list *l, const char *text)
{
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
	char host[64];
	const char *slash = strchr(text, '/');
	int port = slash ? atoi(slash + 1) : 0;

	snprintf(host, sizeof host, "%.*s", slash ? (int)(slash - text) : 63, text);
	memset(&v4, 0, sizeof v4);
	memset(&v6, 0, sizeof v6);
	if (inet_pton(AF_INET, host, &v4.sin_addr) == 1) {
		v4.sin_family = AF_INET;
		v4.sin_port = htons((uint16_t)port);
		memcpy(l->b + l->len, &v4, sizeof v4);
		l->len += sizeof v4;
	} else {
		REQUIRE(inet_pton(AF_INET6, host, &v6.sin6_addr) == 1);
		v6.sin6_family = AF_INET6;
		v6.sin6_port = htons((uint16_t)port);
		memcpy(l->b + l->len, &v6, sizeof v6);
		l->len += sizeof v6;
	}
	l->n++;
}

/* Words, parted by spaces. */
T struct list addrs(const char *text)
{
	struct list l;
	char copy[4096], *w, *save = NULL;

	memset(&l, 0, sizeof l);
	snprintf(copy, sizeof copy, "%s", text);
	for (w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save))
		put(&l, w);
	return l;
}

T const char *at(const char *host, int port)    /* "host/port" */
{
	static __thread char buf[4][64];
	static __thread int k;

	k = (k + 1) % 4;
	snprintf(buf[k], sizeof buf[k], "%s/%d", host, port);
	return buf[k];
}

/* One address as text, without its port when that is 0 or not wanted. */
T const char *show(const void *sa, int with_port)
{
	static __thread char buf[8][80];
	static __thread int k;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
	sa_family_t family;
	char host[64] = "?";
	int port = 0;

	k = (k + 1) % 8;
	memcpy(&family, sa, sizeof family);
	if (family == AF_INET) {
		memcpy(&v4, sa, sizeof v4);
		inet_ntop(AF_INET, &v4.sin_addr, host, sizeof host);
		port = ntohs(v4.sin_port);
	} else if (family == AF_INET6) {
		memcpy(&v6, sa, sizeof v6);
		inet_ntop(AF_INET6, &v6.sin6_addr, host, sizeof host);
		port = ntohs(v6.sin6_port);
	}
	if (with_port && port)
		snprintf(buf[k], sizeof buf[k], "%s/%d", host, port);
	else
		snprintf(buf[k], sizeof buf[k], "%s", host);
	return buf[k];
}

/* Texts of a growing set: added once each, kept sorted when asked for. */
struct words {
	char w[80][80];
	int n;
};

T void add_word(struct words *s, const char *w, int sorted)
{
	int i, j;

	for (i = 0; i < s->n; i++)
		if (!strcmp(s->w[i], w))
			return;
	if (s->n == 80)
		return;
	for (i = 0; sorted && i < s->n && strcmp(s->w[i], w) < 0; i++)
		;
	if (!sorted)
		i = s->n;
	for (j = s->n; j > i; j--)
		memcpy(s->w[j], s->w[j - 1], sizeof s->w[j]);
	snprintf(s->w[i], sizeof s->w[i], "%s", w);
	s->n++;
}

T const char *join_words(const struct words *s)
{
	static __thread char buf[8][4096];
	static __thread int k;
	size_t used = 0;
	int i;

	k = (k + 1) % 8;
	buf[k][0] = '\0';
	for (i = 0; i < s->n; i++)
		used += (size_t)snprintf(buf[k] + used, sizeof buf[k] - used, "%s%s",
					 i ? " " : "", s->w[i]);
	return buf[k];
}

/* What getladdrs and getpaddrs say, in their order; "errno N" when they fail. */
T const char *t_packed(int (*get)(int, struct sockaddr **), void (*release)(struct sockaddr *),
		       int fd, int with_port)
{
	static __thread char buf[8][4096];
	static __thread int k;
	struct sockaddr *list = (struct sockaddr *)(void *)&k;
	const unsigned char *p;
	size_t used = 0;
	int i, n;

	k = (k + 1) % 8;
	buf[k][0] = '\0';
	errno = SENTINEL;
	n = get(fd, &list);
	if (n < 0) {
		if (list != (struct sockaddr *)(void *)&k)
			t_fail(__FILE__, __LINE__, "list written on failure");
		snprintf(buf[k], sizeof buf[k], "errno %d", errno);
		return buf[k];
	}
	if (errno != SENTINEL)
		t_fail(__FILE__, __LINE__, "get*addrs succeeded and changed errno");
	if (!n && list)
		t_fail(__FILE__, __LINE__, "0 addresses and not NULL");
	p = (const unsigned char *)list;
	for (i = 0; i < n; i++) {
		sa_family_t family;
		int len;

		memcpy(&family, p, sizeof family);
		len = mptcp_getaddrlen(family);
		if (len < 0) {
			t_fail(__FILE__, __LINE__, "family %d in a list", family);
			break;
		}
		used += (size_t)snprintf(buf[k] + used, sizeof buf[k] - used, "%s%s", i ? " " : "",
					 show(p, with_port));
		p += len;
	}
	errno = SENTINEL;
	release(list);
	if (errno != SENTINEL)
		t_fail(__FILE__, __LINE__, "a free function changed errno");
	return buf[k];
}
#define laddrs(fd) t_packed(mptcp_getladdrs, mptcp_freeladdrs, fd, 1)
#define paddrs(fd) t_packed(mptcp_getpaddrs, mptcp_freepaddrs, fd, 1)
#define laddrs_np(fd) t_packed(mptcp_getladdrs, mptcp_freeladdrs, fd, 0)       /* no ports */
#define paddrs_np(fd) t_packed(mptcp_getpaddrs, mptcp_freepaddrs, fd, 0)

/* The distinct local (remote) addresses of the subflows, sorted, no ports. */
T const char *t_subflows(int fd, int remote, int with_port)
{
	static __thread char err[32];
	struct mptcp_subflow *sf = NULL;
	struct words set;
	int i, n;

	set.n = 0;
	errno = SENTINEL;
	n = mptcp_getsubflows(fd, &sf);
	if (n < 0) {
		snprintf(err, sizeof err, "errno %d", errno);
		return err;
	}
	if (errno != SENTINEL)
		t_fail(__FILE__, __LINE__, "mptcp_getsubflows succeeded and changed errno");
	if (!n && sf)
		t_fail(__FILE__, __LINE__, "0 subflows and not NULL");
	for (i = 0; i < n; i++)
		add_word(&set, show(remote ? &sf[i].remote : &sf[i].local, with_port), 1);
	errno = SENTINEL;
	mptcp_freesubflows(sf);
	if (errno != SENTINEL)
		t_fail(__FILE__, __LINE__, "mptcp_freesubflows changed errno");
	return join_words(&set);
}
#define locals(fd) t_subflows(fd, 0, 0)
#define remotes(fd) t_subflows(fd, 1, 0)

T int count_subflows(int fd)
{
	struct mptcp_subflow *sf = NULL;
	int n = mptcp_getsubflows(fd, &sf);

	mptcp_freesubflows(sf);
	return n;
}

/* Is every word of `some` in `all`? (Text as above.) */
T int within(const char *some, const char *all)
{
	char copy[4096], *w, *save = NULL;
	char hay[4200];

	snprintf(copy, sizeof copy, "%s", some);
	snprintf(hay, sizeof hay, " %.4096s ", all);
	for (w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
		char needle[128];

		snprintf(needle, sizeof needle, " %s ", w);
		if (!strstr(hay, needle))
			return 0;
	}
	return 1;
}

T const char *sockname(int fd)
{
	struct sockaddr_storage ss;
	socklen_t len = sizeof ss;

	memset(&ss, 0, sizeof ss);
	return getsockname(fd, (struct sockaddr *)&ss, &len) ? "error" : show(&ss, 0);
}

T int sockport(int fd)
{
	struct sockaddr_in6 ss;         /* the port is at the same place in both */
	socklen_t len = sizeof ss;

	memset(&ss, 0, sizeof ss);
	return getsockname(fd, (struct sockaddr *)&ss, &len) ? -1 : ntohs(ss.sin6_port);
}

/* ---- options --------------------------------------------------------- */

T int set_int(int fd, int opt, int value)
{
	return mptcp_setsockopt(fd, IPPROTO_TCP, opt, &value, sizeof value);
}

T int get_int(int fd, int opt, int *value)
{
	socklen_t len = sizeof *value;
	int rc = mptcp_getsockopt(fd, IPPROTO_TCP, opt, value, &len);

	if (!rc && len != sizeof *value)
		t_fail(__FILE__, __LINE__, "option %#x: length %u", (unsigned)opt, (unsigned)len);
	return rc;
}

T int enabled(int fd)           /* 0, 1, or -errno */
{
	int v = -1;

	errno = SENTINEL;
	if (get_int(fd, TCP_MULTIPATH_ENABLE, &v))
		return -errno;
	if (errno != SENTINEL)
		t_fail(__FILE__, __LINE__, "ENABLE get succeeded and changed errno");
	return v;
}

T uint32_t connid(int fd)       /* 0 when it fails, errno then says why */
{
	uint32_t v = 0;
	socklen_t len = sizeof v;

	return mptcp_getsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_CONNID, &v, &len) ? 0 : v;
}

T int add(int fd, const char *text)
{
	struct list l = addrs(text);

	return mptcp_setsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_ADD, l.b, l.len);
}

T int rem(int fd, const char *text)
{
	struct list l = addrs(text);

	return mptcp_setsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_REMOVE, l.b, l.len);
}

T int add_flags(int fd, const char *text, int flags)
{
	struct list l = addrs(text);

	return mptcp_bindx(fd, SA(&l), l.n, MPTCP_BINDX_ADD_ADDR | flags);
}

T int connx(int fd, const char *text, uint32_t *id)
{
	struct list l = addrs(text);

	return mptcp_connectx(fd, SA(&l), l.n, id);
}

/* ---- sockets --------------------------------------------------------- */

/* What a test runs over. `shown` is how `paths` look in answers. */
struct fam {
	const char *name;
	int domain;
	const char *server, *p1, *p2, *p3;
	const char *shown_server, *s1, *s2, *s3;
};
T const struct fam t_fams[3] = {
	{ "IPv4", AF_INET, "10.9.0.1", "10.1.0.1", "10.2.0.1", "10.3.0.1",
	  "10.9.0.1", "10.1.0.1", "10.2.0.1", "10.3.0.1" },
	{ "IPv6", AF_INET6, "fd09::1", "fd01::1", "fd02::1", "fd03::1",
	  "fd09::1", "fd01::1", "fd02::1", "fd03::1" },
	{ "v4-mapped", AF_INET6, "::ffff:10.9.0.1", "::ffff:10.1.0.1", "::ffff:10.2.0.1",
	  "::ffff:10.3.0.1", "10.9.0.1", "10.1.0.1", "10.2.0.1", "10.3.0.1" },
};

T int domain_of(const char *text)
{
	return strchr(text, ':') ? AF_INET6 : AF_INET;
}

T int tcp_socket(int domain)
{
	int fd = socket(domain, SOCK_STREAM, IPPROTO_TCP);

	REQUIRE(fd >= 0);
	return fd;
}

/* By the kernel, not by the library. */
T int raw_socket(int domain)
{
	int fd = socket(domain, SOCK_STREAM, IPPROTO_MPTCP);

	REQUIRE(fd >= 0);
	return fd;
}

T int do_bind(int fd, const char *text)
{
	struct list l = addrs(text);

	return bind(fd, SA(&l), l.len);
}

T int do_connect(int fd, const char *text)
{
	struct list l = addrs(text);

	return connect(fd, SA(&l), l.len);
}

T int listen_at(const char *text, int proto, int backlog)
{
	int on = 1, fd = socket(domain_of(text), SOCK_STREAM, proto);

	REQUIRE(fd >= 0);
	REQUIRE(!setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on));
	REQUIRE(!do_bind(fd, text));
	REQUIRE(!listen(fd, backlog));
	return fd;
}

T void nonblock(int fd)
{
	REQUIRE(!fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK));
}

/* A listener whose queue is full: the next connects stay in SYN_SENT, until
 * somebody accepts. The filler connection is returned too. */
T int full_listener(const char *host, int *filler)
{
	struct sockaddr_storage ss;
	socklen_t len = sizeof ss;
	struct pollfd p;
	int l = listen_at(host, IPPROTO_TCP, 0);

	REQUIRE(!getsockname(l, (struct sockaddr *)&ss, &len));
	*filler = tcp_socket(domain_of(host));
	REQUIRE(!connect(*filler, (struct sockaddr *)&ss, len));
	p.fd = l;
	p.events = POLLIN;
	REQUIRE(poll(&p, 1, 5000) == 1);
	return l;
}

struct pair {
	int l, c, s;            /* listener, client, accepted; -1 when not there */
	int port;
	uint64_t sent[2], got[2];       /* c to s, s to c */
};

T int t_accept(int l)
{
	struct pollfd p;
	int fd;

	p.fd = l;
	p.events = POLLIN;
	REQUIRE(poll(&p, 1, 5000) == 1);
	fd = accept4(l, NULL, NULL, SOCK_CLOEXEC);
	REQUIRE(fd >= 0);
	return fd;
}

T struct pair pair_listen(const char *host, int proto)
{
	struct pair p;

	memset(&p, 0, sizeof p);
	p.c = p.s = -1;
	p.l = listen_at(host, proto, 16);
	p.port = sockport(p.l);
	return p;
}

/* The client is c; connected by connect(2). */
T void pair_connect(struct pair *p, const char *host, int c)
{
	p->c = c;
	REQUIRE(!do_connect(c, at(host, p->port)));
	p->s = t_accept(p->l);
}

/* The client is c; connected by mptcp_connectx(). */
T void pair_connectx(struct pair *p, const char *host, int c)
{
	p->c = c;
	OK(connx(c, at(host, p->port), NULL));
	p->s = t_accept(p->l);
}

T void pair_close(struct pair *p)
{
	if (p->c >= 0)
		close(p->c);
	if (p->s >= 0)
		close(p->s);
	if (p->l >= 0)
		close(p->l);
	p->c = p->s = p->l = -1;
}

/* Byte number i of direction d. */
T unsigned char t_byte(int d, uint64_t i)
{
	return (unsigned char)((i * 167 + (i >> 8) * 59 + (i >> 16) * 31 + (uint64_t)d * 101) & 0xff);
}

/*
 * Moves `bytes` more in both directions and looks at every one that arrives.
 * `each` (may be NULL) is called now and then with the bytes moved so far.
 */
T int pump(struct pair *p, uint64_t bytes, void (*each)(struct pair *, uint64_t, void *), void *arg)
{
	static unsigned char buf[65536];
	uint64_t goal[2], start = p->got[0];
	double end = t_now() + 30;
	int d, bad = 0;

	goal[0] = p->sent[0] + bytes;
	goal[1] = p->sent[1] + bytes;
	while (p->got[0] < goal[0] || p->got[1] < goal[1]) {
		struct pollfd pf[2];

		if (t_now() > end) {
			t_fail(__FILE__, __LINE__, "transfer stuck at %llu, %llu of %llu",
			       (unsigned long long)p->got[0], (unsigned long long)p->got[1],
			       (unsigned long long)bytes);
			return -1;
		}
		for (d = 0; d < 2; d++) {
			int out = d ? p->s : p->c, in = d ? p->c : p->s;
			ssize_t n;
			size_t i, want;

			want = goal[d] - p->sent[d] < sizeof buf ? (size_t)(goal[d] - p->sent[d])
				: sizeof buf;
			for (i = 0; i < want; i++)
				buf[i] = t_byte(d, p->sent[d] + i);
			n = want ? send(out, buf, want, MSG_DONTWAIT | MSG_NOSIGNAL) : 0;
			if (n > 0)
				p->sent[d] += (uint64_t)n;
			else if (n < 0 && errno != EAGAIN && errno != EINTR) {
				t_fail(__FILE__, __LINE__, "send: %s", strerror(errno));
				return -1;
			}
			n = recv(in, buf, sizeof buf, MSG_DONTWAIT);
			for (i = 0; n > 0 && i < (size_t)n; i++)
				bad += buf[i] != t_byte(d, p->got[d] + i);
			if (n > 0)
				p->got[d] += (uint64_t)n;
			else if (!n && p->got[d] < goal[d]) {
				t_fail(__FILE__, __LINE__, "end of stream at %llu",
				       (unsigned long long)p->got[d]);
				return -1;
			} else if (n < 0 && errno != EAGAIN && errno != EINTR) {
				t_fail(__FILE__, __LINE__, "recv: %s", strerror(errno));
				return -1;
			}
		}
		if (each)
			each(p, p->got[0] - start, arg);
		pf[0].fd = p->c;
		pf[1].fd = p->s;
		pf[0].events = pf[1].events = POLLIN;
		if (p->sent[0] < goal[0])
			pf[0].events |= POLLOUT;
		if (p->sent[1] < goal[1])
			pf[1].events |= POLLOUT;
		poll(pf, 2, 20);
	}
	if (bad)
		t_fail(__FILE__, __LINE__, "%d bytes arrived wrong", bad);
	return bad ? -1 : 0;
}

/* Both sides have sent and both are acknowledged: subflows can be made now. */
#define settle(p) pump(p, 2000, NULL, NULL)

/* One message each way by the kernel alone, for connections that pump() can't have. */
T void say(int from, int to)
{
	char c = 'x';
	struct pollfd p;

	p.fd = to;
	p.events = POLLIN;
	CHECK(send(from, &c, 1, MSG_NOSIGNAL) == 1);
	CHECK(poll(&p, 1, 5000) == 1 && recv(to, &c, 1, 0) == 1);
}

/* close() that resets the connection. */
T void reset_close(int fd)
{
	struct linger l = { 1, 0 };

	REQUIRE(!setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l));
	close(fd);
}

/* connect(fd, AF_UNSPEC): the socket is unconnected again. */
T void disconnect(int fd)
{
	struct sockaddr_in sa;

	memset(&sa, 0, sizeof sa);
	sa.sin_family = AF_UNSPEC;
	REQUIRE(!connect(fd, (struct sockaddr *)&sa, sizeof sa));
}

T int open_fds(void)
{
	int fd, n = 0;

	for (fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

#endif
