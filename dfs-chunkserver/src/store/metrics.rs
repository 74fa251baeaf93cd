//! Counters of one disk since it was opened. Cheap enough to count always; they decide nothing.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The live counters.
        #[derive(Debug, Default)]
        pub(super) struct Counters {
            $(pub(super) $name: Counter,)*
        }

        /// The counters at one moment.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct Metrics {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            pub(super) fn snapshot(&self) -> Metrics {
                Metrics { $($name: self.$name.0.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    reads,
    read_bytes,
    /// Reads that had to be handed to a thread that may wait.
    would_block,
    writes,
    written_bytes,
    /// Writes of zeros.
    punches,
    /// Blocks of which a write brought a part only.
    merges,
    chunks_created,
    syncs,
    /// Syncs of the whole disk for a batch.
    batch_syncs,
    /// Blocks found not to match their stored checksum, or unreadable.
    corrupt_blocks,
    /// Table sectors found damaged when a chunk was opened.
    damaged_sectors,
    /// Blocks whose checksum was computed again from their bytes (rule B3).
    torn_resolved,
    repaired_blocks,
    /// Slots, sectors and blocks that were right in memory and written anew.
    rewritten,
    /// Damaged bytes kept before they were replaced.
    evidence,
    no_space,
    /// Replicas that failed for good.
    failed,
    /// Chunk files opened, and closed again to make room for others.
    opened,
    closed,
}

#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }
}
