/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * mptcp_connectbyname(): names and addresses, its struct, its flags, its errors
 * and words; a list; what eats or strips Multipath TCP's option on the way;
 * signals, timeouts, and nothing left behind.
 *
 * lab:
 * lab: --user
 * lab: --userspace
 * lab: --broker= T_USER=1
 */
#include "raw.h"
#include <locale.h>
#include <sys/resource.h>

static struct mptcp_connect_opts opts;

static const struct mptcp_connect_opts *numeric(uint32_t flags)
{
	memset(&opts, 0, sizeof opts);
	opts.flags = MPTCP_CONNECT_NUMERIC | flags;
	return &opts;
}

static const char *text(int number)
{
	static char buffer[16];

	snprintf(buffer, sizeof buffer, "%d", number);
	return buffer;
}

static int by_name(const char *node, int port, const struct mptcp_connect_opts *o)
{
	return mptcp_connectbyname(node, text(port), o, o ? sizeof *o : 0);
}

static double elapsed(double since)
{
	return t_now() - since;
}

static void nobody_waits(int l)
{
	struct pollfd p;

	p.fd = l;
	p.events = POLLIN;
	CHECK_INT(poll(&p, 1, 0), 0);
}

/* ---- connections ------------------------------------------------------- */

static void connects(const struct fam *f, uint32_t flags)
{
	struct pair p = pair_listen(f->server, IPPROTO_MPTCP);
	int multipath = !(flags & MPTCP_CONNECT_NO_MPTCP), fl;
	int before = open_fds();

	p.c = (int)OK(by_name(f->server, p.port, numeric(flags)));
	REQUIRE(p.c >= 0);
	CHECK(open_fds() <= before + 1 + t_own_fds());
	CHECK(fcntl(p.c, F_GETFD) & FD_CLOEXEC);
	fl = fcntl(p.c, F_GETFL) & O_NONBLOCK;
	CHECK_INT(!!fl, !!(flags & MPTCP_CONNECT_NONBLOCK));
	CHECK_INT(raw_protocol(p.c), multipath ? IPPROTO_MPTCP : IPPROTO_TCP);
	p.s = t_accept(p.l);
	settle(&p);
	CHECK_INT(raw_is_mptcp(p.c), multipath);
	CHECK_INT(enabled(p.c), multipath);
	CHECK_STR(paddrs_np(p.c), f->shown_server);
	nobody_waits(p.l);
	pair_close(&p);
}

static void plain_peer(const struct fam *f)
{
	struct pair p = pair_listen(f->server, IPPROTO_TCP);
	double start = t_now();

	/* A delay that nobody could take for slowness. */
	numeric(0);
	opts.tcp_delay_ms = opts.attempt_delay_ms = 5000;
	p.c = (int)OK(by_name(f->server, p.port, &opts));
	REQUIRE(p.c >= 0);
	CHECK(elapsed(start) < 2);
	CHECK_INT(enabled(p.c), 0);
	p.s = t_accept(p.l);
	settle(&p);
	nobody_waits(p.l);
	/* Not where that is no good. */
	FAILS(EOPNOTSUPP, by_name(f->server, p.port, numeric(MPTCP_CONNECT_NO_FALLBACK)));
	CHECK(strstr(mptcp_errmsg(), "plain TCP only"));
	pair_close(&p);
}

static void refused(const struct fam *f)
{
	int l = listen_at(f->server, IPPROTO_TCP, 1), port = sockport(l);
	int before = open_fds();
	char words[256];

	close(l);
	FAILS(ECONNREFUSED, by_name(f->server, port, numeric(0)));
	snprintf(words, sizeof words, f->domain == AF_INET ? "%s: %s:%d MPTCP, TCP: Connection refused"
		 : "%s: [%s]:%d MPTCP, TCP: Connection refused", f->server, f->server, port);
	if (!strstr(f->server, "::ffff:"))
		CHECK_STR(mptcp_errmsg(), words);
	FAILS(ECONNREFUSED, by_name(f->server, port, numeric(MPTCP_CONNECT_NO_MPTCP)));
	CHECK(strstr(mptcp_errmsg(), " TCP: Connection refused") && !strstr(mptcp_errmsg(), "MPTCP"));
	FAILS(ECONNREFUSED, by_name(f->server, port, numeric(MPTCP_CONNECT_NO_FALLBACK)));
	CHECK(open_fds() <= before - 1 + t_own_fds());
}

