/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * From connect() to the second subflow, for one leg (see legs.h).
 *
 *   second LEG FROM FROM2 TO PORT NETNS DEVICE
 *
 * For each line of input one connection, answered with "turn ADD CONNECT
 * SECOND", in microseconds, SECOND -1 if it didn't come within a second. The
 * moment is when the third packet of the join's handshake arrives at DEVICE in
 * the server's namespace NETNS, by the kernel's own stamp on the packet: a
 * program that polled for it would take the processor, and with each question
 * the lock of the very socket, from the one that makes the subflow. The program
 * sleeps until then; where it has to step its backend, it does that instead.
 */
#include "legs.h"

static double await_join(const struct leg *leg, int fd, int tap_fd, double start)
{
	double when, until = now_us() + 1e6;

	while (now_us() < until) {
		struct pollfd ready = { tap_fd, POLLIN, 0 };

		if (leg->step)
			leg->step(fd);
		else
			poll(&ready, 1, 1000);
		if (tapped(tap_fd, &when))
			return when - start;
	}
	return -1;
}

static void turn(const struct leg *leg, int tap_fd)
{
	char byte = 'x', echo;
	double before, start, when, add, connected;
	int fd;

	usleep(3000);           /* whoever told us is asleep, and the last connection gone */
	while (tapped(tap_fd, &when))
		;
	before = now_us();
	fd = leg_socket(leg);
	add = now_us() - before;
	start = real_us();
	leg_connect(leg, fd);
	connected = real_us() - start;
	if (write(fd, &byte, 1) != 1 || (!leg->step && read(fd, &echo, 1) != 1))
		die("the first bytes");
	printf("turn\t%.1f\t%.1f\t%.1f\n", add, connected, await_join(leg, fd, tap_fd, start));
	reset(fd);
}

int main(int argc, char **argv)
{
	struct leg leg;
	int tap_fd;

	setvbuf(stdout, NULL, _IOLBF, 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (argc != 8) {
		fprintf(stderr, "usage: second LEG FROM FROM2 TO PORT NETNS DEVICE\n");
		return 2;
	}
	leg = leg_of(argv + 1);
	tap_fd = tap(argv[6], argv[7], leg.from[1]);
	printf("ready\n");
	for (;;) {
		hear();
		alarm(10);
		turn(&leg, tap_fd);
		alarm(0);
	}
}
