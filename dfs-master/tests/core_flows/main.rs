//! The core driven as its driver drives it, with chunk servers and clients that answer at once: every
//! flow from a request to its last effect, restarts included.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod cluster;
mod fake;

mod balance;
mod chaos;
mod close;
mod cost;
mod damage;
mod files;
mod format;
mod fsck;
mod garbage;
mod goals;
mod grants;
mod leave;
mod load;
mod load_log;
mod maintenance;
mod read_only;
mod holes;
mod recovery;
mod restart;
mod scrub;
mod servers;
mod sessions;
mod trail;
mod truncate;
mod watched;
