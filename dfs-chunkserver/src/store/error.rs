//! What the chunk store can answer besides success. Which status goes on the wire, and whom the master
//! is told about, is decided by the callers.

use std::io;

use dfs_proto::ids::{ChunkId, ChunkVersion, ClusterId, ConfigNum, ServerId};
use dfs_proto::status::Status;

/// What is wrong with a stored block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Damage {
    /// Bytes and stored checksum disagree, or the checksum itself was lost.
    Checksum,
    /// The device can't read the sector.
    Unreadable,
}

/// Why an operation on a chunk failed. Nothing was applied unless the variant says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("chunk {0} is not on this disk")]
    NoChunk(ChunkId),
    #[error("chunk {0} is already on this disk")]
    Exists(ChunkId),
    /// The caller's bytes do not match the caller's checksum.
    #[error("bytes at {offset} of chunk {chunk} do not match their checksum")]
    BadChecksum { chunk: ChunkId, offset: u32 },
    /// To be repaired from another member; see the design's rules B2 to B4.
    #[error("block {block} of chunk {chunk} is damaged: {damage:?}")]
    Corrupt { chunk: ChunkId, block: u32, damage: Damage },
    /// Only with [`super::ReadMode::CachedOnly`]: ask again on a thread that may wait.
    #[error("would have to wait for the disk")]
    WouldBlock,
    /// The disk is down to the space kept for repair and headers.
    #[error("disk is full")]
    NoSpace,
    /// Ranges, data and checksums do not fit each other or the chunk size.
    #[error("ranges, data and checksums do not fit")]
    Invalid,
    /// Version or configuration would go backwards (I2).
    #[error("chunk {chunk} is at {version} {config}, above what was asked for")]
    Older { chunk: ChunkId, version: ChunkVersion, config: ConfigNum },
    /// The replica failed for good: a write or a sync of it did.
    #[error("replica of chunk {0} has failed")]
    Failed(ChunkId),
    /// The disk failed the operation; a replica that it changed is failed with it.
    #[error("{what}: {source}")]
    Io { what: &'static str, source: io::Error },
}

impl StoreError {
    /// For `map_err`.
    pub(super) fn io(what: &'static str) -> impl FnOnce(io::Error) -> StoreError {
        move |source| StoreError::Io { what, source }
    }

    /// For `map_err` of what changes nothing when the disk is full.
    pub(super) fn full_or_io(what: &'static str) -> impl Fn(io::Error) -> StoreError {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull => StoreError::NoSpace,
            _ => StoreError::Io { what, source },
        }
    }

    /// How the error is told to a peer.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            StoreError::NoChunk(_) => Status::NoChunk,
            StoreError::Exists(_) => Status::Exists,
            StoreError::BadChecksum { .. } => Status::BadChecksum,
            StoreError::Corrupt { .. } => Status::Corrupt,
            StoreError::WouldBlock => Status::Overloaded,
            StoreError::NoSpace => Status::NoSpace,
            StoreError::Invalid => Status::Invalid,
            StoreError::Older { .. } => Status::WrongChunkVersion,
            StoreError::Failed(_) | StoreError::Io { .. } => Status::DiskFailed,
        }
    }
}

/// Why a disk was not opened, or not made.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("another process uses this disk")]
    Locked,
    #[error("no disk.json: not a dfs disk, or never completely initialised")]
    NoLabel,
    #[error("already a dfs disk, of cluster {0}")]
    AlreadyInitialised(ClusterId),
    #[error("has no label but has chunks: the label was lost, and initialising would hide them")]
    ChunksWithoutLabel,
    #[error("belongs to cluster {found}, not {expected}")]
    ForeignCluster { found: ClusterId, expected: ClusterId },
    #[error("belongs to server {found}, not {expected}")]
    ForeignServer { found: ServerId, expected: ServerId },
    #[error("format {found} is not known to this build, which knows {known}")]
    Format { found: u32, known: u32 },
    /// A bit rotted or someone edited it. Never guessed around.
    #[error("{file} is damaged")]
    Damaged { file: &'static str },
    #[error("{what}: {source}")]
    Io { what: &'static str, source: io::Error },
}

impl OpenError {
    pub(super) fn io(what: &'static str) -> impl FnOnce(io::Error) -> OpenError {
        move |source| OpenError::Io { what, source }
    }
}
