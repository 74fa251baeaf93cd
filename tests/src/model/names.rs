//! What a directory that one actor changes may hold: the set of all states that fit every answer so far.
//!
//! An operation with an answer keeps the states in which that answer is right; one without (a timeout, a
//! lost client) may or may not have happened, now or at any later time, so each state stays both as it was
//! and as it would be. No state left is a violation.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Tick, Violation};

/// A name in the model.
pub type Name = u8;

/// What an operation does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NameOp {
    /// Makes a file; fails when the name is taken.
    Create(Name),
    Unlink(Name),
    /// Replaces what is there.
    Rename(Name, Name),
    Lookup(Name),
}

/// What a program was answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// With the inode that the name stands for (or stood for), if the answer says it.
    Done(Option<u64>),
    NotFound,
    Exists,
}

/// The inode of each name; 0 while it is not known.
type Names = BTreeMap<Name, u64>;

/// One way that things may stand.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
struct State {
    names: Names,
    /// The operations without an answer that happened in this one, a bit each: none happens twice.
    happened: u64,
}

/// Most states kept, and most operations without an answer: beyond either nothing is judged.
const STATES_MAX: usize = 1 << 12;
const OPEN_MAX: usize = 64;
/// So much of what led to a violation is told with it.
const DIARY: usize = 40;

/// One directory.
#[derive(Clone, Debug)]
pub struct Directory {
    states: BTreeSet<State>,
    /// The states before each operation, for a lost tail of the log.
    before: Vec<(Tick, BTreeSet<State>)>,
    /// Operations without an answer: each may still happen, once, in the states in which it did not.
    open: Vec<NameOp>,
    /// The operation under way: if its actor dies, it has no answer for ever.
    pending: Option<NameOp>,
    /// The master lost its last records while that was under way: its answer may have been on its way already,
    /// and rest on one of them.
    overtaken: bool,
    too_many: bool,
    /// What happened last, for whoever has to explain a violation.
    diary: VecDeque<String>,
}

impl Default for Directory {
    fn default() -> Directory {
        Directory {
            states: BTreeSet::from([State::default()]),
            before: Vec::new(),
            open: Vec::new(),
            pending: None,
            overtaken: false,
            too_many: false,
            diary: VecDeque::new(),
        }
    }
}

fn apply(names: &Names, op: NameOp, ino: Option<u64>) -> (Names, Answer) {
    let mut next = names.clone();
    let answer = match op {
        NameOp::Create(name) => match next.entry(name) {
            std::collections::btree_map::Entry::Occupied(_) => Answer::Exists,
            std::collections::btree_map::Entry::Vacant(free) => {
                free.insert(ino.unwrap_or(0));
                Answer::Done(ino)
            }
        },
        NameOp::Unlink(name) => next.remove(&name).map_or(Answer::NotFound, |_| Answer::Done(None)),
        NameOp::Rename(from, to) => match next.remove(&from) {
            Some(ino) => {
                next.insert(to, ino);
                Answer::Done(None)
            }
            None => Answer::NotFound,
        },
        NameOp::Lookup(name) => match next.get_mut(&name) {
            // Found for the first time after a create whose answer was lost.
            Some(known) => {
                if *known == 0 {
                    *known = ino.unwrap_or(0);
                }
                Answer::Done(Some(*known))
            }
            None => Answer::NotFound,
        },
    };
    (next, answer)
}

fn fits(op: NameOp, got: Answer, expected: Answer) -> bool {
    match (got, expected) {
        (Answer::Done(Some(got)), Answer::Done(Some(known))) => got == known || known == 0,
        (Answer::Done(_), Answer::Done(_)) => true,
        (Answer::NotFound, Answer::NotFound) => !matches!(op, NameOp::Create(_)),
        (Answer::Exists, Answer::Exists) => matches!(op, NameOp::Create(_)),
        (Answer::Done(_) | Answer::NotFound | Answer::Exists, _) => false,
    }
}

impl Directory {
    /// A directory of which every name is known, durable, and changed by nothing that is under way.
    #[must_use]
    pub fn holding(names: BTreeMap<Name, u64>) -> Directory {
        Directory { states: BTreeSet::from([State { names, happened: 0 }]), ..Directory::default() }
    }

    fn write_down(&mut self, what: String) {
        if self.diary.len() == DIARY {
            self.diary.pop_front();
        }
        self.diary.push_back(what);
    }

