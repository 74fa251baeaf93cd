//! Why something is done about a chunk, or nothing: the inputs that decided it, each as one sentence for people.

use std::fmt;

use dfs_proto::ids::ServerNum;
use serde::{Deserialize, Serialize};

use super::{BUSY_PERMILLE, COPIES_IN, COPIES_OUT, CostRate, RESERVE_PERMILLE, ROOM_PERMILLE};

/// Why a chunk's replicas change.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Reason {
    /// Its replicas are read too much.
    Hot {
        read: CostRate,
        /// Of the last seconds, where it is more ([`super::Memory::load`]).
        load: CostRate,
        replicas: usize,
        max: CostRate,
        hot_ms: u64,
        busiest: ServerNum,
        busiest_permille: u16,
        /// Replicas that would have 0.7 of `max`, within the bound.
        wanted: usize,
        /// Replicas that there will be.
        to: usize,
        /// Why `to` is less than `wanted`.
        lack: Option<Lack>,
    },
    /// One replica fewer would do.
    Cold { peak: CostRate, over_ms: u64, replicas: usize, min: CostRate },
    /// The server is short of space, and the replica is above the goal.
    Space { server: ServerNum, free_permille: u64, replicas: usize, goal: usize },
    /// The bound was lowered.
    Bound { replicas: usize, bound: usize },
}

/// Why a chunk that was looked at is left alone.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Held {
    /// One change at a time.
    UnderWay,
    /// It has fewer members than its goal: repair comes first.
    BelowGoal {
        replicas: usize,
        goal: usize,
    },
    /// A member is down, drained or read-only: repair comes first.
    Unsettled {
        server: ServerNum,
    },
    /// As many as it may have.
    AtBound {
        read: CostRate,
        replicas: usize,
        max: CostRate,
    },
    NotHotLongEnough {
        read: CostRate,
        replicas: usize,
        max: CostRate,
        hot_ms: u64,
        after_ms: u64,
    },
    /// No holder is busy.
    HoldersIdle {
        read: CostRate,
        replicas: usize,
        busiest: ServerNum,
        busiest_permille: u16,
    },
    /// A writer has it open, and would pay for more replicas.
    Written,
    /// It was turned round a short while ago.
    Cooldown {
        left_ms: u64,
    },
    /// Wanted, and impossible now.
    Lack(Lack),
    /// It has more replicas than its goal, and they are used.
    Used {
        read: CostRate,
        replicas: usize,
        min: CostRate,
    },
    /// They were used a while ago, or nobody looked for long enough.
    NotColdLongEnough {
        peak: CostRate,
        replicas: usize,
        min: CostRate,
        watched_ms: u64,
        after_ms: u64,
    },
    /// Every replica but the primary is the only one in a rack or on a host that the goal asks for.
    Spread {
        replicas: usize,
        goal: usize,
    },
}

/// What is missing for a copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Lack {
    /// All that take replicas have one.
    Servers {
        serving: usize,
    },
    /// The others are as busy as the holders.
    IdleServers {
        busiest_permille: u16,
    },
    Space {
        bytes: u64,
    },
    /// Copies in, or out, are at the limit.
    Copies,
    Budget {
        left_bytes: u64,
        bytes: u64,
    },
    Surplus {
        used_bytes: u64,
        allowed_bytes: u64,
    },
}

impl Reason {
    /// For logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Reason::Hot { .. } => "hot",
            Reason::Cold { .. } => "cold",
            Reason::Space { .. } => "space",
            Reason::Bound { .. } => "bound",
        }
    }
}

impl Held {
    /// For logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Held::UnderWay => "under-way",
            Held::BelowGoal { .. } => "below-goal",
            Held::Unsettled { .. } => "unsettled",
            Held::AtBound { .. } => "at-bound",
            Held::NotHotLongEnough { .. } => "not-hot-long-enough",
            Held::HoldersIdle { .. } => "holders-idle",
            Held::Written => "written",
            Held::Cooldown { .. } => "cooldown",
            Held::Lack(lack) => lack.name(),
            Held::Used { .. } => "used",
            Held::NotColdLongEnough { .. } => "not-cold-long-enough",
            Held::Spread { .. } => "spread",
        }
    }
}

