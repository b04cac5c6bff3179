/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* log PORT: an echo server that says on standard output which subflows its
 * connections have, when they come and when they go. */
#define _POSIX_C_SOURCE 200809L
#include "example.h"
#include <signal.h>
#include <time.h>

static const char *what(const struct mptcp_event *event)
{
	switch (event->what) {
	case MPTCP_EV_UP: return "up";
	case MPTCP_EV_DOWN: return "down";
	case MPTCP_EV_SUBFLOW_UP: return "subflow up";
	case MPTCP_EV_SUBFLOW_DOWN: return "subflow down";
	case MPTCP_EV_FALLBACK: return "plain TCP from now on";
	case MPTCP_EV_OVERFLOW: return "events were lost";
	default: return NULL;
	}
}

static int line(const struct mptcp_event *event, size_t size, void *unused)
{
	char now[32], local[80] = "", remote[80] = "";
	time_t seconds = time(NULL);

	(void)size, (void)unused;
	if (!what(event))
		return 0;
	strftime(now, sizeof now, "%Y-%m-%dT%H:%M:%SZ", gmtime(&seconds));
	if (event->subflow.local.ss_family && event->subflow.remote.ss_family) {
		text(&event->subflow.local, local);
		text(&event->subflow.remote, remote);
	}
	printf("%s %08x %s%s%s%s%s%s%s\n", now, event->connid, what(event), *local ? " " : "", local,
	       *local ? " <- " : "", remote, event->error ? ": " : "", event->error ? strerror(event->error) : "");
	return 0;
}

static void echo(int fd)
{
	static char data[1 << 16];
	ssize_t n, sent, rc;

	while ((n = recv(fd, data, sizeof data, 0)) > 0)
		for (sent = 0; sent < n; sent += rc)
			if ((rc = send(fd, data + sent, n - sent, MSG_NOSIGNAL)) < 0)
				die("send", strerror(errno));
	if (n < 0)
		die("receive", strerror(errno));
}

int main(int argc, char **argv)
{
	struct sockaddr_storage any;
	socklen_t len;
	int client, events, on = 1, listener = mptcp_socket(AF_INET, SOCK_STREAM, 0);

	if (argc != 2)
		die("usage", "log PORT");
	if (listener < 0)
		die("socket", mptcp_errmsg());
	len = pack((char *)&any, "0.0.0.0", argv[1]) - (char *)&any;
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (bind(listener, (struct sockaddr *)&any, len) || listen(listener, 64))
		die(argv[1], strerror(errno));
	events = mptcp_subscribe(listener, MPTCP_EV_ALL);       /* all that it accepts from now on */
	if (events < 0)
		die("subscribe", mptcp_errmsg());
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("listening on port %s\n", argv[1]);
	signal(SIGCHLD, SIG_IGN);
	for (;;) {
		struct pollfd wait[2] = { { listener, POLLIN, 0 }, { events, POLLIN, 0 } };

		if (poll(wait, 2, events < 0 ? 1000 : -1) < 0 && errno != EINTR)
			die("poll", strerror(errno));
		if (events >= 0 && wait[1].revents && mptcp_dispatch(events, line, NULL) < 0) {
			fprintf(stderr, "events: %s\n", mptcp_errmsg());
			close(events);
			events = -1;
		}
		/* The broker was restarted: those that come from now on are told of. */
		if (events < 0)
			events = mptcp_subscribe(listener, MPTCP_EV_ALL);
		if (!wait[0].revents)
			continue;
		client = accept(listener, NULL, NULL);
		if (client >= 0 && fork() == 0) {
			close(listener);
			close(events);
			echo(client);
			exit(0);
		}
		if (client >= 0)
			close(client);
	}
}
