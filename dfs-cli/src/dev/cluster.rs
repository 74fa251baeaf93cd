//! A dev cluster: its directory, what it was asked to be, and its processes.
//!
//! ```text
//! DIR/dev.json   what it is (Spec) and where its processes listen
//! DIR/master     the master's log and snapshots        DIR/csN/disk, disk2, ...  a chunk server's disks
//! DIR/run        pid files, port files, Unix sockets   DIR/log       what the processes say
//! ```

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use crate::dev::process::{Daemon, dfs_write};
use dfs_proto::words::in_words;

/// How long a process may take until it serves: a master replays its log, a server reads its headers.
const READY: Duration = Duration::from_secs(60);
/// How long a process may take to stop after SIGTERM; each daemon's own bound is 10 s.
const STOPPED: Duration = Duration::from_secs(15);

/// What the cluster was asked to be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub(crate) servers: u16,
    #[serde(default = "one")]
    pub(crate) disks: u16,
    pub(crate) replicas: u8,
    pub(crate) mount: Option<PathBuf>,
    pub(crate) base_port: Option<u16>,
    pub(crate) chunk_size: Option<u32>,
    pub(crate) mount_options: Option<String>,
    pub(crate) tcp: bool,
    pub(crate) master_options: Vec<String>,
    pub(crate) cs_options: Vec<String>,
}

/// Disks of a server, where nobody said.
pub(crate) fn one() -> u16 {
    1
}

/// One of its processes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Member {
    Master,
    Server(u16),
    Mount,
}

impl FromStr for Member {
    type Err = String;

    fn from_str(text: &str) -> Result<Member, String> {
        match text {
            "master" => Ok(Member::Master),
            "mount" => Ok(Member::Mount),
            _ => text
                .strip_prefix("cs")
                .and_then(|n| n.parse().ok())
                .filter(|n| *n > 0)
                .map(Member::Server)
                .ok_or_else(|| format!("{text:?}: expected master, mount, cs1, cs2, ...")),
        }
    }
}

impl std::fmt::Display for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Member::Master => f.write_str("master"),
            Member::Server(n) => write!(f, "cs{n}"),
            Member::Mount => f.write_str("mount"),
        }
    }
}

/// A cluster under a directory.
#[derive(Debug)]
pub(crate) struct Cluster {
    dir: PathBuf,
    spec: Spec,
}

fn is_made(dir: &Path) -> bool {
    dir.join("master/cluster.json").exists()
}

impl Cluster {
    /// The cluster that is under `dir`.
    pub(crate) fn load(dir: &Path) -> anyhow::Result<Cluster> {
        let dir = std::path::absolute(dir)?;
        let file = dir.join("dev.json");
        let text = std::fs::read(&file).with_context(|| {
            format!("no dev cluster in {} (start one with `dfs dev up --dir ...`)", dir.display())
        })?;
        let spec = serde_json::from_slice(&text).with_context(|| file.display().to_string())?;
        Ok(Cluster { dir, spec })
    }

    /// What the cluster in `dir` was the last time; none where none was made.
    pub(crate) fn made(dir: &Path) -> anyhow::Result<Option<Spec>> {
        // One whose master could not even be made is a new one.
        if !is_made(dir) {
            return Ok(None);
        }
        Cluster::load(dir).map(|cluster| Some(cluster.spec))
    }

    pub(crate) fn mount(&self) -> Option<&Path> {
        self.spec.mount.as_deref()
    }

    /// Makes the directory ready for `spec`.
    pub(crate) fn prepare(dir: &Path, spec: Spec) -> anyhow::Result<Cluster> {
        let dir = std::path::absolute(dir)?;
        let cluster = Cluster { dir, spec };
        for sub in ["run", "log", "master"] {
            let path = cluster.dir.join(sub);
            std::fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        }
        if let Some(member) =
            cluster.members().into_iter().find(|m| matches!(cluster.daemon(*m).pid(), Ok(Some(_))))
        {
            bail!("{member} of {} runs already; `dfs dev down --dir ...` first", cluster.dir.display());
        }
        dfs_write(&cluster.dir.join("dev.json"), &serde_json::to_vec_pretty(&cluster.spec)?)?;
        Ok(cluster)
    }

    /// Starts everything; on a failure what was started is stopped again.
    pub(crate) fn up(&self) -> anyhow::Result<()> {
        let started = self.members().into_iter().try_for_each(|member| self.start(member));
        if started.is_err() {
            for member in self.members().into_iter().rev() {
                if matches!(self.daemon(member).pid(), Ok(Some(_))) {
                    self.stop(member)
                        .unwrap_or_else(|error| eprintln!("dfs: {member}: {}", in_words(error.as_ref())));
                }
            }
        }
        started
    }

    pub(crate) fn down(&self, wipe: bool) -> anyhow::Result<()> {
        for member in self.members().into_iter().rev() {
            if self.daemon(member).pid()?.is_some() {
                self.stop(member)?;
            }
        }
        if let Some(at) = &self.spec.mount {
            clear_mount_point(at)?;
        }
        if wipe {
            std::fs::remove_dir_all(&self.dir).with_context(|| self.dir.display().to_string())?;
        }
        Ok(())
    }

