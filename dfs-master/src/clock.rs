//! The one place of this crate that reads a clock.

use dfs_master::core::Now;
use dfs_proto::units::{Micros, Timespec};
use rustix::time::{ClockId, clock_gettime};

/// Both clocks, for one step of the core. CLOCK_BOOTTIME counts while the machine is suspended, so a lease does not
/// outlive a sleep.
pub(crate) fn now() -> Now {
    let mono = clock_gettime(ClockId::Boottime);
    let wall = clock_gettime(ClockId::Realtime);
    let micros = |sec: i64, nsec: i64| u64::try_from(sec * 1_000_000 + nsec / 1000).unwrap_or(0);
    Now {
        mono: Micros(micros(mono.tv_sec, mono.tv_nsec)),
        wall: Timespec { sec: wall.tv_sec, nsec: u32::try_from(wall.tv_nsec).unwrap_or(0) },
    }
}
