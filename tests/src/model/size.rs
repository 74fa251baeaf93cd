//! The oracle of sizes: where a file may end once every program has, in sectors.
//!
//! The size is the end of some write, or what some truncation set, that no truncation to less came after for certain.
//! What lies below it is [`super::register`]'s; one thing only the size tells: a file that ends in zeros was made that
//! long by a truncation, had zeros written there, or lost what a write had put there (I21).

use super::FileNum;
use super::Tick;
use super::history::{History, Kind, Loss, Outcome, Write};
use super::stamp::{Found, Stamp};

/// What is wrong with a file that ends at `size` with a sector that holds `last`.
#[must_use]
pub fn check(history: &History, file: FileNum, size: u64, last: Option<Found>) -> Option<String> {
    let changes: Vec<&Write> = history.writes.iter().filter(|write| write.file == file).collect();
    let cuts = || changes.iter().filter(|write| write.kind == Kind::Cut);
    let done = |write: &Write| write.returned.filter(|end| end.outcome == Outcome::Done);
    let sets = |write: &&&Write| match (write.kind, done(write)) {
        (Kind::Cut, _) => write.first == size,
        (Kind::Hole { grows }, _) => grows && write.end == size,
        (Kind::Bytes, Some(_)) if write.through => write.end == size,
        // What was buffered leaves in parts, and some of them may be lost.
        (Kind::Bytes, _) => write.first < size && size <= write.end,
    };
    let stands = |write: &&&Write| {
        let after = done(write).map_or(Tick(u64::MAX), |end| end.at);
        !cuts().any(|cut| cut.first < size && cut.invoke > after && is_certain(history, cut))
    };
    if size > 0 && !changes.iter().filter(sets).any(|write| stands(&write)) {
        return Some(format!("ends at {size}, which no write or truncation set that was not cut off since"));
    }
    let kept = history.losses.iter().all(|loss| matches!(loss, Loss::Process { .. }));
    let zeros = last == Some(Found::Stamp(Stamp::ZERO));
    let holes = |write: &&&Write| matches!(write.kind, Kind::Hole { .. });
    let hole = changes.iter().filter(holes).any(|hole| hole.first < size && size <= hole.end);
    if zeros && kept && !hole && !cuts().any(|cut| cut.first == size) {
        return Some(format!("ends at {size} in zeros, and no truncation made it that long"));
    }
    None
}

/// Whether a truncation surely took effect, and no lost tail of the log took it back.
fn is_certain(history: &History, cut: &Write) -> bool {
    let Some(end) = cut.returned.filter(|end| end.outcome == Outcome::Done) else { return false };
    history.losses.iter().all(|loss| match loss {
        Loss::Tail { since, .. } => end.at <= *since,
        Loss::Server { .. } | Loss::Process { .. } => true,
    })
}

#[cfg(test)]
mod tests {
    use super::super::Actor;
    use super::*;

    const F: FileNum = FileNum(1);
    const A: Actor = Actor { client: 1, stream: 0 };

    fn done(history: &mut History, stamp: Stamp, first: u64, end: u64) {
        let write = history.write(A, F, stamp, first, end);
        history.write_returned(write, Outcome::Done, true);
    }

    #[test]
    fn a_size_comes_from_a_write_or_a_truncation() {
        let mut history = History::default();
        assert_eq!(check(&history, F, 0, None), None);
        done(&mut history, Stamp(1), 0, 8);
        assert_eq!(check(&history, F, 8, Some(Found::Stamp(Stamp(1)))), None);
        assert!(check(&history, F, 9, Some(Found::Stamp(Stamp(1)))).is_some());
        done(&mut history, Stamp::ZERO, 4, 100);
        assert_eq!(check(&history, F, 4, Some(Found::Stamp(Stamp(1)))), None);
        assert!(check(&history, F, 8, Some(Found::Stamp(Stamp(1)))).is_some(), "it was cut off");
        history.tail_lost(Tick(2));
        assert_eq!(check(&history, F, 8, Some(Found::Stamp(Stamp(1)))), None, "the cut is lost");
    }

    #[test]
    fn zeros_reach_as_far_as_they_were_asked_to() {
        let mut history = History::default();
        done(&mut history, Stamp(1), 0, 8);
        let zeros = Some(Found::Stamp(Stamp::ZERO));
        for grows in [false, true] {
            assert!(check(&history, F, 8, zeros).is_some() != grows);
            let hole = history.hole(A, F, 4, 12, grows);
            history.write_returned(hole, Outcome::Done, true);
            assert_eq!(check(&history, F, 8, zeros), None);
            assert_eq!(check(&history, F, 12, zeros).is_none(), grows);
        }
        done(&mut history, Stamp(2), 0, 20);
        assert!(check(&history, F, 20, zeros).is_some(), "no zeros were written there");
    }

    #[test]
    fn a_write_leaves_no_zeros_at_the_end() {
        let mut history = History::default();
        let write = history.write(A, F, Stamp(1), 0, 8);
        done(&mut history, Stamp::ZERO, 4, 100);
        history.write_returned(write, Outcome::Done, true);
        assert_eq!(check(&history, F, 8, Some(Found::Stamp(Stamp(1)))), None, "after the cut");
        assert_eq!(check(&history, F, 4, Some(Found::Stamp(Stamp(1)))), None, "before it");
        let zeros = Some(Found::Stamp(Stamp::ZERO));
        assert!(check(&history, F, 8, zeros).is_some(), "one half of it after the cut, one before");
        let mut grown = history.clone();
        done(&mut grown, Stamp::ZERO, 8, 100);
        assert_eq!(check(&grown, F, 8, zeros), None);
        history.server_lost_power(1);
        assert_eq!(check(&history, F, 8, zeros), None, "its bytes may be lost");
    }
}
