//! Space: what a disk still takes. Writes stop when the free space is down to a reserve that only
//! headers, repair and the filesystem itself may use.

use std::sync::atomic::{AtomicU64, Ordering};

use dfs_disk::{Disk, Space};

use super::error::StoreError;

/// The reserve is this part of the disk: 5 %, the design's refusal at 95 %.
const RESERVE_DIVISOR: u64 = 20;
/// How much may be written before the filesystem is asked again. A disk that others fill meanwhile is
/// noticed this late; 256 MiB is 0.1 % of a small disk's reserve of 5 %.
const UNASKED_MAX: u64 = 256 << 20;

/// How much may be written before the filesystem has to be asked again.
#[derive(Debug, Default)]
pub(super) struct Room(AtomicU64);

pub(crate) fn reserve_of(space: Space) -> u64 {
    space.total / RESERVE_DIVISOR
}

impl Room {
    /// Counts `bytes` as about to be written, or refuses.
    pub(super) fn take<D: Disk>(&self, disk: &D, bytes: u64) -> Result<(), StoreError> {
        if bytes == 0 {
            return Ok(());
        }
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes));
        if taken.is_ok() {
            return Ok(());
        }
        let space = disk.space().map_err(StoreError::io("ask for free space"))?;
        let above = space.free.saturating_sub(reserve_of(space));
        if above < bytes {
            return Err(StoreError::NoSpace);
        }
        // An eighth, so that a disk that gets full is asked ever more often.
        self.0.store((above / 8).min(UNASKED_MAX).saturating_sub(bytes), Ordering::Relaxed);
        Ok(())
    }
}
