//! Whether a directory can be mounted on.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Device, MountError, table};

/// A directory that was found fit to be mounted on; absolute, without symlinks.
#[derive(Debug)]
pub(crate) struct MountPoint {
    path: PathBuf,
    mode: u32,
    /// A mount whose daemon is gone, to be taken away first.
    dead: Option<Device>,
}

impl MountPoint {
    /// Checks `path`. What is mounted between this and the mount is not seen; it is then covered.
    pub(crate) fn check(path: &Path, non_empty_allowed: bool) -> Result<MountPoint, MountError> {
        // canonicalize walks into the directory: of a dead mount it answers ENOTCONN.
        let path = path.canonicalize().map_err(|error| refusal(path, error))?;
        let meta = std::fs::metadata(&path).map_err(|error| refusal(&path, error))?;
        if !meta.is_dir() {
            return Err(MountError::NotDir(path));
        }
        let mounted = table::top_at(&path).map_err(|error| MountError::Point(path.clone(), error))?;
        if mounted.is_some() {
            return Err(MountError::Busy(path));
        }
        let mut entries = std::fs::read_dir(&path).map_err(|error| refusal(&path, error))?;
        if !non_empty_allowed && entries.next().is_some() {
            return Err(MountError::NotEmpty(path));
        }
        Ok(MountPoint { path, mode: meta.mode(), dead: None })
    }

    /// The same; but a mount whose daemon is gone may be there, and is replaced. With `left` it has to be that one: who
    /// unmounted it meanwhile wants none here.
    pub(crate) fn check_or_replace(
        path: &Path,
        non_empty_allowed: bool,
        left: Option<Device>,
    ) -> Result<MountPoint, MountError> {
        let place = beside(path).map_err(|error| refusal(path, error))?;
        let there = Device::at(&place);
        if left.is_some() && there != left {
            return Err(MountError::Unmounted(place));
        }
        match there {
            // What the kernel remembers of a dead mount's root it still tells; only what needs the daemon shows it.
            Some(device) if std::fs::read_dir(&place).is_err_and(|error| is_dead(&error)) => {
                Ok(MountPoint { path: place, mode: libc::S_IFDIR, dead: Some(device) })
            }
            Some(_) | None => MountPoint::check(path, non_empty_allowed),
        }
    }

    /// The mount to take away before another is made here.
    ///
    /// # Errors
    /// When it is not there any more: who unmounted it wants none here.
    pub(crate) fn dead(&self) -> Result<Option<Device>, MountError> {
        match self.dead {
            Some(device) if Device::at(&self.path) != Some(device) => {
                Err(MountError::Unmounted(self.path.clone()))
            }
            dead => Ok(dead),
        }
    }

    /// Where.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The mode bits of the directory, which the kernel wants as the first guess at the root's.
    pub(crate) fn mode(&self) -> u32 {
        self.mode
    }
}

/// The path without symlinks, and without a look at what it names.
fn beside(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if !path.is_symlink() => Ok(parent.canonicalize()?.join(name)),
        _ => path.canonicalize(),
    }
}

/// In-flight calls of a daemon's end, and all later ones.
fn is_dead(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOTCONN | libc::ECONNABORTED))
}

fn refusal(path: &Path, error: io::Error) -> MountError {
    let path = path.to_owned();
    match error.raw_os_error() {
        Some(libc::ENOENT) => MountError::Missing(path),
        Some(libc::ENOTDIR) => MountError::NotDir(path),
        Some(libc::ENOTCONN) => MountError::Dead(path),
        Some(_) | None => MountError::Point(path, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_unfit_place_is_named_for_what_it_is() {
        let dir = std::env::temp_dir().join(format!("dfs-fuse-point-{}", std::process::id()));
        let inner = dir.join("inner");
        std::fs::create_dir_all(&inner).unwrap();
        let file = dir.join("file");
        std::fs::File::create(&file).unwrap();

        assert!(matches!(MountPoint::check(&dir.join("none"), false), Err(MountError::Missing(_))));
        assert!(matches!(MountPoint::check(&file, false), Err(MountError::NotDir(_))));
        assert!(matches!(MountPoint::check(&dir, false), Err(MountError::NotEmpty(_))));
        assert!(matches!(MountPoint::check(Path::new("/proc"), true), Err(MountError::Busy(_))));
        assert!(MountPoint::check(&dir, true).is_ok());
        assert!(MountPoint::check(&inner, false).is_ok());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
