//! What a leader does about servers on every tick: who can take new replicas, and who was lost.

use dfs_proto::ids::ServerNum;

use crate::core::Core;
use crate::core::chunks::confirm::Incarnation;
use crate::core::placement::Candidate;
use crate::core::servers::live::{Inventory, LiveServer, Standing};

impl Core {
    /// Who can take new replicas now.
    pub(in crate::core) fn refresh_candidates(&mut self) {
        let now = self.now.mono;
        let candidate = |server: &super::Server| {
            let live = self.soft.servers.get(server.num)?;
            // What it has may show that this log is not the newest, and then no id must be given out.
            let told = live.inventory == Inventory::Complete && !server.draining;
            let told = told && !self.is_maintained(server.num);
            if live.standing(now) != Standing::Up || !live.is_reachable() || !told {
                return None;
            }
            let (total_bytes, free_bytes) = live.space();
            Some(Candidate {
                server: server.num,
                rack: server.label("rack").map(str::to_owned),
                host: server.host(),
                total_bytes,
                free_bytes,
                utilisation_permille: live.load.utilisation_permille,
            })
        };
        self.soft.candidates = self.state.servers.iter().filter_map(candidate).collect();
    }

    /// Whether what the server has is to go elsewhere: an operator drains it, or no disk of it takes writes.
    pub(in crate::core) fn is_emptied(&self, server: ServerNum) -> bool {
        let read_only = self.soft.servers.get(server).is_some_and(LiveServer::is_read_only);
        read_only || self.state.servers.is_draining(server)
    }

    /// A server that was gone for long enough to be repaired around begins anew when it comes back: what
    /// waited to be told to it would only grow.
    pub(in crate::core) fn settle_lost_servers(&mut self) {
        let (now, delay_ms) = (self.now.mono, self.config.repair_delay_ms);
        for (_, live) in self.soft.servers.iter_mut() {
            let gone = live.standing(now) == Standing::Gone && live.conn.is_none();
            if gone && live.boot.is_some() && now.ms_since(live.heard) >= delay_ms {
                live.boot = None;
                live.incarnation = Incarnation(live.incarnation.0.wrapping_add(1).max(1));
                live.events.clear();
            }
        }
    }
}
