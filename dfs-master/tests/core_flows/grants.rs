//! Grants over the wire: who caches, who is told to stop.

use dfs_proto::ids::{ChunkId, Handle, Ino};
use dfs_proto::meta::{Creds, GrantBack, GrantKind, Recall, Release, Setattr};
use dfs_proto::request::Op;
use dfs_proto::status::Status;

use crate::cluster::{Client, Cluster, RO, RW};

fn recalls(cluster: &mut Cluster, client: Client) -> Vec<Recall> {
    let told = std::mem::take(&mut cluster.notified);
    let mine = told.into_iter().filter(|(conn, op, _)| *conn == client.conn && *op == Op::Recall);
    mine.map(|(_, _, body)| rmp_serde::from_slice(&body).unwrap()).collect()
}

#[test]
fn a_conflicting_open_fetches_the_grant_back() {
    let mut cluster = Cluster::new(3, 3);
    let (a, b) = (cluster.client(), cluster.client());
    let created = cluster.create(a, "f", 1).unwrap();
    let (ino, grant) = (created.opened.attr.ino, created.opened.grant);
    assert_eq!(cluster.open(b, ino, 1, RO).unwrap_err(), Status::Recalling);
    assert_eq!(recalls(&mut cluster, a), [Recall { ino, grant: grant.id }]);
    // Repeated once a second while the other side asks.
    cluster.run(500);
    assert_eq!(cluster.open(b, ino, 1, RO).unwrap_err(), Status::Recalling);
    assert_eq!(recalls(&mut cluster, a), []);
    cluster.run(600);
    assert_eq!(cluster.open(b, ino, 1, RO).unwrap_err(), Status::Recalling);
    assert_eq!(recalls(&mut cluster, a).len(), 1);
    cluster.ask(a.conn, &GrantBack { grants: vec![(ino, grant.id)], unsettled: Vec::new() }).unwrap();
    // A writer has it open: the reader gets nothing to cache.
    assert_eq!(cluster.open(b, ino, 1, RO).unwrap().grant.kind, GrantKind::None);
    cluster.ask(a.conn, &Release { handles: vec![(ino, Handle(1))], unsettled: Vec::new() }).unwrap();
    assert_eq!(cluster.open(b, ino, 2, RO).unwrap().grant.kind, GrantKind::Read);
    assert_eq!(cluster.open(a, ino, 2, RO).unwrap().grant.kind, GrantKind::Read);
}

#[test]
fn a_size_set_by_another_recalls() {
    let mut cluster = Cluster::new(3, 3);
    let (a, b) = (cluster.client(), cluster.client());
    let created = cluster.create(a, "f", 1).unwrap();
    let ino = created.opened.attr.ino;
    let setattr = Setattr {
        ino,
        handle: None,
        mode: None,
        uid: None,
        gid: None,
        size: Some(0),
        atime: None,
        mtime: None,
        creds: Creds::default(),
    };
    assert_eq!(cluster.ask(b.conn, &setattr).unwrap_err(), Status::Recalling);
    let recall = recalls(&mut cluster, a)[0];
    cluster.ask(a.conn, &GrantBack { grants: vec![(ino, recall.grant)], unsettled: Vec::new() }).unwrap();
    assert_eq!(cluster.ask(b.conn, &setattr).unwrap().size, 0);
    // The holder itself needs no recall.
    let mine = cluster.create(a, "g", 2).unwrap();
    let own = Setattr { ino: mine.opened.attr.ino, size: Some(100), ..setattr };
    assert_eq!(cluster.ask(a.conn, &own).unwrap().size, 100);
}

#[test]
fn a_killed_holder_blocks_for_its_lease_only() {
    let mut cluster = Cluster::new(3, 3);
    let (a, b) = (cluster.client(), cluster.client());
    let ino = cluster.create(a, "f", 1).unwrap().opened.attr.ino;
    cluster.mute.push(a.session);
    assert_eq!(cluster.open(b, ino, 1, RW).unwrap_err(), Status::Recalling);
    let began = cluster.now_ms;
    cluster.until(31_000, |cluster| cluster.open(b, ino, 1, RW).is_ok());
    assert!(cluster.now_ms - began >= 30_000);
}

