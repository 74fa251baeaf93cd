//! `dfs damaged`: which bytes of which files have no good replica, and what is wrong with each that there is.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use dfs_proto::control::runs_of;
use dfs_proto::ids::Ino;
use dfs_proto::meta::{Damaged, DamagedChunk, DamagedReplica, FileInfo, ReplicaFault};
use dfs_proto::units::{BLOCK_SIZE, ChunkIndex, ChunkSize};

use crate::connect::{Line, Target};
use crate::output::{Tone, bytes, colour, ended, from_root, paint, span};

const FOUND: u8 = 1;
const FAILED: u8 = 2;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this file, on a dfs mount
    path: Option<PathBuf>,
}

/// A chunk without a good replica, as people see it.
#[derive(Clone, Debug)]
pub(crate) struct Loss {
    pub(crate) chunk: DamagedChunk,
    /// Of the file, in bytes: from, to (exclusive). None where the chunk lies beyond the file's end.
    pub(crate) ranges: Vec<(u64, u64)>,
}

pub(crate) fn run(target: &Target, args: &Args) -> ExitCode {
    let code = |any| if any { ExitCode::from(FOUND) } else { ExitCode::SUCCESS };
    ended(list(target, args).map(code), ExitCode::from(FAILED))
}

/// Whether there is any.
fn list(target: &Target, args: &Args) -> anyhow::Result<bool> {
    let ino = args.path.as_deref().map(|path| target.inode_of(path)).transpose()?;
    let line = target.line(args.path.as_deref())?;
    let losses = losses(&line, ino)?;
    let mut files: BTreeMap<Ino, Vec<Loss>> = BTreeMap::new();
    for loss in losses {
        files.entry(loss.chunk.ino).or_default().push(loss);
    }
    let any = !files.is_empty();
    let mut json = Vec::new();
    for (ino, losses) in files {
        let path = path_of(&line, ino);
        if target.json {
            json.push(to_json(&path, ino, &losses));
        } else {
            print_file(&path, &losses);
        }
    }
    match (target.json, any) {
        (true, _) => println!("{}", serde_json::to_string_pretty(&json)?),
        (false, true) => println!(
            "Bring back the servers that are down if you can: their replicas count again by themselves. What is \
             lost for good, `dfs repair-file PATH` gives up."
        ),
        (false, false) => println!("no damage: every chunk has a good replica"),
    }
    Ok(any)
}

/// All chunks without a good replica, of one file or of all, in the order of the inodes and of the bytes in them.
pub(crate) fn losses(line: &Line, ino: Option<Ino>) -> anyhow::Result<Vec<Loss>> {
    let mut all = Vec::new();
    let mut from = Some(0);
    while let Some(at) = from {
        let part = line.ask(&Damaged { ino, from: at })?;
        let size = part.chunk_size;
        all.extend(part.chunks.into_iter().map(|chunk| Loss { ranges: ranges(&chunk, size), chunk }));
        from = part.next;
    }
    // The master goes by the ids of chunks, which are not given out in the order of a file's bytes.
    all.sort_by_key(|loss| (loss.chunk.ino, loss.chunk.index));
    Ok(all)
}

/// Which bytes of the file are concerned.
fn ranges(chunk: &DamagedChunk, size: ChunkSize) -> Vec<(u64, u64)> {
    let start = chunk.index.0.saturating_mul(u64::from(size.bytes()));
    let bad = chunk.replicas.iter().find_map(|replica| match &replica.why {
        ReplicaFault::Corrupt { blocks } => Some(blocks),
        ReplicaFault::Away { .. } | ReplicaFault::Missing | ReplicaFault::Failed => None,
    });
    let runs = match bad {
        Some(blocks) => runs_of(blocks),
        None => vec![(0, size.bytes() / BLOCK_SIZE)],
    };
    cut(start, &runs, chunk.size)
}

