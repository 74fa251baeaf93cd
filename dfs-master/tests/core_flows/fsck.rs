//! What `dfs fsck` is told: of the state in slices, while it goes on changing; of servers, part by part.

use dfs_master::core::ConnId;
use dfs_proto::conn::Role;
use dfs_proto::ids::{ChunkId, ChunkVersion, Generation, LogIndex, ServerNum};
use dfs_proto::meta::{Finding, FindingKind, Fsck, FsckHeld, FsckPart, FsckServer};
use dfs_proto::status::Status;

use crate::cluster::{Client, Cluster};

/// The whole check of the state.
pub(crate) fn check(cluster: &mut Cluster, tool: ConnId) -> (Vec<Finding>, FsckPart) {
    let mut found = Vec::new();
    let mut begin = true;
    loop {
        let mut part: FsckPart = cluster.ask(tool, &Fsck { begin }).unwrap();
        begin = false;
        found.append(&mut part.found);
        if part.done {
            return (found, part);
        }
    }
}

/// All that a server has, against the map.
pub(crate) fn look(cluster: &mut Cluster, tool: ConnId, server: ServerNum) -> (Vec<Finding>, u64) {
    let (mut found, mut replicas, mut from) = (Vec::new(), 0, Some(ChunkId(0)));
    while let Some(at) = from {
        let part: FsckHeld = cluster.ask(tool, &FsckServer { server, from: at }).unwrap();
        found.extend(part.found);
        replicas += part.replicas;
        from = part.next;
    }
    (found, replicas)
}

fn committed(cluster: &mut Cluster, client: Client, name: &str) -> ChunkId {
    let (attr, place) = cluster.written_file(client, name);
    cluster.commit_synced(client, &attr, &place, 10);
    place.chunk()
}

#[test]
fn a_check_is_of_one_moment_and_others_work_meanwhile() {
    let mut cluster = Cluster::new(3, 2);
    let client = cluster.client();
    for n in 0..3000 {
        cluster.create(client, &format!("file{n}"), n).unwrap();
    }
    let tool = cluster.connect(Role::Tool);
    let first: FsckPart = cluster.ask(tool, &Fsck { begin: true }).unwrap();
    assert!(!first.done && first.looked.names > 0, "{first:?}");
    let at = first.index;
    assert_eq!(at, cluster.core.state().applied);
    let mut last = first;
    let mut parts = 1;
    while !last.done {
        cluster.create(client, &format!("later{parts}"), 10_000 + parts).unwrap();
        last = cluster.ask(tool, &Fsck { begin: false }).unwrap();
        assert_eq!(last.found, []);
        parts += 1;
    }
    assert!(parts >= 3, "{parts}");
    assert_eq!((last.index, last.looked.names, last.looked.chunks), (at, 3000, 3000));
    assert!(cluster.core.state().applied > at);
    // It is over; and a new one sees what came since.
    assert_eq!(cluster.ask(tool, &Fsck { begin: false }), Err(Status::Invalid));
    let (found, last) = check(&mut cluster, tool);
    assert_eq!((found, last.looked.names), (vec![], 3000 + parts - 1));
}

#[test]
fn a_check_ends_with_its_connection() {
    let mut cluster = Cluster::new(1, 1);
    let client = cluster.client();
    for n in 0..5000 {
        cluster.create(client, &format!("file{n}"), n).unwrap();
    }
    let mut tools = Vec::new();
    for _ in 0..4 {
        let tool = cluster.connect(Role::Tool);
        assert!(!cluster.ask(tool, &Fsck { begin: true }).unwrap().done);
        tools.push(tool);
    }
    let fifth = cluster.connect(Role::Tool);
    assert_eq!(cluster.ask(fifth, &Fsck { begin: true }), Err(Status::Overloaded));
    // Its own may begin again.
    cluster.ask(tools[0], &Fsck { begin: true }).unwrap();
    cluster.input(dfs_master::core::Input::Disconnected { conn: tools[1] });
    cluster.ask(fifth, &Fsck { begin: true }).unwrap();
}

#[test]
fn what_servers_have_is_compared_with_the_map() {
    let mut cluster = Cluster::new(2, 2);
    let client = cluster.client();
    let chunks: Vec<ChunkId> = (0..5).map(|n| committed(&mut cluster, client, &format!("f{n}"))).collect();
    let tool = cluster.connect(Role::Tool);
    let (one, two) = (cluster.servers[0].num, cluster.servers[1].num);
    assert_eq!(look(&mut cluster, tool, one), (vec![], 5));
    assert_eq!(look(&mut cluster, tool, two), (vec![], 5));
    let (found, _) = check(&mut cluster, tool);
    assert_eq!(found, []);
    // Four wrongs, one each.
    let stranger = ChunkId::new(Generation(1), 60_000);
    let server = cluster.server_mut(one);
    server.replicas.remove(&chunks[1]);
    server.replicas.get_mut(&chunks[2]).unwrap().version = ChunkVersion(9);
    server.replicas.get_mut(&chunks[3]).unwrap().config.0 = 0;
    let replica = server.replicas[&chunks[4]].clone();
    server.replicas.insert(stranger, replica);
    let (found, replicas) = look(&mut cluster, tool, one);
    assert_eq!((found.len(), replicas), (4, 5), "{found:#?}");
    for (chunk, says) in [
        (chunks[1], "has no replica, and is a member"),
        (chunks[2], "above the map's"),
        (chunks[3], "below the map's"),
        (stranger, "no file and no tombstone names it"),
    ] {
        let kind = if chunk == stranger { FindingKind::Unknown } else { FindingKind::Replica };
        let named = |f: &&Finding| f.object.contains(&chunk.to_string()) && f.kind == kind;
        let finding = found.iter().find(named).unwrap_or_else(|| panic!("{chunk}: {found:#?}"));
        assert!(finding.what.contains(says), "{finding}");
    }
    // Nothing follows from a look.
    let before = cluster.core.state().applied;
    assert_eq!(look(&mut cluster, tool, two), (vec![], 5));
    assert_eq!(cluster.core.state().applied, before);
    cluster.core.state().check().unwrap();
}

#[test]
fn who_cannot_be_asked_is_said() {
    let mut cluster = Cluster::new(2, 1);
    let tool = cluster.connect(Role::Tool);
    let nobody = FsckServer { server: ServerNum(9), from: ChunkId(0) };
    assert_eq!(cluster.ask(tool, &nobody), Err(Status::NotFound));
    let server = cluster.servers[0].num;
    cluster.kill(server);
    let dead = FsckServer { server, from: ChunkId(0) };
    assert_eq!(cluster.ask(tool, &dead), Err(Status::Disconnected));
}

#[test]
fn a_master_on_hold_is_checked_too() {
    let mut cluster = Cluster::new(1, 1);
    let client = cluster.client();
    committed(&mut cluster, client, "file");
    cluster.servers[0].max_meta_index = LogIndex(1 << 40);
    assert_eq!(cluster.join(0), Err(Status::Behind));
    assert!(cluster.core.hold().is_some());
    let tool = cluster.connect(Role::Tool);
    let (found, part) = check(&mut cluster, tool);
    assert_eq!((found, part.looked.chunks), (vec![], 1));
}
