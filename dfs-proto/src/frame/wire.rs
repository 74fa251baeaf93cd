//! An [`Outgoing`] frame with its header filled in, ready to be written piece by piece.

use std::io::IoSlice;

use bytes::Bytes;
use zerocopy::IntoBytes;

use crate::frame::{Outgoing, Payload, TooLong};
use crate::header::{CallId, HEADER_LEN, Header, RawHeader};

/// A frame on its way out.
#[derive(Debug)]
pub struct WireFrame {
    head: RawHeader,
    meta: Bytes,
    payload: Payload,
    len: usize,
}

impl WireFrame {
    /// Fills in the header. `deadline_ms` is 0 where it says nothing.
    pub fn new(out: Outgoing, call: CallId, deadline_ms: u32) -> Result<WireFrame, TooLong> {
        out.check_len()?;
        let payload_len = out.payload.len();
        let header = Header {
            op: out.op,
            flags: out.flags,
            status: out.status,
            call,
            words: out.words,
            deadline_ms,
            load: out.load,
            meta_len: within_limit(out.meta.len()),
            payload_len: within_limit(payload_len),
        };
        let head = header.to_wire(&out.meta);
        let len = HEADER_LEN + out.meta.len() + payload_len;
        Ok(WireFrame { head, meta: out.meta, payload: out.payload, len })
    }

    /// Bytes of the whole frame.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never: a frame has at least a header.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Fills `slices` with what comes after the first `skip` bytes and returns how many slices it used.
    /// Stops early when they run out.
    pub fn slices_after<'a>(&'a self, mut skip: usize, slices: &mut [IoSlice<'a>]) -> usize {
        let mut used = 0;
        let pieces = [self.head.as_bytes(), &self.meta]
            .into_iter()
            .chain(self.payload.parts().iter().map(AsRef::<[u8]>::as_ref));
        for piece in pieces {
            if skip >= piece.len() {
                skip -= piece.len();
                continue;
            }
            let Some(slot) = slices.get_mut(used) else { break };
            *slot = IoSlice::new(&piece[skip..]);
            skip = 0;
            used += 1;
        }
        used
    }

    /// All its bytes in one piece: for handshakes and tests, where copying does not count.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len);
        bytes.extend_from_slice(self.head.as_bytes());
        bytes.extend_from_slice(&self.meta);
        for part in self.payload.parts() {
            bytes.extend_from_slice(part);
        }
        bytes
    }
}

/// [`Outgoing::check_len`] has seen that both lengths are far below `u32::MAX`.
fn within_limit(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
