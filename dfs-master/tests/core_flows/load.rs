//! Replicas follow the load: from what heartbeats say to the copies that are made, and back.

use dfs_proto::conn::Role;
use dfs_proto::control::{ChunkHeat, ServerLoad};
use dfs_proto::ids::{ChunkId, Handle, ServerNum};
use dfs_proto::meta::{
    Attr, ChunkExplained, DrainServer, ExplainChunk, Heat, LocationsChanged, Policy, PolicyReport, Release,
};
use dfs_proto::request::Op;

use crate::cluster::{Client, Cluster, RO, RW};

/// A hot chunk is raised after three seconds; heartbeats come once a second.
const RAISED_MS: u64 = 8_000;

pub(crate) fn set(cluster: &mut Cluster, change: Policy) -> PolicyReport {
    let tool = cluster.connect(Role::Tool);
    cluster.ask(tool, &change).unwrap()
}

/// 300 units a second make a replica hot, and ten seconds under 100 with one fewer cold.
pub(crate) fn numbers() -> Policy {
    Policy {
        max_threshold: Some("300".to_owned()),
        min_threshold: Some("100".to_owned()),
        lower_after_ms: Some(10_000),
        ..Policy::default()
    }
}

/// A file of a goal of two in a cluster of six, that nobody has open.
pub(crate) struct Hot {
    pub(crate) cluster: Cluster,
    client: Client,
    pub(crate) attr: Attr,
    chunk: ChunkId,
}

pub(crate) fn hot() -> Hot {
    hot_in(Cluster::new(6, 2))
}

/// Whose loads are logged.
pub(crate) fn hot_logged() -> Hot {
    hot_in(Cluster::with(6, 2, |config| config.load_log = true))
}

fn hot_in(mut cluster: Cluster) -> Hot {
    let client = cluster.client();
    let created = cluster.create(client, "f", 7).unwrap();
    let (attr, place) = (created.opened.attr, created.opened.first.unwrap());
    cluster.write(&place, 1, 11);
    cluster.commit_synced(client, &attr, &place, 64 << 20);
    cluster
        .ask(client.conn, &Release { handles: vec![(attr.ino, Handle(7))], unsettled: Vec::new() })
        .unwrap();
    set(&mut cluster, numbers());
    Hot { cluster, client, attr, chunk: place.chunk() }
}

impl Hot {
    /// Lets time pass while the chunk is read so much, by all of its replicas alike, whose servers are busy with it.
    pub(crate) fn read(&mut self, units: u64, ms: u64) {
        for _ in 0..ms / 100 {
            let members: Vec<ServerNum> = self.cluster.meta(self.chunk).members.iter().collect();
            for server in &mut self.cluster.servers {
                let holds = members.contains(&server.num) && units > 0;
                let read_milli = units * 1000 / members.len() as u64;
                let heat = ChunkHeat { chunk: self.chunk, read_milli, write_milli: 0 };
                server.hot = holds.then_some(heat).into_iter().collect();
                server.load = ServerLoad {
                    utilisation_permille: if holds { 900 } else { 50 },
                    capacity_bytes_per_s: 125_000_000,
                    ..ServerLoad::default()
                };
            }
            self.cluster.run(100);
            let all: Vec<ServerNum> = self.cluster.servers.iter().map(|server| server.num).collect();
            all.into_iter().for_each(|server| self.cluster.fill_some(server));
            let goal = self.cluster.core.state().goal_at(self.attr.ino);
            assert!(self.replicas() >= goal, "below its goal");
        }
    }

    pub(crate) fn replicas(&self) -> usize {
        self.cluster.meta(self.chunk).members.len()
    }

    pub(crate) fn explained(&mut self) -> ChunkExplained {
        let tool = self.cluster.connect(Role::Tool);
        self.cluster.ask(tool, &ExplainChunk::Chunk(self.chunk)).unwrap()
    }
}

#[test]
fn a_hot_chunk_gets_the_replicas_that_its_load_needs_and_gives_them_back() {
    let mut hot = hot();
    hot.read(800, 2_000);
    assert_eq!(hot.replicas(), 2, "not hot for long enough");
    hot.read(800, RAISED_MS);
    assert_eq!(hot.replicas(), 4, "800 over 0.7 of 300, rounded up");
    hot.read(800, 20_000);
    assert_eq!(hot.replicas(), 4, "200 on each is neither hot nor cold");
    let explained = hot.explained();
    let (_, why) = &explained.past[0];
    assert!(why.starts_with("raise, to ") && why.contains("above 300/s"), "{why}");
    assert_eq!(explained.heat.replicas.len(), 4);
    hot.read(0, 8_000);
    assert_eq!(hot.replicas(), 4, "not cold for long enough");
    hot.read(0, 20_000);
    assert_eq!(hot.replicas(), 2);
    assert!(hot.explained().past.iter().any(|(_, what)| what.starts_with("lower, on ")));
    // The servers that gave theirs back have nothing left of it.
    let members: Vec<ServerNum> = hot.cluster.meta(hot.chunk).members.iter().collect();
    hot.cluster.run(5_000);
    for server in &hot.cluster.servers {
        assert_eq!(server.replicas.contains_key(&hot.chunk), members.contains(&server.num), "{}", server.num);
    }
    hot.cluster.core.state().check().unwrap();
}

#[test]
fn with_one_replica_at_most_nothing_is_raised() {
    let mut hot = hot();
    set(&mut hot.cluster, Policy { max_replicas: Some(1), ..Policy::default() });
    hot.read(2_000, 30_000);
    assert_eq!(hot.replicas(), 2);
    assert!(hot.explained().now.contains("no more are allowed"), "{}", hot.explained().now);
}

