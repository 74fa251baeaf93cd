//! Servers that are away for a while on purpose.

use dfs_proto::conn::Role;
use dfs_proto::ids::{ChunkId, Handle, ServerNum};
use dfs_proto::meta::{
    ChunkPlace, DrainServer, MaintainServer, OrderReport, Release, ServerList, ServerReport,
};
use dfs_proto::status::Status;

use crate::cluster::{Client, Cluster};

/// Longer than a server may be silent before it is repaired around.
const AWAY_MS: u64 = 60_000;

fn order(cluster: &mut Cluster, server: ServerNum, for_ms: Option<u64>, force: bool) -> OrderReport {
    let tool = cluster.connect(Role::Tool);
    cluster.ask(tool, &MaintainServer { server, for_ms, force }).unwrap()
}

fn report(cluster: &mut Cluster, server: ServerNum) -> ServerReport {
    let tool = cluster.connect(Role::Tool);
    let list = cluster.ask(tool, &ServerList {}).unwrap().servers;
    list.into_iter().find(|report| report.addr.num == server).unwrap()
}

fn run_filling(cluster: &mut Cluster, ms: u64) {
    for _ in 0..ms / 100 {
        cluster.run(100);
        let all: Vec<ServerNum> = cluster.servers.iter().filter(|s| s.alive).map(|s| s.num).collect();
        all.into_iter().for_each(|server| cluster.fill_some(server));
    }
}

fn members(cluster: &Cluster, chunk: ChunkId) -> Vec<ServerNum> {
    cluster.meta(chunk).members.iter().collect()
}

/// Files of a goal of three in a cluster of five, nobody has them open.
struct Still {
    cluster: Cluster,
    client: Client,
    chunks: Vec<ChunkId>,
    away: ServerNum,
}

fn still() -> Still {
    let mut cluster = Cluster::new(5, 3);
    let client = cluster.client();
    let files: Vec<ChunkPlace> = (0..10).map(|n| cluster.written_file(client, &format!("f{n}")).1).collect();
    let chunks = files.iter().map(ChunkPlace::chunk).collect();
    cluster.run(5_000);
    let away = files[0].members[1].server;
    Still { cluster, client, chunks, away }
}

#[test]
fn what_it_has_is_kept_for_its_return() {
    let Still { mut cluster, client, chunks, away } = still();
    let before: Vec<Vec<ServerNum>> = chunks.iter().map(|chunk| members(&cluster, *chunk)).collect();
    let said = order(&mut cluster, away, Some(AWAY_MS), false);
    assert_eq!(said, OrderReport::default());
    assert!(report(&mut cluster, away).maintenance_ms.is_some_and(|left| left <= AWAY_MS));
    // Files that are open for writing go on without it; the others stay as they are.
    cluster.kill(away);
    run_filling(&mut cluster, AWAY_MS - 10_000);
    for (chunk, before) in chunks.iter().zip(&before) {
        let now = members(&cluster, *chunk);
        assert!(now.iter().all(|server| before.contains(server)), "{before:?} became {now:?}");
        assert!(now.len() >= 2);
    }
    // New chunks go elsewhere, though it is back.
    cluster.revive(away, false);
    run_filling(&mut cluster, 1_000);
    let (_, place) = cluster.written_file(client, "new");
    assert!(place.members.iter().all(|member| member.server != away));
    let end = order(&mut cluster, away, None, false);
    assert_eq!(end.refused, None);
    run_filling(&mut cluster, 10_000);
    let whole = chunks.iter().all(|chunk| members(&cluster, *chunk).len() == 3);
    assert!(whole);
    // Where it was left out it has an old replica, which is the quickest to have again: as many as it takes in at once.
    let has = chunks.iter().filter(|chunk| members(&cluster, **chunk).contains(&away)).count();
    assert!(has >= 4, "{has}");
    cluster.core.state().check().unwrap();
}

#[test]
fn it_ends_by_itself_and_then_repairs_begin() {
    let Still { mut cluster, chunks, away, .. } = still();
    order(&mut cluster, away, Some(AWAY_MS), false);
    cluster.kill(away);
    run_filling(&mut cluster, 30_000);
    // A master that starts meanwhile knows it from the log.
    cluster.restart(0);
    cluster.rejoin_all();
    run_filling(&mut cluster, 20_000);
    let left = report(&mut cluster, away).maintenance_ms.unwrap();
    assert!((5_000..12_000).contains(&left), "{left}");
    let kept = |cluster: &Cluster| chunks.iter().filter(|c| members(cluster, **c).contains(&away)).count();
    assert!(kept(&cluster) > 0);
    run_filling(&mut cluster, 15_000);
    assert_eq!(report(&mut cluster, away).maintenance_ms, None);
    run_filling(&mut cluster, 40_000);
    assert_eq!(kept(&cluster), 0);
    for chunk in &chunks {
        assert_eq!(members(&cluster, *chunk).len(), 3);
    }
}

#[test]
fn a_snapshot_knows_of_it() {
    let Still { mut cluster, away, .. } = still();
    order(&mut cluster, away, Some(AWAY_MS), false);
    let hash = cluster.core.state().hash();
    cluster.snapshot_is_equal(hash);
    cluster.config.snapshot_records = 1;
    cluster.restart(0);
    cluster.rejoin_all();
    cluster.run(5_000);
    assert!(cluster.snapshot.is_some());
    cluster.restart(0);
    assert!(report(&mut cluster, away).maintenance_ms.is_some());
}

