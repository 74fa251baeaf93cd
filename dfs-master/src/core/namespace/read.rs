//! Reads.

use dfs_proto::ids::{ChunkId, Ino};
use dfs_proto::meta::{Attr, FileKind, LinkTarget, Listing, XattrNames, XattrValue};
use dfs_proto::status::Status;
use dfs_proto::units::ChunkIndex;

use super::{Caller, Namespace};

pub(crate) fn check_name(_: &[u8]) -> Result<(), Status> {
    Ok(())
}

impl Namespace {
    /// # Errors
    /// `NotFound`, `NotDir`, `Access`, `NeedGroups`, `Stale`.
    pub fn lookup(&self, parent: Ino, name: &[u8], by: &Caller) -> Result<Attr, Status> {
        let _ = (parent, name, by);
        Err(Status::NotSupported)
    }

    /// What a name stands for, whoever asks.
    #[must_use]
    pub fn child(&self, parent: Ino, name: &[u8]) -> Option<(Ino, FileKind)> {
        let _ = (parent, name);
        None
    }

    /// # Errors
    /// `Stale` when there is no such inode.
    pub fn getattr(&self, ino: Ino) -> Result<Attr, Status> {
        let _ = ino;
        Err(Status::NotSupported)
    }

    /// Whether the caller may use the inode so (`READ | WRITE | SEARCH`).
    ///
    /// # Errors
    /// `Access`, `NeedGroups`, `Stale`.
    pub fn access(&self, ino: Ino, rights: u16, by: &Caller) -> Result<(), Status> {
        let _ = (ino, rights, by);
        Err(Status::NotSupported)
    }

    /// # Errors
    /// `Invalid` for what is no symlink, `Stale`.
    pub fn readlink(&self, ino: Ino) -> Result<LinkTarget, Status> {
        let _ = ino;
        Err(Status::NotSupported)
    }

    /// # Errors
    /// `NotDir`, `Stale`.
    pub fn readdir(&self, dir: Ino, cookie: u64, max: u32, plus: bool) -> Result<Listing, Status> {
        let _ = (dir, cookie, max, plus);
        Err(Status::NotSupported)
    }

    /// # Errors
    /// `NoData`, `NotSupported`, `Stale`.
    pub fn getxattr(&self, ino: Ino, name: &[u8]) -> Result<XattrValue, Status> {
        let _ = (ino, name);
        Err(Status::NotSupported)
    }

    /// # Errors
    /// `Stale`.
    pub fn listxattr(&self, ino: Ino) -> Result<XattrNames, Status> {
        let _ = ino;
        Err(Status::NotSupported)
    }

    /// The path from the root, beginning with `/`; `None` for an inode without a name that is known.
    #[must_use]
    pub fn path_of(&self, ino: Ino) -> Option<Vec<u8>> {
        let _ = ino;
        None
    }

    /// The chunk at one index; `None` for a hole.
    ///
    /// # Errors
    /// `Stale`, `IsDir`, `Invalid` for what is no file.
    pub fn chunk_at(&self, ino: Ino, index: ChunkIndex) -> Result<Option<ChunkId>, Status> {
        let _ = (ino, index);
        Err(Status::NotSupported)
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
        let _ = (ino, first, count);
        Err(Status::NotSupported)
    }

    /// How many chunks the file has.
    ///
    /// # Errors
    /// `Stale`, `IsDir`, `Invalid` for what is no file.
    pub fn chunk_count(&self, ino: Ino) -> Result<u64, Status> {
        let _ = ino;
        Err(Status::NotSupported)
    }
}
