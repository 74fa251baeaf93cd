//! What is written: every sector of 512 bytes names its write, its file and its place, and fills the rest
//! with a pattern of them, so that a byte in the wrong place or of two writes is seen.

use super::FileNum;

/// Bytes of a sector: what a drive writes whole or not at all, so that a torn block is a mix of sectors,
/// each of which is some write's.
pub const SECTOR: usize = 512;
const WORDS: usize = SECTOR / 8;
const MAGIC: u64 = u64::from_le_bytes(*b"DFSSTAMP");

/// A write's unique number; 0 stands for bytes never written, or cut off by a truncation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Default)]
pub struct Stamp(pub u64);

impl Stamp {
    pub const ZERO: Stamp = Stamp(0);
}

/// What a sector was found to hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    Stamp(Stamp),
    /// Bytes that no write put there.
    Garbage,
}

fn pattern(stamp: Stamp, file: FileNum, sector: u64) -> u64 {
    let mut z = stamp.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (u64::from(file.0) << 48) ^ sector;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z ^ (z >> 31)
}

/// The bytes of `count` sectors from `first` on.
#[must_use]
pub fn fill(stamp: Stamp, file: FileNum, first: u64, count: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(usize::try_from(count).unwrap_or(0) * SECTOR);
    for sector in first..first + count {
        let seed = pattern(stamp, file, sector);
        for word in [MAGIC, stamp.0, u64::from(file.0), sector] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        for word in 4..WORDS as u64 {
            bytes.extend_from_slice(&seed.wrapping_add(word).to_le_bytes());
        }
    }
    bytes
}

/// What one sector holds.
#[must_use]
pub fn look(bytes: &[u8], file: FileNum, sector: u64) -> Found {
    if bytes.iter().all(|byte| *byte == 0) {
        return Found::Stamp(Stamp::ZERO);
    }
    let (words, rest) = bytes.as_chunks::<8>();
    let word = |at: usize| words.get(at).map(|word| u64::from_le_bytes(*word));
    let (Some(MAGIC), Some(stamp)) = (word(0), word(1)) else { return Found::Garbage };
    let seed = pattern(Stamp(stamp), file, sector);
    let head = word(2) == Some(u64::from(file.0)) && word(3) == Some(sector);
    let tail = (4..WORDS).all(|at| word(at) == Some(seed.wrapping_add(at as u64)));
    if head && tail && rest.is_empty() && words.len() == WORDS {
        Found::Stamp(Stamp(stamp))
    } else {
        Found::Garbage
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sector_knows_its_write_and_its_place() {
        let (file, stamp) = (FileNum(3), Stamp(77));
        let bytes = fill(stamp, file, 10, 2);
        assert_eq!(look(&bytes[..SECTOR], file, 10), Found::Stamp(stamp));
        assert_eq!(look(&bytes[SECTOR..], file, 11), Found::Stamp(stamp));
        assert_eq!(look(&bytes[..SECTOR], file, 11), Found::Garbage);
        assert_eq!(look(&bytes[..SECTOR], FileNum(4), 10), Found::Garbage);
        assert_eq!(look(&[0; SECTOR], file, 10), Found::Stamp(Stamp::ZERO));
        let mut torn = bytes[..SECTOR].to_vec();
        torn[400] ^= 1;
        assert_eq!(look(&torn, file, 10), Found::Garbage);
    }
}
