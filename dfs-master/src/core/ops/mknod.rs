//! Makes a node of any kind but directory and symlink.

use dfs_proto::ids::{ChunkId, Ino, SizeEpoch};
use dfs_proto::meta::{Attr, FileKind, Name, Removed, RenameMode, Renamed, SetTime, SetxattrMode};
use dfs_proto::status::Status;
use dfs_proto::units::{ChunkIndex, Timespec};
use serde::{Deserialize, Serialize};

use super::NsOutcome;
use crate::core::namespace::{Caller, Namespace};

/// Makes a node of any kind but directory and symlink.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Mknod {
    pub parent: Ino,
    pub name: Name,
    pub kind: FileKind,
    /// Permission bits, umask applied.
    pub mode: u16,
    /// Of device nodes; 0 elsewhere.
    pub rdev: u32,
    pub now: Timespec,
    pub by: Caller,
}

impl Mknod {
    pub(super) fn check(&self, _: &Namespace) -> Result<(), Status> {
        Err(Status::NotSupported)
    }

    pub(super) fn apply(&self, _: &mut Namespace) -> Result<Attr, Status> {
        Err(Status::NotSupported)
    }
}
