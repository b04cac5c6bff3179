// SPDX-License-Identifier: MIT OR Apache-2.0
//! Paths that die, and paths that only seem to: a model of what TCP shows of
//! its subflows, to the millisecond, and an engine that looks at it.

use super::*;
use crate::engine::judge::Facts;
use std::collections::{BTreeSet, VecDeque};

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
    /// It carries nothing for so long, once in so many milliseconds; what is
    /// under way is late by as much.
    pause: (u64, u64),
}

/// Clean and quick.
const NATURE: Nature = Nature { rtt: 20, loss: 0, rate: 2, queue: 20, others: (0, 1), pause: (0, 1) };

/// Packets that a connection may have that are not acknowledged, and a subflow
/// that wait for their turn.
const BUFFER: u64 = 3000;
const ROOM: usize = 1500;

/// A packet that is out.
#[derive(Clone, Copy, Debug)]
struct Packet {
    number: u64,
    /// Its place in the connection's stream.
    data: u64,
    sent: u64,
    /// When the answer comes, if it does.
    answer: Option<u64>,
    again: bool,
}

/// A subflow: a sender with slow start, recovery by what comes after a hole,
/// a probe of the tail, and retransmission timeouts, and the path it sends over.
#[derive(Clone, Debug)]
struct Tcp {
    nature: Nature,
    dead: bool,
    /// The connection gives it nothing until it is answered again.
    stale: bool,
    random: u64,
    /// When the path has carried all that waits.
    busy: f64,
    out: Vec<Packet>,
    /// What waits for its turn.
    queue: VecDeque<u64>,
    next: u64,
    window: f64,
    threshold: f64,
    /// One reduction does for all packets up to this one.
    reduced: u64,
    srtt: f64,
    mdev: f64,
    backoff: u32,
    timer: u64,
    /// When the probe is due, if it is.
    probe: Option<u64>,
    last_ack: u64,
    last_sent: u64,
    facts: Facts,
}

