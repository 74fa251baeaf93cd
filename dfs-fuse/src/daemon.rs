//! Becoming a daemon: the command returns only when the mount is live, with the daemon's own error as one
//! line when it is not.
//!
//! [`fork`] must come before the first thread. The child goes on as the daemon and reports once through a
//! pipe; the parent does nothing but wait for that report.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::ExitCode;

use rustix::pipe::PipeFlags;

/// What the child writes when the mount is live. No error text begins with it.
const LIVE: u8 = 0;

/// Longest report that is read: an error is one line.
const REPORT_MAX: u64 = 4096;

/// Which side of the fork this is.
#[derive(Debug)]
pub(crate) enum Side {
    /// The command that was typed, with the daemon's report: this becomes the exit code.
    Parent(ExitCode),
    /// The daemon.
    Child(Report),
}

/// The daemon's one chance to say how it went. Dropped unused, it says that the daemon ended.
#[derive(Debug)]
pub(crate) struct Report {
    /// `None` in the foreground, where nobody waits.
    pipe: Option<File>,
}

/// Splits into the command, which waits, and the daemon.
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
            Ok(Side::Parent(wait(reader.into(), pid)))
        }
    }
}

fn wait(pipe: File, pid: libc::pid_t) -> ExitCode {
    let mut report = Vec::new();
    // A read error leaves the report empty, which is answered below.
    let _ = pipe.take(REPORT_MAX).read_to_end(&mut report);
    match report.split_first() {
        Some((&LIVE, _)) => return ExitCode::SUCCESS,
        Some(_) => eprintln!("{}", String::from_utf8_lossy(&report).trim_end()),
        None => eprintln!("dfs-fuse: the daemon {} before the mount was live", fate(pid)),
    }
    ExitCode::FAILURE
}

/// How the child ended.
fn fate(pid: libc::pid_t) -> String {
    let status = rustix::process::Pid::from_raw(pid).and_then(|pid| {
        rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()).ok().flatten()
    });
    match status.map(|(_, status)| (status.exit_status(), status.terminating_signal())) {
        Some((_, Some(signal))) => format!("was killed by signal {signal}"),
        Some((Some(code), _)) => format!("ended with code {code}"),
        Some((None, None)) | None => "ended".to_owned(),
    }
}

impl Report {
    /// For a process that stays in the foreground.
    pub(crate) fn to_nobody() -> Report {
        Report { pipe: None }
    }

    /// The mount is live: lets go of the terminal, then of the waiting command. Until here the daemon is in
    /// the command's process group, so that Ctrl-C ends both.
    pub(crate) fn live(self) -> io::Result<()> {
        let Some(mut pipe) = self.pipe else { return Ok(()) };
        rustix::process::setsid()?;
        // The daemon must not keep the directory it was started in from being unmounted or removed.
        rustix::process::chdir(c"/")?;
        let null = File::options().read(true).write(true).open("/dev/null")?;
        redirect_standard_streams(&null.into())?;
        pipe.write_all(&[LIVE])
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
