//! What the master says of itself and of configs: registration, lease, events (L5). Events are applied in
//! order, each once, and before the lease that came with them is used.

use dfs_proto::control::{ActiveConfig, Apply, COMMAND_BATCH, HeartbeatReply, Registered, ServerEvent};
use dfs_proto::ids::{ChunkId, ChunkVersion, ConfigNum, SessionId};
use dfs_proto::status::Status;
use dfs_proto::units::Micros;

use crate::core::io::{CallToken, DiskIx, DiskOp, Effect, ReplicaHeader, Reply};
use crate::core::replica::{Replica, Standing};
use crate::core::timers::Timer;
use crate::core::work::DiskWork;
use crate::core::{Core, answer, refuse};

/// How long an ended session is remembered, and a replica that was removed: longer than the longest lease that a
/// session can have (the master's `--session-lease-ms`), after which no capability of before is valid anyway.
const CAPABILITIES_OVER_US: u64 = 120_000_000;
/// The durable index moves with every heartbeat; the disks hear of it this often.
const HIGH_WATER_MS: u64 = 10_000;

impl Core {
    /// A master took this server in. It may be another than before, and others may have gone on without us:
    /// every membership waits to be confirmed again.
    pub(crate) fn registered(&mut self, now: Micros, body: &Registered, out: &mut Vec<Effect>) {
        if self.stopped || self.join_generation(body.generation).is_err() || self.obey(body.term).is_err() {
            return;
        }
        self.num = Some(body.num);
        self.chunk_size = body.chunk_size.bytes();
        self.lease.register(body);
        self.take_key(body.key);
        self.events = 0;
        for replica in self.replicas.values_mut() {
            if replica.standing == Standing::Active {
                replica.standing = Standing::Unsure;
            }
        }
        self.keep_high_water(out);
        self.forget_what_is_over(now);
        self.start_scrubs(now);
    }

    pub(crate) fn heartbeat_reply(&mut self, now: Micros, body: &HeartbeatReply, out: &mut Vec<Effect>) {
        if self.stopped || self.obey(body.term).is_err() {
            return;
        }
        if !body.granted || !self.lease.is_registered_at(body.term) {
            self.lease.drop_grant();
            out.push(Effect::Reregister);
            return;
        }
        body.key.into_iter().for_each(|key| self.take_key(key));
        for (number, event) in &body.events {
            self.take_event(now, *number, event, out);
        }
        // A full batch may leave some for the next reply, and the lease must not be used before all are
        // applied.
        if body.events.len() < COMMAND_BATCH {
            self.lease.granted(body);
        }
        self.lost.retain(|_, sent| sent.is_none_or(|sent| sent > body.t_send));
        if body.durable > self.max_index {
            if self.kept.2 == self.max_index {
                self.timers.add(now.plus_ms(HIGH_WATER_MS), Timer::HighWater);
            }
            self.max_index = body.durable;
        }
        self.forget_what_is_over(now);
    }

    /// Events as they happen. One that does not follow on the last waits for the heartbeat, which brings all.
    pub(crate) fn apply_pushed(&mut self, now: Micros, call: CallToken, body: &Apply, out: &mut Vec<Effect>) {
        if let Err(status) = self.obey(body.term) {
            return refuse(call, status, out);
        }
        if self.stopped || !self.lease.is_registered_at(body.term) {
            return refuse(call, Status::NotServing, out);
        }
        for (number, event) in &body.events {
            if *number > self.events + 1 {
                break;
            }
            self.take_event(now, *number, event, out);
        }
        answer(call, Reply::Applied { applied: self.events }, out);
    }

    fn take_event(&mut self, now: Micros, number: u64, event: &ServerEvent, out: &mut Vec<Effect>) {
        if number <= self.events {
            return;
        }
        self.events = number;
        match event {
            ServerEvent::Active(config) => self.become_active(now, config, out),
            ServerEvent::NotMember { chunk, version, config } => {
                self.become_removed(*chunk, *version, *config, out);
            }
            ServerEvent::SessionEnded { session } => self.end_session(now, *session),
        }
    }

    fn become_active(&mut self, now: Micros, config: &ActiveConfig, out: &mut Vec<Effect>) {
        let Some(me) = self.me() else { return };
        let chunk = config.chunk;
        if !config.members.contains(&me) {
            return self.become_removed(chunk, config.version, config.config, out);
        }
        if self.fences.get(&chunk).is_some_and(|&fence| fence > config.version) {
            return;
        }
        let disk = self.disk_for_new().unwrap_or(DiskIx(0));
        let replica = self.replicas.entry(chunk).or_insert_with(|| Replica::empty(chunk, disk));
        let older = (config.version, config.config) < (replica.version, replica.config)
            || (config.version == replica.version && config.config < replica.withdrawn);
        if older || replica.standing == Standing::Failed {
            return;
        }
        let led = replica.is_primary(me.server);
        if config.version > replica.version || (led && config.members.first() != Some(&me)) {
            self.step_down(chunk, Status::Recovering, out);
        }
        self.stop_pulling(chunk, Status::WrongRole, out);
        let Some(replica) = self.replicas.get_mut(&chunk) else { return };
        let before = replica.header();
        replica.adopt(config);
        let header = replica.header();
        // How many members a config had is not known of one that was found on the disk.
        let before = ReplicaHeader {
            members: if before.members == 0 { header.members } else { before.members },
            ..before
        };
        // A server with a million closed replicas confirms them at its start, and their headers are right.
        if replica.made && (header.open || header != before) {
            replica.header_due = false;
            self.work.disk(replica.disk, DiskWork::Nothing, DiskOp::Header(header), out);
        }
        for session in replica.ops.sessions() {
            self.session_chunks.entry(session).or_default().insert(chunk);
        }
        if let Some(lead) = replica.lead.as_mut()
            && lead.fill.as_ref().is_some_and(|fill| config.members.contains(&fill.learner))
        {
            lead.fill = None;
        }
        self.fences.remove(&chunk);
        self.members_changed(now, chunk, out);
        self.advance(now, chunk, out);
    }

    fn become_removed(
        &mut self,
        chunk: ChunkId,
        version: ChunkVersion,
        config: ConfigNum,
        out: &mut Vec<Effect>,
    ) {
        let Some(replica) = self.replicas.get_mut(&chunk) else {
            // A first write of an older version may be on its way still, and would make one.
            let fence = self.fences.entry(chunk).or_insert(version);
            *fence = version.max(*fence);
            return;
        };
        if (version, config) < (replica.version, replica.config) || replica.standing == Standing::Failed {
            return;
        }
        replica.standing = Standing::Removed;
        self.step_down(chunk, Status::WrongChunkVersion, out);
    }

    /// From here on no write of the session begins. Those under way end in their order: whoever reads waits
    /// for them.
    fn end_session(&mut self, now: Micros, session: SessionId) {
        self.ended.insert(session, now);
        for chunk in self.session_chunks.remove(&session).unwrap_or_default() {
            if let Some(replica) = self.replicas.get_mut(&chunk) {
                replica.ops.forget(session);
            }
        }
    }

    fn forget_what_is_over(&mut self, now: Micros) {
        let lives = |at: Micros| now.0.saturating_sub(at.0) < CAPABILITIES_OVER_US;
        self.ended.retain(|_, at| lives(*at));
        self.departed.forget(lives);
    }
}
