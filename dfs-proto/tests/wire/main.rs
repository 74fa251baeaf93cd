//! What the wire promises: golden bytes, refusal of everything malformed, and the behaviour of connections.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod calls;
mod frames;
mod golden;
mod handshake;
mod pool;
mod pressure;
mod support;
