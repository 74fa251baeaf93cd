//! `dfs-master backup`: the snapshots and the log of a master that runs, copied into a directory as chunk servers copy them, read
//! back as a start would read them, and only then called a backup. Only what is durable at the master is in it.

use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use dfs_disk::real::RealDisk;
use dfs_disk::{Disk, DiskFile, Open, replace_file};
use dfs_master::log::{self as wal, RecordNum, segment, snapshot};
use dfs_proto::checksum::crc32c;
use dfs_proto::conn::{CallError, CallsOnly, Conn, Hello, Reply, Role};
use dfs_proto::control::{LOG_READ_MAX, ListLog, LogBytes, LogFile, LogListing, ReadLog};
use dfs_proto::ids::LogIndex;
use dfs_proto::listing::{BACKUP, Backup, CopyAbout, ListedCopy};
use dfs_proto::request::Request;
use dfs_proto::status::Status;
use serde::Serialize;

use crate::clock;
use crate::config::Backup as Args;
use crate::rebuild::check_empty;
use crate::restore::checked;

const FORMAT: u32 = 1;
/// For a master that reads its disk beside other work.
const PATIENCE: Duration = Duration::from_secs(15);
/// The master gives so many bytes a second to all who copy its log, chunk servers first of all.
const OVERLOADED: Duration = Duration::from_millis(100);
/// The master takes a snapshot and prunes while it is copied. Once is rare, this often is another fault.
const TIMES: usize = 5;

/// What was made.
#[derive(Debug, Serialize)]
struct Made<'a> {
    path: &'a Path,
    /// The last record that is in it.
    index: LogIndex,
    bytes: u64,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    check_empty(&args.to)?;
    std::fs::create_dir_all(&args.to).with_context(|| args.to.display().to_string())?;
    let disk = RealDisk::new(&args.to)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (about, bytes) = runtime
        .block_on(copy(args, &disk))
        .with_context(|| format!("{} has no whole backup; remove it", args.to.display()))?;
    // Without its name it is no backup to anybody.
    let index = checked(listed(&args.to, &about)).context("what was written is not a state that is whole")?;
    if index < about.index {
        bail!("it ends at record {index} and not at {}, though all was copied", about.index);
    }
    let mut text = serde_json::to_vec_pretty(&about)?;
    text.push(b'\n');
    replace_file(&disk, BACKUP, &text)?;
    let made = Made { path: &args.to, index, bytes };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&made)?);
    } else {
        println!(
            "{}: the state up to record {index}, {bytes} bytes, read back and checked",
            args.to.display()
        );
    }
    Ok(())
}

/// The backup in `dir`.
pub(crate) fn read(dir: &Path) -> anyhow::Result<ListedCopy> {
    let path = dir.join(BACKUP);
    let text = match std::fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!("{} is no backup, or one that was not finished: it has no {BACKUP}", dir.display())
        }
        read => read.with_context(|| path.display().to_string())?,
    };
    let about: Backup = serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
    if about.format != FORMAT {
        bail!("{} is of format {}, this version reads {FORMAT}", path.display(), about.format);
    }
    Ok(listed(dir, &about))
}

fn listed(dir: &Path, backup: &Backup) -> ListedCopy {
    ListedCopy { path: dir.display().to_string(), about: backup.copy, written: backup.made }
}

async fn copy(args: &Args, disk: &RealDisk) -> anyhow::Result<(Backup, u64)> {
    let hello = Hello::new(Role::Tool, "dfs-master backup", None);
    let dialled = Conn::connect(&args.from, hello, Arc::new(CallsOnly), PATIENCE).await;
    let (conn, welcome) = dialled.map_err(|error| anyhow!("no answer from the master: {error}"))?;
    wal::prepare(disk)?;
    for _ in 0..TIMES {
        let listing = ask(&conn, &ListLog {}).await?.body;
        if let Some(bytes) = fetch_all(&conn, disk, &listing).await? {
            let copy = CopyAbout {
                cluster: welcome.cluster,
                generation: listing.generation,
                facts: listing.about,
                serial: 0,
                began: listing.durable,
                whole: true,
            };
            let made = clock::now().wall.sec;
            return Ok((Backup { format: FORMAT, index: listing.durable, made, copy }, bytes));
        }
        clear(disk)?;
    }
    bail!("the master took away what was being copied {TIMES} times")
}

/// The bytes that were written; `None` when a file went meanwhile.
async fn fetch_all(conn: &Conn, disk: &RealDisk, listing: &LogListing) -> anyhow::Result<Option<u64>> {
    let snapshots = listing
        .snapshots
        .iter()
        .map(|one| (LogFile::Snapshot(one.index), snapshot::path(one.index), one.len));
    let segments = listing
        .segments
        .iter()
        .map(|one| (LogFile::Segment(one.first), segment::path(RecordNum(one.first)), one.len));
    let mut written = 0;
    for (file, path, len) in snapshots.chain(segments) {
        let out = disk.open(&path, Open::New).with_context(|| path.clone())?;
        let mut offset = 0;
        while offset < len {
            let most = u32::try_from(len - offset).unwrap_or(u32::MAX).min(LOG_READ_MAX);
            let read = ReadLog { generation: listing.generation, file, offset, len: most, before: None };
            let reply: Reply<LogBytes> = match ask(conn, &read).await {
                Err(CallError::Status(Status::NotFound, _)) => return Ok(None),
                reply => reply.with_context(|| path.clone())?,
            };
            let bytes = &reply.payload;
            if crc32c(bytes) != reply.body.crc {
                bail!("{path} came damaged");
            }
            if !reply.body.same || bytes.is_empty() {
                bail!("{path} has become shorter");
            }
            out.write_at(&[IoSlice::new(bytes)], offset).with_context(|| path.clone())?;
            offset += bytes.len() as u64;
        }
        out.sync_data().with_context(|| path.clone())?;
        written += len;
    }
    for dir in [wal::DIR, snapshot::DIR] {
        disk.sync_dir(dir)?;
    }
    Ok(Some(written))
}

async fn ask<R: Request>(conn: &Conn, request: &R) -> Result<Reply<R::Reply>, CallError> {
    loop {
        match conn.call(request, PATIENCE).await {
            Err(CallError::Status(Status::Overloaded, _)) => tokio::time::sleep(OVERLOADED).await,
            reply => return reply,
        }
    }
}

fn clear(disk: &RealDisk) -> anyhow::Result<()> {
    for dir in [wal::DIR, snapshot::DIR] {
        for entry in disk.list(dir)? {
            disk.remove(&format!("{dir}/{}", entry.name))?;
        }
    }
    Ok(())
}
