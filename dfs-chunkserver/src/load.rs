//! How busy this server is, for heartbeats and for the header of every reply.

use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use dfs_proto::control::ServerLoad;
use dfs_proto::header::Load;
use dfs_proto::units::Micros;

/// Requests in flight that make a server look full: more only wait for one another.
const QUEUE_FULL: u64 = 64;
/// Service times are counted by powers of two of microseconds.
const BUCKETS: usize = 32;

/// Counted as requests come and go.
#[derive(Debug)]
pub(crate) struct LoadMeter {
    capacity_bytes_per_s: u64,
    in_flight: AtomicU64,
    requests: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    times: [AtomicU64; BUCKETS],
    /// Of the last sample.
    utilisation: AtomicU16,
}

/// Where the last sample was taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    at: Micros,
    cpu: Micros,
}

impl Sample {
    /// The first.
    #[must_use]
    pub(crate) fn start(at: Micros, cpu: Micros) -> Sample {
        Sample { at, cpu }
    }
}

impl LoadMeter {
    /// A meter of a server whose network takes so much.
    #[must_use]
    pub(crate) fn new(capacity_bytes_per_s: u64) -> LoadMeter {
        LoadMeter {
            capacity_bytes_per_s: capacity_bytes_per_s.max(1),
            in_flight: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            times: [const { AtomicU64::new(0) }; BUCKETS],
            utilisation: AtomicU16::new(0),
        }
    }

    /// A request came in.
    pub(crate) fn begin(&self, bytes: usize) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// It was answered, `took` later.
    pub(crate) fn end(&self, bytes: usize, took: Micros) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
        self.times[bucket(took)].fetch_add(1, Ordering::Relaxed);
    }

    /// What a reply's header says.
    #[must_use]
    pub(crate) fn header(&self) -> Load {
        let queue = self.in_flight.load(Ordering::Relaxed);
        let queued = permille(queue, QUEUE_FULL);
        Load {
            utilisation: self.utilisation.load(Ordering::Relaxed).max(queued),
            queue: u16::try_from(queue).unwrap_or(u16::MAX),
        }
    }

    /// What happened since the last sample.
    pub(crate) fn sample(&self, last: &mut Sample, now: Micros, cpu: Micros, cores: u64) -> ServerLoad {
        let us = now.0.saturating_sub(last.at.0).max(1);
        let per_s = |count: u64| count.saturating_mul(1_000_000) / us;
        let (bytes_in, bytes_out) = (
            per_s(self.bytes_in.swap(0, Ordering::Relaxed)),
            per_s(self.bytes_out.swap(0, Ordering::Relaxed)),
        );
        let busy = permille(cpu.0.saturating_sub(last.cpu.0), us.saturating_mul(cores.max(1)));
        let network = permille(bytes_in.max(bytes_out), self.capacity_bytes_per_s);
        let queue = self.in_flight.load(Ordering::Relaxed);
        let utilisation = busy.max(network).max(permille(queue, QUEUE_FULL));
        self.utilisation.store(utilisation, Ordering::Relaxed);
        *last = Sample { at: now, cpu };
        let counts: Vec<u64> = self.times.iter().map(|times| times.swap(0, Ordering::Relaxed)).collect();
        ServerLoad {
            utilisation_permille: utilisation,
            queue: u16::try_from(queue).unwrap_or(u16::MAX),
            bytes_in_per_s: bytes_in,
            bytes_out_per_s: bytes_out,
            requests_per_s: per_s(self.requests.swap(0, Ordering::Relaxed)),
            service_p50_us: percentile(&counts, 50),
            service_p99_us: percentile(&counts, 99),
            capacity_bytes_per_s: self.capacity_bytes_per_s,
        }
    }
}

fn permille(part: u64, whole: u64) -> u16 {
    u16::try_from(part.saturating_mul(1000) / whole.max(1)).unwrap_or(u16::MAX).min(1000)
}

fn bucket(took: Micros) -> usize {
    usize::try_from(u64::BITS - took.0.leading_zeros()).unwrap_or(0).min(BUCKETS - 1)
}

/// The upper edge of the bucket that holds the percentile.
fn percentile(counts: &[u64], percent: u64) -> u32 {
    let wanted = (counts.iter().sum::<u64>() * percent).div_ceil(100);
    let mut seen = 0;
    for (at, count) in counts.iter().enumerate() {
        seen += count;
        if wanted > 0 && seen >= wanted {
            return u32::try_from((1u64 << at) - 1).unwrap_or(u32::MAX);
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_of_what_happened_since_the_last() {
        let meter = LoadMeter::new(1_000_000);
        let mut last = Sample::start(Micros(0), Micros(0));
        for _ in 0..10 {
            meter.begin(50_000);
            meter.end(0, Micros(100));
        }
        meter.begin(0);
        let load = meter.sample(&mut last, Micros(1_000_000), Micros(200_000), 2);
        assert_eq!((load.bytes_in_per_s, load.requests_per_s, load.queue), (500_000, 11, 1));
        assert_eq!((load.utilisation_permille, load.service_p50_us), (500, 127));
        let idle = meter.sample(&mut last, Micros(2_000_000), Micros(200_000), 2);
        assert_eq!((idle.bytes_in_per_s, idle.requests_per_s, idle.service_p99_us), (0, 0, 0));
    }
}
