//! Files: opening, mapping, committing.

use dfs_proto::ids::{Handle, Ino, LogIndex};
use dfs_proto::meta::{
    Access, Commit, CommitSet, Create, Creds, FileInfo, GrantBack, GrantKind, MapRead, Open, Release,
    SetTime, Statfs,
};
use dfs_proto::status::Status;
use dfs_proto::units::{ChunkIndex, Timespec};

use crate::cluster::{Cluster, RO, RW, commit};

#[test]
fn one_round_trip_makes_opens_and_places() {
    let mut cluster = Cluster::new(4, 3);
    let client = cluster.client();
    let before = cluster.entries.len();
    let created = cluster.create(client, "f", 1).unwrap();
    assert_eq!(cluster.entries.len(), before + 1);
    let place = created.opened.first.unwrap();
    assert!(place.new);
    assert_eq!(place.members.len(), 3);
    assert!(place.members.iter().all(|member| *member == cluster.member(member.server)));
    let cap = place.capability;
    assert!(cap.rights.write && cap.rights.read);
    assert_eq!((cap.session, cap.ino, cap.index), (client.session, created.opened.attr.ino, ChunkIndex(0)));
    // Opening it again changes nothing and needs no record.
    let again = cluster.create(client, "f", 2).unwrap();
    assert!(!again.new);
    assert_eq!(again.opened.first.unwrap().chunk(), cap.chunk);
    assert_eq!(cluster.entries.len(), before + 1);
    let exclusive = Create {
        parent: Ino::ROOT,
        name: b"f".to_vec().into(),
        mode: 0o644,
        handle: Handle(3),
        access: RW,
        exclusive: true,
        truncate: false,
        creds: Creds::default(),
    };
    assert_eq!(cluster.ask(client.conn, &exclusive).unwrap_err(), Status::Exists);
}

#[test]
fn attributes_go_with_a_commit_or_nothing_does() {
    let mut cluster = Cluster::new(3, 2);
    let client = cluster.client();
    let (attr, _) = cluster.written_file(client, "f");
    let time = Timespec { sec: 5, nsec: 6 };
    let set = CommitSet {
        mode: Some(0o751),
        uid: Some(7),
        gid: Some(8),
        atime: None,
        mtime: Some(SetTime::At(time)),
        creds: Creds::default(),
    };
    let whole = Commit {
        size_at_least: Some(100),
        mtime: Some(SetTime::Now),
        set: Some(set.clone()),
        ..commit(attr.ino)
    };
    let after = cluster.ask(client.conn, &whole).unwrap();
    assert_eq!((after.size, after.mode, after.uid, after.gid, after.mtime), (100, 0o751, 7, 8, time));
    let stranger = Creds { uid: 99, gid: 99, groups: Some(Vec::new()) };
    let refused = Commit {
        size_at_least: Some(200),
        set: Some(CommitSet { creds: stranger, ..set }),
        ..commit(attr.ino)
    };
    assert_eq!(cluster.ask(client.conn, &refused).unwrap_err(), Status::NotPermitted);
    let state = cluster.ask(client.conn, &dfs_proto::meta::Getattr { ino: attr.ino }).unwrap();
    assert_eq!(state, after);
}

#[test]
fn a_hole_gets_its_chunk_once() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let ino = cluster.create(client, "f", 1).unwrap().opened.attr.ino;
    let first = cluster.map_write(client, ino, 5).unwrap();
    let again = cluster.map_write(client, ino, 5).unwrap();
    assert_eq!(first.chunk(), again.chunk());
    let map = cluster.ask(client.conn, &MapRead { ino, first: ChunkIndex(0), count: 10 }).unwrap();
    let indices: Vec<u64> = map.places.iter().map(|place| place.index.0).collect();
    assert_eq!(indices, [0, 5]);
    assert!(map.places.iter().all(|place| !place.capability.rights.write));
    let stranger = cluster.client();
    assert_eq!(cluster.map_write(stranger, ino, 5).unwrap_err(), Status::BadHandle);
    cluster.core.state().check().unwrap();
}

#[test]
fn commits_move_size_and_marks() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let (attr, place) = cluster.written_file(client, "f");
    let ino = attr.ino;
    let sized = Commit { size_at_least: Some(1000), mtime: Some(SetTime::Now), ..commit(ino) };
    let after = cluster.ask(client.conn, &sized).unwrap();
    assert_eq!(after.size, 1000);
    assert!(after.mtime > attr.mtime);
    assert!(cluster.meta(place.chunk()).written);
    assert!(!cluster.map_write(client, ino, 0).unwrap().new);
    let synced = Commit { synced: vec![place.chunk()], durable: true, ..commit(ino) };
    cluster.power_held = true;
    let req = cluster.send(client.conn, &synced, 500, 500);
    let answered = cluster.answer(client.conn, req).unwrap();
    assert!(
        matches!(answered.after, dfs_master::core::After::Durable(index) if index == LogIndex(answered.words.word0))
    );
    assert!(cluster.meta(place.chunk()).synced);
    // A writer that has not heard of a truncation.
    let cut = Open { ino, handle: Handle(8), access: RW, truncate: true, creds: Creds::default() };
    let req = cluster.send(client.conn, &cut, 501, 501);
    assert_eq!(cluster.answer(client.conn, req).unwrap().status, Status::Ok);
    let old = Commit { size_at_least: Some(9), ..commit(ino) };
    let req = cluster.send(client.conn, &old, 502, 502);
    assert_eq!(cluster.answer(client.conn, req).unwrap().status, Status::OldEpoch);
}

