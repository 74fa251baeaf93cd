//! An inode as the operations see it, and as it is stored: about 40 bytes instead of 120.
//!
//! The record is a canonical encoding: equal inodes have equal bytes, on which the state hash rests. It
//! says nothing of names, chunk lists, symlink targets and attributes, which live in their own tables.

use dfs_proto::ids::{ChunkId, Ino, SizeEpoch};
use dfs_proto::meta::FileKind;
use dfs_proto::units::Timespec;

use super::time;
use super::varint::{Reader, put, put_wide};

pub(crate) const S_ISUID: u16 = 0o4000;
pub(crate) const S_ISGID: u16 = 0o2000;
pub(crate) const S_ISVTX: u16 = 0o1000;
pub(crate) const S_IXGRP: u16 = 0o0010;
/// All bits that a mode may have beside the kind.
pub(crate) const MODE_MASK: u16 = 0o7777;

/// What an inode holds, besides what has a table of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Payload {
    /// A directory, symlink, fifo or socket, or a file without chunks.
    Nothing,
    /// A file whose only chunk is at index 0.
    First(ChunkId),
    /// A file whose chunks are in the table of chunk lists.
    List,
    /// The device number of a device node.
    Device(u32),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Inode {
    pub(crate) kind: FileKind,
    pub(crate) mode: u16,
    pub(crate) nlink: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) size: u64,
    pub(crate) size_epoch: SizeEpoch,
    pub(crate) atime: Timespec,
    pub(crate) mtime: Timespec,
    pub(crate) ctime: Timespec,
    pub(crate) btime: Timespec,
    /// Whether the table of attributes has an entry.
    pub(crate) xattrs: bool,
    /// A directory that names this inode; with several links the latest one made, which may be gone.
    pub(crate) parent: Ino,
    pub(crate) payload: Payload,
}

/// Bit 3 of the head's last byte; the payload is in bits 0 and 1.
const HAS_XATTRS: u8 = 8;

impl Inode {
    /// An inode with one link and zeros elsewhere.
    pub(crate) fn new(kind: FileKind) -> Inode {
        Inode {
            kind,
            mode: 0,
            nlink: 1,
            uid: 0,
            gid: 0,
            size: 0,
            size_epoch: SizeEpoch(0),
            atime: Timespec::default(),
            mtime: Timespec::default(),
            ctime: Timespec::default(),
            btime: Timespec::default(),
            xattrs: false,
            parent: Ino(0),
            payload: Payload::Nothing,
        }
    }

    /// The device number; 0 for what is no device.
    pub(crate) fn rdev(&self) -> u32 {
        match self.payload {
            Payload::Device(rdev) => rdev,
            Payload::Nothing | Payload::First(_) | Payload::List => 0,
        }
    }

    /// Sets all four times.
    pub(crate) fn born(self, now: Timespec) -> Inode {
        Inode { atime: now, mtime: now, ctime: now, btime: now, ..self }
    }

    /// What a directory gets when its entries change.
    pub(crate) fn touch(&mut self, now: Timespec) {
        self.mtime = now;
        self.ctime = now;
    }

