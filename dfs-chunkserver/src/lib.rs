//! The chunk server: decisions in [`core`], bytes on disks in [`store`], what is between them in [`exec`].

pub mod core;
pub mod store;
pub mod exec;
