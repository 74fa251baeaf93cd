//! The chunk servers: how to reach each, what was seen of them, and telling the master who is silent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dfs_proto::chunk::Member;
use dfs_proto::frame::{Frame, Outgoing};
use dfs_proto::ids::{BootId, ChunkId, OsBootId, ServerNum};
use dfs_proto::meta::{GetServers, ServerAddr, Servers, Suspect, SuspectReport, Suspicion};
use dfs_proto::status::Status;
use dfs_proto::units::Micros;

use crate::config::Hedging;
use crate::core::hedge::Hedges;
use crate::core::rng::Rng;
use crate::core::route::Routes;
use crate::net::{Net, NetError, Peer};
use crate::shared::{Shared, lock};

/// How long a server's silence, once told, is not told again.
const SILENT_AGAIN_US: u64 = 10_000_000;

/// See the module.
#[derive(Debug)]
pub(crate) struct Directory {
    epoch: u64,
    list: BTreeMap<ServerNum, Arc<ServerAddr>>,
    pub(crate) routes: Routes,
    pub(crate) hedges: Hedges,
    os_boot: OsBootId,
    /// What was last told to the master of each server, and when.
    reported: BTreeMap<ServerNum, (BootId, Suspicion, Micros)>,
    /// When a chunk was last found to have gone on without a server that was silent.
    pub(crate) moved: Option<Micros>,
}

impl Directory {
    pub(crate) fn new(os_boot: OsBootId, hedging: Hedging) -> Directory {
        Directory {
            epoch: 0,
            list: BTreeMap::new(),
            routes: Routes::default(),
            hedges: Hedges::new(hedging),
            os_boot,
            reported: BTreeMap::new(),
            moved: None,
        }
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(crate) fn replace(&mut self, servers: Servers) {
        self.epoch = servers.epoch;
        self.list = servers.list.into_iter().map(|server| (server.num, Arc::new(server))).collect();
    }

    fn get(&self, num: ServerNum) -> Option<Arc<ServerAddr>> {
        self.list.get(&num).cloned()
    }

    /// Whether the master has yet to hear this. A proof is told once; silence now and then, since one
    /// client's broken path is not to weigh more by being tried often.
    fn is_news(&mut self, member: Member, what: Suspicion, now: Micros) -> bool {
        let told = self.reported.get(&member.server).is_some_and(|(boot, before, at)| {
            let recent = now.0.saturating_sub(at.0) < SILENT_AGAIN_US;
            *boot == member.boot && *before == what && (recent || what == Suspicion::RefusedUnix)
        });
        if !told {
            self.reported.insert(member.server, (member.boot, what, now));
        }
        !told
    }

    /// Whether the server runs under our kernel.
    pub(crate) fn is_local(&self, num: ServerNum) -> bool {
        self.list.get(&num).is_some_and(|server| server.os_boot == self.os_boot)
    }
}

/// Counts a request as under way until it ended.
struct Running<'a, N: Net> {
    shared: &'a Shared<N>,
    server: ServerNum,
    ended: bool,
}

impl<N: Net> Drop for Running<'_, N> {
    fn drop(&mut self) {
        if !self.ended {
            lock(&self.shared.servers).routes.dropped(self.server);
        }
    }
}

impl<N: Net> Shared<N> {
    pub(crate) async fn refresh_servers(&self) {
        match self.ask(&GetServers {}).await {
            Ok(servers) => lock(&self.servers).replace(servers),
            Err(error) => log::warn!("the list of chunk servers: {error}"),
        }
    }

    /// The member to read from, none of `tried`.
    pub(crate) fn choose(&self, members: &[Member], tried: &[ServerNum]) -> Option<Member> {
        let now = self.now();
        let mut rng = Rng::new(lock(&self.rng).next());
        let directory = lock(&self.servers);
        directory.routes.choose(members, tried, |num| directory.is_local(num), now, &mut rng)
    }

    /// One request to a chunk server, whose time is remembered.
    pub(crate) async fn call_server(
        &self,
        num: ServerNum,
        out: Outgoing,
        deadline: Duration,
    ) -> Result<Frame, NetError> {
        let known = lock(&self.servers).get(num);
        let addr = match known {
            Some(addr) => addr,
            None => {
                self.refresh_servers().await;
                lock(&self.servers).get(num).ok_or(NetError::Unreachable { dead: false })?
            }
        };
        let sent_bytes = out.payload.len();
        lock(&self.servers).routes.started(num);
        let mut running = Running { shared: self, server: num, ended: false };
        let sent = self.now();
        let answer = self.net.call(&Peer::Server(addr), out, deadline).await;
        let now = self.now();
        let took = now.0.saturating_sub(sent.0);
        running.ended = true;
        let routes = &mut lock(&self.servers).routes;
        match &answer {
            Ok(frame) => {
                let bytes = u64::try_from(sent_bytes + frame.payload.len()).unwrap_or(u64::MAX);
                routes.answered(num, took, bytes, frame.header.load, now);
            }
            // It answered, so it is neither slow nor gone; but whoever serves nothing is not to be asked first.
            Err(NetError::Status(status, _)) if *status != Status::NotServing => routes.dropped(num),
            Err(_) => routes.failed(num, now),
        }
        answer
    }

    /// Tells the master, without waiting for its answer.
    pub(crate) fn report(self: &Arc<Self>, member: Member, chunk: ChunkId, what: Suspicion) {
        if !lock(&self.servers).is_news(member, what, self.now()) {
            return;
        }
        let report = SuspectReport { server: member.server, boot: member.boot, chunk: Some(chunk), what };
        let shared = Arc::clone(self);
        self.spawn(async move {
            if let Err(error) = shared.ask(&Suspect { reports: vec![report] }).await {
                log::debug!("the report about {}: {error}", report.server);
            }
        });
    }
}
