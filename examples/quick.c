/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* quick SERVER PORT LOCAL LOCAL: one connection over two addresses of this host (IPv4).
 * `server PORT sink` is a server for it. */
#define _POSIX_C_SOURCE 200809L
#include <mptcp.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
	struct sockaddr_in server = { .sin_family = AF_INET }, local[2] = { server, server };
	struct mptcp_subflow *list = NULL;
	int i, n = 0, on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);

	if (argc != 5 || !inet_pton(AF_INET, argv[1], &server.sin_addr)
	    || !inet_pton(AF_INET, argv[3], &local[0].sin_addr) || !inet_pton(AF_INET, argv[4], &local[1].sin_addr))
		return 2;
	server.sin_port = htons(atoi(argv[2]));

	/* Multipath, from these addresses and no others. */
	if (mptcp_setsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_ENABLE, &on, sizeof on)
	    || mptcp_setsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_ADD, local, sizeof local)
	    || mptcp_connectx(fd, (struct sockaddr *)&server, 1, NULL)) {
		fprintf(stderr, "quick: %s\n", mptcp_errmsg());
		return 1;
	}
	send(fd, "hello\n", 6, 0);

	/* The second subflow follows when the first has carried data. */
	for (i = 0; i < 20 && n < 2; i++, poll(NULL, 0, 50)) {
		mptcp_freesubflows(list);
		n = mptcp_getsubflows(fd, &list);
	}
	for (i = 0; i < n; i++) {
		char address[INET_ADDRSTRLEN];

		inet_ntop(AF_INET, &((struct sockaddr_in *)&list[i].local)->sin_addr, address, sizeof address);
		printf("subflow from %s\n", address);
	}
	mptcp_freesubflows(list);
	return 0;
}
