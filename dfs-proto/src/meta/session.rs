//! Opening, resuming and ending a session; the directory of chunk servers.

use serde::{Deserialize, Serialize};

use crate::ids::{
    ClusterId, Generation, Handle, Ino, LogIndex, OsBootId, ServerId, ServerNum, SessionId, Term,
};
use crate::meta::{Done, Grant, GrantKind, request};
use crate::request::{Op, Request};
use crate::units::ChunkSize;

/// Opens a session. Not a mutation in the sense of kept answers: the answer to a lost one is a session
/// that nobody uses and that ends with its lease.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OpenSession {
    /// Host name and mount point, for people.
    pub name: String,
    pub os_boot: OsBootId,
    /// Reads on hold too, when what there is may be old, and changes nothing then.
    pub recover: bool,
}
request!(OpenSession => SessionOpened);

/// What a client has to know for its work.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SessionOpened {
    pub session: SessionId,
    pub cluster: ClusterId,
    pub generation: Generation,
    pub term: Term,
    pub chunk_size: ChunkSize,
    /// Replicas that new files get.
    pub goal: u8,
    /// How long the session lives after the last message that the master had from it.
    pub lease_ms: u64,
    /// How long a chunk server may serve after its heartbeat was sent (D of the lease rules).
    pub server_lease_ms: u64,
    pub servers: Servers,
}

/// Takes a session up again on a new connection, with all that it holds: opens and grants are not in the
/// master's log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ResumeSession {
    pub session: SessionId,
    /// The highest log position that any reply carried. A master whose log lacks it answers `tail_lost`.
    pub seen_term: Term,
    pub seen_index: LogIndex,
    pub opens: Vec<OpenClaim>,
    /// As of [`OpenSession`].
    pub recover: bool,
}
request!(ResumeSession => SessionResumed);

/// An open file that a client had when its connection broke.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OpenClaim {
    pub ino: Ino,
    pub handle: Handle,
    pub write: bool,
    /// The grant that it held.
    pub grant: GrantKind,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SessionResumed {
    pub term: Term,
    pub lease_ms: u64,
    /// The master lost records that it had answered: the client drops every cached name, attribute, map
    /// and grant, and the next fsync and close of what it changed reports EIO.
    pub tail_lost: bool,
    /// Grants given again. What is not named here is no longer held.
    pub grants: Vec<(Ino, Grant)>,
    pub servers: Servers,
}

/// Ends a session: its opens, locks and grants end with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CloseSession {
    /// Every write of it has an answer.
    pub settled: bool,
}
request!(CloseSession => Done);

/// Renews the session's lease when nothing else did, and reads the master's clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeepAlive {
    /// The directory epoch that the client knows; the reply says whether to ask for a new one.
    pub servers_epoch: u64,
}
request!(KeepAlive => Alive);

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Alive {
    pub servers_changed: bool,
}

/// Asks for the sessions that there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SessionList {}
request!(SessionList => SessionReports);

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SessionReports {
    pub sessions: Vec<SessionReport>,
    /// How long a session lives after the last message that the master had from it.
    pub lease_ms: u64,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SessionReport {
    pub session: SessionId,
    /// Host name and mount point.
    pub name: String,
    pub os_boot: OsBootId,
    /// Whether a connection of it stands.
    pub connected: bool,
    /// Since the master last heard from it.
    pub silent_ms: u64,
    /// Files that it has open.
    pub open_files: u64,
    /// An operator has it end: nothing that it asks is answered, and its lease is not renewed.
    #[serde(default)]
    pub evicted: bool,
}

/// An operator wants a session to end: from here on the master answers nothing that it asks and takes nothing back from it,
/// and with its lease, which nothing renews any more, it ends. Others get what it held then, and not before: until its own
/// clock tells it so, a client that hears nothing shows what its grants let it keep. A master that restarts before that knows
/// nothing of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EvictSession {
    pub session: SessionId,
}
request!(EvictSession => Done);

/// Asks for the directory of chunk servers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GetServers {}
impl Request for GetServers {
    const OP: Op = Op::Servers;
    type Reply = Servers;
}

/// How to reach every chunk server; replies elsewhere name servers by number only.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Servers {
    /// Raised by every change.
    pub epoch: u64,
    pub list: Vec<ServerAddr>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ServerAddr {
    pub num: ServerNum,
    pub id: ServerId,
    /// `HOST:PORT`
    pub tcp: String,
    /// Path of its Unix socket; usable by processes under the same kernel that can open it.
    pub unix: Option<String>,
    pub os_boot: OsBootId,
}
