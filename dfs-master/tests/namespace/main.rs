//! The namespace from outside: against a reference model, rule by rule, and as a snapshot.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops there")]

mod aim;
mod listing;
mod model;
mod rules;
mod sequences;
mod snapshot;
mod support;
