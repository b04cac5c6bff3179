/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Wrong arguments to every function: the errno that the contract names, words,
 * outputs untouched, and nothing left behind.
 *
 * lab:
 * lab: --user
 * lab: --broker= --user
 */
#include "raw.h"
#include <sys/epoll.h>
#include <sys/mman.h>

static int control;          /* only then does a good ADD succeed */

/* ---- every function, with arguments that are good but for the fd ------ */

enum { SET_ENABLE, SET_ADD, SET_REMOVE, SET_UNKNOWN, GET_ENABLE, GET_SUBFLOWS, GET_CONNID,
       GET_UNKNOWN, GETSUBFLOWS, BINDX_ADD, BINDX_REM, CONNECTX, GETLADDRS, GETPADDRS, GETCAPS,
       GETCONNSTATS, GETSUBFLOWSTATS, GETALLSTATS, GETALLSTATS_LIST, SET_PROFILE, GET_TRAFFIC,
       OPENSUBFLOW, CLOSESUBFLOW, SETBACKUP, FUNCTIONS };
static const char *const names[FUNCTIONS] = {
	"set ENABLE", "set ADD", "set REMOVE", "set unknown", "get ENABLE", "get SUBFLOWS",
	"get CONNID", "get unknown", "getsubflows", "bindx ADD", "bindx REM", "connectx",
	"getladdrs", "getpaddrs", "getcaps", "getconnstats", "getsubflowstats", "getallstats",
	"getallstats without conn", "set PROFILE", "get TRAFFIC", "opensubflow", "closesubflow",
	"setbackup",
};

/* Outputs are filled with this before, and must be full of it after a failure. */
static unsigned char out[512];
static socklen_t outlen;

static int untouched(socklen_t len)
{
	size_t i;

	for (i = 0; i < sizeof out; i++)
		if (out[i] != 0xa5)
			return 0;
	return outlen == len;
}

static int call(int which, int fd)
{
	struct list l = addrs("10.1.0.1");
	struct list peer = addrs("10.9.0.1/9");
	struct mptcp_subflow_stats *stats = NULL;
	struct mptcp_subflow sf;
	void *o = out;
	int one = 1;

	memset(&sf, 0, sizeof sf);
	memcpy(&sf.local, l.b, 16);
	memcpy(&sf.remote, peer.b, 16);
	memset(out, 0xa5, sizeof out);
	outlen = 300;
	errno = 0;
	switch (which) {
	case SET_ENABLE: return set_int(fd, TCP_MULTIPATH_ENABLE, 1);
	case SET_ADD: return mptcp_setsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_ADD, l.b, l.len);
	case SET_REMOVE: return mptcp_setsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_REMOVE, l.b, l.len);
	case SET_UNKNOWN: return mptcp_setsockopt(fd, IPPROTO_TCP, 0x6897fe, &one, sizeof one);
	case GET_ENABLE: return mptcp_getsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_ENABLE, o, &outlen);
	case GET_SUBFLOWS: return mptcp_getsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_SUBFLOWS, o, &outlen);
	case GET_CONNID: return mptcp_getsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_CONNID, o, &outlen);
	case GET_UNKNOWN: return mptcp_getsockopt(fd, IPPROTO_TCP, 0x6897fe, o, &outlen);
	case GETSUBFLOWS: return mptcp_getsubflows(fd, (struct mptcp_subflow **)o);
	case BINDX_ADD: return mptcp_bindx(fd, SA(&l), l.n, MPTCP_BINDX_ADD_ADDR);
	case BINDX_REM: return mptcp_bindx(fd, SA(&l), l.n, MPTCP_BINDX_REM_ADDR);
	case CONNECTX: return mptcp_connectx(fd, SA(&peer), peer.n, (uint32_t *)o);
	case GETLADDRS: return mptcp_getladdrs(fd, (struct sockaddr **)o);
	case GETPADDRS: return mptcp_getpaddrs(fd, (struct sockaddr **)o);
	case GETCAPS: return mptcp_getcaps(fd, (struct mptcp_caps *)o, 256);
	case GETCONNSTATS: return mptcp_getconnstats(fd, (struct mptcp_conn_stats *)o, 104);
	case GETSUBFLOWSTATS: return mptcp_getsubflowstats(fd, &sf, (struct mptcp_subflow_stats *)o, 432);
	case GETALLSTATS: return mptcp_getallstats(fd, (struct mptcp_conn_stats *)o, 104, &stats, 432);
	case GETALLSTATS_LIST: return mptcp_getallstats(fd, NULL, 0, (struct mptcp_subflow_stats **)o, 432);
	case SET_PROFILE: return set_int(fd, TCP_MULTIPATH_PROFILE, MPTCP_PROFILE_HANDOVER);
	case GET_TRAFFIC: return mptcp_getsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_TRAFFIC, o, &outlen);
	case OPENSUBFLOW: return mptcp_opensubflow(fd, SA(&l), SA(&peer), MPTCP_OPEN_BACKUP);
	case CLOSESUBFLOW: return mptcp_closesubflow(fd, &sf);
	case SETBACKUP: return mptcp_setbackup(fd, &sf, 1);
	}
	abort();
}

