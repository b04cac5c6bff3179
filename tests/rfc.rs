// SPDX-License-Identifier: MIT OR Apache-2.0
//! What RFC 6897 asks and no other test shows; docs/rfc6897.md says which is
//! which. Where the kernel is the one that keeps a promise, it is shown on
//! connections whose paths this library chose.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::{Hosts, run, until};
use mptcpapi::{Usage, add, connect, enable, enabled, remove, socket, subflows};
use socket2::{SockRef, Socket};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn family(v6: bool) -> i32 {
    if v6 { libc::AF_INET6 } else { libc::AF_INET }
}

/// A listening Multipath TCP socket on the second host.
fn listener(hosts: &Hosts, at: &str) -> TcpListener {
    let at = addr(at);
    let listen = move || {
        let socket = Socket::from(socket(family(at.is_ipv6()), libc::SOCK_STREAM, 0).unwrap());
        socket.bind(&at.into()).unwrap();
        socket.listen(4).unwrap();
        TcpListener::from(socket)
    };
    hosts.spawn(listen).join().unwrap()
}

fn pass(mut from: &TcpStream, mut to: &TcpStream) {
    from.write_all(b"x").unwrap();
    to.read_exact(&mut [0]).unwrap();
}

fn locals(stream: &TcpStream) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = subflows(stream).unwrap().iter().map(|s| s.local.ip()).collect();
    found.sort_unstable();
    found
}

/// A connection by two paths, both of them up.
struct Connection {
    client: TcpStream,
    server: TcpStream,
    paths: [SocketAddr; 2],
    /// Takes joins.
    _listener: TcpListener,
}

impl Connection {
    /// `prepare` has the socket before it connects.
    fn new(hosts: &Hosts, v6: bool, prepare: impl FnOnce(&OwnedFd)) -> Self {
        let [one, two, peer] = if v6 {
            ["[fd01::1]:0", "[fd02::1]:0", "[fd01::2]:0"]
        } else {
            ["10.1.0.1:0", "10.2.0.1:0", "10.1.0.2:0"]
        };
        let (paths, listener) = ([addr(one), addr(two)], listener(hosts, peer));
        let client = socket(family(v6), libc::SOCK_STREAM, 0).unwrap();
        prepare(&client);
        add(&client, paths.to_vec(), Usage::default()).unwrap();
        connect(&client, &[listener.local_addr().unwrap()]).unwrap();
        let (client, server) = (TcpStream::from(client), listener.accept().unwrap().0);
        let connection = Self { client, server, paths, _listener: listener };
        connection.exchange();
        until("both paths", || locals(&connection.client) == paths.map(|path| path.ip()));
        connection
    }

    fn exchange(&self) {
        pass(&self.client, &self.server);
        pass(&self.server, &self.client);
    }

    fn names(&self) -> [SocketAddr; 4] {
        let (client, server) = (&self.client, &self.server);
        [client.local_addr(), client.peer_addr(), server.local_addr(), server.peer_addr()].map(Result::unwrap)
    }

    /// The first path is given up; only a subflow that joined is left.
    fn leave_first(&self) {
        remove(&self.client, vec![self.paths[0]]).unwrap();
        until("the first path is left", || locals(&self.client) == [self.paths[1].ip()]);
    }
}

/// getsockname() and getpeername() tell the first subflow's addresses and ports
/// for good, at both ends, however it ended. Section 4.2.2; what TLS compares
/// with (6.1) is no other address either.
fn names_stay(v6: bool, end: impl FnOnce(&Connection)) {
    let hosts = Hosts::new(2);
    let connection = Connection::new(&hosts, v6, |_| ());
    let names = connection.names();
    let first = subflows(&connection.client).unwrap()[0];
    assert_eq!(names[..2], [first.local, first.remote]);
    end(&connection);
    connection.exchange();
    assert_eq!(connection.names(), names);
    assert!(enabled(&connection.client).unwrap() && enabled(&connection.server).unwrap());
}

#[test]
fn names_stay_those_of_the_first_subflow_ipv4() {
    names_stay(false, Connection::leave_first);
}

#[test]
fn names_stay_those_of_the_first_subflow_ipv6() {
    names_stay(true, Connection::leave_first);
}

#[test]
fn names_stay_those_of_a_first_subflow_that_was_reset() {
    names_stay(false, |connection| {
        let [local, remote, ..] = connection.names();
        run(&format!("ss -KHtn sport = :{} src {} dst {}", local.port(), local.ip(), remote.ip()));
        until("it is gone", || !subflows(&connection.client).unwrap().iter().any(|s| s.local == local));
    });
}

/// What ss says of each subflow to the second host, a line for each.
fn shown() -> Vec<String> {
    let text = run("ss -tinOH --tos state established dst 10.1.0.2");
    text.lines().map(str::to_owned).collect()
}

