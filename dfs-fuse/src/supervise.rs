//! A daemon that crashed has a successor: this process stays, does nothing but wait for the daemon that it began, and
//! begins another one when that did not end by itself.
//!
//! The kernel keeps the mount of a dead daemon, in which every call fails with ENOTCONN, and no daemon can take it over.
//! The successor has a session with the cluster first; then it takes the dead mount out of the tree and mounts. So no
//! program ever finds the empty directory underneath and writes there, however long the cluster is away.
//!
//! The process has one thread, so that it can fork, and no handlers of signals: who ends it leaves a mount that works and
//! has no successor.

use std::process::ExitCode;
use std::time::Duration;

use dfs_daemon::logging::to_syslog;
use log::Level;

use crate::clock;
use crate::config::{Config, Origin};
use crate::daemon::{self, Child, Fate, Outcome, Report, Side};
use crate::mount::Device;
use crate::serve::{self, LOST};

const NAME: &std::ffi::CStr = c"dfs-fuse";

/// Pauses before the next daemon: none at first, and the longest is short beside what a try takes while no master
/// answers.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// A daemon that lived so long does not crash over and over.
const LIVED_LONG: Duration = Duration::from_secs(10);

/// Mounts, and mounts again whenever the daemon crashed, until the mount is taken away.
pub(crate) fn run(mut config: Config, origin: Option<Origin>, report: Report) -> ExitCode {
    // What cannot be found is the daemon's to report.
    if let Ok(path) = config.mount_point.canonicalize() {
        config.mount_point = path;
    }
    let mut report = Some(report);
    // What the last daemon that was live left at the mount point.
    let mut left = None;
    let mut pause = Duration::ZERO;
    loop {
        let child = match daemon::fork() {
            Ok(Side::Child(own)) => {
                // The command waits until nobody holds its pipe any more.
                drop(report);
                return serve::run(&config, origin, own);
            }
            Ok(Side::Parent(child)) => child,
            Err(error) => {
                say(Level::Error, &format!("no daemon can be started: {error}"));
                return ExitCode::FAILURE;
            }
        };
        let outcome = child.outcome();
        if let Some(report) = report.take() {
            if let Err(error) = report.pass_on(&outcome) {
                say(Level::Error, &format!("cannot let go of the terminal: {error}"));
            }
            if matches!(outcome, Outcome::Failed(_)) {
                return ExitCode::FAILURE;
            }
        }
        let began = clock::now();
        match outcome {
            Outcome::Live(session) => match wait(&config, &child) {
                Ended::ByItself(code) => return code,
                Ended::Crashed { left: device } => {
                    left = device;
                    config.dead_session = Some(session);
                }
            },
            Outcome::Failed(line) => {
                child.fate();
                say(Level::Warn, &format!("{line}; trying again"));
            }
        }
        if Device::at(&config.mount_point) != left {
            say(Level::Info, "somebody else unmounted, or mounted here: this mount is over");
            return ExitCode::SUCCESS;
        }
        let lived = clock::now().saturating_duration_since(began);
        pause = if lived > LIVED_LONG { Duration::ZERO } else { pause };
        std::thread::sleep(pause);
        pause = (pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        config.replace_dead = true;
        config.dead_device = left;
    }
}

/// How a daemon that had mounted came to its end.
enum Ended {
    /// It was asked to, or somebody unmounted.
    ByItself(ExitCode),
    Crashed {
        left: Option<Device>,
    },
}

fn wait(config: &Config, child: &Child) -> Ended {
    let device = Device::at(&config.mount_point);
    let fate = child.fate();
    let left = match fate {
        // It took the mount out of the tree itself.
        Fate::Exit(code) if code == i32::from(LOST) => None,
        Fate::Exit(code) => {
            return Ended::ByItself(u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from));
        }
        Fate::Signal(_) | Fate::Unknown => device,
    };
    say(Level::Error, &format!("the daemon of {} {fate}: mounting again", config.mount_point.display()));
    Ended::Crashed { left }
}

fn say(level: Level, line: &str) {
    to_syslog(NAME, level, line);
}
