//! Names and attributes: lookup, getattr, setattr, and everything that makes, links, moves or removes a name.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dfs_client::{CacheState, Caller, Error, SetAttrs};
use dfs_proto::ids::Ino;
use dfs_proto::meta::{Attr, FsStats, RenameMode, SetTime};
use dfs_proto::units::NAME_MAX;
use fuser::{
    Errno, FileHandle, RenameFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyStatfs, TimeOrNow,
};

use super::attr::{kind_to_make, permissions};
use super::time::told;
use super::{GENERATION, Shared, empty};
use crate::inodes::BELIEF;

/// The unit of sizes in statfs, in bytes.
const STATFS_UNIT: u32 = 4096;

impl Shared {
    /// How long the kernel may believe the attributes of an inode. Nothing while it is open here without a
    /// grant: then every stat, and every read of a page, asks again.
    pub(super) fn attr_ttl(&self, ino: Ino) -> Duration {
        match self.client.cache_state(ino) {
            CacheState::Granted(left) => left.min(BELIEF),
            CacheState::Unopened => BELIEF,
            CacheState::Shared => Duration::ZERO,
        }
    }

    fn answer_entry(&self, attr: &Attr, reply: ReplyEntry) {
        // Noted first: a forget can come as soon as the kernel has the answer.
        self.inodes.entry(attr);
        reply.entry_with_ttls(&self.attr_ttl(attr.ino), &BELIEF, &self.shown(attr), GENERATION);
    }

    fn answer_attr(&self, attr: &Attr, reply: ReplyAttr) {
        self.inodes.attributes(attr);
        reply.attr(&self.attr_ttl(attr.ino), &self.shown(attr));
    }
}

/// Runs an operation whose outcome is an entry.
fn entry(
    shared: &Arc<Shared>,
    pid: u32,
    operation: impl Future<Output = Result<Attr, Error>> + Send + 'static,
    reply: ReplyEntry,
) {
    let then = Arc::clone(shared);
    shared.tasks.run(pid, operation, move |result| match result {
        Ok(attr) => then.answer_entry(&attr, reply),
        Err(code) => reply.error(code),
    });
}

/// A name as it outlives the request.
fn owned(name: &OsStr) -> Vec<u8> {
    name.as_bytes().to_vec()
}

pub(crate) fn lookup(shared: &Arc<Shared>, caller: Caller, parent: Ino, name: &OsStr, reply: ReplyEntry) {
    if shared.client.is_absent(parent, name.as_bytes()) {
        return reply.error(Errno::ENOENT);
    }
    let (client, name) = (shared.client.clone(), owned(name));
    entry(shared, caller.pid, async move { client.lookup(parent, &name, caller).await }, reply);
}

pub(crate) fn getattr(shared: &Arc<Shared>, caller: Caller, ino: Ino, reply: ReplyAttr) {
    if let Some(attr) = shared.client.try_getattr(ino) {
        return shared.answer_attr(&attr, reply);
    }
    if let Some((attr, left)) = shared.client.try_dir_attr(ino) {
        shared.inodes.attributes(&attr);
        return reply.attr(&left.min(BELIEF), &shared.shown(&attr));
    }
    let (client, then) = (shared.client.clone(), Arc::clone(shared));
    shared.tasks.run(caller.pid, async move { client.getattr(ino).await }, move |result| match result {
        Ok(attr) => then.answer_attr(&attr, reply),
        Err(code) => reply.error(code),
    });
}

/// What a setattr asks for.
pub(crate) fn wish(
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    size: Option<u64>,
    atime: Option<TimeOrNow>,
    mtime: Option<TimeOrNow>,
) -> SetAttrs {
    let time = |time| match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => SetTime::At(told(time)),
    };
    SetAttrs { mode: mode.map(permissions), uid, gid, size, atime: atime.map(time), mtime: mtime.map(time) }
}

pub(crate) fn setattr(
    shared: &Arc<Shared>,
    caller: Caller,
    ino: Ino,
    fh: Option<FileHandle>,
    set: SetAttrs,
    reply: ReplyAttr,
) {
    let file = fh.and_then(|fh| shared.files.get(fh.0));
    let (changer, then) = (Arc::clone(shared), Arc::clone(shared));
    let operation = async move {
        let result = changer.set_or_drop_privileges(ino, file.as_ref(), set, caller).await;
        changer.inodes.changed(ino);
        result
    };
    shared.tasks.run(caller.pid, operation, move |result| match result {
        Ok(attr) => {
            then.inodes.attributes(&attr);
            // The kernel takes this answer in whatever it has learned since it asked: it may not believe it long.
            reply.attr(&Duration::ZERO, &then.shown(&attr));
        }
        Err(code) => reply.error(code),
    });
}

pub(crate) fn readlink(shared: &Arc<Shared>, caller: Caller, ino: Ino, reply: ReplyData) {
    let client = shared.client.clone();
    shared.tasks.run(caller.pid, async move { client.readlink(ino).await }, |result| match result {
        Ok(target) => reply.data(&target),
        Err(code) => reply.error(code),
    });
}

pub(crate) fn mknod(
    shared: &Arc<Shared>,
    caller: Caller,
    parent: Ino,
    name: &OsStr,
    (mode, rdev): (u32, u32),
    reply: ReplyEntry,
) {
    let Some(kind) = kind_to_make(mode) else { return reply.error(Errno::EINVAL) };
    let (client, name) = (shared.client.clone(), owned(name));
    let operation = async move { client.mknod(parent, &name, kind, permissions(mode), rdev, caller).await };
    entry(shared, caller.pid, operation, reply);
}

