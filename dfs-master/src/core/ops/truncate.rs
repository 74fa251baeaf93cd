//! Changes of a file's size: in one record where no written byte is cut, else as an intent and a final
//! record with the zeroing of the boundary chunk between them.
//!
//! Invariant: a cut raises the inode's size epoch, so a size or a write issued before it is refused.
//! While an intent stands, no size is committed and no chunk is added.

use dfs_proto::ids::{ChunkId, Ino, SizeEpoch};
use dfs_proto::status::Status;
use dfs_proto::units::{ChunkIndex, FILE_SIZE_MAX, Timespec};
use serde::{Deserialize, Serialize};

use super::NsOutcome;
use crate::core::namespace::{Caller, Inode, Namespace, WRITE, advance, check_time};

/// Sets the size in one record: to a chunk border, or where no written byte is cut. `Recovering` if that
/// is not so (any more); [`Namespace::truncate_step`] tells.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Truncate {
    pub ino: Ino,
    pub size: u64,
    pub now: Timespec,
    pub by: TruncateBy,
}

/// First half of a truncation that cuts a chunk: from now on, older writes are refused.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TruncateIntent {
    pub ino: Ino,
    pub size: u64,
    pub now: Timespec,
    pub by: TruncateBy,
}

/// Second half, after the boundary chunk was zeroed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TruncateFinal {
    pub ino: Ino,
    /// The intent's; `OldEpoch` if another or no truncation is under way.
    pub size_epoch: SizeEpoch,
    pub now: Timespec,
}

/// Who truncates.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TruncateBy {
    pub caller: Caller,
    /// Through a descriptor open for writing, which is right enough.
    pub by_handle: bool,
}

/// A truncation under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Intent {
    /// The size to come.
    pub size: u64,
    pub boundary: Boundary,
}

/// The chunk that a truncation cuts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Boundary {
    pub chunk: ChunkId,
    pub index: ChunkIndex,
    /// The chunk is zeroed from this byte to its end.
    pub from: u32,
    /// The inode's epoch since the intent.
    pub size_epoch: SizeEpoch,
}

/// What a truncation takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TruncateStep {
    /// [`Truncate`] alone.
    Direct,
    /// [`TruncateIntent`], zeroing this chunk from `from` on, then [`TruncateFinal`].
    Boundary { chunk: ChunkId, index: ChunkIndex, from: u32 },
}

impl Namespace {
    /// What setting this size takes now.
    ///
    /// # Errors
    /// `Stale`, `IsDir`, `Invalid` for what is no file, `TooBig`, `Recovering` while another is under way.
    pub fn truncate_step(&self, ino: Ino, size: u64) -> Result<TruncateStep, Status> {
        let inode = self.file(ino)?;
        if size > FILE_SIZE_MAX {
            return Err(Status::TooBig);
        }
        if self.intents.contains_key(&ino) {
            return Err(Status::Recovering);
        }
        let (index, from) = self.chunk_size.locate(size);
        // Not when the size stays: what writers have put behind it and not committed is cut as well.
        if size > inode.size || from == 0 {
            return Ok(TruncateStep::Direct);
        }
        Ok(match self.chunk_at(ino, index)? {
            Some(chunk) => TruncateStep::Boundary { chunk, index, from },
            None => TruncateStep::Direct,
        })
    }

    /// Cuts or lengthens the file; the caller has decided that it is right.
    fn set_size(&mut self, ino: Ino, mut inode: Inode, size: u64, now: Timespec) -> NsOutcome {
        let mut dropped = Vec::new();
        // Chunks behind the end of a file that grows belong to writers who have not committed them yet.
        if size <= inode.size {
            let first = ChunkIndex(self.chunk_size.chunks_for(size));
            dropped = self.take_chunks(ino, &mut inode, first);
        }
        inode.size = size;
        inode.mtime = advance(inode.mtime, now);
        inode.ctime = now;
        self.take_capability(ino, &mut inode);
        self.inodes.set(ino, &inode);
        NsOutcome::Truncated { attr: self.attr(ino, &inode), dropped }
    }

    /// Whether setting the size drops chunks or cuts bytes, so that older writes must be refused.
    fn cuts(&self, ino: Ino, inode: &Inode, size: u64) -> bool {
        let first = ChunkIndex(self.chunk_size.chunks_for(size));
        size < inode.size || (size == inode.size && self.chunks_from(ino, inode, first).next().is_some())
    }
}

/// The epoch after this one. It runs out after 4 billion truncations of one file, which then fail.
fn next_epoch(epoch: SizeEpoch) -> Result<SizeEpoch, Status> {
    epoch.0.checked_add(1).map(SizeEpoch).ok_or(Status::NoSpace)
}

/// The inode with the mode that the caller's change leaves it.
fn check_caller(ns: &Namespace, ino: Ino, by: &TruncateBy) -> Result<Inode, Status> {
    let inode = ns.file(ino)?;
    if !by.by_handle {
        by.caller.may(&inode, WRITE)?;
    }
    Ok(Inode { mode: by.caller.mode_after_change(&inode)?, ..inode })
}

impl Truncate {
    pub(super) fn check(&self, ns: &Namespace) -> Result<Inode, Status> {
        check_time(self.now)?;
        let inode = check_caller(ns, self.ino, &self.by)?;
        match ns.truncate_step(self.ino, self.size)? {
            TruncateStep::Boundary { .. } => Err(Status::Recovering),
            TruncateStep::Direct if ns.cuts(self.ino, &inode, self.size) => {
                Ok(Inode { size_epoch: next_epoch(inode.size_epoch)?, ..inode })
            }
            TruncateStep::Direct => Ok(inode),
        }
    }

    pub(super) fn apply(&self, ns: &mut Namespace) -> Result<NsOutcome, Status> {
        let inode = self.check(ns)?;
        Ok(ns.set_size(self.ino, inode, self.size, self.now))
    }
}

impl TruncateIntent {
    pub(super) fn check(&self, ns: &Namespace) -> Result<(Inode, Boundary), Status> {
        check_time(self.now)?;
        let inode = check_caller(ns, self.ino, &self.by)?;
        match ns.truncate_step(self.ino, self.size)? {
            TruncateStep::Direct => Err(Status::Recovering),
            TruncateStep::Boundary { chunk, index, from } => {
                let size_epoch = next_epoch(inode.size_epoch)?;
                let boundary = Boundary { chunk, index, from, size_epoch };
                Ok((Inode { size_epoch, ..inode }, boundary))
            }
        }
    }

    pub(super) fn apply(&self, ns: &mut Namespace) -> Result<Boundary, Status> {
        let (inode, boundary) = self.check(ns)?;
        ns.inodes.set(self.ino, &inode);
        ns.intents.insert(self.ino, Intent { size: self.size, boundary });
        Ok(boundary)
    }
}

impl TruncateFinal {
    pub(super) fn check(&self, ns: &Namespace) -> Result<Intent, Status> {
        check_time(self.now)?;
        ns.file(self.ino)?;
        match ns.intent(self.ino) {
            Some(intent) if intent.boundary.size_epoch == self.size_epoch => Ok(*intent),
            Some(_) | None => Err(Status::OldEpoch),
        }
    }

    pub(super) fn apply(&self, ns: &mut Namespace) -> Result<NsOutcome, Status> {
        let intent = self.check(ns)?;
        let inode = ns.file(self.ino)?;
        ns.intents.remove(&self.ino);
        Ok(ns.set_size(self.ino, inode, intent.size, self.now))
    }
}
