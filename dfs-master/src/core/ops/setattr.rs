//! Changes attributes.

use dfs_proto::ids::{ChunkId, Ino, SizeEpoch};
use dfs_proto::meta::{Attr, FileKind, Name, Removed, RenameMode, Renamed, SetTime, SetxattrMode};
use dfs_proto::status::Status;
use dfs_proto::units::{ChunkIndex, Timespec};
use serde::{Deserialize, Serialize};

use super::NsOutcome;
use crate::core::namespace::{Caller, Namespace};

/// Changes attributes; what is `None` stays. The size has commands of its own.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Setattr {
    pub ino: Ino,
    pub mode: Option<u16>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub atime: Option<SetTime>,
    pub mtime: Option<SetTime>,
    pub now: Timespec,
    pub by: Caller,
}

impl Setattr {
    pub(super) fn check(&self, _: &Namespace) -> Result<(), Status> {
        Err(Status::NotSupported)
    }

    pub(super) fn apply(&self, _: &mut Namespace) -> Result<Attr, Status> {
        Err(Status::NotSupported)
    }
}