static void times_out(const struct fam *f)
{
	int filler, l = full_listener(f->server, &filler), port = sockport(l);
	int before = open_fds(), fd;
	double start = t_now();

	numeric(0);
	opts.timeout_ms = 400;
	FAILS(ETIMEDOUT, by_name(f->server, port, &opts));
	CHECK(elapsed(start) >= 0.4 && elapsed(start) < 2);
	CHECK(strstr(mptcp_errmsg(), "MPTCP, TCP: no answer"));
	/* An attempt is no longer one once it would not be Multipath TCP's. */
	start = t_now();
	FAILS(ETIMEDOUT, by_name(f->server, port, numeric(MPTCP_CONNECT_NO_FALLBACK)));
	CHECK(elapsed(start) > 2.5 && elapsed(start) < 3.5);
	CHECK_INT(raw_mib("MPCapableSYNTXDrop"), 0);
	CHECK_INT(open_fds(), before);
	/* Nobody has got through. */
	fd = t_accept(l);
	close(fd);
	nobody_waits(l);
	close(l);
	close(filler);
}

/* ---- a list -------------------------------------------------------------- */

static void with_list(const struct fam *f)
{
	struct pair p = pair_listen(f->server, IPPROTO_MPTCP);
	struct list l;
	char both[256];
	int i, before;

	snprintf(both, sizeof both, "%s %s", f->p1, f->p2);
	l = addrs(both);
	numeric(0);
	opts.local = SA(&l);
	opts.local_count = 2;
	if (!t_control()) {
		/* As ADD says it. */
		before = open_fds();
		FAILS(EPERM, by_name(f->server, p.port, &opts));
		CHECK_INT(open_fds(), before);
	} else {
		p.c = (int)OK(by_name(f->server, p.port, &opts));
		REQUIRE(p.c >= 0);
		p.s = t_accept(p.l);
		snprintf(both, sizeof both, "%s %s", f->s1, f->s2);
		CHECK_STR(laddrs_np(p.c), both);
		CHECK(within(raw_locals(p.c), both));
		settle(&p);
		AWAIT_STR(locals(p.c), both);
		CHECK_STR(raw_locals(p.c), both);
		close(p.s);
		close(p.c);
	}
	/* Plain TCP starts from one of them, and needs nobody. */
	for (i = 0; i < 2; i++) {
		l = addrs(i ? f->p2 : f->p1);
		numeric(MPTCP_CONNECT_NO_MPTCP);
		opts.local = SA(&l);
		opts.local_count = 1;
		p.c = (int)OK(by_name(f->server, p.port, &opts));
		REQUIRE(p.c >= 0);
		CHECK_STR(locals(p.c), i ? f->s2 : f->s1);
		p.s = t_accept(p.l);
		settle(&p);
		close(p.s);
		close(p.c);
		p.sent[0] = p.sent[1] = p.got[0] = p.got[1] = 0;
	}
	p.c = p.s = -1;
	pair_close(&p);
}

