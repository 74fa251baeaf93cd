//! What a message is: an operation number, a request type, and the reply type bound to it.
//!
//! A request that changes the master's state is a *mutation*: its frame carries the session's
//! [`RequestId`](crate::ids::RequestId), and the master keeps the answer under it until the client says
//! that it arrived, so a repeated send takes effect once.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A MessagePack message with its reply.
pub trait Request: Serialize + DeserializeOwned + Send + Sync + std::fmt::Debug + 'static {
    /// Its number on the wire.
    const OP: Op;
    /// Whether it changes the master's logged state, and so carries a request id.
    const MUTATION: bool = false;
    /// What answers it when the status is `Ok`.
    type Reply: Serialize + DeserializeOwned + Send + std::fmt::Debug + 'static;
}

macro_rules! ops {
    ($($(#[$doc:meta])* $name:ident = $code:literal;)*) => {
        /// Every operation of the protocol, whoever serves it. Numbers are never used again.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
        #[repr(u16)]
        pub enum Op {
            $($(#[$doc])* $name = $code,)*
        }

        impl Op {
            /// All operations, for tests that walk every one.
            pub const ALL: &'static [Op] = &[$(Op::$name),*];

            /// Its number on the wire.
            #[must_use]
            pub const fn code(self) -> u16 {
                self as u16
            }

            /// The operation of a number from the wire.
            #[must_use]
            pub fn from_code(code: u16) -> Option<Op> {
                match code {
                    $($code => Some(Op::$name),)*
                    _ => None,
                }
            }
        }
    };
}

ops! {
    /// The handshake: first frame on every connection, both ways.
    Hello = 1;
    /// Does nothing; measures the way there and back.
    Ping = 2;
    /// What the process at the other end is at.
    InFlight = 3;

    // Client to master: sessions.
    OpenSession = 16;
    ResumeSession = 17;
    CloseSession = 18;
    KeepAlive = 19;
    Servers = 20;
    // Client to master: names.
    Lookup = 32;
    Getattr = 33;
    Setattr = 34;
    Create = 35;
    Mkdir = 36;
    Mknod = 37;
    Symlink = 38;
    Readlink = 39;
    Link = 40;
    Unlink = 41;
    Rmdir = 42;
    Rename = 43;
    Readdir = 44;
    Getxattr = 45;
    Setxattr = 46;
    Listxattr = 47;
    Removexattr = 48;
    Statfs = 49;
    // Client to master: open files and chunks.
    Open = 64;
    Release = 65;
    MapRead = 66;
    MapWrite = 67;
    Commit = 68;
    Suspect = 69;
    GrantBack = 70;
    OpenChunks = 71;
    DropHoles = 72;
    // Master to client.
    Recall = 80;
    LocationsChanged = 81;
    DirChanged = 82;

    // Client to chunk server (binary metadata, see `chunk`).
    Read = 96;
    Write = 97;
    Sync = 98;
    // Chunk server to chunk server.
    Forward = 112;
    Committed = 113;
    ForwardSync = 114;
    AskMend = 115;

    // Chunk server to master.
    Register = 128;
    Inventory = 129;
    Heartbeat = 130;
    ReportTrouble = 131;
    LearnerReady = 132;
    GracefulStop = 133;
    ListLog = 134;
    ReadLog = 135;
    // Master to chunk server.
    Apply = 144;
    Fence = 145;
    Reconcile = 146;
    AddLearner = 147;
    Delete = 148;
    Zero = 149;
    Close = 150;
    StartScrub = 152;
    Look = 153;
    Examine = 154;
    Withdraw = 155;

    // Tools to master.
    ClusterStatus = 192;
    ServerList = 193;
    FileInfo = 194;
    Recover = 195;
    Fsck = 196;
    FsckServer = 197;
    Damaged = 198;
    RepairChunk = 199;
    ScrubStatus = 200;
    ScrubNow = 201;
    ExamineChunk = 202;
    DrainServer = 203;
    Policy = 204;
    Heat = 205;
    ExplainChunk = 206;
    MaintainServer = 207;
    SetGoal = 209;
    ShowGoal = 210;
    SessionList = 211;
    ChunkChanges = 212;
    EvictSession = 215;
    Ops = 216;

    // Tools to chunk servers.
    ListHeaders = 208;
    ListCopies = 213;
    ReadCopy = 214;
}