#[test]
fn what_was_not_used_is_given_back() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let created = cluster.create(client, "f", 1).unwrap();
    let (ino, place) = (created.opened.attr.ino, created.opened.first.unwrap());
    let unused = Commit { unused: vec![(ChunkIndex(0), place.chunk())], ..commit(ino) };
    // While it is open for writing, an answer on its way may name the chunk again.
    cluster.ask(client.conn, &unused).unwrap();
    assert_eq!(cluster.core.state().chunks.len(), 1);
    cluster.ask(client.conn, &Release { handles: vec![(ino, Handle(1))], unsettled: Vec::new() }).unwrap();
    cluster.ask(client.conn, &unused).unwrap();
    assert_eq!(cluster.core.state().chunks.len(), 0);
    assert!(cluster.core.state().tombstones.get(place.chunk()).is_some());
    // One that holds bytes of the file stays, whatever is said of it.
    let (attr, place) = cluster.written_file(client, "g");
    cluster.ask(client.conn, &Commit { size_at_least: Some(5), ..commit(attr.ino) }).unwrap();
    let unused = Commit { unused: vec![(ChunkIndex(0), place.chunk())], ..commit(attr.ino) };
    cluster.ask(client.conn, &unused).unwrap();
    assert_eq!(cluster.core.state().chunks.len(), 1);
}

#[test]
fn permissions_are_checked_at_the_open() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let ino = cluster.create(client, "f", 1).unwrap().opened.attr.ino;
    let creds = Creds { uid: 7, gid: 7, groups: Some(Vec::new()) };
    let open = |access| Open { ino, handle: Handle(9), access, truncate: false, creds: creds.clone() };
    assert_eq!(cluster.ask(client.conn, &open(RW)).unwrap_err(), Status::Access);
    assert!(cluster.ask(client.conn, &open(RO)).is_ok());
    let cut = Open { truncate: true, ..open(RO) };
    assert_eq!(cluster.ask(client.conn, &cut).unwrap_err(), Status::Access);
    let dir = Open { ino: Ino::ROOT, ..open(RW) };
    assert_eq!(cluster.ask(client.conn, &dir).unwrap_err(), Status::IsDir);
}

#[test]
fn opening_with_truncate_empties_the_file() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let (attr, place) = cluster.written_file(client, "f");
    cluster.ask(client.conn, &Commit { size_at_least: Some(5), ..commit(attr.ino) }).unwrap();
    let access = Access { read: false, write: true };
    let open = Open { ino: attr.ino, handle: Handle(77), access, truncate: true, creds: Creds::default() };
    let opened = cluster.ask(client.conn, &open).unwrap();
    assert_eq!(opened.attr.size, 0);
    assert!(opened.attr.size_epoch > attr.size_epoch);
    assert_ne!(opened.first.unwrap().chunk(), place.chunk());
    assert!(cluster.core.state().tombstones.get(place.chunk()).is_some());
    cluster.core.state().check().unwrap();
}

#[test]
fn a_repeated_open_cuts_once() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let (attr, _) = cluster.written_file(client, "f");
    let create = Create {
        parent: Ino::ROOT,
        name: b"f".to_vec().into(),
        mode: 0o644,
        handle: Handle(78),
        access: RW,
        exclusive: false,
        truncate: true,
        creds: Creds::default(),
    };
    let open =
        Open { ino: attr.ino, handle: Handle(77), access: RW, truncate: true, creds: Creds::default() };
    for rid in [600, 601] {
        let mut epochs = Vec::new();
        for _ in 0..2 {
            // Bytes that came between the two are not cut again.
            let grow =
                Commit { size_at_least: Some(5), size_epoch: cluster.epoch(attr.ino), ..commit(attr.ino) };
            let _ = cluster.send(client.conn, &grow, 700 + cluster.now_ms + epochs.len() as u64 + rid, 600);
            let req = match rid {
                600 => cluster.send(client.conn, &open, rid, 600),
                _ => cluster.send(client.conn, &create, rid, 600),
            };
            assert_eq!(cluster.answer(client.conn, req).unwrap().status, Status::Ok);
            epochs.push(cluster.epoch(attr.ino));
        }
        assert_eq!(epochs[0], epochs[1]);
    }
}

