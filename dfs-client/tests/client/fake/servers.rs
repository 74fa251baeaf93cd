//! Chunk servers: one store for all of them, an op table, stamps and versions checked.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use dfs_proto::checksum::block_crcs;
use dfs_proto::chunk::{Capability, Sync, Synced, WriteMeta};
use dfs_proto::frame::{Frame, Outgoing};
use dfs_proto::header::Words;
use dfs_proto::ids::{ChunkId, ChunkVersion, OpId, ServerNum, SessionId, SizeEpoch};
use dfs_proto::request::Op;
use dfs_proto::status::Status;
use dfs_proto::units::Micros;

use super::CHUNK;

#[derive(Default)]
pub(crate) struct Servers {
    pub(crate) chunks: BTreeMap<ChunkId, Vec<u8>>,
    pub(crate) versions: BTreeMap<ChunkId, ChunkVersion>,
    /// Cut under this epoch: writes under an older one are refused.
    pub(crate) epochs: BTreeMap<ChunkId, SizeEpoch>,
    pub(crate) ops: BTreeMap<(SessionId, ChunkId), (OpId, BTreeSet<OpId>)>,
    /// Writes that took effect, and repeats that did not.
    pub(crate) applied: usize,
    pub(crate) repeated: usize,
    pub(crate) ranges: Vec<usize>,
    /// Milliseconds that this server's stamps lie in the past. It answers with bytes that nobody wrote.
    pub(crate) stale: BTreeMap<ServerNum, u64>,
    pub(crate) reads: BTreeMap<ServerNum, usize>,
    /// Reads sent here, answered or given up.
    pub(crate) asked: BTreeMap<ServerNum, usize>,
    /// How much longer reads take here.
    pub(crate) slow: BTreeMap<ServerNum, Duration>,
}

impl Servers {
    pub(crate) fn serve(&mut self, num: ServerNum, frame: &Frame, now: Micros) -> Result<Outgoing, Status> {
        match frame.header.op {
            Op::Read => self.read(num, frame, now),
            Op::Write => self.write(frame),
            Op::Sync => {
                let sync: Sync = frame.decode().unwrap();
                let ok = |cap: &Capability| match self.check(cap) {
                    Ok(()) => Status::Ok,
                    Err(status) => status,
                };
                let results = sync.chunks.iter().map(|chunk| ok(&chunk.capability)).collect();
                Ok(Outgoing::reply(&frame.header, &Synced { results }))
            }
            _ => Err(Status::UnknownOp),
        }
    }

    pub(crate) fn zero(&mut self, chunk: ChunkId, offset: u32, epoch: SizeEpoch) {
        self.epochs.insert(chunk, epoch);
        if let Some(data) = self.chunks.get_mut(&chunk) {
            let from = usize::try_from(offset).unwrap().min(data.len());
            data[from..].fill(0);
        }
    }

    fn check(&self, cap: &Capability) -> Result<(), Status> {
        match self.versions.get(&cap.chunk) {
            Some(version) if *version != cap.version => Err(Status::WrongChunkVersion),
            _ => Ok(()),
        }
    }

    fn read(&mut self, num: ServerNum, frame: &Frame, now: Micros) -> Result<Outgoing, Status> {
        *self.reads.entry(num).or_default() += 1;
        let (cap, _) = Capability::from_bytes(&frame.meta).unwrap();
        self.check(&cap)?;
        let data = self.chunks.get(&cap.chunk).ok_or(Status::NoChunk)?;
        let words = frame.header.words;
        let from = usize::try_from(words.word2).unwrap() / 4096 * 4096;
        let to = usize::try_from(words.word2 + words.word3).unwrap().div_ceil(4096) * 4096;
        let mut blocks = data[from.min(data.len())..to.min(data.len())].to_vec();
        if self.stale.contains_key(&num) {
            blocks.fill(0xee);
        }
        let blocks = &blocks[..];
        let crcs: Vec<u8> = block_crcs(blocks).flat_map(|crc| crc.0.to_le_bytes()).collect();
        let stamp = now.as_ms().saturating_sub(self.stale.get(&num).copied().unwrap_or(0));
        let reply = Outgoing::reply_to(&frame.header)
            .with_words(Words { word0: cap.chunk.0, word1: stamp, word2: 1, word3: 0 })
            .with_meta(Bytes::from(crcs))
            .with_payload(Bytes::copy_from_slice(blocks));
        Ok(reply)
    }

    fn write(&mut self, frame: &Frame) -> Result<Outgoing, Status> {
        let meta = WriteMeta::from_bytes(&frame.meta, frame.payload.len()).unwrap();
        let cap = meta.capability;
        self.check(&cap)?;
        if self.epochs.get(&cap.chunk).is_some_and(|epoch| cap.size_epoch < *epoch) {
            return Err(Status::OldEpoch);
        }
        let known = self.chunks.contains_key(&cap.chunk);
        assert!(known || !meta.create.is_empty(), "the first write must name the members");
        let (done, ops) = self.ops.entry((cap.session, cap.chunk)).or_default();
        assert!(meta.op.0 < meta.done.0 + 64, "beyond the window");
        *done = (*done).max(meta.done);
        assert!(meta.op >= *done, "an id below done came back");
        if !ops.insert(meta.op) {
            self.repeated += 1;
            return Ok(Outgoing::reply_to(&frame.header));
        }
        let done = *done;
        ops.retain(|op| *op >= done);
        self.applied += 1;
        self.ranges.push(meta.ranges.len());
        let data = self.chunks.entry(cap.chunk).or_default();
        if meta.zeros {
            for range in &meta.ranges {
                let end = data.len();
                let within = |at: u32| usize::try_from(at).unwrap().min(end);
                data[within(range.offset)..within(range.end())].fill(0);
            }
            return Ok(Outgoing::reply_to(&frame.header));
        }
        let mut payload = frame.payload.as_ref();
        let mut crcs = meta.crcs.iter();
        for range in &meta.ranges {
            let (part, rest) = payload.split_at(usize::try_from(range.len).unwrap());
            payload = rest;
            let (from, to) = (usize::try_from(range.offset).unwrap(), usize::try_from(range.end()).unwrap());
            assert!(to <= usize::try_from(CHUNK).unwrap());
            let mut at = from;
            while at < to {
                let stop = (at / 4096 + 1) * 4096;
                let stop = stop.min(to);
                let crc = dfs_proto::checksum::crc32c(&part[at - from..stop - from]);
                assert_eq!(Some(&crc.0), crcs.next());
                at = stop;
            }
            if data.len() < to {
                data.resize(to.div_ceil(4096) * 4096, 0);
            }
            data[from..to].copy_from_slice(part);
        }
        Ok(Outgoing::reply_to(&frame.header))
    }
}
