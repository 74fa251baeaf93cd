//! Every change of the namespace: the commands that the log records, and what comes of them.
//!
//! One file per command owns its fields, its check and its effect. A command carries all that its effect
//! depends on (the time, who asks), so applying it to equal namespaces gives equal namespaces. Invariant:
//! no command panics, and one that is refused changes nothing.
//!
//! The log stores commands with postcard: variants and fields are only ever appended, never moved, and
//! `tests/fixtures/ns-command.v1` pins the bytes.

mod chunk;
mod commit;
mod create;
mod free;
mod goal;
mod link;
mod mkdir;
mod mknod;
mod node;
mod removal;
mod rename;
mod rmdir;
mod setattr;
mod symlink;
mod truncate;
mod unlink;
mod xattr;

use dfs_proto::ids::{ChunkId, Ino};
use dfs_proto::meta::{Attr, Removed, Renamed};
use dfs_proto::status::Status;
use serde::{Deserialize, Serialize};

pub use chunk::{ClearChunk, SetChunk};
pub use commit::Commit;
pub use create::Create;
pub use free::FreeInodes;
pub use goal::SetGoal;
pub use link::Link;
pub use mkdir::Mkdir;
pub use mknod::Mknod;
pub use rename::Rename;
pub use rmdir::Rmdir;
pub use setattr::Setattr;
pub use symlink::Symlink;
pub use truncate::{Boundary, Intent, Truncate, TruncateBy, TruncateFinal, TruncateIntent, TruncateStep};
pub use unlink::Unlink;
pub use xattr::{Removexattr, Setxattr};

use super::namespace::Namespace;

/// One change. Only ever append.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum NsCommand {
    Create(Create),
    Mkdir(Mkdir),
    Mknod(Mknod),
    Symlink(Symlink),
    Link(Link),
    Unlink(Unlink),
    Rmdir(Rmdir),
    Rename(Rename),
    Setattr(Setattr),
    Truncate(Truncate),
    TruncateIntent(TruncateIntent),
    TruncateFinal(TruncateFinal),
    Commit(Commit),
    SetChunk(SetChunk),
    ClearChunk(ClearChunk),
    Setxattr(Setxattr),
    Removexattr(Removexattr),
    FreeInodes(FreeInodes),
}

/// What came of a command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NsOutcome {
    /// Setxattr, Removexattr, SetChunk.
    Done,
    /// Create, Mkdir, Mknod, Symlink, Link, Setattr, Commit: the inode as it is now.
    Attr(Attr),
    /// Unlink, Rmdir. At 0 links the inode has become an orphan.
    Removed(Removed),
    /// Rename. A replaced inode with 0 links has become an orphan.
    Renamed(Renamed),
    /// Truncate, TruncateFinal: the chunks that no longer belong to the file.
    Truncated { attr: Attr, dropped: Vec<ChunkId> },
    /// TruncateIntent: what has to be zeroed before TruncateFinal.
    Intended(Boundary),
    /// ClearChunk, FreeInodes: the inodes that are gone and the chunks that no longer belong to any.
    Freed { inos: Vec<Ino>, dropped: Vec<ChunkId> },
}

impl NsCommand {
    /// The directories whose entries it changes; 0 for none.
    #[must_use]
    pub fn parents(&self) -> [Ino; 2] {
        let one = |dir| [dir, Ino(0)];
        match self {
            NsCommand::Create(op) => one(op.parent),
            NsCommand::Mkdir(op) => one(op.parent),
            NsCommand::Mknod(op) => one(op.parent),
            NsCommand::Symlink(op) => one(op.parent),
            NsCommand::Link(op) => one(op.parent),
            NsCommand::Unlink(op) => one(op.parent),
            NsCommand::Rmdir(op) => one(op.parent),
            NsCommand::Rename(op) if op.parent == op.new_parent => one(op.parent),
            NsCommand::Rename(op) => [op.parent, op.new_parent],
            _ => [Ino(0); 2],
        }
    }
}

impl Namespace {
    /// Whether the command would be accepted now. What the leader asks before it logs.
    ///
    /// # Errors
    /// The status that the caller gets; `NeedGroups` when the answer depends on groups that the command
    /// does not name.
    pub fn check(&self, command: &NsCommand) -> Result<(), Status> {
        match command {
            NsCommand::Create(op) => op.check(self).map(drop),
            NsCommand::Mkdir(op) => op.check(self).map(drop),
            NsCommand::Mknod(op) => op.check(self).map(drop),
            NsCommand::Symlink(op) => op.check(self).map(drop),
            NsCommand::Link(op) => op.check(self).map(drop),
            NsCommand::Unlink(op) => op.check(self).map(drop),
            NsCommand::Rmdir(op) => op.check(self).map(drop),
            NsCommand::Rename(op) => op.check(self).map(drop),
            NsCommand::Setattr(op) => op.check(self).map(drop),
            NsCommand::Truncate(op) => op.check(self).map(drop),
            NsCommand::TruncateIntent(op) => op.check(self).map(drop),
            NsCommand::TruncateFinal(op) => op.check(self).map(drop),
            NsCommand::Commit(op) => op.check(self).map(drop),
            NsCommand::SetChunk(op) => op.check(self).map(drop),
            NsCommand::ClearChunk(op) => op.check(self).map(drop),
            NsCommand::Setxattr(op) => op.check(self).map(drop),
            NsCommand::Removexattr(op) => op.check(self).map(drop),
            NsCommand::FreeInodes(_) => Ok(()),
        }
    }

    /// Checks the command and takes it into effect.
    ///
    /// # Errors
    /// As [`Namespace::check`]; nothing has changed then.
    pub fn apply(&mut self, command: &NsCommand) -> Result<NsOutcome, Status> {
        match command {
            NsCommand::Create(op) => op.apply(self).map(NsOutcome::Attr),
            NsCommand::Mkdir(op) => op.apply(self).map(NsOutcome::Attr),
            NsCommand::Mknod(op) => op.apply(self).map(NsOutcome::Attr),
            NsCommand::Symlink(op) => op.apply(self).map(NsOutcome::Attr),
            NsCommand::Link(op) => op.apply(self).map(NsOutcome::Attr),
            NsCommand::Unlink(op) => op.apply(self).map(NsOutcome::Removed),
            NsCommand::Rmdir(op) => op.apply(self).map(NsOutcome::Removed),
            NsCommand::Rename(op) => op.apply(self).map(NsOutcome::Renamed),
            NsCommand::Setattr(op) => op.apply(self).map(NsOutcome::Attr),
            NsCommand::Truncate(op) => op.apply(self),
            NsCommand::TruncateIntent(op) => op.apply(self).map(NsOutcome::Intended),
            NsCommand::TruncateFinal(op) => op.apply(self),
            NsCommand::Commit(op) => op.apply(self).map(NsOutcome::Attr),
            NsCommand::SetChunk(op) => op.apply(self).map(|()| NsOutcome::Done),
            NsCommand::ClearChunk(op) => op.apply(self),
            NsCommand::Setxattr(op) => op.apply(self).map(|()| NsOutcome::Done),
            NsCommand::Removexattr(op) => op.apply(self).map(|()| NsOutcome::Done),
            NsCommand::FreeInodes(op) => Ok(op.apply(self)),
        }
    }
}
