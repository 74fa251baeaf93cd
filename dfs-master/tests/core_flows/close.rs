//! Clean close: chunks that nobody writes, what a restart costs them, and how they are written again.

use dfs_master::core::After;
use dfs_proto::conn::Role;
use dfs_proto::ids::{ChunkVersion, Handle, OpenNum, ServerNum};
use dfs_proto::meta::{Attr, ChunkPlace, ClusterStatus, Commit, MapRead, MapWrite, Release};
use dfs_proto::units::ChunkIndex;

use crate::cluster::{Client, Cluster, RW, commit, set_size};

/// Idle so long, a chunk is closed; the walk over all chunks that notices it takes two seconds more.
const CLOSED_MS: u64 = 40_000;

/// A file with one chunk that was written, committed and left.
fn left_file(cluster: &mut Cluster, client: Client, name: &str) -> (Attr, ChunkPlace) {
    let created = cluster.create(client, name, 7).unwrap();
    let place = created.opened.first.expect("servers are up");
    cluster.write(&place, 1, 11);
    let attr = committed(cluster, client, &created.opened.attr);
    release(cluster, client, &attr, 7);
    (attr, place)
}

fn committed(cluster: &mut Cluster, client: Client, attr: &Attr) -> Attr {
    let commit = Commit { size_epoch: attr.size_epoch, size_at_least: Some(4096), ..commit(attr.ino) };
    cluster.ask(client.conn, &commit).unwrap()
}

fn release(cluster: &mut Cluster, client: Client, attr: &Attr, handle: u64) {
    cluster
        .ask(client.conn, &Release { handles: vec![(attr.ino, Handle(handle))], unsettled: Vec::new() })
        .unwrap();
}

fn closed_file(cluster: &mut Cluster, client: Client, name: &str) -> (Attr, ChunkPlace) {
    let (attr, place) = left_file(cluster, client, name);
    cluster.run(CLOSED_MS);
    assert!(!cluster.meta(place.chunk()).open);
    (attr, place)
}

fn readers(cluster: &mut Cluster, client: Client, attr: &Attr) -> Vec<ServerNum> {
    let read = MapRead { ino: attr.ino, first: ChunkIndex(0), count: 1 };
    let map = cluster.ask(client.conn, &read).unwrap();
    map.places[0].members.iter().map(|member| member.server).collect()
}

#[test]
fn what_only_the_log_calls_written_is_closed_too() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let created = cluster.create(client, "f", 7).unwrap();
    let place = created.opened.first.expect("servers are up");
    // A size reaches there, and no write ever did.
    let attr = committed(&mut cluster, client, &created.opened.attr);
    release(&mut cluster, client, &attr, 7);
    cluster.run(2 * CLOSED_MS);
    let chunks = &cluster.core.state().chunks;
    assert!(chunks.get(place.chunk()).is_none_or(|meta| !meta.open), "{:?}", chunks.get(place.chunk()));
    let version = chunks.get(place.chunk()).map(|meta| meta.version);
    cluster.run(2 * CLOSED_MS);
    assert_eq!(cluster.core.state().chunks.get(place.chunk()).map(|meta| meta.version), version);
}

#[test]
fn what_nobody_writes_is_closed() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let (_, place) = left_file(&mut cluster, client, "f");
    cluster.run(20_000);
    assert!(cluster.meta(place.chunk()).open, "it was written lately");
    cluster.run(20_000);
    let meta = cluster.meta(place.chunk());
    assert_eq!((meta.open, meta.digest, meta.open_num), (false, 11, OpenNum(1)));
    for member in &place.members {
        assert!(cluster.server(member.server).replicas[&place.chunk()].closed);
        assert_eq!(cluster.server(member.server).closes, 1);
    }
    // Once is enough.
    cluster.run(60_000);
    assert_eq!(cluster.server(place.members[0].server).closes, 1);
}

#[test]
fn what_is_open_for_writing_or_was_never_written_is_not() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let (attr, place) = left_file(&mut cluster, client, "f");
    cluster.open(client, attr.ino, 8, RW).unwrap();
    let created = cluster.create(client, "g", 9).unwrap();
    let empty = created.opened.first.unwrap();
    release(&mut cluster, client, &created.opened.attr, 9);
    cluster.run(CLOSED_MS);
    assert!(cluster.meta(place.chunk()).open);
    assert!(cluster.core.state().chunks.get(empty.chunk()).is_none_or(|meta| meta.open));
}

