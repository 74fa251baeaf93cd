//! The skin between the kernel and the library: each request of fuser's becomes a call of
//! [`dfs_client::Client`], each outcome a reply. All of fuser's types stay in this module tree, since its next
//! version renames half of them.
//!
//! Two threads of fuser's read requests. What is at hand is answered right there; everything else becomes a
//! task ([`tasks`]), so that no request waits behind another. Nothing is decided here about data,
//! grants or retries; what is decided here is what the kernel may remember, and for how long.
//!
//! Not served, so that the kernel falls back or refuses: locks (they hold within one mount, where the kernel
//! keeps them), copy_file_range, SEEK_DATA and SEEK_HOLE, ioctl, poll, bmap. fuser's default
//! answers for these are ENOSYS, which the kernel remembers, asking once for each.

mod attr;
mod dirs;
mod entries;
mod files;
mod init;
mod listing;
mod privileges;
mod recall;
mod space;
mod tasks;
mod time;
mod xattrs;

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use dfs_client::net::tcp::TcpNet;
use dfs_client::{Caller, Client, FileHandle as OpenFile};
use dfs_proto::ids::Ino;
use dfs_proto::meta::Attr;
use fuser::{
    BsdFileFlags, Errno, FileHandle, Filesystem, Generation, INodeNo, KernelConfig, LockOwner, OpenFlags,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use tokio::runtime::Handle;

use crate::config::Options;
use crate::handles::Handles;
use crate::inodes::Inodes;
use crate::notify::Notify;
use crate::stats::{Kind, Stats};

pub(crate) use recall::Recalls;
pub(crate) use xattrs::PROBE;

use attr::Numbers;
use listing::OpenDir;
use tasks::{Tasks, guarded};

/// Inode numbers are never used again, so one generation is enough to tell all apart.
const GENERATION: Generation = Generation(0);

/// What the requests work with. Shared by the threads and the tasks.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) client: Client<TcpNet>,
    pub(crate) inodes: Arc<Inodes>,
    pub(crate) notify: Notify,
    numbers: Numbers,
    tasks: Tasks,
    files: Handles<OpenFile>,
    dirs: Handles<Arc<OpenDir>>,
    max_background: u16,
    pub(crate) stats: Arc<Stats>,
}

/// A mounted file system that answers.
#[derive(Debug)]
pub(crate) struct Session {
    fuser: fuser::Session<Adapter>,
}

impl Shared {
    /// `root`: the directory that is the root of the mount.
    pub(crate) fn new(
        client: Client<TcpNet>,
        recalls: &Recalls,
        root: Ino,
        runtime: Handle,
        options: &Options,
    ) -> Arc<Shared> {
        let stats = Arc::new(Stats::default());
        Arc::new(Shared {
            client,
            inodes: Arc::clone(&recalls.inodes),
            notify: recalls.notify.clone(),
            numbers: Numbers { root },
            tasks: Tasks::new(runtime, options.patience, Arc::clone(&stats)),
            files: Handles::new(),
            dirs: Handles::new(),
            max_background: options.max_background,
            stats,
        })
    }
}

impl Session {
    /// Shakes hands with the kernel over the device of a fresh mount.
    pub(crate) fn start(device: OwnedFd, shared: Arc<Shared>) -> io::Result<Session> {
        let clone_fd = init::can_clone(&device);
        let mut config = fuser::Config::default();
        config.n_threads = Some(init::THREADS);
        config.clone_fd = clone_fd;
        // The kernel checks who may use the mount; fuser would check again, and wrongly refuse the close of a
        // descriptor that a program of another user inherited.
        let acl = fuser::SessionACL::All;
        let fuser = fuser::Session::from_fd(Adapter { shared }, device, acl, config)?;
        Ok(Session { fuser })
    }

    /// The kernel's caches.
    pub(crate) fn kernel_cache(&self, shared: &Shared) -> recall::Kernel {
        recall::Kernel { notifier: self.fuser.notifier(), numbers: shared.numbers }
    }

    /// Answers requests until the mount is gone.
    pub(crate) fn run(self) -> io::Result<()> {
        self.fuser.run()
    }
}

/// The receiver of fuser's calls.
#[derive(Debug)]
pub(crate) struct Adapter {
    shared: Arc<Shared>,
}

fn caller(req: &Request) -> Caller {
    Caller { uid: req.uid(), gid: req.gid(), pid: req.pid() }
}

impl Adapter {
    /// Runs a handler, and counts how long its request took if it is answered when that returns.
    fn guarded(&self, kind: Kind, handler: impl FnOnce()) {
        self.shared.stats.begin(kind);
        guarded(handler);
        self.shared.stats.leave();
    }

    fn inode(&self, number: INodeNo) -> Ino {
        self.shared.numbers.inode(number)
    }
}

impl Shared {
    /// Open files and directories.
    pub(crate) fn open_handles(&self) -> (usize, usize) {
        (self.files.len(), self.dirs.len())
    }

    /// Attributes for a reply; notes that the kernel is told.
    fn shown(&self, attr: &Attr) -> fuser::FileAttr {
        attr::file_attr(attr, self.numbers.number(attr.ino))
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        init::negotiate(config, self.shared.max_background);
        Ok(())
    }

    fn lookup(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.guarded(Kind::Lookup, || {
            entries::lookup(&self.shared, caller(req), self.inode(parent), name, reply)
        });
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        self.guarded(Kind::Forget, || self.shared.inodes.forget(self.inode(ino), nlookup));
    }

