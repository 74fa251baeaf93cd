//! What it costs a small read that its reply says how busy the server is. In this thread's own time on a processor.

use std::hint::black_box;
use std::time::Duration;

use dfs_disk::real::RealDisk;
use dfs_proto::checksum::block_crcs;
use dfs_proto::chunk::Range;
use dfs_proto::frame::Outgoing;
use dfs_proto::ids::{
    ChunkId, ChunkVersion, ClusterId, ConfigNum, DiskId, Generation, OpenNum, OsBootId, ServerId,
};
use dfs_proto::request::Op;
use dfs_proto::units::Micros;
use rustix::time::{ClockId, clock_gettime};

use super::{At, LoadMeter};
use crate::store::{Expect, Header, Label, ReadMode, Store, StoreConfig, Write};

const ROUNDS: u32 = 20_000;

/// Of one round.
fn each(mut round: impl FnMut()) -> Duration {
    let time = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(u64::try_from(time.tv_sec).unwrap(), u32::try_from(time.tv_nsec).unwrap())
    };
    let once = |round: &mut dyn FnMut()| {
        let begin = time();
        (0..ROUNDS).for_each(|_| round());
        time().saturating_sub(begin)
    };
    // The best of a few: what else the machine does only ever adds.
    (0..5).map(|_| once(&mut round)).min().unwrap_or_default() / ROUNDS
}

fn store(dir: &tempfile::TempDir) -> Store<RealDisk> {
    let disk = RealDisk::new(dir.path()).unwrap();
    let cluster = ClusterId(1);
    let label = Label { cluster, generation: Generation(1), disk: DiskId(2), server: ServerId(3) };
    Store::init(&disk, &label).unwrap();
    let expect = Expect { cluster, server: None, os_boot: OsBootId(1) };
    let store = Store::open(disk, expect, StoreConfig::default()).unwrap().0;
    store.create(Header::new(ChunkId(1), ChunkVersion(1), ConfigNum(1), OpenNum(1))).unwrap();
    let data = vec![7; 4096];
    let crcs: Vec<u32> = block_crcs(&data).map(|crc| crc.0).collect();
    let ranges = [Range { offset: 0, len: 4096 }];
    store.write(ChunkId(1), &Write { ranges: &ranges, data: &data, crcs: &crcs }).unwrap();
    store
}

/// The bar is a hundredth; what makes it many times as much is found at a twentieth.
#[test]
fn a_reply_that_says_how_busy_the_server_is_costs_a_small_read_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    let meter = LoadMeter::new(None, At { now: Micros(0), cpu: Micros(0) });
    let read = each(|| drop(black_box(store.read(ChunkId(1), 0, 4096, ReadMode::MayBlock).unwrap())));
    let without = each(|| drop(black_box(Outgoing::new(Op::Read))));
    let with = each(|| {
        // As `with_load` does where the linker inlines it.
        let load = black_box(&meter).header();
        drop(black_box(Outgoing { load, ..Outgoing::new(Op::Read) }));
    });
    let counted = each(|| {
        black_box(&meter).begin(100);
        black_box(&meter).end(Op::Read, Micros(100), true);
    });
    let says = with.saturating_sub(without);
    println!(
        "a read of 4 KiB {read:?}, a reply {without:?}, its load fields {says:?} more, counting {counted:?}"
    );
    assert!(says < read / 20, "{says:?} of {read:?}");
}
