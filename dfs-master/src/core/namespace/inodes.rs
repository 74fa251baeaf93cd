//! The table of inodes: pages of 64 packed records under a copy-on-write tree.
//!
//! It stores and finds inodes whole; what their fields mean to each other is the operations' business.

use dfs_proto::ids::Ino;

use super::inode::Inode;
use crate::core::table::packed::Packed;
use crate::core::table::tree::{Page, Tree};
use crate::core::table::{ids_of, rank};

#[derive(Clone, Debug, Default)]
pub(crate) struct InodeTable {
    tree: Tree<RecordPage>,
    len: u64,
}

/// Bit `n` of `used` says whether slot `n` has a record.
#[derive(Clone, Debug, Default)]
struct RecordPage {
    used: u64,
    records: Packed,
}

impl Page for RecordPage {
    fn is_empty(&self) -> bool {
        self.used == 0
    }
}

/// Room for a record of any content, so that encoding one allocates once.
const RECORD_MAX: usize = 128;

impl InodeTable {
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    fn record(&self, ino: Ino) -> Option<&[u8]> {
        let (page, slot) = self.tree.page(ino.0)?;
        (page.used >> slot & 1 == 1).then(|| page.records.get(rank(page.used, slot)))
    }

    pub(crate) fn contains(&self, ino: Ino) -> bool {
        self.record(ino).is_some()
    }

    pub(crate) fn get(&self, ino: Ino) -> Option<Inode> {
        // Only records that `encode` made or `load` checked are in the table.
        self.record(ino).and_then(Inode::decode)
    }

    /// Puts an inode, or replaces it.
    pub(crate) fn set(&mut self, ino: Ino, inode: &Inode) {
        let mut record = Vec::with_capacity(RECORD_MAX);
        inode.encode(&mut record);
        self.set_record(ino, &record);
    }

    fn set_record(&mut self, ino: Ino, record: &[u8]) {
        let (page, slot) = self.tree.page_or_new(ino.0);
        let at = rank(page.used, slot);
        if page.used >> slot & 1 == 1 {
            page.records.replace(at, record);
        } else {
            page.records.insert(at, record);
            page.used |= 1 << slot;
            self.len += 1;
        }
    }

    /// Puts a record that a snapshot holds; `None` if it is none.
    pub(crate) fn load(&mut self, ino: Ino, record: &[u8]) -> Option<Inode> {
        let inode = Inode::decode(record)?;
        self.set_record(ino, record);
        Some(inode)
    }

    pub(crate) fn remove(&mut self, ino: Ino) {
        if !self.contains(ino) {
            return;
        }
        let Some((page, slot)) = self.tree.page_mut(ino.0) else { return };
        page.records.remove(rank(page.used, slot));
        page.used &= !(1 << slot);
        if page.used == 0 {
            self.tree.drop_page(ino.0);
        }
        self.len -= 1;
    }

    /// All records by rising number.
    pub(crate) fn records(&self) -> impl Iterator<Item = (Ino, &[u8])> {
        self.records_from(0)
    }

    /// The records from `ino` on, by rising number.
    pub(crate) fn records_from(&self, ino: u64) -> impl Iterator<Item = (Ino, &[u8])> {
        self.tree.pages_from(ino).flat_map(move |(base, page)| {
            ids_of(base, page.used).map(Ino).zip(page.records.iter()).skip_while(move |(at, _)| at.0 < ino)
        })
    }
}
