//! Measures a connection on this machine: the way there and back of a small frame, calls in parallel, and
//! large replies in a stream. `cargo run --release -p dfs-proto --example pingpong [tcp|unix] [split]`;
//! with `split` either end has a runtime of its own, as two processes would.

#![allow(clippy::unwrap_used, reason = "a measurement may stop by panicking")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dfs_proto::conn::{
    Acceptor, CallsOnly, Conn, Handler, Hello, Listener, PeerAddr, Responder, Role, RoleSet, Welcome,
};
use dfs_proto::frame::{Frame, Outgoing};
use dfs_proto::header::Words;
use dfs_proto::ids::{BootId, ClusterId};
use dfs_proto::request::Op;
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;

const CLUSTER: ClusterId = ClusterId(1);
const SOON: Duration = Duration::from_secs(10);
const MIB: usize = 1 << 20;

/// Answers with `word2` bytes.
struct Filler {
    bytes: Bytes,
}

impl Handler for Filler {
    fn handle(&self, _conn: &Conn, frame: Frame, reply: Responder) {
        let len = usize::try_from(frame.header.words.word2).unwrap();
        reply.send(Outgoing::reply_to(&frame.header).with_payload(self.bytes.slice(..len)));
    }
}

async fn serve(addr: PeerAddr) -> PeerAddr {
    let listener = Listener::bind(&addr).await.unwrap();
    let addr = listener.local_addr().clone();
    let welcome = Welcome::new("server", CLUSTER, BootId(1));
    let handler = Arc::new(Filler { bytes: Bytes::from(vec![7; MIB]) });
    tokio::spawn(listener.serve(Acceptor { welcome, roles: RoleSet::ALL, handler }));
    addr
}

async fn fetch(conn: &Conn, len: usize) {
    let words = Words { word2: u32::try_from(len).unwrap(), ..Words::default() };
    let frame = conn.call_frame(Outgoing::new(Op::Read).with_words(words), SOON).await.unwrap();
    assert_eq!(frame.payload.len(), len);
}

/// `calls` fetches of `len` bytes, `depth` at a time.
async fn run(conn: &Conn, what: &str, len: usize, depth: usize, calls: usize) {
    let started = Instant::now();
    let mut workers = tokio::task::JoinSet::new();
    let mut all: Vec<Duration> = Vec::with_capacity(calls);
    for _ in 0..depth {
        let conn = conn.clone();
        workers.spawn(async move {
            let mut times = Vec::with_capacity(calls / depth);
            for _ in 0..calls / depth {
                let started = Instant::now();
                fetch(&conn, len).await;
                times.push(started.elapsed());
            }
            times
        });
    }
    while let Some(times) = workers.join_next().await {
        all.extend(times.unwrap());
    }
    let took = started.elapsed();
    all.sort_unstable();
    let at = |percent: usize| all[(all.len() - 1) * percent / 100];
    let per_second = 1.0 / (took.as_secs_f64() / u32::try_from(all.len()).map(f64::from).unwrap());
    let rate = took.as_secs_f64().recip() * f64::from(u32::try_from((len * all.len()) >> 10).unwrap()) / 1e9
        * 1024.0;
    println!("{what:28} p50 {:>9.1?} p99 {:>9.1?} {per_second:>9.0}/s {rate:>6.2} GB/s", at(50), at(99));
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().enable_all().build().unwrap()
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let has = |what: &str| args.iter().any(|arg| arg == what);
    let dir = tempfile::tempdir().unwrap();
    let addr =
        if has("unix") { PeerAddr::Unix(dir.path().join("socket")) } else { "127.0.0.1:0".parse().unwrap() };
    let ours = runtime();
    let theirs = if has("split") { Some(runtime()) } else { None };
    let addr = theirs.as_ref().unwrap_or(&ours).block_on(serve(addr));
    ours.block_on(async {
        tokio::spawn(measure(addr)).await.unwrap();
    });
}

async fn measure(addr: PeerAddr) {
    let hello = Hello::new(Role::Tool, "pingpong", Some(CLUSTER));
    let (conn, _) = Conn::connect(&addr, hello, Arc::new(CallsOnly), SOON).await.unwrap();
    run(&conn, "warm up", 64, 1, 2_000).await;
    run(&conn, "64 B, one at a time", 64, 1, 20_000).await;
    run(&conn, "64 B, 16 at a time", 64, 16, 100_000).await;
    run(&conn, "64 B, 256 at a time", 64, 256, 200_000).await;
    run(&conn, "4 KiB, 16 at a time", 4096, 16, 50_000).await;
    run(&conn, "128 KiB, 8 at a time", 128 << 10, 8, 20_000).await;
    run(&conn, "1 MiB, one at a time", MIB, 1, 2_000).await;
    run(&conn, "1 MiB, 4 at a time", MIB, 4, 6_000).await;
    run(&conn, "1 MiB, 16 at a time", MIB, 16, 6_000).await;
}
