//! `dfs goal`: how many replicas a file is to have, and files that are made in a directory.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Subcommand;
use dfs_proto::conn::CallError;
use dfs_proto::ids::Ino;
use dfs_proto::meta::{GOAL_MAX, Goal, GoalReport, GoalSet, SetGoal, ShowGoal};
use dfs_proto::status::Status;

use crate::clock::Deadline;
use crate::connect::{Line, Target};
use crate::output::{Tone, from_root, pairs};

/// How often the counts are told where they are read as lines.
const TELL_EVERY: Duration = Duration::from_secs(5);

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Give a file or directory a goal of its own. Files and directories made in a directory begin with the directory's;
    /// what is there already keeps its own, unless --recursive says otherwise
    Set(Set),
    /// The goal of a file or directory, and where it comes from
    Show {
        /// A path on a dfs mount
        path: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Set {
    /// A path on a dfs mount
    path: PathBuf,
    /// Replicas of each chunk, or cluster: no goal of its own, as many as the cluster's says
    #[arg(value_name = "N|cluster", value_parser = number)]
    goal: Number,
    /// Most replicas that load brings about. Without it as many as `dfs policy show` says, whatever was set before
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u8).range(..=i64::from(GOAL_MAX)))]
    max: Option<u8>,
    /// And all that lies below. What is made meanwhile begins with the new goal; a directory that is moved within the tree
    /// meanwhile can be missed. Ended or refused half way, the same command goes on where it has to
    #[arg(long)]
    recursive: bool,
}

/// A goal as it is written.
#[derive(Clone, Copy, Debug)]
struct Number(Option<u8>);

fn number(text: &str) -> Result<Number, String> {
    match (text, text.parse()) {
        ("cluster", _) => Ok(Number(None)),
        (_, Ok(number)) if number <= GOAL_MAX => Ok(Number(Some(number))),
        (_, Ok(_) | Err(_)) => Err(format!("a goal is a number from 1 to {GOAL_MAX}, or cluster")),
    }
}

pub(crate) fn run(target: &Target, command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Set(args) => set(target, args),
        Command::Show { path } => show(target, path),
    }
}

/// What was changed so far.
#[derive(Debug, Default, serde::Serialize)]
struct Changed {
    files: u64,
    directories: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

fn set(target: &Target, args: &Set) -> anyhow::Result<()> {
    let path = &args.path;
    let ino = target.inode_of(path)?;
    let goal = Goal { goal: args.goal.0, max: args.max };
    let line = target.line(Some(path))?;
    let first = ask(&line, SetGoal { ino, goal, below: None }, path)?;
    let mut changed = Changed { files: first.files, directories: first.dirs, note: first.note.clone() };
    if args.recursive && std::fs::symlink_metadata(path)?.is_dir() {
        walk(&line, ino, goal, path, &mut changed)?;
    }
    if target.json {
        println!("{}", serde_json::to_string_pretty(&changed)?);
        return Ok(());
    }
    let Changed { files, directories, note } = &changed;
    println!("{files} files and {directories} directories changed");
    if let Some(note) = note {
        println!("{note}");
    }
    Ok(())
}

/// A directory has the goal before it is listed: what is made in it after that begins with it.
fn walk(line: &Line, root: Ino, goal: Goal, path: &Path, changed: &mut Changed) -> anyhow::Result<()> {
    let mut progress = Progress::new();
    let mut dirs = vec![root];
    while let Some(dir) = dirs.pop() {
        let mut below = Some(0);
        while let Some(cookie) = below {
            let part = match ask(line, SetGoal { ino: dir, goal, below: Some(cookie) }, path) {
                Ok(part) => part,
                Err(gone) if dir != root && is_gone(&gone) => break,
                Err(error) => {
                    let Changed { files, directories, .. } = changed;
                    let so_far = format!("{files} files and {directories} directories were changed before");
                    return Err(error.context(format!("{so_far}; the same command goes on")));
                }
            };
            changed.files += part.files;
            changed.directories += part.dirs;
            below = part.next;
            dirs.extend(part.inner);
            progress.tell(changed);
        }
    }
    Ok(())
}

/// Removed since its name was listed.
fn is_gone(error: &anyhow::Error) -> bool {
    let status = error.chain().find_map(|cause| cause.downcast_ref::<CallError>());
    status.is_some_and(|error| error.status() == Status::NotFound)
}

fn ask(line: &Line, request: SetGoal, path: &Path) -> anyhow::Result<GoalSet> {
    let set = line.ask(&request).with_context(|| format!("{}", path.display()))?;
    if let Some(why) = &set.refused {
        bail!("nothing was changed: {why}");
    }
    Ok(set)
}

/// Counts on the standard error while it goes on: in one place on a terminal, else now and then.
struct Progress {
    terminal: bool,
    next: Deadline,
}

impl Progress {
    fn new() -> Progress {
        Progress { terminal: std::io::stderr().is_terminal(), next: Deadline::after(TELL_EVERY) }
    }

    fn tell(&mut self, changed: &Changed) {
        let Changed { files, directories, .. } = changed;
        if self.terminal {
            eprint!("\r\x1b[K{files} files and {directories} directories changed ...");
        } else if self.next.passed() {
            self.next = Deadline::after(TELL_EVERY);
            eprintln!("{files} files and {directories} directories changed so far");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.terminal {
            eprint!("\r\x1b[K");
        }
    }
}

fn show(target: &Target, path: &Path) -> anyhow::Result<()> {
    let ino = target.inode_of(path)?;
    let report = target.ask(&ShowGoal { ino }, Some(path)).with_context(|| format!("{}", path.display()))?;
    if target.json {
        println!("{}", serde_json::to_string_pretty(&json(&report))?);
        return Ok(());
    }
    let GoalReport { own, goal, max, cluster_goal, policy_max, servers, hosts, .. } = &report;
    let from = |own: Option<u8>, of: &str| if own.is_some() { "its own" } else { of }.to_owned();
    let of_max = match own.max {
        Some(wanted) if wanted != *max => format!("its own says {wanted}, the policy {policy_max}"),
        Some(_) => "its own".to_owned(),
        None => "the policy's".to_owned(),
    };
    pairs(&[
        ("path", from_root(&report.path), Tone::Plain),
        ("goal", format!("{goal} ({})", from(own.goal, "the cluster's")), Tone::Plain),
        ("at most", format!("{max} for load ({of_max})"), Tone::Plain),
        ("cluster's goal", cluster_goal.to_string(), Tone::Plain),
        ("take replicas", format!("{servers} servers on {hosts} hosts"), Tone::Plain),
    ]);
    if report.dir {
        println!("Files and directories made in it begin with what it has of its own.");
    }
    Ok(())
}

fn json(report: &GoalReport) -> serde_json::Value {
    serde_json::json!({
        "path": from_root(&report.path),
        "directory": report.dir,
        "goal": report.goal,
        "max_replicas": report.max,
        "own_goal": report.own.goal,
        "own_max": report.own.max,
        "cluster_goal": report.cluster_goal,
        "policy_max": report.policy_max,
        "servers": report.servers,
        "hosts": report.hosts,
    })
}
