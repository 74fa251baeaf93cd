//! A chunk server's life: start, serve, stop.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use dfs_daemon::notify::{self, Startup, Watchdog};
use dfs_disk::real::{RealDisk, replace_file_at};
use dfs_proto::conn::{Acceptor, Hello, Listener, PeerAddr, Role, RoleSet, Welcome};
use dfs_proto::ids::{Generation, LogIndex};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::admin;
use crate::clock;
use crate::config::Config;
use crate::copy::{Around, Said, Shelf, keep};
use crate::core::Core;
use crate::core::io::{DiskSetup, FoundReplica, Identity, Input};
use crate::disks::DiskHandle;
use crate::dispatch::Public;
use crate::exec;
use crate::heartbeat::{Link, say_goodbye, since};
use crate::load::{At, LoadMeter};
use crate::peers::Peers;
use crate::server::{REPORTS_MAX, Server};
use crate::startup::{Ready, disk_ix, open_disks};
use crate::store::Mhwm;

/// How long a graceful stop may take in all (an init system kills after 10 s at the earliest).
const STOP_LIMIT: Duration = Duration::from_secs(9);
const GOODBYE_LIMIT: Duration = Duration::from_secs(2);
/// How often disks are asked for their space, and how often their trash is looked at.
const SPACE_EVERY: Duration = Duration::from_secs(2);
const TRASH_EVERY: Duration = Duration::from_secs(60);
/// How often a start that waits for the master says that it does.
const WAITING_EVERY: Duration = Duration::from_secs(5);
/// Age at which trash is unlinked (D3).
const TRASH_AGE_S: u64 = 3600;
/// A disk with less than one part in so many free is short of space.
const SHORT_PARTS: u64 = 10;

/// Serves until told to stop.
///
/// # Errors
/// When it can't start; the text says what to do.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let startup = Startup::begin("starting")?;
    let listener = Listener::bind(&config.listen).await?;
    let admin_port = config.admin.bind(Some(admin::USUAL))?;
    let addr = listener.local_addr().clone();
    let ready = open_disks(&config, &addr, &startup).await?;
    // Not before: a socket that nobody listens at proves to others that the last process is dead, and opening
    // disks after a crash can take long.
    let unix = match &config.unix {
        Some(path) => Some(Listener::bind(&PeerAddr::Unix(path.clone())).await?),
        None => None,
    };
    let (reports, reports_out) = mpsc::channel(REPORTS_MAX);
    let server = make_server(&config, &ready, reports)?;
    let (ids, cluster) = (ready.ids, ready.cluster);
    let public = Arc::new(Public(Arc::clone(&server)));
    let hello = Hello::new(Role::ChunkServer, config.name.clone(), Some(cluster));
    if let Some(port) = admin_port {
        admin::serve(port, &server)?;
    }
    server.set_peers(Peers::new(hello, public.clone(), ids.os_boot));
    for at in 0..server.disks.len() {
        measure(&server, at);
    }
    server.look_at_disks();
    tokio::spawn(Arc::clone(&server).run_timers());
    tokio::spawn(housekeeping(Arc::clone(&server)));
    tokio::spawn(watch(Arc::clone(&server)));
    let (is_ready, mut wait_ready) = watch::channel(false);
    let (conn, master) = watch::channel(None);
    let link = Link {
        server: Arc::clone(&server),
        config: config.clone(),
        ids,
        cluster,
        addr: addr.clone(),
        ready: is_ready,
        conn,
        cores: std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64),
        copy: Said::default(),
    };
    let around =
        Arc::new(AroundCopy { server: Arc::clone(&server), scrub_period_ms: config.scrub_period_ms });
    tokio::spawn(keep(shelf(&ready)?, master.clone(), link.copy.clone(), around));
    // Accepting before the first registration is safe: without a lease everything is refused.
    let acceptor = Acceptor {
        welcome: Welcome::new(config.name.clone(), cluster, ids.boot),
        roles: RoleSet::of(&[Role::Client, Role::ChunkServer, Role::Tool]),
        handler: public,
    };
    tokio::spawn(listener.serve(acceptor.clone()));
    if let Some(unix) = unix {
        tokio::spawn(unix.serve(acceptor));
    }
    tokio::spawn(link.run(reports_out));
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        // Fails only together with the link, which runs for ever.
        _ = async { wait_ready.wait_for(|ready| *ready).await.is_ok() } => tell_ready(&config, &addr)?,
        _ = terminate.recv() => return stop(&server, None, &ready).await,
        _ = interrupt.recv() => return stop(&server, None, &ready).await,
        () = wait_for_master(&config, &startup) => {}
    }
    drop(startup);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    let conn = master.borrow().clone();
    stop(&server, conn, &ready).await
}

