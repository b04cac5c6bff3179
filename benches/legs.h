/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Helpers of the benchmarks that compare path managers: a client in one network
 * namespace, a server in another, two addresses of the client's. Who manages
 * the paths is the client's "leg":
 *
 *   kernel    the in-kernel path manager, with an endpoint for the second address
 *   mptcpd    mptcpd with mptcpd-plugin.c, in a namespace in userspace mode
 *   bare      this process by netlink messages (bare.h), in a namespace in userspace mode
 *   direct    the library in this process; the program steps it by mptcp_dispatch()
 *   queries   the same, but the program only asks for its subflows
 *   broker    the library through mptcpapid
 *
 * In the first three the program is one that knows of no paths: socket(), connect().
 */
#ifndef LEGS_H
#define LEGS_H

#include "bare.h"
#include "bench.h"

#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/resource.h>

struct leg {
	int library;                    /* it is given the list of addresses */
	void (*step)(int fd);           /* what the program repeats, or none */
	struct sockaddr_in from[2], to;
};

B volatile int swallowed;       /* keeps the compiler from dropping a call */

B void step_dispatch(int fd)
{
	static int evfd = -1;

	(void)fd;
	if (evfd < 0)
		evfd = mptcp_subscribe(-1, 0);
	if (mptcp_dispatch(evfd, NULL, NULL) < 0)
		die("dispatch: %s", mptcp_errmsg());
}

B void step_getsubflows(int fd)
{
	struct mptcp_subflow *list = NULL;

	swallowed += mptcp_getsubflows(fd, &list);
	mptcp_freesubflows(list);
}

B struct sockaddr_in address(const char *ip, const char *port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port ? atoi(port) : 0) };

	if (inet_pton(AF_INET, ip, &a.sin_addr) != 1)
		die("%s is no address", ip);
	return a;
}

/* The arguments that all clients have: LEG FROM FROM2 TO PORT. The library is
   told by the environment which backend it is to use. */
B struct leg leg_of(char **argv)
{
	struct leg leg = { .from = { address(argv[1], NULL), address(argv[2], NULL) }, .to = address(argv[3], argv[4]) };

	leg.library = strcmp(argv[0], "kernel") && strcmp(argv[0], "mptcpd") && strcmp(argv[0], "bare");
	if (!strcmp(argv[0], "bare")) {
		bare_open(leg.from[1], leg.to);
		leg.step = bare_step;
	}
	if (!strcmp(argv[0], "direct"))
		leg.step = step_dispatch;
	if (!strcmp(argv[0], "queries"))
		leg.step = step_getsubflows;
	if (leg.library)
		setenv("MPTCPAPI_BACKEND", leg.step ? "direct" : "broker", 1);
	return leg;
}

/* A socket that is ready to connect; the list is given in "before". */
B int leg_socket(const struct leg *leg)
{
	int fd = mptcp_fd();

	if (leg->library && mptcp_setsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_ADD, leg->from, sizeof leg->from))
		die("ADD: %s", mptcp_errmsg());
	return fd;
}

B void leg_connect(const struct leg *leg, int fd)
{
	const struct sockaddr *to = (const struct sockaddr *)&leg->to;

	if (leg->library && mptcp_connectx(fd, to, 1, NULL))
		die("connectx: %s", mptcp_errmsg());
	if (!leg->library && connect(fd, to, sizeof leg->to))
		die("connecting");
}

/* One that the server's side takes as joined: what comes from the second address
   and isn't a SYN, as it arrives in the server's namespace, with the kernel's
   time. Nobody has to run, and no lock be taken, for that time to be right. */
B int tap(const char *netns, const char *device, struct sockaddr_in from)
{
	struct sock_filter join[] = {   /* a packet socket of SOCK_DGRAM: from the IP header */
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 12),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ntohl(from.sin_addr.s_addr), 0, 4),
		BPF_STMT(BPF_LDX | BPF_B | BPF_MSH, 0),
		BPF_STMT(BPF_LD | BPF_B | BPF_IND, 13),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0x10, 0, 1),        /* ACK and nothing else */
		BPF_STMT(BPF_RET | BPF_K, 64),
		BPF_STMT(BPF_RET | BPF_K, 0),
	};
	struct sock_fprog filter = { sizeof join / sizeof *join, join };
	int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC), there = open(netns, O_RDONLY | O_CLOEXEC);
	struct sockaddr_ll at = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_IP) };
	int fd, on = 1, room = 64 << 20;

	if (home < 0 || there < 0 || setns(there, CLONE_NEWNET))
		die("entering %s", netns);
	fd = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	at.sll_ifindex = if_nametoindex(device);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter) ||
	    setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on) || bind(fd, (struct sockaddr *)&at, sizeof at))
		die("listening on %s", device);
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room))
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
	if (setns(home, CLONE_NEWNET))
		die("returning from %s", netns);
	close(home);
	close(there);
	return fd;
}

/* The next packet's port and time in real_us(), or 0. */
B int tapped(int fd, double *when)
{
	union { struct cmsghdr align; char room[CMSG_SPACE(sizeof(struct timespec))]; } control;
	unsigned char packet[64];
	struct iovec part = { packet, sizeof packet };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control,
				  .msg_controllen = sizeof control };
	ssize_t length = recvmsg(fd, &message, MSG_DONTWAIT);
	struct cmsghdr *c;
	struct timespec t;
	int head;

	if (length < 40)
		return 0;
	c = CMSG_FIRSTHDR(&message);
	if (!c || c->cmsg_type != SO_TIMESTAMPNS)
		die("a packet without its time");
	memcpy(&t, CMSG_DATA(c), sizeof t);
	*when = t.tv_sec * 1e6 + t.tv_nsec / 1e3;
	head = (packet[0] & 15) * 4;
	return packet[head] << 8 | packet[head + 1];
}

/* As many descriptors as one may have. */
B void many_descriptors(void)
{
	struct rlimit most = { 65536, 65536 };

	if (setrlimit(RLIMIT_NOFILE, &most) && !getrlimit(RLIMIT_NOFILE, &most)) {
		most.rlim_cur = most.rlim_max;
		setrlimit(RLIMIT_NOFILE, &most);
	}
}

/* A word of the one who runs the benchmark; ends the process at the input's end. */
B const char *hear(void)
{
	static char line[256];

	if (!fgets(line, sizeof line, stdin))
		exit(0);
	line[strcspn(line, "\n")] = 0;
	return line;
}

/* What is sent at a place of the stream; 65521 is prime, so that no buffer's
   size hides a shift. */
#define PATTERN 65521

B const unsigned char *pattern(uint64_t at)
{
	static unsigned char bytes[2 * PATTERN];
	uint32_t x = 1;

	if (!bytes[0])
		for (int i = 0; i < PATTERN; i++) {
			x = x * 1664525 + 1013904223;
			bytes[i] = bytes[i + PATTERN] = (x >> 24) | !i;
		}
	return bytes + at % PATTERN;
}

#endif
