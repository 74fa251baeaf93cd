//! What the whole cluster is at: every process that this one has a connection with is asked at once, and who does not answer
//! is named. Nothing of the core is asked, so that one which hangs is no reason to learn nothing.

use std::sync::Arc;
use std::time::Duration;

use dfs_proto::conn::{Conn, PeerSaid, Responder, Role, in_flight};
use dfs_proto::frame::{Frame, Outgoing};
use dfs_proto::meta::{DaemonOps, InFlight, Ops, OpsReport};
use dfs_proto::status::Status;
use tokio::task::JoinSet;

use crate::driver::Driver;

/// Who takes longer is said not to answer. Far less than tools wait for the master.
const PATIENCE: Duration = Duration::from_secs(2);

impl Driver {
    pub(super) fn ops_request(self: &Arc<Driver>, frame: &Frame, reply: Responder) {
        let asked: Ops = match frame.decode() {
            Ok(asked) => asked,
            Err(error) => return reply.fail(Status::Malformed, &error.to_string()),
        };
        let head = frame.header;
        let peers: Vec<(String, Conn)> = {
            let inner = self.lock();
            inner.conns.values().filter_map(|conn| Some((name_of(conn)?, conn.clone()))).collect()
        };
        drop(tokio::spawn(async move {
            let report = gather(asked, peers).await;
            reply.send(Outgoing::reply(&head, &report));
        }));
    }
}

/// Mounts and chunk servers; a tool is at nothing but its question.
fn name_of(conn: &Conn) -> Option<String> {
    let peer = conn.peer();
    let PeerSaid::Hello(hello) = &peer.said else { return None };
    matches!(hello.role, Role::Client | Role::ChunkServer)
        .then(|| format!("{} {}", hello.role.word(), hello.name))
}

async fn gather(asked: Ops, peers: Vec<(String, Conn)>) -> OpsReport {
    let Ops { min_us, most } = asked;
    let asked = InFlight { min_us, most };
    let mut tasks = JoinSet::new();
    for (name, conn) in peers {
        tasks.spawn(async move {
            let at = match conn.call(&asked, PATIENCE).await {
                Ok(reply) => Some(reply.body),
                Err(error) => {
                    log::debug!("{name} does not say what it is at: {error}");
                    None
                }
            };
            DaemonOps { name, at }
        });
    }
    let mut daemons = vec![DaemonOps { name: "master".to_owned(), at: Some(in_flight(&asked)) }];
    while let Some(told) = tasks.join_next().await {
        // A task that panicked told nothing.
        daemons.extend(told.ok());
    }
    daemons[1..].sort_by(|one, other| one.name.cmp(&other.name));
    OpsReport { daemons }
}
