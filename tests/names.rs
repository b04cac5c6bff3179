// SPDX-License-Identifier: MIT OR Apache-2.0
//! connect_by_name between two hosts, with what happens on the way: dead and
//! refusing addresses, and middleboxes that eat or strip Multipath TCP's option.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::{Hosts, run, until};
use mptcpapi::{ByName, Error, connect_by_name, enabled, local_addresses, subflows};
use nix::sched::{CloneFlags, unshare};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A listening socket on the other host.
fn listen(hosts: &Hosts, addr: &str, multipath: bool) -> TcpListener {
    let addr: SocketAddr = addr.parse().unwrap();
    let make = move || {
        let protocol = if multipath { libc::IPPROTO_MPTCP } else { libc::IPPROTO_TCP };
        let domain = socket2::Domain::for_address(addr);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(protocol.into())).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&addr.into()).unwrap();
        socket.listen(16).unwrap();
        TcpListener::from(socket)
    };
    hosts.spawn(make).join().unwrap()
}

fn port(listener: &TcpListener) -> String {
    listener.local_addr().unwrap().port().to_string()
}

fn numeric() -> ByName {
    ByName { numeric: true, ..ByName::default() }
}

/// Delays that nobody can take for a slow machine.
fn patient() -> ByName {
    ByName { attempt_delay: ms(5000), tcp_delay: ms(5000), ..ByName::default() }
}

/// Connects, with the time that took.
fn timed(node: &str, service: &str, how: &ByName) -> (Result<OwnedFd, Error>, Duration) {
    let begin = Instant::now();
    let result = connect_by_name(node, service, how);
    (result, begin.elapsed())
}

/// That there is a connection, and data passes both ways.
fn check_data(fd: OwnedFd, listener: &TcpListener) -> TcpStream {
    both_ends(fd, listener).0
}

fn both_ends(fd: OwnedFd, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let mut stream = TcpStream::from(fd);
    stream.write_all(b"question").unwrap();
    let (mut other, _) = listener.accept().unwrap();
    let mut buffer = [0; 8];
    other.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"question");
    other.write_all(b"reply").unwrap();
    let mut buffer = [0; 5];
    stream.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"reply");
    (stream, other)
}

/// Whether anybody waits to be accepted.
fn waiting(listener: &TcpListener) -> bool {
    listener.set_nonblocking(true).unwrap();
    let found = listener.accept().is_ok();
    listener.set_nonblocking(false).unwrap();
    found
}

/// One of the kernel's counters, of this host.
fn counter(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/netstat").unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with("MPTcpExt:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let mut pairs = names.split_whitespace().zip(values.split_whitespace());
    pairs.find(|(known, _)| *known == name).unwrap().1.parse().unwrap()
}

/// That Multipath TCP has not been held responsible for anything.
fn no_blackhole() {
    for name in ["Blackhole", "MPCapableSYNTXDrop", "MPCapableSYNTXDisabled"] {
        assert_eq!(counter(name), 0, "{name}");
    }
}

/// The other host does this with what arrives.
fn rule(hosts: &Hosts, rule: &str) {
    hosts.there("nft add table inet t");
    hosts.there("nft add chain inet t c { type filter hook prerouting priority 0 ; }");
    hosts.there(&format!("nft add rule inet t c {rule}"));
}

fn no_rules(hosts: &Hosts) {
    hosts.there("nft flush ruleset");
}

const EATER: &str = "ip daddr 10.1.0.0/24 tcp option mptcp exists drop";

