// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether a path is dead, by what TCP knows of its subflow.
//!
//! TCP itself waits: a subflow whose packets vanish backs its timeout off, and
//! MPTCP moves its data to another only after a second or two. A subflow is
//! judged dead sooner, when all of this holds:
//!
//! * It has data out, and a retransmission timeout has passed without an
//!   answer.
//! * It has been silent for longer than that timeout and the time that an
//!   answer to the retransmission may take: twice the longest round trip of
//!   late, with four times its variation on top. So a path that is slow,
//!   because queues have grown to seconds, is only ever given more time.
//! * Another subflow has been acknowledged since, by an answer that was not
//!   under way when this one fell silent: peer and host are there, and it is
//!   this path that is not.
//! * A path that loses packets can lose a retransmission too. One that sends
//!   more than about a hundredth again must let a second timeout pass, and the
//!   more the more it loses; so must one that has not yet sent enough to tell,
//!   and one that was silent before and came back. Two more must one that had
//!   nothing to send for a while, as its round trip is not known any more.
//! * But where many segments were under way when it fell silent, the more the
//!   more it loses, they can't all be lost by chance: their time and that of
//!   one timeout is enough. The timeout itself comes later, since TCP sends a
//!   probe before, which puts it off.
//!
//! Closing a dead subflow is what moves its data, but costs: the kernel sends
//! all again that the connection has out, on whichever subflow. As long as the
//! others have much of their own waiting, they would only send that twice, and
//! nothing is gained; so [`worth_leaving`] waits until one runs out of it. That
//! may take long where the kernel has moved the data by itself, which it does
//! after five to ten round trips without an answer.

use super::event::Time;

/// What the kernel says of one subflow (struct tcp_info).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Segments sent and not acknowledged.
    pub unacked: u32,
    /// Those that are thought to be under way: neither arrived nor lost.
    pub flight: u32,
    /// How often the timeout was doubled.
    pub backoff: u32,
    /// The timeout, doubled as often.
    pub rto: Time,
    /// Round trip.
    pub rtt: Time,
    /// Its variation.
    pub rttvar: Time,
    /// The shortest of late, zero if none is known.
    pub rtt_min: Time,
    /// Segments that may be out.
    pub cwnd: u32,
    /// Bytes that wait for their turn.
    pub notsent: u32,
    /// Since the last acknowledgement came.
    pub since_ack: Time,
    /// Since data was last sent, or sent again.
    pub since_sent: Time,
    /// Acknowledged so far.
    pub bytes_acked: u64,
    /// Sent so far, what was sent again included.
    pub bytes_sent: u64,
    /// Sent again so far.
    pub bytes_retrans: u64,
    /// Received so far.
    pub bytes_received: u64,
    /// Segments sent so far.
    pub segs_out: u32,
    /// Segments sent again so far.
    pub total_retrans: u32,
}

/// Facts, and when they were so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    pub at: Time,
    pub facts: Facts,
}

/// What is remembered of a path between looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Path {
    /// Sum of all counters at the last look: whether anything moves.
    sum: u32,
    /// Longest round trip of late, in milliseconds.
    worst: u32,
    /// When it was last looked at, in milliseconds.
    looked: u32,
    /// When a comeback was last counted or forgiven, in milliseconds.
    judged: u32,
    /// Segments sent, and sent again, at the last look without silence.
    segs: u32,
    retrans: u32,
    /// Sent again of late, of ten thousand.
    loss: u16,
    /// For how long data had been out at the last look, at least, in
    /// milliseconds, and one more; 0 where none was.
    out: u16,
    /// Segments that were under way then, or before the first timeout.
    flight: u16,
    /// How often it came back after a timeout.
    comebacks: u8,
    timed_out: bool,
}

/// What is to be thought of a subflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is wrong, or it can't be told.
    Alive,
    /// It will be dead unless it answers by then.
    Suspect(Time),
    /// Its data should go elsewhere.
    Dead,
}

/// An answer may always be this late.
const SLACK: Time = Time::from_millis(40);
/// After so long without anything sent, the round trip is not known any more.
const STALE: Time = Time::from_secs(1);
/// One comeback is forgiven after so many milliseconds without another.
const FORGIVEN: u32 = 60_000;
/// The longest round trip of late is forgotten at this pace, in milliseconds.
const FORGOTTEN: u64 = 60_000;
/// What is sent again counts over about so many segments.
const WINDOW: u32 = 256;
/// For each so many of ten thousand segments that may be lost, a timeout more.
const LOSSY: u32 = 200;
/// More timeouts than this a path need not show: the kernel has moved its data
/// by then.
const TIMEOUTS_MAX: u32 = 5;
/// After so many, which take about a minute, a dead path is left whatever that
/// costs: what led over it may have been forgotten on the way.
const TIMEOUTS_LAST: u32 = 8;
/// So many segments are not all lost by chance, where few are; for each timeout
/// more that a path must let pass because it loses some, so many more.
const MANY: u32 = 8;

