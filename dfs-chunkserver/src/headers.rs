//! `dfs-chunkserver headers`: what the headers on disks say whose server does not run, or which copies of the master's log
//! are there, one JSON object a line. It changes nothing, and stops at the first disk that can't be read.

pub(crate) mod network;

use std::io::{BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use clap::Parser;
use dfs_disk::real::RealDisk;
use dfs_proto::listing::{Line, ListedCopy, ListedDisk, ListedReplica, ListedUnfit};
use dfs_proto::units::Timespec;

use crate::copy;
use crate::store::{Header, OpenError, Survey, Whose, chunk_file, survey, survey_label};

/// Print what the headers of all replicas on the disks of a stopped server say, one JSON object a line
#[derive(Parser, Clone, Debug)]
#[command(name = "dfs-chunkserver headers", version)]
pub struct HeadersArgs {
    /// Directory of a disk; may be given several times
    #[arg(long = "disk", value_name = "DIR", required = true)]
    pub disks: Vec<PathBuf>,
    /// In place of replicas, list the copies of the master's log
    #[arg(long)]
    pub copies: bool,
}

/// Why a listing was not made.
#[derive(Debug, thiserror::Error)]
pub enum HeadersError {
    #[error("disk {path}: {source}")]
    Disk { path: PathBuf, source: OpenError },
    #[error("disk {path}: {source}")]
    Directory { path: PathBuf, source: std::io::Error },
    #[error("the listing: {0}")]
    Output(#[from] std::io::Error),
}

/// Prints the listing.
///
/// # Errors
/// See [`HeadersError`].
pub fn run(args: &HeadersArgs) -> Result<(), HeadersError> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    for path in &args.disks {
        let disk =
            RealDisk::new(path).map_err(|source| HeadersError::Directory { path: path.clone(), source })?;
        let of_disk = |source| HeadersError::Disk { path: path.clone(), source };
        if args.copies {
            let label = survey_label(&disk).map_err(of_disk)?;
            print_copies(&mut out, path, &disk, &label)?;
        } else {
            print(&mut out, path, survey(disk).map_err(of_disk)?)?;
        }
    }
    put(&mut out, &Line::Done { disks: args.disks.len() as u64 })?;
    out.flush()?;
    Ok(())
}

fn put(out: &mut impl Write, line: &Line) -> std::io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}

fn print(out: &mut impl Write, path: &Path, found: Survey) -> Result<(), HeadersError> {
    let Survey { whose, replicas, unfit, damaged_slots } = found;
    let mut put = |line: &Line| put(out, line);
    put(&Line::Disk(listed_disk(path, &whose)))?;
    let count = replicas.len() as u64;
    for header in replicas {
        put(&Line::Replica(listed(path, header)))?;
    }
    for (file, why) in unfit {
        put(&Line::Unfit(ListedUnfit { file, why: why.to_string() }))?;
    }
    put(&Line::End { replicas: count, damaged_slots })?;
    Ok(())
}

fn print_copies(
    out: &mut impl Write,
    path: &Path,
    disk: &RealDisk,
    whose: &Whose,
) -> Result<(), HeadersError> {
    put(out, &Line::Disk(listed_disk(path, whose)))?;
    let unreadable = |source| HeadersError::Directory { path: path.to_owned(), source };
    for (dir, about) in copy::survey(disk).map_err(unreadable)? {
        let path = path.join(dir);
        let written = last_written(&path);
        put(out, &Line::Copy(ListedCopy { path: path.display().to_string(), about, written }))?;
    }
    put(out, &Line::End { replicas: 0, damaged_slots: 0 })?;
    Ok(())
}

/// When one of the files was written last; 0 where nobody can say.
fn last_written(copy: &Path) -> i64 {
    let files = ["log", "snapshot"].map(|sub| std::fs::read_dir(copy.join(sub)));
    let times = files.into_iter().flatten().flatten().flatten().filter_map(|file| file.metadata().ok());
    times.map(|file| file.mtime()).max().unwrap_or(0)
}

fn listed_disk(path: &Path, whose: &Whose) -> ListedDisk {
    let Whose { label, mhwm, starts } = whose;
    ListedDisk {
        path: path.display().to_string(),
        cluster: label.cluster,
        server: label.server,
        disk: label.disk,
        generation: mhwm.generation,
        max_term: mhwm.max_term,
        max_index: mhwm.max_meta_index,
        starts: *starts,
    }
}

fn listed(disk: &Path, header: Header) -> ListedReplica {
    let file = std::fs::metadata(disk.join(chunk_file(header.chunk)));
    // A file that was there a moment ago and can't be asked any more is as good as one without a time.
    let modified = file.map_or_else(
        |_| Timespec::default(),
        |file| Timespec { sec: file.mtime(), nsec: u32::try_from(file.mtime_nsec()).unwrap_or(0) },
    );
    ListedReplica {
        chunk: header.chunk,
        version: header.version,
        config: header.config,
        open_num: header.open_num,
        size_epoch: header.size_epoch,
        seq_synced: header.seq_synced,
        ino: header.ino,
        index: header.index,
        extent: header.extent,
        members: header.members,
        learner: header.learner,
        failed: header.failed,
        digest: (!header.open).then_some(header.digest),
        modified,
        file: header.note.map(Into::into),
    }
}
