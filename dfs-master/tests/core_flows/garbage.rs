//! What goes away, and when.

use dfs_proto::conn::Role;
use dfs_proto::ids::{Handle, Ino, LogIndex, Term};
use dfs_proto::meta::{Attr, Commit, Creds, Getattr, OpenClaim, Release, Removed, ResumeSession, Unlink};
use dfs_proto::status::Status;

use crate::cluster::{Client, Cluster, commit};

fn unlink(cluster: &mut Cluster, client: Client, name: &str) -> Removed {
    let name = name.as_bytes().to_vec().into();
    cluster.ask(client.conn, &Unlink { parent: Ino::ROOT, name, creds: Creds::default() }).unwrap()
}

fn sized(cluster: &mut Cluster, client: Client, attr: &Attr) {
    let commit = Commit { size_epoch: attr.size_epoch, size_at_least: Some(100), ..commit(attr.ino) };
    cluster.ask(client.conn, &commit).unwrap();
}

#[test]
fn an_open_file_outlives_its_name() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let created = cluster.create(client, "f", 1).unwrap();
    let (ino, place) = (created.opened.attr.ino, created.opened.first.unwrap());
    cluster.write(&place, 1, 1);
    sized(&mut cluster, client, &created.opened.attr);
    assert_eq!(unlink(&mut cluster, client, "f"), Removed { ino, nlink: 0 });
    cluster.run(2_000);
    assert!(cluster.ask(client.conn, &Getattr { ino }).is_ok());
    assert!(cluster.map_write(client, ino, 0).is_ok());
    // Also over a restart of the master: until its session has spoken nobody knows.
    cluster.restart(0);
    cluster.rejoin_all();
    cluster.run(2_000);
    assert_eq!(cluster.core.state().ns.counts().orphans, 1);
    let conn = cluster.connect(Role::Client);
    let claim = OpenClaim { ino, handle: Handle(1), write: true, grant: dfs_proto::meta::GrantKind::Write };
    let (session, seen_term, seen_index) = (client.session, Term(0), LogIndex(0));
    cluster
        .ask(conn, &ResumeSession { session, seen_term, seen_index, opens: vec![claim], recover: false })
        .unwrap();
    cluster.run(2_000);
    assert!(cluster.ask(conn, &Getattr { ino }).is_ok());
    cluster.ask(conn, &Release { handles: vec![(ino, Handle(1))], unsettled: Vec::new() }).unwrap();
    cluster.run(200);
    assert_eq!(cluster.ask(conn, &Getattr { ino }), Err(Status::Stale));
    assert!(cluster.core.state().tombstones.get(place.chunk()).is_some());
    cluster.core.state().check().unwrap();
}

#[test]
fn replicas_are_deleted_after_the_delay_and_a_snapshot() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let created = cluster.create(client, "f", 1).unwrap();
    let (attr, place) = (created.opened.attr, created.opened.first.unwrap());
    cluster.write(&place, 1, 1);
    sized(&mut cluster, client, &attr);
    unlink(&mut cluster, client, "f");
    cluster
        .ask(client.conn, &Release { handles: vec![(attr.ino, Handle(1))], unsettled: Vec::new() })
        .unwrap();
    cluster.run(10_000);
    let tombstone = cluster.core.state().tombstones.get(place.chunk()).unwrap();
    assert!(tombstone.done);
    assert!(cluster.snapshot.as_ref().unwrap().0 >= tombstone.index, "the decision was in a snapshot first");
    for member in &place.members {
        assert_eq!(cluster.server(member.server).deleted, [place.chunk()]);
    }
}

#[test]
fn nothing_is_deleted_before_its_time_or_without_a_snapshot() {
    let mut cluster = Cluster::with(3, 3, |config| config.gc_delay_ms = 20_000);
    let client = cluster.client();
    let created = cluster.create(client, "f", 1).unwrap();
    let place = created.opened.first.unwrap();
    cluster.write(&place, 1, 1);
    unlink(&mut cluster, client, "f");
    cluster
        .ask(
            client.conn,
            &Release { handles: vec![(created.opened.attr.ino, Handle(1))], unsettled: Vec::new() },
        )
        .unwrap();
    cluster.run(18_000);
    assert_eq!(cluster.core.state().tombstones.len(), 1);
    assert!(cluster.servers.iter().all(|server| server.deleted.is_empty()));
    assert!(cluster.snapshot.is_none());
    cluster.run(6_000);
    assert!(cluster.servers.iter().all(|server| server.deleted == [place.chunk()]));
}

