//! The scrub: every replica that serves is looked at as it lies on its disk once in a period, the replicas of a
//! disk one after the other in the order of their ids, spread over the period, in steps of 1 MiB that the driver
//! does when the disk has nothing else to do. What is found is mended as if a read had found it.
//!
//! A pass that somebody asked for goes as fast as the disk can. One that does not end in its period says so. What
//! does not serve when its turn comes, being recovered perhaps, has another at the pass's end.

use std::collections::BTreeSet;
use std::ops::Bound;

use dfs_proto::control::{BLOCKS_REPORTED, DiskScrub, ScrubReport, StartScrub};
use dfs_proto::ids::{ChunkId, Seq};
use dfs_proto::units::Micros;

use crate::core::io::{
    CallToken, DAMAGED_KEPT, DiskDone, DiskFault, DiskIx, DiskOp, Effect, Reply, ScrubDone, ScrubMark,
};
use crate::core::replica::{Replica, Standing};
use crate::core::timers::Timer;
use crate::core::work::DiskWork;
use crate::core::{Core, answer, refuse};

/// How long a pass may take.
pub const PERIOD_MS: u64 = 14 * 24 * 3_600_000;
/// A pass is planned to end this much before its time: parts of a hundred.
const PLANNED_PERCENT: u64 = 90;
/// A pass is behind when it has done so much less than it should have: parts of a hundred.
const BEHIND_PERCENT: u64 = 10;
/// Between two steps: at most 50 MiB/s, of a disk that has nothing else to do.
const PAUSE_MS: u64 = 20;
/// How often the plan is looked at again: the number of replicas changes.
const LOOK_MS: u64 = 60_000;
/// How long a pass that somebody asked for waits at its end for replicas that do not serve.
const LINGER_MS: u64 = 10_000;
/// How often it looks.
const LINGER_LOOK_MS: u64 = 500;
/// How often the disk is told how far the scrub is: what a crash has looked at twice.
const KEEP_MS: u64 = 60_000;

/// The scrubs of a server's disks.
#[derive(Debug)]
pub(crate) struct Scrubs {
    period_ms: u64,
    disks: Vec<Pass>,
    /// The timers run.
    started: bool,
    diverged: u64,
}

/// A disk's pass.
#[derive(Debug)]
struct Pass {
    /// What is kept of it, but for its time.
    kept: ScrubMark,
    /// When this process took it up, after `kept.elapsed_ms`.
    since: Micros,
    /// Its disk has a step now.
    busy: bool,
    /// The replica being looked at, and the block that is next; `None` for its head.
    at: Option<(ChunkId, Option<u32>)>,
    hurried: bool,
    /// What did not serve when its turn came.
    skipped: BTreeSet<ChunkId>,
    /// Nothing else has been left to look at since then.
    lingers: Option<Micros>,
    /// Replicas of the disk, when they were counted last: a server may have a million.
    total: u64,
    counted: Option<Micros>,
    /// That it is late was said.
    told: bool,
    kept_at: Micros,
    bytes: u64,
    rewritten: u64,
}

impl Scrubs {
    pub(crate) fn new(progress: impl Iterator<Item = ScrubMark>) -> Scrubs {
        let pass = |kept| Pass {
            kept,
            since: Micros(0),
            busy: false,
            at: None,
            hurried: false,
            skipped: BTreeSet::new(),
            lingers: None,
            total: 0,
            counted: None,
            told: false,
            kept_at: Micros(0),
            bytes: 0,
            rewritten: 0,
        };
        Scrubs { period_ms: PERIOD_MS, disks: progress.map(pass).collect(), started: false, diverged: 0 }
    }

    /// Chunks whose replicas were found to differ.
    pub(crate) fn note_diverged(&mut self) {
        self.diverged += 1;
    }
}

impl Pass {
    fn elapsed_ms(&self, now: Micros) -> u64 {
        self.kept.elapsed_ms.saturating_add(now.ms_since(self.since))
    }

    /// When the next replica is due, in milliseconds of the pass.
    fn due_ms(&self, period_ms: u64, total: u64) -> u64 {
        let planned = u128::from(period_ms) * u128::from(PLANNED_PERCENT) / 100;
        let total = total.max(1);
        let due = planned * u128::from((self.kept.done + 1).min(total)) / u128::from(total);
        u64::try_from(due).unwrap_or(u64::MAX)
    }

    fn begin(&mut self, now: Micros, hurried: bool) {
        (self.kept.cursor, self.kept.done, self.kept.elapsed_ms) = (ChunkId(0), 0, 0);
        (self.since, self.at, self.hurried, self.told) = (now, None, hurried, false);
        (self.skipped, self.lingers) = (BTreeSet::new(), None);
    }

