//! What the log records: one command a record, in a versioned envelope.
//!
//! A command carries everything that its effect depends on, so applying the same log gives the same
//! state. Variants and fields are only ever appended; `tests/fixtures/record.v1` pins the bytes.

use dfs_proto::ids::{
    BootId, ChunkId, ChunkVersion, ClusterId, ConfigNum, Generation, Ino, OpenNum, OsBootId, RequestId,
    ServerNum, SessionId,
};
use dfs_proto::meta::{Attr, Removed, Renamed};
use dfs_proto::status::Status;
use dfs_proto::units::{ChunkIndex, ChunkSize, Timespec};
use serde::{Deserialize, Serialize};

use super::ops::{self, NsCommand};
use super::policy::Thresholds;
use super::servers::ServerInfo;
use super::state::Mark;

/// The envelope's version: the first byte of every record.
const VERSION: u8 = 1;

/// One record of the log.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Whose mutation it is, if its answer is to be kept.
    pub origin: Option<Origin>,
    /// The leader's time of day.
    pub wall: Timespec,
    pub command: Command,
}

/// A client's mutation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Origin {
    pub session: SessionId,
    pub rid: RequestId,
    /// The lowest id that the client has no answer to.
    pub done: RequestId,
}

/// A change of the state.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Command {
    /// The first record of a cluster.
    Genesis {
        cluster: ClusterId,
        generation: Generation,
        chunk_size: ChunkSize,
        goal: u8,
    },
    /// A change of names or attributes alone.
    Ns(NsCommand),
    /// A new file, and its first chunk if servers can take one.
    Create {
        create: ops::Create,
        first: Option<NewChunk>,
    },
    /// A chunk for a hole.
    Allocate {
        ino: Ino,
        index: ChunkIndex,
        chunk: NewChunk,
    },
    /// What a writer did.
    Commit(CommitFile),
    /// Allocations that their session left without a write.
    DropUnused {
        chunks: Vec<Unused>,
    },
    OpenSession {
        name: String,
        os_boot: OsBootId,
    },
    EndSession {
        session: SessionId,
    },
    RegisterServer(ServerInfo),
    /// See [`super::servers::Server::settled`].
    SettleServer {
        server: ServerNum,
        boot: BootId,
    },
    /// Chunk ids below this counter may be given out.
    ReserveIds {
        below: u64,
    },
    /// From here on no capability of an older version is issued.
    Recovering {
        chunks: Vec<(ChunkId, ChunkVersion)>,
    },
    /// Recoveries that are through.
    Activate {
        chunks: Vec<Activation>,
    },
    AddLearners {
        learners: Vec<LearnerChange>,
    },
    DropLearners {
        learners: Vec<LearnerChange>,
    },
    /// A learner that holds all becomes a member.
    CommitLearner {
        chunk: ChunkId,
        version: ChunkVersion,
        config: ConfigNum,
        server: ServerNum,
    },
    /// Nameless inodes that nobody has open.
    FreeInodes(ops::FreeInodes),
    /// Tombstones whose replicas are gone, and tombstones past their time.
    Tombstones {
        done: Vec<ChunkId>,
        forget: Vec<ChunkId>,
    },
    /// An operator has accepted that what a newer log said is lost.
    NewGeneration {
        generation: Generation,
    },
    /// Chunks whose members all have the same on their disks, and refuse writes of that opening.
    CloseChunks {
        chunks: Vec<CloseDone>,
    },
    /// A closed chunk is to be written again, under this opening.
    Reopen {
        chunk: ChunkId,
        open_num: OpenNum,
    },
    /// An operator has given up what a chunk's members held.
    GiveUp(GiveUp),
    /// What the log had come to, by the leader's state.
    StateHash(Mark),
    /// Members that are to leave, while reads and writes go on.
    Leave {
        leaving: Vec<Departure>,
    },
    /// Members that have left: they serve nothing more.
    Left {
        left: Vec<Departure>,
    },
    /// See [`super::servers::Server::draining`].
    DrainServer {
        server: ServerNum,
        drain: bool,
    },
    /// Chunks that were closed with nothing but holes: their files have a hole there from now on.
    DropHoles {
        chunks: Vec<CloseDone>,
    },
    /// How the number of replicas follows the load from here on.
    SetPolicy(Thresholds),
    /// See [`super::servers::Maintenance`]; `None` ends it.
    MaintainServer {
        server: ServerNum,
        for_ms: Option<u64>,
    },
    /// Files and directories that have other goals from here on.
    SetGoal(ops::SetGoal),
}

