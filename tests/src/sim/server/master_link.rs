//! A chunk server's connection to the master: registration, inventory, heartbeats, reports.

use std::collections::BTreeMap;

use dfs_chunkserver::core::io::Input;
use dfs_proto::control::{
    ChunkHeat, CopyReport, DiskReport, Heartbeat, HeartbeatReply, INVENTORY_PART, Inventory, LearnerReady,
    Register, Registered, ServerLoad,
};
use dfs_proto::frame::Outgoing;
use dfs_proto::status::Status;
use dfs_proto::units::Micros;

use super::super::fabric::{CallEnd, CallRef, ConnRef, DialRef, Fabric, Node};
use super::{Running, Todo, encoded, max_chunk};

const DEADLINE_US: u64 = 2_000_000;
const HOT_MAX: usize = 16;
/// See [`Running::hottest`].
const READ_MILLI: u64 = 300;
const HOT_MILLI: u64 = 40_000;
/// How long the same servers are idle.
const IDLE_TURN_US: u64 = 3_000_000;

/// What is under way to the master.
#[derive(Debug, Default)]
pub(super) struct MasterLink {
    dial: Option<DialRef>,
    conn: Option<ConnRef>,
    calls: BTreeMap<CallRef, MasterCall>,
    registered: Option<Registered>,
    /// A timer for the next heartbeat runs.
    beating: bool,
}

#[derive(Debug)]
enum MasterCall {
    Register,
    Heartbeat,
    Learner(LearnerReady),
    /// The answer says nothing.
    Told,
}

impl Running {
    pub(super) fn dial_master(&mut self, fabric: &mut Fabric) {
        if self.master.conn.is_none() && self.master.dial.is_none() {
            self.master.dial = Some(fabric.dial(self.who.clone(), Node::Master));
        }
    }

    pub(super) fn master_dialled(
        &mut self,
        fabric: &mut Fabric,
        dial: DialRef,
        conn: Option<ConnRef>,
    ) -> bool {
        if self.master.dial != Some(dial) {
            return false;
        }
        self.master.dial = None;
        self.master.conn = conn;
        match conn {
            Some(_) => self.register(fabric),
            None => self.redial(fabric),
        }
        true
    }

    fn redial(&mut self, fabric: &mut Fabric) {
        let delay = fabric.between(50_000, 300_000);
        self.later(fabric, delay, Todo::Redial);
    }

    pub(super) fn master_closed(&mut self, fabric: &mut Fabric, conn: ConnRef) {
        if self.master.conn != Some(conn) {
            return;
        }
        self.master.conn = None;
        self.master.registered = None;
        self.step(fabric, Input::MasterLost);
        self.redial(fabric);
    }

    /// Gives the connection up, and dials again.
    fn hang_up(&mut self, fabric: &mut Fabric) {
        if let Some(conn) = self.master.conn {
            fabric.close(self.node, conn);
            self.master_closed(fabric, conn);
        }
    }

    fn call_master(&mut self, fabric: &mut Fabric, out: Outgoing, what: MasterCall) {
        if let Some(conn) = self.master.conn {
            let call = fabric.call(self.node, conn, out, DEADLINE_US);
            self.master.calls.insert(call, what);
        }
    }

    pub(super) fn tell_master(&mut self, fabric: &mut Fabric, out: Outgoing) {
        self.call_master(fabric, out, MasterCall::Told);
    }

    pub(super) fn learner_ready(&mut self, fabric: &mut Fabric, ready: LearnerReady) {
        self.call_master(fabric, encoded(&ready), MasterCall::Learner(ready));
    }

    pub(super) fn register(&mut self, fabric: &mut Fabric) {
        self.master.registered = None;
        let (generation, max_term, max_meta_index) = self.core.high_water();
        let register = Register {
            cluster: Some(self.cluster),
            generation,
            server: self.server,
            boot: self.boot,
            os_boot: self.context.os_boot,
            hb_ctr: self.store.hb_ctr(),
            name: self.who.name.clone(),
            version: "sim".into(),
            tcp: super::super::address_of(self.node),
            unix: None,
            labels: Vec::new(),
            disks: vec![self.disk_report(fabric)],
            max_term,
            max_meta_index,
            max_chunk: max_chunk(&self.core),
        };
        self.call_master(fabric, encoded(&register), MasterCall::Register);
    }

    fn disk_report(&self, fabric: &Fabric) -> DiskReport {
        let space = self.store.space().ok();
        let told = fabric.disks_of.map(|bytes| bytes * if self.node_is_odd() { 2 } else { 1 });
        DiskReport {
            disk: self.disk_id,
            path: "sim".into(),
            total_bytes: told.or(space.as_ref().map(|space| space.total)).unwrap_or(0),
            free_bytes: told.map(|bytes| bytes / 2).or(space.as_ref().map(|space| space.free)).unwrap_or(0),
            replicas: self.store.count(),
            failed: self.store.suspect().then(|| "a sync failed".to_owned()),
        }
    }