static void lists_refused(void)
{
	static const struct { const char *list; int e; } bad[] = {
		{ "0.0.0.0", EINVAL }, { "fe80::1", EINVAL }, { "224.0.0.1", EADDRNOTAVAIL },
		{ "fd01::1", EADDRNOTAVAIL },           /* reaches no IPv4 */
		{ "10.66.0.1", EADDRNOTAVAIL },         /* nobody's */
	};
	int l = listen_at("10.9.0.1", IPPROTO_MPTCP, 5), port = sockport(l), before = open_fds();
	struct list li;
	unsigned i;

	for (i = 0; i < sizeof bad / sizeof *bad; i++) {
		t_ctx = bad[i].list;
		li = addrs(bad[i].list);
		numeric(0);
		opts.local = SA(&li);
		opts.local_count = 1;
		if (i == 4 && !t_control())
			FAILS(EPERM, by_name("10.9.0.1", port, &opts));
		else
			FAILS(bad[i].e, by_name("10.9.0.1", port, &opts));
	}
	t_ctx = "";
	numeric(0);
	opts.local_count = 1;
	FAILS(EFAULT, by_name("10.9.0.1", port, &opts));
	li = addrs("10.1.0.1");
	opts.local = SA(&li);
	opts.local_count = 65;
	FAILS(EINVAL, by_name("10.9.0.1", port, &opts));
	opts.local_count = 0xffffffff;
	FAILS(EINVAL, by_name("10.9.0.1", port, &opts));
	CHECK(open_fds() <= before + t_own_fds());
	close(l);
}

/* ---- arguments ----------------------------------------------------------- */

static void arguments(void)
{
	int l = listen_at("10.9.0.1", IPPROTO_MPTCP, 64), port = sockport(l), fd;
	unsigned char longer[5000];
	const struct mptcp_connect_opts *o;
	size_t size;

	FAILS(EFAULT, mptcp_connectbyname(NULL, "80", NULL, 0));
	FAILS(EFAULT, mptcp_connectbyname("10.9.0.1", NULL, NULL, 0));
	FAILS(EFAULT, mptcp_connectbyname("10.9.0.1", "80", NULL, sizeof opts));
	FAILS(EINVAL, mptcp_connectbyname("10.9.0.1", "80", numeric(0), 0));
	FAILS(EINVAL, mptcp_connectbyname("10.9.0.1", "80", numeric(0), sizeof(void *) - 1));
	FAILS(E2BIG, mptcp_connectbyname("10.9.0.1", "80", numeric(0), 4097));
	FAILS(EINVAL, by_name("10.9.0.1", port, numeric(0x10)));
	FAILS(EINVAL, by_name("10.9.0.1", port, numeric(0x80000000)));
	FAILS(EINVAL, by_name("10.9.0.1", port,
			      numeric(MPTCP_CONNECT_NO_MPTCP | MPTCP_CONNECT_NO_FALLBACK)));
	numeric(0);
	opts.reserved = 1;
	FAILS(EINVAL, by_name("10.9.0.1", port, &opts));
	numeric(0);
	opts.profile = 4;
	FAILS(EINVAL, by_name("10.9.0.1", port, &opts));
	opts.profile = -1;
	FAILS(EINVAL, by_name("10.9.0.1", port, &opts));
	numeric(0);
	opts.family = AF_UNIX;
	FAILS(EAFNOSUPPORT, by_name("10.9.0.1", port, &opts));
	opts.family = AF_INET6;
	FAILS(ENOENT, by_name("10.9.0.1", port, &opts));
	FAILS(ENOENT, by_name("localhost", port, numeric(0)));
	FAILS(ENOENT, by_name("", port, numeric(0)));
	/* Not the port that 16 bits of it are. */
	FAILS(EINVAL, by_name("10.9.0.1", port + 65536, numeric(0)));
	FAILS(EINVAL, by_name("10.9.0.1", port + 65536, NULL));
	CHECK(strstr(mptcp_errmsg(), text(port + 65536)));

	/* Cut at any place, or longer and zero. */
	for (size = sizeof(void *); size <= sizeof opts; size++) {
		fd = (int)OK(mptcp_connectbyname("10.9.0.1", text(port), numeric(0), size));
		close(fd);
		close(t_accept(l));
	}
	memset(longer, 0, sizeof longer);
	o = numeric(MPTCP_CONNECT_NONBLOCK);
	memcpy(longer + 1, o, sizeof *o);               /* and misaligned */
	o = (const struct mptcp_connect_opts *)(const void *)(longer + 1);
	fd = (int)OK(mptcp_connectbyname("10.9.0.1", text(port), o, 4096));
	CHECK(fcntl(fd, F_GETFL) & O_NONBLOCK);
	close(fd);
	close(t_accept(l));
	longer[1 + sizeof opts] = 1;
	FAILS(E2BIG, mptcp_connectbyname("10.9.0.1", text(port), o, sizeof opts + 1));
	/* No options at all. */
	fd = (int)OK(by_name("10.9.0.1", port, NULL));
	CHECK(!(fcntl(fd, F_GETFL) & O_NONBLOCK));
	close(fd);
	close(t_accept(l));
	nobody_waits(l);
	close(l);
}

