//! One daemon of a dev cluster: started in the background with its output in a log file, known by a pid
//! file. A pid is believed only while the process behind it runs the binary that we started.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use rustix::process::{Pid, Signal};

use crate::clock::Deadline;
use crate::output::Waiting;

/// A daemon to be, or being, run.
#[derive(Debug)]
pub(crate) struct Daemon {
    pub(crate) name: String,
    /// Name of the binary.
    pub(crate) binary: &'static str,
    pub(crate) pid_file: PathBuf,
    pub(crate) log_file: PathBuf,
}

impl Daemon {
    /// The live process, if there is one.
    pub(crate) fn pid(&self) -> anyhow::Result<Option<Pid>> {
        let text = match std::fs::read_to_string(&self.pid_file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context(self.pid_file.display().to_string()),
        };
        let Some(pid) = text.trim().parse().ok().and_then(Pid::from_raw) else { return Ok(None) };
        Ok(runs(pid, self.binary).then_some(pid))
    }

    /// Starts the binary with its output going to the log, in a process group of its own so that a Ctrl-C
    /// at the terminal doesn't reach it.
    pub(crate) fn spawn(&self, args: &[String]) -> anyhow::Result<Child> {
        let binary = find(self.binary)?;
        let log = File::options().create(true).append(true).open(&self.log_file);
        let log = log.with_context(|| self.log_file.display().to_string())?;
        let child = Command::new(&binary)
            .args(args)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        dfs_write(&self.pid_file, child.id().to_string().as_bytes())?;
        Ok(child)
    }

    /// Waits until `ready` says so; fails with the log's last lines when the process ends before.
    pub(crate) fn wait_ready<T>(
        &self,
        mut child: Child,
        patience: Duration,
        mut ready: impl FnMut() -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        let _waiting = Waiting::show(&format!("{} starts", self.name));
        let found = Deadline::after(patience).poll(|| {
            if let Some(found) = ready()? {
                return Ok(Some(found));
            }
            if let Some(status) = child.try_wait()? {
                bail!("{} ended at its start ({status}):\n{}", self.name, self.log_tail());
            }
            Ok(None)
        })?;
        found.ok_or_else(|| anyhow!("{} is not ready after {patience:?}:\n{}", self.name, self.log_tail()))
    }

    /// Sends a signal to the process; an error when it does not run.
    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = self.pid()?.ok_or_else(|| anyhow!("{} is not running", self.name))?;
        rustix::process::kill_process(pid, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// Waits until the process is gone. Whether it went.
    pub(crate) fn wait_gone(&self, patience: Duration) -> anyhow::Result<bool> {
        let _waiting = Waiting::show(&format!("{} stops", self.name));
        let gone = Deadline::after(patience).poll(|| Ok(self.pid()?.is_none().then_some(())))?;
        Ok(gone.is_some())
    }

    pub(crate) fn log_tail(&self) -> String {
        let text = std::fs::read(&self.log_file).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().rev().take(10).collect();
        lines.into_iter().rev().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
    }
}

/// Whether `pid` runs `binary` and anything of it is alive. Its first thread alone does not tell: that one is a zombie at
/// once, while another that waits for a disk still holds the files and ports of all.
fn runs(pid: Pid, binary: &str) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero())) else { return false };
    let stats: Vec<String> = threads
        .flatten()
        .filter_map(|thread| std::fs::read_to_string(thread.path().join("stat")).ok())
        .collect();
    // "PID (comm) STATE ...": comm is cut to 15 bytes and may hold anything, so look from the last ')'.
    let fields = stats.iter().filter_map(|stat| {
        let (head, tail) = stat.rsplit_once(')')?;
        Some((head.split_once('(')?.1, tail.trim_start().chars().next()?))
    });
    let cut = &binary[..binary.len().min(15)];
    let mut ours = false;
    let mut alive = false;
    for (comm, state) in fields {
        ours |= comm == cut;
        alive |= !matches!(state, 'Z' | 'X');
    }
    ours && alive
}

/// Has a daemon print the options that its file comes to.
pub(crate) fn print_config(binary: &str, file: &Path) -> anyhow::Result<Command> {
    let mut command = Command::new(find(binary)?);
    command.args((binary == "dfs-master").then_some("run")).arg("--config").arg(file).arg("--print-config");
    Ok(command)
}

/// The binary beside this one, else from PATH.
pub(crate) fn find(binary: &str) -> anyhow::Result<PathBuf> {
    let beside = std::env::current_exe()?.with_file_name(binary);
    if beside.is_file() {
        return Ok(beside);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(binary)).find(|file| file.is_file());
    found.ok_or_else(|| {
        anyhow!("{binary} is neither beside dfs ({}) nor in PATH: build or install it", beside.display())
    })
}

/// Writes a small run-time file whole: pid files and the like are read by others while we write.
pub(crate) fn dfs_write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    use std::io::Write;
    let temp = path.with_extension("tmp");
    let mut file = File::create(&temp).with_context(|| temp.display().to_string())?;
    file.write_all(bytes)?;
    std::fs::rename(&temp, path).with_context(|| path.display().to_string())
}
