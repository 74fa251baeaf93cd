//! Gives files and directories a goal of their own, or takes it from them.

use dfs_proto::ids::Ino;
use dfs_proto::meta::Goal;
use dfs_proto::status::Status;
use serde::{Deserialize, Serialize};

use crate::core::namespace::{Namespace, has_goal};

/// Gives all of them this goal. What is gone meanwhile, or can have none, is passed over.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SetGoal {
    pub inos: Vec<Ino>,
    pub goal: Goal,
}

impl SetGoal {
    pub(in crate::core) fn apply(&self, ns: &mut Namespace) -> Result<(), Status> {
        if !self.goal.is_sound() {
            return Err(Status::Invalid);
        }
        for ino in &self.inos {
            if ns.inode(*ino).is_ok_and(|inode| has_goal(inode.kind)) {
                ns.goals.set(*ino, self.goal);
            }
        }
        Ok(())
    }
}
