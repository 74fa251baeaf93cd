//! `dfs-master`: makes a cluster's directory, serves it, checks it, or makes it anew from what servers have. Parses,
//! recovers, starts the driver, waits for the end; every failure is one line that says what to do, and exit code 1.

mod admin;
mod backup;
mod check;
mod clock;
mod config;
mod driver;
mod listing;
mod rebuild;
mod replayed;
mod restore;
mod start;

use std::net::ToSocketAddrs;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::CommandFactory;
use dfs_daemon::notify::{self, Startup, Watchdog};
use dfs_daemon::settings::Settings;
use dfs_daemon::{logging, pages, reload};
use dfs_disk::real::replace_file_at;
use dfs_master::core::Input;
use dfs_proto::conn::{Acceptor, Listener, PeerAddr, RoleSet, Welcome};
use dfs_proto::ids::BootId;
use dfs_proto::words::in_words;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{Cli, Command, Run};
use crate::driver::{Driver, LoadLog, Service};

/// How often the core hears of time.
const TICK: Duration = Duration::from_millis(50);

/// How often an idle log may say so.
const IDLE: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    match pages::if_asked(|| vec![Cli::command()]) {
        Ok(false) => {}
        Ok(true) => return ExitCode::SUCCESS,
        Err(error) => return complain(&error),
    }
    let read = match Settings::<Cli>::read(std::env::args_os().collect(), Some("run")) {
        Ok(read) => read,
        Err(wrong) => return wrong.tell("dfs-master"),
    };
    if let Some(printed) = read.printed {
        print!("{printed}");
        return ExitCode::SUCCESS;
    }
    let cli = read.args;
    let level = match &cli.command {
        Command::Init(_) => "info",
        Command::Check(_) | Command::Rebuild(_) | Command::Replay(_) => "warn",
        // What stands in the way is in the report.
        Command::Restore(_) | Command::Backup(_) => "off",
        Command::Run(run) => run.file.log_level.as_str(),
    };
    if let Err(error) = logging::start(&logging::Target::Stderr, level) {
        return complain(&error);
    }
    abort_on_panic();
    let result = match &cli.command {
        Command::Init(init) => start::init(init),
        Command::Run(run) => serve(run, read.settings),
        Command::Check(check) => return check::run(check),
        Command::Rebuild(args) => rebuild::run(args),
        Command::Restore(args) => restore::run(args),
        Command::Backup(args) => backup::run(args),
        Command::Replay(args) => replayed::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(error.as_ref()),
    }
}

fn complain(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    eprintln!("dfs-master: {}", in_words(error));
    ExitCode::FAILURE
}

/// A panic is a broken invariant: going on could make it a wrong record. The log is whole; a restart replays it.
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        std::process::abort();
    }));
}

fn serve(run: &Run, settings: Settings<Cli>) -> anyhow::Result<()> {
    // One thread: a step takes microseconds, and a wake-up of another thread takes more than it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve_on(run, settings))
}

async fn serve_on(run: &Run, settings: Settings<Cli>) -> anyhow::Result<()> {
    let startup = Startup::begin("reading the log")?;
    tokio::spawn(reload::on_hangup(settings, str::to_owned));
    // Addresses first: a second master on a busy port must not touch the log.
    let mut listeners = vec![listen(&run.listen).await?];
    if let Some(path) = &run.unix {
        listeners.push(Listener::bind(&PeerAddr::Unix(path.clone())).await?);
    }
    let admin_port = run.admin.bind(Some(admin::USUAL))?;
    let started = start::recover(run, &startup)?;
    let identity = started.identity;
    let load_log = load_log(run)?;
    let runtime = tokio::runtime::Handle::current();
    let driver = Driver::new(started.core, started.log, started.disk, identity, load_log, runtime);
    let sync = driver.start_sync()?;
    driver.input(Input::Tick);
    if let Some(port) = admin_port {
        admin::serve(port, &driver)?;
    }
    drop(startup);

    let addr = listeners[0].local_addr().to_string();
    let welcome = Welcome::new("master", identity.cluster, BootId(start::random()?));
    for listener in listeners {
        let handler = Arc::new(Service { driver: Arc::clone(&driver) });
        let acceptor = Acceptor { welcome: welcome.clone(), roles: RoleSet::ALL, handler };
        tokio::spawn(listener.serve(acceptor));
    }
    if let Some(file) = &run.port_file {
        replace_file_at(file, addr.as_bytes()).with_context(|| format!("can't write {}", file.display()))?;
    }
    log::info!("serving cluster {} at {addr}", identity.cluster);
    notify::ready(&format!("serving cluster {} at {addr}", identity.cluster));
    let result = run_until_end(&driver).await;
    notify::stopping();
    driver.stop();
    let synced = tokio::task::spawn_blocking(move || sync.join()).await?;
    synced.map_err(|_| anyhow!("the sync thread panicked"))?;
    result?;
    match driver.failure() {
        Some(why) => bail!(why),
        None => Ok(()),
    }
}

fn load_log(run: &Run) -> anyhow::Result<Option<LoadLog>> {
    let bytes = run.load_log_mib << 20;
    let log = (bytes > 0).then(|| LoadLog::start(&run.data.join("load"), bytes));
    log.transpose().context("the log of loads; --load-log-mib 0 writes none")
}

async fn run_until_end(driver: &Arc<Driver>) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut idle = tokio::time::interval(IDLE);
    let mut watchdog = Watchdog::of_manager();
    loop {
        tokio::select! {
            biased;
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = idle.tick() => driver.note_idle(),
            _ = tick.tick() => {
                driver.input(Input::Tick);
                if driver.failure().is_some() {
                    break;
                }
                // The core answered, on the thread that serves everybody.
                watchdog.alive();
            }
        }
    }
    log::info!("stopping");
    Ok(())
}

async fn listen(text: &str) -> anyhow::Result<Listener> {
    let ip = text.to_socket_addrs().ok().and_then(|mut all| all.next());
    let ip = ip.ok_or_else(|| anyhow!("--listen {text}: no such address; give IP:PORT"))?;
    Listener::bind(&PeerAddr::Tcp(ip)).await.context("choose another address with --listen")
}
