//! Extended attributes.

use dfs_proto::ids::{ChunkId, Ino, SizeEpoch};
use dfs_proto::meta::{Attr, FileKind, Name, Removed, RenameMode, Renamed, SetTime, SetxattrMode};
use dfs_proto::status::Status;
use dfs_proto::units::{ChunkIndex, Timespec};
use serde::{Deserialize, Serialize};

use super::NsOutcome;
use crate::core::namespace::{Caller, Namespace};

/// Sets an extended attribute.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Setxattr {
    pub ino: Ino,
    pub name: Name,
    pub value: serde_bytes::ByteBuf,
    pub mode: SetxattrMode,
    pub now: Timespec,
    pub by: Caller,
}

impl Setxattr {
    pub(super) fn check(&self, _: &Namespace) -> Result<(), Status> {
        Err(Status::NotSupported)
    }

    pub(super) fn apply(&self, _: &mut Namespace) -> Result<(), Status> {
        Err(Status::NotSupported)
    }
}
/// Removes an extended attribute.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Removexattr {
    pub ino: Ino,
    pub name: Name,
    pub now: Timespec,
    pub by: Caller,
}

impl Removexattr {
    pub(super) fn check(&self, _: &Namespace) -> Result<(), Status> {
        Err(Status::NotSupported)
    }

    pub(super) fn apply(&self, _: &mut Namespace) -> Result<(), Status> {
        Err(Status::NotSupported)
    }
}
