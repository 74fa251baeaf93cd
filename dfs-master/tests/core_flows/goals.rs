//! Goals of files and directories: who begins with which, and replicas that follow when one is raised or lowered.

use dfs_proto::conn::Role;
use dfs_proto::ids::{ChunkId, Handle, Ino, ServerNum};
use dfs_proto::meta::{
    Attr, ChunkPlace, ClusterStatus, Create, Creds, DrainServer, ExplainChunk, GOAL_BATCH, Goal, GoalReport,
    GoalSet, Mkdir, Mknod, Release, SetGoal, ShowGoal,
};
use dfs_proto::status::Status;

use crate::cluster::{Client, Cluster, RW};
use crate::load::{hot, numbers, set};

/// Surplus of a load leaves when it was not needed for ten minutes; what is asked for here comes at once.
const SOON_MS: u64 = 15_000;

fn ask(cluster: &mut Cluster, ino: Ino, goal: Goal) -> GoalSet {
    let tool = cluster.connect(Role::Tool);
    cluster.ask(tool, &SetGoal { ino, goal, below: None }).unwrap()
}

fn give(cluster: &mut Cluster, ino: Ino, goal: u8) {
    let given = ask(cluster, ino, Goal { goal: Some(goal), max: None });
    assert_eq!((given.refused, given.files + given.dirs), (None, 1));
}

fn show(cluster: &mut Cluster, ino: Ino) -> GoalReport {
    let tool = cluster.connect(Role::Tool);
    cluster.ask(tool, &ShowGoal { ino }).unwrap()
}

fn mkdir(cluster: &mut Cluster, client: Client, parent: Ino, name: &str) -> Ino {
    let name = name.as_bytes().to_vec().into();
    let made = cluster.ask(client.conn, &Mkdir { parent, name, mode: 0o755, creds: Creds::default() });
    made.unwrap().attr.ino
}

/// A closed file with one chunk that is on the disks of its members.
fn file_in(cluster: &mut Cluster, client: Client, parent: Ino, name: &str) -> (Attr, ChunkId) {
    let handle = Handle(cluster.now_ms + parent.0 * 1_000_000);
    let created = cluster.ask(client.conn, &create_in(parent, name, handle)).unwrap();
    let (attr, place): (Attr, ChunkPlace) = (created.opened.attr, created.opened.first.unwrap());
    cluster.write(&place, 1, 11);
    cluster.commit_synced(client, &attr, &place, 10_000);
    cluster.ask(client.conn, &Release { handles: vec![(attr.ino, handle)], unsettled: Vec::new() }).unwrap();
    (attr, place.chunk())
}

fn create_in(parent: Ino, name: &str, handle: Handle) -> Create {
    Create {
        parent,
        name: name.as_bytes().to_vec().into(),
        mode: 0o644,
        handle,
        access: RW,
        exclusive: true,
        truncate: false,
        creds: Creds::default(),
    }
}

fn members(cluster: &Cluster, chunk: ChunkId) -> usize {
    cluster.meta(chunk).members.len()
}

/// Learners are filled as fast as they are asked for; no chunk is ever below `least`.
fn run_filling(cluster: &mut Cluster, ms: u64, chunk: ChunkId, least: usize) {
    for _ in 0..ms / 100 {
        cluster.run(100);
        let all: Vec<ServerNum> = cluster.servers.iter().map(|server| server.num).collect();
        all.into_iter().for_each(|server| cluster.fill_some(server));
        assert!(members(cluster, chunk) >= least, "{:?}", cluster.meta(chunk));
    }
}

fn explained(cluster: &mut Cluster, chunk: ChunkId) -> dfs_proto::meta::ChunkExplained {
    let tool = cluster.connect(Role::Tool);
    cluster.ask(tool, &ExplainChunk::Chunk(chunk)).unwrap()
}

