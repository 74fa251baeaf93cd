//! One WRITE, repeated under the same operation id until it has a definite answer (I23).

use std::sync::Arc;

use bytes::Bytes;
use dfs_proto::chunk::{Range, WriteMeta, cut_of, version_word};
use dfs_proto::frame::{Outgoing, Payload};
use dfs_proto::header::Words;
use dfs_proto::ids::{ChunkId, OpId, ServerNum, SizeEpoch};
use dfs_proto::meta::{ChunkPlace, FailedPlace, Suspicion};
use dfs_proto::request::Op;
use dfs_proto::units::ChunkIndex;

use crate::call::Refused;
use crate::core::retry::{Backoff, ChunkNext, after_chunk};
use crate::error::Error;
use crate::inode::Inode;
use crate::net::{Net, NetError};
use crate::shared::{Shared, Until};

/// How often a primary may say that no member has a good copy of a block before the program is told.
const ROTTEN_TRIES: u32 = 8;

/// Bytes, or zeros, for one chunk.
#[derive(Clone, Debug)]
pub(crate) struct Put {
    pub(crate) index: ChunkIndex,
    pub(crate) ranges: Vec<Range>,
    pub(crate) crcs: Vec<u32>,
    pub(crate) parts: Vec<Bytes>,
    /// Zeros, without checksums and parts, for no other chunk than this: one in its place has them but for what was
    /// written since.
    pub(crate) zeros_in: Option<ChunkId>,
}

/// An operation id that was taken. Dropped, it will never be sent again, which makes the members drop a
/// copy that is still under way once they hear from this mount.
struct Taken<'a> {
    inode: &'a Inode,
    chunk: ChunkId,
    op: OpId,
    /// It was sent, and not acknowledged.
    sent: bool,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.inode.op_is_over(self.chunk, self.op, !self.sent);
    }
}

impl<N: Net> Shared<N> {
    /// Writes on all members. Returns the place at which it was acknowledged, with the size epoch of the try that was
    /// applied. Zeros are `Stale` where their chunk is no more.
    pub(crate) async fn put(
        self: &Arc<Self>,
        inode: &Inode,
        put: &Put,
        until: Until,
    ) -> Result<Arc<ChunkPlace>, Refused> {
        let mut failed = None;
        let mut taken: Option<Taken<'_>> = None;
        let mut backoff = Backoff::default();
        let (mut tries, mut rotten) = (0u32, 0u32);
        loop {
            let place = self.write_place(inode, put.index, failed.take(), put.zeros_in, until).await?;
            let chunk = place.chunk();
            // Another chunk took the index's place: the old one is not written any more.
            taken = taken.filter(|taken| taken.chunk == chunk);
            let op = match &taken {
                Some(taken) => taken.op,
                None => {
                    let op = until.bound(inode.take_op(chunk, self.session.op_floor())).await?;
                    let op = op.ok_or(Refused::SessionLost)?;
                    taken = Some(Taken { inode, chunk, op, sent: false });
                    op
                }
            };
            let Some(primary) = place.members.first().copied() else { return Err(Error::Io.into()) };
            let deadline = until.cap(self.config.chunk_deadline);
            taken.iter_mut().for_each(|taken| taken.sent = true);
            let call =
                self.call_server(primary.server, message(inode, &place, primary.server, put, op), deadline);
            let error = match self.unless_moved(inode, std::slice::from_ref(&place), call, until).await {
                Some(Ok(answer)) => {
                    taken.iter_mut().for_each(|taken| taken.sent = false);
                    inode.no_longer_new(&place);
                    return Ok(written_at(place, cut_of(&answer.header.words)));
                }
                Some(Err(error)) => error,
                // The new members know the operation if one of the old ones took it.
                None => continue,
            };
            log::debug!("write to {chunk} at {}: {error}", primary.server);
            let this = FailedPlace { chunk, version: place.capability.version, server: primary.server };
            match self.after_write(inode, &place, &error) {
                ChunkNext::Again => {}
                ChunkNext::OldEpoch => {
                    // A chunk that says so has been cut since; what is to be written is not what was cut.
                    inode.forget_place(&place);
                }
                ChunkNext::Fail(error) => return Err(error.into()),
                // It is to be merged with bytes that no member has; where one had them, the primary would have waited.
                ChunkNext::Corrupt => {
                    rotten += 1;
                    if rotten >= ROTTEN_TRIES {
                        log::error!("a write to {chunk} meets a block that no member has a good copy of");
                        return Err(Error::Io.into());
                    }
                    inode.forget_place(&place);
                }
                ChunkNext::Elsewhere
                | ChunkNext::Primary
                | ChunkNext::Suspect { .. }
                | ChunkNext::NewPlace => {
                    inode.forget_place(&place);
                    failed = Some(this);
                }
            }
            until.check()?;
            tries += 1;
            // The first question to the master waits for nothing: after a change of config that is all it takes.
            if tries > 1 {
                self.pause(&mut backoff, until).await?;
            }
        }
    }

    fn after_write(self: &Arc<Self>, inode: &Inode, place: &ChunkPlace, error: &NetError) -> ChunkNext {
        let next = after_chunk(error);
        if inode.lock().dead {
            return ChunkNext::Fail(Error::Io);
        }
        if let ChunkNext::Suspect { dead } = next
            && let Some(primary) = place.members.first()
        {
            let what = if dead { Suspicion::RefusedUnix } else { Suspicion::Silent };
            self.report(*primary, place.chunk(), what);
        }
        next
    }
}

/// An earlier try can have been applied, and cut by a truncation since: then it was before that truncation.
fn written_at(place: Arc<ChunkPlace>, cut: Option<SizeEpoch>) -> Arc<ChunkPlace> {
    let Some(size_epoch) = cut else { return place };
    let mut place = ChunkPlace::clone(&place);
    place.capability.size_epoch = size_epoch;
    Arc::new(place)
}

fn message(inode: &Inode, place: &ChunkPlace, primary: ServerNum, put: &Put, op: OpId) -> Outgoing {
    let cap = place.capability_for(primary);
    let done = inode.lock().ops.get(&cap.chunk).map_or(op, |ops| ops.done());
    let meta = WriteMeta {
        capability: cap,
        op,
        done,
        ranges: put.ranges.clone(),
        crcs: put.crcs.clone(),
        zeros: put.zeros_in.is_some(),
        create: if place.new { place.members.clone() } else { Vec::new() },
        note: if place.new { place.note.clone() } else { None },
    };
    let words = Words {
        word0: cap.chunk.0,
        word1: version_word(cap.version, cap.config),
        word2: put.ranges.first().map_or(0, |range| range.offset),
        word3: 0,
    };
    let mut out = Outgoing::new(Op::Write).with_words(words).with_meta(Bytes::from(meta.to_bytes()));
    out.payload = Payload::Many(put.parts.clone());
    out
}
