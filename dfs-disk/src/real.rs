//! The real disk: a directory on a Linux filesystem, through system calls only.
//!
//! It owns descriptors and the exclusive lock, and nothing else: no cache, no retry of a failed sync.
//! Every path is opened relative to the root's own descriptor, so a root that is renamed or mounted over
//! while we run can't send writes to another filesystem.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, FallocateFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::{Errno, ReadWriteFlags};

use crate::{Disk, DiskFile, Entry, Open, Space};

/// Most buffers that one pwritev takes (Linux's UIO_MAXIOV).
const IOV_MAX: usize = 1024;
/// What O_DIRECT wants offsets, lengths and memory aligned to: the largest logical block of a drive.
const PAGE: usize = 4096;
/// The file whose flock is the tree's exclusive lock.
const LOCK_FILE: &str = ".lock";

/// A directory tree on a mounted filesystem.
#[derive(Clone, Debug)]
pub struct RealDisk(Arc<Root>);

#[derive(Debug)]
struct Root {
    dir: OwnedFd,
    path: PathBuf,
    /// The locked file while we hold the lock. Taken alone, never with another lock.
    lock: Mutex<Option<File>>,
    /// Cleared for good when the filesystem says that it can't do RWF_NOWAIT.
    nowait: AtomicBool,
}

/// An open file of a [`RealDisk`].
#[derive(Debug)]
pub struct RealFile {
    file: File,
    root: Arc<Root>,
    /// Opened with O_DIRECT, for reading.
    direct: bool,
}

impl RealDisk {
    /// The tree under the existing directory `root`.
    ///
    /// # Errors
    /// When it can't be opened as a directory.
    pub fn new(root: &Path) -> io::Result<RealDisk> {
        let dir =
            rustix::fs::open(root, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(RealDisk(Arc::new(Root {
            dir,
            path: root.to_path_buf(),
            lock: Mutex::new(None),
            nowait: AtomicBool::new(true),
        })))
    }

    /// The root as it was given to [`RealDisk::new`], for messages.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.0.path
    }

    fn open_dir(&self, dir: &str) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.0.dir, relative(dir)?, flags, Mode::empty())?)
    }
}

/// The path as the kernel takes it; an absolute one or one with `..` would leave the tree.
fn relative(path: &str) -> io::Result<&str> {
    if path.starts_with('/') || path.split('/').any(|part| part == "..") {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{path:?} leaves the disk's root")));
    }
    Ok(if path.is_empty() { "." } else { path })
}

fn to_off(value: u64) -> io::Result<i64> {
    i64::try_from(value).map_err(|_| Errno::FBIG.into())
}

/// [`crate::replace_file`] by a path that need not be of any disk.
///
/// # Errors
/// The first failing call's; `InvalidInput` for a path without a file name.
pub fn replace_file_at(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name =
        path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it has no file name"))?;
    crate::replace_file(&RealDisk::new(dir)?, &name.to_string_lossy(), bytes)
}

impl Disk for RealDisk {
    type File = RealFile;

    fn open(&self, path: &str, how: Open) -> io::Result<RealFile> {
        let create = match how {
            Open::Existing => OFlags::empty(),
            Open::New => OFlags::CREATE | OFlags::EXCL,
            Open::OrNew => OFlags::CREATE,
        };
        let flags = OFlags::RDWR | OFlags::CLOEXEC | create;
        // Chunks hold users' bytes: nobody but the server's own account may look.
        let fd = rustix::fs::openat(&self.0.dir, relative(path)?, flags, Mode::RUSR | Mode::WUSR)?;
        Ok(RealFile { file: File::from(fd), root: self.0.clone(), direct: false })
    }

