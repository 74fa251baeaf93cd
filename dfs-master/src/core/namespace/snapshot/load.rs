//! Building a namespace back from its blocks.
//!
//! Bytes that are no namespace are an error that says which block, never a panic: every number, record
//! and name is checked, and every entry must lead to an inode that is there.

use std::sync::Arc;

use dfs_proto::ids::{ChunkId, Ino, SizeEpoch};
use dfs_proto::meta::{FileKind, Goal};
use dfs_proto::units::{ChunkIndex, ChunkSize};

use super::super::varint::Reader;
use super::super::{Directory, INO_END, Namespace, Payload, Xattrs, check_name, has_goal};
use super::{Section, VERSION};
use crate::core::ops::{Boundary, Intent};
use crate::core::table::CowTable;

/// Why blocks are no namespace.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LoadError {
    #[error("the namespace's encoding has version {0}, which this build does not know")]
    Version(u8),
    #[error("block {block} of the namespace is damaged: {what}")]
    Damaged { block: u64, what: &'static str },
}

/// Builds a namespace from the blocks that [`Namespace::write_sections`] gave, in their order.
#[derive(Debug, Default)]
pub struct NamespaceReader {
    /// From the header on.
    namespace: Option<Namespace>,
    blocks: u64,
    entries: u64,
    /// The last block was the last.
    complete: bool,
}

/// What is wrong with a block.
enum Fault {
    Version(u8),
    Damaged(&'static str),
}

/// An item cut short, or a number out of range.
const TORN: Fault = Fault::Damaged("an item does not decode");

impl NamespaceReader {
    #[must_use]
    pub fn new() -> NamespaceReader {
        NamespaceReader::default()
    }

    /// Takes the next block.
    ///
    /// # Errors
    /// When it is not what `write_sections` gives; the reader is of no use after it.
    pub fn block(&mut self, block: &[u8]) -> Result<(), LoadError> {
        self.blocks += 1;
        self.take(block).map_err(|fault| match fault {
            Fault::Version(version) => LoadError::Version(version),
            Fault::Damaged(what) => LoadError::Damaged { block: self.blocks, what },
        })
    }

    /// The namespace, after the last block.
    ///
    /// # Errors
    /// When blocks are missing.
    pub fn finish(self) -> Result<Namespace, LoadError> {
        match self.namespace {
            Some(namespace) if self.complete => Ok(namespace),
            Some(_) | None => Err(LoadError::Damaged { block: self.blocks, what: "blocks are missing" }),
        }
    }

    fn take(&mut self, block: &[u8]) -> Result<(), Fault> {
        let mut from = Reader(block);
        let [code] = from.take().ok_or(TORN)?;
        let section = Section::from_code(code).ok_or(Fault::Damaged("its kind is not known"))?;
        if self.complete {
            return Err(Fault::Damaged("nothing may follow the end"));
        }
        let Some(namespace) = &mut self.namespace else {
            return match section {
                Section::Header => self.header(from),
                _ => Err(Fault::Damaged("the header is missing")),
            };
        };
        match section {
            Section::Header => return Err(Fault::Damaged("a second header")),
            Section::End => return self.end(from),
            Section::Inodes => each_item(&mut from, |ino, from| load_inode(namespace, ino, from))?,
            Section::Entries => each_item(&mut from, |ino, from| {
                self.entries += load_entries(namespace, ino, from)?;
                Ok(())
            })?,
            Section::ChunkLists => each_item(&mut from, |ino, from| load_chunks(namespace, ino, from))?,
            Section::Symlinks => each_item(&mut from, |ino, from| load_symlink(namespace, ino, from))?,
            Section::Xattrs => each_item(&mut from, |ino, from| load_xattr(namespace, ino, from))?,
            Section::Goals => each_item(&mut from, |ino, from| load_goal(namespace, ino, from))?,
            Section::Intents => each_item(&mut from, |ino, from| load_intent(namespace, ino, from))?,
        }
        Ok(())
    }

    fn header(&mut self, mut from: Reader<'_>) -> Result<(), Fault> {
        let [version] = from.take().ok_or(TORN)?;
        if version != VERSION {
            return Err(Fault::Version(version));
        }
        let chunk_size = from.u32().and_then(|bytes| ChunkSize::try_from(bytes).ok()).ok_or(TORN)?;
        let mut namespace = Namespace::empty(chunk_size);
        namespace.next_ino = from.u64().filter(|next| *next <= INO_END).ok_or(TORN)?;
        self.namespace = Some(namespace);
        Ok(())
    }

