//! The namespace: inodes, names, extended attributes and which chunks a file has.
//!
//! A deterministic state machine without I/O: reads are here and in `read`, every change is a command in
//! [`super::ops`]. All tables are copy-on-write, so a clone costs microseconds and stays as it was: that is
//! how a snapshot is taken while changes go on. Which handles are open is not its business: an inode that
//! lost its last name stays as an orphan until `FreeInodes` names it.

mod access;
mod chunks;
mod directory;
mod goals;
mod inode;
mod inodes;
mod read;
mod snapshot;
mod time;
mod varint;
mod xattr;

use std::collections::BTreeMap;
use std::sync::Arc;

use dfs_proto::ids::{ChunkId, Ino};
use dfs_proto::meta::FileKind;
use dfs_proto::status::Status;
use dfs_proto::units::{ChunkSize, Timespec};

pub use access::{Caller, READ, SEARCH, WRITE};
pub use snapshot::{LoadError, NamespaceReader};

pub(crate) use directory::{Directory, NameEntry};
pub(crate) use goals::has_goal;
pub(crate) use inode::{Inode, MODE_MASK, Payload, S_ISGID, S_ISUID, S_ISVTX, S_IXGRP};
pub(crate) use read::check_name;
pub(crate) use time::{advance, check_time};
pub(crate) use xattr::{Space, Xattrs, fits};

use super::ops::Intent;
use super::table::CowTable;
use goals::Goals;
use inodes::InodeTable;

/// Inode numbers end here: a directory entry stores the kind below the number in one word.
pub(crate) const INO_END: u64 = 1 << 60;

/// The whole namespace at one index of the log.
#[derive(Clone, Debug)]
pub struct Namespace {
    pub(crate) chunk_size: ChunkSize,
    /// The number of the next inode; never goes back.
    pub(crate) next_ino: u64,
    pub(crate) inodes: InodeTable,
    /// Entries of each directory that has any.
    pub(crate) directories: CowTable<Directory>,
    /// Chunks, by index, of files that have another than one at index 0.
    pub(crate) chunk_lists: CowTable<CowTable<ChunkId>>,
    pub(crate) symlinks: CowTable<Arc<[u8]>>,
    pub(crate) xattrs: CowTable<Xattrs>,
    /// Of files and directories that have one of their own.
    pub(crate) goals: Goals,
    /// Inodes without a name.
    pub(crate) orphans: CowTable<()>,
    /// Truncations that wait for their boundary chunk: a few at a time.
    pub(crate) intents: BTreeMap<Ino, Intent>,
    pub(crate) directory_count: u64,
}

/// Of the root directory, when a namespace is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RootSpec {
    pub uid: u32,
    pub gid: u32,
    pub mode: u16,
    pub now: Timespec,
}

/// How many there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counts {
    /// Of every kind, orphans too.
    pub inodes: u64,
    pub directories: u64,
    pub orphans: u64,
}

impl Namespace {
    /// A namespace with nothing but its root.
    #[must_use]
    pub fn new(chunk_size: ChunkSize, root: RootSpec) -> Namespace {
        let mut namespace = Namespace::empty(chunk_size);
        let inode = Inode {
            mode: root.mode & MODE_MASK,
            nlink: 2,
            uid: root.uid,
            gid: root.gid,
            parent: Ino::ROOT,
            ..Inode::new(FileKind::Dir).born(root.now)
        };
        namespace.next_ino = Ino::ROOT.0 + 1;
        namespace.directory_count = 1;
        namespace.inodes.set(Ino::ROOT, &inode);
        namespace
    }

    /// Not even a root: what a snapshot is loaded into.
    fn empty(chunk_size: ChunkSize) -> Namespace {
        Namespace {
            chunk_size,
            next_ino: 0,
            inodes: InodeTable::default(),
            directories: CowTable::new(),
            chunk_lists: CowTable::new(),
            symlinks: CowTable::new(),
            xattrs: CowTable::new(),
            goals: Goals::default(),
            orphans: CowTable::new(),
            intents: BTreeMap::new(),
            directory_count: 0,
        }
    }

    #[must_use]
    pub fn chunk_size(&self) -> ChunkSize {
        self.chunk_size
    }

    /// The number that the next inode made will get.
    #[must_use]
    pub fn next_ino(&self) -> Ino {
        Ino(self.next_ino)
    }

    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts { inodes: self.inodes.len(), directories: self.directory_count, orphans: self.orphans.len() }
    }

    /// Inodes that lost their last name, by number.
    pub fn orphans(&self) -> impl Iterator<Item = Ino> {
        self.orphans.iter().map(|(ino, ())| Ino(ino))
    }

    #[must_use]
    pub fn is_orphan(&self, ino: Ino) -> bool {
        self.orphans.contains(ino.0)
    }

    /// Truncations whose boundary chunk has still to be zeroed: a new leader takes them up again.
    pub fn intents(&self) -> impl Iterator<Item = (Ino, &Intent)> {
        self.intents.iter().map(|(ino, intent)| (*ino, intent))
    }

    /// The truncation of this inode that is under way.
    #[must_use]
    pub fn intent(&self, ino: Ino) -> Option<&Intent> {
        self.intents.get(&ino)
    }

    pub(crate) fn inode(&self, ino: Ino) -> Result<Inode, Status> {
        self.inodes.get(ino).ok_or(Status::Stale)
    }

    /// Changes an inode that is there.
    pub(crate) fn update(&mut self, ino: Ino, change: impl FnOnce(&mut Inode)) {
        if let Some(mut inode) = self.inodes.get(ino) {
            change(&mut inode);
            self.inodes.set(ino, &inode);
        }
    }

    /// The entries of a directory for changing.
    pub(crate) fn entries_mut(&mut self, dir: Ino, change: impl FnOnce(&mut Directory)) {
        if !self.directories.contains(dir.0) {
            self.directories.insert(dir.0, Directory::default());
        }
        let Some(entries) = self.directories.get_mut(dir.0) else { return };
        change(entries);
        if entries.is_empty() {
            self.directories.remove(dir.0);
        }
    }

    /// A directory's inode.
    pub(crate) fn dir(&self, ino: Ino) -> Result<Inode, Status> {
        let inode = self.inode(ino)?;
        if inode.kind == FileKind::Dir { Ok(inode) } else { Err(Status::NotDir) }
    }
}
