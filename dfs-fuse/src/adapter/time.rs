//! Times, to and from fuser.
//!
//! fuser 0.18 reads a time before 1970 wrongly when it is set: the kernel's (-5 s, +0.3 s) arrives as 5.3 s
//! before the epoch instead of 4.7 s. The damage loses nothing, since a negative second and its forward
//! nanoseconds come through as the two parts of one duration; [`told`] takes them apart again. What
//! fuser sends to the kernel is right.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dfs_proto::units::Timespec;

/// For a reply. Saturates at what [`SystemTime`] can hold, which on Linux is everything.
pub(crate) fn shown(time: Timespec) -> SystemTime {
    let seconds = Duration::from_secs(time.sec.unsigned_abs());
    let whole = if time.sec < 0 { UNIX_EPOCH.checked_sub(seconds) } else { UNIX_EPOCH.checked_add(seconds) };
    let nanos = Duration::from_nanos(u64::from(time.nsec));
    whole.and_then(|whole| whole.checked_add(nanos)).unwrap_or(UNIX_EPOCH)
}

/// What the kernel said, from what fuser made of it.
pub(crate) fn told(time: SystemTime) -> Timespec {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => {
            Timespec { sec: i64::try_from(after.as_secs()).unwrap_or(i64::MAX), nsec: after.subsec_nanos() }
        }
        Err(before) => {
            let before = before.duration();
            let sec = 0_i64.checked_sub_unsigned(before.as_secs()).unwrap_or(i64::MIN);
            Timespec { sec, nsec: before.subsec_nanos() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(sec: i64, nsec: u32) -> Timespec {
        Timespec { sec, nsec }
    }

    /// As fuser 0.18 converts what the kernel set.
    fn damaged(time: Timespec) -> SystemTime {
        let part = Duration::new(time.sec.unsigned_abs(), time.nsec);
        if time.sec >= 0 { UNIX_EPOCH + part } else { UNIX_EPOCH - part }
    }

    #[test]
    fn what_the_kernel_set_comes_back_whole() {
        for time in [
            at(0, 0),
            at(0, 1),
            at(5, 999_999_999),
            at(-1, 0),
            at(-1, 1),
            at(-5, 300_000_000),
            at(i64::MAX, 0),
        ] {
            assert_eq!(told(damaged(time)), time);
        }
        assert_eq!(told(damaged(at(i64::MIN, 0))), at(i64::MIN, 0));
    }

    #[test]
    fn what_is_shown_is_the_time_itself() {
        assert_eq!(shown(at(7, 5)), UNIX_EPOCH + Duration::new(7, 5));
        assert_eq!(shown(at(-5, 300_000_000)), UNIX_EPOCH - Duration::from_millis(4700));
        assert_eq!(shown(at(-1, 999_999_999)), UNIX_EPOCH - Duration::from_nanos(1));
        assert_eq!(shown(at(i64::MIN, 0)), UNIX_EPOCH - Duration::from_secs(1 << 63));
    }
}
