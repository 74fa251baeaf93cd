//! The namespace as bytes: blocks that a snapshot file holds, and the hash that replicas compare.
//!
//! A block is one byte that says what it holds, then items to its end; numbers are varints, inode numbers
//! differences to the item before. The encoding depends on the contents alone, never on how they came to
//! be, so equal namespaces give equal blocks: the state hash rests on that. Framing, checksums and files
//! are the snapshot writer's business. `tests/fixtures/namespace.v1` pins the bytes.

mod load;

use dfs_proto::ids::Ino;
use xxhash_rust::xxh3::Xxh3;

pub use load::{LoadError, NamespaceReader};

use super::Namespace;
use super::varint::{put, put_string};

/// Of the encoding. A reader knows this one and older ones.
const VERSION: u8 = 1;
/// A block is given away when it reached this size: large enough for sequential writing, small enough to
/// be checked and decoded from the processor's cache.
const BLOCK_TARGET: usize = 128 << 10;
/// Most entries of one item, so that a directory or file of any size streams.
const RUN_MAX: usize = 1024;

/// What a block holds. Only ever append; they are written in this order, but for the end, which is the last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Section {
    /// Version, chunk size, next inode number.
    Header = 1,
    /// Number, record.
    Inodes = 2,
    /// Directory, count, then for each entry its cookie (8 bytes, little-endian) and record.
    Entries = 3,
    /// File, count, then for each chunk its index as difference to the one before and its id (8 bytes).
    ChunkLists = 4,
    /// Number, target.
    Symlinks = 5,
    /// Number, name, value: an item for each attribute.
    Xattrs = 6,
    /// Number, size, chunk, index, from, epoch.
    Intents = 7,
    /// How many inodes and entries there were.
    End = 8,
    /// Number, goal, bound; 0 for none. Before the end, and only where something has a goal of its own: builds that know
    /// of none read what has none.
    Goals = 9,
}

impl Section {
    fn from_code(code: u8) -> Option<Section> {
        Some(match code {
            1 => Section::Header,
            2 => Section::Inodes,
            3 => Section::Entries,
            4 => Section::ChunkLists,
            5 => Section::Symlinks,
            6 => Section::Xattrs,
            7 => Section::Intents,
            8 => Section::End,
            9 => Section::Goals,
            _ => return None,
        })
    }
}

/// Gathers the items of one section into blocks.
struct Blocks<'a, S> {
    section: Section,
    sink: &'a mut S,
    buffer: Vec<u8>,
    /// Inode number of the item before in this block.
    last: u64,
}

impl<S: FnMut(&[u8])> Blocks<'_, S> {
    fn new(section: Section, sink: &mut S) -> Blocks<'_, S> {
        Blocks { section, sink, buffer: Vec::new(), last: 0 }
    }

    /// Begins an item about an inode.
    fn item(&mut self, ino: u64) -> &mut Vec<u8> {
        if self.buffer.len() >= BLOCK_TARGET {
            self.flush();
        }
        if self.buffer.is_empty() {
            self.buffer.push(self.section as u8);
            self.last = 0;
        }
        put(&mut self.buffer, ino - self.last);
        self.last = ino;
        &mut self.buffer
    }

    fn flush(&mut self) {
        if !self.buffer.is_empty() {
            (self.sink)(&self.buffer);
            self.buffer.clear();
        }
    }
}

impl Namespace {
    /// Encodes the whole namespace as blocks, given to `sink` one by one. A block has about 128 KiB, and
    /// with large attributes at most about 400 KiB.
    pub fn write_sections(&self, sink: &mut impl FnMut(&[u8])) {
        let mut header = vec![Section::Header as u8, VERSION];
        put(&mut header, u64::from(self.chunk_size.bytes()));
        put(&mut header, self.next_ino);
        sink(&header);

        let mut blocks = Blocks::new(Section::Inodes, sink);
        for (ino, record) in self.inodes.records() {
            put_string(blocks.item(ino.0), record);
        }
        blocks.flush();
        let entries = self.write_entries(sink);
        self.write_chunk_lists(sink);

        let mut blocks = Blocks::new(Section::Symlinks, sink);
        for (ino, target) in self.symlinks.iter() {
            put_string(blocks.item(ino), target);
        }
        blocks.flush();
        let mut blocks = Blocks::new(Section::Xattrs, sink);
        for (ino, all) in self.xattrs.iter() {
            for (name, value) in all.iter() {
                let out = blocks.item(ino);
                put_string(out, name);
                put_string(out, value);
            }
        }
        blocks.flush();
        let mut blocks = Blocks::new(Section::Intents, sink);
        for (Ino(ino), intent) in &self.intents {
            let out = blocks.item(*ino);
            let cut = &intent.boundary;
            for word in [intent.size, cut.chunk.0, cut.index.0, u64::from(cut.from)] {
                put(out, word);
            }
            put(out, u64::from(cut.size_epoch.0));
        }
        blocks.flush();
        let mut blocks = Blocks::new(Section::Goals, sink);
        for (ino, goal) in self.goals.iter_from(0) {
            blocks.item(ino).extend([goal.goal, goal.max].map(|number| number.unwrap_or(0)));
        }
        blocks.flush();

        let mut end = vec![Section::End as u8];
        put(&mut end, self.inodes.len());
        put(&mut end, entries);
        sink(&end);
    }

    fn write_entries(&self, sink: &mut impl FnMut(&[u8])) -> u64 {
        let mut total = 0;
        let mut blocks = Blocks::new(Section::Entries, sink);
        for (dir, directory) in self.directories.iter() {
            let mut left = directory.len();
            total += left;
            let mut records = directory.records();
            while left > 0 {
                let run = left.min(RUN_MAX as u64);
                left -= run;
                let out = blocks.item(dir);
                put(out, run);
                for (cookie, record) in records.by_ref().take(RUN_MAX) {
                    out.extend_from_slice(&cookie.to_le_bytes());
                    put_string(out, record);
                }
            }
        }
        blocks.flush();
        total
    }

    fn write_chunk_lists(&self, sink: &mut impl FnMut(&[u8])) {
        let mut blocks = Blocks::new(Section::ChunkLists, sink);
        for (ino, list) in self.chunk_lists.iter() {
            let mut left = list.len();
            let mut chunks = list.iter();
            while left > 0 {
                let run = left.min(RUN_MAX as u64);
                left -= run;
                let out = blocks.item(ino);
                put(out, run);
                let mut last = 0;
                for (index, chunk) in chunks.by_ref().take(RUN_MAX) {
                    put(out, index - last);
                    last = index;
                    out.extend_from_slice(&chunk.0.to_le_bytes());
                }
            }
        }
        blocks.flush();
    }

    /// A hash over the encoding: equal on every master that applied the same commands.
    #[must_use]
    pub fn state_hash(&self) -> u128 {
        let mut hash = Xxh3::new();
        self.write_sections(&mut |block| {
            hash.update(&(block.len() as u64).to_le_bytes());
            hash.update(block);
        });
        hash.digest128()
    }
}