#[test]
fn where_the_option_is_eaten_tcp_is_there_soon_and_multipath_stays_on() {
    let hosts = Hosts::new(2);
    rule(&hosts, EATER);
    let listener = listen(&hosts, "0.0.0.0:0", true);
    let port = port(&listener);

    // Three times, each to a host of which nothing is known: the machine may be
    // busy with something else.
    let mut least = Duration::MAX;
    for host in 2..5 {
        if host > 2 {
            hosts.there(&format!("ip addr add 10.1.0.{host}/24 dev s1"));
        }
        let (fd, time) = timed(&format!("10.1.0.{host}"), &port, &numeric());
        let stream = check_data(fd.unwrap(), &listener);
        assert!(!enabled(&stream).unwrap());
        assert!(time >= ms(150), "{time:?}");
        least = least.min(time);
    }
    assert!(least < ms(350), "{least:?}");
    // Elsewhere, at once.
    let (fd, _) = timed("10.2.0.2", &port, &numeric());
    assert!(enabled(check_data(fd.unwrap(), &listener)).unwrap());
    no_blackhole();

    // What was learnt: TCP waits no longer than it must.
    let (fd, time) = timed("10.1.0.2", &port, &ByName { tcp_delay: ms(2000), ..numeric() });
    check_data(fd.unwrap(), &listener);
    assert!(time < ms(1500), "{time:?}");

    // No attempt lives on until the kernel would draw its conclusions.
    std::thread::sleep(ms(3300));
    no_blackhole();
    assert!(!waiting(&listener));
    let (fd, _) = timed("10.2.0.2", &port, &numeric());
    assert!(enabled(check_data(fd.unwrap(), &listener)).unwrap());

    // And forgotten as soon as the option passes.
    no_rules(&hosts);
    for _ in 0..2 {
        let (fd, _) = timed("10.1.0.2", &port, &numeric());
        assert!(enabled(check_data(fd.unwrap(), &listener)).unwrap());
    }
    assert!(!waiting(&listener));

    // The same without the race: what is to be avoided.
    rule(&hosts, EATER);
    let client = mptcpapi::socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
    let begin = Instant::now();
    mptcpapi::connect(&client, &[format!("10.1.0.2:{port}").parse().unwrap()]).unwrap();
    assert!(begin.elapsed() > ms(2900));
    assert_eq!(counter("Blackhole"), 1);
    let (fd, _) = timed("10.2.0.2", &port, &numeric());
    assert!(!enabled(fd.unwrap()).unwrap());
}

#[test]
fn a_host_that_is_late_is_not_held_against_multipath() {
    let hosts = Hosts::new(1);
    rule(&hosts, "tcp flags syn drop");
    let listener = listen(&hosts, "0.0.0.0:0", true);
    let port = port(&listener);
    let client = std::thread::scope(|scope| {
        let own = std::fs::File::open("/proc/thread-self/ns/net").unwrap();
        let late = scope.spawn(move || {
            nix::sched::setns(own, CloneFlags::CLONE_NEWNET).unwrap();
            let (fd, time) = timed("10.1.0.2", &port, &numeric());
            let fd = fd.unwrap();
            assert!(!enabled(&fd).unwrap());
            assert!(time > ms(3000), "{time:?}");
            no_blackhole();
            fd
        });
        std::thread::sleep(ms(3300));
        no_rules(&hosts);
        late.join().unwrap()
    });
    check_data(client, &listener);
    assert!(!waiting(&listener));
}

#[test]
fn without_fallback_an_eaten_option_is_a_timeout() {
    let hosts = Hosts::new(1);
    rule(&hosts, EATER);
    let listener = listen(&hosts, "0.0.0.0:0", true);
    let how = ByName { fallback: false, ..numeric() };
    let (result, time) = timed("10.1.0.2", &port(&listener), &how);
    let error = result.unwrap_err();
    assert_eq!(error.errno(), libc::ETIMEDOUT, "{error}");
    assert!(time > ms(2500) && time < ms(2990), "{time:?}");
    no_blackhole();
    assert!(!waiting(&listener));
}

#[test]
fn a_stripped_option_is_plain_tcp_at_once() {
    let hosts = Hosts::new(1);
    rule(&hosts, "reset tcp option mptcp");
    let listener = listen(&hosts, "0.0.0.0:0", true);
    let port = port(&listener);
    let (fd, time) = timed("10.1.0.2", &port, &patient());
    let stream = check_data(fd.unwrap(), &listener);
    assert!(time < ms(2000), "{time:?}");
    assert!(!enabled(&stream).unwrap());
    assert!(!waiting(&listener));

    let (result, _) = timed("10.1.0.2", &port, &ByName { fallback: false, ..numeric() });
    let error = result.unwrap_err();
    assert_eq!(error.errno(), libc::EOPNOTSUPP);
    assert_eq!(error.to_string(), format!("10.1.0.2: 10.1.0.2:{port} MPTCP: plain TCP only"));
    no_blackhole();
}

