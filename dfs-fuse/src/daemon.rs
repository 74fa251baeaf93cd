//! Becoming a daemon: the command returns only when the mount is live, with the daemon's own error as one
//! line when it is not.
//!
//! [`fork`] must come before the first thread. The child goes on as the daemon and reports once through a
//! pipe; the parent does nothing but wait for that report.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::ExitCode;

use rustix::pipe::PipeFlags;

/// What the child writes when the mount is live, before the number of its session. No error text begins with it.
const LIVE: u8 = 0;

/// Longest report that is read: an error is one line.
const REPORT_MAX: u64 = 4096;

/// Which side of the fork this is.
#[derive(Debug)]
pub(crate) enum Side {
    /// Who waits for the daemon: the command that was typed, or a supervisor.
    Parent(Child),
    /// The daemon.
    Child(Report),
}

/// A daemon that was begun, and has not reported.
#[derive(Debug)]
pub(crate) struct Child {
    pid: libc::pid_t,
    pipe: File,
}

/// What a daemon reported.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// With the number of its session.
    Live(u64),
    /// In one line.
    Failed(String),
}

/// How a daemon ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    Exit(i32),
    Signal(i32),
    /// Nobody knows.
    Unknown,
}

/// The daemon's one chance to say how it went. Dropped unused, it says that the daemon ended.
#[derive(Debug)]
pub(crate) struct Report {
    /// `None` in the foreground, where nobody waits.
    pipe: Option<File>,
}

/// Splits into one that waits, and the daemon.
pub(crate) fn fork() -> io::Result<Side> {
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    // SAFETY: no thread was started yet, so the child inherits no lock that is held by another.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            drop(reader);
            Ok(Side::Child(Report { pipe: Some(writer.into()) }))
        }
        pid => {
            drop(writer);
            Ok(Side::Parent(Child { pid, pipe: reader.into() }))
        }
    }
}

impl Child {
    /// Waits for the report, and makes it the command's own.
    pub(crate) fn pass_on(self) -> ExitCode {
        match self.outcome() {
            Outcome::Live(_) => ExitCode::SUCCESS,
            Outcome::Failed(line) => {
                eprintln!("{line}");
                ExitCode::FAILURE
            }
        }
    }

    /// Waits for the report.
    pub(crate) fn outcome(&self) -> Outcome {
        let mut report = Vec::new();
        // A read error leaves the report empty, which is answered below.
        let _ = (&self.pipe).take(REPORT_MAX).read_to_end(&mut report);
        match report.split_first() {
            Some((&LIVE, session)) => Outcome::Live(session.try_into().map_or(0, u64::from_le_bytes)),
            Some(_) => Outcome::Failed(String::from_utf8_lossy(&report).trim_end().to_owned()),
            None => {
                Outcome::Failed(format!("dfs-fuse: the daemon {} before the mount was live", self.fate()))
            }
        }
    }

    /// Waits for the end.
    pub(crate) fn fate(&self) -> Fate {
        use rustix::process::{Pid, WaitOptions, waitpid};
        let wait = || waitpid(Pid::from_raw(self.pid), WaitOptions::empty());
        match rustix::io::retry_on_intr(wait).ok().flatten().map(|(_, status)| status) {
            Some(status) => match (status.exit_status(), status.terminating_signal()) {
                (_, Some(signal)) => Fate::Signal(signal),
                (Some(code), None) => Fate::Exit(code),
                (None, None) => Fate::Unknown,
            },
            None => Fate::Unknown,
        }
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fate::Exit(code) => write!(f, "ended with code {code}"),
            Fate::Signal(signal) => write!(f, "was killed by signal {signal}"),
            Fate::Unknown => f.write_str("ended"),
        }
    }
}

impl Report {
    /// For a process that stays in the foreground.
    pub(crate) fn to_nobody() -> Report {
        Report { pipe: None }
    }

    /// The mount is live: lets go of the terminal, then of the waiting command. Until here the daemon is in
    /// the command's process group, so that Ctrl-C ends both.
    pub(crate) fn live(self, session: u64) -> io::Result<()> {
        let Some(mut pipe) = self.pipe else { return Ok(()) };
        rustix::process::setsid()?;
        // The daemon must not keep the directory it was started in from being unmounted or removed.
        rustix::process::chdir(c"/")?;
        let null = File::options().read(true).write(true).open("/dev/null")?;
        redirect_standard_streams(&null.into())?;
        let mut report = vec![LIVE];
        report.extend(session.to_le_bytes());
        pipe.write_all(&report)
    }

    /// What a daemon of this process reported.
    pub(crate) fn pass_on(self, outcome: &Outcome) -> io::Result<()> {
        match outcome {
            Outcome::Live(session) => self.live(*session),
            Outcome::Failed(line) => {
                self.failed(line);
                Ok(())
            }
        }
    }

    /// It failed: `line` is what the command prints.
    pub(crate) fn failed(self, line: &str) {
        match self.pipe {
            // If the command is gone, nobody is left to be told.
            Some(mut pipe) => drop(pipe.write_all(line.as_bytes())),
            None => eprintln!("{line}"),
        }
    }
}

fn redirect_standard_streams(null: &OwnedFd) -> io::Result<()> {
    for stream in [libc::STDIN_FILENO, libc::STDOUT_FILENO, libc::STDERR_FILENO] {
        // SAFETY: both are open descriptors, and the standard streams are owned by no Rust value.
        if unsafe { libc::dup2(null.as_raw_fd(), stream) } == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
