//! The connection to the master, for as long as the process lives: dial, register, tell what is here, then a
//! heartbeat each second, and reports in between. Whatever breaks begins again from the dial.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dfs_daemon::notify;
use dfs_proto::conn::{CallError, Conn, ConnError, Hello, PeerAddr, Role};
use dfs_proto::control::{
    GracefulStop, Heartbeat, INVENTORY_PART, Inventory, LearnerReady, Register, Registered, ReplicaInfo,
    ServerLoad,
};
use dfs_proto::ids::ClusterId;
use dfs_proto::meta::GetServers;
use dfs_proto::status::Status;
use dfs_proto::units::Micros;
use tokio::sync::{mpsc, watch};

use crate::clock;
use crate::config::Config;
use crate::copy::Said;
use crate::core::io::Input;
use crate::dispatch::FromMaster;
use crate::load::{Around, At};
use crate::server::{Report, Server};
use crate::startup::{Ids, disk_ix, disk_report, master_addr, public_addr};

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// A control request's deadline of one try.
const CALL_LIMIT: Duration = Duration::from_secs(5);
/// A heartbeat that is not answered by then would grant little; the next one grants more.
const BEAT_LIMIT: Duration = Duration::from_secs(2);
/// First and longest pause between tries to reach the master.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);
/// Heartbeats between two looks at the table of servers when nothing asks for it.
const SERVERS_EVERY: u32 = 10;
/// Busiest chunks named in a heartbeat.
const HOT_MAX: usize = 64;

/// What the master has to be told, and how to reach it.
pub(crate) struct Link {
    pub(crate) server: Arc<Server>,
    pub(crate) config: Config,
    pub(crate) ids: Ids,
    pub(crate) cluster: ClusterId,
    /// Where this server listens.
    pub(crate) addr: PeerAddr,
    /// Turns true once it is registered and leased.
    pub(crate) ready: watch::Sender<bool>,
    /// The connection that stands.
    pub(crate) conn: watch::Sender<Option<Conn>>,
    pub(crate) cores: u64,
    pub(crate) copy: Said,
}

