//! What the driver counts: how long answers, syncs of the log and snapshots take.

use std::sync::atomic::{AtomicU64, Ordering};

use dfs_admin::{Count, Histogram, OpTimes};
use dfs_proto::units::Micros;

use crate::clock;

/// Since the process began.
#[derive(Debug)]
pub(crate) struct Stats {
    /// From a request's arrival to its answer, what it waited for the disk included.
    pub(crate) ops: OpTimes,
    pub(crate) log_syncs: Histogram,
    /// Records that were appended to the log.
    pub(crate) records: Count,
    pub(crate) snapshots: Histogram,
    pub(crate) began: Micros,
    /// When the last snapshot of this process was on the disk; 0 before the first.
    snapshot_at: AtomicU64,
}

impl Default for Stats {
    fn default() -> Stats {
        Stats {
            ops: OpTimes::default(),
            log_syncs: Histogram::new(),
            records: Count::new(),
            snapshots: Histogram::new(),
            began: clock::mono(),
            snapshot_at: AtomicU64::new(0),
        }
    }
}

impl Stats {
    pub(super) fn snapshot_written(&self, began: Micros, now: Micros) {
        self.snapshots.took_us(now.0.saturating_sub(began.0));
        self.snapshot_at.store(now.0, Ordering::Relaxed);
    }

    /// Since the last snapshot, or since this process began if it has written none.
    pub(crate) fn snapshot_age_ms(&self) -> u64 {
        let at = Micros(self.snapshot_at.load(Ordering::Relaxed).max(self.began.0));
        clock::mono().ms_since(at)
    }
}
