//! Scrubs: everything is looked at in time, what is found is mended, and replicas that differ are told of.

use dfs_proto::checksum::crc32c;
use dfs_proto::chunk::Range;
use dfs_proto::control::StartScrub;
use dfs_proto::meta::Suspicion;

use super::bench::{Bench, CHUNK, Packet, TERM, num};
use crate::core::SCRUB_PERIOD_MS;
use crate::core::io::{DiskOp, Input, Reply};
use crate::store::{BadPart, Write};

const DATA_AT: u64 = 128 << 10;
const TABLE_AT: u64 = 8192;
const HOUR_MS: u64 = 3_600_000;

fn flip(bench: &Bench, server: u16, at: u64) {
    assert!(bench.nodes[&num(server)].disk.flip_bit(&format!("chunks/07/{CHUNK}.chunk"), at, 1));
}

fn hurry(bench: &mut Bench, server: u16) {
    let call = bench.ask(server, |call| Input::StartScrub { call, body: StartScrub { term: TERM } });
    assert_eq!(bench.replies[&call], Reply::Done);
}

/// Lets long times pass: a step an hour, with heartbeats.
fn hours(bench: &mut Bench, hours: u64) {
    for _ in 0..hours {
        bench.now = bench.now.plus_ms(HOUR_MS);
        let servers: Vec<_> = bench.nodes.keys().copied().collect();
        for server in servers {
            bench.beat(server);
            bench.step(server, Input::Tick);
        }
        bench.run();
    }
}

fn passes(bench: &Bench, server: u16) -> u64 {
    bench.nodes[&num(server)].core.scrub_report(bench.now).disks[0].passes
}

#[test]
fn every_replica_is_looked_at_within_the_period_without_being_asked() {
    let mut bench = Bench::new(2);
    bench.create(&[1, 2]);
    bench.pass(2, &[]);
    flip(&bench, 2, DATA_AT + 5 * 4096 + 7);
    hours(&mut bench, 24);
    assert_eq!(bench.nodes[&num(2)].store.verify(CHUNK).unwrap().bad, [5], "no hurry");
    hours(&mut bench, SCRUB_PERIOD_MS / HOUR_MS - 24);
    bench.pass(5, &[1, 2]);
    bench.assert_equal(&[1, 2]);
    let report = bench.nodes[&num(2)].core.scrub_report(bench.now);
    assert_eq!((report.found, report.mended, report.damaged), (1, 1, 0));
    assert_eq!((report.disks[0].passes, report.disks[0].behind), (1, false));
    assert!(report.disks[0].oldest_s.is_some_and(|age| age <= SCRUB_PERIOD_MS / 1000));
}

#[test]
fn a_scrub_that_was_asked_for_ends_at_once_and_mends_data_table_and_header() {
    for server in [1, 2] {
        let mut bench = Bench::new(3);
        bench.create(&[1, 2, 3]);
        bench.pass(2, &[]);
        for at in [DATA_AT + 3 * 4096 + 1, DATA_AT + 9 * 4096, TABLE_AT + 12, 200] {
            flip(&bench, server, at);
        }
        hurry(&mut bench, server);
        bench.pass(20, &[1, 2, 3]);
        assert_eq!(passes(&bench, server), 1);
        let report = bench.nodes[&num(server)].core.scrub_report(bench.now);
        assert_eq!((report.found, report.mended, report.rewritten, report.hopeless), (2, 2, 2, 0));
        let kept = bench.nodes[&num(server)].store.evidence().unwrap();
        let mut parts: Vec<_> = kept.iter().map(|evidence| (evidence.part, evidence.at)).collect();
        parts.sort_by_key(|(_, at)| *at);
        let blocks = [3, 9].map(|block| (BadPart::Block, DATA_AT + block * 4096));
        assert_eq!(parts[..2], [(BadPart::HeaderSlot, 0), (BadPart::TableSector, TABLE_AT)]);
        assert_eq!(parts[2..], blocks);
        bench.assert_equal(&[1, 2, 3]);
        // Nothing is left: neither a second scrub nor the next process finds anything.
        hurry(&mut bench, server);
        bench.pass(20, &[1, 2, 3]);
        assert_eq!(bench.nodes[&num(server)].store.evidence().unwrap().len(), 4);
        bench.restart(num(server));
        assert_eq!(bench.nodes[&num(server)].store.metrics().damaged_sectors, 0);
        assert!(bench.nodes[&num(server)].store.verify(CHUNK).unwrap().bad.is_empty());
    }
}

#[test]
fn what_is_recovered_when_its_turn_comes_is_looked_at_afterwards() {
    let mut bench = Bench::new(2);
    bench.create(&[1, 2]);
    bench.pass(2, &[]);
    flip(&bench, 1, TABLE_AT + 12);
    bench.fence(1, 2);
    hurry(&mut bench, 1);
    bench.pass(1_000, &[1, 2]);
    assert_eq!(passes(&bench, 1), 0);
    let members = bench.members(&[1, 2]);
    bench.active(&[1, 2], 2, 2, members);
    bench.pass(1_000, &[1, 2]);
    let report = bench.nodes[&num(1)].core.scrub_report(bench.now);
    assert_eq!((report.rewritten, passes(&bench, 1)), (1, 1));
    // One that goes on not serving holds no pass up for long.
    bench.fence(1, 3);
    hurry(&mut bench, 1);
    bench.pass(11_000, &[1, 2]);
    assert_eq!(passes(&bench, 1), 2);
}

