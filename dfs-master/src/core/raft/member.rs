//! The group's members: checks of a member set, and changes to it in an encoding of our own.

use postcard::Error;
use serde::{Deserialize, Serialize};

use crate::log::entry::{ConfState, NodeId};

/// One change of the member set; several together go through joint consensus.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum MemberChange {
    AddVoter(NodeId),
    AddLearner(NodeId),
    Remove(NodeId),
}

/// More members than any group has; bounds what a peer's message can make us allocate.
const MEMBERS_MAX: usize = 64;

/// Why a member set cannot be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadConf {
    #[error("it has no voter")]
    Empty,
    #[error("it has too many members")]
    TooMany,
    #[error("member 0 is nobody")]
    Nobody,
    #[error("member {0:?} has two parts")]
    Twice(NodeId),
    #[error("it is half in the middle of a change")]
    HalfJoint,
}

/// Checks what raft-rs takes for granted, and would panic over.
pub(super) fn check_conf(conf: &ConfState) -> Result<(), BadConf> {
    let ConfState { voters, learners, voters_outgoing, learners_next, auto_leave } = conf;
    let sets = [voters, learners, voters_outgoing, learners_next];
    if voters.is_empty() {
        return Err(BadConf::Empty);
    }
    if sets.iter().map(|set| set.len()).sum::<usize>() > MEMBERS_MAX {
        return Err(BadConf::TooMany);
    }
    for set in sets {
        let mut sorted = set.clone();
        sorted.sort_unstable();
        if sorted.first() == Some(&NodeId(0)) {
            return Err(BadConf::Nobody);
        }
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(BadConf::Twice(pair[0]));
        }
    }
    let both = |a: &[NodeId], b: &[NodeId]| a.iter().find(|id| b.contains(id)).copied();
    let twice = both(learners, voters)
        .or_else(|| both(learners, voters_outgoing))
        .or_else(|| both(learners_next, voters))
        .or_else(|| both(learners_next, learners));
    if let Some(id) = twice {
        return Err(BadConf::Twice(id));
    }
    let leaving = learners_next.iter().all(|id| voters_outgoing.contains(id));
    if !leaving || (*auto_leave && voters_outgoing.is_empty()) {
        return Err(BadConf::HalfJoint);
    }
    Ok(())
}

/// An entry's contents that make these changes; none means: leave the joint state.
pub(super) fn encode_changes(changes: &[MemberChange]) -> Result<Vec<u8>, Error> {
    postcard::to_stdvec(changes)
}

/// The changes that an entry's contents make.
pub(super) fn decode_changes(data: &[u8]) -> Result<Vec<MemberChange>, Error> {
    let changes: Vec<MemberChange> = postcard::from_bytes(data)?;
    if changes.len() > MEMBERS_MAX { Err(Error::SerializeBufferFull) } else { Ok(changes) }
}
