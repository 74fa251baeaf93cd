//! `dfs-master rebuild`: a new master's directory out of what the headers of chunk servers' disks say, which comes in at
//! standard input as `dfs-chunkserver headers` prints it. The directory has no cluster.json before all of it is there and
//! was checked, so one that was left unfinished is no master's.

use std::path::Path;

use anyhow::{Context, bail};
use dfs_disk::Disk as _;
use dfs_disk::real::RealDisk;
use dfs_master::core::rebuild::{Disk, Options, Rebuilt, RemarkKind, Report, rebuild};
use dfs_master::log::{self as wal, Identity, LogConfig, SnapshotStore};
use dfs_proto::listing::{Line, ListedDisk};

use crate::check;
use crate::clock;
use crate::config::Rebuild;
use crate::listing::{self, OfDisk};

/// Remarks of a kind that are printed; `--json` has all.
const SHOWN: usize = 20;

pub(crate) fn run(args: &Rebuild) -> anyhow::Result<()> {
    if let Some(dir) = &args.data {
        check_empty(dir)?;
    }
    let disks: Vec<Disk> = listing::read(std::io::stdin().lock())?;
    let options = Options { chunk_size: args.chunk_size, goal: args.replicas };
    let rebuilt = rebuild(&disks, options, clock::now().wall)?;
    show(args, &rebuilt.report)?;
    let missing = rebuilt.report.count(RemarkKind::Missing);
    let Some(dir) = &args.data else { return Ok(()) };
    if missing > 0 && !args.accept_missing_replicas {
        bail!(
            "{missing} chunks have fewer replicas on these disks than they had members: give all disks of all servers, or \
             --accept-missing-replicas if the others are lost; nothing was written"
        );
    }
    write(dir, &rebuilt).with_context(|| format!("{}", dir.display()))?;
    if !args.json {
        println!("{} is a master's directory: run `dfs-master run --data {0}`", dir.display());
    }
    Ok(())
}

/// Whether the directory is not there, or has nothing.
pub(crate) fn check_empty(dir: &Path) -> anyhow::Result<()> {
    let at = dir.display();
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("{at}")),
    };
    for entry in entries {
        let name = entry.with_context(|| format!("{at}"))?.file_name();
        // What a filesystem has at its root.
        if name != "lost+found" {
            bail!("{at} is not empty (it has {}); choose an empty directory", name.to_string_lossy());
        }
    }
    Ok(())
}

impl OfDisk for Disk {
    fn begin(disk: ListedDisk) -> Disk {
        Disk { disk, replicas: Vec::new(), unfit: Vec::new(), damaged_slots: 0 }
    }

    fn take(&mut self, line: Line) -> bool {
        match line {
            Line::Replica(replica) => self.replicas.push(replica),
            Line::Unfit(unfit) => self.unfit.push(unfit),
            Line::End { replicas, damaged_slots } if replicas == self.replicas.len() as u64 => {
                self.damaged_slots = damaged_slots;
            }
            Line::Disk(_) | Line::Copy(_) | Line::End { .. } | Line::Done { .. } => return false,
        }
        true
    }
}

fn show(args: &Rebuild, report: &Report) -> anyhow::Result<()> {
    if args.json {
        println!("{}", serde_json::to_string_pretty(report)?);
        return Ok(());
    }
    for kind in RemarkKind::ALL {
        let remarks = report.remarks.iter().filter(|remark| remark.kind == kind);
        for remark in remarks.take(SHOWN) {
            println!("{}: {}: {}", kind.name(), remark.object, remark.what);
        }
        let more = report.count(kind).saturating_sub(SHOWN);
        if more > 0 {
            println!("{}: {more} more; --json has all", kind.name());
        }
    }
    let Report { cluster, generation, goal, servers, disks, replicas, .. } = report;
    println!(
        "cluster {cluster}, to be generation {generation}, chunks of {} bytes, {goal} replicas",
        report.chunk_size.bytes()
    );
    println!("{disks} disks of {servers} servers, {replicas} replicas");
    if report.damaged_slots > 0 {
        println!("{} header slots are damaged; the replicas' other slots served", report.damaged_slots);
    }
    let Report { files, directories, chunks, bytes, .. } = report;
    println!("{files} files in {directories} directories, {bytes} bytes in {chunks} chunks");
    Ok(())
}

fn write(dir: &Path, rebuilt: &Rebuilt) -> anyhow::Result<()> {
    let Rebuilt { at, image, report } = rebuilt;
    let Report { cluster, generation, chunk_size, goal, .. } = report;
    let identity = Identity {
        cluster: *cluster,
        generation: *generation,
        chunk_size: *chunk_size,
        created: clock::now().wall.sec,
        goal: *goal,
    };
    std::fs::create_dir_all(dir)?;
    let disk = RealDisk::new(dir)?;
    wal::prepare(&disk)?;
    let store = SnapshotStore::new(disk.clone(), &identity);
    let mut writer = store.begin(*at, image.conf(), image.sections())?;
    image.write(&mut |section, block| writer.block(section, block))?;
    writer.finish()?;
    wal::complete(&disk, &identity, LogConfig::default(), *at)?;
    // As a start reads it, and as `dfs fsck --master-dir` does.
    let whole = check::findings(dir, &disk);
    if !matches!(&whole, Ok(0)) {
        disk.remove(wal::IDENTITY)?;
        disk.sync_dir("")?;
    }
    match whole? {
        0 => Ok(()),
        count => bail!("what was written has {count} findings: a defect, please report it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: &str = r#"{"disk":{"path":"/d","cluster":"01","server":"02","disk":"03","generation":1,"max_term":1,"max_index":5,"starts":2}}"#;

    #[test]
    fn a_listing_that_was_cut_short_is_none() {
        let whole = format!(
            "{DISK}\n{{\"end\":{{\"replicas\":0,\"damaged_slots\":0}}}}\n{{\"done\":{{\"disks\":1}}}}\n"
        );
        assert_eq!(listing::read::<Disk>(whole.as_bytes()).unwrap().len(), 1);
        for bad in [
            String::new(),
            DISK.to_owned(),
            whole.replace("s\":1", "s\":2"),
            format!("{DISK}\n{{\"end\":{{\"replicas\":1,\"damaged_slots\":0}}}}"),
            format!("{DISK}\n{DISK}"),
            "{".to_owned(),
        ] {
            assert!(listing::read::<Disk>(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
