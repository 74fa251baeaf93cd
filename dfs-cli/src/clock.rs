//! The one place of this crate that reads a clock: deadlines of commands that wait for processes.

use std::time::{Duration, Instant};

/// How long something takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch {
    began: Instant,
}

impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "this is the crate's clock")]
    pub(crate) fn start() -> Stopwatch {
        Stopwatch { began: Instant::now() }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}

/// A bound on waiting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    until: Instant,
}

impl Deadline {
    /// This long from now.
    #[expect(clippy::disallowed_methods, reason = "this is the crate's clock")]
    pub(crate) fn after(wait: Duration) -> Deadline {
        Deadline { until: Instant::now() + wait }
    }

    /// Whether it has passed.
    #[expect(clippy::disallowed_methods, reason = "this is the crate's clock")]
    pub(crate) fn passed(&self) -> bool {
        Instant::now() >= self.until
    }

    /// Polls `ready` every 10 ms until it gives something or the deadline has passed.
    pub(crate) fn poll<T>(
        &self,
        mut ready: impl FnMut() -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<Option<T>> {
        loop {
            if let Some(found) = ready()? {
                return Ok(Some(found));
            }
            if self.passed() {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
