//! Tests of the master's log, on a disk that forgets. Each file has one question:
//!
//! - `format`: are the bytes on disk still the ones that older versions wrote?
//! - `writer`: does the writer say what is durable, and refuse after a failure?
//! - `damage`: is every flipped bit, lost file and foreign file found, and called by its name?
//! - `torn`: is a torn last batch dropped, wherever it tore, and nothing else?
//! - `cut`: is everything that a sync covered there after a power cut at any operation?
//! - `files`: does a copy get only what is durable, and is one that is put back the log?
//! - `speed`: how long do an append, a sync and a restart take on this machine? (ignored: it measures)

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "log/cut.rs"]
mod cut;
#[path = "log/damage.rs"]
mod damage;
#[path = "log/files.rs"]
mod files;
#[path = "log/format.rs"]
mod format;
#[path = "log/speed.rs"]
mod speed;
#[path = "log/support.rs"]
mod support;
#[path = "log/torn.rs"]
mod torn;
#[path = "log/writer.rs"]
mod writer;
