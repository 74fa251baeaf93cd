//! Why a log is not started from. Every text says where, and what to do about it.

use std::fmt;
use std::io;

use dfs_proto::ids::{ClusterId, LogIndex};

use super::super::entry::{EntryId, RecordNum};
use super::super::identity::IdentityError;
use super::super::order::Disorder;
use super::super::record::Fault;
use super::super::snapshot::SnapshotError;

/// Who says that a damaged record was durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Witness {
    pub segment: String,
    pub offset: u64,
    /// Everything up to this record was durable, it says.
    pub durable: RecordNum,
}

/// A record that was durable and is not there any more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    pub segment: String,
    pub offset: u64,
    pub record: RecordNum,
    pub fault: Fault,
    /// The last entry before the damage.
    pub last: LogIndex,
    pub witness: Witness,
    /// Whole records found behind the damage.
    pub later_records: u64,
    pub(super) used_to: u64,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Damage { segment, offset, record, fault, last, witness, later_records, .. } = self;
        write!(
            f,
            "the log is damaged: {segment} at offset {offset}, record {} (after entry {last}): {fault}; \
             it was durable, says {} at offset {} (all up to record {}); {later_records} whole records \
             follow. Not starting. Repair: put back {segment} from a copy of this directory or its disk; \
             with other masters, empty this directory and let them refill it; or give up every \
             change after entry {last}: `dfs recover --accept-metadata-loss {last}`",
            record.0, witness.segment, witness.offset, witness.durable.0
        )
    }
}

/// Why there is no starting from this log.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    #[error("another process has this directory in use")]
    InUse,
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    #[error("{0}")]
    Damage(Box<Damage>),
    #[error(
        "{file} belongs to cluster {found}, this directory to {ours}: a file of another cluster was put here"
    )]
    Foreign { file: String, found: ClusterId, ours: ClusterId },
    #[error("{file} is the segment that begins with record {:016x}: it was renamed or copied", found.0)]
    Misnamed { file: String, found: RecordNum },
    #[error("{file} at offset {offset} was written by a newer version ({what}): start that version")]
    Newer { file: String, offset: u64, what: String },
    #[error(
        "{segment} at offset {offset}, record {}: {disorder}. The record is whole, so this is a fault of the \
         program or of a copied file: keep the directory and report it",
        record.0
    )]
    OutOfOrder { segment: String, offset: u64, record: RecordNum, disorder: Disorder },
    #[error("log/{:016x}.seg begins inside the segment before it: a copied file", .0.0)]
    Overlap(RecordNum),
    #[error(
        "entries from {need} on are needed, and the log has them from {have} on; snapshots passed over: \
         {skipped}. Put the missing segments back, or refill this directory from the other masters"
    )]
    Missing { need: LogIndex, have: LogIndex, skipped: String },
    #[error(
        "the header of {segment} is damaged, and no earlier segment says what came before it. Not starting. \
         Repair: put back {segment} from a copy of this directory or its disk, or refill this directory \
         from the other masters"
    )]
    Header { segment: String },
    #[error(
        "there is no log segment, but {} is there: the directory was emptied",
        super::super::identity::PATH
    )]
    Empty,
    #[error(transparent)]
    Snapshot(SnapshotError),
    #[error("the snapshot at {} is of term {}, the log's entry of term {}", snapshot.index, snapshot.term, log.term)]
    SnapshotDisagrees { snapshot: EntryId, log: EntryId },
}

impl RecoverError {
    /// Adds to a gap in the log why no snapshot covers it.
    pub(super) fn with_skipped(mut self, passed_over: &[(LogIndex, SnapshotError)]) -> RecoverError {
        if let RecoverError::Missing { skipped, .. } = &mut self {
            let texts: Vec<String> = passed_over.iter().map(|(_, why)| why.to_string()).collect();
            *skipped = if texts.is_empty() { "none".to_owned() } else { texts.join("; ") };
        }
        self
    }
}
