//! Finding and asking the master: one connection, one question, one answer.

use std::net::ToSocketAddrs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use dfs_proto::conn::{CallsOnly, Conn, Hello, PeerAddr, Role};
use dfs_proto::ids::{ClusterId, Ino};
use dfs_proto::request::Request;

/// How long a command waits for the master: long enough for one that replays its log on a busy machine,
/// short enough that nobody thinks the command hangs.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same where the master asks a chunk server first, which reads its disks.
const PATIENCE_OF_LINE: Duration = Duration::from_secs(15);

/// What the global options say.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) master: Option<String>,
    pub(crate) json: bool,
}

/// A connection that stands.
#[derive(Debug)]
pub(crate) struct Line {
    runtime: tokio::runtime::Runtime,
    conn: Conn,
}

impl Line {
    pub(crate) fn ask<R: Request>(&self, request: &R) -> anyhow::Result<R::Reply> {
        let reply = self.runtime.block_on(self.conn.call(request, PATIENCE_OF_LINE));
        Ok(reply.context("refused")?.body)
    }

    /// The same where the answer has a payload, which nothing has checked.
    pub(crate) fn ask_for_bytes<R: Request>(&self, request: &R) -> anyhow::Result<(R::Reply, bytes::Bytes)> {
        let reply = self.runtime.block_on(self.conn.call(request, PATIENCE_OF_LINE)).context("refused")?;
        Ok((reply.body, reply.payload))
    }
}

impl Target {
    /// Asks the master that `--master` or `DFS_MASTER` names, or else the one whose mount holds `path`.
    pub(crate) fn ask<R: Request>(&self, request: &R, path: Option<&Path>) -> anyhow::Result<R::Reply> {
        let addr = self.addr(path)?;
        runtime()?.block_on(async {
            let conn = dial(&addr).await?;
            let reply = conn.call(request, PATIENCE).await.context("the master refused")?;
            Ok(reply.body)
        })
    }

    /// A connection to the same master for many questions.
    pub(crate) fn line(&self, path: Option<&Path>) -> anyhow::Result<Line> {
        let addr = self.addr(path)?;
        let runtime = runtime()?;
        let conn = runtime.block_on(dial(&addr))?;
        Ok(Line { runtime, conn })
    }

    /// The inode of a path on a mount.
    pub(crate) fn inode_of(&self, path: &Path) -> anyhow::Result<Ino> {
        // Before the path is looked at: on a mount that waits for its master that would take as long.
        self.reach(path)?;
        let stat = std::fs::symlink_metadata(path).with_context(|| format!("{}", path.display()))?;
        Ok(Ino(stat.ino()))
    }

    /// Whether the master that [`Target::ask`] would ask can be reached.
    fn reach(&self, path: &Path) -> anyhow::Result<()> {
        let addr = self.addr(Some(path))?;
        runtime()?.block_on(dial(&addr)).map(drop)
    }

    /// The master that [`Target::ask`] would ask.
    pub(crate) fn addr(&self, path: Option<&Path>) -> anyhow::Result<PeerAddr> {
        let addr = match (&self.master, path) {
            (Some(addr), _) => addr.clone(),
            (None, Some(path)) => master_of_mount(path)?,
            (None, None) => match only_mount()? {
                Some(addr) => addr,
                None => bail!(
                    "which cluster? Name its master with --master HOST:PORT or in DFS_MASTER \
                     (`dfs dev addr --dir DIR` prints a local one's)"
                ),
            },
        };
        parse(&addr)
    }
}

