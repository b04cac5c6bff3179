/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The library as a guest in somebody's process: fork, exec, threads, signals,
 * cancellation, descriptors, standard output.
 *
 * lab:
 * lab: --userspace
 * lab: --user
 * lab: --broker= --user
 */
#include "raw.h"
#include <dirent.h>
#include <sys/resource.h>

static int control;
static const struct fam *f4 = &t_fams[0];

static int fresh(int domain)
{
	int fd = (int)OK(mptcp_socket(domain, SOCK_STREAM | SOCK_CLOEXEC, 0));

	REQUIRE(fd >= 0);
	return fd;
}

static void cloexec(struct pair *p)
{
	int fds[3], i;

	fds[0] = p->l;
	fds[1] = p->c;
	fds[2] = p->s;
	for (i = 0; i < 3; i++)
		if (fds[i] >= 0)
			REQUIRE(!fcntl(fds[i], F_SETFD, FD_CLOEXEC));
}

/* A bit of everything; the connection is left to the caller. */
static struct pair session(void)
{
	struct pair p = pair_listen(f4->server, IPPROTO_MPTCP);
	struct mptcp_caps caps;
	int c = fresh(AF_INET), t = tcp_socket(AF_INET);

	OK(set_int(t, TCP_MULTIPATH_ENABLE, 1));
	OK(set_int(t, TCP_MULTIPATH_ENABLE, 0));
	FAILS(EINVAL, mptcp_bindx(c, (struct sockaddr *)(void *)&caps, 1, 0));
	if (control)
		OK(add(c, "10.1.0.1 10.2.0.1"));
	else
		FAILS(EPERM, add(c, "10.1.0.1 10.2.0.1"));
	pair_connectx(&p, f4->server, c);
	settle(&p);
	AWAIT(count_subflows(c) == (control ? 2 : 1));
	if (control) {
		OK(add(c, "10.3.0.1"));
		AWAIT(count_subflows(c) == 3);
		OK(rem(c, "10.2.0.1"));
		AWAIT(count_subflows(c) == 2);
	}
	OK(mptcp_getcaps(c, &caps, sizeof caps));
	OK(mptcp_getcaps(-1, &caps, sizeof caps));
	CHECK_STR(paddrs_np(c), f4->shown_server);
	CHECK(connid(c) != 0);
	settle(&p);
	close(t);
	cloexec(&p);
	return p;
}

static int tasks(void)
{
	DIR *d = opendir("/proc/self/task");
	struct dirent *e;
	int n = 0;

	REQUIRE(d);
	while ((e = readdir(d)))
		n += e->d_name[0] != '.';
	closedir(d);
	return n;
}

/* Nothing of the process is touched. */
static void guest(void)
{
	struct sigaction before[65], after;
	sigset_t mask, mask2;
	struct itimerval timer;
	char name[] = "/tmp/ctests-output.XXXXXX", cwd[2][256];
	int i, out, keep[2];
	struct pair p;
	struct stat st;

	for (i = 1; i < 65; i++)
		if (sigaction(i, NULL, &before[i]))
			memset(&before[i], 0, sizeof before[i]);
	REQUIRE(!sigprocmask(SIG_SETMASK, NULL, &mask));
	REQUIRE(getcwd(cwd[0], sizeof cwd[0]));
	/* All output goes to a file while the library works. */
	out = mkstemp(name);
	REQUIRE(out >= 0);
	unlink(name);
	fflush(NULL);
	for (i = 0; i < 2; i++) {
		keep[i] = fcntl(i + 1, F_DUPFD_CLOEXEC, 10);
		REQUIRE(dup2(out, i + 1) == i + 1);
	}
	p = session();
	fflush(NULL);
	REQUIRE(!fstat(out, &st));
	for (i = 0; i < 2; i++) {
		REQUIRE(dup2(keep[i], i + 1) == i + 1);
		close(keep[i]);
	}
	if (st.st_size) {
		char text[2048];
		ssize_t n = pread(out, text, sizeof text - 1, 0);

		text[n > 0 ? n : 0] = '\0';
		t_fail(__FILE__, __LINE__, "printed:\n%s", text);
	}
	close(out);

	CHECK_INT(tasks(), 1);
	for (i = 1; i < 65; i++) {
		if (sigaction(i, NULL, &after))
			continue;
		CHECK(after.sa_handler == before[i].sa_handler && after.sa_flags == before[i].sa_flags);
	}
	REQUIRE(!sigprocmask(SIG_SETMASK, NULL, &mask2));
	for (i = 1; i < 65; i++)
		CHECK_INT(sigismember(&mask2, i), sigismember(&mask, i));
	for (i = 0; i < 3; i++) {
		REQUIRE(!getitimer(i, &timer));
		CHECK(!timer.it_value.tv_sec && !timer.it_value.tv_usec);
	}
	REQUIRE(getcwd(cwd[1], sizeof cwd[1]));
	CHECK_STR(cwd[1], cwd[0]);
	pair_close(&p);
}