    fn is_behind(&self, now: Micros, period_ms: u64, total: u64) -> bool {
        let should = u128::from(self.elapsed_ms(now)) * u128::from(total);
        let late = u128::from(period_ms) * u128::from(total * BEHIND_PERCENT / 100 + 1);
        should > u128::from(self.kept.done) * u128::from(period_ms) + late
    }

    fn progress(&self, now: Micros, damaged: Vec<(ChunkId, u32)>) -> ScrubMark {
        ScrubMark { elapsed_ms: self.elapsed_ms(now), damaged, ..self.kept.clone() }
    }
}

impl Core {
    /// How long a pass may take.
    pub fn set_scrub_period_ms(&mut self, period_ms: u64) {
        self.scrubs.period_ms = period_ms.max(1);
    }

    /// Begins scrubbing, once in a process.
    pub(crate) fn start_scrubs(&mut self, now: Micros) {
        if std::mem::replace(&mut self.scrubs.started, true) {
            return;
        }
        for (at, pass) in self.scrubs.disks.iter_mut().enumerate() {
            (pass.since, pass.kept_at) = (now, now);
            if let Ok(at) = u16::try_from(at) {
                self.timers.add(now.plus_ms(PAUSE_MS), Timer::Scrub { disk: DiskIx(at) });
            }
            // What the last process had not mended.
            for (chunk, block) in std::mem::take(&mut pass.kept.damaged) {
                if let Some(replica) = self.replicas.get(&chunk) {
                    self.damage.add(chunk, &[block], (replica.version, Seq(0)));
                }
            }
        }
        let hurt: Vec<ChunkId> =
            self.damage.first(DAMAGED_KEPT).into_iter().map(|(chunk, _)| chunk).collect();
        hurt.into_iter().for_each(|chunk| self.mend_in(now, chunk, 0));
    }

    /// Somebody wants everything looked at now.
    pub(crate) fn hurry_scrubs(
        &mut self,
        now: Micros,
        call: CallToken,
        body: &StartScrub,
        out: &mut Vec<Effect>,
    ) {
        if let Err(status) = self.obey(body.term) {
            return refuse(call, status, out);
        }
        for (at, pass) in self.scrubs.disks.iter_mut().enumerate() {
            // A hurried pass that is under way began before what the asker has in mind, so it begins again.
            pass.begin(now, true);
            pass.counted = None;
            if let Ok(at) = u16::try_from(at) {
                self.timers.add(now, Timer::Scrub { disk: DiskIx(at) });
            }
        }
        answer(call, Reply::Done, out);
    }

    /// The timer: gives the disk its next step if that is due.
    pub(crate) fn scrub(&mut self, now: Micros, disk: DiskIx, out: &mut Vec<Effect>) {
        let ix = usize::from(disk.0);
        let failed = self.disks.get(ix).is_none_or(|disk| disk.read_only);
        let period_ms = self.scrubs.period_ms;
        let total = self.replicas_of_pass(now, disk);
        let Some(pass) = self.scrubs.disks.get_mut(ix).filter(|pass| !failed && !pass.busy) else { return };
        if self.stopped {
            return;
        }
        if pass.is_behind(now, period_ms, total) && !std::mem::replace(&mut pass.told, true) {
            log::warn!(
                "disk {ix}: the scrub is behind: {} of {total} replicas in {} of {} hours; the disk is too busy, \
                 or --scrub-days too short",
                pass.kept.done,
                pass.elapsed_ms(now) / 3_600_000,
                period_ms / 3_600_000
            );
        }
        let mid_way = pass.at.is_some();
        let due_in = pass.due_ms(period_ms, total).saturating_sub(pass.elapsed_ms(now));
        if !mid_way && !pass.hurried && due_in > 0 {
            self.timers.add(now.plus_ms(due_in.min(LOOK_MS)), Timer::Scrub { disk });
            return;
        }
        let Some((chunk, from)) = self.next_to_scrub(disk) else {
            if self.lingers(now, disk) {
                self.timers.add(now.plus_ms(LINGER_LOOK_MS), Timer::Scrub { disk });
                return;
            }
            return self.pass_over(now, disk, total, out);
        };
        let Some(pass) = self.scrubs.disks.get_mut(ix) else { return };
        pass.at = Some((chunk, from));
        pass.busy = true;
        let op = DiskOp::Scrub { chunk, from, hurried: pass.hurried };
        self.work.disk(disk, DiskWork::Scrub { disk, chunk, from }, op, out);
    }

