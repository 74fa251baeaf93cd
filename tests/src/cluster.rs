//! A cluster of real processes with a mount, for tests: `dfs dev` under a temporary directory, taken down
//! when dropped. Each uses free ports and a directory of its own, so copies run side by side.
//!
//! The binaries come from `DFS_BIN`, else from this workspace's release or debug build; without them a
//! test fails, it doesn't skip.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

/// A test's cluster lives no longer than this. A mount waits for its servers as long as it takes, so that what is
/// wrong with them shows as a system call that never returns.
const LIMIT: Duration = Duration::from_secs(300);

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    dir: TempDir,
    bin: PathBuf,
    /// Dropped with the cluster: its watch ends.
    _over: Sender<()>,
}

/// Where the daemons' binaries are.
#[must_use]
pub fn binaries() -> PathBuf {
    if let Some(dir) = std::env::var_os("DFS_BIN") {
        return PathBuf::from(dir);
    }
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let found =
        ["release", "debug"].iter().map(|kind| target.join(kind)).find(|dir| dir.join("dfs-fuse").exists());
    found.expect("no binaries: run `cargo build --release` first, or set DFS_BIN")
}

impl Cluster {
    /// Starts a cluster with a mount; `args` go to `dfs dev up`.
    #[must_use]
    pub fn up(args: &[&str]) -> Cluster {
        // On a disk: tmpfs refuses what the chunk store asks of a filesystem.
        let base = std::env::var_os("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
        let dir = TempDir::with_prefix_in("dfs-test.", base).expect("temporary directory");
        let (over, watched) = channel();
        let cluster = Cluster { dir, bin: binaries(), _over: over };
        let (dir, bin) = (cluster.dir.path().to_path_buf(), cluster.bin.clone());
        thread::spawn(move || {
            if watched.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
                // Past what the harness keeps of a test until it ends: this one may not.
                let said =
                    format!("a test has not ended within {LIMIT:?}; its cluster goes down\n{}", logs(&dir));
                drop(std::io::stderr().write_all(said.as_bytes()));
                // A new process closes what this one has open on the mount, and may wait for it too.
                signal(&dir, "mount", Signal::KILL);
                down(&bin, &dir);
            }
        });
        let mount = cluster.mount().display().to_string();
        let mut all = vec!["--mount", &mount];
        all.extend_from_slice(args);
        cluster.dev("up", &all);
        cluster
    }

    /// Where it is mounted.
    #[must_use]
    pub fn mount(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }

