//! The `dfs` command: what an operator or a user asks of a cluster. One file a command; this one only
//! parses and dispatches. It holds no state of the cluster and changes none by itself.

mod backup;
mod chunk;
mod clock;
mod connect;
mod damaged;
mod dev;
mod doctor;
mod file;
mod from_servers;
mod fsck;
mod goal;
mod heat;
mod offline;
mod online;
mod ops;
mod output;
mod policy;
mod rebuild;
mod recover;
mod scrub;
mod repair;
mod server;
mod session;
mod status;
mod support;
mod top;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use dfs_daemon::pages;
use dfs_proto::words::wrong_usage;

/// Ask a dfs cluster how it is, and run one on this machine for trying.
#[derive(Debug, Parser)]
#[command(name = "dfs", version, max_term_width = 100)]
struct Args {
    /// The master's address, HOST:PORT or unix:/PATH. Commands on a path find it from the path's own mount.
    #[arg(long, global = true, env = "DFS_MASTER")]
    master: Option<String>,
    /// Print JSON instead of tables.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The cluster on one page
    Status,
    /// What the cluster moves now: in all, each server, the busiest chunks. Again every second, until interrupted
    Top(top::Args),
    /// What is under way and what took long lately: on the master, each chunk server and each mount, who waits for whom
    Ops(ops::Args),
    /// Why the master is on hold, what going on costs, and to go on; or, with --from-servers, a new master's directory
    /// of the copies that chunk servers keep
    Recover(recover::Args),
    /// Copy the master's state into a new directory while it runs, and check what was written
    Backup(backup::BackupArgs),
    /// Check a backup of the master's state, and make a master's directory of it
    Restore(backup::RestoreArgs),
    /// Make a new master's directory of what chunk headers say, when all masters are gone and so is every copy of
    /// their log
    RebuildNamespace(rebuild::Args),
    /// Check the master's state and what servers have. Exit code: 0 clean, 1 findings, 2 not all could be checked
    Fsck(fsck::Args),
    /// Files with bytes of which no good replica is left or can be reached. Exit code: 0 none, 1 some, 2 not known
    Damaged(damaged::Args),
    /// Make a damaged file readable by giving up what is lost of it, after asking
    RepairFile(repair::Args),
    /// Chunk servers
    #[command(subcommand)]
    Server(server::Command),
    /// Mounts
    #[command(subcommand)]
    Session(session::Command),
    /// How well the disks keep what they were given
    #[command(subcommand)]
    Scrub(scrub::Command),
    /// Files
    #[command(subcommand)]
    File(file::Command),
    /// What is read and written most
    #[command(subcommand)]
    Heat(heat::Command),
    /// How the number of replicas follows the load
    #[command(subcommand)]
    Policy(policy::Command),
    /// How many replicas files are to have, each its own number or the cluster's
    #[command(subcommand)]
    Goal(goal::Command),
    /// Chunks of files
    #[command(subcommand)]
    Chunk(chunk::Command),
    /// Look at this machine and its cluster for what dfs needs and does not find. Exit code: 0 nothing is wrong, 1 something
    Doctor(doctor::Args),
    /// Gather in one file what somebody who is to help needs to see: what the cluster and this machine say of themselves,
    /// logs, and options without secrets
    SupportBundle(support::Args),
    /// A cluster of ordinary processes on this machine, for trying and testing
    #[command(subcommand)]
    Dev(dev::Command),
}

/// Lets a reader that goes away (`dfs ... | head`) end the command, as it ends others. Rust ignores the signal,
/// and printing would panic.
fn obey_closed_pipes() {
    // SAFETY: no other thread runs yet, and the default action installs no handler.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

fn main() -> ExitCode {
    obey_closed_pipes();
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    match pages::if_asked(|| vec![Args::command()]) {
        Ok(false) => {}
        Ok(true) => return ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dfs: {error}");
            return ExitCode::FAILURE;
        }
    }
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(wrong) if wrong.use_stderr() => return wrong_usage("dfs", &wrong),
        Err(help) => help.exit(),
    };
    let target = connect::Target { master: args.master, json: args.json };
    let result = match args.command {
        Command::Status => status::run(&target),
        Command::Top(args) => top::run(&target, &args),
        Command::Ops(args) => ops::run(&target, &args),
        Command::Recover(args) if args.from_servers => return from_servers::run(&target, &args),
        Command::Recover(args) => recover::run(&target, &args),
        Command::SupportBundle(args) => support::run(&target, &args),
        Command::Doctor(args) => return doctor::run(&target, &args),
        Command::Backup(args) => return backup::backup(&target, &args),
        Command::Restore(args) => return backup::restore(&target, &args),
        Command::RebuildNamespace(args) => return rebuild::run(&target, &args),
        Command::Fsck(args) => return fsck::run(&target, &args),
        Command::Damaged(args) => return damaged::run(&target, &args),
        Command::RepairFile(args) => repair::run(&target, &args),
        Command::Server(command) => server::run(&target, &command),
        Command::Session(command) => session::run(&target, &command),
        Command::Scrub(command) => scrub::run(&target, &command),
        Command::File(command) => file::run(&target, &command),
        Command::Heat(command) => heat::run(&target, &command),
        Command::Policy(command) => policy::run(&target, &command),
        Command::Goal(command) => goal::run(&target, &command),
        Command::Chunk(command) => chunk::run(&target, &command),
        Command::Dev(command) => dev::run(&command),
    };
    output::ended(result.map(|()| ExitCode::SUCCESS), ExitCode::FAILURE)
}