/* Whatever stays open is the library's own: gone at exec, and no socket but
 * of netlink, or the lines to the broker. */
static void descriptors(int before)
{
	int round, fd, n = 0, first = 0;

	for (round = 0; round < 20; round++) {
		struct pair p = session();

		pair_close(&p);
		if (round == 0)
			first = open_fds();
	}
	CHECK_INT(open_fds(), first);
	for (fd = 3; fd < 1024; fd++) {
		int flags = fcntl(fd, F_GETFD), v = -1;
		socklen_t len = sizeof v;

		if (flags < 0)
			continue;
		n++;
		CHECK(flags & FD_CLOEXEC);
		if (!getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &v, &len))
			CHECK_INT(v, t_broker() ? AF_UNIX : AF_NETLINK);
	}
	CHECK(control ? n <= t_own_fds() : open_fds() == before);
}

/* exec: nothing of ours goes along. */
static void executed(char *self)
{
	struct pair p = session();
	int status = -1;
	pid_t pid = fork();

	REQUIRE(pid >= 0);
	if (!pid) {
		execl("/proc/self/exe", self, "--fds", (char *)NULL);
		_exit(99);
	}
	REQUIRE(waitpid(pid, &status, 0) == pid);
	CHECK_INT(status, 0);
	settle(&p);
	pair_close(&p);
}

static int list_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	struct dirent *e;
	int bad = 0;

	while (d && (e = readdir(d)))
		if (e->d_name[0] != '.' && atoi(e->d_name) > 2 && atoi(e->d_name) != dirfd(d)) {
			char path[300], to[256];
			ssize_t n;

			snprintf(path, sizeof path, "/proc/self/fd/%s", e->d_name);
			n = readlink(path, to, sizeof to - 1);
			to[n > 0 ? n : 0] = '\0';
			fprintf(stderr, "fd %s came through exec: %s\n", e->d_name, to);
			bad++;
		}
	return bad != 0;
}

/* A list that the broker keeps goes along with its socket: this is after exec. */
static int inherited(int c, int port)
{
	struct pair p;

	memset(&p, 0, sizeof p);
	p.c = c;
	p.l = -1;
	CHECK_STR(laddrs(c), "10.1.0.1 10.2.0.1");
	OK(connx(c, at("10.9.0.1", port), NULL));
	say(c, c);      /* the other end echoes */
	AWAIT_STR(locals(c), "10.1.0.1 10.2.0.1");
	close(c);
	return t_done();
}

static int waited(pid_t pid)
{
	int status = -1;

	REQUIRE(waitpid(pid, &status, 0) == pid);
	return status;
}