#[test]
fn a_reboot_of_every_server_costs_a_closed_chunk_nothing() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let (attr, place) = closed_file(&mut cluster, client, "f");
    for member in place.members.clone() {
        cluster.kill(member.server);
    }
    for member in place.members.clone() {
        cluster.revive(member.server, true);
    }
    cluster.run(3_000);
    assert_eq!(cluster.meta(place.chunk()).version, ChunkVersion(1));
    assert_eq!(readers(&mut cluster, client, &attr).len(), 3);
    let now: Vec<_> = place.members.iter().map(|member| cluster.member(member.server)).collect();
    assert_ne!(now, place.members);
    for member in &now {
        let known = &cluster.server(member.server).replicas[&place.chunk()].members;
        assert_eq!(*known, now, "each knows the others' new processes");
    }
}

#[test]
fn a_replica_that_is_not_what_was_closed_is_not_believed() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let (attr, place) = closed_file(&mut cluster, client, "f");
    let wrong = place.members[1].server;
    cluster.kill(wrong);
    cluster.server_mut(wrong).replicas.get_mut(&place.chunk()).unwrap().digest = 12;
    cluster.revive(wrong, true);
    cluster.run(3_000);
    let meta = cluster.meta(place.chunk());
    assert!(meta.version > ChunkVersion(1), "a recovery compares them");
    assert!(!readers(&mut cluster, client, &attr).contains(&wrong));
    assert_eq!((meta.open, meta.open_num), (true, OpenNum(2)), "members changed, so it is closed anew later");
}

#[test]
fn replicas_that_differ_are_found_when_they_are_closed() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let (attr, place) = left_file(&mut cluster, client, "f");
    let wrong = place.members[2].server;
    cluster.server_mut(wrong).replicas.get_mut(&place.chunk()).unwrap().digest = 12;
    cluster.until(CLOSED_MS, |cluster| cluster.meta(place.chunk()).version > ChunkVersion(1));
    cluster.run(100);
    assert!(!readers(&mut cluster, client, &attr).contains(&wrong));
    let tool = cluster.connect(Role::Tool);
    assert_eq!(cluster.ask(tool, &ClusterStatus {}).unwrap().replicas_diverged, 1);
}

#[test]
fn a_writer_gets_another_opening_and_only_from_the_disk() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let (attr, place) = closed_file(&mut cluster, client, "f");
    let opened = cluster.open(client, attr.ino, 8, RW).unwrap();
    assert!(opened.first.is_none(), "opening is not writing");
    cluster.power_held = true;
    let request = MapWrite { ino: attr.ino, index: ChunkIndex(0), failed: None, only: None };
    let req = cluster.send(client.conn, &request, 1_000, 1_000);
    let answer = cluster.answer(client.conn, req).unwrap();
    let meta = cluster.meta(place.chunk());
    assert_eq!((meta.open, meta.open_num, meta.digest), (true, OpenNum(2), 0));
    assert!(matches!(answer.after, After::Durable(_)), "a power cut must not close it again");
    let got: ChunkPlace = rmp_serde::from_slice(&answer.body).unwrap();
    assert_eq!(got.capability.open_num, OpenNum(2));
    cluster.sync();
    let again = cluster.map_write(client, attr.ino, 0).unwrap();
    assert_eq!(again.capability.open_num, OpenNum(2));
}

#[test]
fn a_close_that_the_log_has_lost_leaves_the_chunk_open() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let (attr, place) = closed_file(&mut cluster, client, "f");
    cluster.restart(1);
    cluster.rejoin_all();
    cluster.resume(client, Vec::new());
    cluster.run(2_000);
    assert!(cluster.meta(place.chunk()).open);
    let replica = &cluster.server(place.members[0].server).replicas[&place.chunk()];
    assert!(replica.active && !replica.closed, "it takes writes of the opening again");
    let other = cluster.client();
    let read = MapRead { ino: attr.ino, first: ChunkIndex(0), count: 1 };
    assert_eq!(cluster.ask(other.conn, &read).unwrap().places[0].capability.open_num, OpenNum(1));
}

#[test]
fn cutting_opens_it() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let (attr, place) = closed_file(&mut cluster, client, "f");
    assert_eq!(cluster.ask(client.conn, &set_size(attr.ino, 100)).unwrap().size, 100);
    let meta = cluster.meta(place.chunk());
    assert_eq!((meta.open, meta.open_num), (true, OpenNum(2)));
    assert!(cluster.server(place.members[0].server).replicas[&place.chunk()].zeroed.is_some());
}
