//! Takes over what a writer did: a size reached, a time of change, a time of access.
//!
//! Invariant: a size or time from before the latest truncation is refused, and the time of change never
//! stays or goes back, so that a cached copy is always found out.

use dfs_proto::ids::{Ino, SizeEpoch};
use dfs_proto::meta::{Attr, SetTime};
use dfs_proto::planted;
use dfs_proto::status::Status;
use dfs_proto::units::{FILE_SIZE_MAX, Timespec};
use serde::{Deserialize, Serialize};

use crate::core::namespace::{Inode, Namespace, S_ISGID, S_ISUID, S_IXGRP, advance, check_time};

/// Takes over what a writer did.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Commit {
    pub ino: Ino,
    /// The epoch that the writes were made under; not looked at when only `atime` is set.
    pub size_epoch: SizeEpoch,
    /// The file reaches at least to here.
    pub size_at_least: Option<u64>,
    /// At least a nanosecond after the old one, whatever it says.
    pub mtime: Option<SetTime>,
    /// May be set on an inode of any kind.
    pub atime: Option<SetTime>,
    /// Data was written by someone who is not root: setuid, setgid and file capabilities go.
    pub clear_privileges: bool,
    pub now: Timespec,
}

impl Commit {
    /// The inode as it will be.
    pub(super) fn check(&self, ns: &Namespace) -> Result<Inode, Status> {
        for time in [self.atime, self.mtime].into_iter().flatten().chain([SetTime::At(self.now)]) {
            check_time(self.resolve(time))?;
        }
        let writes = self.size_at_least.is_some() || self.mtime.is_some() || self.clear_privileges;
        let mut inode = if writes { ns.file(self.ino)? } else { ns.inode(self.ino)? };
        if let Some(atime) = self.atime {
            inode.atime = self.resolve(atime);
        }
        if !writes {
            return Ok(inode);
        }
        self.check_epoch(ns, &inode)?;
        if let Some(size) = self.size_at_least {
            if size > FILE_SIZE_MAX {
                return Err(Status::TooBig);
            }
            inode.size = inode.size.max(size);
        }
        if let Some(mtime) = self.mtime {
            inode.mtime = advance(inode.mtime, self.resolve(mtime));
        }
        if self.clear_privileges {
            inode.mode &= !S_ISUID;
            if inode.mode & S_IXGRP != 0 {
                inode.mode &= !S_ISGID;
            }
        }
        inode.ctime = self.now;
        Ok(inode)
    }

    fn check_epoch(&self, ns: &Namespace, inode: &Inode) -> Result<(), Status> {
        match self.size_epoch.cmp(&inode.size_epoch) {
            std::cmp::Ordering::Less if planted!(OldEpochCommit) => Ok(()),
            std::cmp::Ordering::Less => Err(Status::OldEpoch),
            std::cmp::Ordering::Greater => Err(Status::Invalid),
            std::cmp::Ordering::Equal if ns.intent(self.ino).is_some() => Err(Status::Recovering),
            std::cmp::Ordering::Equal => Ok(()),
        }
    }

    fn resolve(&self, time: SetTime) -> Timespec {
        match time {
            SetTime::Now => self.now,
            SetTime::At(time) => time,
        }
    }

    pub(super) fn apply(&self, ns: &mut Namespace) -> Result<Attr, Status> {
        let mut inode = self.check(ns)?;
        if self.clear_privileges {
            ns.take_capability(self.ino, &mut inode);
        }
        ns.inodes.set(self.ino, &inode);
        Ok(ns.attr(self.ino, &inode))
    }
}