static void handed_on(char *self)
{
	struct pair p = pair_listen(f4->server, IPPROTO_MPTCP);
	int c = fresh(AF_INET);
	char fd[16], port[16], byte;
	pid_t pid;

	OK(add(c, "10.1.0.1 10.2.0.1"));
	REQUIRE(!fcntl(c, F_SETFD, 0));
	snprintf(fd, sizeof fd, "%d", c);
	snprintf(port, sizeof port, "%d", p.port);
	pid = fork();
	REQUIRE(pid >= 0);
	if (!pid) {
		execl("/proc/self/exe", self, fd, port, (char *)NULL);
		_exit(99);
	}
	close(c);
	p.s = t_accept(p.l);
	CHECK(recv(p.s, &byte, 1, 0) == 1 && send(p.s, &byte, 1, MSG_NOSIGNAL) == 1);
	CHECK_INT(waited(pid), 0);
	pair_close(&p);
}

/* A child starts without the parent's state and works by itself; what the broker
 * keeps is the socket's, whoever holds it. */
static void forked(void)
{
	struct pair p = session(), q;
	int c = fresh(AF_INET), one = fresh(AF_INET);
	pid_t pid;

	if (control) {
		OK(add(c, "10.1.0.1 10.2.0.1"));
		OK(add(one, "10.3.0.1"));
	}
	q = pair_listen(f4->server, IPPROTO_MPTCP);
	pid = fork();
	REQUIRE(pid >= 0);
	if (!pid) {
		alarm(20);
		t_failed = 0;
		CHECK_STR(laddrs(c), t_broker() ? "10.1.0.1 10.2.0.1" : "");
		CHECK_INT(enabled(c), 1);
		CHECK_INT(enabled(p.c), 1);
		CHECK(connid(p.c) == raw_token(p.c));
		CHECK_INT(count_subflows(p.c), control ? 2 : 1);
		settle(&p);
		/* The list of before is enforced on the initial subflow, where ADD could bind it. */
		pair_connectx(&q, f4->server, one);
		if (control && has_late_bind())
			CHECK_STR(locals(one), "10.3.0.1");
		settle(&q);
		pair_close(&q);
		/* A life of its own. */
		q = session();
		pair_close(&q);
		_exit(t_failed != 0);
	}
	CHECK_INT(waited(pid), 0);
	/* The parent has lost nothing. */
	if (control) {
		CHECK_STR(laddrs(c), "10.1.0.1 10.2.0.1");
		CHECK_STR(laddrs(p.c), "10.1.0.1 10.3.0.1");
	}
	AWAIT(count_subflows(p.c) == (control ? 2 : 1));
	close(one);
	close(c);
	close(q.l);
	close(p.l);
	close(p.c);
	close(p.s);
}

/* fork() while other threads are in the middle of calls. */
static volatile int stop;

static void *hammer(void *arg)
{
	int fd = *(int *)arg;
	struct mptcp_caps caps;

	while (!stop) {
		(void)count_subflows(fd);
		(void)mptcp_getcaps(fd, &caps, sizeof caps);
		(void)laddrs(fd);
		if (control) {
			(void)add(fd, "10.1.0.1");
			(void)rem(fd, "10.1.0.1");
		}
		(void)mptcp_getsubflows(-1, NULL);
	}
	return NULL;
}

static void forked_in_the_middle(void)
{
	struct pair p = session();
	pthread_t t[2];
	int c = fresh(AF_INET), i;

	stop = 0;
	REQUIRE(!pthread_create(&t[0], NULL, hammer, &p.c));
	REQUIRE(!pthread_create(&t[1], NULL, hammer, &c));
	for (i = 0; i < 30; i++) {
		pid_t pid = fork();

		REQUIRE(pid >= 0);
		if (!pid) {
			int fd;

			alarm(10);      /* a deadlock ends by a signal */
			fd = mptcp_socket(AF_INET, SOCK_STREAM, 0);
			if (fd < 0 || enabled(fd) != 1 || count_subflows(p.c) < 0)
				_exit(1);
			if (control && (add(fd, "10.1.0.1") || strcmp(laddrs(fd), "10.1.0.1")))
				_exit(2);
			if (mptcp_getsubflows(-1, NULL) != -1 || !*mptcp_errmsg())
				_exit(3);
			_exit(0);
		}
		CHECK_INT(waited(pid), 0);
	}
	stop = 1;
	for (i = 0; i < 2; i++)
		REQUIRE(!pthread_join(t[i], NULL));
	settle(&p);
	close(c);
	pair_close(&p);
}

