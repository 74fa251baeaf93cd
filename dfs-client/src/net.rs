//! How the library reaches the master and the chunk servers, and where it reads its clock: the one seam
//! between it and the world. [`tcp::TcpNet`] is the real one; a simulator brings its own.
//!
//! A master link is a single connection. The library dials it, so that it can take its session up as the
//! first thing it says on it; nothing is ever sent on a link that the library did not dial.

pub mod tcp;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use dfs_proto::frame::{Frame, Outgoing};
use dfs_proto::meta::ServerAddr;
use dfs_proto::status::Status;
use dfs_proto::units::Micros;
use tokio::sync::mpsc;

/// A connection to the master: no two of a [`Net`] have the same number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct LinkId(pub u64);

/// Whom a call goes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Peer {
    /// The master, over this connection and no other.
    Master(LinkId),
    /// A chunk server, over whatever connection there is or can be made.
    Server(Arc<ServerAddr>),
}

/// What a master link brings without being asked.
#[derive(Clone, Debug)]
pub enum Notice {
    /// A one-way request of the master: a recall, a hint.
    Frame(LinkId, Frame),
    /// The link is over.
    Closed(LinkId),
}

/// Where notices go. Bounded: what does not fit is dropped, which is safe because the master repeats
/// recalls and the rest are hints.
pub type Notices = mpsc::Sender<Notice>;

/// How many notices wait at most: a second's worth of recalls of a busy client.
pub const NOTICES_MAX: usize = 4096;

/// Why a call brought no good reply.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NetError {
    /// The peer answered with this status; the text is for people.
    #[error("{0}: {1}")]
    Status(Status, String),
    /// No reply in time. Whether the request took effect is unknown.
    #[error("no reply in time")]
    Deadline,
    /// The connection broke, or this link is over. Whether the request took effect is unknown.
    #[error("connection lost")]
    Closed,
    /// No connection could be made; nothing was sent. `dead` when the way it failed proves that the
    /// peer's process is gone.
    #[error("no connection")]
    Unreachable { dead: bool },
    /// The request could not be sent as it is, or the reply is not what its operation has.
    #[error("malformed message")]
    Malformed,
}

impl NetError {
    /// The status nearest to what happened.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            NetError::Status(status, _) => *status,
            NetError::Deadline => Status::Deadline,
            NetError::Closed | NetError::Unreachable { .. } => Status::Disconnected,
            NetError::Malformed => Status::Malformed,
        }
    }
}

/// The network and the clock.
pub trait Net: Clone + Send + Sync + 'static {
    /// A clock that never goes back and counts while the machine sleeps.
    fn now(&self) -> Micros;

    /// Makes a new connection to a master. Each call may try another one, so that repeated dialling walks
    /// all that are known. What comes in on the link goes to `notices`.
    fn dial_master(&self, notices: Notices) -> impl Future<Output = Result<LinkId, NetError>> + Send;

    /// Ends a master link; calls on it fail with [`NetError::Closed`].
    fn hang_up(&self, link: LinkId);

    /// Sends a request and waits for its reply, at most `deadline`. A reply other than `Ok` is an error.
    fn call(
        &self,
        to: &Peer,
        out: Outgoing,
        deadline: Duration,
    ) -> impl Future<Output = Result<Frame, NetError>> + Send;
}