impl Link {
    /// Serves the master for ever.
    pub(crate) async fn run(self, mut reports: mpsc::Receiver<Report>) {
        let mut pause = RETRY_MIN;
        let mut told = String::new();
        loop {
            match self.connect().await {
                Ok(conn) => {
                    told.clear();
                    let error = self.serve(&conn, &mut reports, &mut pause).await;
                    log::warn!("the master: {error}; connecting again");
                    notify::status(&format!("the connection to the master broke: {error}; connecting again"));
                    self.conn.send_replace(None);
                    self.server.input(Input::MasterLost);
                    conn.close();
                }
                // Once, and again when it is for another reason.
                Err(error) if told == error.to_string() => log::debug!("{error}"),
                Err(error) => {
                    told = error.to_string();
                    log::warn!("no connection to the master: {told}; trying on");
                    notify::status(&format!("no connection to the master: {told}; trying on"));
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    async fn connect(&self) -> Result<Conn, ConnError> {
        let addr = master_addr(&self.config.master).await?;
        let handler = Arc::new(FromMaster(Arc::clone(&self.server)));
        let (conn, _welcome) = Conn::connect(&addr, self.hello(), handler, CONNECT_LIMIT).await?;
        Ok(conn)
    }

    fn hello(&self) -> Hello {
        let mut hello = Hello::new(Role::ChunkServer, self.config.name.clone(), Some(self.cluster));
        hello.server = self.server.with_core(|core| core.server_num());
        hello.boot = Some(self.ids.boot);
        hello
    }

    /// Until the connection is of no more use.
    async fn serve(
        &self,
        conn: &Conn,
        reports: &mut mpsc::Receiver<Report>,
        pause: &mut Duration,
    ) -> CallError {
        loop {
            let registered = match self.register(conn).await {
                Ok(registered) => registered,
                Err(error) => return error,
            };
            *pause = RETRY_MIN;
            self.conn.send_replace(Some(conn.clone()));
            if let Err(error) = self.beat_until_refused(conn, &registered, reports).await {
                return error;
            }
            log::info!("the master wants a new registration");
            tokio::time::sleep(RETRY_MIN).await;
        }
    }

    async fn register(&self, conn: &Conn) -> Result<Registered, CallError> {
        self.server.input(Input::MasterLost);
        self.server.reregister.store(false, Ordering::Relaxed);
        let (generation, term, index) = self.server.with_core(|core| core.high_water());
        let inventory = self.server.with_core(|core| core.inventory());
        let register = Register {
            cluster: Some(self.cluster),
            generation,
            server: self.ids.server,
            boot: self.ids.boot,
            os_boot: self.ids.os_boot,
            hb_ctr: self.server.disks.iter().map(|disk| disk.store.hb_ctr()).max().unwrap_or(0),
            name: self.config.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            tcp: public_addr(&self.config, &self.addr),
            unix: self.config.unix.as_ref().map(|path| path.display().to_string()),
            labels: self.config.labels.clone(),
            disks: self.disk_reports(),
            max_term: term,
            max_meta_index: index,
            max_chunk: inventory.iter().map(|info| info.chunk).max(),
        };
        let registered = conn.call(&register, CALL_LIMIT).await?.body;
        log::info!("registered as {} in term {}", registered.num, registered.term);
        notify::status(&format!("serving at {} as {}", self.addr, registered.num));
        self.server.input(Input::Registered(registered.clone()));
        if let Some(peers) = self.server.peers() {
            peers.set_hello(self.hello());
        }
        self.fetch_servers(conn).await?;
        // What is named must be what is unconfirmed now, so it is taken after the registration.
        self.send_inventory(conn, self.server.with_core(|core| core.inventory())).await?;
        Ok(registered)
    }

    async fn send_inventory(&self, conn: &Conn, all: Vec<ReplicaInfo>) -> Result<(), CallError> {
        let parts: Vec<&[ReplicaInfo]> =
            if all.is_empty() { vec![&[]] } else { all.chunks(INVENTORY_PART).collect() };
        for (at, part) in parts.iter().enumerate() {
            let last = at + 1 == parts.len();
            let part = Inventory { boot: self.ids.boot, replicas: part.to_vec(), last };
            conn.call(&part, CALL_LIMIT).await?;
        }
        Ok(())
    }

    /// `Ok` when the master wants a new registration.
    async fn beat_until_refused(
        &self,
        conn: &Conn,
        registered: &Registered,
        reports: &mut mpsc::Receiver<Report>,
    ) -> Result<(), CallError> {
        let mut ticks = tokio::time::interval(Duration::from_millis(registered.heartbeat_ms.max(10)));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut beats = 0u32;
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    self.beat(conn).await?;
                    if self.server.reregister.load(Ordering::Relaxed) {
                        return Ok(());
                    }
                    beats = beats.wrapping_add(1);
                    if beats.is_multiple_of(SERVERS_EVERY) {
                        self.fetch_servers(conn).await?;
                    }
                }
                report = reports.recv() => match report {
                    Some(report) => self.send_report(conn, report),
                    None => return Err(CallError::Closed),
                },
                () = self.servers_wanted() => self.fetch_servers(conn).await?,
                () = conn.wait_closed() => return Err(CallError::Closed),
            }
        }
    }

    async fn servers_wanted(&self) {
        match self.server.peers() {
            Some(peers) => peers.stale.notified().await,
            None => std::future::pending().await,
        }
    }

    async fn beat(&self, conn: &Conn) -> Result<(), CallError> {
        self.server.look_at_disks();
        let t_send = clock::now();
        let load = self.load(t_send);
        let disks = self.disk_reports();
        let heartbeat = self.server.with_core(|core| Heartbeat {
            boot: self.ids.boot,
            t_send,
            applied: core.applied_events(),
            load,
            disks,
            hot: core.hottest(t_send, HOT_MAX),
            lost: core.lost(t_send),
            key: core.newest_key(),
            scrub: core.scrub_report(t_send),
            copy: self.copy.report(t_send),
        });
        match conn.call(&heartbeat, BEAT_LIMIT).await {
            Ok(reply) => {
                self.server.input(Input::Heartbeat(reply.body));
                if !*self.ready.borrow() && self.server.with_core(|core| core.has_lease(clock::now())) {
                    self.ready.send_replace(true);
                }
                Ok(())
            }
            // The master is slow, or busy: the next heartbeat may do better while the lease runs on.
            Err(CallError::Deadline | CallError::Status(Status::Overloaded, _)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// How busy the server was since this was last asked.
    fn load(&self, now: Micros) -> ServerLoad {
        let waited: Vec<u64> = self.server.disks.iter().map(|disk| disk.take_waited(now)).collect();
        let around = Around {
            cores: self.cores,
            worst_disk_us: waited.iter().copied().max().unwrap_or(0),
            best_disk_us: waited.iter().copied().min().unwrap_or(0),
        };
        self.server.load.sample(At { now, cpu: clock::cpu() }, around)
    }

    fn disk_reports(&self) -> Vec<dfs_proto::control::DiskReport> {
        let one = |(at, disk): (usize, &Arc<crate::disks::DiskHandle>)| {
            let replicas = self.server.with_core(|core| core.replicas_on(disk_ix(at)));
            disk_report(disk, replicas)
        };
        self.server.disks.iter().enumerate().map(one).collect()
    }

    async fn fetch_servers(&self, conn: &Conn) -> Result<(), CallError> {
        let servers = conn.call(&GetServers {}, CALL_LIMIT).await?.body;
        if let Some(peers) = self.server.peers() {
            peers.set_servers(&servers);
        }
        Ok(())
    }

    /// Sends a report without waiting for its answer here: heartbeats go on.
    fn send_report(&self, conn: &Conn, report: Report) {
        let (conn, server) = (conn.clone(), Arc::clone(&self.server));
        tokio::spawn(async move {
            match report {
                Report::Trouble(report) => {
                    if let Err(error) = conn.call(&report, CALL_LIMIT).await {
                        log::debug!("trouble report: {error}");
                    }
                }
                Report::Learner(report) => {
                    judge(&server, report, conn.call(&report, CALL_LIMIT).await.map(drop))
                }
            }
        });
    }
}

/// Takes the master's word on a learner. No word is none: it is asked again.
fn judge(server: &Arc<Server>, report: LearnerReady, answer: Result<(), CallError>) {
    let status = match answer {
        Ok(()) => Status::Ok,
        Err(CallError::Status(status, detail)) => {
            log::info!("chunk {}: learner {}: {status} {detail}", report.chunk, report.learner.server);
            status
        }
        Err(error) => {
            log::debug!("learner report: {error}");
            return;
        }
    };
    server.input(Input::LearnerJudged { report, status });
}

/// Gives the lease back.
pub(crate) async fn say_goodbye(conn: Option<Conn>, ids: Ids, limit: Duration) {
    let Some(conn) = conn else { return };
    if let Err(error) = conn.call(&GracefulStop { boot: ids.boot }, limit).await {
        log::warn!("the master did not take our leave: {error}");
    }
}

/// Time that went by since `began`.
pub(crate) fn since(began: Micros) -> Duration {
    Duration::from_micros(clock::now().0.saturating_sub(began.0))
}
