/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Many connections that transfer all the time, while whoever manages their
 * paths comes and goes, for one leg (see legs.h), to "peer echo".
 *
 *   survive LEG FROM FROM2 TO PORT FROM3 COUNT
 *
 * Makes COUNT connections, says "opened FAILED", and sends a block on each ten
 * times a second; what comes back is compared with what was sent. Besides, fifty
 * times a second, it asks for something: in turn FROM3 for one of the connections
 * (or taken from it again), and a new connection with a list. It is told
 *   stop      to send no more and wait until all has come back: "done LOST BROKEN
 *             MISSING BYTES": connections that ended, that brought wrong bytes, and
 *             bytes that didn't come; and "asked OK REFUSED LONGEST", in ms
 *   ask       to add FROM3 to each connection: "added OK", and to wait until each
 *             has a subflow from each address: "have COUNT"
 *   new       to make one more connection: "new 1", if it has two subflows
 */
#include "legs.h"

#define BLOCK 1000
#define EVERY 100               /* milliseconds */

static struct connection {
	int fd, ended, broken, added;
	uint64_t sent, received;
} *all;
static int count;
static struct leg leg;
static struct sockaddr_in third;
static struct { int ok, refused; double longest; } asked;

/* A connection with a list, or -1. */
static int connection(void)
{
	const struct sockaddr *to = (const struct sockaddr *)&leg.to;
	int fd = mptcp_fd();

	if (leg.library ?
	    mptcp_setsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_ADD, leg.from, sizeof leg.from) ||
	    mptcp_connectx(fd, to, 1, NULL) : connect(fd, to, sizeof leg.to)) {
		close(fd);
		return -1;
	}
	return fd;
}

static void pump(struct connection *c)
{
	static unsigned char data[BLOCK];
	ssize_t n;

	if (c->ended)
		return;
	while ((n = read(c->fd, data, sizeof data)) > 0) {
		c->broken |= !!memcmp(data, pattern(c->received), n);
		c->received += n;
	}
	if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
		fprintf(stderr, "survive: a connection ended: %s\n", n ? strerror(errno) : "by the peer");
		c->ended = 1;
	}
}

static void feed(struct connection *c)
{
	ssize_t n;

	if (c->ended || c->sent - c->received > 16 * BLOCK)
		return;
	n = write(c->fd, pattern(c->sent), BLOCK);
	if (n > 0)
		c->sent += n;
	else if (errno != EAGAIN && errno != EINTR) {
		fprintf(stderr, "survive: a connection ended: %s\n", strerror(errno));
		c->ended = 1;
	}
}

static void change(struct connection *c)
{
	int flags = c->added ? MPTCP_BINDX_REM_ADDR : MPTCP_BINDX_ADD_ADDR;

	if (mptcp_bindx(c->fd, (struct sockaddr *)&third, 1, flags)) {
		asked.refused++;
	} else {
		asked.ok++;
		c->added = !c->added;
	}
}

static void ask(int turn)
{
	double start = now_us(), took;
	int fd;

	if (!leg.library)
		return;
	if (turn & 1) {
		change(&all[random() % count]);
	} else if ((fd = connection()) < 0) {
		asked.refused++;
	} else {
		asked.ok++;
		reset(fd);
	}
	took = (now_us() - start) / 1000;
	if (took > asked.longest)
		asked.longest = took;
}

/* Reads what comes, until the time; false as soon as the input has a word. */
static int pump_all(int set, double until)
{
	struct epoll_event ready[256];

	do {
		double left = (until - now_us()) / 1000;
		int n = epoll_wait(set, ready, 256, left < 0 ? 0 : (int)left);

		for (int i = 0; i < n; i++) {
			if (ready[i].data.ptr == NULL)
				return 0;
			pump(ready[i].data.ptr);
		}
	} while (now_us() < until);
	return 1;
}

static void transfer(int set)
{
	double next = now_us();
	long tick = 0;

	while (pump_all(set, next)) {
		for (int i = tick % EVERY; i < count; i += EVERY)
			feed(&all[i]);
		if (tick % 20 == 0)
			ask((int)(tick / 20));
		tick++;
		next += 1000;
		if (next < now_us() - 1e6)      /* far behind: not all at once */
			next = now_us();
	}
}

