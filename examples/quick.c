/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* quick SERVER PORT LOCAL LOCAL: a connection over two addresses of this host (IPv4). */
#include <mptcp.h>
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct sockaddr_in server = { .sin_family = AF_INET }, local[2] = { server, server };
	struct mptcp_subflow *list = NULL;
	int i, on = 1, n = 0, fd = socket(AF_INET, SOCK_STREAM, 0);

	if (argc != 5)
		return 2;
	inet_pton(AF_INET, argv[1], &server.sin_addr);
	server.sin_port = htons(atoi(argv[2]));
	inet_pton(AF_INET, argv[3], &local[0].sin_addr);
	inet_pton(AF_INET, argv[4], &local[1].sin_addr);

	if (mptcp_setsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_ENABLE, &on, sizeof on)
	    || mptcp_setsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_ADD, local, sizeof local)
	    || mptcp_connectx(fd, (struct sockaddr *)&server, 1, NULL)) {
		fprintf(stderr, "%s\n", mptcp_errmsg());
		return 1;
	}
	dprintf(fd, "Hello over two paths\n");
	sleep(1);			/* the second one follows the first */
	n = mptcp_getsubflows(fd, &list);
	for (i = 0; i < n; i++) {
	}
	mptcp_freesubflows(list);
}
