//! A chunk server that does in memory what it is told.

use std::collections::BTreeMap;

use bytes::Bytes;
use dfs_master::core::ConnId;
use dfs_proto::chunk::Member;
use dfs_proto::control::{
    AddLearner, Applied, Apply, ChunkHeat, Close, CloseAnswer, CloseChunk, Closed, CopyReport, Delete,
    Deleted, DiskReport, Examine, Examined, Fence, FenceAnswer, Fenced, HeldReplica, HeldState, Holdings,
    Look, Reconcile, Reconciled, Register, ReplicaClass, ReplicaInfo, ReplicaState, ScrubReport, ServerEvent,
    ServerLoad, Settle, StartScrub, Withdraw, WithdrawChunk, Withdrawn, Zero,
};
use dfs_proto::ids::{
    BootId, ChunkId, ChunkVersion, ConfigNum, DiskId, Generation, Ino, LogIndex, OpenNum, OsBootId, Seq,
    ServerId, ServerNum, SizeEpoch, Term,
};
use dfs_proto::key::IssuedKey;
use dfs_proto::meta::Done;
use dfs_proto::request::Op;
use dfs_proto::status::Status;
use dfs_proto::units::ChunkIndex;
use serde::Serialize;
use serde::de::DeserializeOwned;

#[derive(Clone, Debug)]
pub(crate) struct Replica {
    pub(crate) version: ChunkVersion,
    pub(crate) config: ConfigNum,
    /// Confirmed as a member for this boot.
    pub(crate) active: bool,
    /// Its disk failed it.
    pub(crate) failed: bool,
    pub(crate) class: ReplicaClass,
    pub(crate) applied: Seq,
    pub(crate) synced: Seq,
    pub(crate) bad_blocks: u32,
    /// How it was reconciled, each time.
    pub(crate) reconciled: Vec<Settle>,
    pub(crate) digest: u128,
    pub(crate) open_num: OpenNum,
    /// Refuses writes of that opening, and its header says what it has.
    pub(crate) closed: bool,
    pub(crate) zeroed: Option<(u32, SizeEpoch)>,
    pub(crate) members: Vec<Member>,
}

#[derive(Debug)]
pub(crate) struct FakeServer {
    pub(crate) num: ServerNum,
    pub(crate) id: ServerId,
    pub(crate) boot: BootId,
    pub(crate) conn: ConnId,
    pub(crate) alive: bool,
    /// Lives, and no message gets through.
    pub(crate) cut_off: bool,
    /// It serves until then.
    pub(crate) lease_until_ms: u64,
    pub(crate) applied: u64,
    pub(crate) replicas: BTreeMap<ChunkId, Replica>,
    pub(crate) fences: BTreeMap<ChunkId, ChunkVersion>,
    pub(crate) ended_sessions: u32,
    pub(crate) deleted: Vec<ChunkId>,
    pub(crate) learners_asked: Vec<AddLearner>,
    /// Answers FENCE with an error this many times.
    pub(crate) deaf: u32,
    /// Answers no WITHDRAW.
    pub(crate) deaf_to_withdraw: bool,
    /// CLOSE messages that it got.
    pub(crate) closes: u32,
    pub(crate) starts: u64,
    pub(crate) keys: Vec<IssuedKey>,
    pub(crate) scrub: ScrubReport,
    pub(crate) copy: CopyReport,
    /// How often it was told to scrub.
    pub(crate) scrubs_asked: u32,
    pub(crate) max_meta_index: LogIndex,
    pub(crate) max_term: Term,
    /// Of its last registration.
    pub(crate) generation: Generation,
    /// Its disk takes no writes.
    pub(crate) read_only: bool,
    pub(crate) total_bytes: u64,
    pub(crate) labels: Vec<(String, String)>,
    /// As its heartbeats say.
    pub(crate) load: ServerLoad,
    pub(crate) hot: Vec<ChunkHeat>,
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> T {
    rmp_serde::from_slice(body).unwrap()
}

pub(crate) fn encode<T: Serialize>(message: &T) -> Bytes {
    Bytes::from(rmp_serde::to_vec_named(message).unwrap())
}

impl FakeServer {
    pub(crate) fn new(id: u128, conn: ConnId) -> FakeServer {
        FakeServer {
            num: ServerNum(0),
            id: ServerId(id),
            boot: BootId(u64::try_from(id).unwrap() * 1000),
            conn,
            alive: true,
            cut_off: false,
            lease_until_ms: 0,
            applied: 0,
            replicas: BTreeMap::new(),
            fences: BTreeMap::new(),
            ended_sessions: 0,
            deleted: Vec::new(),
            learners_asked: Vec::new(),
            deaf: 0,
            deaf_to_withdraw: false,
            closes: 0,
            starts: 1,
            keys: Vec::new(),
            scrub: ScrubReport::default(),
            copy: CopyReport::default(),
            scrubs_asked: 0,
            max_meta_index: LogIndex(0),
            max_term: Term(0),
            generation: Generation(1),
            read_only: false,
            total_bytes: 1 << 40,
            labels: Vec::new(),
            load: ServerLoad::default(),
            hot: Vec::new(),
        }
    }

