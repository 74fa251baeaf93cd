//! Space evens out: from an empty server that joins to the last replica that moves.

use dfs_proto::conn::Role;
use dfs_proto::control::ChunkHeat;
use dfs_proto::ids::{ChunkId, Handle, ServerNum};
use dfs_proto::meta::{ExplainChunk, Policy, Release};

use crate::cluster::{Client, Cluster, RW};

const CHUNK: u64 = 64 << 10;
const FILES: u64 = 40;

/// Files of one whole chunk and two replicas, on servers whose disks they fill by two thirds. Closed.
struct Full {
    cluster: Cluster,
    client: Client,
    chunks: Vec<ChunkId>,
}

fn full(servers: usize) -> Full {
    let mut cluster = Cluster::new(servers, 2);
    for server in &mut cluster.servers {
        server.total_bytes = FILES * CHUNK;
    }
    cluster.run(2_000);
    let client = cluster.client();
    let mut chunks = Vec::new();
    for n in 0..FILES {
        let created = cluster.create(client, &format!("f{n}"), n + 1).unwrap();
        let (attr, place) = (created.opened.attr, created.opened.first.unwrap());
        cluster.write(&place, 1, 11);
        cluster.commit_synced(client, &attr, &place, CHUNK);
        cluster
            .ask(client.conn, &Release { handles: vec![(attr.ino, Handle(n + 1))], unsettled: Vec::new() })
            .unwrap();
        chunks.push(place.chunk());
    }
    Full { cluster, client, chunks }
}

impl Full {
    fn add_empty(&mut self, labels: &[(&str, &str)]) -> ServerNum {
        let server = self.cluster.add_server(99, labels);
        self.cluster.server_mut(server).total_bytes = FILES * CHUNK;
        server
    }

    fn run(&mut self, ms: u64) {
        for _ in 0..ms / 100 {
            self.cluster.run(100);
            let all: Vec<ServerNum> = self.cluster.servers.iter().map(|server| server.num).collect();
            all.into_iter().for_each(|server| self.cluster.fill_some(server));
            for chunk in &self.chunks {
                assert!(self.cluster.meta(*chunk).members.len() >= 2, "I15");
            }
        }
    }

    /// All chunks are read, so that the policy looks at them.
    fn read_a_little(&mut self) {
        let members = |chunk: &ChunkId| (*chunk, self.cluster.meta(*chunk).members);
        let held: Vec<_> = self.chunks.iter().map(members).collect();
        for server in &mut self.cluster.servers {
            let heat = |chunk| ChunkHeat { chunk, read_milli: 10, write_milli: 0 };
            let here = held.iter().filter(|(_, members)| members.contains(server.num));
            server.hot = here.map(|(chunk, _)| heat(*chunk)).collect();
        }
    }

    fn on(&self, server: ServerNum) -> u64 {
        self.cluster.core.state().chunks.replicas_on(server)
    }

    /// Points between the fullest and the emptiest, of servers that are equal.
    fn spread(&self) -> u64 {
        let counts: Vec<u64> = self.cluster.servers.iter().map(|server| self.on(server.num)).collect();
        (counts.iter().max().unwrap() - counts.iter().min().unwrap()) * 100 / FILES
    }

    fn configs(&self) -> Vec<u32> {
        self.chunks.iter().map(|chunk| self.cluster.meta(*chunk).config.0).collect()
    }
}

#[test]
fn an_empty_server_gets_its_share_and_then_nothing_moves() {
    let mut full = full(3);
    full.run(10_000);
    let before = full.configs();
    full.run(10_000);
    assert_eq!(full.configs(), before, "what is even stays");
    let new = full.add_empty(&[]);
    full.run(120_000);
    assert!(full.on(new) >= 18, "{}", full.on(new));
    assert!(full.spread() <= 5, "{}", full.spread());
    for chunk in &full.chunks {
        assert_eq!(full.cluster.meta(*chunk).members.len(), 2);
    }
    let moved: Vec<ChunkId> = full
        .chunks
        .iter()
        .filter(|chunk| full.cluster.meta(**chunk).members.contains(new))
        .copied()
        .collect();
    let after = full.configs();
    full.run(60_000);
    assert_eq!(full.configs(), after, "and then nothing moves any more");
    // What it left behind is deleted, and the reason told.
    let tool = full.cluster.connect(Role::Tool);
    let past = full.cluster.ask(tool, &ExplainChunk::Chunk(moved[0])).unwrap().past;
    assert!(past[0].1.starts_with("move, from server") && past[0].1.contains("this one 0.0 %"), "{past:?}");
    assert!(past.last().unwrap().1.starts_with("moved: "), "{past:?}");
    for server in &full.cluster.servers {
        let counted = full.on(server.num);
        assert_eq!(server.replicas.len() as u64, counted, "{}", server.num);
    }
    full.cluster.core.state().check().unwrap();
}

/// The policy looks once a second: the new replica comes at any time between.
#[test]
fn the_one_that_leaves_is_the_one_whose_place_was_taken() {
    for phase in 0..10 {
        let mut full = full(3);
        let tool = full.cluster.connect(Role::Tool);
        // A third replica is one too many for the policy at once.
        full.cluster.ask(tool, &Policy { max_replicas: Some(2), ..Policy::default() }).unwrap();
        full.run(10_000 + 100 * phase);
        let new = full.add_empty(&[]);
        for _ in 0..600 {
            full.read_a_little();
            full.run(100);
        }
        assert!(full.spread() <= 5, "{}", full.spread());
        let mut moves = 0;
        for chunk in full.chunks.clone() {
            let past = full.cluster.ask(tool, &ExplainChunk::Chunk(chunk)).unwrap().past;
            for (_, what) in past {
                assert!(!what.starts_with("lower") && !what.contains("given up"), "{chunk}: {what}");
                moves += u64::from(what.starts_with("moved: "));
            }
        }
        assert_eq!(moves, full.on(new), "each moved once");
    }
}

#[test]
fn what_is_written_or_would_be_less_apart_stays() {
    let mut full = full(3);
    let ino = full.cluster.meta(full.chunks[0]).ino;
    full.cluster.open(full.client, ino, 900, RW).unwrap();
    assert!(full.cluster.map_write(full.client, ino, 0).is_ok());
    let before = full.cluster.meta(full.chunks[0]).members;
    full.add_empty(&[]);
    full.run(60_000);
    assert_eq!(full.cluster.meta(full.chunks[0]).members, before);
}

#[test]
fn a_server_that_dies_ends_what_was_to_come_to_it_and_repairs_go_first() {
    let mut full = full(4);
    full.run(5_000);
    let new = full.add_empty(&[]);
    full.run(5_000);
    full.cluster.kill(new);
    full.run(60_000);
    assert_eq!(full.on(new), 0);
    for chunk in &full.chunks {
        assert_eq!(full.cluster.meta(*chunk).members.len(), 2);
    }
    full.cluster.core.state().check().unwrap();
}

#[test]
fn a_busy_server_is_left_alone() {
    let mut full = full(3);
    full.run(5_000);
    let new = full.add_empty(&[]);
    full.cluster.server_mut(new).load.utilisation_permille = 700;
    full.run(30_000);
    assert_eq!(full.on(new), 0);
    full.cluster.server_mut(new).load.utilisation_permille = 0;
    full.run(60_000);
    assert!(full.on(new) > 10);
}
