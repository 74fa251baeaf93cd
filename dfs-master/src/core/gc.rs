//! What goes away: inodes that lost their last name and handle, replicas of chunks that have a
//! tombstone, replicas that a configuration left behind.
//!
//! Keeps the master's part of I17: a replica is deleted only for a logged decision that a snapshot on the
//! disk contains, and after its delay. What an inventory lacks or has too much decides nothing.

use std::collections::{BTreeMap, BTreeSet};

use dfs_proto::control::{COMMAND_BATCH, Delete, DeleteChunk, Deleted};
use dfs_proto::ids::{ChunkId, Ino, LogIndex, ServerNum};
use dfs_proto::planted;
use dfs_proto::status::Status;
use dfs_proto::units::Micros;

use super::Core;
use super::command::Command;
use super::ops::FreeInodes;
use super::reply::{Asked, COMMAND_DEADLINE_MS};

/// Orphans looked at in a tick, and freed by one record.
const ORPHANS: usize = 4096;
/// Tombstones looked at in a round.
const TOMBSTONES: usize = 8192;
/// Rounds come once a second.
const ROUND_MS: u64 = 1_000;
/// A tombstone outlives its replicas by a week: a server that was away for longer is looked at by a
/// person before what it brings back is believed.
const HORIZON_S: i64 = 7 * 24 * 3600;
/// Replicas to delete that are remembered; inventories name the others again.
const STALE_MAX: usize = 1 << 20;

/// A replica that no configuration counts on.
#[derive(Clone, Copy, Debug)]
struct Stale {
    /// What the log held when it was known to be stale.
    index: LogIndex,
    since: Micros,
    /// A configuration was content without it: of a closed chunk, and the others hold the same (D3).
    surplus: bool,
}

/// What is under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Gc {
    freeing: bool,
    finishing: bool,
    orphan_cursor: Ino,
    cursor: ChunkId,
    next_round: Micros,
    /// Servers that have been told to delete these and have not answered.
    busy: BTreeMap<ServerNum, Vec<ChunkId>>,
    /// Which servers of a tombstone have deleted.
    deleted: BTreeMap<ChunkId, BTreeSet<ServerNum>>,
    stale: BTreeMap<(ServerNum, ChunkId), Stale>,
}

impl Gc {
    /// A server has a replica that it should not have.
    pub(super) fn stale(&mut self, server: ServerNum, chunk: ChunkId, index: LogIndex, now: Micros) {
        if self.stale.len() < STALE_MAX {
            self.stale.entry((server, chunk)).or_insert(Stale { index, since: now, surplus: false });
        }
    }

    /// A replica above the goal has left, which nobody need wait for.
    pub(super) fn surplus(&mut self, server: ServerNum, chunk: ChunkId) {
        if let Some(stale) = self.stale.get_mut(&(server, chunk)) {
            stale.surplus = true;
        }
    }

    /// It became a member again.
    pub(super) fn not_stale(&mut self, server: ServerNum, chunk: ChunkId) {
        self.stale.remove(&(server, chunk));
    }

    /// Whether it has an old replica that a fill can start from.
    pub(super) fn has_stale(&self, server: ServerNum, chunk: ChunkId) -> bool {
        self.stale.contains_key(&(server, chunk))
    }

    /// Servers that have a replica of the chunk which no configuration counts on.
    pub(super) fn stale_holders(&self, chunk: ChunkId) -> impl Iterator<Item = ServerNum> + '_ {
        self.stale.keys().filter(move |(_, of)| *of == chunk).map(|(server, _)| *server)
    }

    /// How many replicas of each server go.
    pub(super) fn stale_counts(&self) -> BTreeMap<ServerNum, usize> {
        let mut counts = BTreeMap::new();
        self.stale.keys().for_each(|(server, _)| *counts.entry(*server).or_insert(0) += 1);
        counts
    }

    /// Whether an order to delete is under way there.
    pub(super) fn is_deleting(&self, server: ServerNum, chunk: ChunkId) -> bool {
        self.busy.get(&server).is_some_and(|chunks| chunks.contains(&chunk))
    }

    pub(super) fn freed(&mut self) {
        self.freeing = false;
    }

    pub(super) fn finished(&mut self) {
        self.finishing = false;
    }
}

impl Core {
    pub(super) fn gc_tick(&mut self) {
        if self.hold.stands() {
            return;
        }
        self.free_orphans();
        if self.now.mono >= self.soft.gc.next_round {
            self.soft.gc.next_round = self.now.mono.plus_ms(ROUND_MS);
            self.delete_round();
        }
    }

    /// Frees nameless inodes that nobody has open. Until every session has spoken, one that has not may
    /// have any of them open.
    fn free_orphans(&mut self) {
        if self.soft.gc.freeing || !self.soft.sessions.all_spoke() {
            return;
        }
        let from = self.soft.gc.orphan_cursor;
        let looked: Vec<Ino> = self.state.ns.orphans().skip_while(|ino| *ino < from).take(ORPHANS).collect();
        self.soft.gc.orphan_cursor = looked.last().map_or(Ino(0), |last| Ino(last.0 + 1));
        let free = |ino: &Ino| !self.soft.grants.is_open_by_any(*ino) && self.state.ns.intent(*ino).is_none();
        let inos: Vec<Ino> = looked.into_iter().filter(free).collect();
        if !inos.is_empty() {
            self.soft.gc.freeing = self.propose_own(Command::FreeInodes(FreeInodes { inos }));
        }
    }

