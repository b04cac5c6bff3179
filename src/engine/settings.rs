// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an application says of a connection besides its list (RFC 6897
//! appendix A.3), and what follows from it for the making of subflows.

use super::event::Time;
use serde::{Deserialize, Serialize};

/// When further subflows are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Mode {
    /// As soon as possible.
    #[default]
    Eager,
    /// Once the connection has shown that it is worth it.
    OnDemand,
    /// By hand only.
    Manual,
}

/// REQ10: when further subflows are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PathPolicy {
    /// In which way.
    pub mode: Mode,
    /// [`Mode::OnDemand`]: after so many milliseconds, 0: not by time.
    pub after_ms: u32,
    /// [`Mode::OnDemand`]: after so many bytes, both directions together, 0:
    /// not by volume. Both 0: [`VOLUME`].
    pub after_bytes: u64,
}

/// REQ9: what a connection will carry; 0 is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Traffic {
    /// Bytes.
    pub bytes_to_send: u64,
    /// Bytes.
    pub bytes_to_receive: u64,
    /// Bytes in a second.
    pub rate: u64,
    /// Milliseconds.
    pub duration_ms: u32,
}

/// REQ8: what a connection is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Profile {
    /// All paths at once.
    #[default]
    Aggregate,
    /// The path with the lowest delay.
    Interactive,
    /// One path and one warm spare.
    Handover,
    /// One path, and a second while that is full.
    Overflow,
}

impl Profile {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Aggregate, Self::Interactive, Self::Handover, Self::Overflow];
}

/// REQ12: what is sent on more than one path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Redundancy {
    /// Nothing.
    #[default]
    None,
    /// What finds idle capacity.
    Spare,
    /// Everything.
    Full,
}

/// All that an application has set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Settings {
    /// Subflows at most, the initial one included; 0: as many as there can be.
    pub max_subflows: u8,
    /// When further subflows are made.
    pub policy: PathPolicy,
    /// What the connection will carry.
    pub traffic: Traffic,
    /// What it is for.
    pub profile: Profile,
    /// What is sent twice.
    pub redundancy: Redundancy,
    /// REQ13: whether it ends with its initial subflow; `None`: as the
    /// administrator says.
    pub fate_sharing: Option<bool>,
}

/// One of [`Settings`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Setting {
    /// [`Settings::max_subflows`].
    MaxSubflows(u8),
    /// [`Settings::policy`].
    Policy(PathPolicy),
    /// [`Settings::traffic`].
    Traffic(Traffic),
    /// [`Settings::profile`].
    Profile(Profile),
    /// [`Settings::redundancy`].
    Redundancy(Redundancy),
    /// [`Settings::fate_sharing`].
    FateSharing(bool),
}

/// What makes further subflows worth their price where nobody says how much.
pub const VOLUME: u64 = 1 << 20;
/// A connection that is said to end sooner has no use for them.
const SHORT_MS: u32 = 1000;

/// When a connection has shown that further subflows are worth it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// From the start.
    Always,
    /// After so many bytes, or when it has lasted so long.
    After {
        /// `None`: not by volume.
        bytes: Option<u64>,
        /// `None`: not by time.
        time: Option<Time>,
    },
    /// Not by itself.
    Never,
}

impl Settings {
    /// The same but for one.
    pub fn with(mut self, setting: Setting) -> Self {
        match setting {
            Setting::MaxSubflows(max) => self.max_subflows = max,
            Setting::Policy(policy) => self.policy = policy,
            Setting::Traffic(traffic) => self.traffic = traffic,
            Setting::Profile(profile) => self.profile = profile,
            Setting::Redundancy(redundancy) => self.redundancy = redundancy,
            Setting::FateSharing(on) => self.fate_sharing = Some(on),
        }
        self
    }

