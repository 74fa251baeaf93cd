//! From a directory to a core: init, recovery, loading.

use std::path::Path;

use anyhow::{Context, anyhow, bail};
use dfs_daemon::notify::Startup;
use dfs_disk::Disk;
use dfs_disk::real::RealDisk;
use dfs_master::core::image::ImageReader;
use dfs_master::core::{Core, CoreConfig, MetadataSync, Recovered, RecoveredSnapshot};
use dfs_master::log::{self as wal, Identity, IdentityError, LogConfig, LogWriter, Options, SnapshotError};
use dfs_proto::ids::{ClusterId, Generation};

use crate::clock;
use crate::config::{Init, Run, Sync};

/// What a master runs with.
pub(crate) struct Started {
    pub(crate) core: Core,
    pub(crate) log: LogWriter<RealDisk>,
    pub(crate) disk: RealDisk,
    pub(crate) identity: Identity,
}

/// Makes a new cluster.
pub(crate) fn init(init: &Init) -> anyhow::Result<()> {
    let at = init.data.display();
    std::fs::create_dir_all(&init.data).with_context(|| format!("{at}"))?;
    if let Some(name) = stranger(&init.data).with_context(|| format!("{at}"))? {
        bail!("{at} is not empty (it has {name}); choose an empty directory");
    }
    let disk = RealDisk::new(&init.data).with_context(|| format!("{at}"))?;
    let identity = Identity {
        cluster: ClusterId(random_wide()?),
        generation: Generation(1),
        chunk_size: init.chunk_size,
        created: clock::now().wall.sec,
        goal: init.replicas,
    };
    match wal::init(&disk, &identity, LogConfig::default()) {
        Ok(()) => {}
        Err(IdentityError::Exists) => bail!("{at} belongs to a cluster already; choose an empty directory"),
        Err(error) => return Err(error).with_context(|| format!("{at}")),
    }
    println!("cluster {} made in {at}: run `dfs-master run --data {at}`", identity.cluster);
    Ok(())
}

/// Something in the directory that an init, also one that was cut short, would not have left there.
fn stranger(dir: &std::path::Path) -> std::io::Result<Option<String>> {
    const OURS: [&str; 5] = [".lock", "cluster.json", "log", "snapshot", "lost+found"];
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !OURS.contains(&name.as_str()) && !name.ends_with(".tmp") {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// What a directory's log comes to, and the log.
pub(crate) struct Read<D: Disk> {
    pub(crate) log: wal::Recovered<D>,
    pub(crate) state: Recovered,
}

/// Recovers the log of `at`, which is `disk`. `startup` hears how it goes on.
pub(crate) fn read<D: Disk>(at: &Path, disk: &D, startup: &Startup) -> anyhow::Result<Read<D>> {
    let at = at.display();
    let log = wal::recover(disk, Options::default())
        .with_context(|| format!("{at} (a new cluster is made with `dfs-master init --data DIR`)"))?;
    read_from(log, startup)
}

/// What a recovered log comes to.
pub(crate) fn read_from<D: Disk>(mut log: wal::Recovered<D>, startup: &Startup) -> anyhow::Result<Read<D>> {
    let snapshot = loop {
        match load(&log, startup) {
            Ok(snapshot) => break snapshot,
            Err(Unloaded::Damaged(error)) => {
                log::error!("{error}; falling back to the snapshot before");
                log = log.fall_back(error)?;
            }
            Err(Unloaded::Other(error)) => return Err(error),
        }
    };
    if let Some(torn) = log.torn() {
        log::warn!("the log's torn tail was dropped: {torn:?}");
    }
    startup.stage("reading the log");
    let entries = log.replay(log.base().index).inspect(|_| startup.step()).collect::<Result<Vec<_>, _>>()?;
    let hard_state = log.hard_state();
    Ok(Read { log, state: Recovered { snapshot, entries, hard_state } })
}

/// Recovers the log and builds the core from it.
pub(crate) fn recover(run: &Run, startup: &Startup) -> anyhow::Result<Started> {
    let at = run.data.display();
    if !run.data.is_dir() {
        bail!("{at} is no directory: make a cluster with `dfs-master init --data {at}`");
    }
    let disk = RealDisk::new(&run.data).with_context(|| format!("{at}"))?;
    let Read { log, state } = read(&run.data, &disk, startup)?;
    let identity = *log.identity();
    let log = log.into_writer(LogConfig::default())?;
    startup.stage(&format!("applying {} records of the log", state.entries.len()));
    let core = Core::new(config(run, &identity)?, state, clock::now())?;
    Ok(Started { core, log, disk, identity })
}

enum Unloaded {
    Damaged(SnapshotError),
    Other(anyhow::Error),
}

fn load<D: Disk>(
    recovered: &wal::Recovered<D>,
    startup: &Startup,
) -> Result<Option<RecoveredSnapshot>, Unloaded> {
    let Some(mut blocks) = recovered.open_snapshot().map_err(Unloaded::Damaged)? else { return Ok(None) };
    let meta = blocks.meta().clone();
    let mut image = ImageReader::new(&meta.sections).map_err(|error| Unloaded::Other(anyhow!(error)))?;
    while let Some(block) = blocks.next_block().map_err(Unloaded::Damaged)? {
        startup.stage("reading the snapshot");
        image.block(block.section, &block.bytes).map_err(|error| Unloaded::Other(anyhow!(error)))?;
    }
    let image = image.finish().map_err(|error| Unloaded::Other(anyhow!(error)))?;
    Ok(Some(RecoveredSnapshot { index: meta.id.index, term: meta.id.term, conf: meta.conf, image }))
}

fn config(run: &Run, identity: &Identity) -> anyhow::Result<CoreConfig> {
    Ok(CoreConfig {
        generation: identity.generation,
        chunk_size: identity.chunk_size,
        goal: identity.goal,
        server_lease_ms: run.lease_ms,
        // Six heartbeats a lease: five may be lost.
        heartbeat_ms: run.lease_ms / 6,
        session_lease_ms: run.session_lease_ms,
        repair_delay_ms: run.repair_delay * 1000,
        close_after_ms: run.close_after * 1000,
        gc_delay_ms: run.gc_delay * 1000,
        metadata_sync: match run.metadata_sync {
            Sync::Always => MetadataSync::Always,
            Sync::Auto | Sync::Interval => MetadataSync::Interval,
        },
        snapshot_bytes: run.snapshot_bytes,
        snapshot_records: run.snapshot_records,
        load_log: run.load_log_mib > 0,
        seed: random()?,
        secret: secret()?,
        ..CoreConfig::new(identity.cluster)
    })
}

fn secret() -> anyhow::Result<[u8; 16]> {
    let mut secret = [0; 16];
    getrandom::fill(&mut secret).map_err(|error| anyhow!("no randomness: {error}"))?;
    Ok(secret)
}

/// 64 random bits.
pub(crate) fn random() -> anyhow::Result<u64> {
    getrandom::u64().map_err(|error| anyhow!("no randomness: {error}"))
}

fn random_wide() -> anyhow::Result<u128> {
    Ok(u128::from(random()?) << 64 | u128::from(random()?))
}
