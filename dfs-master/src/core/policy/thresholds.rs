//! What an operator sets, and what it comes to for a cluster.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::budget::Pace;
use super::{Condition, CostRate, ServerView};
use crate::core::chunks::MEMBERS_MAX;

/// `auto` is this part of the median server's capacity: four chunks as hot as that fill a server. Of those whose capacity is
/// known, if there are any: in a young cluster the first that is full tells more than what is assumed of all others.
const AUTO_PARTS: u64 = 4;
/// The lower threshold is at most this part of the upper one: a replica that goes must not make the others hot.
pub(super) const MIN_PARTS: u64 = 3;
/// Of all servers' capacity, what copies may use by themselves.
const AUTO_BUDGET_PERMILLE: u64 = 200;
/// Of one server's, what a hot chunk's copies may use however much is going on.
const FLOOR_PERMILLE: u64 = 200;

/// A bound of a replica's load.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Threshold {
    Auto,
    PerSecond(CostRate),
}

/// What copies may move.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum CopyBudget {
    /// A fifth of what all servers can serve.
    Auto,
    /// Bytes.
    PerSecond(u64),
}

/// The policy's options. Times in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Thresholds {
    /// A replica that is read more is hot.
    pub max: Threshold,
    /// Replicas that would be read less with one fewer of them are too many.
    pub min: Threshold,
    /// Of any chunk, unless its goal is higher.
    pub max_replicas: usize,
    pub raise_after_ms: u64,
    pub lower_after_ms: u64,
    /// A chunk whose direction was reversed is not reversed again for so long.
    pub cooldown_ms: u64,
    pub budget: CopyBudget,
    /// Of the free space, what replicas above their goals may take.
    pub surplus_permille: u64,
}

impl Default for Thresholds {
    fn default() -> Thresholds {
        Thresholds {
            max: Threshold::Auto,
            min: Threshold::Auto,
            max_replicas: MEMBERS_MAX,
            raise_after_ms: 3_000,
            lower_after_ms: 600_000,
            // Long against a copy of a chunk, short against the heat that it is for.
            cooldown_ms: 60_000,
            budget: CopyBudget::Auto,
            surplus_permille: 200,
        }
    }
}

/// Why thresholds can't be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadThresholds {
    #[error("the max threshold is 0: every chunk that is read would be hot")]
    NoMax,
    #[error(
        "the min threshold {min} is above a third of the max threshold {max}: replicas would come and go in turn; \
         at most {}", CostRate(max.0 / MIN_PARTS)
    )]
    MinTooHigh { min: CostRate, max: CostRate },
    #[error("max replicas {0} is not from 1 to {MEMBERS_MAX}")]
    MaxReplicas(usize),
    #[error("raising after {raise_after_ms} ms is not faster than lowering after {lower_after_ms} ms")]
    LowerTooSoon { raise_after_ms: u64, lower_after_ms: u64 },
    #[error(
        "a replication budget of 0 bytes a second copies nothing; to copy nothing, set max replicas to 1"
    )]
    NoBudget,
    #[error("surplus replicas can't take {0} permille of what is free: at most 1000")]
    Surplus(u64),
}

impl Thresholds {
    /// # Errors
    /// When they contradict each other, or would make the policy work against itself.
    pub fn check(&self) -> Result<(), BadThresholds> {
        if let Threshold::PerSecond(max) = self.max {
            if max.0 == 0 {
                return Err(BadThresholds::NoMax);
            }
            if let Threshold::PerSecond(min) = self.min
                && min.0 > max.0 / MIN_PARTS
            {
                return Err(BadThresholds::MinTooHigh { min, max });
            }
        }
        if !(1..=MEMBERS_MAX).contains(&self.max_replicas) {
            return Err(BadThresholds::MaxReplicas(self.max_replicas));
        }
        let Thresholds { raise_after_ms, lower_after_ms, .. } = *self;
        if lower_after_ms <= raise_after_ms {
            return Err(BadThresholds::LowerTooSoon { raise_after_ms, lower_after_ms });
        }
        if self.budget == CopyBudget::PerSecond(0) {
            return Err(BadThresholds::NoBudget);
        }
        if self.surplus_permille > 1000 {
            return Err(BadThresholds::Surplus(self.surplus_permille));
        }
        Ok(())
    }