    fn replicas_of_pass(&mut self, now: Micros, disk: DiskIx) -> u64 {
        let known = self.scrubs.disks.get(usize::from(disk.0));
        let fresh = known.filter(|pass| pass.counted.is_some_and(|at| now.ms_since(at) < LOOK_MS));
        if let Some(pass) = fresh {
            return pass.total;
        }
        let total = self.replicas_on(disk) as u64;
        if let Some(pass) = self.scrubs.disks.get_mut(usize::from(disk.0)) {
            (pass.total, pass.counted) = (total, Some(now));
        }
        total
    }

    fn next_to_scrub(&mut self, disk: DiskIx) -> Option<(ChunkId, Option<u32>)> {
        let pass = self.scrubs.disks.get_mut(usize::from(disk.0))?;
        let fits = |replica: &Replica| replica.disk == disk && may_scrub(replica);
        let serves = |chunk: &ChunkId| self.replicas.get(chunk).is_some_and(fits);
        if let Some((chunk, from)) = pass.at.take() {
            if serves(&chunk) {
                return Some((chunk, from));
            }
            pass.skipped.insert(chunk);
        }
        for (&chunk, replica) in self.replicas.range((Bound::Excluded(pass.kept.cursor), Bound::Unbounded)) {
            if fits(replica) {
                return Some((chunk, None));
            }
            if replica.disk == disk {
                pass.skipped.insert(chunk);
            }
        }
        let again = pass.skipped.iter().find(|chunk| serves(chunk)).copied()?;
        pass.skipped.remove(&again);
        Some((again, None))
    }

    /// Whether a pass that somebody asked for waits for what does not serve yet.
    fn lingers(&mut self, now: Micros, disk: DiskIx) -> bool {
        let Some(pass) = self.scrubs.disks.get_mut(usize::from(disk.0)) else { return false };
        let replicas = &self.replicas;
        pass.skipped.retain(|chunk| replicas.get(chunk).is_some_and(|replica| replica.disk == disk));
        let since = *pass.lingers.get_or_insert(now);
        pass.hurried && !pass.skipped.is_empty() && now.ms_since(since) < LINGER_MS
    }

    /// Every replica was looked at: the next pass begins.
    fn pass_over(&mut self, now: Micros, disk: DiskIx, total: u64, out: &mut Vec<Effect>) {
        let Some(pass) = self.scrubs.disks.get_mut(usize::from(disk.0)) else { return };
        let took = pass.elapsed_ms(now);
        let planned = u128::from(self.scrubs.period_ms) * u128::from(PLANNED_PERCENT) / 100;
        // Fewer replicas than when it was planned: it rests until its time is over.
        if !pass.hurried && u128::from(took) < planned {
            pass.at = None;
            self.timers.add(now.plus_ms(LOOK_MS), Timer::Scrub { disk });
            return;
        }
        if total > 0 || pass.hurried {
            log::info!("disk {}: scrubbed, {} replicas in {} s", disk.0, pass.kept.done, took / 1000);
            pass.kept.passes += 1;
            pass.kept.last_ms = took;
        }
        pass.begin(now, false);
        self.keep_scrub(now, disk, out);
        self.timers.add(now.plus_ms(LOOK_MS), Timer::Scrub { disk });
    }

    /// The disk is done with a step.
    pub(crate) fn scrubbed(
        &mut self,
        now: Micros,
        (disk, chunk, from): (DiskIx, ChunkId, Option<u32>),
        done: DiskDone,
        out: &mut Vec<Effect>,
    ) {
        let Some(pass) = self.scrubs.disks.get_mut(usize::from(disk.0)) else { return };
        pass.busy = false;
        let expected = pass.at == Some((chunk, from));
        let hurried = pass.hurried;
        let mut next = None;
        match done {
            DiskDone::Scrubbed(ScrubDone { bytes, rewritten, bad, next: more }) => {
                pass.bytes += bytes;
                pass.rewritten += u64::from(rewritten);
                next = more;
                self.scrub_found(now, chunk, &bad, out);
            }
            DiskDone::Failed(fault) => self.scrub_failed(chunk, fault, out),
            _ => {}
        }
        if expected {
            self.step_over(now, disk, chunk, next, out);
        }
        self.timers.add(now.plus_ms(if hurried { 0 } else { PAUSE_MS }), Timer::Scrub { disk });
    }

