/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What the library costs over the bare system calls.
 *
 *   query kernel    queries on connections of the in-kernel path manager, in a
 *                   process where the library manages nothing
 *   query managed   queries on connections that have a list
 *   query second    from connect to the second subflow, both path managers
 *   query once WHAT COUNT
 *                   COUNT calls of one kind on a managed connection of two
 *                   subflows and nothing else: for callgrind, perf and strace
 *
 * The two sides of a comparison take turns in one process, a batch each, and
 * who is first changes with every round: whatever else the machine does hits
 * both. The ratio is the median over the rounds of the two batches' ratio;
 * ratios of the medians and of the minimums are given beside it.
 */
#include "bench.h"

#define ROUNDS 201
#define CALLS 2000
#define CONNECTIONS 400

static volatile int sink;       /* keeps the compiler from dropping a call */

static void ours_subflows(int fd, int calls)
{
	struct mptcp_subflow *list;

	while (calls--) {
		sink += mptcp_getsubflows(fd, &list);
		mptcp_freesubflows(list);
	}
}

static void peer_subflows(int fd, int calls)
{
	struct raw_subflow info[PATHS];
	uint64_t tcp[PATHS];

	while (calls--)
		sink += raw_subflows(fd, info, tcp, PATHS);
}

static void ours_enable(int fd, int calls)
{
	while (calls--) {
		int value;
		socklen_t len = sizeof value;

		sink += mptcp_getsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_ENABLE, &value, &len) + value;
	}
}

static void peer_enable(int fd, int calls)
{
	while (calls--) {
		int value;
		socklen_t len = sizeof value;

		sink += getsockopt(fd, IPPROTO_TCP, RAW_IS_MPTCP, &value, &len) + value;
	}
}

typedef void batch(int fd, int calls);

static double timed(batch *run, int fd, int calls)
{
	double start = now_us();

	run(fd, calls);
	return (now_us() - start) / calls;
}

struct compared {
	const char *what;
	int subflows, fd, calls;
	unsigned pause_us;
	batch *ours, *peer;
	double a[ROUNDS], b[ROUNDS], ratio[ROUNDS];
};

/* All comparisons take turns in every round, so that none has a quieter time. */
static void compare(const char *variant, struct compared *list, int count)
{
	for (int round = -5; round < ROUNDS; round++) {
		for (struct compared *c = list; c < list + count; c++) {
			double a = 0, b = 0;

			for (int turn = 0; turn < 2; turn++) {
				if (c->pause_us)
					usleep(c->pause_us);
				if ((turn ^ round) & 1)
					a = timed(c->ours, c->fd, c->calls);
				else
					b = timed(c->peer, c->fd, c->calls);
			}
			if (round < 0)
				continue;
			c->a[round] = a;
			c->b[round] = b;
			c->ratio[round] = a / b;
		}
	}
	for (struct compared *c = list; c < list + count; c++) {
		double ratio = quantile(c->ratio, ROUNDS, .5);
		double low = quantile(c->ratio, ROUNDS, .1), high = quantile(c->ratio, ROUNDS, .9);
		double a = quantile(c->a, ROUNDS, .5), b = quantile(c->b, ROUNDS, .5);

		printf("query\t%s\t%s\t%d\t%.4f\t%.4f\t%.4f\t%.4f\t%.4f\t%.4f\t%.4f\n", variant, c->what, c->subflows,
		       a, b, ratio, low, high, c->a[0], c->b[0]);
	}
}

static int kernel_connection(int subflows, int *served)
{
	struct sockaddr_in from = path(1);
	double until = now_us() + 3e6;
	int fd;

	endpoints(subflows);    /* first: a socket keeps what it was made with */
	fd = mptcp_fd();
	if (bind(fd, (struct sockaddr *)&from, sizeof from) || connect(fd, (struct sockaddr *)&server, sizeof server))
		die("connecting");
	*served = greet(fd);
	while (subflows_up(fd) != subflows)
		if (now_us() > until)
			die("%d subflows instead of %d", subflows_up(fd), subflows);
	return fd;
}

static int managed_connection(int subflows, int *served)
{
	struct sockaddr_in list[PATHS];
	struct mptcp_caps caps;
	double until = now_us() + 3e6;
	int fd = mptcp_fd();

	for (int i = 0; i < subflows; i++)
		list[i] = path(i + 1);
	if (mptcp_bindx(fd, (struct sockaddr *)list, subflows, MPTCP_BINDX_ADD_ADDR) ||
	    mptcp_connectx(fd, (struct sockaddr *)&server, 1, NULL))
		die("connecting with a list: %s", mptcp_errmsg());
	*served = greet(fd);
	while (subflows_up(fd) != subflows) {
		mptcp_getcaps(fd, &caps, sizeof caps);
		if (now_us() > until)
			die("%d subflows instead of %d", subflows_up(fd), subflows);
	}
	if (caps.control != MPTCP_CONTROL_CONNECTION && subflows > 1)
		die("the connection is not managed");
	return fd;
}

/* One number of subflows after the other: an endpoint added for a later
   connection would give the earlier ones another subflow too. */
