//! Frees inodes that have lost their last name. When nobody has them open any more is the proposer's to
//! know.

use dfs_proto::ids::Ino;
use dfs_proto::meta::FileKind;
use dfs_proto::units::ChunkIndex;
use serde::{Deserialize, Serialize};

use super::NsOutcome;
use crate::core::namespace::Namespace;

/// Frees inodes that have no name. What is no orphan is passed over, so the command cannot fail.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FreeInodes {
    pub inos: Vec<Ino>,
}

impl FreeInodes {
    pub(super) fn apply(&self, ns: &mut Namespace) -> NsOutcome {
        let mut inos = Vec::new();
        let mut dropped = Vec::new();
        for ino in &self.inos {
            let Ok(mut inode) = ns.inode(*ino) else { continue };
            if ns.orphans.remove(ino.0).is_none() {
                continue;
            }
            dropped.append(&mut ns.take_chunks(*ino, &mut inode, ChunkIndex(0)));
            ns.directory_count -= u64::from(inode.kind == FileKind::Dir);
            ns.symlinks.remove(ino.0);
            ns.xattrs.remove(ino.0);
            ns.goals.remove(*ino);
            ns.intents.remove(ino);
            ns.inodes.remove(*ino);
            inos.push(*ino);
        }
        NsOutcome::Freed { inos, dropped }
    }
}
