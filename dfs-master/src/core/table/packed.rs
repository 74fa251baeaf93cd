//! Byte records of varying length, one behind the other in one allocation: what inode pages and directory
//! leaves are made of.
//!
//! It keeps bytes in order and tight, and knows nothing of what they mean. The holder bounds the number
//! of records and their length so that all ends fit 16 bits.

/// Most spare bytes that a growing list reserves: a reallocation each few records, and at most three bytes
/// of waste for each record of a full list. Short lists reserve less: most directories are small.
const BYTES_STEP: usize = 192;
const ENDS_STEP: usize = 16;

/// The records, in an order that the holder gives.
#[derive(Clone, Debug, Default)]
pub(crate) struct Packed {
    ends: Vec<u16>,
    bytes: Vec<u8>,
}

impl Packed {
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    fn start(&self, at: usize) -> usize {
        if at == 0 { 0 } else { usize::from(self.ends[at - 1]) }
    }

    /// Record `at`.
    ///
    /// # Panics
    /// When there is no such record.
    pub(crate) fn get(&self, at: usize) -> &[u8] {
        &self.bytes[self.start(at)..usize::from(self.ends[at])]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|at| self.get(at))
    }

    /// Puts a record before the one that is at `at` now.
    pub(crate) fn insert(&mut self, at: usize, record: &[u8]) {
        if self.ends.len() == self.ends.capacity() {
            self.ends.reserve_exact((self.ends.len() / 4).clamp(2, ENDS_STEP));
        }
        let start = self.start(at);
        self.ends.insert(at, end_of(start));
        self.splice(at, start, start, record);
    }

    /// Replaces a record.
    pub(crate) fn replace(&mut self, at: usize, record: &[u8]) {
        let (start, end) = (self.start(at), usize::from(self.ends[at]));
        if end - start == record.len() {
            self.bytes[start..end].copy_from_slice(record);
        } else {
            self.splice(at, start, end, record);
        }
    }

    /// Takes a record out.
    pub(crate) fn remove(&mut self, at: usize) {
        let (start, end) = (self.start(at), usize::from(self.ends[at]));
        self.splice(at, start, end, &[]);
        self.ends.remove(at);
        if self.bytes.capacity() > 2 * self.bytes.len() + BYTES_STEP {
            self.bytes.shrink_to_fit();
            self.ends.shrink_to_fit();
        }
    }

    /// Takes the records from `at` on out into a list of their own.
    pub(crate) fn split_off(&mut self, at: usize) -> Packed {
        let mut right = Packed::default();
        right.ends.reserve_exact(self.len() - at);
        right.bytes.reserve_exact(self.bytes.len() - self.start(at));
        for from in at..self.len() {
            right.push(self.get(from));
        }
        self.bytes.truncate(self.start(at));
        self.ends.truncate(at);
        self.bytes.shrink_to_fit();
        self.ends.shrink_to_fit();
        right
    }

    pub(crate) fn push(&mut self, record: &[u8]) {
        self.insert(self.len(), record);
    }

    /// Writes `record` over `start..end`, which is record `at`, and moves the ends from there on.
    fn splice(&mut self, at: usize, start: usize, end: usize, record: &[u8]) {
        let old_len = self.bytes.len();
        let new_len = old_len - (end - start) + record.len();
        if new_len > self.bytes.capacity() {
            self.bytes.reserve_exact(new_len - old_len + (old_len / 8).min(BYTES_STEP));
        }
        if new_len > old_len {
            self.bytes.resize(new_len, 0);
        }
        self.bytes.copy_within(end..old_len, start + record.len());
        self.bytes.truncate(new_len);
        self.bytes[start..start + record.len()].copy_from_slice(record);
        for moved in &mut self.ends[at..] {
            *moved = end_of(usize::from(*moved) + record.len() - (end - start));
        }
    }
}

/// # Panics
/// When the holder let a list grow past 64 KiB.
fn end_of(end: usize) -> u16 {
    u16::try_from(end).expect("a list of records stays below 64 KiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_a_vec_of_vecs() {
        let mut packed = Packed::default();
        let mut model: Vec<Vec<u8>> = Vec::new();
        for step in 0..3000_usize {
            let record = vec![u8::try_from(step % 251).unwrap(); step % 37];
            let at = step * 7919 % (model.len() + 1);
            if model.len() > 60 || (step % 3 == 2 && at < model.len()) {
                let at = at % model.len();
                packed.remove(at);
                model.remove(at);
            } else if step % 5 == 4 && at < model.len() {
                packed.replace(at, &record);
                model[at] = record;
            } else {
                packed.insert(at, &record);
                model.insert(at, record);
            }
            assert!(packed.iter().eq(model.iter().map(Vec::as_slice)));
        }
        let right = packed.split_off(model.len() / 2);
        let right_model = model.split_off(model.len() / 2);
        assert!(packed.iter().eq(model.iter().map(Vec::as_slice)));
        assert!(right.iter().eq(right_model.iter().map(Vec::as_slice)));
    }
}
