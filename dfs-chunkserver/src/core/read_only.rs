//! A disk that takes no writes any more, because a sync of it failed (section 15). Its replicas that have nothing
//! unsynced are whole: they are read, fenced and copied from. A write of one is refused before it is anywhere, and
//! the master is told, so that the chunk goes on with members that can take it.

use dfs_proto::control::ReportTrouble;
use dfs_proto::ids::ChunkId;
use dfs_proto::meta::{SuspectReport, Suspicion};
use dfs_proto::status::Status;
use dfs_proto::units::Micros;

use crate::core::io::{CallToken, DiskIx, Effect};
use crate::core::{Core, refuse};

/// A writer that waits tries again many times a second; the master needs to hear it once, and again if it
/// forgot.
const TELL_EVERY_MS: u64 = 1_000;

impl Core {
    /// A sync of the disk failed. It gets no new replicas.
    pub(crate) fn disk_is_read_only(&mut self, disk: DiskIx) {
        if let Some(entry) = self.disks.get_mut(usize::from(disk.0)) {
            log::error!("disk {}: a sync failed: nothing is written to it any more", entry.setup.id);
            entry.read_only = true;
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
