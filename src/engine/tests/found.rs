// SPDX-License-Identifier: MIT OR Apache-2.0
//! What fuzz/ found, each as short as it could be.

use super::*;

/// An engine that has found a connection, of which no subflow is seen.
fn found(now: Time, server: bool) -> Engine {
    let mut engine = Engine::default();
    let initial = (addr::with_port(local(0), 40000), remote(0));
    let event = Event::Snapshot { token: TOKEN, key: KEY, server, initial, ready: true, subflows: vec![] };
    engine.handle(event, now);
    engine
}

#[test]
fn a_list_of_an_unconnected_socket_is_said_to_have_changed() {
    let mut world = World { engine: Engine::default(), ..World::new(&[]) };
    world.engine.keep_changes(true);
    world.tell(Event::Binding { key: KEY, bound: None, device: None });
    assert_eq!(world.engine.poll_changed(), Some(KEY));
    world.request(Request::Add(vec![local(0).into(), local(1).into()]));
    assert_eq!(world.engine.poll_changed(), Some(KEY));
    world.request(Request::Remove { addrs: vec![local(0)], patience: Time::ZERO });
    assert_eq!(world.engine.poll_changed(), Some(KEY));
}

#[test]
fn a_port_that_was_removed_is_not_used_again_for_its_address() {
    let mut world = World::new(&[0, 1]);
    world.apply(&Op::Acknowledge);
    world.deliver();
    let removed = addr::with_port(local(1), 40000);
    assert!(world.subflows.iter().any(|s| s.local == removed));
    world.request(Request::Remove { addrs: vec![removed], patience: Time::ZERO });
    world.log.clear();
    world.deliver();
    world.apply(&Op::Wait(1100));
    world.deliver();
    assert_eq!(live(&mut world), [local(0), local(1)]);
    let again = |a: &Action| matches!(a, Action::Create { local, .. } if *local == removed);
    assert!(!world.log.iter().any(again), "{:?}", world.log);
}

#[test]
fn an_id_that_was_given_up_is_restored_as_it_was() {
    let mut world = World::new(&[0, 1]);
    // The kernel has the address under an id of its own.
    world.table.append(9, addr::with_port(local(1), 40000));
    world.apply(&Op::Acknowledge);
    world.deliver();
    let saved = world.engine.save(&KEY).unwrap();
    assert!(saved.ids.iter().any(|slot| slot.addr.ip().is_unspecified()), "{saved:?}");
    let mut after = Engine::default();
    after.handle(Event::Restore(Box::new(saved.clone())), world.now);
    assert_eq!(after.save(&KEY), Some(saved));
}

#[test]
fn all_that_is_leaving_is_restored() {
    let mut world = World::new(&[]);
    for net in 0..3 {
        let addrs = (0..addr::LIST_MAX as u8).map(|n| ([10, 50, net, n], 0).into()).collect();
        world.request(Request::Remove { addrs, patience: Time::ZERO });
    }
    let saved = world.engine.save(&KEY).unwrap();
    assert_eq!(saved.leaving.len(), 3 * addr::LIST_MAX);
    let mut after = Engine::default();
    after.handle(Event::Restore(Box::new(saved.clone())), world.now);
    assert_eq!(after.save(&KEY), Some(saved));
}

#[test]
fn a_route_that_comes_too_late_is_not_taken() {
    for outcome in [Outcome::NotOurs, Outcome::NotReady] {
        let mut engine = Engine::default();
        let now = Time::from_secs(1);
        let initial = (addr::with_port(local(0), 40000), remote(0));
        let event =
            Event::Snapshot { token: TOKEN, key: KEY, server: false, initial, ready: true, subflows: vec![] };
        engine.handle(event, now);
        let route = engine.poll_command().unwrap();
        assert!(matches!(route.action, Action::Route { .. }));
        let request = Request::Add(vec![local(1).into()]);
        engine.handle(Event::Request { id: 1, key: KEY, request }, now);
        let create = engine.poll_command().unwrap();
        engine.handle(Event::Done { tag: create.tag, outcome }, now);
        engine.handle(Event::Routed { tag: route.tag, local: Some(local(0)) }, now);
        assert_eq!(engine.poll_command(), None, "{outcome:?}");
    }
}