static void profiles(void)
{
	int l = listen_at("10.9.0.1", IPPROTO_MPTCP, 5), port = sockport(l), profile, rc, fd, e;

	/* As the option says it. */
	for (profile = 0; profile < 4; profile++) {
		fd = raw_socket(AF_INET);
		errno = 0;
		rc = set_int(fd, TCP_MULTIPATH_PROFILE, profile);
		e = errno;
		close(fd);
		numeric(0);
		opts.profile = profile;
		if (rc) {
			FAILS(e, by_name("10.9.0.1", port, &opts));
			continue;
		}
		fd = (int)OK(by_name("10.9.0.1", port, &opts));
		CHECK(!get_int(fd, TCP_MULTIPATH_PROFILE, &rc) && rc == profile);
		close(fd);
		close(t_accept(l));
	}
	close(l);
}

/* ---- signals --------------------------------------------------------------- */

static volatile sig_atomic_t rang;

static void ring(int signal)
{
	(void)signal;
	rang++;
}

static void interrupted(void)
{
	int filler, l = full_listener("10.9.0.1", &filler), before = open_fds();
	struct sigaction action;
	struct itimerval soon;

	memset(&action, 0, sizeof action);
	action.sa_handler = ring;
	REQUIRE(!sigaction(SIGALRM, &action, NULL));
	memset(&soon, 0, sizeof soon);
	soon.it_value.tv_usec = 200000;
	REQUIRE(!setitimer(ITIMER_REAL, &soon, NULL));
	FAILS(EINTR, by_name("10.9.0.1", sockport(l), numeric(0)));
	CHECK_INT(rang, 1);
	CHECK_INT(open_fds(), before);
	close(l);
	close(filler);
}

/* ---- no room ---------------------------------------------------------------- */

static void no_descriptors(void)
{
	int l = listen_at("10.9.0.1", IPPROTO_MPTCP, 5), port = sockport(l), spare, before = open_fds();
	struct rlimit old, less;

	REQUIRE(!getrlimit(RLIMIT_NOFILE, &old));
	spare = dup(0);
	less = old;
	less.rlim_cur = (rlim_t)spare;
	close(spare);
	REQUIRE(!setrlimit(RLIMIT_NOFILE, &less));
	FAILS(EMFILE, by_name("10.9.0.1", port, numeric(0)));
	FAILS(EMFILE, by_name("10.9.0.1", port, numeric(MPTCP_CONNECT_NO_MPTCP)));
	REQUIRE(!setrlimit(RLIMIT_NOFILE, &old));
	CHECK_INT(open_fds(), before);
	nobody_waits(l);
	close(l);
}

/* ---- names ----------------------------------------------------------------- */