static void queries(const char *variant, int connection(int, int *))
{
	static const int counts[] = { 1, 2, 8 };

	for (int i = 0; i < 3; i++) {
		static struct compared list[3];
		int n = counts[i], kinds = 1, served;
		int fd = connection(n, &served);

		list[0] = (struct compared){ .what = "getsubflows", .calls = CALLS,
					     .ours = ours_subflows, .peer = peer_subflows };
		if (n == 2) {
			list[kinds++] = (struct compared){ .what = "enable", .calls = CALLS,
							   .ours = ours_enable, .peer = peer_enable };
			/* One call after a pause: the caches are cold, and on a
			   managed connection each steps the backend. */
			list[kinds++] = (struct compared){ .what = "getsubflows-spaced", .calls = 1, .pause_us = 2000,
							   .ours = ours_subflows, .peer = peer_subflows };
		}
		for (int k = 0; k < kinds; k++) {
			list[k].subflows = n;
			list[k].fd = fd;
		}
		compare(variant, list, kinds);
		end(fd, served);
	}
}

/* ---- to the second subflow ------------------------------------------- */

struct passage { double add, connect, second; };

/* Until the second subflow is there, as the kernel lists it; `step` is what
   the application calls meanwhile. */
static double await_second(int fd, double start, void step(int))
{
	while (subflows_up(fd) < 2) {
		if (step)
			step(fd);
		if (now_us() - start > 1e6)
			return -1;
	}
	return now_us() - start;
}

static void step_getsubflows(int fd)
{
	ours_subflows(fd, 1);
}

static void step_getcaps(int fd)
{
	struct mptcp_caps caps;

	sink += mptcp_getcaps(fd, &caps, sizeof caps);
}

static struct passage by_kernel(void)
{
	struct sockaddr_in from = path(1);
	struct passage p = { 0 };
	int fd = mptcp_fd(), served;
	double start;

	if (bind(fd, (struct sockaddr *)&from, sizeof from))
		die("binding");
	start = now_us();
	if (connect(fd, (struct sockaddr *)&server, sizeof server))
		die("connecting");
	p.connect = now_us() - start;
	served = greet(fd);
	p.second = await_second(fd, start, NULL);
	end(fd, served);
	return p;
}

static struct passage by_library(void step(int))
{
	struct sockaddr_in list[2] = { path(1), path(2) };
	struct passage p = { 0 };
	int fd = mptcp_fd(), served;
	double start = now_us();

	if (mptcp_setsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_ADD, list, sizeof list))
		die("ADD: %s", mptcp_errmsg());
	p.add = now_us() - start;
	start = now_us();
	if (mptcp_connectx(fd, (struct sockaddr *)&server, 1, NULL))
		die("connectx: %s", mptcp_errmsg());
	p.connect = now_us() - start;
	served = greet(fd);
	p.second = await_second(fd, start, step);
	end(fd, served);
	return p;
}

static void report(const char *who, struct passage *p, int count)
{
	static double a[CONNECTIONS], c[CONNECTIONS], s[CONNECTIONS];
	int lost = 0, got = 0;

	for (int i = 0; i < count; i++) {
		if (p[i].second < 0) {
			lost++;
			continue;
		}
		printf("sample\tsecond\t%s\t%.1f\n", who, p[i].second);
		a[got] = p[i].add;
		c[got] = p[i].connect;
		s[got++] = p[i].second;
	}
	quantile(s, got, 0);    /* sorts: the least is first */
	printf("second\t%s\t%.1f\t%.1f\t%.1f\t%.1f\t%.1f\t%.1f\t%.1f\t%d\t%d\n", who, quantile(a, got, .5),
	       quantile(a, got, .95), quantile(c, got, .5), quantile(c, got, .95), quantile(s, got, .5),
	       quantile(s, got, .95), s[0], got, lost);
}

static void second(void)
{
	static struct passage kernel[CONNECTIONS], plain[CONNECTIONS], eager[CONNECTIONS];
	static double ratio[2][CONNECTIONS];

	endpoints(2);
	for (int i = -5; i < CONNECTIONS; i++) {
		struct passage k = by_kernel(), p = by_library(step_getsubflows), e = by_library(step_getcaps);

		if (i < 0)
			continue;
		kernel[i] = k;
		plain[i] = p;
		eager[i] = e;
		ratio[0][i] = p.second / k.second;
		ratio[1][i] = e.second / k.second;
	}
	report("kernel", kernel, CONNECTIONS);
	report("getsubflows", plain, CONNECTIONS);
	report("getcaps", eager, CONNECTIONS);
	printf("second-ratio\tgetsubflows\t%.4f\n", quantile(ratio[0], CONNECTIONS, .5));
	printf("second-ratio\tgetcaps\t%.4f\n", quantile(ratio[1], CONNECTIONS, .5));
}

static int once(const char *what, int calls)
{
	int served, fd = managed_connection(2, &served);

	if (!strcmp(what, "getsubflows"))
		ours_subflows(fd, calls);
	else if (!strcmp(what, "raw-getsubflows"))
		peer_subflows(fd, calls);
	else if (!strcmp(what, "enable"))
		ours_enable(fd, calls);
	else if (!strcmp(what, "raw-enable"))
		peer_enable(fd, calls);
	else
		return 2;
	return 0;
}

int main(int argc, char **argv)
{
	const char *mode = argc > 1 ? argv[1] : "";

	setvbuf(stdout, NULL, _IOLBF, 0);
	signal(SIGPIPE, SIG_IGN);
	more_addresses();
	listen_here();
	if (!strcmp(mode, "kernel"))
		queries(mode, kernel_connection);
	else if (!strcmp(mode, "managed"))
		queries(mode, managed_connection);
	else if (!strcmp(mode, "second"))
		second();
	else if (!strcmp(mode, "once") && argc == 4)
		return once(argv[2], atoi(argv[3]));
	else {
		fprintf(stderr, "usage: query kernel|managed|second|once WHAT COUNT\n");
		return 2;
	}
	return 0;
}