#[test]
fn a_reset_in_answer_to_the_option_is_made_good_by_tcp() {
    let hosts = Hosts::new(1);
    hosts.there("nft add table inet t");
    hosts.there("nft add chain inet t c { type filter hook input priority 0 ; }");
    hosts.there("nft add rule inet t c tcp option mptcp exists reject with tcp reset");
    let listener = listen(&hosts, "0.0.0.0:0", true);
    let (fd, time) = timed("10.1.0.2", &port(&listener), &patient());
    check_data(fd.unwrap(), &listener);
    assert!(time < ms(2000), "{time:?}");
    no_blackhole();
}

/// A tunnel device of this name on the calling thread's host.
#[allow(unsafe_code)]
fn tunnel(name: &str, addr: &str) -> std::fs::File {
    use std::os::fd::AsRawFd;
    let file = std::fs::File::options().read(true).write(true).open("/dev/net/tun").unwrap();
    let mut request = [0u8; 40];
    request[..name.len()].copy_from_slice(name.as_bytes());
    let flags = (libc::IFF_TUN | libc::IFF_NO_PI) as i16;
    request[16..18].copy_from_slice(&flags.to_ne_bytes());
    // SAFETY: TUNSETIFF reads and writes one struct ifreq, 40 bytes.
    let rc = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, request.as_mut_ptr()) };
    assert_eq!(rc, 0, "{}", std::io::Error::last_os_error());
    run(&format!("ip addr add {addr} dev {name}"));
    run(&format!("ip link set {name} up"));
    file
}

/// Hands on what comes out of one tunnel into another, so much later, until the
/// device goes.
fn hand_on(mut from: std::fs::File, mut to: std::fs::File, delay: Duration) {
    let (put, get) = std::sync::mpsc::channel::<(Instant, Vec<u8>)>();
    std::thread::spawn(move || {
        for (due, packet) in get {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let _ = to.write_all(&packet);
        }
    });
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok(len) = from.read(&mut buffer) {
            let _ = put.send((Instant::now() + delay, buffer[..len].to_vec()));
        }
    });
}

#[test]
fn on_a_slow_path_multipath_wins_and_leaves_no_second_connection() {
    let hosts = Hosts::new(1);
    let here = tunnel("slow", "10.5.0.1/24");
    let there = hosts.spawn(|| tunnel("slow", "10.5.0.2/24")).join().unwrap();
    hand_on(here.try_clone().unwrap(), there.try_clone().unwrap(), ms(100));
    hand_on(there, here, ms(100));
    let listener = listen(&hosts, "0.0.0.0:0", true);
    let (fd, time) = timed("10.5.0.2", &port(&listener), &numeric());
    let fd = fd.unwrap();
    assert!(time >= ms(200), "{time:?}");
    assert!(enabled(&fd).unwrap());
    check_data(fd, &listener);
    // TCP's SYN has reached the peer by now; its answer was refused.
    std::thread::sleep(ms(400));
    assert!(!waiting(&listener));
    run("ip link del slow");
    hosts.there("ip link del slow");
}

/// Routes and neighbours of IPv6 are there a little later than the addresses.
fn await_ipv6() {
    until("IPv6", || {
        let refused = TcpStream::connect_timeout(&"[fd01::2]:9".parse().unwrap(), ms(100));
        refused.unwrap_err().kind() == std::io::ErrorKind::ConnectionRefused
    });
}

/// Names of its own for the calling thread: /etc/hosts, and a name server that
/// answers as the name says.
fn names(hosts_file: &str) -> tempfile::Directory {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    run("mount --make-rprivate /");
    let place = tempfile::Directory::new();
    for (name, text) in [
        ("hosts", hosts_file),
        ("resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n"),
        ("nsswitch.conf", "hosts: files dns\nservices: files\n"),
    ] {
        let file = place.0.join(name);
        std::fs::write(&file, text).unwrap();
        run(&format!("mount --bind {} /etc/{name}", file.display()));
    }
    place
}

