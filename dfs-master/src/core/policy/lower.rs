//! Replicas above the goal that go: from full disks, above a bound, and those that nobody needs any more.

use std::collections::BTreeSet;

use dfs_proto::ids::{ChunkId, ServerNum};

use super::planner::{Desk, Planner};
use super::{ChunkView, Direction, Held, Kind, Reason, ServerView};

/// Servers that are short of space give back surplus replicas, the coldest first, however much they are read. The chunks,
/// hottest first; those that lose one.
pub(super) fn for_space(planner: &mut Planner<'_>, chunks: &[&ChunkView]) -> BTreeSet<ChunkId> {
    let mut freed = BTreeSet::new();
    let short: Vec<&ServerView> =
        planner.desks.values().map(|desk| desk.view).filter(|view| view.short_bytes() > 0).collect();
    for view in short {
        let mut wanted = view.short_bytes();
        for chunk in chunks.iter().rev() {
            if wanted == 0 {
                break;
            }
            let (replicas, goal) = (chunk.replicas.len(), chunk.goal);
            let free_to_change = planner.is_unsettled(chunk).is_none()
                && planner.cools(chunk, Direction::Down).is_none()
                && !freed.contains(&chunk.chunk);
            if replicas <= goal || !free_to_change || !may_go(planner, chunk, view.server) {
                continue;
            }
            wanted = wanted.saturating_sub(chunk.bytes);
            freed.insert(chunk.chunk);
            let free_permille = view.free_bytes / (view.total_bytes / 1000).max(1);
            let reason = Reason::Space { server: view.server, free_permille, replicas, goal };
            goes(planner, chunk, view.server, reason);
        }
    }
    freed
}

/// A chunk that is not hot loses a replica that it has too many, or it is said why not.
pub(super) fn cold(planner: &mut Planner<'_>, chunk: &ChunkView) {
    let replicas = chunk.replicas.len();
    if replicas <= chunk.goal {
        return;
    }
    match why(planner, chunk).and_then(|reason| loses(planner, chunk).map(|server| (server, reason))) {
        Ok((server, reason)) => goes(planner, chunk, server, reason),
        Err(held) => planner.hold(chunk, held),
    }
}

fn why(planner: &Planner<'_>, chunk: &ChunkView) -> Result<Reason, Held> {
    let read = chunk.memory.recent();
    let (replicas, peak) = (chunk.replicas.len(), chunk.memory.peak().max(read));
    let (min, after_ms) = (planner.limits.min, planner.limits.lower_after_ms);
    let watched_ms = chunk.memory.watched_ms(planner.now);
    if let Some(held) = planner.is_unsettled(chunk) {
        return Err(held);
    }
    let bound = planner.bound(chunk);
    let reason = if replicas > bound {
        Reason::Bound { replicas, bound }
    } else if !read.is_under(min, replicas - 1) {
        return Err(Held::Used { read, replicas, min });
    } else if watched_ms < after_ms || !peak.is_under(min, replicas - 1) {
        return Err(Held::NotColdLongEnough { peak, replicas, min, watched_ms, after_ms });
    } else {
        Reason::Cold { peak, over_ms: after_ms, replicas, min }
    };
    planner.cools(chunk, Direction::Down).map_or(Ok(reason), Err)
}

/// Who loses its replica: the busiest that may, of equals the fullest.
fn loses(planner: &Planner<'_>, chunk: &ChunkView) -> Result<ServerNum, Held> {
    let may = planner.holders(&chunk.replicas).filter(|desk| may_go(planner, chunk, desk.view.server));
    let busiest = may.max_by_key(|desk| (desk.busy(), desk.used_permille(), desk.view.server));
    let (replicas, goal) = (chunk.replicas.len(), chunk.goal);
    busiest.map(|desk| desk.view.server).ok_or(Held::Spread { replicas, goal })
}

/// Whether the others are in as many racks and on as many hosts as the goal asks for and they were. The primary stays:
/// writes that it has numbered are known to it alone.
fn may_go(planner: &Planner<'_>, chunk: &ChunkView, server: ServerNum) -> bool {
    let all: Vec<&Desk<'_>> = planner.holders(&chunk.replicas).collect();
    let others: Vec<&Desk<'_>> = all.iter().filter(|desk| desk.view.server != server).copied().collect();
    let racks = |desks: &[&Desk<'_>]| {
        desks.iter().filter_map(|desk| desk.view.rack.as_deref()).collect::<BTreeSet<_>>().len()
    };
    let hosts =
        |desks: &[&Desk<'_>]| desks.iter().map(|desk| desk.view.host.as_str()).collect::<BTreeSet<_>>().len();
    let asked = |had: usize| had.min(chunk.goal);
    chunk.replicas.contains(&server)
        && chunk.replicas.first() != Some(&server)
        && racks(&others) >= asked(racks(&all))
        && hosts(&others) >= asked(hosts(&all))
}

fn goes(planner: &mut Planner<'_>, chunk: &ChunkView, server: ServerNum, reason: Reason) {
    let left: Vec<ServerNum> = chunk.replicas.iter().copied().filter(|other| *other != server).collect();
    planner.shift(chunk.read, &chunk.replicas, &left);
    planner.decide(chunk, Kind::Lower { server }, reason);
}
