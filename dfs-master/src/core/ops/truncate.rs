//! Changes of size.

use dfs_proto::ids::{ChunkId, Ino, SizeEpoch};
use dfs_proto::meta::{Attr, FileKind, Name, Removed, RenameMode, Renamed, SetTime, SetxattrMode};
use dfs_proto::status::Status;
use dfs_proto::units::{ChunkIndex, Timespec};
use serde::{Deserialize, Serialize};

use super::NsOutcome;
use crate::core::namespace::{Caller, Namespace};

/// Sets the size in one record: to a chunk border, or where no written byte is cut.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Truncate {
    pub ino: Ino,
    pub size: u64,
    pub now: Timespec,
    pub by: TruncateBy,
}

impl Truncate {
    pub(super) fn check(&self, _: &Namespace) -> Result<(), Status> {
        Err(Status::NotSupported)
    }

    pub(super) fn apply(&self, _: &mut Namespace) -> Result<NsOutcome, Status> {
        Err(Status::NotSupported)
    }
}
/// First half of a truncation that cuts a chunk: from now on, older writes are refused.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TruncateIntent {
    pub ino: Ino,
    pub size: u64,
    pub now: Timespec,
    pub by: TruncateBy,
}

impl TruncateIntent {
    pub(super) fn check(&self, _: &Namespace) -> Result<(), Status> {
        Err(Status::NotSupported)
    }

    pub(super) fn apply(&self, _: &mut Namespace) -> Result<Boundary, Status> {
        Err(Status::NotSupported)
    }
}
/// Second half, after the boundary chunk was zeroed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TruncateFinal {
    pub ino: Ino,
    /// The intent's.
    pub size_epoch: SizeEpoch,
    pub now: Timespec,
}

impl TruncateFinal {
    pub(super) fn check(&self, _: &Namespace) -> Result<(), Status> {
        Err(Status::NotSupported)
    }

    pub(super) fn apply(&self, _: &mut Namespace) -> Result<NsOutcome, Status> {
        Err(Status::NotSupported)
    }
}

/// Who truncates.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TruncateBy {
    pub caller: Caller,
    /// Through a descriptor open for writing, which is right enough.
    pub by_handle: bool,
}

/// A truncation under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Intent {
    /// The size to come.
    pub size: u64,
    pub boundary: Boundary,
}

/// The chunk that a truncation cuts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Boundary {
    pub chunk: ChunkId,
    pub index: ChunkIndex,
    /// The chunk is zeroed from this byte to its end.
    pub from: u32,
    /// The inode's epoch since the intent.
    pub size_epoch: SizeEpoch,
}

/// What a truncation takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TruncateStep {
    /// [`Truncate`] alone.
    Direct,
    /// [`TruncateIntent`], zeroing this chunk from `from` on, then [`TruncateFinal`].
    Boundary { chunk: ChunkId, index: ChunkIndex, from: u32 },
}

impl Namespace {
    /// What setting this size takes now.
    ///
    /// # Errors
    /// `Stale`, `IsDir`, `Invalid` for what is no file, `TooBig`, `Recovering` while another is under way.
    pub fn truncate_step(&self, ino: Ino, size: u64) -> Result<TruncateStep, Status> {
        let _ = (ino, size);
        Err(Status::NotSupported)
    }
}
