//! A filesystem of its own for a daemon's state: an image in a file, a loop device, a mount. Its power can be cut:
//! the kernel drops every page that was not written and every transaction that was not committed, and the next
//! mount replays the journal.
//!
//! The image lies on a disk that keeps its power: what the filesystem had sent to the device is there afterwards.
//! Losing writes of the device itself is [`crate::crash`]'s part.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail};

use super::clock;

/// `FS_IOC_SHUTDOWN`, the same number for ext4 and xfs: `_IOR('X', 125, __u32)`.
const SHUTDOWN: libc::c_ulong = 0x8004_587d;
/// Without writing the journal first: what a power cut does.
const NO_LOG_FLUSH: u32 = 2;

/// How long a mount may be in use by processes that are gone.
const UNMOUNTED: Duration = Duration::from_secs(10);

/// Which filesystem.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FsKind {
    Ext4,
    Xfs,
}

impl FromStr for FsKind {
    type Err = String;

    fn from_str(text: &str) -> Result<FsKind, String> {
        match text {
            "ext4" => Ok(FsKind::Ext4),
            "xfs" => Ok(FsKind::Xfs),
            _ => Err(format!("{text:?}: expected ext4 or xfs")),
        }
    }
}

impl std::fmt::Display for FsKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            FsKind::Ext4 => "ext4",
            FsKind::Xfs => "xfs",
        })
    }
}

/// A mounted filesystem. Dropping it unmounts, and gives the loop device back; the image stays.
#[derive(Debug)]
pub struct Volume {
    kind: FsKind,
    device: String,
    at: PathBuf,
    mounted: bool,
}

impl Volume {
    /// Makes the image file of `bytes`, sparse, and mounts it at `at`, a directory that is made.
    ///
    /// # Errors
    /// When one of the steps fails; what it says names the tool.
    pub fn create(kind: FsKind, image: &Path, bytes: u64, at: &Path) -> anyhow::Result<Volume> {
        File::create_new(image).and_then(|file| file.set_len(bytes)).context(image.display().to_string())?;
        std::fs::create_dir_all(at)?;
        let image = image.display().to_string();
        match kind {
            FsKind::Ext4 => run("mkfs.ext4", &["-q", "-E", "nodiscard", &image])?,
            FsKind::Xfs => run("mkfs.xfs", &["-q", "-K", &image])?,
        };
        let device = run("losetup", &["--find", "--show", &image])?.trim().to_owned();
        let mut volume = Volume { kind, device, at: at.to_owned(), mounted: false };
        volume.mount()?;
        Ok(volume)
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// Mounts it, which replays its journal.
    ///
    /// # Errors
    /// When it is mounted, or the kernel refuses the filesystem.
    pub fn mount(&mut self) -> anyhow::Result<()> {
        let works = clock::poll(UNMOUNTED, || {
            run("mount", &["-t", &self.kind.to_string(), &self.device, &self.at.display().to_string()])?;
            // What a process that has just died left may keep the filesystem alive that was cut: then it is the one
            // that is mounted again, and its journal is still to be replayed.
            if File::open(&self.at).and_then(|root| root.sync_all()).is_ok() {
                return Ok(Some(()));
            }
            unmount(&self.at)?;
            Ok(None)
        })?;
        works.with_context(|| format!("{} is still cut after {UNMOUNTED:?}", self.at.display()))?;
        self.mounted = true;
        Ok(())
    }

    /// Cuts its power. Everything fails with EIO from here on until it is mounted again.
    ///
    /// # Errors
    /// When the filesystem does not know the call.
    pub fn cut(&self) -> anyhow::Result<()> {
        let root = File::open(&self.at)?;
        let how = NO_LOG_FLUSH;
        // SAFETY: the call reads one u32 behind the pointer, which lives until it returns.
        let result = unsafe { libc::ioctl(root.as_raw_fd(), SHUTDOWN, &raw const how) };
        if result != 0 {
            let error = std::io::Error::last_os_error();
            bail!("FS_IOC_SHUTDOWN of {} on {}: {error}", self.kind, self.at.display());
        }
        Ok(())
    }

    /// Unmounts it. Nothing may have a file of it open.
    ///
    /// # Errors
    /// When something has.
    pub fn unmount(&mut self) -> anyhow::Result<()> {
        if self.mounted {
            unmount(&self.at)?;
            self.mounted = false;
        }
        Ok(())
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let mut left = self.unmount();
        if left.is_err() {
            left = run("umount", &["--lazy", &self.at.display().to_string()]).map(drop);
        }
        left = left.and(run("losetup", &["--detach", &self.device]).map(drop));
        if let Err(error) = left {
            eprintln!("left behind: {error:#}");
        }
    }
}

/// A directory under which mounts come and go for every mount namespace that was made from ours: else a process in
/// one of its own would keep a filesystem alive that is unmounted here.
#[derive(Debug)]
pub struct SharedDir {
    at: PathBuf,
}

impl SharedDir {
    /// Makes the directory, and makes it so.
    ///
    /// # Errors
    /// When we may not mount.
    pub fn new(at: &Path) -> anyhow::Result<SharedDir> {
        std::fs::create_dir(at)?;
        let path = at.display().to_string();
        run("mount", &["--bind", &path, &path])?;
        let shared = SharedDir { at: at.to_owned() };
        run("mount", &["--make-shared", &path])?;
        Ok(shared)
    }
}

impl Drop for SharedDir {
    fn drop(&mut self) {
        if let Err(error) = unmount(&self.at) {
            eprintln!("left behind: {error:#}");
        }
    }
}

/// umount(8), again while the kernel still takes apart what a process left that has just died.
///
/// # Errors
/// When it is still in use after some seconds.
pub fn unmount(at: &Path) -> anyhow::Result<()> {
    let mut last = None;
    let done = clock::poll(UNMOUNTED, || {
        last = run("umount", &[&at.display().to_string()]).err();
        Ok(last.is_none().then_some(()))
    })?;
    match (done, last) {
        (None, Some(error)) => Err(error),
        (Some(()), _) | (None, None) => Ok(()),
    }
}

/// Runs a tool; what it prints.
///
/// # Errors
/// When it is not installed, or fails: with what it said.
pub fn run(tool: &str, args: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(tool).args(args).output();
    let output = output.with_context(|| format!("cannot run {tool}: install it, see scripts/test.sh"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{tool} {}: {}: {}", args.join(" "), output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
