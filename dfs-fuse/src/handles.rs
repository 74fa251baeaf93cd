//! What the kernel has open: numbers that it gives back with each request, and what they stand for.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

/// A table of open things. Its lock is held for map operations only.
#[derive(Debug)]
pub(crate) struct Handles<T> {
    open: RwLock<HashMap<u64, T>>,
    next: AtomicU64,
}

impl<T: Clone> Handles<T> {
    /// Nothing open.
    pub(crate) fn new() -> Handles<T> {
        Handles { open: RwLock::new(HashMap::new()), next: AtomicU64::new(1) }
    }

    /// Gives `what` a number that was never used before.
    pub(crate) fn add(&self, what: T) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.open.write().unwrap_or_else(PoisonError::into_inner).insert(number, what);
        number
    }

    /// What has this number.
    pub(crate) fn get(&self, number: u64) -> Option<T> {
        self.open.read().unwrap_or_else(PoisonError::into_inner).get(&number).cloned()
    }

    /// How many are open.
    pub(crate) fn len(&self) -> usize {
        self.open.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Ends it.
    pub(crate) fn remove(&self, number: u64) -> Option<T> {
        self.open.write().unwrap_or_else(PoisonError::into_inner).remove(&number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_not_used_again() {
        let handles = Handles::new();
        let first = handles.add('a');
        assert_eq!(handles.get(first), Some('a'));
        assert_eq!(handles.remove(first), Some('a'));
        let second = handles.add('b');
        assert_ne!(first, second);
        assert_eq!((handles.get(first), handles.get(second)), (None, Some('b')));
    }
}
