//! Tests of the whole: a reference model, a whole-cluster simulator, and clusters of real processes.

pub mod cluster;
pub mod admin;
pub mod browser;
pub mod model;
pub mod real;
pub mod crash;
pub mod sim;