/// A chunk to be.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NewChunk {
    pub id: ChunkId,
    /// The first is the primary.
    pub members: Vec<ServerNum>,
}

/// [`Command::Commit`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CommitFile {
    pub commit: ops::Commit,
    pub synced: Vec<ChunkId>,
    pub unused: Vec<(ChunkIndex, ChunkId)>,
    /// What was set on the file while it was being made.
    pub set: Option<ops::Setattr>,
}

/// A chunk that lies beyond the end of its file and was never written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Unused {
    pub ino: Ino,
    pub index: ChunkIndex,
    pub chunk: ChunkId,
}

/// A recovered chunk's new configuration.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Activation {
    pub chunk: ChunkId,
    /// The version that it was fenced at.
    pub version: ChunkVersion,
    pub config: ConfigNum,
    /// Out of the last active configuration; the base first.
    pub members: Vec<ServerNum>,
    /// The base may lack what was acknowledged and not synced.
    pub lossy: bool,
}

/// A chunk's clean close.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CloseDone {
    pub chunk: ChunkId,
    pub version: ChunkVersion,
    pub open_num: OpenNum,
    pub digest: u128,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LearnerChange {
    pub chunk: ChunkId,
    pub server: ServerNum,
}

/// A member that leaves a configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Departure {
    pub chunk: ChunkId,
    pub version: ChunkVersion,
    /// The one that it is left out of next.
    pub config: ConfigNum,
    pub server: ServerNum,
}

/// [`Command::GiveUp`]: the chunk goes on with other members, by a recovery that asks only these.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GiveUp {
    pub chunk: ChunkId,
    /// What the operator saw: the highest version that a member may be fenced at, and the configuration.
    pub version: ChunkVersion,
    pub config: ConfigNum,
    pub members: Vec<ServerNum>,
    /// They have an older replica to go on from; else nothing, and the chunk begins as zeros.
    pub filled: bool,
}

/// What came of a command: what a client's reply is made from, now or when it asks again.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Answer {
    /// Refused; nothing changed.
    Failed(Status),
    Done,
    Attr(Attr),
    /// A file that was made.
    Created(Attr),
    Removed(Removed),
    Renamed(Renamed),
    /// The chunk that is at the place asked for, whoever put it there.
    Placed(ChunkId),
    Session(SessionId),
    Server(ServerNum),
    /// First half of a truncation; the client's answer comes with the second.
    Intended,
}

/// Why bytes are no record.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadCommand {
    #[error("it is empty")]
    Empty,
    #[error("its version {0} is not known to this build")]
    Version(u8),
    #[error("it does not decode: {0}")]
    Decode(#[from] postcard::Error),
}

impl Record {
    /// The record as the log stores it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // Serialising into memory fails only for types without a length, of which a record has none.
        postcard::to_extend(self, vec![VERSION]).expect("a record serialises")
    }

    /// Reads [`Record::encode`].
    ///
    /// # Errors
    /// When the bytes are none, or of a newer build.
    pub fn decode(bytes: &[u8]) -> Result<Record, BadCommand> {
        match bytes.split_first() {
            None => Err(BadCommand::Empty),
            Some((&VERSION, rest)) => Ok(postcard::from_bytes(rest)?),
            Some((version, _)) => Err(BadCommand::Version(*version)),
        }
    }
}
