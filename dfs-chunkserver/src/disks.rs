//! The server's disks: each with a few threads and a bounded queue of its own, so that one that hangs stops
//! nothing else. Short operations may run on the caller's thread instead, while the disk proves to be quick:
//! a hand-over costs more than a write to the page cache.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use dfs_admin::{Count, Histogram};
use dfs_disk::real::RealDisk;
use dfs_proto::ids::{ChunkId, OsBootId};
use dfs_proto::units::Micros;

use crate::clock;
use crate::core::io::{DiskDone, DiskFault, DiskOp};
use crate::exec::{Context, execute};
use crate::load::Waits;
use crate::store::{ReadBlocks, ReadMode, Store, StoreError, StoreSpace};

/// Most operations that wait for one disk: as many requests as one connection may have in flight.
const QUEUE_MAX: usize = 1024;
/// A disk that takes longer on average has no write done on a caller's thread: two thread switches cost a
/// twentieth of it.
const QUICK_US: u64 = 1_000;
/// Weight of the newest measurement, one part in so many.
const EWMA_PARTS: u64 = 8;

/// Something to do on a disk's thread.
type Job = Box<dyn FnOnce() + Send>;

/// One disk.
pub(crate) struct DiskHandle {
    pub(crate) store: Arc<Store<RealDisk>>,
    pub(crate) path: PathBuf,
    os_boot: OsBootId,
    queue: Arc<Queue>,
    /// An operation runs on a caller's thread: no second one does.
    inline_busy: AtomicBool,
    /// The core was told that the disk is read-only.
    told_read_only: AtomicBool,
    /// Files are being synced to be closed.
    tidying: Arc<AtomicBool>,
    /// Syncs under way: writes may wait for them.
    syncs: AtomicU32,
    /// What a write takes, decaying average.
    write_us: AtomicU64,
    pub(crate) times: Times,
    /// As last measured, or why it could not be.
    space: Mutex<Result<StoreSpace, String>>,
}

/// How long the disk takes, since the process began.
#[derive(Debug, Default)]
pub(crate) struct Times {
    /// Reads that were not in the page cache.
    pub(crate) reads: Histogram,
    pub(crate) writes: Histogram,
    /// Operations that end with a sync.
    pub(crate) syncs: Histogram,
    /// Operations that the disk failed.
    pub(crate) errors: Count,
}

/// What became of a try to do an operation at once.
pub(crate) enum Inline {
    Done(DiskDone),
    NotNow(DiskOp),
}

struct Queue {
    threads: usize,
    jobs: Mutex<Jobs>,
    wake: Condvar,
}

struct Jobs {
    waiting: VecDeque<Job>,
    /// For when nothing else waits or runs.
    idle: VecDeque<Job>,
    running: usize,
    /// Jobs that wait because all threads are busy.
    crowd: Waits,
    /// Threads end when nothing waits any more.
    closed: bool,
}

impl DiskHandle {
    /// Starts the disk's threads. They may use what the runtime's handle gives.
    pub(crate) fn start(
        store: Arc<Store<RealDisk>>,
        path: PathBuf,
        os_boot: OsBootId,
        threads: usize,
        runtime: &tokio::runtime::Handle,
    ) -> std::io::Result<DiskHandle> {
        let queue = Arc::new(Queue::new(threads));
        for _ in 0..threads {
            let (queue, runtime) = (Arc::clone(&queue), runtime.clone());
            std::thread::Builder::new().name("disk".to_owned()).spawn(move || {
                let _entered = runtime.enter();
                queue.work();
            })?;
        }
        Ok(DiskHandle {
            store,
            path,
            os_boot,
            queue,
            inline_busy: AtomicBool::new(false),
            told_read_only: AtomicBool::new(false),
            tidying: Arc::default(),
            syncs: AtomicU32::new(0),
            write_us: AtomicU64::new(0),
            times: Times::default(),
            space: Mutex::new(Ok(StoreSpace::default())),
        })
    }

    /// Does the operation here and now if that is quick; else gives it back.
    pub(crate) fn try_inline(&self, op: DiskOp) -> Inline {
        let quick = matches!(op, DiskOp::Write { .. })
            && self.write_us.load(Ordering::Relaxed) < QUICK_US
            && self.syncs.load(Ordering::Relaxed) == 0;
        if !quick || self.inline_busy.swap(true, Ordering::Acquire) {
            return Inline::NotNow(op);
        }
        let done = self.run(&op);
        self.inline_busy.store(false, Ordering::Release);
        Inline::Done(done)
    }