    fn end(&mut self, mut from: Reader<'_>) -> Result<(), Fault> {
        let counts = from.u64().zip(from.u64()).ok_or(TORN)?;
        let Some(namespace) = &self.namespace else { return Ok(()) };
        if namespace.dir(Ino::ROOT).is_err() {
            return Err(Fault::Damaged("there is no root"));
        }
        if counts != (namespace.inodes.len(), self.entries) {
            return Err(Fault::Damaged("inodes or entries are missing"));
        }
        self.complete = true;
        Ok(())
    }
}

/// Reads items, each with its inode number.
fn each_item<'a>(
    from: &mut Reader<'a>,
    mut take: impl FnMut(Ino, &mut Reader<'a>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut ino = 0_u64;
    while !from.0.is_empty() {
        ino = from.u64().and_then(|step| ino.checked_add(step)).ok_or(TORN)?;
        take(Ino(ino), from)?;
    }
    Ok(())
}

fn load_inode(namespace: &mut Namespace, ino: Ino, from: &mut Reader<'_>) -> Result<(), Fault> {
    let record = from.string().ok_or(TORN)?;
    if ino.0 >= namespace.next_ino || namespace.inodes.contains(ino) {
        return Err(Fault::Damaged("an inode number is not one of its time"));
    }
    let inode = namespace.inodes.load(ino, record).ok_or(TORN)?;
    if inode.nlink == 0 {
        namespace.orphans.insert(ino.0, ());
    }
    namespace.directory_count += u64::from(inode.kind == FileKind::Dir);
    Ok(())
}

fn load_entries(namespace: &mut Namespace, dir: Ino, from: &mut Reader<'_>) -> Result<u64, Fault> {
    let run = from.u64().ok_or(TORN)?;
    if namespace.dir(dir).is_err() {
        return Err(Fault::Damaged("entries of what is no directory"));
    }
    if !namespace.directories.contains(dir.0) {
        namespace.directories.insert(dir.0, Directory::default());
    }
    let Some(directory) = namespace.directories.get_mut(dir.0) else { return Ok(0) };
    for _ in 0..run {
        let cookie = u64::from_le_bytes(from.take().ok_or(TORN)?);
        let record = from.string().ok_or(TORN)?;
        let entry = directory.load(cookie, record).ok_or(Fault::Damaged("an entry is not in its place"))?;
        if check_name(entry.name).is_err() || !namespace.inodes.contains(entry.ino) {
            return Err(Fault::Damaged("an entry has no name or no inode"));
        }
    }
    Ok(run)
}

fn load_chunks(namespace: &mut Namespace, ino: Ino, from: &mut Reader<'_>) -> Result<(), Fault> {
    let run = from.u64().ok_or(TORN)?;
    if !namespace.file(ino).is_ok_and(|inode| inode.payload == Payload::List) {
        return Err(Fault::Damaged("chunks of what is no file of several"));
    }
    if !namespace.chunk_lists.contains(ino.0) {
        namespace.chunk_lists.insert(ino.0, CowTable::new());
    }
    let Some(list) = namespace.chunk_lists.get_mut(ino.0) else { return Ok(()) };
    let mut index = 0_u64;
    for _ in 0..run {
        index = from.u64().and_then(|step| index.checked_add(step)).ok_or(TORN)?;
        let chunk = ChunkId(u64::from_le_bytes(from.take().ok_or(TORN)?));
        if list.insert(index, chunk).is_some() {
            return Err(Fault::Damaged("two chunks at one index"));
        }
    }
    Ok(())
}

fn load_symlink(namespace: &mut Namespace, ino: Ino, from: &mut Reader<'_>) -> Result<(), Fault> {
    let target = from.string().ok_or(TORN)?;
    if !namespace.inode(ino).is_ok_and(|inode| inode.kind == FileKind::Symlink) {
        return Err(Fault::Damaged("a target of what is no symlink"));
    }
    namespace.symlinks.insert(ino.0, Arc::from(target));
    Ok(())
}

fn load_xattr(namespace: &mut Namespace, ino: Ino, from: &mut Reader<'_>) -> Result<(), Fault> {
    let (name, value) = from.string().zip(from.string()).ok_or(TORN)?;
    if !namespace.inode(ino).is_ok_and(|inode| inode.xattrs) {
        return Err(Fault::Damaged("an attribute of an inode that has none"));
    }
    if !namespace.xattrs.contains(ino.0) {
        namespace.xattrs.insert(ino.0, Xattrs::default());
    }
    if let Some(all) = namespace.xattrs.get_mut(ino.0) {
        Arc::make_mut(all).insert(Arc::from(name), Arc::from(value));
    }
    Ok(())
}

fn load_goal(namespace: &mut Namespace, ino: Ino, from: &mut Reader<'_>) -> Result<(), Fault> {
    let [goal, max] = from.take().ok_or(TORN)?.map(|number: u8| (number > 0).then_some(number));
    let goal = Goal { goal, max };
    if goal.is_empty() || !goal.is_sound() || !namespace.inode(ino).is_ok_and(|inode| has_goal(inode.kind)) {
        return Err(Fault::Damaged("a goal that can't be"));
    }
    namespace.goals.set(ino, goal);
    Ok(())
}

fn load_intent(namespace: &mut Namespace, ino: Ino, from: &mut Reader<'_>) -> Result<(), Fault> {
    let (size, chunk, index) =
        from.u64().zip(from.u64()).zip(from.u64()).map(|((a, b), c)| (a, b, c)).ok_or(TORN)?;
    let (cut, epoch) = from.u32().zip(from.u32()).ok_or(TORN)?;
    if namespace.file(ino).is_err() {
        return Err(Fault::Damaged("a truncation of what is no file"));
    }
    let boundary =
        Boundary { chunk: ChunkId(chunk), index: ChunkIndex(index), from: cut, size_epoch: SizeEpoch(epoch) };
    namespace.intents.insert(ino, Intent { size, boundary });
    Ok(())
}
