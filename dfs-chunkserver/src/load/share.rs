//! What copies that leave this server get of its link while others read. A copy comes over a connection of its own, and
//! beside many that have long filled the link's queue that gets next to nothing: on a link of 400 Mbit/s that four readers
//! filled a chunk took 15 s. So while copies leave, replies to readers are sent no faster than a part of what the server
//! is known to carry, and the link's queue empties.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dfs_proto::units::Micros;

/// Of what the server can, while copies leave: the rest is theirs.
const READERS_PERMILLE: u64 = 500;
/// Copies are under way for so long after a part of one left: the next request comes when that has arrived, and that takes a
/// while on a link that readers fill.
const COPYING_US: u64 = 600_000;
/// No reply waits longer.
const WAIT_MAX_US: u64 = 1_000_000;

#[derive(Debug, Default)]
pub(crate) struct CopyShare {
    /// Until when copies are under way.
    until: AtomicU64,
    /// When what readers were sent so far has gone, at their rate.
    gone: AtomicU64,
}

impl CopyShare {
    /// A part of a copy leaves.
    pub(crate) fn copies(&self, now: Micros) {
        self.until.store(now.0.saturating_add(COPYING_US), Ordering::Relaxed);
    }

    /// How long a reply of so many bytes to a reader has to wait, on a server that can so much.
    pub(crate) fn waits(&self, now: Micros, bytes: usize, bytes_per_s: u64) -> Option<Duration> {
        if now.0 >= self.until.load(Ordering::Relaxed) || bytes_per_s == 0 {
            return None;
        }
        let rate = (bytes_per_s / 1000).saturating_mul(READERS_PERMILLE).max(1);
        let takes = (bytes as u64).saturating_mul(1_000_000) / rate;
        // More than the longest wait is not owed: who comes later would wait for ever.
        let next = |gone: u64| gone.max(now.0).min(now.0 + WAIT_MAX_US);
        let last =
            self.gone.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |gone| Some(next(gone) + takes));
        let wait = next(last.unwrap_or_else(|gone| gone)) - now.0;
        (wait > 0).then(|| Duration::from_micros(wait))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn readers_leave_copies_their_part() {
        let share = CopyShare::default();
        assert_eq!(share.waits(Micros(0), MIB, 50_000_000), None, "nothing is copied");
        let mut sent = 0;
        let mut now = 0;
        while now < 1_000_000 {
            share.copies(Micros(now));
            let wait = share.waits(Micros(now), MIB, 50_000_000).unwrap_or_default();
            now += u64::from(wait.subsec_micros());
            sent += MIB;
        }
        let permille = sent * 1000 / 50_000_000;
        assert!((480..=550).contains(&permille), "{permille} permille");
    }

    #[test]
    fn nobody_waits_long_nor_when_the_copy_is_over() {
        let share = CopyShare::default();
        share.copies(Micros(0));
        let waits = (0..100).filter_map(|_| share.waits(Micros(1), MIB, 1_000_000));
        assert_eq!(waits.max(), Some(Duration::from_micros(WAIT_MAX_US)));
        assert_eq!(share.waits(Micros(COPYING_US), MIB, 1_000_000), None);
        share.copies(Micros(0));
        assert_eq!(share.waits(Micros(1), MIB, 0), None, "who knows what it can");
    }
}
