//! The mount's admin port, for whoever gives it one: is it alive, does its session live, and its figures.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use dfs_admin::{Answer, Bound, Daemon, Figures, Inside, Page, number};
use tokio::runtime::Handle;

use crate::adapter::Shared;

struct Port(Arc<Shared>);

/// Serves the port for as long as the process lives.
pub(crate) fn serve(port: Bound, runtime: Handle, shared: &Arc<Shared>) -> anyhow::Result<()> {
    port.serve(Inside::new(runtime), Arc::new(Port(Arc::clone(shared))), Router::new(), async {})
}

impl Daemon for Port {
    fn alive(&self) -> Answer<()> {
        // Who gets here has a thread of the runtime that all operations need.
        Box::pin(async { Ok(()) })
    }

    fn ready(&self) -> Answer<()> {
        let left = self.0.client.session_left();
        Box::pin(async move {
            match left {
                None => Err("no master has this mount's session: none answers, or none takes it; calls wait"
                    .to_owned()),
                Some(Duration::ZERO) => {
                    Err("the session's lease may be over: the master has not answered for too long"
                        .to_owned())
                }
                Some(_) => Ok(()),
            }
        })
    }

    fn figures(&self) -> Answer<Figures> {
        let shared = Arc::clone(&self.0);
        Box::pin(async move {
            let figures: Figures = Box::new(move |page| write(page, &shared));
            Ok(figures)
        })
    }
}

fn write(page: &mut Page<'_>, shared: &Shared) -> fmt::Result {
    page.times(
        "dfs_mount_request_seconds",
        "From the kernel's request to its answer, by kind",
        shared.stats.seen().map(|(kind, times)| (vec![("op", kind.label().to_owned())], times)),
    )?;
    let counts = shared.client.counts();
    let hedged = "Reads that were slow and asked of a second replica";
    page.counter("dfs_mount_hedged_reads", hedged, counts.hedged_reads)?;
    let won = "Hedged reads that the second replica answered";
    page.counter("dfs_mount_won_hedged_reads", won, counts.hedges_won)?;
    let silent = "Reads asked of another replica since their server was silent";
    page.counter("dfs_mount_silent_reads", silent, counts.silent_reads)?;
    page.counter("dfs_mount_retried_requests", "Requests sent again after a pause", counts.retries)?;
    let left = shared.client.session_left().unwrap_or_default();
    let lease = "What is left of the session's lease for sure; 0 while no master has it";
    page.gauge("dfs_mount_session_left_seconds", lease, left.as_secs_f64())?;
    let buffered = "What dirty data and read-ahead hold";
    page.gauge("dfs_mount_buffered_bytes", buffered, number(shared.client.memory_used()))?;
    let (files, dirs) = shared.open_handles();
    page.gauge("dfs_mount_open_files", "Open files", number(files as u64))?;
    page.gauge("dfs_mount_open_directories", "Open directories", number(dirs as u64))
}
