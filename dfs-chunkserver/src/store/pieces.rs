//! A write taken apart along block borders, and its bytes checked against the checksums that came with
//! them. Pure: it knows no file.

use dfs_proto::checksum::crc32c;
use dfs_proto::chunk::Range;
use dfs_proto::ids::ChunkId;
use dfs_proto::units::BLOCK_SIZE;

use super::error::StoreError;
use super::layout::{BLOCK, index};

/// A write: the ranges' bytes one behind the other, and a checksum for each part of a block that a range
/// covers, in order.
#[derive(Clone, Copy, Debug)]
pub struct Write<'a> {
    /// Not empty; ascending and disjoint.
    pub ranges: &'a [Range],
    pub data: &'a [u8],
    pub crcs: &'a [u32],
}

/// Bytes that lie next to each other in the chunk and are handled alike.
#[derive(Clone, Copy, Debug)]
pub(super) enum Piece<'a> {
    /// One or more whole blocks.
    Whole { block: u32, bytes: &'a [u8], crcs: &'a [u32] },
    /// A part of one block.
    Part { block: u32, start: usize, bytes: &'a [u8] },
}

impl Piece<'_> {
    pub(super) fn block(&self) -> u32 {
        match self {
            Piece::Whole { block, .. } | Piece::Part { block, .. } => *block,
        }
    }

    /// How many blocks it touches.
    pub(super) fn blocks(&self) -> u32 {
        match self {
            Piece::Whole { bytes, .. } => super::layout::small(bytes.len() / BLOCK),
            Piece::Part { .. } => 1,
        }
    }
}

impl<'a> Write<'a> {
    /// The pieces, in order, once everything fits and every checksum matches.
    pub(super) fn pieces(&self, chunk: ChunkId, chunk_size: u32) -> Result<Vec<Piece<'a>>, StoreError> {
        if !self.fits(chunk_size) {
            return Err(StoreError::Invalid);
        }
        let mut pieces = Vec::with_capacity(self.ranges.len() + 2);
        let (mut data, mut crcs) = (self.data, self.crcs);
        for range in self.ranges {
            let (bytes, rest) = data.split_at(index(range.len));
            let (sums, more) = crcs.split_at(index(range.blocks()));
            split(range.offset, bytes, sums, &mut pieces)
                .map_err(|offset| StoreError::BadChecksum { chunk, offset })?;
            (data, crcs) = (rest, more);
        }
        Ok(pieces)
    }

    /// Whether ranges, data and checksums fit each other and the chunk.
    fn fits(&self, chunk_size: u32) -> bool {
        let (mut from, mut bytes, mut blocks) = (0, 0, 0);
        for range in self.ranges {
            let Some(end) = range.offset.checked_add(range.len) else { return false };
            if range.len == 0 || range.offset < from || end > chunk_size {
                return false;
            }
            from = end;
            bytes += index(range.len);
            blocks += index(range.blocks());
        }
        !self.ranges.is_empty() && bytes == self.data.len() && blocks == self.crcs.len()
    }
}

/// Splits one range; the error is the offset of the first part that does not match.
fn split<'a>(
    offset: u32,
    mut bytes: &'a [u8],
    mut crcs: &'a [u32],
    pieces: &mut Vec<Piece<'a>>,
) -> Result<(), u32> {
    let mut at = offset;
    while !bytes.is_empty() {
        let (block, start) = (at / BLOCK_SIZE, index(at % BLOCK_SIZE));
        let whole = if start == 0 { bytes.len() / BLOCK } else { 0 };
        let (take, sums) =
            if whole > 0 { (whole * BLOCK, whole) } else { ((BLOCK - start).min(bytes.len()), 1) };
        let (part, rest) = bytes.split_at(take);
        let (part_crcs, more) = crcs.split_at(sums);
        for (n, (part, crc)) in part.chunks(BLOCK).zip(part_crcs).enumerate() {
            if crc32c(part).0 != *crc {
                return Err(at + super::layout::small(n) * BLOCK_SIZE);
            }
        }
        pieces.push(if whole > 0 {
            Piece::Whole { block, bytes: part, crcs: part_crcs }
        } else {
            Piece::Part { block, start, bytes: part }
        });
        at += super::layout::small(take);
        (bytes, crcs) = (rest, more);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(ranges: &[(u32, u32)]) -> (Vec<Range>, Vec<u8>, Vec<u32>) {
        let ranges: Vec<Range> = ranges.iter().map(|&(offset, len)| Range { offset, len }).collect();
        let mut data = Vec::new();
        let mut crcs = Vec::new();
        for range in &ranges {
            let mut at = range.offset;
            while at < range.end() {
                let end = ((at / BLOCK_SIZE + 1) * BLOCK_SIZE).min(range.end());
                let bytes: Vec<u8> = (at..end).map(|i| i.to_le_bytes()[0]).collect();
                crcs.push(crc32c(&bytes).0);
                data.extend(bytes);
                at = end;
            }
        }
        (ranges, data, crcs)
    }

    fn shape(ranges: &[(u32, u32)]) -> Vec<(u32, u32)> {
        let (ranges, data, crcs) = parts(ranges);
        let write = Write { ranges: &ranges, data: &data, crcs: &crcs };
        let pieces = write.pieces(ChunkId(1), 1 << 20).unwrap();
        pieces.iter().map(|piece| (piece.block(), piece.blocks())).collect()
    }

    #[test]
    fn ranges_split_at_block_borders() {
        assert_eq!(shape(&[(0, 4096)]), [(0, 1)]);
        assert_eq!(shape(&[(8192, 12288)]), [(2, 3)]);
        assert_eq!(shape(&[(100, 10_000)]), [(0, 1), (1, 1), (2, 1)]);
        assert_eq!(shape(&[(4095, 2 + 8192)]), [(0, 1), (1, 2), (3, 1)]);
        assert_eq!(shape(&[(0, 10), (20, 10), (4096, 4096)]), [(0, 1), (0, 1), (1, 1)]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let (ranges, data, crcs) = parts(&[(0, 5000), (6000, 10)]);
        let try_it = |ranges: &[Range], data: &[u8], crcs: &[u32], size| {
            Write { ranges, data, crcs }.pieces(ChunkId(1), size).map(|_| ())
        };
        try_it(&ranges, &data, &crcs, 8192).unwrap();
        let swapped = [ranges[1], ranges[0]];
        for (ranges, data, crcs, size) in [
            (&ranges[..], &data[1..], &crcs[..], 8192),
            (&ranges[..], &data[..], &crcs[1..], 8192),
            (&ranges[..1], &data[..], &crcs[..], 8192),
            (&ranges[..], &data[..], &crcs[..], 4096),
            (&swapped[..], &data[..], &crcs[..], 8192),
            (&[], &[], &[], 8192),
        ] {
            assert!(matches!(try_it(ranges, data, crcs, size), Err(StoreError::Invalid)));
        }
        let mut bad = data.clone();
        bad[4500] ^= 1;
        let offset = match try_it(&ranges, &bad, &crcs, 8192) {
            Err(StoreError::BadChecksum { offset, .. }) => offset,
            other => panic!("{other:?}"),
        };
        assert_eq!(offset, 4096);
    }
}
