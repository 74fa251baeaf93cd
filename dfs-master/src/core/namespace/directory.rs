//! One directory's entries, sorted by cookie in packed leaves of at most 128.
//!
//! A cookie is 56 bits of a fixed hash of the name with 7 bits that tell names of one hash apart, so an
//! entry keeps its cookie however the directory changes around it: a listing that goes on from a cookie
//! neither repeats nor misses what was there all the time. Cookies are from 128 up and below 2^63; 0 to 2
//! stay free for the start, `.` and `..`. What the inode numbers stand for is not its business.

use std::sync::Arc;

use dfs_proto::ids::Ino;
use dfs_proto::meta::FileKind;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::varint::{Reader, put};
use crate::core::table::packed::Packed;

/// Of the cookies' hash. Part of the snapshot format: another seed would give other cookies.
const SEED: u64 = 0x6466_735F_6E61_6D65;
/// Bits that tell entries of one hash apart.
const SAME_HASH_BITS: u32 = 7;
/// At 128 entries a leaf of usual names is one page of memory, which is what a change has to copy while a
/// snapshot holds the old one.
const LEAF_MAX: usize = 128;
/// Leaves are loaded not quite full, so that the first new entries do not split them all.
const LEAF_LOADED: usize = 104;
/// A leaf with fewer is joined with a neighbour if both together stay below [`LEAF_LOADED`].
const LEAF_MIN: usize = 32;

#[derive(Clone, Debug, Default)]
pub(crate) struct Directory {
    len: u64,
    /// Each with the smallest cookie that belongs into it; the first one's is 0.
    leaves: Vec<(u64, Arc<Leaf>)>,
}

#[derive(Clone, Debug, Default)]
struct Leaf {
    /// Cookies, rising.
    keys: Vec<u64>,
    /// For each: the inode number above its kind, then the name.
    records: Packed,
}

/// An entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NameEntry<'a> {
    pub(crate) cookie: u64,
    pub(crate) ino: Ino,
    pub(crate) kind: FileKind,
    pub(crate) name: &'a [u8],
}

impl<'a> NameEntry<'a> {
    fn of(cookie: u64, record: &'a [u8]) -> Option<NameEntry<'a>> {
        let mut from = Reader(record);
        let word = from.u64()?;
        let kind = FileKind::from_code(u8::try_from(word & 7).ok()?)?;
        Some(NameEntry { cookie, ino: Ino(word >> 3), kind, name: from.0 })
    }
}

fn record(ino: Ino, kind: FileKind, name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len() + 9);
    put(&mut out, ino.0 << 3 | u64::from(kind as u8));
    out.extend_from_slice(name);
    out
}

/// The lowest cookie of names with this one's hash.
fn first_cookie(name: &[u8]) -> u64 {
    let hash = xxh3_64_with_seed(name, SEED) >> (u64::BITS - 56);
    hash.max(1) << SAME_HASH_BITS
}

/// Where an entry is.
#[derive(Clone, Copy)]
struct Place {
    leaf: usize,
    at: usize,
}

