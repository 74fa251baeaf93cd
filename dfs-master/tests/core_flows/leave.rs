//! Members that leave while reads and writes go on.

use dfs_master::core::Input;
use dfs_proto::conn::Role;
use dfs_proto::ids::{ChunkId, ConfigNum, Ino, ServerNum};
use dfs_proto::meta::{ChunkPlace, ClusterStatus, DrainServer, MapRead, MapWrite, ServerList, ServerReport};
use dfs_proto::status::Status;
use dfs_proto::units::ChunkIndex;

use crate::cluster::{Client, Cluster};

fn drain(cluster: &mut Cluster, server: ServerNum, drain: bool) -> Result<(), Status> {
    let tool = cluster.connect(Role::Tool);
    let report = cluster.ask(tool, &DrainServer { server, drain, force: true })?;
    report.refused.map_or(Ok(()), |_why| Err(Status::NoServers))
}

/// Why it is refused to who does not insist.
fn refused(cluster: &mut Cluster, server: ServerNum) -> Option<String> {
    let tool = cluster.connect(Role::Tool);
    cluster.ask(tool, &DrainServer { server, drain: true, force: false }).unwrap().refused
}

fn report(cluster: &mut Cluster, server: ServerNum) -> ServerReport {
    let tool = cluster.connect(Role::Tool);
    let list = cluster.ask(tool, &ServerList {}).unwrap().servers;
    list.into_iter().find(|report| report.addr.num == server).unwrap()
}

fn nums(place: &ChunkPlace) -> Vec<ServerNum> {
    place.members.iter().map(|member| member.server).collect()
}

fn read_place(cluster: &mut Cluster, client: Client, ino: Ino) -> ChunkPlace {
    let map = cluster.ask(client.conn, &MapRead { ino, first: ChunkIndex(0), count: 1 }).unwrap();
    map.places[0].clone()
}

/// Learners are filled as fast as they are asked for.
fn run_filling(cluster: &mut Cluster, ms: u64) {
    for _ in 0..ms / 100 {
        cluster.run(100);
        let all: Vec<ServerNum> = cluster.servers.iter().map(|server| server.num).collect();
        all.into_iter().for_each(|server| cluster.fill_some(server));
    }
}

/// A file of whose chunk a secondary is drained, which does not answer.
struct Departing {
    cluster: Cluster,
    client: Client,
    ino: Ino,
    chunk: ChunkId,
    leaver: ServerNum,
}

fn departing(ms: u64) -> Departing {
    let mut cluster = Cluster::new(4, 3);
    let client = cluster.client();
    let (attr, place) = cluster.written_file(client, "f");
    let leaver = place.members[1].server;
    cluster.server_mut(leaver).deaf_to_withdraw = true;
    drain(&mut cluster, leaver, true).unwrap();
    run_filling(&mut cluster, ms);
    Departing { cluster, client, ino: attr.ino, chunk: place.chunk(), leaver }
}

#[test]
fn a_drained_server_is_left_by_all_chunks_and_none_is_below_its_goal() {
    let mut cluster = Cluster::new(4, 3);
    let client = cluster.client();
    let mut files = Vec::new();
    for n in 0..12 {
        files.push(cluster.written_file(client, &format!("f{n}")).1.chunk());
    }
    let drained = ServerNum(2);
    let had = report(&mut cluster, drained).replicas;
    assert!(had > 3, "{had}");
    drain(&mut cluster, drained, true).unwrap();
    for _ in 0..300 {
        run_filling(&mut cluster, 100);
        for chunk in &files {
            let meta = cluster.meta(*chunk);
            assert!(meta.members.len() >= 3, "I15: {meta:?}");
        }
    }
    for chunk in &files {
        let meta = cluster.meta(*chunk);
        assert!(meta.is_active() && meta.members.len() == 3 && !meta.members.contains(drained), "{meta:?}");
        assert!(!cluster.server(drained).replicas.get(chunk).is_some_and(|replica| replica.active));
        for server in meta.members.iter() {
            assert!(cluster.server(server).replicas[chunk].active);
        }
    }
    let after = report(&mut cluster, drained);
    assert!(after.draining && after.replicas == 0, "{after:?}");
    // It gets nothing new, until it is let in again.
    let (_, place) = cluster.written_file(client, "new");
    assert!(!nums(&place).contains(&drained));
    drain(&mut cluster, drained, false).unwrap();
    assert!(!report(&mut cluster, drained).draining);
}

