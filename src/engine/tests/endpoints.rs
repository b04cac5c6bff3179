// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connections that nobody claimed get what the in-kernel path manager would
//! give them.

use super::*;
use crate::engine::{Endpoint, Limits};

const NOW: Time = Time::from_secs(1);

fn endpoint(id: u8, n: usize) -> Endpoint {
    Endpoint {
        id,
        addr: local(n),
        ifindex: 0,
        signal: false,
        subflow: false,
        backup: false,
        fullmesh: false,
        laminar: false,
        implicit: false,
    }
}

fn subflow(id: u8, n: usize) -> Endpoint {
    Endpoint { subflow: true, ..endpoint(id, n) }
}

fn signal(id: u8, n: usize) -> Endpoint {
    Endpoint { signal: true, ..endpoint(id, n) }
}

/// An engine, and the commands that it gave.
struct Served {
    engine: Engine,
    endpoints: Vec<Endpoint>,
    limits: Limits,
    log: Vec<Action>,
    port: u16,
}

impl Served {
    /// A connection from address 0, client or server, that nobody claimed.
    fn new(endpoints: &[Endpoint], limits: (u32, u32), server: bool) -> Self {
        let limits = Limits { subflows: limits.0, add_addr_accepted: limits.1 };
        let mut served = Self {
            engine: Engine::default(),
            endpoints: endpoints.to_vec(),
            limits,
            log: Vec::new(),
            port: 50_000,
        };
        served.tell(Event::Endpoints { endpoints: endpoints.to_vec(), limits, serve: true });
        let initial = seen(0, remote(0), 40_000, 0, true);
        served.tell(Event::Created { token: TOKEN, key: KEY, initial, server });
        served.tell(Event::Established { token: TOKEN });
        served
    }

    fn tell(&mut self, event: Event) {
        self.engine.handle(event, NOW);
        while let Some(Command { tag, action, .. }) = self.engine.poll_command() {
            self.log.push(action);
            let done = match action {
                // Routing chooses address 3.
                Action::Route { .. } => Event::Routed { tag, local: Some(local(3)) },
                _ => Event::Done { tag, outcome: Outcome::Taken },
            };
            self.engine.handle(done, NOW);
            if let Action::Create { local, id, remote, .. } = action {
                self.port += 1;
                let port = if local.port() == 0 { self.port } else { local.port() };
                let up = Seen {
                    local: addr::with_port(local, port),
                    remote,
                    local_id: id,
                    ..seen(0, remote, 0, 0, false)
                };
                self.engine.handle(Event::SubflowUp { token: TOKEN, subflow: up }, NOW);
            }
        }
    }

    fn change(&mut self, change: impl FnOnce(&mut Vec<Endpoint>)) -> Vec<Action> {
        change(&mut self.endpoints);
        self.log.clear();
        let (endpoints, limits) = (self.endpoints.clone(), self.limits);
        self.tell(Event::Endpoints { endpoints, limits, serve: true });
        self.log.clone()
    }

    fn told(&mut self, event: Event) -> Vec<Action> {
        self.log.clear();
        self.tell(event);
        self.log.clone()
    }

    /// Local and remote addresses of joins, with their id.
    fn joins(&self) -> Vec<(SocketAddr, SocketAddr, u8)> {
        joins(&self.log)
    }

    fn announce(&mut self, id: u8, n: usize) -> Vec<Action> {
        self.told(Event::Announced { token: TOKEN, id, addr: remote(n) })
    }

    /// The peer joins to a local address.
    fn joined(&mut self, n: usize, port: u16) -> Vec<Action> {
        let subflow = seen(n, addr::with_port(remote(3), port), 40_000, n as u8, false);
        self.told(Event::SubflowUp { token: TOKEN, subflow })
    }
}

fn joins(log: &[Action]) -> Vec<(SocketAddr, SocketAddr, u8)> {
    log.iter()
        .filter_map(|action| match action {
            Action::Create { local, id, remote, .. } => Some((addr::with_port(*local, 0), *remote, *id)),
            _ => None,
        })
        .collect()
}

