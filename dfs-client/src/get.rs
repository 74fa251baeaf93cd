//! One READ, from whichever member answers with bytes that are whole and provably not old (R1 to R5).

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use dfs_proto::chunk::version_word;
use dfs_proto::frame::{Frame, Outgoing};
use dfs_proto::header::Words;
use dfs_proto::ids::{ServerNum, SizeEpoch};
use dfs_proto::meta::{ChunkPlace, Suspicion};
use dfs_proto::planted;
use dfs_proto::request::Op;
use dfs_proto::status::Status;
use dfs_proto::units::{BLOCK_SIZE, IO_MAX, MasterMs};

use crate::call::Refused;
use crate::core::clock::Stamp;
use crate::core::retry::{Backoff, ChunkNext, after_chunk};
use crate::core::split::{Piece, blocks_match};
use crate::error::Error;
use crate::inode::{Inode, Mapped};
use crate::maps::MapView;
use crate::net::{Net, NetError};
use crate::shared::{Shared, Until};

/// How often every member may say that it has no good copy before the program is told: the pauses in between come
/// to some five seconds, and members mend each other's blocks in less than one.
const ROTTEN_ROUNDS: u32 = 12;

static ZEROS: [u8; IO_MAX as usize] = [0; IO_MAX as usize];

/// Zeros that cost nothing; at most one request's worth.
fn zeros(len: u32) -> Bytes {
    Bytes::from_static(&ZEROS[..usize_of(len)])
}

fn usize_of(len: u32) -> usize {
    // No machine that runs this has smaller pointers.
    usize::try_from(len).unwrap_or(usize::MAX)
}

/// Where a read learns what an index stands for.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// From what is remembered under a grant. The read took the file's size under this epoch.
    Grant(SizeEpoch),
    /// From a map that the master gave for this read.
    Map(MapView),
}

impl Source {
    fn size_epoch(&self) -> SizeEpoch {
        match self {
            Source::Grant(size_epoch) => *size_epoch,
            Source::Map(view) => view.size_epoch,
        }
    }
}

impl<N: Net> Shared<N> {
    /// Where the piece of a read that took the file's size under this epoch is; `None` for a hole.
    async fn place_of(
        &self,
        inode: &Inode,
        (piece, size_epoch): (Piece, SizeEpoch),
        source: &Source,
        until: Until,
    ) -> Result<Option<Arc<ChunkPlace>>, Refused> {
        let (mapped, mapped_in) = match source {
            Source::Grant(_) => self.read_place(inode, piece.index, until).await?,
            Source::Map(view) => (view.at(piece.index), view.size_epoch),
        };
        match mapped {
            // A hole, too: it may be what is left of a chunk, whose place an answer from before is about to bring.
            _ if mapped_in > size_epoch => Err(Refused::OldEpoch),
            Mapped::Hole => Ok(None),
            Mapped::Place(place) if place.capability.size_epoch > size_epoch => Err(Refused::OldEpoch),
            Mapped::Place(place) => Ok(Some(place)),
        }
    }

    /// The piece's bytes, all of them: what no chunk holds is zeros.
    ///
    /// # Errors
    /// `OldEpoch` when the file was truncated since the read took its size: what is written there now may lie
    /// beyond a size that nobody has committed, and who reads after somebody was shown the cut must be shown it too. The
    /// read begins again.
    pub(crate) async fn get(
        self: &Arc<Self>,
        inode: &Inode,
        piece: Piece,
        mut source: Source,
        until: Until,
    ) -> Result<Bytes, Refused> {
        let mut tried: Vec<ServerNum> = Vec::new();
        let mut primary = false;
        let size_epoch = source.size_epoch();
        let mut backoff = Backoff::default();
        let (mut rotten, mut rotten_rounds) = (0, 0);
        loop {
            let Some(place) = self.place_of(inode, (piece, size_epoch), &source, until).await? else {
                return Ok(zeros(piece.range.len));
            };
            let mut member = if std::mem::take(&mut primary) {
                place.members.first().copied()
            } else {
                self.choose(&place.members, &tried)
            };
            let next = match member {
                Some(first) => {
                    let deadline = until.cap(self.config.chunk_deadline);
                    let ask = |server| message(&place, server, piece);
                    let among = (&place.members[..], &tried[..]);
                    let (from, answer) = self.call_either(among, first, piece.range.len, ask, deadline).await;
                    member = Some(from);
                    match answer {
                        Ok(frame) => match self.accept(&frame, piece, until).await? {
                            Some(bytes) => return Ok(bytes),
                            None => ChunkNext::Elsewhere,
                        },
                        // Never written as far as the master knows, and as far as a member knows.
                        Err(NetError::Status(Status::NoChunk, _)) if place.new => {
                            return Ok(zeros(piece.range.len));
                        }
                        Err(error) => self.after_read(&place, from, &error),
                    }
                }
                None => ChunkNext::NewPlace,
            };
            match next {
                ChunkNext::Fail(error) => return Err(error.into()),
                ChunkNext::Primary => primary = true,
                ChunkNext::Elsewhere | ChunkNext::Suspect { .. } | ChunkNext::Corrupt => {
                    rotten += usize::from(next == ChunkNext::Corrupt);
                    tried.extend(member.map(|member| member.server));
                }
                ChunkNext::Again => self.pause(&mut backoff, until).await?,
                ChunkNext::NewPlace | ChunkNext::OldEpoch => {
                    rotten_rounds += u32::from(rotten >= place.members.len());
                    if rotten_rounds >= ROTTEN_ROUNDS {
                        log::error!("no member of {} has a good copy of {:?}", place.chunk(), piece.range);
                        return Err(Error::Io.into());
                    }
                    rotten = 0;
                    tried.clear();
                    inode.forget_place(&place);
                    self.pause(&mut backoff, until).await?;
                    if let Source::Map(view) = &mut source {
                        *view = MapView::new(&self.ask_map(inode, piece.index, 1, until).await?);
                    }
                }
            }
            if inode.lock().dead {
                return Err(Error::Stale.into());
            }
            until.check()?;
        }
    }

