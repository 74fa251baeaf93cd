//! Open directories: opendir, readdir with and without attributes, fsyncdir. What is shown is decided in
//! [`super::listing`].

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dfs_client::Error;
use dfs_proto::ids::{Ino, SizeEpoch};
use dfs_proto::meta::{Attr, FileKind};
use dfs_proto::units::Timespec;
use fuser::{Errno, FileHandle, FopenFlags, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyOpen};

use super::attr::file_type;
use super::listing::{Fill, Line, Listing, OpenDir, Sink};
use super::{GENERATION, Shared, empty};
use crate::clock;

pub(crate) fn opendir(shared: &Arc<Shared>, ino: Ino, reply: ReplyOpen) {
    let dir = OpenDir { dir: shared.client.opendir(ino), listing: Mutex::new(Listing::default()) };
    reply.opened(FileHandle(shared.dirs.add(Arc::new(dir))), FopenFlags::empty());
}

/// Either kind of listing reply.
pub(crate) trait Reply: Send + 'static {
    const PLUS: bool;
    /// False when there is no room.
    fn add(&mut self, shared: &Shared, line: &Line<'_>, next: u64) -> bool;
    fn ok(self);
    fn error(self, code: Errno);
}

impl Reply for ReplyDirectory {
    const PLUS: bool = false;

    fn add(&mut self, shared: &Shared, line: &Line<'_>, next: u64) -> bool {
        let (ino, name) = number_and_name(line);
        !ReplyDirectory::add(self, shared.numbers.number(ino), next, file_type(line.kind()), name)
    }

    fn ok(self) {
        ReplyDirectory::ok(self);
    }

    fn error(self, code: Errno) {
        ReplyDirectory::error(self, code);
    }
}

impl Reply for ReplyDirectoryPlus {
    const PLUS: bool = true;

    fn add(&mut self, shared: &Shared, line: &Line<'_>, next: u64) -> bool {
        let (ino, name) = number_and_name(line);
        // Of `.` and `..` the kernel takes the number and the kind only, and counts no reference.
        let (attr, counts) = match line {
            Line::Entry { attr: Some(attr), .. } => (**attr, true),
            Line::Entry { attr: None, .. } | Line::Special { .. } => (nameless(ino, line.kind()), false),
        };
        let (ttl, shown) = (shared.attr_ttl(ino), shared.shown(&attr));
        let full = ReplyDirectoryPlus::add(self, shown.ino, next, name, &ttl, &shown, GENERATION);
        if !full && counts {
            shared.inodes.entry(&attr);
        }
        !full
    }

    fn ok(self) {
        ReplyDirectoryPlus::ok(self);
    }

    fn error(self, code: Errno) {
        ReplyDirectoryPlus::error(self, code);
    }
}

fn number_and_name<'a>(line: &'a Line<'_>) -> (Ino, &'a OsStr) {
    match line {
        Line::Special { ino, name } => (*ino, OsStr::new(name)),
        Line::Entry { entry, .. } => (entry.ino, OsStr::from_bytes(&entry.name)),
    }
}

/// Attributes that say nothing but number and kind.
fn nameless(ino: Ino, kind: FileKind) -> Attr {
    let time = Timespec::default();
    Attr {
        ino,
        kind,
        mode: 0,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        size: 0,
        blocks: 0,
        atime: time,
        mtime: time,
        ctime: time,
        btime: time,
        size_epoch: SizeEpoch(0),
        xattrs: false,
    }
}

struct Filling<'a, R> {
    shared: &'a Shared,
    reply: &'a mut R,
    dir: Ino,
}

impl<R: Reply> Sink for Filling<'_, R> {
    const PLUS: bool = R::PLUS;

    fn add(&mut self, line: Line<'_>, next: u64) -> bool {
        // Above the root of the mount there is nothing to name: its `..` is itself.
        let line = match line {
            Line::Special { name: name @ "..", .. } if self.dir == self.shared.numbers.root => {
                Line::Special { ino: self.dir, name }
            }
            Line::Special { .. } | Line::Entry { .. } => line,
        };
        self.reply.add(self.shared, &line, next)
    }

    fn attr(&self, ino: Ino, listed: Option<Attr>) -> Option<Attr> {
        let listed = listed.filter(|_| self.shared.inodes.listing_holds(ino));
        listed.or_else(|| self.shared.client.try_getattr(ino))
    }
}

