//! The matrix: one fault at a time on a cluster of hosts with networks of their own, under programs that write,
//! read, sync, truncate, make, rename and remove on two mounts. Each row says what may stall and for how long; the
//! models judge what was read, and at the end every chunk has its replicas, and they are equal.

mod rig;
mod rows;
mod rest;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::clock;
use super::work::Kind;

pub use self::rows::ROWS;

/// How long calls may take while the fault is there and after it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Reads of what nobody writes.
    pub still: Duration,
    /// Everything else.
    pub others: Duration,
}

/// What a cluster needs besides its hosts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Needs {
    Nothing,
    /// A disk that fails on demand under the first server.
    FaultyDisk,
    /// One under every server.
    FaultyDisks,
    /// Mounts that come and go: what they share is not always open on all of them.
    Mounts,
}

/// A fault of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub name: &'static str,
    /// What is done.
    pub fault: &'static str,
    pub needs: Needs,
    /// Strikes, waits as long as the fault lasts, and heals. What may stall, and how long.
    strike: fn(&mut rig::Rig) -> anyhow::Result<Bounds>,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Options {
    pub seed: u64,
    /// Where state goes; removed unless something was violated.
    pub dir: PathBuf,
    /// The daemons' binaries.
    pub bin: PathBuf,
    /// What a machine that is busy with other things may add to every bound.
    pub slack: Duration,
}

/// What a row did.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub operations: u64,
    pub synced: u64,
    /// Longest call of each kind from the strike on.
    pub longest: BTreeMap<Kind, Duration>,
    pub bounds: Option<Bounds>,
    /// From the end of the work until all chunks had their replicas.
    pub rest: Duration,
    /// Chunks whose replicas were compared.
    pub chunks: usize,
    pub violations: Vec<String>,
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let took = |kind: Kind| self.longest.get(&kind).copied().unwrap_or_default().as_secs_f64();
        let bound =
            |of: fn(&Bounds) -> Duration| self.bounds.as_ref().map_or(0.0, |all| of(all).as_secs_f64());
        write!(
            f,
            "still {:.2} s (bound {:.1}), read {:.2} write {:.2} name {:.2} s (bound {:.1}), at rest {:.1} s, operations {}, fsyncs {}, chunks equal {}, violations {}",
            took(Kind::Still),
            bound(|bounds| bounds.still),
            took(Kind::Read),
            took(Kind::Write),
            took(Kind::Name),
            bound(|bounds| bounds.others),
            self.rest.as_secs_f64(),
            self.operations,
            self.synced,
            self.chunks,
            self.violations.len()
        )
    }
}

/// How long the work goes on before the fault and after it.
const BEFORE: Duration = Duration::from_secs(2);
const AFTER: Duration = Duration::from_secs(2);

/// Runs a row on a cluster of its own.
///
/// # Errors
/// When the machine can't do it. What the cluster does wrong is in the report.
pub fn run(row: &Row, options: &Options) -> anyhow::Result<Report> {
    let mut rig = rig::Rig::new(options, row.needs)?;
    if let Err(error) = rig.run(row) {
        rig.report.violations.push(format!("{error:#}\n{}", rig.logs()));
    }
    Ok(rig.end())
}

impl rig::Rig {
    fn run(&mut self, row: &Row) -> anyhow::Result<()> {
        let work = self.begin()?;
        std::thread::sleep(BEFORE);
        let struck = clock::now();
        let bounds = (row.strike)(self)?;
        std::thread::sleep(AFTER);
        self.finish(work)?;
        self.measure(struck, bounds);
        self.look()?;
        self.come_to_rest()?;
        self.compare_replicas()
    }
}
