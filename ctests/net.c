/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Two hosts and two links (veth), so that routes, devices and link-local
 * addresses mean something. The server is a child in a namespace of its own
 * which echoes, under the in-kernel path manager; its second address is
 * announced.
 *
 * lab:
 * lab: --userspace
 * lab: --broker= T_USER=1
 */
#include "raw.h"
#include <net/if.h>

#define PORT 4000

static void serve(int ready, int go)
{
	int l;
	char c = 0;

	t_new_network();
	REQUIRE(write(ready, &c, 1) == 1);
	REQUIRE(read(go, &c, 1) == 1);          /* the links are there */
	sh("ip link set lo up; ip addr add 10.11.0.2/24 dev s1; ip addr add 10.12.0.2/24 dev s2;"
	   "ip -6 addr add fd11::2/64 dev s1 nodad; ip -6 addr add fd12::2/64 dev s2 nodad;"
	   "ip -6 addr add fe80::2/64 dev s1 nodad; ip link set s1 up; ip link set s2 up;"
	   "ip route add 10.60.0.1 via 10.11.0.1; ip -6 route add fd60::1 via fd11::1;"
	   "ip mptcp limits set subflows 8 add_addr_accepted 8;"
	   "ip mptcp endpoint add 10.12.0.2 signal; ip mptcp endpoint add fd12::2 signal");
	l = listen_at("::/4000", IPPROTO_MPTCP, 8);
	REQUIRE(write(ready, &c, 1) == 1);
	for (;;) {
		char buf[16384];
		ssize_t n, done, m;
		int s = accept(l, NULL, NULL);

		while (s >= 0 && (n = read(s, buf, sizeof buf)) > 0)
			for (done = 0; done < n; done += m)
				if ((m = send(s, buf + done, (size_t)(n - done), MSG_NOSIGNAL)) <= 0)
					break;
		close(s);
	}
}

/* Sends and gets back; each byte is looked at. */
static void echo(int fd, uint64_t bytes)
{
	static unsigned char buf[32768];
	uint64_t sent = 0, got = 0, i;
	int bad = 0;
	double end = t_now() + 20;

	while (got < bytes && t_now() < end) {
		struct pollfd pf;
		ssize_t n;
		uint64_t want = bytes - sent;

		/* Never more in flight than the echo can take without reading here. */
		if (want > sizeof buf)
			want = sizeof buf;
		if (sent - got > 65536)
			want = 0;
		for (i = 0; i < want; i++)
			buf[i] = t_byte(0, sent + i);
		n = want ? send(fd, buf, want, MSG_DONTWAIT | MSG_NOSIGNAL) : 0;
		if (n > 0)
			sent += (uint64_t)n;
		n = recv(fd, buf, sizeof buf, MSG_DONTWAIT);
		for (i = 0; n > 0 && i < (uint64_t)n; i++)
			bad += buf[i] != t_byte(0, got + i);
		if (n > 0)
			got += (uint64_t)n;
		if (!n)
			break;
		pf.fd = fd;
		pf.events = POLLIN;
		poll(&pf, 1, sent < bytes ? 1 : 20);
	}
	CHECK_INT(got, bytes);
	CHECK_INT(bad, 0);
}

static int fresh(int domain)
{
	int fd = (int)OK(mptcp_socket(domain, SOCK_STREAM | SOCK_CLOEXEC, 0));

	REQUIRE(fd >= 0);
	return fd;
}

/* Statistics find each subflow in inet_diag, and the interface it is on. */
static void found(int fd)
{
	const uint64_t all = MPTCP_SS_LOCAL_ID | MPTCP_SS_REMOTE_ID | MPTCP_SS_IFINDEX;
	struct mptcp_subflow_stats *list = NULL, one;
	int i, n = (int)OK(mptcp_getallstats(fd, NULL, 0, &list, sizeof *list));

	CHECK(n >= 1);
	for (i = 0; i < n; i++) {
		const char *local = show(&list[i].subflow.local, 0);
		struct sockaddr_in6 *six = (struct sockaddr_in6 *)(void *)&list[i].subflow.local;

		CHECK_INT(list[i].valid & all, all);
		CHECK(list[i].subflow.flags & MPTCP_SUBFLOW_PRIO_KNOWN);
		CHECK_INT(list[i].ifindex, if_nametoindex(strstr(local, "12") ? "c2" : "c1"));
		if (!strcmp(local, "fe80::1") && !i)
			six->sin6_scope_id = 0;         /* without a scope it is named well enough */
		OK(mptcp_getsubflowstats(fd, &list[i].subflow, &one, sizeof one));
		CHECK_INT(one.valid & all, all);
	}
	mptcp_freeallstats(list);
}

