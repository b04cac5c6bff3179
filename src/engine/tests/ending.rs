// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connections that are left without subflows, and commands that are refused.

use super::*;

fn established(listed: &[usize]) -> World {
    let mut world = World::new(listed);
    world.apply(&Op::Acknowledge);
    world.deliver();
    world
}

/// Every join fails from here on; all subflows end.
fn cut(world: &mut World) {
    world.subflows.clear();
    world.resynchronise();
    world.fate = Fate::Unreachable;
}

fn pass(world: &mut World, seconds: u64) {
    for _ in 0..seconds {
        world.fate = Fate::Unreachable;
        world.apply(&Op::Wait(1000));
    }
}

fn ends(world: &World) -> usize {
    world.log.iter().filter(|action| **action == Action::End).count()
}

#[test]
fn a_connection_without_subflows_is_ended_once() {
    let mut world = established(&[0]);
    cut(&mut world);
    world.tell(Event::Tick);
    pass(&mut world, 59);
    assert_eq!(ends(&world), 0);
    pass(&mut world, 3);
    assert_eq!(ends(&world), 1);
    pass(&mut world, 200);
    assert_eq!(ends(&world), 1);
}

#[test]
fn a_subflow_that_comes_in_time_saves_it() {
    let mut world = established(&[0]);
    world.tell(Event::Settings { close_timeout: Some(Time::from_secs(10)) });
    cut(&mut world);
    pass(&mut world, 8);
    world.fate = Fate::Answer;
    world.apply(&Op::Wait(64_000));
    world.deliver();
    assert_eq!((ends(&world), live(&mut world)), (1, vec![local(0)]), "the time was up in between");
    let mut world = established(&[0]);
    world.tell(Event::Settings { close_timeout: Some(Time::from_secs(10)) });
    cut(&mut world);
    pass(&mut world, 2);
    world.apply(&Op::Wait(5000));
    world.deliver();
    pass(&mut world, 30);
    assert_eq!(ends(&world), 0);
}

#[test]
fn nothing_is_ended_where_that_is_not_wanted() {
    let mut world = established(&[0]);
    cut(&mut world);
    world.tell(Event::Settings { close_timeout: None });
    pass(&mut world, 300);
    assert_eq!(ends(&world), 0);
    // The time counts from when the last subflow went.
    world.tell(Event::Settings { close_timeout: Some(Time::from_secs(60)) });
    assert_eq!(ends(&world), 1);
}

/// A client with a subflow from each of two addresses; the commands of the
/// engine are answered by the test.
fn two() -> Engine {
    let mut engine = Engine::default();
    let now = Time::from_secs(1);
    let up = |n: usize, id| Seen {
        local: addr::with_port(local(n), 40000),
        remote: remote(0),
        local_id: id,
        remote_id: 0,
        up: true,
        initial: n == 0,
        backup: None,
    };
    let entries = vec![local(0).into(), local(1).into()];
    engine.handle(Event::Request { id: 1, key: KEY, request: Request::Add(entries) }, now);
    engine.handle(Event::Created { token: TOKEN, key: KEY, initial: up(0, 0), server: false }, now);
    engine.handle(Event::Established { token: TOKEN }, now);
    while let Some(command) = engine.poll_command() {
        engine.handle(Event::Done { tag: command.tag, outcome: Outcome::Taken }, now);
    }
    engine.handle(Event::SubflowUp { token: TOKEN, subflow: up(1, 1) }, now);
    engine
}

/// The Destroy among the commands, refused with this errno, and whether there
/// was one.
fn refuse_close(engine: &mut Engine, errno: i32, now: Time) -> bool {
    let mut found = false;
    while let Some(command) = engine.poll_command() {
        let event = match command.action {
            Action::Destroy { .. } => {
                found = true;
                Event::Done { tag: command.tag, outcome: Outcome::Refused(errno) }
            }
            Action::Watch { .. } => Event::Watched { tag: command.tag, facts: None },
            _ => Event::Done { tag: command.tag, outcome: Outcome::Taken },
        };
        engine.handle(event, now);
    }
    found
}

#[test]
fn a_close_that_is_refused_is_asked_for_again() {
    let mut engine = two();
    let mut now = Time::from_secs(2);
    let request = Request::Remove { addrs: vec![local(1)], patience: Time::ZERO };
    engine.handle(Event::Request { id: 2, key: KEY, request }, now);
    assert!(refuse_close(&mut engine, libc::EBUSY, now));
    for wait in [1, 2, 4, 8] {
        now += Time::from_secs(wait) - Time::from_millis(1);
        engine.handle(Event::Tick, now);
        assert!(!refuse_close(&mut engine, libc::EBUSY, now), "not before {wait} s");
        now += Time::from_millis(1);
        assert!(engine.next_timeout().is_some_and(|due| due <= now));
        engine.handle(Event::Tick, now);
        assert!(refuse_close(&mut engine, libc::EBUSY, now), "after {wait} s");
    }
    assert_eq!(engine.by_key(&KEY).unwrap().subflows.len(), 2);
    engine.handle(Event::Tick, now + Time::from_secs(16));
    assert!(refuse_close(&mut engine, libc::ESRCH, now));
    assert_eq!(engine.by_key(&KEY).unwrap().subflows.len(), 1, "it is gone");
    engine.handle(Event::Tick, now + Time::from_secs(100));
    assert!(!refuse_close(&mut engine, libc::ESRCH, now));
}

