//! Who did not answer whom, and what follows: proof of death ends a lease, a lost replica is excluded, and a
//! member that lives but stays silent to its peers is excluded after a while.

use std::collections::BTreeMap;

use dfs_proto::ids::{ChunkId, ServerNum};
use dfs_proto::meta::{FailedPlace, SuspectReport, Suspicion};
use dfs_proto::units::Micros;

use crate::core::Core;
use crate::core::contract::Effect;
use crate::core::soft::forget_members;

/// How long a member that lives must have been silent to its chunk's primary, or the primary to a
/// client, before it is excluded: longer than a retry, shorter than a user's patience.
const SILENT_TO_PRIMARY_MS: u64 = 2_000;
const SILENT_TO_CLIENT_MS: u64 = 6_000;
/// A doubt that nobody repeated for so long is over.
const DOUBT_FADES_MS: u64 = 8_000;
/// Doubts kept; more would be a network in pieces, where excluding one by one helps nobody.
const DOUBTS_MAX: usize = 65_536;

/// One member that is doubted.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    first: Micros,
    last: Micros,
}

/// All doubts.
#[derive(Clone, Debug, Default)]
pub(in crate::core) struct Doubts {
    table: BTreeMap<(ChunkId, ServerNum), Doubt>,
}

impl Doubts {
    /// How long the member has been doubted, this report included.
    fn add(&mut self, chunk: ChunkId, server: ServerNum, now: Micros) -> u64 {
        if self.table.len() >= DOUBTS_MAX {
            self.table.clear();
        }
        let doubt = self.table.entry((chunk, server)).or_insert(Doubt { first: now, last: now });
        if now.ms_since(doubt.last) > DOUBT_FADES_MS {
            doubt.first = now;
        }
        doubt.last = now;
        now.ms_since(doubt.first)
    }

    /// Whether another member of the chunk is doubted as well.
    fn other(&self, chunk: ChunkId, server: ServerNum, now: Micros) -> bool {
        let of_chunk = self.table.range((chunk, ServerNum(0))..=(chunk, ServerNum(u16::MAX)));
        of_chunk
            .into_iter()
            .any(|((_, other), doubt)| *other != server && now.ms_since(doubt.last) <= DOUBT_FADES_MS)
    }

    /// The chunk has other members now.
    pub(in crate::core) fn forget(&mut self, chunk: ChunkId) {
        forget_members(&mut self.table, chunk);
    }
}

impl Core {
    /// Takes reports of clients and servers.
    pub(super) fn suspected(&mut self, reports: &[SuspectReport]) {
        for report in reports {
            match report.what {
                Suspicion::RefusedUnix => self.proven_dead(report),
                // The servers mend it among themselves, and heartbeats tell how that goes.
                Suspicion::Corrupt { block } => {
                    let chunk = report.chunk.unwrap_or_default();
                    log::warn!("chunk {chunk}: block {block} is damaged at {}", report.server);
                }
                Suspicion::Diverged => {
                    if let Some(chunk) = report.chunk {
                        log::error!(
                            "chunk {chunk}: the replica on {} is not what the others are",
                            report.server
                        );
                        self.exclude(chunk, report.server);
                    }
                }
                Suspicion::ReadOnly => {
                    if let Some(chunk) = report.chunk {
                        self.refused_by_disk(chunk, report.server, report.boot);
                    }
                }
                Suspicion::Stranded => {
                    if let Some(chunk) = report.chunk {
                        self.stranded(chunk, report.server, report.boot);
                    }
                }
                Suspicion::Missing => {
                    if let Some(chunk) = report.chunk {
                        self.missing(chunk, report.server);
                    }
                }
                Suspicion::Silent => {
                    if let Some(chunk) = report.chunk {
                        self.doubt(chunk, report.server, SILENT_TO_PRIMARY_MS, false);
                    }
                }
            }
        }
    }

    /// A size that was committed covers a chunk that no member has: what was written was lost with the log's tail and
    /// every kernel. A recovery finds out, and the chunk begins empty; or goes on with those that have it.
    pub(in crate::core) fn missing(&mut self, chunk: ChunkId, server: ServerNum) {
        let Some(meta) = self.state.chunks.get(chunk) else { return };
        if meta.is_active() && meta.members.contains(server) {
            self.recover_anyway(chunk, &meta);
        }
    }

    /// A client could not write at a place.
    pub(super) fn place_failed(&mut self, failed: &FailedPlace) {
        let current = self.state.chunks.get(failed.chunk).is_some_and(|meta| meta.version == failed.version);
        if current {
            self.doubt(failed.chunk, failed.server, SILENT_TO_CLIENT_MS, true);
        }
    }

    fn doubt(&mut self, chunk: ChunkId, server: ServerNum, enough_ms: u64, yields: bool) {
        let Some(meta) = self.state.chunks.get(chunk) else { return };
        let now = self.now.mono;
        // Who leaves refuses what comes to it.
        if !meta.members.contains(server) || meta.leaving == Some(server) {
            return;
        }
        let all_up = meta.members.iter().all(|member| self.soft.servers.is_up(member, now));
        if !all_up {
            // A member's lease is running out, and recovery follows by itself.
            self.recover_on_demand(chunk, &meta);
            return;
        }
        let doubted_ms = self.soft.doubts.add(chunk, server, now);
        // A primary waits for its secondaries, so its own word about one of them counts for more.
        let blame_elsewhere = yields && self.soft.doubts.other(chunk, server, now);
        if doubted_ms >= enough_ms && !blame_elsewhere && meta.members.len() > 1 {
            log::warn!(
                "chunk {chunk}: {server} lives but has not answered for {doubted_ms} ms and is excluded"
            );
            self.soft.doubts.forget(chunk);
            self.exclude(chunk, server);
        }
    }

    /// A process of the same host was refused by the server's socket: that incarnation is dead (L6).
    fn proven_dead(&mut self, report: &SuspectReport) {
        let Some(live) = self.soft.servers.get_mut(report.server) else { return };
        if live.boot != Some(report.boot) || live.dead_boots.contains(&report.boot) {
            return;
        }
        log::info!("{}'s process {} is dead", report.server, report.boot);
        live.bury(report.boot);
        if let Some(conn) = live.conn.take() {
            self.effects.push(Effect::CloseConn { conn });
        }
        self.soft.scan.wake();
        if let Some(chunk) = report.chunk
            && let Some(meta) = self.state.chunks.get(chunk)
        {
            self.recover_on_demand(chunk, &meta);
        }
    }
}
