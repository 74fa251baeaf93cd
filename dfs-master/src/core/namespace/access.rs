//! Who asks, and whether they may: the permission rules of Linux, decided from an inode's owner, group
//! and mode.
//!
//! A caller whose supplementary groups are not known gets `NeedGroups` wherever the answer depends on
//! them, and a definite answer everywhere else. It changes nothing.

use dfs_proto::meta::{Creds, FileKind};
use dfs_proto::status::Status;
use serde::{Deserialize, Serialize};

use super::inode::{Inode, S_ISGID, S_ISUID, S_ISVTX, S_IXGRP};

/// Who asks: [`Creds`] in the form that the log can store.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Caller {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups, if known.
    pub groups: Option<Vec<u32>>,
}

impl From<&Creds> for Caller {
    fn from(creds: &Creds) -> Caller {
        Caller { uid: creds.uid, gid: creds.gid, groups: creds.groups.clone() }
    }
}

/// Rights as the three low bits of a mode.
pub const READ: u16 = 4;
pub const WRITE: u16 = 2;
/// Of directories: look names up in them.
pub const SEARCH: u16 = 1;

impl Caller {
    /// Root by number. The kernel asks for capabilities, which do not cross the network.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }

    pub(crate) fn owns(&self, inode: &Inode) -> bool {
        self.is_root() || self.uid == inode.uid
    }

    /// Whether the caller is in the group.
    pub(crate) fn in_group(&self, gid: u32) -> Result<bool, Status> {
        if self.gid == gid {
            return Ok(true);
        }
        match &self.groups {
            Some(groups) => Ok(groups.contains(&gid)),
            None => Err(Status::NeedGroups),
        }
    }

    /// Whether the caller may keep a setgid bit of that group.
    pub(crate) fn keeps_setgid(&self, gid: u32) -> Result<bool, Status> {
        if self.is_root() { Ok(true) } else { self.in_group(gid) }
    }

    /// Fails with `Access` unless all `rights` are given.
    pub(crate) fn may(&self, inode: &Inode, rights: u16) -> Result<(), Status> {
        if self.is_root() {
            let executable = inode.kind == FileKind::Dir || inode.mode & 0o111 != 0;
            return if rights & SEARCH == 0 || executable { Ok(()) } else { Err(Status::Access) };
        }
        let grants = |bits: u16| bits & rights == rights;
        let allowed = if self.uid == inode.uid {
            grants(inode.mode >> 6)
        } else if grants(inode.mode >> 3) == grants(inode.mode) {
            // The group makes no difference, so it need not be known.
            grants(inode.mode)
        } else {
            grants(if self.in_group(inode.gid)? { inode.mode >> 3 } else { inode.mode })
        };
        if allowed { Ok(()) } else { Err(Status::Access) }
    }

    /// Whether the caller may take an entry that names `victim` out of `dir`: write and search on the
    /// directory, and in a sticky one ownership of either.
    pub(crate) fn may_remove(&self, dir: &Inode, victim: &Inode) -> Result<(), Status> {
        self.may(dir, WRITE | SEARCH)?;
        if dir.mode & S_ISVTX != 0 && !self.owns(victim) && !self.owns(dir) {
            return Err(Status::NotPermitted);
        }
        Ok(())
    }

    /// The mode that a file has after the caller changed its data: without setuid, and without a setgid
    /// that would run something or is of a group not the caller's.
    pub(crate) fn mode_after_change(&self, inode: &Inode) -> Result<u16, Status> {
        if self.is_root() || inode.kind != FileKind::File {
            return Ok(inode.mode);
        }
        self.without_privileges(inode)
    }

    /// The same after a change of owner or group, which clears them for root too.
    pub(crate) fn without_privileges(&self, inode: &Inode) -> Result<u16, Status> {
        let mode = inode.mode & !S_ISUID;
        if mode & S_ISGID != 0 && (mode & S_IXGRP != 0 || !self.keeps_setgid(inode.gid)?) {
            return Ok(mode & !S_ISGID);
        }
        Ok(mode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inode(mode: u16, uid: u32, gid: u32) -> Inode {
        Inode { mode, uid, gid, ..Inode::new(FileKind::File) }
    }

    fn caller(uid: u32, gid: u32, groups: Option<&[u32]>) -> Caller {
        Caller { uid, gid, groups: groups.map(<[u32]>::to_vec) }
    }

    #[test]
    fn the_first_class_that_matches_decides() {
        let cases = [
            // mode, caller, rights, answer
            (0o077, caller(5, 5, None), READ, Err(Status::Access)),
            (0o707, caller(6, 5, None), READ, Err(Status::Access)),
            (0o770, caller(6, 5, None), READ, Ok(())),
            (0o770, caller(6, 6, Some(&[7, 5])), WRITE, Ok(())),
            (0o770, caller(6, 6, Some(&[7])), WRITE, Err(Status::Access)),
            (0o770, caller(6, 6, None), WRITE, Err(Status::NeedGroups)),
            (0o700, caller(6, 6, None), WRITE, Err(Status::Access)),
            (0o777, caller(6, 6, None), WRITE, Ok(())),
            (0o707, caller(6, 6, None), WRITE, Err(Status::NeedGroups)),
            (0o000, caller(0, 0, None), READ | WRITE, Ok(())),
            (0o000, caller(0, 0, None), SEARCH, Err(Status::Access)),
            (0o001, caller(0, 0, None), SEARCH, Ok(())),
        ];
        for (mode, caller, rights, answer) in cases {
            assert_eq!(caller.may(&inode(mode, 5, 5), rights), answer, "{mode:o} {caller:?} {rights}");
        }
    }

    #[test]
    fn data_changes_clear_privileges() {
        let cases = [
            (0o4755, caller(5, 5, None), Ok(0o755)),
            (0o4755, caller(0, 0, None), Ok(0o4755)),
            (0o2755, caller(5, 5, None), Ok(0o755)),
            (0o2745, caller(5, 5, None), Ok(0o2745)),
            (0o2745, caller(6, 6, None), Err(Status::NeedGroups)),
            (0o2745, caller(6, 6, Some(&[])), Ok(0o745)),
            (0o6777, caller(6, 6, None), Ok(0o777)),
        ];
        for (mode, caller, answer) in cases {
            assert_eq!(caller.mode_after_change(&inode(mode, 5, 5)), answer, "{mode:o} {caller:?}");
        }
        assert_eq!(caller(0, 0, None).without_privileges(&inode(0o6755, 5, 5)), Ok(0o755));
    }
}
