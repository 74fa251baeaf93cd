//! Mending damaged blocks (R5): the primary, under its lock of the blocks, takes a member's copy for its own, or
//! gives its own to a member that asked. What is replaced is damaged at that moment, its bytes are kept as
//! evidence first, and no write gets lost: the disk replaces only blocks that do not match, a mending that is
//! older than a write of the block is refused, and a write that met damage is applied again afterwards.
//!
//! A write whose blocks are damaged at a member holds its lock and waits for the mending, so that one goes by it:
//! where it is not applied yet it will be, and applied twice it is the same.

use std::collections::BTreeSet;

use bytes::Bytes;
use dfs_proto::checksum::LOST;
use dfs_proto::chunk::{AskMend, ForwardKind, ForwardMeta, MEND_RANGES_MAX, Member, Range};
use dfs_proto::control::ReportTrouble;
use dfs_proto::ids::{ChunkId, ChunkVersion, Seq, ServerNum};
use dfs_proto::meta::{SuspectReport, Suspicion};
use dfs_proto::status::Status;
use dfs_proto::units::{BLOCK_SIZE, IO_MAX, Micros};

use crate::core::Core;
use crate::core::fill::opening;
use crate::core::io::{DiskDone, DiskFault, DiskOp, Effect, MendDone, PeerAnswer};
use crate::core::lead::{Lead, Local};
use crate::core::replica::{Blocks, Standing};
use crate::core::timers::Timer;
use crate::core::work::{AppliedOp, DiskWork, FlightId, PeerWork};
use crate::core::write::disk_op;

/// First pause between two tries, and the longest.
const AGAIN_MIN_MS: u64 = 500;
const AGAIN_MAX_MS: u64 = 60_000;
/// Asks of members that a primary keeps for one chunk; who finds no room asks again.
const ASKS_MAX: usize = 64;
/// Blocks that one report to the master names.
const REPORTED_MAX: usize = 16;

/// A mending under way; its blocks are locked.
#[derive(Debug)]
pub(crate) struct Mend {
    pub(crate) blocks: Blocks,
    range: Range,
    /// The last write that what is read may include.
    seq: Seq,
    whose: Whose,
}

/// Whose blocks are mended.
#[derive(Debug)]
enum Whose {
    Own(Source),
    Of(Member),
}

/// Where the own blocks are taken from.
#[derive(Debug)]
struct Source {
    from: Member,
    tried: BTreeSet<ServerNum>,
    /// Has another good block than the own checksum stands for.
    differs: Option<Member>,
    /// Every member was asked, and that one's block is taken.
    insist: bool,
    /// Some member did not answer.
    silent: bool,
}

impl Core {
    /// Takes note of a block that a disk refused.
    pub(crate) fn fault_found(
        &mut self,
        now: Micros,
        chunk: ChunkId,
        fault: DiskFault,
        out: &mut Vec<Effect>,
    ) {
        if let DiskFault::Corrupt { block } = fault {
            let Some(replica) = self.replicas.get(&chunk) else { return };
            let pending = replica.pending.iter().map(|(seq, _)| *seq).max().unwrap_or_default();
            let seq = replica.applied.highest().max(pending);
            self.damage_found(now, chunk, &[block], seq, out);
        }
    }

    /// Takes note of damaged blocks, tells the master, and has them mended soon.
    pub(crate) fn damage_found(
        &mut self,
        now: Micros,
        chunk: ChunkId,
        blocks: &[u32],
        seq: Seq,
        out: &mut Vec<Effect>,
    ) {
        let Some(replica) = self.replicas.get(&chunk) else { return };
        let fresh = self.damage.add(chunk, blocks, (replica.version, seq));
        if fresh.is_empty() {
            return;
        }
        log::error!("chunk {chunk}: {} blocks are damaged, the first is {}", fresh.len(), fresh[0]);
        if let Some(me) = self.me() {
            let report = |&block: &u32| {
                let what = Suspicion::Corrupt { block };
                SuspectReport { server: me.server, boot: me.boot, chunk: Some(chunk), what }
            };
            let reports = fresh.iter().take(REPORTED_MAX).map(report).collect();
            out.push(Effect::Trouble(ReportTrouble { reports, failed: Vec::new() }));
        }
        self.mend_in(now, chunk, 0);
    }

