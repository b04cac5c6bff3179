// SPDX-License-Identifier: MIT OR Apache-2.0
//! See mptcpapi_fuzz::netlink.
#![no_main]

use mptcpapi_fuzz::{netlink, sow};

libfuzzer_sys::fuzz_target!(init: sow("netlink"), |bytes: &[u8]| netlink(bytes));
