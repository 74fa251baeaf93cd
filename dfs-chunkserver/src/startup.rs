//! From a command line to a running server: disks opened, or labelled for the cluster of the master that was
//! dialled, the core made from what they hold. Every way to fail is one sentence that says what to do.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dfs_daemon::notify::Startup;
use dfs_disk::Disk;
use dfs_disk::real::RealDisk;
use dfs_proto::conn::{CallsOnly, Conn, ConnError, Hello, PeerAddr, Role};
use dfs_proto::control::{DiskReport, Register, Registered};
use dfs_proto::ids::{BootId, ClusterId, DiskId, Generation, LogIndex, OsBootId, ServerId, Term};
use dfs_proto::status::Status;
use dfs_proto::units::CHUNK_SIZE_MAX;

use crate::config::Config;
use crate::core::io::DiskIx;
use crate::disks::DiskHandle;
use crate::store::{Expect, Label, OpenError, Opened, Store, StoreConfig};

/// A disk smaller than a few chunks would be full before it held any.
const DISK_MIN: u64 = 4 * CHUNK_SIZE_MAX as u64;
/// What may lie on a disk that has no label yet.
const NEW_DISK_HAS: [&str; 9] =
    [".lock", "lost+found", "chunks", "trash", "mhwm", "boot", "clean", "fence.log", "disk.json.tmp"];
/// Pause between tries to reach the master.
const RETRY: Duration = Duration::from_millis(200);
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const REGISTER_LIMIT: Duration = Duration::from_secs(10);
/// Opening a disk reads the header of each of its chunks: a million of them on a disk that seeks 300 times a second.
const OPEN_LIMIT: Duration = Duration::from_secs(3600);
const OS_BOOT_FILE: &str = "/proc/sys/kernel/random/boot_id";

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("disk {0} does not exist: create the directory, or mount the disk there")]
    NoDisk(PathBuf),
    #[error("disk {path} can't be used: {source}; it must be a directory that this user may write to")]
    Unusable { path: PathBuf, source: std::io::Error },
    #[error("disk {path} has {total} bytes in all; at least {DISK_MIN} are needed")]
    TooSmall { path: PathBuf, total: u64 },
    #[error("disk {0} is in use by another process: stop that one, or give another --disk")]
    Locked(PathBuf),
    #[error(
        "disk {path} belongs to another cluster, {found}; the master at {master} is of cluster {expected}"
    )]
    ForeignCluster { path: PathBuf, master: String, found: ClusterId, expected: ClusterId },
    #[error(
        "disk {path} belongs to another server ({found}) than the first disk ({expected}): start each server with its own disks"
    )]
    ForeignServer { path: PathBuf, found: ServerId, expected: ServerId },
    #[error("disk {path} is no dfs disk and not empty ({found} is there): give an empty directory")]
    NotEmpty { path: PathBuf, found: String },
    #[error("disk {path}: {source}")]
    Disk { path: PathBuf, source: OpenError },
    #[error("the master at {master} does not take this server: {reason}")]
    Refused { master: String, reason: String },
    #[error("can't read {OS_BOOT_FILE}: {0}")]
    OsBoot(std::io::Error),
    #[error("no random numbers from the system: {0}")]
    Random(getrandom::Error),
}

/// Who this process is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ids {
    pub(crate) server: ServerId,
    pub(crate) boot: BootId,
    pub(crate) os_boot: OsBootId,
}

/// Disks that are ready, and whose.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) ids: Ids,
    pub(crate) cluster: ClusterId,
    pub(crate) stores: Vec<(PathBuf, Arc<Store<RealDisk>>, Opened)>,
}

/// Random bits.
pub(crate) fn random() -> Result<u128, StartError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(StartError::Random)?;
    Ok(u128::from_le_bytes(bytes))
}

/// This boot of the kernel.
fn os_boot() -> Result<OsBootId, StartError> {
    let text = std::fs::read_to_string(OS_BOOT_FILE).map_err(StartError::OsBoot)?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let bits = u128::from_str_radix(&digits, 16);
    bits.map(OsBootId).map_err(|error| StartError::OsBoot(std::io::Error::other(error)))
}

