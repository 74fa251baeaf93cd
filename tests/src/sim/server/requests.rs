//! What clients, other servers and the master ask of a chunk server, and its answers.

use bytes::Bytes;
use dfs_chunkserver::core::io::{CallToken, DiskFault, Input, Reply, Stamp};
use dfs_chunkserver::core::{ReadEnd, ReadRequest, ReadStart, ReadTicket};
use dfs_chunkserver::exec;
use dfs_chunkserver::store::{ReadBlocks, ReadMode};
use dfs_proto::chunk::{
    AskMend, Capability, Committed, ForwardMeta, ForwardSync, Range, Sync, Synced, WriteMeta,
    entries_to_bytes, written_words,
};
use dfs_proto::control::{Applied, Deleted};
use dfs_proto::frame::{Frame, Outgoing};
use dfs_proto::header::Words;
use dfs_proto::ids::ChunkId;
use dfs_proto::meta::Done;
use dfs_proto::request::Op;
use dfs_proto::status::Status;
use dfs_proto::units::BLOCK_SIZE;

use super::super::fabric::{ConnRef, Fabric};
use super::{Running, Todo};

/// Tries of a read that writes overtake, before the client is told to come again.
const READ_TRIES: u64 = 8;

impl Running {
    pub(super) fn request(&mut self, fabric: &mut Fabric, conn: ConnRef, frame: Frame) {
        let header = frame.header;
        if header.op == Op::Committed {
            if let Ok(Committed { chunks }) = frame.decode() {
                self.step(fabric, Input::Committed(chunks));
            }
            return;
        }
        if header.op == Op::AskMend {
            if let Ok(ask) = frame.decode::<AskMend>() {
                self.step(fabric, Input::AskMend(ask));
            }
            return;
        }
        self.next += 1;
        let call = CallToken(self.next);
        self.calls.insert(call, (conn, header));
        let input = match self.input_of(call, frame) {
            Ok(input) => input,
            Err(status) => {
                self.reply(fabric, call, Reply::Failed(status));
                return;
            }
        };
        match input {
            Asked::Input(input) => {
                self.oracle.asked(call, &input);
                self.step(fabric, input);
            }
            Asked::Read(request) => {
                self.reads.insert(call, request);
                self.begin_read(fabric, call, request);
            }
        }
    }

    fn input_of(&self, call: CallToken, frame: Frame) -> Result<Asked, Status> {
        let header = frame.header;
        let bad = |_| Status::Malformed;
        let input = match header.op {
            Op::Write => {
                let meta =
                    WriteMeta::from_bytes(&frame.meta, frame.payload.len()).map_err(|_| Status::Malformed)?;
                Input::Write { call, meta, payload: frame.payload }
            }
            Op::Forward => {
                let meta = ForwardMeta::from_bytes(&frame.meta, frame.payload.len())
                    .map_err(|_| Status::Malformed)?;
                Input::Forward { call, meta, payload: frame.payload }
            }
            Op::Read => {
                let (capability, _) = Capability::from_bytes(&frame.meta).ok_or(Status::Malformed)?;
                let range = Range { offset: header.words.word2, len: header.words.word3 };
                return Ok(Asked::Read(ReadRequest { capability, range }));
            }
            Op::Sync => Input::Sync { call, chunks: frame.decode::<Sync>().map_err(bad)?.chunks },
            Op::ForwardSync => {
                let chunks = frame.decode::<ForwardSync>().map_err(bad)?.chunks;
                Input::ForwardSync { call, chunks, digest: header.words.word2 == 1 }
            }
            Op::Apply => Input::Apply { call, body: frame.decode().map_err(bad)? },
            Op::Fence => Input::Fence { call, body: frame.decode().map_err(bad)? },
            Op::Close => Input::Close { call, body: frame.decode().map_err(bad)? },
            Op::Reconcile => Input::Reconcile { call, body: frame.decode().map_err(bad)? },
            Op::AddLearner => Input::AddLearner { call, body: frame.decode().map_err(bad)? },
            Op::Zero => Input::Zero { call, body: frame.decode().map_err(bad)? },
            Op::Delete => Input::Delete { call, body: frame.decode().map_err(bad)? },
            Op::Withdraw => Input::Withdraw { call, body: frame.decode().map_err(bad)? },
            Op::StartScrub => Input::StartScrub { call, body: frame.decode().map_err(bad)? },
            Op::Look => Input::Look { call, body: frame.decode().map_err(bad)? },
            Op::Examine => Input::Examine { call, body: frame.decode().map_err(bad)? },
            _ => return Err(Status::UnknownOp),
        };
        Ok(Asked::Input(input))
    }

