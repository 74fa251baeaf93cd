//! A hot chunk: whether it gets replicas, how many, where, and copied from whom.

use std::collections::BTreeMap;

use dfs_proto::ids::ServerNum;

use super::planner::{Desk, Planner};
use super::{BUSY_PERMILLE, ChunkView, CopyStep, CostRate, Direction, Held, Kind, Lack, Reason};

/// After a raise a replica has this many tenths of what makes it hot: room to grow, and far from what is cold.
const AIM_TENTHS: u128 = 7;

/// A server as busy as this gains no replica: it has little left for readers, and whom it serves now would lose by the copy.
const FULL_PERMILLE: u64 = 850;

/// Raises the chunk, or says why not.
pub(super) fn hot(planner: &mut Planner<'_>, chunk: &ChunkView) {
    if let Some(held) = stays(planner, chunk) {
        return planner.hold(chunk, held);
    }
    let replicas = chunk.replicas.len();
    let load = chunk.memory.load().max(chunk.read);
    let wanted = target(load, planner.limits.max).min(planner.bound(chunk)).max(replicas + 1);
    let (paid, unpaid) = planner.affordable(chunk);
    let most = (wanted - replicas).min(paid);
    let before = planner.busiest(chunk).map(|desk| (desk.view.server, desk.view.utilisation_permille));
    let mut copies = Vec::new();
    let mut missing = (most < wanted - replicas).then_some(unpaid);
    while copies.len() < most {
        match next_copy(planner, chunk, &copies) {
            Ok(step) => {
                planner.begin_copy(chunk, step);
                copies.push(step);
            }
            Err(lack) => {
                missing = Some(lack);
                break;
            }
        }
    }
    let (Some((busiest, busiest_permille)), false) = (before, copies.is_empty()) else {
        return planner.hold(chunk, Held::Lack(missing.unwrap_or(unpaid)));
    };
    let after: Vec<ServerNum> =
        chunk.replicas.iter().copied().chain(copies.iter().map(|step| step.target)).collect();
    planner.shift(load, &chunk.replicas, &after);
    let reason = Reason::Hot {
        read: chunk.read,
        load,
        replicas,
        max: planner.limits.max,
        hot_ms: chunk.memory.hot_ms(planner.now),
        busiest,
        busiest_permille,
        wanted,
        to: after.len(),
        lack: missing,
    };
    planner.decide(chunk, Kind::Raise { copies }, reason);
}

/// Why it gets no replicas, wherever there would be room.
fn stays(planner: &Planner<'_>, chunk: &ChunkView) -> Option<Held> {
    let (read, replicas, max) = (chunk.read, chunk.replicas.len(), planner.limits.max);
    let (hot_ms, after_ms) = (chunk.memory.hot_ms(planner.now), planner.limits.raise_after_ms);
    if let Some(held) = planner.is_unsettled(chunk) {
        return Some(held);
    }
    if replicas >= planner.bound(chunk) {
        return Some(Held::AtBound { read, replicas, max });
    }
    if hot_ms < after_ms {
        return Some(Held::NotHotLongEnough { read, replicas, max, hot_ms, after_ms });
    }
    if chunk.written {
        return Some(Held::Written);
    }
    let busiest = planner.busiest(chunk).map(|desk| desk.view)?;
    if busiest.utilisation_permille <= BUSY_PERMILLE {
        let (busiest, busiest_permille) = (busiest.server, busiest.utilisation_permille);
        return Some(Held::HoldersIdle { read, replicas, busiest, busiest_permille });
    }
    planner.cools(chunk, Direction::Up)
}

/// Replicas that would have the part of `max` that is aimed at.
fn target(read: CostRate, max: CostRate) -> usize {
    let wanted = (u128::from(read.0) * 10).div_ceil((u128::from(max.0) * AIM_TENTHS).max(1));
    usize::try_from(wanted).unwrap_or(usize::MAX)
}

/// The next copy of a raise that has these.
fn next_copy(planner: &Planner<'_>, chunk: &ChunkView, copies: &[CopyStep]) -> Result<CopyStep, Lack> {
    let holders: Vec<ServerNum> =
        chunk.replicas.iter().copied().chain(copies.iter().map(|step| step.target)).collect();
    let target = gains(planner, chunk, &holders)?;
    let (source, wave) = source(planner, chunk, copies).ok_or(Lack::Copies)?;
    Ok(CopyStep { source, target, wave })
}

/// Which server gets the replica: in a rack and on a host that have none, if there are any; of those the least busy.
fn gains(planner: &Planner<'_>, chunk: &ChunkView, holders: &[ServerNum]) -> Result<ServerNum, Lack> {
    let taken: Vec<&Desk<'_>> = planner.holders(holders).collect();
    let serving = planner.desks.values().filter(|desk| desk.view.is_serving()).count();
    // As measured: who is to be relieved.
    let busiest = planner.busiest(chunk).map_or(0, |desk| desk.view.utilisation_permille);
    let others = || {
        let other = |desk: &&Desk<'_>| desk.view.is_serving() && !holders.contains(&desk.view.server);
        planner.desks.values().filter(other)
    };
    let roomy = || others().filter(|desk| desk.has_room(chunk.bytes));
    // A second in which who writes there waited for a disk makes no idle server.
    let now = |desk: &Desk<'_>| desk.permille.max(u64::from(desk.view.lately_permille));
    let idle = || roomy().filter(|desk| now(desk) < u64::from(busiest).min(FULL_PERMILLE));
    let order = |desk: &&Desk<'_>| {
        let num = desk.view.server;
        (shares(desk, &taken), desk.busy(), desk.copies_in, desk.used_permille(), desk.view.queue, num)
    };
    let best = idle().filter(|desk| desk.takes_copies()).min_by_key(order);
    match best {
        Some(desk) => Ok(desk.view.server),
        None if others().next().is_none() => Err(Lack::Servers { serving }),
        None if roomy().next().is_none() => Err(Lack::Space { bytes: chunk.bytes }),
        None if idle().next().is_none() => Err(Lack::IdleServers { busiest_permille: busiest }),
        None => Err(Lack::Copies),
    }
}

/// What a replica on it would share with those that exist.
fn shares(desk: &Desk<'_>, taken: &[&Desk<'_>]) -> u8 {
    desk.view.site().shares(taken.iter().map(|other| other.view.site()))
}

/// From whom it is copied: whoever can begin first, of those the least busy. What is not closed is known to the primary
/// alone.
fn source(planner: &Planner<'_>, chunk: &ChunkView, copies: &[CopyStep]) -> Option<(ServerNum, usize)> {
    let mut ready: BTreeMap<ServerNum, usize> = if chunk.closed {
        chunk.replicas.iter().map(|server| (*server, 0)).collect()
    } else {
        chunk.replicas.first().map(|primary| (*primary, 0)).into_iter().collect()
    };
    if chunk.closed {
        ready.extend(copies.iter().map(|step| (step.target, step.wave + 1)));
    }
    // Something of the raise begins now, or it is not decided on.
    let last = copies.iter().map(|step| step.wave + 1).max().unwrap_or(0);
    let could = ready.iter().filter_map(|(server, from)| {
        let desk = planner.desks.get(server)?;
        let wave = (*from..=last).find(|wave| desk.gives_copies(*wave))?;
        Some((wave, desk.busy(), desk.copies_out(wave), *server))
    });
    could.min().map(|(wave, _, _, server)| (server, wave))
}
