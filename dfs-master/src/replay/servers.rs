//! Servers as they would have been: as recorded, with the load and the space of replicas that are here and not there.

use std::collections::BTreeMap;

use dfs_proto::ids::{ChunkId, ServerNum};

use super::Tracked;
use crate::core::LoadSecond;
use crate::core::policy::{CostRate, ServerView};

pub(super) fn as_here(second: &LoadSecond, chunks: &BTreeMap<ChunkId, Tracked>) -> Vec<ServerView> {
    let mut servers: BTreeMap<ServerNum, (ServerView, Shift)> =
        second.servers.iter().map(|server| (server.server, (server.clone(), Shift::default()))).collect();
    let apart = |tracked: &&Tracked| tracked.apart.is_some();
    if chunks.values().any(|tracked| apart(&tracked)) {
        let costs = Costs::of(second, chunks);
        chunks.values().filter(apart).for_each(|tracked| shift(&mut servers, &costs, tracked));
    }
    servers.into_values().map(|(server, shift)| shift.of(server)).collect()
}

/// What is other than recorded, of a server.
#[derive(Clone, Copy, Debug, Default)]
struct Shift {
    permille: f64,
    free_bytes: i128,
    copies_in: i64,
    copies_out: i64,
}

impl Shift {
    fn of(self, mut server: ServerView) -> ServerView {
        // A float saturates, and is rounded down as the policy rounds.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 1000")]
        let permille = (f64::from(server.utilisation_permille) + self.permille).clamp(0.0, 1000.0) as u16;
        server.utilisation_permille = permille;
        let free = (i128::from(server.free_bytes) + self.free_bytes).clamp(0, i128::from(server.total_bytes));
        server.free_bytes = u64::try_from(free).unwrap_or(0);
        let count = |recorded: usize, shift: i64| {
            usize::try_from(i64::try_from(recorded).unwrap_or(i64::MAX).saturating_add(shift)).unwrap_or(0)
        };
        server.copies_in = count(server.copies_in, self.copies_in);
        server.copies_out = count(server.copies_out, self.copies_out);
        server
    }
}

/// How busy a unit of load made each server: its utilisation over all that was recorded of its load.
#[derive(Debug)]
struct Costs {
    permille_per_milli: BTreeMap<ServerNum, f64>,
    capacity: BTreeMap<ServerNum, f64>,
}

impl Costs {
    fn of(second: &LoadSecond, chunks: &BTreeMap<ChunkId, Tracked>) -> Costs {
        let mut loads: BTreeMap<ServerNum, u64> = BTreeMap::new();
        for Tracked { view, .. } in chunks.values() {
            let each = view.read.spread_over(view.replicas.len()).0.saturating_add(view.write.0);
            for server in &view.replicas {
                let load = loads.entry(*server).or_default();
                *load = load.saturating_add(each);
            }
        }
        let busy = |server: &ServerView| {
            let load = loads.get(&server.server).copied().filter(|load| *load > 0)?;
            Some((server.server, f64::from(server.utilisation_permille) / load as f64))
        };
        let capacity = |server: &ServerView| {
            let can = CostRate::of_capacity(server.capacity_bytes_per_s).0.max(1);
            (server.server, can as f64)
        };
        Costs {
            permille_per_milli: second.servers.iter().filter_map(busy).collect(),
            capacity: second.servers.iter().map(capacity).collect(),
        }
    }

    /// What a unit of the chunk's load costs `server`: as measured there, if it was; else as at its holders, by what both can.
    fn of_chunk_on(&self, tracked: &Tracked, server: ServerNum) -> f64 {
        let holders = &tracked.view.replicas;
        let measured = |server: &ServerNum| self.permille_per_milli.get(server).copied();
        if let Some(cost) = measured(&server).filter(|_| holders.contains(&server)) {
            return cost;
        }
        let can = |server: &ServerNum| self.capacity.get(server).copied().unwrap_or(1.0);
        let of: Vec<f64> =
            holders.iter().filter_map(|holder| measured(holder).map(|cost| cost * can(holder))).collect();
        let mean = if of.is_empty() { 1000.0 } else { of.iter().sum::<f64>() / of.len() as f64 };
        mean / can(&server)
    }
}

fn shift(servers: &mut BTreeMap<ServerNum, (ServerView, Shift)>, costs: &Costs, tracked: &Tracked) {
    let (view, here) = (&tracked.view, tracked.replicas());
    let (there_each, here_each) =
        (view.read.spread_over(view.replicas.len()), view.read.spread_over(here.len()));
    let bytes = i128::from(view.bytes);
    for (num, (_, shift)) in servers.iter_mut() {
        let (was, is) = (view.replicas.contains(num), here.contains(num));
        let load =
            f64::from(u8::from(is)) * here_each.0 as f64 - f64::from(u8::from(was)) * there_each.0 as f64;
        if load != 0.0 {
            shift.permille += load * costs.of_chunk_on(tracked, *num);
        }
        shift.free_bytes += bytes * (i128::from(was) - i128::from(is));
    }
    let mut count = |steps: &[crate::core::policy::CopyStep], by: i64| {
        for step in steps {
            if let Some((_, shift)) = servers.get_mut(&step.target) {
                shift.copies_in += by;
                shift.free_bytes -= bytes * i128::from(by);
            }
            if let Some((_, shift)) = servers.get_mut(&step.source) {
                shift.copies_out += by;
            }
        }
    };
    count(&tracked.copies, -1);
    count(&tracked.copies_here(), 1);
}