    fn after_read(
        self: &Arc<Self>,
        place: &ChunkPlace,
        member: dfs_proto::chunk::Member,
        error: &NetError,
    ) -> ChunkNext {
        log::debug!("read of {} at {}: {error}", place.chunk(), member.server);
        if matches!(error, NetError::Status(Status::NoChunk, _)) {
            self.report(member, place.chunk(), Suspicion::Missing);
        }
        let next = after_chunk(error);
        match next {
            ChunkNext::Suspect { dead } => {
                let what = if dead { Suspicion::RefusedUnix } else { Suspicion::Silent };
                self.report(member, place.chunk(), what);
            }
            ChunkNext::Corrupt => {
                // The server tells the master which block; that it was seen here is worth a word.
                log::warn!("a block of {} is corrupt at {}", place.chunk(), member.server);
            }
            ChunkNext::Again
            | ChunkNext::Elsewhere
            | ChunkNext::Primary
            | ChunkNext::NewPlace
            | ChunkNext::OldEpoch
            | ChunkNext::Fail(_) => {}
        }
        next
    }

    /// The piece's bytes, if the answer is whole and its server's lease had not ended.
    async fn accept(&self, frame: &Frame, piece: Piece, until: Until) -> Result<Option<Bytes>, Refused> {
        let words = frame.header.words;
        let stamp = || self.session.stamp(words.word2, MasterMs(words.word1), self.now());
        let mut verdict = stamp();
        if verdict == Stamp::OtherTerm {
            self.renew(until).await?;
            verdict = stamp();
        }
        if verdict != Stamp::Live && !planted!(SkipReadBound) {
            log::info!("a read came back under a lease that may be over");
            return Ok(None);
        }
        if !blocks_match(&frame.payload, &frame.meta) {
            log::warn!("a read came back with bytes that do not match their checksums");
            return Ok(None);
        }
        Ok(Some(cut_out(&frame.payload, piece)))
    }
}

/// The piece's bytes out of the whole blocks around it; zeros where the blocks end early.
fn cut_out(blocks: &Bytes, piece: Piece) -> Bytes {
    let skip = usize_of(piece.range.offset % BLOCK_SIZE);
    let len = usize_of(piece.range.len);
    let have = blocks.slice(skip.min(blocks.len())..(skip + len).min(blocks.len()));
    if have.len() == len {
        return have;
    }
    if have.is_empty() {
        return zeros(piece.range.len);
    }
    let mut out = BytesMut::with_capacity(len);
    out.extend_from_slice(&have);
    out.resize(len, 0);
    out.freeze()
}

fn message(place: &ChunkPlace, server: ServerNum, piece: Piece) -> Outgoing {
    let cap = place.capability_for(server);
    let words = Words {
        word0: cap.chunk.0,
        word1: version_word(cap.version, cap.config),
        word2: piece.range.offset,
        word3: piece.range.len,
    };
    Outgoing::new(Op::Read).with_words(words).with_meta(Bytes::copy_from_slice(&cap.to_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfs_proto::chunk::Range;
    use dfs_proto::units::ChunkIndex;

    #[test]
    fn short_answers_are_filled_with_zeros() {
        let piece = |offset, len| Piece { index: ChunkIndex(0), range: Range { offset, len }, offset: 0 };
        let blocks = Bytes::from((0..4200u32).map(|i| (i % 200) as u8).collect::<Vec<u8>>());
        assert_eq!(cut_out(&blocks, piece(8192 + 10, 20)), blocks.slice(10..30));
        let over = cut_out(&blocks, piece(4090, 300));
        assert_eq!((over.len(), over[0], over[105], over[106]), (300, 90, 195, 196));
        let short = cut_out(&blocks, piece(100, 4200));
        assert_eq!((short.len(), short[4099], short[4100]), (4200, 199, 0));
        assert_eq!(cut_out(&Bytes::new(), piece(0, 5)), Bytes::from_static(&[0; 5]));
    }
}