/* Threads on one connection. */
static struct pair shared;

static void *toggle(void *arg)
{
	const char *addr = arg;
	int i;

	for (i = 0; i < 100; i++) {
		if (add(shared.c, addr) || rem(shared.c, addr)) {
			t_fail(__FILE__, __LINE__, "%s: errno %d, \"%s\"", addr, errno, mptcp_errmsg());
			break;
		}
	}
	return NULL;
}

static void *query(void *arg)
{
	uint32_t id = connid(shared.c);
	int i;

	(void)arg;
	for (i = 0; i < 1000; i++) {
		if (count_subflows(shared.c) < 1 || connid(shared.c) != id || enabled(shared.c) != 1)
			t_fail(__FILE__, __LINE__, "query %d: errno %d, \"%s\"", i, errno, mptcp_errmsg());
		if (!within("10.3.0.1", laddrs(shared.c)))
			t_fail(__FILE__, __LINE__, "the list is \"%s\"", laddrs(shared.c));
	}
	return NULL;
}

static void *wrong(void *arg)
{
	int i;

	(void)arg;
	for (i = 0; i < 1000; i++) {
		char words[256];

		FAILS(EAFNOSUPPORT, add(shared.c, "fd01::1"));
		snprintf(words, sizeof words, "%s", mptcp_errmsg());
		sched_yield();
		CHECK_STR(mptcp_errmsg(), words);
		FAILS(EBADF, mptcp_getsubflows(-1, (struct mptcp_subflow **)(void *)words));
	}
	return NULL;
}

static void threads_on_one(void)
{
	pthread_t t[4];
	int i;

	shared = pair_listen(f4->server, IPPROTO_MPTCP);
	shared.c = fresh(AF_INET);
	OK(add(shared.c, "10.3.0.1"));
	pair_connectx(&shared, f4->server, shared.c);
	settle(&shared);
	nonblock(shared.c);
	REQUIRE(!pthread_create(&t[0], NULL, toggle, (void *)(uintptr_t)"10.1.0.1"));
	REQUIRE(!pthread_create(&t[1], NULL, toggle, (void *)(uintptr_t)"10.2.0.1"));
	REQUIRE(!pthread_create(&t[2], NULL, query, NULL));
	REQUIRE(!pthread_create(&t[3], NULL, wrong, NULL));
	for (i = 0; i < 20; i++)
		CHECK_INT(pump(&shared, 50000, NULL, NULL), 0);
	for (i = 0; i < 4; i++)
		REQUIRE(!pthread_join(t[i], NULL));
	CHECK_STR(laddrs(shared.c), "10.3.0.1");
	AWAIT_STR(locals(shared.c), "10.3.0.1");
	CHECK_INT(pump(&shared, 50000, NULL, NULL), 0);
	pair_close(&shared);
}

/* Each thread its own. */
static void *own(void *arg)
{
	const char *path = arg;
	int i, k;

	for (i = 0; i < 10; i++) {
		int l = listen_at("10.9.0.1", IPPROTO_MPTCP, 4), c = fresh(AF_INET), s;

		if (control)
			OK(add(c, path));
		OK(connx(c, at("10.9.0.1", sockport(l)), NULL));
		s = t_accept(l);
		for (k = 0; k < 3; k++) {
			say(c, s);
			say(s, c);
		}
		CHECK_STR(locals(c), control ? path : "10.9.0.1");
		CHECK(connid(c) == raw_token(c));
		if (control) {
			OK(add(c, "10.9.0.1"));
			AWAIT(count_subflows(c) == 2);
		}
		close(s);
		close(c);
		close(l);
	}
	return NULL;
}

