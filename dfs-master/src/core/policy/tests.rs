//! The policy's table, its invariants and what it comes to in small clusters.

mod checks;
mod invariants;
mod model;
mod shapes;
mod simulations;
mod table;

use dfs_proto::ids::{ChunkId, ServerNum};
use dfs_proto::units::Micros;

use super::*;

pub(super) fn secs(at: u64) -> Micros {
    Micros(at * 1_000_000)
}

pub(super) fn num(server: u16) -> ServerNum {
    ServerNum(server)
}

/// What a measure is in whole numbers.
pub(super) fn whole(measure: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturates, and is never negative"
    )]
    let whole = measure as u64;
    whole
}

/// Thresholds of so many units a second.
pub(super) fn thresholds(max: u64, min: u64) -> Thresholds {
    let per_second = |units| Threshold::PerSecond(CostRate::per_second(units));
    Thresholds { max: per_second(max), min: per_second(min), ..Thresholds::default() }
}

pub(super) fn limits(max: u64, min: u64) -> Limits {
    thresholds(max, min).limits(&servers(4))
}

/// Servers of 1 Gbit/s, each on its own host, half full and 10 % busy.
pub(super) fn servers(count: u16) -> Vec<ServerView> {
    let server = |server| ServerView {
        server: num(server),
        rack: None,
        host: format!("h{server}"),
        condition: Condition::Serving,
        utilisation_permille: 100,
        queue: 0,
        capacity_bytes_per_s: 125_000_000,
        capacity_assumed: false,
        total_bytes: 1000 << 30,
        free_bytes: 500 << 30,
        freeing_bytes: 0,
        copies_in: 0,
        copies_out: 0,
        p99_us: 0,
        usual_p99_us: 0,
        lately_permille: 0,
    };
    (1..=count).map(server).collect()
}

/// A closed chunk of 64 MiB with a goal of 2, read so much.
pub(super) fn chunk(id: u64, read: u64, replicas: &[u16]) -> ChunkView {
    ChunkView {
        chunk: ChunkId(id),
        bytes: 64 << 20,
        read: CostRate::per_second(read),
        write: CostRate(0),
        replicas: replicas.iter().map(|server| num(*server)).collect(),
        goal: 2,
        max_replicas: None,
        written: false,
        closed: true,
        under_way: None,
        memory: Memory::default(),
    }
}
