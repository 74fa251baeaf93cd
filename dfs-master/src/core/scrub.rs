//! Scrubs as the master knows them: what servers said last of what their disks lost, and the order to look at all
//! replicas now. The servers scrub and mend by themselves; the master decides nothing here.
//!
//! A server that is away when the order is given, or whose answer got lost, is told when it is back: an order given
//! twice begins a pass anew, which costs reading.

use std::collections::BTreeMap;

use dfs_proto::control::StartScrub;
use dfs_proto::ids::ServerNum;
use dfs_proto::meta::{Done, ScrubReports, ScrubStarted, ServerScrub};
use dfs_proto::status::Status;

use super::Core;
use super::reply::{Asked, CALL_DEADLINE_MS};

/// Servers that are to scrub and have not said yet that they will. Lost with the process.
#[derive(Clone, Debug, Default)]
pub(super) struct Orders {
    owed: BTreeMap<ServerNum, Order>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Order {
    Owed,
    Given,
}

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

    /// Tells a server, or all. Which of them can be reached now; the others are told when they are back.
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
        self.soft.scrubs.owed.extend(wanted.iter().map(|server| (*server, Order::Owed)));
        let servers: Vec<ServerNum> = wanted.into_iter().filter(|server| self.order_scrub(*server)).collect();
        if servers.is_empty() { Err(Status::NoServers) } else { Ok(ScrubStarted { servers }) }
    }

    fn order_scrub(&mut self, server: ServerNum) -> bool {
        let request = StartScrub { term: self.term() };
        let asked = Asked::StartScrub { server };
        let sent = self.call(server, &request, asked, CALL_DEADLINE_MS, self.state.applied);
        if sent {
            self.soft.scrubs.owed.insert(server, Order::Given);
        }
        sent
    }

    pub(super) fn scrub_ordered(&mut self, server: ServerNum, result: Result<Done, Status>) {
        match result {
            Ok(Done {}) => drop(self.soft.scrubs.owed.remove(&server)),
            Err(status) => {
                log::info!("{server} was told to scrub and has not answered: {status}; it is told again");
                self.soft.scrubs.owed.insert(server, Order::Owed);
            }
        }
    }

    pub(super) fn scrub_tick(&mut self) {
        let owed = self.soft.scrubs.owed.iter();
        let again: Vec<ServerNum> =
            owed.filter(|(_, order)| **order == Order::Owed).map(|(server, _)| *server).collect();
        for server in again {
            if self.state.servers.get(server).is_none() {
                self.soft.scrubs.owed.remove(&server);
            } else {
                self.order_scrub(server);
            }
        }
    }

    /// Blocks that are damaged on some server, and those of which no member has a good copy.
    pub(super) fn damaged_blocks(&self) -> (u64, u64) {
        let each = self.soft.servers.iter().map(|(_, live)| (live.scrub.damaged, live.scrub.hopeless));
        each.fold((0, 0), |(damaged, hopeless), (more, lost)| (damaged + more, hopeless + lost))
    }
}
