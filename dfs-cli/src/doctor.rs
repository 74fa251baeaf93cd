//! `dfs doctor`: what on this machine and in its cluster is not as dfs needs it, and what to do. It changes nothing.
//!
//! Reading order: [`machine`] (kernel, clock, mounts), [`disks`] (what chunk servers' files name), [`cluster`] (what the master
//! says).

mod cluster;
mod disks;
mod machine;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

use crate::connect::Target;
use crate::output::{Tone, colour, ended, paint};

/// The exit code where something is wrong.
const FOUND: u8 = 1;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where the machine's configuration is
    #[arg(long, value_name = "DIR", default_value = "/etc")]
    etc: PathBuf,
}

/// How a check came out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Level {
    Good,
    /// Works, and is worth to know.
    Advice,
    Wrong,
}

/// One check.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct Finding {
    level: Level,
    what: String,
    found: String,
    /// What to do; empty where nothing is.
    todo: String,
}

/// What was found so far.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Findings(Vec<Finding>);

impl Findings {
    fn good(&mut self, what: &str, found: impl Into<String>) {
        self.push(Level::Good, what, found.into(), "");
    }

    fn advice(&mut self, what: &str, found: impl Into<String>, todo: &str) {
        self.push(Level::Advice, what, found.into(), todo);
    }

    fn wrong(&mut self, what: &str, found: impl Into<String>, todo: &str) {
        self.push(Level::Wrong, what, found.into(), todo);
    }

    fn push(&mut self, level: Level, what: &str, found: String, todo: &str) {
        self.0.push(Finding { level, what: what.to_owned(), found, todo: todo.to_owned() });
    }
}

/// All checks, with the machine's configuration in `etc`.
pub(crate) fn findings(target: &Target, etc: &Path) -> Findings {
    let mut findings = Findings::default();
    machine::look(etc, &mut findings);
    let cluster = cluster::look(target, &mut findings);
    disks::look(etc, cluster, &mut findings);
    findings
}

pub(crate) fn run(target: &Target, args: &Args) -> ExitCode {
    let findings = findings(target, &args.etc);
    let wrong = findings.0.iter().any(|finding| finding.level == Level::Wrong);
    let code = if wrong { ExitCode::from(FOUND) } else { ExitCode::SUCCESS };
    ended(show(target, &findings.0).map(|()| code), ExitCode::FAILURE)
}

fn show(target: &Target, findings: &[Finding]) -> anyhow::Result<()> {
    if target.json {
        println!("{}", serde_json::to_string_pretty(findings)?);
        return Ok(());
    }
    let colour = colour();
    for Finding { level, what, found, todo } in findings {
        let (word, tone) = match level {
            Level::Good => ("good  ", Tone::Good),
            Level::Advice => ("advice", Tone::Plain),
            Level::Wrong => ("wrong ", Tone::Bad),
        };
        println!("{}  {what}: {found}", paint(word, tone, colour));
        if !todo.is_empty() {
            println!("        {todo}");
        }
    }
    Ok(())
}
