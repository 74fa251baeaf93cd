//! What load costs the master: heartbeats with the busiest chunks of every server, and the policy's second. In this thread's own
//! time on a processor, so that what else the machine does is not counted.
//!
//! `cargo test --profile trial -p dfs-master --test core_flows cost -- --ignored --nocapture` measures a cluster of 200.

use std::collections::BTreeMap;
use std::time::Duration;

use dfs_master::core::{ConnId, Effect, Input, ReqId};
use dfs_master::load_log::Encoder;
use dfs_proto::control::{ChunkHeat, Heartbeat, ServerLoad};
use dfs_proto::ids::{ChunkId, KeyId, RequestId, ServerNum};
use dfs_proto::request::Op;
use dfs_proto::units::Micros;
use rustix::time::{ClockId, clock_gettime};

use crate::cluster::{Cluster, TICK_MS, now_at};
use crate::fake::encode;

/// As many chunks as a server reports.
const HOT: usize = 512;
const SECONDS: u64 = 8;

fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap(), u32::try_from(time.tv_nsec).unwrap())
}

/// A second's cost: all heartbeats, and all ticks.
#[derive(Clone, Copy, Debug)]
struct Cost {
    heartbeats: Duration,
    ticks: Duration,
}

/// Servers that each report so many chunks, of two replicas each, none of them hot.
fn second_of(servers: usize, load_log: bool) -> Cost {
    let mut cluster = Cluster::with(servers, 2, |config| config.load_log = load_log);
    let client = cluster.client();
    let mut hot: BTreeMap<ServerNum, Vec<ChunkId>> = BTreeMap::new();
    for n in 0..servers as u64 * HOT as u64 * 11 / 20 {
        if n % 1000 == 0 {
            cluster.run(1000);
        }
        let place = cluster.create(client, &format!("f{n}"), n).unwrap().opened.first.unwrap();
        for server in cluster.meta(place.chunk()).members.iter() {
            hot.entry(server).or_default().push(place.chunk());
        }
    }
    cluster.run(3_000);
    let reported: usize = hot.values().map(|chunks| chunks.len().min(HOT)).sum();
    assert!(reported > servers * HOT * 9 / 10, "{reported}");
    let (mut cost, mut effects) = (Cost { heartbeats: Duration::ZERO, ticks: Duration::ZERO }, Vec::new());
    let (mut encoder, mut bytes, mut lines) = (Encoder::default(), 0, 0);
    let mut step = |cluster: &mut Cluster, input: Input| {
        let begin = thread_time();
        cluster.core.step(now_at(cluster.now_ms), input, &mut effects);
        let took = thread_time().saturating_sub(begin);
        for effect in effects.drain(..) {
            if let Effect::LogLoad { second } = effect {
                let line = encoder.line(&second, None, 0).len();
                // The first one says everything.
                bytes += if lines > 0 { line } else { 0 };
                lines += 1;
            }
        }
        took
    };
    // The first one makes what later ones find.
    for second in 0..=SECONDS {
        for at in 0..cluster.servers.len() {
            let (conn, body) = heartbeat(&cluster, at, &hot, second);
            let req = ReqId(1_000_000_000 + second * 1000 + at as u64);
            let (rid, done) = (RequestId(0), RequestId(0));
            let took = step(&mut cluster, Input::Request { conn, req, op: Op::Heartbeat, rid, done, body });
            cost.heartbeats += if second > 0 { took } else { Duration::ZERO };
        }
        for _ in 0..1000 / TICK_MS {
            cluster.now_ms += TICK_MS;
            let took = step(&mut cluster, Input::Tick);
            cost.ticks += if second > 0 { took } else { Duration::ZERO };
        }
    }
    if load_log {
        println!("{servers} servers: {} bytes a line of the log of loads", bytes / (lines - 1).max(1));
    }
    let each = u32::try_from(SECONDS).unwrap();
    Cost { heartbeats: cost.heartbeats / each, ticks: cost.ticks / each }
}

fn heartbeat(
    cluster: &Cluster,
    at: usize,
    hot: &BTreeMap<ServerNum, Vec<ChunkId>>,
    second: u64,
) -> (ConnId, bytes::Bytes) {
    let server = &cluster.servers[at];
    let heat = |chunk: &ChunkId| ChunkHeat {
        chunk: *chunk,
        read_milli: 5_000 + (chunk.0 * 37 + second * 101) % 40_000,
        write_milli: 100 + chunk.0 % 900,
    };
    let load = ServerLoad {
        utilisation_permille: 400,
        capacity_bytes_per_s: 1_250_000_000,
        service_p99_us: 900,
        ..ServerLoad::default()
    };
    let request = Heartbeat {
        boot: server.boot,
        t_send: Micros(cluster.now_ms * 1000),
        applied: server.applied,
        load,
        disks: server.disks(),
        hot: hot[&server.num].iter().take(HOT).map(heat).collect(),
        lost: Vec::new(),
        key: server.keys.last().map_or(KeyId(0), |key| key.id),
        scrub: server.scrub.clone(),
        copy: server.copy.clone(),
    };
    (server.conn, encode(&request))
}

/// A tenth of the cluster that the bar is for, and fifty times the time, since this build is not an optimised one and others
/// run beside it: what is quadratic, or done for every chunk again and again, is far above it.
#[test]
fn load_costs_the_master_little() {
    let Cost { heartbeats, ticks } = second_of(20, true);
    println!("20 servers: {heartbeats:?} a second for heartbeats, {ticks:?} for ticks");
    assert!(heartbeats + ticks < Duration::from_millis(50 * 5));
}

#[test]
#[ignore = "a minute to make the chunks"]
fn heartbeats_of_200_servers_cost_less_than_a_twentieth_of_a_core() {
    for load_log in [false, true] {
        let Cost { heartbeats, ticks } = second_of(200, load_log);
        println!("200 servers, log {load_log}: {heartbeats:?} a second for heartbeats, {ticks:?} for ticks");
        assert!(heartbeats + ticks < Duration::from_millis(50));
    }
}