static void lists(const char *peer, const char *a, const char *b, const char *peer2)
{
	char text[128];
	int c, way;

	for (way = 0; way < 2; way++) {
		/* Whatever the order, the first is the one that routes to the peer. */
		c = fresh(domain_of(peer));
		snprintf(text, sizeof text, "%s %s", way ? b : a, way ? a : b);
		OK(add(c, text));
		OK(connx(c, at(peer, PORT), NULL));
		CHECK_STR(sockname(c), a);
		echo(c, 20000);
		AWAIT(within(a, locals(c)) && within(b, locals(c)));
		/* And the announced address is reached. */
		AWAIT(within(peer2, remotes(c)));
		found(c);
		snprintf(text, sizeof text, "%s %s", a, b);
		CHECK(within(raw_locals(c), text));
		echo(c, 500000);
		CHECK(within(raw_locals(c), text));
		/* The first link's address goes. */
		OK(rem(c, a));
		AWAIT_STR(locals(c), b);
		echo(c, 200000);
		CHECK_STR(raw_locals(c), b);
		close(c);
	}

	/* One only, and only that one, though the peer announces more. */
	c = fresh(domain_of(peer));
	OK(add(c, b));
	OK(connx(c, at(peer2, PORT), NULL));
	echo(c, 20000);
	ALWAYS(!strcmp(locals(c), b), 200);
	echo(c, 200000);
	CHECK_STR(ss_locals(PORT, NULL), b);
	close(c);
}

/* Bound to a device: every address of that device, and none of another. */
static void device(const char *peer2, const char *b)
{
	int c = socket(domain_of(peer2), SOCK_STREAM | SOCK_CLOEXEC, 0);

	REQUIRE(!setsockopt(c, SOL_SOCKET, SO_BINDTODEVICE, "c2", 3));
	OK(set_int(c, TCP_MULTIPATH_ENABLE, 1));
	OK(connx(c, at(peer2, PORT), NULL));
	CHECK_STR(sockname(c), b);
	echo(c, 20000);
	ALWAYS(!strcmp(raw_locals(c), b) && count_subflows(c) >= 1, 200);
	found(c);
	echo(c, 200000);
	close(c);
}

/* Bound to a device, and to an address that another one holds. */
static void crossed(const char *peer, const char *a)
{
	struct mptcp_subflow_stats *list = NULL;
	int c = raw_socket(domain_of(peer));

	REQUIRE(!setsockopt(c, SOL_SOCKET, SO_BINDTODEVICE, "c1", 3));
	REQUIRE(!do_bind(c, a));
	REQUIRE(!do_connect(c, at(peer, PORT)));
	echo(c, 20000);
	CHECK(OK(mptcp_getallstats(c, NULL, 0, &list, sizeof *list)) >= 1);
	CHECK_INT(list->ifindex, if_nametoindex("c1"));
	CHECK(list->subflow.flags & MPTCP_SUBFLOW_PRIO_KNOWN && list->valid & MPTCP_SS_LOCAL_ID);
	mptcp_freeallstats(list);
	close(c);
}

