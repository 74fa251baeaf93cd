//! A frame: a header, a meta part (MessagePack, or the operation's own binary form) and a payload.
//!
//! [`Frame`] is one that arrived and whose header checksum held; [`Outgoing`] is one to be sent, before the
//! connection has given it its call id; [`Decoder`] turns a stream of bytes into frames. No I/O here.

pub mod decoder;
pub mod wire;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use decoder::Decoder;

use crate::header::{Flags, Header, Load, META_MAX, PAYLOAD_MAX, Words};
use crate::request::{Op, Request};
use crate::status::Status;

/// Most bytes of an error's detail: a sentence or two for people.
pub const DETAIL_MAX: usize = 512;

/// A received frame. Its header and meta are verified, its payload is not. Meta and a small payload share
/// the connection's 64 KiB read buffer: who keeps some bytes of them for long copies those.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The checked header.
    pub header: Header,
    /// `header.meta_len` bytes.
    pub meta: Bytes,
    /// `header.payload_len` bytes.
    pub payload: Bytes,
}

impl Frame {
    /// The MessagePack message in the meta part.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, DecodeError> {
        rmp_serde::from_slice(&self.meta).map_err(|source| DecodeError { op: self.header.op, source })
    }

    /// What an error reply says beyond its status; empty if it says nothing.
    #[must_use]
    pub fn detail(&self) -> String {
        self.decode::<ErrorBody>().map(|body| body.detail).unwrap_or_default()
    }
}

/// The meta of a frame was not the message that its operation has.
#[derive(Debug, thiserror::Error)]
#[error("message of {op:?} does not decode")]
pub struct DecodeError {
    /// The frame's operation.
    pub op: Op,
    /// What the decoder met.
    pub source: rmp_serde::decode::Error,
}

/// A message did not encode: a programming error in its `Serialize`.
#[derive(Debug, thiserror::Error)]
#[error("message of {op:?} does not encode")]
pub struct EncodeError {
    /// The message's operation.
    pub op: Op,
    /// What the encoder met.
    pub source: rmp_serde::encode::Error,
}

/// The meta of an error reply.
#[derive(Debug, Serialize, Deserialize)]
struct ErrorBody {
    #[serde(default)]
    detail: String,
}

/// The bytes after the meta, in as many pieces as the sender has them.
#[derive(Clone, Debug, Default)]
pub enum Payload {
    /// No bytes.
    #[default]
    None,
    /// One piece.
    One(Bytes),
    /// Several, sent one after the other without joining them.
    Many(Vec<Bytes>),
}

impl Payload {
    /// Bytes in all.
    #[must_use]
    pub fn len(&self) -> usize {
        self.parts().iter().map(Bytes::len).sum()
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The pieces in order.
    #[must_use]
    pub fn parts(&self) -> &[Bytes] {
        match self {
            Payload::None => &[],
            Payload::One(bytes) => std::slice::from_ref(bytes),
            Payload::Many(parts) => parts,
        }
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Payload {
        if bytes.is_empty() { Payload::None } else { Payload::One(bytes) }
    }
}

/// A frame to be sent. The connection adds call id, deadline and lengths.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The operation; a reply carries its request's.
    pub op: Op,
    /// [`Flags::REPLY`] in replies; the connection adds what else it needs.
    pub flags: Flags,
    /// `Ok` in requests.
    pub status: Status,
    /// The operation's numbers.
    pub words: Words,
    /// The load of the replying server.
    pub load: Load,
    /// At most [`META_MAX`] bytes.
    pub meta: Bytes,
    /// At most [`PAYLOAD_MAX`] bytes.
    pub payload: Payload,
}

impl Outgoing {
    /// A request with no meta and no payload yet, for operations with a binary form.
    #[must_use]
    pub fn new(op: Op) -> Outgoing {
        Outgoing {
            op,
            flags: Flags::NONE,
            status: Status::Ok,
            words: Words::default(),
            load: Load::default(),
            meta: Bytes::new(),
            payload: Payload::None,
        }
    }

