//! Programs on mounts, through the kernel: they write stamped sectors, read, truncate, punch, sync, and make, rename and
//! remove names, and tell the models what they asked and were answered.
//!
//! What the outcomes mean is the models' business. What is measured here is how long each call took.

mod data;
mod names;
mod still;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::IntoRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{anyhow, bail};
use dfs_disk::sim::Rng;

use super::{clock, threads};
use crate::model::history::History;
use crate::model::names::Directory;
use crate::model::stamp::SECTOR;
use crate::model::{Actor, FileNum, Violation};

pub use self::data::{FILE_SECTORS, read_whole};
pub use self::names::look_up_all;
pub use self::still::write_still;

/// Calls that took longer are remembered one by one.
const SLOW: Duration = Duration::from_millis(100);
/// Where the files and the directories of names are, on every mount.
const FILES: &str = "files";
const HOMES: &str = "homes";

/// A file of the work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WorkFile {
    pub num: FileNum,
    /// All mounts have it open all the time, so nothing of it is buffered: a write is on its servers when the call
    /// returns, and a read that begins then sees it.
    pub through: bool,
}

/// What a call waited for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// Of a file that nobody writes.
    Still,
    /// Of a file that is written.
    Read,
    /// Writing, truncating, syncing, closing what was written.
    Write,
    /// Names and opens.
    Name,
}

/// A call that took long.
#[derive(Clone, Debug)]
pub struct Slow {
    pub actor: Actor,
    pub kind: Kind,
    pub began: Duration,
    pub took: Duration,
    pub what: String,
}

/// Everything recorded.
#[derive(Debug, Default)]
pub struct Record {
    pub history: History,
    pub directories: BTreeMap<Actor, Directory>,
    pub violations: Vec<Violation>,
    pub operations: u64,
    pub slow: Vec<Slow>,
    /// Disks are dying and the processes that use them are not dead yet. Kernels acknowledge a sync then that did
    /// nothing, so that none counts.
    pub dying: bool,
    /// Until then kernels may believe names that the master has lost.
    pub believed_until: Duration,
    /// What each program is at, and since when.
    pub now_at: BTreeMap<Actor, (Duration, String)>,
}

/// What the programs share with those who watch.
#[derive(Debug, Default)]
pub struct Shared {
    record: Mutex<Record>,
    quiet: AtomicBool,
}

impl Shared {
    /// The record. Nobody waits for a mount while holding it.
    pub fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Programs are to end after the call that they are in.
    fn is_quiet(&self) -> bool {
        self.quiet.load(Ordering::Relaxed)
    }

    /// Makes a call and measures it.
    pub fn call<T>(&self, actor: Actor, kind: Kind, what: String, call: impl FnOnce() -> T) -> T {
        let began = clock::now();
        self.record().now_at.insert(actor, (began, what.clone()));
        let result = call();
        let took = clock::now().saturating_sub(began);
        let mut record = self.record();
        record.now_at.remove(&actor);
        record.operations += 1;
        if took > SLOW {
            record.slow.push(Slow { actor, kind, began, took, what });
        }
        result
    }
}

/// A program with what it works on.
struct Program {
    shared: Arc<Shared>,
    mount: PathBuf,
    actor: Actor,
    files: Vec<WorkFile>,
    rng: Rng,
}

impl Program {
    /// Between calls.
    fn rest(&mut self) {
        let us = match self.rng.below(8) {
            0 => self.rng.below(100_000),
            1..4 => self.rng.below(10_000),
            _ => self.rng.below(1_000),
        };
        std::thread::sleep(Duration::from_micros(us));
    }
}

/// Programs that run.
#[derive(Debug)]
pub struct Running {
    shared: Arc<Shared>,
    threads: Vec<(Actor, JoinHandle<()>)>,
}

/// Makes the files and directories that the programs of `actors` need, durably, through one mount.
///
/// # Errors
/// The failing call's.
pub fn prepare(mount: &Path, files: &[WorkFile], names: &[Actor]) -> anyhow::Result<()> {
    for dir in [FILES, HOMES] {
        std::fs::create_dir(mount.join(dir))?;
    }
    for file in files {
        File::create_new(path_of(mount, file.num))?.sync_all()?;
    }
    for actor in names {
        std::fs::create_dir(home_of(mount, *actor))?;
    }
    for dir in [FILES, HOMES, ""] {
        File::open(mount.join(dir))?.sync_all()?;
    }
    Ok(())
}

