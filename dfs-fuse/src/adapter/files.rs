//! Open files: open, create, read, write, flush, fsync, release.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use bytes::Bytes;
use dfs_client::{Caller, FileHandle as OpenFile};
use dfs_proto::ids::Ino;
use dfs_proto::meta::{Access, Attr};
use fuser::{Errno, FileHandle, FopenFlags, ReplyCreate, ReplyData, ReplyEmpty, ReplyOpen, ReplyWrite};

use super::attr::permissions;
use super::privileges::has_privileges;
use super::tasks::code;
use super::{GENERATION, Shared, empty};
use crate::inodes::Belief;

/// The kernel's own mark of an open for execve(2), which it passes on.
const FMODE_EXEC: i32 = 0x20;

pub(crate) fn open(shared: &Arc<Shared>, caller: Caller, ino: Ino, flags: i32, reply: ReplyOpen) {
    let (then, undo) = (Arc::clone(shared), Arc::clone(shared));
    let opener = Arc::clone(shared);
    // To execute a file takes no right to read it, and the kernel has checked the right to execute, which
    // the cluster's open cannot name.
    let caller = if flags & FMODE_EXEC == 0 { caller } else { Caller { uid: 0, gid: 0, ..caller } };
    let operation = async move {
        // O_TRUNC comes as a request of its own, see [`super::init`].
        let file = opener.client.open(ino, access(flags), false, caller).await?;
        let flags = opener.correct_belief(&file, flags).await;
        Ok((file, flags))
    };
    let answer = move |result: Result<(OpenFile, FopenFlags), Errno>| match result {
        Ok((file, flags)) => {
            then.inodes.opened(ino);
            reply.opened(FileHandle(then.files.add(file)), flags);
        }
        Err(code) => reply.error(code),
    };
    shared.tasks.run_or_undo(caller.pid, operation, answer, move |(file, _)| undo.client.release(file));
}

impl Shared {
    /// Has the kernel drop attributes that are no longer so, before the program gets its descriptor; the
    /// flags to open with.
    async fn correct_belief(&self, file: &OpenFile, flags: i32) -> FopenFlags {
        let ino = file.ino();
        // Without a grant nothing can be compared: others write as we look.
        let fresh = if file.cached() { self.client.try_getattr(ino) } else { None };
        let belief = self.inodes.belief(ino, fresh.as_ref());
        if let Belief::Wrong { .. } = belief {
            self.inodes.forgets_attributes(ino);
            self.notify.attributes(ino).await;
        }
        // The kernel takes the end of the file from the size it knows, and puts what it appends into its
        // pages there, even when attributes are marked as old. The bytes go to the true end by
        // themselves; direct I/O keeps them out of the wrong pages.
        let appends_astray = flags & libc::O_APPEND != 0 && belief == (Belief::Wrong { size_differs: true });
        open_flags(file, appends_astray)
    }
}

fn open_flags(file: &OpenFile, direct: bool) -> FopenFlags {
    let mut flags = FopenFlags::empty();
    if direct || !file.cached() {
        flags |= FopenFlags::FOPEN_DIRECT_IO;
    } else if file.keep_cache() {
        flags |= FopenFlags::FOPEN_KEEP_CACHE;
    }
    if !file.access().write {
        // There is nothing to write back at a close, so the kernel need not ask.
        flags |= FopenFlags::FOPEN_NOFLUSH;
    }
    flags
}

/// What the flags of open(2) ask for.
fn access(flags: i32) -> Access {
    match flags & libc::O_ACCMODE {
        libc::O_RDONLY => Access { read: true, write: false },
        libc::O_WRONLY => Access { read: false, write: true },
        _ => Access { read: true, write: true },
    }
}

pub(crate) fn create(
    shared: &Arc<Shared>,
    caller: Caller,
    parent: Ino,
    name: &OsStr,
    (mode, flags): (u32, i32),
    reply: ReplyCreate,
) {
    let (then, undo, client) = (Arc::clone(shared), Arc::clone(shared), shared.client.clone());
    let name = name.as_bytes().to_vec();
    let operation = async move {
        let (exclusive, truncate) = (flags & libc::O_EXCL != 0, flags & libc::O_TRUNC != 0);
        let mode = permissions(mode);
        client.create(parent, &name, mode, access(flags), exclusive, truncate, caller).await
    };
    let answer = move |result: Result<(Attr, OpenFile), Errno>| match result {
        Ok((attr, file)) => {
            then.inodes.changed(attr.ino);
            then.inodes.entry(&attr);
            then.inodes.opened(attr.ino);
            let flags = open_flags(&file, false);
            let handle = FileHandle(then.files.add(file));
            // The one reply with a single time for name and attributes: the shorter one.
            reply.created(&then.attr_ttl(attr.ino), &then.shown(&attr), GENERATION, handle, flags);
        }
        Err(code) => reply.error(code),
    };
    shared.tasks.run_or_undo(caller.pid, operation, answer, move |(_, file)| undo.client.release(file));
}

