//! Which chunks a file has: one at index 0 lies in the inode, anything else in the table of lists.
//!
//! Invariant: a list is kept exactly for files that have a chunk at another index than 0, so equal files
//! are stored equally. What a chunk is, and where its replicas are, is not its business.

use dfs_proto::ids::{ChunkId, Ino};
use dfs_proto::meta::FileKind;
use dfs_proto::status::Status;
use dfs_proto::units::{BLOCK_SIZE, ChunkIndex};

use super::{Inode, Namespace, Payload};

impl Namespace {
    /// A regular file's inode.
    pub(crate) fn file(&self, ino: Ino) -> Result<Inode, Status> {
        let inode = self.inode(ino)?;
        match inode.kind {
            FileKind::File => Ok(inode),
            FileKind::Dir => Err(Status::IsDir),
            FileKind::Symlink
            | FileKind::Fifo
            | FileKind::Socket
            | FileKind::BlockDev
            | FileKind::CharDev => Err(Status::Invalid),
        }
    }

    /// The chunks from `first` on, by rising index.
    pub(crate) fn chunks_from(
        &self,
        ino: Ino,
        inode: &Inode,
        first: ChunkIndex,
    ) -> impl Iterator<Item = (ChunkIndex, ChunkId)> {
        let inline = match inode.payload {
            Payload::First(chunk) if first.0 == 0 => Some((ChunkIndex(0), chunk)),
            Payload::First(_) | Payload::Nothing | Payload::List | Payload::Device(_) => None,
        };
        let list = self.chunk_lists.get(ino.0).into_iter().flat_map(move |list| list.iter_from(first.0));
        inline.into_iter().chain(list.map(|(index, chunk)| (ChunkIndex(index), *chunk)))
    }

    pub(crate) fn allocated_chunks(&self, ino: Ino, inode: &Inode) -> u64 {
        match inode.payload {
            Payload::Nothing | Payload::Device(_) => 0,
            Payload::First(_) => 1,
            Payload::List => self.chunk_lists.get(ino.0).map_or(0, |list| list.len()),
        }
    }

    /// Bytes that the file's chunks can hold below its size, in whole blocks.
    pub(crate) fn allocated_bytes(&self, ino: Ino, inode: &Inode) -> u64 {
        let (last, rest) = self.chunk_size.locate(inode.size);
        let mut full = self.allocated_chunks(ino, inode);
        let mut tail = 0;
        // Chunks behind the last byte are few: allocated, and not yet committed to.
        for (index, _) in self.chunks_from(ino, inode, last) {
            full -= 1;
            if index == last {
                tail = u64::from(rest.next_multiple_of(BLOCK_SIZE));
            }
        }
        full * u64::from(self.chunk_size.bytes()) + tail
    }

    /// Puts a chunk at an index; the caller stores the inode.
    pub(crate) fn put_chunk(&mut self, ino: Ino, inode: &mut Inode, index: ChunkIndex, chunk: ChunkId) {
        match inode.payload {
            Payload::Nothing | Payload::Device(_) if index.0 == 0 => inode.payload = Payload::First(chunk),
            Payload::Nothing | Payload::Device(_) => {
                self.chunk_lists.insert(ino.0, std::iter::once((index.0, chunk)).collect());
                inode.payload = Payload::List;
            }
            Payload::First(first) => {
                self.chunk_lists.insert(ino.0, [(0, first), (index.0, chunk)].into_iter().collect());
                inode.payload = Payload::List;
            }
            Payload::List => {
                if let Some(list) = self.chunk_lists.get_mut(ino.0) {
                    list.insert(index.0, chunk);
                }
            }
        }
    }

    /// Takes one chunk out; the caller stores the inode.
    pub(crate) fn take_chunk(&mut self, ino: Ino, inode: &mut Inode, index: ChunkIndex) {
        match inode.payload {
            Payload::Nothing | Payload::Device(_) => {}
            Payload::First(_) => inode.payload = Payload::Nothing,
            Payload::List => {
                if let Some(list) = self.chunk_lists.get_mut(ino.0) {
                    list.remove(index.0);
                }
                self.settle_list(ino, inode);
            }
        }
    }

    /// Takes all chunks from an index on out; the caller stores the inode.
    pub(crate) fn take_chunks(&mut self, ino: Ino, inode: &mut Inode, first: ChunkIndex) -> Vec<ChunkId> {
        let taken: Vec<(ChunkIndex, ChunkId)> = self.chunks_from(ino, inode, first).collect();
        if taken.is_empty() {
            return Vec::new();
        }
        if first.0 == 0 {
            self.chunk_lists.remove(ino.0);
            inode.payload = Payload::Nothing;
        } else if let Some(list) = self.chunk_lists.get_mut(ino.0) {
            for (index, _) in &taken {
                list.remove(index.0);
            }
            self.settle_list(ino, inode);
        }
        taken.into_iter().map(|(_, chunk)| chunk).collect()
    }

    /// Moves what is left of a list back into the inode if it fits there.
    fn settle_list(&mut self, ino: Ino, inode: &mut Inode) {
        let Some(list) = self.chunk_lists.get(ino.0) else { return };
        let payload = match (list.len(), list.get(0)) {
            (0, _) => Payload::Nothing,
            (1, Some(first)) => Payload::First(*first),
            _ => return,
        };
        inode.payload = payload;
        self.chunk_lists.remove(ino.0);
    }
}