    /// An operation begins.
    pub fn begin(&mut self, op: NameOp) {
        self.pending = Some(op);
        self.overtaken = false;
    }

    /// An operation was answered.
    pub fn answered(&mut self, at: Tick, op: NameOp, got: Answer) -> Option<Violation> {
        match self.pending.take() {
            Some(pending) if pending != op => self.unknown(pending),
            Some(_) | None => {}
        }
        self.open_may_happen();
        self.write_down(format!("{at:?} {op:?} answered {got:?}"));
        if self.too_many {
            return None;
        }
        self.before.push((at, self.states.clone()));
        let ino = match got {
            Answer::Done(ino) => ino,
            Answer::NotFound | Answer::Exists => None,
        };
        let mut next = BTreeSet::new();
        for state in &self.states {
            let (names, expected) = apply(&state.names, op, ino);
            if fits(op, got, expected) {
                next.insert(State { names, happened: state.happened });
            }
        }
        if next.is_empty() {
            let led = self.diary.iter().map(|entry| format!("\n    {entry}")).collect::<String>();
            let what = format!("{op:?} answered {got:?}, possible were {:?}; before that:{led}", self.states);
            return Some(Violation::new("names", Some(at), what));
        }
        if self.overtaken {
            next.append(&mut self.states);
        }
        self.states = next;
        self.overtaken = false;
        None
    }

    /// [`Directory::answered`] by a kernel that still believes names of before a loss, so that it may have answered
    /// on its own, and wrongly.
    pub fn answered_by_belief(&mut self, at: Tick, op: NameOp, got: Answer) -> Option<Violation> {
        match (op, got) {
            (NameOp::Lookup(_), Answer::Done(_)) | (NameOp::Create(_), Answer::Exists) => {
                self.pending = None;
                self.write_down(format!("{at:?} {op:?} answered {got:?}, as it may be believed"));
                None
            }
            // Nothing is done when both names are believed to be of one file.
            (NameOp::Rename(..), Answer::Done(_)) => {
                self.unknown(op);
                None
            }
            _ => self.answered(at, op, got),
        }
    }

    /// An operation ended without an answer.
    pub fn unknown(&mut self, op: NameOp) {
        self.pending = None;
        self.write_down(format!("{op:?} without an answer"));
        if matches!(op, NameOp::Lookup(_)) {
            return;
        }
        self.too_many |= self.open.len() >= OPEN_MAX;
        if !self.too_many {
            self.open.push(op);
        }
    }

    /// Everything answered before `began` is durable: an fsync of the directory that began then succeeded.
    pub fn synced(&mut self, began: Tick) {
        self.write_down(format!("all of before {began:?} synced"));
        self.before.retain(|(at, _)| *at > began);
    }

    /// The master lost what it logged after `since`: any state from there on may be the one that is left.
    pub fn tail_lost(&mut self, since: Tick) {
        let states = self.before.iter().filter(|(at, _)| *at > since).flat_map(|(_, states)| states.clone());
        let states: Vec<State> = states.collect();
        self.states.extend(states);
        self.write_down(format!("what the master logged after {since:?} may be lost"));
        self.overtaken = self.pending.is_some();
    }

