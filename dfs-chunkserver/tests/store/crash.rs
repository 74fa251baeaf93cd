//! The power fails, or the process is killed, at every single operation of a workload. Afterwards:
//! everything synced is intact and readable, no chunk that was synced is gone, every sector of unsynced
//! data is one that was written, nothing that was not written since its sync is called corrupt, and
//! counters and fences are where their acknowledgement said, and a header says "closed" only of what is there.

use std::collections::BTreeMap;

use dfs_chunkserver::store::{Damage, Durability, Header, HeaderChange, Mhwm, Store, StoreError, ToClose};
use dfs_disk::sim::{Rng, SimDisk};
use dfs_proto::chunk::Range;
use dfs_proto::ids::{ChunkId, ChunkVersion, ConfigNum, Generation, LogIndex, OpenNum, Seq, SizeEpoch, Term};

use super::support::*;

const SIZE: u32 = 64 << 10;
const SECTOR: usize = 512;

/// What a chunk may look like after a crash.
#[derive(Clone)]
struct Oracle {
    /// Its bytes after every change, the first being what the last sync made durable.
    snaps: Vec<Vec<u8>>,
    /// Blocks that some change since then touched.
    touched: Vec<bool>,
    /// The table's one sector is on disk; before, no block's checksum need be, a hole's neither.
    table: bool,
    /// A sync has ended well, so the chunk must be there.
    durable: bool,
    /// The newest change is acknowledged; what it touched else may be half done.
    acked: bool,
    last_touched: Vec<bool>,
    version: u32,
    durable_version: u32,
    epoch: u32,
    open_num: u32,
    /// Closed under `open_num` since the last change, and whether that was acknowledged.
    closed: Option<bool>,
}

impl Oracle {
    fn new() -> Oracle {
        let blocks = SIZE as usize / BLOCK;
        Oracle {
            snaps: vec![vec![0; SIZE as usize]],
            touched: vec![false; blocks],
            table: false,
            durable: false,
            acked: true,
            last_touched: vec![false; blocks],
            version: 1,
            durable_version: 0,
            epoch: 0,
            open_num: 1,
            closed: None,
        }
    }

    fn change(&mut self, from: u32, bytes: &[u8]) {
        let mut next = self.snaps.last().unwrap().clone();
        let from = from as usize;
        next[from..from + bytes.len()].copy_from_slice(bytes);
        self.last_touched.fill(false);
        if !bytes.is_empty() {
            for block in from / BLOCK..=(from + bytes.len() - 1) / BLOCK {
                self.touched[block] = true;
                self.last_touched[block] = true;
            }
        }
        self.snaps.push(next);
        self.acked = false;
    }

    fn synced(&mut self, version: u32) {
        self.snaps.drain(..self.snaps.len() - 1);
        self.touched.fill(false);
        (self.table, self.durable) = (true, true);
        self.durable_version = self.durable_version.max(version);
    }
}

struct World {
    rng: Rng,
    store: Option<Store<SimDisk>>,
    disk: SimDisk,
    chunks: BTreeMap<ChunkId, Oracle>,
    mhwm: Mhwm,
    hb_ctr: u64,
    /// Below which no replica is made: fences outlive what they fenced.
    floor: BTreeMap<ChunkId, u32>,
}

type Outcome = Result<(), StoreError>;

impl World {
    fn new(seed: u64) -> World {
        let disk = sim(seed);
        World {
            rng: Rng::new(seed),
            store: None,
            disk,
            chunks: BTreeMap::new(),
            mhwm: Mhwm::default(),
            hb_ctr: 0,
            floor: BTreeMap::new(),
        }
    }

    fn store(&self) -> &Store<SimDisk> {
        self.store.as_ref().unwrap()
    }

    fn open(&mut self) -> Outcome {
        self.store = None;
        let opened = Store::open(self.disk.clone(), EXPECT, config(SIZE, 2));
        // Refused only because the power is gone.
        let (store, _) = opened.map_err(|_| StoreError::WouldBlock)?;
        self.hb_ctr = store.hb_ctr();
        self.store = Some(store);
        Ok(())
    }

