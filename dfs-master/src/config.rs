//! The master's command line, checked.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use dfs_admin::AdminArgs;
use dfs_daemon::settings::FileArgs;
use dfs_proto::conn::PeerAddr;
use dfs_proto::units::ChunkSize;

/// The dfs master: the namespace, and where every chunk is.
#[derive(Debug, Parser)]
#[command(name = "dfs-master", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a new cluster in an empty directory
    Init(Init),
    /// Serve the cluster of a directory
    Run(Box<Run>),
    /// Check the log and snapshot of a master that does not run; nothing is changed. Exit code: 0 clean, 1
    /// findings, 2 could not check
    Check(Check),
    /// Make a new master's directory of what chunk servers' disks hold, which standard input lists. `dfs
    /// rebuild-namespace` runs it
    Rebuild(Rebuild),
    /// Make a new master's directory of the best of the copies that standard input lists. `dfs recover --from-servers`
    /// runs it
    Restore(Restore),
    /// Copy the state of a master that runs into an empty directory, and check what was written. `dfs backup` runs it
    Backup(Backup),
    /// What other thresholds would have done with a log of loads. `dfs policy replay` runs it
    Replay(ReplayArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// A file of the log, or the directory of them
    pub(crate) log: PathBuf,
    /// As `dfs policy set` takes them; what is not given is as it was recorded
    #[arg(long)]
    pub(crate) max_threshold: Option<String>,
    #[arg(long)]
    pub(crate) min_threshold: Option<String>,
    #[arg(long)]
    pub(crate) max_replicas: Option<u64>,
    #[arg(long)]
    pub(crate) replication_budget: Option<String>,
    #[arg(long)]
    pub(crate) raise_after: Option<u64>,
    #[arg(long)]
    pub(crate) lower_after: Option<u64>,
    #[arg(long)]
    pub(crate) cooldown: Option<u64>,
    #[arg(long)]
    pub(crate) surplus: Option<u64>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Backup {
    /// Where the master listens, IP:PORT or unix:/PATH
    #[arg(long)]
    pub(crate) from: PeerAddr,
    /// The directory to make
    #[arg(long)]
    pub(crate) to: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// The directory of a backup; without it, standard input lists copies
    #[arg(long, conflicts_with = "generation")]
    pub(crate) backup: Option<PathBuf>,
    /// The directory to make; without it, only tell what is there
    #[arg(long)]
    pub(crate) data: Option<PathBuf>,
    /// Look at copies of this generation only
    #[arg(long)]
    pub(crate) generation: Option<u16>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Rebuild {
    /// The directory to make; without it, only tell what would come of it
    #[arg(long)]
    pub(crate) data: Option<PathBuf>,
    /// Go on although some chunks have fewer replicas on the disks than members
    #[arg(long)]
    pub(crate) accept_missing_replicas: bool,
    /// Bytes of a chunk, where no header tells
    #[arg(long, value_parser = chunk_size)]
    pub(crate) chunk_size: Option<ChunkSize>,
    /// Replicas that files should have; else as most chunks have
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub(crate) replicas: Option<u8>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// The directory that `dfs-master init` made
    #[arg(long)]
    pub(crate) data: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Init {
    /// Where the log and the snapshots are to live
    #[arg(long)]
    pub(crate) data: PathBuf,
    /// Bytes of a chunk, fixed for ever: a power of two from 65536 to 67108864
    #[arg(long, default_value = "67108864", value_parser = chunk_size)]
    pub(crate) chunk_size: ChunkSize,
    /// Replicas that new files get
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub(crate) replicas: u8,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The directory that `dfs-master init` made
    #[arg(long)]
    pub(crate) data: PathBuf,
    /// Address to listen at, IP:PORT; port 0 takes a free one
    #[arg(long, default_value = "0.0.0.0:9400")]
    pub(crate) listen: String,
    /// Unix socket to listen at too, for processes of this machine
    #[arg(long)]
    pub(crate) unix: Option<PathBuf>,
    /// Write the address to this file once the master serves
    #[arg(long)]
    pub(crate) port_file: Option<PathBuf>,
    /// When answers leave: `always` after fdatasync, `interval` after write, with fdatasync within 10 ms; `auto`
    /// is `interval` for a sole master
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) metadata_sync: Sync,
    /// Milliseconds that a chunk server may serve after its last heartbeat
    #[arg(long, default_value_t = 6000, value_parser = clap::value_parser!(u64).range(500..=60_000))]
    pub(crate) lease_ms: u64,
    /// Milliseconds that a silent mount keeps what it holds
    #[arg(long, default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(2000..=100_000))]
    pub(crate) session_lease_ms: u64,
    /// Seconds until a dead chunk server's replicas are made anew elsewhere
    #[arg(long, default_value_t = 25)]
    pub(crate) repair_delay: u64,
    /// Seconds until a chunk that nobody writes is closed: all its replicas on their disks, compared, and the digest
    /// of them logged
    #[arg(long, default_value_t = 30)]
    pub(crate) close_after: u64,
    /// Seconds until the chunks of a deleted file are deleted
    #[arg(long, default_value_t = 3600)]
    pub(crate) gc_delay: u64,
    /// Take a snapshot after so many log records
    #[arg(long, default_value_t = 400_000, value_parser = clap::value_parser!(u64).range(10..))]
    pub(crate) snapshot_records: u64,
    /// Take a snapshot after so many bytes of log
    #[arg(long, default_value_t = 64 << 20, value_parser = clap::value_parser!(u64).range(4096..))]
    pub(crate) snapshot_bytes: u64,
    /// MiB that the log of loads may take in `load` of the directory, the oldest of it going first; 0 writes none
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u64).range(0..=1 << 20))]
    pub(crate) load_log_mib: u64,
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    #[command(flatten)]
    pub(crate) file: FileArgs,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Sync {
    Auto,
    Always,
    Interval,
}

fn chunk_size(text: &str) -> Result<ChunkSize, String> {
    let bytes: u32 = text.parse().map_err(|_| format!("{text:?} is no number of bytes"))?;
    ChunkSize::try_from(bytes).map_err(|error| error.to_string())
}