#[test]
fn a_writer_does_not_pay_for_replicas_that_serve_load() {
    let mut hot = hot();
    hot.read(800, RAISED_MS);
    assert_eq!(hot.replicas(), 4);
    let (client, ino) = (hot.client, hot.attr.ino);
    hot.cluster.open(client, ino, 9, RW).unwrap();
    let place = hot.cluster.map_write(client, ino, 0);
    assert!(place.is_ok(), "the first write does not wait for it: {place:?}");
    hot.read(800, 300);
    assert_eq!(hot.replicas(), 2);
    hot.read(800, 10_000);
    assert_eq!(hot.replicas(), 2, "while a writer has it open it is not raised");
    hot.cluster.core.state().check().unwrap();
}

#[test]
fn whoever_has_the_file_open_is_told_of_new_replicas() {
    let mut hot = hot();
    hot.cluster.open(hot.client, hot.attr.ino, 9, RO).unwrap();
    let other = hot.cluster.client();
    hot.cluster.notified.clear();
    hot.read(800, RAISED_MS);
    let told = std::mem::take(&mut hot.cluster.notified);
    let of = |client: Client| {
        let mine = told.iter().filter(|(conn, op, _)| *conn == client.conn && *op == Op::LocationsChanged);
        mine.map(|(_, _, body)| rmp_serde::from_slice::<LocationsChanged>(body).unwrap().chunks)
            .collect::<Vec<_>>()
    };
    assert_eq!(of(hot.client), vec![vec![hot.chunk]; 2], "one for each copy");
    assert!(of(other).is_empty());
}

#[test]
fn a_drained_holder_is_replaced_and_what_the_load_needs_stays() {
    let mut hot = hot();
    hot.read(800, RAISED_MS);
    let server = hot.cluster.meta(hot.chunk).members.iter().last().unwrap();
    let tool = hot.cluster.connect(Role::Tool);
    hot.cluster.ask(tool, &DrainServer { server, drain: true, force: true }).unwrap();
    hot.read(800, 10_000);
    let meta = hot.cluster.meta(hot.chunk);
    assert!(!meta.members.contains(server) && meta.members.len() >= 3, "{meta:?}");
}

#[test]
fn a_killed_target_ends_the_raise_and_the_policy_goes_on() {
    let mut hot = hot();
    hot.read(800, 4_000);
    let before = hot.replicas();
    let learner = hot.cluster.meta(hot.chunk).learners.first().copied();
    if let Some(learner) = learner {
        hot.cluster.kill(learner);
    }
    hot.read(800, 40_000);
    assert!(before <= 4 && hot.replicas() == 4, "{before}, then {}", hot.replicas());
    hot.cluster.core.state().check().unwrap();
}

#[test]
fn the_policy_is_checked_logged_and_kept() {
    let mut cluster = Cluster::new(3, 2);
    let usual = set(&mut cluster, Policy::default());
    assert_eq!(usual.set.max_threshold.as_deref(), Some("auto"));
    let records = cluster.entries.len();
    let high = Policy { min_threshold: Some("200".to_owned()), ..numbers() };
    let refused = set(&mut cluster, high).refused.unwrap();
    assert!(refused.contains("above a third"), "{refused}");
    let bad = Policy { max_threshold: Some("much".to_owned()), ..Policy::default() };
    assert!(set(&mut cluster, bad).refused.unwrap().contains("neither auto nor"), "said in words");
    assert_eq!(cluster.entries.len(), records, "nothing was logged");
    let changed = set(&mut cluster, numbers());
    assert_eq!((changed.refused.as_ref(), changed.max_milli, changed.min_milli), (None, 300_000, 100_000));
    cluster.restart(0);
    cluster.rejoin_all();
    assert_eq!(set(&mut cluster, Policy::default()).set, changed.set);
}

#[test]
fn heat_is_told_busiest_first_and_by_file() {
    let mut hot = hot();
    let (other, _) = hot.cluster.written_file(hot.client, "g");
    hot.read(250, 3_000);
    let tool = hot.cluster.connect(Role::Tool);
    let top = hot.cluster.ask(tool, &Heat { ino: None, most: 10 }).unwrap().chunks;
    assert_eq!(top.len(), 1);
    assert_eq!((top[0].chunk, top[0].read_milli, top[0].replicas.len()), (hot.chunk, 250_000, 2));
    assert_eq!(&top[0].path[..], b"/f");
    let cold = hot.cluster.ask(tool, &Heat { ino: Some(other.ino), most: 10 }).unwrap().chunks;
    assert_eq!((cold.len(), cold[0].read_milli), (1, 0));
}

#[test]
fn the_space_of_a_surplus_replica_comes_back_at_once() {
    let mut hot = hot_in(Cluster::with(6, 2, |config| config.gc_delay_ms = 3_600_000));
    hot.read(800, RAISED_MS);
    assert_eq!(hot.replicas(), 4);
    hot.read(0, 30_000);
    assert_eq!(hot.replicas(), 2);
    let members: Vec<ServerNum> = hot.cluster.meta(hot.chunk).members.iter().collect();
    for server in &hot.cluster.servers {
        assert_eq!(server.replicas.contains_key(&hot.chunk), members.contains(&server.num), "{}", server.num);
    }
}

#[test]
fn what_is_not_needed_goes_one_right_after_the_other() {
    let mut hot = hot();
    hot.read(1_200, RAISED_MS + 4_000);
    assert_eq!(hot.replicas(), 6);
    hot.read(0, 9_000);
    let mut took_ms = 0;
    while hot.replicas() == 6 && took_ms < 10_000 {
        hot.read(0, 100);
        took_ms += 100;
    }
    hot.read(0, 2_000);
    assert_eq!(hot.replicas(), 2, "{:?}", hot.explained());
}
