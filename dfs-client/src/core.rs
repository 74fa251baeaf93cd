//! The library's decisions, without I/O: no clock, no runtime, no lock. Time comes in as a value.

pub(crate) mod ahead;
pub(crate) mod clock;
pub(crate) mod dirty;
pub(crate) mod hedge;
pub(crate) mod latch;
pub(crate) mod opids;
pub(crate) mod requests;
pub(crate) mod retry;
pub(crate) mod rng;
pub(crate) mod route;
pub(crate) mod split;
