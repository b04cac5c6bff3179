/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* client SERVER PORT BYTES LOCAL...: sends random bytes to an echo server from
 * these local addresses and no others, and checks what comes back. "add ADDRESS"
 * and "remove ADDRESS", lines on standard input, change the addresses meanwhile. */
#define _POSIX_C_SOURCE 200809L
#include "example.h"
#include "sha256.h"

static int list_subflows(int fd, int before)
{
	struct mptcp_subflow *list;
	char from[80], to[80];
	int i, n = mptcp_getsubflows(fd, &list);

	if (n < 0)
		die("subflows", mptcp_errmsg());
	for (i = 0; n != before && i < n; i++)
		printf("subflow %d of %d: %s -> %s\n", i + 1, n, text(&list[i].local, from), text(&list[i].remote, to));
	mptcp_freesubflows(list);
	return n;
}

static void obey(int fd, const char *line)
{
	char verb[8], word[64], address[28];

	if (sscanf(line, "%7s %63s", verb, word) == 2 && pack(address, word, NULL) && mptcp_bindx(fd,
	    (struct sockaddr *)address, 1, *verb == 'a' ? MPTCP_BINDX_ADD_ADDR : MPTCP_BINDX_REM_ADDR))
		fprintf(stderr, "%s %s: %s\n", verb, word, mptcp_errmsg());
}

int main(int argc, char **argv)
{
	static char out[1 << 16], in[1 << 16], peer[28], local[64 * 28];
	char line[128], sum[2][65], *next = out, *filled = out, *end = local;
	struct sha256 sent = sha256_start, back = sha256_start;
	FILE *noise = fopen("/dev/urandom", "rb");
	int i, fd, commands = 0, subflows = 0;
	unsigned long left, missing;
	ssize_t n;

	if (argc < 5 || argc > 4 + 64 || !noise)
		die("usage", "client SERVER PORT BYTES LOCAL...");
	left = missing = strtoul(argv[3], NULL, 10);
	pack(peer, argv[1], argv[2]);
	for (i = 4; i < argc; i++)
		end = pack(end, argv[i], NULL);
	fd = mptcp_socket(((struct sockaddr *)peer)->sa_family, SOCK_STREAM, 0);
	if (fd < 0 || mptcp_bindx(fd, (struct sockaddr *)local, argc - 4, MPTCP_BINDX_ADD_ADDR)
	    || mptcp_connectx(fd, (struct sockaddr *)peer, 1, NULL))
		die("client", mptcp_errmsg());

	setvbuf(stdout, NULL, _IOLBF, 0);
	while (missing) {
		struct pollfd wait[2] = { { fd, POLLIN, 0 }, { commands, POLLIN, 0 } };

		if (left || next < filled)
			wait[0].events |= POLLOUT;
		poll(wait, 2, 100);
		subflows = list_subflows(fd, subflows);
		if (wait[1].revents) {
			n = read(0, line, sizeof line - 1);
			line[n > 0 ? n : 0] = 0;
			obey(fd, line);
			commands = n > 0 ? 0 : -1;
		}
		if (wait[0].revents & POLLOUT) {
			if (next == filled) {
				next = out;
				filled = out + fread(out, 1, left < sizeof out ? left : sizeof out, noise);
				sha256_add(&sent, out, filled - out);
				left -= filled - out;
			}
			n = send(fd, next, filled - next, MSG_DONTWAIT | MSG_NOSIGNAL);
			next += n > 0 ? n : 0;
		}
		n = recv(fd, in, sizeof in, MSG_DONTWAIT);
		if (n == 0 || (n < 0 && errno != EAGAIN))
			die("receive", n ? strerror(errno) : "the server closed the connection");
		if (n > 0) {
			sha256_add(&back, in, n);
			missing -= n;
		}
	}
	list_subflows(fd, 0);
	printf("sent     sha256 %s\nreceived sha256 %s\n", sha256_end(&sent, sum[0]), sha256_end(&back, sum[1]));
	close(fd);
	return strcmp(sum[0], sum[1]) != 0;
}