/* A private /etc/hosts, which alone is asked. */
static void own_names(void)
{
	uid_t user = geteuid();

	REQUIRE(!user || !setresuid((uid_t)-1, 0, (uid_t)-1));
	REQUIRE(!unshare(CLONE_NEWNS));
	REQUIRE(!user || !setresuid((uid_t)-1, user, (uid_t)-1));
	REQUIRE(!prctl(PR_SET_DUMPABLE, 1, 0, 0, 0));
	sh("mount --make-rprivate / && mount -t tmpfs none /mnt && cd /mnt && umask 022 &&"
	   "printf 'fd09::1 both\\n10.9.0.1 both four\\nfd09::1 six\\n"
	   "10.9.0.1 two\\n10.1.0.1 two\\n10.2.0.1 two\\n10.9.0.1 xn--bcher-kva.example\\n' > hosts &&"
	   "printf 'hosts: files\\nservices: files\\n' > nsswitch &&"
	   "printf 'multi 7777/tcp\\n' > services &&"
	   "mount --bind hosts /etc/hosts && mount --bind nsswitch /etc/nsswitch.conf &&"
	   "mount --bind services /etc/services");
}

static void reaches(const char *name, int port, int l, const char *peer)
{
	int fd;

	t_ctx = name;
	fd = (int)OK(mptcp_connectbyname(name, text(port), NULL, 0));
	if (fd >= 0) {
		CHECK_STR(paddrs_np(fd), peer);
		CHECK_INT(enabled(fd), 1);
		close(fd);
		close(t_accept(l));
	}
	nobody_waits(l);
	t_ctx = "";
}

static void names(void)
{
	int l = listen_at("::/7777", IPPROTO_MPTCP, 64), four, fd;
	char long_name[300];
	double start;

	reaches("both", 7777, l, "fd09::1");
	reaches("four", 7777, l, "10.9.0.1");
	reaches("six", 7777, l, "fd09::1");
	fd = (int)OK(mptcp_connectbyname("four", "multi", NULL, 0));
	close(fd);
	close(t_accept(l));
	FAILS(ENOENT, mptcp_connectbyname("none", "multi", NULL, 0));
	CHECK_STR(mptcp_errmsg(), "none: Name or service not known");
	FAILS(EINVAL, mptcp_connectbyname("both", "no-such-service", NULL, 0));
	CHECK(strstr(mptcp_errmsg(), "no-such-service: "));
	memset(&opts, 0, sizeof opts);
	opts.family = AF_INET6;
	FAILS(ENOENT, mptcp_connectbyname("four", "multi", &opts, sizeof opts));
	memset(long_name, 'a', sizeof long_name - 1);
	long_name[sizeof long_name - 1] = '\0';
	FAILS(ENOENT, mptcp_connectbyname(long_name, "multi", NULL, 0));
	FAILS(ENOENT, mptcp_connectbyname("\xff\xfe", "multi", NULL, 0));

	/* Beyond ASCII, where the locale says what the bytes mean. */
	FAILS(ENOENT, mptcp_connectbyname("b\xc3\xbc" "cher.example", "multi", NULL, 0));
	if (setlocale(LC_CTYPE, "C.UTF-8")) {
		errno = 0;
		fd = mptcp_connectbyname("b\xc3\xbc" "cher.example", "multi", NULL, 0);
		if (fd < 0)
			printf("no libidn2? %s\n", mptcp_errmsg());
		else {
			close(fd);
			close(t_accept(l));
		}
		setlocale(LC_CTYPE, "C");
	}
	close(l);

	/* The one family refuses, the other is there. */
	four = listen_at("10.9.0.1/7778", IPPROTO_MPTCP, 64);
	start = t_now();
	memset(&opts, 0, sizeof opts);
	opts.tcp_delay_ms = opts.attempt_delay_ms = 5000;
	fd = (int)OK(mptcp_connectbyname("both", "7778", &opts, sizeof opts));
	CHECK(elapsed(start) < 2);
	CHECK_STR(paddrs_np(fd), "10.9.0.1");
	close(fd);
	close(t_accept(four));
	nobody_waits(four);
	/* Two answers stay two hosts: one connection, to one of them. */
	fd = (int)OK(mptcp_connectbyname("two", "7778", NULL, 0));
	CHECK_STR(paddrs_np(fd), "10.9.0.1");
	close(fd);
	close(t_accept(four));
	nobody_waits(four);
	close(four);
	FAILS(ECONNREFUSED, mptcp_connectbyname("two", "7778", NULL, 0));
	CHECK(strstr(mptcp_errmsg(), "10.9.0.1:7778 MPTCP, TCP: Connection refused"));
	CHECK(strstr(mptcp_errmsg(), "10.1.0.1:7778 MPTCP, TCP: Connection refused"));
	CHECK(strstr(mptcp_errmsg(), "10.2.0.1:7778 MPTCP, TCP: Connection refused"));
}

