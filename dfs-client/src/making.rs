//! Attributes set on a file that is being made: by a program that created it here and has not closed it yet.
//!
//! tar, cp and their like give a file its owner, mode and times between its last write and its close. Until
//! that close nothing of the file is acknowledged for good, its bytes wait in the buffer, and nobody else can
//! have it open, because the write grant is ours: so these attributes wait with the bytes, and one commit
//! takes both. A program that looks at the file meanwhile has them committed first.
//!
//! Only what the master would surely grant waits: everything else goes to it at once, after what waits.

use std::sync::Arc;

use dfs_proto::ids::Ino;
use dfs_proto::meta::{Attr, CommitSet, Creds, SetTime};
use dfs_proto::units::Timespec;

use crate::attrs::SetAttrs;
use crate::config::Caller;
use crate::error::Result;
use crate::inode::{Gate, Inode, State};
use crate::net::Net;
use crate::shared::{Shared, Until, lock};
use crate::sync::Extra;

/// Set-user-id, set-group-id and sticky: who may give them depends on more than is known here.
const SPECIAL: u16 = 0o7000;

/// What waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Pending {
    set: SetAttrs,
    uid: u32,
    gid: u32,
}

impl Pending {
    /// As a commit carries it.
    pub(crate) fn to_commit(self) -> CommitSet {
        let SetAttrs { mode, uid, gid, atime, mtime, size: _ } = self.set;
        let creds = Creds { uid: self.uid, gid: self.gid, groups: None };
        CommitSet { mode, uid, gid, atime, mtime, creds }
    }

    /// A write came after the time that was set.
    pub(crate) fn written(&mut self) {
        self.set.mtime = None;
    }

    fn show(&self, attr: &mut Attr) {
        let time = |set: Option<SetTime>, old: Timespec| match set {
            Some(SetTime::At(time)) => time,
            Some(SetTime::Now) | None => old,
        };
        attr.mode = self.set.mode.unwrap_or(attr.mode);
        attr.uid = self.set.uid.unwrap_or(attr.uid);
        attr.gid = self.set.gid.unwrap_or(attr.gid);
        attr.atime = time(self.set.atime, attr.atime);
        attr.mtime = time(self.set.mtime, attr.mtime);
    }
}

/// Whether the master would grant the change to the caller, going by the attributes as they will be then.
fn surely_granted(attr: &Attr, set: &SetAttrs, caller: Caller) -> bool {
    let root = caller.uid == 0;
    let owns = root || caller.uid == attr.uid;
    let gives_away = set.uid.is_some() || set.gid.is_some();
    // A change of owner takes these bits away, and a mode may bring them back: their order counts.
    let special = (attr.mode | set.mode.unwrap_or(0)) & SPECIAL != 0;
    let bad_id = set.uid == Some(u32::MAX) || set.gid == Some(u32::MAX);
    // Who is being kept out must be kept out at once.
    let narrows = set.mode.is_some_and(|mode| attr.mode & !mode & 0o777 != 0);
    let by_clock = [set.atime, set.mtime].contains(&Some(SetTime::Now));
    let old = |time: Option<SetTime>| matches!(time, Some(SetTime::At(at)) if at.sec < 0);
    owns && (root || !gives_away)
        && !(special || bad_id || narrows || by_clock)
        && !old(set.atime)
        && !old(set.mtime)
}

impl<N: Net> Shared<N> {
    /// Has the master know what was set: it judges by that who may open the file.
    pub(crate) async fn settle_pending(&self, ino: Ino, until: Until) -> Result<()> {
        let Some(inode) = self.inode(ino) else { return Ok(()) };
        let waits = inode.lock().pending.is_some();
        if waits { self.commit(&inode, Extra::default(), until).await } else { Ok(()) }
    }

