/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * One connection with a profile, for one leg (see legs.h; besides, "alone": plain
 * TCP from the first address), to "peer echo" or "peer sink".
 *
 *   profile LEG PROFILE FROM FROM2 TO PORT
 *
 * PROFILE is one of aggregate, interactive, handover, overflow; hint: a small
 * transfer is announced; none. Where the library doesn't manage it means
 * nothing. Connects, says "up", and is told
 *   ask SECONDS    to send a small request, wait for the answer, and again 10 ms
 *                  later (to "peer echo"): "answers WHEN,TOOK,PATHS ...", in
 *                  microseconds, with the sum of 1 where the first address sent it
 *                  and of 2 where the second did
 *   send BYTES     to send so much and wait until it has come back: "back"
 *   load MBIT      to send so much in a second from now on, to "peer sink"; 0:
 *                  nothing
 *   subflows       "subflows SENT SENT2" by getallstats: payload sent from
 *                  the first address, and from the second
 *   stop           to end the stream and wait for the peer's count: "sent BYTES
 *                  RECEIVED"
 */
#include "legs.h"

#define REQUEST 100
#define PAUSE 10e3
#define PIECE (3 * 1448)        /* is written at once: whole segments */

static const char *profiles[] = { "aggregate", "interactive", "handover", "overflow" };

static struct leg leg;
static int fd;
static uint64_t sent;
static struct { double mbit, since; uint64_t base; } load;

static void choose(const char *name)
{
	struct mptcp_path_policy policy = { .mode = MPTCP_PATHS_ON_DEMAND };
	struct mptcp_traffic traffic = { .bytes_to_send = 20000 };

	if (!leg.library)
		return;
	for (int i = 0; i < 4; i++)
		if (!strcmp(name, profiles[i]) &&
		    mptcp_setsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_PROFILE, &i, sizeof i))
			die("the profile %s: %s", name, mptcp_errmsg());
	if (!strcmp(name, "hint") &&
	    (mptcp_setsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_PATH_POLICY, &policy, sizeof policy) ||
	     mptcp_setsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_TRAFFIC, &traffic, sizeof traffic)))
		die("the hint: %s", mptcp_errmsg());
}

/* Payload that was sent from each address, by subflows that are there. */
static void count_sent(uint64_t *by)
{
	struct mptcp_subflow_stats *list = NULL;
	int n = mptcp_getallstats(fd, NULL, 0, &list, sizeof *list);

	by[0] = by[1] = 0;
	for (int i = 0; i < n; i++) {
		struct sockaddr_in *local = (struct sockaddr_in *)&list[i].subflow.local;

		by[local->sin_addr.s_addr == leg.from[1].sin_addr.s_addr] += list[i].bytes_sent;
	}
	mptcp_freeallstats(list);
}

static void ask(double seconds)
{
	double until = now_us() + seconds * 1e6;
	char data[REQUEST] = { 0 };
	uint64_t before[2], after[2];

	count_sent(before);
	printf("answers\t");
	while (now_us() < until) {
		double start = now_us(), took;
		size_t got = 0;
		ssize_t n;

		if (write(fd, data, sizeof data) != sizeof data)
			die("a request");
		for (; got < sizeof data; got += n) {
			n = read(fd, data, sizeof data - got);
			if (n <= 0)
				die("an answer");
		}
		took = now_us() - start;
		count_sent(after);
		printf("%.0f,%.0f,%d ", start, took, (after[0] != before[0]) + 2 * (after[1] != before[1]));
		memcpy(before, after, sizeof before);
		usleep(PAUSE);
	}
	printf("\n");
}

static void send_back(size_t bytes)
{
	static char data[1 << 20];

	if (bytes > sizeof data || write(fd, data, bytes) != (ssize_t)bytes ||
	    recv(fd, data, bytes, MSG_WAITALL) != (ssize_t)bytes)
		die("sending and getting back");
	printf("back\n");
}

/* Sends as much as the load says, until there is a word. */
static void pace(void)
{
	for (;;) {
		struct pollfd ready[2] = { { 0, POLLIN, 0 }, { fd, POLLOUT, 0 } };
		double due = load.mbit * (now_us() - load.since) / 8 - (sent - load.base);
		ssize_t n;

		poll(ready, due >= PIECE ? 2 : 1, due >= PIECE ? 10 : 1);
		if (ready[0].revents)
			return;
		if (due < PIECE || !(ready[1].revents & POLLOUT))
			continue;
		n = write(fd, pattern(sent), due < PATTERN ? (size_t)due : PATTERN);
		if (n < 0 && errno != EAGAIN)
			die("sending, after %llu bytes", (unsigned long long)sent);
		if (n > 0)
			sent += n;
	}
}

static void stop(void)
{
	uint64_t received = 0;

	alarm(30);
	shutdown(fd, SHUT_WR);
	fcntl(fd, F_SETFL, 0);
	if (read(fd, &received, sizeof received) != sizeof received)
		die("the peer's count, after %llu bytes", (unsigned long long)sent);
	printf("sent\t%llu\t%llu\n", (unsigned long long)sent, (unsigned long long)received);
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 1 << 16);
	setvbuf(stdin, NULL, _IONBF, 0);        /* so that poll sees each word */
	signal(SIGPIPE, SIG_IGN);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (argc != 7) {
		fprintf(stderr, "usage: profile LEG PROFILE FROM FROM2 TO PORT\n");
		return 2;
	}
	leg = leg_of((char *[]){ argv[1], argv[3], argv[4], argv[5], argv[6] });
	if (!strcmp(argv[1], "alone")) {
		leg.library = 0;
		fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (fd < 0 || bind(fd, (struct sockaddr *)&leg.from[0], sizeof leg.from[0]))
			die("a TCP socket");
	} else {
		fd = leg_socket(&leg);
	}
	choose(argv[2]);
	leg_connect(&leg, fd);
	printf("up\n");
	for (;;) {
		const char *word;

		if (load.mbit > 0)
			pace();
		word = hear();
		if (!strncmp(word, "ask ", 4))
			ask(atof(word + 4));
		else if (!strncmp(word, "send ", 5))
			send_back(atol(word + 5));
		else if (!strncmp(word, "load ", 5)) {
			fcntl(fd, F_SETFL, O_NONBLOCK);
			load.mbit = atof(word + 5);
			load.since = now_us();
			load.base = sent;
		} else if (!strcmp(word, "subflows")) {
			uint64_t by[2];

			count_sent(by);
			printf("subflows\t%llu\t%llu\n", (unsigned long long)by[0], (unsigned long long)by[1]);
		} else if (!strcmp(word, "stop")) {
			stop();
			return 0;
		}
	}
}
