/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* After the kernel's header of the same purpose. Also compiled as C++. */
#include <linux/mptcp.h>
#include <mptcp.h>

unsigned after(void);
unsigned after(void)
{
	struct mptcp_info kernel;
	struct mptcp_subflow ours;

	return (unsigned)(sizeof kernel + sizeof ours) + MPTCP_EVENT_CREATED
		+ MPTCP_SUBFLOW_INITIAL + MPTCP_PM_CMD_ADD_ADDR;
}