/// A directory that goes with its value.
mod tempfile {
    pub struct Directory(pub std::path::PathBuf);

    impl Directory {
        pub fn new() -> Self {
            static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
            let next = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("mptcpapi-names-{}-{next}", std::process::id()));
            std::fs::create_dir(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

#[test]
fn a_name_with_two_families() {
    let hosts = Hosts::new(1);
    await_ipv6();
    let _names = names("fd01::2 both\n10.1.0.2 both four\nfd01::2 six\n");
    let listener = listen(&hosts, "[::]:0", true);
    let port = port(&listener);
    let peer = |name: &str, how: &ByName| {
        let (fd, time) = timed(name, &port, how);
        let stream = check_data(fd.unwrap_or_else(|e| panic!("{name}: {e}")), &listener);
        assert!(enabled(&stream).unwrap());
        (stream.peer_addr().unwrap(), time)
    };
    let how = ByName::default();
    assert!(peer("both", &how).0.is_ipv6());
    assert!(peer("four", &how).0.is_ipv4());
    assert!(peer("six", &how).0.is_ipv6());
    assert!(peer("both", &ByName { family: libc::AF_INET, ..how.clone() }).0.is_ipv4());
    let (result, _) = timed("10.1.0.2", &port, &ByName { family: libc::AF_INET6, ..how.clone() });
    assert_eq!(result.unwrap_err().errno(), libc::ENOENT);

    // IPv6 is dead: a quarter of a second.
    rule(&hosts, "ip6 daddr fd01::2 tcp flags syn drop");
    let (addr, time) = peer("both", &how);
    assert!(addr.is_ipv4() && time >= ms(250) && time < ms(1000), "{addr} {time:?}");
    let (addr, time) = peer("both", &ByName { attempt_delay: ms(600), ..how.clone() });
    assert!(addr.is_ipv4() && time >= ms(600) && time < ms(1300), "{addr} {time:?}");

    // IPv6 refuses: no time at all.
    no_rules(&hosts);
    hosts.there("nft add table inet t");
    hosts.there("nft add chain inet t c { type filter hook input priority 0 ; }");
    hosts.there("nft add rule inet t c ip6 daddr fd01::2 meta l4proto tcp reject with tcp reset");
    let (addr, time) = peer("both", &patient());
    assert!(addr.is_ipv4() && time < ms(2000), "{addr} {time:?}");
    assert!(!waiting(&listener));
}

#[test]
fn failures_name_each_attempt() {
    let hosts = Hosts::new(1);
    await_ipv6();
    let _names = names("fd01::2 both\n10.1.0.2 both\n");
    let (result, time) = timed("both", "9", &patient());
    let error = result.unwrap_err();
    assert_eq!(error.errno(), libc::ECONNREFUSED);
    assert_eq!(
        error.to_string(),
        "both: [fd01::2]:9 MPTCP, TCP: Connection refused; 10.1.0.2:9 MPTCP, TCP: Connection refused"
    );
    assert!(time < ms(2000), "{time:?}");

    rule(&hosts, "tcp flags syn drop");
    let how = ByName { timeout: Some(ms(200)), ..ByName::default() };
    let (result, time) = timed("both", "9", &how);
    let error = result.unwrap_err();
    assert_eq!(error.errno(), libc::ETIMEDOUT);
    assert_eq!(error.to_string(), "both: [fd01::2]:9 MPTCP, TCP: no answer; 10.1.0.2:9 not tried");
    assert!(time >= ms(200) && time < ms(1000), "{time:?}");
    let how = ByName { timeout: Some(ms(500)), attempt_delay: ms(50), multipath: false, ..ByName::default() };
    let (result, time) = timed("both", "9", &how);
    let error = result.unwrap_err();
    assert_eq!(error.errno(), libc::ETIMEDOUT);
    assert_eq!(error.to_string(), "both: [fd01::2]:9 TCP: no answer; 10.1.0.2:9 TCP: no answer");
    assert!(time >= ms(500) && time < ms(1500), "{time:?}");

    let (result, _) = timed("both", "9", &ByName { family: 12345, ..ByName::default() });
    assert_eq!(result.unwrap_err().errno(), libc::EAFNOSUPPORT);
    let neither = ByName { multipath: false, fallback: false, ..ByName::default() };
    assert_eq!(timed("both", "9", &neither).0.unwrap_err().errno(), libc::EINVAL);
    for (profile, errno) in [(4, libc::EINVAL), (-1, libc::EINVAL)] {
        let (result, _) = timed("both", "9", &ByName { profile, ..ByName::default() });
        assert_eq!(result.unwrap_err().errno(), errno, "{profile}");
    }
}

#[test]
fn no_multipath_on_this_host_or_there() {
    let hosts = Hosts::new(1);
    let plain = listen(&hosts, "0.0.0.0:0", false);
    let port = port(&plain);
    let forbidden = ByName { fallback: false, ..numeric() };
    // There.
    let stream = check_data(timed("10.1.0.2", &port, &numeric()).0.unwrap(), &plain);
    assert!(!enabled(&stream).unwrap());
    assert_eq!(timed("10.1.0.2", &port, &forbidden).0.unwrap_err().errno(), libc::EOPNOTSUPP);
    // Not wanted here.
    let multi = listen(&hosts, "0.0.0.0:0", true);
    let fd = timed("10.1.0.2", &self::port(&multi), &ByName { multipath: false, ..numeric() }).0.unwrap();
    assert_eq!(socket2::SockRef::from(&fd).protocol().unwrap(), Some(socket2::Protocol::TCP));
    check_data(fd, &multi);
    // Not there here.
    run("sysctl -q net.mptcp.enabled=0");
    let fd = timed("10.1.0.2", &self::port(&multi), &numeric()).0.unwrap();
    assert!(!enabled(&fd).unwrap());
    let error = timed("10.1.0.2", &self::port(&multi), &forbidden).0.unwrap_err();
    assert_eq!(error.errno(), libc::EOPNOTSUPP);
    assert!(error.to_string().contains("net.mptcp.enabled"), "{error}");
}

#[test]
fn a_list_is_kept_by_every_attempt() {
    let hosts = Hosts::new(3);
    let listener = listen(&hosts, "[::]:0", true);
    let port = port(&listener);
    let list = |text: &str| -> Vec<SocketAddr> { text.split(' ').map(|a| a.parse().unwrap()).collect() };
    let with = |text: &str| ByName { local: list(text), ..numeric() };

    let (fd, _) = timed("10.1.0.2", &port, &with("10.1.0.1:0 10.2.0.1:0 [fd02::1]:0"));
    let (stream, other) = both_ends(fd.unwrap(), &listener);
    assert_eq!(local_addresses(&stream).unwrap(), list("10.1.0.1:0 10.2.0.1:0"));
    until("a subflow on path 2", || {
        let subflows = subflows(stream.as_fd()).unwrap();
        subflows.iter().any(|s| s.local.ip() == list("10.2.0.1:0")[0].ip())
    });
    drop(other);
    // The list decides where it starts, by either protocol.
    for how in [with("10.2.0.1:0"), ByName { multipath: false, ..with("10.2.0.1:0") }] {
        let stream = check_data(timed("10.1.0.2", &port, &how).0.unwrap(), &listener);
        assert_eq!(stream.local_addr().unwrap().ip(), list("10.2.0.1:0")[0].ip());
        assert_eq!(enabled(&stream).unwrap(), how.multipath);
    }
    rule(&hosts, EATER);
    let stream = check_data(timed("10.1.0.2", &port, &with("10.3.0.1:0")).0.unwrap(), &listener);
    assert_eq!(stream.local_addr().unwrap().ip(), list("10.3.0.1:0")[0].ip());
    assert!(!enabled(&stream).unwrap());
    // A port of the list is used by one attempt at a time.
    let (fd, time) = timed("10.1.0.2", &port, &with("10.1.0.1:5432"));
    let stream = check_data(fd.unwrap(), &listener);
    assert_eq!(stream.local_addr().unwrap(), list("10.1.0.1:5432")[0]);
    assert!(time > ms(2700) && time < ms(2990), "{time:?}");
    no_blackhole();
    no_rules(&hosts);
    let stream = check_data(timed("10.1.0.2", &port, &with("10.1.0.1:5433")).0.unwrap(), &listener);
    assert_eq!(stream.local_addr().unwrap(), list("10.1.0.1:5433")[0]);
    assert!(enabled(&stream).unwrap());

    for (text, errno) in [
        ("10.77.0.1:0", libc::EADDRNOTAVAIL),
        ("[fd01::1]:0", libc::EADDRNOTAVAIL),
        ("0.0.0.0:0", libc::EINVAL),
        ("224.0.0.1:0", libc::EADDRNOTAVAIL),
    ] {
        let error = timed("10.1.0.2", &port, &with(text)).0.unwrap_err();
        assert_eq!(error.errno(), errno, "{text}: {error}");
    }
    assert!(!waiting(&listener));
}

/// Answers by what the name says: NXDOMAIN, SERVFAIL, nothing, no such records,
/// or 10.1.0.2 and fd01::2. The question comes back as it was.
fn name_server() {
    let socket = UdpSocket::bind("127.0.0.1:53").unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((len, from)) = socket.recv_from(&mut buffer) {
            let question_end = 12 + buffer[12..len].iter().position(|b| *b == 0).unwrap() + 5;
            let (name, kind) = (&buffer[13..13 + buffer[12] as usize], buffer[question_end - 3]);
            if name == b"end" {
                return;
            }
            if name == b"silent" {
                continue;
            }
            let (code, records): (u8, &[u8]) = match (name, kind) {
                (b"servfail", _) => (2, &[]),
                (b"empty", _) => (0, &[]),
                (b"both", 1) => (0, &[10, 1, 0, 2]),
                (b"both", 28) => (0, &[0xfd, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]),
                _ => (3, &[]),
            };
            let mut reply = buffer[..question_end].to_vec();
            reply[2..12].copy_from_slice(&[
                0x81,
                0x80 | code,
                0,
                1,
                0,
                u8::from(!records.is_empty()),
                0,
                0,
                0,
                0,
            ]);
            if !records.is_empty() {
                reply.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 60, 0, records.len() as u8]);
                reply.extend(records);
            }
            socket.send_to(&reply, from).unwrap();
        }
    });
}

