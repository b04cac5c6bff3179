// SPDX-License-Identifier: MIT OR Apache-2.0
//! What must hold whatever bytes come: each function here takes any and panics
//! where something doesn't. The fuzzer (fuzz_targets/) looks for such bytes,
//! the tests try what it has found interesting (corpus/).

mod engine;
#[path = "../../daemon/src/journal.rs"]
#[allow(dead_code)]
mod journal;
#[path = "../../daemon/src/log.rs"]
#[allow(dead_code)]
mod log;
mod memory;
mod netlink;
mod past;
mod script;
mod seeds;
mod wire;

pub use engine::engine;
pub use netlink::netlink;
pub use past::journal;
pub use seeds::{seeds, sow};
pub use wire::wire;
