//! The master's own view of itself, for people and tools. It changes nothing.

use std::collections::BTreeMap;

use dfs_proto::ids::{Ino, LogIndex, ServerNum, SessionId};
use dfs_proto::meta::{
    ChunkReport, ClusterReport, FileReport, LogCopy, ReplicaReport, ServerReport, ServerReports,
    SessionReport, SessionReports, Traffic,
};
use dfs_proto::status::Status;
use dfs_proto::units::ChunkIndex;

use super::Core;
use super::servers::{Server, address};

/// Chunks of one file that a report names.
const FILE_CHUNKS_MAX: usize = 1_000;

impl Core {
    pub(super) fn cluster_report(&self) -> ClusterReport {
        let (total_bytes, free_bytes) = self.space();
        let counts = self.soft.scan.counts();
        let (blocks_damaged, blocks_hopeless) = self.damaged_blocks();
        let known: Vec<&Server> =
            self.state.servers.iter().filter(|server| !self.is_gone(server.num)).collect();
        ClusterReport {
            cluster: self.config.cluster,
            generation: self.generation(),
            version: self.config.version.clone(),
            term: self.term(),
            last_index: self.raft.last(),
            durable_index: self.log.durable,
            snapshot_index: self.log.snapshot,
            uptime_ms: self.now.mono.ms_since(self.started),
            chunk_size: self.state.ns.chunk_size(),
            goal: u8::try_from(self.state.goal()).unwrap_or(u8::MAX),
            hold: self.hold.why().map(str::to_owned),
            inodes: self.state.ns.counts().inodes,
            sessions: count(self.state.sessions.len()),
            servers_up: u32::try_from(self.soft.servers.up(self.now.mono)).unwrap_or(u32::MAX),
            servers_known: u32::try_from(known.len()).unwrap_or(u32::MAX),
            total_bytes,
            free_bytes,
            chunks: self.state.chunks.len(),
            chunks_below_goal: counts.below_goal,
            chunks_recovering: counts.recovering,
            chunks_open: counts.open,
            replicas_diverged: self.soft.closing.diverged(),
            chunks_unavailable: counts.unavailable,
            tombstones: self.state.tombstones.len(),
            replicas_unknown: self.hold.unknown(),
            blocks_damaged,
            blocks_hopeless,
            copies: known.into_iter().map(|server| self.log_copy(server)).collect(),
            maintained: self.maintained_servers(),
            moving: self.soft.balance.moving(),
            goals_own: self.state.ns.goals.len(),
            goal_highest: u8::try_from(self.state.highest_goal()).unwrap_or(u8::MAX),
        }
    }

    fn log_copy(&self, server: &Server) -> LogCopy {
        let said = self.soft.servers.get(server.num).map(|live| &live.copy);
        let ours = said.filter(|copy| copy.generation == self.generation());
        let index = ours.map_or(LogIndex(0), |copy| copy.index);
        LogCopy {
            server: server.info.name.clone(),
            up: self.soft.servers.is_up(server.num, self.now.mono),
            index,
            behind: self.log.durable.0.saturating_sub(index.0),
            whole_ms: ours.and_then(|copy| copy.whole_ms),
            trouble: said.and_then(|copy| copy.trouble.clone()),
        }
    }

    pub(super) fn server_reports(&self) -> ServerReports {
        let now = self.now.mono;
        let report = |server: &Server| {
            let live = self.soft.servers.get(server.num);
            let load = live.map(|live| live.load).unwrap_or_default();
            ServerReport {
                addr: address(server),
                name: server.info.name.clone(),
                up: self.soft.servers.is_up(server.num, now),
                silent_ms: live.filter(|live| live.spoke).map(|live| now.ms_since(live.heard)),
                labels: server.info.labels.clone(),
                version: server.info.version.clone(),
                disks: live.map(|live| live.disks.clone()).unwrap_or_default(),
                replicas: self.state.chunks.replicas_on(server.num),
                utilisation_permille: load.utilisation_permille,
                queue: load.queue,
                capacity_bytes_per_s: load.capacity_bytes_per_s,
                capacity_learned: load.capacity_learned,
                draining: server.draining,
                maintenance_ms: self.maintenance_left_ms(server.num),
                stake: self.soft.scan.stake(server.num),
                removable: self.is_removable(server.num),
                given_up: self.given_up_on(server.num),
                traffic: Traffic {
                    bytes_in_per_s: load.bytes_in_per_s,
                    bytes_out_per_s: load.bytes_out_per_s,
                    requests_per_s: load.requests_per_s,
                    service_p50_us: load.service_p50_us,
                    service_p99_us: load.service_p99_us,
                },
            }
        };
        let servers = self.state.servers.iter().map(report).collect();
        ServerReports { servers, now: self.clock(), passes: self.soft.scan.passes() }
    }

    pub(super) fn session_reports(&self) -> SessionReports {
        let mut open: BTreeMap<SessionId, u64> = BTreeMap::new();
        for (session, _ino) in self.soft.grants.opens() {
            *open.entry(session).or_default() += 1;
        }
        let sessions = self.state.sessions.iter().map(|(session, logged)| {
            let live = self.soft.sessions.get(session);
            SessionReport {
                session,
                name: logged.name.clone(),
                os_boot: logged.os_boot,
                connected: live.is_some_and(|live| live.conn.is_some()),
                silent_ms: live.map_or(0, |live| self.now.mono.ms_since(live.heard)),
                open_files: open.get(&session).copied().unwrap_or(0),
                evicted: live.is_some_and(|live| live.evicted),
            }
        });
        SessionReports { sessions: sessions.collect(), lease_ms: self.config.session_lease_ms }
    }

    pub(super) fn file_report(&self, ino: Ino, from: ChunkIndex) -> Result<FileReport, Status> {
        let ns = &self.state.ns;
        let attr = ns.getattr(ino)?;
        let chunks = ns.chunks(ino, from, u64::MAX).unwrap_or_default();
        let more = chunks.get(FILE_CHUNKS_MAX).map(|(index, _)| *index);
        let chunks = chunks.into_iter().take(FILE_CHUNKS_MAX).filter_map(|(index, chunk)| {
            let meta = self.state.chunks.get(chunk)?;
            Some(ChunkReport {
                index,
                chunk,
                version: meta.version,
                config: meta.config,
                open_num: meta.open_num,
                open: meta.open,
                recovering: !meta.is_active(),
                members: meta.members.iter().map(|server| self.replica_report(server)).collect(),
                learners: meta.learners.iter().map(|server| self.replica_report(*server)).collect(),
            })
        });
        let path = serde_bytes::ByteBuf::from(ns.path_of(ino).unwrap_or_default());
        let goal = u8::try_from(self.state.goal_at(ino)).unwrap_or(u8::MAX);
        Ok(FileReport { attr, path, goal, chunks: chunks.collect(), more })
    }

    fn replica_report(&self, server: ServerNum) -> ReplicaReport {
        let info = self.state.servers.get(server).map(|server| &server.info);
        ReplicaReport {
            server,
            name: info.map(|info| info.name.clone()).unwrap_or_default(),
            tcp: info.map(|info| info.tcp.clone()).unwrap_or_default(),
            up: self.soft.servers.is_up(server, self.now.mono),
        }
    }
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
