//! What lies on the disks of chunk servers that do not run, by their headers: `dfs-chunkserver headers` prints it, one
//! JSON object a line, and `dfs-master rebuild` makes a namespace of it. For people it is a look into the headers.
//!
//! After a disk come its replicas, in the order of their ids, then what of it is none, then its end. The last line counts
//! the disks: a listing that was cut short has none. With `--copies` come, in place of replicas, the copies of the master's
//! log that the disk has, for `dfs-master restore`.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::checksum::Digest;
use crate::control::ClusterFacts;
use crate::ids::{
    ChunkId, ChunkVersion, ClusterId, ConfigNum, DiskId, Generation, Ino, LogIndex, OpenNum, Seq, ServerId,
    SizeEpoch, Term,
};
use crate::note::FileNote;
use crate::units::{ChunkIndex, ChunkSize, Timespec};

/// One line.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    Disk(ListedDisk),
    Replica(ListedReplica),
    Unfit(ListedUnfit),
    Copy(ListedCopy),
    End {
        /// Replicas listed of the disk.
        replicas: u64,
        /// Header slots that are damaged; the replicas' other slots served.
        damaged_slots: u32,
    },
    Done {
        /// Disks listed.
        disks: u64,
    },
}

/// A disk: its label, and what its server was told.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ListedDisk {
    pub path: String,
    pub cluster: ClusterId,
    pub server: ServerId,
    pub disk: DiskId,
    /// The newest that it heard of, and the marks of it.
    pub generation: Generation,
    pub max_term: Term,
    pub max_index: LogIndex,
    pub starts: u64,
}

/// A replica, by the newest of its two headers and the disk's log of fences.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ListedReplica {
    pub chunk: ChunkId,
    pub version: ChunkVersion,
    pub config: ConfigNum,
    pub open_num: OpenNum,
    pub size_epoch: SizeEpoch,
    pub seq_synced: Seq,
    pub ino: Ino,
    pub index: ChunkIndex,
    /// One above its last byte.
    pub extent: u32,
    /// How many members its configuration had; 0: not known.
    pub members: u8,
    pub learner: bool,
    pub failed: bool,
    /// Of a clean close, and of one only: what the bytes hash to.
    #[serde(with = "hex", default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// When the file was last written, by its server's clock.
    pub modified: Timespec,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<ListedFile>,
}

/// What the replica keeps of its file; see [`FileNote`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ListedFile {
    pub path: Text,
    pub size: u64,
    pub epoch: SizeEpoch,
    pub chunk_size: ChunkSize,
}

impl From<FileNote> for ListedFile {
    fn from(note: FileNote) -> ListedFile {
        let FileNote { path, size, epoch, chunk_size } = note;
        ListedFile { path: Text::of(path.into_vec()), size, epoch, chunk_size }
    }
}

/// Bytes that are mostly text: a string where they are UTF-8, else an array of numbers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Text {
    Utf8(String),
    Bytes(Vec<u8>),
}

impl Text {
    /// The text of these bytes.
    #[must_use]
    pub fn of(bytes: Vec<u8>) -> Text {
        String::from_utf8(bytes).map_or_else(|not| Text::Bytes(not.into_bytes()), Text::Utf8)
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Text::Utf8(text) => text.as_bytes(),
            Text::Bytes(bytes) => bytes,
        }
    }
}

/// A copy of the master's snapshots and log: a directory like a master's, without its identity.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ListedCopy {
    pub path: String,
    #[serde(flatten)]
    pub about: CopyAbout,
    /// When something came last, by the server's clock, in seconds since 1970.
    pub written: i64,
}

/// What a copy says of itself, in its `copy.json`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CopyAbout {
    pub cluster: ClusterId,
    /// The cluster's when the copy was begun; it is of no other.
    pub generation: Generation,
    pub facts: ClusterFacts,
    /// Of two copies on a server the later begun has the higher one.
    pub serial: u64,
    /// The master's last durable record then.
    pub began: LogIndex,
    /// At some time it had all that the master had.
    pub whole: bool,
}

/// What a directory with a backup of the master's state says of it, in [`BACKUP`]: the rest is as in a master's directory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Backup {
    pub format: u32,
    /// The last record that it has to have.
    pub index: LogIndex,
    /// When it was made, by its machine's clock, in seconds since 1970.
    pub made: i64,
    pub copy: CopyAbout,
}

/// Comes last of all into the directory of a [`Backup`].
pub const BACKUP: &str = "backup.json";

/// A file among the chunks that is no replica.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ListedUnfit {
    pub file: String,
    pub why: String,
}

/// JSON's readers take numbers of 128 bits for floating point.
mod hex {
    use super::{Deserialize, Deserializer, Digest, Serializer};
    use serde::de::Error;

    #[expect(clippy::ref_option, reason = "the form that serde calls")]
    pub(super) fn serialize<S: Serializer>(digest: &Option<Digest>, to: S) -> Result<S::Ok, S::Error> {
        match digest {
            Some(digest) => to.collect_str(digest),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Digest>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        let parse = |text: String| u128::from_str_radix(&text, 16).map(Digest).map_err(D::Error::custom);
        text.map(parse).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_any_bytes_reads_back() {
        for path in [b"/a/b".to_vec(), b"/\xff\x00".to_vec(), Vec::new()] {
            let note = FileNote::new(&path, u64::MAX, SizeEpoch(3), ChunkSize::DEFAULT);
            let replica = ListedReplica {
                chunk: ChunkId(1 << 48 | 7),
                version: ChunkVersion(1),
                config: ConfigNum(2),
                open_num: OpenNum(3),
                size_epoch: SizeEpoch(3),
                seq_synced: Seq(4),
                ino: Ino(u64::MAX >> 4),
                index: ChunkIndex(5),
                extent: 6,
                members: 2,
                learner: false,
                failed: false,
                digest: Some(Digest(u128::MAX - 5)),
                modified: Timespec { sec: -1, nsec: 5 },
                file: Some(note.into()),
            };
            assert_eq!(replica.file.as_ref().unwrap().path.as_bytes(), path);
            for line in [
                Line::Replica(replica.clone()),
                Line::Replica(ListedReplica { digest: None, file: None, ..replica }),
            ] {
                let text = serde_json::to_string(&line).unwrap();
                assert!(!text.contains('\n'));
                assert_eq!(serde_json::from_str::<Line>(&text).unwrap(), line);
            }
        }
    }
}