#[test]
fn what_is_made_in_a_directory_begins_with_its_goal() {
    let mut cluster = Cluster::with(5, 2, |config| config.snapshot_records = 20);
    let client = cluster.client();
    let dir = mkdir(&mut cluster, client, Ino::ROOT, "dir");
    let (old, chunk) = file_in(&mut cluster, client, dir, "old");
    give(&mut cluster, dir, 4);
    let sub = mkdir(&mut cluster, client, dir, "sub");
    let (inner, place) = file_in(&mut cluster, client, sub, "inner");
    assert_eq!(members(&cluster, place), 4);
    let (outside, place) = file_in(&mut cluster, client, Ino::ROOT, "outside");
    assert_eq!(members(&cluster, place), 2);
    assert_eq!(members(&cluster, chunk), 2, "what was there keeps its own");
    for _ in 0..2 {
        let goals = [dir, old.ino, sub, inner.ino, outside.ino].map(|ino| show(&mut cluster, ino).goal);
        assert_eq!(goals, [4, 2, 4, 4, 2]);
        cluster.run(2_000);
        assert!(cluster.snapshot.is_some());
        cluster.restart(0);
        cluster.rejoin_all();
    }
    let report = show(&mut cluster, sub);
    let own = Goal { goal: Some(4), max: None };
    assert_eq!((report.own, report.dir, report.cluster_goal, report.max), (own, true, 2, 16));
    assert_eq!(&report.path[..], b"/dir/sub");
    let tool = cluster.connect(Role::Tool);
    let status = cluster.ask(tool, &ClusterStatus {}).unwrap();
    assert_eq!((status.goal, status.goals_own, status.goal_highest), (2, 3, 4));
    cluster.core.state().check().unwrap();
}

#[test]
fn a_raised_goal_brings_replicas_and_a_lowered_one_takes_them_at_once() {
    let mut cluster = Cluster::new(5, 2);
    let client = cluster.client();
    let (attr, chunk) = file_in(&mut cluster, client, Ino::ROOT, "f");
    let (_, other) = file_in(&mut cluster, client, Ino::ROOT, "other");
    give(&mut cluster, attr.ino, 4);
    cluster.run(500);
    let tool = cluster.connect(Role::Tool);
    let below = cluster.ask(tool, &ClusterStatus {}).unwrap().chunks_below_goal;
    assert_eq!(below, 1, "as `dfs status` counts");
    run_filling(&mut cluster, SOON_MS, chunk, 2);
    assert_eq!((members(&cluster, chunk), members(&cluster, other)), (4, 2));
    let heat = explained(&mut cluster, chunk).heat;
    assert_eq!((heat.goal, heat.replicas.len()), (4, 4));
    give(&mut cluster, attr.ino, 1);
    run_filling(&mut cluster, SOON_MS, chunk, 1);
    assert_eq!((members(&cluster, chunk), members(&cluster, other)), (1, 2));
    let past = explained(&mut cluster, chunk).past;
    let why = "its goal is 1 now: of 4 replicas those above it go";
    assert!(past.iter().any(|(_, what)| what == why), "{past:?}");
    // Back to the cluster's.
    assert_eq!(ask(&mut cluster, attr.ino, Goal::default()).files, 1);
    run_filling(&mut cluster, SOON_MS, chunk, 1);
    assert_eq!(members(&cluster, chunk), 2);
    let last: Vec<ServerNum> = cluster.meta(chunk).members.iter().collect();
    cluster.run(10_000);
    for server in &cluster.servers {
        let active = server.replicas.get(&chunk).is_some_and(|replica| replica.active);
        assert_eq!(active, last.contains(&server.num), "{}", server.num);
    }
    assert_eq!(show(&mut cluster, attr.ino).own, Goal::default());
    cluster.core.state().check().unwrap();
}

#[test]
fn a_copy_that_a_lowered_goal_does_not_want_is_given_up() {
    let mut cluster = Cluster::new(4, 2);
    let client = cluster.client();
    let (attr, chunk) = file_in(&mut cluster, client, Ino::ROOT, "f");
    give(&mut cluster, attr.ino, 3);
    cluster.run(1_000);
    assert_eq!(cluster.meta(chunk).learners.len(), 1, "under way, and nobody fills it");
    give(&mut cluster, attr.ino, 2);
    cluster.run(3_000);
    let meta = cluster.meta(chunk);
    assert_eq!((meta.members.len(), meta.learners.len()), (2, 0));
}