/// Opens all disks; empty ones join the cluster of the master that `config` names. Waits for the master for
/// as long as it takes.
///
/// # Errors
/// Whatever only a person can change.
pub(crate) async fn open_disks(
    config: &Config,
    addr: &PeerAddr,
    startup: &Startup,
) -> Result<Ready, StartError> {
    let mut disks = Vec::with_capacity(config.disks.len());
    for path in &config.disks {
        disks.push(look_at(path)?);
    }
    let (conn, cluster) = reach_master(config, startup).await?;
    let os_boot = os_boot()?;
    let boot = BootId(u64::try_from(random()? & u128::from(u64::MAX)).unwrap_or(1));
    let mut opened = Vec::with_capacity(disks.len());
    let mut server = None;
    let mut generation = None;
    for (path, disk) in config.disks.iter().zip(disks) {
        startup.long_stage(&format!("opening disk {}", path.display()), OPEN_LIMIT);
        match Store::open(disk.clone(), Expect { cluster, server, os_boot }, store_config(config)) {
            Ok((store, found)) => {
                server = Some(store.label().server);
                generation = Some(store.label().generation);
                opened.push((path.clone(), disk, Some((store, found))));
            }
            Err(OpenError::NoLabel) => {
                check_empty(path, &disk)?;
                opened.push((path.clone(), disk, None));
            }
            Err(error) => return Err(disk_error(config, path, error)),
        }
    }
    let fresh = server.is_none();
    let server = match server {
        Some(server) => server,
        None => ServerId(random()?),
    };
    let ids = Ids { server, boot, os_boot };
    let generation = match generation {
        Some(generation) => generation,
        None => join(config, &conn, ids, addr).await?.generation,
    };
    conn.close();
    let mut stores = Vec::with_capacity(opened.len());
    for (path, disk, store) in opened {
        let (store, found) = match store {
            Some(store) => store,
            None => make_disk(
                config,
                &path,
                disk,
                (Label { cluster, generation, disk: DiskId(random()?), server }, os_boot),
            )?,
        };
        for (file, why) in &found.quarantined {
            log::warn!("disk {}: {file} was moved to lost+found: {why:?}", path.display());
        }
        if found.suspect {
            log::error!(
                "disk {}: a sync of it failed, and what this kernel shows of it may not be there: it is read, and not \
                 written until the next reboot; if its filesystem was unmounted and mounted since, remove {}/suspect-*",
                path.display(),
                path.display()
            );
        }
        stores.push((path, Arc::new(store), found));
    }
    if fresh {
        log::info!("joined cluster {cluster} as server {server}");
    }
    Ok(Ready { ids, cluster, stores })
}

fn store_config(config: &Config) -> StoreConfig {
    let all = StoreConfig::default();
    // Each disk may have twice its share open for a while.
    let most = (descriptors().saturating_sub(DESCRIPTORS_KEPT) / 2).min(all.open_files);
    StoreConfig { open_files: (most / config.disks.len().max(1)).max(64), ..all }
}

/// Descriptors for everything but chunk files: connections above all.
const DESCRIPTORS_KEPT: usize = 2048;

/// How many descriptors this process may have, after asking for as many as it may ask for: the usual limit of
/// 1024 is for programs that use select(2).
fn descriptors() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        log::warn!("the limit of open files cannot be raised: {error}");
    }
    let limit = getrlimit(Resource::Nofile).current;
    limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

fn look_at(path: &Path) -> Result<RealDisk, StartError> {
    let unusable = |source| StartError::Unusable { path: path.to_owned(), source };
    if !path.exists() {
        return Err(StartError::NoDisk(path.to_owned()));
    }
    let disk = RealDisk::new(path).map_err(unusable)?;
    match disk.lock() {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            return Err(StartError::Locked(path.to_owned()));
        }
        Err(error) => return Err(unusable(error)),
    }
    let total = disk.space().map_err(unusable)?.total;
    if total < DISK_MIN {
        return Err(StartError::TooSmall { path: path.to_owned(), total });
    }
    Ok(disk)
}

/// A new disk holds nothing of anyone's: what a filesystem makes itself, and what a first start that was cut
/// short left, do not count.
fn check_empty(path: &Path, disk: &RealDisk) -> Result<(), StartError> {
    let entries = disk.list("").map_err(|source| StartError::Unusable { path: path.to_owned(), source })?;
    match entries.into_iter().find(|entry| !NEW_DISK_HAS.contains(&entry.name.as_str())) {
        Some(entry) => Err(StartError::NotEmpty { path: path.to_owned(), found: entry.name }),
        None => Ok(()),
    }
}

fn disk_error(config: &Config, path: &Path, error: OpenError) -> StartError {
    let path = path.to_owned();
    match error {
        OpenError::Locked => StartError::Locked(path),
        OpenError::ForeignCluster { found, expected } => {
            StartError::ForeignCluster { path, master: config.master.clone(), found, expected }
        }
        OpenError::ForeignServer { found, expected } => StartError::ForeignServer { path, found, expected },
        source => StartError::Disk { path, source },
    }
}