    /// A MessagePack request.
    pub fn request<R: Request>(request: &R) -> Result<Outgoing, EncodeError> {
        let meta = encode(R::OP, request)?;
        Ok(Outgoing { meta, ..Outgoing::new(R::OP) })
    }

    /// A successful reply to `request` with no meta and no payload yet.
    #[must_use]
    pub fn reply_to(request: &Header) -> Outgoing {
        Outgoing { flags: Flags::REPLY, ..Outgoing::new(request.op) }
    }

    /// A successful MessagePack reply. One that does not encode or is over the limit becomes an error
    /// reply, so that its caller is answered in every case.
    #[must_use]
    pub fn reply<T: Serialize>(request: &Header, body: &T) -> Outgoing {
        match encode(request.op, body) {
            Ok(meta) => Outgoing { meta, ..Outgoing::reply_to(request) },
            Err(error) => {
                log::error!("{error}: {}", error.source);
                Outgoing::error(request, Status::Io, "the reply does not encode")
            }
        }
    }

    /// A reply that says how the request failed. The detail is for people, cut to [`DETAIL_MAX`] bytes.
    #[must_use]
    pub fn error(request: &Header, status: Status, detail: &str) -> Outgoing {
        Outgoing::failure(request.op, status, detail)
    }

    /// [`Outgoing::error`] for one who has the operation but not the request's header.
    #[must_use]
    pub fn failure(op: Op, status: Status, detail: &str) -> Outgoing {
        let mut end = detail.len().min(DETAIL_MAX);
        while !detail.is_char_boundary(end) {
            end -= 1;
        }
        // A string always encodes; were it not so, the status alone would still tell.
        let meta = encode(op, &ErrorBody { detail: detail[..end].to_owned() }).unwrap_or_default();
        Outgoing { flags: Flags::REPLY, status, meta, ..Outgoing::new(op) }
    }

    /// The same with these words.
    #[must_use]
    pub fn with_words(self, words: Words) -> Outgoing {
        Outgoing { words, ..self }
    }

    /// The same with this binary meta.
    #[must_use]
    pub fn with_meta(self, meta: Bytes) -> Outgoing {
        Outgoing { meta, ..self }
    }

    /// The same with this payload.
    #[must_use]
    pub fn with_payload(self, payload: impl Into<Payload>) -> Outgoing {
        Outgoing { payload: payload.into(), ..self }
    }

    /// The same with the replying server's load.
    #[must_use]
    #[inline]
    pub fn with_load(self, load: Load) -> Outgoing {
        Outgoing { load, ..self }
    }

    /// Whether a peer would accept its lengths.
    pub fn check_len(&self) -> Result<(), TooLong> {
        let (meta, payload) = (self.meta.len(), self.payload.len());
        let fits = |len: usize, max: u32| u32::try_from(len).is_ok_and(|len| len <= max);
        if fits(meta, META_MAX) && fits(payload, PAYLOAD_MAX) {
            Ok(())
        } else {
            Err(TooLong { op: self.op, meta, payload })
        }
    }
}

/// A frame over [`META_MAX`] or [`PAYLOAD_MAX`], caught at its sender.
#[derive(Debug, thiserror::Error)]
#[error(
    "{op:?} with {meta} bytes of meta and {payload} of payload, at most {META_MAX} and {PAYLOAD_MAX} can be sent"
)]
pub struct TooLong {
    /// The frame's operation.
    pub op: Op,
    /// Its bytes of meta.
    pub meta: usize,
    /// Its bytes of payload.
    pub payload: usize,
}

fn encode<T: Serialize>(op: Op, body: &T) -> Result<Bytes, EncodeError> {
    rmp_serde::to_vec_named(body).map(Bytes::from).map_err(|source| EncodeError { op, source })
}
