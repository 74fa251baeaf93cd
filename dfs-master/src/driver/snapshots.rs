//! Snapshots on a thread of their own, and then the log's segments that nobody needs any more.

use std::sync::Arc;

use dfs_master::core::Input;
use dfs_master::core::image::StateImage;
use dfs_master::log::{EntryId, SnapshotError, SnapshotStore};
use dfs_proto::ids::{LogIndex, Term};

use crate::clock;
use crate::driver::{Driver, Inner};

impl Driver {
    pub(super) fn start_snapshot(
        self: &Arc<Driver>,
        inner: &mut Inner,
        index: LogIndex,
        term: Term,
        image: StateImage,
    ) {
        if inner.snapshot_running {
            inner.inputs.push_back(Input::SnapshotFailed { index });
            return;
        }
        inner.snapshot_running = true;
        let driver = Arc::clone(self);
        let thread = std::thread::Builder::new().name("snapshot".into()).spawn(move || {
            let began = clock::mono();
            let written = driver.write_snapshot(EntryId { index, term }, &image);
            if written.is_ok() {
                driver.stats.snapshot_written(began, clock::mono());
            }
            // The image's pages go before the core is told: they cost memory while they are shared.
            drop(image);
            let mut inner = driver.lock();
            inner.snapshot_running = false;
            let input = match written {
                Ok(()) => Input::SnapshotDone { index, term },
                Err(error) => {
                    log::error!("snapshot at {index}: {error}; the log is kept and grows");
                    Input::SnapshotFailed { index }
                }
            };
            inner.inputs.push_back(input);
            driver.drive(&mut inner);
        });
        if let Err(error) = thread {
            log::error!("snapshot at {index}: no thread: {error}");
            inner.snapshot_running = false;
            inner.inputs.push_back(Input::SnapshotFailed { index });
        }
    }

    fn write_snapshot(&self, id: EntryId, image: &StateImage) -> Result<(), SnapshotError> {
        let store = SnapshotStore::new(self.disk.clone(), &self.identity);
        let mut writer = store.begin(id, image.conf(), image.sections())?;
        image.write(&mut |section, block| writer.block(section, block))?;
        writer.finish()?;
        // The log must reach the disk up to the snapshot before the older snapshot's log may go.
        if let Some(older) = store.prune(id.index)? {
            let prune = self.lock().log.prune(older);
            match prune.run() {
                Ok(0) => {}
                Ok(segments) => log::info!("snapshot at {}; {segments} log segments removed", id.index),
                Err(error) => log::warn!("old log segments: {error}; they are tried again later"),
            }
        }
        Ok(())
    }
}