    /// When further subflows are made.
    pub fn demand(&self) -> Demand {
        let PathPolicy { mode, after_ms, after_bytes } = self.policy;
        let volume = self.traffic.volume();
        match mode {
            Mode::Manual => Demand::Never,
            Mode::Eager => {
                let short = self.traffic.duration_ms != 0 && self.traffic.duration_ms < SHORT_MS;
                match volume {
                    // A hint can be wrong.
                    Some(volume) if volume < VOLUME => Demand::After { bytes: Some(VOLUME), time: None },
                    None if short => {
                        let time = Some(Time::from_millis(SHORT_MS.into()));
                        Demand::After { bytes: Some(VOLUME), time }
                    }
                    _ => Demand::Always,
                }
            }
            Mode::OnDemand => {
                let bytes = if after_ms == 0 && after_bytes == 0 { VOLUME } else { after_bytes };
                let bytes = Some(bytes).filter(|bytes| *bytes != 0);
                // What is known to come need not be waited for.
                if bytes.is_some_and(|bytes| volume.is_some_and(|volume| volume >= bytes)) {
                    return Demand::Always;
                }
                let time = Some(Time::from_millis(after_ms.into())).filter(|time| !time.is_zero());
                Demand::After { bytes, time }
            }
        }
    }
}

impl Traffic {
    /// All bytes that are expected, if that can be told.
    fn volume(&self) -> Option<u64> {
        let told = self.bytes_to_send.saturating_add(self.bytes_to_receive);
        let by_rate = self.rate.saturating_mul(self.duration_ms.into()) / 1000;
        match (told, self.rate, self.duration_ms) {
            (0, 0, _) | (0, _, 0) => None,
            (0, ..) => Some(by_rate),
            (told, ..) => Some(told),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(traffic: Traffic, policy: PathPolicy) -> Demand {
        Settings { traffic, policy, ..Settings::default() }.demand()
    }

    #[test]
    fn a_small_transfer_makes_nothing_and_a_large_one_does() {
        let of = |bytes_to_send, bytes_to_receive| Traffic {
            bytes_to_send,
            bytes_to_receive,
            ..Traffic::default()
        };
        let eager = PathPolicy::default();
        let later = Demand::After { bytes: Some(VOLUME), time: None };
        assert_eq!(hint(Traffic::default(), eager), Demand::Always);
        assert_eq!(hint(of(20_000, 0), eager), later);
        assert_eq!(hint(of(20_000, VOLUME), eager), Demand::Always);
        assert_eq!(hint(of(u64::MAX, u64::MAX), eager), Demand::Always);
        let slow = Traffic { rate: 1000, duration_ms: 60_000, ..Traffic::default() };
        assert_eq!(hint(slow, eager), later, "60 kB");
        let fast = Traffic { rate: u64::MAX, duration_ms: u32::MAX, ..Traffic::default() };
        assert_eq!(hint(fast, eager), Demand::Always);
        assert_eq!(
            hint(Traffic { rate: 1, ..Traffic::default() }, eager),
            Demand::Always,
            "for ever, perhaps"
        );
    }

    #[test]
    fn on_demand_counts_whichever_comes_first() {
        let policy = |after_ms, after_bytes| PathPolicy { mode: Mode::OnDemand, after_ms, after_bytes };
        let after = |bytes, ms: Option<u64>| Demand::After { bytes, time: ms.map(Time::from_millis) };
        let none = Traffic::default();
        assert_eq!(hint(none, policy(0, 0)), after(Some(VOLUME), None));
        assert_eq!(hint(none, policy(5, 0)), after(None, Some(5)));
        assert_eq!(hint(none, policy(5, 7)), after(Some(7), Some(5)));
        let seven = Traffic { bytes_to_receive: 7, ..none };
        assert_eq!(hint(seven, policy(5, 7)), Demand::Always);
        assert_eq!(hint(seven, policy(5, 8)), after(Some(8), Some(5)));
        assert_eq!(hint(seven, PathPolicy { mode: Mode::Manual, ..policy(5, 7) }), Demand::Never);
    }
}
