//! The chunks that cost most: a space-saving sketch of decaying rates, so that memory does not grow with
//! chunks. One unit of cost a request, plus one for each 64 KiB moved; reads and writes apart.

use std::collections::BTreeMap;

use dfs_proto::control::ChunkHeat;
use dfs_proto::ids::ChunkId;
use dfs_proto::units::Micros;

/// Chunks watched at once (3-load.md).
const WATCHED: usize = 512;
/// A rate halves in this time without requests.
const HALF_LIFE_US: f64 = 10_000_000.0;
/// Bytes that cost as much as a request.
const BYTES_PER_UNIT: u64 = 64 << 10;

#[derive(Debug, Default)]
pub(crate) struct Heat {
    chunks: BTreeMap<ChunkId, Cost>,
}

/// Accumulated decayed cost; the rate is cost times ln 2 over the half-life.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    read: f64,
    write: f64,
    at: Micros,
}

/// Which of the two costs a request adds to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    Read,
    Write,
}

impl Cost {
    fn decayed(self, now: Micros) -> Cost {
        let since = now.0.saturating_sub(self.at.0);
        // A rate is a measure, not a count: rounding to 53 bits is nothing.
        #[expect(clippy::cast_precision_loss, reason = "see above")]
        let factor = (-(since as f64) / HALF_LIFE_US).exp2();
        Cost { read: self.read * factor, write: self.write * factor, at: now }
    }

    fn total(self) -> f64 {
        self.read + self.write
    }
}

impl Heat {
    /// Adds one request for `bytes` of a chunk.
    pub(crate) fn note(&mut self, now: Micros, chunk: ChunkId, access: Access, bytes: u32) {
        if !self.chunks.contains_key(&chunk) && self.chunks.len() >= WATCHED {
            self.replace_coldest(now, chunk);
        }
        let cost = self.chunks.entry(chunk).or_insert(Cost { at: now, ..Cost::default() });
        *cost = cost.decayed(now);
        let units = 1.0 + f64::from(bytes) / f64::from(u32::try_from(BYTES_PER_UNIT).unwrap_or(u32::MAX));
        match access {
            Access::Read => cost.read += units,
            Access::Write => cost.write += units,
        }
    }

    /// The newcomer inherits the coldest one's cost: an over-estimate, so a hot chunk is never missed.
    fn replace_coldest(&mut self, now: Micros, chunk: ChunkId) {
        let coldest = self
            .chunks
            .iter()
            .map(|(&id, cost)| (id, cost.decayed(now)))
            .min_by(|a, b| a.1.total().total_cmp(&b.1.total()));
        if let Some((id, cost)) = coldest {
            self.chunks.remove(&id);
            self.chunks.insert(chunk, cost);
        }
    }

    pub(crate) fn forget(&mut self, chunk: ChunkId) {
        self.chunks.remove(&chunk);
    }

    /// The `most` busiest chunks, busiest first; those that cost next to nothing are left out.
    pub(crate) fn hottest(&mut self, now: Micros, most: usize) -> Vec<ChunkHeat> {
        // Below a thousandth of a request a second nothing is learned from it.
        self.chunks.retain(|_, cost| milli_rate(cost.decayed(now).total()) > 0);
        let mut hot: Vec<ChunkHeat> = self
            .chunks
            .iter()
            .map(|(&chunk, cost)| {
                let cost = cost.decayed(now);
                ChunkHeat { chunk, read_milli: milli_rate(cost.read), write_milli: milli_rate(cost.write) }
            })
            .collect();
        hot.sort_by_key(|heat| std::cmp::Reverse((heat.read_milli + heat.write_milli, heat.chunk)));
        hot.truncate(most);
        hot
    }
}

/// Thousandths of a unit a second.
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
        assert_eq!(heat.hottest(Micros(5000), 1)[0].chunk, ChunkId(7));
    }
}
