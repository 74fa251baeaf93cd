//! How many replicas files are to have, each its own number or the cluster's: set and shown by tools.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::ids::Ino;
use crate::meta::request;
use crate::request::{Op, Request};

/// Most replicas that a chunk can have, and so the highest goal and the highest bound.
pub const GOAL_MAX: u8 = 16;

/// Entries of a directory that one [`SetGoal`] is of: a record of some 5 KiB, made in less than a millisecond.
pub const GOAL_BATCH: u32 = 1024;

/// What a file or directory asks for. A directory asks for nothing itself: what is made in it begins with the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Goal {
    /// Replicas of each chunk; `None`: as many as the cluster's goal says.
    pub goal: Option<u8>,
    /// Most replicas that load brings about; `None`: as many as the policy allows.
    pub max: Option<u8>,
}

impl Goal {
    /// Whether the numbers can be at all, and do not contradict each other.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let fits = |number: Option<u8>| number.is_none_or(|number| (1..=GOAL_MAX).contains(&number));
        let apart = self.goal.zip(self.max).is_some_and(|(goal, max)| max < goal);
        fits(self.goal) && fits(self.max) && !apart
    }

    /// Whether it asks for nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Goal::default()
    }
}

/// Gives a goal to one file or directory, or to what lies directly in a directory. Sent again it changes nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SetGoal {
    pub ino: Ino,
    pub goal: Goal,
    /// `None`: the inode itself. Else the next [`GOAL_BATCH`] entries of this directory behind the cookie, 0 at first.
    pub below: Option<u64>,
}
request!(SetGoal => GoalSet);

/// It is on the master's disk.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct GoalSet {
    /// Why nothing was changed, and what would work.
    pub refused: Option<String>,
    /// What whoever set it should know.
    pub note: Option<String>,
    /// What had another goal before.
    pub files: u64,
    pub dirs: u64,
    /// The directories among the entries: whoever wants all that lies below goes on with them.
    pub inner: Vec<Ino>,
    /// Where the directory's other entries begin; `None`: these were the last.
    pub next: Option<u64>,
}

/// What a file or directory asks for, and what that comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ShowGoal {
    pub ino: Ino,
}
request!(ShowGoal => GoalReport);

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GoalReport {
    pub path: ByteBuf,
    pub dir: bool,
    pub own: Goal,
    /// What holds: its own, or else the cluster's, or the policy's.
    pub goal: u8,
    pub max: u8,
    pub cluster_goal: u8,
    pub policy_max: u8,
    /// Servers that take replicas now, and the hosts that they are on.
    pub servers: u32,
    pub hosts: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_numbers_can_be() {
        let sound = |goal, max| Goal { goal, max }.is_sound();
        assert!(
            sound(None, None) && sound(Some(1), None) && sound(None, Some(16)) && sound(Some(3), Some(3))
        );
        assert!(!sound(Some(0), None) && !sound(None, Some(0)) && !sound(Some(17), None));
        assert!(!sound(Some(3), Some(2)));
    }
}
