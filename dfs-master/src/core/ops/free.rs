//! Frees orphans.

use dfs_proto::ids::{ChunkId, Ino, SizeEpoch};
use dfs_proto::meta::{Attr, FileKind, Name, Removed, RenameMode, Renamed, SetTime, SetxattrMode};
use dfs_proto::status::Status;
use dfs_proto::units::{ChunkIndex, Timespec};
use serde::{Deserialize, Serialize};

use super::NsOutcome;
use crate::core::namespace::{Caller, Namespace};

/// Frees inodes that have no name. What is no orphan is passed over.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FreeInodes {
    pub inos: Vec<Ino>,
}

impl FreeInodes {
    pub(super) fn apply(&self, _: &mut Namespace) -> NsOutcome {
        NsOutcome::Freed { inos: Vec::new(), dropped: Vec::new() }
    }
}
