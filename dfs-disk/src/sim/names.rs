//! The simulated directory tree: names as processes see them, names as the platter has them, and the
//! changes in between. A power cut keeps a prefix of each directory's changes, never a later one
//! without an earlier one, and a rename between two directories whole or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use super::image::Image;
use super::rng::Rng;

/// One file, shared by its names, its pending changes and its open handles.
pub(super) type Node = Arc<Mutex<Image>>;

#[derive(Clone, Debug)]
pub(super) enum Target {
    File(Node),
    Dir,
}

/// Directory path to entries. The root is the empty path.
pub(super) type Tree = BTreeMap<String, BTreeMap<String, Target>>;

#[derive(Clone, Debug)]
enum Change {
    Add { path: Path, target: Target },
    Remove { path: Path },
    Rename { from: Path, to: Path },
}

/// Where a name is: its directory and itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Path {
    pub(super) dir: String,
    pub(super) name: String,
}

impl Path {
    pub(super) fn new(path: &str) -> Path {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        Path { dir: dir.to_owned(), name: name.to_owned() }
    }

    fn full(&self) -> String {
        if self.dir.is_empty() { self.name.clone() } else { format!("{}/{}", self.dir, self.name) }
    }
}

impl Change {
    fn touches(&self) -> [&str; 2] {
        match self {
            Change::Add { path, .. } | Change::Remove { path } => [&path.dir, &path.dir],
            Change::Rename { from, to } => [&from.dir, &to.dir],
        }
    }

    fn apply(self, tree: &mut Tree) {
        match self {
            Change::Add { path, target } => {
                if matches!(target, Target::Dir) {
                    tree.entry(path.full()).or_default();
                }
                tree.entry(path.dir).or_default().insert(path.name, target);
            }
            Change::Remove { path } => {
                tree.entry(path.dir).or_default().remove(&path.name);
            }
            Change::Rename { from, to } => {
                if let Some(target) = tree.entry(from.dir).or_default().remove(&from.name) {
                    tree.entry(to.dir).or_default().insert(to.name, target);
                }
            }
        }
    }
}

#[derive(Debug)]
pub(super) struct Names {
    live: Tree,
    durable: Tree,
    pending: Vec<Change>,
}

impl Names {
    pub(super) fn new() -> Names {
        let root: Tree = BTreeMap::from([(String::new(), BTreeMap::new())]);
        Names { live: root.clone(), durable: root, pending: Vec::new() }
    }

    pub(super) fn get(&self, path: &Path) -> Option<&Target> {
        self.live.get(&path.dir)?.get(&path.name)
    }

    pub(super) fn dir(&self, dir: &str) -> Option<&BTreeMap<String, Target>> {
        self.live.get(dir)
    }

    pub(super) fn add(&mut self, path: Path, target: Target) {
        self.change(Change::Add { path, target });
    }

    pub(super) fn remove(&mut self, path: Path) {
        self.change(Change::Remove { path });
    }

    pub(super) fn rename(&mut self, from: Path, to: Path) {
        self.change(Change::Rename { from, to });
    }

    fn change(&mut self, change: Change) {
        change.clone().apply(&mut self.live);
        self.pending.push(change);
    }

    /// Makes the directory's changes durable, and those of others that they rest on: a rename into it
    /// takes along everything earlier of the directory that it came from.
    pub(super) fn sync_dir(&mut self, dir: &str) {
        let mut dirs = BTreeSet::from([dir.to_owned()]);
        let mut chosen = vec![false; self.pending.len()];
        for (change, chosen) in self.pending.iter().zip(&mut chosen).rev() {
            if change.touches().iter().any(|dir| dirs.contains(*dir)) {
                *chosen = true;
                dirs.extend(change.touches().map(str::to_owned));
            }
        }
        let pending = std::mem::take(&mut self.pending);
        for (change, chosen) in pending.into_iter().zip(chosen) {
            if chosen {
                change.apply(&mut self.durable);
            } else {
                self.pending.push(change);
            }
        }
    }

    /// Leaves the names that the platter has.
    pub(super) fn power_cut(&mut self, rng: &mut Rng) {
        let mut cut = BTreeSet::new();
        for change in std::mem::take(&mut self.pending) {
            let lost = change.touches().iter().any(|dir| cut.contains(*dir)) || rng.coin();
            if lost {
                cut.extend(change.touches().map(str::to_owned));
            } else {
                change.apply(&mut self.durable);
            }
        }
        // What hangs below a directory that was itself lost can't be reached any more.
        let mut reachable = Tree::new();
        let mut next = vec![String::new()];
        while let Some(dir) = next.pop() {
            let entries = self.durable.remove(&dir).unwrap_or_default();
            for (name, target) in &entries {
                if matches!(target, Target::Dir) {
                    next.push(Path { dir: dir.clone(), name: name.clone() }.full());
                }
            }
            reachable.insert(dir, entries);
        }
        self.live = reachable.clone();
        self.durable = reachable;
    }

    /// Makes every change durable.
    pub(super) fn sync_all(&mut self) {
        for change in std::mem::take(&mut self.pending) {
            change.apply(&mut self.durable);
        }
    }

    /// The files that processes can name, in the order of their paths.
    pub(super) fn files(&self) -> impl Iterator<Item = (String, &Node)> {
        self.live.iter().flat_map(|(dir, entries)| {
            entries.iter().filter_map(|(name, target)| match target {
                Target::File(node) => Some((Path { dir: dir.clone(), name: name.clone() }.full(), node)),
                Target::Dir => None,
            })
        })
    }

    /// A copy that shares no file with this one.
    pub(super) fn deep_copy(&self) -> Names {
        let mut copies: BTreeMap<*const Mutex<Image>, Node> = BTreeMap::new();
        let mut copy = |target: &Target| match target {
            Target::Dir => Target::Dir,
            Target::File(node) => Target::File(
                copies
                    .entry(Arc::as_ptr(node))
                    .or_insert_with(|| Arc::new(Mutex::new(super::locked(node).clone())))
                    .clone(),
            ),
        };
        let mut copy_tree = |tree: &Tree| -> Tree {
            let mut entries_of = |entries: &BTreeMap<String, Target>| {
                entries.iter().map(|(name, target)| (name.clone(), copy(target))).collect()
            };
            tree.iter().map(|(dir, entries)| (dir.clone(), entries_of(entries))).collect()
        };
        let (live, durable) = (copy_tree(&self.live), copy_tree(&self.durable));
        let pending = self
            .pending
            .iter()
            .map(|change| match change {
                Change::Add { path, target } => Change::Add { path: path.clone(), target: copy(target) },
                Change::Remove { .. } | Change::Rename { .. } => change.clone(),
            })
            .collect();
        Names { live, durable, pending }
    }
}