    /// A path on the mount.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.mount().join(name)
    }

    /// A directory beside the mount, on a local disk.
    #[must_use]
    pub fn local(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `dfs dev COMMAND --dir ... ARGS`; what it prints.
    ///
    /// # Panics
    /// When it fails.
    pub fn dev(&self, command: &str, args: &[&str]) -> String {
        let state = self.dir.path().join("cluster");
        let mut run = Command::new(self.bin.join("dfs"));
        run.arg("dev").arg(command).arg("--dir").arg(state).args(args);
        text(run.output().expect("dfs runs"), command)
    }

    /// Lets a paused member go on, without a new process: that one would first close what this one has open on the mount,
    /// and may wait for the member.
    pub fn resume(&self, member: &str) {
        signal(self.dir.path(), member, Signal::CONT);
    }

    /// `dfs ARGS` with the cluster's master; what it prints.
    ///
    /// # Panics
    /// When it fails.
    #[must_use]
    pub fn dfs(&self, args: &[&str]) -> String {
        text(self.try_dfs(args), &args.join(" "))
    }

    /// `dfs ARGS`, however it ends.
    ///
    /// # Panics
    /// When there is no such program.
    #[must_use]
    pub fn try_dfs(&self, args: &[&str]) -> Output {
        let master = self.dev("addr", &[]);
        let mut run = Command::new(self.bin.join("dfs"));
        run.args(args).env("DFS_MASTER", master.trim()).output().expect("dfs runs")
    }

    /// `dfs --json ARGS`, parsed.
    ///
    /// # Panics
    /// When it fails or prints no JSON.
    #[must_use]
    pub fn json(&self, args: &[&str]) -> serde_json::Value {
        let mut all = vec!["--json"];
        all.extend_from_slice(args);
        serde_json::from_str(&self.dfs(&all)).expect("JSON")
    }

    /// `dfs COMMAND --disk ... ARGS` with these servers' disks.
    ///
    /// # Panics
    /// When there is no `dfs` to run.
    #[must_use]
    pub fn offline(&self, command: &[&str], servers: &[&str], args: &[&str]) -> Output {
        let mut run = Command::new(self.bin.join("dfs"));
        run.args(command);
        for server in servers {
            run.arg("--disk").arg(self.local("cluster").join(server).join("disk"));
        }
        run.args(args).output().expect("dfs runs")
    }

    /// Where each chunk server listens, as the master knows it.
    ///
    /// # Panics
    /// When the master does not say it.
    #[must_use]
    pub fn server_addrs(&self) -> Vec<String> {
        let list = self.json(&["server", "list"]);
        let servers = list["servers"].as_array().expect("a list of servers");
        let addr = |server: &serde_json::Value| server["addr"]["tcp"].as_str().map(str::to_owned);
        servers.iter().map(|server| addr(server).unwrap_or_else(|| panic!("{server}"))).collect()
    }

    /// `dfs` with this command that asks these servers, of which some may not answer.
    ///
    /// # Panics
    /// When it can't be run.
    #[must_use]
    pub fn ask_servers(&self, command: &[&str], addrs: &[String], args: &[&str]) -> Output {
        let mut run = Command::new(self.bin.join("dfs"));
        run.args(command);
        for addr in addrs {
            run.args(["--server", addr]);
        }
        run.args(args).output().expect("dfs runs")
    }

    /// The master's directory.
    #[must_use]
    pub fn master_dir(&self) -> PathBuf {
        self.local("cluster/master")
    }

    /// Mounts it a second time.
    ///
    /// # Panics
    /// When that fails.
    #[must_use]
    pub fn mount_again(&self) -> SecondMount {
        let second = self.local("second");
        std::fs::create_dir(&second).expect("a directory to mount at");
        let master = self.dev("addr", &[]);
        let mount =
            Command::new(self.bin.join("dfs-fuse")).args(["--master", master.trim()]).arg(&second).status();
        assert!(mount.expect("dfs-fuse runs").success());
        SecondMount(second)
    }

    /// The names of the servers that hold the first chunk of the file, the primary first.
    ///
    /// # Panics
    /// When the file has no chunk.
    #[must_use]
    pub fn holders(&self, path: &Path) -> Vec<String> {
        let info = self.json(&["file", "info", &path.display().to_string()]);
        let members = info["chunks"][0]["members"].as_array().expect("a chunk with members");
        members.iter().map(|m| m["name"].as_str().unwrap_or("?").to_owned()).collect()
    }

    /// Polls `dfs status` until `ready` holds; a minute is the bound for anything that repairs itself.
    ///
    /// # Panics
    /// When it does not hold in time.
    pub fn wait_for(&self, what: &str, ready: impl Fn(&serde_json::Value) -> bool) {
        for _ in 0..600 {
            if ready(&self.json(&["status"])) {
                return;
            }
            thread::sleep(Duration::from_millis(100));
        }
        panic!("not within a minute: {what}; {}", self.json(&["status"]));
    }

    /// The last lines of every process's log, for a failing test's message.
    #[must_use]
    pub fn logs(&self) -> String {
        logs(self.dir.path())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.logs());
        }
        down(&self.bin, self.dir.path());
    }
}

fn logs(dir: &Path) -> String {
    let mut all = String::new();
    for entry in std::fs::read_dir(dir.join("cluster/log")).into_iter().flatten().flatten() {
        let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
        let tail: Vec<&str> = text.lines().rev().take(20).collect();
        all.push_str(&format!("== {}\n", entry.path().display()));
        all.extend(tail.iter().rev().map(|line| format!("{line}\n")));
    }
    all
}

fn signal(dir: &Path, member: &str, signal: Signal) {
    let pid = std::fs::read_to_string(dir.join(format!("cluster/run/{member}.pid"))).unwrap_or_default();
    if let Some(pid) = pid.trim().parse().ok().and_then(Pid::from_raw) {
        _ = rustix::process::kill_process(pid, signal);
    }
}

fn down(bin: &Path, dir: &Path) {
    let state = dir.join("cluster");
    let down = Command::new(bin.join("dfs")).args(["dev", "down", "--dir"]).arg(state).output();
    if !down.as_ref().is_ok_and(|o| o.status.success()) {
        eprintln!("dfs dev down: {down:?}");
    }
}

/// A mount beside the cluster's own, unmounted when dropped.
#[derive(Debug)]
pub struct SecondMount(pub PathBuf);

impl Drop for SecondMount {
    fn drop(&mut self) {
        let status = Command::new("fusermount3").arg("-u").arg(&self.0).status();
        if !status.is_ok_and(|s| s.success()) {
            drop(Command::new("umount").arg("-l").arg(&self.0).status());
        }
    }
}

/// The one line that a command that failed has to say.
///
/// # Panics
/// When it did not fail, or said more or less.
#[must_use]
pub fn refusal(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{output:?}");
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

fn text(output: Output, what: &str) -> String {
    assert!(
        output.status.success(),
        "{what}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("text")
}

/// Runs a shell command in a directory; fails the test when it does.
///
/// # Panics
/// When the command fails.
pub fn sh(dir: &Path, script: &str) -> String {
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", script])
        .current_dir(dir)
        .output()
        .expect("bash");
    text(output, script)
}
