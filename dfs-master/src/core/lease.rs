//! The arithmetic of leases, on the master's side: over-estimates, so that nothing is taken from a server
//! or a session that may still believe in its right (L2, L4, L7, I8). Pure.

use dfs_proto::planted;
use dfs_proto::units::Micros;

/// How wrong a clock's rate may be: 1 %. A lease spans two clocks, so it counts twice.
const CLOCK_ERROR_PERCENT: u64 = 1;
/// Added to every bound for what is left of scheduling and rounding.
const MARGIN_MS: u64 = 100;

/// When a lease of `lease_ms`, counted by its holder from a moment not after `from`, has surely ended.
#[must_use]
pub fn surely_over(from: Micros, lease_ms: u64) -> Micros {
    let drift_us = lease_ms.saturating_mul(1000 * 2 * CLOCK_ERROR_PERCENT) / 100;
    Micros(from.0.saturating_add(lease_ms.saturating_mul(1000)).saturating_add(drift_us)).plus_ms(MARGIN_MS)
}

/// A server's lease as its master sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lease {
    /// It may serve until then.
    Until(Micros),
    /// Its process is known to be dead, or gave the lease back.
    Over,
}

impl Lease {
    /// The bound for a server that a new leader has not heard of: the deposed leader may have renewed
    /// its lease just before the election (L4).
    #[must_use]
    pub fn unknown(elected: Micros, lease_ms: u64) -> Lease {
        if planted!(NewMasterDoesNotWait) {
            Lease::Over
        } else {
            Lease::Until(surely_over(elected, lease_ms))
        }
    }

    /// Renews for a heartbeat that is answered at `now`. What was granted before is never shortened.
    #[must_use]
    pub fn renewed(self, now: Micros, lease_ms: u64) -> Lease {
        let until = surely_over(now, lease_ms);
        match self {
            Lease::Until(old) => Lease::Until(old.max(until)),
            Lease::Over => Lease::Until(until),
        }
    }

    /// Whether the server surely serves nothing any more.
    #[must_use]
    pub fn is_over(self, now: Micros) -> bool {
        match self {
            Lease::Until(until) => now >= until,
            Lease::Over => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Micros {
        Micros(ms * 1000)
    }

    #[test]
    fn bounds_by_the_table() {
        // From, lease, surely over: D * 1.02 + 100 ms.
        for (from, lease, over) in
            [(0, 6_000, 6_220), (1_000, 6_000, 7_220), (0, 1_000, 1_120), (0, 500, 610), (7, 0, 107)]
        {
            assert_eq!(surely_over(ms(from), lease), ms(over), "{from} {lease}");
        }
        assert_eq!(surely_over(Micros(u64::MAX), 6_000), Micros(u64::MAX));
    }

    /// The slowest clock that is allowed, on the holder's side, has ended its lease by then.
    #[test]
    fn a_slow_holder_is_covered() {
        for lease_ms in [100, 1_000, 6_000, 30_000] {
            let bound_us = surely_over(Micros(0), lease_ms).0;
            let slowest_us = lease_ms * 1000 * 101 / 99;
            assert!(bound_us >= slowest_us, "{lease_ms}: {bound_us} < {slowest_us}");
        }
    }

    #[test]
    fn a_lease_through_its_life() {
        let new = Lease::unknown(ms(0), 6_000);
        assert!(!new.is_over(ms(6_219)));
        assert!(new.is_over(ms(6_220)));
        let renewed = new.renewed(ms(5_000), 6_000);
        assert!(!renewed.is_over(ms(11_219)));
        assert!(renewed.is_over(ms(11_220)));
        // A heartbeat that the clock says is older shortens nothing.
        assert_eq!(renewed.renewed(ms(4_000), 6_000), renewed);
        assert!(Lease::Over.is_over(ms(0)));
        assert!(!Lease::Over.renewed(ms(0), 6_000).is_over(ms(6_219)));
    }
}