static void bad_fd(const char *what, int fd, int want)
{
	int i;

	for (i = 0; i < FUNCTIONS; i++) {
		int rc;

		if (i == GETCAPS && fd == -1)   /* means this host */
			continue;
		rc = call(i, fd);
		if (rc != -1 || errno != want)
			t_fail(__FILE__, __LINE__, "%s on %s: %d, errno %d %s; wanted %s", names[i],
			       what, rc, errno, strerror(errno), strerror(want));
		else
			t_check_words(__FILE__, __LINE__, names[i], 1);
		if (!untouched(300))
			t_fail(__FILE__, __LINE__, "%s on %s: output written", names[i], what);
	}
}

static void descriptors(void)
{
	struct sockaddr_un un;
	int fd, p[2];

	bad_fd("fd -1", -1, EBADF);
	bad_fd("fd -2", -2, EBADF);
	bad_fd("fd INT_MIN", -2147483647 - 1, EBADF);
	bad_fd("fd 1000000", 1000000, EBADF);
	bad_fd("fd INT_MAX", 2147483647, EBADF);
	fd = tcp_socket(AF_INET);
	close(fd);
	bad_fd("a closed fd", fd, EBADF);
	REQUIRE((fd = open("/", O_PATH)) >= 0);
	bad_fd("an O_PATH fd", fd, EBADF);
	close(fd);
	REQUIRE((fd = open("/proc/self/fd", O_RDONLY | O_DIRECTORY)) >= 0);
	bad_fd("a directory", fd, ENOTSOCK);
	close(fd);
	REQUIRE((fd = open("/proc/self/exe", O_RDONLY)) >= 0);
	bad_fd("a file", fd, ENOTSOCK);
	close(fd);
	REQUIRE((fd = open("/dev/null", O_RDWR)) >= 0);
	bad_fd("/dev/null", fd, ENOTSOCK);
	close(fd);
	REQUIRE(!pipe(p));
	bad_fd("a pipe", p[0], ENOTSOCK);
	bad_fd("a pipe's other end", p[1], ENOTSOCK);
	close(p[0]);
	close(p[1]);
	REQUIRE((fd = epoll_create1(EPOLL_CLOEXEC)) >= 0);
	bad_fd("an epoll", fd, ENOTSOCK);
	close(fd);
	REQUIRE((fd = socket(AF_INET, SOCK_DGRAM, 0)) >= 0);
	bad_fd("UDP", fd, EOPNOTSUPP);
	close(fd);
	REQUIRE((fd = socket(AF_INET6, SOCK_DGRAM, 0)) >= 0);
	bad_fd("UDP over IPv6", fd, EOPNOTSUPP);
	close(fd);
	REQUIRE(!socketpair(AF_UNIX, SOCK_STREAM, 0, p));
	bad_fd("an AF_UNIX stream", p[0], EOPNOTSUPP);
	close(p[0]);
	close(p[1]);
	REQUIRE((fd = socket(AF_UNIX, SOCK_STREAM, 0)) >= 0);
	memset(&un, 0, sizeof un);
	un.sun_family = AF_UNIX;
	REQUIRE(!bind(fd, (struct sockaddr *)&un, sizeof(sa_family_t)));
	REQUIRE(!listen(fd, 1));
	bad_fd("an AF_UNIX listener", fd, EOPNOTSUPP);
	close(fd);
	REQUIRE((fd = socket(AF_UNIX, SOCK_DGRAM, 0)) >= 0);
	bad_fd("an AF_UNIX datagram socket", fd, EOPNOTSUPP);
	close(fd);
	REQUIRE((fd = socket(AF_NETLINK, SOCK_RAW, 0)) >= 0);
	bad_fd("a netlink socket", fd, EOPNOTSUPP);
	close(fd);
}

/* ---- null pointers ---------------------------------------------------- */