    pub(super) fn reply(&mut self, fabric: &mut Fabric, call: CallToken, reply: Reply) {
        self.reads.remove(&call);
        let wrong = self.oracle.answers(self.now(fabric), call, &reply);
        self.broken(fabric, wrong);
        let Some((conn, header)) = self.calls.remove(&call) else { return };
        let ok = Outgoing::reply_to(&header);
        let out = match reply {
            Reply::Failed(status) => Outgoing::error(&header, status, ""),
            Reply::Written { chunk, seq, cut } => ok.with_words(written_words(chunk, seq, cut)),
            Reply::Compared(bits) => ok.with_payload(bits),
            Reply::Stock { entries, data } => {
                ok.with_meta(Bytes::from(entries_to_bytes(&entries))).with_payload(data)
            }
            Reply::Done if header.op == Op::Forward => ok,
            Reply::Done => Outgoing::reply(&header, &Done {}),
            Reply::Synced { results, digest } => {
                let (high, low) = split(digest.unwrap_or(0));
                let words = Words { word0: high, word1: low, word2: u32::from(digest.is_some()), word3: 0 };
                Outgoing::reply(&header, &Synced { results }).with_words(words)
            }
            Reply::Applied { applied } => Outgoing::reply(&header, &Applied { applied }),
            Reply::Fenced(body) => Outgoing::reply(&header, &body),
            Reply::Closed(body) => Outgoing::reply(&header, &body),
            Reply::Withdrawn(body) => Outgoing::reply(&header, &body),
            Reply::Reconciled(body) => Outgoing::reply(&header, &body),
            Reply::Deleted(results) => Outgoing::reply(&header, &Deleted { results }),
            Reply::Held(body) => Outgoing::reply(&header, &body),
            Reply::Examined(body) => Outgoing::reply(&header, &body),
        };
        fabric.reply(self.node, conn, header.call, out);
    }

    pub(super) fn begin_read(&mut self, fabric: &mut Fabric, call: CallToken, request: ReadRequest) {
        let now = self.now(fabric);
        match self.core.begin_read(now, &request) {
            ReadStart::Go(ticket) => {
                let delay = super::disk_delay_us(fabric);
                self.later(fabric, delay, Todo::Read(call, ticket));
                fabric.at_work(self.node);
            }
            ReadStart::Nothing(stamp) => self.send_blocks(fabric, call, stamp, None),
            ReadStart::Wait => {
                if !self.core.park_read(call, &request) {
                    self.reply(fabric, call, Reply::Failed(Status::Overloaded));
                }
            }
            ReadStart::Refused(status) => self.reply(fabric, call, Reply::Failed(status)),
        }
    }

    pub(super) fn read_disk(&mut self, fabric: &mut Fabric, call: CallToken, ticket: ReadTicket) {
        let Range { offset, len } = ticket.range;
        let read = self.store.read(ticket.chunk, offset, len, ReadMode::MayBlock);
        let read = read.map_err(|error| exec::fault_of(&error));
        let delay = if fabric.rng.coin() { 0 } else { fabric.between(1, 500) };
        self.later(fabric, delay, Todo::ReadEnd(call, ticket, read));
    }

    pub(super) fn end_read(
        &mut self,
        fabric: &mut Fabric,
        call: CallToken,
        ticket: &ReadTicket,
        read: Result<ReadBlocks, DiskFault>,
    ) {
        let now = self.now(fabric);
        let (blocks, result) = match read {
            Ok(blocks) => (Some(blocks), Ok(())),
            Err(fault) => (None, Err(fault)),
        };
        let mut effects = Vec::new();
        let end = self.core.end_read(now, ticket, result, &mut effects);
        for effect in effects {
            self.perform(fabric, effect);
        }
        match end {
            ReadEnd::Send(stamp) => self.send_blocks(fabric, call, stamp, blocks),
            ReadEnd::Again => match self.reads.get(&call).copied() {
                Some(_) if fabric.one_in(READ_TRIES) => {
                    self.reply(fabric, call, Reply::Failed(Status::Overloaded))
                }
                Some(request) => self.begin_read(fabric, call, request),
                None => {}
            },
            ReadEnd::Refused(status) => self.reply(fabric, call, Reply::Failed(status)),
        }
    }

    fn broken(&self, fabric: &mut Fabric, wrong: Option<(&'static str, String)>) {
        if let Some((invariant, what)) = wrong {
            fabric.broken = Some((invariant, format!("{} {what}", self.who.name)));
        }
    }

    fn send_blocks(
        &mut self,
        fabric: &mut Fabric,
        call: CallToken,
        stamp: Stamp,
        blocks: Option<ReadBlocks>,
    ) {
        self.reads.remove(&call);
        let Some((conn, header)) = self.calls.remove(&call) else { return };
        let wrong = self.oracle.served(self.now(fabric), ChunkId(header.words.word0));
        self.broken(fabric, wrong);
        let words = Words {
            word0: header.words.word0,
            word1: stamp.now.0,
            word2: u32::try_from(stamp.term.0 & u64::from(u32::MAX)).unwrap_or(0),
            word3: 0,
        };
        let (data, crcs) = match blocks {
            Some(blocks) => (blocks.data.clone(), exec::wire_crcs(&blocks)),
            None => (Bytes::new(), Vec::new()),
        };
        debug_assert_eq!(data.len(), crcs.len() * usize::try_from(BLOCK_SIZE).unwrap_or(0));
        let meta: Vec<u8> = crcs.iter().flat_map(|crc| crc.to_le_bytes()).collect();
        let out =
            Outgoing::reply_to(&header).with_words(words).with_meta(Bytes::from(meta)).with_payload(data);
        fabric.reply(self.node, conn, header.call, out);
    }
}

/// A request as the core takes it.
enum Asked {
    Input(Input),
    Read(ReadRequest),
}

fn split(wide: u128) -> (u64, u64) {
    let low = u64::try_from(wide & u128::from(u64::MAX)).unwrap_or(0);
    (u64::try_from(wide >> 64).unwrap_or(0), low)
}
