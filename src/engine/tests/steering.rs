// SPDX-License-Identifier: MIT OR Apache-2.0
//! Settings and subflows by hand, one by one.

use super::*;

fn policy(mode: Mode, after_ms: u32, after_bytes: u64) -> Request {
    Request::Set(Setting::Policy(PathPolicy { mode, after_ms, after_bytes }))
}

fn open(from: usize) -> Request {
    Request::Open { local: Some(local(from)), remote: None, backup: false, wait: None }
}

/// A connection from address 0 whose list is all three, established.
fn world(settings: &[Request]) -> World {
    let mut world = World::new(&[0, 1, 2]);
    settings.iter().for_each(|setting| world.request(setting.clone()));
    world.apply(&Op::Acknowledge);
    world.deliver();
    world
}

fn joins(world: &World) -> usize {
    world.log.iter().filter(|action| matches!(action, Action::Create { .. })).count()
}

fn pair(world: &World, n: usize) -> (SocketAddr, SocketAddr) {
    let found = world.subflows.iter().find(|s| addr::same_ip(&s.local, &local(n))).unwrap();
    (addr::canonical(found.local), found.remote)
}

#[test]
fn a_greater_number_opens_and_a_lower_one_closes_but_never_the_last() {
    let most = |n| Request::Set(Setting::MaxSubflows(n));
    let mut world = world(&[most(1)]);
    assert_eq!(joins(&world), 0);
    world.request(most(2));
    world.deliver();
    assert_eq!(live(&mut world), [local(0), local(1)]);
    world.request(most(0));
    world.deliver();
    assert_eq!(live(&mut world).len(), 3);
    world.apply(&Op::Add(vec![1], true));
    world.request(most(2));
    world.deliver();
    assert_eq!(live(&mut world), [local(0), local(2)], "backup goes first");
    world.request(most(1));
    world.deliver();
    assert_eq!(live(&mut world), [local(0)], "then the newest");
    world.request(Request::Remove { addrs: vec![local(0)], patience: Time::ZERO });
    world.deliver();
    assert_eq!(live(&mut world).len(), 1, "what is left does as well");
}

#[test]
fn nothing_is_made_by_itself_where_all_is_by_hand() {
    let mut world = world(&[policy(Mode::Manual, 0, 0)]);
    world.apply(&Op::Announce(2));
    world.deliver();
    world.apply(&Op::Wait(100_000));
    assert_eq!(joins(&world), 0);
    world.request(open(2));
    world.deliver();
    assert_eq!(live(&mut world), [local(0), local(2)]);
    world.request(policy(Mode::Eager, 0, 0));
    world.deliver();
    assert_eq!(live(&mut world).len(), 3);
}

#[test]
fn on_demand_is_after_some_time() {
    let mut world = world(&[policy(Mode::OnDemand, 700, 0)]);
    assert_eq!(joins(&world), 0);
    assert!(world.engine.next_timeout().is_some_and(|due| due <= world.now + Time::from_millis(700)));
    world.apply(&Op::Wait(699));
    assert_eq!(joins(&world), 0);
    world.apply(&Op::Wait(1));
    assert_eq!(joins(&world), 2);
}

#[test]
fn without_any_subflow_there_is_no_waiting_for_demand() {
    let mut world = world(&[policy(Mode::OnDemand, 0, 1 << 30)]);
    world.close(0);
    world.deliver();
    world.apply(&Op::Wait(2_000));
    world.deliver();
    assert_eq!(live(&mut world).len(), 1);
}

#[test]
fn an_open_waits_until_it_can_be_made_and_is_told_once() {
    let mut world = World::new(&[0, 1]);
    world.request(policy(Mode::Manual, 0, 0));
    let request =
        Request::Open { local: Some(local(1)), remote: None, backup: true, wait: Some(Time::from_secs(5)) };
    world.request(request);
    let id = world.requests;
    assert!(!world.answered.contains_key(&id));
    world.apply(&Op::Acknowledge);
    world.deliver();
    assert_eq!(world.answered.get(&id), Some(&Ok(())));
    let c = world.engine.by_key(&KEY).unwrap();
    let made = c.subflows.iter().find(|s| addr::same_ip(&s.local, &local(1))).unwrap();
    assert!(made.backup && c.pinned(made) == Some(true));
}

