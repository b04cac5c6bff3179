// SPDX-License-Identifier: MIT OR Apache-2.0
//! What happens to connections over real paths, as their events tell it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::{Hosts, run, until};
use mptcpapi::events::{self, ALL, About, CURRENT, Event, Next, Origin, What};
use mptcpapi::kernel::diag::Diag;
use mptcpapi::kernel::sockopt;
use mptcpapi::{
    Mode, PathPolicy, Setting, Usage, add, close_subflow, connect, connection_id, open_subflow, remove, set,
    socket, subflows,
};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// The tests share this process's backend, whose threads would do each other's
/// work: one at a time.
fn alone() -> std::sync::MutexGuard<'static, ()> {
    static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn v4(path: usize, host: usize) -> SocketAddr {
    format!("10.{path}.0.{host}:0").parse().unwrap()
}

fn ip(path: usize, host: usize) -> IpAddr {
    v4(path, host).ip()
}

fn listener(addr: SocketAddr) -> TcpListener {
    let socket = socket2::Socket::from(socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap());
    socket.bind(&addr.into()).unwrap();
    socket.listen(4096).unwrap();
    socket.into()
}

fn fresh() -> OwnedFd {
    socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap()
}

/// Whether it becomes readable within a time.
fn readable(fd: &OwnedFd, millis: u16) -> bool {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, millis).unwrap() == 1
}

/// The next event, within five seconds; whoever waits needs nothing but the
/// descriptor.
fn next(fd: &OwnedFd) -> Event {
    let end = Instant::now() + Duration::from_secs(5);
    while Instant::now() < end {
        match events::next(fd).unwrap() {
            Next::Event(event) => return event,
            Next::Nothing => drop(readable(fd, 1000)),
            Next::End => panic!("the end"),
        }
    }
    panic!("no event within 5 s");
}

/// The next event, which must be this.
fn expect(fd: &OwnedFd, what: What) -> Event {
    let event = next(fd);
    assert_eq!(event.what, what, "{event:?}");
    event
}

fn ends(event: &Event) -> (IpAddr, IpAddr) {
    let pair = event.subflow.unwrap();
    (pair.local.unwrap().ip(), pair.remote.ip())
}

/// Nothing more comes, and it ends within five seconds; nobody asks before it is
/// readable.
fn expect_end(fd: &OwnedFd) {
    let end = Instant::now() + Duration::from_secs(5);
    while Instant::now() < end {
        if !readable(fd, 1000) {
            continue;
        }
        match events::next(fd).unwrap() {
            Next::Event(event) => panic!("{event:?} in place of the end"),
            Next::Nothing => {}
            Next::End => return,
        }
    }
    panic!("no end within 5 s");
}