#[test]
fn without_servers_files_are_made_and_not_written() {
    let mut cluster = Cluster::new(0, 3);
    let client = cluster.client();
    let created = cluster.create(client, "f", 1).unwrap();
    assert!(created.opened.first.is_none());
    let ino = created.opened.attr.ino;
    assert_eq!(cluster.map_write(client, ino, 0).unwrap_err(), Status::NoServers);
    cluster.add_server(1, &[]);
    cluster.run(200);
    // One server is below what may be written with a goal of 3.
    assert_eq!(cluster.map_write(client, ino, 0).unwrap_err(), Status::NoServers);
    cluster.add_server(2, &[]);
    cluster.run(200);
    assert_eq!(cluster.map_write(client, ino, 0).unwrap().members.len(), 2);
}

/// Another mount may sync what a write has left there whose own mount gave up before it committed the size.
#[test]
fn a_chunk_beyond_the_size_that_is_synced_holds_nothing_of_the_file() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let ino = cluster.create(client, "f", 1).unwrap().opened.attr.ino;
    let place = cluster.map_write(client, ino, 2).unwrap();
    let synced = Commit { synced: vec![place.chunk()], durable: true, ..commit(ino) };
    cluster.ask(client.conn, &synced).unwrap();
    let meta = cluster.meta(place.chunk());
    assert!(!meta.synced && !meta.written);
    let size = 2 * (64 << 10) + 1;
    cluster.ask(client.conn, &Commit { size_at_least: Some(size), ..synced }).unwrap();
    let meta = cluster.meta(place.chunk());
    assert!(meta.synced && meta.written);
}

#[test]
fn reports_tell_what_is_there() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let (attr, place) = cluster.written_file(client, "f");
    let report = cluster.ask(client.conn, &FileInfo { ino: attr.ino, from: ChunkIndex(0) }).unwrap();
    assert_eq!(report.path.as_ref(), b"/f");
    assert_eq!(report.chunks.len(), 1);
    assert_eq!(report.chunks[0].chunk, place.chunk());
    assert!(report.chunks[0].members.iter().all(|member| member.up));
    cluster.run(3000);
    let status = cluster.ask(client.conn, &dfs_proto::meta::ClusterStatus {}).unwrap();
    assert_eq!((status.servers_up, status.servers_known, status.chunks), (3, 3, 1));
    assert_eq!((status.chunks_below_goal, status.chunks_unavailable), (0, 0));
    let servers = cluster.ask(client.conn, &dfs_proto::meta::ServerList {}).unwrap();
    assert_eq!(servers.servers.iter().map(|server| server.replicas).sum::<u64>(), 3);
    let stats = cluster.ask(client.conn, &Statfs {}).unwrap();
    assert_eq!(stats.free_bytes, 1 << 39);
}

#[test]
fn the_grant_stays_after_close() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let created = cluster.create(client, "f", 1).unwrap();
    let ino = created.opened.attr.ino;
    cluster.ask(client.conn, &Release { handles: vec![(ino, Handle(1))], unsettled: Vec::new() }).unwrap();
    // Late write-back under the grant still finds its place.
    assert!(cluster.map_write(client, ino, 0).is_ok());
    let again = cluster.open(client, ino, 2, RO).unwrap();
    assert_eq!(again.grant, created.opened.grant);
    cluster.ask(client.conn, &Release { handles: vec![(ino, Handle(2))], unsettled: Vec::new() }).unwrap();
    cluster
        .ask(client.conn, &GrantBack { grants: vec![(ino, again.grant.id)], unsettled: Vec::new() })
        .unwrap();
    assert_eq!(cluster.map_write(client, ino, 0).unwrap_err(), Status::BadHandle);
    assert_eq!(cluster.open(client, ino, 3, RO).unwrap().grant.kind, GrantKind::Read);
}

#[test]
fn a_file_that_grows_by_a_hole_has_not_written_its_chunk() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let opened = cluster.create(client, "f", 1).unwrap().opened;
    let (ino, chunk) = (opened.attr.ino, opened.first.unwrap().chunk());
    let grow = |size| Commit { size_epoch: opened.attr.size_epoch, size_at_least: Some(size), ..commit(ino) };
    let attr = cluster.ask(client.conn, &Commit { hole: true, ..grow(30_000) }).unwrap();
    assert_eq!((attr.size, cluster.meta(chunk).written), (30_000, false));
    // Never smaller, and nothing of bytes goes with it.
    let attr = cluster.ask(client.conn, &Commit { hole: true, ..grow(100) }).unwrap();
    assert_eq!(attr.size, 30_000);
    let both = Commit { hole: true, synced: vec![chunk], ..grow(40_000) };
    assert_eq!(cluster.ask(client.conn, &both), Err(Status::Invalid));
    // So it is not waited for to be closed, and nobody misses its files.
    cluster.ask(client.conn, &Release { handles: vec![(ino, Handle(1))], unsettled: Vec::new() }).unwrap();
    cluster.run(120_000);
    assert!(!cluster.meta(chunk).written);
    cluster.core.state().check().unwrap();
}
