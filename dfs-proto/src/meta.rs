//! Client to master: sessions, names, open files, chunk maps and grants; and what the master pushes back.
//!
//! Permission checks. The mount runs with `default_permissions`, so the kernel has checked already, from
//! attributes up to a second old; the master checks again from the truth with [`Creds`]. FUSE hands over no
//! supplementary groups, so they are sent only when the master answers `NeedGroups`: it does when a check
//! fails that another group could pass.
//!
//! Header words of a reply from the master: `word0` log index of the record that the answer rests on,
//! `word1` the master's time ([`crate::units::MasterMs`]), `word2` the term's low 32 bits, `word3` how many records of
//! the log, up to that index, were not yet on disk.
//!
//! Payload of a reply to a change of names: the attributes, after it, of the directories that it changed, as
//! a list of [`Attr`]. The kernel forgets them with every such change and asks before the next one.

mod attr;
mod flight;
mod session;
mod names;
mod files;
mod scrub;
mod load;
mod goal;
mod tools;
mod check;
mod damage;

pub use attr::*;
pub use check::*;
pub use damage::*;
pub use files::*;
pub use flight::*;
pub use goal::*;
pub use load::*;
pub use names::*;
pub use scrub::*;
pub use session::*;
pub use tools::*;

use serde::{Deserialize, Serialize};

/// Binds a message to its operation and its reply.
macro_rules! request {
    ($name:ident => $reply:ty) => {
        impl Request for $name {
            const OP: Op = Op::$name;
            type Reply = $reply;
        }
    };
    (mut $name:ident => $reply:ty) => {
        impl Request for $name {
            const OP: Op = Op::$name;
            const MUTATION: bool = true;
            type Reply = $reply;
        }
    };
}
pub(crate) use request;

/// The directories in the payload of a reply to a change of names; `None` when it names none.
#[must_use]
pub fn changed_dirs(payload: &[u8]) -> Option<Vec<Attr>> {
    // Two at most: whoever sends more is not understood.
    rmp_serde::from_slice(payload).ok().filter(|dirs: &Vec<Attr>| (1..=2).contains(&dirs.len()))
}

/// A reply with nothing to say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Done {}
