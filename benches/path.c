/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A path between two network namespaces: a link with a rate, a buffer before
 * it, a delay and a loss, that can be cut. For kernels without netem or tbf, and
 * for cuts at a known moment.
 *
 *   path [--rate MBIT] [--delay MS] [--buffer KB] [--loss PERCENT] [--seed N] NAME NETNS NETNS
 *
 * makes a TUN device of that name in both (files such as /proc/PID/ns/net), to
 * be given addresses by others, says "ready" and forwards both ways until its
 * standard input ends. A TUN device has no offloads, so what passes are packets
 * as they would be on a wire. Each line of input is a command, answered with
 * itself and the time, in microseconds of CLOCK_MONOTONIC:
 *
 *   drop | pass            silently, in both directions, also what is under way
 *   down | up              the same, and the first namespace's device loses its
 *                          carrier: the cable is pulled there
 *   rate MBIT, delay MS, buffer KB, loss PERCENT
 *   counts                 answered with packets forwarded, lost, and dropped by a
 *                          full buffer
 *   payload                answered with the bytes of TCP's payload that were sent
 *                          into the path, from the first end and from the second
 *
 * A packet's moments are computed from when it came, not from when this process
 * gets to run: being late delays a packet, but slows nothing down.
 */
#include "bench.h"

#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>

#define PACKET 2048

struct packet {
	struct packet *next;
	double due;
	int length;
	unsigned char data[];
};

struct way {                    /* one direction */
	int from, to;
	double busy;            /* until when the link is sending what it has */
	unsigned long long payload;
	struct packet *first, **last;
};

static struct { double rate, delay, buffer, loss; } link_ = { 100, 5, 250, 0 };
static long forwarded, lost, full;
static int cut;
static unsigned long long random_state = 1;

/* splitmix64: the same losses for the same seed. */
static double chance(void)
{
	unsigned long long z = random_state += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return (double)((z ^ z >> 31) >> 11) / (1ull << 53);
}

static int tun(const char *name, const char *netns)
{
	struct ifreq device = { .ifr_flags = IFF_TUN | IFF_NO_PI };
	int ns = open(netns, O_RDONLY | O_CLOEXEC), fd;

	if (ns < 0 || setns(ns, CLONE_NEWNET))
		die("entering %s", netns);
	close(ns);
	fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0) {
		fprintf(stderr, "/dev/net/tun: %s\n", strerror(errno));
		exit(77);
	}
	snprintf(device.ifr_name, sizeof device.ifr_name, "%s", name);
	if (ioctl(fd, TUNSETIFF, &device))
		die("making the TUN device %s", name);
	return fd;
}

static void forget(struct way *way)
{
	while (way->first) {
		struct packet *p = way->first;

		way->first = p->next;
		free(p);
	}
	way->last = &way->first;
	way->busy = 0;
}

/* Bytes that a TCP segment carries; 0 of anything else. */
static int payload(const unsigned char *p, int length)
{
	int head = p[0] >> 4 == 4 ? (p[0] & 15) * 4 : 40, next = p[0] >> 4 == 4 ? p[9] : p[6];

	if (length < head + 20 || next != IPPROTO_TCP)
		return 0;
	return length - head - (p[head + 12] >> 4) * 4;
}

/* What came in, as far as the link takes it. */
static void take(struct way *way)
{
	unsigned char data[PACKET];
	int length, most = 64;

	while (most-- && (length = read(way->from, data, sizeof data)) > 0) {
		double now = now_us(), bits = 8.0 * length;
		struct packet *p;

		way->payload += payload(data, length);
		if (cut)
			continue;
		if (link_.loss && chance() * 100 < link_.loss) {
			lost++;
			continue;
		}
		if (way->busy < now)
			way->busy = now;
		if ((way->busy - now) * link_.rate / 8 + length > link_.buffer * 1000) {
			full++;
			continue;
		}
		p = malloc(sizeof *p + length);
		if (!p)
			die("no memory");
		way->busy += bits / link_.rate;
		p->due = way->busy + link_.delay * 1000;
		p->next = NULL;
		p->length = length;
		memcpy(p->data, data, length);
		*way->last = p;
		way->last = &p->next;
	}
}