#[test]
fn nobody_is_left_out_before_it_said_that_it_serves_nothing() {
    let Departing { mut cluster, client, ino, chunk, leaver } = departing(8_000);
    let meta = cluster.meta(chunk);
    assert_eq!((meta.leaving, meta.members.len()), (Some(leaver), 4), "the choice is in the log: {meta:?}");
    assert!(!nums(&read_place(&mut cluster, client, ino)).contains(&leaver), "nobody is sent there");
    // Writes go on: what it refuses, the primary holds.
    let write = MapWrite { ino, index: ChunkIndex(0), failed: None, only: None };
    assert!(cluster.ask(client.conn, &write).is_ok());
    cluster.server_mut(leaver).deaf_to_withdraw = false;
    cluster.run(6_000);
    let meta = cluster.meta(chunk);
    assert!(meta.leaving.is_none() && meta.members.len() == 3 && !meta.members.contains(leaver), "{meta:?}");
}

#[test]
fn a_leaver_that_registers_again_is_confirmed_by_nothing() {
    let Departing { mut cluster, chunk, leaver, .. } = departing(5_000);
    assert_eq!(cluster.meta(chunk).leaving, Some(leaver));
    let server = cluster.server_mut(leaver);
    server.replicas.get_mut(&chunk).unwrap().active = false;
    let conn = server.conn;
    cluster.input(Input::Disconnected { conn });
    let at = cluster.at(leaver);
    cluster.join(at).unwrap();
    assert!(!cluster.server(leaver).replicas[&chunk].active, "a confirmation would let it serve");
}

#[test]
fn the_next_leader_goes_on_with_the_same_leaver() {
    let Departing { mut cluster, chunk, leaver, .. } = departing(5_000);
    let before = cluster.meta(chunk);
    assert_eq!(before.leaving, Some(leaver));
    cluster.restart(0);
    assert_eq!(cluster.meta(chunk), before);
    cluster.server_mut(leaver).deaf_to_withdraw = false;
    cluster.rejoin_all();
    run_filling(&mut cluster, 30_000);
    let meta = cluster.meta(chunk);
    assert!(meta.leaving.is_none() && meta.members.len() == 3 && !meta.members.contains(leaver), "{meta:?}");
}

#[test]
fn a_drained_primary_hands_over() {
    let mut cluster = Cluster::new(4, 3);
    let client = cluster.client();
    let (_, place) = cluster.written_file(client, "f");
    let (chunk, primary) = (place.chunk(), place.members[0].server);
    drain(&mut cluster, primary, true).unwrap();
    run_filling(&mut cluster, 15_000);
    let meta = cluster.meta(chunk);
    assert!(meta.is_active() && meta.members.len() == 3 && !meta.members.contains(primary), "{meta:?}");
    assert!(meta.config > ConfigNum(1));
}

#[test]
fn a_server_whose_disks_take_no_writes_is_emptied() {
    let mut cluster = Cluster::new(4, 3);
    let client = cluster.client();
    let (attr, place) = cluster.written_file(client, "f");
    cluster.commit_synced(client, &attr, &place, 10_000);
    for failed in [place.members[1].server, place.members[0].server] {
        cluster.server_mut(failed).read_only = true;
        run_filling(&mut cluster, 20_000);
        let meta = cluster.meta(place.chunk());
        assert!(meta.is_active() && !meta.members.contains(failed), "{meta:?}");
        assert_eq!(meta.members.len(), 3);
        cluster.server_mut(failed).read_only = false;
    }
}

#[test]
fn what_has_no_other_place_stays() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let (_, place) = cluster.written_file(client, "f");
    let drained = place.members[2].server;
    drain(&mut cluster, drained, true).unwrap();
    run_filling(&mut cluster, 20_000);
    assert_eq!(cluster.meta(place.chunk()).members.len(), 3, "never below the goal by our own act");
    assert_eq!(drain(&mut cluster, ServerNum(99), true), Err(Status::NotFound));
    // Two of three servers are left: the goal of new chunks needs two at least.
    let other = place.members[0].server;
    assert_eq!(drain(&mut cluster, other, true), Err(Status::NoServers));
}

#[test]
fn a_drain_that_the_cluster_has_no_place_for_is_refused_in_words() {
    let mut cluster = Cluster::new(3, 3);
    let why = refused(&mut cluster, ServerNum(1)).unwrap();
    assert!(why.contains("2 other servers take replicas") && why.contains("the goal is 3"), "{why}");
    // A fourth one, in the only other rack.
    let mut cluster = Cluster::new(0, 2);
    for (id, rack) in [(1, "a"), (2, "a"), (3, "b")] {
        cluster.add_server(id, &[("rack", rack)]);
    }
    cluster.run(1_000);
    let why = refused(&mut cluster, ServerNum(3)).unwrap();
    assert!(why.contains("the other servers are of 1 racks") && why.contains("--force"), "{why}");
    assert!(!report(&mut cluster, ServerNum(3)).draining);
    assert_eq!(refused(&mut cluster, ServerNum(1)), None);
    assert!(report(&mut cluster, ServerNum(1)).draining);
}

