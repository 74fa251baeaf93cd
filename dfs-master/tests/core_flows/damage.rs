//! Chunks without a good replica: named with what is wrong, left alone until an operator gives them up, and then
//! usable again, with the old replicas kept.

use dfs_master::core::ConnId;
use dfs_proto::conn::Role;
use dfs_proto::control::{ReportTrouble, Settle};
use dfs_proto::ids::{ChunkId, ChunkVersion, Handle, Seq, ServerNum};
use dfs_proto::meta::{
    Attr, ChunkPlace, Damaged, DamagedChunk, DamagedPart, ExamineChunk, MapRead, RepairChunk, RepairWay,
    ReplicaFault,
};
use dfs_proto::status::Status;
use dfs_proto::units::ChunkIndex;

use crate::cluster::{Client, Cluster};
use crate::fsck::{check, look};

const HANDLE: Handle = Handle(7);

fn damaged(cluster: &mut Cluster, tool: ConnId) -> Vec<DamagedChunk> {
    let part: DamagedPart = cluster.ask(tool, &Damaged { ino: None, from: 0 }).unwrap();
    assert_eq!(part.next, None);
    part.chunks
}

/// A file with one synced chunk.
fn file(cluster: &mut Cluster, client: Client, name: &str) -> (Attr, ChunkPlace) {
    let created = cluster.create(client, name, HANDLE.0).unwrap();
    let (attr, place) = (created.opened.attr, created.opened.first.unwrap());
    cluster.write(&place, 1, 11);
    cluster.commit_synced(client, &attr, &place, 10_000);
    (attr, place)
}

fn repair(chunk: &DamagedChunk, way: RepairWay) -> RepairChunk {
    RepairChunk { chunk: chunk.chunk, version: chunk.version, config: chunk.config, way }
}

fn members(cluster: &Cluster, chunk: ChunkId) -> Vec<ServerNum> {
    cluster.meta(chunk).members.iter().collect()
}

fn read_place(cluster: &mut Cluster, client: Client, attr: &Attr) -> Result<ChunkPlace, Status> {
    let read = MapRead { ino: attr.ino, first: ChunkIndex(0), count: 1 };
    cluster.ask(client.conn, &read).map(|map| map.places[0].clone())
}

fn nums(place: &ChunkPlace) -> Vec<ServerNum> {
    place.members.iter().map(|member| member.server).collect()
}

#[test]
fn a_chunk_whose_servers_are_away_is_named_and_waits() {
    let mut cluster = Cluster::new(3, 2);
    let client = cluster.client();
    let (attr, place) = file(&mut cluster, client, "file");
    let tool = cluster.connect(Role::Tool);
    assert_eq!(damaged(&mut cluster, tool), []);
    let all = nums(&place);
    all.iter().for_each(|num| cluster.kill(*num));
    // Their leases may still run: nobody knows yet.
    assert_eq!(damaged(&mut cluster, tool), []);
    cluster.run(10_000);
    let found = damaged(&mut cluster, tool);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].ino, found[0].chunk, found[0].size), (attr.ino, place.chunk(), 10_000));
    for replica in &found[0].replicas {
        assert!(all.contains(&replica.server) && replica.name.starts_with("server"), "{replica:?}");
        assert!(matches!(replica.why, ReplicaFault::Away { silent_ms: Some(9_000..=12_000) }), "{replica:?}");
    }
    let of_file: DamagedPart = cluster.ask(tool, &Damaged { ino: Some(attr.ino), from: 0 }).unwrap();
    assert_eq!(of_file.chunks.len(), 1);
    assert_eq!(read_place(&mut cluster, client, &attr), Err(Status::Recovering));
    // They come back, and all is well without anybody's word.
    all.iter().for_each(|num| cluster.revive(*num, false));
    cluster.until(20_000, |cluster| read_place(cluster, client, &attr).is_ok());
    assert_eq!(damaged(&mut cluster, tool), []);
}

