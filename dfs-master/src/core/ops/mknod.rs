//! Makes a node of any kind but directory and symlink.

use dfs_proto::ids::Ino;
use dfs_proto::meta::{Attr, FileKind, Name};
use dfs_proto::status::Status;
use dfs_proto::units::Timespec;
use serde::{Deserialize, Serialize};

use super::node::NewNode;
use crate::core::namespace::{Caller, Inode, Namespace, Payload};

/// Makes a node of any kind but directory and symlink.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Mknod {
    pub parent: Ino,
    pub name: Name,
    pub kind: FileKind,
    /// Permission bits, umask applied.
    pub mode: u16,
    /// Of device nodes; not looked at elsewhere.
    pub rdev: u32,
    pub now: Timespec,
    pub by: Caller,
}

impl Mknod {
    fn node(&self) -> Result<NewNode<'_>, Status> {
        let payload = match self.kind {
            FileKind::File | FileKind::Fifo | FileKind::Socket => Payload::Nothing,
            FileKind::BlockDev | FileKind::CharDev if self.by.is_root() => Payload::Device(self.rdev),
            FileKind::BlockDev | FileKind::CharDev => return Err(Status::NotPermitted),
            FileKind::Dir | FileKind::Symlink => return Err(Status::Invalid),
        };
        Ok(NewNode {
            parent: self.parent,
            name: &self.name,
            kind: self.kind,
            mode: self.mode,
            payload,
            size: 0,
            now: self.now,
            by: &self.by,
        })
    }

    pub(super) fn check(&self, ns: &Namespace) -> Result<Inode, Status> {
        self.node()?.check(ns)
    }

    pub(super) fn apply(&self, ns: &mut Namespace) -> Result<Attr, Status> {
        self.node()?.apply(ns)
    }
}
