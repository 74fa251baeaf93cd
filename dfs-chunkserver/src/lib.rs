//! The chunk server: replicas on local disks, writes in order on every member, reads that are never stale.
//!
//! Reading order: [`core`] (every decision, without I/O), [`store`] (one disk's bytes), [`exec`] (what the
//! core's disk operations do to a store); then the driver: [`config`], [`run`], [`headers`], `startup`, `server`,
//! `dispatch`, `reads`, `disks`, `peers`, `heartbeat`, `copy`, `load`, `admin`, `clock`.

pub mod core;
pub mod store;
pub mod exec;
pub mod config;
pub mod run;
pub mod headers;

mod startup;
mod server;
mod dispatch;
mod reads;
mod disks;
mod peers;
mod heartbeat;
mod copy;
mod load;
mod admin;
mod clock;
