//! The life of a mount: connect, mount, answer, and leave nothing behind.
//!
//! Order matters. What can fail without the cluster is checked first, then the cluster is reached, and only
//! then is the mount made, so that a program never sees a mount whose first request fails. Signals are
//! caught before that, so that none can end the process between mount and unmount.

mod stop;
mod watch;

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::num::NonZero;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use dfs_client::client::ConnectError;
use dfs_client::net::NetError;
use dfs_client::net::tcp::{TcpConfig, TcpNet};
use dfs_client::{Caller, Client, Error};
use dfs_daemon::{logging, memory, notify as manager, reload};
use dfs_proto::ids::{Ino, OsBootId, SessionId};
use dfs_proto::meta::FileKind;
use dfs_proto::status::Status;
use dfs_proto::words::in_words;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use crate::adapter::{Recalls, Session, Shared};
use crate::config::{Config, Origin, Patience};
use crate::daemon::Report;
use crate::inodes::Inodes;
use crate::mount::{self, Manner, Mount, MountPoint};
use crate::{admin, notify};
use stop::{End, Signals};

/// Most workers of the runtime. What they do is wait for the network and copy.
const WORKERS_MAX: usize = 4;

/// How long a master is looked for before the command says that none answers. A boot that is faster than
/// the master's is what `nofail` and systemd's retries are for.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// How long a mount that could not be made takes to end its session.
const GOODBYE_LIMIT: Duration = Duration::from_secs(2);

/// Longest wait for one connection, so that a dead first master leaves time for the others.
const DIAL_LIMIT: Duration = Duration::from_secs(3);

/// Exit code of a daemon whose mount broke, and that took it out of the tree: whoever restarts it may mount again.
/// `EX_TEMPFAIL` of sysexits.h.
pub(crate) const LOST: u8 = 75;

/// fuser warns about every kind of request that it refuses in our place; it is meant to.
const QUIET: &str = "fuser=error";

/// A mount that answers.
struct Live {
    mount: Arc<Mount>,
    shared: Arc<Shared>,
    /// How the threads that read requests ended.
    ended: oneshot::Receiver<io::Result<()>>,
    pid_file: Option<PathBuf>,
}

/// Mounts, reports, and serves until the mount is gone.
pub(crate) fn run(config: &Config, origin: Option<Origin>, report: Report) -> ExitCode {
    let (runtime, mut signals, live) = match start(config, origin) {
        Ok(started) => started,
        Err(error) => {
            report.failed(&format!("dfs-fuse: {}", in_words(error.as_ref())));
            return ExitCode::FAILURE;
        }
    };
    if let Err(error) = report.live(live.shared.client.session().0) {
        log::error!("cannot let go of the terminal: {error}");
    }
    let mounted = format!("mounted {} on {}", config.spec.source(), live.mount.path().display());
    log::info!("{mounted}");
    manager::ready(&mounted);
    runtime.spawn(watch::keep(Arc::clone(&live.mount)));
    let end = runtime.block_on(stop::serve_until_over(live, &mut signals));
    // Tasks may hang in a cluster that does not answer; nothing waits for them any more.
    runtime.shutdown_background();
    match end {
        End::Clean => ExitCode::SUCCESS,
        End::BytesLost => ExitCode::FAILURE,
        End::MountLost => ExitCode::from(LOST),
    }
}

/// Half the cores: the rest is for the programs. On two cores a second worker costs more wake-ups than it shares work:
/// a fifth of the files made and of the small reads, against an eighth more in one stream.
fn workers() -> usize {
    (std::thread::available_parallelism().map_or(2, NonZero::get) / 2).clamp(1, WORKERS_MAX)
}

