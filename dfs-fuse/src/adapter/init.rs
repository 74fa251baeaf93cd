//! The handshake: what is asked of the kernel, and how many threads read its requests.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};

use fuser::{InitFlags, KernelConfig};

/// Threads that read requests. They only answer what is at hand and hand the rest on, so two keep up with
/// the kernel; others measured more threads as a cost for a single reader.
pub(crate) const THREADS: usize = 2;

/// Largest write: what the kernel's page limit (256 pages) allows, and one I/O of the cluster's.
const MAX_WRITE: u32 = dfs_proto::units::IO_MAX;

/// What is asked for. The kernel may know less: each is asked for by itself.
///
/// HANDLE_KILLPRIV_V2: without it the kernel asks for security.capability before every write and for the attributes
/// before every change of owner. With it setuid and setgid bits are ours to clear, see [`super::privileges`].
///
/// Left out on purpose:
/// - ATOMIC_O_TRUNC: with it an open that the kernel refuses afterwards, as of a running program (ETXTBSY), has cut
///   the file already. Without it the kernel asks for the truncation once it has let the open pass;
/// - WRITEBACK_CACHE: the kernel would ignore our sizes and times, and with them every other mount;
/// - HANDLE_KILLPRIV, which V2 replaces: it does not say who writes;
/// - POSIX_LOCKS, FLOCK_LOCKS: until there are locks for the whole cluster, the kernel's own hold within
///   this mount;
/// - POSIX_ACL: needs the cluster to evaluate them;
/// - SETXATTR_EXT and OVER_IO_URING: fuser 0.18 lets the kernel have them and then panics on the first
///   setxattr, or never answers at all; its other unfinished flags are no use here.
const WANTED: &[InitFlags] = &[
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_ASYNC_DIO,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_AUTO_INVAL_DATA,
    InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
];

/// Asks.
pub(crate) fn negotiate(config: &mut KernelConfig, max_background: u16) {
    for &flag in WANTED {
        if config.add_capabilities(flag).is_err() {
            log::debug!("the kernel does not know {flag:?}");
        }
    }
    if let Err(most) = config.set_max_write(MAX_WRITE) {
        log::warn!("largest write: fuser takes at most {most} bytes");
    }
    if let Err(least) = config.set_max_background(max_background) {
        log::warn!("background requests: fuser takes at least {least}");
    }
}

/// Whether this process may open the device once more, so that each thread can have a queue of its own.
/// An ordinary user often may not, and fuser would find out only after the mount is made, and end it.
pub(crate) fn can_clone(device: &OwnedFd) -> bool {
    /// FUSE_DEV_IOC_CLONE: `_IOR(229, 0, u32)`.
    const CLONE: libc::Ioctl = 0x8004_e500;
    let Ok(other) = File::options().read(true).write(true).open("/dev/fuse") else { return false };
    let source = device.as_raw_fd();
    // SAFETY: the ioctl reads one 32-bit descriptor number, which `source` is, and keeps no pointer.
    unsafe { libc::ioctl(other.as_raw_fd(), CLONE, &raw const source) == 0 }
}