static void nulls(void)
{
	int fd = mptcp_socket(AF_INET, SOCK_STREAM, 0);
	socklen_t len = 4;
	int v = 0;

	REQUIRE(fd >= 0);
	FAILS(EFAULT, mptcp_setsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_ENABLE, NULL, 4));
	FAILS(EFAULT, mptcp_setsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_ADD, NULL, 16));
	FAILS(EFAULT, mptcp_setsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_REMOVE, NULL, 28));
	FAILS2(EFAULT, EINVAL, mptcp_setsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_ADD, NULL, 0));
	FAILS(EFAULT, mptcp_getsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_ENABLE, NULL, &len));
	CHECK_INT(len, 4);
	FAILS(EFAULT, mptcp_getsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_ENABLE, &v, NULL));
	FAILS(EFAULT, mptcp_getsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_SUBFLOWS, &v, NULL));
	FAILS(EFAULT, mptcp_getsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_CONNID, &v, NULL));
	FAILS(EFAULT, mptcp_getsubflows(fd, NULL));
	FAILS(EFAULT, mptcp_getladdrs(fd, NULL));
	FAILS(EFAULT, mptcp_getpaddrs(fd, NULL));
	FAILS(EFAULT, mptcp_bindx(fd, NULL, 1, MPTCP_BINDX_ADD_ADDR));
	FAILS(EFAULT, mptcp_bindx(fd, NULL, 1, MPTCP_BINDX_REM_ADDR));
	FAILS(EFAULT, mptcp_connectx(fd, NULL, 1, NULL));
	FAILS(EFAULT, mptcp_setsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_TRAFFIC, NULL, 32));
	FAILS(EFAULT, mptcp_getsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_PROFILE, NULL, &len));
	FAILS(EFAULT, mptcp_closesubflow(fd, NULL));
	FAILS(EFAULT, mptcp_setbackup(fd, NULL, 1));
	FAILS(ENOTCONN, mptcp_opensubflow(fd, NULL, NULL, 0));
	FAILS(EFAULT, mptcp_getcaps(fd, NULL, sizeof(struct mptcp_caps)));
	FAILS(EFAULT, mptcp_getcaps(-1, NULL, sizeof(struct mptcp_caps)));
	/* Passed on unchanged: the kernel's own answer. */
	FAILS(EFAULT, mptcp_setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, NULL, 4));
	close(fd);

	errno = SENTINEL;
	mptcp_freesubflows(NULL);
	mptcp_freeladdrs(NULL);
	mptcp_freepaddrs(NULL);
	CHECK_INT(errno, SENTINEL);
}

/* ---- integer options --------------------------------------------------- */

static void integers(void)
{
	unsigned char raw[16], *odd = raw + 1;
	int fd = tcp_socket(AF_INET), i, v;
	static const int set_only[] = { TCP_MULTIPATH_ADD, TCP_MULTIPATH_REMOVE };
	static const int get_only[] = { TCP_MULTIPATH_SUBFLOWS, TCP_MULTIPATH_CONNID };
	static const int unknown[] = { 0x689700, 0x68970c, 0x689750, 0x6897ff };
	static const int others[] = { 0x6896ff, 0x689800, 0, -1, 0x7fffffff };
	socklen_t len;

	/* Too short, both ways. */
	for (i = 0; i < 4; i++) {
		v = 1;
		FAILS(EINVAL, mptcp_setsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_ENABLE, &v, (socklen_t)i));
		CHECK_INT(raw_protocol(fd), IPPROTO_TCP);
		len = (socklen_t)i;
		v = 77;
		FAILS(EINVAL, mptcp_getsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_ENABLE, &v, &len));
		CHECK_INT(len, i);
		CHECK_INT(v, 77);
	}
	/* Longer: only four bytes are read and written. */
	memset(raw, 0xff, sizeof raw);
	len = 12;
	OK(mptcp_getsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_ENABLE, raw, &len));
	CHECK_INT(len, 4);
	CHECK(!memcmp(raw, "\0\0\0\0\377\377\377\377", 8));
	memset(raw, 0xff, sizeof raw);
	memset(raw, 0, 4);
	OK(mptcp_setsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_ENABLE, raw, 12));   /* false, and rubbish */
	CHECK_INT(raw_protocol(fd), IPPROTO_TCP);
	/* Any non-zero value is true and reads as 1. No alignment is needed. */
	v = -5;
	memcpy(odd, &v, 4);
	OK(mptcp_setsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_ENABLE, odd, 4));
	CHECK_INT(raw_protocol(fd), IPPROTO_MPTCP);
	CHECK_INT(enabled(fd), 1);
	v = 0x100;      /* not only the lowest byte */
	OK(mptcp_setsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_ENABLE, &v, 4));
	CHECK_INT(enabled(fd), 1);
	/* An absurd length is a length like any other, or refused; never a crash. */
	v = 1;
	FAILS(EBADF, mptcp_setsockopt(-1, IPPROTO_TCP, TCP_MULTIPATH_ENABLE, &v, (socklen_t)-1));
	(void)mptcp_setsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_ENABLE, &v, (socklen_t)-1);
	(void)mptcp_setsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_ENABLE, &v, 0x7fffffff);
	len = (socklen_t)-1;
	(void)mptcp_getsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_ENABLE, &v, &len);
	CHECK_INT(enabled(fd), 1);

	for (i = 0; i < 2; i++) {
		memset(out, 0xa5, sizeof out);
		outlen = 300;
		FAILS(ENOPROTOOPT, mptcp_getsockopt(fd, IPPROTO_TCP, set_only[i], out, &outlen));
		CHECK(untouched(300));
		FAILS(ENOPROTOOPT, mptcp_setsockopt(fd, IPPROTO_TCP, get_only[i], out, 4));
	}
	for (i = 0; i < 4; i++) {
		memset(out, 0xa5, sizeof out);
		outlen = 300;
		FAILS(ENOPROTOOPT, mptcp_getsockopt(fd, IPPROTO_TCP, unknown[i], out, &outlen));
		CHECK(untouched(300));
		FAILS(ENOPROTOOPT, mptcp_setsockopt(fd, IPPROTO_TCP, unknown[i], out, 4));
	}
	/* Not ours: exactly what the system calls say, errno included. */
	for (i = 0; i < 5; i++) {
		int a, ea, b, eb;

		v = 1;
		errno = SENTINEL;
		a = setsockopt(fd, IPPROTO_TCP, others[i], &v, sizeof v);
		ea = errno;
		errno = SENTINEL;
		b = mptcp_setsockopt(fd, IPPROTO_TCP, others[i], &v, sizeof v);
		eb = errno;
		CHECK_INT(b, a);
		CHECK_INT(eb, ea);
		len = sizeof v;
		errno = SENTINEL;
		a = getsockopt(fd, IPPROTO_TCP, others[i], &v, &len);
		ea = errno;
		len = sizeof v;
		errno = SENTINEL;
		b = mptcp_getsockopt(fd, IPPROTO_TCP, others[i], &v, &len);
		eb = errno;
		CHECK_INT(b, a);
		CHECK_INT(eb, ea);
	}
	/* Our number at another level is not ours: the kernel's word for an MPTCP socket. */
	FAILS(EOPNOTSUPP, mptcp_setsockopt(fd, SOL_SOCKET, TCP_MULTIPATH_ENABLE, &v, 4));
	v = 1;
	OK(mptcp_setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &v, sizeof v));
	v = 0;
	len = sizeof v;
	OK(mptcp_getsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &v, &len));
	CHECK_INT(v, 1);
	len = 96;
	OK(mptcp_getsockopt(fd, RAW_SOL_MPTCP, RAW_INFO, out, &len));
	CHECK(len > 0);
	FAILS(EBADF, mptcp_getsockopt(-1, SOL_SOCKET, SO_TYPE, &v, &len));
	close(fd);
}

