// SPDX-License-Identifier: MIT OR Apache-2.0
//! Profiles in worlds where delays wander, paths die and fill up.

use super::*;
use crate::engine::profile::{CONFIRMED, FORGOTTEN, FULL, HOLD, SPARE};

const STEP: Time = Time::from_millis(10);

fn ms(millis: u64) -> Time {
    Time::from_millis(millis)
}

/// A path as it is, whether or not anything is sent on it.
#[derive(Clone, Copy, Debug)]
struct Road {
    delay: Time,
    dead: bool,
    /// What the application sends is more than this path carries.
    full: bool,
}

/// What TCP has measured of it.
#[derive(Clone, Copy, Debug, Default)]
struct Tcp {
    srtt: Time,
    lowest: Time,
    last_used: Time,
    silent_since: Option<Time>,
}

/// A connection over several roads: only what is in use measures its delay.
struct Trip {
    engine: Engine,
    now: Time,
    roads: Vec<Road>,
    tcp: Vec<Option<Tcp>>,
    backup: Vec<bool>,
    /// When which road was put in use.
    changes: Vec<(Time, usize)>,
    /// For how long each was in use.
    usage: Vec<Time>,
}

impl Trip {
    fn new(profile: Profile, delays: &[u64]) -> Self {
        let roads: Vec<Road> =
            delays.iter().map(|delay| Road { delay: ms(*delay), dead: false, full: false }).collect();
        let now = Time::from_secs(10);
        let mut trip = Self {
            engine: Engine::default(),
            now,
            tcp: vec![None; roads.len()],
            backup: vec![false; roads.len()],
            usage: vec![Time::ZERO; roads.len()],
            roads,
            changes: Vec::new(),
        };
        let entries = (0..trip.roads.len()).map(|n| local(n).into()).collect();
        let requests = [Request::Add(entries), Request::Set(Setting::Profile(profile))];
        for (id, request) in (1..).zip(requests) {
            trip.engine.handle(Event::Request { id, key: KEY, request }, now);
        }
        trip.join(0, false);
        let initial = Self::seen(0);
        trip.engine.handle(Event::Created { token: TOKEN, key: KEY, initial, server: false }, now);
        trip.engine.handle(Event::Established { token: TOKEN }, now);
        trip.pump();
        trip
    }

    fn seen(n: usize) -> Seen {
        Seen {
            local: addr::with_port(local(n), 40000),
            remote: remote(0),
            local_id: n as u8,
            remote_id: 0,
            up: true,
            initial: n == 0,
            backup: None,
        }
    }

    fn join(&mut self, n: usize, backup: bool) {
        let delay = self.roads[n].delay;
        self.tcp[n] = Some(Tcp { srtt: delay, lowest: delay, last_used: self.now, silent_since: None });
        self.backup[n] = backup;
    }

    fn used(&self) -> Vec<usize> {
        (0..self.roads.len()).filter(|n| self.tcp[*n].is_some() && !self.backup[*n]).collect()
    }

    fn facts(&self, n: usize) -> Option<Facts> {
        let tcp = self.tcp[n]?;
        let busy = !self.backup[n];
        let silence = tcp.silent_since.map(|since| self.now - since);
        let rto = tcp.srtt * 2 + ms(200);
        let backoff = silence.map_or(0, |silence| (silence.as_millis() / rto.as_millis() + 1).ilog2());
        Some(Facts {
            unacked: if busy || silence.is_some() { 10 } else { 0 },
            // Some always waits for a moment.
            notsent: if self.roads[n].full { 100_000 } else { 4_000 },
            backoff,
            rto: rto * (1 << backoff),
            rtt: tcp.srtt,
            rtt_min: tcp.lowest,
            rttvar: ms(1),
            since_ack: silence.unwrap_or(self.now - tcp.last_used),
            since_sent: self.now - tcp.last_used,
            segs_out: 1000,
            bytes_acked: tcp.last_used.as_millis() as u64,
            bytes_sent: tcp.last_used.as_millis() as u64 + 14_480,
            ..Facts::default()
        })
    }

    fn pump(&mut self) {
        while let Some(Command { tag, action, .. }) = self.engine.poll_command() {
            let of = |l: SocketAddr| (0..self.roads.len()).find(|n| addr::same_ip(&local(*n), &l)).unwrap();
            let mut told = Event::Done { tag, outcome: Outcome::Taken };
            let mut after = None;
            match action {
                Action::Watch { local, .. } => {
                    told = Event::Watched { tag, facts: self.facts(of(local)) };
                }
                Action::Create { local, backup, .. } => {
                    let n = of(local);
                    if self.roads[n].dead {
                        let (local, remote) = (Self::seen(n).local, remote(0));
                        after = Some(Event::SubflowDown { token: TOKEN, local, remote, error: 110 });
                    } else {
                        self.join(n, backup);
                        after = Some(Event::SubflowUp { token: TOKEN, subflow: Self::seen(n) });
                    }
                }
                Action::Destroy { local, .. } => self.tcp[of(local)] = None,
                Action::SetBackup { local, backup, .. } => self.backup[of(local)] = backup,
                _ => {}
            }
            self.engine.handle(told, self.now);
            after.into_iter().for_each(|event| self.engine.handle(event, self.now));
        }
        let used = self.used();
        if let [one] = used[..]
            && self.changes.last().is_none_or(|(_, last)| *last != one)
        {
            self.changes.push((self.now, one));
        }
    }