static void threads_of_their_own(void)
{
	static const char *const path[4] = { "10.1.0.1", "10.2.0.1", "10.3.0.1", "10.1.0.1" };
	pthread_t t[4];
	int i;

	for (i = 0; i < 4; i++)
		REQUIRE(!pthread_create(&t[i], NULL, own, (void *)(uintptr_t)path[i]));
	for (i = 0; i < 4; i++)
		REQUIRE(!pthread_join(t[i], NULL));
}

/* With a cancellation pending every call goes to its end. */
static volatile int reached;

static void *cancelled(void *arg)
{
	struct pair p;

	(void)arg;
	REQUIRE(!pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL));
	p = pair_listen("10.9.0.1", IPPROTO_MPTCP);
	REQUIRE(!pthread_cancel(pthread_self()));
	REQUIRE(!pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL));
	/* Nothing here but calls of the library is near a cancellation point. */
	p.c = mptcp_socket(AF_INET, SOCK_STREAM, 0);
	if (control)
		(void)add(p.c, "10.1.0.1");
	(void)connx(p.c, at("10.9.0.1", p.port), NULL);
	(void)count_subflows(p.c);
	(void)mptcp_getsubflows(-1, NULL);
	if (control)
		(void)rem(p.c, "10.1.0.1");
	reached = 1;
	(void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	CHECK(connid(p.c) != 0);
	pair_close(&p);
	(void)pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
	pthread_testcancel();
	reached = 2;
	return NULL;
}

static void cancellation(void)
{
	pthread_t t;
	void *how = NULL;

	reached = 0;
	REQUIRE(!pthread_create(&t, NULL, cancelled, NULL));
	REQUIRE(!pthread_join(t, &how));
	CHECK_INT(reached, 1);
	CHECK(how == PTHREAD_CANCELED);
}

/* No descriptor left: EMFILE, nothing lost, and everything works afterwards. */
static void exhausted(void)
{
	pid_t pid = fork();

	REQUIRE(pid >= 0);
	if (!pid) {
		struct rlimit old, none;
		int c = fresh(AF_INET), t = tcp_socket(AF_INET), n = open_fds();

		alarm(20);
		t_failed = 0;
		REQUIRE(!getrlimit(RLIMIT_NOFILE, &old));
		none = old;
		none.rlim_cur = 0;
		REQUIRE(!setrlimit(RLIMIT_NOFILE, &none));
		FAILS(EMFILE, mptcp_socket(AF_INET, SOCK_STREAM, 0));
		FAILS(EMFILE, set_int(t, TCP_MULTIPATH_ENABLE, 1));
		CHECK_INT(raw_protocol(t), IPPROTO_TCP);
		if (control)
			FAILS(EMFILE, add(c, "10.1.0.1 10.2.0.1"));
		CHECK_STR(laddrs(c), "");
		CHECK_INT(enabled(c), 1);
		REQUIRE(!setrlimit(RLIMIT_NOFILE, &old));
		CHECK_INT(open_fds(), n);
		OK(set_int(t, TCP_MULTIPATH_ENABLE, 1));
		if (control)
			OK(add(c, "10.1.0.1 10.2.0.1"));
		_exit(t_failed != 0);
	}
	CHECK_INT(waited(pid), 0);
}

int main(int argc, char **argv)
{
	int before, fd;

	if (argc == 2)
		return list_fds();
	if (argc == 3)
		return inherited(atoi(argv[1]), atoi(argv[2]));
	need_mptcp();
	/* Whatever whoever runs the tests has left open is not the library's. */
	for (fd = 3; fd < 1024; fd++)
		close(fd);
	control = t_control();
	before = open_fds();
	guest();
	descriptors(before);
	exhausted();
	executed(argv[0]);
	if (t_broker())
		handed_on(argv[0]);
	forked();
	cancellation();
	if (control)
		threads_on_one();
	threads_of_their_own();
	forked_in_the_middle();
	CHECK(open_fds() - before <= t_own_fds());
	return t_done();
}
