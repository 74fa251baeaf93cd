//! What crosses the border of the core: the inputs that its driver hands in and the effects that it
//! wants done. Plain values; nothing here decides anything.
//!
//! Order matters. The driver performs the effects of one step in the order given, and feeds inputs in
//! the order in which they happened. An effect that rests on the log says so in [`After`], and the
//! driver holds it until the log is durable up to there; effects held on one connection keep their order
//! among themselves and with those that follow.

use bytes::Bytes;
use dfs_proto::conn::Role;
use dfs_proto::header::Words;
use dfs_proto::ids::{BootId, LogIndex, RequestId, ServerNum, Term};
use dfs_proto::request::Op;
use dfs_proto::status::Status;
use dfs_proto::units::{Micros, Timespec};

use super::image::StateImage;
use super::load::LoadSecond;
use crate::log::entry::{HardState, LogEntry};

/// The time of a step: the process's monotonic clock for all decisions, the time of day for stamps in
/// inodes and records only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    pub mono: Micros,
    pub wall: Timespec,
}

/// A connection, numbered by the driver and never used again in a process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct ConnId(pub u64);

/// A request that waits for its reply, numbered by the driver, unique on its connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct ReqId(pub u64);

/// A call that the core made, numbered by the core and never used again in a process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct CallNum(pub u64);

/// What the peer of a new connection said in its HELLO.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    pub role: Role,
    pub name: String,
    pub server: Option<ServerNum>,
    pub boot: Option<BootId>,
}

/// What the driver tells the core.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    Connected {
        conn: ConnId,
        peer: Peer,
    },
    Disconnected {
        conn: ConnId,
    },
    /// A request; `rid` and `done` are the header's first two words.
    Request {
        conn: ConnId,
        req: ReqId,
        op: Op,
        rid: RequestId,
        done: RequestId,
        body: Bytes,
    },
    /// How a call ended. A call whose deadline passed or whose connection broke is answered too.
    Answer {
        call: CallNum,
        result: Result<Bytes, Status>,
    },
    /// What [`Effect::Persist`] of this number and all before it asked for is written: with `must_sync`
    /// on the disk, else in the file.
    Persisted {
        number: u64,
    },
    /// The log is on the disk up to here.
    Durable {
        index: LogIndex,
    },
    /// The snapshot taken at this index is on the disk and was read back.
    SnapshotDone {
        index: LogIndex,
        term: Term,
    },
    /// It could not be written; the core asks again later.
    SnapshotFailed {
        index: LogIndex,
    },
    /// Time passed; every 50 to 100 ms.
    Tick,
}

/// What an effect waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum After {
    /// Nothing.
    Now,
    /// The log being durable up to here.
    Durable(LogIndex),
}

/// What the core wants done.
#[derive(Debug)]
pub enum Effect {
    /// Append to the log, in the order of the numbers, then [`Input::Persisted`].
    Persist {
        number: u64,
        entries: Vec<LogEntry>,
        hard_state: Option<HardState>,
        /// Sync before saying so.
        must_sync: bool,
    },
    Reply {
        conn: ConnId,
        req: ReqId,
        op: Op,
        status: Status,
        /// For people, when the status is not `Ok`.
        detail: String,
        body: Bytes,
        /// Ready for the payload: attributes of the directories that were changed, or nothing.
        dirs: Bytes,
        /// Ready for the header: log index, master's time, term, records not yet on disk.
        words: Words,
        after: After,
    },
    /// A request to a peer over its connection; the answer comes back as [`Input::Answer`].
    Call { conn: ConnId, call: CallNum, op: Op, body: Bytes, deadline_ms: u32, after: After },
    /// One way.
    Notify { conn: ConnId, op: Op, body: Bytes, after: After },
    /// Write the image as a snapshot, on another thread, then [`Input::SnapshotDone`]. The log is on the
    /// disk up to it.
    Snapshot { index: LogIndex, term: Term, image: StateImage },
    /// Write it down for whoever looks at loads later. Nothing rests on it: it may be lost.
    LogLoad { second: Box<LoadSecond> },
    /// Close the connection after what was sent before.
    CloseConn { conn: ConnId },
}
