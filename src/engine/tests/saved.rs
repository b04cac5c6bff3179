// SPDX-License-Identifier: MIT OR Apache-2.0
//! A restart: what was saved and given back is as it was.

use super::*;

const NOW: Time = Time::from_secs(1);

fn commands(engine: &mut Engine) -> Vec<Action> {
    let mut all = Vec::new();
    while let Some(command) = engine.poll_command() {
        all.push(command.action);
        assert!(all.len() < 2000, "the engine never stops: {:?}", &all[1900..]);
        engine.handle(Event::Done { tag: command.tag, outcome: Outcome::Taken }, NOW);
    }
    all
}

fn subflow(n: usize, initial: bool) -> Seen {
    Seen {
        local: addr::with_port(local(n), 40000),
        remote: remote(0),
        // The engine gave 1 to the announced address.
        local_id: if n == 0 { 0 } else { n as u8 + 1 },
        remote_id: 0,
        up: true,
        initial,
        backup: None,
    }
}

fn ask(engine: &mut Engine, id: RequestId, request: Request) {
    engine.handle(Event::Request { id, key: KEY, request }, NOW);
}

/// A client with subflows from addresses 0 and 1, which announces address 2.
fn client() -> Engine {
    let mut engine = Engine::default();
    engine.handle(Event::Binding { key: KEY, bound: None, device: None }, NOW);
    let announced = Entry { subflow: false, ..local(2).into() };
    ask(&mut engine, 1, Request::Add(vec![local(0).into(), local(1).into(), announced]));
    let initial = subflow(0, true);
    engine.handle(Event::Created { token: TOKEN, key: KEY, initial, server: false }, NOW);
    engine.handle(Event::Established { token: TOKEN }, NOW);
    assert!(commands(&mut engine).iter().any(|a| matches!(a, Action::Announce { .. })));
    engine.handle(Event::SubflowUp { token: TOKEN, subflow: subflow(1, false) }, NOW);
    engine.handle(Event::Announced { token: TOKEN, id: 3, addr: remote(0) }, NOW);
    engine
}

fn look(engine: &mut Engine, subflows: &[usize]) {
    let subflows = subflows.iter().map(|n| subflow(*n, *n == 0)).collect();
    let initial = (addr::with_port(local(0), 40000), remote(0));
    let event = Event::Snapshot { token: TOKEN, key: KEY, server: false, initial, ready: true, subflows };
    engine.handle(event, NOW);
}

fn again(before: &Engine) -> Engine {
    let saved = before.save(&KEY).unwrap();
    let mut after = Engine::default();
    after.handle(Event::Restore(Box::new(saved.clone())), NOW);
    assert_eq!(after.save(&KEY), Some(saved));
    after
}

#[test]
fn a_restored_connection_waits_for_a_look_and_repeats_nothing() {
    let mut engine = again(&client());
    assert_eq!(engine.by_token(TOKEN).unwrap().ready, Ready::Unknown);
    assert!(commands(&mut engine).is_empty());
    look(&mut engine, &[0, 1]);
    let listen = Action::Listen { local: addr::with_port(local(2), 40000) };
    assert_eq!(commands(&mut engine), [listen], "our listening socket went with us, and nothing else");
    assert_eq!(engine.by_key(&KEY).unwrap().subflows.len(), 2);
}

#[test]
fn what_is_missing_after_a_restart_is_made_with_the_same_id() {
    let before = client();
    let id = before.by_key(&KEY).unwrap().ids.get(&local(1)).unwrap().id;
    let mut engine = again(&before);
    look(&mut engine, &[0]);
    let creates = |a: &Action| matches!(a, Action::Create { id: with, .. } if *with == id);
    assert!(commands(&mut engine).iter().any(creates));
}

