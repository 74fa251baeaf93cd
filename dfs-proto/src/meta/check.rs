//! What `dfs fsck` asks, and the findings that it and `dfs-master check` print.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{ChunkId, LogIndex, ServerNum};
use crate::meta::request;
use crate::request::{Op, Request};

/// What kind of thing a finding is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum FindingKind {
    /// Directories, names, links, attributes.
    Names,
    /// A file's pointers to chunks, its size.
    File,
    /// A chunk's version, configuration, references.
    Chunk,
    /// A chunk has fewer members than its goal. Nothing is wrong but that.
    BelowGoal,
    Tombstone,
    /// Something has an id that was never given out.
    Id,
    /// Sessions, opens, grants.
    Session,
    /// A counter differs from what a full count gives.
    Counter,
    /// A replica that is missing, or not what the map says.
    Replica,
    /// A replica that neither a file nor a tombstone names: the record that made it was lost.
    Unknown,
}

impl FindingKind {
    /// All kinds, in the order of a report.
    pub const ALL: [FindingKind; 10] = [
        FindingKind::Names,
        FindingKind::File,
        FindingKind::Chunk,
        FindingKind::BelowGoal,
        FindingKind::Tombstone,
        FindingKind::Id,
        FindingKind::Session,
        FindingKind::Counter,
        FindingKind::Replica,
        FindingKind::Unknown,
    ];

    /// As a report names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            FindingKind::Names => "names",
            FindingKind::File => "file",
            FindingKind::Chunk => "chunk",
            FindingKind::BelowGoal => "below-goal",
            FindingKind::Tombstone => "tombstone",
            FindingKind::Id => "id",
            FindingKind::Session => "session",
            FindingKind::Counter => "counter",
            FindingKind::Replica => "replica",
            FindingKind::Unknown => "unknown",
        }
    }

    /// What an operator does about it.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            FindingKind::BelowGoal => {
                "wait for the repair; if it does not come, `dfs server list` shows which servers are down or full"
            }
            FindingKind::Replica => {
                "nothing is deleted for it; if the file is named by `dfs damaged`, see `dfs repair-file`"
            }
            FindingKind::Unknown => {
                "it is left alone; a master's lost power can explain it, and so can a log that is not the newest"
            }
            FindingKind::Names
            | FindingKind::File
            | FindingKind::Chunk
            | FindingKind::Tombstone
            | FindingKind::Id
            | FindingKind::Session
            | FindingKind::Counter => {
                "a defect of the master: keep a copy of its directory, and report it with this line"
            }
        }
    }
}

/// Something that is not as it has to be.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Finding {
    pub kind: FindingKind,
    /// Which inode, chunk, session or server.
    pub object: String,
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}: {}", self.kind.name(), self.object, self.what, self.kind.advice())
    }
}

/// What a check looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Looked {
    pub inodes: u64,
    pub directories: u64,
    pub names: u64,
    pub chunks: u64,
    pub tombstones: u64,
    pub sessions: u64,
    pub servers: u64,
    /// Replicas that servers said they have.
    pub replicas: u64,
}

/// Checks the master's state as it is now, a part at a time, so that nobody else waits: `begin` takes the state,
/// and each question goes on from where the last one on this connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Fsck {
    pub begin: bool,
}
request!(Fsck => FsckPart);

/// Findings of one part: with their texts far below what a message can carry.
pub const FINDINGS_MAX: usize = 500;

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FsckPart {
    /// The last record of the state that is checked.
    pub index: LogIndex,
    /// Nothing follows.
    pub done: bool,
    pub found: Vec<Finding>,
    /// Findings beyond those that are kept.
    pub more: u64,
    pub looked: Looked,
}

/// Compares what a server has on its disks, of chunks from `from` on, with the map. What the map changed meanwhile
/// is left out; what the server is about to be told may show, so a finding counts when it is there twice.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FsckServer {
    pub server: ServerNum,
    pub from: ChunkId,
}
request!(FsckServer => FsckHeld);

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FsckHeld {
    pub found: Vec<Finding>,
    /// Replicas that were compared.
    pub replicas: u64,
    pub next: Option<ChunkId>,
}
