// SPDX-License-Identifier: MIT OR Apache-2.0

module libmptcpapi/mptcp

go 1.19