#[test]
fn what_the_resolver_says() {
    let hosts = Hosts::new(1);
    await_ipv6();
    let _names = names("10.1.0.2 known\n");
    let listener = listen(&hosts, "[::]:0", true);
    let port = port(&listener);
    let errno = |node: &str, service: &str| {
        let error = timed(node, service, &ByName::default()).0.unwrap_err();
        assert!(error.to_string().starts_with(node) || error.errno() == libc::EINVAL, "{error}");
        error.errno()
    };
    // Nobody serves names: for now.
    assert_eq!(errno("both.example", "80"), libc::EAGAIN);
    name_server();
    let stream = check_data(timed("both.example", &port, &ByName::default()).0.unwrap(), &listener);
    assert_eq!(stream.peer_addr().unwrap().to_string(), format!("[fd01::2]:{port}"));
    assert_eq!(errno("none.example", "80"), libc::ENOENT);
    assert_eq!(errno("empty.example", "80"), libc::ENOENT);
    assert_eq!(errno("servfail.example", "80"), libc::EAGAIN);
    assert_eq!(errno("silent.example", "80"), libc::EAGAIN);
    assert_eq!(errno("known", "no-such-service"), libc::EINVAL);
    assert_eq!(errno("", "80"), libc::ENOENT);
    // Without the locale of a name beyond ASCII it can't be encoded.
    assert_eq!(errno("b\u{fc}cher.example", "80"), libc::ENOENT);
    assert_eq!(timed("a\0b", "80", &ByName::default()).0.unwrap_err().errno(), libc::EINVAL);
    let (result, _) = timed("known", &port, &numeric());
    assert_eq!(result.unwrap_err().errno(), libc::ENOENT);
    UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .send_to(b"............\x03end\0\0\0\0\0", "127.0.0.1:53")
        .unwrap();
}
