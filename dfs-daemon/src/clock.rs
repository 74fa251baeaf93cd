//! The only place of this crate that reads a clock.

use std::time::Instant;

/// Now, on a clock that never goes back.
#[allow(clippy::disallowed_methods)]
pub(crate) fn now() -> Instant {
    Instant::now()
}