    /// The process dies and starts again; `reboot` takes its kernel along.
    pub(crate) fn restart(&mut self, reboot: bool) {
        self.boot = BootId(self.boot.0 + 1);
        self.starts += 1;
        self.applied = 0;
        self.lease_until_ms = 0;
        self.cut_off = false;
        for replica in self.replicas.values_mut() {
            replica.active = false;
            replica.class = if reboot { ReplicaClass::Rebooted } else { ReplicaClass::Restarted };
        }
    }

    pub(crate) fn register(&self) -> Register {
        Register {
            cluster: None,
            generation: self.generation,
            server: self.id,
            boot: self.boot,
            os_boot: OsBootId(1),
            hb_ctr: self.starts,
            name: format!("server{}", self.id.0),
            version: "1".into(),
            tcp: format!("10.0.0.{}:7000", self.id.0),
            unix: None,
            labels: self.labels.clone(),
            disks: self.disks(),
            max_term: self.max_term,
            max_meta_index: self.max_meta_index,
            max_chunk: self.replicas.keys().max().copied(),
        }
    }

    pub(crate) fn disks(&self) -> Vec<DiskReport> {
        vec![DiskReport {
            disk: DiskId(self.id.0),
            path: "/d".into(),
            total_bytes: self.total_bytes,
            free_bytes: self.total_bytes / 2,
            replicas: self.replicas.len() as u64,
            failed: self.read_only.then(|| "a sync failed".to_owned()),
        }]
    }

    pub(crate) fn inventory(&self) -> Vec<ReplicaInfo> {
        let info = |(chunk, replica): (&ChunkId, &Replica)| ReplicaInfo {
            chunk: *chunk,
            version: replica.version,
            config: replica.config,
            open_num: replica.open_num,
            disk: DiskId(self.id.0),
            closed: replica.closed.then_some(replica.digest),
            learner: false,
            fenced: self.fences.contains_key(chunk),
            ino: Ino(0),
            index: ChunkIndex(0),
        };
        self.replicas.iter().map(info).collect()
    }

    /// A client's write reached this member: it has the chunk from now on.
    pub(crate) fn write(
        &mut self,
        chunk: ChunkId,
        version: ChunkVersion,
        config: ConfigNum,
        applied: u64,
        digest: u128,
    ) {
        self.replicas.insert(
            chunk,
            Replica {
                version,
                config,
                active: true,
                failed: false,
                class: ReplicaClass::Intact,
                applied: Seq(applied),
                synced: Seq(0),
                bad_blocks: 0,
                reconciled: Vec::new(),
                digest,
                open_num: OpenNum(1),
                closed: false,
                zeroed: None,
                members: Vec::new(),
            },
        );
    }

    /// Answers a call of the master.
    pub(crate) fn serve(&mut self, op: Op, body: &[u8]) -> Result<Bytes, Status> {
        Ok(match op {
            Op::Apply => {
                let apply: Apply = decode(body);
                for (number, event) in apply.events {
                    if number == self.applied + 1 {
                        self.take(number, event);
                    }
                }
                encode(&Applied { applied: self.applied })
            }
            Op::Fence => {
                if self.deaf > 0 {
                    self.deaf -= 1;
                    return Err(Status::Deadline);
                }
                let fence: Fence = decode(body);
                let answers =
                    fence.chunks.iter().map(|asked| self.fence(asked.chunk, asked.version)).collect();
                encode(&Fenced { answers })
            }
            Op::Withdraw if self.deaf_to_withdraw => return Err(Status::Deadline),
            Op::Withdraw => encode(&self.withdraw(&decode(body))),
            Op::Reconcile => {
                let request: Reconcile = decode(body);
                let replica = self.replicas.get_mut(&request.chunk).ok_or(Status::NoChunk)?;
                replica.reconciled.push(request.settle);
                let settles = request.settle != Settle::Keep;
                let torn_resolved = if settles { std::mem::take(&mut replica.bad_blocks) } else { 0 };
                replica.digest += u128::from(settles);
                encode(&Reconciled { digest: replica.digest, torn_resolved })
            }
            Op::AddLearner => {
                let asked: AddLearner = decode(body);
                self.replicas.get(&asked.chunk).filter(|r| r.active).ok_or(Status::NoChunk)?;
                self.learners_asked.push(asked);
                encode(&Done {})
            }
            Op::Close => self.close(&decode(body)),
            Op::Zero => {
                let zero: Zero = decode(body);
                let replica =
                    self.replicas.get_mut(&zero.chunk).filter(|r| r.active).ok_or(Status::NoChunk)?;
                replica.zeroed = Some((zero.offset, zero.size_epoch));
                encode(&Done {})
            }
            Op::StartScrub => {
                let StartScrub { .. } = decode(body);
                self.scrubs_asked += 1;
                encode(&Done {})
            }
            Op::Look => {
                let look: Look = decode(body);
                encode(&self.look(look.from))
            }
            Op::Examine => {
                let examine: Examine = decode(body);
                encode(&self.examine(examine.chunk))
            }
            Op::Delete => {
                let delete: Delete = decode(body);
                encode(&Deleted { results: self.delete(&delete) })
            }
            other => panic!("the master called {other:?}"),
        })
    }

