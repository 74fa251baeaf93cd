//! The sync thread: one fdatasync at a time, while the next batch gathers (group commit), and the spare
//! segment made ahead.

use std::sync::Arc;
use std::time::Duration;

use dfs_master::log::{LogWriter, SyncHandle};

use crate::clock;
use crate::driver::{Driver, Inner};

/// How long an answer given after write(2) may run ahead of the disk (`interval`).
const INTERVAL: Duration = Duration::from_millis(10);

/// What the sync thread is wanted for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Want {
    Nothing,
    /// Within [`INTERVAL`].
    Soon,
    /// Somebody waits.
    Now,
}

impl Driver {
    pub(super) fn want(&self, inner: &mut Inner, want: Want) {
        if want > inner.sync {
            inner.sync = want;
            self.dirty.notify_one();
        }
    }

    /// Starts the thread. It ends when the driver stops or fails.
    pub(crate) fn start_sync(self: &Arc<Driver>) -> std::io::Result<std::thread::JoinHandle<()>> {
        let driver = Arc::clone(self);
        std::thread::Builder::new().name("log-sync".into()).spawn(move || driver.sync_loop())
    }

    fn sync_loop(self: Arc<Driver>) {
        loop {
            let Some(handle) = self.wait_for_work() else { return };
            let began = clock::mono();
            match handle.run() {
                Ok(synced) => {
                    self.stats.log_syncs.took_us(clock::mono().0.saturating_sub(began.0));
                    let mut inner = self.lock();
                    let position = inner.log.synced(synced);
                    self.durable(&mut inner, position.record, position.entry.index);
                }
                Err(error) => {
                    let mut inner = self.lock();
                    self.fail(&mut inner, &format!("cannot sync the log: {error}; replace the disk"));
                    return;
                }
            }
            self.make_spare();
        }
    }

    fn wait_for_work(&self) -> Option<SyncHandle<dfs_disk::real::RealDisk>> {
        let mut inner = self.lock();
        loop {
            if inner.failed.is_some() {
                return None;
            }
            match inner.sync {
                Want::Now => break,
                Want::Soon => {
                    let waited = self.dirty.wait_timeout(inner, INTERVAL);
                    let (woken, timeout) = waited.unwrap_or_else(std::sync::PoisonError::into_inner);
                    inner = woken;
                    if timeout.timed_out() {
                        break;
                    }
                }
                Want::Nothing if inner.stopping => return None,
                Want::Nothing => {
                    inner = self.dirty.wait(inner).unwrap_or_else(std::sync::PoisonError::into_inner);
                }
            }
        }
        inner.sync = Want::Nothing;
        Some(inner.log.begin_sync())
    }

    /// Makes the next segment's file when there is none ready, outside the lock.
    fn make_spare(&self) {
        let plan = self.lock().log.wants_spare();
        if let Some(plan) = plan {
            match plan.run() {
                Ok(spare) => LogWriter::give_spare(&mut self.lock().log, spare),
                // An append tries once more when it needs it, and then says so.
                Err(error) => log::warn!("no room for the next log segment: {error}"),
            }
        }
    }

    /// Syncs what is written and ends the sync thread; nothing is served afterwards.
    pub(crate) fn stop(&self) {
        let mut inner = self.lock();
        inner.stopping = true;
        inner.sync = Want::Now;
        self.dirty.notify_all();
        for conn in inner.conns.values() {
            conn.close();
        }
    }
}