    fn node_is_odd(&self) -> bool {
        matches!(self.node, Node::Server(place) if place % 2 == 1)
    }

    pub(super) fn master_answered(&mut self, fabric: &mut Fabric, call: CallRef, end: CallEnd) {
        let Some(what) = self.master.calls.remove(&call) else { return };
        let reply = match end {
            CallEnd::Reply(frame) => frame,
            CallEnd::Deadline | CallEnd::Unreachable { .. } | CallEnd::Closed => {
                if matches!(what, MasterCall::Register | MasterCall::Heartbeat) {
                    self.hang_up(fabric);
                }
                return;
            }
        };
        let status = reply.header.status;
        match what {
            MasterCall::Register if status == Status::Ok => {
                if let Ok(body) = reply.decode::<Registered>() {
                    self.registered(fabric, body);
                }
            }
            MasterCall::Heartbeat if status == Status::Ok => {
                if let Ok(body) = reply.decode::<HeartbeatReply>() {
                    let lease_ms =
                        self.master.registered.as_ref().map_or(0, |registered| registered.lease_ms);
                    self.oracle.heartbeat(&body, lease_ms);
                    self.step(fabric, Input::Heartbeat(body));
                }
            }
            MasterCall::Register | MasterCall::Heartbeat => self.hang_up(fabric),
            MasterCall::Learner(report) => self.step(fabric, Input::LearnerJudged { report, status }),
            MasterCall::Told => {}
        }
    }

    fn registered(&mut self, fabric: &mut Fabric, body: Registered) {
        fabric.name_server(body.num, self.node);
        self.who.server = Some(body.num);
        self.master.registered = Some(body.clone());
        self.oracle.registered(body.term);
        self.step(fabric, Input::Registered(body));
        let replicas = self.core.inventory();
        let parts = replicas.chunks(INVENTORY_PART).count().max(1);
        for part in 0..parts {
            let from = part * INVENTORY_PART;
            let to = replicas.len().min(from + INVENTORY_PART);
            let inventory =
                Inventory { boot: self.boot, replicas: replicas[from..to].to_vec(), last: part + 1 == parts };
            self.tell_master(fabric, encoded(&inventory));
        }
        if !self.master.beating {
            self.master.beating = true;
            self.later(fabric, 0, Todo::Heartbeat);
        }
    }

    /// Nothing is busy in a simulation. Where load is to be followed all are but two, for whom it is the turn to be idle.
    fn load(&self, fabric: &Fabric) -> ServerLoad {
        let Node::Server(place) = self.node else { return ServerLoad::default() };
        if !fabric.heat {
            return ServerLoad::default();
        }
        let turn = fabric.now_us() / IDLE_TURN_US;
        let idle = (turn + u64::from(place)) % 4 < 2;
        let utilisation_permille = if idle { 100 } else { 900 };
        ServerLoad { utilisation_permille, capacity_bytes_per_s: 100_000_000, ..ServerLoad::default() }
    }

    /// A few programs read too little, and by fits and starts, for anything to be hot: what is read now and then counts as
    /// read a lot all the time.
    fn hottest(&mut self, fabric: &Fabric, now: Micros) -> Vec<ChunkHeat> {
        let mut hot = self.core.hottest(now, HOT_MAX);
        if fabric.heat {
            for chunk in &mut hot {
                chunk.read_milli = if chunk.read_milli > READ_MILLI { HOT_MILLI } else { 0 };
            }
        }
        hot
    }

    pub(super) fn heartbeat(&mut self, fabric: &mut Fabric) {
        let Some(registered) = &self.master.registered else {
            self.master.beating = false;
            return;
        };
        let again = registered.heartbeat_ms * 1000;
        let t_send = self.now(fabric);
        let heartbeat = Heartbeat {
            boot: self.boot,
            t_send,
            applied: self.core.applied_events(),
            load: self.load(fabric),
            disks: vec![self.disk_report(fabric)],
            hot: self.hottest(fabric, t_send),
            lost: self.core.lost(t_send),
            key: self.core.newest_key(),
            scrub: self.core.scrub_report(t_send),
            // A driver's part: the simulated one keeps no copy.
            copy: CopyReport::default(),
        };
        self.call_master(fabric, encoded(&heartbeat), MasterCall::Heartbeat);
        self.later(fabric, again, Todo::Heartbeat);
    }
}
