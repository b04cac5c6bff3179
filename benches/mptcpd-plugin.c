/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * For mptcpd: one subflow for each new connection of ours, from the address that
 * BENCH_SECOND names, as soon as the connection is established. What a plugin
 * needs at the least, so that mptcpd is measured, not the plugin.
 */
#include <arpa/inet.h>
#include <stdbool.h>
#include <stdlib.h>

#include <mptcpd/path_manager.h>
#include <mptcpd/plugin.h>

static struct sockaddr_in second;

static void established(mptcpd_token_t token, struct sockaddr const *local, struct sockaddr const *remote,
			bool server_side, struct mptcpd_pm *pm)
{
	(void)local;
	if (!server_side)
		mptcpd_pm_add_subflow(pm, token, 1, 0, (struct sockaddr *)&second, remote, false);
}

static struct mptcpd_plugin_ops const ops = { .connection_established = established };

static int init(struct mptcpd_pm *pm)
{
	char const *address = getenv("BENCH_SECOND");

	(void)pm;
	second.sin_family = AF_INET;
	if (!address || inet_pton(AF_INET, address, &second.sin_addr) != 1)
		return -1;
	return mptcpd_plugin_register_ops("bench", &ops) ? 0 : -1;
}

static void leave(struct mptcpd_pm *pm)
{
	(void)pm;
}

MPTCPD_PLUGIN_DEFINE(bench, "One subflow from a second address", MPTCPD_PLUGIN_PRIORITY_DEFAULT, init, leave)
