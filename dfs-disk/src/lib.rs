//! The filesystem calls that durability rests on, as a contract with two implementations: [`real`], on
//! Linux, and [`sim`], which forgets what was not synced, tears writes and fails on demand. [`read_only`] lays over
//! one of them and changes nothing.
//!
//! The master's log and the chunk store are written against [`Disk`] only, so the code that a simulated
//! power cut exercises is the code that runs in production. Nothing here knows chunks or logs.
//!
//! Paths are relative to the disk's root, use `/`, and never contain `..`.

pub mod read_only;
pub mod real;
pub mod sim;

use std::io::{self, IoSlice};

/// How [`Disk::open`] opens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Open {
    /// An existing file, for reading and writing.
    Existing,
    /// A new file; fails with `AlreadyExists` if the path is taken.
    New,
    /// The existing file, or a new empty one.
    OrNew,
}

/// One entry of [`Disk::list`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Entry {
    pub name: String,
    pub is_dir: bool,
    /// Length in bytes of a file; 0 for a directory.
    pub len: u64,
}

/// Bytes of a disk, total and free to us.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Space {
    pub total: u64,
    pub free: u64,
}

/// A directory tree on one device. Cheap to clone; clones name the same tree.
///
/// Durability contract, the same for both implementations: bytes written are durable once
/// [`DiskFile::sync_data`] on any handle of the file returned Ok; a file's existence under its name is
/// durable once [`Disk::sync_dir`] of its directory returned Ok after the create, rename or remove. A
/// rename replaces its target atomically.
pub trait Disk: Clone + Send + Sync + 'static {
    type File: DiskFile;

    fn open(&self, path: &str, how: Open) -> io::Result<Self::File>;
    /// An existing file, for reading what lies on the device and not what the page cache has of it, where the
    /// filesystem can; nothing is written through it.
    fn open_past_cache(&self, path: &str) -> io::Result<Self::File> {
        self.open(path, Open::Existing)
    }
    fn create_dir_all(&self, path: &str) -> io::Result<()>;
    fn list(&self, dir: &str) -> io::Result<Vec<Entry>>;
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, path: &str) -> io::Result<()>;
    fn exists(&self, path: &str) -> io::Result<bool>;
    fn sync_dir(&self, dir: &str) -> io::Result<()>;
    /// Makes every byte and every name written so far durable, for a batch of files at the price of one
    /// (syncfs). After an error any file's unsynced bytes may be lost, and it does not say whose.
    fn sync_all(&self) -> io::Result<()>;
    fn space(&self) -> io::Result<Space>;
    /// Takes the tree's exclusive lock for this process, held until the disk's last clone is dropped.
    /// `WouldBlock` when another process has it.
    fn lock(&self) -> io::Result<()>;
}

/// An open file. All calls may be made from several threads at once.
#[expect(
    clippy::len_without_is_empty,
    reason = "a file's length costs a system call; nobody asks only for emptiness"
)]
pub trait DiskFile: Send + Sync + 'static {
    /// Reads up to `buf.len()` bytes at `offset`; fewer only at the end of the file.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// The same if it needs no disk (RWF_NOWAIT); `None` when it would wait or the kernel can't tell.
    fn read_cached_at(&self, buf: &mut [u8], offset: u64) -> io::Result<Option<usize>>;
    /// Writes all of `bufs`, one behind the other, at `offset`, growing the file as needed.
    fn write_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()>;
    /// fdatasync: every byte written through any handle, and the length, are durable on Ok. After an
    /// error the file's unsynced bytes are lost for good: never call again and believe an Ok.
    fn sync_data(&self) -> io::Result<()>;
    fn len(&self) -> io::Result<u64>;
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Reserves space for the range without changing the length (FALLOC_FL_KEEP_SIZE).
    fn allocate(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Gives the range back; it reads as zeros.
    fn punch(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Asks the kernel to begin writing the range back, without waiting (sync_file_range). A hint.
    fn start_writeback(&self, offset: u64, len: u64) -> io::Result<()>;
}

/// Replaces the small file `path` with `bytes` so that after a crash it is whole, old or new:
/// temporary file, sync, rename, directory sync. The one place where this is done.
///
/// # Errors
/// The first failing call's; the old file is then still there.
pub fn replace_file<D: Disk>(disk: &D, path: &str, bytes: &[u8]) -> io::Result<()> {
    let temp = format!("{path}.tmp");
    if disk.exists(&temp)? {
        disk.remove(&temp)?;
    }
    let file = disk.open(&temp, Open::New)?;
    file.write_at(&[IoSlice::new(bytes)], 0)?;
    file.sync_data()?;
    disk.rename(&temp, path)?;
    disk.sync_dir(path.rsplit_once('/').map_or("", |(dir, _)| dir))
}

/// Reads a whole small file.
///
/// # Errors
/// The failing call's; `InvalidData` when it is longer than `limit` bytes.
pub fn read_file<D: Disk>(disk: &D, path: &str, limit: usize) -> io::Result<Vec<u8>> {
    let file = disk.open(path, Open::Existing)?;
    let len = usize::try_from(file.len()?).unwrap_or(usize::MAX);
    if len > limit {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{path}: {len} bytes, over {limit}")));
    }
    let mut bytes = vec![0; len];
    let n = file.read_at(&mut bytes, 0)?;
    bytes.truncate(n);
    Ok(bytes)
}
