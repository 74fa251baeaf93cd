//! The bytes of one simulated file: what a process reads now, and what the platter holds.
//!
//! For each page written since the last sync the older, durable page is set aside. A power cut then
//! decides sector by sector which of the two is found. That a dirty page may have been written back
//! between two writes is decided when it is overwritten, so any version since the sync can be the one
//! that survives. Names, space limits and faults are not known here.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::ops::Range;

use super::rng::Rng;

/// The unit of the page cache.
const PAGE: usize = 4096;
const PAGE_U64: u64 = 4096;
/// What a drive writes whole or not at all.
const SECTOR: usize = 512;
const SECTOR_U64: u64 = 512;

type Page = Box<[u8; PAGE]>;

#[derive(Clone, Debug)]
enum Slot {
    Hole,
    /// Space held by an allocation, not written: reads as zeros.
    Reserved,
    Data(Page),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Image {
    slots: Vec<Slot>,
    len: u64,
    durable_len: u64,
    /// What the platter holds of each page that memory holds newer; `None` is zeros.
    undo: BTreeMap<usize, Option<Page>>,
    /// The same for pages whose write-back failed: the kernel takes them for clean, and no later sync
    /// writes them.
    lost: BTreeMap<usize, Option<Page>>,
    /// Pages that take space.
    pages: u64,
    /// The name is gone: space is no longer counted.
    pub(super) unlinked: bool,
}

fn zeros() -> Page {
    Box::new([0; PAGE])
}

fn index(offset: u64) -> usize {
    usize::try_from(offset / PAGE_U64).expect("simulated files fit in memory")
}

fn within(offset: u64) -> usize {
    usize::try_from(offset % PAGE_U64).expect("below the page size")
}

/// Copies each of the eight sectors whose coin says so.
fn copy_some_sectors(from: &[u8; PAGE], to: &mut [u8; PAGE], which: Range<usize>, coins: u64) {
    for sector in which.start / SECTOR..which.end.div_ceil(SECTOR) {
        if coins >> sector & 1 == 1 {
            let range = sector * SECTOR..(sector + 1) * SECTOR;
            to[range.clone()].copy_from_slice(&from[range]);
        }
    }
}

impl Image {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Whether a sync would have anything to do.
    pub(super) fn is_dirty(&self) -> bool {
        !self.undo.is_empty() || self.len != self.durable_len
    }

    /// Bytes of space taken.
    pub(super) fn space(&self) -> u64 {
        if self.unlinked { 0 } else { self.pages * PAGE_U64 }
    }

    /// Bytes of new space that a write or allocation of the range would take.
    pub(super) fn space_for(&self, offset: u64, len: u64) -> u64 {
        if len == 0 || self.unlinked {
            return 0;
        }
        let (first, last) = (index(offset), index(offset + len - 1));
        let held =
            self.slots.iter().take(last + 1).skip(first).filter(|slot| !matches!(slot, Slot::Hole)).count();
        ((last - first + 1) - held) as u64 * PAGE_U64
    }

    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> usize {
        let n = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX).min(buf.len());
        let mut done = 0;
        while done < n {
            let at = offset + done as u64;
            let (start, take) = (within(at), (n - done).min(PAGE - within(at)));
            let out = &mut buf[done..done + take];
            match self.slots.get(index(at)) {
                Some(Slot::Data(page)) => out.copy_from_slice(&page[start..start + take]),
                Some(Slot::Hole | Slot::Reserved) | None => out.fill(0),
            }
            done += take;
        }
        n
    }

