//! How calling, connecting and listening fail.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::conn::PeerAddr;
use crate::frame::{DecodeError, EncodeError, TooLong};
use crate::header::FrameError;
use crate::ids::ClusterId;
use crate::status::Status;

/// Why a call has no good reply. Except for [`CallError::Status`], [`CallError::Encode`] and
/// [`CallError::TooLong`], whether the request took effect is unknown.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The peer answered that it failed, with a detail for people (may be empty).
    #[error("{0}{sep}{1}", sep = if .1.is_empty() { "" } else { ": " })]
    Status(Status, String),
    /// No reply came in time.
    #[error("no reply before the deadline")]
    Deadline,
    /// The connection broke or was closed before the reply came.
    #[error("connection closed before the reply came")]
    Closed,
    /// The connection could not be made, where making it is part of the call.
    #[error(transparent)]
    Connect(#[from] ConnError),
    /// The reply is not the message that the request's type binds.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The request does not encode; nothing was sent.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The request is longer than a peer accepts; nothing was sent.
    #[error(transparent)]
    TooLong(#[from] TooLong),
}

impl CallError {
    /// The status nearest to what happened, for those who act on statuses alone.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            CallError::Status(status, _) => *status,
            CallError::Deadline => Status::Deadline,
            CallError::Closed | CallError::Connect(_) => Status::Disconnected,
            CallError::Decode(_) | CallError::Encode(_) => Status::Malformed,
            CallError::TooLong(_) => Status::TooLarge,
        }
    }
}

/// Why there is no connection.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConnError {
    /// Nobody listens there. On a Unix socket that proves that the process which listened is dead; on TCP
    /// it does not, since another network namespace or host may answer for the address.
    #[error("{addr}: connection refused")]
    Refused {
        /// What was dialled.
        addr: PeerAddr,
        /// Whether it is a Unix socket.
        unix: bool,
    },
    /// Dialling failed otherwise.
    #[error("{addr}: {source}")]
    Unreachable {
        /// What was dialled.
        addr: PeerAddr,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// Connection and handshake took too long.
    #[error("{addr}: no connection within the time allowed")]
    TimedOut {
        /// What was dialled.
        addr: PeerAddr,
    },
    /// The peer refused the handshake.
    #[error("{addr} refused: {status}{sep}{detail}", sep = if .detail.is_empty() { "" } else { ": " })]
    Handshake {
        /// Who refused.
        addr: PeerAddr,
        /// Why.
        status: Status,
        /// Why, for people.
        detail: String,
    },
    /// We refused the peer's handshake.
    #[error("refused {addr}: {status}: {detail}")]
    Stranger {
        /// Who was refused.
        addr: PeerAddr,
        /// Why, as it was told.
        status: Status,
        /// Why, for people.
        detail: String,
    },
    /// The peer that we dialled belongs to another cluster.
    #[error("{addr} belongs to cluster {theirs}, not to {ours}")]
    WrongCluster {
        /// What was dialled.
        addr: PeerAddr,
        /// Our cluster.
        ours: ClusterId,
        /// Its cluster.
        theirs: ClusterId,
    },
    /// What came from the peer is no frame of this protocol.
    #[error("{addr}: {source}")]
    Frame {
        /// Who sent it.
        addr: PeerAddr,
        /// What was wrong.
        source: FrameError,
    },
    /// The connection ended during the handshake.
    #[error("{addr}: closed during the handshake")]
    Closed {
        /// Who closed it.
        addr: PeerAddr,
    },
    /// Dialling failed a moment ago and is not tried again so soon.
    #[error("{last} (next try in {retry_in:?})")]
    BackedOff {
        /// When a call will dial again.
        retry_in: Duration,
        /// How it failed last.
        last: Box<ConnError>,
    },
}

impl ConnError {
    /// Whether it proves, now, that no process serves the address.
    #[must_use]
    pub fn proves_death(&self) -> bool {
        matches!(self, ConnError::Refused { unix: true, .. })
    }
}

/// Why an address cannot be listened at.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process listens there.
    #[error("{0} is in use by another process")]
    InUse(PeerAddr),
    /// The path of a Unix socket names something else, which is left alone.
    #[error("{0} exists and is no socket")]
    NotASocket(PeerAddr),
    /// The system refused.
    #[error("cannot listen at {addr}: {source}")]
    Io {
        /// Where.
        addr: PeerAddr,
        /// What it said.
        source: io::Error,
    },
}
