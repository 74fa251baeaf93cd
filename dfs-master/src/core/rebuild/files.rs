//! Which chunks are a file's, and how long it is.
//!
//! Replicas of chunks that a file had before stay on the disks for a while: of two at one index the one with the higher
//! id is the file's, since ids rise; and one of before a truncation that lies behind a size that the file had after it was
//! cut off. What was cut or deleted lately and shows by neither comes back.

use std::collections::BTreeMap;

use dfs_proto::ids::{Ino, SizeEpoch};
use dfs_proto::listing::ListedFile;
use dfs_proto::units::{ChunkIndex, ChunkSize, FILE_SIZE_MAX, Timespec};

use super::choose::{Chosen, Chunk, Lost};
use super::report::{RemarkKind, Remarks};
use crate::core::namespace::INO_END;

/// A file as its chunks tell of it.
#[derive(Clone, Debug)]
pub(super) struct File<'a> {
    pub(super) ino: Ino,
    pub(super) size: u64,
    pub(super) size_epoch: SizeEpoch,
    pub(super) modified: Timespec,
    /// By rising index, one at each.
    pub(super) chunks: Vec<Chunk<'a>>,
    /// Indices below the size without a chunk, as first and last.
    pub(super) holes: Vec<(u64, u64)>,
    /// Those of them of which some replica is there that can't be used.
    pub(super) lost: Vec<ChunkIndex>,
    /// The last known path; not beginning with `/` if only its end is known.
    pub(super) path: Option<&'a [u8]>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Files<'a> {
    /// By rising inode.
    pub(super) list: Vec<File<'a>>,
    /// The highest inode that any header names.
    pub(super) last: Ino,
}

pub(super) fn gather<'a>(chosen: Chosen<'a>, chunk_size: ChunkSize, remarks: &mut Remarks) -> Files<'a> {
    let Chosen { chunks, lost } = chosen;
    let mut by_ino: BTreeMap<Ino, Parts<'a>> = BTreeMap::new();
    let fits = |ino: Ino, index: ChunkIndex| {
        let (last, _) = chunk_size.locate(FILE_SIZE_MAX - 1);
        (Ino::ROOT.0 + 1..INO_END).contains(&ino.0) && index <= last
    };
    for lost in lost.into_iter().filter(|lost| fits(lost.ino, lost.index)) {
        by_ino.entry(lost.ino).or_default().lost.push(lost);
    }
    for chunk in chunks {
        if !fits(chunk.ino, chunk.index) || chunk.extent > chunk_size.bytes() {
            let what =
                format!("names byte {} of chunk {} of inode {}", chunk.extent, chunk.index.0, chunk.ino);
            remarks.add(RemarkKind::Unfit, format!("chunk {}", chunk.id), what);
            continue;
        }
        let parts = by_ino.entry(chunk.ino).or_default();
        // By rising id: the last one at an index stays.
        if let Some(old) = parts.chunks.insert(chunk.index, chunk) {
            left(remarks, &old, "a newer one is in its place");
        }
    }
    let last = by_ino.keys().next_back().copied().unwrap_or_default();
    let list = by_ino.into_iter().filter_map(|(ino, parts)| parts.into_file(ino, chunk_size, remarks));
    Files { list: list.collect(), last }
}

fn left(remarks: &mut Remarks, chunk: &Chunk<'_>, why: &str) {
    let what = format!("chunk {} of inode {}: {why}", chunk.index.0, chunk.ino);
    remarks.add(RemarkKind::Left, format!("chunk {}", chunk.id), what);
}

#[derive(Default)]
struct Parts<'a> {
    chunks: BTreeMap<ChunkIndex, Chunk<'a>>,
    lost: Vec<Lost>,
}

