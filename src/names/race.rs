// SPDX-License-Identifier: MIT OR Apache-2.0
//! Happy Eyeballs (RFC 8305 section 5) with two lanes for each address: an
//! attempt by Multipath TCP, and one by TCP that races it after a head start.
//!
//! Sans-IO: it is told the time and what became of attempts, and says which
//! attempt to start, which to stop, how long to wait, and who has won. An
//! address is one host and never joined with another.

use crate::error::Errno;
use std::time::Duration;

/// Time on a clock that never goes back.
pub type Time = Duration;

/// By which protocol an attempt is made, the better one first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Multipath TCP, which may fall back to TCP by itself.
    Multipath,
    /// TCP.
    Tcp,
}

/// One attempt; the order is its rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt {
    /// The address by its place in the list, best first.
    pub address: usize,
    /// The protocol.
    pub lane: Lane,
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is connected; `multipath` tells whether by Multipath TCP.
    Connected {
        /// It did not fall back.
        multipath: bool,
    },
    /// It is over.
    Failed(Errno),
}

/// The rules of a race.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Lanes that are open.
    pub multipath: bool,
    /// The same for TCP.
    pub tcp: bool,
    /// From one address to the next, while none fails sooner.
    pub attempt_delay: Time,
    /// How long an attempt by Multipath TCP is one: after that its SYNs would
    /// ask for TCP alone, and an answer be held against Multipath TCP.
    pub limit: Option<Time>,
    /// One attempt at a time, so long each while others wait: for those that
    /// share a local port.
    pub turn: Option<Time>,
    /// When all is over.
    pub deadline: Option<Time>,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Start this attempt.
    Start(Attempt),
    /// End this attempt: it has failed.
    Stop(Attempt),
    /// Wait for an attempt's outcome, until this time at most.
    Wait(Option<Time>),
    /// The race is won by this attempt, or by none; all others are to be ended.
    Over(Option<Attempt>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Its lane is closed.
    Closed,
    Waiting,
    Running(Time),
    Connected {
        multipath: bool,
    },
    Failed(Errno),
}

#[derive(Clone, Debug)]
struct Address {
    /// Head start of Multipath TCP.
    head_start: Time,
    multipath: State,
    tcp: State,
    /// The errno of the attempt that failed last.
    last: Option<Errno>,
}

impl Address {
    fn state(&self, lane: Lane) -> State {
        match lane {
            Lane::Multipath => self.multipath,
            Lane::Tcp => self.tcp,
        }
    }

    fn failed(&self) -> bool {
        [self.multipath, self.tcp].iter().all(|state| matches!(state, State::Closed | State::Failed(_)))
    }

    /// The attempt that begins it.
    fn first(&self) -> Lane {
        if self.multipath == State::Closed { Lane::Tcp } else { Lane::Multipath }
    }
}

/// A race between attempts.
#[derive(Clone, Debug)]
pub struct Race {
    plan: Plan,
    addresses: Vec<Address>,
    /// Addresses that have begun, and when the last of them did.
    begun: usize,
    begun_at: Time,
    over: Option<Option<Attempt>>,
    timed_out: bool,
}

impl Race {
    /// A race to these addresses, best first, each by Multipath TCP's head
    /// start there.
    pub fn new(head_starts: &[Time], plan: Plan) -> Self {
        let lane = |open| if open { State::Waiting } else { State::Closed };
        let address = |head_start: &Time| Address {
            head_start: *head_start,
            multipath: lane(plan.multipath),
            tcp: lane(plan.tcp),
            last: None,
        };
        Self {
            plan,
            addresses: head_starts.iter().map(address).collect(),
            begun: 0,
            begun_at: Time::ZERO,
            over: None,
            timed_out: false,
        }
    }

    /// Tells that an attempt's first packet is out now: from here on its time
    /// counts. Making its socket can take a while.
    pub fn is_out(&mut self, attempt: Attempt, now: Time) {
        if let State::Running(since) = self.state(attempt) {
            self.set(attempt, State::Running(now));
            if attempt.address + 1 == self.begun && since == self.begun_at {
                self.begun_at = now;
            }
        }
    }

    /// Tells what became of an attempt; one that is not running is left alone.
    pub fn report(&mut self, attempt: Attempt, outcome: Outcome) {
        let state = match outcome {
            Outcome::Connected { multipath } => State::Connected { multipath },
            Outcome::Failed(errno) => State::Failed(errno),
        };
        if matches!(self.state(attempt), State::Running(_)) {
            self.set(attempt, state);
        }
    }