    fn run(&mut self, time: Time) {
        let end = self.now + time;
        while self.now < end {
            self.now += STEP;
            for n in 0..self.roads.len() {
                let busy = !self.backup[n];
                let (now, road) = (self.now, self.roads[n]);
                let out = |tcp: &&mut Tcp| busy || tcp.silent_since.is_some();
                let Some(tcp) = self.tcp[n].as_mut().filter(out) else { continue };
                self.usage[n] += if busy { STEP } else { Time::ZERO };
                if road.dead {
                    tcp.silent_since.get_or_insert(now);
                    continue;
                }
                tcp.silent_since = None;
                tcp.last_used = now;
                // An eighth of each measurement, as TCP does it.
                tcp.srtt = tcp.srtt * 7 / 8 + road.delay / 8;
                tcp.lowest = tcp.lowest.min(road.delay);
            }
            if self.engine.next_timeout().is_some_and(|due| due <= self.now) {
                self.engine.handle(Event::Tick, self.now);
                self.pump();
            }
        }
    }

    fn kill(&mut self, n: usize, dead: bool) {
        self.roads[n].dead = dead;
    }

    fn drop_subflow(&mut self, n: usize) {
        self.tcp[n] = None;
        let (local, remote) = (Self::seen(n).local, remote(0));
        self.engine.handle(Event::SubflowDown { token: TOKEN, local, remote, error: 0 }, self.now);
        self.pump();
    }
}

#[test]
fn the_quickest_path_is_used_from_the_start() {
    let mut trip = Trip::new(Profile::Interactive, &[80, 20, 50]);
    trip.run(Time::from_secs(3));
    assert_eq!(trip.used(), [1]);
    let (when, _) = *trip.changes.last().unwrap();
    assert!(when <= Time::from_secs(10) + HOLD + CONFIRMED + ms(500), "{when:?}");
}

#[test]
fn a_path_that_grows_slow_is_left_and_taken_again_when_that_may_be_over() {
    let mut trip = Trip::new(Profile::Interactive, &[20, 40]);
    trip.run(Time::from_secs(3));
    assert_eq!(trip.used(), [0]);
    trip.roads[0].delay = ms(300);
    trip.run(Time::from_secs(2));
    assert_eq!(trip.used(), [1]);
    trip.roads[0].delay = ms(20);
    trip.run(FORGOTTEN + Time::from_secs(2));
    assert_eq!(trip.used(), [0], "nobody measures it; it is thought to have recovered");
}

#[test]
fn when_paths_change_places_the_other_is_tried() {
    let mut trip = Trip::new(Profile::Interactive, &[10, 100]);
    trip.run(Time::from_secs(3));
    assert_eq!(trip.used(), [0]);
    (trip.roads[0].delay, trip.roads[1].delay) = (ms(100), ms(10));
    trip.run(Time::from_secs(2));
    assert_eq!(trip.used(), [1]);
    let before = trip.changes.len();
    trip.run(Time::from_secs(20));
    assert_eq!(trip.changes.len(), before);
    // One that becomes no better than the other was: that is tried, once.
    trip.roads[1].delay = ms(100);
    trip.run(Time::from_secs(5));
    assert!(trip.changes.len() <= before + 1, "{:?}", trip.changes);
}

#[test]
fn small_differences_change_nothing() {
    let mut trip = Trip::new(Profile::Interactive, &[40, 36]);
    trip.run(Time::from_secs(5));
    for n in 0..200 {
        trip.roads[0].delay = ms(36 + n % 9);
        trip.roads[1].delay = ms(44 - n % 9);
        trip.run(ms(300));
    }
    assert_eq!(trip.used(), [0]);
    assert!(trip.changes.len() <= 2, "{:?}", trip.changes);
}