/* ---- address lists ------------------------------------------------------ */

static int fd4, fd6, fdv6only;          /* fresh MPTCP sockets, and they stay so */

static int add_bytes(int fd, const void *p, socklen_t len)
{
	return mptcp_setsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_ADD, p, len);
}

static int rem_bytes(int fd, const void *p, socklen_t len)
{
	return mptcp_setsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_REMOVE, p, len);
}

/* A list that is wrong is wrong for every function that takes one. */
static void bad_list(int line, int fd, const struct list *l, int want)
{
	uint32_t id = 0xa5a5a5a5;
	int i, rc = 0, e;

	for (i = 0; i < 5; i++) {
		errno = 0;
		switch (i) {
		case 0: rc = add_bytes(fd, l->b, l->len); break;
		case 1: rc = rem_bytes(fd, l->b, l->len); break;
		case 2: rc = mptcp_bindx(fd, SA(l), l->n, MPTCP_BINDX_ADD_ADDR); break;
		case 3: rc = mptcp_bindx(fd, SA(l), l->n, MPTCP_BINDX_REM_ADDR); break;
		case 4: rc = mptcp_connectx(fd, SA(l), l->n, &id); break;
		}
		e = errno;
		if (rc != -1 || e != want)
			t_fail(__FILE__, line, "list %d way %d: %d, errno %d %s, \"%s\"; wanted %s",
			       l->n, i, rc, e, strerror(e), mptcp_errmsg(), strerror(want));
		else
			t_check_words(__FILE__, line, "list", 1);
	}
	CHECK(id == 0xa5a5a5a5);
	CHECK_STR(laddrs(fd), "");
}
#define BAD(want, fd, text) do { struct list l_ = addrs(text); \
	bad_list(__LINE__, fd, &l_, want); } while (0)

