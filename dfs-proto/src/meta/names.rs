//! Names and what they stand for: every call of the namespace.

use serde::{Deserialize, Serialize};

use crate::ids::{Handle, Ino};
use crate::meta::{Access, Attr, Creds, Done, FileKind, Opened, SetTime, request};
use crate::request::{Op, Request};

/// Bytes of a name: 1..=255, without `/` and NUL, not `.` or `..`.
pub type Name = serde_bytes::ByteBuf;

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Lookup {
    pub parent: Ino,
    pub name: Name,
    pub creds: Creds,
}
request!(Lookup => Attr);

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Getattr {
    pub ino: Ino,
}
request!(Getattr => Attr);

/// Changes attributes; what is `None` stays. A new `size` goes through the truncation protocol.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Setattr {
    pub ino: Ino,
    /// Set when the change comes through an open descriptor, whose rights then decide about `size`.
    pub handle: Option<Handle>,
    pub mode: Option<u16>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<SetTime>,
    pub mtime: Option<SetTime>,
    pub creds: Creds,
}
request!(mut Setattr => Attr);

/// Makes a regular file and opens it, or opens the one that is there: one round trip with the grant and,
/// for writers, the first chunk's place and capability.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Create {
    pub parent: Ino,
    pub name: Name,
    /// Permission bits, umask applied already.
    pub mode: u16,
    pub handle: Handle,
    pub access: Access,
    /// O_EXCL: fail with `Exists` when the name is taken.
    pub exclusive: bool,
    /// O_TRUNC
    pub truncate: bool,
    pub creds: Creds,
}
request!(mut Create => Created);

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Created {
    pub opened: Opened,
    /// False when the file was there.
    pub new: bool,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Mkdir {
    pub parent: Ino,
    pub name: Name,
    pub mode: u16,
    pub creds: Creds,
}
request!(mut Mkdir => MadeDir);

/// The directory that was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MadeDir {
    pub attr: Attr,
    /// It is empty, and the client is told by [`DirChanged`] over this connection when another one makes a name in
    /// it: until then the client knows all its names.
    #[serde(default)]
    pub watched: bool,
}

/// Master to client, one way: somebody else makes a name in a directory that was answered as watched.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DirChanged {
    pub dir: Ino,
}
request!(DirChanged => Done);

/// Makes a node of any kind but directory and symlink.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Mknod {
    pub parent: Ino,
    pub name: Name,
    pub kind: FileKind,
    pub mode: u16,
    pub rdev: u32,
    pub creds: Creds,
}
request!(mut Mknod => Attr);

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Symlink {
    pub parent: Ino,
    pub name: Name,
    pub target: serde_bytes::ByteBuf,
    pub creds: Creds,
}
request!(mut Symlink => Attr);

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Readlink {
    pub ino: Ino,
}
request!(Readlink => LinkTarget);

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LinkTarget {
    pub target: serde_bytes::ByteBuf,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Link {
    pub ino: Ino,
    pub parent: Ino,
    pub name: Name,
    pub creds: Creds,
}
request!(mut Link => Attr);

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Unlink {
    pub parent: Ino,
    pub name: Name,
    pub creds: Creds,
}
request!(mut Unlink => Removed);

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Rmdir {
    pub parent: Ino,
    pub name: Name,
    pub creds: Creds,
}
request!(mut Rmdir => Removed);

/// What a name stood for, and the links it has left.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Removed {
    pub ino: Ino,
    pub nlink: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum RenameMode {
    Replace,
    /// RENAME_NOREPLACE
    NoReplace,
    /// RENAME_EXCHANGE
    Exchange,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Rename {
    pub parent: Ino,
    pub name: Name,
    pub new_parent: Ino,
    pub new_name: Name,
    pub mode: RenameMode,
    pub creds: Creds,
}
request!(mut Rename => Renamed);

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Renamed {
    pub ino: Ino,
    /// What the new name stood for before, if it was replaced.
    pub replaced: Option<Removed>,
}

/// Lists a directory from behind `cookie` (0: from the start). `.` and `..` are the client's to add.
/// Cookies are stable: entries made or removed meanwhile neither repeat nor hide another.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Readdir {
    pub dir: Ino,
    pub cookie: u64,
    /// At most this many entries; the master's own bound is [`READDIR_MAX`].
    pub max: u32,
    /// With attributes.
    pub plus: bool,
}
request!(Readdir => Listing);

/// Most entries of one [`Listing`]: with attributes about 200 KiB.
pub const READDIR_MAX: u32 = 1024;

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Listing {
    /// The directory's parent, for `..`.
    pub parent: Ino,
    pub entries: Vec<DirEntry>,
    /// Nothing follows.
    pub end: bool,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DirEntry {
    #[serde(rename = "n")]
    pub name: Name,
    #[serde(rename = "i")]
    pub ino: Ino,
    #[serde(rename = "k")]
    pub kind: FileKind,
    /// Listing goes on behind this entry from here.
    #[serde(rename = "c")]
    pub cookie: u64,
    #[serde(rename = "a", default, skip_serializing_if = "Option::is_none")]
    pub attr: Option<Attr>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Getxattr {
    pub ino: Ino,
    pub name: Name,
}
request!(Getxattr => XattrValue);

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct XattrValue {
    pub value: serde_bytes::ByteBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum SetxattrMode {
    /// Make or replace.
    Any,
    /// XATTR_CREATE
    Create,
    /// XATTR_REPLACE
    Replace,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Setxattr {
    pub ino: Ino,
    pub name: Name,
    pub value: serde_bytes::ByteBuf,
    pub mode: SetxattrMode,
    pub creds: Creds,
}
request!(mut Setxattr => Done);

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Listxattr {
    pub ino: Ino,
}
request!(Listxattr => XattrNames);

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct XattrNames {
    pub names: Vec<Name>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Removexattr {
    pub ino: Ino,
    pub name: Name,
    pub creds: Creds,
}
request!(mut Removexattr => Done);

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Statfs {}
request!(Statfs => FsStats);

/// Bytes are of replicas divided by the goal: what a user can still write.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FsStats {
    pub total_bytes: u64,
    pub free_bytes: u64,
    pub inodes: u64,
    pub free_inodes: u64,
}
