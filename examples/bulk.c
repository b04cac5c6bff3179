/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* bulk SERVER PORT LOCAL...: downloads to standard output by all of these local
 * addresses at once, and says on standard error what each path brought. A server
 * for it is `server PORT source BYTES`. */
#define _POSIX_C_SOURCE 200809L
#include "example.h"

/* The stream has ended, but its subflows are there until the socket is closed. */
static void report(int fd)
{
	struct mptcp_subflow_stats *list;
	char from[80], to[80];
	int i, n = mptcp_getallstats(fd, NULL, 0, &list, sizeof *list);

	if (n < 0)
		die("statistics", mptcp_errmsg());
	for (i = 0; i < n; i++)
		fprintf(stderr, "%s -> %s: %.1f %%\n", text(&list[i].subflow.local, from),
			text(&list[i].subflow.remote, to), list[i].share_received_ppm / 10000.0);
	mptcp_freeallstats(list);
}

int main(int argc, char **argv)
{
	static char data[1 << 16], peer[28], local[64 * 28];
	struct mptcp_subflow *paths;
	char *end = local;
	ssize_t n;
	int i, fd;

	if (argc < 4 || argc > 3 + 64)
		die("usage", "bulk SERVER PORT LOCAL...");
	pack(peer, argv[1], argv[2]);
	for (i = 3; i < argc; i++)
		end = pack(end, argv[i], NULL);
	fd = mptcp_socket(((struct sockaddr *)peer)->sa_family, SOCK_STREAM, 0);
	if (fd < 0)
		die("socket", mptcp_errmsg());
	/* All paths at once is what a connection does by itself. Where nobody may
	 * choose paths for us it is one path, as for everybody else. */
	if (mptcp_bindx(fd, (struct sockaddr *)local, argc - 3, MPTCP_BINDX_ADD_ADDR))
		fprintf(stderr, "by one path: %s\n", mptcp_errmsg());
	if (mptcp_connectx(fd, (struct sockaddr *)peer, 1, NULL))
		die("connect", mptcp_errmsg());

	while ((n = recv(fd, data, sizeof data, 0)) > 0) {
		if (fwrite(data, 1, n, stdout) != (size_t)n)
			die("standard output", strerror(errno));
		/* Without mptcpapid the library acts in calls like this one. */
		if (mptcp_getsubflows(fd, &paths) < 0)
			die("subflows", mptcp_errmsg());
		mptcp_freesubflows(paths);
	}
	if (n < 0)
		die("receive", strerror(errno));
	if (fflush(stdout))
		die("standard output", strerror(errno));
	report(fd);
	close(fd);
	return 0;
}
