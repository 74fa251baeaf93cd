//! `dfs file info PATH`: where a file's bytes are.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use dfs_proto::meta::{FileInfo, FileReport, ReplicaReport};
use dfs_proto::units::ChunkIndex;

use crate::connect::Target;
use crate::output::{Table, Tone, bytes, from_root, pairs};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Size, chunks, versions, configs, replicas and where they are
    Info {
        /// A path on a dfs mount
        path: PathBuf,
    },
}

pub(crate) fn run(target: &Target, command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Info { path } => info(target, path),
    }
}

fn info(target: &Target, path: &Path) -> anyhow::Result<()> {
    let ino = target.inode_of(path)?;
    let mut report = target.ask(&FileInfo { ino, from: ChunkIndex(0) }, Some(path))?;
    while let Some(from) = report.more {
        let next = target.ask(&FileInfo { ino, from }, Some(path))?;
        report.chunks.extend(next.chunks);
        report.more = next.more;
    }
    if target.json {
        println!("{}", serde_json::to_string_pretty(&json(&report))?);
        return Ok(());
    }
    let attr = &report.attr;
    pairs(&[
        ("path", from_root(&report.path), Tone::Plain),
        ("inode", attr.ino.to_string(), Tone::Plain),
        ("size", format!("{} ({})", attr.size, bytes(attr.size)), Tone::Plain),
        ("replicas", format!("goal {}", report.goal), Tone::Plain),
        ("chunks", report.chunks.len().to_string(), Tone::Plain),
    ]);
    if report.chunks.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&["INDEX", "CHUNK", "VERSION", "CONFIG", "STATE", "REPLICAS (PRIMARY FIRST)"]);
    for chunk in &report.chunks {
        let up = chunk.members.iter().filter(|m| m.up).count();
        let state = match (up, chunk.recovering, up >= usize::from(report.goal)) {
            (0, ..) => ("unavailable", Tone::Bad),
            (_, true, _) => ("recovering", Tone::Bad),
            (_, false, true) => ("ok", Tone::Good),
            (_, false, false) => ("below goal", Tone::Bad),
        };
        table.row(vec![
            (chunk.index.0.to_string(), Tone::Plain),
            (chunk.chunk.to_string(), Tone::Plain),
            (chunk.version.to_string(), Tone::Plain),
            (chunk.config.to_string(), Tone::Plain),
            (state.0.to_owned(), state.1),
            (places(&chunk.members, &chunk.learners), Tone::Plain),
        ]);
    }
    table.print();
    Ok(())
}

fn places(members: &[ReplicaReport], learners: &[ReplicaReport]) -> String {
    let one = |r: &ReplicaReport, note: &str| {
        let down = if r.up { "" } else { " down" };
        format!("{} ({}{note}{down})", r.name, r.tcp)
    };
    let members = members.iter().map(|r| one(r, ""));
    members.chain(learners.iter().map(|r| one(r, ", filling"))).collect::<Vec<_>>().join("  ")
}

/// The report with attributes and path in a form that JSON can carry.
fn json(report: &FileReport) -> serde_json::Value {
    serde_json::json!({
        "path": String::from_utf8_lossy(&report.path),
        "inode": report.attr.ino,
        "size": report.attr.size,
        "goal": report.goal,
        "chunks": report.chunks,
    })
}
