//! `dfs session`: the mounts that have a session with the master, and ending one.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::Subcommand;
use dfs_proto::meta::{EvictSession, SessionList, SessionReport, SessionReports};

use crate::clock::Deadline;
use crate::connect::Target;
use crate::output::{Table, Tone, Waiting, confirm, span};

/// How often is looked whether an evicted session has ended.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Beyond its lease, an end takes a record of the log.
const END_WITHIN: Duration = Duration::from_secs(10);

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// All sessions: which mounts, whether they are there, how many files they have open
    List,
    /// End a mount's session and wait until it has ended: its open files and what it wrote and did not sync are lost to it,
    /// and others get at what it kept from them
    Evict {
        /// The session's number, or the mount's name if only one has it, as `dfs session list` shows them
        session: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

pub(crate) fn run(target: &Target, command: &Command) -> anyhow::Result<()> {
    match command {
        Command::List => list(target),
        Command::Evict { session, yes } => evict(target, session, *yes),
    }
}

fn evict(target: &Target, text: &str, yes: bool) -> anyhow::Result<()> {
    let reports = target.ask(&SessionList {}, None)?;
    let SessionReport { session, name, open_files, .. } = find(&reports, text)?;
    let session = *session;
    println!(
        "session {session}, {name}, with {open_files} open files: calls on them fail from now on, what was written there and not \
         synced is lost, and its programs are told. The mount goes on with a new session."
    );
    if !yes {
        confirm("the session's number", &session.to_string())?;
    }
    target
        .ask(&EvictSession { session }, None)
        .with_context(|| format!("session {session} is not evicted; it may have ended by itself"))?;
    let lease = Duration::from_millis(reports.lease_ms);
    let waiting = Waiting::show("its lease runs out: until then nobody else gets what it held");
    let ended = Deadline::after(lease + END_WITHIN).poll(|| {
        std::thread::sleep(LOOK_EVERY);
        let now = target.ask(&SessionList {}, None)?;
        match now.sessions.iter().find(|report| report.session == session) {
            None => Ok(Some(())),
            Some(report) if report.evicted => Ok(None),
            Some(_) => {
                bail!("a new master leads, and does not know of it: session {session} goes on; try again")
            }
        }
    })?;
    drop(waiting);
    if ended.is_none() {
        bail!("the lease of session {session} is over and it has not ended: look at `dfs status`");
    }
    println!("session {session} has ended");
    Ok(())
}

/// The session of that number, or of the only mount of that name.
fn find<'a>(reports: &'a SessionReports, text: &str) -> anyhow::Result<&'a SessionReport> {
    let is = |report: &&SessionReport| report.name == text || report.session.to_string() == text;
    let mut found = reports.sessions.iter().filter(is);
    match (found.next(), found.next()) {
        (Some(report), None) => Ok(report),
        (Some(_), Some(_)) => {
            bail!(
                "{text:?} is the name of several mounts: give the number of a session of `dfs session list`"
            )
        }
        (None, _) => bail!("no session {text:?}: `dfs session list` shows them"),
    }
}

fn list(target: &Target) -> anyhow::Result<()> {
    let report = target.ask(&SessionList {}, None)?;
    if target.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    if report.sessions.is_empty() {
        println!("no mount has a session");
        return Ok(());
    }
    let mut table = Table::new(&["SESSION", "MOUNT", "STATE", "HEARD", "OPEN FILES"]);
    for session in &report.sessions {
        table.row(vec![
            (session.session.to_string(), Tone::Plain),
            (session.name.clone(), Tone::Plain),
            state(session, report.lease_ms),
            (format!("{} ago", span(session.silent_ms)), Tone::Plain),
            (session.open_files.to_string(), Tone::Plain),
        ]);
    }
    table.print();
    Ok(())
}

/// One without a connection keeps what it holds until its lease is over.
fn state(session: &SessionReport, lease_ms: u64) -> (String, Tone) {
    let left = lease_ms.saturating_sub(session.silent_ms);
    if session.evicted {
        return (format!("evicted, ends in {} at most", span(left)), Tone::Bad);
    }
    if session.connected {
        return ("connected".to_owned(), Tone::Good);
    }
    (format!("no connection, ends in {} at most", span(left)), Tone::Bad)
}

#[cfg(test)]
mod tests {
    use dfs_proto::ids::{OsBootId, SessionId};

    use super::*;

    #[test]
    fn a_mount_that_is_gone_is_said_to_end() {
        let session = |connected| SessionReport {
            session: SessionId(1),
            name: "host:/mnt".to_owned(),
            os_boot: OsBootId(1),
            connected,
            silent_ms: 12_000,
            open_files: 0,
            evicted: false,
        };
        assert_eq!(state(&session(true), 30_000).0, "connected");
        assert_eq!(state(&session(false), 30_000).0, "no connection, ends in 18 s at most");
        assert_eq!(state(&session(false), 5_000).0, "no connection, ends in 0 ms at most");
        let evicted = SessionReport { evicted: true, ..session(true) };
        assert_eq!(state(&evicted, 30_000).0, "evicted, ends in 18 s at most");
    }

    #[test]
    fn a_session_is_found_by_its_number_or_a_name_of_its_own() {
        let report = |number, name: &str| SessionReport {
            session: SessionId(number),
            name: name.to_owned(),
            os_boot: OsBootId(1),
            connected: true,
            silent_ms: 0,
            open_files: 0,
            evicted: false,
        };
        let sessions = vec![report(3, "a:/mnt"), report(4, "b:/mnt"), report(5, "b:/mnt")];
        let reports = SessionReports { sessions, lease_ms: 30_000 };
        let found =
            |text| find(&reports, text).map(|report| report.session.0).map_err(|error| error.to_string());
        assert_eq!(found("a:/mnt"), Ok(3));
        assert_eq!(found("5"), Ok(5));
        assert!(found("b:/mnt").is_err_and(|error| error.contains("several")));
        assert!(found("c:/mnt").is_err());
    }
}
