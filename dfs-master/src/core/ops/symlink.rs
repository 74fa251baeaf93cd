//! Makes a symlink.

use dfs_proto::ids::{ChunkId, Ino, SizeEpoch};
use dfs_proto::meta::{Attr, FileKind, Name, Removed, RenameMode, Renamed, SetTime, SetxattrMode};
use dfs_proto::status::Status;
use dfs_proto::units::{ChunkIndex, Timespec};
use serde::{Deserialize, Serialize};

use super::NsOutcome;
use crate::core::namespace::{Caller, Namespace};

/// Makes a symlink.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Symlink {
    pub parent: Ino,
    pub name: Name,
    pub target: Name,
    pub now: Timespec,
    pub by: Caller,
}

impl Symlink {
    pub(super) fn check(&self, _: &Namespace) -> Result<(), Status> {
        Err(Status::NotSupported)
    }

    pub(super) fn apply(&self, _: &mut Namespace) -> Result<Attr, Status> {
        Err(Status::NotSupported)
    }
}
