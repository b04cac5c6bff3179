/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What the per-socket switch of the path manager does to others.
 *
 * ADD on a fresh socket makes the network namespace say "userspace" for a
 * moment, and a socket that another process makes in that moment is caught: it
 * gets no subflows from the in-kernel path manager. One process ADDs; another
 * makes Multipath TCP sockets without pause and counts those that were caught
 * (their MPTCP_INFO shows no limit of further subflows, while the namespace
 * has one).
 *
 *   switch [SECONDS]      for each load, default 4
 *
 * The time the namespace says "userspace" is measured in two ways. In a second
 * run a process does nothing but read the sysctl file, and notes when its
 * answer changes: that gives each window's length, as long as the reader has a
 * processor for itself. And since sockets are made evenly in time, their share
 * caught is the share of time that the windows take: shared among the ADDs it
 * gives the mean length, also where the processors are crowded.
 */
#include "bench.h"

#include <sched.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>

#define SAMPLES 1000000

struct shared {                 /* between the processes of one run */
	volatile int stop;
	volatile int adds, windows;
	long sockets, caught;
	double longest;         /* window seen by the one who makes sockets */
	double started, ended;
	double add[SAMPLES], window[SAMPLES];
};

static struct shared *shared;
static pid_t pids[64];
static int running;

/* The one who ADDs and the one who observes have different processors: where
   they share one, the observer sees less than others would. */
static void use_cpu(int number)
{
	cpu_set_t allowed, one;

	CPU_ZERO(&allowed);
	CPU_ZERO(&one);
	if (sched_getaffinity(0, sizeof allowed, &allowed))
		die("sched_getaffinity");
	number %= CPU_COUNT(&allowed);
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &allowed) && number-- == 0)
			CPU_SET(cpu, &one);
	if (sched_setaffinity(0, sizeof one, &one))
		die("sched_setaffinity");
}

/* The children end with this process, and after a minute in any case. */
static int child(void)
{
	pid_t pid = fork();

	if (pid < 0)
		die("fork");
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		alarm(60);
		return 1;
	}
	pids[running++] = pid;
	return 0;
}

static void end_hogs(int from)
{
	while (running > from) {
		kill(pids[--running], SIGKILL);
		waitpid(pids[running], NULL, 0);
	}
}

