//! What to fetch next, from what is here and what the master lists. No I/O.
//!
//! The order keeps the copy usable at every moment: a log that goes on from what is here comes first, piece by piece; one
//! that does not (a new copy, or one that was left behind) only after the newest snapshot, which it goes on from; other
//! snapshots when the log is here.

use std::collections::BTreeMap;

use dfs_proto::control::{LOG_READ_MAX, LogFile, LogListing};
use dfs_proto::ids::LogIndex;

/// What a copy holds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Held {
    /// Bytes of each segment, by its first record.
    pub(super) segments: BTreeMap<u64, u64>,
    /// Bytes of each whole snapshot.
    pub(super) snapshots: BTreeMap<LogIndex, u64>,
    /// A snapshot that is being fetched, and how much of it is here.
    pub(super) arriving: Option<(LogIndex, u64)>,
    /// The end of the log here was compared with the master's since the files were opened. Before, a power cut may have
    /// left zeros there.
    pub(super) compared: bool,
}

/// The next thing to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Plan {
    /// All of the log is here.
    pub(super) log_is_here: bool,
    pub(super) step: Step,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Step {
    Fetch(Fetch),
    /// All of it is here.
    Whole,
    /// The copy is of another log.
    Differs(String),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Fetch {
    pub(super) file: LogFile,
    pub(super) offset: u64,
    pub(super) len: u32,
    /// The file's length, as listed.
    pub(super) whole: u64,
}

impl Held {
    pub(super) fn plan(&self, listing: &LogListing) -> Plan {
        if let Some(why) = self.differs(listing) {
            return Plan { log_is_here: false, step: Step::Differs(why) };
        }
        if self.needs_snapshot_first(listing)
            && let Some(fetch) = self.snapshot(listing)
        {
            return Plan { log_is_here: false, step: Step::Fetch(fetch) };
        }
        if let Some(fetch) = self.segment(listing) {
            return Plan { log_is_here: false, step: Step::Fetch(fetch) };
        }
        let step = self.snapshot(listing).map_or(Step::Whole, Step::Fetch);
        Plan { log_is_here: true, step }
    }

    /// Something here that the master's log cannot have lost.
    fn differs(&self, listing: &LogListing) -> Option<String> {
        let oldest = listing.segments.first().map_or(0, |segment| segment.first);
        for (first, len) in self.segments.range(oldest..) {
            match listing.segments.iter().find(|segment| segment.first == *first) {
                Some(segment) if segment.len >= *len => {}
                Some(segment) => {
                    let short = len - segment.len;
                    return Some(format!("segment {first:016x} is {short} bytes shorter at the master"));
                }
                None => return Some(format!("segment {first:016x} is not at the master")),
            }
        }
        let newest = listing.snapshots.last().map(|snapshot| snapshot.index).unwrap_or_default();
        let (index, len) = self.snapshots.last_key_value()?;
        let other =
            |snapshot: &dfs_proto::control::ListedSnapshot| snapshot.index == *index && snapshot.len != *len;
        (*index > newest || listing.snapshots.iter().any(other))
            .then(|| format!("the snapshot at {index} is not at the master"))
    }

    fn needs_snapshot_first(&self, listing: &LogListing) -> bool {
        let goes_on = self
            .segments
            .last_key_value()
            .is_some_and(|(last, _)| listing.segments.iter().any(|segment| segment.first == *last));
        !goes_on && !listing.snapshots.iter().any(|snapshot| self.snapshots.contains_key(&snapshot.index))
    }

    /// The newest snapshot that is not here.
    fn snapshot(&self, listing: &LogListing) -> Option<Fetch> {
        let missing = listing.snapshots.iter().rev().find(|s| !self.snapshots.contains_key(&s.index))?;
        let offset = self.arriving.filter(|(index, _)| *index == missing.index).map_or(0, |(_, at)| at);
        Some(fetch(LogFile::Snapshot(missing.index), offset, missing.len))
    }

    /// The first piece of the log that is not here, or the end of what is here, to be compared.
    fn segment(&self, listing: &LogListing) -> Option<Fetch> {
        if !self.compared
            && let Some((first, here)) = self.segments.last_key_value()
            && let Some(segment) = listing.segments.iter().find(|segment| segment.first == *first)
        {
            let offset = here.saturating_sub(u64::from(LOG_READ_MAX));
            return Some(fetch(LogFile::Segment(*first), offset, segment.len));
        }
        let here = |first| self.segments.get(first).copied();
        let lacks = listing
            .segments
            .iter()
            .find(|segment| here(&segment.first).is_none_or(|len| len < segment.len))?;
        Some(fetch(LogFile::Segment(lacks.first), here(&lacks.first).unwrap_or(0), lacks.len))
    }
}

fn fetch(file: LogFile, offset: u64, whole: u64) -> Fetch {
    let left = whole.saturating_sub(offset).min(u64::from(LOG_READ_MAX));
    Fetch { file, offset, len: u32::try_from(left).unwrap_or(LOG_READ_MAX), whole }
}