#[test]
fn a_snapshot_does_not_outrun_its_log() {
    let mut cluster = Cluster::with(3, 3, |config| config.snapshot_records = 5);
    cluster.run(1_000);
    let before = cluster.snapshot.as_ref().map(|snapshot| snapshot.0);
    cluster.power_held = true;
    let client = cluster.client();
    for n in 0..10 {
        cluster.create(client, &format!("f{n}"), n).unwrap();
    }
    cluster.run(500);
    assert_eq!(cluster.snapshot.as_ref().map(|snapshot| snapshot.0), before);
    cluster.sync();
    assert!(cluster.snapshot.as_ref().map(|snapshot| snapshot.0) > before);
}

#[test]
fn a_server_that_was_away_deletes_later() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let created = cluster.create(client, "f", 1).unwrap();
    let place = created.opened.first.unwrap();
    cluster.write(&place, 1, 1);
    let away = place.members[2].server;
    cluster.kill(away);
    unlink(&mut cluster, client, "f");
    cluster
        .ask(
            client.conn,
            &Release { handles: vec![(created.opened.attr.ino, Handle(1))], unsettled: Vec::new() },
        )
        .unwrap();
    cluster.run(20_000);
    assert!(!cluster.core.state().tombstones.get(place.chunk()).unwrap().done);
    cluster.revive(away, true);
    cluster.run(10_000);
    assert!(cluster.core.state().tombstones.get(place.chunk()).unwrap().done);
    assert_eq!(cluster.server(away).deleted, [place.chunk()]);
}

#[test]
fn a_stale_replica_goes_when_the_chunk_is_whole_again() {
    let mut cluster = Cluster::with(4, 3, |config| config.repair_delay_ms = 8_000);
    let client = cluster.client();
    let created = cluster.create(client, "f", 7).unwrap();
    let (attr, place) = (created.opened.attr, created.opened.first.unwrap());
    cluster.write(&place, 1, 11);
    sized(&mut cluster, client, &attr);
    let away = place.members[2].server;
    cluster.kill(away);
    cluster.until(20_000, |cluster| cluster.meta(place.chunk()).learners.len() == 1);
    cluster.revive(away, true);
    cluster.run(10_000);
    // Below its goal, every copy is precious.
    assert!(cluster.server(away).replicas.contains_key(&place.chunk()));
    let primary = cluster.meta(place.chunk()).members.primary().unwrap();
    cluster.finish_learners(primary);
    cluster.run(10_000);
    assert_eq!(cluster.meta(place.chunk()).members.len(), 3);
    // While it is open for writing, nobody knows that all members have the same on their disks.
    assert!(cluster.server(away).deleted.is_empty());
    cluster
        .ask(client.conn, &Release { handles: vec![(attr.ino, Handle(7))], unsettled: Vec::new() })
        .unwrap();
    cluster.run(60_000);
    assert_eq!(cluster.server(away).deleted, [place.chunk()]);
    for member in cluster.meta(place.chunk()).members.iter() {
        assert!(cluster.server(member).replicas.contains_key(&place.chunk()));
    }
}

#[test]
fn an_unknown_replica_is_left_alone() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let place = cluster.create(client, "f", 1).unwrap().opened.first.unwrap();
    // A chunk of the reserved ids that no record names.
    let unknown = dfs_proto::ids::ChunkId(place.chunk().0 + 5);
    let num = cluster.servers[0].num;
    // Its range was another leader's: a power cut may have taken the record back.
    cluster.restart(0);
    cluster.rejoin_all();
    cluster.servers[0].write(unknown, dfs_proto::ids::ChunkVersion(1), dfs_proto::ids::ConfigNum(1), 1, 1);
    cluster.join(0).unwrap();
    cluster.run(30_000);
    assert!(cluster.server(num).replicas.contains_key(&unknown));
    assert!(cluster.core.hold().is_none());
}