fn make_disk(
    config: &Config,
    path: &Path,
    disk: RealDisk,
    (label, os_boot): (Label, OsBootId),
) -> Result<(Store<RealDisk>, Opened), StartError> {
    let expect = Expect { cluster: label.cluster, server: Some(label.server), os_boot };
    Store::init(&disk, &label)
        .and_then(|()| Store::open(disk, expect, store_config(config)))
        .map_err(|error| disk_error(config, path, error))
}

/// The master's cluster, from whoever answers first.
async fn reach_master(config: &Config, startup: &Startup) -> Result<(Conn, ClusterId), StartError> {
    let mut told = false;
    startup.stage(&format!("waiting for the master at {}", config.master));
    loop {
        let hello = Hello::new(Role::ChunkServer, config.name.clone(), None);
        match connect(config, hello).await {
            Ok(conn) => return Ok(conn),
            // An upgrade of the cluster has got to one of the two only.
            Err(error @ ConnError::Handshake { status: Status::WrongVersion, .. }) if !told => {
                log::warn!("{error}; waiting until both have the same version of dfs");
                startup.stage(&format!("the master at {} has another version: {error}", config.master));
                told = true;
            }
            Err(ConnError::Handshake { status: Status::WrongVersion, .. }) => {}
            Err(error @ (ConnError::Handshake { .. } | ConnError::Frame { .. })) => {
                return Err(StartError::Refused { master: config.master.clone(), reason: error.to_string() });
            }
            Err(error) if told => log::debug!("{error}"),
            Err(error) => {
                log::warn!("no master yet: {error}; trying on");
                startup.stage(&format!("waiting for the master at {}: {error}", config.master));
                told = true;
            }
        }
        startup.step();
        tokio::time::sleep(RETRY).await;
    }
}

async fn connect(config: &Config, hello: Hello) -> Result<(Conn, ClusterId), ConnError> {
    let addr = master_addr(&config.master).await?;
    let (conn, welcome) = Conn::connect(&addr, hello, Arc::new(CallsOnly), CONNECT_LIMIT).await?;
    Ok((conn, welcome.cluster))
}

/// Resolves the master's name anew each time: it may have moved.
pub(crate) async fn master_addr(master: &str) -> Result<PeerAddr, ConnError> {
    if let Ok(addr) = master.parse() {
        return Ok(addr);
    }
    let unnamed = || PeerAddr::Unix(PathBuf::from(master));
    let unreachable = |source| ConnError::Unreachable { addr: unnamed(), source: Arc::new(source) };
    let mut found = tokio::net::lookup_host(master).await.map_err(unreachable)?;
    let none = || unreachable(std::io::Error::other("the name has no address"));
    found.next().map(PeerAddr::Tcp).ok_or_else(none)
}

/// The first registration of a server without a labelled disk: it learns where it belongs.
async fn join(config: &Config, conn: &Conn, ids: Ids, addr: &PeerAddr) -> Result<Registered, StartError> {
    let register = Register {
        cluster: None,
        generation: Generation(0),
        server: ids.server,
        boot: ids.boot,
        os_boot: ids.os_boot,
        hb_ctr: 0,
        name: config.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        tcp: public_addr(config, addr),
        unix: config.unix.as_ref().map(|path| path.display().to_string()),
        labels: config.labels.clone(),
        disks: Vec::new(),
        max_term: Term(0),
        max_meta_index: LogIndex(0),
        max_chunk: None,
    };
    match conn.call(&register, REGISTER_LIMIT).await {
        Ok(reply) => Ok(reply.body),
        Err(error) => Err(StartError::Refused { master: config.master.clone(), reason: error.to_string() }),
    }
}

/// What others dial.
pub(crate) fn public_addr(config: &Config, bound: &PeerAddr) -> String {
    config.advertise.clone().unwrap_or_else(|| bound.to_string())
}

/// A disk as the master is told of it, from when it was last measured: a disk that hangs must not hold up
/// heartbeats.
pub(crate) fn disk_report(disk: &DiskHandle, replicas: usize) -> DiskReport {
    let space = disk.last_space();
    let failed = match &space {
        Err(error) => Some(error.clone()),
        Ok(_) if disk.store.suspect() => Some("a sync failed".to_owned()),
        Ok(_) => None,
    };
    let space = space.unwrap_or_default();
    DiskReport {
        disk: disk.store.label().disk,
        path: disk.path.display().to_string(),
        total_bytes: space.total,
        free_bytes: (space.free + space.trash).saturating_sub(space.reserve),
        replicas: replicas as u64,
        failed,
    }
}

/// The place of a disk in the core's list.
pub(crate) fn disk_ix(at: usize) -> DiskIx {
    DiskIx(u16::try_from(at).unwrap_or(u16::MAX))
}
