//! What needs a person, in words: from the same reports as everything else on the port.

use dfs_proto::meta::{ClusterReport, ServerReport, ServerReports, SessionReports};
use serde::Serialize;

/// Less than one part in so many free is little.
const LOW_PARTS: u64 = 10;
/// A mount that is silent for so long and has no connection is worth a word.
const CUT_OFF_MS: u64 = 5_000;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    Critical,
    Warning,
    Info,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Alert {
    pub(super) level: Level,
    /// What is so.
    pub(super) what: String,
    /// What to do.
    pub(super) todo: String,
}

/// The worst first.
pub(super) fn alerts(
    status: &ClusterReport,
    servers: &ServerReports,
    sessions: &SessionReports,
) -> Vec<Alert> {
    let mut all = Vec::new();
    let mut say = |level, what: String, todo: &str| all.push(Alert { level, what, todo: todo.to_owned() });
    cluster(status, &mut say);
    for server in &servers.servers {
        of_server(server, &mut say);
    }
    for copy in status.copies.iter().filter(|copy| copy.up) {
        if let Some(trouble) = &copy.trouble {
            let what = format!("{} does not keep its copy of the master's log: {trouble}", copy.server);
            say(
                Level::Warning,
                what,
                "The copies are what is left if the master's disk dies: make room, or replace the disk.",
            );
        }
    }
    for session in &sessions.sessions {
        if !session.connected && session.silent_ms > CUT_OFF_MS {
            let what = format!("The mount {} has no connection", session.name);
            say(
                Level::Info,
                what,
                "Its machine is down or cut off; what it holds is free once its lease is over.",
            );
        }
    }
    all.sort_by_key(|alert| alert.level);
    all
}

fn cluster(status: &ClusterReport, say: &mut impl FnMut(Level, String, &str)) {
    if let Some(why) = &status.hold {
        say(
            Level::Critical,
            format!("The master is on hold: {why}"),
            "Nothing changes until a person decides: `dfs recover` says how.",
        );
    }
    if status.chunks_unavailable > 0 {
        let what = format!("{} chunks have no replica that is alive", status.chunks_unavailable);
        say(Level::Critical, what, "Bring their servers back; `dfs damaged` names files and servers.");
    }
    if status.blocks_hopeless > 0 {
        let what = format!("{} blocks have no good replica", status.blocks_hopeless);
        say(
            Level::Critical,
            what,
            "`dfs damaged` names the files. A server that is away may have a good copy.",
        );
    }
    if status.chunks_below_goal > 0 {
        let what = format!("{} chunks have fewer replicas than their goal", status.chunks_below_goal);
        say(
            Level::Warning,
            what,
            "Copies are made by themselves. If the number stays, there are too few servers or too little room.",
        );
    }
    if status.replicas_unknown > 0 {
        let what = format!(
            "{} replicas are of chunks that nothing names, and are left alone",
            status.replicas_unknown
        );
        say(
            Level::Warning,
            what,
            "docs/recovery.md says how to look at them; nothing deletes them by itself.",
        );
    }
    if status.total_bytes > 0 && status.free_bytes < status.total_bytes / LOW_PARTS {
        let percent = status.free_bytes.saturating_mul(100) / status.total_bytes;
        say(
            Level::Warning,
            format!("Only {percent} % of the space is free"),
            "Add disks or servers, or delete.",
        );
    }
}

fn of_server(server: &ServerReport, say: &mut impl FnMut(Level, String, &str)) {
    if server.is_gone() {
        return;
    }
    if !server.up && server.maintenance_ms.is_none() {
        let heard = server.silent_ms.map_or_else(
            || "was not heard of since the master began".to_owned(),
            |ms| format!("was heard of {} s ago", ms / 1000),
        );
        let what = format!("{} is down: it {heard}", server.name);
        say(
            Level::Warning,
            what,
            "Its chunks are read elsewhere, and its replicas made anew there after a while. Look at its machine and its log.",
        );
    }
    for disk in &server.disks {
        if let Some(why) = &disk.failed {
            let what = format!("Disk {} of {} failed: {why}", disk.path, server.name);
            say(Level::Warning, what, "It takes no writes any more; what it has is copied. Replace it.");
        }
    }
    if server.removable {
        let what = format!("{} is drained: it can be removed", server.name);
        say(Level::Info, what, "Stop it, or let it take replicas again: `dfs server undrain`.");
    }
}

#[cfg(test)]
mod tests {
    use dfs_proto::control::DiskReport;
    use dfs_proto::ids::{
        ClusterId, DiskId, Generation, LogIndex, OsBootId, ServerId, ServerNum, SessionId, Term,
    };
    use dfs_proto::meta::{ServerAddr, SessionReport, Traffic};
    use dfs_proto::units::{ChunkSize, MasterMs};

    use super::*;