#[test]
fn a_removal_under_way_is_finished_after_a_restart() {
    let mut engine = client();
    let patience = Time::from_secs(2);
    engine.handle(
        Event::SubflowDown {
            token: TOKEN,
            local: addr::with_port(local(1), 40000),
            remote: remote(0),
            error: 0,
        },
        NOW,
    );
    engine.handle(Event::Tick, NOW + note::RETRY_FIRST);
    ask(&mut engine, 2, Request::Remove { addrs: vec![local(0)], patience });
    assert!(engine.poll_notification().is_some_and(|Notice::Answer { id, .. }| id == 1));
    assert!(engine.poll_notification().is_none(), "it waits for the alternative");
    let mut engine = again(&engine);
    look(&mut engine, &[0, 1]);
    let actions = commands(&mut engine);
    assert!(actions.contains(&Action::Remove { id: 0 }), "{actions:?}");
    assert!(
        actions.iter().any(|a| matches!(a, Action::Destroy { local: l, .. } if addr::same_ip(l, &local(0))))
    );
}

#[test]
fn a_listener_is_restored_with_its_list() {
    let mut engine = Engine::default();
    ask(&mut engine, 1, Request::Add(vec![remote(0).into(), addr::with_port(remote(1), 0).into()]));
    let mut engine = again(&engine);
    assert_eq!(engine.waiting(), 1);
    let initial = Seen { local: remote(0), remote: local(0), ..subflow(0, true) };
    let key = Key { cookie: KEY.cookie, inode: 0 };
    engine.handle(Event::Created { token: 9, key, initial, server: true }, NOW);
    assert!(commands(&mut engine).iter().any(|a| matches!(a, Action::Announce { .. })));
}

#[test]
fn what_is_known_is_not_overwritten() {
    let mut engine = client();
    let now = engine.save(&KEY).unwrap();
    let old = Saved { entries: Vec::new(), ..now.clone() };
    engine.handle(Event::Restore(Box::new(old.clone())), NOW);
    engine.handle(Event::Restore(Box::new(Saved { key: Key { cookie: 1, inode: 1 }, ..old })), NOW);
    assert_eq!(engine.save(&KEY), Some(now));
    assert_eq!(engine.connections().count(), 1);
}

fn anything() -> impl Strategy<Value = Saved> {
    let addr = || (0usize..3, 0u16..2).prop_map(|(n, port)| addr::with_port(local(n), port));
    let addrs = move || proptest::collection::vec(addr(), 0..80);
    let ids = proptest::collection::vec((any::<u8>(), addr(), any::<u16>()), 0..20);
    (any::<(bool, bool, bool, u8)>(), addrs(), addrs(), ids, any::<u8>()).prop_map(
        |(bits, some, others, ids, n)| Saved {
            wishes: Wishes {
                settings: Settings { max_subflows: n, ..Settings::default() },
                fate_default: n % 2 == 0,
                demanded: n % 3 == 0,
                pinned: others.iter().map(|addr| (*addr, remote(0), n % 5 == 0)).collect(),
                barred: others.iter().map(|addr| (*addr, remote(0))).collect(),
                opens: some.iter().map(|addr| (*addr, remote(1), n % 7 == 0)).collect(),
                ..Wishes::default()
            },
            key: KEY,
            token: bits.0.then_some(TOKEN),
            server: bits.1,
            listed: bits.2,
            entries: some.iter().map(|addr| (*addr).into()).collect(),
            excluded: others.clone(),
            leaving: others.clone(),
            initial: bits.0.then_some((local(0), remote(0))),
            peers: others.iter().map(|addr| Peer { id: Some(1), addr: *addr }).collect(),
            announced: ids.iter().map(|(id, addr, _)| (*addr, *id)).collect(),
            ids: ids.into_iter().map(|(id, addr, port)| ids::Slot { id, addr, port }).collect(),
            last_id: bits.3,
            ..Saved::default()
        },
    )
}

proptest! {
    #[test]
    fn whatever_was_written_down_can_be_restored(saved in anything()) {
        let mut engine = Engine::default();
        engine.handle(Event::Restore(Box::new(saved)), NOW);
        look(&mut engine, &[0, 1]);
        commands(&mut engine);
        let c = engine.by_key(&KEY).unwrap();
        prop_assert!(c.entries.len() <= addr::LIST_MAX && c.excluded.len() <= addr::LIST_MAX);
        let saved = engine.save(&KEY).unwrap();
        let mut ids: Vec<u8> = saved.ids.iter().map(|slot| slot.id).collect();
        ids.sort_unstable();
        ids.dedup();
        prop_assert_eq!(ids.len(), saved.ids.len());
    }
}