    /// Does the operation on one of the disk's threads; `then` is told there.
    pub(crate) fn submit(self: &Arc<Self>, op: DiskOp, then: impl FnOnce(DiskDone) + Send + 'static) {
        let disk = Arc::clone(self);
        let is_sync = ends_with_sync(&op);
        self.queue.push(
            Box::new(move || {
                if is_sync {
                    disk.syncs.fetch_add(1, Ordering::Relaxed);
                }
                let done = disk.run(&op);
                if is_sync {
                    disk.syncs.fetch_sub(1, Ordering::Relaxed);
                }
                then(done);
            }),
            Bound::Exempt,
        );
    }

    /// Does the operation on one of the disk's threads once nothing else waits for the disk, and nothing runs.
    pub(crate) fn submit_idle(self: &Arc<Self>, op: DiskOp, then: impl FnOnce(DiskDone) + Send + 'static) {
        let disk = Arc::clone(self);
        self.queue.jobs().idle.push_back(Box::new(move || then(disk.run(&op))));
        self.queue.wake.notify_one();
    }

    /// Does something else on one of the disk's threads. False, and nothing done, when too much waits.
    #[must_use]
    pub(crate) fn try_submit(&self, job: impl FnOnce() + Send + 'static) -> bool {
        self.queue.push(Box::new(job), Bound::Kept)
    }

    fn run(&self, op: &DiskOp) -> DiskDone {
        let context = Context { os_boot: self.os_boot, now_s: clock::wall_s() };
        if !matches!(op, DiskOp::Write { .. }) {
            let began = ends_with_sync(op).then(clock::now);
            let done = execute(&self.store, context, op);
            if let Some(began) = began {
                self.times.syncs.took_us(clock::now().0.saturating_sub(began.0));
            }
            self.count_error(&done);
            return done;
        }
        let began = clock::now();
        let done = execute(&self.store, context, op);
        self.measured(clock::now(), began);
        self.tidy_soon();
        self.count_error(&done);
        if done == DiskDone::Failed(DiskFault::Io) {
            log::error!("disk {}: a write failed", self.path.display());
        }
        done
    }

    fn count_error(&self, done: &DiskDone) {
        if matches!(done, DiskDone::Failed(DiskFault::Io)) {
            self.times.errors.add(1);
        }
    }

    /// Reads what is not in the page cache: waits for the disk.
    pub(crate) fn read(&self, chunk: ChunkId, offset: u32, len: u32) -> Result<ReadBlocks, StoreError> {
        let began = clock::now();
        let blocks = self.store.read(chunk, offset, len, ReadMode::MayBlock);
        self.times.reads.took_us(clock::now().0.saturating_sub(began.0));
        if matches!(blocks, Err(StoreError::Io { .. })) {
            self.times.errors.add(1);
        }
        blocks
    }

    /// True once, when a sync of the disk has failed.
    #[must_use]
    pub(crate) fn turned_read_only(&self) -> bool {
        self.store.suspect() && !self.told_read_only.swap(true, Ordering::Relaxed)
    }

    /// Has one of the disk's threads sync and close files when too many are open.
    fn tidy_soon(&self) {
        if !self.store.wants_tidying() || self.tidying.swap(true, Ordering::Acquire) {
            return;
        }
        let (store, tidying) = (Arc::clone(&self.store), Arc::clone(&self.tidying));
        let job = move || {
            store.tidy();
            tidying.store(false, Ordering::Release);
        };
        self.queue.push(Box::new(job), Bound::Exempt);
    }

    fn measured(&self, now: Micros, began: Micros) {
        let took = now.0.saturating_sub(began.0);
        self.times.writes.took_us(took);
        let old = self.write_us.load(Ordering::Relaxed);
        // Two threads that measure at once lose one of the two: it is an average.
        self.write_us.store((old * (EWMA_PARTS - 1) + took) / EWMA_PARTS, Ordering::Relaxed);
    }

