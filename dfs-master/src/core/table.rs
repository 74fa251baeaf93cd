//! A copy-on-write table keyed by 64-bit ids that are mostly dense: the shape of every large map of the
//! master's state.
//!
//! Cloning a table costs one reference count per 32,768 ids, and a clone never changes: a snapshot is a
//! clone that another thread reads while mutations go on, each copying the page it touches once. The
//! table knows nothing of what it stores. Invariant: iteration is in the order of the ids, and no page or
//! node without an entry is kept, so equal contents always look equal.

pub(crate) mod packed;
pub(crate) mod tree;

use tree::{PAGE_SLOTS, Page, Tree};

/// Entries of one type by id.
#[derive(Clone, Debug)]
pub struct CowTable<T> {
    tree: Tree<SlotPage<T>>,
    len: u64,
}

/// Up to 64 entries, stored without gaps: bit `n` of `used` says whether slot `n` has one.
#[derive(Clone, Debug)]
struct SlotPage<T> {
    used: u64,
    slots: Vec<T>,
}

impl<T> Default for CowTable<T> {
    fn default() -> CowTable<T> {
        CowTable { tree: Tree::default(), len: 0 }
    }
}

impl<T> Default for SlotPage<T> {
    fn default() -> SlotPage<T> {
        SlotPage { used: 0, slots: Vec::new() }
    }
}

impl<T: Clone> Page for SlotPage<T> {
    fn is_empty(&self) -> bool {
        self.used == 0
    }
}

/// Where slot `slot` is, or would be put, among the entries of a page whose used slots are `used`.
pub(crate) fn rank(used: u64, slot: u32) -> usize {
    let below = used & ((1_u64 << slot) - 1);
    // At most 64.
    below.count_ones() as usize
}

impl<T: Clone> CowTable<T> {
    /// An empty table.
    #[must_use]
    pub fn new() -> CowTable<T> {
        CowTable::default()
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[must_use]
    pub fn contains(&self, id: u64) -> bool {
        self.get(id).is_some()
    }

    #[must_use]
    pub fn get(&self, id: u64) -> Option<&T> {
        let (page, slot) = self.tree.page(id)?;
        if page.used >> slot & 1 == 0 {
            return None;
        }
        page.slots.get(rank(page.used, slot))
    }

    /// The entry for changing; its page is copied first if a clone of the table shares it.
    pub fn get_mut(&mut self, id: u64) -> Option<&mut T> {
        // Looked up for reading first, so that a miss copies nothing.
        if !self.contains(id) {
            return None;
        }
        let (page, slot) = self.tree.page_mut(id)?;
        let at = rank(page.used, slot);
        page.slots.get_mut(at)
    }

    /// Puts an entry; gives back the one that it replaces.
    pub fn insert(&mut self, id: u64, value: T) -> Option<T> {
        let (page, slot) = self.tree.page_or_new(id);
        let at = rank(page.used, slot);
        if page.used >> slot & 1 == 1 {
            return page.slots.get_mut(at).map(|old| std::mem::replace(old, value));
        }
        if page.slots.len() == page.slots.capacity() {
            // Pages of a dense table end full; a sparse one should not pay for 64.
            page.slots.reserve_exact(page.slots.len().clamp(1, PAGE_SLOTS / 4));
        }
        page.slots.insert(at, value);
        page.used |= 1 << slot;
        self.len += 1;
        None
    }

    /// Takes an entry out.
    pub fn remove(&mut self, id: u64) -> Option<T> {
        if !self.contains(id) {
            return None;
        }
        let (page, slot) = self.tree.page_mut(id)?;
        let old = page.slots.remove(rank(page.used, slot));
        page.used &= !(1 << slot);
        if page.slots.capacity() > 2 * page.slots.len() + 4 {
            page.slots.shrink_to_fit();
        }
        if page.used == 0 {
            self.tree.drop_page(id);
        }
        self.len -= 1;
        Some(old)
    }

    /// All entries by rising id.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.iter_from(0)
    }

    /// The entries from `id` on, by rising id.
    pub fn iter_from(&self, id: u64) -> impl Iterator<Item = (u64, &T)> {
        self.tree.pages_from(id).flat_map(move |(base, page)| {
            ids_of(base, page.used).zip(&page.slots).skip_while(move |(at, _)| *at < id)
        })
    }
}

/// The ids of a page that begins at `base`, by rising id.
pub(crate) fn ids_of(base: u64, used: u64) -> impl Iterator<Item = u64> {
    let mut rest = used;
    std::iter::from_fn(move || {
        if rest == 0 {
            return None;
        }
        let slot = rest.trailing_zeros();
        rest &= rest - 1;
        Some(base + u64::from(slot))
    })
}

impl<T: Clone> FromIterator<(u64, T)> for CowTable<T> {
    fn from_iter<I: IntoIterator<Item = (u64, T)>>(entries: I) -> CowTable<T> {
        let mut table = CowTable::new();
        for (id, value) in entries {
            table.insert(id, value);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// A small deterministic generator: the ids cluster, as real ones do, with a few far away.
    fn ids(n: u64) -> impl Iterator<Item = u64> {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        (0..n).map(move |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let pick = state >> 33;
            if pick.is_multiple_of(97) { u64::MAX - pick % 200 } else { pick % 5000 }
        })
    }

    #[test]
    fn agrees_with_a_btree() {
        let mut table = CowTable::new();
        let mut model = BTreeMap::new();
        for (step, id) in ids(40_000).enumerate() {
            if step % 5 < 3 {
                assert_eq!(table.insert(id, step), model.insert(id, step));
            } else if step % 5 == 3 {
                assert_eq!(table.remove(id), model.remove(&id));
            } else if let Some(value) = table.get_mut(id) {
                *value += 1;
                *model.get_mut(&id).unwrap() += 1;
            }
            assert_eq!(table.get(id), model.get(&id));
            assert_eq!(table.len(), model.len() as u64);
        }
        assert!(table.iter().map(|(id, v)| (id, *v)).eq(model.iter().map(|(id, v)| (*id, *v))));
        for from in [0, 63, 64, 2500, u64::MAX - 100, u64::MAX] {
            assert!(table.iter_from(from).map(|(id, _)| id).eq(model.range(from..).map(|(id, _)| *id)));
        }
    }

    #[test]
    fn a_clone_keeps_its_contents() {
        let mut table: CowTable<u64> = (0..100_000).map(|id| (id, id)).collect();
        let clone = table.clone();
        for id in 0..100_000 {
            if id % 3 == 0 {
                table.remove(id);
            } else if let Some(value) = table.get_mut(id) {
                *value = 0;
            }
        }
        assert_eq!(clone.len(), 100_000);
        assert!(clone.iter().all(|(id, value)| id == *value));
        assert!(table.iter().all(|(id, value)| *value == 0 && id % 3 != 0));
    }

    #[test]
    fn emptied_pages_are_freed() {
        let mut table: CowTable<u8> = (0..100_000).map(|id| (id * 7, 1)).collect();
        for id in 0..100_000 {
            table.remove(id * 7);
        }
        assert!(table.is_empty());
        assert_eq!(table.tree.root_count(), 0);
    }
}
