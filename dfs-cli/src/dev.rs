//! `dfs dev`: a whole cluster as ordinary processes of this machine, its state under one directory. For
//! trying dfs and for tests; production runs the same daemons under systemd.

mod cluster;
mod process;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use dfs_proto::units::ChunkSize;

use crate::dev::cluster::{Cluster, Member, Spec, one};
pub(crate) use crate::dev::process::{find, print_config};

/// Of a new cluster.
const SERVERS: u16 = 3;
const REPLICAS: u8 = 2;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a cluster, making it at first; returns when it is ready. What is not said stays as it was the last time
    Up(UpArgs),
    /// Unmount and stop all of it
    Down {
        #[command(flatten)]
        dir: Dir,
        /// Delete everything it stored
        #[arg(long)]
        wipe: bool,
    },
    /// SIGKILL one process
    Kill(Who),
    /// SIGTERM one process and wait for its end
    Stop(Who),
    /// SIGSTOP one process
    Pause(Who),
    /// SIGCONT one process
    Resume(Who),
    /// Start one process again; returns when it is ready
    Start(Who),
    /// Print the master's address
    Addr {
        #[command(flatten)]
        dir: Dir,
    },
    /// Print where a process has its admin port
    Admin(Who),
}

#[derive(Debug, Args)]
pub(crate) struct Dir {
    /// Where the cluster's state is
    #[arg(long)]
    dir: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Who {
    #[command(flatten)]
    dir: Dir,
    /// master, cs1, cs2, ... or mount
    member: Member,
}

#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    dir: Dir,
    /// Chunk servers, 3 in a new cluster; a made one may get more
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=64))]
    servers: Option<u16>,
    /// Disks of each chunk server, 1 in a new cluster; those of a made one may get more
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=64))]
    disks: Option<u16>,
    /// Replicas of each chunk, fixed when the cluster is made [default: 2]
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=16))]
    replicas: Option<u8>,
    /// Mount it here
    #[arg(long)]
    mount: Option<PathBuf>,
    /// The master's port; the servers get the next ones (default: free ports)
    #[arg(long)]
    base_port: Option<u16>,
    /// Chunk size in bytes, fixed when the cluster is made
    #[arg(long)]
    chunk_size: Option<u32>,
    /// Mount options, as for dfs-fuse -o
    #[arg(short = 'o')]
    mount_options: Option<String>,
    /// Only TCP between the processes, no Unix sockets
    #[arg(long)]
    tcp: bool,
    /// Options for the daemons: `master OPTION...` and `cs OPTION...`, in this order or the other
    #[arg(last = true)]
    daemon_options: Vec<String>,
}

pub(crate) fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Up(args) => up(args),
        Command::Down { dir, wipe } => Cluster::load(&dir.dir)?.down(*wipe),
        Command::Kill(who) => Cluster::load(&who.dir.dir)?.kill(who.member),
        Command::Stop(who) => Cluster::load(&who.dir.dir)?.stop(who.member),
        Command::Pause(who) => Cluster::load(&who.dir.dir)?.pause(who.member),
        Command::Resume(who) => Cluster::load(&who.dir.dir)?.resume(who.member),
        Command::Start(who) => Cluster::load(&who.dir.dir)?.start(who.member),
        Command::Addr { dir } => {
            println!("{}", Cluster::load(&dir.dir)?.master_addr()?);
            Ok(())
        }
        Command::Admin(who) => {
            println!("{}", Cluster::load(&who.dir.dir)?.admin_addr(who.member)?);
            Ok(())
        }
    }
}

fn up(args: &UpArgs) -> anyhow::Result<()> {
    let before = Cluster::made(&args.dir.dir)?;
    let cluster = Cluster::prepare(&args.dir.dir, spec(args, before)?)?;
    cluster.up()?;
    println!("master  {}", cluster.master_addr()?);
    if let Some(at) = cluster.mount() {
        println!("mount   {}", at.display());
    }
    println!("status  http://{}/api/v1/status", cluster.admin_addr(Member::Master)?);
    println!("logs    {}", args.dir.dir.join("log").display());
    Ok(())
}

