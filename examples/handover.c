/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* handover SERVER PORT LOCAL LOCAL: uploads standard input by one of two local
 * addresses, with the other as a spare that takes over when the first fails, and
 * says on standard error what becomes of the paths. `server PORT sink` is a
 * server for it. */
#define _POSIX_C_SOURCE 200809L
#include "example.h"

static int tell(const struct mptcp_event *event, size_t size, void *unused)
{
	const char *use = event->subflow.flags & MPTCP_SUBFLOW_BACKUP ? "spare" : "in use";
	char path[80];

	(void)size, (void)unused;
	switch (event->what) {
	case MPTCP_EV_SUBFLOW_DOWN:
		use = "gone";
		/* fall through */
	case MPTCP_EV_UP:
	case MPTCP_EV_SUBFLOW_UP:
	case MPTCP_EV_PRIORITY:
		fprintf(stderr, "%s: %s\n", text(&event->subflow.local, path), use);
	}
	return 0;
}

int main(int argc, char **argv)
{
	static char data[1 << 16], peer[28], local[2 * 28];
	struct pollfd wait[2];
	int fd, events, ended = 0, done = 0, profile = MPTCP_PROFILE_HANDOVER;
	ssize_t sent, n = 0, left = 0;

	if (argc != 5)
		die("usage", "handover SERVER PORT LOCAL LOCAL");
	pack(peer, argv[1], argv[2]);
	pack(pack(local, argv[3], NULL), argv[4], NULL);
	fd = mptcp_socket(((struct sockaddr *)peer)->sa_family, SOCK_STREAM, 0);
	if (fd < 0)
		die("socket", mptcp_errmsg());
	if (mptcp_bindx(fd, (struct sockaddr *)local, 2, MPTCP_BINDX_ADD_ADDR)
	    || mptcp_setsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_PROFILE, &profile, sizeof profile))
		fprintf(stderr, "without a spare: %s\n", mptcp_errmsg());
	events = mptcp_subscribe(fd, MPTCP_EV_ALL);
	if (events < 0)
		fprintf(stderr, "unwatched: %s\n", mptcp_errmsg());
	if (mptcp_connectx(fd, (struct sockaddr *)peer, 1, NULL))
		die("connect", mptcp_errmsg());

	/* All of the input; then until the server has it, and says so by closing. */
	while (!done) {
		if (!left && !ended) {
			n = left = read(0, data, sizeof data);
			if (n < 0)
				die("standard input", strerror(errno));
			ended = !n && !shutdown(fd, SHUT_WR);
		}
		wait[0].fd = fd;
		wait[0].events = left ? POLLOUT : POLLIN;
		wait[1].fd = events;
		wait[1].events = POLLIN;
		if (poll(wait, 2, -1) < 0)
			die("poll", strerror(errno));
		if (wait[1].revents && mptcp_dispatch(events, tell, NULL) < 0) {
			fprintf(stderr, "unwatched: %s\n", mptcp_errmsg());
			close(events);
			events = -1;
		}
		if (wait[0].revents && left) {
			sent = send(fd, data + n - left, left, MSG_DONTWAIT | MSG_NOSIGNAL);
			if (sent < 0 && errno != EAGAIN)
				die("send", strerror(errno));
			left -= sent > 0 ? sent : 0;
		} else if (wait[0].revents) {
			sent = recv(fd, data, sizeof data, 0);
			if (sent < 0)
				die("receive", strerror(errno));
			done = !sent;
		}
	}
	close(fd);
	return 0;
}
