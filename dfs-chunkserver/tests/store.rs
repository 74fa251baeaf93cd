//! The chunk store against a model, against power cuts at every operation, against every fault of the
//! simulated disk, and under threads on a real one.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

#[path = "store/support.rs"]
mod support;

#[path = "store/model.rs"]
mod model;

#[path = "store/crash.rs"]
mod crash;

#[path = "store/faults.rs"]
mod faults;

#[path = "store/disks.rs"]
mod disks;

#[path = "store/threads.rs"]
mod threads;

#[path = "store/mend.rs"]
mod mend;
