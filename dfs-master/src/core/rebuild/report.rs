//! What a rebuild tells of itself.

use dfs_proto::ids::{ClusterId, Generation};
use dfs_proto::units::ChunkSize;
use serde::Serialize;

use super::Disk;

/// What a remark is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RemarkKind {
    /// A configuration had more members than replicas were found.
    Missing,
    /// Replicas are there, and none that can be used.
    Lost,
    /// A file has no chunk at some index. It may never have had one.
    Hole,
    /// A file is not where its path says.
    Renamed,
    LostAndFound,
    /// A replica that is no member's copy.
    Aside,
    /// A chunk that is no file's any more.
    Left,
    /// A file among the chunks that is no replica, or a header that makes no sense.
    Unfit,
}

impl RemarkKind {
    /// All of them, the worst first.
    pub const ALL: [RemarkKind; 8] = [
        RemarkKind::Missing,
        RemarkKind::Lost,
        RemarkKind::Hole,
        RemarkKind::Renamed,
        RemarkKind::LostAndFound,
        RemarkKind::Aside,
        RemarkKind::Left,
        RemarkKind::Unfit,
    ];

    /// One word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            RemarkKind::Missing => "missing",
            RemarkKind::Lost => "lost",
            RemarkKind::Hole => "hole",
            RemarkKind::Renamed => "renamed",
            RemarkKind::LostAndFound => "lost+found",
            RemarkKind::Aside => "aside",
            RemarkKind::Left => "left",
            RemarkKind::Unfit => "unfit",
        }
    }
}

/// Something that whoever rebuilds should know.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Remark {
    pub kind: RemarkKind,
    /// A path, a chunk or a file on a disk.
    pub object: String,
    pub what: String,
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Report {
    pub cluster: ClusterId,
    pub generation: Generation,
    pub chunk_size: ChunkSize,
    pub goal: u8,
    pub servers: u64,
    pub disks: u64,
    /// Found on the disks, whatever became of them.
    pub replicas: u64,
    pub files: u64,
    /// The root too.
    pub directories: u64,
    pub chunks: u64,
    /// The files' sizes, together.
    pub bytes: u64,
    /// Header slots that are damaged; the replicas' other slots served.
    pub damaged_slots: u64,
    /// By kind.
    pub remarks: Vec<Remark>,
}

impl Report {
    /// How many remarks of a kind there are.
    #[must_use]
    pub fn count(&self, kind: RemarkKind) -> usize {
        self.remarks.iter().filter(|remark| remark.kind == kind).count()
    }
}

#[derive(Debug, Default)]
pub(super) struct Remarks(Vec<Remark>);

impl Remarks {
    pub(super) fn add(&mut self, kind: RemarkKind, object: String, what: String) {
        self.0.push(Remark { kind, object, what });
    }

    pub(super) fn unfit(&mut self, disk: &Disk) {
        for unfit in &disk.unfit {
            let object = format!("{}/{}", disk.disk.path, unfit.file);
            self.add(RemarkKind::Unfit, object, unfit.why.clone());
        }
    }

    pub(super) fn into_list(mut self) -> Vec<Remark> {
        self.0.sort_by_key(|remark| remark.kind);
        self.0
    }
}
