// SPDX-License-Identifier: MIT OR Apache-2.0
//! The RFC 6897 application interface to Multipath TCP on Linux.
//!
//! A program makes its sockets multipath ([`enable`], [`socket()`]), says which
//! local addresses its connection may use ([`add`], [`remove`]), connects
//! ([`connect`], or by name [`connect_by_name`]) and looks at what became of it
//! ([`enabled`], [`subflows`], [`connection_id`], [`all_stats`]). Queries need no
//! privilege. Paths are controlled by somebody who has CAP_NET_ADMIN over the
//! network namespace: the broker, mptcpapid, for every user whom its policy
//! allows it, or the process itself; [`capabilities`] tells who does, and why
//! not.
//!
//! The C interface (`mptcp.h`) is built on the same functions; its manual is
//! mptcp(7). Errors carry an errno and words: see [`Error`].
//!
//! ```no_run
//! use std::os::fd::AsFd;
//! let socket = mptcpapi::socket(libc::AF_INET, libc::SOCK_STREAM, 0)?;
//! let paths = ["10.1.0.1:0".parse().unwrap(), "10.2.0.1:0".parse().unwrap()];
//! mptcpapi::add(&socket, paths.to_vec(), mptcpapi::Usage::default())?;
//! mptcpapi::connect(&socket, &["10.9.0.1:80".parse().unwrap()])?;
//! for subflow in mptcpapi::subflows(&socket)? {
//!     println!("{} - {}", subflow.local, subflow.remote);
//! }
//! # Ok::<(), mptcpapi::Error>(())
//! ```

pub mod addr;
mod advanced;
pub mod caps;
mod connect;
pub mod engine;
mod error;
pub mod events;
pub mod kernel;
pub mod manager;
pub mod names;
pub mod options;
mod path;
mod pending;
mod quick;
mod redundancy;
mod socket;
mod stats;
pub mod stream;
pub mod wire;

#[cfg(feature = "capi")]
pub mod capi;

pub use advanced::{close_subflow, open_subflow, set, set_backup, settings};
pub use caps::{Capabilities, capabilities};
pub use connect::connect;
pub use engine::{Mode, PathPolicy, Profile, Redundancy, Setting, Settings, Traffic};
pub use error::{Errno, Error, KernelResult, Result};
pub use kernel::info::TcpInfo;
pub use names::{ByName, connect_by_name};
pub use path::{BROKER_SOCKET, Backend, Control};
pub use socket::{
    Subflow, Usage, add, connection_id, enable, enabled, local_addresses, peer_addresses, remove, socket,
    subflows,
};
pub use stats::{AllStats, ConnectionStats, SubflowStats, all_stats, connection_stats, subflow_stats};
pub use stream::Stage;
