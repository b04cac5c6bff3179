// SPDX-License-Identifier: MIT OR Apache-2.0
//! What fuzz/ found, each as short as it could be.

use super::*;

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
    world.table.insert(9, addr::with_port(local(1), 40000));
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
