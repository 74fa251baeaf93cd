//! What tools are told of load, and tell the policy.

use dfs_proto::ids::{ChunkId, ServerNum};
use dfs_proto::meta::{
    ChangeReport, ChunkChange, ChunkChanges, ChunkExplained, ChunkHeatReport, ExplainChunk, Heat, HeatReport,
    Policy, PolicyReport,
};
use dfs_proto::status::Status;
use dfs_proto::words::path_in_words;
use serde_bytes::ByteBuf;

use crate::core::Core;
use crate::core::command::Command;
use crate::core::dispatch::Then;
use crate::core::policy::Limits;
use crate::core::reply::Caller;

/// Chunks that one answer names.
const CHUNKS_MAX: usize = 1_000;

impl Core {
    pub(in crate::core) fn policy(&mut self, caller: Caller, change: &Policy) -> Result<(), Status> {
        let changed = self.state.policy.changed_by(change);
        match changed {
            Ok(thresholds) if thresholds != self.state.policy => {
                self.propose(None, Command::SetPolicy(thresholds), Then::Policy(caller))?;
            }
            Ok(_) => self.reply_policy(caller, None),
            Err(why) => self.reply_policy(caller, Some(why)),
        }
        Ok(())
    }

    pub(in crate::core) fn reply_policy(&mut self, caller: Caller, refused: Option<String>) {
        let limits = self.limits();
        let report = PolicyReport {
            refused,
            set: self.state.policy.as_written(),
            max_milli: limits.max.0,
            min_milli: limits.min.0,
            budget_bytes_per_s: limits.budget_bytes_per_s,
            pace_permille: self.soft.load.pace.permille(),
            raising: self.soft.load.raises.values().map(|steps| steps.len() as u64).sum(),
            lowering: self.soft.load.lowers.len() as u64,
        };
        let after = self.after_durable(self.state.applied);
        self.reply_at(caller, &report, self.state.applied, after);
    }

    pub(super) fn limits(&self) -> Limits {
        self.state.policy.limits(&self.server_views())
    }

    pub(in crate::core) fn heat(&self, asked: &Heat) -> Result<HeatReport, Status> {
        let most = usize::try_from(asked.most).unwrap_or(CHUNKS_MAX).min(CHUNKS_MAX);
        let chunks: Vec<ChunkId> = match asked.ino {
            Some(ino) => {
                let of = self.state.ns.chunks(ino, dfs_proto::units::ChunkIndex(0), u64::MAX)?;
                of.into_iter().map(|(_, chunk)| chunk).take(most).collect()
            }
            None => {
                let mut busy: Vec<(u64, ChunkId)> = self
                    .soft
                    .load
                    .chunks
                    .iter()
                    .map(|(chunk, watched)| (watched.read.0.saturating_add(watched.write.0), *chunk))
                    .filter(|(cost, _)| *cost > 0)
                    .collect();
                let hotter = |a: &(u64, ChunkId), b: &(u64, ChunkId)| b.0.cmp(&a.0).then(a.1.cmp(&b.1));
                // Of a hundred thousand a few are asked for, every other second: the rest need no order.
                if busy.len() > most {
                    busy.select_nth_unstable_by(most, hotter);
                    busy.truncate(most);
                }
                busy.sort_by(hotter);
                busy.into_iter().map(|(_, chunk)| chunk).take(most).collect()
            }
        };
        let chunks = chunks.into_iter().filter_map(|chunk| self.chunk_heat(chunk)).collect();
        Ok(HeatReport { chunks, max_milli: self.limits().max.0 })
    }

    fn chunk_heat(&self, chunk: ChunkId) -> Option<ChunkHeatReport> {
        let meta = self.state.chunks.get(chunk)?;
        let watched = self.soft.load.chunks.get(&chunk);
        let read = watched.map(|watched| watched.read).unwrap_or_default();
        let to_come = self.soft.load.raises.get(&chunk).map_or(0, std::collections::VecDeque::len);
        Some(ChunkHeatReport {
            chunk,
            ino: meta.ino,
            index: meta.index,
            path: ByteBuf::from(self.state.ns.path_of(meta.ino).unwrap_or_default()),
            read_milli: read.0,
            recent_milli: watched.map_or(0, |watched| watched.memory.load().0),
            write_milli: watched.map_or(0, |watched| watched.write.0),
            goal: u8::try_from(self.state.goal_of(&meta)).unwrap_or(u8::MAX),
            to_come: u8::try_from(to_come).unwrap_or(u8::MAX),
            replicas: meta.members.iter().map(|server| self.server_name(server)).collect(),
        })
    }

    pub(in crate::core) fn explain_chunk(&self, asked: &ExplainChunk) -> Result<ChunkExplained, Status> {
        let chunk = match *asked {
            ExplainChunk::Chunk(chunk) => chunk,
            ExplainChunk::At(ino, index) => self.state.ns.chunk_at(ino, index)?.ok_or(Status::NoChunk)?,
        };
        let limits = self.limits();
        let heat = self.chunk_heat(chunk).ok_or(Status::NoChunk)?;
        let meta = self.state.chunks.get(chunk).ok_or(Status::NoChunk)?;
        let load = |server| self.soft.servers.get(server).map_or(0, |live| live.load.utilisation_permille);
        let held = self.soft.load.chunks.get(&chunk).and_then(|watched| watched.held.as_ref());
        Ok(ChunkExplained {
            heat,
            utilisation: meta.members.iter().map(load).collect(),
            max_milli: limits.max.0,
            min_milli: limits.min.0,
            now: held.map(ToString::to_string).unwrap_or_default(),
            wall: self.now.wall,
            past: self.soft.load.past.of(chunk),
            max_replicas: u8::try_from(self.most_replicas(meta.ino)).unwrap_or(u8::MAX),
        })
    }

    pub(in crate::core) fn chunk_changes(&self, asked: &ChunkChanges) -> ChangeReport {
        let most = usize::try_from(asked.most).unwrap_or(CHUNKS_MAX).min(CHUNKS_MAX);
        let path_of = |chunk| {
            let ino = self.state.chunks.get(chunk)?.ino;
            self.state.ns.path_of(ino).map(|path| path_in_words(&path))
        };
        let changes = self.soft.load.past.newest().take(most).map(|(chunk, wall, what)| ChunkChange {
            chunk: *chunk,
            path: path_of(*chunk).unwrap_or_default(),
            unix_s: wall.sec,
            what: what.clone(),
        });
        ChangeReport { changes: changes.collect() }
    }

    /// What people call the server.
    pub(in crate::core) fn server_name(&self, server: ServerNum) -> String {
        self.state.servers.get(server).map_or_else(|| server.to_string(), |server| server.info.name.clone())
    }
}
