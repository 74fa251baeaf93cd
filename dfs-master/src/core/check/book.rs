//! What a check has counted and found so far, and how things are named in findings.

use std::collections::BTreeMap;

use dfs_proto::ids::{ChunkId, Ino, ServerNum};
use dfs_proto::meta::{Finding, FindingKind, GOAL_MAX, Looked};

use crate::core::namespace::Namespace;
use crate::core::table::CowTable;

/// Findings kept until somebody takes them; a state that is worse than this needs no longer list.
const FOUND_MAX: usize = 10_000;
/// Inodes whose path is told: finding one searches every directory on the way.
const PATHS_MAX: u32 = 32;
/// Directories on the way that are searched for it.
const DEPTH_MAX: usize = 64;

/// How an inode stands in the tree, as far as is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Reached {
    #[default]
    Unknown,
    /// On the way that is being followed.
    OnWay,
    Yes,
    No,
}

/// What directories' entries say of an inode.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    /// Names it has.
    pub(super) names: u32,
    /// Directories among its entries.
    pub(super) subdirs: u32,
    pub(super) is_dir: bool,
    pub(super) reached: Reached,
}

/// The counts of a check.
#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) seen: CowTable<Seen>,
    /// Pointers to each chunk.
    pub(super) pointers: CowTable<u32>,
    /// Replicas of each server.
    pub(super) replicas: BTreeMap<ServerNum, u64>,
    pub(super) directories: u64,
    /// Inodes that ask for each goal; 0: that have an entry, and ask for none.
    pub(super) goals: [u64; GOAL_MAX as usize + 1],
    pub(super) looked: Looked,
    found: Vec<Finding>,
    more: u64,
    paths: u32,
}

impl Book {
    pub(super) fn seen_mut(&mut self, ino: Ino) -> &mut Seen {
        if !self.seen.contains(ino.0) {
            self.seen.insert(ino.0, Seen::default());
        }
        self.seen.get_mut(ino.0).expect("it was put there")
    }

    pub(super) fn seen(&self, ino: Ino) -> Seen {
        self.seen.get(ino.0).copied().unwrap_or_default()
    }

    pub(super) fn pointed(&mut self, chunk: ChunkId) {
        let pointers = self.pointers.get(chunk.0).copied().unwrap_or(0);
        self.pointers.insert(chunk.0, pointers.saturating_add(1));
    }

    pub(super) fn find(&mut self, kind: FindingKind, object: String, what: String) {
        if self.found.len() < FOUND_MAX {
            self.found.push(Finding { kind, object, what });
        } else {
            self.more += 1;
        }
    }

    /// A finding about an inode.
    pub(super) fn find_ino(&mut self, ns: &Namespace, kind: FindingKind, ino: Ino, what: String) {
        let object = self.name_of(ns, ino);
        self.find(kind, object, what);
    }

    /// A finding about a chunk.
    pub(super) fn find_chunk(&mut self, kind: FindingKind, chunk: ChunkId, what: String) {
        self.find(kind, format!("chunk {chunk}"), what);
    }

    pub(super) fn take(&mut self, most: usize) -> (Vec<Finding>, u64) {
        let rest = self.found.split_off(most.min(self.found.len()));
        (std::mem::replace(&mut self.found, rest), std::mem::take(&mut self.more))
    }

    pub(super) fn has_found(&self) -> bool {
        !self.found.is_empty()
    }

    fn name_of(&mut self, ns: &Namespace, ino: Ino) -> String {
        self.paths += 1;
        let path = if self.paths <= PATHS_MAX { short_path(ns, ino) } else { None };
        match path {
            Some(path) => format!("inode {ino} ({path})"),
            None => format!("inode {ino}"),
        }
    }
}

/// The path, if it is found soon: the tree may have rings.
fn short_path(ns: &Namespace, ino: Ino) -> Option<String> {
    let mut path = String::new();
    let mut at = ino;
    for _ in 0..DEPTH_MAX {
        if at == Ino::ROOT {
            return Some(if path.is_empty() { "/".to_owned() } else { path });
        }
        let parent = ns.inode(at).ok()?.parent;
        let entry = ns.directories.get(parent.0)?.from(0).find(|entry| entry.ino == at)?;
        path = format!("/{}{path}", String::from_utf8_lossy(entry.name));
        at = parent;
    }
    None
}