#[test]
fn a_chunk_that_is_given_up_begins_as_zeros_elsewhere() {
    let mut cluster = Cluster::new(4, 2);
    let client = cluster.client();
    let (attr, place) = file(&mut cluster, client, "file");
    let (chunk, all) = (place.chunk(), nums(&place));
    let tool = cluster.connect(Role::Tool);
    // What can be served is not given up.
    let meta = cluster.meta(chunk);
    let (version, config, way) = (meta.version, meta.config, RepairWay::Zeros);
    let early = RepairChunk { chunk, version, config, way };
    assert_eq!(cluster.ask(tool, &early), Err(Status::Busy));
    all.iter().for_each(|num| cluster.kill(*num));
    cluster.run(10_000);
    let found = damaged(&mut cluster, tool).remove(0);
    let other = RepairChunk { version: ChunkVersion(version.0 + 1), ..repair(&found, way) };
    assert_eq!(cluster.ask(tool, &other), Err(Status::WrongChunkVersion));
    cluster.ask(tool, &repair(&found, way)).unwrap();
    cluster.until(5_000, |cluster| read_place(cluster, client, &attr).is_ok());
    let place = read_place(&mut cluster, client, &attr).unwrap();
    assert!(place.new, "no file of it is expected anywhere");
    assert_eq!(place.chunk(), chunk, "who has to sync it is told what was lost");
    let meta = cluster.meta(chunk);
    assert!(meta.lossy > version && meta.is_active() && !meta.written && !meta.synced, "{meta:?}");
    assert!(members(&cluster, chunk).iter().all(|server| !all.contains(server)));
    assert_eq!(members(&cluster, chunk).len(), 2);
    assert_eq!(damaged(&mut cluster, tool), []);
    cluster.core.state().check().unwrap();
    // It is written again; the old servers come back. Their replicas are neither served nor deleted.
    let place = cluster.map_write(client, attr.ino, 0).unwrap();
    cluster.write(&place, 1, 77);
    all.iter().for_each(|num| cluster.revive(*num, false));
    cluster.run(60_000);
    for num in &all {
        assert!(!cluster.server(*num).replicas[&chunk].active, "{num}");
        assert_eq!(cluster.server(*num).deleted, []);
        assert_eq!(look(&mut cluster, tool, *num), (vec![], 1));
    }
    assert_eq!(check(&mut cluster, tool).0, []);
    // Also when the file goes: only what the file had last is deleted.
    let last = members(&cluster, chunk);
    let unlink = dfs_proto::meta::Unlink {
        parent: dfs_proto::ids::Ino::ROOT,
        name: b"file".to_vec().into(),
        creds: dfs_proto::meta::Creds::default(),
    };
    cluster.ask(client.conn, &unlink).unwrap();
    let handles = vec![(attr.ino, HANDLE)];
    cluster.ask(client.conn, &dfs_proto::meta::Release { handles, unsettled: Vec::new() }).unwrap();
    cluster.until(120_000, |cluster| last.iter().all(|num| cluster.server(*num).deleted == [chunk]));
    all.iter().for_each(|num| assert_eq!(cluster.server(*num).deleted, []));
    assert_eq!(check(&mut cluster, tool).0, []);
    // A restart forgets none of it.
    let hash = cluster.core.state().hash();
    cluster.snapshot_is_equal(hash);
}

#[test]
fn a_server_without_the_file_is_used_again() {
    let mut cluster = Cluster::new(1, 1);
    let client = cluster.client();
    let (attr, place) = file(&mut cluster, client, "file");
    let (chunk, only) = (place.chunk(), nums(&place)[0]);
    let tool = cluster.connect(Role::Tool);
    cluster.kill(only);
    cluster.server_mut(only).replicas.clear();
    cluster.revive(only, false);
    cluster.run(10_000);
    let found = damaged(&mut cluster, tool).remove(0);
    assert_eq!(found.replicas[0].why, ReplicaFault::Missing);
    cluster.ask(tool, &repair(&found, RepairWay::Zeros)).unwrap();
    cluster.until(5_000, |cluster| read_place(cluster, client, &attr).is_ok());
    assert_eq!(members(&cluster, chunk), [only]);
    assert_eq!(check(&mut cluster, tool).0, []);
}

