//! What is measured with: bytes allocated, and times of steps. It knows nothing of the master.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Counts the bytes that are allocated now, and the most that ever were since [`reset_peak`].
struct Counting;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = ALLOCATED.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps `dealloc`'s contract.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let now = ALLOCATED.fetch_add(size, Ordering::Relaxed).wrapping_add(size).wrapping_sub(layout.size());
        ALLOCATED.fetch_sub(layout.size(), Ordering::Relaxed);
        PEAK.fetch_max(now, Ordering::Relaxed);
        // SAFETY: the caller keeps `realloc`'s contract.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes allocated now.
pub(crate) fn allocated() -> usize {
    ALLOCATED.load(Ordering::Relaxed)
}

/// The most bytes allocated at once since [`reset_peak`].
pub(crate) fn peak() -> usize {
    PEAK.load(Ordering::Relaxed)
}

/// As the kernel counts.
const PAGE: usize = 4096;

/// Bytes of memory that the process has from the kernel, the allocator's own needs included.
pub(crate) fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0_usize);
    pages * PAGE
}

pub(crate) fn reset_peak() {
    PEAK.store(allocated(), Ordering::Relaxed);
}

/// Times of single steps.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    nanos: Vec<u64>,
}

impl Samples {
    pub(crate) fn add(&mut self, took: Duration) {
        self.nanos.push(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(crate) fn count(&self) -> usize {
        self.nanos.len()
    }

    /// The time that all but `one_in` of the steps stay below, and the longest, in milliseconds.
    pub(crate) fn tail(&mut self, one_in: usize) -> (f64, f64) {
        self.nanos.sort_unstable();
        let at = self.nanos.len() - 1 - self.nanos.len() / one_in;
        let ms =
            |nanos: Option<&u64>| nanos.map_or(0.0, |nanos| Duration::from_nanos(*nanos).as_secs_f64() * 1e3);
        (ms(self.nanos.get(at)), ms(self.nanos.last()))
    }
}

/// What requests of one kind took in all.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    requests: u32,
    /// In the core: the request's step and those that its record needed.
    core: Duration,
    /// Writing the record to the log's file.
    log: Duration,
}

impl Cost {
    pub(crate) fn add(&mut self, core: Duration, log: Duration) {
        self.requests += 1;
        self.core += core;
        self.log += log;
    }

    /// Microseconds a request: in the core, in the log.
    pub(crate) fn each(&self) -> (f64, f64) {
        let n = self.requests.max(1);
        ((self.core / n).as_nanos() as f64 / 1e3, (self.log / n).as_nanos() as f64 / 1e3)
    }
}
