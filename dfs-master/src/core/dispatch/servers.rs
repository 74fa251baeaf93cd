//! Chunk servers: registration, inventory, heartbeats, and what else they say.
//!
//! A server that has seen a newer history puts the master on hold (I20): better to stand still than to
//! rule with old metadata.

use dfs_proto::chunk::Member;
use dfs_proto::control::{
    ActiveConfig, GracefulStop, Heartbeat, HeartbeatReply, Inventory, LearnerReady, Register, Registered,
    ReplicaInfo, ReportTrouble, ServerEvent,
};
use dfs_proto::ids::{BootId, ChunkId, KeyId, LogIndex, Seq, ServerId, ServerNum};
use dfs_proto::key::{IssuedKey, KEY_TURN_BITS};
use dfs_proto::meta::Done;
use dfs_proto::planted;
use dfs_proto::request::Op;
use dfs_proto::status::Status;
use dfs_proto::units::MasterMs;

use super::{Then, decode};
use crate::core::Core;
use crate::core::chunks::{ChunkMeta, Members};
use crate::core::command::{Answer, Command};
use crate::core::reply::{Caller, low_half};
use crate::core::servers::live;
use crate::core::servers::{Server, ServerInfo};

/// A registration whose record is under way.
#[derive(Clone, Debug)]
pub(in crate::core) struct Registration {
    pub(super) caller: Caller,
    server: ServerId,
    boot: BootId,
    boot_is_new: bool,
    disks: Vec<dfs_proto::control::DiskReport>,
}

/// A learner's promotion whose record is under way.
#[derive(Clone, Copy, Debug)]
pub(in crate::core) struct Promotion {
    pub(super) caller: Caller,
    request: LearnerReady,
}

impl Core {
    pub(super) fn server_request(&mut self, caller: Caller, body: &[u8]) -> Result<(), Status> {
        if caller.op == Op::Register {
            return self.register(caller, decode(body)?);
        }
        let server = self.links.get(&caller.conn).and_then(|link| link.server).ok_or(Status::NotServing)?;
        match caller.op {
            Op::Heartbeat => self.heartbeat(caller, server, decode(body)?),
            Op::Inventory => self.inventory(caller, server, &decode(body)?),
            Op::ReportTrouble => {
                let ReportTrouble { reports, failed } = decode(body)?;
                self.suspected(&reports);
                failed.iter().for_each(|chunk| self.lost_at(*chunk, server));
                self.reply(caller, &Done {});
                Ok(())
            }
            Op::LearnerReady => self.learner_ready(caller, server, decode(body)?),
            Op::GracefulStop => {
                let GracefulStop { boot } = decode(body)?;
                if let Some(live) = self.soft.servers.get_mut(server) {
                    log::info!("{server} stops and gives its lease back");
                    live.bury(boot);
                    self.soft.scan.wake();
                }
                self.reply(caller, &Done {});
                Ok(())
            }
            _ => Err(Status::UnknownOp),
        }
    }

    fn register(&mut self, caller: Caller, request: Register) -> Result<(), Status> {
        if request.cluster.is_some_and(|cluster| cluster != self.config.cluster) {
            return Err(Status::WrongCluster);
        }
        if let Some(why) = self.is_behind(&request) {
            self.hold.ahead(&request, why);
            return Err(Status::Behind);
        }
        let is_of = |then: &Then| matches!(then, Then::Register(other) if other.server == request.server);
        if self.pending.values().any(|pending| is_of(&pending.then)) {
            // Which of two processes came after the other is only told from what the log says by then.
            return Err(Status::Overloaded);
        }
        let known = self.state.servers.by_id(request.server);
        if let Some(server) = known
            && self.soft.servers.get(server.num).is_some_and(|live| live.dead_boots.contains(&request.boot))
        {
            return Err(Status::AlreadyRegistered);
        }
        let boot_is_new = known.is_none_or(|server| server.info.boot != request.boot);
        if known.is_some_and(|server| boot_is_new && self.is_outlived(&request, server)) {
            return Err(Status::AlreadyRegistered);
        }
        if let Some(server) = known
            && boot_is_new
            && request.hb_ctr <= server.info.hb_ctr
        {
            // All its open chunks are recovered anyway, as after any restart.
            log::warn!("{}'s start counter went back: its disks are of an older image", request.name);
        }
        let Register { server: id, boot, os_boot, hb_ctr, name, version, tcp, unix, labels, disks, .. } =
            request;
        let info = ServerInfo { id, boot, os_boot, hb_ctr, name, tcp, unix, labels, version };
        let registration = Registration { caller, server: id, boot, boot_is_new, disks };
        match known.filter(|server| server.info == info).map(|server| server.num) {
            Some(num) => self.server_logged(registration, &Answer::Server(num), self.state.applied),
            None => {
                self.propose(None, Command::RegisterServer(info), Then::Register(Box::new(registration)))?;
            }
        }
        Ok(())
    }