    fn status() -> ClusterReport {
        ClusterReport {
            cluster: ClusterId(1),
            generation: Generation(1),
            version: String::new(),
            term: Term(1),
            last_index: LogIndex(9),
            durable_index: LogIndex(9),
            snapshot_index: LogIndex(1),
            uptime_ms: 5,
            chunk_size: ChunkSize::DEFAULT,
            goal: 2,
            hold: None,
            inodes: 1,
            sessions: 1,
            servers_up: 1,
            servers_known: 1,
            total_bytes: 1000,
            free_bytes: 500,
            chunks: 3,
            chunks_below_goal: 0,
            chunks_recovering: 0,
            chunks_open: 0,
            replicas_diverged: 0,
            chunks_unavailable: 0,
            tombstones: 0,
            replicas_unknown: 0,
            blocks_damaged: 0,
            blocks_hopeless: 0,
            copies: Vec::new(),
            maintained: Vec::new(),
            moving: 0,
            goals_own: 0,
            goal_highest: 2,
        }
    }

    fn servers() -> ServerReports {
        let disk = DiskReport {
            disk: DiskId(1),
            path: "/disk".to_owned(),
            total_bytes: 1000,
            free_bytes: 500,
            replicas: 3,
            failed: None,
        };
        let server = ServerReport {
            addr: ServerAddr {
                num: ServerNum(1),
                id: ServerId(1),
                tcp: String::new(),
                unix: None,
                os_boot: OsBootId(1),
            },
            name: "s1".to_owned(),
            up: true,
            silent_ms: Some(100),
            labels: Vec::new(),
            version: String::new(),
            disks: vec![disk],
            replicas: 3,
            utilisation_permille: 0,
            queue: 0,
            capacity_bytes_per_s: 0,
            capacity_learned: false,
            draining: false,
            maintenance_ms: None,
            stake: None,
            removable: false,
            given_up: 0,
            traffic: Traffic::default(),
        };
        ServerReports { servers: vec![server], now: MasterMs(0), passes: 1 }
    }

    fn sessions(connected: bool) -> SessionReports {
        let session = SessionReport {
            evicted: false,
            session: SessionId(1),
            name: "host:/mnt".to_owned(),
            os_boot: OsBootId(1),
            connected,
            silent_ms: 9_000,
            open_files: 0,
        };
        SessionReports { sessions: vec![session], lease_ms: 30_000 }
    }

    fn said(
        status: &ClusterReport,
        servers: &ServerReports,
        sessions: &SessionReports,
    ) -> Vec<(Level, String)> {
        alerts(status, servers, sessions).into_iter().map(|alert| (alert.level, alert.what)).collect()
    }

    #[test]
    fn a_sound_cluster_needs_nobody() {
        assert_eq!(alerts(&status(), &servers(), &sessions(true)), []);
    }

    #[test]
    fn each_trouble_is_said_the_worst_first() {
        let mut all = servers();
        all.servers[0].up = false;
        all.servers[0].silent_ms = Some(7_300);
        all.servers[0].disks[0].failed = Some("a sync failed".to_owned());
        let bad = ClusterReport { hold: Some("s1 knows more".to_owned()), free_bytes: 70, ..status() };
        let said = said(&bad, &all, &sessions(false));
        let expected = [
            (Level::Critical, "The master is on hold: s1 knows more"),
            (Level::Warning, "Only 7 % of the space is free"),
            (Level::Warning, "s1 is down: it was heard of 7 s ago"),
            (Level::Warning, "Disk /disk of s1 failed: a sync failed"),
            (Level::Info, "The mount host:/mnt has no connection"),
        ];
        assert_eq!(said, expected.map(|(level, what)| (level, what.to_owned())));
    }

    #[test]
    fn a_server_that_was_drained_and_turned_off_is_no_trouble() {
        let mut all = servers();
        (all.servers[0].draining, all.servers[0].removable) = (true, true);
        assert_eq!(
            said(&status(), &all, &sessions(true)),
            [(Level::Info, "s1 is drained: it can be removed".to_owned())]
        );
        all.servers[0].up = false;
        assert_eq!(said(&status(), &all, &sessions(true)), []);
        all.servers[0].given_up = 1;
        assert_eq!(said(&status(), &all, &sessions(true))[0].0, Level::Warning);
    }

    #[test]
    fn a_server_that_is_away_on_purpose_is_no_trouble() {
        let mut all = servers();
        all.servers[0].up = false;
        all.servers[0].maintenance_ms = Some(60_000);
        assert_eq!(said(&status(), &all, &sessions(true)), []);
        let worse = ClusterReport {
            chunks_unavailable: 1,
            blocks_hopeless: 2,
            chunks_below_goal: 3,
            replicas_unknown: 4,
            ..status()
        };
        let levels: Vec<Level> =
            said(&worse, &all, &sessions(true)).into_iter().map(|(level, _)| level).collect();
        assert_eq!(levels, [Level::Critical, Level::Critical, Level::Warning, Level::Warning]);
    }
}