/// A file that is written, whose primary goes.
fn primary_goes(servers: usize, goal: u8) -> (Cluster, ChunkPlace, ServerNum) {
    let mut cluster = Cluster::new(servers, goal);
    let client = cluster.client();
    let (_, place) = cluster.written_file(client, "f");
    let away = place.members[0].server;
    cluster.run(3_000);
    order(&mut cluster, away, Some(AWAY_MS), false);
    cluster.run(5_000);
    (cluster, place, away)
}

#[test]
fn primaries_of_what_is_written_hand_over_and_nobody_needs_it_any_more() {
    let (mut cluster, place, away) = primary_goes(5, 3);
    let chunk = place.chunk();
    let now = members(&cluster, chunk);
    assert!(now.len() == 2 && !now.contains(&away), "{now:?}");
    assert_eq!(report(&mut cluster, away).stake.unwrap().leads, 0);
    // It stops: the chunk stays as it is.
    let config = cluster.meta(chunk).config;
    cluster.kill(away);
    run_filling(&mut cluster, 40_000);
    assert_eq!((members(&cluster, chunk), cluster.meta(chunk).config), (now, config));
}

#[test]
fn with_two_replicas_it_only_hands_over() {
    let (cluster, place, away) = primary_goes(4, 2);
    assert_eq!(members(&cluster, place.chunk()), [place.members[1].server, away]);
}

#[test]
fn what_is_made_meanwhile_waits_for_nothing() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    order(&mut cluster, ServerNum(3), Some(600_000), false);
    let created = cluster.create(client, "f", 7).unwrap();
    let (attr, place) = (created.opened.attr, created.opened.first.unwrap());
    cluster.write(&place, 1, 11);
    cluster.commit_synced(client, &attr, &place, 10_000);
    cluster
        .ask(client.conn, &Release { handles: vec![(attr.ino, Handle(7))], unsettled: Vec::new() })
        .unwrap();
    cluster.run(60_000);
    let meta = cluster.meta(place.chunk());
    assert!(meta.members.len() == 2 && !meta.open, "it is closed with the two that there are: {meta:?}");
    assert!(order(&mut cluster, ServerNum(3), None, false).refused.is_none());
    run_filling(&mut cluster, 10_000);
    assert_eq!(members(&cluster, place.chunk()).len(), 3);
}

#[test]
fn what_nobody_else_has_is_not_put_at_risk_unasked() {
    let Still { mut cluster, chunks, away, .. } = still();
    // All others that have the first chunk are gone, for longer than they may.
    let others: Vec<ServerNum> = members(&cluster, chunks[0]).into_iter().filter(|s| *s != away).collect();
    for server in &others {
        cluster.kill(*server);
    }
    cluster.run(15_000);
    let why = order(&mut cluster, away, Some(AWAY_MS), false).refused.unwrap();
    assert!(
        why.contains("only good replica is there") && why.contains("drain") && why.contains("--force"),
        "{why}"
    );
    assert_eq!(report(&mut cluster, away).maintenance_ms, None);
    let forced = order(&mut cluster, away, Some(AWAY_MS), true);
    assert!(forced.refused.is_none() && forced.notes[0].contains("can't be read"), "{forced:?}");
}

#[test]
fn too_little_elsewhere_is_made_anew_although_it_will_be_back() {
    let Still { mut cluster, chunks, away, .. } = still();
    let other = members(&cluster, chunks[0]).into_iter().find(|server| *server != away).unwrap();
    order(&mut cluster, away, Some(600_000), false);
    cluster.kill(away);
    run_filling(&mut cluster, 20_000);
    // Now a second one dies.
    cluster.kill(other);
    run_filling(&mut cluster, 60_000);
    let now: Vec<ServerNum> = members(&cluster, chunks[0]);
    let up = now.iter().filter(|server| **server != away && **server != other).count();
    assert!(up >= 2, "a write needs two: {now:?}");
}

#[test]
fn orders_that_make_no_sense_are_refused_in_words() {
    let Still { mut cluster, away, .. } = still();
    let refused = |cluster: &mut Cluster, for_ms| order(cluster, away, for_ms, false).refused.unwrap();
    assert!(refused(&mut cluster, None).contains("not in maintenance"));
    assert!(refused(&mut cluster, Some(0)).contains("a second at least"));
    assert!(refused(&mut cluster, Some(u64::MAX)).contains("a week at most"));
    let tool = cluster.connect(Role::Tool);
    let unknown = MaintainServer { server: ServerNum(99), for_ms: Some(1000), force: false };
    assert_eq!(cluster.ask(tool, &unknown), Err(Status::NotFound));
    order(&mut cluster, away, Some(AWAY_MS), false);
    // It will not come back after all.
    cluster.ask(tool, &DrainServer { server: away, drain: true, force: true }).unwrap();
    assert_eq!(report(&mut cluster, away).maintenance_ms, None);
    assert!(refused(&mut cluster, Some(1000)).contains("is being drained"));
}
