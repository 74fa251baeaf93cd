//! Makes a symlink. Its target is bytes that nothing here looks into.

use std::sync::Arc;

use dfs_proto::ids::Ino;
use dfs_proto::meta::{Attr, FileKind, Name};
use dfs_proto::status::Status;
use dfs_proto::units::{SYMLINK_MAX, Timespec};
use serde::{Deserialize, Serialize};

use super::node::NewNode;
use crate::core::namespace::{Caller, Inode, Namespace, Payload};

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
    fn node(&self) -> Result<NewNode<'_>, Status> {
        if self.target.is_empty() {
            return Err(Status::NotFound);
        }
        if self.target.len() > SYMLINK_MAX {
            return Err(Status::NameTooLong);
        }
        if self.target.contains(&0) {
            return Err(Status::Invalid);
        }
        Ok(NewNode {
            parent: self.parent,
            name: &self.name,
            kind: FileKind::Symlink,
            mode: 0o777,
            payload: Payload::Nothing,
            size: self.target.len() as u64,
            now: self.now,
            by: &self.by,
        })
    }

    pub(super) fn check(&self, ns: &Namespace) -> Result<Inode, Status> {
        self.node()?.check(ns)
    }

    pub(super) fn apply(&self, ns: &mut Namespace) -> Result<Attr, Status> {
        let attr = self.node()?.apply(ns)?;
        ns.symlinks.insert(attr.ino.0, Arc::from(self.target.as_slice()));
        Ok(attr)
    }
}
