//! What a server is to this leader: its incarnation, its lease, its load, and the events it has to be
//! told.

use std::collections::{BTreeMap, BTreeSet};

use dfs_proto::control::{CopyReport, DiskReport, ScrubReport, ServerLoad};
use dfs_proto::ids::{BootId, LogIndex, ServerNum};
use dfs_proto::key::IssuedKey;
use dfs_proto::units::Micros;

use super::events::EventQueue;
use crate::core::chunks::confirm::Incarnation;
use crate::core::contract::ConnId;
use crate::core::lease::Lease;

/// How far a registered server has told what it holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Inventory {
    Awaited,
    /// All parts came, since this time.
    Complete,
}

/// A server of the log, as this leader knows it.
#[derive(Clone, Debug)]
pub struct LiveServer {
    pub conn: Option<ConnId>,
    /// The boot that registered with this leader.
    pub boot: Option<BootId>,
    /// That boot was not the one in the log when it registered first: it was never confirmed for
    /// anything that this leader did not confirm.
    pub boot_is_new: bool,
    /// One for each registration, 0 before the first: a server that registers serves nothing until it
    /// is confirmed again.
    pub incarnation: Incarnation,
    /// The first incarnation of this boot.
    pub boot_since: Incarnation,
    pub lease: Lease,
    /// The last heartbeat or registration; else when this leader began.
    pub heard: Micros,
    /// It has sent a heartbeat to this leader.
    pub spoke: bool,
    pub load: ServerLoad,
    pub disks: Vec<DiskReport>,
    /// As its last heartbeat said.
    pub scrub: ScrubReport,
    pub copy: CopyReport,
    pub inventory: Inventory,
    pub events: EventQueue,
    /// What capabilities are sealed with for it: the newest key that it is known to have.
    pub key: Option<IssuedKey>,
    /// Boots that are known to be dead, and are refused should a late message of theirs arrive.
    pub dead_boots: BTreeSet<BootId>,
    /// A push of events is under way.
    pub pushing: bool,
}

/// Dead boots remembered for a server: late messages come within seconds, not restarts.
const DEAD_BOOTS_MAX: usize = 16;

/// What a server can do at a moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// Connected, registered, and its lease lives.
    Up,
    /// Out of reach or without a lease, but it may still serve.
    Silent,
    /// It surely serves nothing.
    Gone,
}

impl LiveServer {
    fn new(elected: Micros, lease_ms: u64) -> LiveServer {
        LiveServer {
            conn: None,
            boot: None,
            boot_is_new: false,
            incarnation: Incarnation(0),
            boot_since: Incarnation(0),
            lease: Lease::unknown(elected, lease_ms),
            heard: elected,
            spoke: false,
            load: ServerLoad::default(),
            disks: Vec::new(),
            scrub: ScrubReport::default(),
            copy: CopyReport::default(),
            inventory: Inventory::Awaited,
            events: EventQueue::default(),
            key: None,
            dead_boots: BTreeSet::new(),
            pushing: false,
        }
    }

    /// Takes up a registration. `boot_is_new` as the log says, which knows the boot by now.
    pub fn registered(&mut self, conn: ConnId, boot: BootId, boot_is_new: bool) {
        self.incarnation = Incarnation(self.incarnation.0.wrapping_add(1).max(1));
        if self.boot != Some(boot) {
            if let Some(dead) = self.boot {
                self.bury(dead);
            }
            if boot_is_new {
                // The disks' lock is exclusive: whoever held the last lease is dead (L6).
                self.lease = Lease::Over;
            }
            self.boot = Some(boot);
            self.boot_is_new = boot_is_new;
            self.boot_since = self.incarnation;
            self.events.clear();
        }
        self.conn = Some(conn);
        self.inventory = Inventory::Awaited;
        self.events.renumber();
        self.pushing = false;
    }

    /// Whether a member that was confirmed for `then` was so for the process that runs now.
    #[must_use]
    pub fn is_of_boot(&self, then: Incarnation) -> bool {
        self.boot.is_some() && then != Incarnation(0) && then.0 >= self.boot_since.0
    }