impl Directory {
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Entries from a cookie on, by rising cookie.
    pub(crate) fn from(&self, cookie: u64) -> impl Iterator<Item = NameEntry<'_>> {
        self.places(cookie).map(|(_, entry)| entry)
    }

    pub(crate) fn find(&self, name: &[u8]) -> Option<NameEntry<'_>> {
        self.locate(name).map(|(_, entry)| entry)
    }

    fn leaf_of(&self, cookie: u64) -> usize {
        self.leaves.partition_point(|(low, _)| *low <= cookie).saturating_sub(1)
    }

    fn places(&self, cookie: u64) -> impl Iterator<Item = (Place, NameEntry<'_>)> {
        let first = self.leaf_of(cookie);
        self.leaves.iter().enumerate().skip(first).flat_map(move |(leaf, (_, entries))| {
            let start = entries.keys.partition_point(|key| *key < cookie);
            (start..entries.keys.len()).filter_map(move |at| {
                let entry = NameEntry::of(entries.keys[at], entries.records.get(at))?;
                Some((Place { leaf, at }, entry))
            })
        })
    }

    fn locate(&self, name: &[u8]) -> Option<(Place, NameEntry<'_>)> {
        let first = first_cookie(name);
        self.places(first)
            .take_while(|(_, entry)| entry.cookie >> SAME_HASH_BITS == first >> SAME_HASH_BITS)
            .find(|(_, entry)| entry.name == name)
    }

    /// The cookie that a new name would get; `None` when 128 names of one hash are there.
    pub(crate) fn free_cookie(&self, name: &[u8]) -> Option<u64> {
        let mut free = first_cookie(name);
        let hash = free >> SAME_HASH_BITS;
        for entry in self.from(free) {
            if entry.cookie != free {
                break;
            }
            free += 1;
        }
        (free >> SAME_HASH_BITS == hash).then_some(free)
    }

    /// Adds a name that is not there; nothing happens when [`Directory::free_cookie`] has none for it.
    pub(crate) fn insert(&mut self, name: &[u8], ino: Ino, kind: FileKind) {
        let Some(cookie) = self.free_cookie(name) else { return };
        if self.leaves.is_empty() {
            self.leaves.push((0, Arc::default()));
        }
        let at = self.leaf_of(cookie);
        let leaf = Arc::make_mut(&mut self.leaves[at].1);
        leaf.insert(cookie, &record(ino, kind, name));
        self.len += 1;
        if leaf.keys.len() > LEAF_MAX {
            let right = leaf.split_off(LEAF_MAX / 2);
            self.leaves.insert(at + 1, (right.keys[0], Arc::new(right)));
        }
    }

    /// Lets a name that is there stand for another inode; its cookie stays.
    pub(crate) fn replace(&mut self, name: &[u8], ino: Ino, kind: FileKind) {
        let Some((place, _)) = self.locate(name) else { return };
        let leaf = Arc::make_mut(&mut self.leaves[place.leaf].1);
        leaf.records.replace(place.at, &record(ino, kind, name));
    }

    pub(crate) fn remove(&mut self, name: &[u8]) {
        let Some((place, _)) = self.locate(name) else { return };
        let leaf = Arc::make_mut(&mut self.leaves[place.leaf].1);
        leaf.keys.remove(place.at);
        leaf.records.remove(place.at);
        self.len -= 1;
        if leaf.keys.len() < LEAF_MIN {
            self.join(place.leaf);
        }
    }

    /// Drops an empty leaf, or joins a small one with a neighbour that has room.
    fn join(&mut self, at: usize) {
        let len = |at: usize| self.leaves.get(at).map_or(LEAF_MAX, |(_, leaf)| leaf.keys.len());
        let left = if len(at) + len(at + 1) <= LEAF_LOADED {
            at
        } else if at > 0 && len(at - 1) + len(at) <= LEAF_LOADED {
            at - 1
        } else {
            if len(at) == 0 {
                self.leaves.remove(at);
            }
            if let Some(first) = self.leaves.first_mut() {
                first.0 = 0;
            }
            return;
        };
        let (_, right) = self.leaves.remove(left + 1);
        let leaf = Arc::make_mut(&mut self.leaves[left].1);
        for (key, record) in right.keys.iter().zip(right.records.iter()) {
            leaf.insert(*key, record);
        }
    }

    /// Adds a record of a snapshot behind all others; `None` if it cannot be one.
    pub(crate) fn load<'a>(&mut self, cookie: u64, record: &'a [u8]) -> Option<NameEntry<'a>> {
        let entry = NameEntry::of(cookie, record)?;
        let last = self.leaves.last().and_then(|(_, leaf)| leaf.keys.last());
        let in_place = cookie >> SAME_HASH_BITS == first_cookie(entry.name) >> SAME_HASH_BITS;
        if !in_place || last.is_some_and(|last| *last >= cookie) {
            return None;
        }
        if self.leaves.last().is_none_or(|(_, leaf)| leaf.keys.len() >= LEAF_LOADED) {
            let low = if self.leaves.is_empty() { 0 } else { cookie };
            self.leaves.push((low, Arc::default()));
        }
        let (_, leaf) = self.leaves.last_mut()?;
        Arc::make_mut(leaf).insert(cookie, record);
        self.len += 1;
        Some(entry)
    }

    /// The stored records by rising cookie.
    pub(crate) fn records(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.leaves.iter().flat_map(|(_, leaf)| leaf.keys.iter().copied().zip(leaf.records.iter()))
    }
}

