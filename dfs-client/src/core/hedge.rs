//! Hedged reads: from when on a read is slow beside others of its size, and how many may then be asked of a second
//! member.
//!
//! What is slow is learned by size class, from the times that reads took here, whoever answered: a histogram that
//! halves now and then, so that it follows a cluster that gets busier. How many is a bucket of tokens, so that a
//! cluster that is slow as a whole gets a twentieth more to do, and not twice as much.

use std::time::Duration;

use crate::config::Hedging;

/// The largest reads of the first classes: what a program reads at random, and what a kernel reads at once.
const CLASS_BYTES: [u32; 2] = [16 << 10, 128 << 10];
const CLASSES: usize = CLASS_BYTES.len() + 1;
/// Shortest time that is told apart, as a power of two of microseconds, and longest: 16 us and a second.
const SHORTEST_LOG: u32 = 4;
const LONGEST_LOG: u32 = 20;
/// Parts of a doubling: a time is known to a fifth.
const PARTS: usize = 4;
const BUCKETS: usize = (LONGEST_LOG - SHORTEST_LOG) as usize * PARTS;
/// A class halves when it has so many: the slowest twentieth is two dozen reads then.
const FULL: u32 = 512;
/// The percentile is looked for again after so many.
const LOOK_EVERY: u32 = 16;
const PERCENT: u32 = 95;
/// No runtime's timer is finer, and a read that quick has nothing to gain.
const LEAST_US: u64 = 1_000;
/// Hedges that may be saved up: a server that stalls has several reads under way at once.
const SAVED: u32 = 8;

/// What this client knows of its reads' times, and the hedges it may still make.
#[derive(Clone, Debug)]
pub(crate) struct Hedges {
    hedging: Hedging,
    classes: [Times; CLASSES],
    /// In requests: as many as [`Hedging::one_in`] are a hedge.
    credit: u32,
}

#[derive(Clone, Debug)]
struct Times {
    counts: [u32; BUCKETS],
    sum: u32,
    /// Times taken in since the percentile was looked for.
    fresh: u32,
    /// The percentile, in microseconds.
    slow_us: Option<u64>,
}

impl Hedges {
    pub(crate) fn new(hedging: Hedging) -> Hedges {
        Hedges { hedging, classes: Default::default(), credit: 0 }
    }

    /// A read of so many bytes that another member could answer is sent. How long until it is slow; `None` as long as
    /// that is not known.
    pub(crate) fn asked(&mut self, bytes: u32) -> Option<Duration> {
        self.credit = (self.credit + 1).min(self.hedging.one_in.saturating_mul(SAVED));
        self.classes[class(bytes)].slow_us.map(|us| Duration::from_micros(us.max(LEAST_US)))
    }

    /// Whether one that is slow may be sent to another member as well. Only if it is.
    pub(crate) fn take(&mut self) -> bool {
        match self.credit.checked_sub(self.hedging.one_in) {
            Some(left) => {
                self.credit = left;
                true
            }
            None => false,
        }
    }

    /// It was answered after `us`.
    pub(crate) fn took(&mut self, bytes: u32, us: u64) {
        self.classes[class(bytes)].add(us, self.hedging.known_after);
    }
}

fn class(bytes: u32) -> usize {
    CLASS_BYTES.iter().filter(|most| bytes > **most).count()
}

impl Default for Times {
    fn default() -> Times {
        Times { counts: [0; BUCKETS], sum: 0, fresh: 0, slow_us: None }
    }
}

impl Times {
    fn add(&mut self, us: u64, known_after: u32) {
        self.counts[bucket(us)] += 1;
        self.sum += 1;
        self.fresh += 1;
        if self.sum >= FULL {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.sum = self.counts.iter().sum();
        }
        if self.sum >= known_after && (self.fresh >= LOOK_EVERY || self.slow_us.is_none()) {
            self.fresh = 0;
            self.slow_us = Some(self.percentile());
        }
    }

    /// The upper edge of its bucket, so that no more than the rest is slower.
    fn percentile(&self) -> u64 {
        let wanted = (self.sum * PERCENT).div_ceil(100);
        let mut seen = 0;
        let at = self.counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        edge(at.unwrap_or(BUCKETS - 1))
    }
}

fn bucket(us: u64) -> usize {
    let us = us.clamp(1 << SHORTEST_LOG, (1 << LONGEST_LOG) - 1);
    let log = us.ilog2();
    let part = usize::try_from(us >> (log - PARTS.ilog2())).unwrap_or(0) - PARTS;
    usize::try_from(log - SHORTEST_LOG).unwrap_or(0) * PARTS + part
}

/// Where a bucket ends.
fn edge(bucket: usize) -> u64 {
    let (log, part) = (bucket / PARTS, bucket % PARTS);
    let parts = u64::try_from(PARTS + part + 1).unwrap_or(0);
    parts << (log + usize::try_from(SHORTEST_LOG - PARTS.ilog2()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: u32 = 4096;

    fn slow_ms(hedges: &mut Hedges, bytes: u32) -> Option<u128> {
        hedges.asked(bytes).map(|after| after.as_millis())
    }

    #[test]
    fn buckets_touch_and_are_a_quarter_wide_at_most() {
        for at in 0..BUCKETS - 1 {
            assert_eq!((bucket(edge(at) - 1), bucket(edge(at))), (at, at + 1));
            assert!(edge(at + 1) * 4 <= edge(at) * 5);
        }
        assert_eq!((bucket(0), bucket(u64::MAX)), (0, BUCKETS - 1));
    }

    #[test]
    fn what_is_slow_is_learned_by_size_and_not_from_a_few() {
        let mut hedges = Hedges::new(Hedging::default());
        for at in 0..60 {
            assert_eq!(slow_ms(&mut hedges, SMALL), None);
            // Each tenth is slow by a lot.
            hedges.took(SMALL, if at % 10 == 9 { 80_000 } else { 300 });
        }
        assert_eq!(slow_ms(&mut hedges, SMALL), Some(81));
        assert_eq!(slow_ms(&mut hedges, 16 << 10), Some(81));
        assert_eq!(slow_ms(&mut hedges, (16 << 10) + 1), None);
        assert_eq!(slow_ms(&mut hedges, 1 << 20), None);
        // Each fortieth is within what is slow.
        let mut hedges = Hedges::new(Hedging::default());
        (0..200).for_each(|at| hedges.took(1 << 20, if at % 40 == 39 { 80_000 } else { 5_000 }));
        assert_eq!(slow_ms(&mut hedges, 1 << 20), Some(5));
    }

    #[test]
    fn it_follows_what_reads_take_now() {
        let mut hedges = Hedges::new(Hedging::default());
        (0..5000).for_each(|_| hedges.took(SMALL, 300));
        assert_eq!(hedges.asked(SMALL), Some(Duration::from_micros(LEAST_US)));
        (0..600).for_each(|_| hedges.took(SMALL, 20_000));
        assert_eq!(slow_ms(&mut hedges, SMALL), Some(20));
        (0..6000).for_each(|_| hedges.took(SMALL, 2_000));
        assert_eq!(slow_ms(&mut hedges, SMALL), Some(2));
    }

    #[test]
    fn one_in_twenty_and_a_few_saved_up() {
        let mut hedges = Hedges::new(Hedging::default());
        let mut made = 0;
        for _ in 0..1000 {
            hedges.asked(SMALL);
            made += u32::from(hedges.take());
        }
        assert_eq!(made, 50);
        for _ in 0..10_000 {
            hedges.asked(SMALL);
        }
        assert_eq!((0..100).filter(|_| hedges.take()).count(), 8);
    }
}