    fn write(&mut self, chunk: ChunkId) -> Outcome {
        if !self.chunks.contains_key(&chunk) {
            let version = self.floor.get(&chunk).copied().unwrap_or(1);
            self.store().create(Header { version: ChunkVersion(version), ..header(chunk) })?;
            self.chunks.insert(chunk, Oracle { version, ..Oracle::new() });
        }
        let offset = u32::try_from(self.rng.below(u64::from(SIZE))).unwrap();
        let len = 1 + self.rng.below(3 * 4096).min(u64::from(SIZE - offset) - 1);
        self.reopen(chunk)?;
        let (fill, offset) = (self.rng.bits(), if self.rng.coin() { offset / 4096 * 4096 } else { offset });
        let bytes: Vec<u8> = (0..len).map(|at| (fill ^ (at >> 7)).to_le_bytes()[0]).collect();
        let oracle = self.chunks.get_mut(&chunk).unwrap();
        oracle.change(offset, &bytes);
        write(self.store.as_ref().unwrap(), chunk, offset, &bytes)?;
        oracle.acked = true;
        Ok(())
    }

    fn sync(&mut self, chunk: ChunkId) -> Outcome {
        let seq = Seq(self.rng.below(1000));
        self.store.as_ref().unwrap().sync(chunk, seq)?;
        let oracle = self.chunks.get_mut(&chunk).unwrap();
        oracle.synced(oracle.version);
        Ok(())
    }

    fn close(&mut self, chunk: ChunkId) -> Outcome {
        let oracle = self.chunks.get_mut(&chunk).unwrap();
        oracle.closed = Some(false);
        let closing = [ToClose { chunk, open_num: OpenNum(oracle.open_num), seq: Seq(5), note: None }];
        let digest = self.store.as_ref().unwrap().close_many(&closing).pop().unwrap()?;
        assert!(digest.is_some(), "nobody writes meanwhile");
        oracle.closed = Some(true);
        oracle.synced(oracle.version);
        Ok(())
    }

    /// What was closed is written again.
    fn reopen(&mut self, chunk: ChunkId) -> Outcome {
        let oracle = self.chunks.get_mut(&chunk).unwrap();
        if oracle.closed.take().is_none() {
            return Ok(());
        }
        oracle.open_num += 1;
        let open_num = Some(OpenNum(oracle.open_num));
        let change = HeaderChange { open: Some(true), open_num, ..HeaderChange::default() };
        self.store.as_ref().unwrap().set_header(chunk, &change, Durability::Later).map(drop)
    }

    fn zero(&mut self, chunk: ChunkId) -> Outcome {
        self.reopen(chunk)?;
        let from = u32::try_from(self.rng.below(u64::from(SIZE))).unwrap();
        let oracle = self.chunks.get_mut(&chunk).unwrap();
        oracle.change(from, &vec![0; (SIZE - from) as usize]);
        oracle.epoch += 1;
        self.store.as_ref().unwrap().zero(chunk, from, SIZE, SizeEpoch(oracle.epoch))?;
        oracle.acked = true;
        // Zeros are durable on return, and with them all other bytes of the file. Its name and header
        // need not be.
        let durable = oracle.durable;
        oracle.synced(0);
        oracle.durable = durable;
        Ok(())
    }

    /// A write of zeros, no more durable than another.
    fn punch(&mut self, chunk: ChunkId) -> Outcome {
        self.reopen(chunk)?;
        let blocks = u64::from(SIZE) / 4096;
        let (first, count) = (self.rng.below(blocks), 1 + self.rng.below(6));
        let from = u32::try_from(first * 4096).unwrap();
        let to = from + u32::try_from(count * 4096).unwrap().min(SIZE - from);
        let ragged = |rng: &mut Rng| u32::try_from(if rng.coin() { rng.below(4096) } else { 0 }).unwrap();
        let from = from + ragged(&mut self.rng);
        let to = (to - ragged(&mut self.rng)).max(from + 1);
        let oracle = self.chunks.get_mut(&chunk).unwrap();
        oracle.change(from, &vec![0; (to - from) as usize]);
        self.store.as_ref().unwrap().punch(chunk, &[Range { offset: from, len: to - from }])?;
        oracle.acked = true;
        Ok(())
    }

