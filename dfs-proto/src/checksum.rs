//! Checksums: CRC32C over bytes, and the digest that stands for a whole table of them.
//!
//! It computes and compares; what is done about a mismatch is its callers' business. A checksum says
//! that bytes are the bytes once summed, not that they are current: that is what versions are for.

use std::fmt;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use crate::units::BLOCK_SIZE;

/// CRC-32C (Castagnoli), the polynomial that processors compute in hardware.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Crc(pub u32);

impl Crc {
    /// The checksum of one block of zeros. A test recomputes it.
    #[must_use]
    pub const fn of_zero_block() -> Crc {
        Crc(0x98f9_4189)
    }

    /// The checksum of what this one covers followed by `len` bytes whose checksum is `next`.
    #[must_use]
    pub fn followed_by(self, next: Crc, len: u64) -> Crc {
        let both = crc_fast::checksum_combine(
            crc_fast::CrcAlgorithm::Crc32Iscsi,
            u64::from(self.0),
            u64::from(next.0),
            len,
        );
        Crc(low_half(both))
    }
}

impl fmt::Display for Crc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl fmt::Debug for Crc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Crc({:08x})", self.0)
    }
}

/// The CRC32C of `bytes`.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> Crc {
    Crc(crc_fast::crc32_iscsi(bytes))
}

/// The CRC32C of `first` followed by `second`, without joining them.
#[must_use]
pub fn crc32c_of_two(first: &[u8], second: &[u8]) -> Crc {
    if second.is_empty() {
        return crc32c(first);
    }
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    digest.update(first);
    digest.update(second);
    Crc(low_half(digest.finalize()))
}

/// The checksum of every block of `data`; a last block that is not full is summed as it is.
pub fn block_crcs(data: &[u8]) -> impl Iterator<Item = Crc> + '_ {
    data.chunks(BLOCK_SIZE as usize).map(crc32c)
}

/// A 32-bit CRC comes back from crc-fast in the low half of a u64.
fn low_half(value: u64) -> u32 {
    u32::try_from(value & u64::from(u32::MAX)).unwrap_or(0)
}

/// XXH3-128 of a table of checksums: equal digests mean equal contents, block for block.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(pub u128);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({:032x})", self.0)
    }
}

/// Whether a digest is of no bytes: of a replica without a file, or with holes alone.
#[must_use]
pub fn is_of_nothing(digest: u128) -> bool {
    digest == digest_of(&[]).0
}

/// The digest of a table of checksums, taken over their little-endian bytes.
#[must_use]
pub fn digest_of(crcs: &[u32]) -> Digest {
    // 1 KiB at a time: the hasher takes bytes, and a table may be 64 KiB.
    const AT_ONCE: usize = 256;
    let mut hasher = Xxh3::new();
    let mut bytes = [0u8; AT_ONCE * size_of::<u32>()];
    for part in crcs.chunks(AT_ONCE) {
        let used = &mut bytes[..size_of_val(part)];
        for (slot, crc) in used.chunks_exact_mut(size_of::<u32>()).zip(part) {
            slot.copy_from_slice(&crc.to_le_bytes());
        }
        hasher.update(used);
    }
    Digest(hasher.digest128())
}

/// How a table of checksums, on disk and in a COMPARE, says that a block was never written, or given back: it
/// reads as zeros, whatever the file holds there.
pub const HOLE: u32 = 0;
/// How both say that a checksum was lost, or that the block does not match it: no bytes do.
pub const LOST: u32 = 1;
/// The lowest entry that is a checksum.
const ENTRY_MIN: u32 = 2;

/// How a table holds a checksum.
#[must_use]
pub fn entry_of(crc: Crc) -> u32 {
    crc.0.max(ENTRY_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standard_check_value() {
        assert_eq!(crc32c(b"123456789"), Crc(0xe306_9283));
        assert_eq!(crc32c_of_two(b"1234", b"56789"), Crc(0xe306_9283));
        assert_eq!(crc32c(b"1234").followed_by(crc32c(b"56789"), 5), Crc(0xe306_9283));
    }

    #[test]
    fn a_zero_block() {
        assert_eq!(crc32c(&[0; BLOCK_SIZE as usize]), Crc::of_zero_block());
    }

    #[test]
    fn a_digest_is_that_of_the_little_endian_bytes() {
        let table: Vec<u32> = (0..1000u32).map(|i| i.wrapping_mul(0x9e37_79b9)).collect();
        let bytes: Vec<u8> = table.iter().flat_map(|crc| crc.to_le_bytes()).collect();
        assert_eq!(digest_of(&table).0, xxhash_rust::xxh3::xxh3_128(&bytes));
        assert_ne!(digest_of(&table), digest_of(&table[1..]));
    }
}
