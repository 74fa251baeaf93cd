//! Space evens out without being asked: replicas move from servers that are fuller than others by their share to those
//! that are emptier. [`plan`] decides; a move is a learner on the new server, which the chunk's primary fills, and then the
//! old member leaves as one of a drained server does: copied, verified, committed, then removed.
//!
//! What counts as used is what the files have there by the chunk map, not what is on disks: replicas that wait to be
//! deleted, and the trash, are not counted, and neither is what a move takes away once it is decided.
//!
//! Comes after everything else: no move begins while a copy for a repair, a drained server or a hot chunk is made. Keeps: a
//! chunk that somebody writes, or that is not whole, is not moved. A leader that takes over forgets the moves: a replica
//! too many goes as a cold one does.

mod plan;

use std::collections::{BTreeMap, BTreeSet};

use dfs_proto::ids::{ChunkId, ServerNum};
use dfs_proto::units::Micros;

use super::Core;
use super::chunks::ChunkMeta;
use super::command::LearnerChange;
use super::policy::{COPIES_IN, COPIES_OUT};

use plan::{END_PERMILLE, Movable, Move, Shelf, plan, spread};

/// Moves decided on and not done: a few seconds' of a fast cluster, a few minutes' of a slow one.
const MOVES_MAX: usize = 64;
/// Chunks of one server that a walk offers.
const OFFERS_MAX: usize = 64;
/// A move that has not begun by then was decided on what is old.
const BEGIN_MS: u64 = 60_000;
/// A replica that was to leave and did not: the chunk is left to the policy, as any with one too many is.
const LEAVE_MS: u64 = 60_000;
/// Whom a server serves comes first.
const BUSY_PERMILLE: u16 = 600;

#[derive(Clone, Debug)]
enum Stage {
    /// Waits for its turn.
    Planned(Micros),
    /// The new server gets a copy, from this one.
    Copying(ServerNum),
    /// The copy serves; the old one is to leave.
    Leaving(Micros),
}

#[derive(Clone, Debug)]
struct Moving {
    what: Move,
    stage: Stage,
}

/// What is being evened out.
#[derive(Clone, Debug, Default)]
pub(super) struct Balance {
    active: bool,
    moves: BTreeMap<ChunkId, Moving>,
    /// Servers that are fuller than the emptiest by more than they may be: walks look there for chunks to move.
    sources: BTreeSet<ServerNum>,
}

/// What a walk over the chunks finds for it.
#[derive(Clone, Debug, Default)]
pub(super) struct Offers {
    /// Bytes on each server, by its number.
    used: Vec<u64>,
    movable: BTreeMap<ServerNum, (u64, Vec<Movable>)>,
}

impl Offers {
    fn use_more(&mut self, server: ServerNum, bytes: u64) {
        let at = usize::from(server.0);
        if self.used.len() <= at {
            self.used.resize(at + 1, 0);
        }
        self.used[at] += bytes;
    }

    fn used(&self, server: ServerNum) -> u64 {
        self.used.get(usize::from(server.0)).copied().unwrap_or(0)
    }

    /// Keeps some of those of each server, wherever the walk met them: the first ones may have no other place.
    fn offer(&mut self, movable: Movable) {
        let (seen, kept) = self.movable.entry(movable.from).or_default();
        *seen += 1;
        if kept.len() < OFFERS_MAX {
            kept.push(movable);
            return;
        }
        let draw = super::placement::Rng(movable.chunk.0 ^ *seen).draw() % *seen;
        if let Some(place) = usize::try_from(draw).ok().and_then(|at| kept.get_mut(at)) {
            *place = movable;
        }
    }
}

impl Balance {
    pub(super) fn forget(&mut self, chunk: ChunkId) {
        self.moves.remove(&chunk);
    }

    /// Moves that are decided on and not done.
    pub(super) fn moving(&self) -> u64 {
        self.moves.len() as u64
    }

    fn copying(&self) -> impl Iterator<Item = (&Moving, ServerNum)> {
        self.moves.values().filter_map(|moving| match moving.stage {
            Stage::Copying(source) => Some((moving, source)),
            Stage::Planned(_) | Stage::Leaving(_) => None,
        })
    }
}

