//! How busy this server is, for heartbeats and for the header of every reply.

mod capacity;
#[cfg(test)]
mod cost;
mod share;
mod waits;

use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dfs_admin::{Count, OpTimes};
use dfs_proto::control::ServerLoad;
use dfs_proto::header::Load;
use dfs_proto::request::Op;
use dfs_proto::units::Micros;

pub(crate) use waits::Waits;

use self::capacity::{Capacity, Period};
use self::share::CopyShare;

/// Requests in flight that make a server look full: more only wait for one another.
const QUEUE_FULL: u64 = 64;
/// Service times are counted by powers of two of microseconds.
const BUCKETS: usize = 32;

/// So many connections whose replies wait at once are a sign that the server can no more; one is a slow reader.
const CROWD: usize = 2;
/// Rates over less than this say little: nothing is learned from them.
const PERIOD_MIN_US: u64 = 200_000;

/// Counted as requests come and go.
#[derive(Debug)]
pub(crate) struct LoadMeter {
    in_flight: AtomicU64,
    requests: AtomicU64,
    bytes_in: AtomicU64,
    /// As sockets took them: what waits for them has not gone out.
    sent: Arc<AtomicU64>,
    times: [AtomicU64; BUCKETS],
    /// Since the process began.
    ops: OpTimes,
    totals: Totals,
    /// Connections whose replies wait for their sockets. Taken when that begins or ends.
    sockets: Mutex<Waits>,
    /// Of the last sample.
    utilisation: AtomicU16,
    /// Bytes a second; 0 while it is not known.
    capacity: AtomicU64,
    share: CopyShare,
    samples: Mutex<Samples>,
}

/// Bytes since the process began, up to the last sample, and of copies up to now.
#[derive(Debug, Default)]
struct Totals {
    bytes_in: Count,
    bytes_out: Count,
    copied: Count,
}

/// Bytes that came, left, and left as parts of copies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moved {
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) copied: u64,
}

/// What goes on from one sample to the next, also over connections to the master.
#[derive(Debug)]
struct Samples {
    last: At,
    capacity: Capacity,
}

/// A sample's moment, and what had gone by then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At {
    pub(crate) now: Micros,
    /// Processor time of this process.
    pub(crate) cpu: Micros,
}

/// What is known elsewhere of the time since the last sample.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Around {
    pub(crate) cores: u64,
    /// Microseconds in which requests waited for a disk: for that of which it was longest, and shortest.
    pub(crate) worst_disk_us: u64,
    pub(crate) best_disk_us: u64,
}

impl LoadMeter {
    /// A meter that begins at `at`, of a server that can so much, or is to learn what it can.
    #[must_use]
    pub(crate) fn new(capacity_bytes_per_s: Option<u64>, at: At) -> LoadMeter {
        LoadMeter {
            in_flight: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            sent: Arc::default(),
            times: [const { AtomicU64::new(0) }; BUCKETS],
            ops: OpTimes::default(),
            totals: Totals::default(),
            sockets: Mutex::new(Waits::of(CROWD)),
            utilisation: AtomicU16::new(0),
            capacity: AtomicU64::new(capacity_bytes_per_s.unwrap_or(0)),
            share: CopyShare::default(),
            samples: Mutex::new(Samples { last: at, capacity: Capacity::new(capacity_bytes_per_s) }),
        }
    }

    /// A connection's replies begin to wait for its socket, or do so no more.
    pub(crate) fn socket_waits(&self, waits: bool, now: impl FnOnce() -> Micros) {
        let mut sockets = lock(&self.sockets);
        if waits { sockets.begin(now) } else { sockets.end(now) }
    }

