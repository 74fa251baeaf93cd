//! The one place of this crate that reads a clock: tests measure, and give up after a bound.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// How often a condition is looked at again. Processes take a hundred times as long to change.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Time since some start.
#[must_use]
pub fn now() -> Duration {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Looks until `ready` gives something; `None` when it did not within `limit`.
///
/// # Errors
/// The first one of `ready`.
pub fn poll<T>(
    limit: Duration,
    mut ready: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<Option<T>> {
    let until = now() + limit;
    loop {
        if let Some(found) = ready()? {
            return Ok(Some(found));
        }
        if now() >= until {
            return Ok(None);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