    fn close(&mut self, close: &Close) -> Bytes {
        self.closes += 1;
        let answer = |asked: &CloseChunk| match self.replicas.get_mut(&asked.chunk) {
            Some(replica) if replica.active && replica.version == asked.version => {
                (replica.open_num, replica.closed) = (asked.open_num, true);
                CloseAnswer::Closed { digest: replica.digest, seq: replica.applied }
            }
            Some(_) | None => CloseAnswer::Refused(Status::NoChunk),
        };
        encode(&Closed { answers: close.chunks.iter().map(answer).collect() })
    }

    fn delete(&mut self, delete: &Delete) -> Vec<Status> {
        let mut results = Vec::new();
        for order in &delete.chunks {
            assert!(order.tombstone <= delete.checkpoint, "D1: {order:?}");
            let keeps = self.replicas.get(&order.chunk).is_some_and(|replica| {
                order.up_to.is_some_and(|up_to| (replica.version, replica.config) > up_to)
            });
            results.push(if keeps { Status::WrongChunkVersion } else { Status::Ok });
            if !keeps && self.replicas.remove(&order.chunk).is_some() {
                self.deleted.push(order.chunk);
            }
        }
        results
    }

    fn examine(&self, chunk: ChunkId) -> Examined {
        let replica = self.replicas.get(&chunk);
        let bad = replica.map_or(0, |replica| replica.bad_blocks);
        Examined {
            replica: replica.map(|replica| held(chunk, replica)),
            class: replica.map_or(ReplicaClass::Rebooted, |replica| replica.class),
            applied: replica.map_or(Seq(0), |replica| replica.applied),
            synced: replica.map_or(Seq(0), |replica| replica.synced),
            good_blocks: 1,
            bad: if bad == 0 { Vec::new() } else { vec![(2, bad)] },
        }
    }

    /// Two at a time, so that a look has parts.
    fn look(&self, from: ChunkId) -> Holdings {
        let mut list = self.replicas.range(from..);
        let replicas = list.by_ref().take(2).map(|(chunk, replica)| held(*chunk, replica)).collect();
        Holdings { replicas, next: list.next().map(|(chunk, _)| *chunk) }
    }

    pub(crate) fn take(&mut self, number: u64, event: ServerEvent) {
        self.applied = number;
        match event {
            ServerEvent::Active(config) => {
                if !config.members.contains(&Member { server: self.num, boot: self.boot }) {
                    return;
                }
                let replica = self.replicas.entry(config.chunk).or_insert_with(|| Replica {
                    version: config.version,
                    config: config.config,
                    active: true,
                    failed: false,
                    class: ReplicaClass::Intact,
                    applied: Seq(0),
                    synced: Seq(0),
                    bad_blocks: 0,
                    reconciled: Vec::new(),
                    digest: 0,
                    open_num: OpenNum(1),
                    closed: false,
                    zeroed: None,
                    members: Vec::new(),
                });
                if (replica.version, replica.config) > (config.version, config.config) {
                    return;
                }
                (replica.version, replica.config) = (config.version, config.config);
                replica.active = true;
                replica.class = ReplicaClass::Intact;
                (replica.open_num, replica.closed) = (config.open_num, config.closed);
                replica.members = config.members;
                self.fences.remove(&config.chunk);
            }
            ServerEvent::NotMember { chunk, .. } => {
                if let Some(replica) = self.replicas.get_mut(&chunk) {
                    replica.active = false;
                }
            }
            ServerEvent::SessionEnded { .. } => self.ended_sessions += 1,
        }
    }

    fn withdraw(&mut self, withdraw: &Withdraw) -> Withdrawn {
        let leave = |asked: &WithdrawChunk| match self.replicas.get_mut(&asked.chunk) {
            Some(replica) => {
                replica.active = false;
                Status::Ok
            }
            None => Status::NoChunk,
        };
        Withdrawn { results: withdraw.chunks.iter().map(leave).collect() }
    }

    fn fence(&mut self, chunk: ChunkId, version: ChunkVersion) -> FenceAnswer {
        self.fences.insert(chunk, version);
        let Some(replica) = self.replicas.get_mut(&chunk) else { return FenceAnswer::Missing };
        replica.active = false;
        if replica.failed {
            return FenceAnswer::Refused(Status::DiskFailed);
        }
        FenceAnswer::Holds(ReplicaState {
            class: replica.class,
            version: replica.version,
            applied: replica.applied,
            synced: replica.synced,
            good_blocks: 1,
            bad_blocks: replica.bad_blocks,
            digest: replica.digest,
            ops: Vec::new(),
        })
    }
}

fn held(chunk: ChunkId, replica: &Replica) -> HeldReplica {
    HeldReplica {
        chunk,
        version: replica.version,
        config: replica.config,
        learner: false,
        ino: Ino(0),
        index: ChunkIndex(0),
        state: HeldState::Present,
    }
}