#[test]
fn what_has_no_port_yet_is_closed_when_it_has() {
    let mut engine = two();
    let now = Time::from_secs(2);
    // The port 40000 is taken: any other.
    engine.handle(Event::Request { id: 2, key: KEY, request: Request::Add(vec![local(2).into()]) }, now);
    let mut created = 0;
    while let Some(command) = engine.poll_command() {
        if let Action::Create { local, .. } = command.action {
            created += 1;
            let taken = local.port() != 0;
            let outcome = if taken { Outcome::Refused(libc::EADDRINUSE) } else { Outcome::Taken };
            engine.handle(Event::Done { tag: command.tag, outcome }, now);
        }
    }
    assert_eq!(created, 2);
    let request = Request::Remove { addrs: vec![local(2)], patience: Time::ZERO };
    engine.handle(Event::Request { id: 3, key: KEY, request }, now);
    assert!(refuse_close(&mut engine, libc::EINVAL, now), "it can't be named yet");
    let up = Seen {
        local: addr::with_port(local(2), 50_001),
        remote: remote(0),
        local_id: 2,
        remote_id: 0,
        up: true,
        initial: false,
        backup: None,
    };
    engine.handle(Event::SubflowUp { token: TOKEN, subflow: up }, now);
    let close = Action::Destroy { local: up.local, remote: up.remote };
    let commands: Vec<Action> = std::iter::from_fn(|| engine.poll_command()).map(|c| c.action).collect();
    assert!(commands.contains(&close), "{commands:?}");
}

#[test]
fn all_who_wait_hear_that_nothing_can_be_done() {
    let mut engine = two();
    let now = Time::from_secs(2);
    for n in 2..5 {
        engine.handle(
            Event::Request { id: n, key: KEY, request: Request::Add(vec![local(n as usize).into()]) },
            now,
        );
    }
    let mut first = true;
    while let Some(command) = engine.poll_command() {
        let outcome = if first { Outcome::NotOurs } else { Outcome::Taken };
        first = false;
        engine.handle(Event::Done { tag: command.tag, outcome }, now);
    }
    let mut answers: Vec<_> = std::iter::from_fn(|| engine.poll_notification()).skip(1).collect();
    answers.sort_by_key(|Notice::Answer { id, .. }| *id);
    let expected = (2..5).map(|id| Notice::Answer { id, result: Err(not_ours()) });
    assert!(answers.into_iter().eq(expected));
    assert_eq!(engine.by_key(&KEY).unwrap().list(), Some(vec![local(0), local(1)]));
}

#[test]
fn a_withdrawal_that_is_refused_is_told_again_unless_the_id_is_in_use_again() {
    for back in [false, true] {
        let mut engine = two();
        let now = Time::from_secs(2);
        let request = Request::Remove { addrs: vec![local(1)], patience: Time::ZERO };
        engine.handle(Event::Request { id: 2, key: KEY, request }, now);
        let answer = |engine: &mut Engine, now, outcome| {
            let mut removes = 0;
            while let Some(Command { tag, action, .. }) = engine.poll_command() {
                let outcome = if matches!(action, Action::Remove { .. }) { outcome } else { Outcome::Taken };
                removes += usize::from(matches!(action, Action::Remove { id: 1 }));
                engine.handle(Event::Done { tag, outcome }, now);
            }
            removes
        };
        assert_eq!(answer(&mut engine, now, Outcome::Refused(libc::ENOMEM)), 1);
        if back {
            // The peer joined to it, and the kernel gave it the id again.
            let up = Seen {
                local: addr::with_port(local(1), 40000),
                remote: remote(3),
                local_id: 1,
                remote_id: 0,
                up: true,
                initial: false,
                backup: None,
            };
            engine.handle(
                Event::Request { id: 3, key: KEY, request: Request::Add(vec![local(1).into()]) },
                now,
            );
            engine.handle(Event::SubflowUp { token: TOKEN, subflow: up }, now);
            answer(&mut engine, now, Outcome::Taken);
        }
        let now = now + Time::from_secs(1);
        engine.handle(Event::Tick, now);
        assert_eq!(answer(&mut engine, now, Outcome::Taken), usize::from(!back));
        engine.handle(Event::Tick, now + Time::from_secs(10));
        assert_eq!(answer(&mut engine, now, Outcome::Taken), 0);
    }
}
