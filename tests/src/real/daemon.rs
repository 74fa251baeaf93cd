//! One daemon: a child process with its output in a log file, in a host of its own if asked. Only children of
//! this process are ever signalled, so no process of somebody else can be meant.
//!
//! A host is what the daemons tell hosts apart by: a network namespace, and a kernel's boot id. The boot id is a
//! file mounted over `/proc/sys/kernel/random/boot_id` for that process alone, so that a power cut in a test is a
//! reboot to the daemon, as it would be.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use rustix::process::{Pid, Signal};

use super::clock;

/// How long a process may take until it serves, and to die when it is killed.
const READY: Duration = Duration::from_secs(60);

/// Where a daemon runs.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// Name of a network namespace that `ip netns` made; ours when `None`.
    pub netns: Option<String>,
    /// File that holds its kernel's boot id; ours when `None`.
    pub boot_id: Option<PathBuf>,
}

/// A process that was started here, or is to be.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    log: PathBuf,
    child: Option<Child>,
}

impl Daemon {
    /// One that is not running yet.
    #[must_use]
    pub fn new(name: &str, log: PathBuf) -> Daemon {
        Daemon { name: name.to_owned(), log, child: None }
    }

    /// Starts it. It dies with the thread that started it.
    ///
    /// # Errors
    /// When it runs, or can't be started.
    pub fn spawn(&mut self, host: &Host, binary: &Path, args: &[String]) -> anyhow::Result<()> {
        if self.is_running() {
            bail!("{} runs already", self.name);
        }
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.with_context(|| self.log.display().to_string())?;
        let mut words: Vec<String> = ["setpriv", "--pdeathsig", "KILL"].map(str::to_owned).to_vec();
        if let Some(name) = &host.netns {
            words.extend(["nsenter".to_owned(), format!("--net=/run/netns/{name}")]);
        }
        if let Some(file) = &host.boot_id {
            let mount = "mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"";
            words.extend(
                ["unshare", "--mount", "--propagation", "slave", "sh", "-c", mount].map(str::to_owned),
            );
            words.push(file.display().to_string());
        }
        words.push(binary.display().to_string());
        // Each of the words' programs replaces itself by the next, so the child is the daemon in the end.
        let child = Command::new(&words[0])
            .args(&words[1..])
            .args(args)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// Waits until `ready` gives something.
    ///
    /// # Errors
    /// When the process ends before, or it takes more than a minute; with the log's last lines.
    pub fn wait_ready<T>(&mut self, mut ready: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
        let found = clock::poll(READY, || match ready() {
            Some(found) => Ok(Some(found)),
            None if self.is_running() => Ok(None),
            None => bail!("{} ended at its start:\n{}", self.name, self.log_tail(8)),
        })?;
        found.ok_or_else(|| anyhow!("{} is not ready after {READY:?}:\n{}", self.name, self.log_tail(8)))
    }

    /// Whether it was started and has not ended.
    pub fn is_running(&mut self) -> bool {
        match self.child.as_mut().map(Child::try_wait) {
            Some(Ok(None)) => true,
            Some(Ok(Some(_)) | Err(_)) | None => {
                self.child = None;
                false
            }
        }
    }

    /// Sends a signal, if it runs.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn signal(&mut self, signal: Signal) -> anyhow::Result<()> {
        if !self.is_running() {
            return Ok(());
        }
        let pid = self.child.as_ref().and_then(|child| Pid::from_raw(i32::try_from(child.id()).ok()?));
        let pid = pid.ok_or_else(|| anyhow!("{} has no pid", self.name))?;
        rustix::process::kill_process(pid, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// SIGKILL, and waits for the end.
    ///
    /// # Errors
    /// When it does not die: it hangs in the kernel.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::KILL)?;
        self.wait_gone()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it goes on for a minute.
    pub fn wait_gone(&mut self) -> anyhow::Result<()> {
        let gone = clock::poll(READY, || Ok((!self.is_running()).then_some(())))?;
        gone.ok_or_else(|| anyhow!("{} does not end:\n{}", self.name, self.log_tail(8)))
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log_tail(&self, count: usize) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().rev().take(count).collect();
        lines.into_iter().rev().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended by itself.
            drop(child.kill());
            drop(child.wait());
        }
    }
}