fn millis(time: Time) -> u32 {
    // It wraps after 49 days; only differences are looked at.
    time.as_millis() as u32
}

impl Facts {
    /// The timeout before it was doubled.
    pub fn base(&self) -> Time {
        self.rto / (1 << self.backoff.min(16))
    }

    /// Since when data has been out without any answer.
    pub fn silence(&self) -> Time {
        if self.unacked == 0 { Time::ZERO } else { self.since_ack.min(self.owed()) }
    }

    /// Bytes carried, each once.
    pub fn moved(&self) -> u64 {
        self.bytes_sent.saturating_sub(self.bytes_retrans).saturating_add(self.bytes_received)
    }

    /// More waits for its turn than is out: it will take longer than a round
    /// trip to send that.
    fn is_busy(&self) -> bool {
        let out = self.bytes_sent.saturating_sub(self.bytes_retrans).saturating_sub(self.bytes_acked);
        self.unacked > 0 && u64::from(self.notsent) > out
    }

    /// For how long the data that waits has been out: the timeouts that passed,
    /// and the time since the last of them.
    fn owed(&self) -> Time {
        self.rto.saturating_sub(self.base()).saturating_add(self.since_sent)
    }
}

impl Path {
    /// A path that is known to have come back so often.
    pub fn with_comebacks(comebacks: u8) -> Self {
        Self { comebacks, ..Self::default() }
    }

    /// Longest round trip of late, in milliseconds.
    pub fn worst(&self) -> u32 {
        self.worst
    }

    /// How often it is known to have come back.
    pub fn comebacks(&self) -> u8 {
        self.comebacks
    }

    /// Remembers a look; whether anything has moved since the last one.
    pub fn note(&mut self, look: &Look) -> bool {
        let facts = &look.facts;
        let now = millis(look.at);
        let sum = facts.bytes_acked.wrapping_add(facts.bytes_sent) as u32;
        let moved = sum != self.sum;
        if facts.backoff == 0 || facts.silence() < facts.base() {
            if self.timed_out {
                self.comebacks = self.comebacks.saturating_add(1);
                self.judged = now;
            }
            self.timed_out = false;
            self.count(facts);
            let passed = u64::from(now.wrapping_sub(self.looked)).min(FORGOTTEN);
            let faded = u64::from(self.worst) * (FORGOTTEN - passed) / FORGOTTEN;
            self.worst = millis(facts.rtt.min(Time::from_secs(60))).max(faded as u32);
        } else {
            self.timed_out = true;
        }
        if self.comebacks > 0 && now.wrapping_sub(self.judged) > FORGIVEN {
            self.comebacks -= 1;
            self.judged = now;
        }
        let out = if facts.unacked == 0 { 0 } else { self.silence(look).as_millis().saturating_add(1) };
        self.out = out.min(u16::MAX.into()) as u16;
        if facts.backoff == 0 {
            self.flight = facts.flight.min(u16::MAX.into()) as u16;
        }
        (self.sum, self.looked) = (sum, now);
        moved
    }

    /// Since when data has been out without any answer, by all looks: what is
    /// sent for want of one, before the first timeout, hides that from a single
    /// look.
    fn silence(&self, look: &Look) -> Time {
        let facts = &look.facts;
        let passed = millis(look.at).wrapping_sub(self.looked);
        let before = u32::from(self.out).saturating_sub(1).saturating_add(passed);
        let still = self.out > 0 && millis(facts.since_ack) >= passed;
        let before = Time::from_millis(if still { before.into() } else { 0 });
        if facts.unacked == 0 { Time::ZERO } else { facts.owed().max(before).min(facts.since_ack) }
    }

    /// Counts what was sent and sent again since it was last done.
    fn count(&mut self, facts: &Facts) {
        // From the beginning, until that is more than the window.
        let (segs, retrans, old) =
            if facts.segs_out <= WINDOW { (0, 0, 0) } else { (self.segs, self.retrans, self.loss) };
        let sent = facts.segs_out.wrapping_sub(segs);
        let again = facts.total_retrans.wrapping_sub(retrans).min(sent);
        let share = u64::from(again) * 10_000 / u64::from(sent.max(1));
        let new = if segs == 0 { WINDOW } else { sent.min(WINDOW) };
        let sum = u64::from(old) * u64::from(WINDOW - new) + share * u64::from(new);
        self.loss = (sum / u64::from(WINDOW)) as u16;
        (self.segs, self.retrans) = (facts.segs_out, facts.total_retrans);
    }