    /// Lets a change of attributes wait for the file's close, if it may. The attributes as they are then.
    pub(crate) fn set_while_making(
        self: &Arc<Self>,
        inode: &Arc<Inode>,
        set: &SetAttrs,
        caller: Caller,
    ) -> Option<Attr> {
        let now = self.now();
        if set.size.is_some() || self.session.lease_left(now).is_zero() {
            return None;
        }
        let mut state = inode.lock();
        if !state.making || !state.may_buffer() || state.gate != Gate::Open {
            return None;
        }
        let (attr, _) = state.attr?;
        let shown = state.show(attr);
        if !surely_granted(&shown, set, caller) {
            return None;
        }
        let before =
            state.pending.unwrap_or(Pending { set: SetAttrs::default(), uid: caller.uid, gid: caller.gid });
        if before.uid != caller.uid {
            return None;
        }
        let merged = SetAttrs {
            mode: set.mode.or(before.set.mode),
            uid: set.uid.or(before.set.uid),
            gid: set.gid.or(before.set.gid),
            size: None,
            atime: set.atime.or(before.set.atime),
            mtime: set.mtime.or(before.set.mtime),
        };
        state.pending = Some(Pending { set: merged, ..before });
        if set.mtime.is_some() {
            // This time stands, also when bytes that were buffered before it go out after it.
            state.touched = false;
            // Who sets a time has written all: the close that comes next finds its bytes on their way.
            self.pump_all(inode, &mut state);
        }
        state.attr_changes += 1;
        let shown = state.show(attr);
        let first = state.dirty_since.is_none();
        state.dirty_since.get_or_insert(now);
        drop(state);
        if first {
            lock(&self.dirty).insert(inode.ino, Arc::clone(inode));
        }
        Some(shown)
    }
}

impl State {
    /// Attributes wait here that the master has yet to give or to be told.
    pub(crate) fn attrs_wait(&self) -> bool {
        self.touched || self.pending.is_some()
    }

    /// Lays what waits over the attributes.
    pub(crate) fn show_pending(&self, attr: &mut Attr) {
        if let Some(pending) = &self.pending {
            pending.show(attr);
        }
    }
}

#[cfg(test)]
mod tests {
    use dfs_proto::ids::SizeEpoch;
    use dfs_proto::meta::FileKind;

    use super::*;

    fn attr(mode: u16, uid: u32) -> Attr {
        let time = Timespec::default();
        Attr {
            ino: Ino(9),
            kind: FileKind::File,
            mode,
            nlink: 1,
            uid,
            gid: uid,
            size: 0,
            blocks: 0,
            rdev: 0,
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
            size_epoch: SizeEpoch(0),
            xattrs: false,
        }
    }

    #[test]
    fn only_what_is_surely_granted_waits() {
        let (root, owner, other) = (
            Caller { uid: 0, gid: 0, pid: 1 },
            Caller { uid: 5, gid: 5, pid: 1 },
            Caller { uid: 6, gid: 6, pid: 1 },
        );
        let mode = |mode| SetAttrs { mode: Some(mode), ..SetAttrs::default() };
        let file = attr(0o600, 5);
        assert!(surely_granted(&file, &mode(0o644), root));
        assert!(surely_granted(&file, &mode(0o644), owner));
        assert!(!surely_granted(&file, &mode(0o644), other));
        assert!(!surely_granted(&attr(0o644, 5), &mode(0o640), owner), "narrower");
        assert!(!surely_granted(&file, &mode(0o4755), root), "special bits");
        let chown = SetAttrs { uid: Some(7), gid: Some(7), ..SetAttrs::default() };
        assert!(surely_granted(&file, &chown, root));
        assert!(!surely_granted(&file, &chown, owner));
        let at = |sec| Some(SetTime::At(Timespec { sec, nsec: 1 }));
        let times = SetAttrs { atime: at(1), mtime: at(2), ..SetAttrs::default() };
        assert!(surely_granted(&file, &times, owner));
        assert!(!surely_granted(&file, &SetAttrs { mtime: Some(SetTime::Now), ..times }, owner));
    }
}
