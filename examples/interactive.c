/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* interactive SERVER PORT LOCAL...: sends each line of standard input to an echo
 * server and says how long the answer took, and by which of these local addresses
 * it went: the quickest carries the session, the others stand by. */
#define _POSIX_C_SOURCE 200809L
#include "example.h"
#include <netinet/tcp.h>
#include <time.h>

static double milliseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1e3 + now.tv_nsec / 1e6;
}

/* The path that carries data is the one that isn't for backup. */
static const char *path(int fd, char name[80])
{
	struct mptcp_subflow_stats *list;
	int i, n = mptcp_getallstats(fd, NULL, 0, &list, sizeof *list);

	if (n < 0)
		die("statistics", mptcp_errmsg());
	strcpy(name, "none");
	for (i = 0; i < n; i++)
		if (!(list[i].subflow.flags & MPTCP_SUBFLOW_BACKUP)) {
			text(&list[i].subflow.local, name);
			break;
		}
	mptcp_freeallstats(list);
	return name;
}

int main(int argc, char **argv)
{
	static char peer[28], local[64 * 28];
	char line[1024], answer[1024], name[80], *end = local;
	int i, fd, on = 1, profile = MPTCP_PROFILE_INTERACTIVE;

	if (argc < 4 || argc > 3 + 64)
		die("usage", "interactive SERVER PORT LOCAL...");
	pack(peer, argv[1], argv[2]);
	for (i = 3; i < argc; i++)
		end = pack(end, argv[i], NULL);
	fd = mptcp_socket(((struct sockaddr *)peer)->sa_family, SOCK_STREAM, 0);
	if (fd < 0)
		die("socket", mptcp_errmsg());
	if (mptcp_bindx(fd, (struct sockaddr *)local, argc - 3, MPTCP_BINDX_ADD_ADDR)
	    || mptcp_setsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_PROFILE, &profile, sizeof profile))
		fprintf(stderr, "by whatever path: %s\n", mptcp_errmsg());
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	if (mptcp_connectx(fd, (struct sockaddr *)peer, 1, NULL))
		die("connect", mptcp_errmsg());

	setvbuf(stdout, NULL, _IOLBF, 0);
	while (fgets(line, sizeof line, stdin)) {
		size_t sent = 0, got = 0, length = strlen(line);
		double start = milliseconds();
		ssize_t n;

		for (; sent < length; sent += n)
			if ((n = send(fd, line + sent, length - sent, MSG_NOSIGNAL)) < 0)
				die("send", strerror(errno));
		for (; got < length; got += n)
			if ((n = recv(fd, answer + got, length - got, 0)) <= 0)
				die("receive", n ? strerror(errno) : "the server closed the connection");
		printf("%.1f ms by %s\n", milliseconds() - start, path(fd, name));
	}
	close(fd);
	return 0;
}
