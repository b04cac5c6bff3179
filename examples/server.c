/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* server PORT [echo|sink] [BYTES_PER_SECOND], server PORT source BYTES: serves
 * Multipath TCP and TCP clients, each in a process, and says what it got from
 * each, or gave. */
#define _POSIX_C_SOURCE 200809L
#include "example.h"
#include "sha256.h"
#include <signal.h>
#include <time.h>

static char data[1 << 16];

static void send_all(int fd, size_t n)
{
	ssize_t sent = 0, rc;

	for (; (size_t)sent < n; sent += rc)
		if ((rc = send(fd, data + sent, n - sent, MSG_NOSIGNAL)) < 0)
			die("send", strerror(errno));
}

/* Gives back what comes, or swallows it, until the client has no more. */
static unsigned long take(int fd, struct sha256 *sum, int echo, unsigned long rate)
{
	unsigned long total = 0;
	ssize_t n;

	while ((n = recv(fd, data, sizeof data, 0)) > 0) {
		sha256_add(sum, data, n);
		total += n;
		if (echo)
			send_all(fd, n);
		if (rate) {
			struct timespec pause = { n / rate, n % rate * 1000000000ULL / rate };
			nanosleep(&pause, NULL);
		}
	}
	if (n < 0)
		die("receive", strerror(errno));
	return total;
}

/* Gives so many random bytes, and waits until the client has them all. */
static unsigned long give(int fd, struct sha256 *sum, unsigned long bytes)
{
	FILE *noise = fopen("/dev/urandom", "rb");
	unsigned long left;
	size_t n;

	if (!noise)
		die("/dev/urandom", strerror(errno));
	for (left = bytes; left; left -= n) {
		n = fread(data, 1, left < sizeof data ? left : sizeof data, noise);
		sha256_add(sum, data, n);
		send_all(fd, n);
	}
	if (shutdown(fd, SHUT_WR) || recv(fd, data, sizeof data, 0) < 0)
		die("end", strerror(errno));
	return bytes;
}

int main(int argc, char **argv)
{
	struct sockaddr_storage address;
	socklen_t len;
	int client, on = 1, listener = mptcp_socket(AF_INET, SOCK_STREAM, 0);
	const char *mode = argc > 2 ? argv[2] : "echo";
	unsigned long number = argc > 3 ? strtoul(argv[3], NULL, 10) : 0;

	if (argc < 2)
		die("usage", "server PORT [echo|sink [BYTES_PER_SECOND]|source BYTES]");
	if (listener < 0)
		die("socket", mptcp_errmsg());
	len = pack((char *)&address, "0.0.0.0", argv[1]) - (char *)&address;
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (bind(listener, (struct sockaddr *)&address, len) || listen(listener, 64))
		die(argv[1], strerror(errno));
	printf("listening on port %s\n", argv[1]);
	signal(SIGCHLD, SIG_IGN);
	for (;;) {
		fflush(stdout);
		len = sizeof address;
		client = accept(listener, (struct sockaddr *)&address, &len);
		if (client >= 0 && fork() == 0) {
			struct sha256 sum = sha256_start;
			char name[80], hex[65];
			unsigned long total = strcmp(mode, "source") ? take(client, &sum, !!strcmp(mode, "sink"), number)
				: give(client, &sum, number);

			printf("%s: %lu bytes, sha256 %s\n", text(&address, name), total, sha256_end(&sum, hex));
			exit(0);
		}
		close(client);
	}
}
