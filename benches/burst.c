/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Many connections at once, for one leg (see legs.h).
 *
 *   burst open LEG FROM FROM2 TO PORT
 *   burst watch FROM2 NETNS DEVICE
 *
 * The first is told
 *   open N    to make N connections one after the other and send a byte on each:
 *             "opened START END FAILED", in microseconds of CLOCK_REALTIME; then it
 *             steps its backend if it has to
 *   check     whether each has exactly two subflows now, by the kernel's list: "have COUNT"
 *   close     to end them all at once: "closed"
 *
 * The other watches the joins arrive in the server's namespace; several of the
 * first kind share one. It is told "watch N MILLISECONDS", says "watching", and
 * then, as soon as N joins have come or the time is over, "joined COUNT WHEN",
 * which is when the last one came. It costs the others little: it looks twice in
 * ten milliseconds, since the packets have their times already.
 */
#include "legs.h"

static int *fds, held;

static void open_many(const struct leg *leg, int count)
{
	const struct sockaddr *to = (const struct sockaddr *)&leg->to;
	double start;
	int failed = 0;

	fds = calloc(count, sizeof *fds);
	if (!fds)
		die("no memory");
	start = real_us();
	for (held = 0; held < count; held++) {
		int fd = mptcp_fd();

		fds[held] = fd;
		if (leg->library ?
		    mptcp_setsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_ADD, leg->from, sizeof leg->from) ||
		    mptcp_connectx(fd, to, 1, NULL) : connect(fd, to, sizeof leg->to)) {
			if (!failed++)
				fprintf(stderr, "burst: connection %d: %s (%s)\n", held, strerror(errno),
					leg->library ? mptcp_errmsg() : "connect");
			continue;
		}
		if (write(fd, "x", 1) != 1 && !failed++)
			fprintf(stderr, "burst: connection %d: %s (write)\n", held, strerror(errno));
	}
	printf("opened\t%.0f\t%.0f\t%d\n", start, real_us(), failed);
}

static int have_two(void)
{
	int two = 0;

	for (int i = 0; i < held; i++)
		two += subflows_up(fds[i]) == 2;
	return two;
}

static void opener(char **argv)
{
	struct leg leg = leg_of(argv);
	const char *word;
	int at = 0;

	many_descriptors();
	for (;;) {
		struct pollfd input = { 0, POLLIN, 0 };

		while (leg.step && held && poll(&input, 1, 0) == 0)
			leg.step(fds[at++ % held]);
		word = hear();
		alarm(60);
		if (!strncmp(word, "open ", 5)) {
			open_many(&leg, atoi(word + 5));
		} else if (!strcmp(word, "check")) {
			printf("have\t%d\n", have_two());
		} else if (!strcmp(word, "close")) {
			while (held)
				reset(fds[--held]);
			free(fds);
			fds = NULL;
			printf("closed\n");
		}
		alarm(0);
	}
}

static void watcher(char **argv)
{
	int fd = tap(argv[1], argv[2], address(argv[0], NULL));

	for (;;) {
		static unsigned char seen[65536];
		int want = 0, patience = 0, port, count = 0;
		double when = 0, last = 0, until;

		if (sscanf(hear(), "watch %d %d", &want, &patience) != 2)
			continue;
		while (tapped(fd, &when))
			;
		memset(seen, 0, sizeof seen);
		printf("watching\n");
		for (until = now_us() + 1e3 * patience; count < want && now_us() < until; usleep(5000))
			while ((port = tapped(fd, &when)))
				if (!seen[port]) {
					seen[port] = 1;
					count++;
					last = when;
				}
		printf("joined\t%d\t%.0f\n", count, last);
	}
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	signal(SIGPIPE, SIG_IGN);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (argc == 7 && !strcmp(argv[1], "open"))
		opener(argv + 2);
	if (argc == 5 && !strcmp(argv[1], "watch"))
		watcher(argv + 2);
	fprintf(stderr, "usage: burst open LEG FROM FROM2 TO PORT, burst watch FROM2 NETNS DEVICE\n");
	return 2;
}
