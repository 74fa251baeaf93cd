//! The master's admin port: is it alive, does it serve, its figures, what it knows of the cluster as JSON, and a page
//! that shows it.

mod api;
mod alerts;
mod watch;
mod page;
mod figures;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use dfs_admin::{Answer, Bound, Daemon, Figures, Inside};
use dfs_proto::meta::ClusterStatus;
use tokio::runtime::Handle;

use crate::driver::Driver;

/// Beside the port of the cluster.
pub(crate) const USUAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9401);

struct Port(Arc<Driver>);

/// Serves the port for as long as the process lives. Must be called on the runtime that drives the core.
pub(crate) fn serve(port: Bound, driver: &Arc<Driver>) -> anyhow::Result<()> {
    driver.open_tool();
    let inside = Inside::new(Handle::current());
    let asker = api::Asker::new(inside.clone(), driver);
    let watch = Arc::new(watch::Watch::default());
    let routes = api::routes(asker.clone()).merge(watch::routes(&watch)).merge(page::routes());
    port.serve(inside, Arc::new(Port(Arc::clone(driver))), routes, watch.run(asker))
}

impl Daemon for Port {
    fn alive(&self) -> Answer<()> {
        let driver = Arc::clone(&self.0);
        // Who gets here has the thread that steps the core, and then its lock.
        Box::pin(async move { driver.failure().map_or(Ok(()), Err) })
    }

    fn ready(&self) -> Answer<()> {
        let driver = Arc::clone(&self.0);
        Box::pin(async move {
            let status = driver.ask(&ClusterStatus {}).await?;
            match status.hold {
                Some(why) => Err(format!("on hold: {why}; `dfs recover` says what to do")),
                None => Ok(()),
            }
        })
    }

    fn figures(&self) -> Answer<Figures> {
        let driver = Arc::clone(&self.0);
        Box::pin(async move { Ok(figures::of(driver).await) })
    }
}
