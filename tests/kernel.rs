// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the kernel layer's commands do to connections between two hosts.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::{Hosts, run, until};
use mptcpapi::kernel::diag::Diag;
use mptcpapi::kernel::pm::{Commands, Local};
use mptcpapi::kernel::sockopt::{self, Listed};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

fn sysctl(name: &str, value: &str) -> std::io::Result<()> {
    std::fs::write(format!("/proc/sys/net/mptcp/{name}"), value)
}

fn mptcp(addr: &SocketAddr) -> OwnedFd {
    let family = if addr.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    sockopt::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, libc::IPPROTO_MPTCP).unwrap()
}

fn pass(from: &TcpStream, to: &TcpStream) {
    let (mut from, mut to) = (from, to);
    from.write_all(b"x").unwrap();
    to.read_exact(&mut [0]).unwrap();
}

/// A connection by path 1 under the userspace path manager at the client,
/// fully established.
struct Connection {
    client: TcpStream,
    server: TcpStream,
    token: u32,
    initial: Listed,
    /// Takes joins.
    _listener: OwnedFd,
}

impl Connection {
    fn new(hosts: &Hosts, local: &str, remote: &str) -> Self {
        Self::with(hosts, local, remote, |_| ())
    }

    /// The client's socket is prepared by `prepare`.
    fn with(hosts: &Hosts, local: &str, remote: &str, prepare: impl FnOnce(BorrowedFd<'_>)) -> Self {
        let (local, remote): (SocketAddr, SocketAddr) = (local.parse().unwrap(), remote.parse().unwrap());
        let listener = hosts.spawn(move || {
            let listener = mptcp(&remote);
            sockopt::bind(listener.as_fd(), &remote).unwrap();
            sockopt::listen(listener.as_fd(), 1).unwrap();
            listener
        });
        let listener = listener.join().unwrap();
        let client = mptcp(&local);
        prepare(client.as_fd());
        sockopt::bind(client.as_fd(), &local).unwrap();
        sockopt::connect(client.as_fd(), &sockopt::sockname(listener.as_fd()).unwrap()).unwrap();
        let server = TcpStream::from(sockopt::accept(listener.as_fd()).unwrap());
        server.set_nonblocking(false).unwrap();
        let client = TcpStream::from(client);
        pass(&client, &server);
        pass(&server, &client);
        let token = sockopt::info(client.as_fd()).unwrap().token;
        let initial = sockopt::full_info(client.as_fd()).unwrap()[0];
        Self { client, server, token, initial, _listener: listener }
    }

    fn hung_up(&self) -> bool {
        sockopt::poll(self.client.as_fd(), 0, 0).unwrap() & libc::POLLHUP != 0
    }

    fn states(&self) -> Vec<u8> {
        sockopt::full_info(self.client.as_fd()).unwrap().iter().map(|subflow| subflow.state).collect()
    }

    /// It ends, with so many segments by path 1 at most; the application is told.
    fn ends(&self, commands: &mut Commands, most: u64) {
        let segments = Segments::of("c1");
        let initial = (&self.initial.local, &self.initial.remote);
        commands.end(&mut Diag::open().unwrap(), self.token, initial, 9).unwrap();
        until("the connection ended", || self.hung_up());
        let error = (&self.client).read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotConnected);
        assert_eq!((&self.client).write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
        let count = segments.count();
        assert!(count <= most, "{count} segments");
    }
}

const CLOSED: u8 = 7;

/// Counts the TCP segments that leave by an interface from now on.
struct Segments;

impl Segments {
    fn of(interface: &str) -> Self {
        run("nft add table inet segments");
        run("nft add chain inet segments out { type filter hook output priority 0 ; }");
        run(&format!("nft add rule inet segments out oifname {interface} meta l4proto tcp counter"));
        Self
    }

