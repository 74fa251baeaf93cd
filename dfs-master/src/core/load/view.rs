//! What the policy sees.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use dfs_proto::control::ServerLoad;
use dfs_proto::ids::{ChunkId, ServerNum};

use super::record::BUSIEST;
use crate::core::Core;
use crate::core::chunks::ChunkMeta;
use crate::core::policy::{ChunkView, Condition, Limits, ServerView, UnderWay, Usual, View, median};
use crate::core::servers::Server;

impl Core {
    /// The chunks that the policy could do something about; those that are busy besides, if they are to be told of.
    pub(super) fn load_view(&self, servers: Vec<ServerView>, limits: &Limits) -> View {
        let load = &self.soft.load;
        let mut seen: BTreeSet<ChunkId> =
            load.above.iter().chain(load.raises.keys()).chain(&load.told).copied().collect();
        let mut busy = Vec::new();
        for (chunk, watched) in &load.chunks {
            let (read, write) = (watched.read, watched.write);
            let replicas = || self.state.chunks.get(*chunk).map_or(0, |meta| meta.members.len());
            // One that is below it is hot with no number of replicas.
            let now = watched.memory.load().max(read);
            if now.exceeds(limits.max, 1) && now.exceeds(limits.max, replicas()) {
                seen.insert(*chunk);
            } else if self.config.load_log && (read.0 > 0 || write.0 > 0) {
                busy.push((Reverse(read.0.saturating_add(write.0)), *chunk));
            }
        }
        if busy.len() > BUSIEST {
            busy.select_nth_unstable(BUSIEST);
        }
        seen.extend(busy.into_iter().take(BUSIEST).map(|(_, chunk)| chunk));
        let chunks = seen.into_iter().filter_map(|chunk| self.chunk_view(chunk)).collect();
        View { chunks, servers, budget_bytes: 0 }
    }

    fn chunk_view(&self, chunk: ChunkId) -> Option<ChunkView> {
        let meta = self.state.chunks.get(chunk)?;
        let watched = self.soft.load.chunks.get(&chunk);
        Some(ChunkView {
            chunk,
            bytes: self.chunk_bytes(&meta),
            read: watched.map(|watched| watched.read).unwrap_or_default(),
            write: watched.map(|watched| watched.write).unwrap_or_default(),
            replicas: meta.members.iter().collect(),
            goal: self.state.goal_of(&meta),
            max_replicas: self.state.max_at(meta.ino),
            written: self.has_writer(&meta),
            // The primary fills, whether it is closed or not.
            closed: false,
            under_way: self.under_way(chunk, &meta),
            memory: watched.map(|watched| watched.memory).unwrap_or_default(),
        })
    }

    /// Whether somebody has it open for writing, and need not ask before the first write.
    pub(in crate::core) fn has_writer(&self, meta: &ChunkMeta) -> bool {
        meta.open && self.soft.grants.is_written(meta.ino)
    }

    /// What a copy moves: what of the file lies in the chunk.
    pub(in crate::core) fn chunk_bytes(&self, meta: &ChunkMeta) -> u64 {
        let size = u64::from(self.state.ns.chunk_size().bytes());
        let file = self.state.ns.getattr(meta.ino).map_or(0, |attr| attr.size);
        file.saturating_sub(meta.index.0.saturating_mul(size)).min(size)
    }

    fn under_way(&self, chunk: ChunkId, meta: &ChunkMeta) -> Option<UnderWay> {
        let load = &self.soft.load;
        if let Some(steps) = load.raises.get(&chunk) {
            return Some(UnderWay::Raise { to_come: steps.len() });
        }
        if meta.leaving.is_some() || load.lowers.contains_key(&chunk) || load.shed.contains(&chunk) {
            return Some(UnderWay::Lower);
        }
        let other = !meta.is_active()
            || !meta.learners.is_empty()
            || self.moved_off(chunk, meta).is_some()
            || self.soft.recovery.is_running(chunk)
            || self.soft.repair.is_running(chunk);
        other.then_some(UnderWay::Other)
    }

    pub(super) fn server_views(&self) -> Vec<ServerView> {
        let (mut copies_in, mut copies_out) = (BTreeMap::new(), BTreeMap::new());
        for step in self.soft.load.raises.values().flatten() {
            *copies_in.entry(step.target).or_insert(0) += 1;
            *copies_out.entry(step.source).or_insert(0) += 1;
        }
        let chunk_size = u64::from(self.state.ns.chunk_size().bytes());
        let coming = self.soft.repair.copies_to();
        let leaving = self.soft.gc.stale_counts();
        let bytes = |of: &BTreeMap<ServerNum, usize>, server: ServerNum| {
            (of.get(&server).copied().unwrap_or(0) as u64).saturating_mul(chunk_size)
        };
        // Of whom nobody knows what it can, it is taken that it can what the others can.
        let median = median(self.state.servers.iter().filter_map(|server| {
            let load = self.soft.servers.get(server.num)?.load;
            (!load.capacity_assumed && load.capacity_bytes_per_s > 0).then_some(load.capacity_bytes_per_s)
        }));
        let utilisation = |load: &ServerLoad| {
            let moves = load.bytes_in_per_s.max(load.bytes_out_per_s);
            let assumed =
                median.filter(|_| load.capacity_assumed).map(|median| moves.saturating_mul(1000) / median);
            let assumed = u16::try_from(assumed.unwrap_or(0)).unwrap_or(u16::MAX).min(1000);
            load.utilisation_permille.max(assumed)
        };
        let view = |server: &Server| {
            let live = self.soft.servers.get(server.num)?;
            let (total_bytes, free_bytes) = live.space();
            let usual = self.soft.load.usual.get(&server.num);
            let utilisation_permille = utilisation(&live.load);
            Some(ServerView {
                server: server.num,
                rack: server.label("rack").map(str::to_owned),
                host: server.host(),
                condition: self.condition(server),
                utilisation_permille,
                queue: live.load.queue,
                capacity_bytes_per_s: live.load.capacity_bytes_per_s,
                capacity_assumed: live.load.capacity_assumed,
                total_bytes,
                free_bytes: free_bytes.saturating_sub(bytes(&coming, server.num)),
                freeing_bytes: bytes(&leaving, server.num),
                copies_in: copies_in.get(&server.num).copied().unwrap_or(0),
                copies_out: copies_out.get(&server.num).copied().unwrap_or(0),
                p99_us: live.load.service_p99_us,
                usual_p99_us: usual.map_or(0, Usual::median),
                lately_permille: utilisation_permille,
            })
        };
        self.state.servers.iter().filter_map(view).collect()
    }

    fn condition(&self, server: &Server) -> Condition {
        let takes = || self.soft.candidates.iter().any(|candidate| candidate.server == server.num);
        if !self.soft.servers.is_up(server.num, self.now.mono) {
            Condition::Down
        } else if server.draining {
            Condition::Draining
        } else if self.is_emptied(server.num) {
            Condition::ReadOnly
        } else if takes() {
            Condition::Serving
        } else {
            Condition::Down
        }
    }
}
