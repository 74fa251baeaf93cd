//! What a replica keeps of the file that it is a part of, besides inode and index: enough to give the file a name and a
//! length when no master is left. The master tells it with the place of a new chunk and when a chunk is closed. Nothing
//! but a rescue reads it, so it may be old: a rename does not go round to all replicas.

use serde::{Deserialize, Serialize};
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::ids::SizeEpoch;
use crate::units::ChunkSize;

/// Most bytes of a path that a replica keeps: what is left of its header's sector.
pub const NOTE_PATH_MAX: usize = 368;

/// A file as the master last told of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FileNote {
    /// From the root, beginning with `/`. One without is the end of a longer path, or a path of which the master did
    /// not know the beginning at once; empty when it knew nothing.
    #[serde(rename = "p")]
    pub path: serde_bytes::ByteBuf,
    /// Bytes of the file.
    #[serde(rename = "s")]
    pub size: u64,
    /// The truncation that the size came after.
    #[serde(rename = "e")]
    pub epoch: SizeEpoch,
    /// The cluster's.
    #[serde(rename = "c")]
    pub chunk_size: ChunkSize,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawNote {
    size: U64,
    epoch: U32,
    chunk_size: U32,
}

impl FileNote {
    /// The note of a file at `path`, of which at most the last [`NOTE_PATH_MAX`] bytes are kept.
    #[must_use]
    pub fn new(path: &[u8], size: u64, epoch: SizeEpoch, chunk_size: ChunkSize) -> FileNote {
        let end = &path[path.len().saturating_sub(NOTE_PATH_MAX)..];
        // What is left of a longer path must not look like a whole one.
        let cut = end.len() < path.len();
        let end = end.strip_prefix(b"/").filter(|_| cut).unwrap_or(end);
        FileNote { path: serde_bytes::ByteBuf::from(end.to_vec()), size, epoch, chunk_size }
    }

    /// Bytes that the note takes on the wire.
    pub(crate) fn wire_len(&self) -> u16 {
        // One that came from elsewhere than `new` and is longer is cut by `put`.
        u16::try_from(size_of::<RawNote>() + self.path.len().min(NOTE_PATH_MAX)).unwrap_or(u16::MAX)
    }

    /// Appends the note as it travels in binary metadata.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        let raw = RawNote {
            size: self.size.into(),
            epoch: self.epoch.0.into(),
            chunk_size: self.chunk_size.bytes().into(),
        };
        out.extend_from_slice(raw.as_bytes());
        out.extend_from_slice(&self.path[self.path.len().saturating_sub(NOTE_PATH_MAX)..]);
    }

    /// The one validator.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<FileNote> {
        let (raw, path) = RawNote::read_from_prefix(bytes).ok()?;
        let path = (path.len() <= NOTE_PATH_MAX).then(|| serde_bytes::ByteBuf::from(path.to_vec()))?;
        let chunk_size = ChunkSize::try_from(raw.chunk_size.get()).ok()?;
        Some(FileNote { path, size: raw.size.get(), epoch: SizeEpoch(raw.epoch.get()), chunk_size })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_path_keeps_its_end_and_does_not_look_whole() {
        let long = [b"/abcdefg".as_slice(); 60].concat();
        let note = FileNote::new(&long, 1, SizeEpoch(2), ChunkSize::DEFAULT);
        assert!(note.path.len() < NOTE_PATH_MAX && !note.path.starts_with(b"/"));
        assert!(long.ends_with(&note.path));
        let short = FileNote::new(b"/a/b", 1, SizeEpoch(2), ChunkSize::DEFAULT);
        assert_eq!(short.path[..], b"/a/b"[..]);
    }

    #[test]
    fn what_is_put_comes_back_and_nothing_longer() {
        let note = FileNote::new(b"/a", u64::MAX, SizeEpoch(7), ChunkSize::DEFAULT);
        let mut bytes = Vec::new();
        note.put(&mut bytes);
        assert_eq!(bytes.len(), usize::from(note.wire_len()));
        assert_eq!(FileNote::from_bytes(&bytes), Some(note));
        assert_eq!(FileNote::from_bytes(&bytes[..15]), None);
        bytes.resize(16 + NOTE_PATH_MAX + 1, b'x');
        assert_eq!(FileNote::from_bytes(&bytes), None);
    }
}
