//! What the headers of running chunk servers say, that have lost their master, and the copies of its log that they have:
//! asked for over the network, in the lines in which `dfs-chunkserver headers` says it of stopped ones.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use dfs_proto::checksum::crc32c;
use dfs_proto::control::{
    CopyFile, CopyFiles, CopyPart, HeaderPart, LOG_READ_MAX, ListCopies, ListHeaders, ReadCopy,
};
use dfs_proto::ids::{ChunkId, ClusterId};
use dfs_proto::listing::{Line, ListedCopy, ListedDisk};

use crate::connect::{self, chunk_server};
use crate::offline;

/// The listing of these disks and these servers, in one.
///
/// # Errors
/// The first server that does not answer, by its name, or is of another cluster than the one before; with `without`,
/// such a server is left out, and said to be.
pub(crate) fn listing(disks: &[PathBuf], servers: &[String], without: bool) -> anyhow::Result<Vec<Line>> {
    let mut lines = offline::lines(disks, &[])?;
    let mut cluster = cluster_of(&lines);
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

fn cluster_of(lines: &[Line]) -> Option<ClusterId> {
    lines.iter().find_map(|line| match line {
        Line::Disk(disk) => Some(disk.cluster),
        _ => None,
    })
}

/// The copies of the master's log on these disks, and those of these servers, which are fetched into `dir`, in one.
///
/// # Errors
/// The first server that does not answer, by its name, or is of another cluster than the one before; and what is wrong with
/// `dir`.
pub(crate) fn copies(disks: &[PathBuf], servers: &[String], dir: &Path) -> anyhow::Result<Vec<Line>> {
    let mut lines = offline::lines(disks, &["--copies"])?;
    let mut cluster = cluster_of(&lines);
    for server in servers {
        let more = copies_of(server, &mut cluster, &dir.join(server));
        lines.extend(more.map_err(|error| anyhow!("{error:#}; leave it out to go on without its copy"))?);
    }
    let disks = lines.iter().filter(|line| matches!(line, Line::End { .. })).count() as u64;
    lines.push(Line::Done { disks });
    Ok(lines)
}

fn copies_of(server: &str, cluster: &mut Option<ClusterId>, dir: &Path) -> anyhow::Result<Vec<Line>> {
    let (line, theirs) = chunk_server(server, *cluster)?;
    cluster.get_or_insert(theirs);
    let mut lines = Vec::new();
    for disk in 0.. {
        let part: CopyPart = line.ask(&ListCopies { disk }).with_context(|| server.to_owned())?;
        let Some(of) = part.disk else { break };
        let dir = dir.join(disk.to_string());
        std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        lines.push(Line::Disk(ListedDisk { path: dir.display().to_string(), ..of }));
        for CopyFiles { about, written, dir: place, files } in part.copies {
            for file in &files {
                fetch(&line, disk, file, &dir.join(file.name.as_str()))
                    .with_context(|| format!("{server}: {}", file.name.as_str()))?;
            }
            let path = dir.join(place.as_str()).display().to_string();
            lines.push(Line::Copy(ListedCopy { path, about, written }));
        }
        lines.push(Line::End { replicas: 0, damaged_slots: 0 });
    }
    Ok(lines)
}

fn fetch(line: &connect::Line, disk: u16, file: &CopyFile, to: &Path) -> anyhow::Result<()> {
    if let Some(dir) = to.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let mut out = std::fs::File::create_new(to)?;
    let mut offset = 0;
    while offset < file.len {
        let len = u32::try_from(file.len - offset).unwrap_or(u32::MAX).min(LOG_READ_MAX);
        let (body, bytes) = line.ask_for_bytes(&ReadCopy { disk, name: file.name.clone(), offset, len })?;
        if crc32c(&bytes) != body.crc || bytes.len() > LOG_READ_MAX as usize {
            bail!("it came damaged");
        }
        if bytes.is_empty() {
            bail!("it has become shorter");
        }
        out.write_all(&bytes)?;
        offset += bytes.len() as u64;
    }
    Ok(())
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
