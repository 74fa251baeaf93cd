//! Snapshots: the whole state at one entry, as a file of checked blocks. What is in the blocks is the
//! state machine's business; which snapshot to load is [`mod@super::recover`]'s.
//!
//! Invariant: a file with a snapshot's name was complete, synced and read back before its maker said so,
//! and nothing older goes before that. Two are kept: the older one and the log behind it stand in when
//! the newest turns out to be damaged.
//!
//! A snapshot is written on a thread of its own while the log goes on: nothing here is shared with the
//! log's writer.

mod format;
mod reader;
mod writer;

pub use format::Section;
pub use reader::{Block, SnapshotReader};
pub use writer::SnapshotWriter;

use std::io;

use dfs_disk::Disk;
use dfs_proto::ids::{ClusterId, Generation, LogIndex};

use super::entry::{ConfState, EntryId};
use super::identity::Identity;

/// The directory.
pub const DIR: &str = "snapshot";
/// The longest payload of a block in bytes: one write, one read, one allocation.
pub const BLOCK_MAX: usize = 1 << 20;
/// How many good snapshots are kept.
const KEPT: usize = 2;

/// What a snapshot is of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotMeta {
    /// The last entry that the state includes.
    pub id: EntryId,
    /// The group's members after that entry.
    pub conf: ConfState,
    pub generation: Generation,
    /// Which tables the blocks are of, and in which version each is encoded.
    pub sections: Vec<Section>,
}

/// What is wrong with a snapshot file.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("{path}: {source}")]
    Io { path: String, source: io::Error },
    #[error("{path} is damaged at offset {offset}: {what}")]
    Damaged { path: String, offset: u64, what: &'static str },
    #[error("{path} belongs to cluster {found}, not to {ours}")]
    Foreign { path: String, found: ClusterId, ours: ClusterId },
    #[error("{path} has format {format}, which this version does not know")]
    Newer { path: String, format: u32 },
}

/// The snapshots of one directory.
#[derive(Clone, Debug)]
pub struct SnapshotStore<D> {
    disk: D,
    cluster: ClusterId,
    generation: Generation,
}

/// The path of the snapshot at `index`.
#[must_use]
pub fn path(index: LogIndex) -> String {
    format!("{DIR}/{:016x}.snap", index.0)
}

/// How the name of the file ends that is to become a snapshot.
const TEMP: &str = ".tmp";

pub(super) fn parse_name(name: &str) -> Option<LogIndex> {
    let hex = name.strip_suffix(".snap").filter(|hex| hex.len() == 16)?;
    u64::from_str_radix(hex, 16).ok().map(LogIndex)
}

impl<D: Disk> SnapshotStore<D> {
    /// The snapshots of the cluster in `disk`.
    pub fn new(disk: D, identity: &Identity) -> SnapshotStore<D> {
        SnapshotStore { disk, cluster: identity.cluster, generation: identity.generation }
    }

    /// The snapshots there are, oldest first, good or not.
    ///
    /// # Errors
    /// The failing call's.
    pub fn list(&self) -> io::Result<Vec<LogIndex>> {
        let mut found: Vec<LogIndex> =
            self.disk.list(DIR)?.iter().filter(|e| !e.is_dir).filter_map(|e| parse_name(&e.name)).collect();
        found.sort_unstable();
        Ok(found)
    }

    /// Begins the snapshot of the state after `id`.
    ///
    /// # Errors
    /// The failing call's.
    pub fn begin(
        &self,
        id: EntryId,
        conf: ConfState,
        sections: Vec<Section>,
    ) -> Result<SnapshotWriter<D>, SnapshotError> {
        let meta = SnapshotMeta { id, conf, generation: self.generation, sections };
        SnapshotWriter::begin(self.clone(), meta)
    }

    /// Opens a snapshot for reading.
    ///
    /// # Errors
    /// As [`SnapshotReader::next_block`].
    pub fn open(&self, index: LogIndex) -> Result<SnapshotReader<D>, SnapshotError> {
        SnapshotReader::open(&self.disk, self.cluster, path(index), Some(index))
    }

    /// Looks at a snapshot's two ends: is it ours, whole in length, and of which state?
    ///
    /// # Errors
    /// As [`SnapshotReader::next_block`].
    pub fn check(&self, index: LogIndex) -> Result<SnapshotMeta, SnapshotError> {
        let reader = self.open(index)?;
        reader.check_footer()?;
        Ok(reader.meta().clone())
    }

    /// Reads a snapshot from end to end.
    ///
    /// # Errors
    /// As [`SnapshotReader::next_block`].
    pub fn verify(&self, index: LogIndex) -> Result<SnapshotMeta, SnapshotError> {
        let mut reader = self.open(index)?;
        while reader.next_block()?.is_some() {}
        Ok(reader.meta().clone())
    }

    /// Removes what is older than the two newest good snapshots, and what was never finished.
    /// `verified` is one just finished; others are read through before they count as good. Returns the
    /// older of the two: the log may be pruned up to there. `None` while there is only one.
    ///
    /// # Errors
    /// The failing call's.
    pub fn prune(&self, verified: LogIndex) -> Result<Option<LogIndex>, SnapshotError> {
        let io = |path: &str| {
            let path = path.to_owned();
            move |source| SnapshotError::Io { path, source }
        };
        let all = self.list().map_err(io(DIR))?;
        let good = |index: &&LogIndex| **index == verified || self.verify(**index).is_ok();
        let Some(older) = all.iter().rev().filter(good).nth(KEPT - 1).copied() else { return Ok(None) };
        for index in all.into_iter().filter(|index| *index < older) {
            let path = path(index);
            self.disk.remove(&path).map_err(io(&path))?;
        }
        self.disk.sync_dir(DIR).map_err(io(DIR))?;
        Ok(Some(older))
    }
}
