//! The command line as typed ([`Args`]), and as checked ([`Config`]).

use std::path::PathBuf;

use clap::Parser;
use dfs_admin::AdminArgs;
use dfs_daemon::settings::FileArgs;
use dfs_proto::conn::PeerAddr;

/// Disk threads beyond this only wait for one another.
const IO_THREADS_MAX: usize = 64;

/// The dfs chunk server: keeps replicas on local disks and serves them.
#[derive(Parser, Clone, Debug)]
#[command(
    version,
    after_help = "`dfs-chunkserver headers --disk DIR` prints what the headers on a stopped server's disk say."
)]
pub struct Args {
    /// The master's HOST:PORT, or unix:/PATH
    #[arg(long, value_name = "ADDR")]
    pub master: String,
    /// IP:PORT to listen at; port 0 takes a free one
    #[arg(long, value_name = "IP:PORT", default_value = "0.0.0.0:9720")]
    pub listen: String,
    /// IP:PORT that others reach this server at, if not the one it listens at
    #[arg(long, value_name = "IP:PORT")]
    pub advertise: Option<String>,
    /// Unix socket for mounts and servers on this host
    #[arg(long, value_name = "PATH")]
    pub unix: Option<PathBuf>,
    /// Directory of a disk, an empty one at first; may be given several times
    #[arg(long = "disk", value_name = "DIR", required = true)]
    pub disks: Vec<PathBuf>,
    /// KEY=VALUE for placement, such as rack=r1; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<String>,
    /// Name of this server for people; the host's name if not given
    #[arg(long)]
    pub name: Option<String>,
    /// File that gets the bound address once the server serves
    #[arg(long, value_name = "PATH")]
    pub port_file: Option<PathBuf>,
    /// Threads for each disk
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub io_threads: usize,
    /// What this server can move, in MB/s: tells how much of that is in use. Learned if not given, from the seconds
    /// in which it could not move more; 1250 until there were any since it started
    #[arg(long, value_name = "MB/S")]
    pub capacity: Option<u64>,
    /// Every replica is compared with its checksums once in so many days, while its disk has nothing else to do
    #[arg(long, value_name = "DAYS", default_value_t = 14, value_parser = clap::value_parser!(u64).range(1..=3650))]
    pub scrub_days: u64,
    #[command(flatten)]
    pub admin: AdminArgs,
    #[command(flatten)]
    pub file: FileArgs,
}

/// What the server runs with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Resolved again at each dial.
    pub master: String,
    pub listen: PeerAddr,
    pub advertise: Option<String>,
    pub unix: Option<PathBuf>,
    pub disks: Vec<PathBuf>,
    pub labels: Vec<(String, String)>,
    pub name: String,
    pub port_file: Option<PathBuf>,
    pub io_threads: usize,
    /// `None` to learn it.
    pub capacity_bytes_per_s: Option<u64>,
    pub scrub_period_ms: u64,
    pub admin: AdminArgs,
}

/// What is wrong with the command line.
#[derive(Debug, thiserror::Error)]
pub enum BadConfig {
    #[error("--listen {0}: expected IP:PORT, such as 127.0.0.1:9720 or [::]:9720")]
    Listen(String),
    #[error("--advertise {0}: expected IP:PORT without a wildcard, such as 10.0.0.5:9720")]
    Advertise(String),
    #[error("--listen {0} does not say which address others can dial: add --advertise IP:PORT")]
    Wildcard(String),
    #[error("--label {0}: expected KEY=VALUE")]
    Label(String),
    #[error("--disk {0} is given twice")]
    SameDisk(PathBuf),
    #[error("--io-threads {0}: expected 1 to {IO_THREADS_MAX}")]
    Threads(usize),
}

impl Args {
    /// Checks everything that can be checked without touching anything.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(self) -> Result<Config, BadConfig> {
        let listen = match self.listen.parse() {
            Ok(PeerAddr::Tcp(addr)) => addr,
            Ok(PeerAddr::Unix(_)) | Err(_) => return Err(BadConfig::Listen(self.listen)),
        };
        if let Some(advertise) = &self.advertise {
            let dialled: Result<std::net::SocketAddr, _> = advertise.parse();
            if dialled.is_ok_and(|addr| addr.ip().is_unspecified()) || !advertise.contains(':') {
                return Err(BadConfig::Advertise(advertise.clone()));
            }
        } else if listen.ip().is_unspecified() {
            return Err(BadConfig::Wildcard(self.listen));
        }
        let mut labels = Vec::with_capacity(self.labels.len());
        for label in self.labels {
            match label.split_once('=') {
                Some((key, value)) if !key.is_empty() => labels.push((key.to_owned(), value.to_owned())),
                _ => return Err(BadConfig::Label(label)),
            }
        }
        if let Some(twice) = self.disks.iter().enumerate().find(|(at, disk)| self.disks[..*at].contains(disk))
        {
            return Err(BadConfig::SameDisk(twice.1.clone()));
        }
        if !(1..=IO_THREADS_MAX).contains(&self.io_threads) {
            return Err(BadConfig::Threads(self.io_threads));
        }
        Ok(Config {
            master: self.master,
            listen: PeerAddr::Tcp(listen),
            advertise: self.advertise,
            unix: self.unix,
            disks: self.disks,
            labels,
            name: self.name.unwrap_or_else(host_name),
            port_file: self.port_file,
            io_threads: self.io_threads,
            capacity_bytes_per_s: self.capacity.map(|mb| mb.max(1).saturating_mul(1_000_000)),
            scrub_period_ms: self.scrub_days.saturating_mul(24 * 3_600_000),
            admin: self.admin,
        })
    }
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(more: &[&str]) -> Result<Config, BadConfig> {
        let base = ["dfs-chunkserver", "--master", "m:1", "--disk", "/d"];
        Args::try_parse_from(base.iter().chain(more)).unwrap().check()
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert!(check(&["--listen", "127.0.0.1:0"]).is_ok());
        assert!(matches!(check(&[]), Err(BadConfig::Wildcard(_))));
        assert!(check(&["--advertise", "10.0.0.5:1"]).is_ok());
        assert!(matches!(check(&["--listen", "x"]), Err(BadConfig::Listen(_))));
        let listen = ["--listen", "127.0.0.1:0"];
        assert!(matches!(check(&[&listen[..], &["--label", "x"]].concat()), Err(BadConfig::Label(_))));
        assert!(matches!(check(&[&listen[..], &["--disk", "/d"]].concat()), Err(BadConfig::SameDisk(_))));
        assert!(matches!(check(&[&listen[..], &["--io-threads", "0"]].concat()), Err(BadConfig::Threads(0))));
    }
}
