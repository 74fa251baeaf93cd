//! Which ways are cut, one direction at a time.

use std::collections::BTreeSet;

use super::Node;

/// The ways on which nothing passes.
#[derive(Clone, Debug, Default)]
pub struct Cuts {
    cut: BTreeSet<(Node, Node)>,
}

impl Cuts {
    pub fn cut(&mut self, from: Node, to: Node) {
        self.cut.insert((from, to));
    }

    pub fn heal(&mut self, from: Node, to: Node) {
        self.cut.remove(&(from, to));
    }

    #[must_use]
    pub fn is_cut(&self, from: Node, to: Node) -> bool {
        self.cut.contains(&(from, to))
    }

    #[must_use]
    pub fn all(&self) -> Vec<(Node, Node)> {
        self.cut.iter().copied().collect()
    }
}
