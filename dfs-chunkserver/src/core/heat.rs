//! The chunks that cost most: a space-saving sketch of decaying rates, so that memory does not grow with
//! chunks. One unit of cost a request, plus one for each 64 KiB moved; reads and writes apart.

use std::collections::{BTreeMap, BTreeSet};

use dfs_proto::control::ChunkHeat;
use dfs_proto::ids::ChunkId;
use dfs_proto::units::Micros;

/// Chunks watched at once (3-load.md).
const WATCHED: usize = 512;
/// A rate halves in this time without requests.
const HALF_LIFE_US: f64 = 10_000_000.0;
/// Bytes that cost as much as a request.
const BYTES_PER_UNIT: f64 = 65_536.0;

/// Half-lives after which the scale is brought back to one: far below what a float can hold.
const RESCALE: f64 = 64.0;

/// Costs are kept as if everything had happened at `base`: instead of the old ones decaying, new ones count
/// for more, by the scale of their time. So they compare without arithmetic.
#[derive(Debug, Default)]
pub(crate) struct Heat {
    base: Micros,
    chunks: BTreeMap<ChunkId, Cost>,
    /// The same chunks by their cost, so that the coldest is found without looking at all: every first write
    /// of a small file replaces it.
    coldest: BTreeSet<(u64, ChunkId)>,
}

/// Scaled cost.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    read: f64,
    write: f64,
}

/// Which of the two costs a request adds to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    Read,
    Write,
}

impl Cost {
    fn total(self) -> f64 {
        self.read + self.write
    }

    /// Compares as the total does, which is never negative.
    fn order(self) -> u64 {
        self.total().to_bits()
    }
}

impl Heat {
    /// Adds one request for `bytes` of a chunk.
    pub(crate) fn note(&mut self, now: Micros, chunk: ChunkId, access: Access, bytes: u32) {
        let scale = self.scale(now);
        if !self.chunks.contains_key(&chunk) && self.chunks.len() >= WATCHED {
            self.replace_coldest(chunk);
        }
        let cost = self.chunks.entry(chunk).or_default();
        self.coldest.remove(&(cost.order(), chunk));
        let units = scale * (1.0 + f64::from(bytes) / BYTES_PER_UNIT);
        match access {
            Access::Read => cost.read += units,
            Access::Write => cost.write += units,
        }
        self.coldest.insert((cost.order(), chunk));
    }

    /// What a unit counts for now.
    fn scale(&mut self, now: Micros) -> f64 {
        let half_lives = half_lives(self.base, now);
        if half_lives < RESCALE {
            return half_lives.exp2();
        }
        let shrink = (-half_lives).exp2();
        for cost in self.chunks.values_mut() {
            *cost = Cost { read: cost.read * shrink, write: cost.write * shrink };
        }
        self.base = now;
        self.sort();
        1.0
    }

    fn sort(&mut self) {
        self.coldest = self.chunks.iter().map(|(&chunk, cost)| (cost.order(), chunk)).collect();
    }

    /// The newcomer inherits the coldest one's cost: an over-estimate, so a hot chunk is never missed.
    fn replace_coldest(&mut self, chunk: ChunkId) {
        let Some((order, coldest)) = self.coldest.pop_first() else { return };
        if let Some(cost) = self.chunks.remove(&coldest) {
            self.chunks.insert(chunk, cost);
            self.coldest.insert((order, chunk));
        }
    }

    pub(crate) fn forget(&mut self, chunk: ChunkId) {
        if let Some(cost) = self.chunks.remove(&chunk) {
            self.coldest.remove(&(cost.order(), chunk));
        }
    }

    /// The `most` busiest chunks, busiest first; those that cost next to nothing are left out.
    pub(crate) fn hottest(&mut self, now: Micros, most: usize) -> Vec<ChunkHeat> {
        let scale = self.scale(now);
        // Below a thousandth of a request a second nothing is learned from it.
        self.chunks.retain(|_, cost| milli_rate(cost.total() / scale) > 0);
        self.sort();
        let mut hot: Vec<ChunkHeat> = self
            .chunks
            .iter()
            .map(|(&chunk, cost)| ChunkHeat {
                chunk,
                read_milli: milli_rate(cost.read / scale),
                write_milli: milli_rate(cost.write / scale),
            })
            .collect();
        hot.sort_by_key(|heat| std::cmp::Reverse((heat.read_milli + heat.write_milli, heat.chunk)));
        hot.truncate(most);
        hot
    }
}

fn half_lives(from: Micros, to: Micros) -> f64 {
    // A rate is a measure, not a count: rounding to 53 bits is nothing.
    #[expect(clippy::cast_precision_loss, reason = "see above")]
    let since = to.0.saturating_sub(from.0) as f64;
    since / HALF_LIFE_US
}

/// Thousandths of a unit a second: the decayed cost times ln 2 over the half-life.
fn milli_rate(cost: f64) -> u64 {
    let rate = cost * std::f64::consts::LN_2 / (HALF_LIFE_US / 1e6) * 1000.0;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturates, and is never negative"
    )]
    let milli = rate as u64;
    milli
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_rate_shows_and_decays() {
        let mut heat = Heat::default();
        // 100 requests a second of 64 KiB: 200 units a second, for a minute.
        for i in 0..6000u64 {
            heat.note(Micros(i * 10_000), ChunkId(1), Access::Read, 64 << 10);
        }
        let now = Micros(60_000_000);
        let hot = heat.hottest(now, 10);
        assert!((190_000..210_000).contains(&hot[0].read_milli), "{hot:?}");
        let later = heat.hottest(Micros(70_000_000), 10);
        assert!((95_000..105_000).contains(&later[0].read_milli), "{later:?}");
    }

    #[test]
    fn memory_is_bounded_and_the_hot_one_stays() {
        let mut heat = Heat::default();
        for i in 0..5000u64 {
            heat.note(Micros(i), ChunkId(7), Access::Write, 0);
            heat.note(Micros(i), ChunkId(100 + i), Access::Read, 0);
        }
        assert!(heat.chunks.len() <= WATCHED);
        assert_eq!(heat.chunks.len(), heat.coldest.len());
        assert_eq!(heat.hottest(Micros(5000), 1)[0].chunk, ChunkId(7));
    }
}