/// Where a file is.
#[must_use]
pub fn path_of(mount: &Path, file: FileNum) -> PathBuf {
    mount.join(FILES).join(format!("f{}", file.0))
}

/// The directory in which a program makes names.
#[must_use]
pub fn home_of(mount: &Path, actor: Actor) -> PathBuf {
    mount.join(HOMES).join(format!("h{}-{}", actor.client, actor.stream))
}

impl Running {
    /// Programs that share a record.
    #[must_use]
    pub fn none(shared: &Arc<Shared>) -> Running {
        shared.quiet.store(false, Ordering::Relaxed);
        Running { shared: Arc::clone(shared), threads: Vec::new() }
    }

    /// Starts one that works on files.
    ///
    /// # Errors
    /// When no thread is to be had.
    pub fn on_files(
        &mut self,
        mount: &Path,
        actor: Actor,
        files: &[WorkFile],
        seed: u64,
    ) -> anyhow::Result<()> {
        self.start(mount, actor, files, seed, data::run)
    }

    /// Starts one that works on names.
    ///
    /// # Errors
    /// When no thread is to be had.
    pub fn on_names(&mut self, mount: &Path, actor: Actor, seed: u64) -> anyhow::Result<()> {
        self.shared.record().directories.entry(actor).or_default();
        self.start(mount, actor, &[], seed, names::run)
    }

    /// Starts one that reads files which nobody writes.
    ///
    /// # Errors
    /// When no thread is to be had.
    pub fn on_still(
        &mut self,
        mount: &Path,
        actor: Actor,
        files: &[FileNum],
        seed: u64,
    ) -> anyhow::Result<()> {
        let files: Vec<WorkFile> = files.iter().map(|num| WorkFile { num: *num, through: false }).collect();
        self.start(mount, actor, &files, seed, still::run)
    }

    fn start(
        &mut self,
        mount: &Path,
        actor: Actor,
        files: &[WorkFile],
        seed: u64,
        run: fn(Program),
    ) -> anyhow::Result<()> {
        let program = Program {
            shared: Arc::clone(&self.shared),
            mount: mount.to_owned(),
            actor,
            files: files.to_vec(),
            rng: Rng::new(seed ^ u64::from(actor.client) << 40 ^ u64::from(actor.stream) << 32),
        };
        let name = format!("{}-{}", actor.client, actor.stream);
        let thread = threads::spawn(name, move || run(program))?;
        self.threads.push((actor, thread));
        Ok(())
    }

    /// Has them end, and waits for it.
    ///
    /// # Errors
    /// When one hangs for longer than `limit`: what it is at.
    pub fn end(self, limit: Duration) -> anyhow::Result<()> {
        self.shared.quiet.store(true, Ordering::Relaxed);
        let all =
            |threads: &[(Actor, JoinHandle<()>)]| threads.iter().all(|(_, thread)| thread.is_finished());
        if clock::poll(limit, || Ok(all(&self.threads).then_some(())))?.is_none() {
            let now = clock::now();
            let at = self.shared.record().now_at.clone();
            let at =
                at.iter().map(|(actor, (since, what))| format!("{actor:?} {what} for {:?}", now - *since));
            bail!("programs hang: {}", at.collect::<Vec<_>>().join("; "));
        }
        for (actor, thread) in self.threads {
            thread.join().map_err(|_| anyhow!("{actor:?} panicked"))?;
        }
        Ok(())
    }
}

/// close(2), which tells what `drop` does not: that buffered bytes could not be written.
///
/// # Errors
/// What the call returned; the descriptor is gone all the same.
pub fn close(file: File) -> io::Result<()> {
    let fd = file.into_raw_fd();
    // SAFETY: the descriptor was the file's alone, and nobody uses it after this.
    let result = unsafe { libc::close(fd) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Bytes of so many sectors.
const fn bytes_of(sectors: u64) -> u64 {
    sectors * SECTOR as u64
}
