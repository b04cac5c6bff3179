/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Helpers shared by the benchmarks: the clock, order statistics, pairs of
 * connected sockets with both ends in one process, and MPTCP_FULL_INFO as a
 * program without the library would ask it (declared here: the headers of
 * Debian 12 don't have it).
 *
 * Results are lines of tab-separated words on standard output, which
 * benches/run reads; remarks go to standard error.
 */
#ifndef BENCH_H
#define BENCH_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <mptcp.h>

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif
#ifndef SOL_MPTCP
#define SOL_MPTCP 284
#endif
#define RAW_MPTCP_INFO 1
#define RAW_FULL_INFO 4
#define RAW_IS_MPTCP 43         /* TCP_IS_MPTCP */

#define B __attribute__((unused)) static

#define PATHS 8                 /* local addresses, the initial one included */
#define SERVER "10.9.0.1"

struct raw_subflow {            /* struct mptcp_subflow_info: 264 bytes */
	uint32_t id, pad;
	struct sockaddr_storage local, remote;
};

struct raw_full_info {          /* struct mptcp_full_info up to mptcp_info */
	uint32_t size_tcpinfo_kernel, size_tcpinfo_user;
	uint32_t size_sfinfo_kernel, size_sfinfo_user;
	uint32_t num_subflows, size_arrays_user;
	uint64_t subflow_info, tcp_info;
};

B void die(const char *fmt, ...)
{
	va_list ap;
	int err = errno;

	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, " (%s)\n", strerror(err));
	exit(1);
}

B double now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

/* Of the clock that the kernel stamps packets with. */
B double real_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

B int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* The value below which this share of the samples lies; sorts them. */
B double quantile(double *samples, int count, double share)
{
	int at = (int)(share * (count - 1) + 0.5);

	if (count == 0)
		return 0;
	qsort(samples, count, sizeof *samples, by_size);
	return samples[at];
}

B void shell(const char *fmt, ...)
{
	char command[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(command, sizeof command, fmt, ap);
	va_end(ap);
	if (system(command) != 0)
		die("failed: %s", command);
}

/* Local addresses 10.N.0.1; tests/lab made the first three and the server's. */
B void more_addresses(void)
{
	for (int i = 4; i <= PATHS; i++)
		shell("ip addr add 10.%d.0.1/32 dev lo", i);
}

/* The in-kernel path manager makes connections of `count` subflows; the limits
   are tests/lab's, well above, since the server's end counts against them too. */
B void endpoints(int count)
{
	shell("ip mptcp endpoint flush");
	for (int i = 2; i <= count; i++)
		shell("ip mptcp endpoint add 10.%d.0.1 subflow", i);
}

B struct sockaddr_in path(int number)
{
	struct sockaddr_in a = { .sin_family = AF_INET };

	a.sin_addr.s_addr = htonl(10u << 24 | (uint32_t)number << 16 | 1);
	return a;
}

B int listener_fd;
B struct sockaddr_in server;

B void listen_here(void)
{
	socklen_t len = sizeof server;

	server.sin_family = AF_INET;
	inet_pton(AF_INET, SERVER, &server.sin_addr);
	listener_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_MPTCP);
	if (listener_fd < 0 || bind(listener_fd, (struct sockaddr *)&server, len) || listen(listener_fd, 64) ||
	    getsockname(listener_fd, (struct sockaddr *)&server, &len))
		die("listening on %s", SERVER);
}

B int mptcp_fd(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_MPTCP);

	if (fd < 0)
		die("no MPTCP socket");
	return fd;
}

/* What a program without the library would write: one call, then the states. */
B inline int raw_subflows(int fd, struct raw_subflow *info, uint64_t *tcp, int room)
{
	struct raw_full_info request = {
		.size_tcpinfo_user = sizeof *tcp, .size_sfinfo_user = sizeof *info,
		.size_arrays_user = room,
		.subflow_info = (uintptr_t)info, .tcp_info = (uintptr_t)tcp,
	};
	socklen_t len = sizeof request;
	int up = 0;

	if (getsockopt(fd, SOL_MPTCP, RAW_FULL_INFO, &request, &len) || (int)request.num_subflows > room)
		return -1;
	for (uint32_t i = 0; i < request.num_subflows; i++) {
		unsigned char state = *(unsigned char *)&tcp[i];

		up += state == TCP_ESTABLISHED || state == TCP_CLOSE_WAIT;
	}
	return up;
}

B int subflows_up(int fd)
{
	struct raw_subflow info[PATHS + 2];
	uint64_t tcp[PATHS + 2];

	return raw_subflows(fd, info, tcp, PATHS + 2);
}

/* The server's end, with a byte each way so that both are fully established. */
B int greet(int client)
{
	char byte = 'x';
	int fd = accept4(listener_fd, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0 || write(client, &byte, 1) != 1 || read(fd, &byte, 1) != 1 || write(fd, &byte, 1) != 1 ||
	    read(client, &byte, 1) != 1)
		die("the first bytes of a connection");
	return fd;
}

/* Ends a connection at once, so that nothing of it runs in the next measurement. */
B void reset(int fd)
{
	struct linger now = { .l_onoff = 1, .l_linger = 0 };

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
	close(fd);
}

B void end(int client, int served)
{
	reset(client);
	reset(served);
}

#endif