    pub(crate) fn mend_in(&mut self, now: Micros, chunk: ChunkId, pause_ms: u64) {
        if self.damage.wants_timer(chunk) {
            self.timers.add(now.plus_ms(pause_ms), Timer::Mend { chunk });
        }
    }

    /// Tries again later, ever later while nothing helps and nobody waits.
    fn mend_again(&mut self, now: Micros, chunk: ChunkId) {
        let lead = self.replicas.get(&chunk).and_then(|replica| replica.lead.as_ref());
        let waits =
            lead.is_some_and(|lead| lead.flights.values().any(|flight| flight.local == Local::Damaged));
        let tries = self.damage.tried(chunk).min(16);
        let longest = if waits { AGAIN_MIN_MS } else { AGAIN_MAX_MS };
        self.mend_in(now, chunk, AGAIN_MIN_MS.saturating_mul(1 << tries).min(longest));
    }

    /// The timer: does what can be done for the damaged blocks of a chunk.
    pub(crate) fn mend(&mut self, now: Micros, chunk: ChunkId, out: &mut Vec<Effect>) {
        self.damage.timer_due(chunk);
        let Some(replica) = self.replicas.get(&chunk) else { return self.damage.forget(chunk) };
        match replica.standing {
            Standing::Active | Standing::Unsure => {}
            // Compared and filled as a whole, or on its way out.
            Standing::Learner | Standing::Removed | Standing::Failed => return self.damage.forget(chunk),
            Standing::Unconfirmed | Standing::Fenced => return self.mend_again(now, chunk),
        }
        let Some(me) = self.me().filter(|_| self.damage.is_hurt(chunk)) else { return };
        match replica.members.first() {
            Some(first) if first.server != me.server => {
                let mut ranges = self.damage.runs(chunk, true);
                ranges.truncate(MEND_RANGES_MAX);
                let ask = AskMend { chunk, version: replica.version, member: me, ranges };
                out.push(Effect::AskMend { to: *first, ask });
                self.mend_again(now, chunk);
            }
            _ => {
                self.start_mending(now, chunk, true, out);
                self.mend_again(now, chunk);
            }
        }
    }

    /// A member has damaged blocks.
    pub(crate) fn asked_to_mend(&mut self, now: Micros, ask: &AskMend, out: &mut Vec<Effect>) {
        let Some(me) = self.me().filter(|_| !self.stopped) else { return };
        let chunk_size = self.chunk_size;
        let Some(replica) = self.replicas.get_mut(&ask.chunk) else { return };
        let fits = replica.version == ask.version
            && replica.takes_part()
            && replica.is_primary(me.server)
            && replica.members.contains(&ask.member);
        if !fits || ask.member == me {
            return;
        }
        let seq = replica.applied.highest();
        let lead = replica.lead.get_or_insert_with(|| Box::new(Lead::starting_at(seq)));
        for range in ask.ranges.iter().filter(|range| is_whole(**range, chunk_size)) {
            if lead.asks.len() < ASKS_MAX && !lead.asks.contains(&(ask.member, *range)) {
                lead.asks.push((ask.member, *range));
            }
        }
        self.start_mending(now, ask.chunk, false, out);
    }

