//! Where reads go: spread over the members, and to a second one when the first is slow.

use std::time::Duration;

use bytes::Bytes;
use dfs_client::{Client, FileHandle};
use dfs_proto::ids::ServerNum;
use dfs_proto::request::Op;
use dfs_proto::status::Status;
use tokio::time::Instant;

use crate::fake::{FakeNet, Fault, pattern};
use crate::{get, make, put};

const FILE: usize = 2 << 20;
/// An answer of the quick ones takes two trips, and what is slow is known to a quarter.
const QUICK: Duration = Duration::from_millis(20);
const SLOW: Duration = Duration::from_millis(100);

struct Rig {
    net: FakeNet,
    client: Client<FakeNet>,
    file: FileHandle,
    data: Bytes,
    reads: u64,
}

impl Rig {
    async fn new(members: u16) -> Rig {
        let net = FakeNet::new();
        net.world().master.members = members;
        let client = net.client().await;
        let file = make(&client, "a").await;
        let data = pattern(FILE, 4);
        put(&client, &file, 0, &data).await;
        client.flush(&file).await.unwrap();
        Rig { net, client, file, data, reads: 0 }
    }

    /// One of a client that has seen what reads take.
    async fn warm(members: u16) -> Rig {
        let mut rig = Rig::new(members).await;
        for _ in 0..200 {
            assert!(rig.read().await < QUICK);
        }
        rig.net.world().servers.asked.clear();
        rig.net.take_log();
        rig
    }

    /// Reads out of order, so that nothing is fetched ahead. What it took.
    async fn read(&mut self) -> Duration {
        self.reads += 1;
        let at = (self.reads % 2) * (FILE as u64 / 2) + (self.reads * 7919) % 5000;
        let began = Instant::now();
        let got = get(&self.client, &self.file, at, 300).await;
        let at = usize::try_from(at).unwrap();
        assert_eq!(got, self.data.slice(at..at + 300));
        Instant::now() - began
    }

    /// Requests that were sent.
    fn asked(&self) -> usize {
        self.net.world().servers.asked.values().sum()
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_read_is_asked_of_a_second_member() {
    let mut rig = Rig::warm(2).await;
    rig.net.fault(Op::Read, Fault::Slow(SLOW));
    assert!(rig.read().await < QUICK);
    assert_eq!(rig.asked(), 2);
    let asked = rig.net.world().servers.asked.clone();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(!rig.net.world().log.contains(&Op::Suspect), "nobody failed");
    assert!(rig.read().await < QUICK);
    assert_eq!(rig.asked(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_knows_nothing_yet_waits() {
    let mut rig = Rig::new(2).await;
    rig.net.fault(Op::Read, Fault::Slow(SLOW));
    assert!(rig.read().await >= SLOW);
    assert_eq!(rig.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_stalls_is_not_asked_all_twice() {
    let rig = Rig::warm(3).await;
    for server in 1..=3 {
        rig.net.world().servers.slow.insert(ServerNum(server), SLOW);
    }
    let reads: Vec<_> = (0..100u64)
        .map(|at| {
            let (client, file) = (rig.client.clone(), rig.file.clone());
            let at = (at % 2) * (FILE as u64 / 2) + at * 50;
            tokio::spawn(async move { get(&client, &file, at, 300).await })
        })
        .collect();
    for read in reads {
        read.await.unwrap();
    }
    // What was saved up: no more is, however many are asked.
    assert_eq!(rig.asked(), 100 + 8);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_got_slow_is_left_alone_after_a_hedge() {
    let mut rig = Rig::warm(3).await;
    rig.net.world().servers.slow.insert(ServerNum(2), SLOW);
    for _ in 0..200 {
        assert!(rig.read().await < QUICK);
    }
    let asked = rig.net.world().servers.asked.clone();
    assert!((1..=8).contains(&asked[&ServerNum(2)]), "{asked:?}");
    assert!(!rig.net.world().log.contains(&Op::Suspect), "nobody failed");
}

#[tokio::test(start_paused = true)]
async fn a_single_member_is_waited_for() {
    let mut rig = Rig::warm(1).await;
    rig.net.fault(Op::Read, Fault::Slow(SLOW));
    assert!(rig.read().await >= SLOW);
    assert_eq!(rig.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_second_member_that_refuses_leaves_it_to_the_first() {
    let mut rig = Rig::warm(2).await;
    for status in [Status::WrongChunkVersion, Status::NotServing, Status::Corrupt] {
        rig.net.fault(Op::Read, Fault::Slow(SLOW));
        rig.net.fault(Op::Read, Fault::Answer(status));
        let took = rig.read().await;
        assert!((SLOW..SLOW + QUICK).contains(&took), "{status:?}: {took:?}");
    }
    assert_eq!(rig.asked(), 6);
    let log = rig.net.take_log();
    assert!(!log.contains(&Op::MapRead), "the place was not given up: {log:?}");
}

#[tokio::test(start_paused = true)]
async fn a_second_answer_that_may_be_old_is_not_used() {
    let mut rig = Rig::warm(2).await;
    // So that the master's clock shows more than the stale server's stamps lie behind.
    tokio::time::sleep(Duration::from_secs(10)).await;
    for server in 1..=2 {
        // It answers with bytes that nobody wrote; the other one is slow.
        rig.net.world().servers.stale = [(ServerNum(server), 6_500)].into();
        rig.net.world().servers.slow = [(ServerNum(3 - server), Duration::from_millis(20))].into();
        for _ in 0..20 {
            rig.read().await;
        }
    }
    assert!(rig.net.world().servers.asked.len() == 2);
}

#[tokio::test(start_paused = true)]
async fn what_has_effects_is_sent_once() {
    let rig = Rig::warm(2).await;
    for op in [Op::Write, Op::Sync, Op::Commit] {
        rig.net.fault(op, Fault::Slow(Duration::from_millis(300)));
    }
    put(&rig.client, &rig.file, 0, &pattern(5000, 9)).await;
    rig.client.fsync(&rig.file, false).await.unwrap();
    assert_eq!(rig.net.take_log(), [Op::Write, Op::Sync, Op::Commit]);
}

#[tokio::test(start_paused = true)]
async fn windows_of_one_file_go_to_all_members() {
    let rig = Rig::new(4).await;
    for server in 1..=4 {
        rig.net.world().servers.slow.insert(ServerNum(server), Duration::from_millis(1));
    }
    for at in (0..FILE as u64).step_by(32 << 10) {
        get(&rig.client, &rig.file, at, 32 << 10).await;
    }
    let asked = rig.net.world().servers.asked.clone();
    // 32 windows, many of them under way at once.
    assert!(asked.len() == 4 && asked.values().all(|n| (5..=12).contains(n)), "{asked:?}");
}
