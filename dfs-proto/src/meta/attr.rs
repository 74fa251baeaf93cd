//! What an inode is, who asks, and times to set.

use serde::{Deserialize, Serialize};

use crate::ids::{Ino, SizeEpoch};
use crate::units::Timespec;

/// What an inode is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum FileKind {
    File = 1,
    Dir = 2,
    Symlink = 3,
    Fifo = 4,
    Socket = 5,
    BlockDev = 6,
    CharDev = 7,
}

impl FileKind {
    /// The kind of a number from the wire or the log.
    #[must_use]
    pub fn from_code(code: u8) -> Option<FileKind> {
        Some(match code {
            1 => FileKind::File,
            2 => FileKind::Dir,
            3 => FileKind::Symlink,
            4 => FileKind::Fifo,
            5 => FileKind::Socket,
            6 => FileKind::BlockDev,
            7 => FileKind::CharDev,
            _ => return None,
        })
    }
}

/// An inode's attributes. Travels as one byte string (see [`Attr::to_bytes`]): listings carry thousands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attr {
    pub ino: Ino,
    pub kind: FileKind,
    /// Permission bits with setuid, setgid and sticky: `0o7777`.
    pub mode: u16,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    /// Device number of a device node, as the kernel encodes it in 32 bits.
    pub rdev: u32,
    /// Bytes.
    pub size: u64,
    /// Units of 512 bytes.
    pub blocks: u64,
    pub atime: Timespec,
    pub mtime: Timespec,
    pub ctime: Timespec,
    /// When the inode was made.
    pub btime: Timespec,
    pub size_epoch: SizeEpoch,
    /// Whether the inode has any extended attribute.
    pub xattrs: bool,
}

/// Length of [`Attr::to_bytes`].
pub const ATTR_LEN: usize = 8 + 1 + 1 + 2 + 4 + 4 + 4 + 4 + 8 + 8 + 4 * 12 + 4;

impl Attr {
    /// The attributes as they travel: fixed, little-endian, in the order of the fields.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; ATTR_LEN] {
        let mut out = [0; ATTR_LEN];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            out[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&self.ino.0.to_le_bytes());
        put(&[self.kind as u8, u8::from(self.xattrs)]);
        put(&self.mode.to_le_bytes());
        for word in [self.nlink, self.uid, self.gid, self.rdev] {
            put(&word.to_le_bytes());
        }
        put(&self.size.to_le_bytes());
        put(&self.blocks.to_le_bytes());
        for time in [self.atime, self.mtime, self.ctime, self.btime] {
            put(&time.sec.to_le_bytes());
            put(&time.nsec.to_le_bytes());
        }
        put(&self.size_epoch.0.to_le_bytes());
        out
    }

    /// Reads [`Attr::to_bytes`]; longer input is accepted, so that fields can be added at the end.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Attr> {
        let mut rest = bytes;
        fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
            let (head, tail) = rest.split_first_chunk::<N>()?;
            *rest = tail;
            Some(*head)
        }
        let ino = Ino(u64::from_le_bytes(take(&mut rest)?));
        let [kind, xattrs] = take::<2>(&mut rest)?;
        let mode = u16::from_le_bytes(take(&mut rest)?);
        let nlink = u32::from_le_bytes(take(&mut rest)?);
        let uid = u32::from_le_bytes(take(&mut rest)?);
        let gid = u32::from_le_bytes(take(&mut rest)?);
        let rdev = u32::from_le_bytes(take(&mut rest)?);
        let size = u64::from_le_bytes(take(&mut rest)?);
        let blocks = u64::from_le_bytes(take(&mut rest)?);
        let mut time = || -> Option<Timespec> {
            let sec = i64::from_le_bytes(take(&mut rest)?);
            let nsec = u32::from_le_bytes(take(&mut rest)?);
            Some(Timespec { sec, nsec })
        };
        let (atime, mtime, ctime, btime) = (time()?, time()?, time()?, time()?);
        let size_epoch = SizeEpoch(u32::from_le_bytes(take(&mut rest)?));
        let kind = FileKind::from_code(kind)?;
        let xattrs = xattrs != 0;
        Some(Attr {
            ino,
            kind,
            mode,
            nlink,
            uid,
            gid,
            rdev,
            size,
            blocks,
            atime,
            mtime,
            ctime,
            btime,
            size_epoch,
            xattrs,
        })
    }
}

impl Serialize for Attr {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.to_bytes())
    }
}

impl<'de> Deserialize<'de> for Attr {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Attr, D::Error> {
        let bytes = serde_bytes::ByteBuf::deserialize(deserializer)?;
        Attr::from_bytes(&bytes)
            .ok_or_else(|| serde::de::Error::custom("attributes too short or of an unknown kind"))
    }
}

/// Who asks.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Creds {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups; `None` until the master asked for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<u32>>,
}

/// A time to set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum SetTime {
    /// The master's time of day when it takes the request.
    Now,
    At(Timespec),
}