fn start(config: &Config, origin: Option<Origin>) -> anyhow::Result<(Runtime, Signals, Live)> {
    mount::check_device()?;
    if config.options.timeo_in_vain {
        // Where standard error is closed there is nobody to tell.
        let note = "dfs-fuse: timeo says nothing without soft: a hard mount waits until the cluster answers";
        drop(writeln!(io::stderr(), "{note}"));
    }
    let admin_port = config.admin.bind(None)?;
    let (at, non_empty) = (&config.mount_point, config.options.non_empty);
    let point = if config.replace_dead {
        MountPoint::check_or_replace(at, non_empty, config.dead_device)?
    } else {
        MountPoint::check(at, non_empty)?
    };
    start_logging(config)?;
    // Before the first thread, which inherits it.
    memory::promise_io_flusher();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers())
        .thread_name("dfs")
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    // Where there is a file of options, a hangup means to read it again.
    let ends_by_hangup = origin.is_none();
    let mut signals =
        runtime.block_on(async { Signals::new(ends_by_hangup) }).context("cannot catch signals")?;
    if let Some(origin) = origin {
        runtime.spawn(reload::on_hangup(origin, filter));
    }

    let (notify, jobs) = notify::channel();
    let recalls = Recalls { inodes: Arc::new(Inodes::new()), notify, runtime: runtime.handle().clone() };
    let connected = runtime.block_on(async {
        tokio::select! {
            connected = connect(config, &point, &recalls) => connected,
            () = signals.any() => Err(anyhow!("interrupted")),
        }
    });
    let client = connected?;
    if let Some(session) = config.dead_session {
        // What it held is free for this mount's programs, too.
        let ended = runtime.block_on(client.end_session_of_dead(SessionId(session)));
        if let Err(error) = ended {
            log::warn!("the dead daemon's session ends with its lease: {error}");
        }
    }
    let live = runtime.block_on(root(&client, config)).and_then(|root| {
        let shared = Shared::new(client.clone(), &recalls, root, runtime.handle().clone(), &config.options);
        let stats = Arc::clone(&shared.stats);
        dfs_proto::conn::tell_more(move || stats.flights());
        if let Some(port) = admin_port {
            admin::serve(port, runtime.handle().clone(), &shared)?;
        }
        serve(config, point, shared, jobs)
    });
    if live.is_err() {
        // A session that nobody ends is waited for by others for as long as its lease.
        if let Err(error) = runtime.block_on(client.shutdown(GOODBYE_LIMIT)) {
            log::info!("the session was not ended: {error}");
        }
    }
    Ok((runtime, signals, live?))
}

fn filter(level: &str) -> String {
    format!("{level},{QUIET}")
}

fn start_logging(config: &Config) -> anyhow::Result<()> {
    let target = match &config.log_file {
        Some(file) => logging::Target::File(file.clone()),
        None if config.foreground => logging::Target::Stderr,
        None => logging::Target::Syslog(c"dfs-fuse"),
    };
    logging::start(&target, &filter(&config.log_level))?;
    // A daemon's standard error leads nowhere.
    std::panic::set_hook(Box::new(|info| log::error!("{info}")));
    Ok(())
}

/// Makes the mount and answers on it.
fn serve(
    config: &Config,
    point: MountPoint,
    shared: Arc<Shared>,
    jobs: notify::Jobs,
) -> anyhow::Result<Live> {
    let allow_other = config.options.allow_other.unwrap_or_else(|| rustix::process::geteuid().is_root());
    let (mount, device) = Mount::new(point, &config.options, allow_other)?;
    let answering = || -> anyhow::Result<_> {
        let session =
            Session::start(device, Arc::clone(&shared)).context("the handshake with the kernel failed")?;
        jobs.serve(session.kernel_cache(&shared)).context("cannot start a thread")?;
        write_pid_file(config).context("cannot write the pid file")?;
        answer(session).context("cannot start a thread")
    };
    let session = answering();
    let ended = match session {
        Ok(ended) => ended,
        Err(error) => {
            // A mount that nobody answers would be left behind.
            drop(mount.unmount(Manner::Lazy));
            return Err(error);
        }
    };
    mount.tune();
    Ok(Live { mount: Arc::new(mount), shared, ended, pid_file: config.pid_file.clone() })
}

