//! An operator's tool to a chunk server that has lost its master: what do the headers of its replicas say? The answers are
//! what `dfs-chunkserver headers` prints of the disks of a stopped one.

use serde::{Deserialize, Serialize};

use crate::ids::ChunkId;
use crate::listing::{ListedDisk, ListedReplica};
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
