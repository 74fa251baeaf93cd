//! Crash images: what a power cut may leave on a device that keeps writes in a cache of its own.
//!
//! The chunk store and the master's log work on a real ext4, on a loop device, on a file that a FUSE server of this
//! process presents and whose every write and flush it records. From the record come images: all that was written
//! before a flush, and of what came after it any part, in any order, torn between sectors. Each is mounted, which
//! replays the journal; the store and the log are opened; all that was synced before the cut must be there.
//!
//! Reading order: [`device`] (the recording), [`image`] (what a cut may leave), [`store`] and [`log`] (work on
//! each, and what must hold), [`run()`].

pub mod device;
pub mod image;
pub mod store;
pub mod log;
mod run;

pub use run::{Options, Report, run};

/// A piece of work, and where on the record of the device it began and ended: what began after a cut did not
/// happen, and what ended before it was acknowledged.
#[derive(Clone, Debug)]
pub struct Step<T> {
    pub begin: usize,
    pub end: usize,
    pub what: T,
}
