/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * One connection that sends as fast as it can, for one leg (see legs.h), to
 * "peer sink".
 *
 *   flow LEG FROM FROM2 TO PORT
 *
 * Connects, and says "up" when there are two subflows. On "subflows" it says
 * "subflows NOW MADE": how many are established, and how many there were in all,
 * by the kernel's numbers, which are never used again. On "stop" it ends the
 * stream, waits for the peer's count, and says "sent BYTES RECEIVED".
 */
#include "legs.h"

static int made;

static int count_subflows(int fd)
{
	struct raw_subflow info[16];
	uint64_t tcp[16];
	int up;

	memset(info, 0, sizeof info);
	up = raw_subflows(fd, info, tcp, 16);
	for (int i = 0; i < 16; i++)
		if ((int)info[i].id > made)
			made = info[i].id;
	return up;
}

int main(int argc, char **argv)
{
	uint64_t sent = 0, received = 0;
	double next = 0;
	int fd, up = 0;
	struct leg leg;

	setvbuf(stdout, NULL, _IOLBF, 0);
	signal(SIGPIPE, SIG_IGN);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (argc != 6) {
		fprintf(stderr, "usage: flow LEG FROM FROM2 TO PORT\n");
		return 2;
	}
	leg = leg_of(argv + 1);
	fd = leg_socket(&leg);
	leg_connect(&leg, fd);
	fcntl(fd, F_SETFL, O_NONBLOCK);

	for (;;) {
		struct pollfd ready[2] = { { fd, POLLOUT, 0 }, { 0, POLLIN, 0 } };
		ssize_t n;

		poll(ready, 2, 10);
		if (leg.step)
			leg.step(fd);
		if (now_us() > next) {
			int now = count_subflows(fd);

			if (!up && now >= 2) {
				printf("up\n");
				up = 1;
			}
			next = now_us() + (up ? 50e3 : 1e3);
		}
		if (ready[1].revents) {
			if (!strcmp(hear(), "stop"))
				break;
			printf("subflows\t%d\t%d\n", count_subflows(fd), made);
		}
		if (!(ready[0].revents & POLLOUT))
			continue;
		n = write(fd, pattern(sent), PATTERN);
		if (n < 0 && errno != EAGAIN)
			die("sending, after %llu bytes", (unsigned long long)sent);
		if (n > 0)
			sent += n;
	}
	alarm(30);
	shutdown(fd, SHUT_WR);
	fcntl(fd, F_SETFL, 0);
	if (read(fd, &received, sizeof received) != sizeof received)
		die("the peer's count, after %llu bytes", (unsigned long long)sent);
	printf("sent\t%llu\t%llu\n", (unsigned long long)sent, (unsigned long long)received);
	return 0;
}
