//! Chunk server to master: what it needs to keep a copy of the master's snapshots and log, file by file, and what it has.
//!
//! The master gives out bytes as they lie in its files, and of the log only those that are durable there. The server asks,
//! so a slow one delays nobody, and the master remembers nothing of it.

use serde::{Deserialize, Serialize};

use crate::checksum::Crc;
use crate::ids::{Generation, LogIndex};
use crate::meta::request;
use crate::request::{Op, Request};
use crate::units::ChunkSize;

/// Which files are there. Refused on hold: a copy must not follow a log that may be the wrong one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ListLog {}
request!(ListLog => LogListing);

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LogListing {
    /// The cluster's, now.
    pub generation: Generation,
    pub about: ClusterFacts,
    /// Verified ones, oldest first.
    pub snapshots: Vec<ListedSnapshot>,
    /// Oldest first, without a gap.
    pub segments: Vec<ListedSegment>,
    /// The last record in the durable part of the segments.
    pub durable: LogIndex,
}

/// Most files of one kind in a listing: 1 TiB of log.
pub const LOG_FILES_MAX: usize = 16_384;

/// What a master's directory says of its cluster, besides whose it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClusterFacts {
    /// The generation that the directory was made in.
    pub made_in: Generation,
    pub chunk_size: ChunkSize,
    pub goal: u8,
    /// Seconds since 1970.
    pub created: i64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ListedSnapshot {
    pub index: LogIndex,
    pub len: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ListedSegment {
    /// The number of its first record, which names it.
    pub first: u64,
    /// Bytes that are durable: all of it, but for the last.
    pub len: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Serialize, Deserialize)]
pub enum LogFile {
    Snapshot(LogIndex),
    Segment(u64),
}

/// Some bytes of a file, which come as the reply's payload: fewer at the end of what is durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReadLog {
    /// As listed. Refused when the cluster's has changed.
    pub generation: Generation,
    pub file: LogFile,
    pub offset: u64,
    /// At most [`LOG_READ_MAX`].
    pub len: u32,
    /// The checksum of the last [`LOG_TAIL`] bytes, or all that there are, before `offset` in the copy.
    pub before: Option<Crc>,
}
request!(ReadLog => LogBytes);

/// Most bytes of one [`ReadLog`].
pub const LOG_READ_MAX: u32 = 1 << 20;

/// Bytes by which a file is known again: some records, each with its number, its time and a checksum of its own.
pub const LOG_TAIL: u64 = 4096;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LogBytes {
    /// False: the file is not the one that the copy is of. Then no bytes come.
    pub same: bool,
    /// Of the payload, which no checksum of the frame covers.
    pub crc: Crc,
}

/// What a server has of the log; part of every heartbeat.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct CopyReport {
    pub generation: Generation,
    /// The last record that is durable there.
    pub index: LogIndex,
    /// How long ago the copy had all that the master had; `None` if it never did since the server started.
    pub whole_ms: Option<u64>,
    /// Why it does not go on, in words.
    pub trouble: Option<String>,
}
