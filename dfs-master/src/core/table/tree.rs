//! The two levels above the pages of a copy-on-write table: a sorted list of nodes, each with up to 512
//! pages of 64 ids.
//!
//! It finds, copies and frees pages and knows nothing of what is in them. Both levels are stored without
//! gaps, so ids that are far apart cost memory by their number, never by their distance.

use std::sync::Arc;

/// Ids of one page: the bits of one word.
pub(crate) const PAGE_SLOTS: usize = 64;
const PAGE_BITS: u32 = 6;
/// Pages of one node: a clone of the table costs one count per node, the first change of a node after
/// that one per page; 512 keeps both within microseconds at 10 million entries.
const NODE_BITS: u32 = 9;
const NODE_WORDS: usize = 1 << (NODE_BITS - 6);

/// What a table's leaf level has to tell the tree.
pub(crate) trait Page: Clone + Default {
    fn is_empty(&self) -> bool;
}

#[derive(Clone, Debug)]
pub(crate) struct Tree<P> {
    /// By rising number; the number is the id without its low 15 bits.
    roots: Vec<(u64, Arc<Node<P>>)>,
}

#[derive(Clone, Debug)]
struct Node<P> {
    /// Bit `n` says whether page `n` is in `pages`.
    used: [u64; NODE_WORDS],
    pages: Vec<Arc<P>>,
}

impl<P> Default for Tree<P> {
    fn default() -> Tree<P> {
        Tree { roots: Vec::new() }
    }
}

/// An id taken apart.
#[derive(Clone, Copy)]
struct Place {
    root: u64,
    word: usize,
    bit: u32,
    slot: u32,
}

impl Place {
    fn of(id: u64) -> Place {
        let page = id >> PAGE_BITS;
        Place {
            root: page >> NODE_BITS,
            word: low_bits(page >> 6, NODE_BITS - 6) as usize,
            bit: low_bits(page, 6),
            slot: low_bits(id, PAGE_BITS),
        }
    }
}

/// The low `bits` of a value; `bits` is below 32.
fn low_bits(value: u64, bits: u32) -> u32 {
    u32::try_from(value & ((1 << bits) - 1)).unwrap_or(0)
}

impl<P> Node<P> {
    fn has(&self, place: Place) -> bool {
        self.used[place.word] >> place.bit & 1 == 1
    }

    fn rank(&self, place: Place) -> usize {
        let before: u32 = self.used[..place.word].iter().map(|word| word.count_ones()).sum();
        before as usize + super::rank(self.used[place.word], place.bit)
    }
}

impl<P: Page> Tree<P> {
    #[cfg(test)]
    pub(crate) fn root_count(&self) -> usize {
        self.roots.len()
    }

    fn root(&self, number: u64) -> Result<usize, usize> {
        // Ids are dense in nearly every table: the number is then the position.
        if let Ok(guess) = usize::try_from(number)
            && self.roots.get(guess).is_some_and(|root| root.0 == number)
        {
            return Ok(guess);
        }
        self.roots.binary_search_by_key(&number, |root| root.0)
    }

    /// The page of an id, and the id's slot in it.
    pub(crate) fn page(&self, id: u64) -> Option<(&P, u32)> {
        let place = Place::of(id);
        let node = &self.roots[self.root(place.root).ok()?].1;
        if !node.has(place) {
            return None;
        }
        Some((&**node.pages.get(node.rank(place))?, place.slot))
    }

    /// The same for changing.
    pub(crate) fn page_mut(&mut self, id: u64) -> Option<(&mut P, u32)> {
        let place = Place::of(id);
        let root = self.root(place.root).ok()?;
        let node = Arc::make_mut(&mut self.roots[root].1);
        if !node.has(place) {
            return None;
        }
        let at = node.rank(place);
        Some((Arc::make_mut(node.pages.get_mut(at)?), place.slot))
    }

    /// The same, made if it is not there.
    pub(crate) fn page_or_new(&mut self, id: u64) -> (&mut P, u32) {
        let place = Place::of(id);
        let root = self.root(place.root).unwrap_or_else(|at| {
            let node = Node { used: [0; NODE_WORDS], pages: Vec::new() };
            self.roots.insert(at, (place.root, Arc::new(node)));
            at
        });
        let node = Arc::make_mut(&mut self.roots[root].1);
        let at = node.rank(place);
        if !node.has(place) {
            node.pages.insert(at, Arc::new(P::default()));
            node.used[place.word] |= 1 << place.bit;
        }
        (Arc::make_mut(&mut node.pages[at]), place.slot)
    }

    /// Frees the page of an id, and its node if that was its last.
    pub(crate) fn drop_page(&mut self, id: u64) {
        let place = Place::of(id);
        let Ok(root) = self.root(place.root) else { return };
        let node = Arc::make_mut(&mut self.roots[root].1);
        if !node.has(place) {
            return;
        }
        let at = node.rank(place);
        debug_assert!(node.pages[at].is_empty(), "a page with entries is not dropped");
        node.pages.remove(at);
        node.used[place.word] &= !(1 << place.bit);
        if node.pages.is_empty() {
            self.roots.remove(root);
        }
    }

    /// Pages from the one of `id` on, each with its first id.
    pub(crate) fn pages_from(&self, id: u64) -> impl Iterator<Item = (u64, &P)> {
        let page = id >> PAGE_BITS;
        let first = self.roots.partition_point(|root| root.0 < page >> NODE_BITS);
        self.roots[first..]
            .iter()
            .flat_map(|(number, node)| {
                let numbers = node
                    .used
                    .iter()
                    .zip(0_u64..)
                    .flat_map(move |(word, at)| super::ids_of((number << NODE_BITS) + (at << 6), *word));
                numbers.zip(&node.pages)
            })
            .skip_while(move |(number, _)| *number < page)
            .map(|(number, page)| (number << PAGE_BITS, &**page))
    }
}