/// Runs of blocks as ranges of a file of `size` bytes.
pub(crate) fn cut(start: u64, runs: &[(u32, u32)], size: u64) -> Vec<(u64, u64)> {
    let block = u64::from(BLOCK_SIZE);
    let range = |(first, count): &(u32, u32)| {
        let from = start + u64::from(*first) * block;
        (from, (from + u64::from(*count) * block).min(size))
    };
    runs.iter().map(range).filter(|(from, to)| from < to).collect()
}

/// The path as the master has it, from the root of the filesystem.
pub(crate) fn path_of(line: &Line, ino: Ino) -> String {
    let path = line.ask(&FileInfo { ino, from: ChunkIndex(u64::MAX) }).map(|report| report.path);
    match path {
        Ok(path) if !path.is_empty() => from_root(&path),
        _ => format!("inode {ino}, which has no name"),
    }
}

fn print_file(path: &str, losses: &[Loss]) {
    println!("{}", paint(path, Tone::Bad, colour()));
    losses.iter().for_each(|loss| println!("  {}", describe(loss)));
}

/// Bytes, chunk, and why.
pub(crate) fn describe(loss: &Loss) -> String {
    let why: Vec<String> = loss.chunk.replicas.iter().map(fault).collect();
    format!("{} (chunk {}): {}", words(&loss.ranges), loss.chunk.chunk, why.join("; "))
}

/// Ranges in words, the last byte included.
pub(crate) fn words(ranges: &[(u64, u64)]) -> String {
    if ranges.is_empty() {
        return "no bytes of the file".to_owned();
    }
    let one = |(from, to): &(u64, u64)| format!("{from}-{}", to - 1);
    let total = ranges.iter().map(|(from, to)| to - from).sum();
    format!("bytes {} ({})", ranges.iter().map(one).collect::<Vec<_>>().join(", "), bytes(total))
}

fn fault(replica: &DamagedReplica) -> String {
    let DamagedReplica { server, name, why } = replica;
    match why {
        ReplicaFault::Away { silent_ms: Some(ms) } => format!("{name} ({server}) is down for {}", span(*ms)),
        ReplicaFault::Away { silent_ms: None } => {
            format!("{name} ({server}) has not come since the master began")
        }
        ReplicaFault::Missing => format!("{name} ({server}) has no file of it"),
        ReplicaFault::Failed => format!("the disk of {name} ({server}) failed it"),
        ReplicaFault::Corrupt { blocks } => format!("{name} ({server}) has {} corrupt blocks", blocks.len()),
    }
}

fn to_json(path: &str, ino: Ino, losses: &[Loss]) -> serde_json::Value {
    let loss = |loss: &Loss| {
        serde_json::json!({
            "chunk": loss.chunk.chunk,
            "index": loss.chunk.index,
            "written": loss.chunk.written,
            "ranges": loss.ranges.iter().map(|(from, to)| serde_json::json!({
                "from": from,
                "to": to,
            })).collect::<Vec<_>>(),
            "replicas": loss.chunk.replicas,
        })
    };
    serde_json::json!({
        "path": path,
        "inode": ino,
        "size": losses.first().map(|loss| loss.chunk.size),
        "damage": losses.iter().map(loss).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_become_ranges_within_the_file() {
        assert_eq!(runs_of(&[1, 2, 3, 7]), [(1, 3), (7, 1)]);
        assert_eq!(cut(0, &[(1, 3), (7, 1)], 30_000), [(4096, 16384), (28672, 30_000)]);
        assert_eq!(cut(65_536, &[(0, 16)], 70_000), [(65_536, 70_000)]);
        assert_eq!(cut(65_536, &[(0, 16)], 65_536), []);
        assert_eq!(words(&[]), "no bytes of the file");
        assert_eq!(words(&[(0, 4096), (8192, 8193)]), "bytes 0-4095, 8192-8192 (4.0 KiB)");
    }
}