    /// Begins the next mending of a chunk, if there is one and its blocks are free. The own blocks first: others
    /// are mended from them.
    pub(crate) fn start_mending(&mut self, now: Micros, chunk: ChunkId, again: bool, out: &mut Vec<Effect>) {
        let runs = self.damage.runs(chunk, again);
        let Some(me) = self.me() else { return };
        let Some(replica) = self.replicas.get_mut(&chunk) else { return };
        let asked = replica.lead.as_ref().is_some_and(|lead| !lead.asks.is_empty());
        if (runs.is_empty() && !asked) || !replica.is_primary(me.server) || !replica.takes_part() {
            return;
        }
        let others: Vec<Member> = replica.members.iter().copied().filter(|member| *member != me).collect();
        let seq = replica.applied.highest();
        let lead = replica.lead.get_or_insert_with(|| Box::new(Lead::starting_at(seq)));
        if lead.mend.is_some() {
            return;
        }
        let own = runs.iter().find_map(|run| lead.free_part(*run, None));
        let next = match (own, others.first()) {
            (Some(range), Some(&from)) => {
                let tried = BTreeSet::new();
                let source = Source { from, tried, differs: None, insist: false, silent: false };
                Some((range, Whose::Own(source)))
            }
            (Some(range), None) => {
                self.nobody_has(chunk, range);
                return self.after_mending(now, chunk, range, out);
            }
            (None, _) => {
                let found = lead.asks.iter().enumerate().find_map(|(at, (member, range))| {
                    lead.free_part(*range, Some(member.server)).map(|range| (at, range))
                });
                found.map(|(at, range)| (range, Whose::Of(lead.asks.remove(at).0)))
            }
        };
        let Some((range, whose)) = next else { return };
        let own = matches!(whose, Whose::Own(_));
        lead.mend = Some(Mend { blocks: Blocks::of(&[range]), range, seq: lead.last, whose });
        if own {
            return self.fetch(chunk, out);
        }
        let work = DiskWork::MendRead { chunk, version: replica.version };
        self.work.disk(replica.disk, work, DiskOp::Stock { chunk, range }, out);
    }

    fn mend_of(&mut self, chunk: ChunkId, version: ChunkVersion) -> Option<&mut Mend> {
        let replica = self.replicas.get_mut(&chunk).filter(|replica| replica.version == version)?;
        replica.lead.as_mut()?.mend.as_mut()
    }

    /// Asks the source for its copy.
    fn fetch(&mut self, chunk: ChunkId, out: &mut Vec<Effect>) {
        let Some(replica) = self.replicas.get(&chunk) else { return };
        let Some(mend) = replica.lead.as_ref().and_then(|lead| lead.mend.as_ref()) else { return };
        let Whose::Own(source) = &mend.whose else { return };
        let meta =
            ForwardMeta { kind: ForwardKind::Fetch, ranges: vec![mend.range], ..opening(replica, None) };
        let work = PeerWork::Fetch { chunk, version: replica.version };
        self.work.forward(source.from, work, meta, Bytes::new(), out);
    }

    /// The source answered, or did not.
    pub(crate) fn fetched(
        &mut self,
        now: Micros,
        chunk: ChunkId,
        version: ChunkVersion,
        reply: PeerAnswer,
        out: &mut Vec<Effect>,
    ) {
        let Some(mend) = self.mend_of(chunk, version) else { return };
        let (range, Whose::Own(source)) = (mend.range, &mut mend.whose) else { return };
        match reply {
            PeerAnswer::Stock { entries, data } if entries.len() == (range.len / BLOCK_SIZE) as usize => {
                let insist = source.insist;
                let op = DiskOp::Mend { chunk, offset: range.offset, entries, data, insist };
                let Some(replica) = self.replicas.get_mut(&chunk) else { return };
                replica.disk_ops += 1;
                self.work.disk(replica.disk, DiskWork::MendOwn { chunk, version, range }, op, out);
            }
            _ => {
                source.silent = true;
                self.next_source(now, chunk, out);
            }
        }
    }

    /// The own disk is done with what a source had.
    pub(crate) fn own_mended(
        &mut self,
        now: Micros,
        (chunk, version, range): (ChunkId, ChunkVersion, Range),
        done: &DiskDone,
        out: &mut Vec<Effect>,
    ) {
        self.disk_op_over(chunk);
        let differs = self.note_mended(chunk, range, done, out);
        if let Some(mend) = self.mend_of(chunk, version)
            && let Whose::Own(source) = &mut mend.whose
        {
            match differs {
                Some(true) => source.differs = Some(source.from),
                Some(false) => {}
                None => source.silent = true,
            }
            self.next_source(now, chunk, out);
        }
        self.drained(chunk, out);
    }

