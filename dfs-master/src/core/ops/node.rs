//! Making an inode with its first name: what create, mkdir, mknod and symlink have in common.

use dfs_proto::ids::Ino;
use dfs_proto::meta::{Attr, FileKind};
use dfs_proto::status::Status;
use dfs_proto::units::Timespec;

use crate::core::namespace::{
    Caller, INO_END, Inode, MODE_MASK, Namespace, Payload, S_ISGID, S_IXGRP, SEARCH, WRITE, check_name,
    check_time, has_goal,
};

/// The inode to make.
pub(super) struct NewNode<'a> {
    pub(super) parent: Ino,
    pub(super) name: &'a [u8],
    pub(super) kind: FileKind,
    pub(super) mode: u16,
    pub(super) payload: Payload,
    /// Length of a symlink's target.
    pub(super) size: u64,
    pub(super) now: Timespec,
    pub(super) by: &'a Caller,
}

/// Whether a name may be added to a directory, which is returned. The order is the kernel's: a name that
/// is taken is reported before a directory that may not be written.
pub(super) fn check_new_name(ns: &Namespace, parent: Ino, name: &[u8], by: &Caller) -> Result<Inode, Status> {
    check_name(name)?;
    let dir = ns.dir(parent)?;
    by.may(&dir, SEARCH)?;
    if ns.child(parent, name).is_some() {
        return Err(Status::Exists);
    }
    may_add(ns, parent, &dir, name, by)?;
    Ok(dir)
}

/// Whether the caller may add a name that is not there.
pub(super) fn may_add(
    ns: &Namespace,
    parent: Ino,
    dir: &Inode,
    name: &[u8],
    by: &Caller,
) -> Result<(), Status> {
    if dir.nlink == 0 {
        return Err(Status::NotFound);
    }
    by.may(dir, WRITE | SEARCH)?;
    match ns.directories.get(parent.0) {
        Some(entries) if entries.free_cookie(name).is_none() => Err(Status::NoSpace),
        Some(_) | None => Ok(()),
    }
}

impl NewNode<'_> {
    /// The inode as it will be.
    pub(super) fn check(&self, ns: &Namespace) -> Result<Inode, Status> {
        check_time(self.now)?;
        let dir = check_new_name(ns, self.parent, self.name, self.by)?;
        if ns.next_ino >= INO_END {
            return Err(Status::NoSpace);
        }
        let is_dir = self.kind == FileKind::Dir;
        if is_dir && dir.nlink == u32::MAX {
            return Err(Status::TooManyLinks);
        }
        let mut mode = self.mode & MODE_MASK;
        let mut gid = self.by.gid;
        if dir.mode & S_ISGID != 0 {
            gid = dir.gid;
            if is_dir {
                mode |= S_ISGID;
            } else if mode & (S_ISGID | S_IXGRP) == S_ISGID | S_IXGRP && !self.by.keeps_setgid(gid)? {
                mode &= !S_ISGID;
            }
        }
        Ok(Inode {
            mode,
            nlink: if is_dir { 2 } else { 1 },
            uid: self.by.uid,
            gid,
            size: self.size,
            parent: self.parent,
            payload: self.payload,
            ..Inode::new(self.kind).born(self.now)
        })
    }

    pub(super) fn apply(&self, ns: &mut Namespace) -> Result<Attr, Status> {
        let inode = self.check(ns)?;
        let ino = Ino(ns.next_ino);
        ns.next_ino += 1;
        ns.inodes.set(ino, &inode);
        if has_goal(self.kind) {
            let goal = ns.goals.get(self.parent);
            ns.goals.set(ino, goal);
        }
        ns.entries_mut(self.parent, |entries| entries.insert(self.name, ino, self.kind));
        let is_dir = self.kind == FileKind::Dir;
        ns.directory_count += u64::from(is_dir);
        ns.update(self.parent, |dir| {
            dir.touch(self.now);
            dir.nlink += u32::from(is_dir);
        });
        Ok(ns.attr(ino, &inode))
    }
}