    /// Whether a process with a higher start counter is there: the message is a late one of a dead process, not
    /// of disks that were restored from an older image while the newer process is down.
    fn is_outlived(&self, request: &Register, known: &Server) -> bool {
        let lease_ms = self.config.server_lease_ms;
        let here = |live: &live::LiveServer| {
            live.boot == Some(known.info.boot)
                && live.conn.is_some()
                && self.now.mono.ms_since(live.heard) < lease_ms
        };
        request.hb_ctr < known.info.hb_ctr && self.soft.servers.get(known.num).is_some_and(here)
    }

    /// The newest key of a server. The term is in its number, so that no two masters' keys share one.
    fn key_of(&self, server: ServerNum) -> IssuedKey {
        let turn = self.now.mono.ms_since(self.started) / self.config.key_life_ms.max(1);
        let number = (self.term().0 << KEY_TURN_BITS) + turn;
        IssuedKey::derive(&self.config.secret, server, KeyId(low_half(number)))
    }

    /// Why this log is older than what the server has seen.
    fn is_behind(&self, request: &Register) -> Option<String> {
        let (generation, term, last) = (self.generation(), self.term(), self.raft.last());
        if request.generation < generation {
            // What an older generation's master told it was given up.
            None
        } else if request.generation > generation {
            Some(format!("is of generation {}, this master of {generation}", request.generation))
        } else if request.max_term > term {
            Some(format!("has seen term {}, this master is at {term}", request.max_term))
        } else if request.max_meta_index > last {
            Some(format!("has seen record {}, this log ends at {last}", request.max_meta_index))
        } else if let Some(term) =
            self.log.known_term_at(request.max_meta_index).filter(|at| *at > request.max_term)
        {
            // A start adds records, so a log that lost a few is soon as long as it was.
            Some(format!(
                "has seen record {} in term {}, this log has another of term {term} there",
                request.max_meta_index, request.max_term
            ))
        } else {
            let strange = |chunk: &ChunkId| chunk.generation() >= generation && !self.state.knows_id(*chunk);
            let unknown = request.max_chunk.filter(strange)?;
            Some(format!("has chunk {unknown}, which this log never gave out"))
        }
    }

    /// The registration is in the log; answers once it is on the disk.
    pub(super) fn server_logged(&mut self, registration: Registration, answer: &Answer, index: LogIndex) {
        let Registration { caller, boot, boot_is_new, disks, .. } = registration;
        let Answer::Server(num) = *answer else { return self.fail(caller, Status::TooBig) };
        let Some(link) = self.links.get_mut(&caller.conn) else { return };
        link.server = Some(num);
        let key = self.key_of(num);
        let live = self.soft.servers.expect(num);
        live.key = Some(key);
        let same = live.boot == Some(boot);
        live.registered(caller.conn, boot, boot_is_new);
        live.heard = self.now.mono;
        live.disks = disks;
        self.soft.servers.push_soon(num);
        self.soft.scan.wake();
        if !same {
            self.end_copies_to(num);
        }
        let registered = Registered {
            num,
            cluster: self.config.cluster,
            generation: self.generation(),
            term: self.term(),
            chunk_size: self.state.ns.chunk_size(),
            lease_ms: self.config.server_lease_ms,
            heartbeat_ms: self.config.heartbeat_ms,
            key,
            given_since: MasterMs(self.now.mono.ms_since(self.started) + self.config.session_lease_ms),
        };
        let after = self.after_durable(index);
        self.reply_at(caller, &registered, index, after);
    }

