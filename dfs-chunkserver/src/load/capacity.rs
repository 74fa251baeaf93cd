//! What a server can, in bytes a second: what an operator says, or what it was seen to do while it could do no more.
//!
//! A period is *saturated* when for most of it at least two connections' replies waited for their sockets, or requests
//! waited for every disk. One reader that is slow says nothing of the server. Two whose own links are slow look like a
//! server that is full; what they get counts for as long as nobody gets more.

use std::collections::VecDeque;

/// What counts as the capacity of a server that was never full: 10 Gbit/s. So a young cluster that nobody uses looks
/// idle, and not full.
pub(crate) const UNTIL_LEARNED: u64 = 1_250_000_000;
/// Saturated periods that count: long enough for what readers do in between, and a link that got slower is believed
/// after as many seconds.
const RECENT: usize = 10;
/// Most of a period.
const MOST_PERMILLE: u16 = 500;
/// A period in which less moved teaches nothing: no server's link is that slow, so its readers were.
const LEAST: u64 = 1_000_000;
/// What a disk does in requests smaller than this says nothing of bytes.
const LARGE_REQUEST: u64 = 64 << 10;

/// What was seen in a period of about a second.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Period {
    pub(crate) bytes_in_per_s: u64,
    pub(crate) bytes_out_per_s: u64,
    pub(crate) requests_per_s: u64,
    /// The part of it in which two connections or more waited for their sockets.
    pub(crate) sockets_permille: u16,
    /// The part of it in which requests waited for each of the disks.
    pub(crate) disks_permille: u16,
}

impl Period {
    fn bytes_per_s(&self) -> u64 {
        self.bytes_in_per_s.max(self.bytes_out_per_s)
    }

    fn is_saturated(&self) -> bool {
        let large = self.bytes_out_per_s >= self.requests_per_s.saturating_mul(LARGE_REQUEST);
        let full = self.sockets_permille > MOST_PERMILLE || (self.disks_permille > MOST_PERMILLE && large);
        full && self.bytes_per_s() >= LEAST
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) enum Capacity {
    Given(u64),
    Learned(Learner),
}

/// What saturated periods came to.
#[derive(Debug, Default)]
pub(crate) struct Learner {
    /// What the last ones sustained.
    recent: VecDeque<u64>,
    /// What the last period moved, if it was saturated.
    before: Option<u64>,
    /// The last two were saturated, and moved about what was learned.
    full: bool,
}

impl Capacity {
    /// What was given, or else what will be learned.
    #[must_use]
    pub(crate) fn new(given: Option<u64>) -> Capacity {
        given.map_or_else(|| Capacity::Learned(Learner::default()), |bytes| Capacity::Given(bytes.max(1)))
    }

    /// Takes a period in. Its use of the capacity, in permille.
    pub(crate) fn see(&mut self, period: &Period) -> u16 {
        let full = match self {
            Capacity::Given(_) => false,
            Capacity::Learned(learner) => {
                learner.see(period);
                learner.full
            }
        };
        if full { 1000 } else { super::permille(period.bytes_per_s(), self.bytes_per_s()) }
    }

    /// Bytes a second.
    #[must_use]
    pub(crate) fn bytes_per_s(&self) -> u64 {
        match self {
            Capacity::Given(bytes) => *bytes,
            Capacity::Learned(learner) => learner.learned().unwrap_or(UNTIL_LEARNED),
        }
    }

    /// Whether nobody said it and nothing was seen yet.
    #[must_use]
    pub(crate) fn is_assumed(&self) -> bool {
        matches!(self, Capacity::Learned(learner) if learner.learned().is_none())
    }

    /// Whether it was seen, not given or assumed.
    #[must_use]
    pub(crate) fn is_learned(&self) -> bool {
        matches!(self, Capacity::Learned(learner) if learner.learned().is_some())
    }
}

impl Learner {
    fn learned(&self) -> Option<u64> {
        self.recent.iter().copied().max()
    }

