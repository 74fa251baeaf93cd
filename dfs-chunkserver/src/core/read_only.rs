//! A disk that takes no writes any more, because a sync of it failed (section 15). Its replicas that have nothing
//! unsynced are whole: they are read, fenced and copied from. A write of one is refused before it is anywhere, and
//! the master is told, so that the chunk goes on with members that can take it.

use dfs_proto::control::ReportTrouble;
use dfs_proto::ids::ChunkId;
use dfs_proto::meta::{SuspectReport, Suspicion};
use dfs_proto::status::Status;
use dfs_proto::units::Micros;

use crate::core::io::{CallToken, DiskIx, Effect};
use crate::core::timers::Timer;
use crate::core::{Core, refuse};

/// A writer that waits tries again many times a second; the master needs to hear it once, and again if it
/// forgot.
const TELL_EVERY_MS: u64 = 1_000;
/// Replicas that nobody writes to, told at once and looked at for it, and how long it takes until the first is told again:
/// what it is told is gone with its process, and nobody answers.
const STRANDED_BATCH: usize = 512;
const STRANDED_LOOK: usize = 65_536;
const STRANDED_AGAIN_MS: u64 = 30_000;

impl Core {
    /// A sync of the disk failed. It gets no new replicas.
    pub(crate) fn disk_is_read_only(&mut self, now: Micros, disk: DiskIx) {
        let first = self.disks.iter().all(|disk| !disk.read_only);
        if let Some(entry) = self.disks.get_mut(usize::from(disk.0)) {
            log::error!("disk {}: a sync failed: nothing is written to it any more", entry.setup.id);
            entry.read_only = true;
        }
        if first {
            self.timers.add(now.plus_ms(TELL_EVERY_MS), Timer::Stranded);
        }
    }

    /// Names the next replicas on such disks, so that they come to be elsewhere. When no disk takes writes the master knows by
    /// that alone, and counts these twice at worst.
    pub(crate) fn tell_stranded(&mut self, now: Micros, out: &mut Vec<Effect>) {
        let looked: Vec<(ChunkId, DiskIx)> = self
            .replicas
            .range(self.told_stranded..)
            .take(STRANDED_LOOK)
            .map(|(&chunk, replica)| (chunk, replica.disk))
            .collect();
        let told = looked.iter().filter(|(_, disk)| self.has_failed(*disk)).map(|(chunk, _)| *chunk);
        let told: Vec<ChunkId> = told.take(STRANDED_BATCH).collect();
        let last =
            if told.len() == STRANDED_BATCH { told.last() } else { looked.last().map(|(chunk, _)| chunk) };
        // A pass may end within a batch: then the next begins with nothing left to look at.
        let (next, wait) = match last {
            Some(last) if looked.len() == STRANDED_LOOK || told.len() == STRANDED_BATCH => {
                (ChunkId(last.0.saturating_add(1)), TELL_EVERY_MS)
            }
            Some(_) | None => (ChunkId(0), STRANDED_AGAIN_MS),
        };
        self.told_stranded = next;
        self.timers.add(now.plus_ms(wait), Timer::Stranded);
        let Some(me) = self.me() else { return };
        let report = |chunk| SuspectReport {
            server: me.server,
            boot: me.boot,
            chunk: Some(chunk),
            what: Suspicion::Stranded,
        };
        if !told.is_empty() {
            let reports = told.into_iter().map(report).collect();
            out.push(Effect::Trouble(ReportTrouble { reports, failed: Vec::new() }));
        }
    }

    /// Whether the replica's disk takes writes. One that is still to be made has its disk chosen then.
    pub(crate) fn is_read_only(&self, chunk: ChunkId) -> bool {
        let on = self.replicas.get(&chunk).map(|replica| usize::from(replica.disk.0));
        on.and_then(|disk| self.disks.get(disk)).is_some_and(|disk| disk.read_only)
    }

    /// # Errors
    /// `DiskFailed` when the replica's disk takes no writes.
    pub(crate) fn check_writable(&self, chunk: ChunkId) -> Result<(), Status> {
        if self.is_read_only(chunk) { Err(Status::DiskFailed) } else { Ok(()) }
    }

    /// Refuses a write of the chunk. If that is for its disk, the master is told.
    pub(crate) fn refuse_write(
        &mut self,
        now: Micros,
        call: CallToken,
        chunk: ChunkId,
        status: Status,
        out: &mut Vec<Effect>,
    ) {
        if status == Status::DiskFailed {
            self.tell_read_only(now, chunk, out);
        }
        refuse(call, status, out);
    }

    fn tell_read_only(&mut self, now: Micros, chunk: ChunkId, out: &mut Vec<Effect>) {
        let Some(me) = self.me() else { return };
        if self.told_read_only.get(&chunk).is_some_and(|at| now.ms_since(*at) < TELL_EVERY_MS) {
            return;
        }
        self.told_read_only.insert(chunk, now);
        let what = Suspicion::ReadOnly;
        let report = SuspectReport { server: me.server, boot: me.boot, chunk: Some(chunk), what };
        out.push(Effect::Trouble(ReportTrouble { reports: vec![report], failed: Vec::new() }));
    }
}
