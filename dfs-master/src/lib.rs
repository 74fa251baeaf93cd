//! The dfs master: the namespace, the chunk map, leases, placement and the log that makes them last.
//!
//! Reading order: [`core`] (all decisions, a state machine without I/O), [`load_log`] (what it saw of loads, for later), [`log`] (segments, snapshots,
//! recovery). The binary's driver feeds the core with what happens and does what it asks for.

pub mod core;
pub mod load_log;
pub mod log;
pub mod replay;
