//! A client's WRITE at the primary (section 5): the checks, the op table, the place in the order. How it
//! reaches the members is in `primary`.

use bytes::Bytes;
use dfs_proto::chunk::{Capability, ForwardKind, ForwardMeta, Given, Member, WriteMeta};
use dfs_proto::ids::{BootId, ChunkId, ConfigNum, Seq};
use dfs_proto::note::FileNote;
use dfs_proto::planted;
use dfs_proto::status::Status;
use dfs_proto::units::Micros;

use crate::core::heat::Access;
use crate::core::io::{CallToken, DiskOp, Effect, ReplicaHeader, Reply};
use crate::core::lead::{FLIGHTS_MAX, Lead, Waiting};
use crate::core::ops::{Done, OpSeen};
use crate::core::read::check_standing;
use crate::core::replica::{Blocks, Replica, Standing};
use crate::core::window::WINDOW;
use crate::core::{Core, answer, charge, refuse};

/// Most numbers between the oldest write in flight and the newest. Half the window, so that a member never
/// forgets a number that may still come.
const SPAN_MAX: u64 = WINDOW / 2;

/// A write that may begin.
pub(crate) struct Beginning {
    pub(crate) meta: WriteMeta,
    pub(crate) payload: Bytes,
    pub(crate) blocks: Blocks,
    pub(crate) calls: Vec<CallToken>,
}

impl Core {
    pub(crate) fn client_write(
        &mut self,
        now: Micros,
        call: CallToken,
        meta: WriteMeta,
        payload: Bytes,
        out: &mut Vec<Effect>,
    ) {
        if let Err(status) = self.admit_write(now, &meta) {
            return self.refuse_write(now, call, meta.capability.chunk, status, out);
        }
        let chunk = meta.capability.chunk;
        let bytes = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        self.heat.note(now, chunk, Access::Write, bytes);
        let Some(replica) = self.replicas.get_mut(&chunk) else { return refuse(call, Status::NoChunk, out) };
        let seq = replica.applied.highest();
        let lead = replica.lead.get_or_insert_with(|| Box::new(Lead::starting_at(seq)));
        if let Some(calls) = lead.calls_of(meta.capability.session, meta.op) {
            calls.push(call);
            return;
        }
        match replica.ops.look(meta.capability.session, meta.op, meta.done) {
            OpSeen::New => {}
            OpSeen::Applied(Done { seq, size_epoch }) => {
                let cut = (size_epoch < replica.size_epoch).then_some(size_epoch);
                return answer(call, Reply::Written { chunk, seq, cut }, out);
            }
            OpSeen::Refused => return refuse(call, Status::Invalid, out),
        }
        let blocks = Blocks::of(&meta.ranges);
        let calls = vec![call];
        if lead.must_wait(&blocks) {
            if lead.queue.len() >= FLIGHTS_MAX {
                return refuse(call, Status::Overloaded, out);
            }
            lead.queue.push_back(Waiting::Write { calls, meta: Box::new(meta), payload, blocks });
        } else {
            self.begin_write(now, Beginning { meta, payload, blocks, calls }, out);
        }
    }

    /// Everything that entitles a client to write here (I6, L5), and a replica to write to.
    fn admit_write(&mut self, now: Micros, meta: &WriteMeta) -> Result<(), Status> {
        let cap = &meta.capability;
        if !self.lease.is_valid(now) {
            return Err(Status::NotServing);
        }
        self.check_capability(now, cap)?;
        if !cap.rights.write {
            return Err(Status::BadCapability);
        }
        if meta.ranges.last().is_none_or(|range| range.end() > self.chunk_size) {
            return Err(Status::Invalid);
        }
        let me = self.me().ok_or(Status::NotServing)?;
        if !meta.create.is_empty() {
            self.make_new(cap, &meta.create, meta.note.as_ref())?;
        }
        let replica = self.replicas.get(&cap.chunk).ok_or(Status::NoChunk)?;
        check_standing(replica, cap.version)?;
        if !replica.is_primary(me.server) {
            return Err(Status::Redirect);
        }
        if cap.config > replica.config {
            // A write must reach the members of the newest config (section 10).
            return Err(Status::Recovering);
        }
        check_epoch(replica, cap)?;
        self.check_writable(cap.chunk)?;
        // Holes are what a full disk is given its space back with.
        if meta.zeros { Ok(()) } else { self.check_space(replica.disk) }
    }

    /// Makes the replica of a new chunk. Its first write's capability is L5's confirmation: it names the
    /// members and their boots, so another incarnation makes nothing.
    fn make_new(
        &mut self,
        cap: &Capability,
        members: &[Member],
        note: Option<&FileNote>,
    ) -> Result<(), Status> {
        let config = NewChunk {
            chunk: cap.chunk,
            version: cap.version,
            config: cap.config,
            open_num: cap.open_num,
            size_epoch: cap.size_epoch,
            ino: cap.ino,
            index: cap.index,
            members,
            given: cap.given(),
            note,
        };
        self.make_replica(&config)
    }

