//! What is under way: asked of one process, and by operators' tools of the whole cluster.

use serde::{Deserialize, Serialize};

use crate::ids::{ChunkId, Ino};
use crate::meta::request;
use crate::request::{Op, Request};

/// Asks whoever is at the other end of a connection what its process is at. Answered by every end of every connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct InFlight {
    /// Only what has taken so long.
    pub min_us: u64,
    /// At most so many of those under way, and of those that took long.
    pub most: u32,
}
request!(InFlight => Flights);

/// What a process is at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Flights {
    /// How many there are, whether or not they are named.
    pub count: u64,
    /// The oldest first.
    pub flights: Vec<Flight>,
    /// What took longer than a second lately, the last first.
    pub slow: Vec<Flight>,
}

/// Who waits for whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The peer waits for this process.
    Serves,
    /// This process waits for the peer.
    Calls,
    /// A program waits for this mount.
    Program,
}

/// One request.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Flight {
    pub side: Side,
    /// The operation of the protocol, or the program's call.
    pub op: String,
    pub ino: Option<Ino>,
    pub chunk: Option<ChunkId>,
    /// Who is at the other end.
    pub peer: String,
    /// How long it has taken, or took.
    pub age_us: u64,
    /// How long ago it ended, if it did.
    pub ended_ms: Option<u64>,
}

/// Asks the master what the whole cluster is at: itself, every chunk server and every mount that it has a connection with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ops {
    /// As of [`InFlight`], of each.
    pub min_us: u64,
    pub most: u32,
}
request!(Ops => OpsReport);

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OpsReport {
    pub daemons: Vec<DaemonOps>,
}

/// What one process is at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DaemonOps {
    pub name: String,
    /// None when it did not answer in time.
    pub at: Option<Flights>,
}