static void lists(void)
{
	static const int families[] = { AF_UNSPEC, AF_UNIX, AF_NETLINK, 255, 0xffff, 0x0200 };
	struct list l, good = addrs("10.1.0.1"), good6 = addrs("fd01::1");
	struct sockaddr_in6 v6;
	char text[4096];
	size_t i;

	/* Lengths that are no whole sockaddrs. */
	FAILS(EINVAL, add_bytes(fd4, good.b, 0));
	FAILS(EINVAL, rem_bytes(fd4, good.b, 0));
	for (i = 1; i < 60; i++) {
		l = addrs("10.1.0.1 10.2.0.1 10.3.0.1 10.9.0.1");
		if (i % 16)
			FAILS(EINVAL, add_bytes(fd4, l.b, (socklen_t)i));
		if (i % 16)
			FAILS(EINVAL, rem_bytes(fd4, l.b, (socklen_t)i));
		l = addrs("fd01::1 fd02::1 fd03::1");
		if (i % 28)
			FAILS(EINVAL, add_bytes(fd6, l.b, (socklen_t)i));
	}
	l = addrs("10.1.0.1 fd01::1");
	FAILS(EINVAL, add_bytes(fd6, l.b, l.len - 1));
	FAILS(EINVAL, add_bytes(fd6, l.b, 16 + 16));
	FAILS(EINVAL, add_bytes(fd6, l.b, l.len + 1));
	/* The stride of sockaddr_storage is no list: family 0 comes after 16 bytes. */
	memset(&l, 0, sizeof l);
	memcpy(l.b, good.b, 16);
	memcpy(l.b + 128, good.b, 16);
	FAILS2(EAFNOSUPPORT, EINVAL, add_bytes(fd4, l.b, 256));

	for (i = 0; i < sizeof families / sizeof families[0]; i++) {
		sa_family_t f = (sa_family_t)families[i];

		l = good;
		memcpy(l.b, &f, sizeof f);
		bad_list(__LINE__, fd4, &l, EAFNOSUPPORT);
		l = addrs("10.1.0.1 10.2.0.1");         /* in the second place */
		memcpy(l.b + 16, &f, sizeof f);
		bad_list(__LINE__, fd4, &l, EAFNOSUPPORT);
	}

	BAD(EAFNOSUPPORT, fd4, "fd01::1");
	BAD(EAFNOSUPPORT, fd4, "10.1.0.1 fd01::1");
	BAD(EAFNOSUPPORT, fdv6only, "10.1.0.1");
	BAD(EAFNOSUPPORT, fdv6only, "::ffff:10.1.0.1");
	BAD(EINVAL, fd4, "0.0.0.0");
	BAD(EINVAL, fd4, "0.0.0.0/80");
	BAD(EINVAL, fd4, "10.1.0.1 0.0.0.0");
	BAD(EINVAL, fd6, "::");
	BAD(EINVAL, fd6, "::ffff:0.0.0.0");
	BAD(EINVAL, fd6, "fe80::1");
	BAD(EADDRNOTAVAIL, fd4, "224.0.0.1");
	BAD(EADDRNOTAVAIL, fd4, "239.255.255.255");
	BAD(EADDRNOTAVAIL, fd4, "255.255.255.255");
	BAD(EADDRNOTAVAIL, fd6, "ff0e::1");
	BAD(EADDRNOTAVAIL, fd6, "ff02::1");
	BAD(EADDRNOTAVAIL, fd6, "::ffff:224.0.0.1");

	/* 65 in one call. The good first 64 must not come in. */
	for (text[0] = '\0', i = 0; i < 65; i++)
		strcat(text, "10.1.0.1 ");
	l = addrs(text);
	bad_list(__LINE__, fd4, &l, EINVAL);
	for (text[0] = '\0', i = 0; i < 65; i++)
		strcat(text, "fd01::1 ");
	l = addrs(text);
	bad_list(__LINE__, fd6, &l, EINVAL);

	/* A scope that makes a link-local whole, but no interface has the address. */
	memset(&v6, 0, sizeof v6);
	v6.sin6_family = AF_INET6;
	v6.sin6_scope_id = 1;
	inet_pton(AF_INET6, "fe80::1234", &v6.sin6_addr);
	if (control)
		FAILS(EADDRNOTAVAIL, add_bytes(fd6, &v6, sizeof v6));
	else
		FAILS2(EADDRNOTAVAIL, EPERM, add_bytes(fd6, &v6, sizeof v6));

	/* Counts. */
	{
		static const int counts[] = { 0, -1, 65, 1000000, 2147483647, -2147483647 - 1 };
		static const int flags[] = { 0, 3, 0x80, 0x100001, 0x81, 0x4, -1, 0x10, 0x60,
			MPTCP_BINDX_ADD_ADDR | MPTCP_BINDX_NO_ADVERTISE | MPTCP_BINDX_NO_SUBFLOW,
			MPTCP_BINDX_REM_ADDR | MPTCP_BINDX_BACKUP,
			MPTCP_BINDX_REM_ADDR | MPTCP_BINDX_NO_ADVERTISE,
			MPTCP_BINDX_REM_ADDR | MPTCP_BINDX_NO_SUBFLOW };

		for (text[0] = '\0', i = 0; i < 66; i++)
			strcat(text, "10.1.0.1 ");
		l = addrs(text);
		for (i = 0; i < 6; i++) {
			FAILS(EINVAL, mptcp_bindx(fd4, SA(&l), counts[i], MPTCP_BINDX_ADD_ADDR));
			FAILS(EINVAL, mptcp_bindx(fd4, SA(&l), counts[i], MPTCP_BINDX_REM_ADDR));
			FAILS(EINVAL, mptcp_connectx(fd4, SA(&l), counts[i], NULL));
		}
		for (i = 0; i < sizeof flags / sizeof flags[0]; i++)
			FAILS(EINVAL, mptcp_bindx(fd4, SA(&good), 1, flags[i]));
	}

	/* Absurd lengths must not be believed: behind the list the memory ends. */
	{
		size_t page = (size_t)sysconf(_SC_PAGESIZE);
		unsigned char *m = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE,
					MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		REQUIRE(m != MAP_FAILED && !mprotect(m + page, page, PROT_NONE));
		for (i = 0; i < 66; i++)
			memcpy(m + page - (i + 1) * 28, good6.b, 28);
		FAILS(EINVAL, add_bytes(fd6, m + page - 66 * 28, 0x7fffffff));
		FAILS(EINVAL, rem_bytes(fd6, m + page - 66 * 28, (socklen_t)-1));
		FAILS(EINVAL, mptcp_bindx(fd6, (struct sockaddr *)(void *)(m + page - 66 * 28),
					  2147483647, MPTCP_BINDX_ADD_ADDR));
		/* And a good one at the very end of the page is read no further. */
		memcpy(m + page - 16, good.b, 16);
		if (control) {
			OK(add_bytes(fd4, m + page - 16, 16));
			OK(rem_bytes(fd4, m + page - 16, 16));
			OK(mptcp_bindx(fd4, (struct sockaddr *)(void *)(m + page - 16), 1,
				       MPTCP_BINDX_ADD_ADDR));
			OK(rem_bytes(fd4, m + page - 16, 16));
		}
		munmap(m, 2 * page);
	}

	/* No alignment needed, and what may be anything is ignored. */
	if (control) {
		unsigned char buf[64];
		struct sockaddr_in v4;

		for (i = 1; i < 4; i++) {
			memcpy(buf + i, good.b, 16);
			OK(add_bytes(fd4, buf + i, 16));
			CHECK_STR(laddrs(fd4), "10.1.0.1");
			OK(rem_bytes(fd4, buf + i, 16));
			CHECK_STR(laddrs(fd4), "");
		}
		memcpy(&v4, good.b, sizeof v4);
		memset(v4.sin_zero, 0xee, sizeof v4.sin_zero);
		OK(add_bytes(fd4, &v4, sizeof v4));
		CHECK_STR(laddrs(fd4), "10.1.0.1");
		OK(rem_bytes(fd4, &v4, sizeof v4));
		memcpy(&v6, good6.b, sizeof v6);
		v6.sin6_flowinfo = htonl(0x12345);
		v6.sin6_scope_id = 4711;
		OK(add_bytes(fd6, &v6, sizeof v6));
		OK(add_bytes(fd6, good6.b, good6.len));         /* the same address */
		CHECK_STR(laddrs(fd6), "fd01::1");
		OK(rem_bytes(fd6, good6.b, good6.len));
		CHECK_STR(laddrs(fd6), "");
	}
}

