//! `dfs-fuse`: mounts a dfs file system and serves the mount.
//!
//! Reading order: [`config`] (what is wanted), [`daemon`] (one process becomes two), [`serve`] (the life of
//! a mount), [`mount`] (the kernel's side), [`adapter`] (each request), [`inodes`] and [`notify`] (what the
//! kernel may remember), [`errno`], [`stats`] and [`admin`] (what others may know of it). All knowledge of the cluster is in `dfs-client`.

mod adapter;
mod admin;
mod clock;
mod config;
mod daemon;
mod errno;
mod handles;
mod inodes;
mod logging;
mod mount;
mod notify;
mod procfs;
mod serve;
mod stats;

use std::process::ExitCode;

use config::{Config, ConfigError, Wish};
use daemon::{Report, Side};
use dfs_proto::words::wrong_usage;

fn main() -> ExitCode {
    match config::from_command_line(std::env::args_os()) {
        Ok(Wish::Mount(config)) => start(*config),
        Ok(Wish::Nothing) => ExitCode::SUCCESS,
        Err(ConfigError::Usage(wrong)) if wrong.use_stderr() => wrong_usage("dfs-fuse", &wrong),
        Err(ConfigError::Usage(help)) => help.exit(),
        Err(error) => complain(&error),
    }
}

fn start(config: Config) -> ExitCode {
    if config.foreground {
        return serve::run(&config, Report::to_nobody());
    }
    match daemon::fork() {
        Ok(Side::Parent(code)) => code,
        Ok(Side::Child(report)) => serve::run(&config, report),
        Err(error) => complain(&format!("cannot become a daemon: {error}")),
    }
}

fn complain(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("dfs-fuse: {error}");
    ExitCode::FAILURE
}
