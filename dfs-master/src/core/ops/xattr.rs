//! Sets and removes extended attributes.

use dfs_proto::ids::Ino;
use dfs_proto::meta::{Name, SetxattrMode};
use dfs_proto::status::Status;
use dfs_proto::units::{Timespec, XATTR_VALUE_MAX};
use serde::{Deserialize, Serialize};

use crate::core::namespace::{Caller, Inode, Namespace, Space, check_time, fits};

/// Sets an extended attribute.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Setxattr {
    pub ino: Ino,
    pub name: Name,
    pub value: Name,
    pub mode: SetxattrMode,
    pub now: Timespec,
    pub by: Caller,
}

/// Removes an extended attribute.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Removexattr {
    pub ino: Ino,
    pub name: Name,
    pub now: Timespec,
    pub by: Caller,
}

impl Setxattr {
    pub(super) fn check(&self, ns: &Namespace) -> Result<Inode, Status> {
        check_time(self.now)?;
        let inode = ns.inode(self.ino)?;
        let space = Space::of(&self.name)?;
        if self.value.len() > XATTR_VALUE_MAX {
            return Err(Status::ValueTooBig);
        }
        space.may_write(&inode, &self.by)?;
        let all = ns.xattrs.get(self.ino.0);
        let there = all.is_some_and(|all| all.contains_key(self.name.as_slice()));
        match self.mode {
            SetxattrMode::Create if there => return Err(Status::Exists),
            SetxattrMode::Replace if !there => return Err(Status::NoData),
            SetxattrMode::Any | SetxattrMode::Create | SetxattrMode::Replace => {}
        }
        if fits(all, &self.name, self.value.len()) { Ok(inode) } else { Err(Status::NoSpace) }
    }

    pub(super) fn apply(&self, ns: &mut Namespace) -> Result<(), Status> {
        let mut inode = self.check(ns)?;
        ns.put_xattr(self.ino, &mut inode, &self.name, &self.value);
        inode.ctime = self.now;
        ns.inodes.set(self.ino, &inode);
        Ok(())
    }
}

impl Removexattr {
    pub(super) fn check(&self, ns: &Namespace) -> Result<Inode, Status> {
        check_time(self.now)?;
        let inode = ns.inode(self.ino)?;
        Space::of(&self.name)?.may_write(&inode, &self.by)?;
        match ns.xattrs.get(self.ino.0) {
            Some(all) if all.contains_key(self.name.as_slice()) => Ok(inode),
            Some(_) | None => Err(Status::NoData),
        }
    }

    pub(super) fn apply(&self, ns: &mut Namespace) -> Result<(), Status> {
        let mut inode = self.check(ns)?;
        ns.take_xattr(self.ino, &mut inode, &self.name);
        inode.ctime = self.now;
        ns.inodes.set(self.ino, &inode);
        Ok(())
    }
}