/* Rubbish: no crash, no other errno than the contract's, the socket as before. */
static void rubbish(void)
{
	static const int allowed[] = { EINVAL, EAFNOSUPPORT, EADDRNOTAVAIL, EPERM };
	unsigned seed = 1;
	int round;

	for (round = 0; round < 4000; round++) {
		unsigned char b[200];
		socklen_t len = (socklen_t)(rand_r(&seed) % 200);
		int fd = rand_r(&seed) % 2 ? fd4 : fd6, rc, e;
		socklen_t i;

		for (i = 0; i < len; i++)
			b[i] = (unsigned char)rand_r(&seed);
		/* Often a known family at the places where one is looked for. */
		for (i = 0; i + 2 <= len; i += rand_r(&seed) % 2 ? 16 : 28) {
			sa_family_t f = rand_r(&seed) % 8 ? (rand_r(&seed) % 2 ? AF_INET : AF_INET6) : 0;

			memcpy(b + i, &f, 2);
		}
		errno = 0;
		rc = rand_r(&seed) % 2 ? add_bytes(fd, b, len) : rem_bytes(fd, b, len);
		e = errno;
		if (rc != -1 || (e != allowed[0] && e != allowed[1] && e != allowed[2] && e != allowed[3]))
			t_fail(__FILE__, __LINE__, "rubbish %d: %d, errno %d %s", round, rc, e, strerror(e));
		t_check_words(__FILE__, __LINE__, "rubbish", 1);
	}
	CHECK_STR(laddrs(fd4), "");
	CHECK_STR(laddrs(fd6), "");
}

/* ---- structs with a size ------------------------------------------------ */

