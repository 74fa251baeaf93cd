//! mount(2), for who may.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::mount::MountFlags;

use super::{FUSE_DEVICE, MountError, MountPoint};
use crate::config::{Atime, Options};

/// Mounts with the rights of this process; `None` when they do not suffice.
pub(crate) fn mount(
    point: &MountPoint,
    options: &Options,
    allow_other: bool,
) -> Result<Option<OwnedFd>, MountError> {
    let device = match File::options().read(true).write(true).open(FUSE_DEVICE) {
        Ok(device) => device,
        // The device may be root's alone; fusermount3 opens it with its own rights.
        Err(error) if error.raw_os_error() == Some(libc::EACCES) => return Ok(None),
        Err(error) => return Err(MountError::Device(error)),
    };
    let mut data = format!(
        "fd={},rootmode={:o},user_id={},group_id={},default_permissions",
        device.as_raw_fd(),
        point.mode() & libc::S_IFMT,
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw(),
    );
    if allow_other {
        data.push_str(",allow_other");
    }
    // No text here can hold a NUL: the sources are validated options and a path from the kernel.
    let refused = |error: std::io::Error| MountError::Refused(point.path().to_owned(), error);
    let text = |bytes: &[u8]| CString::new(bytes).map_err(|error| refused(error.into()));
    let (source, data) = (text(options.fs_name.as_bytes())?, text(data.as_bytes())?);
    let (kind, path) = (text(fs_type(options).as_bytes())?, text(point.path().as_os_str().as_bytes())?);
    match rustix::mount::mount(&*source, &*path, &*kind, flags(options), &*data) {
        Ok(()) => Ok(Some(device.into())),
        Err(rustix::io::Errno::PERM) => Ok(None),
        Err(error) => Err(refused(error.into())),
    }
}

/// The kernel takes what follows the dot as the subtype.
fn fs_type(options: &Options) -> String {
    format!("fuse.{}", options.subtype)
}

fn flags(options: &Options) -> MountFlags {
    let mut flags = MountFlags::empty();
    flags.set(MountFlags::RDONLY, options.read_only);
    flags.set(MountFlags::NOSUID, !options.suid);
    flags.set(MountFlags::NODEV, !options.dev);
    flags.set(MountFlags::NOEXEC, !options.exec);
    flags.set(MountFlags::NOATIME, options.atime == Atime::Never);
    flags
}