    fn step_over(
        &mut self,
        now: Micros,
        disk: DiskIx,
        chunk: ChunkId,
        next: Option<u32>,
        out: &mut Vec<Effect>,
    ) {
        let Some(pass) = self.scrubs.disks.get_mut(usize::from(disk.0)) else { return };
        if next.is_some() {
            pass.at = Some((chunk, next));
            return;
        }
        (pass.at, pass.kept.cursor) = (None, pass.kept.cursor.max(chunk));
        pass.kept.done += 1;
        if now.ms_since(pass.kept_at) >= KEEP_MS {
            self.keep_scrub(now, disk, out);
        }
        self.agree(chunk, out);
    }

    fn scrub_found(&mut self, now: Micros, chunk: ChunkId, bad: &[u32], out: &mut Vec<Effect>) {
        let Some(replica) = self.replicas.get(&chunk).filter(|replica| may_scrub(replica)) else { return };
        let pending = replica.pending.iter().map(|(seq, _)| *seq).max().unwrap_or_default();
        let seq = replica.applied.highest().max(pending);
        self.damage_found(now, chunk, bad, seq, out);
    }

    fn scrub_failed(&mut self, chunk: ChunkId, fault: DiskFault, out: &mut Vec<Effect>) {
        match fault {
            // Its file is gone, or its disk can't read it.
            DiskFault::Missing | DiskFault::Io if self.replicas.get(&chunk).is_some_and(may_scrub) => {
                self.fail_replica(chunk, fault, out);
            }
            // No room for evidence: it is found again.
            DiskFault::NoSpace
            | DiskFault::BadChecksum
            | DiskFault::Corrupt { .. }
            | DiskFault::Missing
            | DiskFault::Io => log::warn!("chunk {chunk}: not scrubbed: {fault}"),
        }
    }

    fn keep_scrub(&mut self, now: Micros, disk: DiskIx, out: &mut Vec<Effect>) {
        let damaged: Vec<(ChunkId, u32)> = self.damage.first(DAMAGED_KEPT);
        let here = |(chunk, _): &(ChunkId, u32)| self.replicas.get(chunk).is_some_and(|r| r.disk == disk);
        let damaged = damaged.into_iter().filter(here).collect();
        let Some(pass) = self.scrubs.disks.get_mut(usize::from(disk.0)) else { return };
        pass.kept_at = now;
        let op = DiskOp::KeepScrub(pass.progress(now, damaged));
        self.work.disk(disk, DiskWork::Nothing, op, out);
    }

    /// Before the process ends.
    pub(crate) fn keep_scrubs(&mut self, now: Micros, out: &mut Vec<Effect>) {
        for at in 0..self.disks.len() {
            if let (true, Ok(at)) = (self.scrubs.started && !self.disks[at].read_only, u16::try_from(at)) {
                self.keep_scrub(now, DiskIx(at), out);
            }
        }
    }

    /// How the disks are, for the master.
    #[must_use]
    pub fn scrub_report(&self, now: Micros) -> ScrubReport {
        let counts = self.damage.counts;
        let (damaged, hopeless) = self.damage.standing();
        ScrubReport {
            found: counts.found,
            mended: counts.mended,
            rewritten: self.scrubs.disks.iter().map(|pass| pass.rewritten).sum(),
            diverged: self.scrubs.diverged,
            damaged,
            hopeless,
            blocks: self.damage.hopeless(BLOCKS_REPORTED),
            disks: (0..self.disks.len()).filter_map(|at| self.disk_scrub(now, at)).collect(),
        }
    }

    fn disk_scrub(&self, now: Micros, at: usize) -> Option<DiskScrub> {
        let (disk, pass) = (self.disks.get(at)?, self.scrubs.disks.get(at)?);
        let total = pass.total.max(pass.kept.done);
        let elapsed_ms = pass.elapsed_ms(now);
        let all = pass.kept.passes > 0;
        Some(DiskScrub {
            disk: disk.setup.id,
            passes: pass.kept.passes,
            done: pass.kept.done,
            total,
            bytes: pass.bytes,
            elapsed_s: elapsed_ms / 1000,
            period_s: self.scrubs.period_ms / 1000,
            oldest_s: all.then_some((elapsed_ms + pass.kept.last_ms) / 1000),
            // Nothing is looked for where nothing could be mended.
            hurried: pass.hurried && !disk.read_only,
            behind: pass.is_behind(now, self.scrubs.period_ms, total),
        })
    }
}

/// A replica that serves, and nobody else makes equal to another right now.
fn may_scrub(replica: &Replica) -> bool {
    replica.made && matches!(replica.standing, Standing::Active | Standing::Unsure)
}