    /// Appends the record.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let head = u16::from(self.kind as u8) << 12 | self.mode & MODE_MASK;
        out.extend_from_slice(&head.to_le_bytes());
        let payload = match self.payload {
            Payload::Nothing => 0,
            Payload::First(_) => 1,
            Payload::List => 2,
            Payload::Device(_) => 3,
        };
        out.push(payload | if self.xattrs { HAS_XATTRS } else { 0 });
        for word in [self.nlink, self.uid, self.gid, self.size_epoch.0] {
            put(out, u64::from(word));
        }
        put(out, self.size);
        put(out, self.parent.0);
        // The other times are mostly close to mtime or equal to it.
        let mtime = time::to_ns(self.mtime);
        put_wide(out, mtime);
        for other in [self.ctime, self.atime, self.btime] {
            put_wide(out, time::to_ns(other) - mtime);
        }
        match self.payload {
            Payload::Nothing | Payload::List => {}
            Payload::First(chunk) => put(out, chunk.0.rotate_left(GENERATION_BITS)),
            Payload::Device(rdev) => put(out, u64::from(rdev)),
        }
    }

    /// Reads a record; `None` if the bytes are not one.
    pub(crate) fn decode(record: &[u8]) -> Option<Inode> {
        let mut from = Reader(record);
        let head = u16::from_le_bytes(from.take()?);
        let [tail] = from.take()?;
        let (nlink, uid, gid, epoch) = (from.u32()?, from.u32()?, from.u32()?, from.u32()?);
        let size = from.u64()?;
        let parent = Ino(from.u64()?);
        let mtime = from.wide()?;
        let mut near = || time::from_ns(mtime.checked_add(from.wide()?)?);
        let (ctime, atime, btime) = (near()?, near()?, near()?);
        let payload = match tail & 3 {
            0 => Payload::Nothing,
            1 => Payload::First(ChunkId(from.u64()?.rotate_right(GENERATION_BITS))),
            2 => Payload::List,
            _ => Payload::Device(from.u32()?),
        };
        let kind = FileKind::from_code(u8::try_from(head >> 12).ok()?)?;
        if !from.0.is_empty() || tail & !(HAS_XATTRS | 3) != 0 {
            return None;
        }
        Some(Inode {
            kind,
            mode: head & MODE_MASK,
            nlink,
            uid,
            gid,
            size,
            size_epoch: SizeEpoch(epoch),
            atime,
            mtime: time::from_ns(mtime)?,
            ctime,
            btime,
            xattrs: tail & HAS_XATTRS != 0,
            parent,
            payload,
        })
    }
}

/// Turning a chunk id by these puts its generation, mostly 0 or 1, under its counter, so that the varint
/// is as short as the counter.
const GENERATION_BITS: u32 = u64::BITS - ChunkId::COUNTER_BITS;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_time() -> impl Strategy<Value = Timespec> {
        let sec = prop_oneof![Just(i64::MIN), Just(i64::MAX), -10_i64..10, any::<i64>()];
        (sec, 0_u32..1_000_000_000).prop_map(|(sec, nsec)| Timespec { sec, nsec })
    }

    fn any_payload() -> impl Strategy<Value = Payload> {
        prop_oneof![
            Just(Payload::Nothing),
            Just(Payload::List),
            any::<u64>().prop_map(|id| Payload::First(ChunkId(id))),
            any::<u32>().prop_map(Payload::Device),
        ]
    }

    proptest! {
        #[test]
        fn records_come_back(
            kind in 1_u8..8, mode in 0_u16..0o10000, words in any::<[u32; 4]>(), big in any::<[u64; 2]>(),
            times in [any_time(), any_time(), any_time(), any_time()], payload in any_payload(),
            xattrs in any::<bool>(),
        ) {
            let inode = Inode {
                kind: FileKind::from_code(kind).unwrap(), mode,
                nlink: words[0], uid: words[1], gid: words[2], size_epoch: SizeEpoch(words[3]),
                size: big[0], parent: Ino(big[1]),
                atime: times[0], mtime: times[1], ctime: times[2], btime: times[3], xattrs, payload,
            };
            let mut record = Vec::new();
            inode.encode(&mut record);
            prop_assert_eq!(Inode::decode(&record), Some(inode));
        }

        #[test]
        fn other_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Inode::decode(&bytes);
        }
    }

    #[test]
    fn a_usual_file_is_small() {
        let at = |sec: i64| Timespec { sec: 1_795_000_000 + sec, nsec: 123_456_789 };
        let file = Inode {
            mode: 0o644,
            uid: 1000,
            gid: 1000,
            size: 20_000,
            parent: Ino(900_000),
            payload: Payload::First(ChunkId(1 << 48 | 1_000_000)),
            mtime: at(3),
            ctime: at(3),
            ..Inode::new(FileKind::File).born(at(0))
        };
        let mut record = Vec::new();
        file.encode(&mut record);
        assert!(record.len() <= 48, "{} bytes", record.len());
    }
}
