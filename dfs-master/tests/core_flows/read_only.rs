//! Members whose disks take no writes: the chunk goes on with others where there are others, once, and else its writer
//! is told, and its readers see what is there.

use dfs_proto::control::ReportTrouble;
use dfs_proto::ids::{Handle, ServerNum};
use dfs_proto::meta::{Attr, ChunkPlace, MapRead, Setattr, SuspectReport, Suspicion};
use dfs_proto::status::Status;
use dfs_proto::units::ChunkIndex;

use crate::cluster::{Client, Cluster, set_size};

fn report(cluster: &mut Cluster, place: &ChunkPlace, server: ServerNum, what: Suspicion) {
    let (conn, boot) = (cluster.server(server).conn, cluster.server(server).boot);
    let report = SuspectReport { server, boot, chunk: Some(place.chunk()), what };
    cluster.ask(conn, &ReportTrouble { reports: vec![report], failed: Vec::new() }).unwrap();
}

/// The server's disk took a failed sync; who wanted to write to the chunk was refused.
fn refuses(cluster: &mut Cluster, place: &ChunkPlace, server: ServerNum) {
    cluster.server_mut(server).read_only = true;
    cluster.heartbeat(cluster.at(server));
    report(cluster, place, server, Suspicion::ReadOnly);
}

fn failed(cluster: &mut Cluster, place: &ChunkPlace, server: ServerNum) {
    let conn = cluster.server(server).conn;
    cluster.ask(conn, &ReportTrouble { reports: Vec::new(), failed: vec![place.chunk()] }).unwrap();
}

fn members(cluster: &Cluster, place: &ChunkPlace) -> Vec<ServerNum> {
    cluster.meta(place.chunk()).members.iter().collect()
}

fn read(cluster: &mut Cluster, client: Client, attr: &Attr) -> Result<usize, Status> {
    let read = MapRead { ino: attr.ino, first: ChunkIndex(0), count: 1 };
    cluster.ask(client.conn, &read).map(|map| map.places[0].members.len())
}

#[test]
fn one_of_them_is_left_out() {
    let mut cluster = Cluster::new(2, 2);
    let client = cluster.client();
    let (attr, place) = cluster.written_file(client, "f");
    let [primary, other] = members(&cluster, &place)[..] else { panic!("two members") };
    refuses(&mut cluster, &place, primary);
    cluster.until(5_000, |cluster| cluster.map_write(client, attr.ino, 0).is_ok());
    assert_eq!(members(&cluster, &place), [other]);
}

#[test]
fn a_late_word_of_the_process_before_says_nothing_of_the_disk() {
    let mut cluster = Cluster::new(2, 2);
    let client = cluster.client();
    let (attr, place) = cluster.written_file(client, "f");
    let [primary, other] = members(&cluster, &place)[..] else { panic!("two members") };
    let boot = cluster.server(other).boot;
    cluster.kill(other);
    cluster.revive(other, false);
    cluster.until(20_000, |cluster| cluster.map_write(client, attr.ino, 0).is_ok());
    let conn = cluster.server(other).conn;
    let what = Suspicion::ReadOnly;
    let late = SuspectReport { server: other, boot, chunk: Some(place.chunk()), what };
    cluster.ask(conn, &ReportTrouble { reports: vec![late], failed: Vec::new() }).unwrap();
    cluster.run(1_000);
    let both = members(&cluster, &place);
    assert!(both.contains(&primary) && both.contains(&other), "{both:?}");
    assert!(cluster.map_write(client, attr.ino, 0).is_ok());
}

#[test]
fn with_no_other_server_the_writer_is_told_and_nothing_is_tried_again() {
    let mut cluster = Cluster::new(2, 2);
    let client = cluster.client();
    let (attr, place) = cluster.written_file(client, "f");
    cluster.commit_synced(client, &attr, &place, 10_000);
    let all = members(&cluster, &place);
    // Both before the master has a say.
    cluster.server_mut(all[0]).read_only = true;
    refuses(&mut cluster, &place, all[1]);
    refuses(&mut cluster, &place, all[0]);
    cluster.until(5_000, |cluster| cluster.map_write(client, attr.ino, 0) == Err(Status::DiskFailed));
    let version = cluster.meta(place.chunk()).version;
    for _ in 0..20 {
        let last = members(&cluster, &place);
        last.iter().for_each(|server| refuses(&mut cluster, &place, *server));
        cluster.run(2_000);
        assert_eq!(cluster.map_write(client, attr.ino, 0), Err(Status::DiskFailed));
    }
    assert_eq!(cluster.meta(place.chunk()).version, version, "recovered again and again");
    assert!(read(&mut cluster, client, &attr).unwrap() > 0, "it can be read");
    // A truncation within it is refused before it is in the log, where nothing could end it.
    let cut = Setattr { handle: Some(Handle(1)), ..set_size(attr.ino, 100) };
    assert_eq!(cluster.ask(client.conn, &cut), Err(Status::DiskFailed));
    // The next process of a server finds its disk well.
    for server in members(&cluster, &place) {
        cluster.kill(server);
        cluster.server_mut(server).read_only = false;
        cluster.revive(server, false);
    }
    cluster.until(20_000, |cluster| cluster.map_write(client, attr.ino, 0).is_ok());
}