    fn count(&self) -> u64 {
        let text = run("nft list chain inet segments out");
        let digits = text.split("packets ").nth(1).unwrap().split(' ').next().unwrap();
        digits.parse().unwrap()
    }
}

impl Drop for Segments {
    fn drop(&mut self) {
        run("nft delete table inet segments");
    }
}

/// A client's host whose kernel ends connections after one second; the
/// server's does so only after a minute, as all do before 6.7: too long for a
/// test.
fn hosts() -> Option<(Hosts, Commands)> {
    let hosts = Hosts::new(1);
    sysctl("pm_type", "1").unwrap();
    match sysctl("close_timeout", "1") {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            println!("not on this kernel");
            return None;
        }
        other => other.unwrap(),
    }
    Some((hosts, Commands::open().unwrap()))
}

fn a_connection_without_subflows_is_ended(local: &str, remote: &str) {
    let Some((hosts, mut commands)) = hosts() else { return };
    let connection = Connection::new(&hosts, local, remote);
    let Listed { local, remote, .. } = connection.initial;
    commands.destroy(connection.token, &local, &remote).unwrap();
    until("the initial subflow is closed", || connection.states() == [CLOSED]);
    connection.ends(&mut commands, 0);
}

#[test]
fn a_connection_without_subflows_is_ended_ipv4() {
    a_connection_without_subflows_is_ended("10.1.0.1:0", "10.1.0.2:0");
}

#[test]
fn a_connection_without_subflows_is_ended_ipv6() {
    a_connection_without_subflows_is_ended("[fd01::1]:0", "[fd01::2]:0");
}

#[test]
fn a_connection_whose_last_subflow_lingers_is_ended() {
    let Some((hosts, mut commands)) = hosts() else { return };
    let connection = Connection::new(&hosts, "10.1.0.1:0", "10.1.0.2:0");
    hosts.there("ip link set s1 down");
    let Listed { local, remote, .. } = connection.initial;
    commands.destroy(connection.token, &local, &remote).unwrap();
    assert_ne!(connection.states(), [CLOSED]);
    // Its last subflow's own end, which nobody acknowledges.
    connection.ends(&mut commands, 4);
}

#[test]
fn a_connection_with_a_subflow_goes_on() {
    let Some((hosts, mut commands)) = hosts() else { return };
    let connection = Connection::new(&hosts, "10.1.0.1:0", "10.1.0.2:0");
    let Listed { local, remote, .. } = connection.initial;
    let initial = (&local, &remote);
    let mut diag = Diag::open().unwrap();
    // Revived, after its end was asked for.
    commands.destroy(connection.token, &local, &remote).unwrap();
    commands.end(&mut diag, connection.token, initial, 9).unwrap();
    let mut from = Local { addr: local, id: 0, backup: false, ifindex: 0 };
    from.addr.set_port(0);
    commands.create(connection.token, &from, &remote).unwrap();
    until("another subflow is there", || connection.states() == [CLOSED, 1]);
    // And not ended where another subflow is.
    commands.end(&mut diag, connection.token, initial, 9).unwrap();
    until("the one made to fail is gone", || connection.states() == [CLOSED, 1]);
    std::thread::sleep(std::time::Duration::from_millis(1500));
    assert!(!connection.hung_up());
    pass(&connection.client, &connection.server);
    pass(&connection.server, &connection.client);
}

#[test]
fn a_subflow_bound_to_a_device_is_found() {
    let hosts = Hosts::new(1);
    for (local, remote) in [("10.1.0.1:0", "10.1.0.2:0"), ("[fd01::1]:0", "[fd01::2]:0")] {
        let connection = Connection::with(&hosts, local, remote, |socket| {
            sockopt::set(socket, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, b"c1").unwrap();
        });
        let Listed { local, remote, .. } = connection.initial;
        let mut diag = Diag::open().unwrap();
        let found = diag.subflow(&local, &remote).unwrap().unwrap();
        assert_ne!(found.device, 0);
        assert_eq!(found.subflow.unwrap().token, connection.token);
        assert!(diag.tuple(&local, &remote).unwrap().is_some());
        assert!(diag.facts(&local, &remote).unwrap().is_some());
    }
}
