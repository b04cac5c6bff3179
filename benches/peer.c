/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The server's end of the benchmarks that compare path managers.
 *
 *   peer echo ADDRESS PORT     sends back whatever comes, on any number of
 *                              connections, until its standard input ends
 *   peer sink ADDRESS PORT     takes connections one after the other, checks
 *                              what comes against the pattern, and sends the
 *                              number of bytes back at the end. Meanwhile it
 *                              prints "came FIRST N N N ...": bytes in each
 *                              millisecond, from the FIRST of CLOCK_MONOTONIC
 *                              on; and at last "flow intact|broken BYTES"
 */
#include "legs.h"

static void accepting(const char *ip, const char *port)
{
	int one = 1;

	server = address(ip, port);
	listener_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_MPTCP);
	if (listener_fd < 0)
		die("no MPTCP socket");
	setsockopt(listener_fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(listener_fd, (struct sockaddr *)&server, sizeof server) || listen(listener_fd, 16384))
		die("listening on %s", ip);
	printf("ready\n");
}

/* What could not be written yet, of each connection. */
static struct owed { unsigned char *data; size_t from, to; } *owed;
#define ROOM 65536

static int watch(int set, int fd, uint32_t events, int change)
{
	struct epoll_event e = { .events = events, .data.fd = fd };

	return epoll_ctl(set, change, fd, &e);
}

static void echo_one(int set, int fd)
{
	static unsigned char data[ROOM];
	struct owed *o = &owed[fd];
	ssize_t n, put;

	while (o->from < o->to) {
		put = write(fd, o->data + o->from, o->to - o->from);
		if (put < 0) {
			if (errno == EAGAIN)
				return;
			goto over;
		}
		o->from += put;
	}
	if (o->data) {
		free(o->data);
		*o = (struct owed){ 0 };
		watch(set, fd, EPOLLIN, EPOLL_CTL_MOD);
	}
	n = read(fd, data, sizeof data);
	if (n < 0 && errno == EAGAIN)
		return;
	if (n <= 0)
		goto over;
	put = write(fd, data, n);
	if (put < 0 && errno != EAGAIN)
		goto over;
	if (put < 0)
		put = 0;
	if (put < n) {
		*o = (struct owed){ malloc(n - put), 0, n - put };
		if (!o->data)
			die("no memory");
		memcpy(o->data, data + put, n - put);
		watch(set, fd, EPOLLOUT, EPOLL_CTL_MOD);
	}
	return;
over:
	free(o->data);
	*o = (struct owed){ 0 };
	close(fd);
}

static void echo(void)
{
	int set = epoll_create1(EPOLL_CLOEXEC), most;
	struct epoll_event ready[256];

	many_descriptors();
	most = (int)sysconf(_SC_OPEN_MAX);
	owed = calloc(most, sizeof *owed);
	if (!owed || set < 0 || fcntl(listener_fd, F_SETFL, O_NONBLOCK) || watch(set, listener_fd, EPOLLIN, EPOLL_CTL_ADD) ||
	    watch(set, 0, EPOLLIN, EPOLL_CTL_ADD))
		die("epoll");
	for (;;) {
		int n = epoll_wait(set, ready, 256, -1);

		for (int i = 0; i < n; i++) {
			int fd = ready[i].data.fd;

			if (fd == 0)
				return;
			if (fd != listener_fd) {
				echo_one(set, fd);
				continue;
			}
			for (int batch = 0; batch < 64; batch++) {
				fd = accept4(listener_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
				if (fd < 0)
					break;
				watch(set, fd, EPOLLIN, EPOLL_CTL_ADD);
				echo_one(set, fd);      /* it may be there already */
			}
		}
	}
}

/* The bytes of each millisecond; those of CHUNK of them are one line. */
#define CHUNK 100

static struct { long first; int count; uint32_t came[CHUNK]; } chunk;

static void tell_chunk(void)
{
	if (!chunk.count)
		return;
	printf("came\t%ld\t", chunk.first);
	for (int i = 0; i < chunk.count; i++)
		printf("%u ", chunk.came[i]);
	printf("\n");
	fflush(stdout);
	memset(&chunk, 0, sizeof chunk);
}

static void note(ssize_t bytes)
{
	long now = (long)(now_us() / 1000);

	if (chunk.count && now - chunk.first >= CHUNK)
		tell_chunk();
	if (!chunk.count)
		chunk.first = now;
	chunk.came[now - chunk.first] += bytes;
	chunk.count = now - chunk.first + 1;
}

static void sink(void)
{
	static unsigned char data[PATTERN];

	for (;;) {
		struct pollfd ready[2] = { { listener_fd, POLLIN, 0 }, { 0, POLLIN, 0 } };
		uint64_t total = 0;
		int fd, intact = 1;
		ssize_t n;

		if (poll(ready, 2, -1) < 0 || ready[1].revents)
			return;
		fd = accept4(listener_fd, NULL, NULL, SOCK_CLOEXEC);
		if (fd < 0)
			continue;
		while ((n = read(fd, data, sizeof data)) > 0) {
			intact &= !memcmp(data, pattern(total), n);
			total += n;
			note(n);
		}
		tell_chunk();
		if (n < 0 || write(fd, &total, sizeof total) != sizeof total)
			intact = 0;
		close(fd);
		printf("flow\t%s\t%llu\n", intact ? "intact" : "broken", (unsigned long long)total);
		fflush(stdout);
	}
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOFBF, 1 << 16);
	signal(SIGPIPE, SIG_IGN);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (argc != 4 || (strcmp(argv[1], "echo") && strcmp(argv[1], "sink"))) {
		fprintf(stderr, "usage: peer echo|sink ADDRESS PORT\n");
		return 2;
	}
	accepting(argv[2], argv[3]);
	fflush(stdout);
	if (!strcmp(argv[1], "echo"))
		echo();
	else
		sink();
	return 0;
}
