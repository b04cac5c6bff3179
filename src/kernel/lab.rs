// SPDX-License-Identifier: MIT OR Apache-2.0
//! For tests: a network namespace of their own, and connections in it.

use super::sockopt;
use nix::sched::{CloneFlags, unshare};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::time::{Duration, Instant};

/// Runs `act` in a fresh network namespace, which ends with it.
pub fn alone<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    // On a thread of its own: the caller's goes on to other tests.
    let inside = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("tests need root, or `unshare -rn`");
        run("ip link set lo up");
        act()
    };
    std::thread::scope(|scope| match scope.spawn(inside).join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Runs a command, which must succeed.
pub fn run(words: &str) {
    let mut split = words.split_whitespace();
    let output = Command::new(split.next().unwrap()).args(split).output().unwrap();
    assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Waits for a condition, ten seconds at most.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < end, "not within 10 s: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A stream socket of this protocol.
pub fn stream(addr: &SocketAddr, protocol: i32) -> OwnedFd {
    let family = if addr.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    sockopt::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, protocol).unwrap()
}

/// Listens on a free port of this address.
pub fn listen(addr: &str, protocol: i32) -> (OwnedFd, SocketAddr) {
    let addr: SocketAddr = addr.parse().unwrap();
    let listener = stream(&addr, protocol);
    sockopt::bind(listener.as_fd(), &addr).unwrap();
    sockopt::listen(listener.as_fd(), 4096).unwrap();
    let addr = sockopt::sockname(listener.as_fd()).unwrap();
    (listener, addr)
}

/// Both ends of a connection, fully established, over the namespace's
/// loopback: who connected and who accepted.
pub fn connection(protocol: i32) -> (OwnedFd, OwnedFd) {
    let (listener, addr) = listen("127.0.0.1:0", protocol);
    let client = stream(&addr, protocol);
    sockopt::connect(client.as_fd(), &addr).unwrap();
    let server = sockopt::accept(listener.as_fd()).unwrap();
    for (from, to) in [(&client, &server), (&server, &client)] {
        send(from, b"x");
        until("a byte comes", || sockopt::poll(to.as_fd(), libc::POLLIN, 1000).unwrap() & libc::POLLIN != 0);
        assert_eq!(receive(to), b"x");
    }
    (client, server)
}

/// Sends without waiting.
pub fn send(fd: &OwnedFd, bytes: &[u8]) {
    use std::os::fd::AsRawFd;
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    // SAFETY: pointer and length describe `bytes`.
    let rc = unsafe { libc::send(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) };
    assert_eq!(rc, bytes.len() as isize);
}

/// What has come, without waiting.
pub fn receive(fd: &OwnedFd) -> Vec<u8> {
    use std::os::fd::AsRawFd;
    let mut bytes = vec![0; 1 << 16];
    // SAFETY: pointer and length describe `bytes`, which is ours to write.
    let len =
        unsafe { libc::recv(fd.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len(), libc::MSG_DONTWAIT) };
    bytes.truncate(usize::try_from(len).unwrap());
    bytes
}