pub(crate) fn read(shared: &Arc<Shared>, pid: u32, fh: FileHandle, offset: u64, size: u32, reply: ReplyData) {
    let Some(file) = shared.files.get(fh.0) else { return reply.error(Errno::EBADF) };
    match shared.client.try_read(&file, offset, size) {
        Some(Ok(data)) => return reply.data(&data),
        Some(Err(error)) => return reply.error(code(error)),
        None => {}
    }
    let token = file.cached().then(|| shared.inodes.read_begins(file.ino()));
    let client = shared.client.clone();
    let answer = move |result: Result<Bytes, Errno>| {
        match result {
            Ok(data) => reply.data(&data),
            Err(code) => reply.error(code),
        }
        // The pages are the kernel's now; what invalidates them may come.
        drop(token);
    };
    shared.tasks.run(pid, async move { client.read(&file, offset, size).await }, answer);
}

/// Where and how bytes are to be written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Write {
    pub(crate) offset: u64,
    /// At the end of the file, wherever the kernel thinks that is.
    pub(crate) append: bool,
    /// The writer may not keep setuid and setgid bits.
    pub(crate) drops_privileges: bool,
    /// From a mapped page: whoever wrote there needed no right, and takes none away.
    pub(crate) mapped: bool,
}

pub(crate) fn write(
    shared: &Arc<Shared>,
    caller: Caller,
    fh: FileHandle,
    how: Write,
    data: &[u8],
    reply: ReplyWrite,
) {
    let Some(file) = shared.files.get(fh.0) else { return reply.error(Errno::EBADF) };
    let ino = file.ino();
    let Write { offset, append, drops_privileges, mapped } = how;
    let drops = drops_privileges && has_privileges(shared.inodes.mode(ino));
    let bare = mapped || shared.client.has_no_xattrs(ino);
    if bare
        && !drops
        && let Some(result) = shared.client.try_write(&file, offset, data, append)
    {
        shared.inodes.written(ino);
        return answer_write(result.map_err(code), reply);
    }
    // The thread's buffer is used again as soon as this returns.
    let data = Bytes::copy_from_slice(data);
    let then = Arc::clone(shared);
    let operation = async move {
        if drops {
            then.drop_privileges(ino, caller).await?;
        }
        if !bare {
            then.drop_capability(ino).await?;
        }
        let result = then.client.write(&file, offset, data, append).await;
        then.inodes.written(ino);
        result
    };
    shared.tasks.run(caller.pid, operation, move |result| answer_write(result, reply));
}

fn answer_write(result: Result<usize, Errno>, reply: ReplyWrite) {
    match result {
        // At most what the kernel sent, which its own 32 bits counted.
        Ok(written) => reply.written(u32::try_from(written).unwrap_or(u32::MAX)),
        Err(code) => reply.error(code),
    }
}

pub(crate) fn flush(shared: &Arc<Shared>, pid: u32, fh: FileHandle, reply: ReplyEmpty) {
    let Some(file) = shared.files.get(fh.0) else { return reply.error(Errno::EBADF) };
    match shared.client.try_flush(&file) {
        Some(Ok(())) => return reply.ok(),
        Some(Err(error)) => return reply.error(code(error)),
        None => {}
    }
    let then = Arc::clone(shared);
    let operation = async move {
        let result = then.client.flush(&file).await;
        // It may have committed a size and a time, which a listing under way does not know then.
        then.inodes.changed(file.ino());
        result
    };
    shared.tasks.run(pid, operation, empty(reply));
}

pub(crate) fn fsync(shared: &Arc<Shared>, pid: u32, fh: FileHandle, datasync: bool, reply: ReplyEmpty) {
    let Some(file) = shared.files.get(fh.0) else { return reply.error(Errno::EBADF) };
    let then = Arc::clone(shared);
    let operation = async move {
        let result = then.client.fsync(&file, datasync).await;
        then.inodes.changed(file.ino());
        result
    };
    shared.tasks.run(pid, operation, empty(reply));
}

pub(crate) fn release(shared: &Arc<Shared>, fh: FileHandle, reply: ReplyEmpty) {
    if let Some(file) = shared.files.remove(fh.0) {
        shared.inodes.released(file.ino());
        shared.client.release(file);
    }
    reply.ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_from_flags() {
        assert_eq!(access(libc::O_RDONLY | libc::O_TRUNC), Access { read: true, write: false });
        assert_eq!(access(libc::O_WRONLY | libc::O_APPEND), Access { read: false, write: true });
        assert_eq!(access(libc::O_RDWR), Access { read: true, write: true });
    }
}
