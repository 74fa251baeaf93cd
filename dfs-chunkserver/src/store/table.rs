//! A chunk's table of checksums, in memory and in its sectors. It computes no checksum of data.
//!
//! An entry is 32 bits: [`HOLE`], [`UNKNOWN`], or a CRC32C. The two low values are taken, so a checksum
//! of 0, 1 or 2 is stored as 2: one value stands for three, which weakens the check of such a block from
//! 32 bits to 30.4 and costs no space.
//!
//! Invariant, on which "no checksum" never reads as "skip the check" rests: before the file's length
//! reaches into the blocks of a table sector, nothing of it counts; from then on the sector has been
//! written. So a sector of zeros below the length is damage, and all its entries become [`UNKNOWN`],
//! which no bytes match.

use dfs_proto::checksum::{Digest, crc32c, digest_of};
pub(super) use dfs_proto::checksum::{HOLE, entry_of};
use dfs_proto::ids::ChunkId;
use zerocopy::IntoBytes;

use super::layout::{SECTOR, SECTOR_ENTRIES, SECTORS_MAX, index, small};

/// The block's checksum was lost. Nothing matches it.
pub(super) const UNKNOWN: u32 = 1;

/// Which sector holds a block's entry.
pub(super) fn sector_of(block: u32) -> usize {
    index(block) / SECTOR_ENTRIES
}

#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    /// Whole sectors' worth.
    entries: Vec<u32>,
    /// One above the last block that is not a hole.
    extent: u32,
}

impl Table {
    /// How many bytes of table a file with `blocks` blocks of data (by its length) has.
    pub(super) fn bytes_for(blocks: u32) -> usize {
        index(blocks).div_ceil(SECTOR_ENTRIES) * SECTOR
    }

    /// Reads the sectors of a file whose length covers `blocks` blocks; what `bytes` lacks counts as
    /// zeros. Also says how many sectors are damaged.
    pub(super) fn load(bytes: &[u8], chunk: ChunkId, blocks: u32) -> (Table, u32) {
        let sectors = index(blocks).div_ceil(SECTOR_ENTRIES).min(SECTORS_MAX);
        let mut entries = Vec::with_capacity(sectors * SECTOR_ENTRIES);
        let mut damaged = 0;
        for number in 0..sectors {
            let sector = bytes.get(number * SECTOR..(number + 1) * SECTOR);
            match sector.and_then(|sector| decode(sector, chunk, number)) {
                Some(values) => entries.extend(values),
                None => {
                    damaged += 1;
                    // Beyond the length there is no data to be unsure of.
                    let first = number * SECTOR_ENTRIES;
                    let below = (index(blocks) - first).min(SECTOR_ENTRIES);
                    entries.resize(first + below, UNKNOWN);
                    entries.resize(first + SECTOR_ENTRIES, HOLE);
                }
            }
        }
        let mut table = Table { entries, extent: 0 };
        table.measure();
        (table, damaged)
    }

    /// Which sectors of [`Table::load`]'s bytes are damaged.
    pub(super) fn damaged_sectors(bytes: &[u8], chunk: ChunkId) -> Vec<usize> {
        let (sectors, _) = bytes.as_chunks::<SECTOR>();
        let damaged = |(number, sector): &(usize, &[u8; SECTOR])| decode(*sector, chunk, *number).is_none();
        sectors.iter().enumerate().filter(damaged).map(|(number, _)| number).collect()
    }

    pub(super) fn get(&self, block: u32) -> u32 {
        self.entries.get(index(block)).copied().unwrap_or(HOLE)
    }

    /// One above the last block that is not a hole.
    pub(super) fn extent(&self) -> u32 {
        self.extent
    }

    /// How many sectors a file with this table has written.
    pub(super) fn sectors(&self) -> usize {
        self.entries.len() / SECTOR_ENTRIES
    }

    /// Sets an entry. The sectors that come into being on the way must be written with it.
    pub(super) fn set(&mut self, block: u32, entry: u32) {
        let at = index(block);
        if at >= self.entries.len() {
            self.entries.resize((at / SECTOR_ENTRIES + 1) * SECTOR_ENTRIES, HOLE);
        }
        self.entries[at] = entry;
        if entry != HOLE {
            self.extent = self.extent.max(block + 1);
        } else if block + 1 == self.extent {
            self.measure();
        }
    }

    fn measure(&mut self) {
        self.extent = small(self.entries.iter().rposition(|&entry| entry != HOLE).map_or(0, |at| at + 1));
    }

