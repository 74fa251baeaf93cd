//! What a program calls. Names are bytes; errors are those of POSIX.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dfs_proto::ids::{Handle, Ino};
use dfs_proto::meta::{
    Access, Attr, DirEntry, FileKind, FsStats, RenameMode, Removed, Renamed, SetTime, SetxattrMode,
};

use crate::config::{Caller, Config, Upcalls};
use crate::error::{Error, Result};
use crate::net::Net;

/// A session with a cluster. Clones are the same session. Must be made and used within a tokio runtime;
/// the `try_` methods and [`Client::release`] may be called from any thread.
#[derive(Debug)]
pub struct Client<N: Net> {
    net: N,
}

/// An open file. Clones are the same open file.
#[derive(Clone, Debug)]
pub struct FileHandle {
    inner: Arc<(Ino, Handle, Access, bool, bool)>,
}

impl FileHandle {
    #[must_use]
    pub fn ino(&self) -> Ino {
        self.inner.0
    }

    /// Unique in the session.
    #[must_use]
    pub fn id(&self) -> Handle {
        self.inner.1
    }

    #[must_use]
    pub fn access(&self) -> Access {
        self.inner.2
    }

    /// It was opened under a grant: the kernel may cache pages. Without: direct I/O.
    #[must_use]
    pub fn cached(&self) -> bool {
        self.inner.3
    }

    /// Pages that the kernel has from before are still true: the grant was held since.
    #[must_use]
    pub fn keep_cache(&self) -> bool {
        self.inner.4
    }
}

/// What to change of an inode; `None` stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SetAttrs {
    pub mode: Option<u16>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<SetTime>,
    pub mtime: Option<SetTime>,
}

/// What a kernel may remember of an inode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CacheState {
    /// A grant is held: pages and size are true for this long, unless [`Upcalls::invalidate`] comes first.
    Granted(Duration),
    /// It is open, without a grant: nothing may be remembered.
    Shared,
    /// It is not open here and no grant is held: attributes as usual, no pages.
    Unopened,
}

/// An open directory: a listing under way, with what was fetched ahead.
#[derive(Clone, Debug)]
pub struct DirHandle {
    inner: Arc<Ino>,
}

impl DirHandle {
    #[must_use]
    pub fn ino(&self) -> Ino {
        *self.inner
    }
}

/// Some entries of a directory, in order. `.` and `..` are not among them.
#[derive(Clone, Debug)]
pub struct DirPage {
    /// For `..`.
    pub parent: Ino,
    /// Not empty unless `end`.
    pub entries: Vec<DirEntry>,
    /// Nothing follows these.
    pub end: bool,
}

/// Why there is no client.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConnectError {
    /// No master answered in time; the last failure.
    #[error("no master could be reached: {0}")]
    NoMaster(crate::net::NetError),
}

impl<N: Net> Clone for Client<N> {
    fn clone(&self) -> Self {
        Client { net: self.net.clone() }
    }
}

#[allow(unused_variables)]
impl<N: Net> Client<N> {
    /// Opens a session. Fails when no master answers within the time configured.
    pub async fn connect(
        config: Config,
        net: N,
        upcalls: Arc<dyn Upcalls>,
    ) -> std::result::Result<Client<N>, ConnectError> {
        Ok(Client { net })
    }

    /// Writes everything back, closes the session and stops, within `deadline`. What could not be written
    /// by then is lost, and that is the error.
    pub async fn shutdown(&self, deadline: Duration) -> Result<()> {
        Err(Error::NotSupported)
    }

    // ---- names

    pub async fn lookup(&self, parent: Ino, name: &[u8], caller: Caller) -> Result<Attr> {
        Err(Error::NotSupported)
    }

    pub async fn mkdir(&self, parent: Ino, name: &[u8], mode: u16, caller: Caller) -> Result<Attr> {
        Err(Error::NotSupported)
    }

    /// Makes a node of any kind but directory and symlink.
    pub async fn mknod(
        &self,
        parent: Ino,
        name: &[u8],
        kind: FileKind,
        mode: u16,
        rdev: u32,
        caller: Caller,
    ) -> Result<Attr> {
        Err(Error::NotSupported)
    }

    pub async fn symlink(&self, parent: Ino, name: &[u8], target: &[u8], caller: Caller) -> Result<Attr> {
        Err(Error::NotSupported)
    }

    pub async fn readlink(&self, ino: Ino) -> Result<Vec<u8>> {
        Err(Error::NotSupported)
    }

    pub async fn link(&self, ino: Ino, parent: Ino, name: &[u8], caller: Caller) -> Result<Attr> {
        Err(Error::NotSupported)
    }

    pub async fn unlink(&self, parent: Ino, name: &[u8], caller: Caller) -> Result<Removed> {
        Err(Error::NotSupported)
    }

    pub async fn rmdir(&self, parent: Ino, name: &[u8], caller: Caller) -> Result<Removed> {
        Err(Error::NotSupported)
    }

    pub async fn rename(
        &self,
        from: (Ino, &[u8]),
        to: (Ino, &[u8]),
        mode: RenameMode,
        caller: Caller,
    ) -> Result<Renamed> {
        Err(Error::NotSupported)
    }

