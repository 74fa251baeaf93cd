//! How long something takes, counted by powers of two.
//!
//! Two atomic additions a measurement. A scrape reads the buckets one after the other while others count: its count is
//! the sum of what it read, so that buckets and count always agree, and the sum may be some measurements ahead.

use std::sync::atomic::{AtomicU64, Ordering};

/// The first bucket ends at 16 us: less than a network takes.
const FIRST_LOG: usize = 4;
/// The last ends at 33.5 s: longer than any deadline of the protocol.
const LAST_LOG: usize = 25;
const BOUNDS: usize = LAST_LOG - FIRST_LOG + 1;

/// Times by bucket; the last bucket has no end.
#[derive(Debug)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS + 1],
    sum_us: AtomicU64,
}

/// How many each bucket had at a moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tally(Vec<u64>);

impl Tally {
    /// What came since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Tally) -> Tally {
        let before = earlier.0.iter().copied().chain(std::iter::repeat(0));
        Tally(self.0.iter().zip(before).map(|(now, before)| now.saturating_sub(before)).collect())
    }

    /// Both together.
    #[must_use]
    pub fn and(&self, other: &Tally) -> Tally {
        let theirs = other.0.iter().copied().chain(std::iter::repeat(0));
        Tally(self.0.iter().zip(theirs).map(|(ours, theirs)| ours + theirs).collect())
    }

    /// Where the bucket ends that holds the percentile, in microseconds; 0 when nothing was counted.
    #[must_use]
    pub fn percentile_us(&self, percent: u64) -> u64 {
        let wanted = (self.0.iter().sum::<u64>() * percent).div_ceil(100);
        let mut seen = 0;
        let at = self.0.iter().position(|count| {
            seen += count;
            wanted > 0 && seen >= wanted
        });
        at.map_or(0, |at| 1 << (at + FIRST_LOG).min(LAST_LOG + 1))
    }
}

/// A histogram as a scrape shows it.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Shown {
    /// Where each bucket ends, in seconds, and how many it has.
    pub(crate) buckets: Vec<(f64, u64)>,
    pub(crate) count: u64,
    pub(crate) sum_s: f64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram::new()
    }
}

impl Histogram {
    #[must_use]
    pub const fn new() -> Histogram {
        Histogram { buckets: [const { AtomicU64::new(0) }; BOUNDS + 1], sum_us: AtomicU64::new(0) }
    }

    /// Counts one that took so many microseconds.
    pub fn took_us(&self, us: u64) {
        self.buckets[bucket(us)].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// How many each bucket has now.
    #[must_use]
    pub fn tally(&self) -> Tally {
        Tally(self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect())
    }

    /// How many were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }

    pub(crate) fn shown(&self) -> Shown {
        let Tally(counts) = self.tally();
        let bounds = (FIRST_LOG..=LAST_LOG).map(|log| seconds(1 << log)).chain([f64::INFINITY]);
        let sum_s = seconds(self.sum_us.load(Ordering::Relaxed));
        Shown { count: counts.iter().sum(), buckets: bounds.zip(counts).collect(), sum_s }
    }
}

/// Microseconds as seconds; beyond 285 years the last digits are rounded.
#[expect(clippy::cast_precision_loss, reason = "as the line above says")]
fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

/// The bucket whose end is the first power of two that is not below.
fn bucket(us: u64) -> usize {
    let log = usize::try_from(u64::BITS - us.saturating_sub(1).leading_zeros()).unwrap_or(BOUNDS);
    log.saturating_sub(FIRST_LOG).min(BOUNDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_what_is_not_above_its_end() {
        for log in FIRST_LOG..=LAST_LOG {
            let end = 1u64 << log;
            assert_eq!((bucket(end), bucket(end + 1)), (log - FIRST_LOG, log - FIRST_LOG + 1), "{end}");
        }
        assert_eq!((bucket(0), bucket(1), bucket(u64::MAX)), (0, 0, BOUNDS));
    }

    #[test]
    fn percentiles_are_of_what_came_in_between() {
        let times = Histogram::new();
        (0..100).for_each(|_| times.took_us(5_000));
        let before = times.tally();
        (0..98).for_each(|_| times.took_us(100));
        (0..2).for_each(|_| times.took_us(100_000));
        let since = times.tally().since(&before);
        assert_eq!((since.percentile_us(50), since.percentile_us(99)), (128, 131_072));
        assert_eq!(times.tally().since(&times.tally()).percentile_us(99), 0);
        assert_eq!(times.tally().since(&Tally::default()), times.tally());
        assert_eq!(since.and(&before), times.tally());
    }

    #[test]
    fn counts_and_sums() {
        let times = Histogram::new();
        for us in [3, 16, 17, 1_000_000, 60_000_000] {
            times.took_us(us);
        }
        let shown = times.shown();
        assert_eq!((shown.count, times.count(), shown.sum_s), (5, 5, 61.000_036));
        assert_eq!(shown.buckets[0], (0.000_016, 2));
        assert_eq!(shown.buckets[1], (0.000_032, 1));
        assert_eq!(shown.buckets.last(), Some(&(f64::INFINITY, 1)));
    }
}
