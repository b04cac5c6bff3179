/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Loaded by dlopen(), "unloaded" while a thread that has used it still runs:
 * neither the thread's end nor the next load may crash. Not linked with the
 * library.
 *
 * lab:
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

struct mptcp_subflow;
static int (*getsubflows)(int, struct mptcp_subflow **);
static const char *(*errmsg)(void);
static pthread_barrier_t step;
static int failed;

#define CHECK(e) ((e) ? (void)0 : (void)(failed++, fprintf(stderr, "dl.c:%d: %s\n", __LINE__, #e)))

static void *find(void *lib, const char *name)
{
	void *p = dlsym(lib, name);

	CHECK(p != NULL);
	return p;
}

static void *user(void *arg)
{
	(void)arg;
	errno = 0;
	CHECK(getsubflows(-1, (struct mptcp_subflow **)&arg) == -1 && errno == EBADF);
	CHECK(*errmsg());               /* state of this thread's own exists now */
	pthread_barrier_wait(&step);
	pthread_barrier_wait(&step);    /* dlclose() in between */
	CHECK(getsubflows(-1, (struct mptcp_subflow **)&arg) == -1);
	return NULL;
}

int main(void)
{
	int i;

	pthread_barrier_init(&step, NULL, 2);
	for (i = 0; i < 20; i++) {
		void *lib = dlopen("libmptcpapi.so.0", RTLD_NOW | RTLD_LOCAL), *p;
		pthread_t t;

		if (!lib) {
			fprintf(stderr, "%s\n", dlerror());
			return 1;
		}
		/* POSIX's way to make a function of dlsym()'s pointer. */
		p = find(lib, "mptcp_getsubflows");
		memcpy(&getsubflows, &p, sizeof p);
		p = find(lib, "mptcp_errmsg");
		memcpy(&errmsg, &p, sizeof p);
		CHECK(dlvsym(lib, "mptcp_getsubflows", "MPTCPAPI_0.1") != NULL);
		if (pthread_create(&t, NULL, user, NULL))
			return 1;
		pthread_barrier_wait(&step);
		CHECK(!dlclose(lib));
		pthread_barrier_wait(&step);
		CHECK(!pthread_join(t, NULL));
		lib = dlopen("libmptcpapi.so.0", RTLD_NOW | RTLD_NOLOAD);
		CHECK(lib != NULL);     /* it stays: -z nodelete */
		if (lib)
			dlclose(lib);
	}
	return failed != 0;
}
