//! What the two ends say about themselves when they meet.

use serde::{Deserialize, Serialize};

use crate::header::PROTOCOL_VERSION;
use crate::ids::{BootId, ClusterId, ServerNum};
use crate::request::{Op, Request};

/// Optional parts of the protocol that this build speaks, one bit each. None yet.
pub const FEATURES: u64 = 0;

/// What a process is in the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
pub enum Role {
    /// A mount, or a library user.
    Client,
    /// A chunk server.
    ChunkServer,
    /// A master.
    Master,
    /// The operator's command.
    Tool,
}

impl Role {
    /// As people call it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Role::Client => "mount",
            Role::ChunkServer => "chunk server",
            Role::Master => "master",
            Role::Tool => "tool",
        }
    }
}

/// The roles that a listener admits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RoleSet(u8);

impl RoleSet {
    /// Every role.
    pub const ALL: RoleSet = RoleSet::of(&[Role::Client, Role::ChunkServer, Role::Master, Role::Tool]);

    /// These roles.
    #[must_use]
    pub const fn of(roles: &[Role]) -> RoleSet {
        let mut bits = 0;
        let mut at = 0;
        while at < roles.len() {
            bits |= RoleSet::bit(roles[at]);
            at += 1;
        }
        RoleSet(bits)
    }

    /// Whether `role` is one of them.
    #[must_use]
    pub const fn contains(self, role: Role) -> bool {
        self.0 & RoleSet::bit(role) != 0
    }

    const fn bit(role: Role) -> u8 {
        match role {
            Role::Client => 1,
            Role::ChunkServer => 1 << 1,
            Role::Master => 1 << 2,
            Role::Tool => 1 << 3,
        }
    }
}

/// What the dialling end says about itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// The protocol it speaks.
    pub protocol: u16,
    /// The optional parts it speaks.
    pub features: u64,
    /// Its cluster; none while it joins one and does not know it yet.
    #[serde(default)]
    pub cluster: Option<ClusterId>,
    /// What it is.
    pub role: Role,
    /// Its name for people: a host name, a mount point.
    pub name: String,
    /// A chunk server's number, once it has one.
    #[serde(default)]
    pub server: Option<ServerNum>,
    /// Which incarnation of its process it is.
    #[serde(default)]
    pub boot: Option<BootId>,
}

impl Hello {
    /// A HELLO of this build.
    #[must_use]
    pub fn new(role: Role, name: impl Into<String>, cluster: Option<ClusterId>) -> Hello {
        Hello {
            protocol: u16::from(PROTOCOL_VERSION),
            features: FEATURES,
            cluster,
            role,
            name: name.into(),
            server: None,
            boot: None,
        }
    }
}

/// What the listening end says about itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Welcome {
    /// The protocol it speaks.
    pub protocol: u16,
    /// The optional parts that both ends speak.
    pub features: u64,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its name for people.
    pub name: String,
    /// A chunk server's number, once it has one.
    #[serde(default)]
    pub server: Option<ServerNum>,
    /// Which incarnation of its process it is.
    pub boot: BootId,
}

impl Welcome {
    /// A WELCOME of this build.
    #[must_use]
    pub fn new(name: impl Into<String>, cluster: ClusterId, boot: BootId) -> Welcome {
        Welcome {
            protocol: u16::from(PROTOCOL_VERSION),
            features: FEATURES,
            cluster,
            name: name.into(),
            server: None,
            boot,
        }
    }
}

impl Request for Hello {
    const OP: Op = Op::Hello;
    type Reply = Welcome;
}
