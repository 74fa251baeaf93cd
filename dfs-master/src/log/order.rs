//! Which record may follow which. The writer asserts it before it writes, recovery reports it as an
//! error: the same rules, once.
//!
//! Invariant: entry indices have no gap and no repetition but where a later term's leader replaces a
//! tail that was never committed; a term never goes back; a node votes once in a term.

use dfs_proto::ids::{LogIndex, Term};

use super::entry::{EntryId, EntryKind, HardState, LogEntry, RecordNum};
use super::record::{Marker, Record};

/// A record that cannot be where it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Disorder {
    #[error("entry {found} where at most {due} is due")]
    Gap { found: LogIndex, due: LogIndex },
    #[error("entry {0} a second time in one term")]
    Repeated(LogIndex),
    #[error("entry {found} replaces one that was committed (up to {commit})")]
    Committed { found: LogIndex, commit: LogIndex },
    #[error("entry {index} of term {found} outside {from}..={to}")]
    Term { index: LogIndex, found: Term, from: Term, to: Term },
    #[error("a hard state that goes back or votes twice: term {term}")]
    HardState { term: Term },
    #[error("an election entry with contents at {0}")]
    Election(LogIndex),
    #[error("a snapshot installed at {found}, behind entry {last}")]
    Installed { found: LogIndex, last: LogIndex },
}

/// What the records so far add up to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Shape {
    /// The last record.
    pub(super) record: RecordNum,
    /// The last entry that no later one replaced.
    pub(super) last: EntryId,
    pub(super) hard: HardState,
    /// Entries after this index are all there.
    pub(super) floor: LogIndex,
    /// The node's term when it appended its last entry.
    appended_in: Term,
}

impl Shape {
    /// The shape at the start of a segment: its first record repeats the hard state.
    pub(super) fn at_start(record_before: RecordNum, before: EntryId) -> Shape {
        Shape { record: record_before, last: before, floor: before.index, ..Shape::default() }
    }

    /// Takes in the next record. Some(index) when it makes all earlier entries from `index` on void.
    pub(super) fn follow(&mut self, record: &Record) -> Result<Option<LogIndex>, Disorder> {
        let void = match record {
            Record::Entry(entry) => self.entry(entry)?,
            Record::HardState(state) => self.hard_state(*state)?,
            Record::Marker(Marker::Opened | Marker::Synced) => None,
            Record::Marker(Marker::Installed(id)) => self.installed(*id)?,
        };
        self.record = self.record.next();
        Ok(void)
    }

    fn entry(&mut self, entry: &LogEntry) -> Result<Option<LogIndex>, Disorder> {
        let index = entry.index;
        let due = LogIndex(self.last.index.0 + 1);
        let replaces = index < due;
        if index > due {
            return Err(Disorder::Gap { found: index, due });
        }
        if replaces && index <= self.hard.commit.max(self.floor) {
            return Err(Disorder::Committed { found: index, commit: self.hard.commit.max(self.floor) });
        }
        if replaces && self.appended_in >= self.hard.term {
            return Err(Disorder::Repeated(index));
        }
        let from = if replaces { Term(1) } else { self.last.term };
        if entry.term < from || entry.term > self.hard.term {
            return Err(Disorder::Term { index, found: entry.term, from, to: self.hard.term });
        }
        if entry.kind == EntryKind::Election && !entry.data.is_empty() {
            return Err(Disorder::Election(index));
        }
        self.last = entry.id();
        self.appended_in = self.hard.term;
        Ok(replaces.then_some(index))
    }

    fn hard_state(&mut self, state: HardState) -> Result<Option<LogIndex>, Disorder> {
        let old = self.hard;
        let votes_again = state.term == old.term && old.vote.is_some() && state.vote != old.vote;
        if state.term < old.term || votes_again {
            return Err(Disorder::HardState { term: state.term });
        }
        self.hard = state;
        Ok(None)
    }

    fn installed(&mut self, id: EntryId) -> Result<Option<LogIndex>, Disorder> {
        if id.index < self.hard.commit.min(self.last.index).max(self.floor) {
            return Err(Disorder::Installed { found: id.index, last: self.last.index });
        }
        self.last = id;
        self.floor = id.index;
        Ok(Some(LogIndex(0)))
    }
}
