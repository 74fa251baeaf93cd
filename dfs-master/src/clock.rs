//! The one place of this crate that reads a clock.

use dfs_master::core::Now;
use dfs_proto::units::{Micros, Timespec};
use rustix::time::{ClockId, clock_gettime};

/// The first of the two alone: how long something takes.
pub(crate) fn mono() -> Micros {
    let mono = clock_gettime(ClockId::Boottime);
    Micros(u64::try_from(mono.tv_sec * 1_000_000 + mono.tv_nsec / 1000).unwrap_or(0))
}

/// Both clocks, for one step of the core. CLOCK_BOOTTIME counts while the machine is suspended, so a lease does not
/// outlive a sleep.
pub(crate) fn now() -> Now {
    let wall = clock_gettime(ClockId::Realtime);
    Now { mono: mono(), wall: Timespec { sec: wall.tv_sec, nsec: u32::try_from(wall.tv_nsec).unwrap_or(0) } }
}
