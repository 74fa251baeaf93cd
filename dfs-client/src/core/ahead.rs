//! When a handle reads in order, and how far ahead is fetched then.

/// The first step ahead, and what a sequential run has to be before any: two reads of the kernel's size.
const FIRST: u64 = 1 << 20;
const RUN_MIN: u64 = 192 << 10;
/// Farthest ahead: eight requests of the largest size in flight over the replicas.
pub(crate) const FARTHEST: u64 = 8 << 20;
/// The kernel's own read-ahead sends a few requests that may pass each other.
const SLACK: u64 = 512 << 10;

/// One handle's reading.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stream {
    /// Where the next read in order begins.
    next: u64,
    /// Bytes read in order so far.
    run: u64,
}

/// What a read makes of its stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Plan {
    /// Fetch ahead up to here, if beyond the read's own end.
    pub(crate) ahead_to: u64,
    /// Nothing before here will be read again in order.
    pub(crate) behind: u64,
}

impl Stream {
    /// A read; `None` when it is not in order. `size` is the file's.
    pub(crate) fn read(&mut self, offset: u64, len: u64, size: u64) -> Option<Plan> {
        let end = offset.saturating_add(len).min(size);
        let near = offset <= self.next.saturating_add(SLACK) && self.next <= offset.saturating_add(SLACK);
        if !near {
            *self = Stream { next: end, run: len };
            return None;
        }
        self.run = self.run.saturating_add(len);
        self.next = self.next.max(end);
        if self.run < RUN_MIN && !(offset == 0 && size <= FIRST) {
            return None;
        }
        let step = self.run.saturating_mul(2).clamp(FIRST, FARTHEST);
        Some(Plan {
            ahead_to: self.next.saturating_add(step).min(size),
            behind: self.next.saturating_sub(SLACK),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_in_order_and_forgets_out_of_order() {
        let mut stream = Stream::default();
        let size = 1 << 30;
        assert_eq!(stream.read(0, 128 << 10, size), None);
        let plan = stream.read(128 << 10, 128 << 10, size).unwrap();
        assert_eq!(plan.ahead_to, (256 << 10) + FIRST);
        let mut at = 256 << 10;
        let mut last = plan;
        while at < 20 << 20 {
            last = stream.read(at, 128 << 10, size).unwrap();
            at += 128 << 10;
        }
        assert_eq!(last.ahead_to, at + FARTHEST);
        assert_eq!(stream.read(500 << 20, 4096, size), None);
        assert_eq!(stream.read(100 << 20, 4096, size), None);
    }

    #[test]
    fn a_small_file_is_fetched_at_its_first_read() {
        let mut stream = Stream::default();
        assert_eq!(stream.read(0, 4096, 300_000).unwrap().ahead_to, 300_000);
    }
}
