//! Whether a state is whole: everything that one table says of another is looked up there. It changes
//! nothing, and decides nothing but what is wrong.
//!
//! Works on a clone of the state, whose tables are copy-on-write, in steps of a bounded number of entries:
//! a master does some between its requests, for as long as its operator waits, and the state may change
//! meanwhile. For tests and tools that have no one waiting, [`State::check`] does it in one go.
//!
//! Invariant: a state that only `apply` made has no finding but chunks below their goal; whatever else is
//! found is a defect, or damage that got past the log's checksums.

mod book;
mod names;
mod inodes;
mod sides;
mod reach;
mod chunks;
mod rest;
mod replicas;
#[cfg(test)]
mod tests;

use dfs_proto::ids::LogIndex;
use dfs_proto::meta::{Finding, FindingKind, Looked};

use super::state::State;
use book::Book;

pub(super) use replicas::Held;

/// Where a check is. Each stage rests on what the ones before it counted.
#[derive(Debug)]
enum Stage {
    Names(names::At),
    Inodes(u64),
    Lists(sides::ListAt),
    Sides(sides::At),
    Reach(reach::At),
    Chunks(u64),
    Tombstones(u64),
    Rest,
    Done,
}

/// A check under way.
#[derive(Debug)]
pub struct Checker {
    state: State,
    stage: Stage,
    book: Book,
}

impl Checker {
    /// A check of `state`, which nothing has looked at yet.
    #[must_use]
    pub fn new(state: State) -> Checker {
        Checker { state, stage: Stage::Names(names::At::default()), book: Book::default() }
    }

    /// Looks at up to `budget` more entries. Whether that was the last of it.
    pub fn step(&mut self, budget: usize) -> bool {
        let (state, book) = (&self.state, &mut self.book);
        let mut left = budget.max(1);
        while left > 0 {
            let next = match &mut self.stage {
                Stage::Names(at) => names::step(state, book, at, &mut left).then_some(Stage::Inodes(0)),
                Stage::Inodes(at) => {
                    inodes::step(state, book, at, &mut left).then(|| Stage::Lists(Default::default()))
                }
                Stage::Lists(at) => {
                    sides::lists(state, book, at, &mut left).then(|| Stage::Sides(Default::default()))
                }
                Stage::Sides(at) => {
                    sides::step(state, book, at, &mut left).then(|| Stage::Reach(Default::default()))
                }
                Stage::Reach(at) => reach::step(state, book, at, &mut left).then_some(Stage::Chunks(0)),
                Stage::Chunks(at) => chunks::step(state, book, at, &mut left).then_some(Stage::Tombstones(0)),
                Stage::Tombstones(at) => {
                    chunks::tombstones(state, book, at, &mut left).then_some(Stage::Rest)
                }
                Stage::Rest => {
                    rest::check(state, book);
                    Some(Stage::Done)
                }
                Stage::Done => return true,
            };
            if let Some(next) = next {
                self.stage = next;
            }
        }
        matches!(self.stage, Stage::Done)
    }

    /// Takes what was found and not taken, at most `most`, and how many findings more there were than are kept.
    pub fn take(&mut self, most: usize) -> (Vec<Finding>, u64) {
        self.book.take(most)
    }

    /// Whether findings are left to be taken.
    #[must_use]
    pub fn has_found(&self) -> bool {
        self.book.has_found()
    }

    /// The last record of the state that is checked.
    #[must_use]
    pub fn index(&self) -> LogIndex {
        self.state.applied
    }

    /// What was looked at so far.
    #[must_use]
    pub fn looked(&self) -> Looked {
        self.book.looked
    }
}

/// Entries looked at between two looks at the stage.
const ALL: usize = 1 << 20;

impl State {
    /// Everything that is wrong with the state, chunks below their goal left out: whether those are wrong
    /// depends on which servers live.
    ///
    /// # Errors
    /// The findings, if there are any.
    pub fn check(&self) -> Result<(), Vec<Finding>> {
        let mut checker = Checker::new(self.clone());
        while !checker.step(ALL) {}
        let (mut found, _) = checker.take(usize::MAX);
        found.retain(|finding| finding.kind != FindingKind::BelowGoal);
        if found.is_empty() { Ok(()) } else { Err(found) }
    }
}
