//! Files kept open on mounts, so that what is shared stays shared, by a thread of their own.

use std::fs::File;
use std::path::PathBuf;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use anyhow::{Context, anyhow};

use super::threads;

/// Open files. Dropping it lets go of them without waiting: closing asks the cluster, or ends with the mounts.
#[derive(Debug)]
pub struct Held {
    thread: JoinHandle<()>,
    release: Sender<()>,
}

impl Held {
    /// Opens all of them for both.
    ///
    /// # Errors
    /// When one does not open.
    pub fn open(paths: Vec<PathBuf>) -> anyhow::Result<Held> {
        let (opened, result) = channel();
        let (release, released) = channel::<()>();
        let thread = threads::spawn("holder".to_owned(), move || {
            let open = |path: &PathBuf| {
                let file = File::options().read(true).write(true).open(path);
                file.with_context(|| path.display().to_string())
            };
            let files: anyhow::Result<Vec<File>> = paths.iter().map(open).collect();
            let (files, told) = match files {
                Ok(files) => (files, Ok(())),
                Err(error) => (Vec::new(), Err(error)),
            };
            // Both ends at once when nobody is there any more.
            if opened.send(told).is_ok() {
                released.recv().ok();
            }
            drop(files);
        })?;
        result.recv().map_err(|_| anyhow!("the holder ended"))??;
        Ok(Held { thread, release })
    }

    /// Closes them, and waits for it.
    ///
    /// # Errors
    /// When the thread panicked.
    pub fn close(self) -> anyhow::Result<()> {
        drop(self.release);
        self.thread.join().map_err(|_| anyhow!("the holder panicked"))
    }
}