fn seen(n: usize, remote: SocketAddr, port: u16, local_id: u8, initial: bool) -> Seen {
    Seen {
        local: addr::with_port(local(n), port),
        remote,
        local_id,
        remote_id: 0,
        up: true,
        initial,
        backup: None,
    }
}

fn closes(log: &[Action]) -> Vec<SocketAddr> {
    log.iter()
        .filter_map(|action| match action {
            Action::Destroy { local, .. } => Some(addr::with_port(*local, 0)),
            _ => None,
        })
        .collect()
}

#[test]
fn without_leave_strangers_are_ignored() {
    let mut engine = Engine::default();
    let limits = Limits { subflows: 8, add_addr_accepted: 8 };
    engine.handle(Event::Endpoints { endpoints: vec![subflow(1, 1)], limits, serve: false }, NOW);
    let initial = seen(0, remote(0), 40_000, 0, true);
    engine.handle(Event::Created { token: TOKEN, key: KEY, initial, server: false }, NOW);
    assert!(engine.by_token(TOKEN).is_none() && engine.connections().count() == 0);
}

#[test]
fn a_client_joins_from_subflow_endpoints_up_to_the_limit() {
    let endpoints = [subflow(9, 0), subflow(4, 1), endpoint(5, 4), subflow(6, 2), subflow(7, 3)];
    let served = Served::new(&endpoints, (2, 0), false);
    assert_eq!(served.joins(), [(local(1), remote(0), 4), (local(2), remote(0), 6)]);
    let unclaimed = served.engine.by_token(TOKEN).unwrap();
    assert!(unclaimed.is_unclaimed() && unclaimed.list().is_none());
    // A server doesn't.
    assert!(Served::new(&endpoints, (2, 0), true).log.is_empty());
}

#[test]
fn signal_endpoints_are_announced_under_their_ids() {
    let ported = Endpoint { addr: addr::with_port(local(2), 8080), ..signal(3, 2) };
    let served = Served::new(&[signal(9, 0), signal(7, 1), ported], (2, 0), true);
    let expected =
        [Action::Announce { local: local(1), id: 7 }, Action::Announce { local: ported.addr, id: 3 }];
    assert_eq!(served.log, expected, "not the one that the peer is connected to");
}

#[test]
fn announced_addresses_are_joined_from_where_routing_says_up_to_the_limit() {
    let mut served = Served::new(&[], (8, 2), false);
    assert_eq!(joins(&served.announce(1, 1)), [(local(3), remote(1), 1)]);
    assert!(served.announce(1, 1).is_empty(), "told again");
    assert_eq!(joins(&served.announce(2, 2)), [(local(3), remote(2), 1)]);
    assert!(served.announce(3, 3).is_empty(), "one too many");
    served.told(Event::Withdrawn { token: TOKEN, id: 1 });
    assert_eq!(joins(&served.announce(3, 3)).len(), 1);
    let mut none = Served::new(&[], (8, 0), false);
    assert!(none.announce(1, 1).is_empty());
}

#[test]
fn fullmesh_endpoints_join_every_address() {
    let mesh = |id, n| Endpoint { fullmesh: true, ..subflow(id, n) };
    let mut served = Served::new(&[mesh(1, 0), mesh(2, 1), mesh(3, 2)], (8, 8), false);
    assert_eq!(served.joins(), [(local(1), remote(0), 2), (local(2), remote(0), 3)]);
    let all = [(local(0), remote(1), 0), (local(1), remote(1), 2), (local(2), remote(1), 3)];
    assert_eq!(joins(&served.announce(5, 1)), all);
    assert_eq!(
        joins(&served.change(|endpoints| endpoints.push(mesh(4, 3)))),
        [(local(3), remote(0), 4), (local(3), remote(1), 4)]
    );
}