/// What the cluster is to be; `before`: what it was.
fn spec(args: &UpArgs, before: Option<Spec>) -> anyhow::Result<Spec> {
    let (master_options, cs_options) = split_options(&args.daemon_options)?;
    // Later commands may be given elsewhere.
    let mount = args.mount.as_deref().map(std::path::absolute).transpose()?;
    let old = before.unwrap_or_else(|| Spec {
        servers: args.servers.unwrap_or(SERVERS),
        disks: args.disks.unwrap_or_else(one),
        replicas: args.replicas.unwrap_or(REPLICAS),
        chunk_size: args.chunk_size,
        mount: None,
        base_port: None,
        mount_options: None,
        tcp: false,
        master_options: Vec::new(),
        cs_options: Vec::new(),
    });
    let made = "the cluster in this directory was made with";
    if let Some(other) = args.replicas.filter(|replicas| *replicas != old.replicas) {
        anyhow::bail!("--replicas {other}: {made} {}", old.replicas);
    }
    let chunk_size = old.chunk_size.unwrap_or(ChunkSize::DEFAULT.bytes());
    if let Some(other) = args.chunk_size.filter(|size| *size != chunk_size) {
        anyhow::bail!("--chunk-size {other}: {made} {chunk_size}");
    }
    if let Some(fewer) = args.servers.filter(|servers| *servers < old.servers) {
        anyhow::bail!("--servers {fewer}: {} have a part of its files", old.servers);
    }
    if let Some(fewer) = args.disks.filter(|disks| *disks < old.disks) {
        anyhow::bail!("--disks {fewer}: {} of each server have a part of its files", old.disks);
    }
    let or_old = |new: Vec<String>, old| if new.is_empty() { old } else { new };
    Ok(Spec {
        servers: args.servers.unwrap_or(old.servers),
        disks: args.disks.unwrap_or(old.disks),
        mount: mount.or(old.mount),
        base_port: args.base_port.or(old.base_port),
        mount_options: args.mount_options.clone().or(old.mount_options),
        tcp: args.tcp || old.tcp,
        master_options: or_old(master_options, old.master_options),
        cs_options: or_old(cs_options, old.cs_options),
        replicas: old.replicas,
        chunk_size: old.chunk_size,
    })
}

/// Options behind `--` belong to the daemon whose word stands before them.
fn split_options(words: &[String]) -> anyhow::Result<(Vec<String>, Vec<String>)> {
    let (mut master, mut cs) = (Vec::new(), Vec::new());
    let mut of: Option<bool> = None;
    for word in words {
        match (word.as_str(), of) {
            ("master", _) => of = Some(true),
            ("cs", _) => of = Some(false),
            (_, Some(true)) => master.push(word.clone()),
            (_, Some(false)) => cs.push(word.clone()),
            (_, None) => anyhow::bail!(
                "{word:?} after `--`: say whose option it is, `-- master {word}` or `-- cs {word}`"
            ),
        }
    }
    Ok((master, cs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_go_to_their_daemon() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let (master, cs) = split_options(&words("cs --io-threads 2 master --gc-delay 5")).unwrap();
        assert_eq!(master, words("--gc-delay 5"));
        assert_eq!(cs, words("--io-threads 2"));
        assert!(split_options(&words("--io-threads 2")).is_err());
    }

    fn asked(text: &str) -> UpArgs {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            up: UpArgs,
        }
        let words = ["up", "--dir", "x"].into_iter().chain(text.split_whitespace());
        <Line as clap::Parser>::parse_from(words).up
    }

    #[test]
    fn a_made_cluster_stays_what_it_was() {
        let made =
            spec(&asked("--servers 5 --replicas 3 --mount /m --tcp -- cs --io-threads 2"), None).unwrap();
        assert_eq!((made.servers, made.replicas), (5, 3));
        let again = spec(&asked(""), Some(made.clone())).unwrap();
        assert_eq!(format!("{made:?}"), format!("{again:?}"));
        let grown = spec(&asked("--servers 6 --replicas 3 --mount /n"), Some(made.clone())).unwrap();
        assert_eq!((grown.servers, grown.mount), (6, Some(PathBuf::from("/n"))));
        for refused in ["--replicas 2", "--chunk-size 65536", "--servers 4"] {
            let error = spec(&asked(refused), Some(made.clone())).unwrap_err().to_string();
            assert!(error.starts_with(refused), "{error}");
        }
        spec(&asked("--chunk-size 67108864"), Some(made)).unwrap();
    }
}