    fn see(&mut self, period: &Period) {
        let bytes = period.bytes_per_s();
        self.full = false;
        if !period.is_saturated() {
            self.before = None;
            // What moves with nobody waiting shows that the server can more than it was seen to do. A little more is
            // within what periods differ by.
            if self.learned().is_some_and(|learned| bytes > learned + learned / 4) {
                self.recent.clear();
            }
            return;
        }
        // A first period also fills buffers, and looks faster than the link is: what two in a row sustained counts.
        if let Some(before) = self.before.replace(bytes) {
            if self.recent.len() == RECENT {
                self.recent.pop_front();
            }
            self.recent.push_back(bytes.min(before));
            // Far less than what was learned is no proof of a full server yet: its readers may be slow.
            self.full = self.learned().is_some_and(|learned| bytes >= learned / 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1_000_000;

    fn out(mb: u64, sockets_permille: u16) -> Period {
        Period { bytes_out_per_s: mb * MB, requests_per_s: mb * 8, sockets_permille, ..Period::default() }
    }

    fn full(mb: u64) -> Period {
        out(mb, 950)
    }

    /// So many periods of a kind.
    fn see(capacity: &mut Capacity, periods: usize, period: &Period) {
        for _ in 0..periods {
            capacity.see(period);
        }
    }

    fn learning() -> Capacity {
        Capacity::new(None)
    }

    #[test]
    fn young_and_quiet_it_looks_idle() {
        let mut capacity = learning();
        for _ in 0..100 {
            assert_eq!(capacity.see(&out(25, 0)), 20);
        }
        assert_eq!((capacity.bytes_per_s(), capacity.is_learned()), (UNTIL_LEARNED, false));
    }

    #[test]
    fn saturated_at_50_mb_a_second_it_is_full_in_the_second_period_and_knows_it_when_it_is_over() {
        let mut capacity = learning();
        capacity.see(&out(10, 0));
        // The first moves what buffers hold as well.
        let seen: Vec<u16> = [90, 50, 49, 51, 48].map(|mb| capacity.see(&full(mb))).to_vec();
        assert_eq!(seen, [72, 1000, 1000, 1000, 1000]);
        assert_eq!((capacity.bytes_per_s(), capacity.is_learned()), (50 * MB, true));
        for _ in 0..100 {
            assert_eq!(capacity.see(&out(5, 0)), 100);
        }
        assert_eq!(capacity.bytes_per_s(), 50 * MB);
    }

    #[test]
    fn readers_that_come_one_after_the_other_fill_buffers_and_it_is_full_all_the_same() {
        let mut capacity = learning();
        capacity.see(&full(58));
        assert_eq!([58, 50, 50].map(|mb| capacity.see(&full(mb))), [1000; 3]);
    }

    #[test]
    fn one_slow_reader_alone_teaches_nothing() {
        let mut capacity = learning();
        for _ in 0..100 {
            // It waits all the time; another one does now and then.
            capacity.see(&out(12, 400));
        }
        assert!(!capacity.is_learned());
    }

    #[test]
    fn two_readers_that_take_nothing_teach_nothing() {
        let mut capacity = learning();
        for _ in 0..30 {
            capacity.see(&Period { sockets_permille: 1000, ..Period::default() });
        }
        assert!(!capacity.is_learned());
    }

    #[test]
    fn faster_later_counts_at_once() {
        let mut capacity = learning();
        see(&mut capacity, 20, &full(50));
        assert_eq!([110, 112, 111].map(|mb| capacity.see(&full(mb))), [1000; 3]);
        assert_eq!(capacity.bytes_per_s(), 111 * MB);
    }

    #[test]
    fn more_than_was_learned_with_nobody_waiting_is_forgotten() {
        let mut capacity = learning();
        see(&mut capacity, 20, &full(50));
        assert_eq!(capacity.see(&out(60, 0)), 1000);
        assert!(capacity.is_learned());
        assert_eq!(capacity.see(&out(125, 0)), 100);
        assert_eq!((capacity.bytes_per_s(), capacity.is_learned()), (UNTIL_LEARNED, false));
    }

    #[test]
    fn slower_later_is_believed_after_ten_periods() {
        let mut capacity = learning();
        see(&mut capacity, 20, &full(100));
        let seen: Vec<u16> = (0..11).map(|_| capacity.see(&full(20))).collect();
        assert_eq!((seen[0], seen[8], seen[10]), (200, 200, 1000));
        assert_eq!(capacity.bytes_per_s(), 20 * MB);
    }

    #[test]
    fn a_link_that_is_a_third_slower_is_full_all_the_while() {
        let mut capacity = learning();
        see(&mut capacity, 20, &full(100));
        assert!((0..11).all(|_| capacity.see(&full(66)) == 1000));
        assert_eq!(capacity.bytes_per_s(), 66 * MB);
    }

    #[test]
    fn disks_teach_by_large_requests_only() {
        let disk = |mb, requests| Period {
            bytes_out_per_s: mb * MB,
            requests_per_s: requests,
            disks_permille: 900,
            ..Period::default()
        };
        let mut capacity = learning();
        see(&mut capacity, 5, &disk(2, 500));
        assert!(!capacity.is_learned());
        see(&mut capacity, 5, &disk(150, 1200));
        assert_eq!((capacity.bytes_per_s(), capacity.is_learned()), (150 * MB, true));
    }

    #[test]
    fn what_is_given_stays() {
        let mut capacity = Capacity::new(Some(100 * MB));
        assert_eq!([50, 50, 50].map(|mb| capacity.see(&full(mb))), [500; 3]);
        assert_eq!((capacity.bytes_per_s(), capacity.is_learned()), (100 * MB, false));
    }
}