/// The server, as the copy of the master's log needs it.
struct AroundCopy {
    server: Arc<Server>,
    scrub_period_ms: u64,
}

impl Around for AroundCopy {
    fn scrub_period_ms(&self) -> u64 {
        self.scrub_period_ms
    }

    fn is_idle(&self, on: usize) -> bool {
        self.server.disks.get(on).is_some_and(|disk| disk.is_idle())
    }

    fn heard(&self, on: usize, generation: Generation, index: LogIndex) {
        let Some(disk) = self.server.disks.get(on).filter(|disk| !disk.store.suspect()) else { return };
        // The term in which this process registered is not below any record's that the master has.
        let (joined, max_term, _) = self.server.with_core(|core| core.high_water());
        if joined != generation {
            return;
        }
        if let Err(error) = disk.store.set_mhwm(Mhwm { generation, max_term, max_meta_index: index }) {
            log::warn!("disk {}: {error}", disk.path.display());
        }
    }
}

/// The copies of the master's log on the server's disks, whose locks it has.
fn shelf(ready: &Ready) -> anyhow::Result<Shelf<RealDisk>> {
    let disks = ready.stores.iter().map(|(path, ..)| RealDisk::new(path)).collect::<Result<_, _>>()?;
    Ok(Shelf::open(disks, ready.cluster))
}

fn make_server(
    config: &Config,
    ready: &Ready,
    reports: mpsc::Sender<crate::server::Report>,
) -> anyhow::Result<Arc<Server>> {
    let runtime = tokio::runtime::Handle::current();
    let ids = ready.ids;
    let mut disks = Vec::with_capacity(ready.stores.len());
    let mut setups = Vec::with_capacity(ready.stores.len());
    let mut found: Vec<FoundReplica> = Vec::new();
    let mut marks = Mhwm::default();
    for (at, (path, store, opened)) in ready.stores.iter().enumerate() {
        marks = marks.raised_to(store.mhwm());
        setups.push(DiskSetup {
            id: store.label().disk,
            free_bytes: store.space().map_or(0, |space| space.free),
            scrub: exec::scrub_mark(store, clock::wall_s()),
        });
        found.extend(exec::found(opened, disk_ix(at), ids.os_boot));
        let threads = config.io_threads;
        let disk = DiskHandle::start(Arc::clone(store), path.clone(), ids.os_boot, threads, &runtime)
            .context("can't start a disk's threads")?;
        disks.push(Arc::new(disk));
    }
    let Mhwm { generation, max_term, max_meta_index: max_index } = marks;
    let identity = Identity { boot: ids.boot, generation, max_term, max_index };
    let mut core = Core::new(identity, setups, &found);
    core.set_scrub_period_ms(config.scrub_period_ms);
    let load = LoadMeter::new(config.capacity_bytes_per_s, At { now: clock::now(), cpu: clock::cpu() });
    Ok(Arc::new(Server::new(core, disks, load, reports, runtime)))
}

/// For ever: no master is a reason to wait, not to end.
async fn wait_for_master(config: &Config, startup: &Startup) {
    startup.stage(&format!("registering with the master at {}", config.master));
    loop {
        tokio::time::sleep(WAITING_EVERY).await;
        startup.step();
    }
}