    /// Adds what each state becomes when operations without an answer happen now, in any order.
    fn open_may_happen(&mut self) {
        let mut fresh: Vec<State> = self.states.iter().cloned().collect();
        while let Some(state) = fresh.pop() {
            for (number, op) in self.open.iter().enumerate() {
                let bit = 1 << number;
                if state.happened & bit != 0 {
                    continue;
                }
                let names = apply(&state.names, *op, None).0;
                let next = State { names, happened: state.happened | bit };
                if self.states.insert(next.clone()) {
                    fresh.push(next);
                }
            }
            if self.states.len() > STATES_MAX {
                self.too_many = true;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_narrow_what_is_possible() {
        let mut dir = Directory::default();
        let mut at = 0;
        let mut ask = |dir: &mut Directory, op, got| {
            at += 1;
            dir.answered(Tick(at), op, got).is_none()
        };
        assert!(ask(&mut dir, NameOp::Create(1), Answer::Done(Some(5))));
        assert!(ask(&mut dir, NameOp::Lookup(1), Answer::Done(Some(5))));
        dir.unknown(NameOp::Rename(1, 2));
        let mut not_yet = dir.clone();
        assert!(ask(&mut dir, NameOp::Lookup(1), Answer::NotFound));
        assert!(ask(&mut dir, NameOp::Lookup(2), Answer::Done(Some(5))));
        assert!(!ask(&mut dir, NameOp::Lookup(2), Answer::Done(Some(6))));
        // It may still come later, but what it cannot explain is wrong.
        assert!(ask(&mut not_yet, NameOp::Lookup(1), Answer::Done(Some(5))));
        assert!(!ask(&mut not_yet.clone(), NameOp::Unlink(1), Answer::Exists));
        assert!(!ask(&mut not_yet.clone(), NameOp::Lookup(3), Answer::Done(Some(5))));
        assert!(ask(&mut not_yet, NameOp::Create(1), Answer::Done(Some(7))));
        assert!(ask(&mut not_yet, NameOp::Lookup(2), Answer::Done(Some(5))));
    }

    #[test]
    fn an_operation_without_an_answer_happens_once_at_most() {
        let mut dir = Directory::default();
        assert!(dir.answered(Tick(1), NameOp::Create(1), Answer::Done(Some(5))).is_none());
        dir.unknown(NameOp::Unlink(1));
        assert!(dir.answered(Tick(2), NameOp::Create(1), Answer::Done(Some(6))).is_none(), "it happened");
        assert!(dir.answered(Tick(3), NameOp::Lookup(1), Answer::NotFound).is_some(), "again");
    }

    #[test]
    fn operations_without_an_answer_happen_in_any_order() {
        let mut dir = Directory::default();
        dir.unknown(NameOp::Rename(1, 2));
        dir.unknown(NameOp::Create(1));
        assert!(dir.answered(Tick(1), NameOp::Lookup(2), Answer::Done(Some(5))).is_none());
    }

    #[test]
    fn a_lost_tail_brings_older_states_back() {
        let mut dir = Directory::default();
        assert!(dir.answered(Tick(1), NameOp::Create(1), Answer::Done(Some(5))).is_none());
        assert!(dir.answered(Tick(5), NameOp::Unlink(1), Answer::Done(None)).is_none());
        dir.tail_lost(Tick(3));
        assert!(dir.answered(Tick(9), NameOp::Lookup(1), Answer::Done(Some(5))).is_none());
    }

    #[test]
    fn what_a_kernel_believes_says_nothing_after_a_loss() {
        let mut dir = Directory::default();
        assert!(dir.answered(Tick(1), NameOp::Create(1), Answer::Done(Some(5))).is_none());
        assert!(dir.answered(Tick(2), NameOp::Rename(1, 2), Answer::Done(None)).is_none());
        dir.tail_lost(Tick(1));
        // The master's answer: the rename is lost.
        assert!(dir.answered(Tick(5), NameOp::Create(1), Answer::Exists).is_none());
        assert!(dir.clone().answered(Tick(6), NameOp::Lookup(2), Answer::Done(Some(5))).is_some());
        assert!(dir.answered_by_belief(Tick(6), NameOp::Lookup(2), Answer::Done(Some(5))).is_none());
        assert!(dir.answered_by_belief(Tick(7), NameOp::Rename(1, 2), Answer::Done(None)).is_none());
        assert!(dir.clone().answered(Tick(8), NameOp::Lookup(1), Answer::Done(Some(5))).is_none());
        assert!(dir.clone().answered(Tick(8), NameOp::Lookup(2), Answer::Done(Some(5))).is_none());
        assert!(dir.answered_by_belief(Tick(8), NameOp::Lookup(3), Answer::NotFound).is_none());
        assert!(dir.answered_by_belief(Tick(9), NameOp::Unlink(3), Answer::Done(None)).is_some());
    }

    #[test]
    fn an_answer_may_rest_on_a_record_that_is_lost() {
        let mut dir = Directory::default();
        assert!(dir.answered(Tick(1), NameOp::Create(1), Answer::Done(Some(5))).is_none());
        dir.begin(NameOp::Unlink(1));
        dir.tail_lost(Tick(2));
        assert!(dir.answered(Tick(4), NameOp::Unlink(1), Answer::Done(None)).is_none());
        assert!(dir.clone().answered(Tick(5), NameOp::Lookup(1), Answer::NotFound).is_none());
        assert!(dir.answered(Tick(5), NameOp::Lookup(1), Answer::Done(Some(5))).is_none());
    }
}