#[test]
fn with_another_server_the_chunk_is_copied_there() {
    let mut cluster = Cluster::new(3, 2);
    let client = cluster.client();
    let (attr, place) = cluster.written_file(client, "f");
    let all = members(&cluster, &place);
    cluster.server_mut(all[0]).read_only = true;
    refuses(&mut cluster, &place, all[1]);
    refuses(&mut cluster, &place, all[0]);
    cluster.until(30_000, |cluster| {
        let primary = members(cluster, &place)[0];
        cluster.finish_learners(primary);
        cluster.map_write(client, attr.ino, 0).is_ok()
    });
    let now = members(&cluster, &place);
    assert!(now.len() == 1 && !all.contains(&now[0]), "{now:?} of {all:?}");
}

#[test]
fn a_chunk_that_every_disk_failed_is_an_error_for_readers_and_writers() {
    let mut cluster = Cluster::new(2, 2);
    let client = cluster.client();
    let (attr, place) = cluster.written_file(client, "f");
    let all = members(&cluster, &place);
    for server in &all {
        cluster.server_mut(*server).replicas.get_mut(&place.chunk()).unwrap().failed = true;
    }
    failed(&mut cluster, &place, all[0]);
    failed(&mut cluster, &place, all[1]);
    cluster.run(5_000);
    let version = cluster.meta(place.chunk()).fence();
    assert_eq!(cluster.map_write(client, attr.ino, 0), Err(Status::DiskFailed));
    assert_eq!(read(&mut cluster, client, &attr), Err(Status::DiskFailed));
    cluster.run(60_000);
    assert_eq!(cluster.meta(place.chunk()).fence(), version, "recovered again and again");
}

#[test]
fn what_nobody_writes_to_goes_elsewhere_and_is_never_below_its_goal() {
    let mut cluster = Cluster::new(4, 3);
    let client = cluster.client();
    let places: Vec<ChunkPlace> = (0..8).map(|n| cluster.written_file(client, &format!("f{n}")).1).collect();
    let broken = ServerNum(2);
    let held: Vec<&ChunkPlace> =
        places.iter().filter(|place| members(&cluster, place).contains(&broken)).collect();
    // Half of what it has is on the one of its disks that failed.
    let (stranded, well) = held.split_at(held.len() / 2);
    assert!(stranded.len() > 1 && stranded.iter().any(|place| members(&cluster, place)[0] == broken));
    stranded.iter().for_each(|place| report(&mut cluster, place, broken, Suspicion::Stranded));
    for _ in 0..300 {
        cluster.run(100);
        (1..=4).for_each(|server| cluster.fill_some(ServerNum(server)));
        assert!(places.iter().all(|place| members(&cluster, place).len() >= 3), "I15");
    }
    for place in stranded {
        let now = members(&cluster, place);
        assert!(now.len() == 3 && !now.contains(&broken), "{now:?}");
    }
    well.iter().for_each(|place| assert!(members(&cluster, place).contains(&broken)));
    // It has another disk, which takes new replicas.
    let new = (0..8).map(|n| cluster.written_file(client, &format!("new{n}")).1);
    let new: Vec<ChunkPlace> = new.collect();
    assert!(new.iter().any(|place| members(&cluster, place).contains(&broken)));
    // The next process finds the disk well, and what is told of the one before is void.
    let before = cluster.server(broken).boot;
    cluster.kill(broken);
    cluster.revive(broken, false);
    cluster.run(20_000);
    let conn = cluster.server(broken).conn;
    let what = Suspicion::Stranded;
    let late = SuspectReport { server: broken, boot: before, chunk: Some(well[0].chunk()), what };
    cluster.ask(conn, &ReportTrouble { reports: vec![late], failed: Vec::new() }).unwrap();
    cluster.run(20_000);
    assert!(members(&cluster, well[0]).contains(&broken));
}

#[test]
fn what_every_disk_failed_before_its_first_sync_begins_anew_when_the_kernels_are_gone() {
    let mut cluster = Cluster::new(2, 2);
    let client = cluster.client();
    let (attr, place) = cluster.written_file(client, "f");
    let all = members(&cluster, &place);
    // Before a recovery is through.
    all.iter().for_each(|server| cluster.server_mut(*server).deaf = 100);
    all.iter().for_each(|server| failed(&mut cluster, &place, *server));
    for server in &all {
        cluster.kill(*server);
        cluster.server_mut(*server).deaf = 0;
        cluster.server_mut(*server).replicas.remove(&place.chunk());
        cluster.revive(*server, true);
    }
    cluster.until(60_000, |cluster| cluster.map_write(client, attr.ino, 0).is_ok());
    assert!(!members(&cluster, &place).is_empty());
}
