//! A cluster: a master, chunk servers and mounts, each a [`Daemon`] on its [`Host`], started in any order and as
//! often as faults want it. Each listens where it did at first, so that the others find it again.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, anyhow, bail};
use rustix::process::Signal;

use super::daemon::{Daemon, Host};
use super::volume::run;

/// One of the processes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Who {
    Master,
    /// From 0.
    Server(u16),
    Mount(u16),
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Who::Master => f.write_str("master"),
            Who::Server(n) => write!(f, "cs{}", n + 1),
            Who::Mount(n) => write!(f, "mount{}", n + 1),
        }
    }
}

/// What the cluster is made of.
#[derive(Clone, Debug)]
pub struct Shape {
    pub servers: u16,
    pub mounts: u16,
    pub replicas: u8,
    pub chunk_size: u32,
    /// Whether chunk servers give each other and mounts a Unix socket: they are on one host.
    pub unix: bool,
    pub master_options: Vec<String>,
    pub server_options: Vec<String>,
}

/// Where a process is.
#[derive(Clone, Debug)]
pub struct Place {
    pub host: Host,
    /// Where it listens, IP:PORT; port 0 becomes the one that it got when it is first started.
    pub listen: String,
    /// The directory of its state, or the mount point.
    pub at: PathBuf,
}

/// A process with what it is started with.
#[derive(Debug)]
struct Node {
    who: Who,
    daemon: Daemon,
    place: Place,
}

/// A cluster with its directory.
#[derive(Debug)]
pub struct Nodes {
    dir: PathBuf,
    bin: PathBuf,
    shape: Shape,
    nodes: Vec<Node>,
}

impl Nodes {
    /// Nothing is started yet. Logs and what processes tell each other go to `dir`, which is theirs alone.
    ///
    /// # Errors
    /// When the directories can't be made.
    pub fn new(dir: &Path, bin: &Path, shape: Shape, place: impl Fn(Who) -> Place) -> anyhow::Result<Nodes> {
        for sub in ["run", "log"] {
            std::fs::create_dir_all(dir.join(sub))?;
        }
        let servers = (0..shape.servers).map(Who::Server);
        let all = [Who::Master].into_iter().chain(servers).chain((0..shape.mounts).map(Who::Mount));
        let nodes = all.map(|who| {
            let name = who.to_string();
            let daemon = Daemon::new(&name, dir.join(format!("log/{name}.log")));
            Node { who, daemon, place: place(who) }
        });
        let nodes = nodes.collect();
        Ok(Nodes { dir: dir.to_owned(), bin: bin.to_owned(), shape, nodes })
    }

    #[must_use]
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// All of them, in the order of starting.
    #[must_use]
    pub fn all(&self) -> Vec<Who> {
        self.nodes.iter().map(|node| node.who).collect()
    }

    fn node(&mut self, who: Who) -> anyhow::Result<&mut Node> {
        let node = self.nodes.iter_mut().find(|node| node.who == who);
        node.ok_or_else(|| anyhow!("no {who} in this cluster"))
    }

    /// Where a process keeps its state, or is mounted.
    #[must_use]
    pub fn at(&self, who: Who) -> PathBuf {
        let node = self.nodes.iter().find(|node| node.who == who);
        node.map(|node| node.place.at.clone()).unwrap_or_default()
    }

    /// Where mounts and tools find the master.
    #[must_use]
    pub fn master_addr(&self) -> &str {
        &self.nodes[0].place.listen
    }

