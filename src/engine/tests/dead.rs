// SPDX-License-Identifier: MIT OR Apache-2.0
//! Paths that die, and paths that only seem to: a model of what TCP shows of
//! its subflows, to the millisecond, and an engine that looks at it.

use super::*;
use crate::engine::judge::Facts;

fn ms(millis: u64) -> Time {
    Time::from_millis(millis)
}

/// A random number of the model's own, below `bound`.
fn random(state: &mut u64, bound: u64) -> u64 {
    *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    (*state >> 33) % bound
}

/// How a path treats packets.
#[derive(Clone, Copy, Debug)]
struct Nature {
    /// Round trip of an empty path.
    rtt: u64,
    /// Packets lost of a thousand.
    loss: u64,
    /// Packets that it carries in a millisecond.
    rate: u64,
    /// Milliseconds of packets that wait before further ones are dropped.
    queue: u64,
    /// Packets of others in ten milliseconds, every other while of so many
    /// milliseconds.
    others: (u64, u64),
}

/// A subflow: a sender with slow start, recovery by what comes after a hole,
/// and retransmission timeouts, and the path it sends over.
#[derive(Clone, Debug)]
struct Tcp {
    nature: Nature,
    dead: bool,
    random: u64,
    /// When the path has carried all that waits.
    busy: f64,
    /// Packets out: number, when sent, when the answer comes, sent again.
    out: Vec<(u64, u64, Option<u64>, bool)>,
    next: u64,
    window: f64,
    threshold: f64,
    srtt: f64,
    mdev: f64,
    backoff: u32,
    timer: u64,
    last_ack: u64,
    last_sent: u64,
    facts: Facts,
}

impl Tcp {
    fn new(nature: Nature, seed: u64, now: u64) -> Self {
        Self {
            nature,
            dead: false,
            random: seed,
            busy: now as f64,
            out: Vec::new(),
            next: 0,
            window: 10.0,
            threshold: 1e9,
            srtt: nature.rtt as f64,
            mdev: nature.rtt as f64 / 4.0,
            backoff: 0,
            timer: 0,
            last_ack: now,
            last_sent: now,
            facts: Facts::default(),
        }
    }

    fn rto(&self) -> u64 {
        let base = self.srtt + (4.0 * self.mdev).max(200.0);
        ((base as u64) << self.backoff).min(120_000)
    }

    /// Sends a packet; when it will be answered, if it will.
    fn transmit(&mut self, now: u64) -> Option<u64> {
        self.last_sent = now;
        self.facts.segs_out += 1;
        self.facts.bytes_sent += 1400;
        self.busy = self.busy.max(now as f64);
        let lost = random(&mut self.random, 1000) < self.nature.loss;
        if self.dead || lost || self.busy - now as f64 > self.nature.queue as f64 {
            return None;
        }
        self.busy += 1.0 / self.nature.rate as f64;
        Some(self.busy as u64 + self.nature.rtt)
    }

    fn again(&mut self, at: usize, now: u64) {
        let answer = self.transmit(now);
        (self.out[at].1, self.out[at].2, self.out[at].3) = (now, answer, true);
        self.facts.total_retrans += 1;
        self.facts.bytes_retrans += 1400;
    }

    /// One millisecond; `supply` packets are there to be sent.
    fn step(&mut self, now: u64, supply: &mut u64) {
        let (packets, period) = self.nature.others;
        if packets > 0 && (now / period) % 2 == 1 && self.busy - (now as f64) < self.nature.queue as f64 {
            self.busy = self.busy.max(now as f64) + packets as f64 / 10.0 / self.nature.rate as f64;
        }
        if self.dead {
            // Nothing that is under way arrives.
            self.out.iter_mut().for_each(|packet| packet.2 = None);
        }
        let mut newest = None;
        while let Some(at) = self.out.iter().position(|p| p.2.is_some_and(|answer| answer <= now)) {
            let (number, sent, _, again) = self.out.remove(at);
            self.last_ack = now;
            self.facts.bytes_acked += 1400;
            newest = newest.max(Some(number));
            let trip = (now - sent) as f64;
            if !again {
                self.mdev += ((trip - self.srtt).abs() - self.mdev) / 4.0;
                self.srtt += (trip - self.srtt) / 8.0;
            }
            self.backoff = 0;
            self.window += if self.window < self.threshold { 1.0 } else { 1.0 / self.window };
            self.timer = now + self.rto();
        }
        if let Some(newest) = newest {
            // What was sent well before an answered packet is lost.
            let holes: Vec<usize> =
                (0..self.out.len()).filter(|at| self.out[*at].0 + 3 <= newest && !self.out[*at].3).collect();
            if !holes.is_empty() {
                self.threshold = (self.window / 2.0).max(2.0);
                self.window = self.threshold;
            }
            holes.into_iter().for_each(|at| self.again(at, now));
        }
        if !self.out.is_empty() && now >= self.timer {
            self.backoff += 1;
            self.threshold = (self.window / 2.0).max(2.0);
            self.window = 1.0;
            self.again(0, now);
            // The rest counts as lost and is sent again as the window opens.
            self.timer = now + self.rto();
        }
        while *supply > 0 && (self.out.len() as f64) < self.window && self.backoff == 0 {
            *supply -= 1;
            if self.out.is_empty() {
                self.timer = now + self.rto();
            }
            let answer = self.transmit(now);
            self.out.push((self.next, now, answer, false));
            self.next += 1;
        }
    }

