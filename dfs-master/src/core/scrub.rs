//! Scrubs as the master knows them: what servers said last of what their disks lost, and the order to look at all
//! replicas now. The servers scrub and mend by themselves; the master decides nothing here.

use dfs_proto::control::StartScrub;
use dfs_proto::ids::ServerNum;
use dfs_proto::meta::{ScrubReports, ScrubStarted, ServerScrub};
use dfs_proto::status::Status;

use super::Core;
use super::reply::{Asked, CALL_DEADLINE_MS};

impl Core {
    pub(super) fn scrub_reports(&self) -> ScrubReports {
        let report = |server: &super::servers::Server| ServerScrub {
            server: server.num,
            name: server.info.name.clone(),
            up: self.soft.servers.is_up(server.num, self.now.mono),
            scrub: self.soft.servers.get(server.num).map(|live| live.scrub.clone()).unwrap_or_default(),
        };
        ScrubReports { servers: self.state.servers.iter().map(report).collect() }
    }

    /// Tells a server, or all that can be reached.
    pub(super) fn scrub_now(&mut self, server: Option<ServerNum>) -> Result<ScrubStarted, Status> {
        if let Some(server) = server
            && self.state.servers.get(server).is_none()
        {
            return Err(Status::NotFound);
        }
        let wanted: Vec<ServerNum> = match server {
            Some(server) => vec![server],
            None => self.state.servers.iter().map(|server| server.num).collect(),
        };
        let request = StartScrub { term: self.term() };
        let index = self.state.applied;
        let told = |server: &ServerNum| {
            self.call(*server, &request, Asked::StartScrub { server: *server }, CALL_DEADLINE_MS, index)
        };
        let servers: Vec<ServerNum> = wanted.into_iter().filter(told).collect();
        if servers.is_empty() { Err(Status::NoServers) } else { Ok(ScrubStarted { servers }) }
    }

    /// Blocks that are damaged on some server, and those of which no member has a good copy.
    pub(super) fn damaged_blocks(&self) -> (u64, u64) {
        let each = self.soft.servers.iter().map(|(_, live)| (live.scrub.damaged, live.scrub.hopeless));
        each.fold((0, 0), |(damaged, hopeless), (more, lost)| (damaged + more, hopeless + lost))
    }
}