impl Tcp {
    fn new(nature: Nature, seed: u64, now: u64) -> Self {
        Self {
            nature,
            dead: false,
            stale: false,
            random: seed,
            busy: now as f64,
            out: Vec::new(),
            queue: VecDeque::new(),
            next: 0,
            window: 10.0,
            threshold: 1e9,
            reduced: 0,
            srtt: nature.rtt as f64,
            mdev: nature.rtt as f64 / 4.0,
            backoff: 0,
            timer: 0,
            probe: None,
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
        let packet = &mut self.out[at];
        (packet.sent, packet.answer, packet.again) = (now, answer, true);
        self.facts.total_retrans += 1;
        self.facts.bytes_retrans += 1400;
    }

    /// Sets the timers anew: the probe comes first, unless something is sent
    /// again already.
    fn rearm(&mut self, now: u64) {
        self.timer = now + self.rto();
        let wait = 2 * self.srtt as u64 + if self.out.len() == 1 { 200 } else { 8 };
        let calm = self.backoff == 0 && !self.out.is_empty() && self.out.iter().all(|packet| !packet.again);
        self.probe = calm.then_some(now + wait).filter(|probe| *probe < self.timer);
    }

    /// One millisecond; what was acknowledged.
    fn step(&mut self, now: u64) -> Vec<u64> {
        let (packets, period) = self.nature.others;
        if packets > 0 && (now / period) % 2 == 1 && self.busy - (now as f64) < self.nature.queue as f64 {
            self.busy = self.busy.max(now as f64) + packets as f64 / 10.0 / self.nature.rate as f64;
        }
        let (pause, every) = self.nature.pause;
        if pause > 0 && now.is_multiple_of(every) {
            self.busy = self.busy.max(now as f64) + pause as f64;
            self.out.iter_mut().for_each(|packet| packet.answer = packet.answer.map(|answer| answer + pause));
        }
        if self.dead {
            // Nothing that is under way arrives.
            self.out.iter_mut().for_each(|packet| packet.answer = None);
        }
        let mut acked = Vec::new();
        let mut newest = None;
        while let Some(at) = self.out.iter().position(|p| p.answer.is_some_and(|answer| answer <= now)) {
            let packet = self.out.remove(at);
            self.last_ack = now;
            self.stale = false;
            self.facts.bytes_acked += 1400;
            acked.push(packet.data);
            newest = newest.max(Some((packet.number, packet.sent)));
            let trip = (now - packet.sent) as f64;
            if !packet.again {
                self.mdev += ((trip - self.srtt).abs() - self.mdev) / 4.0;
                self.srtt += (trip - self.srtt) / 8.0;
            }
            self.backoff = 0;
            self.window += if self.window < self.threshold { 1.0 } else { 1.0 / self.window };
        }
        if let Some((newest, sent)) = newest {
            // What was sent well before an answered packet is lost.
            let early = self.srtt as u64 / 4;
            let lost = |packet: &Packet| match packet.again {
                false => packet.number + 3 <= newest,
                true => packet.sent + early < sent,
            };
            let holes: Vec<usize> = (0..self.out.len()).filter(|at| lost(&self.out[*at])).collect();
            if holes.iter().any(|at| self.out[*at].number >= self.reduced) {
                self.threshold = (self.window / 2.0).max(2.0);
                (self.window, self.reduced) = (self.threshold, self.next);
            }
            holes.into_iter().for_each(|at| self.again(at, now));
            self.rearm(now);
        }
        if self.probe.is_some_and(|probe| now >= probe) && !self.out.is_empty() {
            self.again(self.out.len() - 1, now);
            self.rearm(now);
        }
        if !self.out.is_empty() && now >= self.timer {
            self.backoff += 1;
            self.threshold = (self.window / 2.0).max(2.0);
            self.window = 1.0;
            self.again(0, now);
            // The rest counts as lost and is sent again as the window opens.
            self.rearm(now);
        }
        while (self.out.len() as f64) < self.window
            && self.backoff == 0
            && let Some(data) = self.queue.pop_front()
        {
            let first = self.out.is_empty();
            let answer = self.transmit(now);
            self.out.push(Packet { number: self.next, data, sent: now, answer, again: false });
            self.next += 1;
            if first {
                self.rearm(now);
            }
        }
        acked
    }

    fn facts(&self, now: u64) -> Facts {
        // The kernel counts these in ticks of 4 ms.
        let since = |then: u64| ms((now / 4 * 4).saturating_sub(then / 4 * 4));
        Facts {
            unacked: self.out.len() as u32,
            flight: if self.backoff == 0 { self.out.len() as u32 } else { 1 },
            notsent: self.queue.len() as u32 * 1400,
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
    /// All that goes at once on each subflow.
    Bulk,
    /// As much as the connection takes, which gives it to the subflow that has
    /// the least of it.
    Stream,
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
    /// What the connection gives out next; all before `una` was acknowledged,
    /// and beyond it what is in `acked`.
    next: u64,
    una: u64,
    acked: BTreeSet<u64>,
    /// When `una` moved last, and how often it stood still for a tenth of a
    /// second or more.
    moved: u64,
    gaps: u64,
    /// How often the kernel moved data by itself.
    rescued: u64,
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
        let mut net = Self {
            engine,
            now,
            paths: paths.to_vec(),
            tcp,
            dead,
            load,
            next: 0,
            una: 0,
            acked: BTreeSet::new(),
            moved: now,
            gaps: 0,
            rescued: 0,
            looks: 0,
            destroyed: Vec::new(),
        };
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
                    self.next = self.una;
                }
                _ => {}
            }
            self.engine.handle(Event::Done { tag, outcome: Outcome::Taken }, now);
        }
    }

    fn run(&mut self, millis: u64) {
        for _ in 0..millis {
            self.now += 1;
            self.supply();
            for (tcp, dead) in self.tcp.iter_mut().zip(&self.dead) {
                let Some(tcp) = tcp else { continue };
                tcp.dead = *dead;
                let acked = tcp.step(self.now);
                match self.load {
                    Load::Bulk => tcp.queue.clear(),
                    Load::Stream => self.acked.extend(acked.into_iter().filter(|data| *data >= self.una)),
                    Load::Thin(..) => {}
                }
            }
            if let Load::Stream = self.load {
                self.advance();
                self.rescue();
            }
            if self.engine.next_timeout().is_some_and(|due| due <= ms(self.now)) {
                self.engine.handle(Event::Tick, ms(self.now));
                self.pump();
            }
        }
    }

    fn supply(&mut self) {
        let (packets, every) = match self.load {
            Load::Bulk => (1000, 1),
            Load::Thin(packets, every) => (packets, every),
            Load::Stream => return self.fill(),
        };
        for tcp in self.tcp.iter_mut().flatten().filter(|_| self.now.is_multiple_of(every)) {
            tcp.queue.extend(self.next..self.next + packets);
            self.next += packets;
        }
    }

    fn fill(&mut self) {
        self.next = self.next.max(self.una);
        while self.next < self.una + BUFFER {
            let room = self.tcp.iter_mut().flatten().filter(|tcp| !tcp.stale && tcp.queue.len() < ROOM);
            let Some(least) = room.min_by_key(|tcp| tcp.queue.len() + tcp.out.len()) else { break };
            least.queue.push_back(self.next);
            self.next += 1;
        }
    }

    fn advance(&mut self) {
        let before = self.una;
        while self.acked.remove(&self.una) {
            self.una += 1;
        }
        if self.una > before {
            self.gaps += u64::from(self.now - self.moved >= 100);
            self.moved = self.now;
        }
    }

    /// What the kernel does by itself about a subflow that isn't answered while
    /// the connection stands still: after five probes' time it gives all that is
    /// out to the others.
    fn rescue(&mut self) {
        let trip = self.tcp.iter().flatten().map(|tcp| tcp.srtt as u64).max().unwrap_or_default();
        let since = self.now - 5 * (2 * trip + 8).min(self.now / 5);
        if self.moved > since || !self.tcp.iter().flatten().any(|tcp| tcp.last_ack > since) {
            return;
        }
        for tcp in self.tcp.iter_mut().flatten().filter(|tcp| tcp.last_ack <= since && !tcp.stale) {
            if !tcp.out.is_empty() {
                tcp.stale = true;
                self.rescued += 1;
                self.next = self.una;
            }
        }
    }

    fn last_ack(&self, n: usize) -> u64 {
        self.tcp[n].as_ref().unwrap().last_ack
    }
}