    /// Takes note that a boot is dead.
    pub fn bury(&mut self, boot: BootId) {
        if self.dead_boots.len() >= DEAD_BOOTS_MAX {
            self.dead_boots.pop_first();
        }
        self.dead_boots.insert(boot);
        if self.boot == Some(boot) {
            self.lease = Lease::Over;
            self.events.clear();
        }
    }

    #[must_use]
    pub fn standing(&self, now: Micros) -> Standing {
        let over = self.lease.is_over(now);
        if self.conn.is_some() && self.boot.is_some() && self.spoke && !over {
            Standing::Up
        } else if over {
            Standing::Gone
        } else {
            Standing::Silent
        }
    }

    /// Whether commands can be sent to it.
    #[must_use]
    pub fn is_reachable(&self) -> bool {
        self.conn.is_some() && self.boot.is_some_and(|boot| !self.dead_boots.contains(&boot))
    }

    /// No disk of it takes writes.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        let failed = !self.disks.is_empty() && self.disks.iter().all(|disk| disk.failed.is_some());
        self.boot.is_some() && failed
    }

    /// Bytes of its working disks: all, free.
    #[must_use]
    pub fn space(&self) -> (u64, u64) {
        let good = self.disks.iter().filter(|disk| disk.failed.is_none());
        good.fold((0, 0), |(total, free), disk| (total + disk.total_bytes, free + disk.free_bytes))
    }
}

/// All servers of the log.
#[derive(Clone, Debug)]
pub struct LiveServers {
    table: BTreeMap<ServerNum, LiveServer>,
    /// Servers that may have events to be pushed.
    untold: BTreeSet<ServerNum>,
    elected: Micros,
    lease_ms: u64,
}

impl LiveServers {
    /// What a leader elected now knows: nobody, and that all may still hold a lease.
    #[must_use]
    pub fn new(elected: Micros, lease_ms: u64) -> LiveServers {
        LiveServers { table: BTreeMap::new(), untold: BTreeSet::new(), elected, lease_ms }
    }

    /// Makes room for a server of the log.
    pub fn expect(&mut self, server: ServerNum) -> &mut LiveServer {
        let (elected, lease_ms) = (self.elected, self.lease_ms);
        self.table.entry(server).or_insert_with(|| LiveServer::new(elected, lease_ms))
    }

    #[must_use]
    pub fn get(&self, server: ServerNum) -> Option<&LiveServer> {
        self.table.get(&server)
    }

    pub fn get_mut(&mut self, server: ServerNum) -> Option<&mut LiveServer> {
        self.table.get_mut(&server)
    }

    pub fn iter(&self) -> impl Iterator<Item = (ServerNum, &LiveServer)> {
        self.table.iter().map(|(server, live)| (*server, live))
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (ServerNum, &mut LiveServer)> {
        self.table.iter_mut().map(|(server, live)| (*server, live))
    }

    #[must_use]
    pub fn is_up(&self, server: ServerNum, now: Micros) -> bool {
        self.get(server).is_some_and(|live| live.standing(now) == Standing::Up)
    }

    #[must_use]
    pub fn up(&self, now: Micros) -> usize {
        self.table.values().filter(|live| live.standing(now) == Standing::Up).count()
    }

    /// Tells a server something, if there is a process to tell.
    pub fn tell(&mut self, server: ServerNum, index: LogIndex, event: dfs_proto::control::ServerEvent) {
        if let Some(live) = self.table.get_mut(&server).filter(|live| live.boot.is_some()) {
            live.events.add(index, event);
            self.untold.insert(server);
        }
    }

    /// Events of this server may be pushed now.
    pub fn push_soon(&mut self, server: ServerNum) {
        self.untold.insert(server);
    }

    /// Servers that may have events to be pushed; the next call names others.
    pub fn take_untold(&mut self) -> BTreeSet<ServerNum> {
        std::mem::take(&mut self.untold)
    }
}