#[test]
fn a_laminar_endpoint_joins_one_announced_address() {
    let laminar = |id, n| Endpoint { laminar: true, ..endpoint(id, n) };
    let mut served = Served::new(&[laminar(1, 0), laminar(2, 1), laminar(3, 2)], (8, 8), false);
    assert!(served.joins().is_empty());
    assert_eq!(joins(&served.announce(5, 1)), [(local(1), remote(1), 2)]);
    assert_eq!(joins(&served.announce(6, 2)), [(local(2), remote(2), 3)]);
    assert!(served.announce(7, 3).is_empty(), "none is unused");
}

#[test]
fn each_join_is_tried_once() {
    let mut served = Served::new(&[subflow(4, 1)], (2, 0), false);
    let (local, remote) = (addr::with_port(local(1), 40_000), remote(0));
    assert!(served.told(Event::SubflowDown { token: TOKEN, local, remote, error: 0 }).is_empty());
    served.engine.handle(Event::Tick, NOW + Time::from_secs(100));
    assert!(served.engine.poll_command().is_none());
    // A new endpoint is.
    served.change(|endpoints| endpoints.clear());
    assert_eq!(served.change(|endpoints| endpoints.push(subflow(4, 1))).len(), 1);
}

#[test]
fn a_port_that_is_taken_is_no_try() {
    let mut engine = Engine::default();
    let limits = Limits { subflows: 2, add_addr_accepted: 0 };
    engine.handle(Event::Endpoints { endpoints: vec![subflow(4, 1)], limits, serve: true }, NOW);
    let initial = seen(0, remote(0), 40_000, 0, true);
    engine.handle(Event::Created { token: TOKEN, key: KEY, initial, server: false }, NOW);
    engine.handle(Event::Established { token: TOKEN }, NOW);
    let mut ports = Vec::new();
    while let Some(Command { tag, action: Action::Create { local, .. }, .. }) = engine.poll_command() {
        ports.push(local.port());
        let taken = local.port() != 0;
        let outcome = if taken { Outcome::Refused(libc::EADDRINUSE) } else { Outcome::Taken };
        engine.handle(Event::Done { tag, outcome }, NOW);
    }
    assert_eq!(ports, [40_000, 0]);
}

#[test]
fn joins_of_the_peer_beyond_the_limit_are_closed() {
    let mut served = Served::new(&[], (2, 0), true);
    assert!(served.joined(0, 1001).is_empty() && served.joined(1, 1002).is_empty());
    let action = Action::Destroy {
        local: addr::with_port(local(0), 40_000),
        remote: addr::with_port(remote(3), 1003),
    };
    assert_eq!(served.joined(0, 1003), [action], "and nothing else is said");
    // A lower limit closes nothing that is there.
    served.limits.subflows = 0;
    assert!(served.change(|_| ()).is_empty());
    assert_eq!(closes(&served.joined(2, 1004)), [local(2)]);
}

#[test]
fn backup_follows_the_endpoint() {
    let mut served = Served::new(&[Endpoint { backup: true, ..subflow(4, 1) }], (2, 0), false);
    assert!(matches!(served.log.as_slice(), [Action::Create { backup: true, .. }]));
    let set =
        |backup| Action::SetBackup { local: addr::with_port(local(1), 40_000), remote: remote(0), backup };
    assert_eq!(served.change(|endpoints| endpoints[0].backup = false), [set(false)]);
    assert_eq!(served.change(|endpoints| endpoints[0].backup = true), [set(true)]);
    // The initial subflow, too.
    let served = Served::new(&[Endpoint { backup: true, ..endpoint(1, 0) }], (2, 0), true);
    assert!(matches!(served.log.as_slice(), [Action::SetBackup { backup: true, .. }]));
}

#[test]
fn an_endpoint_that_is_deleted_takes_its_subflows_along() {
    let mut served = Served::new(&[subflow(4, 1), subflow(5, 2), signal(6, 3)], (4, 0), false);
    let log = served.change(|endpoints| endpoints.retain(|e| e.id == 5));
    assert!(log.contains(&Action::Remove { id: 4 }) && log.contains(&Action::Remove { id: 6 }), "{log:?}");
    assert_eq!(closes(&log), [local(1)]);
    // The one the connection is from, likewise.
    let mut served = Served::new(&[endpoint(1, 0), subflow(4, 1)], (4, 0), false);
    let log = served.change(|endpoints| endpoints.retain(|e| e.id == 4));
    assert_eq!((log[0], closes(&log)), (Action::Remove { id: 0 }, vec![local(0)]));
}