/// A file that `a` wrote one chunk of and closed; the grant is given back.
fn left_file(cluster: &mut Cluster, a: Client, unsettled: bool) -> (Ino, ChunkId) {
    let created = cluster.create(a, "f", 1).unwrap();
    let (attr, grant) = (created.opened.attr, created.opened.grant.id);
    let place = created.opened.first.unwrap();
    cluster.write(&place, 1, 11);
    cluster.commit_synced(a, &attr, &place, 4096);
    let unsettled = if unsettled { vec![attr.ino] } else { Vec::new() };
    let release = Release { handles: vec![(attr.ino, Handle(1))], unsettled: unsettled.clone() };
    cluster.ask(a.conn, &release).unwrap();
    cluster.ask(a.conn, &GrantBack { grants: vec![(attr.ino, grant)], unsettled }).unwrap();
    (attr.ino, place.chunk())
}

fn open_when_settled(cluster: &mut Cluster, client: Client, ino: Ino, handle: u64) -> GrantKind {
    let mut kind = None;
    cluster.until(5_000, |cluster| {
        kind = cluster.open(client, ino, handle, RO).ok().map(|opened| opened.grant.kind);
        kind.is_some()
    });
    kind.unwrap()
}

#[test]
fn a_file_is_cached_at_once_when_every_write_had_its_answer() {
    let mut cluster = Cluster::new(3, 3);
    let (a, b) = (cluster.client(), cluster.client());
    let (ino, chunk) = left_file(&mut cluster, a, false);
    assert_eq!(cluster.open(b, ino, 1, RO).unwrap().grant.kind, GrantKind::Read);
    assert!(cluster.meta(chunk).open);
}

#[test]
fn a_file_is_cached_when_what_was_given_up_is_over() {
    let mut cluster = Cluster::new(3, 3);
    let (a, b) = (cluster.client(), cluster.client());
    let (ino, chunk) = left_file(&mut cluster, a, true);
    assert_eq!(open_when_settled(&mut cluster, b, ino, 1), GrantKind::Read);
    assert!(!cluster.meta(chunk).open, "its members take no write of before any more");
}

#[test]
fn a_file_whose_chunk_cannot_be_closed_is_not_cached() {
    let mut cluster = Cluster::new(3, 3);
    let (a, b) = (cluster.client(), cluster.client());
    let (ino, chunk) = left_file(&mut cluster, a, true);
    let away = cluster.meta(chunk).members.as_slice()[2];
    cluster.kill(away);
    let began = cluster.now_ms;
    assert_eq!(open_when_settled(&mut cluster, b, ino, 1), GrantKind::None);
    assert!(cluster.now_ms - began < 2_000);
    // A recovery without that member ends what was under way as well.
    cluster.until(60_000, |cluster| {
        cluster.meta(chunk).is_active() && !cluster.meta(chunk).members.contains(away)
    });
    assert_eq!(open_when_settled(&mut cluster, b, ino, 2), GrantKind::Read);
}

#[test]
fn what_a_dead_session_wrote_is_not_cached_before_it_is_over() {
    let mut cluster = Cluster::new(3, 3);
    let (a, b) = (cluster.client(), cluster.client());
    let created = cluster.create(a, "f", 1).unwrap();
    let (attr, place) = (created.opened.attr, created.opened.first.unwrap());
    cluster.write(&place, 1, 11);
    cluster.commit_synced(a, &attr, &place, 4096);
    cluster.mute.push(a.session);
    cluster.until(31_000, |cluster| cluster.open(b, attr.ino, 1, RO).is_ok());
    assert_eq!(open_when_settled(&mut cluster, b, attr.ino, 2), GrantKind::Read);
    assert!(!cluster.meta(place.chunk()).open);
}

#[test]
fn a_new_leader_trusts_no_chunk_that_is_open() {
    let mut cluster = Cluster::new(3, 3);
    let (a, b) = (cluster.client(), cluster.client());
    let (ino, chunk) = left_file(&mut cluster, a, true);
    cluster.sync();
    cluster.restart(0);
    cluster.rejoin_all();
    let (_, b) = (cluster.resume(a, Vec::new()), cluster.resume(b, Vec::new()));
    assert!(cluster.meta(chunk).open);
    // A reader does not wait for what is only possible.
    assert_eq!(cluster.open(b, ino, 1, RO).unwrap().grant.kind, GrantKind::None);
    cluster.until(5_000, |cluster| !cluster.meta(chunk).open);
    assert_eq!(cluster.open(b, ino, 2, RO).unwrap().grant.kind, GrantKind::Read);
}