impl Leaf {
    fn insert(&mut self, key: u64, record: &[u8]) {
        let at = self.keys.partition_point(|other| *other < key);
        if self.keys.len() == self.keys.capacity() {
            self.keys.reserve_exact((self.keys.len() / 4).clamp(2, 16));
        }
        self.keys.insert(at, key);
        self.records.insert(at, record);
    }

    fn split_off(&mut self, at: usize) -> Leaf {
        let right = Leaf { keys: self.keys.split_off(at), records: self.records.split_off(at) };
        self.keys.shrink_to_fit();
        right
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn name(n: u32) -> Vec<u8> {
        format!("file-{n:07}").into_bytes()
    }

    #[test]
    fn agrees_with_a_btree_through_growth_and_shrinking() {
        let mut directory = Directory::default();
        let mut model = BTreeMap::new();
        let mut state = 7_u32;
        for step in 0..60_000_u32 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let pick = name(state >> 8 & 0xFFF);
            let growing = step / 10_000 % 2 == 0;
            if directory.find(&pick).is_none() && (growing || step % 4 == 0) {
                directory.insert(&pick, Ino(u64::from(step) + 1), FileKind::File);
                model.insert(pick, u64::from(step) + 1);
            } else if step % 7 == 0 && model.contains_key(&pick) {
                directory.replace(&pick, Ino(u64::MAX >> 4), FileKind::Dir);
                model.insert(pick, u64::MAX >> 4);
            } else if !growing {
                directory.remove(&pick);
                model.remove(&pick);
            }
            assert_eq!(directory.len(), model.len() as u64);
        }
        let mut listed: Vec<(Vec<u8>, u64)> = Vec::new();
        let mut last = 2;
        for entry in directory.from(0) {
            assert!(entry.cookie > last && entry.cookie < 1 << 63);
            last = entry.cookie;
            listed.push((entry.name.to_vec(), entry.ino.0));
        }
        listed.sort();
        assert!(listed.into_iter().eq(model.clone()));
        for pick in model.keys() {
            directory.remove(pick);
        }
        assert!(directory.is_empty() && directory.leaves.is_empty());
    }

    #[test]
    fn names_of_one_hash_get_cookies_of_their_own() {
        // Two names with one 56-bit hash are hard to find; entries with the cookie taken stand in for them.
        let mut directory = Directory::default();
        directory.insert(b"a", Ino(1), FileKind::File);
        let first = first_cookie(b"a");
        assert_eq!(directory.free_cookie(b"a"), Some(first + 1));
        let leaf = Arc::make_mut(&mut directory.leaves[0].1);
        for extra in 1..128 {
            leaf.insert(first + extra, &record(Ino(2), FileKind::File, format!("x{extra}").as_bytes()));
        }
        assert_eq!(directory.free_cookie(b"a"), None);
        let leaf = Arc::make_mut(&mut directory.leaves[0].1);
        leaf.keys.remove(77);
        leaf.records.remove(77);
        assert_eq!(directory.free_cookie(b"a"), Some(first + 77));
        assert_eq!(directory.find(b"x5"), None, "x5 lies under another hash than its own");
        assert_eq!(directory.find(b"a").map(|entry| entry.ino), Some(Ino(1)));
    }

    #[test]
    fn cookies_are_fixed() {
        assert_eq!(first_cookie(b"hello"), 4_853_004_323_537_438_720);
    }
}