    /// Takes a disk's word on a mending: whether other blocks were given than expected. `None` when it failed.
    pub(crate) fn note_mended(
        &mut self,
        chunk: ChunkId,
        range: Range,
        done: &DiskDone,
        out: &mut Vec<Effect>,
    ) -> Option<bool> {
        match done {
            DiskDone::Mended(MendDone { mended, bad, differ }) => {
                let left = bad.iter().chain(differ).copied().collect();
                self.damage.mended(chunk, range, *mended, &left);
                Some(!differ.is_empty())
            }
            DiskDone::Failed(fault @ (DiskFault::Io | DiskFault::Missing)) => {
                self.fail_replica(chunk, *fault, out);
                None
            }
            _ => None,
        }
    }

    /// What is still damaged is asked of the next member; after the last one the mending ends.
    fn next_source(&mut self, now: Micros, chunk: ChunkId, out: &mut Vec<Effect>) {
        let Some(me) = self.me() else { return };
        let Some(replica) = self.replicas.get_mut(&chunk) else { return };
        let others: Vec<Member> = replica.members.iter().copied().filter(|member| *member != me).collect();
        let Some(mend) = replica.lead.as_mut().and_then(|lead| lead.mend.as_mut()) else { return };
        let (range, Whose::Own(source)) = (mend.range, &mut mend.whose) else { return };
        let healed = self.damage.among(chunk, &mend.blocks).is_none();
        source.tried.insert(source.from.server);
        let next = others.iter().find(|member| !source.tried.contains(&member.server));
        if let (false, Some(next)) = (healed || source.insist, next) {
            source.from = *next;
            return self.fetch(chunk, out);
        }
        if let (false, false, Some(other)) = (healed, source.insist, source.differs) {
            source.from = other;
            source.insist = true;
            return self.fetch(chunk, out);
        }
        match (healed, source.silent) {
            (true, _) => {}
            (false, true) => self.damage.put_off(chunk, range),
            (false, false) => self.nobody_has(chunk, range),
        }
        self.end_mending(now, chunk, out);
    }

    fn nobody_has(&mut self, chunk: ChunkId, range: Range) {
        let news = self.damage.give_up(chunk, range);
        if news > 0 {
            log::error!(
                "chunk {chunk}: no member has a good copy of {news} blocks from {} on",
                range.offset / BLOCK_SIZE
            );
        }
    }

    /// The own blocks are read, for a member.
    pub(crate) fn read_to_mend(
        &mut self,
        now: Micros,
        chunk: ChunkId,
        version: ChunkVersion,
        done: DiskDone,
        out: &mut Vec<Effect>,
    ) {
        let Some(mend) = self.mend_of(chunk, version) else { return };
        let (range, seq, Whose::Of(member)) = (mend.range, mend.seq, &mend.whose) else { return };
        let member = *member;
        let DiskDone::Stock { entries, data } = done else { return self.end_mending(now, chunk, out) };
        self.damage_found(now, chunk, &damaged_of(range, &entries), seq, out);
        let Some(replica) = self.replicas.get(&chunk) else { return };
        if entries.iter().all(|entry| *entry == LOST) {
            return self.end_mending(now, chunk, out);
        }
        let kind = ForwardKind::Mend;
        let meta = ForwardMeta { kind, ranges: vec![range], crcs: entries, seq, ..opening(replica, None) };
        self.work.forward(member, PeerWork::Mend { chunk, version }, meta, data, out);
    }

    /// A member has taken what it was given, or has not: it asks again.
    pub(crate) fn mend_answered(
        &mut self,
        now: Micros,
        chunk: ChunkId,
        version: ChunkVersion,
        out: &mut Vec<Effect>,
    ) {
        if let Some(Mend { whose: Whose::Of(_), .. }) = self.mend_of(chunk, version) {
            self.end_mending(now, chunk, out);
        }
    }