    /// Some forty operations on three chunks.
    fn run(&mut self) -> Outcome {
        self.open()?;
        for round in 0..14 {
            let chunk = id(self.rng.below(3));
            self.write(chunk)?;
            if self.rng.below(3) == 0 {
                self.punch(chunk)?;
            }
            match self.rng.below(10) {
                0..3 => self.sync(chunk)?,
                7 | 8 => self.close(chunk)?,
                3 => self.zero(chunk)?,
                4 => {
                    let oracle = self.chunks.get_mut(&chunk).unwrap();
                    oracle.version += 1;
                    let fence = [(chunk, ChunkVersion(oracle.version))];
                    let store = self.store.as_ref().unwrap();
                    store.fence(&fence)?.pop().unwrap()?;
                    // On a disk that is suspect it holds for this life alone.
                    if !store.suspect() {
                        oracle.durable_version = oracle.version;
                    }
                }
                5 => {
                    let oracle = self.chunks.get_mut(&chunk).unwrap();
                    oracle.version += 1;
                    let change = HeaderChange {
                        version: Some(ChunkVersion(oracle.version)),
                        config: Some(ConfigNum(oracle.version)),
                        ..HeaderChange::default()
                    };
                    self.store.as_ref().unwrap().set_header(chunk, &change, Durability::Later)?;
                }
                6 => {
                    let mhwm = Mhwm {
                        generation: Generation(1),
                        max_term: Term(round),
                        max_meta_index: LogIndex(round),
                    };
                    self.store().set_mhwm(mhwm)?;
                    self.mhwm = mhwm;
                }
                _ if round > 7 => {
                    self.store().mark_clean_shutdown()?;
                    for oracle in self.chunks.values_mut() {
                        oracle.synced(oracle.version);
                    }
                    self.open()?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Opens what the crash left and holds it against the oracle.
    fn judge(&self, disk: &SimDisk, power: bool, what: &str) {
        let (store, opened) = open(disk, config(SIZE, 100));
        assert_eq!(opened.damaged_slots, 0, "{what}");
        assert!(store.hb_ctr() > self.hb_ctr, "{what}");
        assert!(store.mhwm().max_term >= self.mhwm.max_term, "{what}");
        for (chunk, oracle) in &self.chunks {
            let Ok(header) = store.header(*chunk) else {
                let gone = if power { !oracle.durable } else { oracle.snaps.len() <= 2 };
                assert!(gone, "{what}: {chunk} is gone");
                continue;
            };
            let least =
                if power { oracle.durable_version } else { oracle.version - u32::from(!oracle.acked) };
            assert!(
                header.version.0 + 1 >= least && header.version.0 <= oracle.version,
                "{what}: {header:?}"
            );
            if power {
                assert!(header.version.0 >= oracle.durable_version, "{what}: a fence was forgotten");
            }
            self.judge_bytes(&store, *chunk, oracle, power, what);
            match oracle.closed {
                Some(acked) if header.open || header.open_num.0 < oracle.open_num => {
                    assert!(!acked, "{what}: {chunk} was closed");
                }
                Some(_) => {
                    assert_eq!(store.table(*chunk).unwrap().digest, header.digest, "{what}: {chunk}");
                }
                // Whatever the header says, the master knows that it was opened again.
                None => {}
            }
        }
    }

    fn judge_bytes(&self, store: &Store<SimDisk>, chunk: ChunkId, oracle: &Oracle, power: bool, what: &str) {
        let last = oracle.snaps.last().unwrap();
        for (block, range) in
            (0..SIZE as usize / BLOCK).map(|block| (block, block * BLOCK..(block + 1) * BLOCK))
        {
            let at = u32::try_from(range.start).unwrap();
            let number = u32::try_from(block).unwrap();
            let unsettled = if power {
                oracle.touched[block] || !oracle.table
            } else {
                !oracle.acked && oracle.last_touched[block]
            };
            let mut result = read(store, chunk, at, 4096);
            if let Err(StoreError::Corrupt { damage: Damage::Checksum, .. }) = result {
                assert!(unsettled, "{what}: {chunk} block {block} is called corrupt");
                assert!(store.resolve_torn(chunk, number).unwrap());
                result = read(store, chunk, at, 4096);
            }
            let mut found = result.unwrap().data.to_vec();
            found.resize(BLOCK, 0);
            if !unsettled {
                assert!(found == last[range], "{what}: {chunk} block {block} has changed");
                continue;
            }
            for (found, at) in found.chunks(SECTOR).zip(range.step_by(SECTOR)) {
                let mut old = oracle.snaps.iter().map(|snap| &snap[at..at + SECTOR]);
                assert!(old.any(|old| old == found), "{what}: {chunk} sector at {at} was never written");
            }
        }
        assert!(store.verify(chunk).unwrap().bad.is_empty(), "{what}");
    }
}

/// The world after a crash: what was found is settled and synced, and is what the next crash must leave.
fn next_life(world: &World, disk: SimDisk, seed: u64) -> World {
    let mut next = World { rng: Rng::new(seed), disk, mhwm: world.mhwm, ..World::new(seed) };
    let (store, _) = open(&next.disk, config(SIZE, 100));
    next.hb_ctr = store.hb_ctr();
    for (chunk, oracle) in &world.chunks {
        let Ok(header) = store.header(*chunk) else {
            next.floor.insert(*chunk, oracle.version);
            continue;
        };
        let version = header.version.0;
        let epoch = header.size_epoch.0;
        let closed = oracle.closed.filter(|_| !header.open && header.open_num.0 == oracle.open_num);
        let open_num =
            if closed.is_some() { header.open_num.0 } else { oracle.open_num.max(header.open_num.0) };
        if closed.is_none() {
            // As a recovery leaves it.
            let open_num = Some(OpenNum(open_num));
            let change = HeaderChange { open: Some(true), open_num, ..HeaderChange::default() };
            store.set_header(*chunk, &change, Durability::Later).unwrap();
        }
        store.sync(*chunk, Seq(0)).unwrap();
        let mut found = Oracle { version, epoch, open_num, closed, ..Oracle::new() };
        found.snaps = vec![read_whole(&store, *chunk, SIZE).unwrap()];
        found.synced(version);
        // A file without a block has no table yet.
        found.table = store.extent(*chunk).unwrap() > 0;
        next.chunks.insert(*chunk, found);
    }
    next
}

/// Stops a run after `stop` operations and looks at what is left after a kill and after power cuts.
fn stop_at(seed: u64, stop: u64, cuts: u64) -> bool {
    let mut world = World::new(seed);
    world.disk.stop_after(stop);
    let finished = world.run().is_ok();
    world.store = None;
    let killed = world.disk.fork(seed);
    killed.crash_process();
    world.judge(&killed, false, &format!("seed {seed}, killed after {stop}"));
    for cut in 0..cuts {
        let disk = world.disk.fork(seed ^ cut << 32 ^ stop);
        disk.power_cut();
        world.judge(&disk, true, &format!("seed {seed}, power cut {cut} after {stop}"));
        // What was found once must be found again: recovery itself may be cut short.
        disk.power_cut();
        world.judge(&disk, true, &format!("seed {seed}, power cut {cut} after {stop}, and again"));
        let seed = seed ^ cut << 40 ^ stop << 8;
        let mut next = next_life(&world, disk, seed);
        next.disk.stop_after(Rng::new(seed).below(60));
        let _ = next.run();
        next.store = None;
        next.disk.power_cut();
        next.judge(&next.disk, true, &format!("in the life after, seed {seed}"));
    }
    finished
}

#[test]
fn a_crash_at_every_operation() {
    for seed in 0..5 {
        let mut stop = 0;
        while !stop_at(seed, stop, 3) {
            stop += 1;
        }
        assert!(stop > 40, "the workload is too short to mean anything: {stop}");
    }
}

/// Whole blocks have no bytes to be torn between: the table has them as holes before their bytes go.
#[test]
fn zeros_cut_short_by_a_kill_leave_old_bytes_or_zeros() {
    for stop in 0.. {
        let disk = sim(stop);
        let (store, _) = open(&disk, config(SIZE, 100));
        store.create(header(id(1))).unwrap();
        write(&store, id(1), 0, &[7; 8 * BLOCK]).unwrap();
        store.sync(id(1), Seq(1)).unwrap();
        disk.stop_after(stop);
        let done = store.punch(id(1), &[Range { offset: 4096, len: 3 * 4096 }]).is_ok();
        drop(store);
        disk.crash_process();
        let (store, _) = open(&disk, config(SIZE, 100));
        let bytes = read_whole(&store, id(1), 8 * 4096).unwrap();
        for (number, block) in bytes.chunks(BLOCK).enumerate() {
            let zeros = block.iter().all(|byte| *byte == 0);
            assert!(zeros || block.iter().all(|byte| *byte == 7), "block {number}, stopped after {stop}");
            assert!((1..4).contains(&number) || !zeros);
            assert!(!done || zeros == (1..4).contains(&number));
        }
        if done {
            assert!(stop > 1, "there is nothing to be cut short");
            return;
        }
    }
}