impl Core {
    /// A walk comes by a chunk.
    pub(super) fn note_space(&self, chunk: ChunkId, meta: &ChunkMeta, bytes: u64, offers: &mut Offers) {
        let moving = self.soft.balance.moves.get(&chunk).map(|moving| &moving.what);
        let stays = |server: &ServerNum| moving.is_none_or(|what| what.from != *server);
        meta.members.iter().filter(stays).for_each(|server| offers.use_more(server, bytes));
        let coming = moving.map(|what| what.to).filter(|to| !meta.members.contains(*to));
        let learners = meta.learners.iter().copied().filter(|learner| Some(*learner) != coming);
        learners.chain(coming).for_each(|server| offers.use_more(server, bytes));
    }

    /// A walk came by a chunk that is whole and has nothing to be done.
    pub(super) fn offer_to_move(&self, chunk: ChunkId, meta: &ChunkMeta, bytes: u64, offers: &mut Offers) {
        let balance = &self.soft.balance;
        if balance.sources.is_empty() || balance.moves.contains_key(&chunk) || !self.may_move(chunk, meta) {
            return;
        }
        for from in meta.members.iter().filter(|server| balance.sources.contains(server)) {
            let read_milli = self.soft.load.read_milli(chunk);
            offers.offer(Movable { chunk, bytes, members: meta.members.iter().collect(), read_milli, from });
        }
    }

    fn may_move(&self, chunk: ChunkId, meta: &ChunkMeta) -> bool {
        !meta.open
            && meta.is_active()
            && meta.learners.is_empty()
            && meta.leaving.is_none()
            && meta.members.len() == self.state.goal_of(meta)
            && !self.soft.recovery.is_running(chunk)
            && !self.soft.repair.is_running(chunk)
            && self.all_serve(chunk, meta, None)
    }

    /// A walk is through: decides on what it found.
    pub(super) fn balance(&mut self, offers: &Offers) {
        let shelves = self.shelves(offers);
        let room = MOVES_MAX.saturating_sub(self.soft.balance.moves.len());
        let movable: Vec<Movable> = offers.movable.values().flat_map(|(_, of)| of.iter().cloned()).collect();
        let emptiest = shelves.iter().map(Shelf::permille).min().unwrap_or(0);
        let full = |shelf: &&Shelf| shelf.permille() > emptiest + END_PERMILLE;
        let sources = shelves.iter().filter(full).map(|shelf| shelf.server).collect();
        let before = spread(&shelves);
        let next = plan(shelves, &movable, self.soft.balance.active, room);
        if next.active != self.soft.balance.active {
            let what = if next.active { "is being evened out" } else { "is even enough" };
            log::info!("space {what}: the fullest server and the emptiest differ by {before} permille");
        }
        let now = self.now.mono;
        let balance = &mut self.soft.balance;
        balance.sources = if next.active { sources } else { BTreeSet::new() };
        balance.active = next.active;
        for what in next.moves {
            balance.moves.insert(what.chunk, Moving { what, stage: Stage::Planned(now) });
        }
    }

    fn shelves(&self, offers: &Offers) -> Vec<Shelf> {
        let coming = |server: ServerNum| -> u64 {
            let planned = |moving: &&Moving| matches!(moving.stage, Stage::Planned(_) | Stage::Copying(_));
            let to = self.soft.balance.moves.values().filter(planned).filter(|m| m.what.to == server);
            to.map(|moving| moving.what.bytes).sum()
        };
        let shelf = |candidate: &super::placement::Candidate| Shelf {
            server: candidate.server,
            rack: candidate.rack.clone(),
            host: candidate.host.clone(),
            used: offers.used(candidate.server),
            total: candidate.total_bytes,
            free: candidate.free_bytes.saturating_sub(coming(candidate.server)),
            utilisation_permille: candidate.utilisation_permille,
        };
        self.soft.candidates.iter().map(shelf).collect()
    }

    pub(super) fn balance_tick(&mut self) {
        if self.soft.balance.moves.is_empty() {
            return;
        }
        self.follow_moves();
        self.begin_moves();
    }

