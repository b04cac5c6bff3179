/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The least that a process can do to have a second subflow, as the bound of
 * what a library in it can reach: two netlink sockets of its own, in a
 * namespace in userspace mode; one read for each event, one message that was
 * put together before. Nothing is checked, kept or tried again.
 */
#ifndef BARE_H
#define BARE_H

#include "bench.h"

#include <linux/genetlink.h>
#include <linux/mptcp.h>
#include <linux/netlink.h>

static struct {
	int events, commands;
	struct bare_create {
		struct nlmsghdr head;
		struct genlmsghdr what;
		struct nlattr token_head;
		uint32_t token;
		struct nlattr local, family;
		uint16_t of, pad;
		struct nlattr id_head;
		uint8_t id, pads[3];
		struct nlattr addr_head;
		uint32_t addr;
		struct nlattr remote, remote_family;
		uint16_t remote_of, remote_pad;
		struct nlattr remote_addr_head;
		uint32_t remote_addr;
		struct nlattr port_head;
		uint16_t port, port_pad;
	} create;
} bare;

B int bare_socket(void)
{
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);

	if (fd < 0)
		die("generic netlink");
	return fd;
}

/* The attribute of this kind in len bytes, or null. */
B struct nlattr *bare_attribute(void *at, size_t len, int kind)
{
	struct nlattr *a = at;

	while (len >= sizeof *a && a->nla_len >= sizeof *a && a->nla_len <= len) {
		size_t step = NLA_ALIGN(a->nla_len);

		if ((a->nla_type & NLA_TYPE_MASK) == kind)
			return a;
		if (step >= len)
			break;
		len -= step;
		a = (struct nlattr *)((char *)a + step);
	}
	return NULL;
}

/* The family's number, and its group's. */
B int bare_family(unsigned *group)
{
	struct {
		struct nlmsghdr head;
		struct genlmsghdr what;
		struct nlattr name_head;
		char name[12];
	} ask = {
		{ sizeof ask, GENL_ID_CTRL, NLM_F_REQUEST, 1, 0 }, { CTRL_CMD_GETFAMILY, 1, 0 },
		{ NLA_HDRLEN + sizeof MPTCP_PM_NAME, CTRL_ATTR_FAMILY_NAME }, MPTCP_PM_NAME
	};
	static char reply[8192];
	int fd = bare_socket(), family = -1;
	struct nlattr *a, *one;
	ssize_t len;
	char *from = reply + NLMSG_HDRLEN + GENL_HDRLEN;

	if (send(fd, &ask, sizeof ask, 0) < 0 || (len = recv(fd, reply, sizeof reply, 0)) < (ssize_t)(NLMSG_HDRLEN + GENL_HDRLEN))
		die("asking for " MPTCP_PM_NAME);
	len -= NLMSG_HDRLEN + GENL_HDRLEN;
	if ((a = bare_attribute(from, len, CTRL_ATTR_FAMILY_ID)))
		family = *(uint16_t *)(a + 1);
	*group = 0;
	if ((a = bare_attribute(from, len, CTRL_ATTR_MCAST_GROUPS)) && (len = a->nla_len - NLA_HDRLEN) > 0)
		for (one = a + 1; len >= NLA_HDRLEN; len -= NLA_ALIGN(one->nla_len),
		     one = (struct nlattr *)((char *)one + NLA_ALIGN(one->nla_len))) {
			struct nlattr *name = bare_attribute(one + 1, one->nla_len - NLA_HDRLEN, CTRL_ATTR_MCAST_GRP_NAME);
			struct nlattr *id = bare_attribute(one + 1, one->nla_len - NLA_HDRLEN, CTRL_ATTR_MCAST_GRP_ID);

			if (name && id && !strcmp((char *)(name + 1), MPTCP_PM_EV_GRP_NAME))
				*group = *(uint32_t *)(id + 1);
		}
	close(fd);
	if (family < 0 || !*group)
		die("the kernel has no " MPTCP_PM_NAME);
	return family;
}

#define BARE_ATTRIBUTE(size, kind) { NLA_HDRLEN + (size), (kind) }

B void bare_open(struct sockaddr_in from, struct sockaddr_in to)
{
	unsigned group;
	int family = bare_family(&group);
	struct sockaddr_nl any = { .nl_family = AF_NETLINK };

	bare.events = bare_socket();
	bare.commands = bare_socket();
	if (bind(bare.events, (struct sockaddr *)&any, sizeof any) ||
	    setsockopt(bare.events, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group))
		die("listening to events");
	bare.create = (struct bare_create) {
		.head = { sizeof bare.create, family, NLM_F_REQUEST | NLM_F_ACK, 1, 0 },
		.what = { MPTCP_PM_CMD_SUBFLOW_CREATE, MPTCP_PM_VER, 0 },
		.token_head = BARE_ATTRIBUTE(4, MPTCP_PM_ATTR_TOKEN),
		.local = BARE_ATTRIBUTE(24, MPTCP_PM_ATTR_ADDR | NLA_F_NESTED),
		.family = BARE_ATTRIBUTE(2, MPTCP_PM_ADDR_ATTR_FAMILY), .of = AF_INET,
		.id_head = BARE_ATTRIBUTE(1, MPTCP_PM_ADDR_ATTR_ID), .id = 1,
		.addr_head = BARE_ATTRIBUTE(4, MPTCP_PM_ADDR_ATTR_ADDR4), .addr = from.sin_addr.s_addr,
		.remote = BARE_ATTRIBUTE(24, MPTCP_PM_ATTR_ADDR_REMOTE | NLA_F_NESTED),
		.remote_family = BARE_ATTRIBUTE(2, MPTCP_PM_ADDR_ATTR_FAMILY), .remote_of = AF_INET,
		.remote_addr_head = BARE_ATTRIBUTE(4, MPTCP_PM_ADDR_ATTR_ADDR4), .remote_addr = to.sin_addr.s_addr,
		.port_head = BARE_ATTRIBUTE(2, MPTCP_PM_ADDR_ATTR_PORT), .port = ntohs(to.sin_port),
	};
}

/* What the program repeats. */
B void bare_step(int fd)
{
	char event[512];
	struct genlmsghdr *what = (struct genlmsghdr *)(event + NLMSG_HDRLEN);
	ssize_t len = recv(bare.events, event, sizeof event, MSG_DONTWAIT) - NLMSG_HDRLEN - GENL_HDRLEN;
	struct nlattr *token;

	(void)fd;
	if (len <= 0 || what->cmd != MPTCP_EVENT_ESTABLISHED)
		return;
	token = bare_attribute(what + 1, len, MPTCP_ATTR_TOKEN);
	if (!token)
		die("an event without its token");
	bare.create.token = *(uint32_t *)(token + 1);
	if (send(bare.commands, &bare.create, sizeof bare.create, 0) < 0 ||
	    recv(bare.commands, event, sizeof event, 0) < NLMSG_HDRLEN + 4)
		die("SUBFLOW_CREATE");
	if (*(int *)(event + NLMSG_HDRLEN)) {
		errno = -*(int *)(event + NLMSG_HDRLEN);
		die("SUBFLOW_CREATE");
	}
}

#endif
