//! The master dies and comes back: from its snapshot and log, to the same state, without giving anything
//! away that somebody may still hold.

use dfs_proto::ids::{ChunkVersion, Handle};
use dfs_proto::meta::{ChunkPlace, GrantKind, OpenClaim};
use dfs_proto::status::Status;

use crate::cluster::Cluster;

fn claim(place: &ChunkPlace) -> OpenClaim {
    OpenClaim { ino: place.capability.ino, handle: Handle(1), write: true, grant: GrantKind::Write }
}

#[test]
fn snapshot_and_log_give_the_same_state() {
    let mut cluster = Cluster::with(4, 3, |config| config.snapshot_records = 40);
    let client = cluster.client();
    let places: Vec<ChunkPlace> = (0..30).map(|n| cluster.written_file(client, &format!("f{n}")).1).collect();
    cluster.kill(places[0].members[0].server);
    cluster.run(70_000);
    let hash = cluster.core.state().hash();
    let applied = cluster.core.state().applied;
    let (index, ..) = cluster.snapshot.as_ref().unwrap();
    assert!(*index < applied && index.0 > 40, "a snapshot in the middle: {index} of {applied}");
    cluster.core.state().check().unwrap();
    // What is applied at the start of a process is exactly what was applied before it.
    cluster.snapshot_is_equal(hash);
    let snapshot = cluster.snapshot.take();
    cluster.snapshot_is_equal(hash);
    cluster.snapshot = snapshot;
}

#[test]
fn a_snapshot_names_the_term_of_the_record_it_stands_at() {
    let mut cluster = Cluster::with(0, 3, |config| config.snapshot_records = 5);
    let mut snapshots = 0;
    cluster.ticking = true;
    for n in 0..40 {
        // An election's entry follows each restart, and is no record.
        for m in 0..n % 3 {
            let client = cluster.client();
            cluster.create(client, &format!("f{n}.{m}"), 1).unwrap();
        }
        cluster.restart(0);
        cluster.run(300);
        let Some((index, term, ..)) = cluster.snapshot else { continue };
        let entry = cluster.entries.iter().find(|entry| entry.index == index).unwrap();
        assert_eq!(entry.term, term, "the snapshot at {index}");
        snapshots += 1;
    }
    assert!(snapshots > 20);
}

#[test]
fn a_same_boot_needs_no_recovery() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let (_, place) = cluster.written_file(client, "f");
    cluster.run(5_000);
    cluster.restart(0);
    let client = cluster.resume(client, vec![claim(&place)]);
    // Until they have registered, nobody is known to serve.
    assert_eq!(cluster.map_write(client, place.capability.ino, 0).unwrap_err(), Status::Recovering);
    cluster.rejoin_all();
    let again = cluster.map_write(client, place.capability.ino, 0).unwrap();
    assert_eq!((again.capability.version, again.members), (ChunkVersion(1), place.members));
}

#[test]
fn a_server_that_restarted_meanwhile_is_recovered() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let (_, place) = cluster.written_file(client, "f");
    cluster.run(5_000);
    cluster.restart(0);
    let client = cluster.resume(client, vec![claim(&place)]);
    let back = cluster.at(place.members[1].server);
    cluster.servers[back].restart(false);
    cluster.rejoin_all();
    cluster.until(2_000, |cluster| cluster.map_write(client, place.capability.ino, 0).is_ok());
    let again = cluster.map_write(client, place.capability.ino, 0).unwrap();
    assert_eq!((again.capability.version, again.members.len()), (ChunkVersion(2), 3));
}

#[test]
fn an_unsettled_boot_is_not_trusted_by_the_next_leader() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let (_, place) = cluster.written_file(client, "f");
    cluster.run(5_000);
    let back = cluster.at(place.members[1].server);
    // It restarts, registers, and the master dies before the chunk is recovered.
    cluster.kill(place.members[1].server);
    cluster.servers[back].alive = true;
    cluster.servers[back].restart(false);
    for at in 0..3 {
        cluster.servers[at].deaf = 1_000;
    }
    cluster.join(back).unwrap();
    cluster.run(300);
    cluster.restart(0);
    cluster.servers.iter_mut().for_each(|server| server.deaf = 0);
    let client = cluster.resume(client, vec![claim(&place)]);
    cluster.rejoin_all();
    cluster.until(5_000, |cluster| cluster.map_write(client, place.capability.ino, 0).is_ok());
    assert!(cluster.meta(place.chunk()).version > ChunkVersion(1));
}

#[test]
fn a_logged_recovery_is_done_again_higher() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let (_, place) = cluster.written_file(client, "f");
    let back = place.members[1].server;
    cluster.servers.iter_mut().for_each(|server| server.deaf = 1_000);
    cluster.kill(back);
    cluster.revive(back, false);
    cluster.run(500);
    assert_eq!(cluster.meta(place.chunk()).fence(), ChunkVersion(2));
    assert!(!cluster.meta(place.chunk()).is_active());
    cluster.restart(0);
    cluster.servers.iter_mut().for_each(|server| server.deaf = 0);
    cluster.rejoin_all();
    cluster.until(5_000, |cluster| cluster.meta(place.chunk()).is_active());
    assert_eq!(cluster.meta(place.chunk()).version, ChunkVersion(3));
}

#[test]
fn a_new_leader_waits_for_leases_of_the_old_one() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let (_, place) = cluster.written_file(client, "f");
    cluster.run(5_000);
    let away = place.members[2].server;
    cluster.restart(0);
    let began = cluster.now_ms;
    let client = cluster.resume(client, vec![claim(&place)]);
    let at = cluster.at(away);
    cluster.servers[at].alive = false;
    cluster.rejoin_all();
    cluster.until(10_000, |cluster| cluster.map_write(client, place.capability.ino, 0).is_ok());
    // D * 1.02 + 100 ms after the election (L4).
    assert!(cluster.now_ms - began >= 6_220);
    assert_eq!(cluster.meta(place.chunk()).members.len(), 2);
}

#[test]
fn ids_are_not_given_out_twice_after_a_power_cut() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let place = cluster.create(client, "f", 1).unwrap().opened.first.unwrap();
    // The record of the file is lost with the power.
    cluster.restart(1);
    cluster.rejoin_all();
    cluster.run(200);
    let client = cluster.client();
    let next = cluster.create(client, "g", 1).unwrap().opened.first.unwrap();
    assert!(next.chunk() > place.chunk());
}

#[test]
fn the_wrong_cluster_is_refused() {
    let mut cluster = Cluster::new(1, 1);
    cluster.config.cluster = dfs_proto::ids::ClusterId(1);
    let entries = cluster.entries.clone();
    let recovered = dfs_master::core::Recovered { snapshot: None, entries, hard_state: cluster.hard_state };
    let started = dfs_master::core::Core::new(cluster.config.clone(), recovered, crate::cluster::now_at(0));
    assert!(matches!(started, Err(dfs_master::core::StartError::WrongCluster { .. })));
}