#[test]
fn a_goal_that_is_raised_while_a_member_leaves_keeps_it() {
    let mut cluster = Cluster::new(3, 3);
    let client = cluster.client();
    let (attr, chunk) = file_in(&mut cluster, client, Ino::ROOT, "f");
    let all: Vec<ServerNum> = cluster.servers.iter().map(|server| server.num).collect();
    for server in &all {
        cluster.server_mut(*server).deaf_to_withdraw = true;
    }
    give(&mut cluster, attr.ino, 2);
    cluster.run(5_000);
    assert!(cluster.meta(chunk).leaving.is_some());
    give(&mut cluster, attr.ino, 3);
    for server in &all {
        cluster.server_mut(*server).deaf_to_withdraw = false;
    }
    run_filling(&mut cluster, 40_000, chunk, 3);
    let meta = cluster.meta(chunk);
    assert!(meta.leaving.is_none() && meta.is_active(), "{meta:?}");
    cluster.core.state().check().unwrap();
}

#[test]
fn a_drained_server_is_left_by_what_has_another_goal_too() {
    let mut cluster = Cluster::new(4, 3);
    let client = cluster.client();
    let (attr, chunk) = file_in(&mut cluster, client, Ino::ROOT, "f");
    give(&mut cluster, attr.ino, 1);
    run_filling(&mut cluster, SOON_MS, chunk, 1);
    let server = cluster.meta(chunk).members.primary().unwrap();
    let tool = cluster.connect(Role::Tool);
    cluster.ask(tool, &DrainServer { server, drain: true, force: false }).unwrap();
    run_filling(&mut cluster, 20_000, chunk, 1);
    let meta = cluster.meta(chunk);
    assert!(meta.members.len() == 1 && !meta.members.contains(server), "{meta:?}");
}

#[test]
fn an_old_replica_stays_until_the_chunk_has_the_goal_of_its_file() {
    let mut cluster = Cluster::new(3, 1);
    let client = cluster.client();
    give(&mut cluster, Ino::ROOT, 3);
    let (attr, chunk) = file_in(&mut cluster, client, Ino::ROOT, "f");
    assert_eq!(members(&cluster, chunk), 3);
    let gone = cluster.meta(chunk).members.iter().last().unwrap();
    cluster.kill(gone);
    cluster.run(40_000);
    assert_eq!(members(&cluster, chunk), 2, "repaired around");
    // It comes back, and is not to be used again.
    let tool = cluster.connect(Role::Tool);
    cluster.ask(tool, &DrainServer { server: gone, drain: true, force: false }).unwrap();
    cluster.revive(gone, false);
    run_filling(&mut cluster, 90_000, chunk, 2);
    assert!(!cluster.meta(chunk).open, "all members have all of it on their disks");
    assert!(cluster.server(gone).replicas.contains_key(&chunk), "2 of 3: it may be needed");
    give(&mut cluster, attr.ino, 2);
    run_filling(&mut cluster, 30_000, chunk, 2);
    assert!(!cluster.server(gone).replicas.contains_key(&chunk));
}

#[test]
fn load_takes_a_chunk_to_the_bound_of_its_file() {
    let mut hot = hot();
    let ino = hot.attr.ino;
    let bound = Goal { goal: Some(2), max: Some(3) };
    assert_eq!(ask(&mut hot.cluster, ino, bound).files, 1);
    hot.read(2_000, 10_000);
    assert_eq!(hot.replicas(), 3);
    let explained = hot.explained();
    assert!(explained.now.contains("no more are allowed"), "{}", explained.now);
    assert_eq!((explained.max_replicas, show(&mut hot.cluster, ino).max), (3, 3));
    // A goal that is lowered takes nothing that the load needs.
    give(&mut hot.cluster, ino, 1);
    for _ in 0..10 {
        hot.read(2_000, 1_000);
        assert!(hot.replicas() >= 3);
    }
    set(&mut hot.cluster, numbers());
}

