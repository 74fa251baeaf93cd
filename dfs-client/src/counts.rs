//! What a client counts of its troubles, for whoever watches it. Nothing is decided by it.

use std::sync::atomic::{AtomicU64, Ordering};

/// The live counters.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) hedged: Counter,
    pub(crate) hedges_won: Counter,
    pub(crate) silent: Counter,
    pub(crate) retries: Counter,
}

#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn one_more(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// The counters at one moment, since the client was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Reads that were slow and asked of a second replica.
    pub hedged_reads: u64,
    /// Of those, the ones that the second one answered.
    pub hedges_won: u64,
    /// Reads whose server was silent, so that another was asked whatever that costs.
    pub silent_reads: u64,
    /// Requests that were sent again after a pause.
    pub retries: u64,
}

impl Counters {
    pub(crate) fn now(&self) -> Counts {
        let of = |counter: &Counter| counter.0.load(Ordering::Relaxed);
        Counts {
            hedged_reads: of(&self.hedged),
            hedges_won: of(&self.hedges_won),
            silent_reads: of(&self.silent),
            retries: of(&self.retries),
        }
    }
}