    pub(crate) fn kill(&self, member: Member) -> anyhow::Result<()> {
        let daemon = self.known(member)?;
        daemon.signal(Signal::KILL)?;
        if daemon.wait_gone(STOPPED)? { Ok(()) } else { bail!("{member} does not die: its disk hangs") }
    }

    pub(crate) fn stop(&self, member: Member) -> anyhow::Result<()> {
        let daemon = self.known(member)?;
        daemon.signal(Signal::TERM)?;
        // A paused process would never see it.
        daemon.signal(Signal::CONT).ok();
        if daemon.wait_gone(STOPPED)? {
            return Ok(());
        }
        eprintln!("dfs: {member} did not stop within {STOPPED:?}, killing it:\n{}", daemon.log_tail());
        self.kill(member)
    }

    pub(crate) fn pause(&self, member: Member) -> anyhow::Result<()> {
        self.known(member)?.signal(Signal::STOP)
    }

    pub(crate) fn resume(&self, member: Member) -> anyhow::Result<()> {
        self.known(member)?.signal(Signal::CONT)
    }

    pub(crate) fn start(&self, member: Member) -> anyhow::Result<()> {
        let daemon = self.known(member)?;
        if daemon.pid()?.is_some() {
            bail!("{member} runs already");
        }
        match member {
            Member::Master => self.start_master(&daemon),
            Member::Server(n) => self.start_server(&daemon, n),
            Member::Mount => self.start_mount(&daemon),
        }
    }

    pub(crate) fn master_addr(&self) -> anyhow::Result<String> {
        let file = self.port_file("master");
        let text = std::fs::read_to_string(&file)
            .with_context(|| format!("no master has run in {}", self.dir.display()))?;
        Ok(text.trim().to_owned())
    }

    /// Where a process has its admin port.
    pub(crate) fn admin_addr(&self, member: Member) -> anyhow::Result<String> {
        let file = self.admin_file(&self.known(member)?.name);
        let text = std::fs::read_to_string(&file).with_context(|| {
            format!("no {member} with an admin port of its own has run in {}", self.dir.display())
        })?;
        Ok(text.trim().to_owned())
    }

    /// In the order of starting.
    fn members(&self) -> Vec<Member> {
        let mut all = vec![Member::Master];
        all.extend((1..=self.spec.servers).map(Member::Server));
        all.extend(self.spec.mount.is_some().then_some(Member::Mount));
        all
    }

    fn known(&self, member: Member) -> anyhow::Result<Daemon> {
        if !self.members().contains(&member) {
            let all: Vec<String> = self.members().iter().map(Member::to_string).collect();
            bail!("no {member} in this cluster; it has {}", all.join(", "));
        }
        Ok(self.daemon(member))
    }

    fn daemon(&self, member: Member) -> Daemon {
        let name = member.to_string();
        Daemon {
            binary: match member {
                Member::Master => "dfs-master",
                Member::Server(_) => "dfs-chunkserver",
                Member::Mount => "dfs-fuse",
            },
            pid_file: self.dir.join(format!("run/{name}.pid")),
            log_file: self.dir.join(format!("log/{name}.log")),
            name,
        }
    }

    fn port_file(&self, name: &str) -> PathBuf {
        self.dir.join(format!("run/{name}.addr"))
    }

    fn admin_file(&self, name: &str) -> PathBuf {
        self.dir.join(format!("run/{name}.admin"))
    }

    /// An admin port for the process, unless its options have one.
    fn admin(&self, name: &str, options: &[String]) -> Vec<String> {
        if options.iter().any(|option| option.starts_with("--admin")) {
            return Vec::new();
        }
        let file = self.admin_file(name).display().to_string();
        words(&["--admin", "127.0.0.1:0", "--admin-port-file", &file])
    }

    /// Where a process listens: where it did before (others know it there), else its port of the base, else one that is
    /// free.
    fn listen(&self, name: &str, n: u16) -> anyhow::Result<String> {
        if let Ok(text) = std::fs::read_to_string(self.port_file(name)) {
            return Ok(text.trim().to_owned());
        }
        let port = match self.spec.base_port {
            Some(base) => base
                .checked_add(n)
                .ok_or_else(|| anyhow!("--base-port {base} leaves no room for {n} servers"))?,
            None => free_port(),
        };
        Ok(format!("127.0.0.1:{port}"))
    }

    fn sockets(&self, name: &str) -> Vec<String> {
        if self.spec.tcp { Vec::new() } else { vec!["--unix".into(), self.path(&format!("run/{name}.sock"))] }
    }

    fn path(&self, sub: &str) -> String {
        self.dir.join(sub).display().to_string()
    }

    fn start_master(&self, daemon: &Daemon) -> anyhow::Result<()> {
        if !is_made(&self.dir) {
            let mut args = words(&[
                "init",
                "--data",
                &self.path("master"),
                "--replicas",
                &self.spec.replicas.to_string(),
            ]);
            if let Some(size) = self.spec.chunk_size {
                args.extend(words(&["--chunk-size", &size.to_string()]));
            }
            let status = daemon.spawn(&args)?.wait()?;
            if !status.success() {
                bail!("dfs-master init failed ({status}):\n{}", daemon.log_tail());
            }
        }
        let listen = self.listen("master", 0)?;
        let mut args = words(&["run", "--data", &self.path("master"), "--listen", &listen]);
        args.extend(self.sockets("master"));
        self.serve(daemon, args, &self.spec.master_options)
    }

