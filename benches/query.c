/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What the library costs over the bare system calls.
 *
 *   query kernel    queries on connections of the in-kernel path manager, in a
 *                   process where the library manages nothing
 *   query managed   queries on connections that have a list
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
	else if (!strcmp(mode, "once") && argc == 4)
		return once(argv[2], atoi(argv[3]));
	else {
		fprintf(stderr, "usage: query kernel|managed|once WHAT COUNT\n");
		return 2;
	}
	return 0;
}