    /// Starts one, and waits until it serves.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(&mut self, who: Who) -> anyhow::Result<()> {
        match who {
            Who::Master => self.start_master(),
            Who::Server(_) => self.start_server(who),
            Who::Mount(_) => self.start_mount(who),
        }
    }

    /// SIGKILL; what a dead mount leaves is taken away.
    ///
    /// # Errors
    /// When it does not die.
    pub fn kill(&mut self, who: Who) -> anyhow::Result<()> {
        let node = self.node(who)?;
        node.daemon.kill()?;
        if matches!(who, Who::Mount(_)) {
            clear_mount(&node.place.at)?;
        }
        Ok(())
    }

    /// umount(8) of a mount, which ends its session; nobody may have a file on it open.
    ///
    /// # Errors
    /// When somebody has, or the daemon does not end.
    pub fn unmount(&mut self, who: Who) -> anyhow::Result<()> {
        let node = self.node(who)?;
        run("umount", &[&node.place.at.display().to_string()])?;
        node.daemon.wait_gone()
    }

    /// Sends a signal, if it runs.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn signal(&mut self, who: Who, signal: Signal) -> anyhow::Result<()> {
        self.node(who)?.daemon.signal(signal)
    }

    /// Whether it runs.
    pub fn is_running(&mut self, who: Who) -> bool {
        self.node(who).is_ok_and(|node| node.daemon.is_running())
    }

    /// `dfs --json ARGS` with the cluster's master, from the host of `who`.
    ///
    /// # Errors
    /// When it fails, or prints no JSON.
    pub fn tool(&self, from: Who, args: &[&str]) -> anyhow::Result<serde_json::Value> {
        let dfs = self.bin.join("dfs").display().to_string();
        let host = self.nodes.iter().find(|node| node.who == from).map(|node| &node.place.host);
        let mut words = Vec::new();
        if let Some(name) = host.and_then(|host| host.netns.as_ref()) {
            words.extend(["nsenter".to_owned(), format!("--net=/run/netns/{name}")]);
        }
        words.extend([dfs, "--master".to_owned(), self.master_addr().to_owned(), "--json".to_owned()]);
        let output = Command::new(&words[0]).args(&words[1..]).args(args).output()?;
        if !output.status.success() {
            bail!("dfs {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        serde_json::from_slice(&output.stdout).with_context(|| format!("dfs {}", args.join(" ")))
    }

    /// The last lines of every process's log.
    #[must_use]
    pub fn logs(&self, count: usize) -> String {
        let tail = |node: &Node| format!("== {}\n{}", node.who, node.daemon.log_tail(count));
        self.nodes.iter().map(tail).collect::<Vec<_>>().join("\n")
    }

    fn start_master(&mut self) -> anyhow::Result<()> {
        let data = self.at(Who::Master).join("data");
        if !data.join("cluster.json").exists() {
            std::fs::create_dir_all(&data)?;
            let (replicas, size) = (self.shape.replicas.to_string(), self.shape.chunk_size.to_string());
            let binary = self.bin.join("dfs-master").display().to_string();
            let at = data.display().to_string();
            run(&binary, &["init", "--data", &at, "--replicas", &replicas, "--chunk-size", &size])?;
        }
        let mut args = words(&["run", "--data", &data.display().to_string()]);
        args.extend(self.shape.master_options.clone());
        self.serve(Who::Master, "dfs-master", args)
    }

    fn start_server(&mut self, who: Who) -> anyhow::Result<()> {
        let disk = self.at(who).join("disk");
        std::fs::create_dir_all(&disk)?;
        let master = self.master_addr().to_owned();
        let mut args = words(&["--master", &master, "--name", &who.to_string()]);
        args.extend(words(&["--disk", &disk.display().to_string()]));
        args.extend(self.shape.server_options.clone());
        self.serve(who, "dfs-chunkserver", args)
    }

    /// Starts a daemon that tells its address in a file once it serves.
    fn serve(&mut self, who: Who, binary: &str, mut args: Vec<String>) -> anyhow::Result<()> {
        let told = self.dir.join(format!("run/{who}.addr"));
        if told.exists() {
            std::fs::remove_file(&told)?;
        }
        if self.shape.unix {
            args.extend(words(&["--unix", &self.dir.join(format!("run/{who}.sock")).display().to_string()]));
        }
        let binary = self.bin.join(binary);
        let node = self.node(who)?;
        args.extend(words(&[
            "--admin",
            "off",
            "--listen",
            &node.place.listen,
            "--port-file",
            &told.display().to_string(),
        ]));
        node.daemon.spawn(&node.place.host, &binary, &args)?;
        node.place.listen = node.daemon.wait_ready(|| {
            let text = std::fs::read_to_string(&told).unwrap_or_default();
            (!text.trim().is_empty()).then(|| text.trim().to_owned())
        })?;
        Ok(())
    }

    fn start_mount(&mut self, who: Who) -> anyhow::Result<()> {
        let at = self.at(who);
        std::fs::create_dir_all(&at)?;
        let mut args = words(&["--master", self.master_addr(), &at.display().to_string(), "--foreground"]);
        if !self.shape.unix {
            args.extend(words(&["-o", "tcp"]));
        }
        let binary = self.bin.join("dfs-fuse");
        let node = self.node(who)?;
        node.daemon.spawn(&node.place.host, &binary, &args)?;
        node.daemon.wait_ready(|| is_mounted(&at).then_some(()))
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for node in self.nodes.iter_mut().rev() {
            let mut left = node.daemon.kill();
            if matches!(node.who, Who::Mount(_)) {
                left = left.and(clear_mount(&node.place.at));
            }
            if let Err(error) = left {
                eprintln!("left behind: {error:#}");
            }
        }
    }
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|word| (*word).to_owned()).collect()
}

/// Whether something is mounted exactly there.
fn is_mounted(at: &Path) -> bool {
    let table = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let at = at.display().to_string();
    table.lines().any(|line| line.split(' ').nth(1) == Some(at.as_str()))
}

/// Takes away what a killed mount leaves; programs get ENOTCONN.
fn clear_mount(at: &Path) -> anyhow::Result<()> {
    while is_mounted(at) {
        run("umount", &["--lazy", &at.display().to_string()])?;
    }
    Ok(())
}