    fn heartbeat(&mut self, caller: Caller, server: ServerNum, request: Heartbeat) -> Result<(), Status> {
        let (now, clock, term) = (self.now.mono, self.clock(), self.term());
        let (lease_ms, durable) = (self.config.server_lease_ms, self.log.durable);
        let key = self.key_of(server);
        let live = self.soft.servers.get_mut(server).ok_or(Status::NotServing)?;
        let granted = live.boot == Some(request.boot) && !live.dead_boots.contains(&request.boot);
        let mut reply = HeartbeatReply {
            t_send: request.t_send,
            granted,
            term,
            now: clock,
            durable,
            events: Vec::new(),
            key: None,
        };
        let mut index = LogIndex(0);
        if granted {
            let first = !live.spoke || live.standing(now) != live::Standing::Up;
            live.conn = Some(caller.conn);
            live.lease = live.lease.renewed(now, lease_ms);
            (live.heard, live.spoke) = (now, true);
            (live.load, live.disks, live.scrub) = (request.load, request.disks, request.scrub);
            live.copy = request.copy;
            if request.key == key.id {
                live.key = Some(key);
            } else {
                reply.key = Some(key);
            }
            live.events.applied(request.applied);
            if let Some(batch) = live.events.after(request.applied) {
                (reply.events, index) = (batch.events, batch.index);
            }
            if first {
                self.soft.scan.wake();
            }
        }
        self.reply_heartbeat(caller, &reply, index);
        if granted {
            self.soft.load.heard(server, request.hot, now);
            request.lost.iter().for_each(|chunk| self.lost_at(*chunk, server));
        }
        Ok(())
    }

    fn inventory(&mut self, caller: Caller, server: ServerNum, request: &Inventory) -> Result<(), Status> {
        let live = self.soft.servers.get(server).filter(|live| live.boot == Some(request.boot));
        live.ok_or(Status::NotServing)?;
        for replica in &request.replicas {
            self.inventoried(server, replica);
        }
        if request.last {
            if let Some(live) = self.soft.servers.get_mut(server) {
                live.inventory = live::Inventory::Complete;
            }
            self.soft.scan.wake();
        }
        self.reply(caller, &Done {});
        Ok(())
    }

    fn inventoried(&mut self, server: ServerNum, replica: &ReplicaInfo) {
        let chunk = replica.chunk;
        let Some(meta) = self.state.chunks.get(chunk) else {
            return self.inventoried_unknown(server, chunk);
        };
        self.soft.seen.insert(chunk.0, ());
        if let Some(at) = meta.members.iter().position(|member| member == server) {
            // One that was fenced has lost the event that said where to go on from: only a recovery knows that.
            // Of a config that this log has lost: a server goes back to none, so that only a recovery is above both.
            let lost = replica.config > meta.config;
            let current = meta.is_active() && replica.version == meta.version && !replica.fenced && !lost;
            let unchanged = !meta.open
                && !replica.learner
                && replica.open_num == meta.open_num
                && replica.closed == Some(meta.digest);
            // Whoever was chosen to leave is to serve nothing more, whatever it said.
            let stays = meta.leaving != Some(server);
            if current && stays && (unchanged || self.held_all_along(chunk, at, server)) {
                let new = !self.held_all_along(chunk, at, server);
                self.confirm(chunk, &meta, at, server);
                if new {
                    self.tell_new_boot(chunk, &meta, server);
                }
                // A primary that was away may have given up what it was filling; the scan asks it again.
                if at == 0 && !meta.learners.is_empty() {
                    self.soft.repair.forget(chunk);
                }
            }
        } else if !meta.learners.contains(&server) {
            let (version, config) = (meta.version, meta.config);
            let event = ServerEvent::NotMember { chunk, version, config };
            self.soft.servers.tell(server, self.state.applied, event);
            self.soft.gc.stale(server, chunk, self.state.applied, self.now.mono);
        }
    }

    fn confirm(&mut self, chunk: ChunkId, meta: &ChunkMeta, at: usize, server: ServerNum) {
        let Some(live) = self.soft.servers.get(server) else { return };
        self.soft.confirmed.set(chunk, at, live.incarnation);
        let config = self.active_config(chunk, meta, Vec::new(), Seq(0));
        self.soft.servers.tell(server, self.state.applied, ServerEvent::Active(config));
    }

    /// The other members are told which process of `server` is in the config now: a message of theirs names it.
    fn tell_new_boot(&mut self, chunk: ChunkId, meta: &ChunkMeta, server: ServerNum) {
        let config = self.active_config(chunk, meta, Vec::new(), Seq(0));
        self.tell_confirmed(self.state.applied, &config, &meta.members, Some(server));
    }

    /// Tells the members that are confirmed, except one, of their configuration. To any other process the event would
    /// be its confirmation (L5): what it has, only an inventory or a recovery finds out.
    pub(in crate::core) fn tell_confirmed(
        &mut self,
        index: LogIndex,
        config: &ActiveConfig,
        members: &Members,
        except: Option<ServerNum>,
    ) {
        for (at, server) in members.iter().enumerate().filter(|(_, server)| Some(*server) != except) {
            let now = self.soft.servers.get(server).map(|live| live.incarnation);
            if now.is_some() && self.soft.confirmed.get(config.chunk, at) == now {
                self.soft.servers.tell(server, index, ServerEvent::Active(config.clone()));
            }
        }
    }