static void sizes(void)
{
	static unsigned char big[8192];
	static const size_t good[] = { 8, 12, 16, 48, 50, 255, 256, 257, 300, 4096 };
	static const size_t bad[] = { 0, 1, 7 };
	int fds[2], f;
	size_t i, j;
	struct mptcp_caps whole, again;

	fds[0] = -1;
	fds[1] = fd4;
	for (f = 0; f < 2; f++) {
		memset(&whole, 0xff, sizeof whole);
		OK(mptcp_getcaps(fds[f], &whole, sizeof whole));
		OK(mptcp_getcaps(fds[f], &again, sizeof again));
		CHECK(!memcmp(&whole, &again, sizeof whole));
		for (i = 0; i < sizeof good / sizeof good[0]; i++) {
			size_t n = good[i] < sizeof whole ? good[i] : sizeof whole;

			memset(big, 0xa5, sizeof big);
			OK(mptcp_getcaps(fds[f], (struct mptcp_caps *)(void *)big, good[i]));
			CHECK(!memcmp(big, &whole, n));
			for (j = n; j < good[i] && !big[j]; j++)
				;
			CHECK_INT(j, good[i]);
			for (; j < sizeof big && big[j] == 0xa5; j++)
				;
			CHECK_INT(j, sizeof big);
		}
		memset(big, 0xa5, sizeof big);
		for (i = 0; i < 3; i++)
			FAILS(EINVAL, mptcp_getcaps(fds[f], (struct mptcp_caps *)(void *)big, bad[i]));
		FAILS(E2BIG, mptcp_getcaps(fds[f], (struct mptcp_caps *)(void *)big, 4097));
		FAILS(E2BIG, mptcp_getcaps(fds[f], (struct mptcp_caps *)(void *)big, (size_t)-1));
		FAILS(E2BIG, mptcp_getcaps(fds[f], (struct mptcp_caps *)(void *)big, (size_t)1 << 63));
		for (j = 0; j < sizeof big && big[j] == 0xa5; j++)
			;
		CHECK_INT(j, sizeof big);

		/* What stands in it. */
		CHECK_INT(whole.library, MPTCPAPI_VERSION_NUMBER);
		CHECK(!(whole.works & ~whole.known));
		CHECK(whole.works & MPTCP_CAP_ENABLE);
		CHECK(whole.works & MPTCP_CAP_SUBFLOWS);
		CHECK(whole.works & MPTCP_CAP_CONNID);
		CHECK_INT(whole.backend, control ? T_BACKEND : MPTCP_BACKEND_NONE);
		CHECK(whole.control <= MPTCP_CONTROL_CONNECTION);
		CHECK(!whole.reserved[0] && !whole.reserved[1]);
		CHECK(memchr(whole.reason, '\0', sizeof whole.reason) != NULL);
		CHECK(t_utf8(whole.reason));
		CHECK(!strchr(whole.reason, '\n'));
	}
}

/* ---- the small ones ------------------------------------------------------ */

static void small(void)
{
	static const int other[] = { AF_UNSPEC, AF_UNIX, AF_NETLINK, -1, 0x10002, 0x7fffffff };
	size_t i;
	int fd, v;
	socklen_t len;

	OK(mptcp_getaddrlen(AF_INET));
	CHECK_INT(mptcp_getaddrlen(AF_INET), 16);
	CHECK_INT(mptcp_getaddrlen(AF_INET6), 28);
	for (i = 0; i < sizeof other / sizeof other[0]; i++) {
		errno = 0;
		CHECK_INT(mptcp_getaddrlen(other[i]), -1);
		CHECK_INT(errno, EAFNOSUPPORT);
	}
	CHECK_STR(mptcp_version(), "0.1.0");
	CHECK(mptcp_version() == mptcp_version());
	errno = SENTINEL;
	(void)mptcp_version();
	(void)mptcp_errmsg();
	CHECK_INT(errno, SENTINEL);

	/* mptcp_socket: MPTCP for streams, and socket(2) for everything else. */
	for (i = 0; i < 12; i++) {
		int domain = i & 1 ? AF_INET6 : AF_INET;
		int flags = (i & 2 ? SOCK_NONBLOCK : 0) | (i & 2 ? 0 : SOCK_CLOEXEC);
		int protocol = i / 4 == 0 ? 0 : i / 4 == 1 ? IPPROTO_TCP : IPPROTO_MPTCP;

		fd = (int)OK(mptcp_socket(domain, SOCK_STREAM | flags, protocol));
		CHECK_INT(raw_protocol(fd), IPPROTO_MPTCP);
		CHECK_INT(!!(fcntl(fd, F_GETFL) & O_NONBLOCK), !!(flags & SOCK_NONBLOCK));
		CHECK_INT(!!(fcntl(fd, F_GETFD) & FD_CLOEXEC), !!(flags & SOCK_CLOEXEC));
		len = sizeof v;
		CHECK(!getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &v, &len) && v == domain);
		CHECK_INT(enabled(fd), 1);
		close(fd);
	}
	fd = (int)OK(mptcp_socket(AF_INET, SOCK_DGRAM, 0));
	CHECK_INT(raw_protocol(fd), IPPROTO_UDP);
	close(fd);
	fd = (int)OK(mptcp_socket(AF_UNIX, SOCK_STREAM, 0));
	close(fd);
	/* What socket(2) refuses is refused with the same errno. */
	{
		static const int args[][3] = {
			{ -1, SOCK_STREAM, 0 }, { 12345, SOCK_STREAM, 0 }, { AF_INET, 0, 0 },
			{ AF_INET, SOCK_STREAM | 0x10000, 0 }, { AF_INET, -1, 0 },
			{ AF_INET, SOCK_STREAM, IPPROTO_UDP }, { AF_INET, SOCK_STREAM, 9999 },
			{ AF_INET, SOCK_STREAM, -1 }, { AF_INET, SOCK_DGRAM, IPPROTO_MPTCP },
			{ AF_INET, SOCK_SEQPACKET, IPPROTO_MPTCP }, { AF_UNIX, SOCK_STREAM, IPPROTO_MPTCP },
			{ AF_INET, SOCK_DGRAM, IPPROTO_TCP }, { AF_UNIX, SOCK_STREAM, IPPROTO_TCP },
		};

		for (i = 0; i < sizeof args / sizeof args[0]; i++) {
			errno = 0;
			fd = socket(args[i][0], args[i][1], args[i][2]);
			v = errno;
			REQUIRE(fd == -1);
			t_fails(__FILE__, __LINE__, "mptcp_socket", v, v,
				(errno = 0, mptcp_socket(args[i][0], args[i][1], args[i][2])));
		}
	}
}

