// SPDX-License-Identifier: MIT OR Apache-2.0
//! See mptcpapi_fuzz::journal.
#![no_main]

use mptcpapi_fuzz::{journal, sow};

libfuzzer_sys::fuzz_target!(init: sow("journal"), |bytes: &[u8]| journal(bytes));
