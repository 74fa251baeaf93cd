//! The one list of outcomes that cross the wire. A number, once given, is never given another meaning.
//!
//! The first block are the errors that a program sees as an errno; `dfs-fuse` translates them in one
//! place. The second block is between dfs processes: each says what the caller has to do next.

use serde::{Deserialize, Serialize};

macro_rules! statuses {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        /// How a request ended. `Ok` is 0.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
        #[serde(try_from = "u16", into = "u16")]
        #[repr(u16)]
        pub enum Status {
            $($(#[$doc])* $name = $code,)*
        }

        impl Status {
            /// All statuses, for tests that walk every one.
            pub const ALL: &'static [Status] = &[$(Status::$name),*];

            /// The status of a number from the wire.
            #[must_use]
            pub fn from_code(code: u16) -> Option<Status> {
                match code {
                    $($code => Some(Status::$name),)*
                    _ => None,
                }
            }

            /// A sentence for people.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self {
                    $(Status::$name => $text,)*
                }
            }
        }
    };
}

statuses! {
    Ok = 0, "done";

    /// ENOENT
    NotFound = 1, "no such file or directory";
    /// EEXIST
    Exists = 2, "file exists";
    /// ENOTDIR
    NotDir = 3, "not a directory";
    /// EISDIR
    IsDir = 4, "is a directory";
    /// ENOTEMPTY
    NotEmpty = 5, "directory not empty";
    /// EACCES
    Access = 6, "permission denied";
    /// EPERM
    NotPermitted = 7, "operation not permitted";
    /// ENAMETOOLONG
    NameTooLong = 8, "name too long";
    /// EINVAL
    Invalid = 9, "invalid argument";
    /// EFBIG
    TooBig = 10, "file too large";
    /// ENOSPC
    NoSpace = 11, "no space left on the chunk servers";
    /// EMLINK
    TooManyLinks = 12, "too many links";
    /// ENODATA: the extended attribute is not there.
    NoData = 13, "no such attribute";
    /// ERANGE
    Range = 14, "result too large for the buffer";
    /// EOPNOTSUPP
    NotSupported = 15, "operation not supported";
    /// EIO: no good copy could be read, or written bytes were lost.
    Io = 16, "input/output error";
    /// ESTALE: the inode is gone.
    Stale = 17, "stale file handle";
    /// EBUSY
    Busy = 18, "resource busy";
    /// EROFS
    ReadOnly = 19, "read-only file system";
    /// ELOOP
    Loop = 20, "too many levels of symbolic links";
    /// E2BIG: an extended attribute is larger than the limit.
    ValueTooBig = 21, "value too large";
    /// EBADF: the handle is not open, or not for this.
    BadHandle = 22, "bad file handle";
    /// ETIMEDOUT: a `soft` mount gave up.
    TimedOut = 23, "timed out";
    /// EDQUOT
    Quota = 24, "quota exceeded";

    /// The frame or message did not decode; the connection is closed after it.
    Malformed = 100, "malformed message";
    /// Longer than a limit allows; the connection is closed after it.
    TooLarge = 101, "message over the size limit";
    /// The peer speaks another protocol version.
    WrongVersion = 102, "protocol version not spoken here";
    /// The peer belongs to another cluster.
    WrongCluster = 103, "belongs to another cluster";
    /// The operation number is not known here.
    UnknownOp = 104, "operation not known here";
    /// The first frame of a connection must be HELLO.
    NoHello = 105, "no handshake yet";
    /// The peer's role may not call this.
    WrongRole = 106, "not allowed for this kind of peer";
    /// Too much in flight; try again after a short wait.
    Overloaded = 107, "overloaded, try again";
    /// The deadline passed before the work was done. A mutation is then unknown, not failed.
    Deadline = 108, "deadline passed";
    /// This master does not lead; the body names the leader if known.
    NotLeader = 109, "this master does not lead";
    /// The master holds: a chunk server knows a newer history. Reads only.
    Hold = 110, "the master is on hold: a chunk server has seen newer metadata";
    /// The session ended or was never known: open a new one.
    NoSession = 111, "session ended";
    /// The chunk's version here is another: ask the master for the current one.
    WrongChunkVersion = 112, "chunk version has changed";
    /// The lease is over, or membership is not confirmed for this boot: ask another member.
    NotServing = 113, "not serving this chunk now";
    /// A write to the range is pending here: ask the primary.
    Redirect = 114, "ask the primary";
    /// The chunk is being recovered: try again after a short wait.
    Recovering = 115, "chunk is being recovered, try again";
    /// Bytes did not match their checksum in transit: send again.
    BadChecksum = 116, "checksum mismatch in transit";
    /// The stored block does not match its stored checksum: ask another member.
    Corrupt = 117, "stored block is corrupt";
    /// The capability is malformed, expired, or for other rights.
    BadCapability = 118, "capability not valid for this";
    /// The write's truncation epoch is older than the chunk's: take a new capability.
    OldEpoch = 119, "file was truncated since";
    /// The master's log lost its last records: drop all cached state, report loss.
    TailLost = 120, "the master lost its last records";
    /// Unsynced acknowledged writes were lost by recovery: send again or report EIO.
    Lost = 121, "unsynced writes were lost";
    /// The master needs the caller's supplementary groups to decide: send again with them.
    NeedGroups = 122, "supplementary groups needed";
    /// Works only while the connection to the peer stands; it broke.
    Disconnected = 123, "connection lost";
    /// No chunk server can take a replica now (too few live ones): try again after a short wait.
    NoServers = 124, "too few live chunk servers";
    /// This identity is registered by another live process.
    AlreadyRegistered = 125, "another process with this identity is alive";
    /// The disk failed this operation for good.
    DiskFailed = 126, "disk failed";
    /// The peer's history is ahead of ours (generation, term or index).
    Behind = 127, "peer has seen a newer history";
    /// A conflicting grant is being recalled: try again after a short wait.
    Recalling = 128, "waiting for another mount to let go, try again";
    /// The chunk, replica or learner named is not known here.
    NoChunk = 129, "chunk not known here";
}

impl Status {
    /// A request to the master that ended so has changed nothing: the same one may be made again after a short wait.
    #[must_use]
    pub fn passes(self) -> bool {
        matches!(
            self,
            Status::Recalling
                | Status::Recovering
                | Status::NoServers
                | Status::Overloaded
                | Status::Deadline
                | Status::Hold
        )
    }
}

impl From<Status> for u16 {
    fn from(status: Status) -> u16 {
        status as u16
    }
}

/// A status number that this build does not know.
#[derive(Debug, thiserror::Error)]
#[error("status {0} is not known to this build")]
pub struct UnknownStatus(pub u16);

impl TryFrom<u16> for Status {
    type Error = UnknownStatus;

    fn try_from(code: u16) -> Result<Status, UnknownStatus> {
        Status::from_code(code).ok_or(UnknownStatus(code))
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for Status {}