/// A reply that is either filled by the operation or, when that is given up, answered with an error.
type Slot<R> = Arc<Mutex<Option<R>>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn readdir<R: Reply>(shared: &Arc<Shared>, pid: u32, fh: FileHandle, offset: u64, mut reply: R) {
    let Some(dir) = shared.dirs.get(fh.0) else { return reply.error(Errno::EBADF) };
    if fill_at_once(shared, &dir, offset, &mut reply) {
        return reply.ok();
    }
    let slot: Slot<R> = Arc::new(Mutex::new(Some(reply)));
    let (lister, other) = (Arc::clone(shared), Arc::clone(&slot));
    shared.tasks.run(pid, async move { list(&lister, &dir, offset, &slot).await }, move |result| {
        if let (Err(code), Some(reply)) = (result, lock(&other).take()) {
            reply.error(code);
        }
    });
}

fn fill<R: Reply>(shared: &Shared, dir: &OpenDir, offset: u64, restart: bool, reply: &mut R) -> Fill {
    let ino = dir.dir.ino();
    let mut filling = Filling { shared, reply, dir: ino };
    lock(&dir.listing).fill(offset, restart, ino, clock::now(), &mut filling)
}

/// Fills from what was fetched already; whether that was enough.
fn fill_at_once<R: Reply>(shared: &Shared, dir: &OpenDir, offset: u64, reply: &mut R) -> bool {
    // From the start, as after rewinddir(3), what is there now is wanted.
    if offset == 0 {
        return false;
    }
    match fill(shared, dir, offset, false, reply) {
        Fill::Done => true,
        Fill::Verify { .. } => false,
        Fill::Fetch { cookie } => {
            let asked = clock::now();
            let Some(page) = shared.client.try_readdir(&dir.dir, cookie, R::PLUS) else { return false };
            lock(&dir.listing).fetched(cookie, page, R::PLUS, asked);
            fill(shared, dir, offset, false, reply) == Fill::Done
        }
    }
}

/// Fetches what is lacking until the reply could be sent.
async fn list<R: Reply>(shared: &Shared, dir: &OpenDir, offset: u64, slot: &Slot<R>) -> Result<(), Error> {
    let mut restart = offset == 0;
    loop {
        let lacking = {
            let mut slot = lock(slot);
            let Some(reply) = slot.as_mut() else { return Ok(()) };
            let lacking = fill(shared, dir, offset, restart, reply);
            if lacking == Fill::Done {
                if let Some(reply) = slot.take() {
                    reply.ok();
                }
                return Ok(());
            }
            lacking
        };
        match lacking {
            Fill::Done => return Ok(()),
            Fill::Fetch { cookie } => {
                let asked = clock::now();
                let page = shared.client.readdir(&dir.dir, cookie, R::PLUS).await?;
                lock(&dir.listing).fetched(cookie, page, R::PLUS, asked);
                restart = false;
            }
            Fill::Verify { ino } => {
                let attr = match shared.client.getattr(ino).await {
                    Ok(attr) => Some(attr),
                    Err(Error::NotFound | Error::Stale) => None,
                    Err(error) => return Err(error),
                };
                lock(&dir.listing).verified(ino, attr);
            }
        }
    }
}

pub(crate) fn fsyncdir(shared: &Arc<Shared>, pid: u32, fh: FileHandle, reply: ReplyEmpty) {
    let Some(dir) = shared.dirs.get(fh.0) else { return reply.error(Errno::EBADF) };
    let client = shared.client.clone();
    shared.tasks.run(pid, async move { client.fsyncdir(&dir.dir).await }, empty(reply));
}