    fn start_server(&self, daemon: &Daemon, n: u16) -> anyhow::Result<()> {
        let listen = self.listen(&daemon.name, n)?;
        let mut args =
            words(&["--master", &self.master_addr()?, "--listen", &listen, "--name", &daemon.name]);
        for at in 1..=self.spec.disks {
            let name = if at == 1 { "disk".to_owned() } else { format!("disk{at}") };
            let disk = self.dir.join(&daemon.name).join(name);
            std::fs::create_dir_all(&disk).with_context(|| disk.display().to_string())?;
            args.extend(words(&["--disk", &disk.display().to_string()]));
        }
        args.extend(self.sockets(&daemon.name));
        self.serve(daemon, args, &self.spec.cs_options)
    }

    /// Starts a daemon that tells its address in a file once it is ready.
    fn serve(&self, daemon: &Daemon, mut args: Vec<String>, more: &[String]) -> anyhow::Result<()> {
        let told = self.dir.join(format!("run/{}.ready", daemon.name));
        if told.exists() {
            std::fs::remove_file(&told)?;
        }
        args.extend(words(&["--port-file", &told.display().to_string()]));
        args.extend(self.admin(&daemon.name, more));
        args.extend_from_slice(more);
        let child = daemon.spawn(&args)?;
        let addr = daemon.wait_ready(child, READY, || {
            let text = std::fs::read_to_string(&told).unwrap_or_default();
            Ok((!text.trim().is_empty()).then_some(text))
        })?;
        dfs_write(&self.port_file(&daemon.name), addr.trim().as_bytes())
    }

    fn start_mount(&self, daemon: &Daemon) -> anyhow::Result<()> {
        let at =
            self.spec.mount.as_ref().ok_or_else(|| anyhow!("this cluster was started without --mount"))?;
        clear_mount_point(at)?;
        std::fs::create_dir_all(at).with_context(|| at.display().to_string())?;
        let mut args = words(&["--master", &self.master_addr()?, &at.display().to_string(), "--foreground"]);
        let mut options: Vec<String> = self.spec.mount_options.iter().cloned().collect();
        if self.spec.tcp {
            options.push("tcp".into());
        }
        if !options.is_empty() {
            args.extend(["-o".into(), options.join(",")]);
        }
        args.extend(self.admin(&daemon.name, &[]));
        let child = daemon.spawn(&args)?;
        let full = std::fs::canonicalize(at)?;
        daemon.wait_ready(child, READY, || Ok(is_mounted(&full)?.then_some(())))
    }
}

/// Ports below this are other programs' by custom.
const PORTS_FROM: u16 = 10_000;
/// Where the kernel takes ports for connections from, as it comes; it can be told otherwise.
const EPHEMERAL_FROM: u16 = 32_768;
/// Ports that are tried.
const PORTS_TRIED: u64 = 200;

/// A port that nobody listens at. It is not one of those that the kernel gives to connections: while a process is down
/// that is started again, one of them could have its port. Any, if none is found.
fn free_port() -> u16 {
    let draw = |_| RandomState::new().build_hasher().finish() % u64::from(EPHEMERAL_FROM - PORTS_FROM);
    let ports = (0..PORTS_TRIED).map(draw).filter_map(|at| PORTS_FROM.checked_add(u16::try_from(at).ok()?));
    ports.into_iter().find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap_or(0)
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|word| (*word).to_owned()).collect()
}

/// Whether a dfs is mounted exactly there.
fn is_mounted(at: &Path) -> anyhow::Result<bool> {
    let table = std::fs::read_to_string("/proc/self/mounts")?;
    let escaped = at.display().to_string().replace('\\', "\\134").replace(' ', "\\040");
    Ok(table.lines().any(|line| {
        let mut words = line.split(' ').skip(1);
        words.next() == Some(escaped.as_str()) && words.next().is_some_and(|kind| kind.starts_with("fuse"))
    }))
}

/// Takes a dead mount away: what a killed daemon leaves.
fn clear_mount_point(at: &Path) -> anyhow::Result<()> {
    let at = std::path::absolute(at)?;
    while is_mounted(&at)? {
        let direct = rustix::mount::unmount(&at, rustix::mount::UnmountFlags::DETACH);
        if direct.is_err() {
            let status = Command::new("fusermount3").arg("-uz").arg(&at).status();
            if !status.is_ok_and(|s| s.success()) {
                bail!("cannot unmount {}", at.display());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_have_names() {
        for text in ["master", "cs1", "cs12", "mount"] {
            assert_eq!(text.parse::<Member>().unwrap().to_string(), text);
        }
        for text in ["", "cs", "cs0", "csx", "Master"] {
            assert!(text.parse::<Member>().is_err(), "{text}");
        }
    }
}
