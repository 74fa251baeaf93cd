//! `dfs dev`: a whole cluster as ordinary processes of this machine, its state under one directory. For
//! trying dfs and for tests; production runs the same daemons under systemd.

mod cluster;
mod process;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::dev::cluster::{Cluster, Member, Spec};
pub(crate) use crate::dev::process::find;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a cluster, making it at first; returns when it is ready
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
    /// Chunk servers
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=64))]
    servers: u16,
    /// Replicas of each chunk
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
    replicas: u8,
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
    }
}

fn up(args: &UpArgs) -> anyhow::Result<()> {
    let (master_options, cs_options) = split_options(&args.daemon_options)?;
    // Later commands may be given elsewhere.
    let mount = args.mount.as_deref().map(std::path::absolute).transpose()?;
    let spec = Spec {
        servers: args.servers,
        replicas: args.replicas,
        mount: mount.clone(),
        base_port: args.base_port,
        chunk_size: args.chunk_size,
        mount_options: args.mount_options.clone(),
        tcp: args.tcp,
        master_options,
        cs_options,
    };
    let cluster = Cluster::prepare(&args.dir.dir, spec)?;
    cluster.up()?;
    println!("master  {}", cluster.master_addr()?);
    if let Some(at) = &mount {
        println!("mount   {}", at.display());
    }
    println!("logs    {}", args.dir.dir.join("log").display());
    Ok(())
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
}
