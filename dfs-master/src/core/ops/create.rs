//! Makes a regular file. Opening it, and finding that it is there already, is the sessions' business.

use dfs_proto::ids::Ino;
use dfs_proto::meta::{Attr, FileKind, Name};
use dfs_proto::status::Status;
use dfs_proto::units::Timespec;
use serde::{Deserialize, Serialize};

use super::node::NewNode;
use crate::core::namespace::{Caller, Inode, Namespace, Payload};

/// Makes a regular file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Create {
    pub parent: Ino,
    pub name: Name,
    /// Permission bits, umask applied.
    pub mode: u16,
    pub now: Timespec,
    pub by: Caller,
}

impl Create {
    fn node(&self) -> NewNode<'_> {
        NewNode {
            parent: self.parent,
            name: &self.name,
            kind: FileKind::File,
            mode: self.mode,
            payload: Payload::Nothing,
            size: 0,
            now: self.now,
            by: &self.by,
        }
    }

    pub(super) fn check(&self, ns: &Namespace) -> Result<Inode, Status> {
        self.node().check(ns)
    }

    pub(super) fn apply(&self, ns: &mut Namespace) -> Result<Attr, Status> {
        self.node().apply(ns)
    }
}
