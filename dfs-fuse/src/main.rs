//! `dfs-fuse`: mounts a dfs file system and serves the mount.
//!
//! Reading order: [`config`] (what is wanted), [`daemon`] (one process becomes two), [`supervise`] (a daemon that
//! crashed has a successor), [`serve`] (the life of a mount), [`mount`] (the kernel's side), [`adapter`] (each
//! request), [`inodes`] and [`notify`] (what the kernel may remember), [`errno`], [`stats`] and [`admin`]
//! (what others may know of it). All knowledge of the cluster is in `dfs-client`.

mod adapter;
mod admin;
mod clock;
mod config;
mod daemon;
mod errno;
mod handles;
mod inodes;
mod mount;
mod notify;
mod procfs;
mod serve;
mod stats;
mod supervise;

use std::process::ExitCode;

use config::{Config, ConfigError, Origin, Wish};
use daemon::{Report, Side};
use dfs_daemon::pages;

fn main() -> ExitCode {
    match pages::if_asked(config::commands) {
        Ok(false) => {}
        Ok(true) => return ExitCode::SUCCESS,
        Err(error) => return complain(&error),
    }
    match config::from_command_line(std::env::args_os()) {
        Ok(Wish::Mount(config, origin)) => start(*config, origin),
        Ok(Wish::Print(text)) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Ok(Wish::Nothing) => ExitCode::SUCCESS,
        Err(ConfigError::Settings(wrong)) => wrong.tell("dfs-fuse"),
        Err(error) => complain(&error),
    }
}

fn start(config: Config, origin: Option<Origin>) -> ExitCode {
    if config.foreground {
        return serve::run(&config, origin, Report::to_nobody());
    }
    match daemon::fork() {
        Ok(Side::Parent(child)) => child.pass_on(),
        Ok(Side::Child(report)) if config.options.supervise => supervise::run(config, origin, report),
        Ok(Side::Child(report)) => serve::run(&config, origin, report),
        Err(error) => complain(&format!("cannot become a daemon: {error}")),
    }
}

fn complain(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("dfs-fuse: {error}");
    ExitCode::FAILURE
}