impl Lack {
    fn name(&self) -> &'static str {
        match self {
            Lack::Servers { .. } => "no-server",
            Lack::IdleServers { .. } => "no-idle-server",
            Lack::Space { .. } => "no-space",
            Lack::Copies => "copies",
            Lack::Budget { .. } => "budget",
            Lack::Surplus { .. } => "surplus-space",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Hot {
                read,
                load,
                replicas,
                max,
                hot_ms,
                busiest,
                busiest_permille,
                wanted,
                to,
                lack,
            } => {
                let (each, busy) = (read.spread_over(*replicas), Permille(u64::from(*busiest_permille)));
                write!(f, "{each} {}, above {max} for {}", OnEach(*replicas), Secs(*hot_ms))?;
                write!(f, ", and {busiest} is {busy} busy: ")?;
                if load > read {
                    write!(f, "rising to {load}, ")?;
                }
                match lack {
                    None => write!(f, "with {wanted} it is {}", load.spread_over(*wanted)),
                    Some(lack) => write!(f, "{to} of the {wanted} that it wants, as {lack}"),
                }
            }
            Reason::Cold { peak, over_ms, replicas, min } => {
                let fewer = replicas.saturating_sub(1);
                write!(f, "at most {peak} in {}: with {} ", Secs(*over_ms), Replicas(fewer))?;
                write!(f, "{} each, under {min}", peak.spread_over(fewer))
            }
            Reason::Space { server, free_permille, replicas, goal } => {
                let (free, reserve) = (Permille(*free_permille), Permille(RESERVE_PERMILLE));
                write!(
                    f,
                    "{server} has {free} free, less than {reserve}, and {} of a goal of {goal} can give ",
                    Replicas(*replicas)
                )?;
                write!(f, "one back")
            }
            Reason::Bound { replicas, bound } => {
                write!(f, "{} where at most {bound} are allowed", Replicas(*replicas))
            }
        }
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Held::UnderWay => write!(f, "a change of its replicas is under way"),
            Held::BelowGoal { replicas, goal } => {
                write!(f, "{} of a goal of {goal}: repair comes first", Replicas(*replicas))
            }
            Held::Unsettled { server } => {
                write!(f, "{server} is down, drained or read-only: repair comes first")
            }
            Held::AtBound { read, replicas, max } => {
                let each = read.spread_over(*replicas);
                write!(f, "{each} {}, above {max}, and no more are allowed", OnEach(*replicas))
            }
            Held::NotHotLongEnough { read, replicas, max, hot_ms, after_ms } => {
                let each = read.spread_over(*replicas);
                write!(f, "{each} {}, above {max} for {}", OnEach(*replicas), Secs(*hot_ms))?;
                write!(f, " and not yet {}", Secs(*after_ms))
            }
            Held::HoldersIdle { read, replicas, busiest, busiest_permille } => {
                let (each, busy) = (read.spread_over(*replicas), Permille(u64::from(*busiest_permille)));
                write!(f, "{each} {}, and no holder is more than ", OnEach(*replicas))?;
                write!(f, "{} busy: {busiest} is {busy}", Permille(u64::from(BUSY_PERMILLE)))
            }
            Held::Written => write!(f, "a writer has it open"),
            Held::Cooldown { left_ms } => {
                write!(f, "it was turned round less than a cooldown ago: {} to go", Secs(*left_ms))
            }
            Held::Lack(lack) => lack.fmt(f),
            Held::Used { read, replicas, min } => {
                let fewer = replicas.saturating_sub(1);
                write!(f, "with {} {} each, not under {min}", Replicas(fewer), read.spread_over(fewer))
            }
            Held::NotColdLongEnough { peak, replicas, min, watched_ms, after_ms } => {
                let (fewer, past_ms) = (replicas.saturating_sub(1), watched_ms.min(after_ms));
                write!(f, "with {} up to {} each ", Replicas(fewer), peak.spread_over(fewer))?;
                write!(f, "in the last {}; under {min} for {} is asked", Secs(*past_ms), Secs(*after_ms))
            }
            Held::Spread { replicas, goal } => {
                write!(
                    f,
                    "each of {} but the primary is alone in a rack or on a host ",
                    Replicas(*replicas)
                )?;
                write!(f, "that the goal of {goal} asks for")
            }
        }
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lack::Servers { serving } => {
                write!(f, "each of the {serving} servers that take replicas has it or will")
            }
            Lack::IdleServers { busiest_permille } => {
                let busy = Permille(u64::from(*busiest_permille));
                write!(f, "no server without it is less busy than its busiest holder, {busy}")
            }
            Lack::Space { bytes } => {
                write!(
                    f,
                    "no server without it would have {} free beside {}",
                    Permille(ROOM_PERMILLE),
                    Size(*bytes)
                )
            }
            Lack::Copies => {
                write!(f, "the servers that could take or give it have {COPIES_IN} copies coming or ")?;
                write!(f, "{COPIES_OUT} going")
            }
            Lack::Budget { left_bytes, bytes } => {
                write!(
                    f,
                    "the budget for copies has {} left, and a copy is {}",
                    Size(*left_bytes),
                    Size(*bytes)
                )
            }
            Lack::Surplus { used_bytes, allowed_bytes } => {
                write!(
                    f,
                    "replicas above goals take {} of the {} that they may",
                    Size(*used_bytes),
                    Size(*allowed_bytes)
                )
            }
        }
    }
}

struct Replicas(usize);

impl fmt::Display for Replicas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} replica{}", self.0, if self.0 == 1 { "" } else { "s" })
    }
}

struct OnEach(usize);

impl fmt::Display for OnEach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            1 => write!(f, "on its only replica"),
            replicas => write!(f, "on each of {replicas} replicas"),
        }
    }
}

struct Secs(u64);

impl fmt::Display for Secs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 % 1000 / 100 {
            0 => write!(f, "{} s", self.0 / 1000),
            tenths => write!(f, "{}.{tenths} s", self.0 / 1000),
        }
    }
}

struct Permille(u64);

impl fmt::Display for Permille {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 % 10 {
            0 => write!(f, "{} %", self.0 / 10),
            tenths => write!(f, "{}.{tenths} %", self.0 / 10),
        }
    }
}

struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes @ 0..1024 => write!(f, "{bytes} bytes"),
            bytes @ 1024..1_048_576 => write!(f, "{} KiB", bytes >> 10),
            bytes => write!(f, "{} MiB", bytes >> 20),
        }
    }
}