impl<'a> Parts<'a> {
    fn into_file(mut self, ino: Ino, chunk_size: ChunkSize, remarks: &mut Remarks) -> Option<File<'a>> {
        // An older chunk is not what a newer one that is lost held.
        for lost in &self.lost {
            if self.chunks.get(&lost.index).is_some_and(|chunk| chunk.id < lost.id)
                && let Some(old) = self.chunks.remove(&lost.index)
            {
                left(remarks, &old, "a newer one was in its place, which is lost");
            }
        }
        let notes: Vec<(Timespec, &'a ListedFile)> =
            self.chunks.values().flat_map(|chunk| chunk.notes.iter().copied()).collect();
        let start = |index: ChunkIndex| index.0 * u64::from(chunk_size.bytes());
        let is_cut = |chunk: &Chunk<'_>| {
            notes.iter().any(|(_, note)| note.epoch > chunk.size_epoch && note.size <= start(chunk.index))
        };
        let cut: Vec<ChunkIndex> =
            self.chunks.values().filter(|chunk| is_cut(chunk)).map(|chunk| chunk.index).collect();
        for index in cut {
            if let Some(old) = self.chunks.remove(&index) {
                left(remarks, &old, "a truncation cut it off");
            }
        }
        let epochs = self.chunks.values().map(|chunk| chunk.size_epoch);
        let size_epoch = epochs.chain(notes.iter().map(|(_, note)| note.epoch)).max().unwrap_or_default();
        let size = size_of(self.chunks.values(), &notes, size_epoch, chunk_size);
        // One in which nothing is: its first write did not come through, or all of it was cut off.
        let empty: Vec<ChunkIndex> =
            self.chunks.keys().copied().filter(|index| start(*index) >= size).collect();
        for index in empty {
            if let Some(old) = self.chunks.remove(&index) {
                left(remarks, &old, "it has no bytes");
            }
        }
        if self.chunks.is_empty() && self.lost.is_empty() {
            return None;
        }
        let last = chunk_size.chunks_for(size);
        let lost = self.lost.iter().filter(|lost| !self.chunks.contains_key(&lost.index));
        Some(File {
            ino,
            size,
            size_epoch,
            modified: self.chunks.values().map(|chunk| chunk.modified).max().unwrap_or_default(),
            holes: holes(self.chunks.keys().copied(), last),
            lost: lost.map(|lost| lost.index).collect(),
            path: path_of(&notes),
            chunks: self.chunks.into_values().collect(),
        })
    }
}

/// Within one size epoch a file only grows, so the largest size that anybody was told is right. Chunks that were written
/// since they were told know better; of one that was closed the master knew what of it is the file's.
fn size_of<'c, 'a: 'c>(
    chunks: impl Iterator<Item = &'c Chunk<'a>>,
    notes: &[(Timespec, &'a ListedFile)],
    size_epoch: SizeEpoch,
    chunk_size: ChunkSize,
) -> u64 {
    let told = notes.iter().filter(|(_, note)| note.epoch == size_epoch).map(|(_, note)| note.size);
    let reaches = |chunk: &Chunk<'_>| {
        let end = chunk.index.0 * u64::from(chunk_size.bytes()) + u64::from(chunk.extent);
        let closed_at = chunk.notes.iter().map(|(_, note)| note.size).max();
        match (chunk.digest, closed_at) {
            (Some(_), Some(size)) => end.min(size),
            (Some(_), None) | (None, _) => end,
        }
    };
    chunks.map(reaches).chain(told).max().unwrap_or(0).min(FILE_SIZE_MAX)
}

fn holes(indices: impl Iterator<Item = ChunkIndex>, last: u64) -> Vec<(u64, u64)> {
    let mut holes = Vec::new();
    let mut next = 0;
    for index in indices.map(|index| index.0).chain([last]) {
        if index > next {
            holes.push((next, index - 1));
        }
        next = index + 1;
    }
    holes
}

/// The path that was told last; one that is whole rather than an end of one.
fn path_of<'a>(notes: &[(Timespec, &'a ListedFile)]) -> Option<&'a [u8]> {
    let known =
        notes.iter().map(|(at, note)| (*at, note.path.as_bytes())).filter(|(_, path)| !path.is_empty());
    known.max_by_key(|(at, path)| (path.starts_with(b"/"), *at)).map(|(_, path)| path)
}