    pub(super) fn write(&mut self, bufs: &[IoSlice<'_>], offset: u64, rng: &mut Rng) {
        let mut at = offset;
        for buf in bufs {
            let mut rest: &[u8] = buf;
            while !rest.is_empty() {
                let take = rest.len().min(PAGE - within(at));
                self.write_part(at, &rest[..take], rng);
                rest = &rest[take..];
                at += take as u64;
            }
        }
        self.len = self.len.max(at);
    }

    fn write_part(&mut self, at: u64, bytes: &[u8], rng: &mut Rng) {
        let (page, start) = (index(at), within(at));
        self.set_aside(page, start..start + bytes.len(), rng);
        if !matches!(self.slots[page], Slot::Data(_)) {
            self.fill_slot(page, Slot::Data(zeros()));
        }
        if let Slot::Data(data) = &mut self.slots[page] {
            data[start..start + bytes.len()].copy_from_slice(bytes);
        }
    }

    /// Keeps what the platter holds of `page` before `which` of it changes in memory.
    fn set_aside(&mut self, page: usize, which: Range<usize>, rng: &mut Rng) {
        if self.slots.len() <= page {
            self.slots.resize(page + 1, Slot::Hole);
        }
        let live = match &self.slots[page] {
            Slot::Data(data) => Some(data),
            Slot::Hole | Slot::Reserved => None,
        };
        if let Some(durable) = self.undo.get_mut(&page) {
            // Dirty already: any sector of it may have reached the platter meanwhile.
            let coins = rng.bits();
            match live {
                Some(live) => copy_some_sectors(live, durable.get_or_insert_with(zeros), which, coins),
                None => {
                    if let Some(durable) = durable {
                        copy_some_sectors(&[0; PAGE], durable, which, coins);
                    }
                }
            }
            return;
        }
        let durable = self.lost.remove(&page).unwrap_or_else(|| live.cloned());
        self.undo.insert(page, durable);
    }

    fn fill_slot(&mut self, page: usize, slot: Slot) {
        let was = !matches!(self.slots[page], Slot::Hole);
        let is = !matches!(slot, Slot::Hole);
        self.slots[page] = slot;
        self.pages = self.pages + u64::from(is) - u64::from(was);
    }

    pub(super) fn allocate(&mut self, offset: u64, len: u64) {
        if len == 0 {
            return;
        }
        let (first, last) = (index(offset), index(offset + len - 1));
        if self.slots.len() <= last {
            self.slots.resize(last + 1, Slot::Hole);
        }
        for page in first..=last {
            if matches!(self.slots[page], Slot::Hole) {
                self.fill_slot(page, Slot::Reserved);
            }
        }
    }

    pub(super) fn punch(&mut self, offset: u64, len: u64, rng: &mut Rng) {
        let end = (offset + len).min(self.slots.len() as u64 * PAGE_U64);
        let mut at = offset;
        while at < end {
            let (page, start) = (index(at), within(at));
            let take = (PAGE - start).min(usize::try_from(end - at).unwrap_or(PAGE));
            if matches!(self.slots[page], Slot::Data(_)) {
                self.set_aside(page, start..start + take, rng);
            }
            if take == PAGE {
                self.fill_slot(page, Slot::Hole);
            } else if let Slot::Data(data) = &mut self.slots[page] {
                data[start..start + take].fill(0);
            }
            at += take as u64;
        }
    }

    pub(super) fn set_len(&mut self, len: u64, rng: &mut Rng) {
        if len < self.len {
            let end = self.slots.len() as u64 * PAGE_U64;
            self.punch(len, end.saturating_sub(len), rng);
        }
        self.len = len;
    }

    pub(super) fn sync(&mut self) {
        self.undo.clear();
        self.durable_len = self.len;
    }

    /// What a failed fdatasync leaves: some sectors were written, the rest never will be, and each page
    /// either still shows its new bytes until it is evicted, or shows the old ones at once.
    pub(super) fn fail_sync(&mut self, rng: &mut Rng) {
        for (page, mut durable) in std::mem::take(&mut self.undo) {
            self.write_back_some(page, &mut durable, rng.bits());
            if rng.coin() {
                self.revert(page, durable);
            } else {
                self.lost.insert(page, durable);
            }
        }
        if rng.coin() {
            self.durable_len = self.len;
        }
    }

    /// Replaces what a process saw by what the platter holds.
    pub(super) fn power_cut(&mut self, rng: &mut Rng) {
        let survive = rng.below(3);
        for (page, mut durable) in std::mem::take(&mut self.undo) {
            match survive {
                // Nothing was written back yet: what is lost whole leaves no torn block to be found by.
                0 => {}
                1 if rng.coin() => self.write_back_some(page, &mut durable, u64::MAX),
                1 => {}
                _ => self.write_back_some(page, &mut durable, rng.bits()),
            }
            self.revert(page, durable);
        }
        for (page, durable) in std::mem::take(&mut self.lost) {
            self.revert(page, durable);
        }
        // The length is metadata of its own: the old one, the new one, or where write-back had got to,
        // which is no place inside a sector.
        let (low, high) = (self.len.min(self.durable_len), self.len.max(self.durable_len));
        let len = match rng.below(3) {
            0 => self.durable_len,
            1 => self.len,
            _ => ((low + rng.below(high - low + 1)) / SECTOR_U64 * SECTOR_U64).max(low),
        };
        self.len = self.slots.len() as u64 * PAGE_U64;
        self.set_len(len, rng);
        self.sync();
    }

    /// The sectors of which `coins` has the bit.
    fn write_back_some(&self, page: usize, durable: &mut Option<Page>, coins: u64) {
        match &self.slots[page] {
            Slot::Data(live) => copy_some_sectors(live, durable.get_or_insert_with(zeros), 0..PAGE, coins),
            Slot::Hole | Slot::Reserved => {
                if let Some(durable) = durable {
                    copy_some_sectors(&[0; PAGE], durable, 0..PAGE, coins);
                }
            }
        }
    }

    fn revert(&mut self, page: usize, durable: Option<Page>) {
        match durable {
            Some(data) => self.fill_slot(page, Slot::Data(data)),
            None => self.fill_slot(page, Slot::Hole),
        }
    }

    /// Rots one bit, in memory and on the platter. False when there is no data at `offset`.
    pub(super) fn flip_bit(&mut self, offset: u64, bit: u32) -> bool {
        let (page, at) = (index(offset), within(offset));
        for kept in [self.undo.get_mut(&page), self.lost.get_mut(&page)].into_iter().flatten().flatten() {
            kept[at] ^= 1 << (bit % 8);
        }
        match self.slots.get_mut(page) {
            Some(Slot::Data(data)) if offset < self.len => {
                data[at] ^= 1 << (bit % 8);
                true
            }
            Some(Slot::Data(_) | Slot::Hole | Slot::Reserved) | None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(image: &Image) -> Vec<u8> {
        let mut buf = vec![0; usize::try_from(image.len()).unwrap()];
        image.read(&mut buf, 0);
        buf
    }

    #[test]
    fn every_version_since_the_sync_can_survive_and_no_other() {
        let mut seen = [0u32; 4];
        for seed in 0..200 {
            let mut rng = Rng::new(seed);
            let mut image = Image::default();
            image.write(&[IoSlice::new(&[0; 1024])], 0, &mut rng);
            image.sync();
            for version in 1..4 {
                image.write(&[IoSlice::new(&[version; 1024])], 0, &mut rng);
            }
            image.power_cut(&mut rng);
            let bytes = read_all(&image);
            for sector in bytes.chunks(SECTOR) {
                assert!(sector.iter().all(|&b| b == sector[0]), "torn inside a sector");
                seen[usize::from(sector[0])] += 1;
            }
        }
        assert!(seen.iter().all(|&n| n > 0), "{seen:?}");
    }

    #[test]
    fn a_failed_sync_loses_bytes_that_a_later_sync_does_not_bring_back() {
        let mut lost = 0;
        for seed in 0..50 {
            let mut rng = Rng::new(seed);
            let mut image = Image::default();
            image.write(&[IoSlice::new(&[1; 512])], 0, &mut rng);
            image.sync();
            image.write(&[IoSlice::new(&[2; 512])], 0, &mut rng);
            image.fail_sync(&mut rng);
            image.sync();
            image.power_cut(&mut rng);
            lost += u32::from(read_all(&image)[0] == 1);
        }
        assert!(lost > 10, "{lost}");
    }

    #[test]
    fn space_counts_pages_once() {
        let mut rng = Rng::new(1);
        let mut image = Image::default();
        assert_eq!(image.space_for(0, 5000), 8192);
        image.allocate(0, 5000);
        assert_eq!((image.space(), image.space_for(0, 5000), image.len()), (8192, 0, 0));
        image.write(&[IoSlice::new(&[1; 5000])], 0, &mut rng);
        assert_eq!((image.space(), image.len()), (8192, 5000));
        image.punch(0, 4096, &mut rng);
        assert_eq!(image.space(), 4096);
        image.set_len(10, &mut rng);
        image.set_len(5000, &mut rng);
        assert_eq!((image.space(), read_all(&image)), (0, vec![0; 5000]));
    }
}
