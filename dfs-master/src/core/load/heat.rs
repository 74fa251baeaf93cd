//! What servers say of their chunks, added up once a second: of a cluster of 200 they name a hundred thousand, so that a
//! heartbeat is only kept, and nothing is looked up for each chunk that it names.

use std::collections::BTreeMap;

use dfs_proto::control::ChunkHeat;
use dfs_proto::ids::ServerNum;
use dfs_proto::units::Micros;

/// A report is good for so long: one more heartbeat may be late.
const REPORT_MS: u64 = 2_500;

/// The last report of each server.
#[derive(Debug, Default)]
pub(super) struct Heat {
    reports: BTreeMap<ServerNum, (Micros, Vec<ChunkHeat>)>,
}

impl Heat {
    pub(super) fn heard(&mut self, server: ServerNum, hot: Vec<ChunkHeat>, now: Micros) {
        self.reports.insert(server, (now, hot));
    }

    /// What all servers say of each chunk, by chunk. Reports that are too old are dropped.
    pub(super) fn sums(&mut self, now: Micros) -> Vec<ChunkHeat> {
        self.reports.retain(|_, (at, _)| now.ms_since(*at) <= REPORT_MS);
        let mut all: Vec<ChunkHeat> = self.reports.values().flat_map(|(_, hot)| hot).copied().collect();
        all.sort_unstable_by_key(|heat| heat.chunk);
        all.dedup_by(|next, sum| {
            let same = next.chunk == sum.chunk;
            if same {
                sum.read_milli = sum.read_milli.saturating_add(next.read_milli);
                sum.write_milli = sum.write_milli.saturating_add(next.write_milli);
            }
            same
        });
        all
    }
}

#[cfg(test)]
mod tests {
    use dfs_proto::ids::ChunkId;

    use super::*;

    fn heat(chunk: u64, read_milli: u64) -> ChunkHeat {
        ChunkHeat { chunk: ChunkId(chunk), read_milli, write_milli: 1 }
    }

    #[test]
    fn the_last_report_of_each_server_counts_and_only_for_so_long() {
        let mut load = Heat::default();
        load.heard(ServerNum(1), vec![heat(7, 5), heat(3, 1)], Micros(0));
        load.heard(ServerNum(2), vec![heat(3, 90)], Micros(0));
        load.heard(ServerNum(2), vec![heat(3, 10)], Micros(1_000_000));
        let sums: Vec<_> =
            load.sums(Micros(1_000_000)).iter().map(|sum| (sum.chunk.0, sum.read_milli)).collect();
        assert_eq!(sums, [(3, 11), (7, 5)]);
        let sums: Vec<_> =
            load.sums(Micros(3_000_000)).iter().map(|sum| (sum.chunk.0, sum.write_milli)).collect();
        assert_eq!(sums, [(3, 1)]);
    }
}