#[test]
fn a_drain_says_what_is_left_what_stops_it_and_when_the_server_can_go() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let (attr, place) = cluster.written_file(client, "f");
    cluster.commit_synced(client, &attr, &place, 10_000);
    let drained = place.members[2].server;
    drain(&mut cluster, drained, true).unwrap();
    run_filling(&mut cluster, 10_000);
    let said = report(&mut cluster, drained);
    let stake = said.stake.unwrap();
    assert_eq!((said.replicas, stake.bytes, stake.no_server, said.removable), (1, 10_000, 1, false));
    // Thought better of it half-way: all is as it was.
    drain(&mut cluster, drained, false).unwrap();
    run_filling(&mut cluster, 5_000);
    assert_eq!(report(&mut cluster, drained).stake.unwrap().no_server, 0);
    drain(&mut cluster, drained, true).unwrap();
    cluster.add_server(4, &[]);
    run_filling(&mut cluster, 20_000);
    let said = report(&mut cluster, drained);
    assert!(said.removable && said.replicas == 0 && said.stake.unwrap().no_server == 0, "{said:?}");
    // Turned off, it is not waited for, nor its copy of the log; back, it counts again.
    let known = |cluster: &mut Cluster| {
        let tool = cluster.connect(Role::Tool);
        let status = cluster.ask(tool, &ClusterStatus {}).unwrap();
        (status.servers_up, status.servers_known, status.copies.len())
    };
    assert_eq!(known(&mut cluster), (4, 4, 4));
    cluster.kill(drained);
    run_filling(&mut cluster, 10_000);
    assert!(report(&mut cluster, drained).is_gone());
    assert_eq!(known(&mut cluster), (3, 3, 3));
    cluster.revive(drained, true);
    run_filling(&mut cluster, 2_000);
    assert_eq!(known(&mut cluster), (4, 4, 4));
    assert!(report(&mut cluster, drained).removable);
    // One that is down and was not drained is missed.
    let other = place.members[0].server;
    cluster.kill(other);
    run_filling(&mut cluster, 10_000);
    assert!(!report(&mut cluster, other).is_gone());
    assert_eq!(known(&mut cluster), (3, 4, 4));
    cluster.revive(other, true);
    run_filling(&mut cluster, 2_000);
    // Without the record on the disk it is not said.
    cluster.power_held = true;
    cluster.written_file(client, "g");
    let tool = cluster.connect(Role::Tool);
    let asked = cluster.send(tool, &ServerList {}, 0, 0);
    let answer = cluster.answer(tool, asked).unwrap();
    assert_ne!(answer.after, dfs_master::core::After::Now);
}

#[test]
fn what_a_drained_server_has_that_is_gone_is_made_anew_at_once() {
    let mut cluster = Cluster::new(4, 3);
    let client = cluster.client();
    let (attr, place) = cluster.written_file(client, "f");
    cluster.commit_synced(client, &attr, &place, 10_000);
    let (chunk, gone) = (place.chunk(), place.members[1].server);
    cluster.kill(gone);
    // Its lease is over, and it might come back.
    run_filling(&mut cluster, 12_000);
    assert!(cluster.meta(chunk).members.contains(gone));
    drain(&mut cluster, gone, true).unwrap();
    run_filling(&mut cluster, 6_000);
    assert!(!cluster.meta(chunk).members.contains(gone));
    assert_eq!(cluster.meta(chunk).members.len(), 3);
    assert!(report(&mut cluster, gone).is_gone());
}

#[test]
fn a_replica_above_the_goal_leaves() {
    let Departing { mut cluster, chunk, leaver, .. } = departing(3_000);
    assert_eq!(cluster.meta(chunk).members.len(), 4);
    // The operator thinks again, and a master that begins anew finds one too many.
    drain(&mut cluster, leaver, false).unwrap();
    cluster.server_mut(leaver).deaf_to_withdraw = false;
    run_filling(&mut cluster, 20_000);
    assert_eq!(cluster.meta(chunk).members.len(), 3);
}

#[test]
fn one_without_a_file_leaves_too() {
    let mut cluster = Cluster::new(4, 3);
    let client = cluster.client();
    let (_, place) = cluster.written_file(client, "f");
    let (chunk, leaver) = (place.chunk(), place.members[1].server);
    let empty = dfs_proto::checksum::digest_of(&[]).0;
    for server in &mut cluster.servers {
        server.replicas.values_mut().for_each(|replica| replica.digest = empty);
    }
    cluster.server_mut(leaver).deaf_to_withdraw = true;
    drain(&mut cluster, leaver, true).unwrap();
    run_filling(&mut cluster, 3_000);
    drain(&mut cluster, leaver, false).unwrap();
    // Whoever is asked to leave now has nothing, and nobody is drained.
    let primary = cluster.meta(chunk).members.primary();
    for server in cluster.servers.iter_mut().filter(|server| Some(server.num) != primary) {
        server.replicas.remove(&chunk);
        server.deaf_to_withdraw = false;
    }
    run_filling(&mut cluster, 20_000);
    assert_eq!(cluster.meta(chunk).members.len(), 3);
}