    /// Makes a replica as a member of a config that a new chunk begins with, if there is none.
    pub(crate) fn make_replica(&mut self, new: &NewChunk<'_>) -> Result<(), Status> {
        let me = self.me().ok_or(Status::NotServing)?;
        if self.fences.get(&new.chunk).is_some_and(|&fence| fence > new.version) {
            return Err(Status::WrongChunkVersion);
        }
        if let Some(there) = self.replicas.get(&new.chunk)
            && (there.standing != Standing::Unconfirmed || there.made)
        {
            return Ok(());
        }
        if self.trashing.contains(&new.chunk) {
            return Err(Status::Overloaded);
        }
        // Others may have gone on without this server before it registered, and of a chunk that it has not the master
        // can't have told it.
        if !self.lease.was_given_since(new.given) {
            return Err(Status::BadCapability);
        }
        if !new.members.contains(&me) {
            return Err(Status::NotServing);
        }
        let disk = self.disk_for_new()?;
        let mut replica = Replica::empty(new.chunk, disk);
        replica.version = new.version;
        replica.config = new.config;
        replica.open_num = new.open_num;
        replica.size_epoch = new.size_epoch;
        replica.ino = new.ino;
        replica.index = new.index;
        replica.note = new.note.cloned().map(Box::new);
        replica.members = new.members.to_vec();
        replica.standing = Standing::Active;
        if replica.is_primary(me.server) {
            let mut lead = Lead::starting_at(Seq(0));
            lead.unmade = new.members.iter().skip(1).map(|member| member.server).collect();
            replica.lead = Some(Box::new(lead));
        }
        self.replicas.insert(new.chunk, replica);
        Ok(())
    }

    /// Gives a write its number and sends it on its way. What can have changed while it waited is checked
    /// again.
    pub(crate) fn begin_write(&mut self, now: Micros, write: Beginning, out: &mut Vec<Effect>) {
        let Beginning { meta, payload, blocks, calls } = write;
        let cap = meta.capability;
        let ready = self.check_capability(now, &cap).and_then(|()| self.check_room(&cap));
        if let Err(status) = ready {
            for call in calls {
                refuse(call, status, out);
            }
            return;
        }
        let Some(replica) = self.replicas.get_mut(&cap.chunk) else { return };
        replica.reopen(cap.open_num);
        let create = replica.due_header();
        charge(&mut self.disks, replica.disk, &payload);
        let Some(lead) = replica.lead.as_mut() else { return };
        lead.last = Seq(lead.last.0 + 1);
        let seq = lead.last;
        let forward = forward_of(meta, seq, replica);
        let op = disk_op(create, forward.clone(), payload.clone());
        self.launch(forward, payload, blocks, calls, op, out);
    }

    /// Whether the chunk still takes the write, and another number.
    fn check_room(&self, cap: &Capability) -> Result<(), Status> {
        let replica = self.replicas.get(&cap.chunk).ok_or(Status::NoChunk)?;
        check_epoch(replica, cap)?;
        self.check_writable(cap.chunk)?;
        let lead = replica.lead.as_ref().ok_or(Status::NotServing)?;
        let span = lead.flights.first_key_value().map_or(0, |(first, _)| lead.last.0 - first.0);
        if lead.flights.len() >= FLIGHTS_MAX || span >= SPAN_MAX { Err(Status::Overloaded) } else { Ok(()) }
    }
}

/// A config that a chunk begins with.
pub(crate) struct NewChunk<'a> {
    pub(crate) chunk: ChunkId,
    pub(crate) version: dfs_proto::ids::ChunkVersion,
    pub(crate) config: ConfigNum,
    pub(crate) open_num: dfs_proto::ids::OpenNum,
    pub(crate) size_epoch: dfs_proto::ids::SizeEpoch,
    pub(crate) ino: dfs_proto::ids::Ino,
    pub(crate) index: dfs_proto::units::ChunkIndex,
    pub(crate) members: &'a [Member],
    pub(crate) given: Given,
    pub(crate) note: Option<&'a FileNote>,
}

/// A write issued before the last truncation, or before the last close, is refused.
fn check_epoch(replica: &Replica, cap: &Capability) -> Result<(), Status> {
    if cap.size_epoch < replica.size_epoch && !planted!(OldEpochWrite) {
        return Err(Status::OldEpoch);
    }
    if replica.is_over(cap.open_num) {
        return Err(Status::BadCapability);
    }
    Ok(())
}

/// What the other members are sent of a write; receiver, `committed` and `create` are filled in for each.
fn forward_of(meta: WriteMeta, seq: Seq, replica: &Replica) -> ForwardMeta {
    let cap = meta.capability;
    ForwardMeta {
        kind: if meta.zeros { ForwardKind::Punch } else { ForwardKind::Write },
        chunk: cap.chunk,
        session: cap.session,
        ino: replica.ino,
        index: replica.index,
        op: meta.op,
        done: meta.done,
        seq,
        committed: Seq(0),
        to: BootId(0),
        version: replica.version,
        config: replica.config,
        open_num: replica.open_num,
        size_epoch: replica.size_epoch,
        ranges: meta.ranges,
        crcs: meta.crcs,
        create: Vec::new(),
        note: meta.note,
        given: cap.given(),
    }
}

/// What a write, or a zeroing, does on a member's disk.
pub(crate) fn disk_op(create: Option<ReplicaHeader>, meta: ForwardMeta, payload: Bytes) -> DiskOp {
    let ForwardMeta { kind, chunk, size_epoch, ranges, crcs, .. } = meta;
    match (kind, ranges.first()) {
        (ForwardKind::Zero, Some(&range)) => DiskOp::Zero { chunk, create, range, size_epoch },
        (ForwardKind::Punch, _) => DiskOp::Punch { chunk, create, ranges },
        _ => DiskOp::Write { chunk, create, ranges, crcs, payload },
    }
}
