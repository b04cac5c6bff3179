// SPDX-License-Identifier: MIT OR Apache-2.0
//! Many connections at once: what each costs, and that nothing is left of
//! those that are gone.

use super::*;

fn key(n: u64) -> Key {
    Key { cookie: 1000 + n, inode: 100_000 + n }
}

fn seen(n: u64, host: usize, initial: bool) -> Seen {
    Seen {
        local: addr::with_port(local(host), 1024 + (n % 60_000) as u16),
        remote: remote(0),
        local_id: host as u8,
        remote_id: 0,
        up: true,
        initial,
        backup: None,
    }
}

/// A client with a list of two and a subflow from each.
fn open(engine: &mut Engine, n: u64, now: Time) {
    let token = n as u32 + 1;
    engine.handle(Event::Binding { key: key(n), bound: None, device: None }, now);
    let entries = vec![local(0).into(), local(1).into()];
    engine.handle(Event::Request { id: n, key: key(n), request: Request::Add(entries) }, now);
    engine.handle(Event::Created { token, key: key(n), initial: seen(n, 0, true), server: false }, now);
    engine.handle(Event::Established { token }, now);
    while let Some(command) = engine.poll_command() {
        engine.handle(Event::Done { tag: command.tag, outcome: Outcome::Taken }, now);
    }
    engine.handle(Event::SubflowUp { token, subflow: seen(n, 1, false) }, now);
    while engine.poll_notification().is_some() {}
}

/// What one connection takes, with an allocator's own 16 bytes a block, timers
/// in a tree two thirds full and hash tables at their emptiest after growth.
fn footprint(c: &Connection) -> usize {
    fn block<T>(capacity: usize) -> usize {
        if capacity == 0 { 0 } else { 16 + capacity * size_of::<T>() }
    }
    let lists = block::<Entry>(c.entries.capacity())
        + block::<Subflow>(c.subflows.capacity())
        + block::<Peer>(c.peers.capacity())
        + block::<ids::Slot>(c.ids.iter().count())
        + block::<(SocketAddr, u8)>(c.announced.len())
        + block::<connection::Failure>(c.failures.len());
    let watch = c.watch.as_ref().map_or(0, |_| block::<watch::Watch>(1));
    let timer = size_of::<(Time, Handle)>() * 3 / 2;
    let table = |entry: usize| (entry + 1) * 16 / 7;
    let tables = table(size_of::<(Handle, Box<Connection>)>())
        + table(size_of::<(u32, Handle)>())
        + table(size_of::<(Key, Handle)>())
        + table(size_of::<(u64, Family)>());
    block::<Connection>(1) + lists + watch + timer + tables
}

#[test]
fn a_connection_takes_little_memory() {
    let mut engine = Engine::default();
    open(&mut engine, 0, Time::from_secs(1));
    let c = engine.by_key(&key(0)).unwrap();
    assert_eq!((c.entries.len(), c.subflows.iter().filter(|s| s.up()).count()), (2, 2));
    let bytes = footprint(c);
    eprintln!("{bytes} bytes, {} of them struct Connection", size_of::<Connection>());
    assert!(bytes < 1220, "{bytes} bytes");
}

#[test]
fn nothing_is_left_of_those_that_are_gone() {
    let mut engine = Engine::default();
    engine.keep_changes(true);
    let now = Time::from_secs(1);
    for n in 0..500 {
        open(&mut engine, n, now);
    }
    assert!(std::iter::from_fn(|| engine.poll_changed()).eq((0..500).map(key)));
    // One in two has a retry to wait for, one in five a command on its way.
    for n in (0..500).step_by(2) {
        let Seen { local, remote, .. } = seen(n, 1, false);
        engine.handle(Event::SubflowDown { token: n as u32 + 1, local, remote, error: 0 }, now);
    }
    assert!(engine.next_timeout().is_some_and(|due| due > now && due < now + note::RETRY_FIRST));
    assert_eq!(engine.timers.len(), 500);
    for n in (0..500).step_by(5) {
        let request = Request::Add(vec![local(2).into()]);
        engine.handle(Event::Request { id: 1000 + n, key: key(n), request }, now);
    }
    assert!(engine.knows_cookie(key(7).cookie) && !engine.knows_cookie(7));
    for n in 0..500 {
        engine.handle(Event::Closed { token: n as u32 + 1 }, now);
    }
    assert!(engine.poll_command().is_none());
    assert_eq!(std::iter::from_fn(|| engine.poll_notification()).count(), 100, "each request is answered");
    assert!(std::iter::from_fn(|| engine.poll_changed()).eq((0..500).map(key)));
    assert!(engine.connections.is_empty() && engine.by_token.is_empty() && engine.by_key.is_empty());
    assert!(engine.families.is_empty() && engine.timers.is_empty() && engine.outstanding.is_empty());
    assert_eq!((engine.waiting(), engine.next_timeout()), (0, None));
    assert!(!engine.knows_cookie(key(7).cookie));
}

#[test]
fn those_that_wait_are_counted() {
    let mut engine = Engine::default();
    let now = Time::from_secs(1);
    for n in 0..3 {
        engine.handle(Event::Binding { key: key(n), bound: None, device: None }, now);
    }
    assert_eq!(engine.waiting(), 3);
    engine.handle(Event::Forget { key: key(0) }, now);
    engine.handle(Event::Created { token: 9, key: key(1), initial: seen(1, 0, true), server: false }, now);
    assert_eq!(engine.waiting(), 1);
    engine.handle(Event::Closed { token: 9 }, now);
    assert_eq!(engine.waiting(), 1);
}

#[test]
fn what_is_heard_of_subflows_is_counted() {
    let mut engine = Engine::default();
    let now = Time::from_secs(1);
    open(&mut engine, 0, now);
    let mut last = engine.by_key(&key(0)).unwrap().heard;
    let mut told = |event, grows| {
        engine.handle(event, now);
        let heard = engine.by_key(&key(0)).unwrap().heard;
        assert_eq!(heard > last, grows);
        last = heard;
    };
    told(Event::Announced { token: 1, id: 3, addr: remote(2) }, false);
    told(Event::Established { token: 1 }, true);
    let Seen { local, remote, .. } = seen(0, 1, false);
    told(Event::SubflowDown { token: 1, local, remote, error: 0 }, true);
    told(Event::SubflowUp { token: 1, subflow: seen(0, 1, false) }, true);
}

#[test]
fn a_beginning_told_twice_makes_one_child() {
    let mut engine = Engine::default();
    let now = Time::from_secs(1);
    engine.handle(Event::Binding { key: KEY, bound: None, device: None }, now);
    let child = Key { cookie: KEY.cookie, inode: 0 };
    for _ in 0..2 {
        engine.handle(Event::Created { token: 9, key: child, initial: seen(0, 0, true), server: true }, now);
    }
    assert_eq!(engine.connections().count(), 2);
    // Another connection with the same token: the first one is over.
    engine.handle(Event::Created { token: 9, key: child, initial: seen(1, 0, true), server: true }, now);
    assert_eq!(engine.connections().count(), 2);
}
