//! A namespace out of the headers of replicas, for the day when no master is left: which replicas are members, which
//! chunks are a file's, what the file is called and how long it is; and a state that a new master can start from.
//!
//! Pure: headers in, a state and a report out. What headers can't say is not made up: modes and owners are the narrowest,
//! empty files and links are gone. No replica is given up here: one that has no place in the new state stays where it is,
//! since the new generation is above its id, and nothing deletes what no tombstone names.

mod choose;
mod files;
mod names;
mod report;
mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use dfs_proto::ids::{ChunkId, ClusterId, Generation, Ino, LogIndex, ServerId, ServerNum, Term};
use dfs_proto::listing::{ListedDisk, ListedReplica, ListedUnfit};
use dfs_proto::meta::Finding;
use dfs_proto::units::{ChunkSize, Timespec};

use super::chunks::MEMBERS_MAX;
use super::image::StateImage;
use super::state::State;
use crate::log::entry::EntryId;

pub use report::{Remark, RemarkKind, Report};

use choose::Held;
use files::Files;
use report::Remarks;

/// A disk's whole listing.
#[derive(Clone, Debug)]
pub struct Disk {
    pub disk: ListedDisk,
    pub replicas: Vec<ListedReplica>,
    pub unfit: Vec<ListedUnfit>,
    pub damaged_slots: u32,
}

/// What no header says, or not each.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// For a cluster none of whose headers names it.
    pub chunk_size: Option<ChunkSize>,
    /// Replicas that chunks should have; else as most of them have.
    pub goal: Option<u8>,
}

/// Why no state comes of a listing.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    #[error("no disk was given")]
    NoDisks,
    #[error("disk {path} is of cluster {found}, disk {first} of {expected}: give the disks of one cluster")]
    Clusters { path: String, found: ClusterId, first: String, expected: ClusterId },
    #[error("disks {0} and {1} are the same, or a copy of it")]
    SameDisk(String, String),
    #[error("there are more servers than numbers for them")]
    Servers,
    #[error("headers name chunks of {0} and of {1} bytes: name the right one with --chunk-size")]
    ChunkSizes(u32, u32),
    #[error("no header names the cluster's chunk size: give it with --chunk-size")]
    NoChunkSize,
    #[error("generation {0} is the last that there is")]
    Generation(Generation),
    #[error("inode {0} is the last that there is")]
    Inodes(Ino),
    #[error("the state that came out is not whole: {}", first(.0))]
    NotWhole(Vec<Finding>),
}

fn first(found: &[Finding]) -> String {
    found.first().map(ToString::to_string).unwrap_or_default()
}

/// What came of a listing.
#[derive(Clone, Debug)]
pub struct Rebuilt {
    /// The entry that the state stands at: above all that any disk heard of.
    pub at: EntryId,
    pub image: StateImage,
    pub report: Report,
}

/// Numbers that hold for all of it.
#[derive(Clone, Copy, Debug)]
struct Frame {
    cluster: ClusterId,
    generation: Generation,
    chunk_size: ChunkSize,
    goal: u8,
    at: EntryId,
    /// Above the counter of every chunk seen.
    ids_below: u64,
    now: Timespec,
}

/// Makes a state of what disks hold.
///
/// # Errors
/// See [`RebuildError`].
pub fn rebuild(disks: &[Disk], options: Options, now: Timespec) -> Result<Rebuilt, RebuildError> {
    check_disks(disks)?;
    let servers = number_servers(disks)?;
    let mut remarks = Remarks::default();
    for disk in disks {
        remarks.unfit(disk);
    }
    let mut chunks: BTreeMap<ChunkId, Vec<Held<'_>>> = BTreeMap::new();
    for disk in disks {
        let server = servers[&disk.disk.server];
        for replica in &disk.replicas {
            let held = Held { server, disk: &disk.disk.path, replica };
            chunks.entry(replica.chunk).or_default().push(held);
        }
    }
    let frame = frame(disks, &chunks, options, now)?;
    let chosen = choose::all(&chunks, &mut remarks);
    let goal = options.goal.unwrap_or_else(|| usual_members(&chosen));
    let frame = Frame { goal, ..frame };
    let files = files::gather(chosen, frame.chunk_size, &mut remarks);
    let names = names::place(&files, &mut remarks);
    let state = state::build(&frame, &files, &names, &servers, disks)?;
    state.check().map_err(RebuildError::NotWhole)?;
    let report = report(&frame, disks, &servers, &files, &state, remarks);
    let image = state::image(frame.cluster, state);
    Ok(Rebuilt { at: frame.at, image, report })
}

