//! Takes over what a writer did.

use dfs_proto::ids::{ChunkId, Ino, SizeEpoch};
use dfs_proto::meta::{Attr, FileKind, Name, Removed, RenameMode, Renamed, SetTime, SetxattrMode};
use dfs_proto::status::Status;
use dfs_proto::units::{ChunkIndex, Timespec};
use serde::{Deserialize, Serialize};

use super::NsOutcome;
use crate::core::namespace::{Caller, Namespace};

/// Takes over what a writer did: size and times.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Commit {
    pub ino: Ino,
    /// The epoch that the writes were made under; not looked at when only `atime` is set.
    pub size_epoch: SizeEpoch,
    /// The file reaches at least to here.
    pub size_at_least: Option<u64>,
    /// Never set back: at least a nanosecond is added.
    pub mtime: Option<SetTime>,
    pub atime: Option<SetTime>,
    /// Data was written by someone who is not root: setuid and setgid go.
    pub clear_privileges: bool,
    pub now: Timespec,
}

impl Commit {
    pub(super) fn check(&self, _: &Namespace) -> Result<(), Status> {
        Err(Status::NotSupported)
    }

    pub(super) fn apply(&self, _: &mut Namespace) -> Result<Attr, Status> {
        Err(Status::NotSupported)
    }
}
