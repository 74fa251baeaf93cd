//! The fdatasync of the log, apart from its writer so that it can run on another thread while the next
//! batch gathers, and the latch that makes a log that failed once stay failed.
//!
//! Invariant (I22): after one failed write or sync nothing of this log is ever called durable again.
//! The kernel reports a lost page once, to whoever syncs first; so syncs go one at a time, and each
//! looks at the latch after the one before has set it.

use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use dfs_disk::{Disk, DiskFile};
use dfs_proto::planted;

use super::DIR;
use super::entry::{Position, RecordNum};

/// The latch. Shared by a writer and its handles.
#[derive(Debug, Default)]
pub(super) struct Latch {
    failed: OnceLock<(io::ErrorKind, String)>,
    /// Held during a sync. No other lock is taken under it.
    syncing: Mutex<()>,
}

impl Latch {
    /// Ok until the first failure, and that failure from then on.
    pub(super) fn check(&self) -> io::Result<()> {
        match self.failed.get() {
            None => Ok(()),
            Some((kind, why)) => Err(io::Error::new(*kind, format!("the log failed earlier: {why}"))),
        }
    }

    /// Latches the failure that `error` is, and gives it back.
    pub(super) fn fail(&self, error: io::Error) -> io::Error {
        // A second failure loses to the first: the first is the cause.
        self.failed.get_or_init(|| (error.kind(), error.to_string()));
        error
    }
}

/// A promise that everything up to `position` is durable. Only [`SyncHandle::run`] makes one.
#[derive(Debug, PartialEq, Eq)]
pub struct Synced {
    pub(super) position: Position,
    pub(super) place: Place,
}

/// A place in the log's files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    pub segment: RecordNum,
    /// Bytes from the segment's start.
    pub end: u64,
}

impl Synced {
    /// What is durable.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }
}

/// Everything that a sync must touch for the records written so far to be durable.
#[derive(Debug)]
pub struct SyncHandle<D: Disk> {
    pub(super) disk: D,
    /// Segments with unsynced records, oldest first.
    pub(super) files: Vec<Arc<D::File>>,
    /// A segment's name is not yet durable.
    pub(super) names: bool,
    pub(super) position: Position,
    pub(super) place: Place,
    pub(super) latch: Arc<Latch>,
}

impl<D: Disk> SyncHandle<D> {
    /// What will be durable once this has run.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// Syncs. Give the result to [`super::LogWriter::synced`].
    ///
    /// # Errors
    /// The failing call's, or the log's first failure ever.
    pub fn run(self) -> io::Result<Synced> {
        let _one_at_a_time = self.latch.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        self.latch.check()?;
        let result = if planted!(LogNotSynced) { Ok(()) } else { self.sync_all() };
        match result {
            // A write that failed meanwhile may be why this sync had nothing to complain about.
            Ok(()) => self.latch.check().map(|()| Synced { position: self.position, place: self.place }),
            Err(error) => Err(self.latch.fail(error)),
        }
    }

    fn sync_all(&self) -> io::Result<()> {
        for file in &self.files {
            file.sync_data()?;
        }
        if self.names { self.disk.sync_dir(DIR) } else { Ok(()) }
    }
}
