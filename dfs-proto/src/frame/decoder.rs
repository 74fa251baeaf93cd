//! From a stream of bytes to frames.
//!
//! Small frames are cut out of one shared buffer without copying. A payload of [`DIRECT_MIN`] bytes or more
//! gets a buffer of its own, which the reader fills straight from the socket. Nothing is allocated on a
//! peer's word but the lengths that the limits in force allow.

use bytes::buf::Limit;
use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::frame::Frame;
use crate::header::{FrameError, HEADER_LEN, Header, Limits, RawHeader};

/// A payload from this length on is read into its own buffer: below it a copy costs less than a system call.
pub const DIRECT_MIN: usize = 16 << 10;
/// How much is read at once while small frames come: some hundred of them.
const READ_SMALL: usize = 64 << 10;
/// With less room than this left the shared buffer is replaced: reading less at once wastes system calls.
const READ_MIN: usize = 4 << 10;
/// How much is read at once after a large payload: likely the next large frame's header and meta, and
/// little of its payload, since that part has to be copied.
const READ_BETWEEN_LARGE: usize = 4 << 10;

/// Turns bytes into frames: read into [`Decoder::space`], then take frames with [`Decoder::next_frame`]
/// until there is none.
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    buf: BytesMut,
    large: Option<Large>,
    /// Most bytes to read at once into `buf`.
    read_next: usize,
    /// Bytes that the frame at the start of `buf` still lacks, as far as they belong into `buf`.
    missing: usize,
}

/// A large frame whose payload is still coming.
#[derive(Debug)]
struct Large {
    header: Header,
    meta: Bytes,
    payload: BytesMut,
    missing: usize,
}

impl Decoder {
    /// A decoder at the start of a stream.
    #[must_use]
    pub fn new(limits: Limits) -> Decoder {
        Decoder { limits, buf: BytesMut::new(), large: None, read_next: READ_SMALL, missing: 0 }
    }

    /// Changes what is accepted from the next frame on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Whether the stream stands between two frames.
    #[must_use]
    pub fn is_at_border(&self) -> bool {
        self.buf.is_empty() && self.large.is_none()
    }

    /// Where the next bytes of the stream belong. Never empty.
    pub fn space(&mut self) -> Limit<&mut BytesMut> {
        match &mut self.large {
            Some(large) => (&mut large.payload).limit(large.missing),
            None => {
                let room = self.buf.capacity() - self.buf.len();
                if room < self.missing.max(READ_MIN) {
                    self.buf.reserve(self.missing.max(READ_SMALL));
                }
                let room = self.buf.capacity() - self.buf.len();
                (&mut self.buf).limit(room.min(self.read_next.max(self.missing)))
            }
        }
    }

    /// The next frame, if all its bytes are here.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        if self.large.is_none() {
            self.missing = 0;
            let Some(raw) = RawHeader::at_start_of(&self.buf) else { return Ok(None) };
            let header = raw.check(self.limits)?;
            let (meta_len, payload_len) = (length(header.meta_len), length(header.payload_len));
            if payload_len < DIRECT_MIN {
                return self.small_frame(&raw, header, meta_len, payload_len);
            }
            if !self.holds(HEADER_LEN + meta_len) {
                return Ok(None);
            }
            self.start_large(&raw, header, meta_len, payload_len)?;
        }
        Ok(self.finished_large())
    }

    /// Whether the next `len` bytes are in the shared buffer; notes how many are not.
    fn holds(&mut self, len: usize) -> bool {
        self.missing = len.saturating_sub(self.buf.len());
        self.missing == 0
    }

    fn small_frame(
        &mut self,
        raw: &RawHeader,
        header: Header,
        meta_len: usize,
        payload_len: usize,
    ) -> Result<Option<Frame>, FrameError> {
        if !self.holds(HEADER_LEN + meta_len + payload_len) {
            return Ok(None);
        }
        let meta = self.take_meta(raw, meta_len)?;
        let payload = if payload_len == 0 { Bytes::new() } else { self.buf.split_to(payload_len).freeze() };
        self.read_next = READ_SMALL;
        Ok(Some(Frame { header, meta, payload }))
    }

    fn start_large(
        &mut self,
        raw: &RawHeader,
        header: Header,
        meta_len: usize,
        payload_len: usize,
    ) -> Result<(), FrameError> {
        let meta = self.take_meta(raw, meta_len)?;
        let mut payload = BytesMut::with_capacity(payload_len);
        let here = payload_len.min(self.buf.len());
        payload.extend_from_slice(&self.buf[..here]);
        self.buf.advance(here);
        self.large = Some(Large { header, meta, payload, missing: payload_len - here });
        Ok(())
    }

    /// Removes header and meta from the buffer, which holds both, once their checksum holds.
    fn take_meta(&mut self, raw: &RawHeader, meta_len: usize) -> Result<Bytes, FrameError> {
        raw.check_crc(&self.buf[HEADER_LEN..HEADER_LEN + meta_len])?;
        self.buf.advance(HEADER_LEN);
        Ok(if meta_len == 0 { Bytes::new() } else { self.buf.split_to(meta_len).freeze() })
    }

    fn finished_large(&mut self) -> Option<Frame> {
        let large = self.large.as_mut()?;
        let wanted = length(large.header.payload_len);
        large.missing = wanted - large.payload.len();
        if large.missing > 0 {
            return None;
        }
        let large = self.large.take()?;
        self.read_next = READ_BETWEEN_LARGE;
        Some(Frame { header: large.header, meta: large.meta, payload: large.payload.freeze() })
    }
}

/// A length that the limits have bounded, as an index.
fn length(len: u32) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}
