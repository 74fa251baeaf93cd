//! Moves a name.

use dfs_proto::ids::{ChunkId, Ino, SizeEpoch};
use dfs_proto::meta::{Attr, FileKind, Name, Removed, RenameMode, Renamed, SetTime, SetxattrMode};
use dfs_proto::status::Status;
use dfs_proto::units::{ChunkIndex, Timespec};
use serde::{Deserialize, Serialize};

use super::NsOutcome;
use crate::core::namespace::{Caller, Namespace};

/// Moves a name.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Rename {
    pub parent: Ino,
    pub name: Name,
    pub new_parent: Ino,
    pub new_name: Name,
    pub mode: RenameMode,
    pub now: Timespec,
    pub by: Caller,
}

impl Rename {
    pub(super) fn check(&self, _: &Namespace) -> Result<(), Status> {
        Err(Status::NotSupported)
    }

    pub(super) fn apply(&self, _: &mut Namespace) -> Result<Renamed, Status> {
        Err(Status::NotSupported)
    }
}