/* Link-local addresses need a scope, and are shown with it. */
static void link_local(void)
{
	struct sockaddr_in6 peer, mine, *six;
	struct mptcp_subflow *sf = NULL;
	struct sockaddr *list = NULL;
	uint32_t scope = if_nametoindex("c1");
	int c, i, n, way;

	memset(&peer, 0, sizeof peer);
	peer.sin6_family = AF_INET6;
	peer.sin6_port = htons(PORT);
	peer.sin6_scope_id = scope;
	inet_pton(AF_INET6, "fe80::2", &peer.sin6_addr);
	mine = peer;
	mine.sin6_port = 0;
	inet_pton(AF_INET6, "fe80::1", &mine.sin6_addr);
	for (way = 0; way < 2; way++) {
		c = fresh(AF_INET6);
		if (way) {
			OK(mptcp_bindx(c, (struct sockaddr *)&mine, 1, MPTCP_BINDX_ADD_ADDR));
			CHECK_INT(OK(mptcp_getladdrs(c, &list)), 1);
			six = (struct sockaddr_in6 *)(void *)list;
			CHECK_STR(show(six, 0), "fe80::1");
			CHECK_INT(six->sin6_scope_id, scope);
			mptcp_freeladdrs(list);
		}
		OK(mptcp_connectx(c, (struct sockaddr *)&peer, 1, NULL));
		echo(c, 20000);
		found(c);
		n = (int)OK(mptcp_getsubflows(c, &sf));
		CHECK(n >= 1);
		/* The kernel's listing lacks the scope: no reason to make the pair twice. */
		for (i = 1; i < n; i++)
			CHECK(strcmp(show(&sf[i].local, 0), "fe80::1")
			      || strcmp(show(&sf[i].remote, 0), "fe80::2"));
		if (sf) {
			six = (struct sockaddr_in6 *)(void *)&sf->local;
			CHECK_STR(show(six, 0), "fe80::1");
			CHECK_INT(six->sin6_scope_id, scope);
			six = (struct sockaddr_in6 *)(void *)&sf->remote;
			CHECK_STR(show(six, 1), "fe80::2/4000");
			CHECK_INT(six->sin6_scope_id, scope);
			mptcp_freesubflows(sf);
		}
		close(c);
	}
	mine.sin6_scope_id = scope + 1000;
	c = fresh(AF_INET6);
	FAILS(EADDRNOTAVAIL, mptcp_bindx(c, (struct sockaddr *)&mine, 1, MPTCP_BINDX_ADD_ADDR));
	close(c);
}

int main(void)
{
	int ready[2], go[2], status;
	char c = 0, command[1024];
	pid_t pid;

	need_mptcp();
	REQUIRE(!pipe(ready) && !pipe(go));
	pid = fork();
	REQUIRE(pid >= 0);
	if (!pid) {
		alarm(100);     /* if nobody ends it */
		serve(ready[1], go[0]);
	}
	REQUIRE(read(ready[0], &c, 1) == 1);
	snprintf(command, sizeof command,
		 "ip link add c1 type veth peer name s1 netns %d && ip link add c2 type veth peer name s2 netns %d"
		 " && ip addr add 10.11.0.1/24 dev c1 && ip addr add 10.12.0.1/24 dev c2"
		 " && ip -6 addr add fd11::1/64 dev c1 nodad && ip -6 addr add fd12::1/64 dev c2 nodad"
		 " && ip addr add 10.60.0.1/32 dev c2 && ip -6 addr add fd60::1/128 dev c2 nodad"
		 " && ip link set c1 addrgenmode none && ip link set c2 addrgenmode none"
		 " && ip -6 addr add fe80::1/64 dev c1 nodad && ip link set c1 up && ip link set c2 up",
		 (int)pid, (int)pid);
	sh(command);
	REQUIRE(write(go[1], &c, 1) == 1);
	REQUIRE(read(ready[0], &c, 1) == 1);

	/* Endpoints that the in-kernel path manager would use. */
	sh("ip mptcp endpoint add 10.11.0.1 subflow; ip mptcp endpoint add 10.12.0.1 subflow;"
	   "ip mptcp endpoint add fd11::1 subflow; ip mptcp endpoint add fd12::1 subflow");
	t_ctx = "IPv4";
	lists("10.11.0.2", "10.11.0.1", "10.12.0.1", "10.12.0.2");
	device("10.12.0.2", "10.12.0.1");
	crossed("10.11.0.2", "10.60.0.1");
	t_ctx = "IPv6";
	lists("fd11::2", "fd11::1", "fd12::1", "fd12::2");
	device("fd12::2", "fd12::1");
	crossed("fd11::2", "fd60::1");
	t_ctx = "link-local";
	sh("ip mptcp endpoint flush");
	link_local();
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	return t_done();
}
