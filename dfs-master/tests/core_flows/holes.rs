//! Chunks that were punched whole: when they leave their file's map, and when not.

use dfs_proto::checksum::digest_of;
use dfs_proto::ids::{ChunkId, ChunkVersion, Handle, OpenNum};
use dfs_proto::meta::{
    Attr, ChunkPlace, Commit, DROP_MAX, DropHoles, GrantBack, GrantKind, HoleChunk, MapRead, OpenClaim,
    Recall, Release,
};
use dfs_proto::request::Op;
use dfs_proto::status::Status;
use dfs_proto::units::ChunkIndex;

use crate::cluster::{Client, Cluster, RW, commit};

const HANDLE: u64 = 7;
/// Idle so long, a chunk is closed.
const CLOSED_MS: u64 = 40_000;

/// A file of one chunk that has nothing but holes, open for writing by the client alone.
fn punched_file(cluster: &mut Cluster, client: Client) -> (Attr, ChunkPlace) {
    let created = cluster.create(client, "f", HANDLE).unwrap();
    assert_eq!(created.opened.grant.kind, GrantKind::Write);
    let place = created.opened.first.expect("servers are up");
    cluster.write(&place, 2, digest_of(&[]).0);
    let (attr, size) = (created.opened.attr, Some(50_000));
    let commit = Commit { size_epoch: attr.size_epoch, size_at_least: size, ..commit(attr.ino) };
    (cluster.ask(client.conn, &commit).unwrap(), place)
}

fn drop_of(attr: &Attr, place: &ChunkPlace) -> DropHoles {
    let (index, chunk, version) = (place.index, place.chunk(), place.capability.version);
    DropHoles { ino: attr.ino, chunks: vec![HoleChunk { index, chunk, version }] }
}

fn is_there(cluster: &Cluster, chunk: ChunkId) -> bool {
    cluster.core.state().chunks.contains(chunk)
}

#[test]
fn a_chunk_of_holes_leaves_the_map_and_a_later_write_gets_another() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let (attr, place) = punched_file(&mut cluster, client);
    assert!(attr.blocks > 0);
    let before = cluster.entries.len();
    let after = cluster.ask(client.conn, &drop_of(&attr, &place)).unwrap();
    assert_eq!((after.blocks, after.size, after.size_epoch), (0, 50_000, attr.size_epoch));
    assert_eq!(cluster.entries.len(), before + 1);
    assert!(!is_there(&cluster, place.chunk()));
    assert!(cluster.core.state().tombstones.get(place.chunk()).is_some());
    for member in &place.members {
        assert!(
            cluster.server(member.server).replicas[&place.chunk()].closed,
            "a write of before is refused"
        );
    }
    cluster.core.state().check().unwrap();
    let map = MapRead { ino: attr.ino, first: ChunkIndex(0), count: 4 };
    assert!(cluster.ask(client.conn, &map).unwrap().places.is_empty());
    let next = cluster.map_write(client, attr.ino, 0).unwrap();
    assert!(next.new && next.chunk() != place.chunk());
    // Late, and again: it is of another chunk than the one that is there now.
    cluster.write(&next, 1, digest_of(&[]).0);
    assert!(cluster.ask(client.conn, &drop_of(&attr, &place)).unwrap().blocks > 0);
    assert!(is_there(&cluster, next.chunk()));
    // The replicas go as those of other chunks that are gone.
    cluster.run(120_000);
    for member in &place.members {
        assert!(!cluster.server(member.server).replicas.contains_key(&place.chunk()));
    }
}

#[test]
fn a_chunk_with_bytes_stays_whoever_names_it() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let (attr, place) = punched_file(&mut cluster, client);
    for member in &place.members {
        cluster.server_mut(member.server).replicas.get_mut(&place.chunk()).unwrap().digest = 12;
    }
    assert!(cluster.ask(client.conn, &drop_of(&attr, &place)).unwrap().blocks > 0);
    let meta = cluster.meta(place.chunk());
    assert!(meta.open && meta.open_num == OpenNum(1));
    // Its primary refuses the opening since.
    assert_eq!(cluster.map_write(client, attr.ino, 0).unwrap().capability.open_num, OpenNum(2));
    let all = vec![drop_of(&attr, &place).chunks[0]; DROP_MAX + 1];
    let refused = cluster.ask(client.conn, &DropHoles { ino: attr.ino, chunks: all });
    assert_eq!(refused, Err(Status::TooLarge));
}

