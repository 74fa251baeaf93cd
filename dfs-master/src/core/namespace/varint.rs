//! Numbers in as few bytes as they need, low seven bits first: the encoding of all stored records.
//!
//! Reading never trusts the bytes: what is too long, too large or cut short is `None`.

/// Appends an unsigned number.
pub(crate) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(low_byte(value) | 0x80);
        value >>= 7;
    }
    out.push(low_byte(value));
}

fn low_byte(value: u64) -> u8 {
    value.to_le_bytes()[0] & 0x7F
}

/// Appends a signed number of up to 127 bits, near zero in few bytes.
pub(crate) fn put_wide(out: &mut Vec<u8>, value: i128) {
    // Zigzag: the sign moves to the lowest bit.
    let mut zigzag = (value << 1 ^ value >> 127).cast_unsigned();
    while let Err(_too_wide) = u64::try_from(zigzag) {
        out.push(zigzag.to_le_bytes()[0] | 0x80);
        zigzag >>= 7;
    }
    put(out, u64::try_from(zigzag).unwrap_or(0));
}

/// What is left to read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk::<N>()?;
        self.0 = tail;
        Some(*head)
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(len)?;
        self.0 = tail;
        Some(head)
    }

    /// A byte string behind its length.
    pub(crate) fn string(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.u64()?).ok()?;
        self.bytes(len)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.take()?;
            let bits = u64::from(byte & 0x7F);
            // The tenth byte has room for one bit, and no number ends in an empty byte.
            if (shift == 63 && bits > 1) || (shift > 0 && byte == 0) {
                return None;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        u32::try_from(self.u64()?).ok()
    }

    pub(crate) fn wide(&mut self) -> Option<i128> {
        let mut zigzag = 0_u128;
        for shift in (0..128).step_by(7) {
            let [byte] = self.take()?;
            let bits = u128::from(byte & 0x7F);
            if (shift == 126 && bits > 3) || (shift > 0 && byte == 0) {
                return None;
            }
            zigzag |= bits << shift;
            if byte & 0x80 == 0 {
                return Some((zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed());
            }
        }
        None
    }
}

/// Appends a byte string behind its length.
pub(crate) fn put_string(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_at_every_width() {
        for bit in 0..64 {
            for value in [(1_u64 << bit) - 1, 1 << bit, u64::MAX >> bit] {
                let mut out = Vec::new();
                put(&mut out, value);
                let mut from = Reader(&out);
                assert_eq!(from.u64(), Some(value));
                assert!(from.0.is_empty());
                assert_eq!(Reader(&out[..out.len() - 1]).u64(), None);
            }
        }
        for bit in 0..126 {
            for value in [1_i128 << bit, -(1 << bit), (1 << bit) - 1, 1 - (1 << bit)] {
                let mut out = Vec::new();
                put_wide(&mut out, value);
                let mut from = Reader(&out);
                assert_eq!(from.wide(), Some(value));
                assert!(from.0.is_empty());
            }
        }
    }

    #[test]
    fn longer_forms_are_refused() {
        assert_eq!(Reader(&[0x80, 0]).u64(), None);
        assert_eq!(Reader(&[0x80, 0]).wide(), None);
        assert_eq!(Reader(&[0xFF; 11]).u64(), None);
        assert_eq!(Reader(&[0xFF; 20]).wide(), None);
    }
}
