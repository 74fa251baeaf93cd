//! A disk in memory, as the one file of a FUSE mount, under a loop device. While it records, every write and every
//! flush goes to a record in the order in which they came.
//!
//! The kernel writes through to us, and sends an fsync for each flush of the loop device, so the record's order is
//! the device's: what was answered before a flush was asked for lies before it.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context;
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, Generation, INodeNo,
    LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyWrite, Request,
    WriteFlags,
};
use tempfile::TempDir;

/// The file's name on the mount.
const NAME: &str = "image";
const FILE: INodeNo = INodeNo(2);
/// Nothing about the file ever changes but its bytes, which go through us.
const TTL: Duration = Duration::from_secs(3600);
const SECTOR: u32 = 512;

/// What was asked of the device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    Write {
        offset: usize,
        data: Vec<u8>,
    },
    /// All that lies before it is durable.
    Flush,
}

/// The device's bytes, and what was done to them.
#[derive(Debug, Default)]
struct Tape {
    bytes: Vec<u8>,
    recording: bool,
    events: Vec<Event>,
}

/// The device, mounted.
#[derive(Debug)]
pub struct Device {
    tape: Arc<Mutex<Tape>>,
    // Before the directory that it is mounted on.
    session: Option<BackgroundSession>,
    dir: TempDir,
}

fn locked(tape: &Mutex<Tape>) -> MutexGuard<'_, Tape> {
    tape.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Device {
    /// A device of zeros.
    ///
    /// # Errors
    /// When there is no FUSE to mount.
    pub fn new(bytes: usize) -> anyhow::Result<Device> {
        let dir = TempDir::with_prefix("dfs-device.")?;
        let tape = Arc::new(Mutex::new(Tape { bytes: vec![0; bytes], ..Tape::default() }));
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("dfs-device".to_owned())];
        let session = fuser::spawn_mount(Server { tape: Arc::clone(&tape) }, dir.path(), &config);
        let session = Some(session.context("cannot mount the recording device")?);
        Ok(Device { tape, session, dir })
    }

    /// The file to put under a loop device.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.dir.path().join(NAME)
    }

    /// Begins to record; the bytes as they are now.
    #[must_use]
    pub fn record(&self) -> Vec<u8> {
        let mut tape = locked(&self.tape);
        tape.recording = true;
        tape.bytes.clone()
    }

    /// How much was recorded.
    #[must_use]
    pub fn position(&self) -> usize {
        locked(&self.tape).events.len()
    }

    /// Everything recorded; recording ends.
    #[must_use]
    pub fn take(&self) -> Vec<Event> {
        let mut tape = locked(&self.tape);
        tape.recording = false;
        std::mem::take(&mut tape.events)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.session.take().map(BackgroundSession::umount_and_join) {
            eprintln!("left behind: {}: {error}", self.dir.path().display());
        }
    }
}

struct Server {
    tape: Arc<Mutex<Tape>>,
}

impl Server {
    fn attr(&self, ino: INodeNo) -> FileAttr {
        let size = locked(&self.tape).bytes.len() as u64;
        let dir = ino == INodeNo::ROOT;
        FileAttr {
            ino,
            size: if dir { 0 } else { size },
            blocks: size / u64::from(SECTOR),
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if dir { FileType::Directory } else { FileType::RegularFile },
            perm: if dir { 0o700 } else { 0o600 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: SECTOR,
            flags: 0,
        }
    }
}

/// The range of a request within the device.
fn range(offset: u64, len: usize, size: usize) -> Option<std::ops::Range<usize>> {
    let first = usize::try_from(offset).ok().filter(|first| *first <= size)?;
    Some(first..first.checked_add(len)?.min(size))
}

impl Filesystem for Server {
    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if parent == INodeNo::ROOT && name == NAME {
            reply.entry(&TTL, &self.attr(FILE), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &self.attr(ino));
    }

    fn read(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let tape = locked(&self.tape);
        let len = usize::try_from(size).unwrap_or(0);
        match range(offset, len, tape.bytes.len()) {
            Some(range) => reply.data(&tape.bytes[range]),
            None => reply.data(&[]),
        }
    }

    fn write(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut tape = locked(&self.tape);
        match range(offset, data.len(), tape.bytes.len()).filter(|range| range.len() == data.len()) {
            Some(range) => {
                let offset = range.start;
                tape.bytes[range].copy_from_slice(data);
                if tape.recording {
                    tape.events.push(Event::Write { offset, data: data.to_vec() });
                }
                reply.written(u32::try_from(data.len()).unwrap_or(0));
            }
            None => reply.error(Errno::ENOSPC),
        }
    }

    fn fsync(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let mut tape = locked(&self.tape);
        if tape.recording {
            tape.events.push(Event::Flush);
        }
        reply.ok();
    }

    fn flush(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }
}
