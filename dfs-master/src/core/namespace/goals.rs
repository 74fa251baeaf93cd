//! Which files and directories have a goal of their own. Only those cost memory: 4 bytes, and a page for each 64
//! neighbours that has one.
//!
//! Invariant: no entry asks for nothing, and `asked` counts the entries of each goal.

use dfs_proto::ids::Ino;
use dfs_proto::meta::{FileKind, GOAL_MAX, Goal};

use crate::core::table::CowTable;

#[derive(Clone, Debug, Default)]
pub(crate) struct Goals {
    table: CowTable<Goal>,
    /// How many ask for each goal; those that ask for none of their own at 0.
    asked: [u64; GOAL_MAX as usize + 1],
}

/// Whether an inode of that kind can have a goal: files have chunks, and directories files.
pub(crate) fn has_goal(kind: FileKind) -> bool {
    match kind {
        FileKind::File | FileKind::Dir => true,
        FileKind::Symlink | FileKind::Fifo | FileKind::Socket | FileKind::BlockDev | FileKind::CharDev => {
            false
        }
    }
}

impl Goals {
    /// What the inode asks for; nothing if it has no entry.
    pub(crate) fn get(&self, ino: Ino) -> Goal {
        self.table.get(ino.0).copied().unwrap_or_default()
    }

    pub(crate) fn len(&self) -> u64 {
        self.table.len()
    }

    /// `goal` is sound, and the inode there.
    pub(crate) fn set(&mut self, ino: Ino, goal: Goal) {
        if goal.is_empty() {
            self.remove(ino);
            return;
        }
        self.count(goal, 1);
        if let Some(old) = self.table.insert(ino.0, goal) {
            self.count(old, -1);
        }
    }

    pub(crate) fn remove(&mut self, ino: Ino) {
        if let Some(old) = self.table.remove(ino.0) {
            self.count(old, -1);
        }
    }

    /// The highest goal that anything asks for.
    pub(crate) fn highest(&self) -> Option<u8> {
        (1..=GOAL_MAX).rev().find(|goal| self.asked[usize::from(*goal)] > 0)
    }

    pub(crate) fn asked(&self) -> [u64; GOAL_MAX as usize + 1] {
        self.asked
    }

    /// By rising number.
    pub(crate) fn iter_from(&self, ino: u64) -> impl Iterator<Item = (u64, &Goal)> {
        self.table.iter_from(ino)
    }

    fn count(&mut self, goal: Goal, by: i64) {
        let of = usize::from(goal.goal.unwrap_or(0));
        if let Some(asked) = self.asked.get_mut(of) {
            *asked = asked.saturating_add_signed(by);
        }
    }

    /// Puts an entry there that no record could have made.
    #[cfg(test)]
    pub(crate) fn plant(&mut self, ino: Ino, goal: Goal) {
        self.table.insert(ino.0, goal);
    }
}

#[cfg(test)]
mod tests {
    use dfs_proto::units::{ChunkSize, Timespec};

    use super::*;
    use crate::core::namespace::{Namespace, NamespaceReader, RootSpec};

    #[test]
    fn the_highest_goal_is_known_without_a_walk() {
        let mut goals = Goals::default();
        let goal = |goal| Goal { goal, max: Some(9) };
        assert_eq!(goals.highest(), None);
        goals.set(Ino(7), goal(Some(3)));
        goals.set(Ino(8), goal(None));
        goals.set(Ino(7), goal(Some(2)));
        goals.set(Ino(9), goal(Some(4)));
        assert_eq!((goals.highest(), goals.len()), (Some(4), 3));
        goals.remove(Ino(9));
        goals.set(Ino(8), Goal::default());
        assert_eq!((goals.highest(), goals.len()), (Some(2), 1));
        assert_eq!(goals.get(Ino(8)), Goal::default());
    }

    #[test]
    fn goals_are_in_a_section_of_their_own_and_only_if_there_are_any() {
        let root = RootSpec { uid: 0, gid: 0, mode: 0o755, now: Timespec::default() };
        let mut ns = Namespace::new(ChunkSize::DEFAULT, root);
        let blocks = |ns: &Namespace| {
            let mut blocks: Vec<Vec<u8>> = Vec::new();
            ns.write_sections(&mut |block| blocks.push(block.to_vec()));
            blocks
        };
        assert!(blocks(&ns).iter().all(|block| block[0] != 9), "an older build reads it");
        ns.goals.set(Ino::ROOT, Goal { goal: Some(3), max: Some(5) });
        let written = blocks(&ns);
        let [.., goals, end] = &written[..] else { panic!("{written:?}") };
        assert_eq!((&goals[..], end[0]), (&[9, 1, 3, 5][..], 8));
        let load = |goals: &[u8]| {
            let mut reader = NamespaceReader::new();
            for block in &written[..written.len() - 2] {
                reader.block(block).unwrap();
            }
            reader.block(goals).and_then(|()| reader.block(end))?;
            reader.finish()
        };
        let back = load(goals).unwrap();
        assert_eq!(back.goals.get(Ino::ROOT), ns.goals.get(Ino::ROOT));
        assert_eq!((back.goals.highest(), back.state_hash()), (Some(3), ns.state_hash()));
        for bad in [[9, 1, 0, 0], [9, 1, 3, 2], [9, 1, 17, 0], [9, 2, 3, 5]] {
            assert!(load(&bad).is_err(), "{bad:?}");
        }
        assert!(load(&[9, 1, 3]).is_err());
    }
}