    fn open_past_cache(&self, path: &str) -> io::Result<RealFile> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::DIRECT;
        match rustix::fs::openat(&self.0.dir, relative(path)?, flags, Mode::empty()) {
            Ok(fd) => Ok(RealFile { file: File::from(fd), root: self.0.clone(), direct: true }),
            // A filesystem without it.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => self.open(path, Open::Existing),
            Err(errno) => Err(errno.into()),
        }
    }

    fn create_dir_all(&self, path: &str) -> io::Result<()> {
        let path = relative(path)?;
        for (end, _) in path.match_indices('/').chain([(path.len(), "")]) {
            match rustix::fs::mkdirat(&self.0.dir, &path[..end], Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    fn list(&self, dir: &str) -> io::Result<Vec<Entry>> {
        let fd = self.open_dir(dir)?;
        let mut entries = Vec::new();
        for item in rustix::fs::Dir::read_from(&fd)? {
            let item = item?;
            let Ok(name) = item.file_name().to_str() else { continue };
            if name == "." || name == ".." {
                continue;
            }
            let stat = match rustix::fs::statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                // Removed between the listing and the look.
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(errno.into()),
            };
            let is_dir = FileType::from_raw_mode(stat.st_mode).is_dir();
            let len = if is_dir { 0 } else { u64::try_from(stat.st_size).unwrap_or(0) };
            entries.push(Entry { name: name.to_owned(), is_dir, len });
        }
        entries.sort_unstable();
        Ok(entries)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.0.dir, relative(from)?, &self.0.dir, relative(to)?)?)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.0.dir, relative(path)?, AtFlags::empty())?)
    }

    fn exists(&self, path: &str) -> io::Result<bool> {
        match rustix::fs::statat(&self.0.dir, relative(path)?, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        Ok(rustix::fs::fsync(self.open_dir(dir)?)?)
    }

    fn sync_all(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.0.dir)?)
    }

    fn space(&self) -> io::Result<Space> {
        let stat = rustix::fs::fstatvfs(&self.0.dir)?;
        // f_bavail leaves out what is kept for root, which is not ours to fill even when we run as root.
        Ok(Space { total: stat.f_blocks * stat.f_frsize, free: stat.f_bavail * stat.f_frsize })
    }

    fn lock(&self) -> io::Result<()> {
        let mut held = self.0.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if held.is_some() {
            return Ok(());
        }
        let file = self.open(LOCK_FILE, Open::OrNew)?.file;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        *held = Some(file);
        Ok(())
    }
}