proptest! {
    #![proptest_config(simulation((worlds() / 100).max(10)))]

    /// However delays wander, paths don't change places all the time; and where
    /// they wander no more, the quickest is used.
    #[test]
    fn wandering_delays_make_no_flapping(
        walk in proptest::collection::vec((0usize..3, 5u64..400, 50u64..3000), 20..120),
        rest in proptest::collection::vec(5u64..400, 3),
    ) {
        let mut trip = Trip::new(Profile::Interactive, &[20, 40, 80]);
        let began = trip.now;
        for (n, delay, time) in walk {
            trip.roads[n].delay = ms(delay);
            trip.run(ms(time));
            prop_assert_eq!(trip.used().len(), 1, "exactly one is in use");
        }
        let gaps = trip.changes.windows(2).filter(|two| two[1].0 - two[0].0 < HOLD && two[0].0 > began + HOLD);
        prop_assert_eq!(gaps.count(), 0, "each is kept for a while: {:?}", trip.changes);
        // Any two of a row that follow soon are followed by a longer stay.
        let lasted = trip.now - began;
        let most = 8 + lasted.as_secs() / 4 + lasted.as_secs() / 8;
        prop_assert!((trip.changes.len() as u64) < most, "{} in {:?}", trip.changes.len(), lasted);
        // At rest: clearly the quickest, or not worth a change.
        for (road, delay) in trip.roads.iter_mut().zip(&rest) {
            road.delay = ms(*delay);
        }
        trip.run(Time::from_secs(400));
        let before = trip.changes.len();
        trip.usage.fill(Time::ZERO);
        trip.run(Time::from_secs(200));
        prop_assert!(trip.changes.len() - before <= 16, "{:?}", &trip.changes[before..]);
        // What has become quicker than it ever was while not in use, nobody knows.
        let known = |(road, tcp): (&Road, &Option<Tcp>)| road.delay.max(tcp.unwrap().lowest);
        let best = trip.roads.iter().zip(&trip.tcp).map(known).min().unwrap();
        let slow = |road: &Road| road.delay > best * 3 / 2 + ms(10);
        let wasted = trip.roads.iter().zip(&trip.usage).filter(|(road, _)| slow(road)).map(|(_, used)| *used);
        let wasted: Time = wasted.sum();
        prop_assert!(wasted < Time::from_secs(20), "{:?} of 200 s on slow paths: {:?}", wasted, trip.roads);
    }

    /// Whatever dies, one path is in use and it is one that lives, if any does.
    #[test]
    fn a_handover_never_stays_on_a_dead_path(
        deaths in proptest::collection::vec((0usize..3, any::<bool>(), 500u64..5000), 1..15),
    ) {
        let mut trip = Trip::new(Profile::Handover, &[20, 40, 80]);
        trip.run(Time::from_secs(2));
        for (n, dead, time) in deaths {
            trip.kill(n, dead);
            trip.run(ms(time));
            prop_assert!(trip.tcp.iter().flatten().count() <= 2);
            prop_assert_eq!(trip.used().len(), 1);
        }
        for n in 0..3 {
            trip.kill(n, n != 1);
        }
        trip.run(Time::from_secs(140));
        prop_assert_eq!(trip.used(), [1]);
        for n in 0..3 {
            trip.kill(n, false);
        }
        trip.run(Time::from_secs(140));
        prop_assert_eq!((trip.used().len(), trip.tcp.iter().flatten().count()), (1, 2), "and a spare");
    }
}

#[test]
fn a_handover_takes_little_time() {
    let mut trip = Trip::new(Profile::Handover, &[20, 40, 80]);
    trip.run(Time::from_secs(2));
    assert_eq!(trip.used(), [0]);
    assert!(trip.tcp[1].is_some() && trip.tcp[2].is_none(), "one spare");
    let died = trip.now;
    trip.kill(0, true);
    trip.run(Time::from_secs(3));
    assert_eq!(trip.used(), [1]);
    let (when, _) = *trip.changes.iter().find(|(when, n)| *when > died && *n == 1).unwrap();
    assert!(when - died < ms(700), "{:?}", when - died);
    assert!(trip.tcp[0].is_none() && trip.tcp[2].is_some(), "the dead one is replaced");
    trip.kill(0, false);
    trip.run(Time::from_secs(10));
    assert_eq!(trip.used(), [1], "it stays");
    trip.drop_subflow(1);
    trip.run(ms(100));
    assert_eq!(trip.used(), [2]);
}

#[test]
fn a_second_path_is_used_while_the_first_is_full() {
    let mut trip = Trip::new(Profile::Overflow, &[20, 40, 80]);
    trip.run(Time::from_secs(5));
    assert_eq!(trip.tcp.iter().flatten().count(), 1, "one does");
    trip.roads[0].full = true;
    trip.run(FULL - ms(100));
    trip.roads[0].full = false;
    trip.run(Time::from_secs(2));
    assert_eq!(trip.tcp.iter().flatten().count(), 1, "a moment is none");
    trip.roads[0].full = true;
    trip.run(FULL + ms(300));
    assert_eq!(trip.used(), [0, 1]);
    for n in 0..100 {
        trip.roads[0].full = n % 2 == 0;
        trip.run(SPARE / 2);
        assert_eq!(trip.used(), [0, 1], "it is full still, now and then");
    }
    trip.roads[0].full = false;
    trip.run(SPARE + ms(300));
    assert_eq!(trip.used(), [0]);
    assert!(trip.tcp[1].is_some(), "kept for the next time");
}