#[test]
fn an_open_that_fails_says_why_and_is_not_tried_again() {
    let cases = [
        (Fate::Refuse, 0, libc::ECONNREFUSED, "from 10.2.0.1 to 10.9.0.1:80: the peer, or"),
        (Fate::Unreachable, 0, libc::ENETUNREACH, "from 10.2.0.1 to 10.9.0.1:80: there is no way"),
        (Fate::PortTaken, 0, 0, ""),
        (Fate::PortForbidden, 0, 0, ""),
        (Fate::PortTaken, 700, libc::EADDRINUSE, "from 10.2.0.1:700 to 10.9.0.1:80: the local port is taken"),
        (
            Fate::PortForbidden,
            700,
            libc::EACCES,
            "from 10.2.0.1:700 to 10.9.0.1:80: the local port needs CAP_",
        ),
    ];
    for (fate, port, errno, words) in cases {
        let mut world = world(&[policy(Mode::Manual, 0, 0)]);
        world.apply(&Op::Next(fate));
        let wait = Some(Time::from_secs(5));
        let from = Some(addr::with_port(local(1), port));
        world.request(Request::Open { local: from, remote: None, backup: false, wait });
        world.deliver();
        let answer = &world.answered[&world.requests];
        assert_eq!(answer.as_ref().map_or_else(Error::errno, |()| 0), errno, "{fate:?}");
        let said = answer.as_ref().map_or_else(Error::to_string, |()| String::new());
        assert!(said.contains(words), "{fate:?}: {said}");
        let before = joins(&world);
        world.apply(&Op::Wait(100_000));
        assert_eq!(joins(&world), before, "{fate:?}");
    }
}

#[test]
fn an_open_that_nobody_answers_ends_in_time_and_leaves_nothing() {
    let mut world = World::new(&[0, 1]);
    world.request(policy(Mode::Manual, 0, 0));
    let wait = Some(Time::from_secs(1));
    world.request(Request::Open { local: None, remote: None, backup: false, wait });
    world.apply(&Op::Wait(1_000));
    let answer = &world.answered[&world.requests];
    assert_eq!(answer.as_ref().map_err(Error::errno), Err(libc::ETIMEDOUT));
    world.apply(&Op::Acknowledge);
    world.deliver();
    assert_eq!(joins(&world), 0);
}

#[test]
fn what_can_not_be_opened_is_refused_at_once() {
    let mut world = world(&[policy(Mode::Manual, 0, 0), Request::Set(Setting::MaxSubflows(2))]);
    let refused = |world: &mut World, local: Option<SocketAddr>, remote: Option<SocketAddr>| {
        world.request(Request::Open { local, remote, backup: false, wait: None });
        world.answered[&world.requests].as_ref().map_or_else(Error::errno, |()| 0)
    };
    assert_eq!(refused(&mut world, Some(local(3)), None), libc::EADDRNOTAVAIL, "not in the list");
    let six: SocketAddr = "[fd00::1]:0".parse().unwrap();
    assert_eq!(refused(&mut world, Some(local(1)), Some(six)), libc::EAFNOSUPPORT);
    assert_eq!(refused(&mut world, None, Some(six)), libc::EADDRNOTAVAIL, "no address of that family");
    assert_eq!(refused(&mut world, None, None), 0);
    assert_eq!(refused(&mut world, None, None), libc::ENOSPC);
    assert!(world.subflows.len() == 2);
}

#[test]
fn what_is_closed_by_hand_stays_closed_until_it_is_asked_for() {
    let mut world = world(&[]);
    let (from, to) = pair(&world, 1);
    world.request(Request::Close { local: from, remote: to });
    world.deliver();
    assert_eq!(live(&mut world), [local(0), local(2)]);
    world.request(Request::Close { local: from, remote: to });
    let answer = &world.answered[&world.requests];
    assert_eq!(answer.as_ref().map_err(Error::errno), Err(libc::ENOENT));
    world.apply(&Op::Wait(100_000));
    world.resynchronise();
    world.deliver();
    assert_eq!(live(&mut world), [local(0), local(2)]);
    world.request(open(1));
    world.deliver();
    assert_eq!(live(&mut world).len(), 3);
    let (from, to) = pair(&world, 1);
    world.request(Request::Close { local: from, remote: to });
    world.deliver();
    world.apply(&Op::Add(vec![1], false));
    world.deliver();
    assert_eq!(live(&mut world).len(), 3);
}

