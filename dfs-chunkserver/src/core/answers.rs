//! Hands what comes back from disks and peers to whom it is for.

use dfs_proto::units::Micros;

use crate::core::Core;
use crate::core::io::{DiskDone, DiskToken, Effect, PeerAnswer, PeerToken};
use crate::core::work::{DiskWork, PeerWork};

impl Core {
    pub(crate) fn disk_done(&mut self, now: Micros, token: DiskToken, done: DiskDone, out: &mut Vec<Effect>) {
        let Some(work) = self.work.disk_done(token) else { return };
        match work {
            DiskWork::Nothing => {}
            DiskWork::Flight { id, op } => self.flight_on_disk(now, id, op, &done, out),
            DiskWork::Forward { chunk, version, seq, op } => {
                self.forward_on_disk(now, (chunk, version, seq), op, &done, out);
            }
            DiskWork::Fill { chunk, version, call } => self.fill_on_disk(chunk, version, call, &done, out),
            DiskWork::Compare { chunk, call } => self.compared_on_disk(chunk, call, &done, out),
            DiskWork::Begin { chunk, call } => self.learner_begun(call, chunk, &done, out),
            DiskWork::Sync { job, chunks } => self.sync_on_disk(job, &chunks, &done, out),
            DiskWork::ForwardSync { job, chunks } => self.forward_sync_on_disk(job, &chunks, &done, out),
            DiskWork::ForwardDigest { job } => {
                let digest = if let DiskDone::Digest(digest) = done { Some(digest) } else { None };
                self.forward_sync_part(job, digest, out);
            }
            DiskWork::Fence { job, chunks } => self.fenced_on_disk(job, &chunks, &done, out),
            DiskWork::Reconcile { call, chunk } => self.reconciled_on_disk(call, chunk, &done, out),
            DiskWork::Pulled(pulled) => self.pulled_on_disk(now, pulled, &done, out),
            DiskWork::FillRead(fill) => self.fill_read(now, fill, done, out),
            DiskWork::FillDigest(fill) => self.fill_digest(now, fill, &done, out),
            DiskWork::Close { job, chunks } => self.closed_on_disk(job, &chunks, &done, out),
            DiskWork::Stock { chunk, range, call } => {
                self.stock_on_disk(now, (chunk, range, call), done, out)
            }
            DiskWork::MendRead { chunk, version } => self.read_to_mend(now, chunk, version, done, out),
            DiskWork::MendOwn { chunk, version, range } => {
                self.own_mended(now, (chunk, version, range), &done, out);
            }
            DiskWork::Mended { chunk, range, call } => {
                self.mended_on_disk((chunk, range, call), &done, out);
            }
            DiskWork::Scrub { disk, chunk, from } => self.scrubbed(now, (disk, chunk, from), done, out),
            DiskWork::Agree { chunk, version } => self.own_digest(chunk, version, &done, out),
            DiskWork::Look { job, chunks } => self.looked_on_disk(job, &chunks, &done, out),
            DiskWork::Examine { call, chunk } => self.examined_on_disk(call, chunk, done, out),
            DiskWork::Trash { job, chunk } => self.trashed(job, chunk, &done, out),
        }
    }

    pub(crate) fn peer_answered(
        &mut self,
        now: Micros,
        token: PeerToken,
        reply: PeerAnswer,
        out: &mut Vec<Effect>,
    ) {
        let Some(work) = self.work.peer_done(token) else { return };
        match work {
            PeerWork::Flight { id, server } => self.flight_answered(now, id, server, &reply, out),
            PeerWork::Sync { job, to, chunks } => self.sync_answered(now, job, to, chunks, &reply, out),
            PeerWork::Fill(fill) => self.fill_answered(now, fill, &reply, out),
            PeerWork::Pull(pulled) => self.pull_answered(pulled, reply, out),
            PeerWork::Fetch { chunk, version } => self.fetched(now, chunk, version, reply, out),
            PeerWork::Mend { chunk, version } => self.mend_answered(now, chunk, version, out),
            PeerWork::Agree { chunk, version, member } => {
                self.their_digest(chunk, version, member, &reply, out);
            }
        }
    }
}
