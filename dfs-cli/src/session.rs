//! `dfs session`: the mounts that have a session with the master.

use clap::Subcommand;
use dfs_proto::meta::{SessionList, SessionReport};

use crate::connect::Target;
use crate::output::{Table, Tone, span};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// All sessions: which mounts, whether they are there, how many files they have open
    List,
}

pub(crate) fn run(target: &Target, command: &Command) -> anyhow::Result<()> {
    match command {
        Command::List => list(target),
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
    if session.connected {
        return ("connected".to_owned(), Tone::Good);
    }
    let left = lease_ms.saturating_sub(session.silent_ms);
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
        };
        assert_eq!(state(&session(true), 30_000).0, "connected");
        assert_eq!(state(&session(false), 30_000).0, "no connection, ends in 18 s at most");
        assert_eq!(state(&session(false), 5_000).0, "no connection, ends in 0 ms at most");
    }
}