    /// How many timeouts it must let pass, and how many segments must have been
    /// under way for one to be enough.
    fn timeouts(&self, facts: &Facts) -> (u32, Option<u32>) {
        // Where n segments went through, three of them might yet have been lost.
        let unknown = 30_000 / self.segs.clamp(1, WINDOW);
        let lossy = (u32::from(self.loss) + unknown) / LOSSY;
        let silent = u32::from(self.comebacks.div_ceil(2));
        let stale = facts.since_ack > facts.owed().saturating_add(STALE);
        let doubts = lossy.max(silent) + if stale { 2 } else { 0 };
        let many = (silent == 0 && !stale).then_some(MANY.saturating_mul(1 + lossy));
        ((1 + doubts).min(TIMEOUTS_MAX), many)
    }

    /// Judges a subflow by one round of looks at all subflows of its
    /// connection.
    pub fn verdict<'a>(&self, look: &Look, mut others: impl Iterator<Item = &'a Look>) -> Verdict {
        let facts = &look.facts;
        if facts.unacked == 0 {
            return Verdict::Alive;
        }
        let silence = self.silence(look);
        let trip = facts.rtt.max(Time::from_millis(self.worst.into()));
        let answer = trip.saturating_mul(2).saturating_add(facts.rttvar.saturating_mul(4)).max(SLACK);
        let (timeouts, many) = self.timeouts(facts);
        let mut left = facts.base().saturating_add(answer).saturating_sub(facts.silence());
        let many = many.is_some_and(|many| u32::from(self.flight) >= many);
        if many {
            let due = facts.base().saturating_sub(silence).max(answer.saturating_sub(facts.since_sent));
            left = left.min(due);
        }
        if !left.is_zero() {
            return Verdict::Suspect(look.at.saturating_add(left));
        }
        let fell_silent = look.at.saturating_sub(silence);
        let answered = |other: &Look| {
            let last = other.at.saturating_sub(other.facts.since_ack);
            last > fell_silent.saturating_add(other.facts.rtt).saturating_add(facts.rtt)
        };
        if (many || facts.backoff >= timeouts) && others.any(answered) {
            return Verdict::Dead;
        }
        Verdict::Alive
    }
}

