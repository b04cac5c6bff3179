// SPDX-License-Identifier: MIT OR Apache-2.0

module examples

go 1.19

require libmptcpapi/mptcp v0.0.0

replace libmptcpapi/mptcp => ../bindings/go