    /// Starts a listing; no round trip.
    #[must_use]
    pub fn opendir(&self, ino: Ino) -> DirHandle {
        DirHandle { inner: Arc::new(ino) }
    }

    /// Entries from behind `cookie` (0: from the start); the next page's cookie is the last entry's.
    /// `plus`: with attributes.
    pub async fn readdir(&self, dir: &DirHandle, cookie: u64, plus: bool) -> Result<DirPage> {
        Err(Error::NotSupported)
    }

    /// [`Client::readdir`] when the entries were fetched already.
    #[must_use]
    pub fn try_readdir(&self, dir: &DirHandle, cookie: u64, plus: bool) -> Option<DirPage> {
        None
    }

    /// Makes what was done to the directory's names durable.
    pub async fn fsyncdir(&self, dir: &DirHandle) -> Result<()> {
        Err(Error::NotSupported)
    }

    // ---- attributes

    pub async fn getattr(&self, ino: Ino) -> Result<Attr> {
        Err(Error::NotSupported)
    }

    /// The attributes when they are at hand and true enough: under a grant, at most a second old.
    #[must_use]
    pub fn try_getattr(&self, ino: Ino) -> Option<Attr> {
        None
    }

    /// `handle`: the change comes through this descriptor.
    pub async fn setattr(
        &self,
        ino: Ino,
        handle: Option<&FileHandle>,
        set: SetAttrs,
        caller: Caller,
    ) -> Result<Attr> {
        Err(Error::NotSupported)
    }

    pub async fn getxattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>> {
        Err(Error::NotSupported)
    }

    /// [`Error::NoData`] when it is known that the inode has no extended attribute at all.
    #[must_use]
    pub fn try_getxattr(&self, ino: Ino, name: &[u8]) -> Option<Result<Vec<u8>>> {
        None
    }

    pub async fn setxattr(
        &self,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        mode: SetxattrMode,
        caller: Caller,
    ) -> Result<()> {
        Err(Error::NotSupported)
    }

    pub async fn listxattr(&self, ino: Ino) -> Result<Vec<Vec<u8>>> {
        Err(Error::NotSupported)
    }

    pub async fn removexattr(&self, ino: Ino, name: &[u8], caller: Caller) -> Result<()> {
        Err(Error::NotSupported)
    }

    pub async fn statfs(&self) -> Result<FsStats> {
        Err(Error::NotSupported)
    }

    /// What the kernel may remember of the inode now.
    #[must_use]
    pub fn cache_state(&self, ino: Ino) -> CacheState {
        CacheState::Unopened
    }

    // ---- open files

    /// O_CREAT: opens the file of that name, and makes it when there is none. `mode` has the umask applied.
    #[allow(clippy::too_many_arguments)]
    pub async fn create(
        &self,
        parent: Ino,
        name: &[u8],
        mode: u16,
        access: Access,
        exclusive: bool,
        truncate: bool,
        caller: Caller,
    ) -> Result<(Attr, FileHandle)> {
        Err(Error::NotSupported)
    }

    pub async fn open(&self, ino: Ino, access: Access, truncate: bool, caller: Caller) -> Result<FileHandle> {
        Err(Error::NotSupported)
    }

    /// At most `len` bytes from `offset`; fewer only at the end of the file.
    pub async fn read(&self, handle: &FileHandle, offset: u64, len: u32) -> Result<Bytes> {
        Err(Error::NotSupported)
    }

    /// [`Client::read`] when all bytes are at hand.
    #[must_use]
    pub fn try_read(&self, handle: &FileHandle, offset: u64, len: u32) -> Option<Result<Bytes>> {
        None
    }

    /// Writes all of `data`, at the end of the file if `append`. Buffered under a write grant, else on
    /// all replicas and with its size committed when this returns.
    pub async fn write(&self, handle: &FileHandle, offset: u64, data: Bytes, append: bool) -> Result<usize> {
        Err(Error::NotSupported)
    }

    /// [`Client::write`] when it only takes a copy into the buffer. `None`: call [`Client::write`].
    #[must_use]
    pub fn try_write(&self, handle: &FileHandle, offset: u64, data: &[u8], append: bool) -> Option<Result<usize>> {
        None
    }

    /// close(2): everything buffered is on all replicas, size and mtime are committed; reports what went
    /// wrong with earlier writes, once per handle.
    pub async fn flush(&self, handle: &FileHandle) -> Result<()> {
        Err(Error::NotSupported)
    }

    /// [`Client::flush`] when there is nothing to do.
    #[must_use]
    pub fn try_flush(&self, handle: &FileHandle) -> Option<Result<()>> {
        None
    }

    /// [`Client::flush`], and then all of it on the disks of all replicas and of the masters.
    pub async fn fsync(&self, handle: &FileHandle, datasync: bool) -> Result<()> {
        Err(Error::NotSupported)
    }

    /// The last user of the handle is gone. Does not wait.
    pub fn release(&self, handle: FileHandle) {}
}