/// Whether leaving a dead path moves its data any sooner: one of those that
/// would carry it has little of its own to send, or too much time has passed.
pub fn worth_leaving(dead: &Facts, mut others: impl Iterator<Item = Facts>) -> bool {
    dead.backoff >= TIMEOUTS_LAST || others.any(|other| !other.is_busy())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    /// A path of 20 ms that has sent much and lost nothing.
    fn clean() -> Facts {
        Facts {
            rto: ms(220),
            rtt: ms(20),
            rttvar: ms(5),
            bytes_acked: 1_000_000,
            bytes_sent: 1_000_000,
            segs_out: 1000,
            ..Facts::default()
        }
    }

    /// The same, silent for some time with data out.
    fn silent(since: u64, backoff: u32) -> Facts {
        let rto = ms(220 << backoff);
        let since_sent = ms(since - 220 * ((1 << backoff) - 1));
        Facts { unacked: 10, backoff, rto, since_ack: ms(since), since_sent, ..clean() }
    }

    fn judge(path: &Path, facts: Facts, other: Facts) -> Verdict {
        let at = ms(10_000);
        path.verdict(&Look { at, facts }, [Look { at, facts: other }].iter())
    }

    fn looked_at() -> Path {
        let mut path = Path::default();
        path.note(&Look { at: ms(9_000), facts: clean() });
        path
    }

    #[test]
    fn a_silent_path_is_dead_when_another_answers() {
        let path = looked_at();
        assert_eq!(judge(&path, silent(250, 1), clean()), Verdict::Suspect(ms(10_030)));
        assert_eq!(judge(&path, silent(290, 1), clean()), Verdict::Dead);
        let quiet = Facts { since_ack: ms(280), ..clean() };
        assert_eq!(judge(&path, silent(290, 1), quiet), Verdict::Alive, "an answer that was under way");
        assert_eq!(judge(&path, Facts { unacked: 0, ..silent(290, 1) }, clean()), Verdict::Alive);
    }

    #[test]
    fn what_is_not_known_to_be_clean_is_given_time() {
        assert_eq!(judge(&Path::default(), silent(290, 1), clean()), Verdict::Alive, "never looked at");
        let mut lossy = Path::default();
        lossy.note(&Look { at: ms(9_000), facts: Facts { total_retrans: 15, ..clean() } });
        assert_eq!(judge(&lossy, silent(290, 1), clean()), Verdict::Alive);
        assert_eq!(judge(&lossy, silent(700, 2), clean()), Verdict::Dead);
        let idle = Facts { since_ack: ms(5_000), ..silent(290, 1) };
        assert_eq!(judge(&looked_at(), idle, clean()), Verdict::Alive, "its round trip is long ago");
    }

    /// Silent for so long, with much under way, and probed so long ago.
    fn probed(since: u64, probe: u64) -> Facts {
        Facts { flight: 20, since_sent: ms(probe), ..silent(since, 0) }
    }

    /// What is thought of it, where it was looked at when it fell silent too.
    fn judge_after(mut path: Path, facts: Facts) -> Verdict {
        let before = Facts { flight: 20, ..silent(8, 0) };
        path.note(&Look { at: ms(10_008).saturating_sub(facts.since_ack), facts: before });
        path.note(&Look { at: ms(10_000), facts });
        judge(&path, facts, clean())
    }

    #[test]
    fn where_much_was_under_way_the_probe_is_enough() {
        assert_eq!(judge_after(looked_at(), probed(120, 60)), Verdict::Suspect(ms(10_100)));
        assert_eq!(judge_after(looked_at(), probed(220, 160)), Verdict::Dead);
        let late = probed(220, 40);
        assert_eq!(judge_after(looked_at(), late), Verdict::Suspect(ms(10_020)), "an answer is due yet");
        let mut once = looked_at();
        once.note(&Look { at: ms(10_000), facts: probed(220, 160) });
        let seen = judge(&once, probed(220, 160), clean());
        assert_eq!(seen, Verdict::Suspect(ms(10_060)), "nobody saw that more than the probe was out");
        let mut lossy = looked_at();
        lossy.note(&Look { at: ms(9_100), facts: Facts { segs_out: 1256, total_retrans: 13, ..clean() } });
        assert!(matches!(judge_after(lossy, probed(220, 160)), Verdict::Suspect(_)), "more must be lost");
        let back = Path { comebacks: 1, ..looked_at() };
        assert!(matches!(judge_after(back, probed(220, 160)), Verdict::Suspect(_)), "it was silent before");
    }

    #[test]
    fn a_dead_path_is_left_when_that_helps() {
        let dead = silent(700, 2);
        let busy = Facts { unacked: 10, bytes_sent: 1_014_000, notsent: 100_000, ..clean() };
        let nearly = Facts { notsent: 10_000, ..busy };
        assert!(
            !worth_leaving(&dead, [busy].into_iter()),
            "its data has been moved, or waits no longer than that"
        );
        assert!(worth_leaving(&dead, [busy, nearly].into_iter()));
        assert!(worth_leaving(&dead, [clean()].into_iter()));
        assert!(worth_leaving(&Facts { backoff: TIMEOUTS_LAST, ..dead }, [busy].into_iter()));
    }

    #[test]
    fn a_path_that_came_back_is_given_time_until_that_is_long_ago() {
        let mut path = looked_at();
        path.note(&Look { at: ms(9_500), facts: silent(290, 1) });
        path.note(&Look { at: ms(9_600), facts: clean() });
        assert_eq!(path.comebacks(), 1);
        assert_eq!(judge(&path, silent(290, 1), clean()), Verdict::Alive);
        path.note(&Look { at: ms(80_000), facts: clean() });
        assert_eq!(judge(&path, silent(290, 1), clean()), Verdict::Dead);
    }

    #[test]
    fn a_queue_of_late_counts() {
        let mut path = Path::default();
        path.note(&Look { at: ms(8_000), facts: Facts { rtt: ms(900), ..clean() } });
        path.note(&Look { at: ms(9_900), facts: clean() });
        assert!(matches!(judge(&path, silent(700, 2), clean()), Verdict::Suspect(_)));
    }

    #[test]
    fn nothing_overflows() {
        let mut path = Path::with_comebacks(u8::MAX);
        let most = Facts {
            unacked: u32::MAX,
            flight: u32::MAX,
            backoff: u32::MAX,
            rto: Time::MAX,
            rtt: Time::MAX,
            rttvar: Time::MAX,
            rtt_min: Time::MAX,
            cwnd: u32::MAX,
            notsent: u32::MAX,
            since_ack: Time::MAX,
            since_sent: Time::MAX,
            bytes_acked: u64::MAX,
            bytes_sent: u64::MAX,
            bytes_retrans: u64::MAX,
            bytes_received: u64::MAX,
            segs_out: u32::MAX,
            total_retrans: u32::MAX,
        };
        for facts in [most, Facts { rtt: Time::ZERO, rttvar: Time::ZERO, ..most }, Facts::default()] {
            for at in [Time::ZERO, Time::MAX] {
                path.note(&Look { at, facts });
                path.verdict(&Look { at, facts }, [Look { at, facts: most }].iter());
            }
        }
    }
}
