//! Changes mode, owner, group and times.

use dfs_proto::ids::Ino;
use dfs_proto::meta::{Attr, FileKind, SetTime};
use dfs_proto::status::Status;
use dfs_proto::units::Timespec;
use serde::{Deserialize, Serialize};

use crate::core::namespace::{Caller, Inode, MODE_MASK, Namespace, S_ISGID, WRITE, check_time};

/// Changes attributes; what is `None` stays. The size has commands of its own.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Setattr {
    pub ino: Ino,
    pub mode: Option<u16>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub atime: Option<SetTime>,
    pub mtime: Option<SetTime>,
    pub now: Timespec,
    pub by: Caller,
}

/// What chown takes for "leave it", and so no user or group can have.
const NOBODY: u32 = u32::MAX;

impl Setattr {
    /// The inode as it will be.
    pub(super) fn check(&self, ns: &Namespace) -> Result<Inode, Status> {
        let inode = ns.inode(self.ino)?;
        let times = [self.atime, self.mtime].into_iter().flatten();
        for time in times.chain([SetTime::At(self.now)]) {
            check_time(self.resolve(time))?;
        }
        self.check_owner(&inode)?;
        let mode = self.new_mode(&inode)?;
        self.check_times(&inode)?;
        if *self == (Setattr { now: self.now, by: self.by.clone(), ..Setattr::nothing(self.ino) }) {
            return Ok(inode);
        }
        Ok(Inode {
            mode,
            uid: self.uid.unwrap_or(inode.uid),
            gid: self.gid.unwrap_or(inode.gid),
            atime: self.atime.map_or(inode.atime, |time| self.resolve(time)),
            mtime: self.mtime.map_or(inode.mtime, |time| self.resolve(time)),
            ctime: self.now,
            ..inode
        })
    }

    fn nothing(ino: Ino) -> Setattr {
        Setattr {
            ino,
            mode: None,
            uid: None,
            gid: None,
            atime: None,
            mtime: None,
            now: Timespec::default(),
            by: Caller::default(),
        }
    }

    fn resolve(&self, time: SetTime) -> Timespec {
        match time {
            SetTime::Now => self.now,
            SetTime::At(time) => time,
        }
    }

    /// Only root gives files away; an owner may choose among the groups that he is in.
    fn check_owner(&self, inode: &Inode) -> Result<(), Status> {
        if self.uid == Some(NOBODY) || self.gid == Some(NOBODY) {
            return Err(Status::Invalid);
        }
        if self.by.is_root() {
            return Ok(());
        }
        let owns = self.by.uid == inode.uid;
        if let Some(uid) = self.uid
            && !(owns && uid == inode.uid)
        {
            return Err(Status::NotPermitted);
        }
        if let Some(gid) = self.gid
            && !(owns && (gid == inode.gid || self.by.in_group(gid)?))
        {
            return Err(Status::NotPermitted);
        }
        Ok(())
    }

    /// The mode as it will be: the one asked for, without a setgid of a group that the caller is not in;
    /// after a change of owner or group, without what ran as the old one.
    fn new_mode(&self, inode: &Inode) -> Result<u16, Status> {
        if let Some(mode) = self.mode {
            if inode.kind == FileKind::Symlink {
                return Err(Status::NotSupported);
            }
            if !self.by.owns(inode) {
                return Err(Status::NotPermitted);
            }
            let mode = mode & MODE_MASK;
            let drops = mode & S_ISGID != 0 && !self.by.keeps_setgid(self.gid.unwrap_or(inode.gid))?;
            return Ok(if drops { mode & !S_ISGID } else { mode });
        }
        let owner_changes = self.uid.is_some() || self.gid.is_some();
        if owner_changes && inode.kind != FileKind::Dir {
            return self.by.without_privileges(inode);
        }
        Ok(inode.mode)
    }

    /// Setting both times to now is for all who may write; any other time is for the owner.
    fn check_times(&self, inode: &Inode) -> Result<(), Status> {
        match (self.atime, self.mtime) {
            (None, None) => Ok(()),
            (Some(SetTime::Now), Some(SetTime::Now)) if self.by.owns(inode) => Ok(()),
            (Some(SetTime::Now), Some(SetTime::Now)) => self.by.may(inode, WRITE),
            (Some(_), _) | (_, Some(_)) if self.by.owns(inode) => Ok(()),
            (Some(_), _) | (_, Some(_)) => Err(Status::NotPermitted),
        }
    }

    pub(super) fn apply(&self, ns: &mut Namespace) -> Result<Attr, Status> {
        let mut inode = self.check(ns)?;
        if self.uid.is_some() || self.gid.is_some() {
            ns.take_capability(self.ino, &mut inode);
        }
        ns.inodes.set(self.ino, &inode);
        Ok(ns.attr(self.ino, &inode))
    }
}