#[test]
fn endpoints_that_go_after_a_restart_wait_for_the_look() {
    let endpoint = Endpoint {
        id: 6,
        addr: local(3),
        ifindex: 0,
        signal: true,
        subflow: false,
        backup: false,
        fullmesh: false,
        laminar: false,
        implicit: false,
    };
    let limits = Limits { subflows: 2, add_addr_accepted: 2 };
    let now = Time::from_secs(1);
    let initial = (addr::with_port(local(0), 40000), remote(0));
    let saved = Saved {
        key: KEY,
        token: Some(TOKEN),
        initial: Some(initial),
        ids: vec![ids::Slot { id: 6, addr: local(3), port: 0 }],
        announced: vec![(local(3), 6)],
        unclaimed: true,
        ..Saved::default()
    };
    let mut engine = Engine::default();
    engine.handle(Event::Endpoints { endpoints: vec![endpoint], limits, serve: true }, now);
    engine.handle(Event::Restore(Box::new(saved)), now);
    engine.handle(Event::Endpoints { endpoints: Vec::new(), limits, serve: true }, now);
    assert_eq!(engine.poll_command(), None);
    let event =
        Event::Snapshot { token: TOKEN, key: KEY, server: false, initial, ready: true, subflows: vec![] };
    engine.handle(event, now);
    assert_eq!(engine.poll_command().map(|c| c.action), Some(Action::Remove { id: 6 }));
}

#[test]
fn a_claim_is_said_to_have_changed_whatever_is_answered() {
    let mut engine = Engine::default();
    let now = Time::from_secs(1);
    let saved = Saved { key: KEY, unclaimed: true, foreign: true, ..Saved::default() };
    engine.handle(Event::Restore(Box::new(saved)), now);
    engine.keep_changes(true);
    let request = Request::Add(vec![local(1).into()]);
    engine.handle(Event::Request { id: 1, key: KEY, request }, now);
    assert!(matches!(engine.poll_notification(), Some(Notice::Answer { result: Err(_), .. })));
    assert!(engine.save(&KEY).is_some_and(|saved| !saved.unclaimed));
    assert_eq!(engine.poll_changed(), Some(KEY));
}

#[test]
fn a_peer_that_announces_its_initial_address_can_not_take_it_back() {
    let mut world = World::new(&[0]);
    for n in [1, 0, 2, 0] {
        world.tell(Event::Announced { token: TOKEN, id: 4, addr: remote(n) });
    }
    world.tell(Event::Withdrawn { token: TOKEN, id: 4 });
    let peers = &world.engine.by_key(&KEY).unwrap().peers;
    assert_eq!(peers, &[Peer { id: Some(0), addr: remote(0) }]);
}

#[test]
fn ids_that_the_kernel_has_for_others_are_not_tried_for_ever() {
    let now = Time::from_secs(1);
    let mut engine = found(now, true);
    let list: Vec<Entry> = (1..=addr::LIST_MAX).map(|n| local(n).into()).collect();
    engine.handle(Event::Request { id: 1, key: KEY, request: Request::Add(list) }, now);
    let mut tries = 0;
    while let Some(Command { tag, action, .. }) = engine.poll_command() {
        let outcome = match action {
            Action::Announce { .. } => Outcome::Mismatch,
            _ => Outcome::Taken,
        };
        tries += usize::from(outcome == Outcome::Mismatch);
        assert!(tries <= 10 * addr::LIST_MAX, "at once");
        engine.handle(Event::Done { tag, outcome }, now);
    }
    assert!(matches!(engine.poll_notification(), Some(Notice::Answer { id: 1, result: Ok(()) })));
}

#[test]
fn an_address_with_an_unknown_id_is_not_tried_with_every_address_of_the_peer() {
    let now = Time::from_secs(1);
    let mut engine = found(now, false);
    engine.handle(Event::PeerAddresses { key: KEY, addrs: (1..addr::LIST_MAX).map(remote).collect() }, now);
    for listed in [0, addr::LIST_MAX] {
        let list: Vec<Entry> = (1..=listed).map(|n| local(n).into()).collect();
        engine.handle(Event::Request { id: 1, key: KEY, request: Request::Add(list) }, now);
        let mut tries = 0;
        while let Some(Command { tag, action, .. }) = engine.poll_command() {
            tries += 1;
            assert!(tries <= 10 * addr::LIST_MAX, "at once");
            let event = match action {
                Action::Route { .. } => Event::Routed { tag, local: Some(local(0)) },
                _ => Event::Done { tag, outcome: Outcome::Mismatch },
            };
            engine.handle(event, now);
        }
    }
}

#[test]
fn an_address_of_the_peer_is_known_once() {
    let mut world = World::new(&[]);
    world.tell(Event::PeerAddresses { key: KEY, addrs: vec![remote(3)] });
    for (id, n) in [(3, 1), (4, 2), (5, 3), (4, 1), (5, 3)] {
        world.tell(Event::Announced { token: TOKEN, id, addr: remote(n) });
    }
    let peer = |id, n| Peer { id: Some(id), addr: remote(n) };
    let peers = &world.engine.by_key(&KEY).unwrap().peers;
    assert_eq!(peers, &[peer(0, 0), peer(5, 3), peer(4, 1)]);
}

