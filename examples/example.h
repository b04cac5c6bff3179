/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What the programs in C have in common. */
#include <mptcp.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* why is mptcp_errmsg() after a call of the library, strerror(errno) after any other. */
static void die(const char *what, const char *why)
{
	fprintf(stderr, "%s: %s\n", what, why);
	exit(1);
}

/* Writes a numeric address, IPv4 or IPv6, at the end of a packed list; gives the new end. */
static char *pack(char *end, const char *address, const char *port)
{
	struct addrinfo hints, *found;
	int error;

	memset(&hints, 0, sizeof hints);
	hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
	hints.ai_socktype = SOCK_STREAM;
	error = getaddrinfo(address, port, &hints, &found);
	if (error)
		die(address, gai_strerror(error));
	memcpy(end, found->ai_addr, found->ai_addrlen);
	end += found->ai_addrlen;
	freeaddrinfo(found);
	return end;
}

/* The way back, as "address port". */
static const char *text(const struct sockaddr_storage *address, char to[80])
{
	char port[8];

	getnameinfo((const struct sockaddr *)address, sizeof *address, to, 64, port, sizeof port,
		    NI_NUMERICHOST | NI_NUMERICSERV);
	return strcat(strcat(to, " "), port);
}