/// A peer on the second host that echoes what it is sent, and keeps its
/// listener if it is to; it goes on until told to end.
struct Peer {
    addr: SocketAddr,
    end: mpsc::Sender<()>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Peer {
    fn new(hosts: &Hosts, everywhere: bool, listens_on: bool) -> Self {
        let (tell, told) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        let thread = hosts.spawn(move || {
            let listener = listener(if everywhere { "0.0.0.0:0".parse().unwrap() } else { v4(1, 2) });
            tell.send(listener.local_addr().unwrap().port()).unwrap();
            let mut stream = listener.accept().unwrap().0;
            let kept = listens_on.then_some(listener);
            stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            let mut buffer = [0; 4096];
            while ended.try_recv().is_err() {
                match stream.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(n) => stream.write_all(&buffer[..n]).unwrap(),
                    Err(_) => {}
                }
            }
            drop(kept);
        });
        Self { addr: (ip(1, 2), told.recv().unwrap()).into(), end, thread: Some(thread) }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.end.send(());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Makes the connection fully established.
fn settle(stream: &mut TcpStream) {
    let mut byte = [1];
    stream.write_all(&byte).unwrap();
    stream.read_exact(&mut byte).unwrap();
}

#[test]
fn a_connection_tells_of_its_subflows() {
    let _alone = alone();
    let hosts = Hosts::new(3);
    hosts.there("ip mptcp endpoint add 10.3.0.2 id 9 dev s3 signal");
    let peer = Peer::new(&hosts, true, true);
    let client = fresh();
    let told = events::subscribe(About::Socket(client.as_fd()), ALL).unwrap();
    assert!(!readable(&told, 0));
    assert_eq!(events::next(&told), Ok(Next::Nothing));
    add(&client, vec![v4(1, 1)], Usage::default()).unwrap();
    let before = Instant::now();
    let id = connect(&client, &[peer.addr]).unwrap();
    let mut stream = TcpStream::from(client);

    let up = expect(&told, What::Up);
    assert_eq!((up.connection, up.origin, ends(&up)), (id, Origin::App, (ip(1, 1), ip(1, 2))));
    let pair = up.subflow.unwrap();
    assert!(pair.initial);
    assert_eq!((pair.local.unwrap(), pair.remote), (stream.local_addr().unwrap(), peer.addr));
    settle(&mut stream);
    let announced = expect(&told, What::PeerAddr);
    assert_eq!((announced.addr_id, announced.origin), (9, Origin::Peer));
    assert_eq!(announced.subflow.unwrap().remote.ip(), ip(3, 2));
    let joined = expect(&told, What::SubflowUp);
    assert_eq!((ends(&joined), joined.connection), ((ip(1, 1), ip(3, 2)), id));

    // One more, for backup; made a full one; taken back.
    let usage = Usage { backup: true, ..Usage::default() };
    add(&stream, vec![v4(2, 1)], usage).unwrap();
    let joined = expect(&told, What::SubflowUp);
    assert_eq!((joined.origin, ends(&joined).0), (Origin::App, ip(2, 1)));
    let pair = joined.subflow.unwrap();
    assert!(pair.priority_known && pair.backup && !pair.peer_backup && !pair.initial);
    assert!(
        subflows(&stream).unwrap().iter().any(|s| Some(s.local) == pair.local && s.remote == pair.remote)
    );
    add(&stream, vec![v4(2, 1)], Usage::default()).unwrap();
    let changed = expect(&told, What::Priority);
    assert_eq!((changed.origin, ends(&changed)), (Origin::App, ends(&joined)));
    assert!(!changed.subflow.unwrap().backup);
    remove(&stream, vec![v4(2, 1)]).unwrap();
    let closed = expect(&told, What::SubflowDown);
    assert_eq!((closed.origin, closed.error, ends(&closed)), (Origin::App, 0, ends(&joined)));

    // The peer takes its address back.
    hosts.there("ip mptcp endpoint delete id 9");
    let mut two = [next(&told), next(&told)];
    two.sort_by_key(|event| event.what.bit());
    assert_eq!((two[0].what, ends(&two[0])), (What::SubflowDown, (ip(1, 1), ip(3, 2))));
    assert_eq!((two[1].what, two[1].addr_id, two[1].origin), (What::PeerAddrGone, 9, Origin::Peer));
    assert_eq!(two[1].subflow.unwrap().remote.ip(), ip(3, 2));
    drop(stream);
    let down = expect(&told, What::Down);
    assert_eq!((down.connection, down.origin), (id, Origin::App));
    assert!(down.time <= Duration::from_secs(u64::MAX) && before.elapsed() < Duration::from_secs(20));
    for _ in 0..2 {
        assert!(readable(&told, 0));
        assert_eq!(events::next(&told), Ok(Next::End));
    }
}

#[test]
fn what_is_there_is_told_first() {
    let _alone = alone();
    let hosts = Hosts::new(2);
    let peer = Peer::new(&hosts, false, true);
    let client = fresh();
    add(&client, vec![v4(1, 1), v4(2, 1)], Usage::default()).unwrap();
    let id = connect(&client, &[peer.addr]).unwrap();
    let mut stream = TcpStream::from(client);
    settle(&mut stream);
    until("two subflows", || subflows(&stream).unwrap().len() == 2);
    for (about, name) in [(About::Socket(stream.as_fd()), "one"), (About::Process, "all")] {
        let told = events::subscribe(about, ALL | CURRENT).unwrap();
        assert!(readable(&told, 0), "{name}");
        let up = expect(&told, What::Up);
        assert_eq!((up.connection, ends(&up)), (id, (ip(1, 1), ip(1, 2))), "{name}");
        let joined = expect(&told, What::SubflowUp);
        assert_eq!((joined.connection, ends(&joined)), (id, (ip(2, 1), ip(1, 2))), "{name}");
        assert_eq!(events::next(&told), Ok(Next::Nothing), "{name}");
    }
    // Only what was asked for.
    let downs = events::subscribe(About::Socket(stream.as_fd()), What::SubflowDown.bit() | CURRENT).unwrap();
    assert_eq!(events::next(&downs), Ok(Next::Nothing));
    remove(&stream, vec![v4(2, 1)]).unwrap();
    assert_eq!(ends(&expect(&downs, What::SubflowDown)).0, ip(2, 1));
}

/// A connection whose list is its own address, and what is told of it from now
/// on.
fn begun(peer: &Peer) -> (OwnedFd, TcpStream) {
    let client = fresh();
    let told = events::subscribe(About::Socket(client.as_fd()), ALL).unwrap();
    add(&client, vec![v4(1, 1)], Usage::default()).unwrap();
    connect(&client, &[peer.addr]).unwrap();
    let mut stream = TcpStream::from(client);
    settle(&mut stream);
    expect(&told, What::Up);
    (told, stream)
}

#[test]
fn a_join_that_is_refused_is_told_of() {
    let _alone = alone();
    let hosts = Hosts::new(2);
    // Nobody listens any more: a join is reset.
    let peer = Peer::new(&hosts, false, false);
    let (told, stream) = begun(&peer);
    let port = format!(":{} ", peer.addr.port());
    until("nobody listens", || !hosts.there("ss -Hltn").contains(&port));
    add(&stream, vec![v4(2, 1)], Usage::default()).unwrap();
    let refused = expect(&told, What::SubflowDown);
    assert_eq!(
        (refused.error, refused.origin, ends(&refused).0),
        (libc::ECONNREFUSED, Origin::Peer, ip(2, 1))
    );
    let failed = expect(&told, What::RequestFailed);
    assert_eq!((failed.error, ends(&failed)), (libc::ECONNREFUSED, ends(&refused)));
    // It is tried again, by itself: the descriptor wakes whoever polls.
    let again = next(&told);
    assert_eq!((again.what, ends(&again).0), (What::SubflowDown, ip(2, 1)));
    assert!(again.time - refused.time > Duration::from_millis(900), "{:?}", again.time - refused.time);
}

#[test]
fn the_end_of_what_was_made_by_hand_is_told_of() {
    let _alone = alone();
    let hosts = Hosts::new(2);
    let peer = Peer::new(&hosts, true, true);
    let (told, stream) = begun(&peer);
    let manual = PathPolicy { mode: Mode::Manual, ..PathPolicy::default() };
    set(&stream, Setting::Policy(manual)).unwrap();
    let usage = Usage { advertise: false, ..Usage::default() };
    add(&stream, vec![v4(2, 1)], usage).unwrap();

    // Closed by a call.
    open_subflow(&stream, Some(v4(2, 1)), None, false, true).unwrap();
    let made = expect(&told, What::SubflowUp);
    let named = subflows(&stream).unwrap().into_iter().find(|s| s.local.ip() == ip(2, 1)).unwrap();
    close_subflow(&stream, &named).unwrap();
    let closed = expect(&told, What::SubflowDown);
    assert_eq!((closed.error, closed.origin, closed.subflow), (0, Origin::App, made.subflow));

    // Given up: nobody answers.
    hosts.there("ip route add blackhole 10.2.0.1");
    socket2::SockRef::from(&stream).set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let from: SocketAddr = "10.2.0.1:4711".parse().unwrap();
    let error = open_subflow(&stream, Some(from), None, false, true).unwrap_err();
    assert_eq!(error.errno(), libc::ETIMEDOUT, "{error}");
    let down = expect(&told, What::SubflowDown);
    assert_eq!((down.error, down.origin), (libc::ETIMEDOUT, Origin::Network));
    let pair = down.subflow.unwrap();
    assert_eq!((pair.local, pair.remote), (Some(from), peer.addr));

    // Taken back while it is tried.
    open_subflow(&stream, Some(from), None, false, false).unwrap();
    remove(&stream, vec![v4(2, 1)]).unwrap();
    let down = expect(&told, What::SubflowDown);
    assert_eq!((down.error, down.origin, ends(&down)), (0, Origin::App, (ip(2, 1), peer.addr.ip())));
}

#[test]
fn plain_tcp_is_told_of() {
    let _alone = alone();
    let hosts = Hosts::new(1);
    let (tell, told) = mpsc::channel();
    let server = hosts.spawn(move || {
        let listener = TcpListener::bind(v4(1, 2)).unwrap();
        tell.send(listener.local_addr().unwrap()).unwrap();
        listener.accept().unwrap()
    });
    let client = fresh();
    let evfd = events::subscribe(About::Socket(client.as_fd()), ALL).unwrap();
    assert_eq!(connect(&client, &[told.recv().unwrap()]), Ok(0));
    let fallback = expect(&evfd, What::Fallback);
    assert_eq!(ends(&fallback), (ip(1, 1), ip(1, 2)));
    assert_eq!(events::next(&evfd), Ok(Next::End));
    let refused = events::subscribe(About::Socket(client.as_fd()), ALL).map(drop);
    assert_eq!(refused.map_err(|e| e.errno()), Err(libc::EOPNOTSUPP));
    server.join().unwrap();
}

/// A listener's subscription: the accepted, and their joins, told by the peer.
#[test]
fn a_listener_tells_of_what_it_accepts() {
    let _alone = alone();
    let hosts = Hosts::new(2);
    let (tell, told) = mpsc::channel();
    let (go, gone) = mpsc::channel();
    let server = hosts.spawn(move || {
        let listener = listener(v4(1, 2));
        let waiting = listener.try_clone().unwrap();
        let addr = listener.local_addr().unwrap();
        tell.send(addr).unwrap();
        // One connection waits to be accepted when the subscription is made.
        gone.recv().unwrap();
        let evfd = events::subscribe(About::Socket(listener.as_fd()), ALL).unwrap();
        let (first, _) = waiting.accept().unwrap();
        let up = expect(&evfd, What::Up);
        assert_eq!(up.connection, connection_id(&first).unwrap());
        tell.send(addr).unwrap();
        let up = expect(&evfd, What::Up);
        let (mut second, _) = waiting.accept().unwrap();
        assert_eq!((up.connection, up.origin), (connection_id(&second).unwrap(), Origin::Peer));
        assert_eq!(ends(&up), (ip(1, 2), ip(1, 1)));
        settle(&mut second);
        let joined = expect(&evfd, What::SubflowUp);
        assert_eq!((joined.connection, joined.origin), (up.connection, Origin::Peer));
        assert_eq!(ends(&joined), (ip(1, 2), ip(2, 1)));
        assert!(joined.subflow.unwrap().peer_backup);
        tell.send(addr).unwrap();
        let changed = expect(&evfd, What::Priority);
        assert_eq!((changed.origin, ends(&changed)), (Origin::Peer, ends(&joined)));
        assert!(!changed.subflow.unwrap().peer_backup);
        drop((first, second));
        let downs = [expect(&evfd, What::Down), expect(&evfd, What::Down)];
        assert!(downs.iter().any(|down| down.connection == up.connection));
        drop((listener, waiting));
        until("the end", || events::next(&evfd) == Ok(Next::End));
        assert!(readable(&evfd, 0));
    });
    let addr = told.recv().unwrap();
    let first = fresh();
    connect(&first, &[addr]).unwrap();
    go.send(()).unwrap();
    told.recv().unwrap();
    let second = fresh();
    add(&second, vec![v4(1, 1)], Usage::default()).unwrap();
    connect(&second, &[addr]).unwrap();
    let mut stream = TcpStream::from(second);
    let mut byte = [0];
    stream.read_exact(&mut byte).unwrap();
    stream.write_all(&byte).unwrap();
    let evfd = events::subscribe(About::Socket(stream.as_fd()), ALL).unwrap();
    add(&stream, vec![v4(2, 1)], Usage { backup: true, ..Usage::default() }).unwrap();
    expect(&evfd, What::SubflowUp);
    told.recv().unwrap();
    add(&stream, vec![v4(2, 1)], Usage::default()).unwrap();
    server.join().unwrap();
}

/// Nothing tells when a socket is closed that has no connection of Multipath
/// TCP: it is looked for.
#[test]
fn a_socket_that_is_closed_ends_what_was_asked_about_it() {
    let _alone = alone();
    let hosts = Hosts::new(1);
    let (tell, told) = mpsc::channel();
    let server = hosts.spawn(move || {
        let plain = TcpListener::bind(v4(1, 2)).unwrap();
        let other = listener(v4(1, 2));
        tell.send((plain.local_addr().unwrap(), other.local_addr().unwrap())).unwrap();
        (plain.accept().unwrap(), other.accept().unwrap())
    });
    let (plain, other) = told.recv().unwrap();
    let about = |socket: &OwnedFd| events::subscribe(About::Socket(socket.as_fd()), ALL).unwrap();
    let nothing = |fd: &OwnedFd| assert_eq!(events::next(fd), Ok(Next::Nothing));
    let [waiting, fresh_one, listed, refused, fallen] = [0; 5].map(|_| fresh());
    let [waits, never, ours, failed, fell] = [&waiting, &fresh_one, &listed, &refused, &fallen].map(about);
    // Several ask the same.
    let again = about(&fallen);
    add(&listed, vec![v4(1, 1)], Usage::default()).unwrap();
    let nobody: SocketAddr = (ip(1, 2), 1).into();
    let connecting = socket2::SockRef::from(&refused).connect(&nobody.into());
    assert_eq!(connecting.map_err(|e| e.raw_os_error()), Err(Some(libc::ECONNREFUSED)));
    socket2::SockRef::from(&fallen).connect(&plain.into()).unwrap();
    let copy = fallen.try_clone().unwrap();
    drop((fresh_one, listed, refused, fallen));
    for fd in [&never, &ours, &failed] {
        expect_end(fd);
        assert!(readable(fd, 0) && events::next(fd) == Ok(Next::End));
    }
    nothing(&fell);
    drop(copy);
    expect_end(&fell);
    expect_end(&again);
    // One that was passed over is told of all the same.
    nothing(&waits);
    let id = connect(&waiting, &[other]).unwrap();
    assert_eq!(expect(&waits, What::Up).connection, id);
    drop(waiting);
    assert_eq!(expect(&waits, What::Down).connection, id);
    expect_end(&waits);
    server.join().unwrap();
}

/// It can end before anybody could see whose a connection was.
#[test]
fn a_connection_that_is_over_before_it_is_looked_at_is_not_passed_over() {
    let _alone = alone();
    let hosts = Hosts::new(1);
    let (tell, told) = mpsc::channel();
    let server = hosts.spawn(move || {
        let listener = listener(v4(1, 2));
        tell.send(listener.local_addr().unwrap()).unwrap();
        drop(listener.accept().unwrap());
    });
    let client = fresh();
    let evfd = events::subscribe(About::Socket(client.as_fd()), ALL).unwrap();
    socket2::SockRef::from(&client).connect(&told.recv().unwrap().into()).unwrap();
    // A question to the library would have it look.
    let id = sockopt::info(client.as_fd()).unwrap().token;
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    server.join().unwrap();
    until("the connection is gone", || matches!(Diag::open().unwrap().connection(id), Ok(None)));
    expect(&evfd, What::Overflow);
    expect_end(&evfd);
}

/// Of all that is known here, and of nothing else.
#[test]
fn everything_known_is_told_on_one_descriptor() {
    let _alone = alone();
    let hosts = Hosts::new(1);
    let (tell, told) = mpsc::channel();
    let server = hosts.spawn(move || {
        let listener = listener(v4(1, 2));
        tell.send(listener.local_addr().unwrap()).unwrap();
        let all: Vec<TcpStream> = (0..3).map(|_| listener.accept().unwrap().0).collect();
        for mut stream in all {
            let _ = stream.read(&mut [0]);
        }
    });
    let addr = told.recv().unwrap();
    let all = events::subscribe(About::Process, ALL).unwrap();
    let listed = fresh();
    add(&listed, vec![v4(1, 1)], Usage::default()).unwrap();
    let first = connect(&listed, &[addr]).unwrap();
    let second_socket = fresh();
    let second = connect(&second_socket, &[addr]).unwrap();
    // Connected behind the library's back: nobody made it known.
    let stranger = socket2::Socket::from(fresh());
    stranger.connect(&addr.into()).unwrap();
    let mut seen = vec![expect(&all, What::Up).connection, expect(&all, What::Up).connection];
    seen.sort_unstable();
    let mut known = vec![first, second];
    known.sort_unstable();
    assert_eq!(seen, known);
    drop((listed, second_socket, stranger));
    let mut seen = vec![expect(&all, What::Down).connection, expect(&all, What::Down).connection];
    seen.sort_unstable();
    assert_eq!(seen, known);
    assert_eq!(events::next(&all), Ok(Next::Nothing));
    server.join().unwrap();
}

/// An end that the kernel tells nobody of is found by looking.
#[test]
fn an_end_by_the_peer_is_found() {
    let _alone = alone();
    let hosts = Hosts::new(1);
    let (tell, told) = mpsc::channel();
    let server = hosts.spawn(move || {
        let listener = listener(v4(1, 2));
        tell.send(listener.local_addr().unwrap()).unwrap();
        let mut stream = listener.accept().unwrap().0;
        stream.read_exact(&mut [0]).unwrap();
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    });
    let client = fresh();
    let evfd = events::subscribe(About::Socket(client.as_fd()), ALL).unwrap();
    connect(&client, &[told.recv().unwrap()]).unwrap();
    expect(&evfd, What::Up);
    let mut stream = TcpStream::from(client);
    stream.write_all(&[1]).unwrap();
    server.join().unwrap();
    let mut last = next(&evfd);
    if last.what == What::SubflowDown {
        last = next(&evfd);
    }
    assert_eq!((last.what, last.origin), (What::Down, Origin::Unknown));
    assert_eq!(events::next(&evfd), Ok(Next::End));
}

#[test]
fn what_is_no_subscription_is_refused() {
    let _alone = alone();
    let hosts = Hosts::new(1);
    let errno = |fd: &dyn AsFd| events::next(fd.as_fd()).map_err(|e| e.errno());
    let client = fresh();
    let epoll = Epoll::new(EpollCreateFlags::empty()).unwrap();
    assert_eq!(errno(&client), Err(libc::EINVAL));
    assert_eq!(errno(&epoll.0), Err(libc::EINVAL));
    let told = events::subscribe(About::Process, ALL).unwrap();
    assert_eq!(errno(&epoll.0), Err(libc::EINVAL));
    assert_eq!(events::next(&told), Ok(Next::Nothing));
    // By another number of the same descriptor.
    let again = told.try_clone().unwrap();
    drop(told);
    assert_eq!(events::next(&again), Ok(Next::Nothing));
    let flaw = events::subscribe(About::Process, 1 << 29).map(drop);
    assert_eq!(flaw.map_err(|e| e.errno()), Err(libc::EINVAL));
    let tcp = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let flaw = events::subscribe(About::Socket(tcp.as_fd()), ALL).map(drop);
    assert_eq!(flaw.map_err(|e| e.errno()), Err(libc::EOPNOTSUPP));
    run("true");
    drop(hosts);
}

/// Every connection goes through the same five events, and has subscriptions
/// of its own, all on one epoll descriptor: each is told of once, in order, and
/// nobody is told of another's.
fn many(connections: usize, each: usize) {
    let hosts = Hosts::new(2);
    hosts.there("sysctl -qw net.core.somaxconn=16384");
    let (tell, told) = mpsc::channel();
    let (end, ended) = mpsc::channel();
    // The peer sends a byte to each, which makes it fully established.
    let server = hosts.spawn(move || {
        let listener = listener(v4(1, 2));
        listener.set_nonblocking(true).unwrap();
        tell.send(listener.local_addr().unwrap()).unwrap();
        let mut streams = Vec::new();
        while ended.try_recv().is_err() {
            while let Ok((stream, _)) = listener.accept() {
                (&stream).write_all(&[1]).unwrap();
                streams.push(stream);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let addr = told.recv().unwrap();
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
    let began = Instant::now();
    let mut sockets: Vec<(Option<OwnedFd>, u32)> = (0..connections).map(|_| (Some(fresh()), 0)).collect();
    let mut hearers: Vec<(OwnedFd, usize)> = Vec::new();
    for (socket, _) in &sockets {
        let socket = socket.as_ref().unwrap();
        add(socket, vec![v4(1, 1)], Usage::default()).unwrap();
        for _ in 0..each {
            let told = events::subscribe(About::Socket(socket.as_fd()), ALL).unwrap();
            epoll.add(&told, EpollEvent::new(EpollFlags::EPOLLIN, hearers.len() as u64)).unwrap();
            hearers.push((told, 0));
        }
    }
    let subscribed = began.elapsed();
    let expected = [What::Up, What::SubflowUp, What::Priority, What::SubflowDown, What::Down];
    let (mut begun, mut done, mut wakes, mut calls) = (0, 0, 0u64, 0u64);
    let mut ready = vec![EpollEvent::empty(); 64];
    while done < hearers.len() {
        while begun < connections && begun - done / each < 500 {
            let (socket, id) = &mut sockets[begun];
            *id = connect(socket.as_ref().unwrap(), &[addr]).unwrap();
            begun += 1;
        }
        let n = epoll.wait(&mut ready, 5000u16).unwrap();
        assert!(n > 0, "nothing for 5 s; {done} of {} done", hearers.len());
        wakes += 1;
        for at in ready[..n].iter().map(|event| event.data() as usize) {
            let (told, step) = &mut hearers[at];
            let (socket, id) = &mut sockets[at / each];
            calls += 1;
            loop {
                let event = match events::next(&*told).unwrap() {
                    Next::Nothing => break,
                    Next::End => {
                        assert_eq!(*step, expected.len());
                        epoll.delete(&*told).unwrap();
                        done += 1;
                        break;
                    }
                    Next::Event(event) => event,
                };
                assert_eq!((Some(&event.what), event.connection), (expected.get(*step), *id), "{event:?}");
                *step += 1;
                // The first of the connection's goes on with it.
                if at % each != 0 {
                    continue;
                }
                let socket_now = || socket.as_ref().unwrap();
                let (path, backup) = (vec![v4(2, 1)], Usage { backup: true, ..Usage::default() });
                match event.what {
                    What::Up => add(socket_now(), path, backup).unwrap(),
                    What::SubflowUp => add(socket_now(), path, Usage::default()).unwrap(),
                    What::Priority => remove(socket_now(), path).unwrap(),
                    What::SubflowDown => *socket = None,
                    _ => {}
                }
            }
        }
    }
    println!(
        "{} subscriptions in {subscribed:.2?}, {} events in {:.2?}: {wakes} wakes, {calls} descriptors",
        hearers.len(),
        hearers.len() * expected.len(),
        began.elapsed() - subscribed
    );
    end.send(()).unwrap();
    server.join().unwrap();
}

/// SUBSCRIPTIONS=10000 takes half a minute.
#[test]
fn hundreds_hear_of_their_own() {
    let _alone = alone();
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    match std::env::var("SUBSCRIPTIONS").ok().and_then(|count| count.parse::<usize>().ok()) {
        Some(count) => many(count.div_ceil(4), 4),
        None => many(150, 2),
    }
}
