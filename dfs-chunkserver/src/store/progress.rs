//! How far a disk's scrub is, for the next process: one small file, replaced whole. It decides nothing but where a
//! scrub goes on; one that is lost or damaged means that it begins anew.

use dfs_disk::{Disk, read_file, replace_file};
use dfs_proto::checksum::crc32c;
use dfs_proto::ids::ChunkId;

use super::Store;
use super::error::StoreError;
use super::layout::SCRUB;

const MAGIC: [u8; 8] = *b"DFSSCRUB";
/// Damaged blocks that are remembered; what the file has no room for, the next scrub finds.
const DAMAGED_MAX: usize = 256;
const WORDS: usize = 6;
const LEN_MAX: usize = 8 + WORDS * 8 + 4 + DAMAGED_MAX * 12 + 4;

/// What is kept.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// Passes that ended.
    pub passes: u64,
    /// How long this pass has taken, and how long the one before took; 0 when there was none.
    pub elapsed_ms: u64,
    pub last_ms: u64,
    /// The last replica that this pass looked at; 0 when it has looked at none.
    pub cursor: ChunkId,
    /// How many it looked at.
    pub done: u64,
    /// Blocks that are damaged.
    pub damaged: Vec<(ChunkId, u32)>,
}

impl<D: Disk> Store<D> {
    /// Keeps the progress, durably. `now_s`, a wall-clock time, tells the next process how long it was away.
    ///
    /// # Errors
    /// When it could not be written: the old one is still there.
    pub fn keep_progress(&self, progress: &Progress, now_s: u64) -> Result<(), StoreError> {
        replace_file(&self.disk, SCRUB, &encode(progress, now_s)).map_err(StoreError::io("write scrub"))
    }

    /// What the last process kept, the time since then added.
    #[must_use]
    pub fn progress(&self, now_s: u64) -> Progress {
        let Ok(bytes) = read_file(&self.disk, SCRUB, LEN_MAX) else { return Progress::default() };
        match decode(&bytes) {
            Some((progress, kept_s)) => {
                let away_ms = now_s.saturating_sub(kept_s).saturating_mul(1000);
                Progress { elapsed_ms: progress.elapsed_ms.saturating_add(away_ms), ..progress }
            }
            None => {
                log::error!("{SCRUB} is damaged: the scrub begins anew");
                Progress::default()
            }
        }
    }
}

fn encode(progress: &Progress, now_s: u64) -> Vec<u8> {
    let Progress { passes, elapsed_ms, last_ms, cursor, done, damaged } = progress;
    let damaged = &damaged[..damaged.len().min(DAMAGED_MAX)];
    let mut bytes = MAGIC.to_vec();
    for word in [*passes, now_s, *elapsed_ms, *last_ms, cursor.0, *done] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.extend_from_slice(&u32::try_from(damaged.len()).unwrap_or(0).to_le_bytes());
    for (chunk, block) in damaged {
        bytes.extend_from_slice(&chunk.0.to_le_bytes());
        bytes.extend_from_slice(&block.to_le_bytes());
    }
    bytes.extend_from_slice(&crc32c(&bytes).0.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<(Progress, u64)> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    let rest = body.strip_prefix(&MAGIC)?;
    if crc32c(body).0 != u32::from_le_bytes(*crc) {
        return None;
    }
    let (words, rest) = rest.split_at_checked(WORDS * 8)?;
    let (words, _) = words.as_chunks::<8>();
    let word = |at: usize| u64::from_le_bytes(words[at]);
    let (count, rest) = rest.split_first_chunk::<4>()?;
    let (entries, []) = rest.as_chunks::<12>() else { return None };
    if usize::try_from(u32::from_le_bytes(*count)).ok()? != entries.len() {
        return None;
    }
    let entry = |bytes: &[u8; 12]| {
        let (chunk, block) = bytes.split_first_chunk::<8>()?;
        Some((ChunkId(u64::from_le_bytes(*chunk)), u32::from_le_bytes(*block.first_chunk()?)))
    };
    let damaged = entries.iter().map(entry).collect::<Option<Vec<_>>>()?;
    let progress = Progress {
        passes: word(0),
        elapsed_ms: word(2),
        last_ms: word(3),
        cursor: ChunkId(word(4)),
        done: word(5),
        damaged,
    };
    Some((progress, word(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Progress {
        Progress {
            passes: 3,
            elapsed_ms: 1_000,
            last_ms: 2_000,
            cursor: ChunkId(0x0001_0000_0000_002a),
            done: 7,
            damaged: vec![(ChunkId(5), 6), (ChunkId(7), 8)],
        }
    }

    #[test]
    fn golden_progress() {
        let bytes = encode(&sample(), 0x1122);
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        let golden = include_str!("../../tests/fixtures/scrub-v1.hex");
        assert_eq!(hex, golden.split_whitespace().collect::<String>());
        assert_eq!(decode(&bytes), Some((sample(), 0x1122)));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let bytes = encode(&sample(), 1);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&flipped), None, "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert_eq!(decode(&bytes[..len]), None, "length {len}");
        }
        let many = Progress { damaged: vec![(ChunkId(1), 2); DAMAGED_MAX + 9], ..sample() };
        let bytes = encode(&many, 1);
        assert_eq!((bytes.len(), decode(&bytes).map(|(p, _)| p.damaged.len())), (LEN_MAX, Some(DAMAGED_MAX)));
    }
}
