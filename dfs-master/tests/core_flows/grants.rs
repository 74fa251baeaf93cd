//! Grants over the wire: who caches, who is told to stop.

use dfs_proto::ids::Handle;
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
    cluster.ask(a.conn, &GrantBack { grants: vec![(ino, grant.id)] }).unwrap();
    // A writer has it open: the reader gets nothing to cache.
    assert_eq!(cluster.open(b, ino, 1, RO).unwrap().grant.kind, GrantKind::None);
    cluster.ask(a.conn, &Release { handles: vec![(ino, Handle(1))] }).unwrap();
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
    cluster.ask(a.conn, &GrantBack { grants: vec![(ino, recall.grant)] }).unwrap();
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