/* ---- words ---------------------------------------------------------------- */

static void *other_thread(void *arg)
{
	char *before = arg;

	CHECK_STR(mptcp_errmsg(), "");
	(void)mptcp_getsubflows(-1, NULL);
	FAILS(EAFNOSUPPORT, add(fd4, "fd01::1"));
	CHECK(strcmp(mptcp_errmsg(), before));
	return NULL;
}

static void words(void)
{
	char before[256];
	const char *p;
	pthread_t t;
	int v;

	FAILS(ENOTCONN, mptcp_getpaddrs(fd4, (struct sockaddr **)(void *)out));
	p = mptcp_errmsg();
	snprintf(before, sizeof before, "%s", p);
	/* Another thread's failure is not ours, nor does it move our words. */
	REQUIRE(!pthread_create(&t, NULL, other_thread, before));
	REQUIRE(!pthread_join(t, NULL));
	CHECK_STR(p, before);
	CHECK_STR(mptcp_errmsg(), before);
	/* A success does not change them, nor do the free functions. */
	OK(get_int(fd4, TCP_MULTIPATH_ENABLE, &v));
	CHECK_STR(mptcp_errmsg(), before);
	CHECK_STR(laddrs(fd4), "");
	mptcp_freesubflows(NULL);
	(void)mptcp_version();
	OK(mptcp_getaddrlen(AF_INET6));
	OK(mptcp_setsockopt(fd4, SOL_SOCKET, SO_KEEPALIVE, (v = 0, &v), sizeof v));
	CHECK_STR(mptcp_errmsg(), before);
	/* A new failure does. */
	FAILS(EAFNOSUPPORT, add(fd4, "fd01::1"));
	CHECK(strcmp(mptcp_errmsg(), before));
	snprintf(before, sizeof before, "%s", mptcp_errmsg());
	FAILS(EBADF, mptcp_getsubflows(-1, (struct mptcp_subflow **)(void *)out));
	CHECK(strcmp(mptcp_errmsg(), before));
}

int main(void)
{
	int before = open_fds(), on = 1;

	/* Before the first failure of this thread; no call yet, and after a good one. */
	CHECK_STR(mptcp_errmsg(), "");
	control = t_control();
	fd4 = (int)OK(mptcp_socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
	fd6 = (int)OK(mptcp_socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
	fdv6only = (int)OK(mptcp_socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
	REQUIRE(fd4 >= 0 && fd6 >= 0 && fdv6only >= 0);
	REQUIRE(!setsockopt(fdv6only, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on));
	CHECK_STR(mptcp_errmsg(), "");

	descriptors();
	nulls();
	if (!t_failed)
		need_mptcp();           /* the rest is about MPTCP sockets */
	integers();
	lists();
	rubbish();
	sizes();
	small();
	words();

	/* All that failed left the sockets as they were. */
	CHECK_INT(enabled(fd4), 1);
	CHECK_INT(enabled(fd6), 1);
	CHECK_STR(sockname(fd4), "0.0.0.0");
	CHECK_STR(sockname(fd6), "::");
	close(fd4);
	close(fd6);
	close(fdv6only);
	/* A backend may keep a few descriptors; failures add none. */
	CHECK(open_fds() - before <= t_own_fds());
	return t_done();
}
