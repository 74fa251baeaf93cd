//! The directory behind a [`super::Faulty`]: which inode is which path, and the files that are open, by inode. An
//! inode keeps the number that the filesystem gave it; the root is 1.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo};

/// Where an inode hangs.
type Place = (INodeNo, OsString);

#[derive(Debug, Default)]
struct State {
    places: BTreeMap<u64, Place>,
    /// Opened once and kept until the kernel forgets the inode: a file that is removed goes on for those who have
    /// it open, and its number is nobody else's meanwhile.
    files: BTreeMap<u64, Arc<File>>,
    /// Up to where space was allocated ahead.
    room: BTreeMap<u64, u64>,
}

/// A directory tree by inode numbers.
#[derive(Debug)]
pub(super) struct Tree {
    root: PathBuf,
    state: Mutex<State>,
}

impl Tree {
    pub(super) fn new(root: &Path) -> Tree {
        Tree { root: root.to_owned(), state: Mutex::default() }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where an inode is now.
    pub(super) fn path(&self, ino: INodeNo) -> io::Result<PathBuf> {
        let state = self.state();
        let (mut at, mut names) = (ino, Vec::new());
        while at != INodeNo::ROOT {
            let (parent, name) = state.places.get(&at.0).ok_or(io::ErrorKind::NotFound)?;
            names.push(name.clone());
            at = *parent;
        }
        Ok(names.iter().rev().fold(self.root.clone(), |path, name| path.join(name)))
    }

    /// An inode's file, open for both.
    pub(super) fn file(&self, ino: INodeNo) -> io::Result<Arc<File>> {
        if let Some(file) = self.state().files.get(&ino.0) {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(File::options().read(true).write(true).open(self.path(ino)?)?);
        Ok(Arc::clone(self.state().files.entry(ino.0).or_insert(file)))
    }

    /// The kernel knows the inode no more.
    pub(super) fn forget(&self, ino: INodeNo) {
        let mut state = self.state();
        state.files.remove(&ino.0);
        state.room.remove(&ino.0);
    }

    /// Space was allocated up to `end`.
    pub(super) fn allocated(&self, ino: INodeNo, end: u64) {
        let mut state = self.state();
        let room = state.room.entry(ino.0).or_default();
        *room = end.max(*room);
    }

    /// Up to where a file has its space: it was written or allocated.
    pub(super) fn room(&self, ino: INodeNo) -> io::Result<u64> {
        let len = self.file(ino)?.metadata()?.len();
        Ok(self.state().room.get(&ino.0).copied().unwrap_or(0).max(len))
    }

    pub(super) fn attr(&self, ino: INodeNo) -> io::Result<FileAttr> {
        let open = self.state().files.get(&ino.0).map(Arc::clone);
        let meta = match open {
            Some(file) => file.metadata()?,
            None => std::fs::symlink_metadata(self.path(ino)?)?,
        };
        Ok(attr_of(ino, &meta))
    }

    /// A name's inode, which is remembered.
    pub(super) fn look_up(&self, parent: INodeNo, name: &OsStr) -> io::Result<FileAttr> {
        let meta = std::fs::symlink_metadata(self.path(parent)?.join(name))?;
        self.state().places.insert(meta.ino(), (parent, name.to_owned()));
        Ok(attr_of(INodeNo(meta.ino()), &meta))
    }

    pub(super) fn mkdir(&self, parent: INodeNo, name: &OsStr) -> io::Result<FileAttr> {
        std::fs::create_dir(self.path(parent)?.join(name))?;
        self.look_up(parent, name)
    }

    pub(super) fn create(&self, parent: INodeNo, name: &OsStr) -> io::Result<FileAttr> {
        let path = self.path(parent)?.join(name);
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        let attr = self.look_up(parent, name)?;
        self.state().files.insert(attr.ino.0, Arc::new(file));
        Ok(attr)
    }

    pub(super) fn unlink(&self, parent: INodeNo, name: &OsStr) -> io::Result<()> {
        let path = self.path(parent)?.join(name);
        let ino = std::fs::symlink_metadata(&path)?.ino();
        std::fs::remove_file(path)?;
        self.state().places.remove(&ino);
        Ok(())
    }

    pub(super) fn rename(&self, from: (INodeNo, &OsStr), to: (INodeNo, &OsStr)) -> io::Result<()> {
        let target = self.path(to.0)?.join(to.1);
        let replaced = std::fs::symlink_metadata(&target).map(|meta| meta.ino());
        std::fs::rename(self.path(from.0)?.join(from.1), &target)?;
        let ino = std::fs::symlink_metadata(&target)?.ino();
        let mut state = self.state();
        if let Ok(replaced) = replaced {
            state.places.remove(&replaced);
        }
        state.places.insert(ino, (to.0, to.1.to_owned()));
        Ok(())
    }

    pub(super) fn list(&self, ino: INodeNo) -> io::Result<Vec<(INodeNo, FileType, OsString)>> {
        let mut entries =
            vec![(ino, FileType::Directory, OsString::from(".")), (ino, FileType::Directory, "..".into())];
        for entry in std::fs::read_dir(self.path(ino)?)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            entries.push((INodeNo(meta.ino()), kind_of(&meta), entry.file_name()));
        }
        entries[2..].sort_by(|a, b| a.2.cmp(&b.2));
        Ok(entries)
    }
}

fn kind_of(meta: &Metadata) -> FileType {
    if meta.is_dir() { FileType::Directory } else { FileType::RegularFile }
}

fn time_of(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

fn attr_of(ino: INodeNo, meta: &Metadata) -> FileAttr {
    FileAttr {
        ino,
        size: meta.len(),
        blocks: meta.blocks(),
        atime: time_of(meta.atime()),
        mtime: time_of(meta.mtime()),
        ctime: time_of(meta.ctime()),
        crtime: UNIX_EPOCH,
        kind: kind_of(meta),
        perm: if meta.is_dir() { 0o700 } else { 0o600 },
        nlink: u32::try_from(meta.nlink()).unwrap_or(1),
        uid: meta.uid(),
        gid: meta.gid(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}
