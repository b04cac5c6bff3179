// SPDX-License-Identifier: MIT OR Apache-2.0
//! Statistics over two real paths, checked by what the interfaces counted.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::{Hosts, run, sent, until};
use mptcpapi::{Usage, add, all_stats, connect, connection_stats, remove, socket, subflow_stats, subflows};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;

const MIB: u64 = 1 << 20;

/// Sends `bytes` and waits until the server has them and that is known: what is
/// still out could be sent again between two looks.
fn carry(stream: &mut TcpStream, bytes: u64, arrived: &mpsc::Receiver<u64>) {
    for _ in 0..bytes / MIB {
        stream.write_all(&vec![7; MIB as usize]).unwrap();
    }
    let mut rest = bytes;
    while rest > 0 {
        rest -= arrived.recv_timeout(std::time::Duration::from_secs(30)).unwrap();
    }
    until("all is acknowledged", || {
        all_stats(&*stream)
            .unwrap()
            .subflows
            .iter()
            .all(|s| s.tcp.unacked == Some(0) && s.tcp.notsent == Some(0))
    });
}

fn ifindex(name: &str) -> u32 {
    let text = run(&format!("ip -j link show dev {name}"));
    let digits = text.split("\"ifindex\":").nth(1).unwrap();
    digits.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
}

#[test]
fn numbers_are_those_of_the_interfaces() {
    let hosts = Hosts::new(2);
    let (tell, hear) = mpsc::channel();
    let (report, arrived) = mpsc::channel();
    let server = hosts.spawn(move || {
        let socket = socket2::Socket::from(socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap());
        socket.bind(&"10.1.0.2:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        socket.listen(1).unwrap();
        tell.send(socket.local_addr().unwrap().as_socket().unwrap()).unwrap();
        let mut stream: TcpStream = socket.accept().unwrap().0.into();
        let mut buffer = vec![0; 1 << 18];
        stream.write_all(b"x").unwrap();
        loop {
            match stream.read(&mut buffer).unwrap() {
                0 => return connection_stats(&stream).unwrap(),
                n => report.send(n as u64).unwrap(),
            }
        }
    });

    let client = socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
    let [one, two] = ["10.1.0.1:0", "10.2.0.1:0"].map(|addr| addr.parse::<SocketAddr>().unwrap());
    add(&client, vec![one, two], Usage::default()).unwrap();
    assert_eq!(all_stats(&client).unwrap_err().errno(), libc::ENOTCONN);
    connect(&client, &[hear.recv().unwrap()]).unwrap();
    let mut stream = TcpStream::from(client);
    stream.read_exact(&mut [0]).unwrap();
    carry(&mut stream, MIB, &arrived);
    until("the second subflow", || subflows(&stream).unwrap().len() == 2);
    let before = [sent("c1"), sent("c2")];
    let at_first = all_stats(&stream).unwrap();
    carry(&mut stream, 24 * MIB, &arrived);

    let stats = all_stats(&stream).unwrap();
    let names = ["c1", "c2"];
    for (path, subflow) in stats.subflows.iter().enumerate() {
        assert_eq!(subflow.ifindex, Some(ifindex(names[path])));
        assert_eq!((subflow.backup, subflow.local_id == Some(0)), (Some(false), path == 0));
        // Payload, less than the interface sent, headers and all; by not much.
        let carried = subflow.tcp.bytes_sent.unwrap() - at_first.subflows[path].tcp.bytes_sent.unwrap();
        let wire = sent(names[path]) - before[path];
        assert!(
            carried <= wire && wire <= carried + carried / 5 + 100_000,
            "{carried} of {wire}: {subflow:?}"
        );
    }
    assert_eq!(stats.subflows.iter().map(|s| s.share_sent_ppm.unwrap()).sum::<u32>(), 1_000_000);
    assert_eq!(stats.subflows.iter().map(|s| s.share_received_ppm.unwrap()).sum::<u32>(), 1_000_000);
    let connection = stats.connection;
    assert_eq!((connection.bytes_sent, connection.bytes_received), (Some(25 * MIB), Some(1)));
    assert_eq!((connection.closed_bytes_sent, connection.subflows), (Some(0), 2));
    assert_eq!((connection.server, connection.fallback), (Some(false), false));

    // One path goes; its bytes stay in the sum.
    remove(&stream, vec![one]).unwrap();
    until("one is left", || subflows(&stream).unwrap().len() == 1);
    let gone = subflow_stats(&stream, &stats.subflows[0].subflow).unwrap_err();
    assert_eq!(gone.errno(), libc::ENOENT);
    carry(&mut stream, 4 * MIB, &arrived);
    let after = all_stats(&stream).unwrap();
    let left = &after.subflows[0];
    assert_eq!(subflow_stats(&stream, &left.subflow).unwrap().subflow, left.subflow);
    assert_eq!(after.connection.bytes_sent, Some(29 * MIB));
    let closed = after.connection.closed_bytes_sent.unwrap();
    let had = stats.subflows[0].tcp.bytes_sent.unwrap();
    assert!(closed > 0 && closed <= had, "{closed} of {had}");
    let all = (closed + left.tcp.carried_sent().unwrap()) as f64;
    let share = 1e6 * left.tcp.carried_sent().unwrap() as f64 / all;
    assert!((f64::from(left.share_sent_ppm.unwrap()) - share).abs() < 2.0, "{share}: {left:?}");

    // Closed here, half closed there: the other end still tells.
    drop(stream);
    let there = server.join().unwrap();
    assert_eq!((there.bytes_sent, there.bytes_received), (Some(1), Some(29 * MIB)));
}