    /// What is to be done now; asked again after each answer but the last.
    pub fn poll(&mut self, now: Time) -> Step {
        if let Some(winner) = self.over {
            return Step::Over(winner);
        }
        if let Some(winner) = self.winner() {
            return self.end(Some(winner));
        }
        if self.plan.deadline.is_some_and(|deadline| deadline <= now) {
            self.timed_out = true;
            return self.end(None);
        }
        let ended = self.ends().find(|(_, at)| *at <= now);
        if let Some((attempt, _)) = ended {
            self.set(attempt, State::Failed(Errno(libc::ETIMEDOUT)));
            return Step::Stop(attempt);
        }
        let due = self.starts(now).find(|(_, at)| *at <= now);
        if let Some((attempt, _)) = due {
            if attempt.address == self.begun {
                self.begun += 1;
                self.begun_at = now;
            }
            self.set(attempt, State::Running(now));
            return Step::Start(attempt);
        }
        if !self.running() {
            return self.end(None);
        }
        let moments = self.starts(now).chain(self.ends()).map(|(_, at)| at);
        Step::Wait(moments.chain(self.plan.deadline).min())
    }

    fn end(&mut self, winner: Option<Attempt>) -> Step {
        self.over = Some(winner);
        Step::Over(winner)
    }

    /// When attempts are to start that have not. Something is due at once
    /// where nothing runs.
    fn starts(&self, now: Time) -> impl Iterator<Item = (Attempt, Time)> + '_ {
        let serial = self.plan.turn.is_some();
        let busy = serial && self.running();
        let tcp = self.addresses.iter().take(self.begun).enumerate().filter_map(move |(address, lanes)| {
            let at = match (lanes.multipath, lanes.tcp) {
                (State::Running(since), State::Waiting) => since.saturating_add(lanes.head_start),
                (_, State::Waiting) => now,
                _ => return None,
            };
            Some((Attempt { address, lane: Lane::Tcp }, at))
        });
        let next = self.addresses.get(self.begun).map(|lanes| {
            let before = self.begun.checked_sub(1).and_then(|before| self.addresses.get(before));
            let at = match before {
                Some(before) if !before.failed() => self.begun_at.saturating_add(self.plan.attempt_delay),
                _ => now,
            };
            (Attempt { address: self.begun, lane: lanes.first() }, at)
        });
        let due = move |(attempt, at)| if serial { (attempt, now) } else { (attempt, at) };
        tcp.chain(next).map(due).filter(move |_| !busy)
    }

    /// When running attempts have had their time.
    fn ends(&self) -> impl Iterator<Item = (Attempt, Time)> + '_ {
        let others = self.begun < self.addresses.len()
            || self.addresses.iter().take(self.begun).any(|lanes| lanes.tcp == State::Waiting);
        let turn = self.plan.turn.filter(|_| others);
        self.attempts().filter_map(move |attempt| {
            let State::Running(since) = self.state(attempt) else { return None };
            let limit = self.plan.limit.filter(|_| attempt.lane == Lane::Multipath);
            let time = limit.into_iter().chain(turn).min()?;
            Some((attempt, since.saturating_add(time)))
        })
    }

    /// Of those that are connected: one by Multipath TCP before one by TCP,
    /// then the better address.
    fn winner(&self) -> Option<Attempt> {
        let connected = self.attempts().filter_map(|attempt| match self.state(attempt) {
            State::Connected { multipath } => Some((!multipath, attempt)),
            _ => None,
        });
        connected.min().map(|(_, attempt)| attempt)
    }

    fn running(&self) -> bool {
        self.attempts().any(|attempt| matches!(self.state(attempt), State::Running(_)))
    }

    /// All attempts that may be made, by rank.
    pub fn attempts(&self) -> impl Iterator<Item = Attempt> + use<> {
        (0..self.addresses.len())
            .flat_map(|address| [Lane::Multipath, Lane::Tcp].map(|lane| Attempt { address, lane }))
    }

    fn state(&self, attempt: Attempt) -> State {
        self.addresses.get(attempt.address).map_or(State::Closed, |lanes| lanes.state(attempt.lane))
    }

    fn set(&mut self, attempt: Attempt, state: State) {
        let Some(lanes) = self.addresses.get_mut(attempt.address) else { return };
        match attempt.lane {
            Lane::Multipath => lanes.multipath = state,
            Lane::Tcp => lanes.tcp = state,
        }
        if let State::Failed(errno) = state {
            lanes.last = Some(errno);
        }
    }

    /// Whether the attempt was started and has had no answer.
    pub fn unanswered(&self, attempt: Attempt) -> bool {
        matches!(self.state(attempt), State::Running(_))
    }

    /// Why the attempt failed, if it did.
    pub fn failure(&self, attempt: Attempt) -> Option<Errno> {
        match self.state(attempt) {
            State::Failed(errno) => Some(errno),
            _ => None,
        }
    }

    /// The errno of a race that nobody has won: ETIMEDOUT where its time ran
    /// out, else that of the attempt to the best address that failed last.
    pub fn errno(&self) -> Errno {
        match self.addresses.first().and_then(|lanes| lanes.last) {
            Some(errno) if !self.timed_out => errno,
            _ => Errno(libc::ETIMEDOUT),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const fn ms(n: u64) -> Time {
        Time::from_millis(n)
    }

    /// What the network has in store for an attempt, and when after its start.
    #[derive(Clone, Copy, Debug)]
    enum Fate {
        Answered(u64, bool),
        Refused(u64),
        Silent,
    }

    fn fate() -> impl Strategy<Value = Fate> {
        let time = prop_oneof![Just(0u64), 0..400u64, 0..5000u64];
        prop_oneof![
            (time.clone(), any::<bool>()).prop_map(|(at, multipath)| Fate::Answered(at, multipath)),
            time.prop_map(Fate::Refused),
            Just(Fate::Silent),
            Just(Fate::Silent),
        ]
    }

    #[derive(Clone, Debug)]
    struct World {
        fates: Vec<(Fate, Fate)>,
        head_starts: Vec<u64>,
        plan: Plan,
        /// How late the driver looks, time by time.
        lags: Vec<u64>,
        /// How long a start takes.
        start: u64,
    }

    fn world() -> impl Strategy<Value = World> {
        let option = |range: std::ops::Range<u64>| proptest::option::of(range.prop_map(ms));
        let plan = (
            prop_oneof![Just((true, true)), Just((true, false)), Just((false, true))],
            10..600u64,
            option(1..3000),
            option(1..3000),
            option(1..6000),
        );
        let plan = plan.prop_map(|((multipath, tcp), delay, limit, turn, deadline)| Plan {
            multipath,
            tcp,
            attempt_delay: ms(delay),
            limit,
            turn,
            deadline,
        });
        (1..6usize).prop_flat_map(move |n| {
            (
                proptest::collection::vec((fate(), fate()), n),
                proptest::collection::vec(0..400u64, n),
                plan.clone(),
                proptest::collection::vec(0..30u64, 8),
                prop_oneof![Just(0), 0..40u64],
            )
                .prop_map(|(fates, head_starts, plan, lags, start)| World {
                    fates,
                    head_starts,
                    plan,
                    lags,
                    start,
                })
        })
    }

    fn open(plan: &Plan, attempt: &Attempt) -> bool {
        if attempt.lane == Lane::Tcp { plan.tcp } else { plan.multipath }
    }

    /// What happened, in order.
    #[derive(Debug, Default)]
    struct Story {
        begun: BTreeMap<Attempt, Time>,
        /// When their first packets were out.
        started: BTreeMap<Attempt, Time>,
        ended: BTreeMap<Attempt, (Time, Outcome)>,
        stopped: BTreeMap<Attempt, Time>,
        winner: Option<Attempt>,
        end: Time,
        most_running: usize,
    }

    impl World {
        fn run(&self) -> (Race, Story) {
            let head_starts: Vec<Time> = self.head_starts.iter().map(|n| ms(*n)).collect();
            let mut race = Race::new(&head_starts, self.plan);
            let mut story = Story::default();
            let mut due: BTreeMap<Attempt, (Time, Outcome)> = BTreeMap::new();
            let mut running: Vec<Attempt> = Vec::new();
            let mut lags = self.lags.iter().cycle();
            // Silent attempts end some day, as the kernel's do.
            let forever = ms(130_000);
            let mut now = ms(1000);
            for _ in 0..10_000 {
                let here: Vec<Attempt> =
                    due.iter().filter(|(_, (at, _))| *at <= now).map(|(attempt, _)| *attempt).collect();
                for attempt in here {
                    let (_, outcome) = due.remove(&attempt).unwrap();
                    running.retain(|other| *other != attempt);
                    story.ended.insert(attempt, (now, outcome));
                    race.report(attempt, outcome);
                }
                match race.poll(now) {
                    Step::Start(attempt) => {
                        story.begun.insert(attempt, now);
                        now += ms(self.start);
                        race.is_out(attempt, now);
                        assert!(story.started.insert(attempt, now).is_none(), "{attempt:?} twice");
                        running.push(attempt);
                        story.most_running = story.most_running.max(running.len());
                        let (multipath, tcp) = self.fates[attempt.address];
                        let lane = if attempt.lane == Lane::Multipath { multipath } else { tcp };
                        let (after, outcome) = match lane {
                            Fate::Answered(after, multipath) => {
                                let multipath = multipath && attempt.lane == Lane::Multipath;
                                (ms(after), Outcome::Connected { multipath })
                            }
                            Fate::Refused(after) => (ms(after), Outcome::Failed(Errno(libc::ECONNREFUSED))),
                            Fate::Silent => (forever, Outcome::Failed(Errno(libc::ETIMEDOUT))),
                        };
                        due.insert(attempt, (now + after, outcome));
                    }
                    Step::Stop(attempt) => {
                        assert!(running.contains(&attempt));
                        running.retain(|other| *other != attempt);
                        due.remove(&attempt);
                        story.stopped.insert(attempt, now);
                    }
                    Step::Wait(until) => {
                        assert!(until.is_none_or(|until| until > now), "a wait until {until:?} at {now:?}");
                        let first = due.values().map(|(at, _)| *at).chain(until).min();
                        now =
                            first.expect("nothing can happen any more").max(now) + ms(*lags.next().unwrap());
                    }
                    Step::Over(winner) => {
                        story.winner = winner;
                        story.end = now;
                        assert_eq!(race.poll(now), Step::Over(winner), "what is over stays so");
                        return (race, story);
                    }
                }
            }
            panic!("the race does not end");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn any_order_of_outcomes(world in world()) {
            let (race, story) = world.run();
            let plan = &world.plan;
            let lag = ms(30 + world.start);
            let n = world.fates.len();
            prop_assert!(story.started.len() <= n * (usize::from(plan.multipath) + usize::from(plan.tcp)));
            for attempt in story.started.keys() {
                prop_assert!(open(plan, attempt));
            }

            // The first to be seen connected wins; of several the best.
            let connected = || story.ended.iter().filter_map(|(attempt, (at, outcome))| match outcome {
                Outcome::Connected { multipath } => Some((*at, !multipath, *attempt)),
                Outcome::Failed(_) => None,
            });
            prop_assert_eq!(story.winner, connected().min().map(|(_, _, attempt)| attempt));
            prop_assert!(connected().all(|(at, _, _)| at == story.end));

            // Bounded in time, also by what a Multipath TCP attempt may take.
            if let Some(deadline) = plan.deadline {
                prop_assert!(story.end <= deadline.max(ms(1000)) + lag);
            }
            for (attempt, since) in &story.started {
                let end = story.ended.get(attempt).map(|(at, _)| *at);
                let end = end.or(story.stopped.get(attempt).copied()).unwrap_or(story.end);
                if let Some(limit) = plan.limit && attempt.lane == Lane::Multipath {
                    prop_assert!(end <= *since + limit + lag);
                }
            }
            for (attempt, at) in &story.stopped {
                let time = (attempt.lane == Lane::Multipath).then_some(plan.limit).flatten();
                let time = time.into_iter().chain(plan.turn).min();
                prop_assert!(time.is_some_and(|time| *at >= story.started[attempt] + time));
            }

            // Nobody starts before its time.
            if plan.turn.is_some() {
                prop_assert!(story.most_running <= 1);
            } else {
                let ended = |attempt: &Attempt| {
                    story.ended.get(attempt).map(|(at, _)| *at).or(story.stopped.get(attempt).copied())
                };
                for (attempt, at) in &story.begun {
                    let multipath = Attempt { lane: Lane::Multipath, ..*attempt };
                    if attempt.lane == Lane::Tcp && plan.multipath {
                        let head_start = story.started[&multipath] + ms(world.head_starts[attempt.address]);
                        prop_assert!(*at >= head_start || ended(&multipath).is_some_and(|end| end <= *at));
                    } else if attempt.address > 0 {
                        let before = attempt.address - 1;
                        let lanes = [Lane::Multipath, Lane::Tcp].map(|lane| Attempt { address: before, lane });
                        let begun = lanes.iter().filter_map(|lane| story.started.get(lane)).min().unwrap();
                        let mut open = lanes.iter().filter(|lane| open(plan, lane));
                        let all_failed = open.all(|lane| ended(lane).is_some_and(|end| end <= *at));
                        prop_assert!(*at >= *begun + plan.attempt_delay || all_failed);
                    }
                }
            }

            // Without a winner each attempt was made and failed, unless time
            // ran out; and each one's failure is known.
            if story.winner.is_none() {
                let timed_out = plan.deadline.is_some_and(|deadline| story.end >= deadline);
                for attempt in race.attempts() {
                    let over = race.failure(attempt).is_some();
                    prop_assert!(over || timed_out || !open(plan, &attempt));
                    let known = over || race.unanswered(attempt);
                    prop_assert_eq!(known, story.started.contains_key(&attempt));
                }
                let errno = race.errno();
                if timed_out {
                    prop_assert_eq!(errno, Errno(libc::ETIMEDOUT));
                } else {
                    let first = race.attempts().filter(|a| a.address == 0);
                    prop_assert!(first.filter_map(|a| race.failure(a)).any(|e| e == errno));
                }
            }
        }
    }

    fn plan() -> Plan {
        Plan {
            multipath: true,
            tcp: true,
            attempt_delay: ms(250),
            limit: Some(ms(2750)),
            turn: None,
            deadline: None,
        }
    }

    fn story(fates: &[(Fate, Fate)], plan: Plan) -> Story {
        let head_starts = vec![150; fates.len()];
        World { fates: fates.to_vec(), head_starts, plan, lags: vec![0], start: 0 }.run().1
    }

    fn at(story: &Story, address: usize, lane: Lane) -> Option<u64> {
        story.started.get(&Attempt { address, lane }).map(|at| at.as_millis() as u64 - 1000)
    }

    #[test]
    fn an_eaten_option_costs_the_head_start() {
        let story = story(&[(Fate::Silent, Fate::Answered(20, false))], plan());
        assert_eq!(story.winner, Some(Attempt { address: 0, lane: Lane::Tcp }));
        assert_eq!(story.end, ms(1170));
    }

    #[test]
    fn a_dead_address_costs_the_stagger() {
        let dead = (Fate::Silent, Fate::Silent);
        let story = story(&[dead, (Fate::Answered(20, true), Fate::Answered(20, false))], plan());
        assert_eq!(story.winner, Some(Attempt { address: 1, lane: Lane::Multipath }));
        assert_eq!((at(&story, 0, Lane::Tcp), at(&story, 1, Lane::Multipath)), (Some(150), Some(250)));
        assert_eq!(story.end, ms(1270));
    }

    #[test]
    fn a_refusal_costs_nothing_but_its_own_time() {
        let refused = (Fate::Refused(10), Fate::Refused(10));
        let story = story(&[refused, (Fate::Answered(20, true), Fate::Silent)], plan());
        assert_eq!((at(&story, 0, Lane::Tcp), at(&story, 1, Lane::Multipath)), (Some(10), Some(20)));
        assert_eq!(story.end, ms(1040));
    }

    #[test]
    fn multipath_is_preferred_where_both_are_there() {
        let plan = Plan { attempt_delay: ms(10), ..plan() };
        let world = World {
            fates: vec![(Fate::Silent, Fate::Answered(50, false)), (Fate::Answered(40, true), Fate::Silent)],
            head_starts: vec![10, 10],
            plan,
            lags: vec![20],
            start: 0,
        };
        let story = world.run().1;
        assert_eq!(story.winner, Some(Attempt { address: 1, lane: Lane::Multipath }));
    }

    #[test]
    fn one_at_a_time_where_a_port_is_shared() {
        let plan = Plan { turn: Some(ms(3000)), ..plan() };
        let dead = (Fate::Silent, Fate::Silent);
        let story = story(&[dead, (Fate::Silent, Fate::Answered(20, false))], plan);
        assert_eq!(story.most_running, 1);
        assert_eq!(story.winner, Some(Attempt { address: 1, lane: Lane::Tcp }));
        assert_eq!(story.end, ms(1000 + 2750 + 3000 + 2750 + 20));
    }

    #[test]
    fn no_address_no_race() {
        let mut race = Race::new(&[], plan());
        assert_eq!(race.poll(ms(5)), Step::Over(None));
    }
}
