//! Buffers for reads that are used again: a fresh megabyte costs the kernel 256 page faults, and clearing
//! it costs as much as filling it. What a buffer held before is never seen: a reader gets only the part
//! that was filled.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::layout::BLOCK;

/// Sizes and how many of each are kept. 8 KiB holds a 4 KiB read that straddles two blocks; 1 MiB and a
/// block hold the largest request that does. All kept buffers together are at most 37 MiB a disk.
const CLASSES: [(usize, usize); 3] = [(2 * BLOCK, 512), (64 << 10, 64), ((1 << 20) + BLOCK, 28)];

#[derive(Debug, Default)]
pub(super) struct Pool {
    /// Taken alone, for a push or a pop.
    free: [Mutex<Vec<Box<[u8]>>>; CLASSES.len()],
}

/// A buffer on loan; goes back when dropped.
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Box<[u8]>,
    used: Range<usize>,
    class: Option<usize>,
    pool: Arc<Pool>,
}

impl Pool {
    /// A buffer of exactly `len` bytes of anything.
    pub(super) fn take(self: &Arc<Pool>, len: usize) -> Buffer {
        let class = CLASSES.iter().position(|(size, _)| len <= *size);
        let kept =
            class.and_then(|class| self.free[class].lock().unwrap_or_else(PoisonError::into_inner).pop());
        let size = class.map_or(len, |class| CLASSES[class].0);
        let bytes = kept.unwrap_or_else(|| vec![0; size].into_boxed_slice());
        Buffer { bytes, used: 0..len, class, pool: self.clone() }
    }
}

impl Buffer {
    pub(super) fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.used.clone()]
    }

    /// The buffer as shared bytes; it goes back when the last of them is dropped.
    pub(super) fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[self.used.clone()]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let Some(class) = self.class else { return };
        let mut free = self.pool.free[class].lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < CLASSES[class].1 {
            free.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_with_its_own_length() {
        let pool = Arc::new(Pool::default());
        let mut buffer = pool.take(5000);
        buffer.as_mut().fill(7);
        let bytes = buffer.freeze();
        let part = bytes.slice(10..20);
        drop(bytes);
        assert!(pool.free[0].lock().unwrap().is_empty());
        drop(part);
        assert_eq!(pool.free[0].lock().unwrap().len(), 1);
        assert_eq!(pool.take(3).as_ref().len(), 3);
        assert_eq!(pool.take(3 << 20).as_ref().len(), 3 << 20);
    }
}