static int sysctl_fd(void)
{
	int fd = open("/proc/sys/net/mptcp/path_manager", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		fd = open("/proc/sys/net/mptcp/pm_type", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		die("no sysctl for the path manager");
	return fd;
}

static int says_userspace(int fd)
{
	char value[16] = "";

	if (pread(fd, value, sizeof value, 0) < 1)
		die("reading the sysctl");
	return value[0] == 'u' || value[0] == '1';
}

/* Whether a new socket is under the userspace path manager (Linux 6.18). */
static int is_caught(void)
{
	unsigned char info[4] = { 0 };
	socklen_t len = sizeof info;
	int fd = mptcp_fd();

	if (getsockopt(fd, SOL_MPTCP, RAW_MPTCP_INFO, info, &len))
		die("MPTCP_INFO");
	close(fd);
	return info[3] == 0;
}

static void add_until_stopped(double every_us)
{
	struct sockaddr_in list[2] = { path(1), path(2) };
	double next = now_us();

	/* Not killed: one who dies in the switch leaves the namespace switched. */
	while (!shared->stop && shared->adds < SAMPLES) {
		int fd = mptcp_fd();
		double start = now_us();

		if (mptcp_setsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_ADD, list, sizeof list))
			die("ADD: %s", mptcp_errmsg());
		shared->add[shared->adds] = now_us() - start;
		shared->adds++;
		close(fd);
		if (every_us == 0)
			continue;
		next += every_us;
		while (now_us() < next)
			usleep(next - now_us() < 1 ? 1 : next - now_us());
	}
}

static void make_sockets(void)
{
	double since = 0;

	shared->started = now_us();
	while (!shared->stop) {
		int caught = is_caught();

		shared->sockets++;
		shared->caught += caught;
		if (!caught) {
			since = 0;
			continue;
		}
		if (since == 0)
			since = now_us();
		if (now_us() - since > shared->longest)
			shared->longest = now_us() - since;
	}
	shared->ended = now_us();
}

static void watch_sysctl(void)
{
	int fd = sysctl_fd();
	double since = 0;

	while (!shared->stop) {
		int on = says_userspace(fd);
		double now = now_us();

		if (on && since == 0) {
			since = now;
		} else if (!on && since != 0) {
			if (shared->windows < SAMPLES)
				shared->window[shared->windows++] = now - since;
			since = 0;
		}
	}
}

/* One run of ADDs beside an observer. */
static void run(double every_us, void observe(void), double seconds)
{
	int first = running, status;

	memset(shared, 0, sizeof *shared);
	if (child()) {
		use_cpu(1);
		observe();
		_exit(0);
	}
	if (child()) {
		use_cpu(0);
		add_until_stopped(every_us);
		_exit(0);
	}
	usleep(seconds * 1e6);
	shared->stop = 1;
	for (; running > first; running--)
		if (waitpid(pids[running - 1], &status, 0) < 0 || status != 0)
			die("a process of the benchmark failed");
	if (says_userspace(sysctl_fd()))
		die("the namespace was left in userspace mode");
}

static void load(const char *name, double every_us, int hogs, double seconds)
{
	int before = running, adds;
	double share, mean, add[4], longest;
	static const double at[] = { .5, .95, .99, 1 };

	for (int i = 0; i < hogs; i++) {
		if (child()) {
			use_cpu(i);
			for (;;)
				;
		}
	}
	run(every_us, make_sockets, seconds);
	adds = shared->adds;
	share = shared->sockets ? (double)shared->caught / shared->sockets : 0;
	mean = adds ? share * (shared->ended - shared->started) / adds : 0;
	longest = shared->longest;
	for (int i = 0; i < 4; i++)
		add[i] = quantile(shared->add, adds, at[i]);
	for (int i = 0; i < 200; i++)
		printf("sample\tadd\t%s\t%.1f\n", name, quantile(shared->add, adds, (i + .5) / 200));
	printf("switch\t%s\t%d\t%.1f\t%ld\t%ld\t%.6f\t%.2f\t%.1f\t%.1f\t%.1f\t%.1f\t%.1f\n", name, hogs,
	       adds / (shared->ended - shared->started) * 1e6, shared->sockets, shared->caught, share, mean, longest,
	       add[0], add[1], add[2], add[3]);

	run(every_us, watch_sysctl, seconds / 2);
	printf("window\t%s\t%d\t%.2f\t%.2f\t%.2f\t%.2f\n", name, shared->windows,
	       quantile(shared->window, shared->windows, .5), quantile(shared->window, shared->windows, .95),
	       quantile(shared->window, shared->windows, .99), quantile(shared->window, shared->windows, 1));
	end_hogs(before);
}

int main(int argc, char **argv)
{
	double seconds = argc > 1 ? atof(argv[1]) : 4;
	int cpus = get_nprocs(), fd, shown;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (seconds < 0.5 || seconds > 12) {
		fprintf(stderr, "usage: switch [SECONDS]   (0.5 to 12)\n");
		return 2;
	}
	if (cpus > 16)
		cpus = 16;
	shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		die("mmap");

	/* Does this kernel show what is counted here? */
	fd = sysctl_fd();
	if (says_userspace(fd))
		die("the namespace is in userspace mode already");
	if (is_caught())
		die("MPTCP_INFO shows no limit: the namespace has none");
	if (pwrite(fd, "userspace", 9, 0) != 9 && pwrite(fd, "1", 1, 0) != 1)
		die("writing the sysctl");
	shown = is_caught();
	if (pwrite(fd, "kernel", 6, 0) != 6 && pwrite(fd, "0", 1, 0) != 1)
		die("writing the sysctl");
	if (!shown) {
		fprintf(stderr, "this kernel doesn't show which path manager a socket has (6.18 does): skipped\n");
		return 77;
	}

	load("idle", 10000, 0, seconds);
	load("back-to-back", 0, 0, seconds);
	load("busy", 10000, cpus, seconds);
	load("crowded", 10000, 3 * cpus, seconds);
	return 0;
}
