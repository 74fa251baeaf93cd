//! Cutting a file's bytes at chunk and block borders, and the checksums of what is sent.

use bytes::Bytes;
use dfs_proto::checksum::{Crc, crc32c};
use dfs_proto::chunk::Range;
use dfs_proto::units::{BLOCK_SIZE, ChunkIndex, ChunkSize, IO_MAX};

/// A stretch of a file within one chunk and no longer than one request may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Piece {
    pub(crate) index: ChunkIndex,
    /// In the chunk.
    pub(crate) range: Range,
    /// In the file.
    pub(crate) offset: u64,
}

/// Bytes of a request that never crosses a border: the longest that fits any chunk evenly.
pub(crate) fn window(chunk: ChunkSize) -> u64 {
    u64::from(chunk.bytes().min(IO_MAX))
}

/// The pieces of `len` bytes from `offset`, in order, cut at multiples of [`window`].
pub(crate) fn pieces(chunk: ChunkSize, offset: u64, len: u64) -> Vec<Piece> {
    let window = window(chunk);
    let end = offset.saturating_add(len);
    let mut out = Vec::new();
    let mut at = offset;
    while at < end {
        let stop = (at / window + 1).saturating_mul(window).min(end);
        let (index, within) = chunk.locate(at);
        // At most IO_MAX, so it fits.
        let len = u32::try_from(stop - at).unwrap_or(IO_MAX);
        out.push(Piece { index, range: Range { offset: within, len }, offset: at });
        at = stop;
    }
    out
}

/// The part of `from..to` in the chunk at `index`, if there is one. Bytes within a chunk are counted in 32 bits.
pub(crate) fn within(chunk: ChunkSize, index: ChunkIndex, from: u64, to: u64) -> Option<Range> {
    let start = chunk.start_of(index);
    let (first, last) = (from.max(start), to.min(start.saturating_add(u64::from(chunk.bytes()))));
    let offset = u32::try_from(first.checked_sub(start)?).ok()?;
    let len = u32::try_from(last.checked_sub(first)?).ok()?;
    (len > 0).then_some(Range { offset, len })
}

/// One checksum for every part of a block that `parts`, laid one behind the other from `offset` in the
/// chunk, cover.
pub(crate) fn part_crcs(offset: u32, parts: &[Bytes], out: &mut Vec<u32>) {
    let block = usize::try_from(BLOCK_SIZE).unwrap_or(4096);
    // Bytes until the next block begins.
    let mut room = block - usize::try_from(offset % BLOCK_SIZE).unwrap_or(0);
    let mut open: Option<Crc> = None;
    for part in parts {
        let mut rest = part.as_ref();
        while !rest.is_empty() {
            let (head, tail) = rest.split_at(rest.len().min(room));
            let crc = crc32c(head);
            let len = u64::try_from(head.len()).unwrap_or(0);
            let sum = open.map_or(crc, |before| before.followed_by(crc, len));
            room -= head.len();
            if room == 0 {
                out.push(sum.0);
                open = None;
                room = block;
            } else {
                open = Some(sum);
            }
            rest = tail;
        }
    }
    out.extend(open.map(|crc| crc.0));
}

/// Whether `data`, whole blocks as a server stores them, has these checksums. A last block may be short.
pub(crate) fn blocks_match(data: &[u8], crcs: &[u8]) -> bool {
    let (crcs, rest) = crcs.as_chunks::<4>();
    let mut blocks = dfs_proto::checksum::block_crcs(data);
    rest.is_empty()
        && crcs.iter().all(|want| blocks.next() == Some(Crc(u32::from_le_bytes(*want))))
        && blocks.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_stop_at_windows_and_chunks() {
        let chunk = ChunkSize::try_from(64 << 10).unwrap();
        let cut = pieces(chunk, 65_000, 70_000);
        let lens: Vec<(u64, u32, u32)> =
            cut.iter().map(|p| (p.index.0, p.range.offset, p.range.len)).collect();
        assert_eq!(lens, [(0, 65_000, 536), (1, 0, 65_536), (2, 0, 3_928)]);
        assert!(pieces(chunk, 5, 0).is_empty());
        let big = pieces(ChunkSize::DEFAULT, (64 << 20) - 10, 3 << 20);
        assert_eq!(big.iter().map(|p| u64::from(p.range.len)).sum::<u64>(), 3 << 20);
        assert_eq!(big[0].range.len, 10);
        assert_eq!(big[1].index, ChunkIndex(1));
    }

    #[test]
    fn a_stretch_has_a_part_in_each_of_its_chunks() {
        let chunk = ChunkSize::try_from(64 << 10).unwrap();
        let part = |index, from, to| within(chunk, ChunkIndex(index), from, to).map(|r| (r.offset, r.len));
        assert_eq!(part(0, 65_000, 135_000), Some((65_000, 536)));
        assert_eq!(part(1, 65_000, 135_000), Some((0, 65_536)));
        assert_eq!(part(2, 65_000, 135_000), Some((0, 3_928)));
        assert_eq!((part(3, 65_000, 135_000), part(1, 5, 5), part(0, 65_536, 65_537)), (None, None, None));
    }

    #[test]
    fn checksums_do_not_depend_on_the_parts() {
        let data: Vec<u8> = (0..20_000u32).map(|i| (i % 251) as u8).collect();
        for offset in [0u32, 1, 4095, 4096, 5000] {
            let mut whole = Vec::new();
            part_crcs(offset, &[Bytes::from(data.clone())], &mut whole);
            let range = Range { offset, len: 20_000 };
            assert_eq!(whole.len(), usize::try_from(range.blocks()).unwrap());
            let parts: Vec<Bytes> = data.chunks(777).map(Bytes::copy_from_slice).collect();
            let mut cut = Vec::new();
            part_crcs(offset, &parts, &mut cut);
            assert_eq!(whole, cut);
        }
    }

    #[test]
    fn stored_blocks_are_checked() {
        let data = vec![7u8; 5000];
        let crcs: Vec<u8> =
            dfs_proto::checksum::block_crcs(&data).flat_map(|crc| crc.0.to_le_bytes()).collect();
        assert!(blocks_match(&data, &crcs));
        assert!(!blocks_match(&data[..4999], &crcs));
        assert!(!blocks_match(&data, &crcs[..4]));
        assert!(!blocks_match(&data[..4096], &crcs));
    }
}
