//! The only place where this crate reads a clock.

use dfs_proto::units::Micros;
use rustix::time::{ClockId, Timespec, clock_gettime};

/// Time since the kernel started, pauses of the machine included: what leases are counted in.
#[must_use]
pub(crate) fn now() -> Micros {
    micros(clock_gettime(ClockId::Boottime))
}

/// Processor time that this process has used.
#[must_use]
pub(crate) fn cpu() -> Micros {
    micros(clock_gettime(ClockId::ProcessCPUTime))
}

/// Wall-clock seconds since 1970; only says when trash is old.
#[must_use]
pub(crate) fn wall_s() -> u64 {
    micros(clock_gettime(ClockId::Realtime)).0 / 1_000_000
}

fn micros(time: Timespec) -> Micros {
    let (sec, nsec) = (u64::try_from(time.tv_sec).unwrap_or(0), u64::try_from(time.tv_nsec).unwrap_or(0));
    Micros(sec.saturating_mul(1_000_000).saturating_add(nsec / 1000))
}