    /// What they come to with these servers.
    #[must_use]
    pub fn limits(&self, servers: &[ServerView]) -> Limits {
        let up = servers.iter().filter(|server| server.condition != Condition::Down);
        let (assumed, known): (Vec<&ServerView>, Vec<&ServerView>) =
            up.partition(|server| server.capacity_assumed);
        let median_of =
            |servers: &[&ServerView]| median(servers.iter().map(|server| server.capacity_bytes_per_s));
        let median = median_of(&known).or_else(|| median_of(&assumed)).unwrap_or(0);
        let max = match self.max {
            Threshold::PerSecond(max) => max,
            // Of servers that nobody knows anything of, none is too busy.
            Threshold::Auto if median == 0 => CostRate(u64::MAX),
            Threshold::Auto => CostRate((CostRate::of_capacity(median).0 / AUTO_PARTS).max(1)),
        };
        let highest = CostRate(max.0 / MIN_PARTS);
        let min = match self.min {
            // What `auto` came to can be below what was right when it was set.
            Threshold::PerSecond(min) => min.min(highest),
            Threshold::Auto => highest,
        };
        let one =
            |server: &ServerView| if server.capacity_assumed { median } else { server.capacity_bytes_per_s };
        let all = assumed.iter().chain(&known).fold(0, |sum: u64, server| sum.saturating_add(one(server)));
        let budget_bytes_per_s = match self.budget {
            CopyBudget::PerSecond(bytes) => bytes,
            CopyBudget::Auto => permille_of(all, AUTO_BUDGET_PERMILLE),
        };
        Limits {
            max,
            min,
            max_replicas: self.max_replicas,
            raise_after_ms: self.raise_after_ms,
            lower_after_ms: self.lower_after_ms,
            cooldown_ms: self.cooldown_ms,
            budget_bytes_per_s,
            floor_bytes_per_s: permille_of(median, FLOOR_PERMILLE).min(budget_bytes_per_s),
            surplus_permille: self.surplus_permille,
        }
    }
}

/// Of two in the middle the lower.
pub(in crate::core) fn median(of: impl Iterator<Item = u64>) -> Option<u64> {
    let mut sorted: Vec<u64> = of.collect();
    sorted.sort_unstable();
    sorted.get(sorted.len().saturating_sub(1) / 2).copied()
}

pub(super) fn permille_of(whole: u64, permille: u64) -> u64 {
    u64::try_from(u128::from(whole) * u128::from(permille) / 1000).unwrap_or(u64::MAX)
}

/// [`Thresholds`] without `auto`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    pub max: CostRate,
    pub min: CostRate,
    pub max_replicas: usize,
    pub raise_after_ms: u64,
    pub lower_after_ms: u64,
    pub cooldown_ms: u64,
    pub budget_bytes_per_s: u64,
    /// What is left of the budget when it has shrunk as far as it may.
    pub floor_bytes_per_s: u64,
    pub surplus_permille: u64,
}

impl Limits {
    /// What copies may move now.
    #[must_use]
    pub fn budget_at(&self, pace: Pace) -> u64 {
        permille_of(self.budget_bytes_per_s, u64::from(pace.permille())).max(self.floor_bytes_per_s)
    }
}

/// Neither `auto` nor a number.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("'{0}' is neither auto nor a whole number")]
pub struct BadThreshold(String);

/// `auto`, or units of cost a second.
impl FromStr for Threshold {
    type Err = BadThreshold;

    fn from_str(text: &str) -> Result<Threshold, BadThreshold> {
        let number = |text: &str| text.parse().map(|units| Threshold::PerSecond(CostRate::per_second(units)));
        if text == "auto" {
            Ok(Threshold::Auto)
        } else {
            number(text).map_err(|_| BadThreshold(text.to_owned()))
        }
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Threshold::Auto => f.write_str("auto"),
            Threshold::PerSecond(rate) => rate.fmt(f),
        }
    }
}

/// `auto`, or bytes a second.
impl FromStr for CopyBudget {
    type Err = BadThreshold;

    fn from_str(text: &str) -> Result<CopyBudget, BadThreshold> {
        let number = |text: &str| text.parse().map(CopyBudget::PerSecond);
        if text == "auto" {
            Ok(CopyBudget::Auto)
        } else {
            number(text).map_err(|_| BadThreshold(text.to_owned()))
        }
    }
}