    fn facts(&self, now: u64) -> Facts {
        // The kernel counts these in ticks of 4 ms.
        let since = |then: u64| ms((now / 4 * 4).saturating_sub(then / 4 * 4));
        Facts {
            unacked: self.out.len() as u32,
            backoff: self.backoff,
            rto: ms(self.rto()),
            rtt: ms(self.srtt as u64),
            rttvar: ms(self.mdev as u64),
            since_ack: since(self.last_ack),
            since_sent: since(self.last_sent),
            ..self.facts
        }
    }
}

/// What an application sends.
#[derive(Clone, Copy, Debug)]
enum Load {
    /// All that goes.
    Bulk,
    /// So many packets for each subflow, every so many milliseconds.
    Thin(u64, u64),
}

/// A connection over several paths, its engine, and what happened.
struct Net {
    engine: Engine,
    now: u64,
    paths: Vec<Nature>,
    /// The subflow over each path, where there is one.
    tcp: Vec<Option<Tcp>>,
    /// Paths that carry nothing.
    dead: Vec<bool>,
    load: Load,
    looks: u64,
    destroyed: Vec<(u64, usize)>,
}

impl Net {
    fn new(paths: &[Nature], seed: u64, load: Load) -> Self {
        let mut engine = Engine::default();
        let now = 1000;
        let entries = (0..paths.len()).map(|n| local(n).into()).collect();
        engine.handle(Event::Request { id: 1, key: KEY, request: Request::Add(entries) }, ms(now));
        let initial = Self::seen(addr::with_port(local(0), 40000), true);
        engine.handle(Event::Created { token: TOKEN, key: KEY, initial, server: false }, ms(now));
        engine.handle(Event::Established { token: TOKEN }, ms(now));
        let tcp = paths.iter().zip(seed..).map(|(nature, seed)| Some(Tcp::new(*nature, seed, now))).collect();
        let dead = vec![false; paths.len()];
        let mut net =
            Self { engine, now, paths: paths.to_vec(), tcp, dead, load, looks: 0, destroyed: Vec::new() };
        net.pump();
        net
    }

    fn seen(local: SocketAddr, initial: bool) -> Seen {
        let port = if local.port() == 0 { 41000 } else { local.port() };
        Seen {
            local: addr::with_port(local, port),
            remote: remote(0),
            local_id: 0,
            remote_id: 0,
            up: true,
            initial,
            backup: None,
        }
    }

    fn pump(&mut self) {
        let now = ms(self.now);
        while let Some(Command { tag, action, .. }) = self.engine.poll_command() {
            let of = |l: SocketAddr| (0..self.paths.len()).find(|n| addr::same_ip(&local(*n), &l)).unwrap();
            match action {
                Action::Watch { local, .. } => {
                    self.looks += 1;
                    let facts = self.tcp[of(local)].as_ref().map(|tcp| tcp.facts(self.now));
                    self.engine.handle(Event::Watched { tag, facts }, now);
                    continue;
                }
                Action::Create { local, id, .. } => {
                    let n = of(local);
                    self.engine.handle(Event::Done { tag, outcome: Outcome::Taken }, now);
                    let subflow = Seen { local_id: id, ..Self::seen(local, false) };
                    if self.dead[n] {
                        let Seen { local, remote, .. } = subflow;
                        self.engine.handle(Event::SubflowDown { token: TOKEN, local, remote, error: 0 }, now);
                    } else {
                        self.tcp[n] = Some(Tcp::new(self.paths[n], self.now, self.now));
                        self.engine.handle(Event::SubflowUp { token: TOKEN, subflow }, now);
                    }
                    continue;
                }
                Action::Destroy { local, .. } => {
                    let n = of(local);
                    assert!(self.tcp.iter().flatten().count() > 1, "never the last");
                    self.tcp[n] = None;
                    self.destroyed.push((self.now, n));
                }
                _ => {}
            }
            self.engine.handle(Event::Done { tag, outcome: Outcome::Taken }, now);
        }
    }

