//! Reads of the namespace: lookups, attributes, listings, paths. Nothing here changes anything.

use dfs_proto::ids::{ChunkId, Ino};
use dfs_proto::meta::{
    Attr, DirEntry, FileKind, LinkTarget, Listing, Name, READDIR_MAX, XattrNames, XattrValue,
};
use dfs_proto::status::Status;
use dfs_proto::units::{ChunkIndex, NAME_MAX};

use super::xattr::Space;
use super::{Caller, Directory, Inode, Namespace, SEARCH};

/// What a directory shows as its size, as ext4 does for a small one: its entries are not in any block.
const DIR_SIZE: u64 = 4096;
/// Unit of [`Attr::blocks`].
const STAT_BLOCK: u64 = 512;

/// Whether a name can be an entry's.
pub(crate) fn check_name(name: &[u8]) -> Result<(), Status> {
    if name.len() > NAME_MAX {
        return Err(Status::NameTooLong);
    }
    let special = matches!(name, b"" | b"." | b"..");
    if special || name.iter().any(|byte| matches!(byte, 0 | b'/')) {
        return Err(Status::Invalid);
    }
    Ok(())
}

impl Namespace {
    /// What a name stands for.
    ///
    /// # Errors
    /// `NotFound`, `NotDir`, `Access`, `NeedGroups`, `Stale`; `NameTooLong` and `Invalid` for what is no name.
    pub fn lookup(&self, parent: Ino, name: &[u8], by: &Caller) -> Result<Attr, Status> {
        check_name(name)?;
        by.may(&self.dir(parent)?, SEARCH)?;
        let (ino, _) = self.child(parent, name).ok_or(Status::NotFound)?;
        self.getattr(ino)
    }

    /// What a name stands for, whoever asks.
    #[must_use]
    pub fn child(&self, parent: Ino, name: &[u8]) -> Option<(Ino, FileKind)> {
        self.directories.get(parent.0)?.find(name).map(|entry| (entry.ino, entry.kind))
    }

    /// An inode's attributes.
    ///
    /// # Errors
    /// `Stale` when there is no such inode.
    pub fn getattr(&self, ino: Ino) -> Result<Attr, Status> {
        Ok(self.attr(ino, &self.inode(ino)?))
    }

    pub(crate) fn attr(&self, ino: Ino, inode: &Inode) -> Attr {
        let (size, blocks) = match inode.kind {
            FileKind::Dir => (DIR_SIZE, DIR_SIZE / STAT_BLOCK),
            FileKind::File => {
                // A truncation under way is seen from its intent on, which has raised the size epoch: an old size under
                // the new epoch would show what is being written behind the cut.
                let size = self.intents.get(&ino).map_or(inode.size, |intent| intent.size);
                (size, self.allocated_bytes(ino, inode) / STAT_BLOCK)
            }
            FileKind::Symlink
            | FileKind::Fifo
            | FileKind::Socket
            | FileKind::BlockDev
            | FileKind::CharDev => (inode.size, 0),
        };
        Attr {
            ino,
            kind: inode.kind,
            mode: inode.mode,
            nlink: inode.nlink,
            uid: inode.uid,
            gid: inode.gid,
            rdev: inode.rdev(),
            size,
            blocks,
            atime: inode.atime,
            mtime: inode.mtime,
            ctime: inode.ctime,
            btime: inode.btime,
            size_epoch: inode.size_epoch,
            xattrs: inode.xattrs,
        }
    }

    /// Whether the caller may use the inode so: any of [`super::READ`], [`super::WRITE`], [`SEARCH`].
    ///
    /// # Errors
    /// `Access`, `NeedGroups`, `Stale`.
    pub fn access(&self, ino: Ino, rights: u16, by: &Caller) -> Result<(), Status> {
        by.may(&self.inode(ino)?, rights)
    }

    /// A symlink's target.
    ///
    /// # Errors
    /// `Invalid` for what is no symlink, `Stale`.
    pub fn readlink(&self, ino: Ino) -> Result<LinkTarget, Status> {
        self.inode(ino)?;
        let target = self.symlinks.get(ino.0).ok_or(Status::Invalid)?;
        Ok(LinkTarget { target: Name::from(target.to_vec()) })
    }