    /// Appends the bytes of sector `number` to `out`.
    pub(super) fn encode_sector(&self, number: usize, chunk: ChunkId, out: &mut Vec<u8>) {
        let start = out.len();
        for entry in &self.entries[number * SECTOR_ENTRIES..(number + 1) * SECTOR_ENTRIES] {
            out.extend_from_slice(&entry.to_le_bytes());
        }
        out.extend_from_slice(&binding(chunk, number).to_le_bytes());
        let crc = crc32c(&out[start..]);
        out.extend_from_slice(&crc.0.to_le_bytes());
    }

    /// The entries up to the extent.
    pub(super) fn used(&self) -> &[u32] {
        &self.entries[..index(self.extent)]
    }

    /// Equal for members with equal bytes: trailing holes do not count.
    pub(super) fn digest(&self) -> Digest {
        digest_of(self.used())
    }
}

/// Binds a sector to its place, so that one written elsewhere by mistake is not believed there.
fn binding(chunk: ChunkId, number: usize) -> u32 {
    let words = [chunk.0.to_le(), u64::from(small(number)).to_le()];
    crc32c(words.as_bytes()).0
}

fn decode(sector: &[u8], chunk: ChunkId, number: usize) -> Option<impl Iterator<Item = u32>> {
    let (words, _) = sector.as_chunks::<4>();
    let word = |at: usize| u32::from_le_bytes(words[at]);
    let good = word(SECTOR_ENTRIES) == binding(chunk, number)
        && word(SECTOR_ENTRIES + 1) == crc32c(&sector[..SECTOR - 4]).0;
    good.then(|| words[..SECTOR_ENTRIES].iter().map(|word| u32::from_le_bytes(*word)))
}

#[cfg(test)]
mod tests {
    use dfs_proto::checksum::Crc;

    use super::*;

    const CHUNK: ChunkId = ChunkId(0x0001_0000_0000_002a);

    fn sample() -> (Table, Vec<u8>) {
        let mut table = Table::default();
        table.set(0, entry_of(Crc(0xdead_beef)));
        table.set(2, entry_of(Crc(0)));
        table.set(3, entry_of(Crc(2)));
        table.set(125, UNKNOWN);
        table.set(126, entry_of(Crc::of_zero_block()));
        let mut bytes = Vec::new();
        for number in 0..table.sectors() {
            table.encode_sector(number, CHUNK, &mut bytes);
        }
        (table, bytes)
    }

    #[test]
    fn golden_table_sector() {
        let golden = include_str!("../../tests/fixtures/table-sector-v1.hex");
        let (table, bytes) = sample();
        let hex: String = bytes[..SECTOR].iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, golden.split_whitespace().collect::<String>());
        let (back, damaged) = Table::load(&bytes, CHUNK, 127);
        assert_eq!((back.used(), damaged), (table.used(), 0));
        assert_eq!(back.digest(), table.digest());
    }

    #[test]
    fn every_flipped_bit_makes_its_sector_unknown_and_no_other() {
        let (table, bytes) = sample();
        for bit in 0..SECTOR * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let (back, damaged) = Table::load(&flipped, CHUNK, 127);
            assert_eq!(damaged, 1, "bit {bit}");
            assert!(back.used()[..126].iter().all(|&entry| entry == UNKNOWN));
            assert_eq!(back.get(126), table.get(126));
        }
    }

    #[test]
    fn a_sector_of_zeros_is_damage_below_the_length_and_holes_above() {
        let (_, mut bytes) = sample();
        bytes[SECTOR..].fill(0);
        let (table, damaged) = Table::load(&bytes, CHUNK, 130);
        assert_eq!((damaged, table.get(126), table.get(129), table.get(130)), (1, UNKNOWN, UNKNOWN, HOLE));
        let (table, damaged) = Table::load(&bytes, CHUNK, 126);
        assert_eq!((damaged, table.get(126)), (0, HOLE));
        let (table, damaged) = Table::load(&[], CHUNK, 1);
        assert_eq!((damaged, table.extent()), (1, 1));
    }

    #[test]
    fn a_sector_in_the_wrong_place_is_not_believed() {
        let (_, bytes) = sample();
        assert_eq!(Table::load(&bytes, ChunkId(1), 127).1, 2);
        let swapped = [&bytes[SECTOR..], &bytes[..SECTOR]].concat();
        assert_eq!(Table::load(&swapped, CHUNK, 127).1, 2);
    }

    #[test]
    fn the_extent_follows_the_last_block() {
        let (mut table, _) = sample();
        assert_eq!((table.extent(), table.sectors()), (127, 2));
        table.set(126, HOLE);
        assert_eq!(table.extent(), 126);
        table.set(125, HOLE);
        assert_eq!(table.extent(), 4);
    }
}
