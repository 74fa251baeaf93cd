//! Everything a mount does but the kernel: sessions, names, open files, maps, write-behind, read-ahead,
//! replica choice and retries. Used by the FUSE daemon, the command, the tests and the simulator.
//!
//! Reading order: [`client`] (what a program calls), [`config`] and [`error`], [`net`] (the seam to the
//! world), `session` and `call` (talking to the master), `inode` (what is cached of a file), `read`,
//! `write` and `sync` (data), `core` (decisions without I/O), [`tool`] (for operators' commands).
//!
//! Invariants. No clock but [`net::Net::now`] and tokio's, no randomness but the seed, no threads: a
//! simulator can run it. No lock is held over an await. Nothing is answered from a cache without a grant
//! and a live session lease.

pub mod client;
pub mod config;
pub mod error;
pub mod net;
pub mod tool;

pub use client::{CacheState, Client, DirHandle, DirPage, FileHandle, SetAttrs};
pub use config::{Ack, Caller, Config, NoUpcalls, Patience, Upcalls};
pub use error::{Error, Result};
