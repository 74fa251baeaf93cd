//! Chunks that a punch left nothing but holes in: they leave their file's map.
//!
//! The zeros themselves are ordered writes, acknowledged before this begins, so that a chunk goes changes nothing of
//! what anybody reads: it is closed to all capabilities given for it (section 9), and goes only if every member then
//! says that it has holes alone. Who still knows its place reads zeros there, which is the truth until somebody writes
//! to the index, and is refused when it writes. A close of a chunk that nobody writes any more ends the same way.
//!
//! Invariant: a write takes effect once (I23). A chunk takes along which operations it has applied, so it goes only
//! while nobody can be about to repeat one: of its file no other session has a grant or an open, and of its own the
//! session that asks has answers.

use std::collections::{BTreeMap, BTreeSet};

use dfs_proto::ids::{ChunkId, Ino, ServerNum};
use dfs_proto::meta::{DROP_MAX, DropHoles, GrantKind, HoleChunk};
use dfs_proto::planted;
use dfs_proto::status::Status;

use super::Core;
use super::close::Why;
use super::command::CloseDone;
use super::dispatch::Client;
use super::reply::Caller;

/// A session that waits for what becomes of chunks.
#[derive(Clone, Debug)]
struct Waiting {
    caller: Caller,
    ino: Ino,
    left: BTreeSet<ChunkId>,
}

/// Who waits: at most as many as have requests under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Drops {
    waiting: Vec<Waiting>,
}

impl Core {
    pub(super) fn drop_holes(&mut self, client: &Client, request: &DropHoles) -> Result<(), Status> {
        let DropHoles { ino, chunks } = request;
        if chunks.len() > DROP_MAX {
            return Err(Status::TooLarge);
        }
        self.state.ns.getattr(*ino)?;
        let alone = self.soft.grants.held(*ino, client.session).kind == GrantKind::Write
            || planted!(DropBesideOthers);
        let mut asks: BTreeMap<ServerNum, Vec<ChunkId>> = BTreeMap::new();
        for hole in chunks.iter().filter(|_| alone) {
            if let Some(primary) = self.begin_drop(*ino, hole) {
                asks.entry(primary).or_default().push(hole.chunk);
            }
        }
        self.ask_to_close(asks);
        let left = chunks.iter().map(|hole| hole.chunk).collect();
        self.soft.drops.waiting.push(Waiting { caller: client.caller, ino: *ino, left });
        Ok(())
    }

    fn begin_drop(&mut self, ino: Ino, hole: &HoleChunk) -> Option<ServerNum> {
        let HoleChunk { index, chunk, version } = *hole;
        let there = self.state.ns.chunk_at(ino, index) == Ok(Some(chunk));
        let meta = self.state.chunks.get(chunk).filter(|meta| there && meta.version == version)?;
        let may = meta.closes_at(version, meta.open_num)
            && !self.soft.closing.is_closing(chunk)
            && !self.soft.recovery.is_running(chunk)
            && self.soft.sessions.all_spoke()
            && !self.hold.stands()
            && self.state.ns.intent(ino).is_none();
        if may { self.begin_close(chunk, &meta, Why::Hole) } else { None }
    }

    /// Answers those of whose chunks none is being closed any more.
    pub(super) fn answer_drops(&mut self) {
        if self.soft.drops.waiting.is_empty() {
            return;
        }
        let closing = &self.soft.closing;
        let over = |waiting: &mut Waiting| {
            waiting.left.retain(|chunk| closing.is_closing(*chunk));
            waiting.left.is_empty()
        };
        let over: Vec<Waiting> = self.soft.drops.waiting.extract_if(.., over).collect();
        for Waiting { caller, ino, .. } in over {
            match self.state.ns.getattr(ino) {
                Ok(attr) => self.reply(caller, &attr),
                Err(status) => self.fail(caller, status),
            }
        }
    }

    /// Those that are still there went on meanwhile.
    pub(super) fn holes_applied(&mut self, chunks: &[CloseDone]) {
        for hole in chunks {
            if self.state.chunks.contains(hole.chunk) {
                self.close_failed(hole.chunk);
            }
        }
    }
}