    /// A replica of a chunk that is not in the map.
    fn inventoried_unknown(&mut self, server: ServerNum, chunk: ChunkId) {
        if self.state.tombstones.get(chunk).is_some() || planted!(DeleteFromInventory) {
            self.soft.gc.stale(server, chunk, self.state.applied, self.now.mono);
        } else {
            // D4: kept where it is until an operator decides.
            self.hold.left_alone(server, chunk);
            if chunk.generation() < self.generation() || self.is_of_leaders_before(chunk) {
                return;
            }
            self.hold.set(format!("{server} has chunk {chunk}, which this log never gave out"));
        }
    }

    /// An id of a range that a leader before this one reserved: it may have been given out by a record that a power
    /// cut took back. One of this leader's own range that is nowhere was given out by a log that is lost, which
    /// reserved the same range.
    fn is_of_leaders_before(&self, chunk: ChunkId) -> bool {
        self.state.knows_id(chunk) && !self.soft.ids.is_ours(chunk.counter())
    }

    /// A configuration as its members are told.
    pub(in crate::core) fn active_config(
        &self,
        chunk: ChunkId,
        meta: &ChunkMeta,
        ops: Vec<dfs_proto::control::OpRecord>,
        seq: Seq,
    ) -> ActiveConfig {
        // One that has not registered with this leader is the process that the log names, or none.
        let logged = |server| self.state.servers.get(server).map(|server| server.info.boot);
        let live = |server| self.soft.servers.get(server).and_then(|live| live.boot);
        let boot = |server| live(server).or_else(|| logged(server)).unwrap_or_default();
        ActiveConfig {
            chunk,
            version: meta.version,
            config: meta.config,
            open_num: meta.open_num,
            size_epoch: self.state.ns.getattr(meta.ino).map(|attr| attr.size_epoch).unwrap_or_default(),
            members: meta.members.iter().map(|server| Member { server, boot: boot(server) }).collect(),
            ino: meta.ino,
            index: meta.index,
            ops,
            seq,
            closed: self.must_reopen(chunk, meta),
            lossy: meta.lossy,
        }
    }

    fn learner_ready(
        &mut self,
        caller: Caller,
        server: ServerNum,
        request: LearnerReady,
    ) -> Result<(), Status> {
        let LearnerReady { chunk, version, config, learner, ready } = request;
        if self.is_promoted(&request) {
            // Said again: the first answer may be on its way still.
            self.taken_in(caller, self.state.applied);
            return Ok(());
        }
        let meta = self.state.chunks.get(chunk).ok_or(Status::NoChunk)?;
        let current = meta.is_active() && meta.version == version && meta.config == config;
        let boot = self.soft.servers.get(learner.server).and_then(|live| live.boot);
        if !current || meta.members.primary() != Some(server) || !meta.learners.contains(&learner.server) {
            return Err(Status::NoChunk);
        }
        if !ready || boot != Some(learner.boot) || !self.soft.servers.is_up(learner.server, self.now.mono) {
            self.drop_learner(chunk, learner.server);
            if ready {
                return Err(Status::NoChunk);
            }
            self.reply(caller, &Done {});
            return Ok(());
        }
        let command = Command::CommitLearner { chunk, version, config, server: learner.server };
        self.propose(None, command, Then::Promote(Promotion { caller, request }))?;
        Ok(())
    }

    /// Whether the learner is a member by now: its primary must not go on without it.
    fn is_promoted(&self, request: &LearnerReady) -> bool {
        let meta = self.state.chunks.get(request.chunk);
        meta.is_some_and(|meta| {
            meta.version == request.version
                && meta.config > request.config
                && meta.members.contains(request.learner.server)
        })
    }

    pub(super) fn promoted(&mut self, promotion: &Promotion, answer: &Answer, index: LogIndex) {
        match answer {
            Answer::Failed(status) if !self.is_promoted(&promotion.request) => {
                self.fail(promotion.caller, *status)
            }
            _ => self.taken_in(promotion.caller, index),
        }
    }

    fn taken_in(&mut self, caller: Caller, index: LogIndex) {
        let after = self.after_durable(index);
        self.reply_at(caller, &Done {}, index, after);
    }
}
