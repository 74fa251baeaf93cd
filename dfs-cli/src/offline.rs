//! What commands do that work on disks of stopped servers: the chunk server's binary reads them and prints what it finds,
//! the master's reads that and writes a directory.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use anyhow::{Context, bail};
use dfs_proto::listing::Line;

use crate::connect::Target;

/// Runs `dfs-chunkserver headers` of these disks with `options` into `master`; the master's exit code, or a failure.
pub(crate) fn pipe(disks: &[PathBuf], options: &[&str], mut master: Command) -> anyhow::Result<ExitCode> {
    let reader = crate::dev::find("dfs-chunkserver")?;
    let mut headers = Command::new(&reader);
    headers.arg("headers").args(options).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for disk in disks {
        headers.arg("--disk").arg(disk);
    }
    let mut headers = headers.spawn().with_context(|| format!("cannot start {}", reader.display()))?;
    let listing = headers.stdout.take().context("no pipe to read the headers from")?;
    let made = master.stdin(Stdio::from(listing)).stderr(Stdio::piped()).spawn();
    let made = made.and_then(std::process::Child::wait_with_output);
    let writer = Path::new(master.get_program()).display().to_string();
    // Its end of the pipe: a reader whose listing nobody takes would wait for ever.
    drop(master);
    let read = headers.wait_with_output().with_context(|| format!("{}", reader.display()))?;
    let made = made.with_context(|| format!("cannot start {writer}"))?;
    // When the disks can't be read, that the listing ends early is no news.
    let said = if read.stderr.is_empty() { &made.stderr } else { &read.stderr };
    std::io::stderr().write_all(said)?;
    if read.status.success() { as_it_ended(&writer, made.status) } else { Ok(ExitCode::FAILURE) }
}

/// What `dfs-chunkserver headers` with `options` says of these disks, but for the line that ends it.
pub(crate) fn lines(disks: &[PathBuf], options: &[&str]) -> anyhow::Result<Vec<Line>> {
    if disks.is_empty() {
        return Ok(Vec::new());
    }
    let reader = crate::dev::find("dfs-chunkserver")?;
    let mut headers = Command::new(&reader);
    headers.arg("headers").args(options).stdin(Stdio::null());
    for disk in disks {
        headers.arg("--disk").arg(disk);
    }
    let read = headers.output().with_context(|| format!("cannot start {}", reader.display()))?;
    if !read.status.success() {
        bail!("{}", String::from_utf8_lossy(&read.stderr).trim_end().trim_start_matches("dfs-chunkserver: "));
    }
    let text = std::str::from_utf8(&read.stdout).context("the listing of the disks")?;
    let mut lines = Vec::new();
    for line in text.lines() {
        lines.push(serde_json::from_str(line).context("the listing of the disks")?);
    }
    match lines.pop() {
        Some(Line::Done { .. }) => Ok(lines),
        Some(_) | None => bail!("the listing of the disks ends early"),
    }
}

/// Gives `master` a listing; its exit code.
pub(crate) fn feed(lines: &[Line], mut master: Command) -> anyhow::Result<ExitCode> {
    let name = Path::new(master.get_program()).display().to_string();
    let started = master.stdin(Stdio::piped()).spawn();
    let mut running = started.with_context(|| format!("cannot start {name}"))?;
    if let Some(pipe) = running.stdin.take() {
        let mut pipe = std::io::BufWriter::new(pipe);
        // A master that refuses what it reads says why, and reads no further.
        let _ = write_lines(&mut pipe, lines);
    }
    let status = running.wait().with_context(|| name.clone())?;
    as_it_ended(&name, status)
}

/// Runs `dfs-master` with what `options` adds; its exit code, or a failure.
pub(crate) fn run_master(
    target: &Target,
    options: impl FnOnce(&mut Command) -> anyhow::Result<()>,
) -> anyhow::Result<ExitCode> {
    let program = crate::dev::find("dfs-master")?;
    let mut master = Command::new(&program);
    options(&mut master)?;
    if target.json {
        master.arg("--json");
    }
    let status = master.status().with_context(|| format!("cannot start {}", program.display()))?;
    as_it_ended(&program.display().to_string(), status)
}

fn as_it_ended(name: &str, status: ExitStatus) -> anyhow::Result<ExitCode> {
    match status.code().and_then(|code| u8::try_from(code).ok()) {
        Some(code) => Ok(ExitCode::from(code)),
        None => bail!("{name} ended by {status}"),
    }
}

fn write_lines(to: &mut impl Write, lines: &[Line]) -> std::io::Result<()> {
    for line in lines {
        serde_json::to_writer(&mut *to, line)?;
        to.write_all(b"\n")?;
    }
    to.flush()
}

/// How many copies of the master's log lie on these disks, by their names.
pub(crate) fn copies_on(disks: &[PathBuf]) -> usize {
    let places = disks.iter().filter_map(|disk| std::fs::read_dir(disk.join("master-copy")).ok());
    places.flatten().flatten().filter(|place| place.path().join("copy.json").is_file()).count()
}