/// A session with the cluster.
async fn connect(config: &Config, point: &MountPoint, recalls: &Recalls) -> anyhow::Result<Client<TcpNet>> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let name = format!("{host}:{}", point.path().display());
    let os_boot = os_boot_id().context("cannot read the kernel's boot id")?;
    let net = TcpNet::new(TcpConfig {
        masters: config.spec.masters.clone(),
        name: name.clone(),
        os_boot,
        cluster: None,
        unix: !config.options.tcp_only,
        dial_timeout: DIAL_LIMIT,
    });
    // Two mounts of a machine must not choose alike; the seed of a hash map is as random as that takes.
    let mut settings =
        dfs_client::Config::new(name, os_boot, RandomState::new().hash_one(std::process::id()));
    settings.connect_timeout = CONNECT_LIMIT;
    settings.recover = config.options.recover;
    settings.patience = match config.options.patience {
        Patience::Hard => dfs_client::Patience::Hard,
        Patience::Soft { timeo } => dfs_client::Patience::Soft(timeo),
    };
    if let Some(bytes) = config.options.cache_bytes {
        settings.memory_bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    }
    let client = Client::connect(settings, net, Arc::new(recalls.clone())).await;
    client.map_err(|error| anyhow!(explain(&config.spec.masters, &error)))
}

/// One line that says what to do.
fn explain(masters: &[String], error: &ConnectError) -> String {
    let masters = masters.join(", ");
    let ConnectError::NoMaster(error) = error;
    match error {
        NetError::Status(Status::WrongVersion, text) => {
            format!(
                "{masters} speaks another protocol version ({text}): install the same dfs version here and there"
            )
        }
        NetError::Status(Status::WrongCluster, text) => {
            format!("{masters} belongs to another cluster ({text}): check the address")
        }
        NetError::Status(status, text) => format!("{masters} refused the mount: {status}: {text}"),
        NetError::Malformed => format!("{masters} does not speak dfs: check the address and the port"),
        NetError::Deadline | NetError::Closed | NetError::Unreachable { .. } => format!(
            "no master answers at {masters} ({error}): check the address, and that dfs-master runs there"
        ),
    }
}

/// Walks to the directory to mount, with the rights of root: who mounts decides what is mounted.
async fn root(client: &Client<TcpNet>, config: &Config) -> anyhow::Result<Ino> {
    let mut at = Ino::ROOT;
    let path = String::from_utf8_lossy(&config.spec.sub);
    for name in config.spec.sub_names() {
        let attr = match client.lookup(at, name, Caller::default()).await {
            Ok(attr) => attr,
            Err(Error::NotFound | Error::NotDir) => {
                bail!("there is no directory {path} in the cluster: make it on a mount of the whole first")
            }
            Err(error) => return Err(anyhow!(error).context(format!("cannot look up {path} in the cluster"))),
        };
        if attr.kind != FileKind::Dir {
            bail!("{path} in the cluster is not a directory: mount a directory");
        }
        at = attr.ino;
    }
    Ok(at)
}

/// The same number that chunk servers of this host show, or another host's does not.
fn os_boot_id() -> anyhow::Result<OsBootId> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    Ok(OsBootId(u128::from_str_radix(&digits, 16)?))
}

fn write_pid_file(config: &Config) -> io::Result<()> {
    match &config.pid_file {
        Some(path) => writeln!(File::create(path)?, "{}", std::process::id()),
        None => Ok(()),
    }
}

/// Starts the threads that answer.
fn answer(session: Session) -> io::Result<oneshot::Receiver<io::Result<()>>> {
    let (done, ended) = oneshot::channel();
    std::thread::Builder::new().name("fuser".into()).spawn(move || {
        // Nobody listens any more when the process is about to end anyway.
        let _ = done.send(session.run());
    })?;
    Ok(ended)
}
