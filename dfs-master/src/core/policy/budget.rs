//! What copies may move: a purse that fills at a rate, and a pace that slows when others are disturbed.

use dfs_proto::units::{CHUNK_SIZE_MAX, Micros};

use super::{ChunkView, Limits, ServerView, UnderWay};

/// What was not used is kept for so long: a hot chunk's replicas are wanted at once, and all of them.
const KEEP_MS: u64 = 10_000;

/// Bytes that copies may move.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Purse {
    bytes: u64,
    filled: Micros,
}

impl Purse {
    /// Full.
    #[must_use]
    pub fn new(limits: &Limits, pace: Pace, now: Micros) -> Purse {
        Purse { bytes: most(limits.budget_at(pace)), filled: now }
    }

    /// As somebody else's, who had so much left.
    #[must_use]
    pub fn holding(bytes: u64, now: Micros) -> Purse {
        Purse { bytes, filled: now }
    }

    /// With what came in since.
    #[must_use]
    pub fn fill(self, limits: &Limits, pace: Pace, now: Micros) -> Purse {
        let rate = limits.budget_at(pace);
        let us = now.0.saturating_sub(self.filled.0);
        let came = u64::try_from(u128::from(rate) * u128::from(us) / 1_000_000).unwrap_or(u64::MAX);
        Purse { bytes: self.bytes.saturating_add(came).min(most(rate)), filled: now.max(self.filled) }
    }

    /// Without what copies move that were decided on.
    #[must_use]
    pub fn spend(self, bytes: u64) -> Purse {
        Purse { bytes: self.bytes.saturating_sub(bytes), ..self }
    }

    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// One chunk at least, or none could ever be copied.
fn most(rate: u64) -> u64 {
    (rate / 1000).saturating_mul(KEEP_MS).max(u64::from(CHUNK_SIZE_MAX))
}

/// How much of the budget is used: less while copies seem to disturb who has nothing to do with them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pace {
    permille: u16,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { permille: 1000 }
    }
}

/// A server that answers slower than usual by more than this is disturbed.
const SLOWER_PERMILLE: u64 = 1500;
/// Regained in a second: ten seconds from nothing to all.
const FASTER_PERMILLE: u16 = 100;

impl Pace {
    /// As somebody else's.
    #[must_use]
    pub fn of_permille(permille: u16) -> Pace {
        Pace { permille: permille.min(1000) }
    }

    #[must_use]
    pub fn permille(self) -> u16 {
        self.permille
    }

    /// Takes in how the cluster does. To be called once a second: halves while copies are made and it is disturbed. What
    /// disturbs it while none is made is not theirs.
    #[must_use]
    pub fn observe(self, chunks: &[ChunkView], servers: &[ServerView]) -> Pace {
        let permille = if is_disturbed(chunks, servers) {
            self.permille / 2
        } else {
            (self.permille + FASTER_PERMILLE).min(1000)
        };
        Pace { permille }
    }
}

/// Whether half of the servers that hold no chunk being raised answer much slower than usual. Those that do are slow because
/// of the heat, which copies take away.
fn is_disturbed(chunks: &[ChunkView], servers: &[ServerView]) -> bool {
    let raised = |chunk: &&ChunkView| matches!(chunk.under_way, Some(UnderWay::Raise { .. }));
    if !chunks.iter().any(|chunk| raised(&chunk)) {
        return false;
    }
    let holds = |server: &ServerView| {
        chunks.iter().filter(raised).any(|chunk| chunk.replicas.contains(&server.server))
    };
    let known = |server: &&ServerView| server.is_serving() && server.p99_us > 0 && server.usual_p99_us > 0;
    let apart: Vec<&ServerView> = servers.iter().filter(known).filter(|server| !holds(server)).collect();
    let slow = apart
        .iter()
        .filter(|server| u64::from(server.p99_us) * 1000 > u64::from(server.usual_p99_us) * SLOWER_PERMILLE);
    !apart.is_empty() && slow.count() * 2 >= apart.len()
}

