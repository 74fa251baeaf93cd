//! Work on the master's log, and what must hold of it after a cut: what a sync covered is there, whole and in
//! order; what follows may be there or not, but never in part; the log can be opened and goes on.

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use dfs_disk::real::RealDisk;
use dfs_disk::sim::Rng;
use dfs_master::log::{
    ConfState, EntryId, EntryKind, HardState, Identity, LogConfig, LogEntry, LogWriter, NodeId, Options,
    Record, Recovered, Section, SnapshotStore, init, recover,
};
use dfs_proto::ids::{ClusterId, Generation, LogIndex, Term};
use dfs_proto::units::ChunkSize;

use super::Step;
use super::device::Device;

/// A dozen batches fill a segment.
const CONFIG: LogConfig = LogConfig { segment_bytes: 16384 };
const SECTION: Section = Section { id: 3, version: 1 };
const TERM: Term = Term(1);

/// What was asked of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogStep {
    /// Entries up to here were written.
    Append(u64),
    /// Entries up to here were synced.
    Sync(u64),
    /// A snapshot up to here, and older ones and segments removed.
    Snapshot(u64),
}

fn identity() -> Identity {
    Identity {
        cluster: ClusterId(0xc1),
        generation: Generation(1),
        chunk_size: ChunkSize::DEFAULT,
        goal: 3,
        created: 1_700_000_000,
    }
}

/// A payload that its index determines.
fn payload(index: u64) -> Bytes {
    let len = usize::try_from(index * 37 % 190).unwrap_or(0);
    let byte = |at: usize| u8::try_from((at as u64 * 7 + index * 13) % 251).unwrap_or(0);
    (0..=len).map(byte).collect::<Vec<u8>>().into()
}

fn entry(index: u64) -> LogEntry {
    LogEntry { index: LogIndex(index), term: TERM, kind: EntryKind::Command, data: payload(index) }
}

/// The hard state of the only term.
fn voted() -> HardState {
    HardState { term: TERM, vote: Some(NodeId(1)), commit: LogIndex(0) }
}

/// An empty log.
///
/// # Errors
/// The failing call's.
pub fn prepare(disk: &RealDisk) -> anyhow::Result<()> {
    Ok(init(disk, &identity(), CONFIG)?)
}

/// The work under way.
struct Work<'a> {
    device: &'a Device,
    writer: LogWriter<RealDisk>,
    store: SnapshotStore<RealDisk>,
    steps: Vec<Step<LogStep>>,
    last: u64,
}

impl Work<'_> {
    fn step(
        &mut self,
        what: LogStep,
        work: impl FnOnce(&mut Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let begin = self.device.position();
        work(self)?;
        self.steps.push(Step { begin, end: self.device.position(), what });
        Ok(())
    }

    fn append(&mut self, count: u64) -> anyhow::Result<()> {
        let (first, last) = (self.last + 1, self.last + count);
        self.step(LogStep::Append(last), |work| {
            let batch: Vec<Record> = (first..=last).map(|index| Record::Entry(entry(index))).collect();
            Ok(work.writer.append(&batch)?)
        })?;
        self.last = last;
        Ok(())
    }

    fn sync(&mut self) -> anyhow::Result<()> {
        self.step(LogStep::Sync(self.last), |work| Ok(work.writer.sync().map(drop)?))
    }

    fn snapshot(&mut self) -> anyhow::Result<()> {
        let index = self.last;
        self.step(LogStep::Snapshot(index), |work| {
            let id = EntryId { index: LogIndex(index), term: TERM };
            let mut out = work.store.begin(id, ConfState::of(&[NodeId(1)]), vec![SECTION])?;
            out.block(SECTION.id, &payload(index))?;
            out.finish()?;
            if let Some(older) = work.store.prune(id.index)? {
                work.writer.prune(older).run()?;
            }
            Ok(())
        })
    }
}

/// `rounds` of appends, syncs, new segments and snapshots.
///
/// # Errors
/// The failing call's.
pub fn work(
    disk: &RealDisk,
    device: &Device,
    rounds: u64,
    rng: &mut Rng,
) -> anyhow::Result<Vec<Step<LogStep>>> {
    let recovered = recover(disk, Options::default())?;
    let store = SnapshotStore::new(disk.clone(), recovered.identity());
    let writer = recovered.into_writer(CONFIG)?;
    let mut work = Work { device, writer, store, steps: Vec::new(), last: 0 };
    work.writer.append(&[Record::HardState(voted())])?;
    work.append(1)?;
    for _ in 0..rounds {
        work.append(1 + rng.below(8))?;
        if rng.below(2) == 0 {
            work.sync()?;
        }
        if rng.below(4) == 0
            && let Some(plan) = work.writer.wants_spare()
        {
            work.writer.give_spare(plan.run()?);
        }
        if rng.below(6) == 0 {
            work.writer.note_idle()?;
        }
        if rng.below(24) == 0 {
            work.snapshot()?;
        }
    }
    work.sync()?;
    Ok(work.steps)
}

/// Opens what a cut after `at` events left, and holds it against the work.
///
/// # Errors
/// What does not hold.
pub fn judge(disk: &RealDisk, steps: &[Step<LogStep>], at: usize) -> anyhow::Result<()> {
    let (mut synced, mut snapshot, mut written) = (0, 0, 0);
    for step in steps {
        match step.what {
            LogStep::Append(last) if step.begin <= at => written = last,
            LogStep::Sync(last) if step.end <= at => synced = last,
            LogStep::Snapshot(last) if step.end <= at => snapshot = last,
            LogStep::Append(_) | LogStep::Sync(_) | LogStep::Snapshot(_) => {}
        }
    }
    let last = look(disk, synced, snapshot, written)?;
    // It goes on, and what was found is found again.
    let recovered = recover(disk, Options::default()).context("the log does not open again")?;
    let mut writer = recovered.into_writer(CONFIG).context("the log does not go on")?;
    let batch = [Record::HardState(voted()), Record::Entry(entry(last + 1))];
    writer.append(&batch).context("the log takes no entry")?;
    writer.sync().context("the log does not sync")?;
    drop(writer);
    look(disk, last + 1, snapshot, last + 1).context("the second time")?;
    Ok(())
}

/// The last entry.
fn look(disk: &RealDisk, synced: u64, snapshot: u64, written: u64) -> anyhow::Result<u64> {
    let recovered = recover(disk, Options::default()).context("the log does not open")?;
    let (base, last) = (recovered.base().index.0, recovered.last().entry.index.0);
    ensure!(last.max(base) >= synced, "entries up to {last}, snapshot {base}; synced were {synced}");
    ensure!(last <= written, "entries up to {last}, written were {written}");
    ensure!(base >= snapshot, "snapshot {base}, {snapshot} was finished");
    check_snapshot(&recovered, base)?;
    let mut next = base + 1;
    for found in recovered.replay(recovered.base().index) {
        let found = found.context("an entry can't be read")?;
        if found != entry(next) {
            bail!("entry {next} is {found:?}");
        }
        next += 1;
    }
    ensure!(next == last.max(base) + 1, "entries up to {}, not {last}", next - 1);
    Ok(last.max(base))
}

fn check_snapshot(recovered: &Recovered<RealDisk>, base: u64) -> anyhow::Result<()> {
    if let Some(mut reader) = recovered.open_snapshot()? {
        let block = reader.next_block()?.context("an empty snapshot")?;
        ensure!(block.bytes == payload(base), "snapshot {base} holds something else");
        ensure!(reader.next_block()?.is_none(), "snapshot {base} holds more");
    }
    Ok(())
}