fn check_disks(disks: &[Disk]) -> Result<(), RebuildError> {
    let first = &disks.first().ok_or(RebuildError::NoDisks)?.disk;
    for (at, Disk { disk, .. }) in disks.iter().enumerate() {
        if disk.cluster != first.cluster {
            return Err(RebuildError::Clusters {
                path: disk.path.clone(),
                found: disk.cluster,
                first: first.path.clone(),
                expected: first.cluster,
            });
        }
        if let Some(other) = disks[..at].iter().find(|other| other.disk.disk == disk.disk) {
            return Err(RebuildError::SameDisk(other.disk.path.clone(), disk.path.clone()));
        }
    }
    Ok(())
}

/// Servers get their numbers in the order of their disks. What they had is in no header.
fn number_servers(disks: &[Disk]) -> Result<BTreeMap<ServerId, ServerNum>, RebuildError> {
    let mut servers = BTreeMap::new();
    let mut last = 0_u16;
    for Disk { disk, .. } in disks {
        if let std::collections::btree_map::Entry::Vacant(new) = servers.entry(disk.server) {
            last = last.checked_add(1).ok_or(RebuildError::Servers)?;
            new.insert(ServerNum(last));
        }
    }
    Ok(servers)
}

fn frame(
    disks: &[Disk],
    chunks: &BTreeMap<ChunkId, Vec<Held<'_>>>,
    options: Options,
    now: Timespec,
) -> Result<Frame, RebuildError> {
    let of_disks = disks.iter().map(|disk| disk.disk.generation).max().unwrap_or_default();
    let newest = chunks.keys().map(|chunk| chunk.generation()).max().unwrap_or_default().max(of_disks);
    let generation = Generation(newest.0.checked_add(1).ok_or(RebuildError::Generation(newest))?);
    let term = disks.iter().map(|disk| disk.disk.max_term.0).max().unwrap_or_default();
    let index = disks.iter().map(|disk| disk.disk.max_index.0).max().unwrap_or_default();
    Ok(Frame {
        cluster: disks[0].disk.cluster,
        generation,
        chunk_size: chunk_size(chunks, options)?,
        goal: 0,
        at: EntryId { index: LogIndex(index + 1), term: Term(term + 1) },
        ids_below: chunks.keys().map(|chunk| chunk.counter() + 1).max().unwrap_or_default(),
        now,
    })
}

fn chunk_size(
    chunks: &BTreeMap<ChunkId, Vec<Held<'_>>>,
    options: Options,
) -> Result<ChunkSize, RebuildError> {
    if let Some(given) = options.chunk_size {
        return Ok(given);
    }
    let named = chunks.values().flatten().filter_map(|held| held.replica.file.as_ref());
    let mut found: Option<ChunkSize> = None;
    for size in named.map(|file| file.chunk_size) {
        match found {
            Some(other) if other != size => {
                return Err(RebuildError::ChunkSizes(other.bytes(), size.bytes()));
            }
            Some(_) | None => found = Some(size),
        }
    }
    found.ok_or(RebuildError::NoChunkSize)
}

/// As many members as most chunks' configurations have; of two numbers that as many have, the higher.
fn usual_members(chosen: &choose::Chosen<'_>) -> u8 {
    let mut counts: BTreeMap<usize, u64> = BTreeMap::new();
    for chunk in &chosen.chunks {
        *counts.entry(usize::from(chunk.named).max(chunk.members.len())).or_default() += 1;
    }
    let most = counts.into_iter().max_by_key(|(members, count)| (*count, *members));
    u8::try_from(most.map_or(1, |(members, _)| members).clamp(1, MEMBERS_MAX)).unwrap_or(1)
}

fn report(
    frame: &Frame,
    disks: &[Disk],
    servers: &BTreeMap<ServerId, ServerNum>,
    files: &Files<'_>,
    state: &State,
    remarks: Remarks,
) -> Report {
    Report {
        cluster: frame.cluster,
        generation: frame.generation,
        chunk_size: frame.chunk_size,
        goal: frame.goal,
        servers: servers.len() as u64,
        disks: disks.len() as u64,
        replicas: disks.iter().map(|disk| disk.replicas.len() as u64).sum(),
        files: files.list.len() as u64,
        directories: state.ns.counts().directories,
        chunks: state.chunks.len(),
        bytes: files.list.iter().map(|file| file.size).sum(),
        damaged_slots: disks.iter().map(|disk| u64::from(disk.damaged_slots)).sum(),
        remarks: remarks.into_list(),
    }
}