/// A connection to a chunk server, which has to be of `cluster` if that is known, and the cluster that it is of.
pub(crate) fn chunk_server(addr: &str, cluster: Option<ClusterId>) -> anyhow::Result<(Line, ClusterId)> {
    let runtime = runtime()?;
    let parsed = parse(addr)?;
    let hello = Hello::new(Role::Tool, "dfs", cluster);
    let dialled = runtime.block_on(Conn::connect(&parsed, hello, Arc::new(CallsOnly), PATIENCE));
    let (conn, welcome) =
        dialled.map_err(|error| anyhow!("no answer from the chunk server {addr}: {error}"))?;
    Ok((Line { runtime, conn }, welcome.cluster))
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

async fn dial(addr: &PeerAddr) -> anyhow::Result<Conn> {
    let hello = Hello::new(Role::Tool, "dfs", None);
    let dialled = Conn::connect(addr, hello, Arc::new(CallsOnly), PATIENCE).await;
    let (conn, _) = dialled
        .map_err(|error| anyhow!("no answer from the master: {error}; is dfs-master running there?"))?;
    Ok(conn)
}

/// An address with a name or number for its host.
fn parse(text: &str) -> anyhow::Result<PeerAddr> {
    if let Ok(addr) = text.parse() {
        return Ok(addr);
    }
    let found = text.to_socket_addrs().ok().and_then(|mut all| all.next());
    found.map(PeerAddr::Tcp).ok_or_else(|| anyhow!("{text:?} is no address: give HOST:PORT or unix:/PATH"))
}

/// One dfs mount of this machine.
struct Mount {
    at: String,
    master: String,
}

/// Where this machine has dfs mounted.
pub(crate) fn mount_points() -> anyhow::Result<Vec<String>> {
    Ok(mounts()?.into_iter().map(|mount| mount.at).collect())
}

/// The mounts of type `fuse.dfs`, whose source is the master's address with an optional `:/subdirectory`.
fn mounts() -> anyhow::Result<Vec<Mount>> {
    let table = std::fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    Ok(parse_mounts(&table))
}

fn parse_mounts(table: &str) -> Vec<Mount> {
    let mut found = Vec::new();
    for line in table.lines() {
        let mut words = line.split(' ');
        let (Some(source), Some(at), Some(kind)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        if kind == "fuse.dfs" {
            let source = unescape(source);
            let master = source.split_once(":/").map_or(source.as_str(), |(master, _)| master).to_owned();
            found.push(Mount { at: unescape(at), master });
        }
    }
    found
}

/// The kernel writes blanks and backslashes of a mount table as three octal digits.
fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((head, tail)) = rest.split_once('\\') {
        out.push_str(head);
        match tail.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(char::from(byte));
                rest = &tail[3..];
            }
            None => {
                out.push('\\');
                rest = tail;
            }
        }
    }
    out.push_str(rest);
    out
}

fn master_of_mount(path: &Path) -> anyhow::Result<String> {
    // By its words first: a mount whose master is away answers no question about the path.
    let plain = std::path::absolute(path).with_context(|| format!("{}", path.display()))?;
    if let Some(mount) = holder(&plain)? {
        return Ok(mount.master);
    }
    let full = std::fs::canonicalize(path).with_context(|| format!("{}", path.display()))?;
    let mount = holder(&full)?.ok_or_else(|| anyhow!("{} is not on a dfs mount", path.display()))?;
    Ok(mount.master)
}

/// The innermost dfs mount that a path lies on.
fn holder(path: &Path) -> anyhow::Result<Option<Mount>> {
    let on = mounts()?.into_iter().filter(|mount| path.starts_with(&mount.at));
    Ok(on.max_by_key(|mount| mount.at.len()))
}

/// The master of this machine's mounts, if they all have the same one.
fn only_mount() -> anyhow::Result<Option<String>> {
    let mut masters: Vec<String> = mounts()?.into_iter().map(|m| m.master).collect();
    masters.sort();
    masters.dedup();
    Ok(if masters.len() == 1 { masters.pop() } else { None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_found() {
        let table = "proc /proc proc rw 0 0\n127.0.0.1:9000 /mnt/a\\040b fuse.dfs rw 0 0\nm:1:/sub /x fuse.dfs rw 0 0\n";
        let found = parse_mounts(table);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].at.as_str(), found[0].master.as_str()), ("/mnt/a b", "127.0.0.1:9000"));
        assert_eq!((found[1].at.as_str(), found[1].master.as_str()), ("/x", "m:1"));
    }
}
