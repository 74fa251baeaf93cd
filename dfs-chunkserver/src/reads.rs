//! A READ from its frame to its reply: from the page cache on the connection's own task where that is
//! possible, else on the disk's threads.

use std::sync::Arc;

use bytes::Bytes;
use dfs_proto::chunk::{Capability, Range};
use dfs_proto::conn::Responder;
use dfs_proto::frame::{Frame, Outgoing};
use dfs_proto::header::{Header, Words};
use dfs_proto::request::Op;
use dfs_proto::status::Status;
use dfs_proto::units::Micros;

use crate::clock;
use crate::core::io::{Reply, Stamp};
use crate::core::{ReadEnd, ReadRequest, ReadStart, ReadTicket};
use crate::exec::{fault_of, wire_crcs};
use crate::server::Server;
use crate::store::{ReadBlocks, ReadMode, StoreError};

/// How often a read is begun again because writes overtook it. Each time cost one read from the page cache;
/// then the client may as well try elsewhere.
const TRIES_MAX: u32 = 16;

/// A READ that is owed an answer.
pub(crate) struct ReadCall {
    pub(crate) reply: Responder,
    pub(crate) header: Header,
    pub(crate) request: ReadRequest,
    pub(crate) began: Micros,
    pub(crate) tries: u32,
}

impl Server {
    /// Takes a READ's frame.
    pub(crate) fn read(self: &Arc<Self>, frame: &Frame, reply: Responder) {
        let Some((capability, _)) = Capability::from_bytes(&frame.meta) else {
            return reply.fail(Status::Malformed, "READ without a capability");
        };
        let Words { word0, word2, word3, .. } = frame.header.words;
        if word0 != capability.chunk.0 {
            return reply.fail(Status::BadCapability, "");
        }
        self.load.begin(0);
        let request = ReadRequest { capability, range: Range { offset: word2, len: word3 } };
        self.serve_read(ReadCall { reply, header: frame.header, request, began: clock::now(), tries: 0 });
    }

    /// Begins a read, or begins it again.
    pub(crate) fn serve_read(self: &Arc<Self>, read: ReadCall) {
        let start = self.with_core(|core| core.begin_read(clock::now(), &read.request));
        match start {
            ReadStart::Refused(status) => self.end_read_with(read, status),
            ReadStart::Nothing(stamp) => self.send_read(read, stamp, None),
            ReadStart::Wait => {
                if let Some(read) = self.park(read) {
                    self.end_read_with(read, Status::Overloaded);
                }
            }
            ReadStart::Go(ticket) => self.read_disk(read, ticket),
        }
    }

    fn read_disk(self: &Arc<Self>, read: ReadCall, ticket: ReadTicket) {
        let Some(disk) = self.disks.get(usize::from(ticket.disk.0)) else {
            return self.end_read_with(read, Status::NoChunk);
        };
        let Range { offset, len } = ticket.range;
        let cached = disk.store.read(ticket.chunk, offset, len, ReadMode::CachedOnly);
        if !matches!(cached, Err(StoreError::WouldBlock)) {
            return self.finish_read(read, &ticket, cached);
        }
        let (server, waits) = (Arc::clone(self), Arc::clone(disk));
        // The queue is bounded: one that is full drops the job, and with it the request is refused.
        let mut held = HeldRead { server: Arc::clone(self), read: Some(read) };
        let queued = disk.try_submit(move || {
            if let Some(read) = held.read.take() {
                let blocks = waits.read(ticket.chunk, offset, len);
                server.finish_read(read, &ticket, blocks);
            }
        });
        if !queued {
            log::debug!("disk {}: too many reads wait", disk.path.display());
        }
    }

    fn finish_read(
        self: &Arc<Self>,
        mut read: ReadCall,
        ticket: &ReadTicket,
        blocks: Result<ReadBlocks, StoreError>,
    ) {
        let result = blocks.as_ref().map(|_| ()).map_err(fault_of);
        let mut effects = Vec::new();
        let end = self.with_core(|core| core.end_read(clock::now(), ticket, result, &mut effects));
        self.perform_all(effects, Vec::new());
        match (end, blocks) {
            (ReadEnd::Send(stamp), Ok(blocks)) => self.send_read(read, stamp, Some(blocks)),
            (ReadEnd::Again, _) if read.tries < TRIES_MAX => {
                read.tries += 1;
                self.serve_read(read);
            }
            (ReadEnd::Again, _) => self.end_read_with(read, Status::Overloaded),
            (ReadEnd::Refused(status), _) => self.end_read_with(read, status),
            (ReadEnd::Send(_), Err(error)) => self.end_read_with(read, error.status()),
        }
    }

    fn send_read(self: &Arc<Self>, read: ReadCall, stamp: Stamp, blocks: Option<ReadBlocks>) {
        let bytes = blocks.as_ref().map_or(0, |blocks| blocks.data.len());
        match self.load.reader_waits(clock::now(), bytes) {
            None => self.send_now(read, stamp, blocks),
            Some(wait) => {
                let server = Arc::clone(self);
                self.runtime.spawn(async move {
                    tokio::time::sleep(wait).await;
                    server.send_now(read, stamp, blocks);
                });
            }
        }
    }

    fn send_now(&self, read: ReadCall, stamp: Stamp, blocks: Option<ReadBlocks>) {
        let crcs = blocks.as_ref().map(wire_crcs).unwrap_or_default();
        let data = blocks.map_or_else(Bytes::new, |blocks| blocks.data);
        let meta: Vec<u8> = crcs.iter().flat_map(|crc| crc.to_le_bytes()).collect();
        self.load.end(Op::Read, Micros(clock::now().0.saturating_sub(read.began.0)), true);
        let words = Words {
            word0: read.request.capability.chunk.0,
            word1: stamp.now.0,
            word2: low_half(stamp.term.0),
            word3: 0,
        };
        let out = Outgoing::reply_to(&read.header).with_words(words).with_load(self.load.header());
        read.reply.send(out.with_meta(Bytes::from(meta)).with_payload(data));
    }

    fn end_read_with(&self, read: ReadCall, status: Status) {
        self.load.end(Op::Read, Micros(clock::now().0.saturating_sub(read.began.0)), false);
        read.reply.send(Outgoing::error(&read.header, status, "").with_load(self.load.header()));
    }

    /// A parked read whose wait ended with an error.
    pub(crate) fn refuse_read(&self, read: ReadCall, reply: &Reply) {
        let status = if let Reply::Failed(status) = reply { *status } else { Status::NotServing };
        self.end_read_with(read, status);
    }
}

/// A read in a disk's queue, answered even if its job is dropped.
struct HeldRead {
    server: Arc<Server>,
    read: Option<ReadCall>,
}

impl Drop for HeldRead {
    fn drop(&mut self) {
        if let Some(read) = self.read.take() {
            self.server.end_read_with(read, Status::Overloaded);
        }
    }
}

fn low_half(value: u64) -> u32 {
    u32::try_from(value & u64::from(u32::MAX)).unwrap_or(0)
}
