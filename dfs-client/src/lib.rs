//! Everything a mount does but the kernel: sessions, names, open files, maps, write-behind, read-ahead,
//! replica choice and retries. Used by the FUSE daemon, the command, the tests and the simulator.
//!
//! Reading order: [`client`] (what a program calls), [`config`] and [`error`], [`net`] (the seam to the
//! world); `shared`, `session`, `predecessor`, `call` and `recall` (talking to the master); `names`, `absent`, `dirs`, `changes`, `attrs`
//! and `files` (the calls of a filesystem); `inode`, `making` and `maps` (what is known of a file); `write`, `zeros`, `put`
//! and `sync`, `read`, `get` and `ahead` (its bytes); `servers`, `silence`; `counts`; `core` (decisions without I/O).
//!
//! Invariants. No clock but [`net::Net::now`] and tokio's, no randomness but the seed, no threads: a
//! simulator can run it. No lock is held over an await. Nothing is answered from a cache without a grant
//! and a live session lease.

pub mod client;
pub mod config;
pub mod error;
pub mod net;

mod shared;
mod session;
mod predecessor;
mod view;
mod call;
mod recall;
mod names;
mod absent;
mod dirs;
mod changes;
mod attrs;
mod files;
mod inode;
mod making;
mod owed;
mod maps;
mod write;
mod zeros;
mod put;
mod sync;
mod read;
mod get;
mod ahead;
mod servers;
mod silence;
mod counts;
mod core;

pub use attrs::CAPABILITY;
pub use client::{CacheState, Client, DirHandle, DirPage, FileHandle, SetAttrs};
pub use config::{Ack, Caller, Config, Hedging, NoUpcalls, Patience, Upcalls};
pub use counts::Counts;
pub use error::{Error, Result};
