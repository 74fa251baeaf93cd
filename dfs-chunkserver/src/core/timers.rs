//! What waits for time. An entry that has lost its reason by the time it is due does nothing.

use std::collections::BTreeSet;

use dfs_proto::ids::{ChunkId, Seq};
use dfs_proto::units::Micros;

use crate::core::io::DiskIx;
use crate::core::work::JobId;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Timer {
    /// Tell secondaries what is committed and no FORWARD carried.
    Committed,
    /// Send a write again to those who have not taken it.
    Resend { chunk: ChunkId, seq: Seq },
    /// Send a sync again.
    SyncAgain { job: JobId },
    /// A FENCE is answered with what is known.
    FenceOver { job: JobId },
    /// Tell the master again what still stands.
    Remind { chunk: ChunkId },
    /// Have the disks remember the high-water marks.
    HighWater,
    /// Give a disk the next step of its scrub.
    Scrub { disk: DiskIx },
    /// Have damaged blocks mended.
    Mend { chunk: ChunkId },
    /// Tell the master what is on disks that take no writes.
    Stranded,
}

#[derive(Debug, Default)]
pub(crate) struct Timers {
    due: BTreeSet<(Micros, Timer)>,
}

impl Timers {
    pub(crate) fn add(&mut self, at: Micros, timer: Timer) {
        self.due.insert((at, timer));
    }

    pub(crate) fn next(&self) -> Option<Micros> {
        self.due.first().map(|&(at, _)| at)
    }

    pub(crate) fn pop_due(&mut self, now: Micros) -> Option<Timer> {
        let &(at, timer) = self.due.first()?;
        if at > now {
            return None;
        }
        self.due.remove(&(at, timer));
        Some(timer)
    }
}