impl RealFile {
    /// A read with O_DIRECT, of whole pages into aligned memory. Dirty pages are written back before it, by the
    /// kernel.
    fn read_direct(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let skip = usize::try_from(offset % PAGE as u64).unwrap_or(0);
        let len = (skip + buf.len()).next_multiple_of(PAGE);
        let mut memory = vec![0; len + PAGE];
        let shift = memory.as_ptr().align_offset(PAGE);
        let pages = memory.get_mut(shift..shift + len).ok_or(Errno::NOMEM)?;
        let mut done = 0;
        while done < len {
            match rustix::io::pread(&self.file, &mut pages[done..], offset - skip as u64 + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            // The end of the file; what follows a part of a page can't be asked for.
            if done % PAGE != 0 {
                break;
            }
        }
        let n = done.saturating_sub(skip).min(buf.len());
        buf[..n].copy_from_slice(&pages[skip..skip + n]);
        Ok(n)
    }
}

impl DiskFile for RealFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        if self.direct {
            return self.read_direct(buf, offset);
        }
        let mut done = 0;
        while done < buf.len() {
            match rustix::io::pread(&self.file, &mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(done)
    }

    fn read_cached_at(&self, buf: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
        let mut done = 0;
        while done < buf.len() {
            if !self.root.nowait.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let mut rest = [IoSliceMut::new(&mut buf[done..])];
            match rustix::io::preadv2(&self.file, &mut rest, offset + done as u64, ReadWriteFlags::NOWAIT) {
                // A short answer is the end of the file only if the next one is empty: it may also stop
                // at the first page that is not in memory.
                Ok(0) => break,
                Ok(n) => done += n,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                    self.root.nowait.store(false, Ordering::Relaxed);
                    return Ok(None);
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(Some(done))
    }

    fn write_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let mut owned: Vec<IoSlice<'_>>;
        let mut at = offset;
        let mut left: usize = bufs.iter().map(|buf| buf.len()).sum();
        let mut rest = &bufs[..bufs.len().min(IOV_MAX)];
        let mut next = rest.len();
        while left > 0 {
            let n = match rustix::io::pwritev(&self.file, rest, at) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => n,
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            at += n as u64;
            left -= n;
            if left == 0 {
                break;
            }
            owned = remaining(rest, n);
            let more = (IOV_MAX - owned.len()).min(bufs.len() - next);
            owned.extend(bufs[next..next + more].iter().map(|buf| IoSlice::new(buf)));
            next += more;
            rest = &owned;
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(rustix::fs::fdatasync(&self.file)?)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(u64::try_from(rustix::fs::fstat(&self.file)?.st_size).unwrap_or(0))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        Ok(rustix::fs::ftruncate(&self.file, len)?)
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        Ok(rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, offset, len)?)
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(rustix::fs::fallocate(&self.file, how, offset, len)?)
    }

    fn start_writeback(&self, offset: u64, len: u64) -> io::Result<()> {
        let (offset, len) = (to_off(offset)?, to_off(len)?);
        let fd = self.file.as_fd().as_raw_fd();
        // SAFETY: takes a descriptor that `self.file` keeps open and two numbers; touches no memory.
        let rc = unsafe { libc::sync_file_range(fd, offset, len, libc::SYNC_FILE_RANGE_WRITE) };
        if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// `bufs` without their first `done` bytes.
fn remaining<'a>(bufs: &[IoSlice<'a>], mut done: usize) -> Vec<IoSlice<'a>> {
    let mut rest = Vec::with_capacity(bufs.len());
    for buf in bufs {
        let skip = done.min(buf.len());
        done -= skip;
        if skip < buf.len() {
            let mut buf = *buf;
            buf.advance(skip);
            rest.push(buf);
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> (tempfile::TempDir, RealDisk) {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::new(dir.path()).unwrap();
        (dir, disk)
    }

    #[test]
    fn writes_more_buffers_than_one_call_takes() {
        let (_dir, disk) = disk();
        let file = disk.open("f", Open::New).unwrap();
        let bytes: Vec<u8> = (0..5000u32).map(|i| i.to_le_bytes()[0]).collect();
        let bufs: Vec<IoSlice<'_>> = bytes.chunks(2).map(IoSlice::new).collect();
        file.write_at(&bufs, 10).unwrap();
        let mut back = vec![0; 6000];
        assert_eq!(file.read_at(&mut back, 10).unwrap(), 5000);
        assert_eq!(back[..5000], bytes[..]);
        if let Some(n) = file.read_cached_at(&mut back, 10).unwrap() {
            assert_eq!(n, 5000);
        }
    }

    #[test]
    fn reading_past_the_cache_sees_what_was_written() {
        let (_dir, disk) = disk();
        let file = disk.open("f", Open::New).unwrap();
        let bytes: Vec<u8> = (0..20_000u32).map(|i| i.to_le_bytes()[0]).collect();
        file.write_at(&[IoSlice::new(&bytes)], 0).unwrap();
        let past = disk.open_past_cache("f").unwrap();
        for (at, len) in [(0, 512), (512, 512), (4096, 8192), (100, 5000), (19_000, 4096), (30_000, 10)] {
            let mut back = vec![9; len];
            let n = past.read_at(&mut back, at as u64).unwrap();
            assert_eq!(n, bytes.len().saturating_sub(at).min(len), "{at} {len}");
            assert_eq!(back[..n], bytes[at.min(bytes.len())..][..n]);
        }
        file.write_at(&[IoSlice::new(&[77])], 0).unwrap();
        let mut back = [0];
        past.read_at(&mut back, 0).unwrap();
        assert_eq!(back, [77]);
        assert!(disk.open_past_cache("g").is_err());
    }

    #[test]
    fn remaining_cuts_inside_a_buffer() {
        let bufs = [IoSlice::new(b"abc"), IoSlice::new(b"de"), IoSlice::new(b"f")];
        let rest: Vec<u8> = remaining(&bufs, 4).iter().flat_map(|buf| buf.to_vec()).collect();
        assert_eq!(rest, b"ef");
    }

    #[test]
    fn names_spaces_and_locks() {
        let (dir, disk) = disk();
        disk.create_dir_all("a/b").unwrap();
        disk.create_dir_all("a/b").unwrap();
        crate::replace_file(&disk, "a/b/x", b"one").unwrap();
        crate::replace_file(&disk, "a/b/x", b"two!").unwrap();
        assert_eq!(crate::read_file(&disk, "a/b/x", 10).unwrap(), b"two!");
        assert!(crate::read_file(&disk, "a/b/x", 3).is_err());
        assert_eq!(disk.list("a/b").unwrap(), [Entry { name: "x".into(), is_dir: false, len: 4 }]);
        disk.rename("a/b/x", "y").unwrap();
        assert!(disk.exists("y").unwrap() && !disk.exists("a/b/x").unwrap());
        disk.remove("y").unwrap();
        assert!(disk.open("../y", Open::OrNew).is_err());
        assert!(disk.space().unwrap().total > 0);
        disk.sync_all().unwrap();

        disk.lock().unwrap();
        disk.clone().lock().unwrap();
        let other = RealDisk::new(dir.path()).unwrap();
        assert_eq!(other.lock().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(disk);
        other.lock().unwrap();
    }

    #[test]
    fn allocation_keeps_the_length_and_a_punched_range_reads_as_zeros() {
        let (_dir, disk) = disk();
        let file = disk.open("f", Open::New).unwrap();
        file.write_at(&[IoSlice::new(&[7; 8192])], 0).unwrap();
        file.allocate(8192, 1 << 20).unwrap();
        assert_eq!(file.len().unwrap(), 8192);
        file.punch(0, 4096).unwrap();
        file.start_writeback(0, 8192).unwrap();
        file.sync_data().unwrap();
        let mut back = [9; 8192];
        file.read_at(&mut back, 0).unwrap();
        assert!(back[..4096].iter().all(|&b| b == 0) && back[4096..].iter().all(|&b| b == 7));
        file.set_len(1).unwrap();
        assert_eq!(file.len().unwrap(), 1);
    }
}
