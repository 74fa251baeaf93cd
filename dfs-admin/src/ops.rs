//! How long the operations of the protocol take, each by itself.

use dfs_proto::request::Op;

use crate::count::Count;
use crate::histogram::{Histogram, Tally};

/// Operations' numbers are below this.
const CODES: usize = 256;

/// A histogram for each operation, found by its number.
#[derive(Debug)]
pub struct OpTimes {
    times: Box<[Histogram]>,
    failed: Box<[Count]>,
}

impl Default for OpTimes {
    fn default() -> OpTimes {
        let times = (0..CODES).map(|_| Histogram::new()).collect();
        OpTimes { times, failed: (0..CODES).map(|_| Count::new()).collect() }
    }
}

impl OpTimes {
    /// Counts one that was answered after so many microseconds, with an error or without.
    pub fn answered(&self, op: Op, us: u64, ok: bool) {
        let at = usize::from(op.code());
        if let Some(times) = self.times.get(at) {
            times.took_us(us);
        }
        if let Some(failed) = self.failed.get(at).filter(|_| !ok) {
            failed.add(1);
        }
    }

    /// Of all operations together.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.times.iter().fold(Histogram::new().tally(), |all, times| all.and(&times.tally()))
    }

    /// Those that were ever answered.
    pub fn seen(&self) -> impl Iterator<Item = (Op, &Histogram, u64)> {
        let all = Op::ALL.iter().filter_map(|op| {
            let at = usize::from(op.code());
            Some((*op, self.times.get(at)?, self.failed.get(at)?.get()))
        });
        all.filter(|(_, times, _)| times.count() > 0)
    }
}

/// As labels name operations: `map_read`.
#[must_use]
pub fn op_name(op: Op) -> String {
    let mut name = String::new();
    for letter in format!("{op:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_has_a_place_and_a_name_of_its_own() {
        let all = OpTimes::default();
        for op in Op::ALL {
            all.answered(*op, 7, false);
        }
        assert_eq!(all.seen().count(), Op::ALL.len());
        assert!(all.seen().all(|(_, times, failed)| times.count() == 1 && failed == 1));
        let names: std::collections::BTreeSet<String> = Op::ALL.iter().map(|op| op_name(*op)).collect();
        assert_eq!(names.len(), Op::ALL.len());
        assert_eq!(op_name(Op::MapRead), "map_read");
    }
}