/// Tells the service manager that this process turns: a task of the runtime that serves everybody runs, and the
/// core is not held by a thread that hangs.
async fn watch(server: Arc<Server>) {
    let mut watchdog = Watchdog::of_manager();
    loop {
        watchdog.due().await;
        server.with_core(|core| core.server_num());
        watchdog.alive();
    }
}

fn tell_ready(config: &Config, addr: &PeerAddr) -> anyhow::Result<()> {
    log::info!("ready: serving at {addr}");
    notify::ready(&format!("serving at {addr}"));
    let Some(path) = &config.port_file else { return Ok(()) };
    replace_file_at(path, format!("{addr}\n").as_bytes())
        .with_context(|| format!("can't write {}", path.display()))
}

/// Space and trash, for as long as the process lives.
async fn housekeeping(server: Arc<Server>) {
    let mut space = tokio::time::interval(SPACE_EVERY);
    let mut trash = tokio::time::interval(TRASH_EVERY);
    loop {
        tokio::select! {
            _ = space.tick() => (0..server.disks.len()).for_each(|at| measure_on_thread(&server, at)),
            _ = trash.tick() => empty_old_trash(&server),
        }
    }
}

fn measure_on_thread(server: &Arc<Server>, at: usize) {
    let (Some(disk), on) = (server.disks.get(at), Arc::clone(server)) else { return };
    // A disk with a full queue is measured another time.
    let _queued = disk.try_submit(move || measure(&on, at));
}

/// Tells the core what a disk has left. Trash counts as free, so a disk that is short gives it back at once.
fn measure(server: &Arc<Server>, at: usize) {
    let Some(disk) = server.disks.get(at) else { return };
    let mut space = disk.measure();
    if space.as_ref().is_ok_and(|space| space.trash > 0 && space.free < space.total / SHORT_PARTS) {
        empty_trash(disk, u64::MAX);
        space = disk.measure();
    }
    match space {
        Ok(space) => server.input(Input::DiskSpace {
            disk: disk_ix(at),
            total_bytes: space.total,
            free_bytes: space.free,
        }),
        Err(error) => log::warn!("disk {}: {error}", disk.path.display()),
    }
}

fn empty_old_trash(server: &Arc<Server>) {
    for disk in &server.disks {
        let on = Arc::clone(disk);
        let _queued = disk.try_submit(move || empty_trash(&on, clock::wall_s().saturating_sub(TRASH_AGE_S)));
    }
}

fn empty_trash(disk: &DiskHandle, before_s: u64) {
    if let Err(error) = disk.store.empty_trash(before_s) {
        log::warn!("disk {}: trash: {error}", disk.path.display());
    }
}

/// Gives the lease back, lets what is under way end, and leaves the disks synced and marked so.
async fn stop(
    server: &Arc<Server>,
    master: Option<dfs_proto::conn::Conn>,
    ready: &Ready,
) -> anyhow::Result<()> {
    let began = clock::now();
    log::info!("stopping");
    notify::stopping();
    server.input(Input::Stop);
    say_goodbye(master, ready.ids, GOODBYE_LIMIT).await;
    if let Some(peers) = server.peers() {
        peers.close();
    }
    while !server.disks.iter().all(|disk| disk.is_idle()) && since(began) < STOP_LIMIT / 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (done, mut all_done) = mpsc::channel::<()>(1);
    for disk in &server.disks {
        let (on, done) = (Arc::clone(disk), done.clone());
        let queued = disk.try_submit(move || {
            if let Err(error) = on.store.mark_clean_shutdown() {
                log::warn!("disk {}: no clean end: {error}", on.path.display());
            }
            drop(done);
        });
        if !queued {
            log::warn!("disk {}: no clean end: too much is waiting", disk.path.display());
        }
        disk.close();
    }
    drop(done);
    if tokio::time::timeout(STOP_LIMIT.saturating_sub(since(began)), all_done.recv()).await.is_err() {
        log::warn!("a disk did not end in time; what it has is as after a crash");
    }
    log::info!("stopped");
    Ok(())
}