pub(crate) fn mkdir(
    shared: &Arc<Shared>,
    caller: Caller,
    parent: Ino,
    name: &OsStr,
    mode: u32,
    reply: ReplyEntry,
) {
    let (client, name) = (shared.client.clone(), owned(name));
    let operation = async move { client.mkdir(parent, &name, permissions(mode), caller).await };
    entry(shared, caller.pid, operation, reply);
}

pub(crate) fn symlink(
    shared: &Arc<Shared>,
    caller: Caller,
    parent: Ino,
    name: &OsStr,
    target: &Path,
    reply: ReplyEntry,
) {
    let (client, name, target) = (shared.client.clone(), owned(name), owned(target.as_os_str()));
    let operation = async move { client.symlink(parent, &name, &target, caller).await };
    entry(shared, caller.pid, operation, reply);
}

pub(crate) fn link(shared: &Arc<Shared>, caller: Caller, ino: Ino, to: (Ino, &OsStr), reply: ReplyEntry) {
    let (parent, name) = (to.0, owned(to.1));
    let (client, then) = (shared.client.clone(), Arc::clone(shared));
    let operation = async move {
        let attr = client.link(ino, parent, &name, caller).await?;
        then.inodes.changed(ino);
        Ok(attr)
    };
    entry(shared, caller.pid, operation, reply);
}

pub(crate) fn unlink(shared: &Arc<Shared>, caller: Caller, parent: Ino, name: &OsStr, reply: ReplyEmpty) {
    let (client, then, name) = (shared.client.clone(), Arc::clone(shared), owned(name));
    let operation = async move {
        let removed = client.unlink(parent, &name, caller).await?;
        then.inodes.changed(removed.ino);
        Ok(())
    };
    shared.tasks.run(caller.pid, operation, empty(reply));
}

pub(crate) fn rmdir(shared: &Arc<Shared>, caller: Caller, parent: Ino, name: &OsStr, reply: ReplyEmpty) {
    let (client, name) = (shared.client.clone(), owned(name));
    let operation = async move { client.rmdir(parent, &name, caller).await.map(drop) };
    shared.tasks.run(caller.pid, operation, empty(reply));
}

pub(crate) fn rename(
    shared: &Arc<Shared>,
    caller: Caller,
    from: (Ino, &OsStr),
    to: (Ino, &OsStr),
    flags: RenameFlags,
    reply: ReplyEmpty,
) {
    let Some(mode) = rename_mode(flags) else { return reply.error(Errno::EINVAL) };
    let (client, then) = (shared.client.clone(), Arc::clone(shared));
    let (from, to) = ((from.0, owned(from.1)), (to.0, owned(to.1)));
    let operation = async move {
        let renamed = client.rename((from.0, &from.1), (to.0, &to.1), mode, caller).await?;
        then.inodes.changed(renamed.ino);
        if let Some(replaced) = renamed.replaced {
            then.inodes.changed(replaced.ino);
        }
        Ok(())
    };
    shared.tasks.run(caller.pid, operation, empty(reply));
}

/// RENAME_WHITEOUT is for overlay file systems, whose upper layer we are not.
fn rename_mode(flags: RenameFlags) -> Option<RenameMode> {
    if flags.is_empty() {
        Some(RenameMode::Replace)
    } else if flags == RenameFlags::RENAME_NOREPLACE {
        Some(RenameMode::NoReplace)
    } else if flags == RenameFlags::RENAME_EXCHANGE {
        Some(RenameMode::Exchange)
    } else {
        None
    }
}

pub(crate) fn statfs(shared: &Arc<Shared>, pid: u32, reply: ReplyStatfs) {
    let client = shared.client.clone();
    shared.tasks.run(pid, async move { client.statfs().await }, |result| match result {
        Ok(stats) => answer_statfs(stats, reply),
        Err(code) => reply.error(code),
    });
}

fn answer_statfs(stats: FsStats, reply: ReplyStatfs) {
    let units = |bytes: u64| bytes / u64::from(STATFS_UNIT);
    let free = units(stats.free_bytes);
    let name_max = u32::try_from(NAME_MAX).unwrap_or(u32::MAX);
    let files = stats.inodes.saturating_add(stats.free_inodes);
    let total = units(stats.total_bytes);
    reply.statfs(total, free, free, files, stats.free_inodes, STATFS_UNIT, name_max, STATFS_UNIT);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renames_that_are_not_ours_are_refused() {
        assert_eq!(rename_mode(RenameFlags::empty()), Some(RenameMode::Replace));
        assert_eq!(rename_mode(RenameFlags::RENAME_NOREPLACE), Some(RenameMode::NoReplace));
        assert_eq!(rename_mode(RenameFlags::RENAME_EXCHANGE), Some(RenameMode::Exchange));
        assert_eq!(rename_mode(RenameFlags::RENAME_WHITEOUT), None);
        assert_eq!(rename_mode(RenameFlags::RENAME_WHITEOUT | RenameFlags::RENAME_NOREPLACE), None);
    }

    #[test]
    fn a_wish_carries_times_as_the_kernel_meant_them() {
        let set = wish(Some(libc::S_IFREG | 0o640), None, Some(3), Some(9), Some(TimeOrNow::Now), None);
        let wanted = SetAttrs {
            mode: Some(0o640),
            gid: Some(3),
            size: Some(9),
            atime: Some(SetTime::Now),
            ..SetAttrs::default()
        };
        assert_eq!(set, wanted);
    }
}
