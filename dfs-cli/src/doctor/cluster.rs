//! What the master says of itself and of its servers.

use dfs_proto::ids::ClusterId;
use dfs_proto::meta::{ClusterReport, ClusterStatus, ServerList, ServerReports};

use super::Findings;
use crate::connect::Target;

/// The cluster that was asked, if one was.
pub(super) fn look(target: &Target, findings: &mut Findings) -> Option<ClusterId> {
    if let Err(error) = target.addr(None) {
        findings.advice("cluster", error.to_string(), "a cluster was not looked at");
        return None;
    }
    let asked = target.ask(&ClusterStatus {}, None).and_then(|status| {
        let servers = target.ask(&ServerList {}, None)?;
        Ok((status, servers))
    });
    match asked {
        Ok((status, servers)) => {
            judge(&status, &servers, env!("CARGO_PKG_VERSION"), findings);
            Some(status.cluster)
        }
        Err(error) => {
            let todo = "is it running, at this address, and does a firewall let its port through?";
            findings.wrong("master", format!("{error:#}"), todo);
            None
        }
    }
}

fn judge(status: &ClusterReport, servers: &ServerReports, ours: &str, findings: &mut Findings) {
    match &status.hold {
        Some(why) => {
            findings.wrong("master", format!("is on hold: {why}"), "`dfs recover`, docs/recovery.md")
        }
        None => findings.good("master", format!("serves cluster {}", status.cluster)),
    }
    let mut versions = vec![("this dfs", ours), ("the master", status.version.as_str())];
    versions.extend(servers.servers.iter().filter(|s| s.up).map(|s| (s.name.as_str(), s.version.as_str())));
    if versions.iter().all(|(_, version)| *version == ours) {
        findings.good("versions", format!("all {ours}"));
    } else {
        let found: Vec<String> = versions.iter().map(|(who, version)| format!("{who} {version}")).collect();
        findings.advice("versions", found.join(", "), "bring them to one: docs/operations.md, Upgrade");
    }
    for server in servers.servers.iter().filter(|server| !server.is_gone()) {
        let what = format!("server {}", server.name);
        let failed = server.disks.iter().find_map(|disk| Some((&disk.path, disk.failed.as_ref()?)));
        match failed {
            _ if !server.up && server.maintenance_ms.is_some() => findings.good(&what, "is away on purpose"),
            _ if !server.up => findings.wrong(
                &what,
                "is down",
                "start it; if it won't come back, drain it: docs/operations.md, Replace a server",
            ),
            Some((path, why)) => findings.wrong(
                &what,
                format!("its disk {path} failed: {why}"),
                "replace it: docs/operations.md, Replace a disk",
            ),
            None => findings.good(&what, "is up, all disks too"),
        }
    }
    chunks(status, findings);
}

fn chunks(status: &ClusterReport, findings: &mut Findings) {
    let worst = [
        (status.chunks_unavailable, "chunks are on no server that is up", "start those; `dfs damaged`"),
        (status.blocks_hopeless, "blocks have no good copy", "`dfs damaged`, docs/recovery.md"),
        (
            status.chunks_below_goal,
            "chunks have fewer replicas than their goal",
            "`dfs status` until it is 0",
        ),
    ];
    match worst.into_iter().find(|(count, ..)| *count > 0) {
        Some((count, what, todo)) => findings.wrong("chunks", format!("{count} {what}"), todo),
        None => findings.good("chunks", format!("all {} at their goal", status.chunks)),
    }
}