#[test]
fn what_is_refused_says_what_would_work() {
    let mut cluster = Cluster::new(3, 2);
    let client = cluster.client();
    let (attr, _) = file_in(&mut cluster, client, Ino::ROOT, "f");
    let records = cluster.entries.len();
    let why = |cluster: &mut Cluster, goal, max| {
        let set = ask(cluster, attr.ino, Goal { goal, max });
        assert_eq!((set.files, set.dirs), (0, 0));
        set.refused.unwrap()
    };
    assert_eq!(why(&mut cluster, Some(0), None), "a goal of 0 keeps nothing: 1 to 3 works");
    let many = "a goal of 4 is more than the 3 servers that take replicas now, of 3 known: 1 to 3 works";
    assert_eq!(why(&mut cluster, Some(4), None), many);
    let low = "a bound of 1 replicas with a goal of 2: 2 to 16 works";
    assert_eq!(why(&mut cluster, Some(2), Some(1)), low);
    assert_eq!(why(&mut cluster, None, Some(1)), low, "the cluster's goal counts");
    assert!(why(&mut cluster, Some(2), Some(17)).ends_with("2 to 16 works"));
    let fifo = Mknod {
        parent: Ino::ROOT,
        name: b"fifo".to_vec().into(),
        kind: dfs_proto::meta::FileKind::Fifo,
        mode: 0o644,
        rdev: 0,
        creds: Creds::default(),
    };
    let logged = cluster.entries.len();
    assert_eq!(logged, records, "nothing was logged");
    let fifo = cluster.ask(client.conn, &fifo).unwrap().ino;
    let set = ask(&mut cluster, fifo, Goal { goal: Some(2), max: None });
    assert_eq!(set.refused.as_deref(), Some("only files and directories have goals"));
    let tool = cluster.connect(Role::Tool);
    let nobody = SetGoal { ino: Ino(999), goal: Goal { goal: Some(2), max: None }, below: None };
    assert_eq!(cluster.ask(tool, &nobody).err(), Some(Status::NotFound));
    assert_eq!(cluster.ask(tool, &ShowGoal { ino: Ino(999) }).err(), Some(Status::NotFound));
    let inside = SetGoal { ino: attr.ino, below: Some(0), ..nobody };
    assert_eq!(cluster.ask(tool, &inside).err(), Some(Status::NotDir));
    // A drained server takes none.
    cluster.ask(tool, &DrainServer { server: ServerNum(1), drain: true, force: false }).unwrap();
    assert!(
        why(&mut cluster, Some(3), None).contains("2 servers that take replicas now, of 3 known: 1 to 2")
    );
}

#[test]
fn replicas_that_have_to_share_a_host_are_told() {
    let mut cluster = Cluster::new(3, 2);
    let hosts = show(&mut cluster, Ino::ROOT).hosts;
    let set = ask(&mut cluster, Ino::ROOT, Goal { goal: Some(3), max: None });
    assert_eq!(set.note.is_some(), hosts < 3, "{hosts} hosts: {set:?}");
}

#[test]
fn a_directory_is_gone_through_in_parts_and_a_second_time_nothing_changes() {
    let mut cluster = Cluster::new(2, 1);
    let client = cluster.client();
    let dir = mkdir(&mut cluster, client, Ino::ROOT, "dir");
    let sub = mkdir(&mut cluster, client, dir, "sub");
    let count = u64::from(GOAL_BATCH) + 5;
    for n in 0..count {
        let request = Mknod {
            parent: dir,
            name: format!("f{n}").into_bytes().into(),
            kind: dfs_proto::meta::FileKind::File,
            mode: 0o644,
            rdev: 0,
            creds: Creds::default(),
        };
        cluster.ask(client.conn, &request).unwrap();
    }
    give(&mut cluster, dir, 2);
    let goal = Goal { goal: Some(2), max: None };
    let tool = cluster.connect(Role::Tool);
    for expected in [(count, 1), (0, 0)] {
        let (mut below, mut files, mut dirs, mut inner) = (Some(0), 0, 0, Vec::new());
        while let Some(cookie) = below {
            let set = cluster.ask(tool, &SetGoal { ino: dir, goal, below: Some(cookie) }).unwrap();
            (below, files, dirs) = (set.next, files + set.files, dirs + set.dirs);
            inner.extend(set.inner);
            assert!(set.files + set.dirs <= u64::from(GOAL_BATCH));
        }
        assert_eq!((files, dirs), expected);
        assert_eq!(inner, [sub]);
    }
    assert_eq!(show(&mut cluster, sub).own, goal);
    cluster.core.state().check().unwrap();
}
