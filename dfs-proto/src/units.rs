//! Sizes, offsets and times as types, so that units are checked by the compiler.

use serde::{Deserialize, Serialize};

/// The unit of checksums, of disk layout and of merging partial writes, in bytes.
pub const BLOCK_SIZE: u32 = 4096;
/// Smallest chunk size a cluster can be made with: 16 blocks, so that tests cross borders often.
pub const CHUNK_SIZE_MIN: u32 = 64 << 10;
/// Largest, and default, chunk size.
pub const CHUNK_SIZE_MAX: u32 = 64 << 20;
/// Longest name of a directory entry, in bytes (Linux's NAME_MAX).
pub const NAME_MAX: usize = 255;
/// Longest symlink target, in bytes (Linux's PATH_MAX with its terminator).
pub const SYMLINK_MAX: usize = 4095;
/// Largest file size in bytes: what a signed 64-bit offset can name.
pub const FILE_SIZE_MAX: u64 = i64::MAX as u64;
/// Most links to one inode (ext4's limit, which programs know).
pub const LINK_MAX: u32 = 65_000;
/// Largest value of an extended attribute, in bytes (Linux's XATTR_SIZE_MAX).
pub const XATTR_VALUE_MAX: usize = 65_536;
/// Most bytes of data in one READ or WRITE: what one FUSE request can carry.
pub const IO_MAX: u32 = 1 << 20;

/// A cluster's chunk size in bytes, fixed when the cluster is made: a power of two in
/// [`CHUNK_SIZE_MIN`]..=[`CHUNK_SIZE_MAX`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct ChunkSize(u32);

impl ChunkSize {
    /// The default: 64 MiB.
    pub const DEFAULT: ChunkSize = ChunkSize(CHUNK_SIZE_MAX);

    /// The size in bytes.
    #[must_use]
    pub fn bytes(self) -> u32 {
        self.0
    }

    /// How many blocks a full chunk has.
    #[must_use]
    pub fn blocks(self) -> u32 {
        self.0 / BLOCK_SIZE
    }

    /// Which chunk of a file holds the byte at `offset`, and where in it.
    #[must_use]
    pub fn locate(self, offset: u64) -> (ChunkIndex, u32) {
        let size = u64::from(self.0);
        // The remainder is below the chunk size, which is a u32.
        (ChunkIndex(offset / size), u32::try_from(offset % size).unwrap_or(0))
    }

    /// Where in a file a chunk begins; the last byte there can be, for one that no file has.
    #[must_use]
    pub fn start_of(self, index: ChunkIndex) -> u64 {
        index.0.saturating_mul(u64::from(self.0))
    }

    /// How many chunks a file of `len` bytes can have.
    #[must_use]
    pub fn chunks_for(self, len: u64) -> u64 {
        len.div_ceil(u64::from(self.0))
    }
}

impl TryFrom<u32> for ChunkSize {
    type Error = BadChunkSize;

    fn try_from(bytes: u32) -> Result<ChunkSize, BadChunkSize> {
        if bytes.is_power_of_two() && (CHUNK_SIZE_MIN..=CHUNK_SIZE_MAX).contains(&bytes) {
            Ok(ChunkSize(bytes))
        } else {
            Err(BadChunkSize(bytes))
        }
    }
}

impl From<ChunkSize> for u32 {
    fn from(size: ChunkSize) -> u32 {
        size.0
    }
}

/// A chunk size that is no power of two from 64 KiB to 64 MiB.
#[derive(Debug, thiserror::Error)]
#[error("chunk size {0} is not a power of two from 65536 to 67108864 bytes")]
pub struct BadChunkSize(pub u32);

/// Which chunk of a file: byte offset divided by the chunk size.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChunkIndex(pub u64);

/// A time of day with nanoseconds, as inodes carry it; seconds are negative before 1970, nanoseconds
/// always count forward from the second (0..=999_999_999).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Default, Serialize, Deserialize)]
pub struct Timespec {
    /// Seconds since 1970-01-01 00:00 UTC, rounded towards the past.
    pub sec: i64,
    /// Nanoseconds after `sec`.
    pub nsec: u32,
}

/// A point on the master's own monotonic clock, in milliseconds. Comparable only within one [`crate::ids::Term`]:
/// another master's clock has another zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MasterMs(pub u64);

/// A reading of a process's own monotonic clock (CLOCK_BOOTTIME where the kernel has it), in
/// microseconds since an arbitrary zero. Cores take it as a value and never read a clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Micros(pub u64);

impl Micros {
    /// The reading `ms` milliseconds later.
    #[must_use]
    pub fn plus_ms(self, ms: u64) -> Micros {
        Micros(self.0.saturating_add(ms.saturating_mul(1000)))
    }

    /// Whole milliseconds from `earlier` to `self`; 0 when `earlier` is later.
    #[must_use]
    pub fn ms_since(self, earlier: Micros) -> u64 {
        self.0.saturating_sub(earlier.0) / 1000
    }

    /// The reading in milliseconds, rounded down.
    #[must_use]
    pub fn as_ms(self) -> u64 {
        self.0 / 1000
    }
}