/// Options of the socket are those of all its subflows: set before, set on the
/// live connection, and on subflows that come later. Section 4.4.1.
#[test]
fn options_reach_every_subflow() {
    let hosts = Hosts::new(2);
    let connection =
        Connection::new(&hosts, false, |socket| SockRef::from(socket).set_tcp_congestion(b"reno").unwrap());
    let all = |words: &[&str]| {
        let lines = shown();
        lines.len() == 2 && lines.iter().all(|line| words.iter().all(|word| line.contains(word)))
    };
    assert!(all(&[" reno "]), "{:?}", shown());
    SockRef::from(&connection.client).set_tos_v4(0x28).unwrap();
    assert!(all(&[" reno ", "tos:0x28"]), "{:?}", shown());
    connection.leave_first();
    add(&connection.client, vec![connection.paths[0]], Usage::default()).unwrap();
    until("the path is back, with all that was set", || {
        // The backend acts in calls.
        locals(&connection.client).len() == 2 && all(&[" reno ", "tos:0x28"])
    });
}

/// Segments with data that a subflow has sent, by what ss says of it.
fn data_segments(subflow: &str) -> u32 {
    let digits = subflow.split("data_segs_out:").nth(1).unwrap_or("0");
    digits.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
}

/// Fewer than the first congestion window has.
const BYTES: u32 = 8;

/// Single bytes, while nothing that was sent is acknowledged: how many segments
/// they take. Nagle's algorithm would hold back all but the first. Once for a
/// connection: what is lost in this shrinks its congestion window.
fn segments_of_bytes(hosts: &Hosts, connection: Connection) -> u32 {
    connection.exchange();
    let port = subflows(&connection.client).unwrap()[0].local.port();
    let subflow = || run(&format!("ss -tinOH src 10.2.0.1 sport = :{port}"));
    until("all is acknowledged", || !subflow().contains("unacked:"));
    hosts.there("nft add table inet t");
    hosts.there("nft add chain inet t o { type filter hook output priority 0 ; policy drop ; }");
    let before = data_segments(&subflow());
    for _ in 0..BYTES {
        (&connection.client).write_all(b"x").unwrap();
    }
    let taken = data_segments(&subflow()) - before;
    hosts.there("nft delete table inet t");
    (&connection.server).read_exact(&mut [0; BYTES as usize]).unwrap();
    taken
}

/// TCP_NODELAY is for the whole connection: here only a subflow is left that
/// joined later. Section 4.4.2.
#[test]
fn nodelay_reaches_every_subflow() {
    let hosts = Hosts::new(2);
    let joined = |before: bool| {
        let connection = Connection::new(&hosts, false, |socket| {
            SockRef::from(socket).set_tcp_nodelay(before).unwrap();
        });
        connection.leave_first();
        connection
    };
    // A probe or two may go out beside the first.
    let with_nagle = segments_of_bytes(&hosts, joined(false));
    assert!(with_nagle < BYTES / 2, "{with_nagle} segments");
    let connection = joined(false);
    connection.client.set_nodelay(true).unwrap();
    let set_on_it = segments_of_bytes(&hosts, connection);
    assert!(set_on_it >= BYTES, "{set_on_it} segments");
    let set_before = segments_of_bytes(&hosts, joined(true));
    assert!(set_before >= BYTES, "{set_before} segments");
}

/// A counter of this host's MPTCP.
fn mptcp_counter(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/netstat").unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("MPTcpExt:")).collect();
    let at = lines[0].split_whitespace().position(|word| word == name).unwrap();
    lines[1].split_whitespace().nth(at).unwrap().parse().unwrap()
}

/// Turned off, not even the request for MPTCP is sent, though both ends have it;
/// turned on, it is. Section 5.3.2.
#[test]
fn turned_off_it_is_tcp_on_the_wire() {
    let hosts = Hosts::new(1);
    let listener = listener(&hosts, "10.1.0.2:0");
    let mut asked = mptcp_counter("MPCapableSYNTX");
    for on in [false, true, false] {
        let client = socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
        enable(&client, on).unwrap();
        connect(&client, &[listener.local_addr().unwrap()]).unwrap();
        let (client, server) = (TcpStream::from(client), listener.accept().unwrap().0);
        pass(&client, &server);
        asked += u64::from(on);
        assert_eq!(mptcp_counter("MPCapableSYNTX"), asked);
        assert_eq!((enabled(&client).unwrap(), enabled(&server).unwrap()), (on, on));
    }
}

/// IPv4 and IPv6 in one call, and on one connection; but each pair is of one
/// family. Sections 5.3.3 and 5.3.4.
#[test]
fn each_pair_is_of_one_family() {
    let hosts = Hosts::new(2);
    let listener = listener(&hosts, "[::]:0");
    let port = listener.local_addr().unwrap().port();
    let client = socket(libc::AF_INET6, libc::SOCK_STREAM, 0).unwrap();
    add(&client, vec![addr("[fd01::1]:0"), addr("10.2.0.1:0")], Usage::default()).unwrap();
    connect(&client, &[addr(&format!("[fd01::2]:{port}")), addr(&format!("10.2.0.2:{port}"))]).unwrap();
    let (client, server) = (TcpStream::from(client), listener.accept().unwrap().0);
    pass(&client, &server);
    pass(&server, &client);
    let mut families = Vec::new();
    until("a subflow of each family", || {
        let list = subflows(&client).unwrap();
        assert!(list.iter().all(|s| s.local.is_ipv4() == s.remote.is_ipv4()), "{list:?}");
        families = list.iter().map(|s| s.local.is_ipv4()).collect();
        families.contains(&true) && families.contains(&false)
    });
    let there = subflows(&server).unwrap();
    assert!(there.iter().all(|s| s.local.is_ipv4() == s.remote.is_ipv4()), "{there:?}");
}
