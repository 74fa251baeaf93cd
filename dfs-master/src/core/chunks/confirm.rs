//! Which members are confirmed, for the incarnation of their server that is registered now (L5). Soft:
//! a new leader knows of none until inventories, recoveries and allocations tell it.
//!
//! An incarnation is a small number that a server gets with every new boot, so a restart of a server
//! takes back all of its confirmations at once, without a walk over its chunks.

use std::collections::BTreeMap;

use dfs_proto::ids::{ChunkId, ServerNum};

use super::Members;
use crate::core::table::CowTable;

/// Which boot of a server, counted by this leader from 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Incarnation(pub u16);

/// Slots in the table's own entry; further members go into a map of their own.
const INLINE: usize = 4;

/// Eight bytes a chunk: member `n` of the config is confirmed for incarnation `slots[n]` of its server.
#[derive(Clone, Copy, Debug, Default)]
struct Slots([Incarnation; INLINE]);

/// The confirmations.
#[derive(Debug, Default)]
pub struct Confirmed {
    near: CowTable<Slots>,
    far: BTreeMap<(ChunkId, usize), Incarnation>,
}

impl Confirmed {
    /// The incarnation of the member at place `at` that was confirmed last.
    #[must_use]
    pub fn get(&self, chunk: ChunkId, at: usize) -> Option<Incarnation> {
        let slot = match at {
            0..INLINE => self.near.get(chunk.0)?.0[at],
            _ => self.far.get(&(chunk, at)).copied()?,
        };
        (slot != Incarnation(0)).then_some(slot)
    }

    /// Confirms one member.
    pub fn set(&mut self, chunk: ChunkId, at: usize, incarnation: Incarnation) {
        if at >= INLINE {
            self.far.insert((chunk, at), incarnation);
        } else if let Some(slots) = self.near.get_mut(chunk.0) {
            slots.0[at] = incarnation;
        } else {
            let mut slots = Slots::default();
            slots.0[at] = incarnation;
            self.near.insert(chunk.0, slots);
        }
    }

    /// Confirms the members of a new configuration: `incarnation` tells each one's, or none.
    pub fn set_all(
        &mut self,
        chunk: ChunkId,
        members: &Members,
        incarnation: impl Fn(ServerNum) -> Option<Incarnation>,
    ) {
        self.forget(chunk);
        for (at, server) in members.iter().enumerate() {
            if let Some(incarnation) = incarnation(server) {
                self.set(chunk, at, incarnation);
            }
        }
    }

    /// The member that was at place `at` has left `members`: the others are confirmed as before.
    pub fn leave(&mut self, chunk: ChunkId, members: &Members, at: usize) {
        let then = |n: usize| self.get(chunk, n + usize::from(n >= at));
        let kept: Vec<_> = members.iter().enumerate().map(|(n, server)| (server, then(n))).collect();
        let of = |server| kept.iter().find(|(kept, _)| *kept == server).and_then(|(_, then)| *then);
        self.set_all(chunk, members, of);
    }

    /// Takes every confirmation of a chunk back.
    pub fn forget(&mut self, chunk: ChunkId) {
        self.near.remove(chunk.0);
        let far: Vec<_> = self.far.range((chunk, 0)..=(chunk, usize::MAX)).map(|(key, _)| *key).collect();
        for key in far {
            self.far.remove(&key);
        }
    }
}