#[test]
fn the_next_process_goes_on_where_the_last_one_was() {
    let mut bench = Bench::new(2);
    bench.create(&[1, 2]);
    bench.pass(2, &[]);
    hurry(&mut bench, 1);
    bench.pass(20, &[1, 2]);
    flip(&bench, 1, DATA_AT + 4096);
    flip(&bench, 2, DATA_AT + 4096);
    assert!(bench.read(1, bench.cap(1, 1), 1).is_err());
    bench.pass(50, &[1, 2]);
    bench.step(num(1), Input::Stop);
    bench.run();
    bench.restart(num(1));
    let report = bench.nodes[&num(1)].core.scrub_report(bench.now);
    assert_eq!(report.disks[0].passes, 1);
    assert_eq!(report.damaged, 1, "what was not mended is remembered");
}

#[test]
fn a_disk_that_does_not_get_to_it_says_so() {
    let mut bench = Bench::new(1);
    bench.create(&[1]);
    bench.hold(
        |packet| matches!(packet, Packet::Disk { task, .. } if matches!(task.op, DiskOp::Scrub { .. })),
    );
    hours(&mut bench, SCRUB_PERIOD_MS / HOUR_MS - 48);
    assert!(!bench.nodes[&num(1)].core.scrub_report(bench.now).disks[0].behind);
    hours(&mut bench, SCRUB_PERIOD_MS / HOUR_MS);
    assert!(bench.nodes[&num(1)].core.scrub_report(bench.now).disks[0].behind);
    bench.release();
    bench.pass(200, &[1]);
    assert_eq!(passes(&bench, 1), 1);
    assert!(!bench.nodes[&num(1)].core.scrub_report(bench.now).disks[0].behind);
}

#[test]
fn a_replica_whose_file_is_gone_is_reported_as_lost() {
    let mut bench = Bench::new(2);
    bench.create(&[1, 2]);
    bench.pass(2, &[]);
    dfs_disk::Disk::remove(&bench.nodes[&num(2)].disk, &format!("chunks/07/{CHUNK}.chunk")).unwrap();
    hurry(&mut bench, 2);
    bench.pass(20, &[1, 2]);
    assert!(bench.troubles.iter().any(|(from, report)| *from == num(2) && report.failed == [CHUNK]));
}

/// Changes one replica with a checksum that fits.
fn lie(bench: &Bench, server: u16) {
    let bytes = vec![9; 4096];
    let range = Range { offset: 4096, len: 4096 };
    let write = Write { ranges: &[range], data: &bytes, crcs: &[crc32c(&bytes).0] };
    bench.nodes[&num(server)].store.write(CHUNK, &write).unwrap();
}

fn diverged(bench: &Bench) -> Vec<u16> {
    let reports = bench.troubles.iter().flat_map(|(_, trouble)| trouble.reports.iter());
    reports.filter(|report| report.what == Suspicion::Diverged).map(|report| report.server.0).collect()
}

#[test]
fn replicas_that_differ_are_told_of_and_the_most_are_believed() {
    for (members, liar, blamed) in
        [(vec![1, 2, 3], 2, 2), (vec![1, 2, 3], 1, 1), (vec![1, 2], 1, 2), (vec![1, 2], 2, 2)]
    {
        let mut bench = Bench::new(3);
        bench.create(&members);
        bench.pass(2, &[]);
        hurry(&mut bench, 1);
        bench.pass(20, &[1, 2, 3]);
        assert!(diverged(&bench).is_empty(), "they agree");
        lie(&bench, liar);
        hurry(&mut bench, 1);
        bench.pass(20, &[1, 2, 3]);
        assert_eq!(diverged(&bench), [blamed], "{members:?}, {liar} differs");
        assert_eq!(bench.nodes[&num(1)].core.scrub_report(bench.now).diverged, 1);
    }
}

#[test]
fn digests_that_a_write_overtook_say_nothing() {
    let mut bench = Bench::new(2);
    bench.create(&[1, 2]);
    bench.pass(2, &[]);
    bench
        .hold(|packet| matches!(packet, Packet::Peer { input: Input::ForwardSync { digest: true, .. }, .. }));
    hurry(&mut bench, 1);
    bench.pass(20, &[1, 2]);
    assert_eq!(bench.held.len(), 1);
    bench.write(1, bench.cap(1, 1), 2, Range { offset: 0, len: 4096 }, 2);
    bench.release();
    bench.pass(20, &[1, 2]);
    assert!(diverged(&bench).is_empty(), "the primary's digest is from before the write");
}