#[test]
fn a_priority_set_by_hand_ends_with_its_subflow() {
    let mut world = world(&[]);
    let (from, to) = pair(&world, 1);
    world.request(Request::Pin { local: from, remote: to, backup: true });
    world.deliver();
    let backup = |world: &World, n| {
        let c = world.engine.by_key(&KEY).unwrap();
        c.subflows.iter().find(|s| addr::same_ip(&s.local, &local(n))).map(|s| s.backup)
    };
    assert!(world.log.contains(&Action::SetBackup { local: from, remote: to, backup: true }));
    assert_eq!(backup(&world, 1), Some(true));
    let at = world.subflows.iter().position(|s| s.local == from).unwrap();
    world.close(at);
    world.deliver();
    world.apply(&Op::Wait(2_000));
    world.deliver();
    assert_eq!(backup(&world, 1), Some(false));
    world.request(Request::Pin { local: from, remote: remote(3), backup: true });
    let answer = &world.answered[&world.requests];
    assert_eq!(answer.as_ref().map_err(Error::errno), Err(libc::ENOENT));
}

#[test]
fn a_connection_that_shares_the_fate_of_its_initial_subflow_ends_with_it() {
    let mut world = world(&[Request::Set(Setting::FateSharing(true))]);
    assert_eq!(live(&mut world).len(), 3);
    world.tell(Event::Unusable { addr: local(0).ip() });
    assert!(!world.log.iter().any(|a| matches!(a, Action::Destroy { .. })), "we end it not by ourselves");
    world.tell(Event::Usable { addr: local(0).ip() });
    let initial = world.subflows.iter().position(|s| s.initial).unwrap();
    world.close(initial);
    world.deliver();
    assert!(world.subflows.is_empty());
    assert_eq!(world.log.last(), Some(&Action::End));
    world.apply(&Op::Wait(100_000));
    assert!(world.subflows.is_empty());
    world.request(open(1));
    let answer = &world.answered[&world.requests];
    assert_eq!(answer.as_ref().map_err(Error::errno), Err(libc::ENOTCONN));
}

#[test]
fn without_fate_sharing_it_goes_on_and_can_share_none_any_more() {
    let mut world = world(&[]);
    let initial = world.subflows.iter().position(|s| s.initial).unwrap();
    world.close(initial);
    world.deliver();
    world.request(Request::Set(Setting::FateSharing(true)));
    let answer = &world.answered[&world.requests];
    assert_eq!(answer.as_ref().map_err(Error::errno), Err(libc::ENOENT));
    assert!(!world.engine.by_key(&KEY).unwrap().shares_fate());
    assert_eq!(world.subflows.len(), 2);
}

#[test]
fn the_administrators_word_counts_where_the_application_says_nothing() {
    let mut engine = Engine::default();
    engine.handle(Event::FateSharing { key: KEY, on: true }, Time::ZERO);
    assert!(engine.by_key(&KEY).unwrap().shares_fate());
    let request = Request::Set(Setting::FateSharing(false));
    engine.handle(Event::Request { id: 1, key: KEY, request }, Time::ZERO);
    assert!(!engine.by_key(&KEY).unwrap().shares_fate());
}

#[test]
fn accepted_connections_have_their_listeners_settings() {
    let mut engine = Engine::default();
    engine.handle(Event::Binding { key: KEY, bound: None, device: None }, Time::ZERO);
    let request = Request::Set(Setting::Profile(Profile::Handover));
    engine.handle(Event::Request { id: 1, key: KEY, request }, Time::ZERO);
    let initial = Seen {
        local: remote(0),
        remote: local(0),
        local_id: 0,
        remote_id: 0,
        up: true,
        initial: true,
        backup: None,
    };
    let key = Key { inode: 0, ..KEY };
    engine.handle(Event::Created { token: 9, key, initial, server: true }, Time::ZERO);
    assert_eq!(engine.by_token(9).unwrap().settings().profile, Profile::Handover);
}
