// SPDX-License-Identifier: MIT OR Apache-2.0
//! See mptcpapi_fuzz::engine.
#![no_main]

use mptcpapi_fuzz::{engine, sow};

libfuzzer_sys::fuzz_target!(init: sow("engine"), |bytes: &[u8]| engine(bytes));