    fn end_mending(&mut self, now: Micros, chunk: ChunkId, out: &mut Vec<Effect>) {
        let lead = self.replicas.get_mut(&chunk).and_then(|replica| replica.lead.as_mut());
        if let Some(mend) = lead.and_then(|lead| lead.mend.take()) {
            self.after_mending(now, chunk, mend.range, out);
        }
    }

    /// Writes that met the damage go on, or fail for it; then whoever waited.
    fn after_mending(&mut self, now: Micros, chunk: ChunkId, range: Range, out: &mut Vec<Effect>) {
        let blocks = Blocks::of(&[range]);
        let lead = self.replicas.get_mut(&chunk).and_then(|replica| replica.lead.as_mut());
        let waiting: Vec<Seq> = lead.map_or_else(Vec::new, |lead| {
            let met = lead
                .flights
                .iter()
                .filter(|(_, flight)| flight.local == Local::Damaged && flight.blocks.overlaps(&blocks));
            met.map(|(seq, _)| *seq).collect()
        });
        for seq in waiting {
            self.write_again(now, chunk, seq, out);
        }
        self.mend_again(now, chunk);
        self.advance(now, chunk, out);
    }

    fn write_again(&mut self, now: Micros, chunk: ChunkId, seq: Seq, out: &mut Vec<Effect>) {
        let Some(replica) = self.replicas.get_mut(&chunk) else { return };
        let (disk, version, create) = (replica.disk, replica.version, replica.due_header());
        let lead = replica.lead.as_mut();
        let Some(flight) = lead.and_then(|lead| lead.flights.get_mut(&seq)) else { return };
        match self.damage.among(chunk, &flight.blocks) {
            Some((block, true)) => {
                flight.local = Local::Refused(DiskFault::Corrupt { block });
                return self.settle(now, chunk, seq, out);
            }
            Some((_, false)) => return,
            None => flight.local = Local::Running,
        }
        let op = disk_op(create, flight.meta.clone(), flight.payload.clone());
        let applied = AppliedOp::of(&flight.meta);
        let work = DiskWork::Flight { id: FlightId { chunk, version, seq }, op: applied };
        replica.disk_ops += 1;
        self.work.disk(disk, work, op, out);
    }
}

impl Lead {
    /// The range, or its first block that can be mended now, for the primary itself or for another member: where
    /// no write is under way but those that wait for it, and nothing is being copied.
    fn free_part(&self, range: Range, of: Option<ServerNum>) -> Option<Range> {
        let blocks = (range.offset..range.end()).step_by(BLOCK_SIZE as usize);
        let parts = blocks.map(|offset| Range { offset, len: BLOCK_SIZE });
        std::iter::once(range).chain(parts).find(|part| self.may_mend(&Blocks::of(&[*part]), of))
    }

    fn may_mend(&self, blocks: &Blocks, of: Option<ServerNum>) -> bool {
        let copied = self.fill.as_ref().is_some_and(|fill| fill.locks(blocks));
        let mut met = self.flights.values().filter(|flight| flight.blocks.overlaps(blocks));
        !copied
            && met.all(|flight| match of {
                None => flight.local == Local::Damaged,
                Some(server) => flight
                    .acks
                    .iter()
                    .any(|ack| ack.member.server == server && ack.refused() == Some(Status::Corrupt)),
            })
    }
}

/// Whole blocks of a chunk, no more than one message carries.
pub(crate) fn is_whole(range: Range, chunk_size: u32) -> bool {
    let aligned = range.offset.is_multiple_of(BLOCK_SIZE) && range.len.is_multiple_of(BLOCK_SIZE);
    aligned && range.len > 0 && range.len <= IO_MAX && range.end() <= chunk_size
}

/// The blocks that are damaged where this was read.
pub(crate) fn damaged_of(range: Range, entries: &[u32]) -> Vec<u32> {
    let blocks = (range.offset / BLOCK_SIZE..).zip(entries);
    blocks.filter(|(_, entry)| **entry == LOST).map(|(block, _)| block).collect()
}
