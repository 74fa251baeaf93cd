//! Setting sizes: at borders, inside a chunk, over failures and restarts.

use dfs_proto::conn::Role;
use dfs_proto::ids::{LogIndex, Term};
use dfs_proto::meta::{Attr, ChunkPlace, CloseSession, Commit, Getattr, MapRead, ResumeSession, Setattr};
use dfs_proto::status::Status;
use dfs_proto::units::ChunkIndex;

use crate::cluster::{Client, Cluster, commit, set_size};

const CHUNK: u64 = 64 << 10;

/// A file of two chunks, both written.
fn two_chunks(cluster: &mut Cluster, client: Client) -> (Attr, Vec<dfs_proto::meta::ChunkPlace>) {
    let (attr, first) = cluster.written_file(client, "f");
    let second = cluster.map_write(client, attr.ino, 1).unwrap();
    cluster.write(&second, 1, 22);
    let commit = Commit { size_epoch: attr.size_epoch, size_at_least: Some(CHUNK + 500), ..commit(attr.ino) };
    let attr = cluster.ask(client.conn, &commit).unwrap();
    (attr, vec![first, second])
}

#[test]
fn a_cut_that_a_commit_overtook_is_made_when_it_is_asked_for_again() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let (attr, _) = two_chunks(&mut cluster, client);
    // To where nothing is, which takes one record; the commit before it makes it a cut inside a chunk.
    let (end, to) = (CHUNK + 5000, CHUNK + 1000);
    let grow = Commit { size_epoch: attr.size_epoch, size_at_least: Some(end), ..commit(attr.ino) };
    let req = cluster.send_both(client, &grow, &set_size(attr.ino, to));
    assert_eq!(cluster.answer(client.conn, req).unwrap().status, Status::Recovering);
    let rid = cluster.last_rid(client);
    let again = cluster.send(client.conn, &set_size(attr.ino, to), rid, rid);
    cluster.run(1000);
    let answer = cluster.answer(client.conn, again).unwrap();
    assert_eq!(answer.status, Status::Ok);
    assert_eq!(rmp_serde::from_slice::<Attr>(&answer.body).unwrap().size, to);
}

#[test]
fn at_a_border_one_record_is_enough() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let (attr, places) = two_chunks(&mut cluster, client);
    let before = cluster.entries.len();
    let cut = cluster.ask(client.conn, &set_size(attr.ino, CHUNK)).unwrap();
    assert_eq!(cut.size, CHUNK);
    assert!(cut.size_epoch > attr.size_epoch);
    assert_eq!(cluster.entries.len(), before + 1);
    assert!(cluster.core.state().tombstones.get(places[1].chunk()).is_some());
    assert!(cluster.core.state().chunks.contains(places[0].chunk()));
    cluster.core.state().check().unwrap();
}

#[test]
fn inside_a_chunk_its_tail_is_zeroed_first() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let (attr, places) = two_chunks(&mut cluster, client);
    let before = cluster.entries.len();
    let cut = cluster.ask(client.conn, &set_size(attr.ino, CHUNK + 100)).unwrap();
    assert_eq!(cut.size, CHUNK + 100);
    assert_eq!(cluster.entries.len(), before + 2);
    let primary = places[1].members[0].server;
    let replica = &cluster.server(primary).replicas[&places[1].chunk()];
    assert_eq!(replica.zeroed, Some((100, cut.size_epoch)));
    assert!(cluster.core.state().cuts.is_empty());
    // Capabilities carry the new epoch.
    assert_eq!(cluster.map_write(client, attr.ino, 1).unwrap().capability.size_epoch, cut.size_epoch);
}

#[test]
fn nothing_is_given_out_between_the_records() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let (attr, places) = two_chunks(&mut cluster, client);
    let primary = places[1].members[0].server;
    cluster.kill(primary);
    let req = cluster.send(client.conn, &set_size(attr.ino, CHUNK + 100), 900, 900);
    assert!(cluster.answer(client.conn, req).is_none());
    assert_eq!(cluster.map_write(client, attr.ino, 0).unwrap_err(), Status::Recovering);
    assert_eq!(cluster.ask(client.conn, &set_size(attr.ino, 0)).unwrap_err(), Status::Recovering);
    // The same request again waits along, and is answered when the chunk was recovered and zeroed.
    let again = cluster.send(client.conn, &set_size(attr.ino, CHUNK + 100), 900, 900);
    cluster.run(8_000);
    let answered = cluster.answer(client.conn, again).expect("the cut goes on with another primary");
    assert_eq!(answered.status, Status::Ok);
    let cut: Attr = rmp_serde::from_slice(&answered.body).unwrap();
    assert_eq!(cut.size, CHUNK + 100);
    let next = cluster.meta(places[1].chunk()).members.primary().unwrap();
    assert_ne!(next, primary);
    assert!(cluster.server(next).replicas[&places[1].chunk()].zeroed.is_some());
}

