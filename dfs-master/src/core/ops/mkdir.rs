//! Makes a directory.

use dfs_proto::ids::Ino;
use dfs_proto::meta::{Attr, FileKind, Name};
use dfs_proto::status::Status;
use dfs_proto::units::Timespec;
use serde::{Deserialize, Serialize};

use super::node::NewNode;
use crate::core::namespace::{Caller, Inode, Namespace, Payload};

/// Makes a directory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Mkdir {
    pub parent: Ino,
    pub name: Name,
    /// Permission bits and sticky, umask applied; setuid and setgid are not the caller's to choose.
    pub mode: u16,
    pub now: Timespec,
    pub by: Caller,
}

/// What Linux takes over from mkdir's mode.
const MKDIR_MODE: u16 = 0o1777;

impl Mkdir {
    fn node(&self) -> NewNode<'_> {
        NewNode {
            parent: self.parent,
            name: &self.name,
            kind: FileKind::Dir,
            mode: self.mode & MKDIR_MODE,
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