    fn run(&mut self, millis: u64) {
        for _ in 0..millis {
            self.now += 1;
            for (tcp, dead) in self.tcp.iter_mut().zip(&self.dead) {
                let Some(tcp) = tcp else { continue };
                tcp.dead = *dead;
                let mut supply = match self.load {
                    Load::Bulk => 1000,
                    Load::Thin(packets, every) if self.now.is_multiple_of(every) => packets,
                    Load::Thin(..) => 0,
                };
                tcp.step(self.now, &mut supply);
            }
            if self.engine.next_timeout().is_some_and(|due| due <= ms(self.now)) {
                self.engine.handle(Event::Tick, ms(self.now));
                self.pump();
            }
        }
    }

    fn last_ack(&self, n: usize) -> u64 {
        self.tcp[n].as_ref().unwrap().last_ack
    }
}

fn clean() -> impl Strategy<Value = Nature> {
    (10u64..=50).prop_map(|rtt| Nature { rtt, loss: 0, rate: 2, queue: 20, others: (0, 1) })
}

fn bloated() -> impl Strategy<Value = Nature> {
    (10u64..=100, 300u64..4000, 0u64..10, 500u64..4000).prop_map(|(rtt, queue, others, period)| Nature {
        rtt,
        loss: 0,
        rate: 1,
        queue,
        others: (others, period),
    })
}

fn lossy() -> impl Strategy<Value = Nature> {
    (10u64..=100, 50u64..=100).prop_map(|(rtt, loss)| Nature {
        rtt,
        loss,
        rate: 2,
        queue: 100,
        others: (0, 1),
    })
}

fn load() -> impl Strategy<Value = Load> {
    prop_oneof![Just(Load::Bulk), (1u64..5, 50u64..2000).prop_map(|(n, every)| Load::Thin(n, every))]
}

/// Random nets a property.
fn nets() -> u32 {
    (worlds() / 400).max(10)
}

proptest! {
    #![proptest_config(simulation(nets()))]

    #[test]
    fn a_clean_path_that_drops_everything_is_left_within_half_a_second(
        paths in proptest::collection::vec(clean(), 2..4),
        seed in any::<u32>(),
        before in 3000u64..10_000,
    ) {
        let mut net = Net::new(&paths, seed.into(), Load::Bulk);
        net.run(before);
        prop_assert!(net.destroyed.is_empty());
        net.dead[0] = true;
        net.run(10);
        let silent = net.last_ack(0);
        net.run(1000);
        let (when, which) = net.destroyed[0];
        prop_assert_eq!(which, 0);
        prop_assert!(when - silent <= 450, "{} ms", when - silent);
        // Tried again and again until it answers, then used as before.
        net.run(5_000);
        prop_assert!(net.tcp[0].is_none());
        net.dead[0] = false;
        net.run(10_000);
        prop_assert!(net.tcp[0].is_some());
        prop_assert_eq!(net.destroyed.len(), 1);
    }

    #[test]
    fn a_slow_path_is_no_dead_one(
        slow in bloated(),
        other in prop_oneof![clean(), bloated()],
        seed in any::<u32>(),
        load in load(),
    ) {
        let mut net = Net::new(&[slow, other], seed.into(), load);
        net.run(20_000);
        prop_assert!(net.destroyed.is_empty(), "{:?}", net.destroyed);
    }

    #[test]
    fn a_lossy_path_is_no_dead_one(
        lossy in lossy(),
        other in prop_oneof![clean(), lossy()],
        seed in any::<u32>(),
        load in load(),
    ) {
        let mut net = Net::new(&[lossy, other], seed.into(), load);
        net.run(20_000);
        prop_assert!(net.destroyed.is_empty(), "{:?}", net.destroyed);
    }

    #[test]
    fn the_last_path_is_never_left(
        paths in proptest::collection::vec(prop_oneof![clean(), lossy()], 2..4),
        seed in any::<u32>(),
        deaths in proptest::collection::vec((0usize..3, any::<bool>(), 10u64..3000), 1..12),
    ) {
        let mut net = Net::new(&paths, seed.into(), Load::Bulk);
        for (n, dead, then) in deaths {
            let n = n % paths.len();
            net.dead[n] = dead;
            net.run(then);
        }
    }
}

#[test]
fn an_outage_of_all_paths_leaves_them_as_they_are() {
    let nature = Nature { rtt: 20, loss: 0, rate: 2, queue: 20, others: (0, 1) };
    let mut net = Net::new(&[nature, Nature { rtt: 90, ..nature }], 1, Load::Bulk);
    net.run(2000);
    net.dead = vec![true, true];
    net.run(20_000);
    assert!(net.destroyed.is_empty());
    let before = net.looks;
    net.run(60_000);
    assert!(net.looks - before < 100, "{} looks in a minute without any answer", net.looks - before);
}

#[test]
fn idle_paths_are_looked_at_seldom() {
    let nature = Nature { rtt: 20, loss: 0, rate: 2, queue: 20, others: (0, 1) };
    let mut net = Net::new(&[nature, nature], 1, Load::Thin(0, 1000));
    net.run(20_000);
    let before = net.looks;
    net.run(60_000);
    assert_eq!(net.looks - before, 30, "two subflows, every four seconds");
}
