//! A directory that fails on demand: a FUSE server of this process shows a directory of a real filesystem, and
//! answers reads, writes or syncs with EIO, or says that the disk is full, when told to. A chunk server that keeps
//! its disk in it takes it for a disk that goes bad.
//!
//! It serves what `dfs-disk` asks of a filesystem and nothing else: files and directories, no links.

mod tree;

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::FallocateFlags;

use self::tree::Tree;

/// Names change behind nobody's back, but faults come and go.
const TTL: Duration = Duration::ZERO;

/// What goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    None = 0,
    /// Reading a file fails with EIO.
    Read = 1,
    /// Writing fails with EIO.
    Write = 2,
    /// fsync and fdatasync fail with EIO.
    Sync = 3,
    /// Everything that takes space fails with ENOSPC, and no space is free. Overwriting goes on, and filling
    /// what was allocated, as on a filesystem that writes blocks in place.
    Full = 4,
}

/// What the server and those who break it share.
#[derive(Debug)]
struct Shown {
    tree: Tree,
    fault: AtomicU8,
    /// Calls that failed by it.
    failed: AtomicU64,
}

/// A directory that can be broken, mounted.
#[derive(Debug)]
pub struct Faulty {
    shown: Arc<Shown>,
    session: Option<BackgroundSession>,
    at: PathBuf,
}

impl Faulty {
    /// Shows `under` at `at`; both are directories.
    ///
    /// # Errors
    /// When there is no FUSE to mount.
    pub fn new(under: &Path, at: &Path) -> anyhow::Result<Faulty> {
        let fault = AtomicU8::new(Fault::None as u8);
        let shown = Arc::new(Shown { tree: Tree::new(under), fault, failed: AtomicU64::new(0) });
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("dfs-faulty".to_owned())];
        let session = fuser::spawn_mount(Server(Arc::clone(&shown)), at, &config);
        let session = Some(session.with_context(|| format!("cannot mount {}", at.display()))?);
        Ok(Faulty { shown, session, at: at.to_owned() })
    }

    /// How many calls it has made fail.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.shown.failed.load(Ordering::Relaxed)
    }

    /// Breaks it, or mends it.
    pub fn set(&self, fault: Fault) {
        self.shown.fault.store(fault as u8, Ordering::Relaxed);
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.session.take().map(BackgroundSession::umount_and_join) {
            eprintln!("left behind: {}: {error}", self.at.display());
        }
    }
}

impl Shown {
    fn has(&self, fault: Fault) -> bool {
        self.fault.load(Ordering::Relaxed) == fault as u8
    }

    /// Fails if that is the fault.
    fn pass(&self, fault: Fault) -> io::Result<()> {
        if !self.has(fault) {
            return Ok(());
        }
        self.failed.fetch_add(1, Ordering::Relaxed);
        let errno = if fault == Fault::Full { libc::ENOSPC } else { libc::EIO };
        Err(io::Error::from_raw_os_error(errno))
    }
}

struct Server(Arc<Shown>);

fn errno(error: &io::Error) -> Errno {
    Errno::from_i32(error.raw_os_error().unwrap_or(libc::EIO))
}

fn empty(reply: ReplyEmpty, result: io::Result<()>) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(&error)),
    }
}

impl Filesystem for Server {
    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.0.tree.look_up(parent, name) {
            Ok(attr) => reply.entry(&TTL, &attr, Generation(0)),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn forget(&self, _req: &Request, ino: INodeNo, _nlookup: u64) {
        self.0.tree.forget(ino);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.0.tree.attr(ino) {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let set = || {
            self.0.pass(Fault::Write)?;
            if let Some(size) = size {
                self.0.tree.file(ino)?.set_len(size)?;
            }
            self.0.tree.attr(ino)
        };
        match set() {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn mkdir(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let made = self.0.pass(Fault::Full).and_then(|()| self.0.pass(Fault::Write));
        match made.and_then(|()| self.0.tree.mkdir(parent, name)) {
            Ok(attr) => reply.entry(&TTL, &attr, Generation(0)),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.0.pass(Fault::Write).and_then(|()| self.0.tree.unlink(parent, name)));
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        _flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let passed = self.0.pass(Fault::Write);
        empty(reply, passed.and_then(|()| self.0.tree.rename((parent, name), (newparent, newname))));
    }

    fn open(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.0.tree.file(ino) {
            // Every read comes to us, so that it can fail.
            Ok(_) => reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn create(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let made = self.0.pass(Fault::Full).and_then(|()| self.0.pass(Fault::Write));
        match made.and_then(|()| self.0.tree.create(parent, name)) {
            Ok(attr) => {
                reply.created(&TTL, &attr, Generation(0), FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
            }
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read = || {
            self.0.pass(Fault::Read)?;
            read_up_to(&*self.0.tree.file(ino)?, offset, usize::try_from(size).unwrap_or(0))
        };
        match read() {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let write = || {
            self.0.pass(Fault::Write)?;
            if offset + data.len() as u64 > self.0.tree.room(ino)? {
                self.0.pass(Fault::Full)?;
            }
            self.0.tree.file(ino)?.write_all_at(data, offset)
        };
        match write() {
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap_or(0)),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn flush(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let synced = self.0.pass(Fault::Sync);
        empty(reply, synced.and_then(|()| self.0.tree.file(ino)?.sync_data()));
    }

    fn fsyncdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let synced = self.0.pass(Fault::Sync);
        empty(reply, synced.and_then(|()| File::open(self.0.tree.path(ino)?)?.sync_all()));
    }

    fn fallocate(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let allocate = || {
            self.0.pass(Fault::Write)?;
            let how = FallocateFlags::from_bits_retain(mode.cast_unsigned());
            if !how.contains(FallocateFlags::PUNCH_HOLE) {
                self.0.pass(Fault::Full)?;
            }
            rustix::fs::fallocate(&*self.0.tree.file(ino)?, how, offset, length)?;
            if !how.contains(FallocateFlags::PUNCH_HOLE) {
                self.0.tree.allocated(ino, offset + length);
            }
            Ok(())
        };
        empty(reply, allocate());
    }

    fn readdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        match self.0.tree.list(ino) {
            Ok(entries) => {
                let skipped = usize::try_from(offset).unwrap_or(usize::MAX);
                for (at, (ino, kind, name)) in entries.into_iter().enumerate().skip(skipped) {
                    if reply.add(ino, at as u64 + 1, kind, name) {
                        break;
                    }
                }
                reply.ok();
            }
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        match rustix::fs::statvfs(self.0.tree.root()) {
            Ok(stat) => {
                let full = self.0.pass(Fault::Full).is_err();
                let free = |blocks: u64| if full { 0 } else { blocks };
                let block = u32::try_from(stat.f_frsize).unwrap_or(4096);
                let (bfree, bavail) = (free(stat.f_bfree), free(stat.f_bavail));
                reply.statfs(stat.f_blocks, bfree, bavail, stat.f_files, stat.f_ffree, block, 255, block);
            }
            Err(error) => reply.error(errno(&error.into())),
        }
    }
}

/// Fewer bytes only at the end of the file.
fn read_up_to(file: &File, offset: u64, size: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; size];
    let mut done = 0;
    while done < size {
        match file.read_at(&mut bytes[done..], offset + done as u64)? {
            0 => break,
            n => done += n,
        }
    }
    bytes.truncate(done);
    Ok(bytes)
}
