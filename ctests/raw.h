/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The kernel's own word, asked without the library and with definitions of our
 * own, so that an answer of the library is never checked against itself.
 */
#ifndef RAW_H
#define RAW_H
#include "t.h"

#define RAW_SOL_MPTCP   284
#define RAW_INFO        1
#define RAW_TCPINFO     2
#define RAW_ADDRS       3
#define RAW_FULL_INFO   4
#define RAW_IS_MPTCP    43              /* at IPPROTO_TCP */

struct raw_full {
	uint32_t tcp_kernel, tcp_user, sf_kernel, sf_user, n, slots;
	uint64_t sf, tcp;
	unsigned char info[96];
};
struct raw_subflow {
	uint32_t id, pad;
	struct sockaddr_storage local, remote;
};

/* This kernel has MPTCP, on or off; else the test says so and ends. */
T void need_mptcp(void)
{
	int fd = socket(AF_INET, SOCK_STREAM, IPPROTO_MPTCP);

	if (fd < 0 && (errno == EPROTONOSUPPORT || errno == EINVAL))
		t_skip("this kernel has no MPTCP");
	if (fd >= 0)
		close(fd);
}

/* MPTCP sockets have IP_BIND_ADDRESS_NO_PORT (Linux 6.8). */
T int has_late_bind(void)
{
	int on = 1, fd = socket(AF_INET, SOCK_STREAM, IPPROTO_MPTCP), rc;

	rc = fd >= 0 && !setsockopt(fd, IPPROTO_IP, 24, &on, sizeof on);
	if (fd >= 0)
		close(fd);
	return rc;
}

/* One of the two arrays of the kernels before 6.5: elements, or -errno. */
T int raw_array(int fd, int opt, void *out, size_t each, int max)
{
	static __thread unsigned char buf[16 + 64 * 256];
	uint32_t head[4] = { 16, 0, 0, 0 };
	socklen_t len = (socklen_t)(16 + 64 * each);
	int i, n;

	head[3] = (uint32_t)each;
	memset(buf, 0, sizeof buf);
	memcpy(buf, head, sizeof head);
	if (getsockopt(fd, RAW_SOL_MPTCP, opt, buf, &len))
		return -errno;
	memcpy(head, buf, sizeof head);
	n = (int)head[1] < max ? (int)head[1] : max;
	for (i = 0; i < n; i++)
		memcpy((unsigned char *)out + (size_t)i * each, buf + 16 + (size_t)i * head[3],
		       head[3] < each ? head[3] : each);
	return n;
}

/* The subflows in a state of the mask (1 << TCP state); -errno when there is no list. */
#define RAW_UP          (1 << 1 | 1 << 8)       /* ESTABLISHED, CLOSE_WAIT */
#define RAW_SYN_SENT    (1 << 2)
T int raw_list(int fd, struct raw_subflow *out, int max, int mask)
{
	static __thread struct raw_subflow sf[64];
	static __thread unsigned char tcp[64][8];
	struct raw_full f;
	socklen_t len = sizeof f;
	uint32_t i;
	int n = 0;

	memset(&f, 0, sizeof f);
	memset(sf, 0, sizeof sf);
	memset(tcp, 0, sizeof tcp);
	f.tcp_user = sizeof tcp[0];
	f.sf_user = sizeof sf[0];
	f.slots = 64;
	f.sf = (uint64_t)(uintptr_t)sf;
	f.tcp = (uint64_t)(uintptr_t)tcp;
	if (getsockopt(fd, RAW_SOL_MPTCP, RAW_FULL_INFO, &f, &len)) {
		/* Linux 5.16 to 6.4: two calls, and subflows have no number. */
		static __thread struct sockaddr_storage pairs[64][2];
		int a, b, e = errno;

		if (e != EOPNOTSUPP)
			return -e;
		a = raw_array(fd, RAW_ADDRS, pairs, sizeof pairs[0], 64);
		b = raw_array(fd, RAW_TCPINFO, tcp, sizeof tcp[0], 64);
		if (a < 0 || a != b)
			return a < 0 ? a : -EAGAIN;
		for (f.n = (uint32_t)a, i = 0; i < f.n; i++) {
			sf[i].local = pairs[i][0];
			sf[i].remote = pairs[i][1];
		}
	}
	for (i = 0; i < f.n && i < 64 && n < max; i++)
		if (mask >> tcp[i][0] & 1)
			out[n++] = sf[i];
	return n;
}

/* As locals() of t.h; v4-mapped is shown as IPv4, as the library must. */
T const char *raw_addrs(int fd, int remote)
{
	struct raw_subflow sf[64];
	struct words set;
	int i, n = raw_list(fd, sf, 64, RAW_UP);

	set.n = 0;
	for (i = 0; i < n; i++) {
		const char *w = show(remote ? &sf[i].remote : &sf[i].local, 0);

		add_word(&set, strncmp(w, "::ffff:", 7) ? w : w + 7, 1);
	}
	return join_words(&set);
}
#define raw_locals(fd) raw_addrs(fd, 0)
#define raw_remotes(fd) raw_addrs(fd, 1)

T uint32_t raw_token(int fd)
{
	unsigned char info[96];
	socklen_t len = sizeof info;
	uint32_t token = 0;

	memset(info, 0, sizeof info);
	if (!getsockopt(fd, RAW_SOL_MPTCP, RAW_INFO, info, &len))
		memcpy(&token, info + 12, sizeof token);
	return token;
}

