// SPDX-License-Identifier: MIT OR Apache-2.0
//! Redundancy (RFC 6897 REQ12) is a packet scheduler's work: the kernel gives each socket, when it is made, the one
//! that its network namespace names (net.mptcp.scheduler, 6.6). Upstream has
//! only "default", which sends nothing twice; others come with modules or BPF.

use crate::engine::Redundancy;
use crate::error::{Error, Result};
use crate::kernel::latch;

/// What a scheduler does is told by its name alone.
fn provides(name: &str) -> Redundancy {
    let parts = || name.split(|c: char| !c.is_ascii_alphanumeric());
    if parts().any(|part| matches!(part, "red" | "redundant" | "redundancy")) {
        Redundancy::Full
    } else if parts().any(|part| matches!(part, "spare" | "opportunistic")) {
        Redundancy::Spare
    } else {
        Redundancy::None
    }
}

/// The schedulers there are (6.10), and the one that new sockets get, in the
/// calling thread's network namespace.
fn read() -> (String, String) {
    let value = |name| latch::sysctl(name).unwrap_or_default();
    (value("available_schedulers"), value("scheduler"))
}

/// Whether any scheduler here sends anything twice.
pub fn is_possible() -> bool {
    let (available, current) = read();
    available.split_whitespace().chain([current.trim()]).any(|name| provides(name) != Redundancy::None)
}

/// Whether sockets get such a scheduler: EOPNOTSUPP says what is missing.
pub fn check(wish: Redundancy) -> Result<()> {
    judge(&read(), wish)
}

fn judge((available, current): &(String, String), wish: Redundancy) -> Result<()> {
    if provides(current.trim()) == wish {
        return Ok(());
    }
    let words = match available.split_whitespace().find(|name| provides(name) == wish) {
        Some(name) => {
            format!("sockets here are made with another scheduler: sysctl net.mptcp.scheduler={name}")
        }
        None => {
            "no scheduler of this kernel sends anything twice (net.mptcp.available_schedulers)".to_owned()
        }
    };
    Err(Error::new(libc::EOPNOTSUPP, words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_scheduler_is_for_is_told_by_its_name() {
        for (name, what) in [
            ("default", Redundancy::None),
            ("", Redundancy::None),
            ("bpf_red", Redundancy::Full),
            ("redundant", Redundancy::Full),
            ("bpf_first", Redundancy::None),
            ("bored", Redundancy::None),
            ("bpf_spare", Redundancy::Spare),
        ] {
            assert_eq!(provides(name), what, "{name}");
        }
    }

    #[test]
    fn it_works_the_day_there_is_one() {
        let with = |available: &str, current: &str, wish| {
            judge(&(available.to_owned(), current.to_owned()), wish).map_err(|error| error.to_string())
        };
        assert_eq!(with("default redundant\n", "redundant\n", Redundancy::Full), Ok(()));
        let other = with("default redundant", "default", Redundancy::Full);
        assert!(other.is_err_and(|words| words.contains("net.mptcp.scheduler=redundant")));
        assert!(with("default", "default", Redundancy::Full).is_err());
        assert!(with("default redundant", "redundant", Redundancy::Spare).is_err());
    }
}