/* ---- on the way --------------------------------------------------------------- */

static void middleboxes(void)
{
	int l = listen_at("0.0.0.0/7779", IPPROTO_MPTCP, 64), other = listen_at("0.0.0.0/7780", IPPROTO_MPTCP, 8);
	static const char *const hosts[] = { "10.1.0.1", "10.2.0.1", "10.3.0.1" };
	double start, least = 9;
	int i, fd;

	sh("nft add table inet t; nft add chain inet t c '{ type filter hook input priority 0; }';"
	   "nft add rule inet t c tcp dport 7779 tcp option mptcp exists drop");
	for (i = 0; i < 3; i++) {       /* nothing is known of them: the full delay */
		start = t_now();
		fd = (int)OK(by_name(hosts[i], 7779, NULL));
		least = elapsed(start) < least ? elapsed(start) : least;
		CHECK_INT(enabled(fd), 0);
		close(fd);
		close(t_accept(l));
	}
	CHECK(least >= 0.15 && least < 0.35);
	fd = (int)OK(by_name("10.9.0.1", 7780, NULL));
	CHECK_INT(enabled(fd), 1);
	close(fd);
	close(t_accept(other));
	nobody_waits(l);
	nobody_waits(other);
	CHECK_INT(raw_mib("Blackhole"), 0);
	CHECK_INT(raw_mib("MPCapableSYNTXDrop"), 0);
	CHECK_INT(raw_mib("MPCapableSYNTXDisabled"), 0);

	sh("nft flush ruleset; nft add table inet t; nft add chain inet t c '{ type filter hook input priority 0; }';"
	   "nft add rule inet t c tcp dport 7779 reset tcp option mptcp");
	start = t_now();
	memset(&opts, 0, sizeof opts);
	opts.tcp_delay_ms = 5000;
	fd = (int)OK(by_name("10.9.0.1", 7779, &opts));
	CHECK(elapsed(start) < 2);
	CHECK_INT(enabled(fd), 0);
	close(fd);
	close(t_accept(l));
	nobody_waits(l);
	sh("nft flush ruleset");
	close(l);
	close(other);
}

int main(void)
{
	int i, before;

	need_mptcp();
	/* The library opens its own descriptors at first use. */
	connects(&t_fams[0], 0);
	before = open_fds();
	for (i = 0; i < 3; i++) {
		const struct fam *f = &t_fams[i];

		t_ctx = f->name;
		connects(f, 0);
		connects(f, MPTCP_CONNECT_NONBLOCK);
		connects(f, MPTCP_CONNECT_NO_MPTCP);
		connects(f, MPTCP_CONNECT_NO_FALLBACK);
		connects(f, MPTCP_CONNECT_NO_MPTCP | MPTCP_CONNECT_NONBLOCK);
		plain_peer(f);
		refused(f);
		with_list(f);
	}
	t_ctx = "IPv4";
	times_out(&t_fams[0]);
	t_ctx = "";
	lists_refused();
	arguments();
	profiles();
	interrupted();
	no_descriptors();
	if (t_sets_up()) {
		middleboxes();
		own_names();
		names();
	}
	CHECK(open_fds() <= before + t_own_fds());
	return t_done();
}
