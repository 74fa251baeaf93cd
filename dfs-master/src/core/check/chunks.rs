//! Every chunk: as many pointers as it counts, a configuration that can be, versions that fit each other. And
//! every tombstone.

use std::collections::BTreeSet;

use dfs_proto::ids::{ChunkId, ChunkVersion, ConfigNum, OpenNum, ServerNum};
use dfs_proto::meta::FindingKind;

use super::book::Book;
use crate::core::chunks::{ChunkMeta, ChunkState, MEMBERS_MAX};
use crate::core::state::State;

/// Whether all chunks were looked at.
pub(super) fn step(state: &State, book: &mut Book, at: &mut u64, left: &mut usize) -> bool {
    for (chunk, meta) in state.chunks.iter_from(ChunkId(*at)) {
        if *left == 0 {
            return false;
        }
        *left -= 1;
        book.looked.chunks += 1;
        for server in meta.members.iter() {
            *book.replicas.entry(server).or_default() += 1;
        }
        one(state, book, chunk, &meta);
        let Some(next) = chunk.0.checked_add(1) else { return true };
        *at = next;
    }
    // Pointers to chunks that are not there were found with their files.
    true
}

fn one(state: &State, book: &mut Book, chunk: ChunkId, meta: &ChunkMeta) {
    let pointers = book.pointers.get(chunk.0).copied().unwrap_or(0);
    if pointers != u32::from(meta.refs) {
        let what = match pointers {
            0 => format!("no file points to it, it counts {}, and it has no tombstone (I18)", meta.refs),
            _ => format!("{pointers} pointers, and it counts {} (I18)", meta.refs),
        };
        book.find_chunk(FindingKind::Chunk, chunk, what);
    }
    if !state.knows_id(chunk) {
        let what = "its id lies outside those that were given out (I1)".to_owned();
        book.find_chunk(FindingKind::Id, chunk, what);
    }
    if state.tombstones.get(chunk).is_some() {
        book.find_chunk(FindingKind::Tombstone, chunk, "has a tombstone, and is in the map (I18)".to_owned());
    }
    for what in versions(meta).into_iter().chain(holders(state, meta)) {
        book.find_chunk(FindingKind::Chunk, chunk, what);
    }
    if !meta.members.is_empty() && meta.members.len() < state.goal_of(meta) {
        let what =
            format!("{} members of {}, of inode {}", meta.members.len(), state.goal_of(meta), meta.ino);
        book.find_chunk(FindingKind::BelowGoal, chunk, what);
    }
}

/// Numbers that fit each other.
fn versions(meta: &ChunkMeta) -> Vec<String> {
    let mut wrong = Vec::new();
    let zero = meta.version == ChunkVersion(0) || meta.config == ConfigNum(0) || meta.open_num == OpenNum(0);
    if zero {
        let (v, c, o) = (meta.version, meta.config, meta.open_num);
        wrong.push(format!("its numbers {v} {c} {o} do not all count from 1 (I2)"));
    }
    if let ChunkState::Recovering(fence) = meta.state
        && fence <= meta.version
    {
        wrong.push(format!("fenced at {fence}, not above its version {} (I2)", meta.version));
    }
    if meta.lossy > meta.fence() {
        wrong.push(format!("lost writes at {}, above its version {} (I2)", meta.lossy, meta.fence()));
    }
    if meta.synced && !meta.written {
        wrong.push("was synced, and never written".to_owned());
    }
    if meta.open && meta.digest != 0 {
        wrong.push("is open for writing, and the log says what it hashes to (I10)".to_owned());
    }
    if !meta.open && !meta.is_active() {
        wrong.push("is closed while it is being recovered (I10)".to_owned());
    }
    if meta.refs > 1 && meta.open {
        wrong.push(format!("is open for writing with {} pointers (I19)", meta.refs));
    }
    wrong
}

/// A configuration and what is being filled for it.
fn holders(state: &State, meta: &ChunkMeta) -> Vec<String> {
    let mut wrong = Vec::new();
    if meta.members.is_empty() {
        wrong.push("has no members".to_owned());
    }
    if meta.members.len() + meta.learners.len() > MEMBERS_MAX {
        wrong.push(format!("has more than {MEMBERS_MAX} members and learners"));
    }
    let mut all = BTreeSet::new();
    let unknown = |server: &ServerNum| server.0 == 0 || state.servers.get(*server).is_none();
    for server in meta.members.iter() {
        if !all.insert(server) {
            wrong.push(format!("has {server} for a member twice"));
        }
    }
    for server in &meta.learners {
        if !all.insert(*server) {
            wrong.push(format!("fills {server}, which it has already"));
        }
    }
    for server in all.into_iter().filter(unknown) {
        wrong.push(format!("is on {server}, which never registered"));
    }
    if !meta.is_active() && !meta.learners.is_empty() {
        wrong.push("fills a learner while it is being recovered (I16)".to_owned());
    }
    if let Some(server) = meta.leaving {
        if !meta.members.contains(server) || meta.members.primary() == Some(server) {
            wrong.push(format!("lets {server} go, which is no member that can"));
        }
        if !meta.is_active() || !meta.learners.is_empty() {
            wrong.push(format!("lets {server} go while another change is under way (I16)"));
        }
    }
    wrong
}

/// Whether all tombstones were looked at.
pub(super) fn tombstones(state: &State, book: &mut Book, at: &mut u64, left: &mut usize) -> bool {
    for (chunk, tombstone) in state.tombstones.iter_from(ChunkId(*at)) {
        if *left == 0 {
            return false;
        }
        *left -= 1;
        book.looked.tombstones += 1;
        let mut find = |kind, what| book.find_chunk(kind, chunk, what);
        if !state.knows_id(chunk) {
            find(
                FindingKind::Id,
                "its tombstone's id lies outside those that were given out (I1)".to_owned(),
            );
        }
        if tombstone.index > state.applied {
            let what =
                format!("its tombstone is of record {}, after the last, {}", tombstone.index, state.applied);
            find(FindingKind::Tombstone, what);
        }
        if tombstone.version == ChunkVersion(0) {
            find(FindingKind::Tombstone, "its tombstone has no version".to_owned());
        }
        for server in tombstone.servers.iter().filter(|server| state.servers.get(**server).is_none()) {
            find(FindingKind::Tombstone, format!("its tombstone names {server}, which never registered"));
        }
        let Some(next) = chunk.0.checked_add(1) else { return true };
        *at = next;
    }
    true
}
