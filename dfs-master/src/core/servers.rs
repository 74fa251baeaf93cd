//! Chunk servers as logged: numbers, names, addresses, and the boot that was registered last. Whether
//! they live is soft and lives in [`live`].
//!
//! Invariant: a number belongs to one server identity for ever.

mod care;
pub mod events;
pub mod live;

use std::collections::BTreeMap;
use std::sync::Arc;

use dfs_proto::ids::{BootId, OsBootId, ServerId, ServerNum};
use dfs_proto::meta::{ServerAddr, Servers};
use dfs_proto::units::Timespec;
use serde::{Deserialize, Serialize};

/// What a registration says that must outlive this master's process.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ServerInfo {
    pub id: ServerId,
    pub boot: BootId,
    pub os_boot: OsBootId,
    pub hb_ctr: u64,
    pub name: String,
    pub tcp: String,
    pub unix: Option<String>,
    pub labels: Vec<(String, String)>,
    pub version: String,
}

/// A server that has registered at least once.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Server {
    pub num: ServerNum,
    pub info: ServerInfo,
    /// Every chunk that the map put there when this boot began was recovered or confirmed since: with
    /// the same boot, an inventory that matches the map is then proof enough after a master's restart.
    pub settled: bool,
    /// An operator wants it empty: it gets no new replica, and those that it has go elsewhere.
    pub draining: bool,
}

impl Server {
    /// The value of a label.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        self.info.labels.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// The host that it is on. Servers without a label of their own are told apart by where they are reached.
    #[must_use]
    pub fn host(&self) -> String {
        let by_address = || self.info.tcp.rsplit_once(':').map(|(host, _)| host);
        self.label("host").or_else(by_address).unwrap_or_default().to_owned()
    }
}

/// A server is away for a while on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Maintenance {
    /// When an operator said so, by the time of day of the leader of then.
    pub since: Timespec,
    pub for_ms: u64,
}

/// All servers.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    list: BTreeMap<ServerNum, Arc<Server>>,
    by_id: BTreeMap<ServerId, ServerNum>,
    maintained: BTreeMap<ServerNum, Maintenance>,
    last: ServerNum,
    /// Raised by every change.
    epoch: u64,
}

impl Registry {
    #[must_use]
    pub fn get(&self, num: ServerNum) -> Option<&Server> {
        self.list.get(&num).map(Arc::as_ref)
    }

    #[must_use]
    pub fn by_id(&self, id: ServerId) -> Option<&Server> {
        self.by_id.get(&id).and_then(|num| self.get(*num))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Server> {
        self.list.values().map(Arc::as_ref)
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The last number given.
    #[must_use]
    pub fn last(&self) -> ServerNum {
        self.last
    }

    /// Whether every number is taken.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.last.0 == u16::MAX
    }

    /// Takes a registration in. `None` when numbers ran out.
    pub fn register(&mut self, info: ServerInfo) -> Option<ServerNum> {
        let num = match self.by_id.get(&info.id) {
            Some(num) => *num,
            None => ServerNum(self.last.0.checked_add(1)?),
        };
        self.last = self.last.max(num);
        self.by_id.insert(info.id, num);
        let old = self.get(num);
        let settled = old.is_some_and(|old| old.info.boot == info.boot && old.settled);
        let draining = old.is_some_and(|old| old.draining);
        self.list.insert(num, Arc::new(Server { num, info, settled, draining }));
        self.epoch += 1;
        Some(num)
    }

    pub fn settle(&mut self, num: ServerNum, boot: BootId) {
        if let Some(server) = self.list.get_mut(&num).filter(|server| server.info.boot == boot) {
            Arc::make_mut(server).settled = true;
        }
    }

    /// Whether there is such a server.
    pub fn drain(&mut self, num: ServerNum, drain: bool) -> bool {
        if drain {
            // What it has goes elsewhere now: nothing is kept for its return.
            self.maintained.remove(&num);
        }
        let server = self.list.get_mut(&num);
        server.map(|server| Arc::make_mut(server).draining = drain).is_some()
    }

    #[must_use]
    pub fn is_draining(&self, num: ServerNum) -> bool {
        self.get(num).is_some_and(|server| server.draining)
    }

    /// Begins, changes or ends a maintenance. Whether there is such a server.
    pub fn maintain(&mut self, num: ServerNum, maintenance: Option<Maintenance>) -> bool {
        match maintenance {
            Some(maintenance) if self.list.contains_key(&num) => {
                self.maintained.insert(num, maintenance);
            }
            Some(_) => {}
            None => drop(self.maintained.remove(&num)),
        }
        self.list.contains_key(&num)
    }

    #[must_use]
    pub fn maintenance(&self, num: ServerNum) -> Option<Maintenance> {
        self.maintained.get(&num).copied()
    }

    pub fn maintained(&self) -> impl Iterator<Item = (ServerNum, Maintenance)> + '_ {
        self.maintained.iter().map(|(num, maintenance)| (*num, *maintenance))
    }

    /// The directory as clients get it.
    #[must_use]
    pub fn directory(&self) -> Servers {
        Servers { epoch: self.epoch, list: self.iter().map(address).collect() }
    }

    /// Puts back what a snapshot held.
    pub(super) fn restore(&mut self, server: Server) {
        self.last = self.last.max(server.num);
        self.by_id.insert(server.info.id, server.num);
        self.list.insert(server.num, Arc::new(server));
    }

    pub(super) fn restore_maintenance(&mut self, num: ServerNum, maintenance: Maintenance) {
        self.maintained.insert(num, maintenance);
    }

    pub(super) fn restore_epoch(&mut self, epoch: u64) {
        self.epoch = epoch;
    }
}

/// How to reach a server.
#[must_use]
pub fn address(server: &Server) -> ServerAddr {
    ServerAddr {
        num: server.num,
        id: server.info.id,
        tcp: server.info.tcp.clone(),
        unix: server.info.unix.clone(),
        os_boot: server.info.os_boot,
    }
}