#[test]
fn an_only_replica_that_failed_or_rotted_is_named() {
    let mut cluster = Cluster::new(2, 1);
    let client = cluster.client();
    let (_, rotten) = file(&mut cluster, client, "rotten");
    let (_, failed) = file(&mut cluster, client, "failed");
    let tool = cluster.connect(Role::Tool);
    let holder = rotten.members[0];
    cluster.server_mut(holder.server).scrub.blocks = vec![(rotten.chunk(), 5), (rotten.chunk(), 3)];
    cluster.heartbeat(cluster.at(holder.server)).unwrap();
    let conn = cluster.server(failed.members[0].server).conn;
    let trouble = ReportTrouble { reports: Vec::new(), failed: vec![failed.chunk()] };
    cluster.ask(conn, &trouble).unwrap();
    let found = damaged(&mut cluster, tool);
    assert_eq!(found.len(), 2, "{found:?}");
    let why = |chunk: ChunkId| {
        let at = found.iter().find(|found| found.chunk == chunk).unwrap();
        at.replicas[0].why.clone()
    };
    assert_eq!(why(rotten.chunk()), ReplicaFault::Corrupt { blocks: vec![3, 5] });
    assert_eq!(why(failed.chunk()), ReplicaFault::Failed);
    // The rotten one keeps what is good of it.
    cluster.server_mut(holder.server).replicas.get_mut(&rotten.chunk()).unwrap().bad_blocks = 2;
    let of = ExamineChunk { chunk: rotten.chunk(), server: holder.server };
    assert_eq!(cluster.ask(tool, &of).unwrap().bad, [(2, 2)]);
    let at = found.iter().find(|found| found.chunk == rotten.chunk()).unwrap();
    cluster.ask(tool, &repair(at, RepairWay::BadBlocks)).unwrap();
    cluster.server_mut(holder.server).scrub.blocks.clear();
    cluster.until(5_000, |cluster| cluster.meta(rotten.chunk()).version > at.version);
    cluster.run(1_000);
    let replica = &cluster.server(holder.server).replicas[&rotten.chunk()];
    assert!(replica.active && replica.reconciled == [Settle::Zeros], "{replica:?}");
    let meta = cluster.meta(rotten.chunk());
    assert!(meta.written && meta.synced && meta.lossy == meta.version, "{meta:?}");
    let left: Vec<ChunkId> = damaged(&mut cluster, tool).iter().map(|found| found.chunk).collect();
    assert_eq!(left, [failed.chunk()]);
}

#[test]
fn an_older_replica_can_be_taken_instead() {
    let mut cluster = Cluster::new(3, 2);
    let client = cluster.client();
    let (attr, place) = file(&mut cluster, client, "file");
    let (chunk, all) = (place.chunk(), nums(&place));
    let tool = cluster.connect(Role::Tool);
    // One member is left behind, then the others are lost.
    cluster.kill(all[1]);
    cluster.run(8_000);
    cluster.until(20_000, |cluster| cluster.map_write(client, attr.ino, 0).is_ok());
    let later = cluster.map_write(client, attr.ino, 0).unwrap();
    assert!(!nums(&later).contains(&all[1]));
    cluster.write(&later, 2, 22);
    cluster.revive(all[1], false);
    let lost = nums(&later);
    lost.iter().for_each(|num| cluster.kill(*num));
    cluster.run(10_000);
    let found = damaged(&mut cluster, tool).remove(0);
    let nobody = repair(&found, RepairWay::Stale(ServerNum(99)));
    assert_eq!(cluster.ask(tool, &nobody), Err(Status::NotFound));
    cluster.ask(tool, &repair(&found, RepairWay::Stale(all[1]))).unwrap();
    cluster.until(10_000, |cluster| read_place(cluster, client, &attr).is_ok());
    let place = read_place(&mut cluster, client, &attr).unwrap();
    assert_eq!((nums(&place), place.new), (vec![all[1]], false));
    let replica = &cluster.server(all[1]).replicas[&chunk];
    assert!(replica.active && replica.digest == 11 && replica.applied == Seq(1), "{replica:?}");
    assert!(cluster.meta(chunk).lossy > found.version);
    assert_eq!(check(&mut cluster, tool).0.len(), 1, "it is below its goal, and nothing else is wrong");
    // The newer ones come back too late: they are kept, and nothing is filled over them.
    lost.iter().for_each(|num| cluster.revive(*num, false));
    cluster.run(60_000);
    for num in &lost {
        let server = cluster.server(*num);
        assert!(server.deleted.is_empty() && server.replicas[&chunk].digest == 22, "{num}");
    }
    cluster.core.state().check().unwrap();
}
