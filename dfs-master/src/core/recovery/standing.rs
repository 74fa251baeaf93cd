//! What a member of a chunk can do now, and whether its chunk must and can be recovered.

use dfs_proto::ids::{BootId, ChunkId, ServerNum};
use dfs_proto::planted;

use crate::core::Core;
use crate::core::chunks::ChunkMeta;
use crate::core::servers::live::{Inventory, Standing};

/// A member's standing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::core) enum MemberStanding {
    /// Up, and confirmed for this boot.
    Serving(BootId),
    /// It may serve, or will soon: a lease that runs, an inventory that is under way.
    Waiting,
    /// Its process runs and was never confirmed for the chunk: only a recovery can take it in.
    Unconfirmed,
    /// It surely serves nothing.
    Gone,
}

impl Core {
    /// The standing of the member at place `at`. One of a closed chunk may be confirmed by what its server is about to
    /// tell of it, whatever process that is.
    pub(in crate::core) fn member_standing(
        &self,
        chunk: ChunkId,
        meta: &ChunkMeta,
        at: usize,
        server: ServerNum,
    ) -> MemberStanding {
        let Some(live) = self.soft.servers.get(server) else { return MemberStanding::Gone };
        let then = self.soft.confirmed.get(chunk, at);
        let confirmed = then == Some(live.incarnation);
        let ever = then.is_some_and(|then| live.is_of_boot(then));
        match (live.standing(self.now.mono), live.boot) {
            (Standing::Up, Some(boot)) if confirmed => MemberStanding::Serving(boot),
            (Standing::Up, _) => {
                let settled = self.state.servers.get(server).is_some_and(|server| server.settled);
                let trusted = ever || !meta.open || (settled && !live.boot_is_new);
                if trusted && live.inventory == Inventory::Awaited {
                    MemberStanding::Waiting
                } else {
                    MemberStanding::Unconfirmed
                }
            }
            (Standing::Silent, _) if live.boot_is_new && !ever => MemberStanding::Gone,
            (Standing::Silent, _) => MemberStanding::Waiting,
            // A restarted server that registered and has not sent its first heartbeat yet.
            (Standing::Gone, Some(_))
                if live.is_reachable() && !meta.open && live.inventory == Inventory::Awaited =>
            {
                MemberStanding::Waiting
            }
            (Standing::Gone, Some(_)) if live.is_reachable() && !confirmed => MemberStanding::Unconfirmed,
            (Standing::Gone, _) => MemberStanding::Gone,
        }
    }

    /// Whether all members serve, or all but one.
    pub(in crate::core) fn all_serve(
        &self,
        chunk: ChunkId,
        meta: &ChunkMeta,
        except: Option<ServerNum>,
    ) -> bool {
        meta.members.iter().enumerate().all(|(at, server)| {
            except == Some(server)
                || matches!(self.member_standing(chunk, meta, at, server), MemberStanding::Serving(_))
        })
    }

    /// Whether the member surely serves the chunk under no older version, without its word for it.
    pub(in crate::core) fn is_fenced(&self, chunk: ChunkId, at: usize, server: ServerNum) -> bool {
        let Some(live) = self.soft.servers.get(server) else { return false };
        let confirmed = self.soft.confirmed.get(chunk, at).is_some_and(|then| live.is_of_boot(then));
        live.lease.is_over(self.now.mono) || (live.boot_is_new && !confirmed) || planted!(ExcludeUnfenced)
    }

    /// Whether the process that runs now was confirmed for the member at place `at`, by this leader or by
    /// one before.
    pub(in crate::core) fn held_all_along(&self, chunk: ChunkId, at: usize, server: ServerNum) -> bool {
        let Some(live) = self.soft.servers.get(server) else { return false };
        let settled = self.state.servers.get(server).is_some_and(|server| server.settled);
        let confirmed = self.soft.confirmed.get(chunk, at).is_some_and(|then| live.is_of_boot(then));
        confirmed || (settled && !live.boot_is_new)
    }

    pub(super) fn needs_recovery(&self, chunk: ChunkId, meta: &ChunkMeta) -> bool {
        let lost = |(at, server)| match self.member_standing(chunk, meta, at, server) {
            MemberStanding::Unconfirmed | MemberStanding::Gone => true,
            MemberStanding::Serving(_) | MemberStanding::Waiting => false,
        };
        !meta.is_active()
            || self.soft.recovery.excluded.contains_key(&chunk)
            || meta.members.iter().enumerate().any(lost)
    }

    /// Whether a recovery could get through: somebody is there, and whoever is not is fenced.
    pub(super) fn can_recover(&self, chunk: ChunkId, meta: &ChunkMeta) -> bool {
        let reachable =
            |server: ServerNum| self.soft.servers.get(server).is_some_and(|live| live.is_reachable());
        let mut members = meta.members.iter().enumerate();
        meta.members.iter().any(reachable)
            && members.all(|(at, server)| reachable(server) || self.is_fenced(chunk, at, server))
    }
}