    fn delete_round(&mut self) {
        let mut orders: BTreeMap<ServerNum, Vec<DeleteChunk>> = BTreeMap::new();
        let (mut done, mut forget) = (Vec::new(), Vec::new());
        let delay_s = i64::try_from(self.config.gc_delay_ms / 1000).unwrap_or(i64::MAX);
        let (wall, checkpoint) = (self.now.wall.sec, self.log.snapshot);
        let mut last = None;
        let mut wants_snapshot = false;
        for (chunk, tombstone) in self.state.tombstones.iter_from(self.soft.gc.cursor).take(TOMBSTONES) {
            last = Some(chunk);
            let age_s = wall.saturating_sub(tombstone.sec);
            if tombstone.done {
                // What a person is to look at must not come back as a chunk that nobody knows.
                let kept = self.state.given_up.contains_key(&chunk);
                if !kept && age_s > HORIZON_S.saturating_add(delay_s) {
                    forget.push(chunk);
                }
                continue;
            }
            if age_s < delay_s {
                continue;
            }
            if tombstone.index > checkpoint {
                wants_snapshot = true;
                continue;
            }
            let gone = self.soft.gc.deleted.get(&chunk);
            let left =
                tombstone.servers.iter().filter(|server| !gone.is_some_and(|gone| gone.contains(server)));
            let mut any = false;
            for server in left {
                any = true;
                let order = DeleteChunk { chunk, up_to: None, tombstone: tombstone.index, surplus: false };
                orders.entry(*server).or_default().push(order);
            }
            if !any {
                done.push(chunk);
            }
        }
        self.soft.gc.cursor = last.map_or(ChunkId(0), |last| ChunkId(last.0.saturating_add(1)));
        wants_snapshot |= self.order_stale(&mut orders);
        self.log.snapshot_wanted |= wants_snapshot;
        self.send_orders(orders);
        self.finish_tombstones(done, forget);
    }

    /// Adds orders for replicas that configurations left behind. Whether a snapshot is needed first.
    fn order_stale(&self, orders: &mut BTreeMap<ServerNum, Vec<DeleteChunk>>) -> bool {
        let mut wants_snapshot = false;
        for ((server, chunk), stale) in self.soft.gc.stale.iter().take(TOMBSTONES) {
            let kept = self.state.given_up.contains_key(chunk);
            let meta = self.state.chunks.get(*chunk);
            let surplus = stale.surplus && meta.is_some();
            if kept || (!surplus && self.now.mono.ms_since(stale.since) < self.config.gc_delay_ms) {
                continue;
            }
            let tombstone = self.state.tombstones.get(*chunk);
            let index = tombstone.map_or(stale.index, |tombstone| tombstone.index);
            if index > self.log.snapshot {
                wants_snapshot = true;
                continue;
            }
            let up_to = match meta {
                None if tombstone.is_some() || planted!(DeleteFromInventory) => None,
                None => continue,
                Some(meta) => {
                    let holds = meta.members.contains(*server) || meta.learners.contains(server);
                    // A learner whose record is on its way to the log may be this server.
                    let holds = holds || self.soft.repair.is_running(*chunk);
                    // D5: until every member has all of it on its disk, and the log what it hashes to, an old
                    // replica may be the last that holds something.
                    if holds
                        || !meta.is_active()
                        || meta.open
                        || meta.members.len() < self.state.goal_of(&meta)
                    {
                        continue;
                    }
                    // What it has is of an earlier configuration than the one it is not in.
                    let before = dfs_proto::ids::ConfigNum(meta.config.0.saturating_sub(1));
                    Some((meta.version, before))
                }
            };
            let order = DeleteChunk { chunk: *chunk, up_to, tombstone: index, surplus };
            orders.entry(*server).or_default().push(order);
        }
        wants_snapshot
    }

    fn send_orders(&mut self, orders: BTreeMap<ServerNum, Vec<DeleteChunk>>) {
        let (term, checkpoint) = (self.term(), self.log.snapshot);
        for (server, mut chunks) in orders {
            let up = self.soft.servers.is_up(server, self.now.mono);
            if !up || self.soft.gc.busy.contains_key(&server) {
                continue;
            }
            chunks.truncate(COMMAND_BATCH);
            let named: Vec<ChunkId> = chunks.iter().map(|order| order.chunk).collect();
            let request = Delete { term, checkpoint, chunks };
            let asked = Asked::Delete { server, chunks: named.clone() };
            if self.call(server, &request, asked, COMMAND_DEADLINE_MS, checkpoint) {
                self.soft.gc.busy.insert(server, named);
            }
        }
    }

    pub(super) fn deleted(&mut self, server: ServerNum, chunks: &[ChunkId], result: Result<Deleted, Status>) {
        self.soft.gc.busy.remove(&server);
        let results = result.map(|deleted| deleted.results).unwrap_or_default();
        for (chunk, status) in chunks.iter().zip(results) {
            if status != Status::Ok {
                log::warn!("{server} does not delete chunk {chunk}: {status}");
                continue;
            }
            self.soft.gc.stale.remove(&(server, *chunk));
            if self.state.tombstones.get(*chunk).is_some_and(|tombstone| !tombstone.done) {
                self.soft.gc.deleted.entry(*chunk).or_default().insert(server);
            }
        }
    }

    fn finish_tombstones(&mut self, done: Vec<ChunkId>, forget: Vec<ChunkId>) {
        if self.soft.gc.finishing || (done.is_empty() && forget.is_empty()) {
            return;
        }
        if self.propose_own(Command::Tombstones { done: done.clone(), forget }) {
            self.soft.gc.finishing = true;
            done.iter().for_each(|chunk| {
                self.soft.gc.deleted.remove(chunk);
            });
        }
    }

    /// Chunks have their tombstones: whatever was under way for them is void.
    pub(super) fn forget_chunks(&mut self, chunks: &[ChunkId]) {
        chunks.iter().for_each(|chunk| self.soft.forget_chunk(*chunk));
    }
}
