//! `dfs chunk explain`: why a chunk has the replicas that it has.

use std::path::Path;

use anyhow::Context;
use clap::Subcommand;
use dfs_proto::ids::ChunkId;
use dfs_proto::meta::{ChunkExplained, ExplainChunk};
use dfs_proto::units::ChunkIndex;

use crate::connect::Target;
use crate::output::{Tone, cost, from_root, pairs, span};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The load, what the policy says of it, and what was decided and done when
    Explain {
        /// A chunk's id in 16 hex digits, or a path on a dfs mount, with :INDEX for another chunk than the first
        #[arg(value_name = "ID|PATH[:INDEX]")]
        chunk: String,
    },
}

pub(crate) fn run(target: &Target, command: &Command) -> anyhow::Result<()> {
    let Command::Explain { chunk } = command;
    let report = ask(target, chunk)?;
    if target.json {
        println!("{}", serde_json::to_string_pretty(&json(&report))?);
        return Ok(());
    }
    let heat = &report.heat;
    let busy = |(name, permille): (&String, &u16)| format!("{name} ({} % busy)", permille / 10);
    let replicas: Vec<String> = heat.replicas.iter().zip(&report.utilisation).map(busy).collect();
    let now = if report.now.is_empty() { "nothing is to be done about it" } else { &report.now };
    pairs(&[
        ("chunk", heat.chunk.to_string(), Tone::Plain),
        ("file", format!("{}, chunk {}", from_root(&heat.path), heat.index.0), Tone::Plain),
        (
            "replicas",
            format!("{} of a goal of {}, at most {}", heat.replicas.len(), heat.goal, report.max_replicas),
            Tone::Plain,
        ),
        ("  on", replicas.join("  "), Tone::Plain),
        ("  to come", heat.to_come.to_string(), Tone::Plain),
        (
            "read",
            format!("{}, in the last 3 s {}", cost(heat.read_milli), cost(heat.recent_milli)),
            Tone::Plain,
        ),
        ("written", cost(heat.write_milli), Tone::Plain),
        ("hot above", format!("{} a replica", cost(report.max_milli)), Tone::Plain),
        ("cold under", format!("{} with one replica fewer", cost(report.min_milli)), Tone::Plain),
        ("now", now.to_owned(), Tone::Plain),
    ]);
    if report.past.is_empty() {
        println!("nothing was decided since this master leads");
    }
    for (wall, what) in &report.past {
        let ago = u64::try_from(report.wall.sec.saturating_sub(wall.sec)).unwrap_or(0);
        println!("{} ago: {what}", span(ago.saturating_mul(1000)));
    }
    Ok(())
}

fn ask(target: &Target, chunk: &str) -> anyhow::Result<ChunkExplained> {
    let is_id = chunk.len() == 16 && chunk.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_id && !Path::new(chunk).exists() {
        let id = u64::from_str_radix(chunk, 16).context("a chunk's id")?;
        return target.ask(&ExplainChunk::Chunk(ChunkId(id)), None).with_context(|| format!("chunk {chunk}"));
    }
    let (path, index) = match chunk.rsplit_once(':').map(|(path, index)| (path, index.parse())) {
        Some((path, Ok(index))) => (path, index),
        Some((_, Err(_))) | None => (chunk, 0),
    };
    let path = Path::new(path);
    let ino = target.inode_of(path)?;
    let asked = ExplainChunk::At(ino, ChunkIndex(index));
    target.ask(&asked, Some(path)).with_context(|| format!("chunk {index} of {}", path.display()))
}

fn json(report: &ChunkExplained) -> serde_json::Value {
    let heat = &report.heat;
    let past = |(wall, what): &(dfs_proto::units::Timespec, String)| serde_json::json!({"unix_s": wall.sec, "what": what});
    serde_json::json!({
        "chunk": heat.chunk,
        "path": from_root(&heat.path),
        "inode": heat.ino,
        "index": heat.index,
        "replicas": heat.replicas,
        "utilisation_permille": report.utilisation,
        "goal": heat.goal,
        "max_replicas": report.max_replicas,
        "to_come": heat.to_come,
        "read_milli": heat.read_milli,
        "recent_milli": heat.recent_milli,
        "write_milli": heat.write_milli,
        "max_milli": report.max_milli,
        "min_milli": report.min_milli,
        "now": report.now,
        "past": report.past.iter().map(past).collect::<Vec<_>>(),
    })
}
