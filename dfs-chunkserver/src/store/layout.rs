//! Where everything lies: names on the disk and offsets in a chunk file. Only numbers and names; the
//! bytes in between are [`super::header`]'s and [`super::table`]'s.
//!
//! ```text
//! 0        header slot A, 512 bytes
//! 4096     header slot B, 512 bytes
//! 8192     table of checksums, up to 131 sectors of 512 bytes
//! 131072   data, block 0 first
//! ```

use dfs_proto::ids::ChunkId;
use dfs_proto::units::{BLOCK_SIZE, CHUNK_SIZE_MAX};

/// A block in bytes, as the index arithmetic wants it.
pub(super) const BLOCK: usize = BLOCK_SIZE as usize;
/// Offsets of the two header slots: different pages, so that no single lost page takes both.
pub(super) const SLOTS: [u64; 2] = [0, 4096];
/// First byte of the table.
pub(super) const TABLE_AT: u64 = 8192;
/// First byte of the data: the next power of two behind the largest table (8192 + 131 * 512 = 75264), so
/// that blocks are aligned to whatever the device and the filesystem like.
pub(super) const DATA_AT: u64 = 128 << 10;
/// What drives write whole or not at all.
pub(super) const SECTOR: usize = 512;
/// Entries of one table sector: (512 - 4 binding - 4 checksum) / 4.
pub(super) const SECTOR_ENTRIES: usize = 126;
/// Sectors of the largest chunk's table.
pub(super) const SECTORS_MAX: usize = (CHUNK_SIZE_MAX as usize / BLOCK).div_ceil(SECTOR_ENTRIES);

const _: () = assert!(TABLE_AT + (SECTORS_MAX * SECTOR) as u64 <= DATA_AT);

pub(super) const LABEL: &str = "disk.json";
pub(super) const MHWM: &str = "mhwm";
pub(super) const BOOT: &str = "boot";
pub(super) const CLEAN: &str = "clean";
pub(super) const FENCES: &str = "fence.log";
/// Before the id of the kernel under which a sync of the disk failed.
pub(super) const SUSPECT: &str = "suspect-";
pub(super) const SCRUB: &str = "scrub";
pub(super) const EVIDENCE: &str = "evidence.log";
pub(super) const CHUNKS: &str = "chunks";
pub(super) const TRASH: &str = "trash";
pub(super) const LOST: &str = "lost+found";

/// The file offset of a block's data.
pub(super) fn data_at(block: u32) -> u64 {
    DATA_AT + u64::from(block) * u64::from(BLOCK_SIZE)
}

/// A block number or count as an index.
pub(super) fn index(value: u32) -> usize {
    usize::try_from(value).expect("usize has 32 bits or more")
}

/// An index or count of blocks or bytes within a chunk, which has at most 64 Mi of them.
pub(super) fn small(value: usize) -> u32 {
    u32::try_from(value).expect("bounded by the chunk size")
}

/// The directory of a chunk: by the low byte of its id, so that chunks allocated one after the other
/// spread over all 256.
pub(super) fn chunk_dir(id: ChunkId) -> String {
    format!("{CHUNKS}/{:02x}", id.0 & 0xff)
}

/// A chunk's file, from the disk's root.
#[must_use]
pub fn chunk_path(id: ChunkId) -> String {
    format!("{CHUNKS}/{:02x}/{id}.chunk", id.0 & 0xff)
}

/// The chunk that a file of the directory `chunks/XX` is named for. `None` for any other name.
pub(super) fn chunk_of(dir: u8, name: &str) -> Option<ChunkId> {
    let id = parse_id(name.strip_suffix(".chunk")?)?;
    (id.0 & 0xff == u64::from(dir)).then_some(id)
}

/// A chunk's name in the trash: when it was put there, its id, and a number that keeps names apart.
pub(super) fn trash_name(at_s: u64, id: ChunkId, n: u64) -> String {
    format!("{at_s:016x}-{id}-{n:x}.chunk")
}

/// When the file of this name in the trash was put there.
pub(super) fn trash_time(name: &str) -> Option<u64> {
    let (time, rest) = name.split_once('-')?;
    parse_id(rest.split_once('-')?.0)?;
    Some(parse_id(time)?.0)
}

/// Exactly 16 lower-case hex digits.
fn parse_id(text: &str) -> Option<ChunkId> {
    let exact = text.len() == 16 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if exact { u64::from_str_radix(text, 16).ok().map(ChunkId) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        let id = ChunkId(0x0001_0000_0000_12ab);
        assert_eq!(chunk_path(id), "chunks/ab/00010000000012ab.chunk");
        assert_eq!(chunk_of(0xab, "00010000000012ab.chunk"), Some(id));
        for wrong in ["00010000000012AB.chunk", "00010000000012ab", "x.chunk", "+0010000000012ab.chunk"] {
            assert_eq!(chunk_of(0xab, wrong), None, "{wrong}");
        }
        assert_eq!(chunk_of(0xac, "00010000000012ab.chunk"), None);
        assert_eq!(trash_time(&trash_name(77, id, 3)), Some(77));
        assert_eq!(trash_time("keep me"), None);
    }
}
