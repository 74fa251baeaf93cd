//! Power cuts: a cluster whose every state lies on filesystems that lose what was not synced, under programs that
//! write and sync. After each cut it comes back within a bound, and everything that an fsync acknowledged is there.
//!
//! What was acknowledged is kept in this process, which lies on no filesystem. The same cluster goes through all
//! the cuts, and what one left is what the next one finds.

mod rig;
mod check;

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::volume::FsKind;

/// A cluster is usable so long after its processes were started again, and everything is read within as long.
pub const USABLE_LIMIT: Duration = Duration::from_secs(60);

/// How the state is spread over hosts with a power of their own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Spread {
    /// All on one host, on one filesystem: every cut takes all.
    One,
    /// Each process has its host and its filesystem: a cut takes one, or all at once.
    Each,
}

impl FromStr for Spread {
    type Err = String;

    fn from_str(text: &str) -> Result<Spread, String> {
        match text {
            "one" => Ok(Spread::One),
            "each" => Ok(Spread::Each),
            _ => Err(format!("{text:?}: expected one or each")),
        }
    }
}

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Options {
    pub fs: FsKind,
    pub spread: Spread,
    pub cuts: u64,
    pub seed: u64,
    /// Where the images go; a directory is made in it, and removed unless something was violated.
    pub dir: PathBuf,
    /// The daemons' binaries.
    pub bin: PathBuf,
    /// Tell of each cut.
    pub verbose: bool,
}

/// What was done and found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub cuts: u64,
    /// Cuts of everything at once; the others took one host.
    pub of_all: u64,
    /// Cuts while the cluster recovered from one.
    pub again: u64,
    /// Cuts that took the mounts too.
    pub with_mounts: u64,
    pub operations: u64,
    /// fsyncs that were acknowledged.
    pub synced: u64,
    /// Bytes that were read back after a cut, and judged.
    pub judged_bytes: u64,
    /// Longest time from the start of the processes to a write, fsync and read that succeeded.
    pub usable_max: Duration,
    /// Longest time until all was synced and read through a new mount.
    pub readable_max: Duration,
    pub violations: Vec<String>,
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (usable, readable) = (self.usable_max.as_secs_f64(), self.readable_max.as_secs_f64());
        write!(
            f,
            "cuts {} of-all {} in-recovery {} with-mounts {} operations {} fsyncs {} judged-MB {} usable-max-s {usable:.1} readable-max-s {readable:.1} violations {}",
            self.cuts,
            self.of_all,
            self.again,
            self.with_mounts,
            self.operations,
            self.synced,
            self.judged_bytes >> 20,
            self.violations.len()
        )
    }
}

/// Cuts the power so often, or until something is violated.
///
/// # Errors
/// When the machine can't do it: no root, no loop devices, no tool. What the cluster does wrong is in the report.
pub fn run(options: &Options) -> anyhow::Result<Report> {
    let mut rig = rig::Rig::new(options)?;
    while rig.report.cuts < options.cuts && rig.report.violations.is_empty() {
        if let Err(error) = rig.round() {
            rig.report.violations.push(format!("{error:#}\n{}", rig.logs()));
        }
    }
    Ok(rig.end())
}