    /// Asks the disk for its space. May wait for it.
    pub(crate) fn measure(&self) -> Result<StoreSpace, String> {
        let space = self.store.space().map_err(|error| error.to_string());
        self.space.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&space);
        space
    }

    /// What [`DiskHandle::measure`] last found.
    pub(crate) fn last_space(&self) -> Result<StoreSpace, String> {
        self.space.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether nothing runs and nothing waits.
    #[must_use]
    pub(crate) fn is_idle(&self) -> bool {
        let jobs = self.queue.jobs();
        jobs.running == 0 && jobs.waiting.is_empty() && !self.inline_busy.load(Ordering::Relaxed)
    }

    /// Microseconds since this was last asked in which something waited because all threads were busy.
    pub(crate) fn take_waited(&self, now: Micros) -> u64 {
        self.queue.jobs().crowd.take(now)
    }

    /// Lets the threads end once they have done what waits.
    pub(crate) fn close(&self) {
        self.queue.jobs().closed = true;
        self.queue.wake.notify_all();
    }
}

/// Whether it waits for the disk to have all of it.
fn ends_with_sync(op: &DiskOp) -> bool {
    matches!(op, DiskOp::Sync { .. } | DiskOp::Zero { .. } | DiskOp::Fence { .. } | DiskOp::Close { .. })
}

/// Whether a full queue refuses.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bound {
    Kept,
    /// The core's operations: their number is bounded by the requests in flight.
    Exempt,
}

impl Queue {
    fn new(threads: usize) -> Queue {
        let jobs = Jobs {
            waiting: VecDeque::new(),
            idle: VecDeque::new(),
            running: 0,
            crowd: Waits::of(1),
            closed: false,
        };
        Queue { threads, jobs: Mutex::new(jobs), wake: Condvar::new() }
    }

    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, job: Job, bound: Bound) -> bool {
        let mut jobs = self.jobs();
        if bound == Bound::Kept && jobs.waiting.len() >= QUEUE_MAX {
            return false;
        }
        jobs.waiting.push_back(job);
        jobs.count_crowd(self.threads);
        drop(jobs);
        self.wake.notify_one();
        true
    }

    fn work(&self) {
        let mut jobs = self.jobs();
        loop {
            if let Some(job) = jobs.next() {
                jobs.running += 1;
                jobs.count_crowd(self.threads);
                drop(jobs);
                job();
                jobs = self.jobs();
                // What waits now goes on at once: the crowd is counted when the next job has left the queue.
                jobs.running -= 1;
            } else if jobs.closed {
                return;
            } else {
                jobs = self.wake.wait(jobs).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

impl Jobs {
    fn count_crowd(&mut self, threads: usize) {
        let crowd = if self.running < threads { 0 } else { self.waiting.len() };
        self.crowd.set(crowd, clock::now);
    }

    /// What a thread does next. Whoever ends the last job that runs comes here again, so an idle job is not missed.
    fn next(&mut self) -> Option<Job> {
        let waiting = self.waiting.pop_front();
        if waiting.is_none() && self.running == 0 && !self.closed { self.idle.pop_front() } else { waiting }
    }
}

impl std::fmt::Debug for DiskHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DiskHandle").field("path", &self.path).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn what_waits_because_all_threads_are_busy_is_a_crowd() {
        let queue = Arc::new(Queue::new(1));
        let (go, wait) = channel::<()>();
        let (running, runs) = channel::<()>();
        let began = clock::now();
        let job = move || {
            running.send(()).unwrap();
            wait.recv().unwrap();
        };
        assert!(queue.push(Box::new(job), Bound::Kept));
        let worker = Arc::clone(&queue);
        let thread = std::thread::spawn(move || worker.work());
        runs.recv().unwrap();
        assert_eq!(queue.jobs().crowd.take(clock::now()), 0, "one that runs does not wait");
        let (last, ended) = channel::<()>();
        assert!(queue.push(Box::new(move || last.send(()).unwrap()), Bound::Kept));
        std::thread::sleep(std::time::Duration::from_millis(20));
        go.send(()).unwrap();
        ended.recv().unwrap();
        let waited = queue.jobs().crowd.take(clock::now());
        let in_all = clock::now().0 - began.0;
        assert!((20_000..=in_all).contains(&waited), "{waited} us of {in_all}");
        std::thread::sleep(std::time::Duration::from_millis(5));
        assert_eq!(queue.jobs().crowd.take(clock::now()), 0);
        queue.jobs().closed = true;
        queue.wake.notify_all();
        thread.join().unwrap();
    }
}
