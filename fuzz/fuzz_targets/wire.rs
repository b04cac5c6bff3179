// SPDX-License-Identifier: MIT OR Apache-2.0
//! See mptcpapi_fuzz::wire.
#![no_main]

use mptcpapi_fuzz::{sow, wire};

libfuzzer_sys::fuzz_target!(init: sow("wire"), |bytes: &[u8]| wire(bytes));
