/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The header needs nothing before it, and no feature macro. Also compiled as C++. */
#include <mptcp.h>
#include <mptcp.h>

size_t alone(void);
size_t alone(void)
{
	struct mptcp_subflow s;
	struct mptcp_caps c;

	return sizeof s + sizeof c;
}
