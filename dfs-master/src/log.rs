//! The master's log on disk: what a commit appends to and a restart reads, with the snapshots that keep
//! it short and the identity that it belongs to. It works over [`dfs_disk::Disk`] alone, so that the
//! simulator cuts the power under the code that runs in production. Payloads are bytes to it: commands
//! and tables are the core's.
//!
//! Invariants: what a finished sync covered is recovered, whole and in order, or the log refuses to
//! start (I25); after one failed write or sync nothing is durable any more (I22); nothing a snapshot
//! stands for goes before two good ones are there.
//!
//! Reading order: [`entry`] (the words), [`record`] and [`segment`] (the bytes), [`order`] (what may
//! follow what), [`writer`] and [`sync`], [`snapshot`], [`mod@recover`] and [`reader`], [`identity`], [`files`].
//!
//! A life: [`init`] once; then [`recover()`], load its snapshot's blocks, apply its replay,
//! [`Recovered::into_writer`], and from then on append, sync, and now and then snapshot and prune.

pub mod entry;
pub mod files;
pub mod identity;
pub mod order;
pub mod reader;
pub mod record;
pub mod recover;
pub mod segment;
pub mod snapshot;
pub mod sync;
pub mod writer;

pub use entry::{ConfState, EntryId, EntryKind, HardState, LogEntry, NodeId, Position, RecordNum};
pub use identity::{Identity, IdentityError, PATH as IDENTITY};
pub use reader::{Replay, ReplayError};
pub use record::{Marker, Record};
pub use recover::{Options, RecoverError, Recovered, TornTail, recover, recover_as};
pub use snapshot::{
    Block, Section, SnapshotError, SnapshotMeta, SnapshotReader, SnapshotStore, SnapshotWriter,
};
pub use sync::{Place, SyncHandle, Synced};
pub use writer::{LogWriter, Prune};

use std::io::{self, IoSlice};

use dfs_disk::{Disk, DiskFile, Open};

/// The directory of the segments.
pub const DIR: &str = "log";
/// The smallest segment: tests roll every few records with it.
pub const SEGMENT_MIN: u64 = 4096;

/// How the log is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogConfig {
    /// Length of a new segment in bytes, at least [`SEGMENT_MIN`]. The longest record must fit.
    pub segment_bytes: u64,
}

impl Default for LogConfig {
    /// 64 MiB: some 300,000 records of a create, and zeroing the next takes under a second on any disk.
    fn default() -> LogConfig {
        LogConfig { segment_bytes: 64 << 20 }
    }
}

impl LogConfig {
    /// Segments of `bytes`, or of [`SEGMENT_MIN`] if that is more.
    #[must_use]
    pub fn with_segments_of(bytes: u64) -> LogConfig {
        LogConfig { segment_bytes: bytes.max(SEGMENT_MIN) }
    }
}

/// Makes an empty log for a new cluster. A crash within leaves a directory that is not initialised, and
/// init can be run again.
///
/// # Errors
/// `Exists` when the directory belongs to a cluster already; else the failing call's.
pub fn init<D: Disk>(disk: &D, identity: &Identity, config: LogConfig) -> Result<(), IdentityError> {
    prepare(disk)?;
    complete(disk, identity, config, EntryId::default())
}

/// Makes a directory ready for a log, and for snapshots that the log is to go on from.
///
/// # Errors
/// As [`init`].
pub fn prepare<D: Disk>(disk: &D) -> Result<(), IdentityError> {
    disk.lock()?;
    if disk.exists(identity::PATH)? {
        return Err(IdentityError::Exists);
    }
    disk.create_dir_all(DIR)?;
    disk.create_dir_all(snapshot::DIR)?;
    Ok(disk.sync_dir("")?)
}

/// Makes a prepared directory a cluster's, with a log without entries that goes on from `before`: nothing, or the entry
/// of the snapshot that is there.
///
/// # Errors
/// As [`init`].
pub fn complete<D: Disk>(
    disk: &D,
    identity: &Identity,
    config: LogConfig,
    before: EntryId,
) -> Result<(), IdentityError> {
    first_segment(disk, identity, config, before)?;
    identity.store(disk)
}

fn first_segment<D: Disk>(
    disk: &D,
    identity: &Identity,
    config: LogConfig,
    before: EntryId,
) -> io::Result<()> {
    let first = RecordNum(1);
    let path = segment::path(first);
    if disk.exists(&path)? {
        disk.remove(&path)?;
    }
    let header = segment::Header { cluster: identity.cluster, first, before, durable: RecordNum::default() };
    let mut bytes = header.encode().to_vec();
    let seed = segment::seed(identity.cluster, first);
    let empty = Record::HardState(HardState { term: before.term, vote: None, commit: before.index });
    record::encode(seed, first, RecordNum::default(), &empty, &mut bytes);
    bytes.resize(usize::try_from(config.segment_bytes).unwrap_or(usize::MAX), 0);
    let file = disk.open(&path, Open::New)?;
    file.write_at(&[IoSlice::new(&bytes)], 0)?;
    file.sync_data()?;
    disk.sync_dir(DIR)
}