#[test]
fn a_changed_mesh_flag_makes_its_subflows_anew() {
    let mut served = Served::new(&[subflow(4, 1)], (8, 8), false);
    served.announce(5, 1);
    let log = served.change(|endpoints| endpoints[0].fullmesh = true);
    assert_eq!(closes(&log), [local(1)]);
    assert!(!log.contains(&Action::Remove { id: 4 }));
    let made = served.joins();
    assert_eq!(made, [(local(1), remote(0), 4), (local(1), remote(1), 4)]);
}

#[test]
fn a_claim_leaves_everything_as_it_is() {
    for claim in [
        Event::Request { id: 1, key: KEY, request: Request::Add(vec![local(1).into()]) },
        Event::Binding { key: KEY, bound: None, device: None },
    ] {
        let mut served = Served::new(&[subflow(4, 1), signal(5, 2)], (8, 8), false);
        served.announce(7, 1);
        assert!(served.told(claim).is_empty());
        assert!(!served.engine.by_token(TOKEN).unwrap().is_unclaimed());
        // Endpoints are none of its business from here on.
        assert!(served.change(|endpoints| endpoints.clear()).is_empty());
    }
}

#[test]
fn a_binding_restricts_what_nobody_claimed() {
    let mut served = Served::new(&[subflow(4, 1)], (8, 8), false);
    let bound = Some(addr::with_port(local(0), 40_000));
    let log = served.told(Event::Binding { key: KEY, bound, device: None });
    assert_eq!(closes(&log), [local(1)]);
}

#[test]
fn a_restart_repeats_nothing_and_gives_up_what_is_no_endpoint() {
    let mut before = Served::new(&[subflow(4, 1), subflow(5, 2), signal(6, 3)], (8, 8), false);
    before.announce(7, 1);
    let subflows: Vec<Seen> = {
        let c = before.engine.by_token(TOKEN).unwrap();
        let all = c.subflows.iter().map(|s| Seen {
            local: s.local,
            remote: s.remote,
            local_id: s.local_id,
            remote_id: 0,
            up: true,
            initial: s.initial,
            backup: None,
        });
        // One ended meanwhile.
        all.filter(|s| !addr::same_ip(&s.local, &local(2))).collect()
    };
    let saved = before.engine.save(&KEY).unwrap();
    assert!(saved.unclaimed);
    let mut served = Served {
        engine: Engine::default(),
        endpoints: before.endpoints.clone(),
        limits: before.limits,
        log: Vec::new(),
        port: 60_000,
    };
    served.change(|endpoints| endpoints.retain(|e| e.id != 4));
    served.tell(Event::Restore(Box::new(saved.clone())));
    assert_eq!(served.engine.save(&KEY), Some(saved));
    assert!(served.log.is_empty());
    let initial = (addr::with_port(local(0), 40_000), remote(0));
    let log = served.told(Event::Snapshot {
        token: TOKEN,
        key: KEY,
        server: false,
        initial,
        ready: true,
        subflows,
    });
    assert_eq!(closes(&log), [local(1)]);
    assert!(joins(&log).is_empty(), "{log:?}");
}

#[test]
fn one_that_the_kernel_serves_is_forgotten() {
    let mut engine = Engine::default();
    let limits = Limits { subflows: 2, add_addr_accepted: 0 };
    engine.handle(Event::Endpoints { endpoints: vec![subflow(4, 1)], limits, serve: true }, NOW);
    let initial = seen(0, remote(0), 40_000, 0, true);
    engine.handle(Event::Created { token: TOKEN, key: KEY, initial, server: false }, NOW);
    engine.handle(Event::Established { token: TOKEN }, NOW);
    let tag = engine.poll_command().unwrap().tag;
    engine.handle(Event::Done { tag, outcome: Outcome::NotOurs }, NOW);
    assert_eq!(engine.connections().count(), 0);
}
