//! The mount itself: checking the mount point, asking the kernel for the mount, tuning it, taking it away.
//!
//! fuser can mount too. It is not asked to: it loses the subtype as root, lets a comma in the source name
//! inject options, and at the end unmounts whatever is at the path, even when the mount went away
//! before and something else came there. It is handed the opened `/dev/fuse` instead, and takes no part
//! in unmounting. Nothing here touches a path inside the mount, which would wait for the daemon itself.

mod direct;
mod helper;
mod point;
mod table;

use std::ffi::CString;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

pub(crate) use point::MountPoint;
pub(crate) use table::Device;

use crate::config::Options;

/// The device that carries the requests.
const FUSE_DEVICE: &str = "/dev/fuse";

/// Read-ahead after mounting, in KiB: one request of the largest size, so that a sequential reader keeps
/// asking in full requests, where the kernel's 128 KiB would cut every read of a chunk in eight. More
/// makes page faults of mapped files read what nobody wants; the client reads ahead by itself.
const READ_AHEAD_KIB: u32 = 1024;

/// Why there is no mount. Each is one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MountError {
    #[error("{FUSE_DEVICE} is missing: load the kernel's FUSE module with 'modprobe fuse'")]
    NoDevice,
    #[error("cannot open {FUSE_DEVICE}: {0}")]
    Device(io::Error),
    #[error("{}: no such directory: make it with 'mkdir -p {}'", .0.display(), .0.display())]
    Missing(PathBuf),
    #[error("{}: not a directory: mount on a directory", .0.display())]
    NotDir(PathBuf),
    #[error("{}: something is mounted here already: unmount it first, or choose another directory", .0.display())]
    Busy(PathBuf),
    #[error("{}: a mount whose daemon is gone: clear it with 'umount -l {}' (or 'fusermount3 -uz') first, or give --replace-dead", .0.display(), .0.display())]
    Dead(PathBuf),
    #[error("{}: the dead mount that was to be replaced was unmounted meanwhile: mount again if that is wanted", .0.display())]
    Unmounted(PathBuf),
    #[error("{}: not empty: choose an empty directory, or mount over it with -o nonempty", .0.display())]
    NotEmpty(PathBuf),
    #[error("{path}: {1}", path = .0.display())]
    Point(PathBuf, io::Error),
    #[error("the kernel refused to mount on {path}: {1}", path = .0.display())]
    Refused(PathBuf, io::Error),
    #[error(
        "ordinary users mount through fusermount3, which is not installed: install fuse3, or mount as root"
    )]
    NoHelper,
    #[error("fusermount3: {0}")]
    Helper(String),
    #[error("{} is mounted but not in /proc/self/mountinfo", .0.display())]
    Vanished(PathBuf),
}

/// Fails before any work is done when there is no FUSE here.
pub(crate) fn check_device() -> Result<(), MountError> {
    if Path::new(FUSE_DEVICE).exists() { Ok(()) } else { Err(MountError::NoDevice) }
}

/// A mount that was made by this process.
#[derive(Debug)]
pub(crate) struct Mount {
    point: MountPoint,
    device: Device,
    /// Whether fusermount3 made it, and so has to unmount it.
    through_helper: bool,
}

/// How to unmount.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Manner {
    /// Fails while anybody uses it.
    Gentle,
    /// Takes it out of the tree now; those who use it keep what they have open.
    Lazy,
}

impl Mount {
    /// Mounts, and gives the device that the kernel's requests will come through. Nothing answers them yet.
    pub(crate) fn new(
        point: MountPoint,
        options: &Options,
        allow_other: bool,
    ) -> Result<(Mount, OwnedFd), MountError> {
        if let Some(device) = point.dead()? {
            log::warn!("{}: taking away the mount whose daemon is gone", point.path().display());
            let away = unmount(point.path(), Manner::Lazy).or_else(|error| match error.raw_os_error() {
                Some(libc::EPERM) => helper::unmount(point.path(), Manner::Lazy),
                _ => Err(error),
            });
            away.map_err(|error| MountError::Refused(point.path().to_owned(), error))?;
            log::debug!("{device} is out of the tree");
        }
        let opened = direct::mount(&point, options, allow_other)?;
        let (fd, through_helper) = match opened {
            Some(fd) => (fd, false),
            None => (helper::mount(&point, options, allow_other)?, true),
        };
        let device = table::top_at(point.path()).ok().flatten();
        let device = device.ok_or_else(|| MountError::Vanished(point.path().to_owned()))?;
        Ok((Mount { point, device, through_helper }, fd))
    }

    /// Where.
    pub(crate) fn path(&self) -> &Path {
        self.point.path()
    }

    /// Sets the read-ahead, which only root may.
    pub(crate) fn tune(&self) {
        let path = format!("/sys/class/bdi/{}/read_ahead_kb", self.device);
        if let Err(error) = write_setting(Path::new(&path), &READ_AHEAD_KIB.to_string()) {
            log::debug!("{path}: {error}: read-ahead stays at the kernel's default");
        }
    }

    /// Unmounts, if the mount is still there and nothing was mounted over it.
    pub(crate) fn unmount(&self, manner: Manner) -> io::Result<()> {
        if table::top_at(self.point.path())? != Some(self.device) {
            log::debug!("{} is unmounted already", self.point.path().display());
            return Ok(());
        }
        if self.through_helper {
            return helper::unmount(self.point.path(), manner);
        }
        unmount(self.point.path(), manner)
    }

    /// The device, if it still is what is seen at its place.
    pub(crate) fn is_seen(&self) -> bool {
        Device::at(self.point.path()) == Some(self.device)
    }

    /// Makes the kernel fail every request that is waiting and every later one: the last resort, after
    /// which no thread, of a program or of this process, hangs in the mount.
    pub(crate) fn abort(&self) {
        let path = format!("/sys/fs/fuse/connections/{}/abort", self.device.connection());
        if let Err(error) = write_setting(Path::new(&path), "1") {
            log::debug!("{path}: {error}");
        }
    }
}

fn unmount(path: &Path, manner: Manner) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let flags = match manner {
        Manner::Gentle => rustix::mount::UnmountFlags::empty(),
        Manner::Lazy => rustix::mount::UnmountFlags::DETACH,
    };
    Ok(rustix::mount::unmount(path.as_c_str(), flags | rustix::mount::UnmountFlags::NOFOLLOW)?)
}

fn write_setting(path: &Path, value: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}