    /// The entries behind a cookie; see [`dfs_proto::meta::Readdir`].
    ///
    /// # Errors
    /// `NotDir`, `Stale`.
    pub fn readdir(&self, dir: Ino, cookie: u64, max: u32, plus: bool) -> Result<Listing, Status> {
        let inode = self.dir(dir)?;
        // An orphan's parent may be gone before it.
        let parent = if self.inodes.contains(inode.parent) { inode.parent } else { Ino::ROOT };
        let mut listing = Listing { parent, entries: Vec::new(), end: true };
        let Some((directory, from)) = self.directories.get(dir.0).zip(cookie.checked_add(1)) else {
            return Ok(listing);
        };
        let max = max.clamp(1, READDIR_MAX) as usize;
        for entry in directory.from(from) {
            if listing.entries.len() == max {
                listing.end = false;
                break;
            }
            listing.entries.push(DirEntry {
                name: Name::from(entry.name.to_vec()),
                ino: entry.ino,
                kind: entry.kind,
                cookie: entry.cookie,
                attr: if plus { Some(self.getattr(entry.ino)?) } else { None },
            });
        }
        Ok(listing)
    }

    /// How many entries a directory has.
    ///
    /// # Errors
    /// `NotDir`, `Stale`.
    pub fn entry_count(&self, dir: Ino) -> Result<u64, Status> {
        self.dir(dir)?;
        Ok(self.directories.get(dir.0).map_or(0, Directory::len))
    }

    /// An extended attribute's value. Who may see it is for the caller to know.
    ///
    /// # Errors
    /// `NoData`; `NotSupported`, `Range`, `Invalid` for what is no attribute's name; `Stale`.
    pub fn getxattr(&self, ino: Ino, name: &[u8]) -> Result<XattrValue, Status> {
        let inode = self.inode(ino)?;
        Space::of(name)?;
        if !inode.xattrs {
            return Err(Status::NoData);
        }
        let value = self.xattrs.get(ino.0).and_then(|all| all.get(name)).ok_or(Status::NoData)?;
        Ok(XattrValue { value: Name::from(value.to_vec()) })
    }

    /// The names of all extended attributes, sorted.
    ///
    /// # Errors
    /// `Stale`.
    pub fn listxattr(&self, ino: Ino) -> Result<XattrNames, Status> {
        self.inode(ino)?;
        let names = self.xattrs.get(ino.0).map(|all| all.keys().map(|name| Name::from(name.to_vec())));
        Ok(XattrNames { names: names.into_iter().flatten().collect() })
    }

    /// The path from the root, beginning with `/`; `None` for an inode without a name, or whose latest
    /// link was removed while others stay. It searches each directory on the way: for tools.
    #[must_use]
    pub fn path_of(&self, ino: Ino) -> Option<Vec<u8>> {
        let mut parts: Vec<&[u8]> = Vec::new();
        let mut at = ino;
        while at != Ino::ROOT {
            // Deeper than there are directories would be a ring, which no command makes.
            if parts.len() as u64 > self.directory_count {
                return None;
            }
            let parent = self.inode(at).ok()?.parent;
            parts.push(self.directories.get(parent.0)?.from(0).find(|entry| entry.ino == at)?.name);
            at = parent;
        }
        if parts.is_empty() {
            return Some(b"/".to_vec());
        }
        Some(parts.iter().rev().flat_map(|part| [b"/", *part].concat()).collect())
    }

    /// The chunk at one index; `None` for a hole.
    ///
    /// # Errors
    /// `Stale`, `IsDir`, `Invalid` for what is no file.
    pub fn chunk_at(&self, ino: Ino, index: ChunkIndex) -> Result<Option<ChunkId>, Status> {
        let inode = self.file(ino)?;
        Ok(self.chunks_from(ino, &inode, index).next().filter(|found| found.0 == index).map(|found| found.1))
    }

    /// The chunks at `count` indices from `first` on, holes left out.
    ///
    /// # Errors
    /// `Stale`, `IsDir`, `Invalid` for what is no file.
    pub fn chunks(
        &self,
        ino: Ino,
        first: ChunkIndex,
        count: u64,
    ) -> Result<Vec<(ChunkIndex, ChunkId)>, Status> {
        let inode = self.file(ino)?;
        let in_range = |(index, _): &(ChunkIndex, ChunkId)| index.0 - first.0 < count;
        Ok(self.chunks_from(ino, &inode, first).take_while(in_range).collect())
    }

    /// At most `most` of the chunks that the file has from `first` on.
    ///
    /// # Errors
    /// `Stale`, `IsDir`, `Invalid` for what is no file.
    pub fn chunks_after(
        &self,
        ino: Ino,
        first: ChunkIndex,
        most: usize,
    ) -> Result<Vec<(ChunkIndex, ChunkId)>, Status> {
        let inode = self.file(ino)?;
        Ok(self.chunks_from(ino, &inode, first).take(most).collect())
    }

    /// How many chunks the file has.
    ///
    /// # Errors
    /// `Stale`, `IsDir`, `Invalid` for what is no file.
    pub fn chunk_count(&self, ino: Ino) -> Result<u64, Status> {
        let inode = self.file(ino)?;
        Ok(self.allocated_chunks(ino, &inode))
    }
}
