//! `dfs-master restore`: a new master's directory out of the best copy of the lost one that chunk servers' disks have,
//! which standard input lists as `dfs-chunkserver headers --copies` prints them. A copy is read as a master's start would
//! read it, and nothing is written to it; the new directory gets its cluster.json when all of it is there and was checked.
//! With `--backup` the copy is the one that `dfs-master backup` made.

mod show;

use std::path::Path;

use anyhow::{Context, bail};
use dfs_daemon::notify::Startup;
use dfs_disk::Disk as _;
use dfs_disk::read_only::ReadOnly;
use dfs_disk::real::RealDisk;
use dfs_master::log::{self as wal, EntryId, Identity, Options, files};
use dfs_proto::ids::{ClusterId, Generation, LogIndex, ServerId};
use dfs_proto::listing::{Line, ListedCopy, ListedDisk};
use dfs_proto::words::in_words;
use serde::Serialize;

use crate::backup;
use crate::check::{check_all, defects};
use crate::config::Restore;
use crate::listing::{self, OfDisk};
use crate::rebuild::check_empty;
use crate::start::read_from;

/// A disk, and the copies on it.
pub(crate) type Copies = (ListedDisk, Vec<ListedCopy>);

/// What was found, and what is best.
#[derive(Debug, Serialize)]
struct Report {
    cluster: ClusterId,
    copies: Vec<Found>,
    /// The path of the best.
    best: Option<String>,
    /// The newest that a server remembers having heard from a master; `None` where no disk was looked at.
    remembered: Option<Remembered>,
    /// Records that a server heard of and the best copy lacks; `None` where the best is of an older generation, or no disk was
    /// looked at.
    missing: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize)]
struct Remembered {
    generation: Generation,
    index: LogIndex,
}

#[derive(Debug, Serialize)]
struct Found {
    #[serde(flatten)]
    copy: ListedCopy,
    /// Whose disk it is on; `None` for a backup.
    server: Option<ServerId>,
    #[serde(flatten)]
    state: State,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Usable { index: LogIndex, term: dfs_proto::ids::Term, snapshot: LogIndex },
    Unusable { why: String },
}

impl Found {
    /// By what one is better than another; `None` for one that can't be used.
    fn rank(&self) -> Option<(Generation, LogIndex, dfs_proto::ids::Term)> {
        match self.state {
            State::Usable { index, term, .. } => Some((self.copy.about.generation, index, term)),
            State::Unusable { .. } => None,
        }
    }

    fn identity(&self) -> Identity {
        let about = self.copy.about;
        Identity {
            cluster: about.cluster,
            generation: about.facts.made_in,
            chunk_size: about.facts.chunk_size,
            goal: about.facts.goal,
            created: about.facts.created,
        }
    }
}

impl OfDisk for Copies {
    fn begin(disk: ListedDisk) -> Copies {
        (disk, Vec::new())
    }

    fn take(&mut self, line: Line) -> bool {
        match line {
            Line::Copy(copy) => self.1.push(copy),
            Line::End { .. } => {}
            Line::Disk(_) | Line::Replica(_) | Line::Unfit(_) | Line::Done { .. } => return false,
        }
        true
    }
}

pub(crate) fn run(args: &Restore) -> anyhow::Result<()> {
    if let Some(dir) = &args.data {
        check_empty(dir)?;
    }
    match &args.backup {
        Some(dir) => {
            let copy = backup::read(dir)?;
            let cluster = copy.about.cluster;
            restore(args, cluster, vec![look(None, copy)], None)
        }
        None => of_disks(args),
    }
}

fn of_disks(args: &Restore) -> anyhow::Result<()> {
    let listed: Vec<Copies> = listing::read(std::io::stdin().lock())?;
    let cluster = one_cluster(&listed)?;
    // Until the end: a server that started now would go on writing its copy.
    let _locked = listed.iter().map(|(disk, _)| lock(disk)).collect::<anyhow::Result<Vec<_>>>()?;
    let remembered =
        listed.iter().map(|(disk, _)| Remembered { generation: disk.generation, index: disk.max_index });
    let remembered = remembered.max().unwrap_or_default();
    let wanted =
        |copy: &ListedCopy| args.generation.is_none_or(|only| copy.about.generation == Generation(only));
    let copies: Vec<Found> = listed
        .into_iter()
        .flat_map(|(disk, copies)| copies.into_iter().map(move |copy| (disk.server, copy)))
        .filter(|(_, copy)| wanted(copy))
        .map(|(server, copy)| look(Some(server), copy))
        .collect();
    restore(args, cluster, copies, Some(remembered))
}

