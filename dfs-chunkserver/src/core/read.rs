//! Reads, at any member: what is checked before the disk is read, and again after (R2, R3, I6). The read
//! takes effect at the disk read between the two.

use dfs_proto::chunk::{Capability, Range};
use dfs_proto::ids::{ChunkId, ChunkVersion};
use dfs_proto::key::IssuedKey;
use dfs_proto::planted;
use dfs_proto::status::Status;
use dfs_proto::units::{IO_MAX, Micros};

use crate::core::Core;
use crate::core::heat::Access;
use crate::core::io::{CallToken, DiskFault, DiskIx, Effect, Stamp};
use crate::core::lead::PARKED_MAX;
use crate::core::replica::{Blocks, Replica, Standing};

/// A client's READ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadRequest {
    pub capability: Capability,
    pub range: Range,
}

/// How a read goes on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReadStart {
    /// Read the ticket's range from its disk, then call [`Core::end_read`].
    Go(ReadTicket),
    /// The chunk has no file here: answer zero blocks, with this stamp.
    Nothing(Stamp),
    /// A write holds the range: `Core::park_read`, and try again when told.
    Wait,
    Refused(Status),
}

/// A read between its two checks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReadTicket {
    pub disk: DiskIx,
    pub chunk: ChunkId,
    pub range: Range,
    version: ChunkVersion,
    blocks: Blocks,
    begun: u64,
}

/// What becomes of a read's data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadEnd {
    /// Send it, with this stamp.
    Send(Stamp),
    /// A write overtook it: throw it away and begin again.
    Again,
    Refused(Status),
}

impl Core {
    /// Checks a read before the disk is touched.
    pub fn begin_read(&mut self, now: Micros, request: &ReadRequest) -> ReadStart {
        match self.check_read(now, request) {
            Ok(start) => start,
            Err(status) => ReadStart::Refused(status),
        }
    }

    fn check_read(&mut self, now: Micros, request: &ReadRequest) -> Result<ReadStart, Status> {
        let cap = &request.capability;
        let stamp = self.lease.stamp(now).ok_or(Status::NotServing)?;
        self.check_capability(now, cap)?;
        if !cap.rights.read {
            return Err(Status::BadCapability);
        }
        let end = request.range.offset.checked_add(request.range.len).ok_or(Status::Invalid)?;
        if request.range.len == 0 || request.range.len > IO_MAX || end > self.chunk_size {
            return Err(Status::Invalid);
        }
        let num = self.num.ok_or(Status::NotServing)?;
        let replica = self.replicas.get(&cap.chunk).ok_or_else(|| self.why_missing(cap))?;
        check_standing(replica, cap.version)?;
        if cap.size_epoch < replica.size_epoch {
            // The reader has the size of before a truncation, behind which somebody may be writing.
            return Err(Status::OldEpoch);
        }
        let blocks = Blocks::of(&[request.range]);
        if replica.is_primary(num) {
            if replica.lead.as_ref().is_some_and(|lead| lead.is_written(&blocks)) {
                return Ok(ReadStart::Wait);
            }
        } else if replica.is_pending(&blocks) && !planted!(ShowPending) {
            return Err(Status::Redirect);
        }
        self.heat.note(now, cap.chunk, Access::Read, request.range.len);
        if !replica.made {
            return Ok(ReadStart::Nothing(stamp));
        }
        Ok(ReadStart::Go(ReadTicket {
            disk: replica.disk,
            chunk: cap.chunk,
            range: request.range,
            version: replica.version,
            blocks,
            begun: replica.begun.count(),
        }))
    }

    /// Keeps a read that was told to wait until the writes before it are done. False when too many wait.
    pub fn park_read(&mut self, call: CallToken, request: &ReadRequest) -> bool {
        let lead = self.replicas.get_mut(&request.capability.chunk).and_then(|replica| replica.lead.as_mut());
        let Some(lead) = lead.filter(|lead| lead.parked.len() < PARKED_MAX) else { return false };
        lead.parked.push((call, Blocks::of(&[request.range])));
        true
    }

    /// Checks a read after the disk was read and just before the answer goes out.
    pub fn end_read(
        &mut self,
        now: Micros,
        ticket: &ReadTicket,
        read: Result<(), DiskFault>,
        out: &mut Vec<Effect>,
    ) -> ReadEnd {
        let now = if planted!(LeaseCheckedOnce) { Micros(0) } else { now };
        let Some(stamp) = self.lease.stamp(now) else { return ReadEnd::Refused(Status::NotServing) };
        let Some(replica) = self.replicas.get(&ticket.chunk) else {
            return ReadEnd::Refused(Status::NoChunk);
        };
        if let Err(status) = check_standing(replica, ticket.version) {
            return ReadEnd::Refused(status);
        }
        if replica.begun.since(ticket.begun, &ticket.blocks) && !planted!(OvertakenRead) {
            return ReadEnd::Again;
        }
        match read {
            Ok(()) => ReadEnd::Send(stamp),
            Err(fault) => {
                self.fault_found(now, ticket.chunk, fault, out);
                ReadEnd::Refused(fault.status())
            }
        }
    }

    /// What a capability for a replica that is not here is told. That there is none, which a reader may take for zeros, is
    /// said only where there never was one: not to a capability that was given before this server registered, since what was
    /// here then may have gone with the power, and not where others may have gone on without us.
    pub(crate) fn why_missing(&self, cap: &Capability) -> Status {
        let left = self.departed.contains(cap.chunk)
            || self.fences.get(&cap.chunk).is_some_and(|&fence| fence > cap.version);
        if left && !planted!(GoneIsEmpty) {
            return Status::WrongChunkVersion;
        }
        if self.lease.was_given_since(cap.given()) { Status::NoChunk } else { Status::BadCapability }
    }

    /// What any capability has to fulfil.
    pub(crate) fn check_capability(&self, now: Micros, cap: &Capability) -> Result<(), Status> {
        if self.stopped {
            return Err(Status::NotServing);
        }
        if self.ended.contains_key(&cap.session) || self.lease.may_be_past(cap.expires, now) {
            return Err(Status::BadCapability);
        }
        let sealed = |key: &IssuedKey| key.id == cap.key && key.verifies(cap);
        if self.keys.iter().rev().any(sealed) { Ok(()) } else { Err(Status::BadCapability) }
    }
}

/// Whether the replica serves clients at `version`.
pub(crate) fn check_standing(replica: &Replica, version: ChunkVersion) -> Result<(), Status> {
    match replica.standing {
        Standing::Active if replica.version == version => Ok(()),
        Standing::Active if replica.version > version => Err(Status::WrongChunkVersion),
        // The master knows a newer config than we were told of; it is on its way.
        Standing::Active => Err(Status::Recovering),
        Standing::Fenced => Err(Status::Recovering),
        Standing::Removed => Err(Status::WrongChunkVersion),
        Standing::Unconfirmed | Standing::Unsure | Standing::Learner | Standing::Failed => {
            Err(Status::NotServing)
        }
    }
}

/// Reads that waited for writes that are done now.
pub(crate) fn wake_reads(replica: &mut Replica, out: &mut Vec<Effect>) {
    let Some(lead) = replica.lead.as_mut() else { return };
    let parked = std::mem::take(&mut lead.parked);
    for (call, blocks) in parked {
        if lead.is_written(&blocks) {
            lead.parked.push((call, blocks));
        } else {
            out.push(Effect::RetryRead { call });
        }
    }
}
