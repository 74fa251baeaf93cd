//! The copy that this server keeps of the master's last two verified snapshots and the log since the older: the way back
//! when the master's directory is gone. Nothing that the server serves depends on it; a disk that is full or fails ends
//! the copying and nothing else.
//!
//! Invariants: what was copied from one log is never mixed with another's, so whoever comes back wrong destroys no copy;
//! a file of a copy goes only when all that came after it is here and was read back; what is reported is on the disk.
//!
//! Reading order: [`plan`] (what is fetched next), [`slot`] (one copy's files), [`shelf`] (which copies there are, on
//! which disk, and which goes), [`verify`] (whether it is still what it was), [`keep`] (the task that asks the master).

mod keep;
mod plan;
mod shelf;
mod slot;
mod verify;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};

use dfs_proto::control::CopyReport;
use dfs_proto::ids::{Generation, LogIndex};
use dfs_proto::units::Micros;

pub(crate) use keep::keep;
pub(crate) use shelf::{Shelf, files, is_file, name, survey};

/// What the task that keeps the copy needs of the server around it. Disks are numbered as the shelf's are.
pub(crate) trait Around: Send + Sync + 'static {
    /// The scrub's.
    fn scrub_period_ms(&self) -> u64;

    /// Whether the disk has nothing else to do.
    fn is_idle(&self, on: usize) -> bool;

    /// The copy on this disk has all of a log that is durable up to `index`: a master that comes back with less has lost
    /// records. Called on a thread that may wait for the disk.
    fn heard(&self, on: usize, generation: Generation, index: LogIndex);
}

/// The directory on a disk.
const DIR: &str = "master-copy";

/// What heartbeats say of the copy.
#[derive(Clone, Debug, Default)]
pub(crate) struct Said(Arc<Mutex<Known>>);

#[derive(Clone, Debug, Default)]
struct Known {
    generation: Generation,
    index: LogIndex,
    whole: Option<Micros>,
    trouble: Option<String>,
}

impl Said {
    pub(crate) fn report(&self, now: Micros) -> CopyReport {
        let Known { generation, index, whole, trouble } = self.with(|known| known.clone());
        let whole_ms = whole.map(|at| now.0.saturating_sub(at.0) / 1000);
        CopyReport { generation, index, whole_ms, trouble }
    }

    fn with<T>(&self, work: impl FnOnce(&mut Known) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// All that the master had is here.
    fn whole(&self, generation: Generation, index: LogIndex, now: Micros) {
        self.with(|known| *known = Known { generation, index, whole: Some(now), trouble: None });
    }

    /// Says once what stands in the way, and again when it is something else.
    fn trouble(&self, why: &str) {
        let news = self.with(|known| known.trouble.replace(why.to_owned()).as_deref() != Some(why));
        if news {
            log::warn!("the copy of the master's log does not go on: {why}");
        }
    }
}