    fn getattr(&self, req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        self.guarded(Kind::Getattr, || entries::getattr(&self.shared, caller(req), self.inode(ino), reply));
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        self.guarded(Kind::Setattr, || {
            let set = entries::wish(mode, uid, gid, size, atime, mtime);
            entries::setattr(&self.shared, caller(req), self.inode(ino), fh, set, reply);
        });
    }

    fn readlink(&self, req: &Request, ino: INodeNo, reply: ReplyData) {
        self.guarded(Kind::Readlink, || entries::readlink(&self.shared, caller(req), self.inode(ino), reply));
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        self.guarded(Kind::Mknod, || {
            entries::mknod(&self.shared, caller(req), self.inode(parent), name, (mode, rdev), reply)
        });
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, reply: ReplyEntry) {
        self.guarded(Kind::Mkdir, || {
            entries::mkdir(&self.shared, caller(req), self.inode(parent), name, mode, reply)
        });
    }

    fn unlink(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.guarded(Kind::Unlink, || {
            entries::unlink(&self.shared, caller(req), self.inode(parent), name, reply)
        });
    }

    fn rmdir(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.guarded(Kind::Rmdir, || {
            entries::rmdir(&self.shared, caller(req), self.inode(parent), name, reply)
        });
    }

    fn symlink(&self, req: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        self.guarded(Kind::Symlink, || {
            entries::symlink(&self.shared, caller(req), self.inode(parent), name, target, reply)
        });
    }

    fn rename(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (from, to) = ((self.inode(parent), name), (self.inode(newparent), newname));
        self.guarded(Kind::Rename, || entries::rename(&self.shared, caller(req), from, to, flags, reply));
    }

    fn link(&self, req: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        let to = (self.inode(newparent), newname);
        self.guarded(Kind::Link, || entries::link(&self.shared, caller(req), self.inode(ino), to, reply));
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        self.guarded(Kind::Open, || files::open(&self.shared, caller(req), self.inode(ino), flags.0, reply));
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        self.guarded(Kind::Create, || {
            files::create(&self.shared, caller(req), self.inode(parent), name, (mode, flags), reply)
        });
    }

    fn read(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.guarded(Kind::Read, || files::read(&self.shared, req.pid(), fh, offset, size, reply));
    }

    fn write(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        // Bytes that the kernel writes back from mapped pages have their place, whatever the descriptor.
        let mapped = write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        let append = flags.0 & libc::O_APPEND != 0 && !mapped;
        let drops_privileges = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        let how = files::Write { offset, append, drops_privileges, mapped };
        self.guarded(Kind::Write, || files::write(&self.shared, caller(req), fh, how, data, reply));
    }

    fn flush(&self, req: &Request, _ino: INodeNo, fh: FileHandle, _lock_owner: LockOwner, reply: ReplyEmpty) {
        self.guarded(Kind::Flush, || files::flush(&self.shared, req.pid(), fh, reply));
    }

    fn release(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.guarded(Kind::Release, || files::release(&self.shared, fh, reply));
    }

    fn fsync(&self, req: &Request, _ino: INodeNo, fh: FileHandle, datasync: bool, reply: ReplyEmpty) {
        self.guarded(Kind::Fsync, || files::fsync(&self.shared, req.pid(), fh, datasync, reply));
    }

    fn fallocate(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        self.guarded(Kind::Fallocate, || {
            space::fallocate(&self.shared, caller(req), fh, (offset, length), mode, reply)
        });
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        self.guarded(Kind::Opendir, || dirs::opendir(&self.shared, self.inode(ino), reply));
    }

    fn readdir(&self, req: &Request, _ino: INodeNo, fh: FileHandle, offset: u64, reply: ReplyDirectory) {
        self.guarded(Kind::Readdir, || dirs::readdir(&self.shared, req.pid(), fh, offset, reply));
    }

    fn readdirplus(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        self.guarded(Kind::Readdir, || dirs::readdir(&self.shared, req.pid(), fh, offset, reply));
    }

    fn releasedir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.guarded(Kind::Releasedir, || {
            self.shared.dirs.remove(fh.0);
            reply.ok();
        });
    }

    fn fsyncdir(&self, req: &Request, _ino: INodeNo, fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.guarded(Kind::Fsyncdir, || dirs::fsyncdir(&self.shared, req.pid(), fh, reply));
    }

    fn statfs(&self, req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        self.guarded(Kind::Statfs, || entries::statfs(&self.shared, req.pid(), reply));
    }

    fn setxattr(
        &self,
        req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        self.guarded(Kind::Setxattr, || {
            xattrs::set(&self.shared, caller(req), self.inode(ino), name, (value, flags), reply)
        });
    }

    fn getxattr(&self, req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        self.guarded(Kind::Getxattr, || {
            xattrs::get(&self.shared, req.pid(), self.inode(ino), name, size, reply)
        });
    }

    fn listxattr(&self, req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        self.guarded(Kind::Listxattr, || xattrs::list(&self.shared, req.pid(), self.inode(ino), size, reply));
    }

    fn removexattr(&self, req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.guarded(Kind::Removexattr, || {
            xattrs::remove(&self.shared, caller(req), self.inode(ino), name, reply)
        });
    }
}

/// For a reply that carries no result.
fn empty(reply: ReplyEmpty) -> impl FnOnce(Result<(), Errno>) + Send + 'static {
    move |result| match result {
        Ok(()) => reply.ok(),
        Err(code) => reply.error(code),
    }
}
