//! What servers say of damaged blocks, and what the master makes of it.

use dfs_proto::conn::Role;
use dfs_proto::control::{DiskScrub, ReportTrouble, ScrubReport};
use dfs_proto::ids::{ChunkVersion, ServerNum};
use dfs_proto::meta::{ClusterStatus, ScrubNow, ScrubStatus, SuspectReport, Suspicion};
use dfs_proto::status::Status;

use crate::cluster::Cluster;

/// A secondary of a new file's chunk reports this of itself.
fn reported(what: Suspicion) -> (Cluster, dfs_proto::ids::ChunkId, ServerNum) {
    let mut cluster = Cluster::new(4, 3);
    let client = cluster.client();
    let (_, place) = cluster.written_file(client, "f");
    let about = place.members[2];
    let conn = cluster.server(about.server).conn;
    let report = SuspectReport { server: about.server, boot: about.boot, chunk: Some(place.chunk()), what };
    cluster.ask(conn, &ReportTrouble { reports: vec![report], failed: Vec::new() }).unwrap();
    cluster.run(500);
    (cluster, place.chunk(), about.server)
}

#[test]
fn a_damaged_block_is_the_servers_business() {
    let (cluster, chunk, server) = reported(Suspicion::Corrupt { block: 3 });
    let meta = cluster.meta(chunk);
    assert_eq!(meta.version, ChunkVersion(1), "no config changes for one block");
    assert!(meta.members.contains(server));
}

#[test]
fn a_replica_that_differs_is_left_out_and_filled_anew() {
    let (mut cluster, chunk, server) = reported(Suspicion::Diverged);
    let meta = cluster.meta(chunk);
    assert_eq!(meta.version, ChunkVersion(2));
    assert!(!meta.members.contains(server));
    let primary = meta.members.primary().unwrap();
    cluster.until(20_000, |cluster| {
        let filled = cluster.finish_learners(primary);
        filled.iter().for_each(|filled| assert!(cluster.meta(chunk).members.contains(*filled)));
        cluster.meta(chunk).members.len() == 3
    });
}

#[test]
fn what_servers_say_of_their_disks_is_told_and_added_up() {
    let mut cluster = Cluster::new(2, 2);
    let tool = cluster.connect(Role::Tool);
    let scrub = ScrubReport {
        found: 7,
        damaged: 3,
        hopeless: 1,
        disks: vec![DiskScrub { done: 5, total: 9, ..DiskScrub::default() }],
        ..ScrubReport::default()
    };
    cluster.servers[0].scrub = scrub.clone();
    cluster.servers[1].scrub = ScrubReport { damaged: 2, ..ScrubReport::default() };
    (0..2).for_each(|at| drop(cluster.heartbeat(at)));
    let reports = cluster.ask(tool, &ScrubStatus {}).unwrap();
    assert_eq!(reports.servers[0].scrub, scrub);
    let status = cluster.ask(tool, &ClusterStatus {}).unwrap();
    assert_eq!((status.blocks_damaged, status.blocks_hopeless), (5, 1));
}

#[test]
fn a_scrub_is_asked_of_one_server_or_of_all() {
    let mut cluster = Cluster::new(3, 2);
    let tool = cluster.connect(Role::Tool);
    let one = cluster.servers[1].num;
    assert_eq!(cluster.ask(tool, &ScrubNow { server: Some(one) }).unwrap().servers, [one]);
    assert_eq!(cluster.ask(tool, &ScrubNow { server: None }).unwrap().servers.len(), 3);
    cluster.run(100);
    let asked: Vec<u32> = cluster.servers.iter().map(|server| server.scrubs_asked).collect();
    assert_eq!(asked, [1, 2, 1]);
    let nobody = cluster.ask(tool, &ScrubNow { server: Some(ServerNum(77)) });
    assert_eq!(nobody.unwrap_err(), Status::NotFound);
}

#[test]
fn a_server_that_is_away_scrubs_when_it_is_back() {
    let mut cluster = Cluster::new(3, 2);
    let tool = cluster.connect(Role::Tool);
    let away = cluster.servers[1].num;
    cluster.kill(away);
    assert_eq!(cluster.ask(tool, &ScrubNow { server: None }).unwrap().servers.len(), 2);
    cluster.run(1000);
    cluster.revive(away, true);
    cluster.run(1000);
    let asked: Vec<u32> = cluster.servers.iter().map(|server| server.scrubs_asked).collect();
    assert_eq!(asked, [1, 1, 1]);
}
