//! What the headers of running chunk servers say, that have lost their master: asked for over the network, in the lines in
//! which `dfs-chunkserver headers` says it of stopped ones.

use std::path::PathBuf;

use anyhow::{Context, anyhow};
use dfs_proto::control::{HeaderPart, ListHeaders};
use dfs_proto::ids::{ChunkId, ClusterId};
use dfs_proto::listing::Line;

use crate::connect::chunk_server;
use crate::offline;

/// The listing of these disks and these servers, in one.
///
/// # Errors
/// The first server that does not answer, by its name, or is of another cluster than the one before; with `without`,
/// such a server is left out, and said to be.
pub(crate) fn listing(disks: &[PathBuf], servers: &[String], without: bool) -> anyhow::Result<Vec<Line>> {
    let mut lines = if disks.is_empty() { Vec::new() } else { offline::lines(disks)? };
    let mut cluster = lines.iter().find_map(|line| match line {
        Line::Disk(disk) => Some(disk.cluster),
        _ => None,
    });
    for server in servers {
        match headers_of(server, &mut cluster) {
            Ok(more) => lines.extend(more),
            Err(error) if without => eprintln!("dfs: left out: {error:#}"),
            Err(error) => return Err(anyhow!("{error:#}; --accept-missing-replicas goes on without it")),
        }
    }
    let disks = lines.iter().filter(|line| matches!(line, Line::End { .. })).count() as u64;
    if disks == 0 {
        return Err(anyhow!("no server was reached"));
    }
    lines.push(Line::Done { disks });
    Ok(lines)
}

/// The lines of all disks of a server.
fn headers_of(server: &str, cluster: &mut Option<ClusterId>) -> anyhow::Result<Vec<Line>> {
    let (line, theirs) = chunk_server(server, *cluster)?;
    cluster.get_or_insert(theirs);
    let mut lines = Vec::new();
    for disk in 0.. {
        let (mut from, mut count, mut listed) = (ChunkId(0), 0, false);
        loop {
            let part: HeaderPart =
                line.ask(&ListHeaders { disk, from }).with_context(|| server.to_owned())?;
            let Some(of) = part.disk else { return Ok(lines) };
            if !std::mem::replace(&mut listed, true) {
                lines.push(Line::Disk(of));
            }
            count += part.replicas.len() as u64;
            lines.extend(part.replicas.into_iter().map(Line::Replica));
            match part.next {
                Some(next) if next > from => from = next,
                Some(_) => return Err(anyhow!("{server}: it lists its headers in a circle")),
                None => break,
            }
        }
        lines.push(Line::End { replicas: count, damaged_slots: 0 });
    }
    Ok(lines)
}
