//! Files that a write may still reach which nobody waits for any more: its mount gave it up, or its session ended with
//! the file open for writing. Until such a write is surely over, nobody is given the right to cache the file: a page
//! that is kept from before it would hide it (section 14).
//!
//! A write is over when its chunk was closed to the capability that it carries (section 9), was fenced by a recovery,
//! or is gone. An open that would be given a grant has the chunks closed at once and waits a moment for that; when it
//! does not come to it, the file is opened without a grant.
//!
//! Soft: a new leader does not trust any chunk that is open when it begins. Those are many, and hardly ever is a write
//! under way to one: who opens such a file to read does not wait, and gets no grant until its chunks were closed, many
//! at a time.

use std::collections::{BTreeMap, BTreeSet};

use dfs_proto::ids::{ChunkId, Ino, ServerNum, SessionId};
use dfs_proto::planted;
use dfs_proto::units::{ChunkIndex, Micros};

use super::Core;
use super::close::Why;

/// How long an open waits for chunks to be closed.
const WAIT_MS: u64 = 1_000;
/// The next open waits again after this.
const WAIT_AGAIN_MS: u64 = 10_000;

#[derive(Clone, Debug)]
struct Left {
    chunks: BTreeSet<ChunkId>,
    /// A leader before this one may have known of a write under way; nothing says that there is one.
    by_default: bool,
    since: Micros,
    /// When an open began to wait.
    waited: Option<Micros>,
}

/// The files, and their chunks.
#[derive(Clone, Debug, Default)]
pub(super) struct Unsettled {
    inodes: BTreeMap<Ino, Left>,
    chunks: BTreeMap<ChunkId, Ino>,
}

impl Unsettled {
    fn add(&mut self, ino: Ino, chunk: ChunkId, by_default: bool, now: Micros) {
        let new = || Left { chunks: BTreeSet::new(), by_default: true, since: now, waited: None };
        let left = self.inodes.entry(ino).or_insert_with(new);
        left.since = now;
        left.by_default &= by_default;
        left.chunks.insert(chunk);
        self.chunks.insert(chunk, ino);
    }

    /// No write to the chunk is left that anybody sent before.
    pub(super) fn settled(&mut self, chunk: ChunkId) {
        let Some(ino) = self.chunks.remove(&chunk) else { return };
        if let Some(left) = self.inodes.get_mut(&ino) {
            left.chunks.remove(&chunk);
            if left.chunks.is_empty() {
                self.inodes.remove(&ino);
            }
        }
    }
}

/// What an open that would be given a grant does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Settling {
    /// It is given.
    Settled,
    /// Chunks are being closed.
    Wait,
    /// The file is opened without one.
    InDoubt,
}

impl Core {
    /// A write may be under way that nobody waits for.
    pub(super) fn unsettle(&mut self, ino: Ino) {
        for chunk in self.open_chunks_of(ino) {
            self.soft.unsettled.add(ino, chunk, false, self.now.mono);
        }
    }

    fn open_chunks_of(&self, ino: Ino) -> Vec<ChunkId> {
        // A file that is gone has nothing to cache.
        let chunks = self.state.ns.chunks_after(ino, ChunkIndex(0), usize::MAX).unwrap_or_default();
        let is_open = |chunk: &ChunkId| self.state.chunks.get(*chunk).is_some_and(|meta| meta.open);
        chunks.into_iter().map(|(_, chunk)| chunk).filter(is_open).collect()
    }

    /// A session ended without a word of what became of its writes.
    pub(super) fn unsettle_all_of(&mut self, session: SessionId) {
        for ino in self.soft.grants.written_by(session) {
            self.unsettle(ino);
        }
    }

    /// The first walk of a leader has come to an open chunk: what leaders before it knew of writes under way is lost.
    pub(super) fn unsettle_from_before(&mut self, ino: Ino, chunk: ChunkId) {
        if !self.soft.ids.is_ours(chunk.counter()) {
            self.soft.unsettled.add(ino, chunk, true, self.now.mono);
        }
    }

    /// Whether `ino` may be cached, and if not yet, has its chunks closed.
    pub(super) fn settle(&mut self, ino: Ino, write: bool) -> Settling {
        if self.soft.scan.passes() == 0 {
            self.open_chunks_of(ino).into_iter().for_each(|chunk| self.unsettle_from_before(ino, chunk));
        }
        if planted!(CacheUnsettled) || !self.soft.unsettled.inodes.contains_key(&ino) {
            return Settling::Settled;
        }
        self.pass_over_unwritten(ino);
        let now = self.now.mono;
        let Some(left) = self.soft.unsettled.inodes.get_mut(&ino) else { return Settling::Settled };
        if left.by_default && !write {
            let closing = &mut self.soft.closing;
            left.chunks.iter().for_each(|chunk| closing.hurry(*chunk, now));
            return Settling::InDoubt;
        }
        let waited = left.waited.filter(|since| now.ms_since(*since) < WAIT_AGAIN_MS);
        let waited = *left.waited.insert(waited.unwrap_or(now));
        let chunks: Vec<ChunkId> = left.chunks.iter().copied().collect();
        let mut asks: BTreeMap<ServerNum, Vec<ChunkId>> = BTreeMap::new();
        let mut all_close = true;
        for chunk in chunks {
            if self.soft.closing.is_closing(chunk) {
                continue;
            }
            match self.begin_to_settle(chunk) {
                Some(primary) => asks.entry(primary).or_default().push(chunk),
                None => all_close = false,
            }
        }
        self.ask_to_close(asks);
        if all_close && now.ms_since(waited) < WAIT_MS { Settling::Wait } else { Settling::InDoubt }
    }

    /// Nobody may ever have written a chunk that no record calls written, and then nobody can close it: what was sent
    /// under a capability is over when that surely is.
    fn pass_over_unwritten(&mut self, ino: Ino) {
        let Some(left) = self.soft.unsettled.inodes.get(&ino) else { return };
        if self.now.mono.ms_since(left.since) < 2 * self.config.session_lease_ms {
            return;
        }
        let unwritten =
            |chunk: &ChunkId| self.state.chunks.get(*chunk).is_none_or(|meta| !meta.written && !meta.synced);
        let over: Vec<ChunkId> = left.chunks.iter().copied().filter(unwritten).collect();
        over.into_iter().for_each(|chunk| self.soft.unsettled.settled(chunk));
    }

    fn begin_to_settle(&mut self, chunk: ChunkId) -> Option<ServerNum> {
        let meta = self.state.chunks.get(chunk)?;
        let may = self.can_close(chunk, &meta) && !self.hold.stands();
        if may { self.begin_close(chunk, &meta, Why::Unsettled) } else { None }
    }
}
