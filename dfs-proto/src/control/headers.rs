//! An operator's tool to a chunk server that has lost its master: what do the headers of its replicas say, and which copies
//! of the master's log has it? The answers are what `dfs-chunkserver headers` prints of the disks of a stopped one.

use serde::{Deserialize, Serialize};

use crate::checksum::Crc;
use crate::ids::ChunkId;
use crate::listing::{CopyAbout, ListedDisk, ListedReplica};
use crate::meta::request;
use crate::request::{Op, Request};

/// What is on one of the server's disks, of chunks from `from` on? Refused while the server has a master's lease: then
/// no namespace is lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ListHeaders {
    /// Its place in the server's list.
    pub disk: u16,
    pub from: ChunkId,
}
request!(ListHeaders => HeaderPart);

/// Replicas of one [`HeaderPart`], each with a path of up to 368 bytes.
pub const HEADERS_MAX: usize = 512;

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HeaderPart {
    /// `None`: the server has no disk of that number, nor of a higher one.
    pub disk: Option<ListedDisk>,
    /// By rising id.
    pub replicas: Vec<ListedReplica>,
    /// Where the next question goes on; `None` when nothing follows.
    pub next: Option<ChunkId>,
}

/// Which copies of the master's log are on one of the server's disks? Refused as [`ListHeaders`] is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ListCopies {
    /// Its place in the server's list.
    pub disk: u16,
}
request!(ListCopies => CopyPart);

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CopyPart {
    /// `None`: the server has no disk of that number, nor of a higher one.
    pub disk: Option<ListedDisk>,
    pub copies: Vec<CopyFiles>,
}

/// A copy and what of it a master reads.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CopyFiles {
    pub about: CopyAbout,
    /// When something came last, by the server's clock, in seconds since 1970.
    pub written: i64,
    /// Its directory on the disk.
    pub dir: CopyName,
    pub files: Vec<CopyFile>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CopyFile {
    /// From the disk's directory on.
    pub name: CopyName,
    pub len: u64,
}

/// Some bytes of a file that [`ListCopies`] named, which come as the reply's payload: fewer at the file's end.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReadCopy {
    pub disk: u16,
    pub name: CopyName,
    pub offset: u64,
    /// At most [`super::LOG_READ_MAX`].
    pub len: u32,
}
request!(ReadCopy => CopyBytes);

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CopyBytes {
    /// Of the payload, which no checksum of the frame covers.
    pub crc: Crc,
}

/// A path that leads nowhere but down from where it is joined to: plain names with slashes between.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CopyName(String);

/// Longer than the longest that there is, `master-copy/a/snapshot/` and 21 more.
const COPY_NAME_MAX: usize = 128;

#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not the name of a file of a copy")]
pub struct BadCopyName;

impl CopyName {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for CopyName {
    type Error = BadCopyName;

    fn try_from(name: String) -> Result<CopyName, BadCopyName> {
        let plain = |part: &str| {
            let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
            !part.is_empty() && !part.starts_with('.') && part.bytes().all(known)
        };
        let good = name.len() <= COPY_NAME_MAX && name.split('/').all(plain);
        if good { Ok(CopyName(name)) } else { Err(BadCopyName) }
    }
}

impl From<CopyName> for String {
    fn from(name: CopyName) -> String {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copys_name_leads_down_only() {
        for good in ["master-copy/a/log/00ff.seg", "a"] {
            assert_eq!(CopyName::try_from(good.to_owned()).unwrap().as_str(), good);
        }
        for bad in ["", "/a", "a//b", "a/../b", "..", "a/.b", "a b", "a/\0", &"a".repeat(129)] {
            assert_eq!(CopyName::try_from(bad.to_owned()), Err(BadCopyName), "{bad:?}");
        }
    }
}
