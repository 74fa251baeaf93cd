//! Puts chunks into files and takes them out. Neither changes a size or a time: that is the writer's
//! commit.

use dfs_proto::ids::{ChunkId, Ino};
use dfs_proto::status::Status;
use dfs_proto::units::{ChunkIndex, FILE_SIZE_MAX};
use serde::{Deserialize, Serialize};

use super::NsOutcome;
use crate::core::namespace::{Inode, Namespace};

/// Puts a chunk where the file has a hole; `Exists` where it has none.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SetChunk {
    pub ino: Ino,
    pub index: ChunkIndex,
    pub chunk: ChunkId,
}

impl SetChunk {
    pub(super) fn check(&self, ns: &Namespace) -> Result<Inode, Status> {
        let inode = ns.file(self.ino)?;
        if ns.intent(self.ino).is_some() {
            return Err(Status::Recovering);
        }
        let (last, _) = ns.chunk_size.locate(FILE_SIZE_MAX - 1);
        if self.index > last {
            return Err(Status::TooBig);
        }
        match ns.chunk_at(self.ino, self.index)? {
            Some(_) => Err(Status::Exists),
            None => Ok(inode),
        }
    }

    pub(super) fn apply(&self, ns: &mut Namespace) -> Result<(), Status> {
        let mut inode = self.check(ns)?;
        ns.put_chunk(self.ino, &mut inode, self.index, self.chunk);
        ns.inodes.set(self.ino, &inode);
        Ok(())
    }
}

/// Takes a chunk out that holds no byte of the file: the index is a hole again. `NoChunk` if another or none is
/// there; `Recovering` while a truncation is under way.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClearChunk {
    pub ino: Ino,
    pub index: ChunkIndex,
    pub chunk: ChunkId,
}

impl ClearChunk {
    pub(super) fn check(&self, ns: &Namespace) -> Result<Inode, Status> {
        let inode = ns.file(self.ino)?;
        if ns.intent(self.ino).is_some() {
            return Err(Status::Recovering);
        }
        if ns.chunk_at(self.ino, self.index)? == Some(self.chunk) { Ok(inode) } else { Err(Status::NoChunk) }
    }

    pub(super) fn apply(&self, ns: &mut Namespace) -> Result<NsOutcome, Status> {
        let mut inode = self.check(ns)?;
        ns.take_chunk(self.ino, &mut inode, self.index);
        ns.inodes.set(self.ino, &inode);
        Ok(NsOutcome::Freed { inos: Vec::new(), dropped: vec![self.chunk] })
    }
}
