//! How well a server's disks keep what they were given: what was found damaged, what became of it, and how far
//! the scrubs are.

use serde::{Deserialize, Serialize};

use crate::ids::{ChunkId, DiskId, Term};
use crate::meta::{Done, request};
use crate::request::{Op, Request};

/// Part of every heartbeat. What is counted is counted since the server started.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ScrubReport {
    /// Blocks found not to match their checksum, or unreadable.
    pub found: u64,
    /// Blocks replaced by another member's.
    pub mended: u64,
    /// Header slots, sectors of checksum tables, and blocks that were good in memory, written anew.
    pub rewritten: u64,
    /// Chunks whose replicas were found to differ although each matched its own checksums.
    pub diverged: u64,
    /// Blocks that are damaged now, and those of them of which no member has a good copy.
    pub damaged: u64,
    pub hopeless: u64,
    /// The first of the hopeless, at most [`BLOCKS_REPORTED`].
    pub blocks: Vec<(ChunkId, u32)>,
    pub disks: Vec<DiskScrub>,
}

/// Most blocks that a heartbeat names.
pub const BLOCKS_REPORTED: usize = 64;

/// One disk's scrub.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct DiskScrub {
    pub disk: DiskId,
    /// Passes over all replicas that ended, ever.
    pub passes: u64,
    /// Replicas that this pass has looked at, of how many.
    pub done: u64,
    pub total: u64,
    /// Bytes read since the server started.
    pub bytes: u64,
    /// How long this pass has taken, and how long it may.
    pub elapsed_s: u64,
    pub period_s: u64,
    /// Every replica was looked at within so long; `None` while some never was.
    pub oldest_s: Option<u64>,
    /// As fast as the disk can, because somebody asked for it.
    pub hurried: bool,
    /// It will not be through in time unless the disk is less busy.
    pub behind: bool,
}

/// Master to chunk server: look at all replicas now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StartScrub {
    pub term: Term,
}
request!(StartScrub => Done);
