//! `dfs repair-file`: gives up what no good replica is left of, so that the file can be read again. It shows first
//! what that is, and asks.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use dfs_proto::control::{HeldReplica, HeldState};
use dfs_proto::ids::{ChunkId, ServerNum};
use dfs_proto::meta::{
    ClusterStatus, ExamineChunk, FileInfo, RepairChunk, RepairWay, ReplicaFault, ServerList,
};

use crate::clock::Deadline;
use crate::connect::{Line, Target};
use crate::damaged::{Loss, cut, describe, losses, words};
use crate::output::{Waiting, confirm};

/// The new members of a chunk are asked and told within a few round trips.
const SETTLED_WITHIN: Duration = Duration::from_secs(30);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A file on a dfs mount
    path: PathBuf,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Go on from the older replicas that this server (by name or number) was left with, where it has one, instead
    /// of with zeros
    #[arg(long, value_name = "SERVER")]
    from_stale: Option<String>,
}

/// What is to be done about a chunk.
struct Step {
    loss: Loss,
    way: RepairWay,
}

pub(crate) fn run(target: &Target, args: &Args) -> anyhow::Result<()> {
    let path = args.path.as_path();
    let ino = target.inode_of(path)?;
    let line = target.line(Some(path))?;
    let found = losses(&line, Some(ino))?;
    if found.is_empty() {
        println!(
            "{} needs no repair: every chunk of it has a good replica, or waits for one",
            path.display()
        );
        return Ok(());
    }
    let stale = args.from_stale.as_deref().map(|name| server_of(&line, name)).transpose()?;
    let steps = found.into_iter().map(|loss| plan(&line, loss, stale)).collect::<anyhow::Result<Vec<_>>>()?;
    println!("{}:", path.display());
    steps.iter().for_each(|step| println!("  {}\n    {}", describe(&step.loss), becomes(step)));
    println!(
        "What mounts have written of it and not synced is lost, too. Replicas that are left of it on any disk stay \
         there, and are never used again: if a server that is down may come back, wait for it instead."
    );
    if !args.yes {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        confirm("the file's name", &name)?;
    }
    for step in &steps {
        let chunk = &step.loss.chunk;
        let request =
            RepairChunk { chunk: chunk.chunk, version: chunk.version, config: chunk.config, way: step.way };
        line.ask(&request).with_context(|| {
            format!("chunk {}: not repaired; look at `dfs damaged` and try again", chunk.chunk)
        })?;
    }
    settle(&line, &steps)?;
    println!("{} can be read again", path.display());
    Ok(())
}

/// What to do about a chunk, with the bytes that it costs.
fn plan(line: &Line, mut loss: Loss, stale: Option<ServerNum>) -> anyhow::Result<Step> {
    let chunk = loss.chunk.chunk;
    let corrupt =
        loss.chunk.replicas.iter().find(|replica| matches!(replica.why, ReplicaFault::Corrupt { .. }));
    let Some(replica) = corrupt else {
        return Ok(Step { loss, way: lost(line, chunk, stale)? });
    };
    // What was reported may not be all.
    let held = line.ask(&ExamineChunk { chunk, server: replica.server })?;
    let size = line.ask(&ClusterStatus {})?.chunk_size;
    let start = loss.chunk.index.0.saturating_mul(u64::from(size.bytes()));
    loss.ranges = cut(start, &held.bad, loss.chunk.size);
    Ok(Step { loss, way: RepairWay::BadBlocks })
}

/// What a chunk that nobody has can go on from: a replica that was left behind, if it was whole once.
fn lost(line: &Line, chunk: ChunkId, stale: Option<ServerNum>) -> anyhow::Result<RepairWay> {
    let Some(server) = stale else { return Ok(RepairWay::Zeros) };
    let held = line.ask(&ExamineChunk { chunk, server })?;
    let whole = |replica: HeldReplica| replica.state == HeldState::Present && !replica.learner;
    let usable = held.replica.is_some_and(whole) && held.bad.is_empty();
    Ok(if usable { RepairWay::Stale(server) } else { RepairWay::Zeros })
}

fn becomes(step: &Step) -> String {
    match step.way {
        RepairWay::Zeros => format!("all of it becomes zeros: {}", words(&step.loss.ranges)),
        RepairWay::BadBlocks => format!("become zeros: {}; the rest stays", words(&step.loss.ranges)),
        RepairWay::Stale(server) => {
            format!("becomes what it was when {server} left it: {}", words(&step.loss.ranges))
        }
    }
}

fn server_of(line: &Line, text: &str) -> anyhow::Result<ServerNum> {
    let servers = line.ask(&ServerList {})?.servers;
    let named =
        |name: &str, num: ServerNum| name == text || num.to_string() == text || num.0.to_string() == text;
    // A name can have belonged to a server that is no more.
    let found = servers
        .iter()
        .filter(|server| named(&server.name, server.addr.num))
        .max_by_key(|server| (server.up, server.addr.num));
    found
        .map(|server| server.addr.num)
        .ok_or_else(|| anyhow!("no server {text:?}: `dfs server list` names them all"))
}

fn names(losses: &[Loss], chunk: ChunkId) -> bool {
    losses.iter().any(|loss| loss.chunk.chunk == chunk)
}

/// Waits until the chunks are served, and their servers say no more that blocks of them are lost.
fn settle(line: &Line, steps: &[Step]) -> anyhow::Result<()> {
    let _waiting = Waiting::show("the chunks take up their work");
    for step in steps {
        let chunk = &step.loss.chunk;
        let served = Deadline::after(SETTLED_WITHIN).poll(|| {
            let report = line.ask(&FileInfo { ino: chunk.ino, from: chunk.index })?;
            let found = report.chunks.iter().find(|at| at.chunk == chunk.chunk);
            // Gone: somebody truncated the file meanwhile.
            let served = found.is_none_or(|at| !at.recovering && at.version > chunk.version);
            let lost = || losses(line, Some(chunk.ino)).map(|left| names(&left, chunk.chunk));
            Ok((served && !lost()?).then_some(()))
        })?;
        if served.is_none() {
            bail!(
                "chunk {} is given up and not served yet: `dfs file info` and `dfs damaged` show how it stands",
                chunk.chunk
            );
        }
    }
    Ok(())
}