fn clean() -> impl Strategy<Value = Nature> {
    (10u64..=50).prop_map(|rtt| Nature { rtt, ..NATURE })
}

fn bloated() -> impl Strategy<Value = Nature> {
    (10u64..=100, 300u64..4000, 0u64..10, 500u64..4000).prop_map(|(rtt, queue, others, period)| Nature {
        rtt,
        loss: 0,
        rate: 1,
        queue,
        others: (others, period),
        ..NATURE
    })
}

fn lossy() -> impl Strategy<Value = Nature> {
    (10u64..=100, 50u64..=100).prop_map(|(rtt, loss)| Nature { rtt, loss, queue: 100, ..NATURE })
}

/// One that stops now and then for less than TCP's least timeout.
fn pausing() -> impl Strategy<Value = Nature> {
    (10u64..=50, 100u64..190, 1000u64..3000).prop_map(|(rtt, pause, every)| Nature {
        rtt,
        pause: (pause, every),
        ..NATURE
    })
}

fn load() -> impl Strategy<Value = Load> {
    prop_oneof![
        Just(Load::Bulk),
        Just(Load::Stream),
        (1u64..5, 50u64..2000).prop_map(|(n, every)| Load::Thin(n, every))
    ]
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
    fn a_path_that_pauses_is_no_dead_one(
        pausing in pausing(),
        other in prop_oneof![clean(), pausing()],
        seed in any::<u32>(),
        load in load(),
    ) {
        let mut net = Net::new(&[pausing, other], seed.into(), load);
        net.run(20_000);
        prop_assert!(net.destroyed.is_empty(), "{:?}", net.destroyed);
    }

    #[test]
    fn data_of_a_dead_path_is_moved_once(
        paths in proptest::collection::vec(clean(), 2..4),
        seed in any::<u32>(),
        before in 3000u64..10_000,
    ) {
        let mut net = Net::new(&paths, seed.into(), Load::Stream);
        net.run(before);
        prop_assert!(net.destroyed.is_empty());
        let gaps = net.gaps;
        net.dead[0] = true;
        net.run(20_000);
        prop_assert_eq!(net.gaps - gaps, 1);
        // Either the kernel has moved it, or this has, and then it is tried again.
        prop_assert_eq!(net.rescued + net.destroyed.len() as u64, 1);
        net.run(60_000);
        prop_assert!(net.tcp[0].is_none());
        net.dead[0] = false;
        net.run(70_000);
        prop_assert!(net.tcp[0].is_some());
        prop_assert_eq!(net.destroyed.len(), 1);
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
    let mut net = Net::new(&[NATURE, Nature { rtt: 90, ..NATURE }], 1, Load::Bulk);
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
    let mut net = Net::new(&[NATURE, NATURE], 1, Load::Thin(0, 1000));
    net.run(20_000);
    let before = net.looks;
    net.run(60_000);
    assert_eq!(net.looks - before, 30, "two subflows, every four seconds");
}
