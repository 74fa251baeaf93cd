//! Which replicas move so that all servers are about as full: a pure function, [`plan`], of the servers' shares and of
//! chunks that could move.
//!
//! Begins where the fullest server and the emptiest differ by more than [`BEGIN_PERMILLE`], and ends at [`END_PERMILLE`]:
//! what files come and go makes no replica move.
//!
//! Keeps: a move makes the two servers' shares more equal and never turns them round, so that no sequence of moves comes
//! back to where it was; a chunk's replicas are as far apart after it as before.

use std::collections::BTreeSet;
use std::fmt;

use dfs_proto::ids::{ChunkId, ServerNum};

use crate::core::placement::Site;

/// Servers' shares differ by more: replicas move.
pub(super) const BEGIN_PERMILLE: u64 = 50;
/// And until they differ by no more than this.
pub(super) const END_PERMILLE: u64 = 30;
/// A server that is busier serves whom it serves.
const BUSY_PERMILLE: u16 = 600;
/// Share of a server that is free after a copy came: it is to be evened out, not filled.
const ROOM_PERMILLE: u64 = 20;
/// Of the fullest, and of the emptiest, so many are looked at for one move.
const SERVERS: usize = 8;

/// A server that takes replicas.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Shelf {
    pub(super) server: ServerNum,
    pub(super) rack: Option<String>,
    pub(super) host: String,
    /// Bytes of the replicas that stay there, and of those that come.
    pub(super) used: u64,
    /// What it offers.
    pub(super) total: u64,
    /// What is left on its disks.
    pub(super) free: u64,
    pub(super) utilisation_permille: u16,
}

/// A replica that could move: of a chunk that nobody writes, that is whole and has no change under way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Movable {
    pub(super) chunk: ChunkId,
    pub(super) bytes: u64,
    pub(super) members: Vec<ServerNum>,
    /// Cost of its reads a second, in thousandths.
    pub(super) read_milli: u64,
    pub(super) from: ServerNum,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Move {
    pub(super) chunk: ChunkId,
    pub(super) from: ServerNum,
    pub(super) to: ServerNum,
    pub(super) bytes: u64,
    pub(super) why: Why,
}

/// How full both were, in permille.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Why {
    pub(super) from_permille: u64,
    pub(super) to_permille: u64,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let points = |permille: u64| format!("{}.{}", permille / 10, permille % 10);
        let (from, to) = (points(self.from_permille), points(self.to_permille));
        write!(f, "that one is {from} % full and this one {to} %")
    }
}

/// What [`plan`] comes to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Plan {
    /// The shares are being evened out.
    pub(super) active: bool,
    pub(super) moves: Vec<Move>,
}

impl Shelf {
    pub(super) fn permille(&self) -> u64 {
        share(self.used, self.total)
    }

    fn has_room(&self, bytes: u64) -> bool {
        self.free.saturating_sub(bytes) > self.total / 1000 * ROOM_PERMILLE
    }

    fn site(&self) -> Site<'_> {
        Site { rack: self.rack.as_deref(), host: &self.host }
    }

    fn shares(&self, others: &[&Shelf]) -> u8 {
        self.site().shares(others.iter().map(|other| other.site()))
    }
}

fn share(used: u64, total: u64) -> u64 {
    u64::try_from(u128::from(used) * 1000 / u128::from(total.max(1))).unwrap_or(u64::MAX)
}

/// By how much the fullest and the emptiest differ.
pub(super) fn spread(shelves: &[Shelf]) -> u64 {
    let all = || shelves.iter().filter(|shelf| shelf.total > 0).map(Shelf::permille);
    all().max().unwrap_or(0) - all().min().unwrap_or(0)
}

/// Up to `most` moves; `active` as the plan before said.
pub(super) fn plan(mut shelves: Vec<Shelf>, movable: &[Movable], active: bool, most: usize) -> Plan {
    shelves.retain(|shelf| shelf.total > 0);
    let limit = if active { END_PERMILLE } else { BEGIN_PERMILLE };
    if spread(&shelves) <= limit {
        return Plan::default();
    }
    // The coldest first: whoever reads a replica finds it where it was.
    let mut movable: Vec<&Movable> = movable.iter().filter(|chunk| chunk.bytes > 0).collect();
    movable.sort_by_key(|chunk| (chunk.read_milli, chunk.chunk));
    let (mut moves, mut moved) = (Vec::new(), BTreeSet::new());
    while moves.len() < most
        && let Some(next) = next_move(&shelves, &movable, &moved)
    {
        moved.insert(next.chunk);
        for shelf in &mut shelves {
            if shelf.server == next.from {
                shelf.used = shelf.used.saturating_sub(next.bytes);
            } else if shelf.server == next.to {
                shelf.used += next.bytes;
                shelf.free = shelf.free.saturating_sub(next.bytes);
            }
        }
        moves.push(next);
    }
    Plan { active: true, moves }
}

/// From the fullest to the emptiest, else between the next two that differ enough.
fn next_move(shelves: &[Shelf], movable: &[&Movable], moved: &BTreeSet<ChunkId>) -> Option<Move> {
    let mut by_share: Vec<&Shelf> = shelves.iter().collect();
    by_share.sort_by_key(|shelf| (shelf.permille(), shelf.server));
    for from in by_share.iter().rev().take(SERVERS) {
        for to in by_share.iter().take(SERVERS) {
            if from.permille().saturating_sub(to.permille()) <= END_PERMILLE {
                break;
            }
            if to.utilisation_permille > BUSY_PERMILLE {
                continue;
            }
            let of =
                movable.iter().filter(|chunk| chunk.from == from.server && !moved.contains(&chunk.chunk));
            if let Some(chunk) = of.into_iter().find(|chunk| is_better(shelves, chunk, from, to)) {
                let why = Why { from_permille: from.permille(), to_permille: to.permille() };
                let (from, to) = (from.server, to.server);
                return Some(Move { chunk: chunk.chunk, from, to, bytes: chunk.bytes, why });
            }
        }
    }
    None
}

/// Whether the chunk is as well off there, and the two servers are nearer to each other after.
fn is_better(shelves: &[Shelf], chunk: &Movable, from: &Shelf, to: &Shelf) -> bool {
    if chunk.members.contains(&to.server) || !to.has_room(chunk.bytes) {
        return false;
    }
    let stays = |shelf: &&Shelf| chunk.members.contains(&shelf.server) && shelf.server != from.server;
    let others: Vec<&Shelf> = shelves.iter().filter(stays).collect();
    // Whom nothing is known of may share anything with the new one.
    let known = others.len() + 1 == chunk.members.len();
    let after =
        (share(from.used.saturating_sub(chunk.bytes), from.total), share(to.used + chunk.bytes, to.total));
    known && to.shares(&others) <= from.shares(&others) && after.0 >= after.1
}

#[cfg(test)]
mod tests;