static void settle(int set)
{
	double until = now_us() + 20e6;
	uint64_t missing = 1, bytes = 0;
	int lost = 0, broken = 0;

	epoll_ctl(set, EPOLL_CTL_DEL, 0, NULL);
	while (missing && now_us() < until) {
		missing = 0;
		pump_all(set, now_us() + 10e3);
		for (int i = 0; i < count; i++)
			missing += all[i].sent - all[i].received;
	}
	for (int i = 0; i < count; i++) {
		lost += all[i].ended;
		broken += all[i].broken;
		bytes += all[i].received;
	}
	printf("done\t%d\t%d\t%llu\t%llu\n", lost, broken, (unsigned long long)missing, (unsigned long long)bytes);
	printf("asked\t%d\t%d\t%.1f\n", asked.ok, asked.refused, asked.longest);
}

/* How many connections have a subflow from each of the addresses. */
static int complete(void)
{
	int have = 0;

	for (int i = 0; i < count; i++) {
		struct sockaddr_in want[3] = { leg.from[0], leg.from[1], third };
		struct raw_subflow info[16];
		uint64_t tcp[16];
		int found = 0;

		memset(tcp, 0, sizeof tcp);
		raw_subflows(all[i].fd, info, tcp, 16);
		for (int w = 0; w < 3; w++)
			for (int k = 0; k < 16; k++) {
				struct sockaddr_in *local = (struct sockaddr_in *)&info[k].local;

				if (*(unsigned char *)&tcp[k] == TCP_ESTABLISHED &&
				    local->sin_addr.s_addr == want[w].sin_addr.s_addr) {
					found++;
					break;
				}
			}
		have += found == 3;
	}
	return have;
}

static void add_to_all(void)
{
	double until = now_us() + 20e6;
	int ok = 0, have;

	for (int i = 0; i < count; i++)
		if (mptcp_bindx(all[i].fd, (struct sockaddr *)&third, 1, MPTCP_BINDX_ADD_ADDR) == 0)
			ok++;
		else if (ok == i)
			fprintf(stderr, "survive: ADD: %s\n", mptcp_errmsg());
	printf("added\t%d\n", ok);
	do {
		if (leg.step)
			leg.step(all[0].fd);
		usleep(20000);
		have = complete();
	} while (have < count && now_us() < until);
	printf("have\t%d\n", have);
}

static int one_more(void)
{
	double until = now_us() + 5e6;
	char byte = 'x';
	int fd = connection(), up = 0;

	if (fd < 0) {
		fprintf(stderr, "survive: %s\n", leg.library ? mptcp_errmsg() : strerror(errno));
		return 0;
	}
	if (write(fd, &byte, 1) == 1 && read(fd, &byte, 1) == 1)
		while (up < 2 && now_us() < until) {
			if (leg.step)
				leg.step(fd);
			usleep(1000);
			up = subflows_up(fd);
		}
	reset(fd);
	return up == 2;
}

int main(int argc, char **argv)
{
	int set = epoll_create1(EPOLL_CLOEXEC), failed = 0;
	struct epoll_event input = { .events = EPOLLIN };

	setvbuf(stdout, NULL, _IOLBF, 0);
	signal(SIGPIPE, SIG_IGN);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (argc != 8) {
		fprintf(stderr, "usage: survive LEG FROM FROM2 TO PORT FROM3 COUNT\n");
		return 2;
	}
	many_descriptors();
	leg = leg_of(argv + 1);
	third = address(argv[6], NULL);
	count = atoi(argv[7]);
	all = calloc(count, sizeof *all);
	if (!all || set < 0)
		die("no memory");
	for (int i = 0; i < count; i++) {
		struct epoll_event e = { .events = EPOLLIN, .data.ptr = &all[i] };

		all[i].fd = connection();
		if (all[i].fd < 0) {
			if (!failed++)
				fprintf(stderr, "survive: %s\n", leg.library ? mptcp_errmsg() : strerror(errno));
			continue;
		}
		fcntl(all[i].fd, F_SETFL, O_NONBLOCK);
		epoll_ctl(set, EPOLL_CTL_ADD, all[i].fd, &e);
	}
	printf("opened\t%d\n", failed);
	if (failed)
		return 1;
	epoll_ctl(set, EPOLL_CTL_ADD, 0, &input);
	setvbuf(stdin, NULL, _IONBF, 0);        /* so that epoll sees each word */
	for (;;) {
		const char *word;

		transfer(set);
		alarm(100);
		word = hear();
		if (!strcmp(word, "stop")) {
			settle(set);
			break;
		}
	}
	for (;;) {
		const char *word = hear();

		if (!strcmp(word, "ask"))
			add_to_all();
		else if (!strcmp(word, "new"))
			printf("new\t%d\n", one_more());
	}
}
