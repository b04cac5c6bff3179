/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* server PORT [echo|sink] [BYTES_PER_SECOND]: serves Multipath TCP and TCP
 * clients, each in a process, and says what it got from each. */
#define _POSIX_C_SOURCE 200809L
#include "example.h"
#include <signal.h>
#include <time.h>

/* Gives back what comes, or swallows it, until the client has no more. */
static void serve(int fd, const struct sockaddr_storage *client, int echo, unsigned long rate)
{
	static char data[1 << 16];
	char name[80], hex[65];
	struct sha256 sum = sha256_start;
	unsigned long total = 0;
	ssize_t n, sent, rc;

	while ((n = recv(fd, data, sizeof data, 0)) > 0) {
		sha256_add(&sum, data, n);
		total += n;
		for (sent = 0; echo && sent < n; sent += rc)
			if ((rc = send(fd, data + sent, n - sent, MSG_NOSIGNAL)) < 0)
				die("send", strerror(errno));
		if (rate) {
			struct timespec pause = { n / rate, n % rate * 1000000000ULL / rate };
			nanosleep(&pause, NULL);
		}
	}
	if (n < 0)
		die("receive", strerror(errno));
	printf("%s: %lu bytes, sha256 %s\n", text(client, name), total, sha256_end(&sum, hex));
}

int main(int argc, char **argv)
{
	struct sockaddr_storage address;
	socklen_t len;
	int client, on = 1, listener = mptcp_socket(AF_INET, SOCK_STREAM, 0);
	int echo = argc < 3 || strcmp(argv[2], "sink") != 0;
	unsigned long rate = argc > 3 ? strtoul(argv[3], NULL, 10) : 0;

	if (argc < 2)
		die("usage", "server PORT [echo|sink] [BYTES_PER_SECOND]");
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
			serve(client, &address, echo, rate);
			exit(0);
		}
		close(client);
	}
}
