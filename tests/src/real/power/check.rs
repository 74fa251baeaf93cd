//! After a cut: is the cluster usable, is everything there that was synced, and what does the next round begin with.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};

use super::USABLE_LIMIT;
use super::rig::{LOOKER, Rig};
use crate::model::FileNum;
use crate::model::stamp::{SECTOR, Stamp, fill};
use crate::real::clock;
use crate::real::look::{Look, in_time, look};
use crate::real::nodes::Who;

/// Sectors of a file that is written once: two chunks.
const ARCHIVED: u64 = 256;
/// Of those so many are read after each cut, and all after the last one.
const SAMPLE: u64 = 12;
/// The directory of files written once.
const ARCHIVE: &str = "archive";

/// A mount tells of a loss once.
const ATTEMPTS: u32 = 3;

fn write_and_read(path: &Path) -> anyhow::Result<()> {
    let mut file = File::options().read(true).write(true).create_new(true).open(path)?;
    file.write_all(&[7; 4096])?;
    file.sync_all()?;
    drop(file);
    let mut back = Vec::new();
    File::open(path)?.read_to_end(&mut back)?;
    ensure!(back == [7; 4096], "it reads back as something else");
    Ok(std::fs::remove_file(path)?)
}

impl Rig {
    /// Time from `began` until a write, an fsync and a read of a new file succeed. One that was begun before its
    /// mount heard of a loss may be told of it.
    pub(super) fn probe(&mut self, began: Duration) -> anyhow::Result<Duration> {
        let (mount, cut) = (self.nodes.at(Who::Mount(0)), self.report.cuts);
        in_time("a new file is written, synced and read", USABLE_LIMIT, move || {
            for attempt in 1.. {
                match write_and_read(&mount.join(format!("probe-{cut}-{attempt}"))) {
                    Err(error) if attempt >= ATTEMPTS => return Err(error),
                    Err(_) => {}
                    Ok(()) => break,
                }
            }
            Ok(())
        })?;
        Ok(clock::now().saturating_sub(began))
    }

    /// Reads everything through a new mount and judges the round. How long the reading took.
    pub(super) fn look(&mut self) -> anyhow::Result<Duration> {
        let began = clock::now();
        self.nodes.start(LOOKER)?;
        let mount = self.nodes.at(LOOKER);
        let files = self.all_files().iter().map(|file| file.num).collect();
        let min_write = if self.nodes.shape().replicas >= 3 { 2 } else { 1 };
        let seen = look(&self.shared, &mount, &Look { files, min_write, limit: USABLE_LIMIT })?;
        let took = clock::now().saturating_sub(began);
        seen.leave_story(&self.dir())?;
        self.report.violations.extend(seen.violations);
        self.report.operations += seen.operations;
        self.report.synced += seen.synced;
        self.report.judged_bytes += seen.bytes;
        let last = self.report.cuts >= self.options.cuts;
        self.read_archive(&mount, last)?;
        if !last {
            self.write_archive(&mount)?;
        }
        self.nodes.unmount(LOOKER)?;
        Ok(took)
    }

    fn write_archive(&mut self, mount: &Path) -> anyhow::Result<()> {
        let num = FileNum(1_000_000 + u32::try_from(self.archive.len())?);
        let stamp = self.shared.record().history.stamp();
        let dir = mount.join(ARCHIVE);
        in_time("a file is written and synced", USABLE_LIMIT, move || {
            std::fs::create_dir_all(&dir)?;
            let mut file = File::create_new(dir.join(num.0.to_string()))?;
            file.write_all(&fill(stamp, num, 0, ARCHIVED))?;
            file.sync_all()?;
            Ok(File::open(&dir)?.sync_all()?)
        })?;
        self.archive.push((num, stamp));
        Ok(())
    }

    fn read_archive(&mut self, mount: &Path, all: bool) -> anyhow::Result<()> {
        let mut these: Vec<(FileNum, Stamp)> = self.archive.clone();
        if !all {
            let count = these.len() as u64;
            let picks: Vec<u64> = (0..SAMPLE.min(count)).map(|_| self.rng.below(count)).collect();
            these = picks.iter().filter_map(|at| these.get(usize::try_from(*at).ok()?).copied()).collect();
        }
        self.report.judged_bytes += these.len() as u64 * ARCHIVED * SECTOR as u64;
        let dir = mount.join(ARCHIVE);
        in_time("files written once are read", USABLE_LIMIT, move || {
            for (num, stamp) in these {
                let path = dir.join(num.0.to_string());
                let mut bytes = Vec::new();
                let read = File::open(&path).and_then(|mut file| file.read_to_end(&mut bytes));
                read.with_context(|| path.display().to_string())?;
                ensure!(
                    bytes == fill(stamp, num, 0, ARCHIVED),
                    "{}: other bytes than were synced",
                    path.display()
                );
            }
            Ok(())
        })
    }
}