fn restore(
    args: &Restore,
    cluster: ClusterId,
    mut copies: Vec<Found>,
    remembered: Option<Remembered>,
) -> anyhow::Result<()> {
    let best = best(&mut copies);
    let missing = best.and_then(|at| missing(&copies[at], remembered?));
    let path = best.map(|at| copies[at].copy.path.clone());
    let report = Report { cluster, copies, best: path, remembered, missing };
    show::show(args, &report)?;
    let Some(best) = best.map(|at| &report.copies[at]) else {
        if args.backup.is_some() {
            bail!("the backup can't be used: take another, or see `dfs recover --from-servers`");
        }
        bail!(
            "no copy of the master's log on these disks can be used: see `dfs rebuild-namespace` for what chunk headers alone \
             bring back"
        );
    };
    let Some(dir) = &args.data else { return Ok(()) };
    write(dir, best).with_context(|| format!("{}", dir.display()))?;
    if !args.json {
        println!("{} is a master's directory: run `dfs-master run --data {0}`", dir.display());
    }
    Ok(())
}

fn one_cluster(listed: &[Copies]) -> anyhow::Result<ClusterId> {
    let (first, _) = listed.first().context("no disk was given")?;
    for (disk, copies) in listed {
        let others = copies.iter().map(|copy| (&copy.path, copy.about.cluster));
        for (path, cluster) in others.chain([(&disk.path, disk.cluster)]) {
            if cluster != first.cluster {
                bail!(
                    "{path} is of cluster {cluster}, {} of {}: give the disks of one cluster",
                    first.path,
                    first.cluster
                );
            }
        }
    }
    Ok(first.cluster)
}

fn lock(disk: &ListedDisk) -> anyhow::Result<RealDisk> {
    let root = RealDisk::new(Path::new(&disk.path)).with_context(|| format!("disk {}", disk.path))?;
    match root.lock() {
        Ok(()) => Ok(root),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            bail!("disk {}: another process uses this disk; stop its chunk server", disk.path)
        }
        Err(error) => Err(error).with_context(|| format!("disk {}", disk.path)),
    }
}

/// How far a copy's log goes: every record of it is compared with its checksum, and a torn tail does not count.
fn look(server: Option<ServerId>, copy: ListedCopy) -> Found {
    let found = Found { copy, server, state: State::Unusable { why: String::new() } };
    let state = match recovered(&found) {
        Ok(log) => {
            let EntryId { index, term } = log.last().entry;
            State::Usable { index, term, snapshot: log.base().index }
        }
        Err(error) => State::Unusable { why: in_words(error.as_ref()) },
    };
    Found { state, ..found }
}

fn recovered(found: &Found) -> anyhow::Result<wal::Recovered<ReadOnly<RealDisk>>> {
    let disk = RealDisk::new(Path::new(&found.copy.path))?;
    Ok(wal::recover_as(&ReadOnly(disk), found.identity(), Options::default())?)
}

/// The last record of a copy that holds a state that is whole.
pub(crate) fn checked(copy: ListedCopy) -> anyhow::Result<LogIndex> {
    let found = Found { copy, server: None, state: State::Unusable { why: String::new() } };
    let log = recovered(&found)?;
    let index = log.last().entry.index;
    is_whole(log, index)?;
    Ok(index)
}

/// The best that also holds a state that is whole. Those that turn out to hold none are marked.
fn best(copies: &mut [Found]) -> Option<usize> {
    loop {
        let ranked = copies.iter().enumerate().filter_map(|(at, found)| Some((found.rank()?, at)));
        let (_, at) = ranked.max()?;
        let index = copies[at].rank().map(|(_, index, _)| index).unwrap_or_default();
        let Err(error) = recovered(&copies[at]).and_then(|log| is_whole(log, index)) else { return Some(at) };
        copies[at].state = State::Unusable { why: in_words(error.as_ref()) };
    }
}

/// As a start reads it, and as `dfs fsck --master-dir` checks it.
fn is_whole<D: dfs_disk::Disk>(log: wal::Recovered<D>, index: LogIndex) -> anyhow::Result<()> {
    let read = read_from(log, &Startup::silent())?;
    let last = read.log.last().entry.index;
    match defects(&mut check_all(read)?) {
        0 if last == index => Ok(()),
        0 => bail!("it ends at record {last}, not at {index}"),
        count => bail!("its state has {count} findings"),
    }
}

fn missing(best: &Found, remembered: Remembered) -> Option<u64> {
    let (generation, index, _) = best.rank()?;
    match generation.cmp(&remembered.generation) {
        std::cmp::Ordering::Less => None,
        std::cmp::Ordering::Equal => Some(remembered.index.0.saturating_sub(index.0)),
        std::cmp::Ordering::Greater => Some(0),
    }
}

fn write(dir: &Path, best: &Found) -> anyhow::Result<()> {
    let identity = best.identity();
    std::fs::create_dir_all(dir)?;
    let disk = RealDisk::new(dir)?;
    wal::prepare(&disk)?;
    files::put_back(&ReadOnly(RealDisk::new(Path::new(&best.copy.path))?), &disk, &identity)?;
    let log = wal::recover_as(&ReadOnly(disk.clone()), identity, Options::default())?;
    let index = best.rank().map(|(_, index, _)| index).unwrap_or_default();
    is_whole(log, index).context("what was written is not what the copy holds")?;
    Ok(identity.store(&disk)?)
}