    /// Sees how far the moves are.
    fn follow_moves(&mut self) {
        let now = self.now.mono;
        let all: Vec<(ChunkId, Moving)> =
            self.soft.balance.moves.iter().map(|(chunk, moving)| (*chunk, moving.clone())).collect();
        for (chunk, Moving { what, stage }) in all {
            let Some(meta) = self.state.chunks.get(chunk) else {
                self.soft.balance.forget(chunk);
                continue;
            };
            let (has_old, has_new) = (meta.members.contains(what.from), meta.members.contains(what.to));
            match stage {
                Stage::Planned(since) if now.ms_since(since) > BEGIN_MS => self.soft.balance.forget(chunk),
                Stage::Planned(_) => {}
                Stage::Copying(_) if has_new => self.enter_stage(chunk, Stage::Leaving(now)),
                Stage::Copying(_) if self.soft.repair.is_running(chunk) => {}
                Stage::Copying(_) => self.move_over(chunk, "move given up: the copy was not made"),
                Stage::Leaving(_) if !has_old => {
                    let names = (self.server_name(what.to), self.server_name(what.from));
                    self.move_over(
                        chunk,
                        &format!("moved: {} has it, and {} gave it back", names.0, names.1),
                    );
                }
                Stage::Leaving(since) if now.ms_since(since) > LEAVE_MS || !has_new => {
                    self.move_over(chunk, "move given up: the old replica did not leave");
                }
                Stage::Leaving(_) => {}
            }
        }
    }

    fn enter_stage(&mut self, chunk: ChunkId, stage: Stage) {
        if let Some(moving) = self.soft.balance.moves.get_mut(&chunk) {
            moving.stage = stage;
            self.soft.scan.wake();
        }
    }

    fn move_over(&mut self, chunk: ChunkId, what: &str) {
        log::info!("chunk {chunk}: {what}");
        self.soft.load.note(chunk, self.now.wall, what.to_owned());
        self.soft.balance.forget(chunk);
    }

    /// Begins what has its turn, within what copies may move.
    fn begin_moves(&mut self) {
        let copies: usize = self.soft.repair.copies_to().values().sum();
        if copies > self.soft.balance.copying().count() {
            // Others are at work, and come first.
            return;
        }
        let planned = |moving: &&Moving| matches!(moving.stage, Stage::Planned(_));
        let planned: Vec<Move> =
            self.soft.balance.moves.values().filter(planned).map(|moving| moving.what.clone()).collect();
        let mut learners = Vec::new();
        for what in planned {
            let Some(meta) = self.state.chunks.get(what.chunk) else { continue };
            if !self.may_move(what.chunk, &meta) || !self.takes_now(&what, &meta) {
                self.soft.balance.forget(what.chunk);
                continue;
            }
            let Some(source) = meta.members.primary().filter(|source| self.has_turn(*source, what.to)) else {
                continue;
            };
            if !self.soft.load.pay(what.bytes) {
                break;
            }
            self.soft.repair.begin(what.chunk, source, what.to, self.now.mono);
            if let Some(moving) = self.soft.balance.moves.get_mut(&what.chunk) {
                moving.stage = Stage::Copying(source);
            }
            let names = (self.server_name(what.from), self.server_name(what.to));
            let text = format!("move, from {} to {}: {}", names.0, names.1, what.why);
            log::info!("chunk {}: {text}", what.chunk);
            self.soft.load.note(what.chunk, self.now.wall, text);
            learners.push(LearnerChange { chunk: what.chunk, server: what.to });
        }
        if !self.add_learners(&learners) {
            learners.iter().for_each(|learner| self.soft.balance.forget(learner.chunk));
        }
    }

    /// Whether the move still has its two ends.
    fn takes_now(&self, what: &Move, meta: &ChunkMeta) -> bool {
        self.can_get(what.to, what.chunk, meta) && meta.members.contains(what.from)
    }

    /// Whether both have time for another copy.
    fn has_turn(&self, source: ServerNum, target: ServerNum) -> bool {
        let idle = |server: ServerNum| {
            let load = self.soft.servers.get(server).map_or(u16::MAX, |live| live.load.utilisation_permille);
            load <= BUSY_PERMILLE
        };
        let copying = || self.soft.balance.copying();
        let incoming = copying().filter(|(moving, _)| moving.what.to == target).count();
        let outgoing = copying().filter(|(_, from)| *from == source).count();
        idle(source) && idle(target) && incoming < COPIES_IN && outgoing < COPIES_OUT
    }

    /// The member that a chunk has besides the one that took its place.
    pub(super) fn moved_off(&self, chunk: ChunkId, meta: &ChunkMeta) -> Option<ServerNum> {
        let moving = self.soft.balance.moves.get(&chunk)?;
        let Move { from, to, .. } = moving.what;
        let leaves = matches!(moving.stage, Stage::Leaving(_) | Stage::Copying(_));
        (leaves && meta.members.contains(to) && meta.members.contains(from)).then_some(from)
    }
}
