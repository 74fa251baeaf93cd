//! All decisions of the master: a state machine without I/O. It reads no clock, no randomness, no socket
//! and no file; [`Core::step`] turns an input and the time into effects, and the same inputs always give
//! the same effects.

pub mod command;
pub mod config;
pub mod contract;
pub mod image;
pub mod namespace;
pub mod ops;
pub mod raft;
pub mod table;

pub use config::{CoreConfig, MetadataSync, Recovered, RecoveredSnapshot, StartError};
pub use contract::{After, CallNum, ConnId, Effect, Input, Now, Peer, ReqId};

/// The master's core.
#[derive(Debug)]
pub struct Core {
    config: CoreConfig,
}

impl Core {
    /// The core as it stands after what the disk holds. An empty log gets its first record with the
    /// first steps.
    ///
    /// # Errors
    /// When the recovered parts do not fit each other or this build.
    pub fn new(config: CoreConfig, recovered: Recovered, now: Now) -> Result<Core, StartError> {
        let _ = (recovered, now);
        Ok(Core { config })
    }

    /// Takes one input and appends what has to be done to `out`.
    pub fn step(&mut self, now: Now, input: Input, out: &mut Vec<Effect>) {
        let _ = (now, input, out, &self.config);
    }
}