#[test]
fn an_endpoint_that_is_read_twice_is_announced_once() {
    let endpoint = Endpoint {
        id: 6,
        addr: local(3),
        ifindex: 0,
        signal: true,
        subflow: false,
        backup: false,
        fullmesh: false,
        laminar: false,
        implicit: false,
    };
    let mut engine = Engine::default();
    let now = Time::from_secs(1);
    let endpoints = vec![endpoint, Endpoint { id: 7, ..endpoint }];
    engine.handle(Event::Endpoints { endpoints, limits: Limits::default(), serve: true }, now);
    let initial = Kernel { local: local(0), remote: remote(0), id: 0, up: true, initial: true };
    engine.handle(Event::Created { token: TOKEN, key: KEY, initial: seen_of(&initial), server: true }, now);
    assert_eq!(engine.save(&KEY).unwrap().announced, [(local(3), 6)]);
}

#[test]
fn a_subflow_by_hand_from_anywhere_is_restored_as_one_from_any_of_the_list() {
    let mut world = World::new(&[0, 1]);
    let anywhere = Some(([0, 0, 0, 0], 80).into());
    world.request(Request::Open { local: anywhere, remote: None, backup: false, wait: None });
    let saved = world.engine.save(&KEY).unwrap();
    assert_eq!(saved.wishes.opens, [(([0, 0, 0, 0], 0).into(), remote(0), false)]);
}

#[test]
fn joins_of_one_name_are_made_one_after_the_other() {
    let mut world = World::new(&[0]);
    world.apply(&Op::Acknowledge);
    world.deliver();
    let open = Request::Open { local: Some(local(0)), remote: None, backup: false, wait: None };
    world.request(open.clone());
    world.request(open);
    let joins = |world: &World| world.log.iter().filter(|a| matches!(a, Action::Create { .. })).count();
    assert_eq!(joins(&world), 1, "what comes up could be either");
    world.deliver();
    assert_eq!((joins(&world), world.subflows.len()), (2, 3));
}

#[test]
fn a_join_whose_end_is_not_heard_is_none_of_another_port() {
    let mut world = World::new(&[0]);
    world.apply(&Op::Acknowledge);
    world.deliver();
    world.apply(&Op::Next(Fate::Refuse));
    world.request(Request::Open { local: Some(local(0)), remote: None, backup: false, wait: None });
    world.apply(&Op::Lose);
    world.resynchronise();
    assert_eq!(world.engine.by_key(&KEY).unwrap().subflows.len(), 1);
}

#[test]
fn a_join_by_hand_waits_for_one_of_the_same_port() {
    let now = Time::from_secs(1);
    let mut engine = Engine::default();
    engine.handle(Event::Binding { key: KEY, bound: None, device: None }, now);
    engine.handle(Event::Request { id: 1, key: KEY, request: Request::Add(vec![local(1).into()]) }, now);
    let at = addr::with_port(local(0), 40000);
    let initial = Kernel { local: at, remote: remote(0), id: 0, up: true, initial: true };
    engine.handle(Event::Created { token: TOKEN, key: KEY, initial: seen_of(&initial), server: false }, now);
    engine.handle(Event::Established { token: TOKEN }, now);
    let open = Request::Open { local: Some(local(1)), remote: None, backup: false, wait: None };
    engine.handle(Event::Request { id: 2, key: KEY, request: open }, now);
    let joins = |engine: &mut Engine| {
        let all = std::iter::from_fn(|| engine.poll_command());
        all.filter(|c| matches!(c.action, Action::Create { .. })).map(|c| c.tag).collect::<Vec<_>>()
    };
    let first = joins(&mut engine);
    assert_eq!(first.len(), 1, "by the list");
    engine.handle(Event::Done { tag: first[0], outcome: Outcome::Taken }, now);
    assert_eq!(joins(&mut engine).len(), 1, "by hand");
}

#[test]
fn what_has_a_list_is_not_restored_as_unclaimed() {
    let mut engine = Engine::default();
    let saved = Saved { key: KEY, listed: true, unclaimed: true, ..Saved::default() };
    engine.handle(Event::Restore(Box::new(saved.clone())), Time::from_secs(1));
    assert_eq!(engine.save(&KEY), Some(Saved { unclaimed: false, ..saved }));
}

#[test]
fn requests_that_wait_for_the_same_commands_take_no_more_room_each_time() {
    let now = Time::from_secs(1);
    let mut engine = found(now, false);
    let list: Vec<Entry> = (1..41).map(|n| local(n).into()).collect();
    for id in 0..40 {
        engine.handle(Event::Request { id, key: KEY, request: Request::Add(list.clone()) }, now);
    }
    let additions = &engine.by_key(&KEY).unwrap().additions;
    assert_eq!(additions.len(), 40);
    assert!(additions.iter().all(|addition| addition.commands.capacity() <= 128));
}