T int raw_protocol(int fd)
{
	int v = -1;
	socklen_t len = sizeof v;

	return getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &v, &len) ? -1 : v;
}

T int raw_is_mptcp(int fd)
{
	int v = -1;
	socklen_t len = sizeof v;

	if (!getsockopt(fd, IPPROTO_TCP, RAW_IS_MPTCP, &v, &len))
		return v;
	/* Before 6.10: an MPTCP socket that has not fallen back answers this. */
	len = 0;
	return raw_protocol(fd) == IPPROTO_MPTCP && !getsockopt(fd, RAW_SOL_MPTCP, RAW_INFO, &v, &len);
}

/* A counter of this network namespace, as "AddAddr"; 0 when it isn't there. */
T long raw_mib(const char *name)
{
	static char names[16384], values[16384];
	FILE *f = fopen("/proc/self/net/netstat", "r");
	char *n, *v, *sn = NULL, *sv = NULL;
	long found = 0;

	REQUIRE(f);
	while (fgets(names, sizeof names, f) && fgets(values, sizeof values, f)) {
		if (strncmp(names, "MPTcpExt:", 9))
			continue;
		n = strtok_r(names, " \n", &sn);
		v = strtok_r(values, " \n", &sv);
		while (n && v) {
			if (!strcmp(n, name))
				found = atol(v);
			n = strtok_r(NULL, " \n", &sn);
			v = strtok_r(NULL, " \n", &sv);
		}
	}
	fclose(f);
	return found;
}

/*
 * The local addresses of all established TCP connections of this namespace
 * to `port`, by ss(8): sorted, each once. `want` (may be NULL) must stand in
 * the line that ss prints about the connection's state.
 */
T const char *ss_locals(int port, const char *want)
{
	static char line[4096], local[128], remote[128];
	char tail[16];
	struct words set;
	int ends[2], status;
	pid_t pid;
	FILE *f;

	/* As root where the test ever was: some kernels show the flags to nobody else. */
	REQUIRE(!pipe(ends) && (pid = fork()) >= 0);
	if (!pid) {
		t_root();
		dup2(ends[1], 1);
		close(ends[0]);
		close(ends[1]);
		execlp("ss", "ss", "-tniHO", "state", "established", (char *)NULL);
		_exit(127);
	}
	close(ends[1]);
	REQUIRE((f = fdopen(ends[0], "r")));
	set.n = 0;
	snprintf(tail, sizeof tail, ":%d", port);
	while (fgets(line, sizeof line, f)) {
		char *p, *host = local;
		size_t n;

		if (sscanf(line, "%*s %*s %127s %127s", local, remote) != 2)
			continue;
		n = strlen(remote);
		if (n < strlen(tail) || strcmp(remote + n - strlen(tail), tail))
			continue;
		if (want && !strstr(line, want))
			continue;
		if ((p = strrchr(local, ':')))
			*p = '\0';
		if (*host == '[')
			host++;
		if ((p = strpbrk(host, "]%")))
			*p = '\0';
		if (!strncmp(host, "::ffff:", 7))
			host += 7;
		add_word(&set, host, 1);
	}
	fclose(f);
	REQUIRE(waitpid(pid, &status, 0) == pid && !status);
	return join_words(&set);
}

/* Linux before 6.2 makes no backup of a subflow that is asked for as one: that follows. */
T int late_backup(void)
{
	struct utsname name;
	int major = 0, minor = 0;

	REQUIRE(!uname(&name) && sscanf(name.release, "%d.%d", &major, &minor) == 2);
	return major < 6 || (major == 6 && minor < 2);
}

/* Is the in-kernel path manager at work in this namespace? */
T int kernel_pm(void)
{
	FILE *f = fopen("/proc/sys/net/mptcp/pm_type", "r");
	int v = -1;

	REQUIRE(f && fscanf(f, "%d", &v) == 1);
	fclose(f);
	return v == 0;
}

/* system(), as root where the test ever was. */
T int raw_system(const char *command)
{
	int status = -1;
	pid_t pid = fork();

	if (!pid) {
		t_root();
		execl("/bin/sh", "sh", "-c", command, (char *)NULL);
		_exit(127);
	}
	return pid < 0 || waitpid(pid, &status, 0) != pid ? -1 : status;
}

T void sh(const char *command)
{
	int rc = raw_system(command);

	if (rc) {
		t_fail(__FILE__, __LINE__, "%s: exit %d, giving up", command, rc);
		exit(1);
	}
}

/* Does MPTCP_INFO show which path manager an unconnected socket has (6.12 does, 6.1
 * doesn't)? Needs root, as sh() does; where the in-kernel one rules, one socket is switched. */
T int shows_switch(void)
{
	unsigned char info[96];
	socklen_t len = sizeof info;
	int fd = raw_socket(AF_INET), kernel = kernel_pm();
	struct sockaddr_in sa;

	memset(&sa, 0, sizeof sa);
	if (kernel && raw_system("echo 1 > /proc/sys/net/mptcp/pm_type"))
		return 0;
	if (kernel)
		(void)connect(fd, (struct sockaddr *)&sa, sizeof sa);
	if (kernel && raw_system("echo 0 > /proc/sys/net/mptcp/pm_type"))
		exit(1);
	memset(info, 0xff, sizeof info);
	(void)getsockopt(fd, RAW_SOL_MPTCP, RAW_INFO, info, &len);
	close(fd);
	return info[3] == 0;
}

#endif
