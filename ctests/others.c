/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Two users. While the broker works for one, all that the other does stays the
 * in-kernel path manager's, with the endpoints of `ip mptcp`; and what one asks of
 * the broker touches nothing of the other's. Nor does it open new reach: without the
 * policy's leave no subflow goes where the peer itself did not call.
 *
 * lab: --broker= T_USER=1
 */
#include "raw.h"

#define OTHER 1234      /* an ordinary user too */
#define ENDPOINT "10.4.0.1"
#define ROUNDS 150

/* A child that is the other user for good. */
static pid_t other_user(void)
{
	pid_t pid = fork();

	REQUIRE(pid >= 0);
	if (!pid) {
		alarm(50);
		t_failed = 0;
		t_root();
		REQUIRE(!setresgid(OTHER, OTHER, OTHER) && !setresuid(OTHER, OTHER, OTHER));
		REQUIRE(!prctl(PR_SET_DUMPABLE, 1, 0, 0, 0));
	}
	return pid;
}

static int ended(pid_t pid, int wait)
{
	int status = -1;
	pid_t rc = waitpid(pid, &status, wait ? 0 : WNOHANG);

	REQUIRE(rc >= 0);
	if (rc)
		CHECK_INT(status, 0);
	return rc == pid;
}

/* Connections by the kernel alone. Whatever the broker does, each gets its endpoint. */
static void bystander(void)
{
	struct pair p = pair_listen("10.9.0.1", IPPROTO_MPTCP);
	double end = t_now() + 20;      /* fewer on a machine that is busy with others */
	int i;

	for (i = 0; (i < ROUNDS / 10 || (i < ROUNDS && t_now() < end)) && !t_failed; i++) {
		memset(p.sent, 0, sizeof p.sent);
		memset(p.got, 0, sizeof p.got);
		pair_connect(&p, "10.9.0.1", raw_socket(AF_INET));
		settle(&p);
		AWAIT_STR(raw_locals(p.c), ENDPOINT " 10.9.0.1");
		close(p.c);
		close(p.s);
	}
	close(p.l);
}

static void busy(pid_t other)
{
	struct pair p = pair_listen("10.9.0.1", IPPROTO_MPTCP);
	int rounds = 0;

	do {
		struct mptcp_caps caps;

		memset(p.sent, 0, sizeof p.sent);
		memset(p.got, 0, sizeof p.got);
		p.c = (int)OK(mptcp_socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
		OK(add(p.c, "10.1.0.1 10.2.0.1"));
		OK(mptcp_getcaps(p.c, &caps, sizeof caps));
		CHECK_INT(caps.control, MPTCP_CONTROL_CONNECTION);
		pair_connectx(&p, "10.9.0.1", p.c);
		settle(&p);
		AWAIT_STR(locals(p.c), "10.1.0.1 10.2.0.1");
		CHECK_STR(raw_locals(p.c), "10.1.0.1 10.2.0.1");
		close(p.c);
		close(p.s);
		rounds++;
	} while (!ended(other, 0));
	CHECK(rounds > 3);
	CHECK(kernel_pm());
	close(p.l);
}

/* The same numbers in another's process are other sockets. */
static void same_numbers(void)
{
	struct pair p = pair_listen("10.9.0.1", IPPROTO_MPTCP);
	int c = (int)OK(mptcp_socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)), waiting;
	pid_t pid;

	waiting = (int)OK(mptcp_socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
	OK(add(c, "10.1.0.1 10.2.0.1"));
	OK(add(waiting, "10.1.0.1 10.2.0.1"));
	pair_connectx(&p, "10.9.0.1", c);
	settle(&p);
	AWAIT_STR(locals(c), "10.1.0.1 10.2.0.1");
	pid = other_user();
	if (!pid) {
		struct pair q = pair_listen("10.9.0.1", IPPROTO_MPTCP);
		int d = (int)OK(mptcp_socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));

		OK(add(d, "10.2.0.1"));
		pair_connectx(&q, "10.9.0.1", d);
		settle(&q);
		REQUIRE(dup2(d, c) == c && dup2(d, waiting) == waiting);
		CHECK_STR(laddrs_np(waiting), "10.2.0.1");
		OK(add(c, "10.3.0.1"));
		AWAIT_STR(locals(waiting), "10.2.0.1 10.3.0.1");
		OK(rem(waiting, "10.2.0.1"));
		AWAIT_STR(locals(c), "10.3.0.1");
		_exit(t_failed != 0);
	}
	ended(pid, 1);
	CHECK_STR(laddrs(c), "10.1.0.1 10.2.0.1");
	CHECK_STR(laddrs(waiting), "10.1.0.1 10.2.0.1");
	CHECK_STR(locals(c), "10.1.0.1 10.2.0.1");
	settle(&p);
	close(waiting);
	pair_close(&p);
}

/* Further addresses of the peer by the caller's word: tried in turn, but no subflow
 * goes there. */
static void named_peers(void)
{
	struct pair p = pair_listen("::", IPPROTO_MPTCP);
	char peers[128];

	p.c = (int)OK(mptcp_socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
	OK(add(p.c, "10.1.0.1 fd02::1"));
	snprintf(peers, sizeof peers, "%s %s", at("fd09::1", p.port), at("10.9.0.1", p.port));
	OK(connx(p.c, peers, NULL));
	p.s = t_accept(p.l);
	settle(&p);
	ALWAYS(!strcmp(locals(p.c), "fd02::1"), 200);
	CHECK_STR(paddrs_np(p.c), "fd09::1");
	settle(&p);
	pair_close(&p);
}

int main(void)
{
	pid_t pid;

	need_mptcp();
	sh("ip addr add " ENDPOINT "/32 dev lo && ip mptcp endpoint add " ENDPOINT " subflow");
	pid = other_user();
	if (!pid) {
		bystander();
		_exit(t_failed != 0);
	}
	busy(pid);
	sh("ip mptcp endpoint flush");
	same_numbers();
	named_peers();
	return t_done();
}
