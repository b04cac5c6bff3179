// SPDX-License-Identifier: MIT OR Apache-2.0
//! What was learnt of destinations: to which of them SYNs with Multipath TCP's
//! option stay without an answer that SYNs without it get. Bounded in number
//! and in time; a single answer to such a SYN is enough to forget.

use std::net::IpAddr;
use std::time::Duration;

/// A destination: a network namespace by its cookie, and an address.
pub type Place = (u64, IpAddr);

/// Places that are remembered.
pub const PLACES: usize = 256;
/// How long: networks change (RFC 8305 section 7.1 has 10 minutes).
pub const LIFETIME: Duration = Duration::from_secs(600);

/// Places where Multipath TCP's option is eaten, the latest last.
#[derive(Clone, Debug, Default)]
pub struct Learnt(Vec<(Place, Duration)>);

impl Learnt {
    /// TCP was faster there, in spite of a head start.
    pub fn note(&mut self, place: Place, now: Duration) {
        self.forget(&place);
        self.0.retain(|(_, at)| now.saturating_sub(*at) < LIFETIME);
        if self.0.len() >= PLACES {
            self.0.remove(0);
        }
        self.0.push((place, now));
    }

    /// Multipath TCP's option got an answer there.
    pub fn forget(&mut self, place: &Place) {
        self.0.retain(|(known, _)| known != place);
    }

    /// Whether the option is held to be eaten there.
    pub fn knows(&self, place: &Place, now: Duration) -> bool {
        self.0.iter().any(|(known, at)| known == place && now.saturating_sub(*at) < LIFETIME)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;
    use std::net::Ipv4Addr;

    proptest! {
        #[test]
        fn bounded_and_forgotten(steps in proptest::collection::vec((0..400u32, 0..20_000u64, 0..8u8), 0..1500)) {
            let mut learnt = Learnt::default();
            let mut model: HashMap<Place, Duration> = HashMap::new();
            let mut now = Duration::ZERO;
            for (n, pass, what) in steps {
                now += Duration::from_millis(pass);
                let place = (1, IpAddr::from(Ipv4Addr::from_bits(n)));
                if what == 0 {
                    learnt.forget(&place);
                    model.remove(&place);
                } else {
                    learnt.note(place, now);
                    model.insert(place, now);
                }
                prop_assert!(learnt.0.len() <= PLACES);
                // What it knows was noted within its lifetime, and what was
                // noted last it knows.
                for (known, at) in &learnt.0 {
                    prop_assert_eq!(model.get(known), Some(at));
                }
                prop_assert_eq!(learnt.knows(&place, now), what != 0);
                prop_assert!(!learnt.knows(&place, now + LIFETIME));
                prop_assert!(!learnt.knows(&(2, place.1), now));
            }
        }
    }
}