    /// Where the bytes are counted that leave this server.
    #[must_use]
    pub(crate) fn sent(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.sent)
    }

    /// A request came in.
    pub(crate) fn begin(&self, bytes: usize) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// It was answered, `took` later, with an error or without.
    pub(crate) fn end(&self, op: Op, took: Micros, ok: bool) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.times[bucket(took)].fetch_add(1, Ordering::Relaxed);
        self.ops.answered(op, took.0, ok);
    }

    /// A part of a copy leaves this server.
    pub(crate) fn copy_leaves(&self, now: Micros, bytes: usize) {
        self.share.copies(now);
        self.totals.copied.add(bytes as u64);
    }

    /// How long requests took since the process began.
    pub(crate) fn ops(&self) -> &OpTimes {
        &self.ops
    }

    pub(crate) fn moved(&self) -> Moved {
        // A sample in between moves bytes from one to the other: counted first here, they are never counted twice.
        let waiting = (self.bytes_in.load(Ordering::Relaxed), self.sent.load(Ordering::Relaxed));
        Moved {
            bytes_in: self.totals.bytes_in.get() + waiting.0,
            bytes_out: self.totals.bytes_out.get() + waiting.1,
            copied: self.totals.copied.get(),
        }
    }

    /// Requests that are not answered.
    pub(crate) fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// How busy the server was when last sampled, in permille, and what it can move if that is known.
    pub(crate) fn last_sample(&self) -> (u16, u64) {
        (self.utilisation.load(Ordering::Relaxed), self.capacity.load(Ordering::Relaxed))
    }

    /// How long a reply of so many bytes waits, so that copies get on.
    #[must_use]
    pub(crate) fn reader_waits(&self, now: Micros, bytes: usize) -> Option<Duration> {
        self.share.waits(now, bytes, self.capacity.load(Ordering::Relaxed))
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
    pub(crate) fn sample(&self, at: At, around: Around) -> ServerLoad {
        let mut samples = lock(&self.samples);
        let last = std::mem::replace(&mut samples.last, at);
        let us = at.now.0.saturating_sub(last.now.0).max(1);
        let per_s = |count: u64| count.saturating_mul(1_000_000) / us;
        let take = |count: &AtomicU64| count.swap(0, Ordering::Relaxed);
        let (bytes_in, bytes_out) = (take(&self.bytes_in), take(&self.sent));
        self.totals.bytes_in.add(bytes_in);
        self.totals.bytes_out.add(bytes_out);
        let period = Period {
            bytes_in_per_s: per_s(bytes_in),
            bytes_out_per_s: per_s(bytes_out),
            requests_per_s: per_s(take(&self.requests)),
            sockets_permille: permille(lock(&self.sockets).take(at.now), us),
            disks_permille: permille(around.best_disk_us, us),
        };
        let network = if us < PERIOD_MIN_US { 0 } else { samples.capacity.see(&period) };
        let busy = permille(at.cpu.0.saturating_sub(last.cpu.0), us.saturating_mul(around.cores.max(1)));
        let queue = self.in_flight.load(Ordering::Relaxed);
        let disk = permille(around.worst_disk_us, us);
        let utilisation = busy.max(network).max(disk).max(permille(queue, QUEUE_FULL));
        self.utilisation.store(utilisation, Ordering::Relaxed);
        if !samples.capacity.is_assumed() {
            self.capacity.store(samples.capacity.bytes_per_s(), Ordering::Relaxed);
        }
        let counts: Vec<u64> = self.times.iter().map(|times| times.swap(0, Ordering::Relaxed)).collect();
        ServerLoad {
            utilisation_permille: utilisation,
            queue: u16::try_from(queue).unwrap_or(u16::MAX),
            bytes_in_per_s: period.bytes_in_per_s,
            bytes_out_per_s: period.bytes_out_per_s,
            requests_per_s: period.requests_per_s,
            service_p50_us: percentile(&counts, 50),
            service_p99_us: percentile(&counts, 99),
            capacity_bytes_per_s: samples.capacity.bytes_per_s(),
            capacity_learned: samples.capacity.is_learned(),
            capacity_assumed: samples.capacity.is_assumed(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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

    const SECOND: u64 = 1_000_000;
    const QUIET: Around = Around { cores: 2, worst_disk_us: 0, best_disk_us: 0 };

    fn at(now: u64, cpu: u64) -> At {
        At { now: Micros(now), cpu: Micros(cpu) }
    }

    #[test]
    fn a_sample_is_of_what_happened_since_the_last() {
        let meter = LoadMeter::new(Some(1_000_000), at(0, 0));
        for _ in 0..10 {
            meter.begin(50_000);
            meter.end(Op::Read, Micros(100), true);
        }
        meter.begin(0);
        let load = meter.sample(at(SECOND, 200_000), QUIET);
        assert_eq!((load.bytes_in_per_s, load.requests_per_s, load.queue), (500_000, 11, 1));
        assert_eq!((load.utilisation_permille, load.service_p50_us), (500, 127));
        let idle = meter.sample(at(2 * SECOND, 200_000), QUIET);
        assert_eq!((idle.bytes_in_per_s, idle.requests_per_s, idle.service_p99_us), (0, 0, 0));
    }

    /// Replies of 50 MB a second, of connections that wait from a quarter of a second on.
    fn saturated(meter: &LoadMeter, from: u64, connections: usize) -> ServerLoad {
        for _ in 0..400 {
            meter.begin(0);
            meter.sent().fetch_add(125_000, Ordering::Relaxed);
            meter.end(Op::Read, Micros(100), true);
        }
        (0..connections).for_each(|_| meter.socket_waits(true, || Micros(from + SECOND / 4)));
        let load = meter.sample(at(from + SECOND, 0), QUIET);
        (0..connections).for_each(|_| meter.socket_waits(false, || Micros(from + SECOND)));
        load
    }

    #[test]
    fn connections_that_wait_for_their_sockets_teach_what_the_server_can() {
        let meter = LoadMeter::new(None, at(0, 0));
        let loads: Vec<ServerLoad> = (0..3).map(|s| saturated(&meter, s * SECOND, 2)).collect();
        assert_eq!(loads[0].utilisation_permille, 40);
        assert_eq!((loads[1].utilisation_permille, loads[2].utilisation_permille), (1000, 1000));
        assert_eq!((loads[2].capacity_bytes_per_s, loads[2].capacity_learned), (50_000_000, true));
        let alone = LoadMeter::new(None, at(0, 0));
        let loads: Vec<ServerLoad> = (0..9).map(|s| saturated(&alone, s * SECOND, 1)).collect();
        assert_eq!((loads[8].utilisation_permille, loads[8].capacity_learned), (40, false));
    }

    #[test]
    fn a_moment_teaches_nothing() {
        let meter = LoadMeter::new(None, at(0, 0));
        saturated(&meter, 0, 2);
        meter.sent().fetch_add(1_000_000, Ordering::Relaxed);
        let load = meter.sample(at(SECOND + 1000, 0), QUIET);
        assert_eq!((load.bytes_out_per_s, load.utilisation_permille), (1_000_000_000, 0));
    }

    #[test]
    fn a_disk_that_requests_wait_for_is_busy() {
        let meter = LoadMeter::new(None, at(0, 0));
        let disk = Around { worst_disk_us: 700_000, ..QUIET };
        assert_eq!(meter.sample(at(SECOND, 0), disk).utilisation_permille, 700);
    }
}
