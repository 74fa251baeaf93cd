//! The server's admin port: is it alive, does it serve, and its figures.

mod figures;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use dfs_admin::{Answer, Bound, Daemon, Figures, Inside};
use tokio::sync::oneshot;

use crate::clock;
use crate::server::Server;

/// Beside the port of the chunks.
pub(crate) const USUAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9721);

/// A disk that has not answered by then hangs. Less than the admin port waits for all of it.
const DISK_LIMIT: Duration = Duration::from_millis(1500);

struct Port(Arc<Server>);

/// Serves the port for as long as the process lives.
pub(crate) fn serve(port: Bound, server: &Arc<Server>) -> anyhow::Result<()> {
    let inside = Inside::new(server.runtime.clone());
    port.serve(inside, Arc::new(Port(Arc::clone(server))), Router::new(), async {})
}

impl Daemon for Port {
    fn alive(&self) -> Answer<()> {
        let server = Arc::clone(&self.0);
        // Who gets here has a thread of the runtime, and then the core.
        Box::pin(async move {
            server.with_core(|_core| ());
            Ok(())
        })
    }

    fn ready(&self) -> Answer<()> {
        let server = Arc::clone(&self.0);
        Box::pin(async move {
            if !server.with_core(|core| core.has_lease(clock::now())) {
                return Err(
                    "no lease: the master does not answer, or has not taken this server in; it serves \
                            nothing until then"
                        .to_owned(),
                );
            }
            disks_answer(&server).await
        })
    }

    fn figures(&self) -> Answer<Figures> {
        let server = Arc::clone(&self.0);
        Box::pin(async move { Ok(figures::of(server)) })
    }
}

/// Whether each disk's threads come to do something, and the disk lets itself be asked.
async fn disks_answer(server: &Server) -> Result<(), String> {
    let asked: Vec<_> = server
        .disks
        .iter()
        .map(|disk| {
            let (on, (tell, told)) = (Arc::clone(disk), oneshot::channel());
            let queued = disk.try_submit(move || {
                // Nobody listens once the limit is over.
                let _late = tell.send(on.measure());
            });
            (disk, queued, told)
        })
        .collect();
    for (disk, queued, told) in asked {
        let path = disk.path.display();
        if !queued {
            return Err(format!("disk {path}: too much waits for it"));
        }
        match tokio::time::timeout(DISK_LIMIT, told).await {
            Ok(Ok(Ok(_space))) => {}
            Ok(Ok(Err(error))) => return Err(format!("disk {path}: {error}")),
            Ok(Err(_)) | Err(_) => return Err(format!("disk {path} does not answer: it hangs")),
        }
    }
    Ok(())
}