#[test]
fn a_cut_whose_session_ends_before_its_last_record_ends_all_the_same() {
    let mut cluster = Cluster::new(3, 3);
    let (client, other) = (cluster.client(), cluster.client());
    let (attr, places) = two_chunks(&mut cluster, client);
    let primary = places[1].members[0].server;
    cluster.server_mut(primary).cut_off = true;
    let req = cluster.send(client.conn, &set_size(attr.ino, CHUNK + 100), 900, 900);
    assert!(cluster.answer(client.conn, req).is_none());
    cluster.server_mut(primary).cut_off = false;
    cluster.now_ms += 500;
    cluster.tick_and_send(client, &CloseSession { settled: true });
    cluster.run(3_000);
    assert!(cluster.core.state().ns.intent(attr.ino).is_none(), "nobody could ever write it again");
    assert_eq!(cluster.ask(other.conn, &Getattr { ino: attr.ino }).unwrap().size, CHUNK + 100);
    assert!(cluster.ask(other.conn, &set_size(attr.ino, 0)).is_ok());
}

#[test]
fn a_map_between_the_records_is_that_of_the_new_epoch() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let (attr, places) = two_chunks(&mut cluster, client);
    let primary = places[0].members[0].server;
    cluster.kill(primary);
    let req = cluster.send(client.conn, &set_size(attr.ino, 100), 900, 900);
    assert!(cluster.answer(client.conn, req).is_none());
    // The answer can come behind the cut's, when the file may be longer again: its epoch says that it is true then.
    let map = cluster.ask(client.conn, &MapRead { ino: attr.ino, first: ChunkIndex(0), count: 4 }).unwrap();
    assert_eq!((map.size, map.size_epoch > attr.size_epoch), (100, true));
    assert_eq!(map.places.iter().map(ChunkPlace::chunk).collect::<Vec<_>>(), [places[0].chunk()]);
    cluster.run(8_000);
    let cut: Attr = rmp_serde::from_slice(&cluster.answer(client.conn, req).unwrap().body).unwrap();
    assert_eq!((cut.size, cut.size_epoch), (map.size, map.size_epoch));
}

#[test]
fn a_new_leader_finishes_and_keeps_the_answer() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let (attr, places) = two_chunks(&mut cluster, client);
    for member in &places[1].members {
        cluster.kill(member.server);
    }
    let _ = cluster.send(client.conn, &set_size(attr.ino, CHUNK + 100), 900, 900);
    assert_eq!(cluster.core.state().ns.intents().count(), 1);
    cluster.restart(0);
    for at in 0..3 {
        cluster.servers[at].alive = true;
    }
    cluster.rejoin_all();
    cluster.run(2_000);
    assert_eq!(cluster.core.state().ns.intents().count(), 0);
    let conn = cluster.connect(Role::Client);
    let (seen_term, seen_index) = (Term(0), LogIndex(0));
    cluster
        .ask(
            conn,
            &ResumeSession {
                session: client.session,
                seen_term,
                seen_index,
                opens: Vec::new(),
                recover: false,
            },
        )
        .unwrap();
    let before = cluster.entries.len();
    let again = cluster.send(conn, &set_size(attr.ino, CHUNK + 100), 900, 900);
    let answered = cluster.answer(conn, again).unwrap();
    assert_eq!(answered.status, Status::Ok);
    assert_eq!(cluster.entries.len(), before, "it was answered from what was kept");
}

#[test]
fn a_chunk_nobody_has_yet_gets_a_new_version_and_is_zeroed() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let created = cluster.create(client, "f", 1).unwrap();
    let (ino, place) = (created.opened.attr.ino, created.opened.first.unwrap());
    cluster.ask(client.conn, &set_size(ino, 1000)).unwrap();
    let req = cluster.send(client.conn, &set_size(ino, 10), 900, 900);
    cluster.run(2_000);
    let answered = cluster.answer(client.conn, req).unwrap();
    assert_eq!(answered.status, Status::Ok);
    // Late writes under the old capability are refused by the version.
    assert!(cluster.meta(place.chunk()).version > place.capability.version);
}

#[test]
fn attributes_set_along_come_with_the_answer() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let (attr, _) = two_chunks(&mut cluster, client);
    let request = Setattr { mode: Some(0o600), ..set_size(attr.ino, CHUNK + 1) };
    let cut = cluster.ask(client.conn, &request).unwrap();
    assert_eq!((cut.mode, cut.size), (0o600, CHUNK + 1));
}