#[test]
fn one_member_with_bytes_is_enough() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let (attr, place) = punched_file(&mut cluster, client);
    let last = place.members[2].server;
    cluster.server_mut(last).replicas.get_mut(&place.chunk()).unwrap().digest = 12;
    assert!(cluster.ask(client.conn, &drop_of(&attr, &place)).unwrap().blocks > 0);
    assert!(cluster.meta(place.chunk()).version > ChunkVersion(1), "a recovery compares them");
}

/// Another client opens the file for writing too, so that nobody holds a grant.
fn share(cluster: &mut Cluster, client: Client, attr: &Attr) -> Client {
    let other = cluster.client();
    assert_eq!(cluster.open(other, attr.ino, 8, RW).unwrap_err(), Status::Recalling);
    let (_, op, body) = cluster.notified.pop().unwrap();
    assert_eq!(op, Op::Recall);
    let Recall { ino, grant } = rmp_serde::from_slice(&body).unwrap();
    cluster.ask(client.conn, &GrantBack { grants: vec![(ino, grant)], unsettled: Vec::new() }).unwrap();
    assert_eq!(cluster.open(other, attr.ino, 8, RW).unwrap().grant.kind, GrantKind::None);
    other
}

fn release_both(cluster: &mut Cluster, one: Client, other: Client, attr: &Attr) {
    cluster
        .ask(one.conn, &Release { handles: vec![(attr.ino, Handle(HANDLE))], unsettled: Vec::new() })
        .unwrap();
    cluster
        .ask(other.conn, &Release { handles: vec![(attr.ino, Handle(8))], unsettled: Vec::new() })
        .unwrap();
}

#[test]
fn beside_other_opens_it_stays_until_nobody_writes_it() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let (attr, place) = punched_file(&mut cluster, client);
    let other = share(&mut cluster, client, &attr);
    // The other may be about to repeat a write that these zeros came after.
    assert!(cluster.ask(client.conn, &drop_of(&attr, &place)).unwrap().blocks > 0);
    assert_eq!(cluster.server(place.members[0].server).closes, 0);
    release_both(&mut cluster, client, other, &attr);
    cluster.run(CLOSED_MS);
    assert!(!is_there(&cluster, place.chunk()));
    assert_eq!(cluster.core.state().ns.getattr(attr.ino).unwrap().blocks, 0);
    cluster.core.state().check().unwrap();
}

#[test]
fn one_that_may_be_empty_for_what_it_lost_is_closed_and_stays() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let (attr, place) = punched_file(&mut cluster, client);
    for member in place.members.clone() {
        cluster.kill(member.server);
    }
    for member in place.members.clone() {
        cluster.revive(member.server, true);
    }
    cluster.until(60_000, |cluster| cluster.meta(place.chunk()).lossy > ChunkVersion(0));
    cluster.run(2_000);
    for member in &place.members {
        let replica = cluster.server_mut(member.server).replicas.get_mut(&place.chunk()).unwrap();
        replica.digest = digest_of(&[]).0;
    }
    cluster
        .ask(client.conn, &Release { handles: vec![(attr.ino, Handle(HANDLE))], unsettled: Vec::new() })
        .unwrap();
    cluster.run(CLOSED_MS);
    let meta = cluster.meta(place.chunk());
    assert_eq!((meta.open, meta.digest), (false, digest_of(&[]).0), "who owes a sync of it is told");
}

#[test]
fn after_a_recovery_it_is_not_known_what_the_zeros_came_to() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let (attr, place) = punched_file(&mut cluster, client);
    let mut request = drop_of(&attr, &place);
    request.chunks[0].version = ChunkVersion(2);
    assert!(cluster.ask(client.conn, &request).unwrap().blocks > 0);
    assert_eq!(cluster.server(place.members[0].server).closes, 0);
    assert!(is_there(&cluster, place.chunk()));
}

#[test]
fn a_member_out_of_reach_keeps_it() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let (attr, place) = punched_file(&mut cluster, client);
    cluster.kill(place.members[1].server);
    assert!(cluster.ask(client.conn, &drop_of(&attr, &place)).unwrap().blocks > 0);
    assert!(is_there(&cluster, place.chunk()));
}

#[test]
fn a_record_that_the_log_has_lost_is_made_again() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let (attr, place) = punched_file(&mut cluster, client);
    cluster.ask(client.conn, &drop_of(&attr, &place)).unwrap();
    cluster.restart(1);
    assert!(is_there(&cluster, place.chunk()));
    cluster.rejoin_all();
    let claim = OpenClaim { ino: attr.ino, handle: Handle(HANDLE), write: true, grant: GrantKind::Write };
    let client = cluster.resume(client, vec![claim]);
    cluster.run(2_000);
    assert_eq!(cluster.ask(client.conn, &drop_of(&attr, &place)).unwrap().blocks, 0);
    assert!(!is_there(&cluster, place.chunk()));
}
