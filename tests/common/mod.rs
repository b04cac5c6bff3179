// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two hosts for a test: the calling thread's own network namespace and a
//! second one, joined by veth pairs. Both end with the test.

use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The second host; the first is the calling thread.
pub struct Hosts {
    keeper: Child,
}

impl Drop for Hosts {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

/// Runs a command, which must succeed; its output.
pub fn run(words: &str) -> String {
    let mut split = words.split_whitespace();
    let output = Command::new(split.next().unwrap()).args(split).output().unwrap();
    assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

impl Hosts {
    /// `paths` veth pairs: cN with 10.N.0.1 and fd0N::1 here, sN with 10.N.0.2
    /// and fd0N::2 there. Every address of the second host is reached by every
    /// path of the first.
    pub fn new(paths: usize) -> Self {
        unshare(CloneFlags::CLONE_NEWNET).expect("tests need root, or `unshare -rn`");
        let keeper =
            Command::new("unshare").args(["-n", "sleep", "120"]).stdin(Stdio::null()).spawn().unwrap();
        let hosts = Self { keeper };
        let own = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        until("the second host is there", || {
            std::fs::read_link(hosts.namespace()).is_ok_and(|other| other != own)
        });
        run("ip link set lo up");
        hosts.there("ip link set lo up");
        for n in 1..=paths {
            run(&format!("ip link add c{n} type veth peer name s{n} netns {}", hosts.keeper.id()));
            for (place, end, host) in [("", "c", 1), (hosts.enter().as_str(), "s", 2)] {
                run(&format!("{place} ip addr add 10.{n}.0.{host}/24 dev {end}{n}"));
                run(&format!("{place} ip -6 addr add fd0{n}::{host}/64 dev {end}{n} nodad"));
                run(&format!("{place} ip link set {end}{n} up"));
            }
        }
        // From cN's address by cN, whatever the destination.
        for n in 1..=paths {
            for m in (1..=paths).filter(|m| *m != n) {
                run(&format!("ip route add 10.{m}.0.2/32 via 10.{n}.0.2 dev c{n} table {n}"));
                run(&format!("ip -6 route add fd0{m}::2/128 via fd0{n}::2 dev c{n} table {n}"));
            }
            run(&format!("ip rule add from 10.{n}.0.1 table {n}"));
            run(&format!("ip -6 rule add from fd0{n}::1 table {n}"));
        }
        hosts.there("ip mptcp limits set subflows 8 add_addr_accepted 8");
        hosts
    }

    fn namespace(&self) -> String {
        format!("/proc/{}/ns/net", self.keeper.id())
    }

    fn enter(&self) -> String {
        format!("nsenter --net={} --", self.namespace())
    }

    /// Runs a command on the second host.
    pub fn there(&self, words: &str) -> String {
        run(&format!("{} {words}", self.enter()))
    }

    /// A thread on the second host.
    pub fn spawn<T: Send + 'static>(
        &self,
        act: impl FnOnce() -> T + Send + 'static,
    ) -> std::thread::JoinHandle<T> {
        let namespace = self.namespace();
        std::thread::spawn(move || {
            setns(File::open(namespace).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
            act()
        })
    }
}

/// Waits for a condition, ten seconds at most.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < end, "not within 10 s: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Bytes that an interface of this host has sent.
#[allow(dead_code, reason = "not every test looks")]
pub fn sent(interface: &str) -> u64 {
    let text = run(&format!("ip -j -s link show dev {interface}"));
    let tx = text.split("\"tx\":").nth(1).unwrap();
    let digits = tx.split("\"bytes\":").nth(1).unwrap();
    digits.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
}