/* What has arrived; and when the next one does, 0 if none is under way. */
static double give(struct way *way)
{
	while (way->first && way->first->due <= now_us()) {
		struct packet *p = way->first;

		if (write(way->to, p->data, p->length) == p->length)
			forwarded++;
		way->first = p->next;
		if (!way->first)
			way->last = &way->first;
		free(p);
	}
	return way->first ? way->first->due : 0;
}

static void command(char *line, struct way *ways)
{
	char word[16] = "";
	double value = 0;
	int carrier;

	if (sscanf(line, "%15s %lf", word, &value) < 1)
		return;
	if (!strcmp(word, "counts")) {
		printf("counts %ld %ld %ld\n", forwarded, lost, full);
		return;
	}
	if (!strcmp(word, "payload")) {
		printf("payload %llu %llu\n", ways[0].payload, ways[1].payload);
		return;
	}
	if (!strcmp(word, "rate"))
		link_.rate = value;
	else if (!strcmp(word, "delay"))
		link_.delay = value;
	else if (!strcmp(word, "buffer"))
		link_.buffer = value;
	else if (!strcmp(word, "loss"))
		link_.loss = value;
	else if (!strcmp(word, "drop") || !strcmp(word, "pass"))
		cut = word[0] == 'd';
	else if (!strcmp(word, "down") || !strcmp(word, "up")) {
		cut = word[0] == 'd';
		carrier = !cut;
		if (ioctl(ways[0].from, TUNSETCARRIER, &carrier))
			die("TUNSETCARRIER");
	} else {
		fprintf(stderr, "path: what is \"%s\"?\n", word);
		return;
	}
	if (cut) {
		forget(&ways[0]);
		forget(&ways[1]);
	}
	printf("%s %.0f\n", word, now_us());
}

static void options(int argc, char **argv)
{
	for (int i = 1; i + 1 < argc && !strncmp(argv[i], "--", 2); i += 2) {
		double value = atof(argv[i + 1]);

		if (!strcmp(argv[i], "--rate"))
			link_.rate = value;
		else if (!strcmp(argv[i], "--delay"))
			link_.delay = value;
		else if (!strcmp(argv[i], "--buffer"))
			link_.buffer = value;
		else if (!strcmp(argv[i], "--loss"))
			link_.loss = value;
		else if (!strcmp(argv[i], "--seed"))
			random_state = (unsigned long long)value;
		else
			die("path: no option %s", argv[i]);
	}
}

int main(int argc, char **argv)
{
	struct sched_param urgent = { .sched_priority = 10 };
	struct way ways[2] = { 0 };
	char line[256];
	size_t got = 0;

	options(argc, argv);
	if (argc < 4) {
		fprintf(stderr, "usage: path [--rate MBIT] [--delay MS] [--buffer KB] [--loss PERCENT] [--seed N] "
				"NAME NETNS NETNS\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	prctl(PR_SET_TIMERSLACK, 1);
	sched_setscheduler(0, SCHED_FIFO, &urgent);     /* where it may */
	for (int i = 0; i < 2; i++)
		ways[i].from = tun(argv[argc - 3], argv[argc - 2 + i]);
	for (int i = 0; i < 2; i++) {
		ways[i].to = ways[!i].from;
		forget(&ways[i]);
	}
	printf("ready\n");

	for (;;) {
		struct pollfd ready[3] = { { ways[0].from, POLLIN, 0 }, { ways[1].from, POLLIN, 0 }, { 0, POLLIN, 0 } };
		double due[2] = { give(&ways[0]), give(&ways[1]) };
		double next = !due[0] ? due[1] : !due[1] || due[0] < due[1] ? due[0] : due[1];
		double wait = next - now_us();
		struct timespec timeout = { 0 };

		if (wait > 0) {
			timeout.tv_sec = (time_t)(wait / 1e6);
			timeout.tv_nsec = (long)((wait - 1e6 * timeout.tv_sec) * 1000);
		}
		if (ppoll(ready, 3, next ? &timeout : NULL, NULL) < 0 && errno != EINTR)
			die("ppoll");
		take(&ways[0]);
		take(&ways[1]);
		if (ready[2].revents) {
			ssize_t n = read(0, line + got, sizeof line - 1 - got);
			char *end;

			if (n <= 0)
				return 0;
			got += n;
			line[got] = 0;
			while ((end = strchr(line, '\n'))) {
				*end = 0;
				command(line, ways);
				got -= end + 1 - line;
				memmove(line, end + 1, got + 1);
			}
			if (got == sizeof line - 1)
				got = 0;
		}
	}
}
