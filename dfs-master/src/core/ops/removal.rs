//! Taking a name away: what unlink, rmdir and rename have in common.

use dfs_proto::ids::Ino;
use dfs_proto::meta::{FileKind, Removed};
use dfs_proto::status::Status;
use dfs_proto::units::Timespec;

use crate::core::namespace::{Caller, Directory, Inode, Namespace, SEARCH, check_name};

/// An entry with both its ends.
#[derive(Clone, Copy)]
pub(super) struct Victim {
    pub(super) dir: Inode,
    pub(super) ino: Ino,
    pub(super) inode: Inode,
}

impl Victim {
    pub(super) fn is_dir(&self) -> bool {
        self.inode.kind == FileKind::Dir
    }

    /// Finds the entry and asks whether the caller may remove it.
    pub(super) fn find(ns: &Namespace, parent: Ino, name: &[u8], by: &Caller) -> Result<Victim, Status> {
        check_name(name)?;
        let dir = ns.dir(parent)?;
        by.may(&dir, SEARCH)?;
        let (ino, _) = ns.child(parent, name).ok_or(Status::NotFound)?;
        let inode = ns.inode(ino)?;
        by.may_remove(&dir, &inode)?;
        Ok(Victim { dir, ino, inode })
    }

    /// Whether nothing stands in the way of the inode losing this name: a directory must be empty.
    pub(super) fn check_empty(&self, ns: &Namespace) -> Result<(), Status> {
        if ns.directories.get(self.ino.0).is_none_or(Directory::is_empty) {
            Ok(())
        } else {
            Err(Status::NotEmpty)
        }
    }
}

/// An inode has lost a name; with its last one it becomes an orphan. The parent's entry and links are the
/// caller's to change.
pub(super) fn lose_name(ns: &mut Namespace, ino: Ino, mut inode: Inode, now: Timespec) -> Removed {
    inode.nlink = match inode.kind {
        FileKind::Dir => 0,
        FileKind::File
        | FileKind::Symlink
        | FileKind::Fifo
        | FileKind::Socket
        | FileKind::BlockDev
        | FileKind::CharDev => inode.nlink.saturating_sub(1),
    };
    inode.ctime = now;
    ns.inodes.set(ino, &inode);
    if inode.nlink == 0 {
        ns.orphans.insert(ino.0, ());
    }
    Removed { ino, nlink: inode.nlink }
}
