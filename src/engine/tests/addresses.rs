// SPDX-License-Identifier: MIT OR Apache-2.0
//! Local addresses that can't be used for a while.

use super::*;

fn lose(world: &mut World, n: usize) {
    world.tell(Event::Unusable { addr: local(n).ip() });
    world.deliver();
}

fn regain(world: &mut World, n: usize) {
    world.tell(Event::Usable { addr: local(n).ip() });
    world.deliver();
}

fn established(listed: &[usize]) -> World {
    let mut world = World::new(listed);
    world.apply(&Op::Acknowledge);
    world.deliver();
    world
}

#[test]
fn a_subflow_from_a_lost_address_is_closed_and_comes_back_with_it() {
    let mut world = established(&[0, 1]);
    lose(&mut world, 1);
    assert_eq!(live(&mut world), [local(0)]);
    let told = world.log.iter().rev().nth(1);
    assert!(matches!(told, Some(Action::Remove { .. })), "the peer closes its end: {:?}", world.log);
    world.apply(&Op::Wait(4000));
    assert_eq!(live(&mut world), [local(0)], "it is not tried");
    regain(&mut world, 1);
    assert_eq!(live(&mut world), [local(0), local(1)]);
}

#[test]
fn the_last_subflow_stays_until_another_is_up() {
    let mut world = established(&[0, 1]);
    lose(&mut world, 1);
    world.log.clear();
    lose(&mut world, 0);
    assert_eq!(live(&mut world), [local(0)]);
    assert!(world.log.is_empty(), "{:?}", world.log);
    regain(&mut world, 1);
    assert_eq!(live(&mut world), [local(1)]);
    regain(&mut world, 0);
    assert_eq!(live(&mut world), [local(0), local(1)]);
}

#[test]
fn failures_of_a_lost_address_do_not_delay_its_comeback() {
    let mut world = established(&[0]);
    world.fate = Fate::Unreachable;
    world.apply(&Op::Add(vec![1], false));
    for _ in 0..4 {
        world.fate = Fate::Unreachable;
        world.apply(&Op::Wait(60_000));
    }
    lose(&mut world, 1);
    world.apply(&Op::Wait(1));
    regain(&mut world, 1);
    assert_eq!(live(&mut world), [local(0), local(1)]);
}

#[test]
fn an_unlisted_path_comes_back_too() {
    // No list: the connection is from routing's choice, 1 was added to it.
    let mut world = established(&[]);
    world.apply(&Op::Add(vec![1], false));
    world.deliver();
    lose(&mut world, 0);
    assert_eq!(live(&mut world), [local(1)]);
    regain(&mut world, 0);
    assert_eq!(live(&mut world), [local(0), local(1)]);
    // One that ended by itself while its address was lost, likewise.
    lose(&mut world, 1);
    lose(&mut world, 0);
    world.apply(&Op::Die(0));
    world.deliver();
    assert!(live(&mut world).is_empty());
    regain(&mut world, 0);
    assert_eq!(live(&mut world), [local(0)]);
}

#[test]
fn an_announced_address_is_taken_back_and_announced_again() {
    let mut engine = Engine::default();
    let now = Time::from_secs(1);
    let actions = |engine: &mut Engine| -> Vec<Action> {
        let mut all = Vec::new();
        while let Some(command) = engine.poll_command() {
            engine.handle(Event::Done { tag: command.tag, outcome: Outcome::Taken }, now);
            all.push(command.action);
        }
        all
    };
    let addrs = [addr::with_port(remote(0), 0), addr::with_port(remote(1), 0)];
    let entries = addrs.iter().map(|addr| (*addr).into()).collect();
    engine.handle(Event::Request { id: 1, key: KEY, request: Request::Add(entries) }, now);
    let up = |at: usize, id| Seen {
        local: remote(at),
        remote: addr::with_port(local(at), 40000),
        local_id: id,
        remote_id: 0,
        up: true,
        initial: at == 0,
        backup: None,
    };
    let key = Key { cookie: KEY.cookie, inode: 0 };
    engine.handle(Event::Created { token: 9, key, initial: up(0, 0), server: true }, now);
    assert!(actions(&mut engine).contains(&Action::Announce { local: addrs[1], id: 1 }));
    engine.handle(Event::SubflowUp { token: 9, subflow: up(1, 1) }, now);
    engine.handle(Event::Unusable { addr: addrs[1].ip() }, now);
    let destroy = Action::Destroy { local: remote(1), remote: addr::with_port(local(1), 40000) };
    assert_eq!(actions(&mut engine), [Action::Remove { id: 1 }, destroy]);
    engine.handle(Event::Usable { addr: addrs[1].ip() }, now);
    assert!(actions(&mut engine).contains(&Action::Announce { local: addrs[1], id: 1 }));
}

#[test]
fn what_is_remembered_of_lost_addresses_is_bounded() {
    let mut engine = Engine::default();
    for n in 0..10_000u32 {
        engine.handle(Event::Unusable { addr: std::net::Ipv4Addr::from(n).into() }, Time::ZERO);
    }
    assert!(engine.usable(&([0, 0, 0, 0], 0).into()) && !engine.usable(&([0, 0, 39, 15], 0).into()));
}
