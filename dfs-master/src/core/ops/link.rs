//! Gives an inode another name.

use dfs_proto::ids::Ino;
use dfs_proto::meta::{Attr, FileKind, Name};
use dfs_proto::status::Status;
use dfs_proto::units::{LINK_MAX, Timespec};
use serde::{Deserialize, Serialize};

use super::node::check_new_name;
use crate::core::namespace::{Caller, Inode, Namespace, check_time};

/// Gives an inode another name.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Link {
    pub ino: Ino,
    pub parent: Ino,
    pub name: Name,
    pub now: Timespec,
    pub by: Caller,
}

impl Link {
    /// The inode as it will be.
    pub(super) fn check(&self, ns: &Namespace) -> Result<Inode, Status> {
        check_time(self.now)?;
        let inode = ns.inode(self.ino)?;
        check_new_name(ns, self.parent, &self.name, &self.by)?;
        if inode.kind == FileKind::Dir {
            return Err(Status::NotPermitted);
        }
        match inode.nlink {
            0 => Err(Status::NotFound),
            LINK_MAX.. => Err(Status::TooManyLinks),
            nlink => Ok(Inode { nlink: nlink + 1, ctime: self.now, parent: self.parent, ..inode }),
        }
    }

    pub(super) fn apply(&self, ns: &mut Namespace) -> Result<Attr, Status> {
        let inode = self.check(ns)?;
        ns.inodes.set(self.ino, &inode);
        ns.entries_mut(self.parent, |entries| entries.insert(&self.name, self.ino, inode.kind));
        ns.update(self.parent, |dir| dir.touch(self.now));
        Ok(ns.attr(self.ino, &inode))
    }
}
