//! What is known of the master's clock, and for how long the session's lease stands.
//!
//! Each reply carries the master's time, read between our sending and our receiving. So at the sending
//! the master's clock showed at most that time, and at the receiving at least. From there both bounds
//! move on by our own clock, which may be wrong by [`EPS_PERMILLE`]. Invariant (R4): [`MasterClock::upper`]
//! is never below the master's clock.

use dfs_proto::units::{MasterMs, Micros};

/// How far two clocks may drift apart, in thousandths.
pub(crate) const EPS_PERMILLE: u64 = 10;

/// Bounds on the clock of the master of one term.
#[derive(Clone, Debug, Default)]
pub(crate) struct MasterClock {
    known: Option<Known>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    /// The low 32 bits of the term.
    term: u32,
    /// No later than `upper.0` when ours showed `upper.1`.
    upper: (MasterMs, Micros),
}

/// What a chunk server's stamp is worth.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stamp {
    /// The lease it rests on had not ended.
    Live,
    /// The lease may have ended: the bytes may be old.
    Over,
    /// Of another term than ours: the master has to be asked first, or the server has yet to hear of it.
    OtherTerm,
}

impl MasterClock {
    /// A reply with the master's time `master`, to a request sent at `sent`.
    pub(crate) fn observe(&mut self, term: u32, master: MasterMs, sent: Micros) {
        let new = Known { term, upper: (master, sent) };
        self.known = Some(match self.known {
            Some(old) if old.term == term && ahead(old.upper, sent) <= master => old,
            // An answer that was overtaken by another master's.
            Some(old) if old.term > term => old,
            Some(_) | None => new,
        });
    }

    /// The master's clock shows no more than this now.
    pub(crate) fn upper(&self, now: Micros) -> Option<MasterMs> {
        self.known.map(|known| ahead(known.upper, now))
    }

    /// R4: whether a lease of `lease_ms` that the master granted at `granted` still stands for certain.
    pub(crate) fn stamp(&self, term: u32, granted: MasterMs, lease_ms: u64, now: Micros) -> Stamp {
        match self.known {
            Some(known) if known.term == term => {
                let over = MasterMs(granted.0.saturating_add(lease_ms));
                if ahead(known.upper, now) < over { Stamp::Live } else { Stamp::Over }
            }
            Some(_) | None => Stamp::OtherTerm,
        }
    }
}

/// Where a clock that showed at most `bound.0` at `bound.1` is at most at `now`.
fn ahead(bound: (MasterMs, Micros), now: Micros) -> MasterMs {
    let elapsed = now.0.saturating_sub(bound.1.0);
    let most = elapsed.saturating_add(elapsed.saturating_mul(EPS_PERMILLE).div_ceil(1000));
    MasterMs(bound.0.0.saturating_add(most.div_ceil(1000)))
}

/// Until when the session's lease stands for certain, on our clock: the master counts from when it had
/// the message, which was after we sent it.
pub(crate) fn lease_until(sent: Micros, lease_ms: u64) -> Micros {
    sent.plus_ms(lease_ms.saturating_sub(lease_ms.saturating_mul(EPS_PERMILLE) / 1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upper_bound_runs_ahead_of_a_slow_clock() {
        let mut clock = MasterClock::default();
        assert_eq!(clock.upper(Micros(0)), None);
        clock.observe(1, MasterMs(1000), Micros(5_000_000));
        assert_eq!(clock.upper(Micros(5_000_000)), Some(MasterMs(1000)));
        assert_eq!(clock.upper(Micros(6_000_000)), Some(MasterMs(2010)));
    }

    #[test]
    fn the_tighter_bound_stays_within_a_term() {
        let mut clock = MasterClock::default();
        clock.observe(1, MasterMs(1000), Micros(0));
        // A slow round trip: 500 ms more between sending and the master's reading.
        clock.observe(1, MasterMs(1600), Micros(100_000));
        assert_eq!(clock.upper(Micros(100_000)), Some(MasterMs(1101)));
        // A better one.
        clock.observe(1, MasterMs(2000), Micros(1_000_000));
        assert_eq!(clock.upper(Micros(1_000_000)), Some(MasterMs(2000)));
        clock.observe(2, MasterMs(7), Micros(1_000_000));
        assert_eq!(clock.upper(Micros(1_000_000)), Some(MasterMs(7)));
        clock.observe(1, MasterMs(9000), Micros(1_100_000));
        assert_eq!(clock.stamp(2, MasterMs(0), 200, Micros(1_100_000)), Stamp::Live);
    }

    #[test]
    fn stamps() {
        let mut clock = MasterClock::default();
        assert_eq!(clock.stamp(1, MasterMs(0), 6000, Micros(0)), Stamp::OtherTerm);
        clock.observe(1, MasterMs(10_000), Micros(0));
        assert_eq!(clock.stamp(1, MasterMs(9_000), 6000, Micros(0)), Stamp::Live);
        assert_eq!(clock.stamp(1, MasterMs(4_000), 6000, Micros(0)), Stamp::Over);
        assert_eq!(clock.stamp(1, MasterMs(9_000), 6000, Micros(4_960_000)), Stamp::Over);
        assert_eq!(clock.stamp(2, MasterMs(9_000), 6000, Micros(0)), Stamp::OtherTerm);
    }

    #[test]
    fn own_lease_is_underestimated() {
        assert_eq!(lease_until(Micros(0), 30_000), Micros(29_700_000));
    }
}
