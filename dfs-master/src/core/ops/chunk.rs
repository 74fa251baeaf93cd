//! Puts chunks into files and takes them out.

use dfs_proto::ids::{ChunkId, Ino, SizeEpoch};
use dfs_proto::meta::{Attr, FileKind, Name, Removed, RenameMode, Renamed, SetTime, SetxattrMode};
use dfs_proto::status::Status;
use dfs_proto::units::{ChunkIndex, Timespec};
use serde::{Deserialize, Serialize};

use super::NsOutcome;
use crate::core::namespace::{Caller, Namespace};

/// Puts a chunk where the file has a hole.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SetChunk {
    pub ino: Ino,
    pub index: ChunkIndex,
    pub chunk: ChunkId,
}

impl SetChunk {
    pub(super) fn check(&self, _: &Namespace) -> Result<(), Status> {
        Err(Status::NotSupported)
    }

    pub(super) fn apply(&self, _: &mut Namespace) -> Result<(), Status> {
        Err(Status::NotSupported)
    }
}
/// Takes a chunk out that was never written: the index is a hole again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClearChunk {
    pub ino: Ino,
    pub index: ChunkIndex,
    pub chunk: ChunkId,
}

impl ClearChunk {
    pub(super) fn check(&self, _: &Namespace) -> Result<(), Status> {
        Err(Status::NotSupported)
    }

    pub(super) fn apply(&self, _: &mut Namespace) -> Result<NsOutcome, Status> {
        Err(Status::NotSupported)
    }
}
