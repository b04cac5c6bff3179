// SPDX-License-Identifier: MIT OR Apache-2.0
//! Linux, and nothing else in the library knows Linux.
//!
//! Thin, safe wrappers: each returns the kernel's errno and leaves the words,
//! and every decision, to its callers.
#![allow(unsafe_code, reason = "system calls live here, each block with its reason")]

pub mod diag;
pub mod info;
#[cfg(test)]
mod lab;
pub mod latch;
pub mod netlink;
pub mod pm;
pub mod poll;
pub mod process;
pub mod resolve;
pub mod route;
pub mod rtnl;
pub mod service;
pub mod sockopt;
pub mod uapi;
pub mod unix;
