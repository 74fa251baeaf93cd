//! The power fails at each operation of a workload of appends, syncs, new segments, snapshots and
//! prunes, and again at each operation of the recovery. What a sync covered is always there.

use dfs_disk::sim::{Rng, SimDisk};
use dfs_master::log::{
    ConfState, EntryId, IdentityError, LogWriter, NodeId, Options, RecoverError, Section, SnapshotStore,
    init, recover,
};
use dfs_proto::ids::{LogIndex, Term};

use crate::support::{CONFIG, entries, hard_state, identity, load, payload, replayed};

/// What the workload was told before the end came.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    initialised: bool,
    term: u64,
    durable_term: u64,
    written: u64,
    durable: u64,
    snapshot: u64,
}

const SECTION: Section = Section { id: 3, version: 1 };

/// Runs until the end or the first error.
fn work(disk: &SimDisk, seed: u64, told: &mut Told) -> Option<()> {
    let mut rng = Rng::new(seed);
    if !told.initialised {
        init(disk, &identity(), CONFIG).ok()?;
        told.initialised = true;
    }
    let recovered = recover(disk, Options::default()).ok()?;
    let store = SnapshotStore::new(disk.clone(), recovered.identity());
    let mut next = recovered.last().entry.index.0 + 1;
    let term = recovered.hard_state().term.0 + 1;
    let mut writer = recovered.into_writer(CONFIG).ok()?;
    writer.append(&[hard_state(term)]).ok()?;
    told.term = term;
    sync(&mut writer, told)?;
    for round in 0..30 {
        let batch = 1 + rng.below(8);
        writer.append(&entries(next..=next + batch - 1, term)).ok()?;
        next += batch;
        told.written = next - 1;
        if rng.below(3) == 0 {
            sync(&mut writer, told)?;
        }
        if rng.below(4) == 0
            && let Some(plan) = writer.wants_spare()
        {
            writer.give_spare(plan.run().ok()?);
        }
        if rng.below(6) == 0 {
            writer.note_idle().ok()?;
        }
        if round % 9 == 8 {
            snapshot(&store, &mut writer, told, next - 1 - rng.below(3).min(next - 2))?;
        }
    }
    sync(&mut writer, told)
}

fn sync(writer: &mut LogWriter<SimDisk>, told: &mut Told) -> Option<()> {
    told.durable = writer.sync().ok()?.entry.index.0;
    told.durable_term = told.term;
    Some(())
}

/// A snapshot of the entries up to `index`, some of which may not be durable yet.
fn snapshot(
    store: &SnapshotStore<SimDisk>,
    writer: &mut LogWriter<SimDisk>,
    told: &mut Told,
    index: u64,
) -> Option<()> {
    if index <= told.snapshot {
        return Some(());
    }
    let id = EntryId { index: LogIndex(index), term: Term(told.term) };
    let mut out = store.begin(id, ConfState::of(&[NodeId(1)]), vec![SECTION]).ok()?;
    out.block(SECTION.id, &payload(index, told.term)).ok()?;
    out.block(SECTION.id, &index.to_le_bytes()).ok()?;
    out.finish().ok()?;
    told.snapshot = index;
    if let Some(older) = store.prune(id.index).ok()? {
        writer.prune(older).run().ok()?;
    }
    Some(())
}

/// Recovers, and holds what is found against what was told. `None` if the disk stopped meanwhile.
fn check(disk: &SimDisk, told: &Told, at_least: u64) -> Option<Vec<(u64, u64)>> {
    let recovered = match recover(disk, Options::default()) {
        Ok(recovered) => recovered,
        Err(RecoverError::Identity(IdentityError::Missing)) if !told.initialised => return Some(Vec::new()),
        Err(_) if disk.stopped() => return None,
        Err(error) => panic!("{error}\n{told:?}"),
    };
    let last = recovered.last().entry.index.0;
    assert!(last >= at_least, "entries up to {last}, told {told:?}");
    assert!(recovered.base().index.0 >= told.snapshot, "{told:?}");
    let hard = recovered.hard_state();
    assert!(hard.term.0 >= told.durable_term && hard.commit.0 <= last);
    assert!(hard.term.0 == 0 || hard.vote == Some(NodeId(1)) || hard.term == recovered.base().term);
    let blocks = load(&recovered).unwrap();
    if let [state, index] = &blocks[..] {
        let base = recovered.base();
        assert_eq!(
            (state, &index[..]),
            (&payload(base.index.0, base.term.0), &base.index.0.to_le_bytes()[..])
        );
    }
    let found = replayed(&recovered);
    let expected: Vec<u64> = (recovered.base().index.0 + 1..=last).collect();
    assert_eq!(found.iter().map(|(index, _)| *index).collect::<Vec<u64>>(), expected);
    Some(found)
}

/// Cuts the power at each operation of a recovery of a copy of `disk`.
fn cut_recoveries(disk: &SimDisk, told: &Told, at_least: u64) {
    for ops in 0.. {
        let copy = disk.fork(ops);
        copy.stop_after(ops);
        let done = recover(&copy, Options::default()).ok().and_then(|r| r.into_writer(CONFIG).ok()).is_some();
        let stopped = copy.stopped();
        copy.power_cut();
        check(&copy, told, at_least).unwrap();
        if done || !stopped {
            return;
        }
    }
}

/// A process takes up what a killed one left in memory; the power fails before it has synced anything.
fn restart_and_cut(disk: &SimDisk, told: &Told) {
    let Ok(recovered) = recover(disk, Options::default()) else { return };
    let last = recovered.last().entry.index.0;
    let mut writer = recovered.into_writer(CONFIG).unwrap();
    writer.append(&[hard_state(told.term + 5)]).unwrap();
    drop(writer);
    disk.power_cut();
    check(disk, told, last).unwrap();
}

fn run(seed: u64, nested: bool) {
    let mut told = Told::default();
    let whole = SimDisk::new(seed, 16 << 20);
    work(&whole, seed, &mut told).unwrap();
    assert!(told.snapshot > 0 && told.durable > 60);
    for ops in 0..whole.ops() {
        let disk = SimDisk::new(seed.wrapping_mul(1_000_003) ^ ops, 16 << 20);
        let mut told = Told::default();
        disk.stop_after(ops);
        assert_eq!(work(&disk, seed, &mut told), None);
        let killed = disk.fork(ops);
        killed.crash_process();
        check(&killed, &told, told.written).unwrap();
        restart_and_cut(&killed, &told);
        disk.power_cut();
        if nested {
            cut_recoveries(&disk, &told, told.durable);
        }
        let found = check(&disk, &told, told.durable).unwrap();
        assert_eq!(check(&disk, &told, told.durable).unwrap(), found, "recovery is idempotent");
        // The log goes on from there, through a second cut.
        disk.stop_after(ops % 60);
        work(&disk, seed + 1, &mut told).unwrap_or_default();
        disk.power_cut();
        check(&disk, &told, told.durable).unwrap();
    }
}

#[test]
fn at_every_operation() {
    for seed in 0..12 {
        run(seed, false);
    }
}

#[test]
fn at_every_operation_and_again_in_recovery() {
    for seed in 100..103 {
        run(seed, true);
    }
}