/// Of a figure that comes once a second, the median of the last five minutes: of thirty samples, ten seconds apart.
#[derive(Clone, Debug, Default)]
pub struct Usual {
    samples: Vec<u32>,
    next: usize,
    sampled: Option<Micros>,
}

const SAMPLES: usize = 30;
const SAMPLE_MS: u64 = 10_000;

impl Usual {
    #[must_use]
    pub fn observe(mut self, value: u32, now: Micros) -> Usual {
        let early = self.sampled.is_some_and(|at| now.ms_since(at) < SAMPLE_MS);
        // A server without requests has no service time.
        if early || value == 0 {
            return self;
        }
        if self.samples.len() < SAMPLES {
            self.samples.push(value);
        } else if let Some(oldest) = self.samples.get_mut(self.next) {
            *oldest = value;
        }
        self.next = (self.next + 1) % SAMPLES;
        self.sampled = Some(now);
        self
    }

    /// 0 while nothing is known.
    #[must_use]
    pub fn median(&self) -> u32 {
        let mut sorted = self.samples.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::policy::Thresholds;
    use crate::core::policy::tests::{chunk, limits, secs, servers};

    #[test]
    fn a_purse_fills_at_the_rate_and_keeps_ten_seconds() {
        let limits = Limits { budget_bytes_per_s: 20 << 20, floor_bytes_per_s: 0, ..limits(300, 100) };
        let purse = Purse::new(&limits, Pace::default(), secs(0));
        assert_eq!(purse.bytes() >> 20, 199);
        let purse = purse.spend(purse.bytes()).fill(&limits, Pace::default(), secs(3));
        assert_eq!(purse.bytes(), 60 << 20);
        assert_eq!(purse.fill(&limits, Pace::default(), secs(99)).bytes() >> 20, 199);
        let little = Limits { budget_bytes_per_s: 1000, ..limits };
        assert_eq!(Purse::new(&little, Pace::default(), secs(0)).bytes(), 64 << 20, "one chunk");
    }

    #[test]
    fn the_pace_halves_while_others_are_disturbed_and_leaves_a_floor() {
        let mut view = servers(4);
        let mut raised = chunk(1, 1000, &[1, 2]);
        raised.under_way = Some(UnderWay::Raise { to_come: 1 });
        let chunks = [raised];
        for server in &mut view {
            (server.p99_us, server.usual_p99_us) = (1000, 1000);
        }
        let pace = Pace::default();
        view[0].p99_us = 9000;
        view[1].p99_us = 9000;
        assert_eq!(pace.observe(&chunks, &view), pace, "they hold what is raised");
        view[3].p99_us = 1501;
        let mut slow = pace.observe(&chunks, &view);
        assert_eq!(slow.permille(), 500);
        for _ in 0..20 {
            slow = slow.observe(&chunks, &view);
        }
        let limits = Thresholds::default().limits(&view);
        assert_eq!(limits.budget_at(slow), 25_000_000, "a fifth of a link");
        assert_eq!(limits.budget_at(pace), 100_000_000, "a fifth of all");
        assert_eq!(pace.observe(&[chunk(1, 1000, &[1, 2])], &view), pace, "no copy disturbs them");
        view[3].p99_us = 1500;
        assert_eq!(slow.observe(&chunks, &view).permille(), 100);
    }

    #[test]
    fn the_usual_is_a_median() {
        let mut usual = Usual::default();
        assert_eq!(usual.median(), 0);
        for at in 0..400_u32 {
            let value = if at >= 300 { 900 } else { 100 };
            usual = usual.observe(value, secs(u64::from(at)));
        }
        assert_eq!(usual.median(), 100);
        for at in 400..460 {
            usual = usual.observe(900, secs(at)).observe(0, secs(at));
        }
        assert_eq!(usual.median(), 900);
    }
}
