//! Arithmetic on times of day that may lie before 1970 and further away than 64-bit nanoseconds reach.

use dfs_proto::status::Status;
use dfs_proto::units::Timespec;

const NS_PER_S: i128 = 1_000_000_000;

/// Whether the nanoseconds are less than a second: only such times enter the namespace.
pub(crate) fn check_time(time: Timespec) -> Result<(), Status> {
    if time.nsec < 1_000_000_000 { Ok(()) } else { Err(Status::Invalid) }
}

pub(crate) fn to_ns(time: Timespec) -> i128 {
    i128::from(time.sec) * NS_PER_S + i128::from(time.nsec)
}

/// `None` when the seconds do not fit 64 bits.
pub(crate) fn from_ns(ns: i128) -> Option<Timespec> {
    // Nearly every time is within 292 years of 1970, where 64-bit division does.
    if let Ok(near) = i64::try_from(ns) {
        let nsec = u32::try_from(near.rem_euclid(1_000_000_000)).ok()?;
        return Some(Timespec { sec: near.div_euclid(1_000_000_000), nsec });
    }
    let sec = i64::try_from(ns.div_euclid(NS_PER_S)).ok()?;
    let nsec = u32::try_from(ns.rem_euclid(NS_PER_S)).ok()?;
    Some(Timespec { sec, nsec })
}

/// `wanted`, or the nanosecond after `old` if that is later: a changed file never keeps its time. At the
/// end of time it stays.
pub(crate) fn advance(old: Timespec, wanted: Timespec) -> Timespec {
    if wanted > old { wanted } else { from_ns(to_ns(old) + 1).unwrap_or(old) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_back_at_both_ends() {
        for sec in [i64::MIN, -9_223_372_037, -1, 0, 1, 9_223_372_036, i64::MAX] {
            for nsec in [0, 1, 999_999_999] {
                let time = Timespec { sec, nsec };
                assert_eq!(from_ns(to_ns(time)), Some(time));
            }
        }
    }

    #[test]
    fn advancing_is_strict_until_the_end() {
        let old = Timespec { sec: -1, nsec: 999_999_999 };
        assert_eq!(advance(old, Timespec { sec: -5, nsec: 0 }), Timespec { sec: 0, nsec: 0 });
        assert_eq!(advance(old, Timespec { sec: 7, nsec: 1 }), Timespec { sec: 7, nsec: 1 });
        let last = Timespec { sec: i64::MAX, nsec: 999_999_999 };
        assert_eq!(advance(last, old), last);
    }
}
