//! After the work: every chunk comes to have its replicas, and those are byte for byte equal.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use dfs_chunkserver::store::{Expect, ReadMode, Store, StoreConfig, StoreError};
use dfs_disk::real::RealDisk;
use dfs_master::log::Identity;
use dfs_proto::ids::{ChunkId, OsBootId};
use dfs_proto::units::ChunkSize;
use rustix::process::Signal;

use super::rig::{CHUNK, Rig, SERVERS};
use crate::real::clock;
use crate::real::nodes::Who;

/// A session's lease, a lease, and the filling of everything, one after the other.
const REST_LIMIT: Duration = Duration::from_secs(100);
const OPEN_FILES: usize = 100;

/// A chunk and who has it.
#[derive(Clone, Debug)]
struct Held {
    chunk: ChunkId,
    members: Vec<String>,
}

impl Rig {
    /// Waits until all servers are there and every chunk has its replicas.
    pub(super) fn come_to_rest(&mut self) -> anyhow::Result<()> {
        let began = clock::now();
        let mut last = String::new();
        let rest = clock::poll(REST_LIMIT, || {
            let whole = self.look_at_status();
            last = whole.as_ref().err().map(ToString::to_string).unwrap_or_default();
            Ok(whole.ok())
        })?;
        if rest.is_none() {
            bail!("not at rest {REST_LIMIT:?} after the work ended: {last}");
        }
        self.report.rest = clock::now().saturating_sub(began);
        Ok(())
    }

    /// Fails with what is still to be done.
    fn look_at_status(&self) -> anyhow::Result<()> {
        let status = self.tool(&["status"])?;
        let zero = ["chunks_below_goal", "chunks_recovering", "chunks_unavailable", "replicas_unknown"];
        let wrong = zero.iter().find(|key| status[**key].as_u64() != Some(0));
        if wrong.is_some() || status["servers_up"].as_u64() != Some(u64::from(SERVERS)) {
            bail!("{status}");
        }
        for held in self.held()? {
            if held.members.len() < usize::from(self.nodes.shape().replicas) {
                bail!("{held:?}");
            }
        }
        Ok(())
    }

    /// The chunks of all files. Fails while one recovers.
    fn held(&self) -> anyhow::Result<Vec<Held>> {
        let mut all = Vec::new();
        for path in self.paths() {
            let info = self.tool(&["file", "info", &path.display().to_string()])?;
            for chunk in info["chunks"].as_array().context("no chunks")? {
                let members = chunk["members"].as_array().context("no members")?;
                if chunk["recovering"] == true || members.iter().any(|member| member["up"] != true) {
                    bail!("{chunk}");
                }
                let id: ChunkId = serde_json::from_value(chunk["chunk"].clone())?;
                let names = members.iter().filter_map(|member| member["name"].as_str().map(str::to_owned));
                all.push(Held { chunk: id, members: names.collect() });
            }
        }
        Ok(all)
    }

    /// Ends the servers and compares what lies on their disks.
    pub(super) fn compare_replicas(&mut self) -> anyhow::Result<()> {
        let held = self.held()?;
        for server in (0..SERVERS).map(Who::Server) {
            self.nodes.signal(server, Signal::TERM)?;
            let gone = clock::poll(REST_LIMIT, || Ok((!self.nodes.is_running(server)).then_some(())))?;
            gone.with_context(|| format!("{server} does not stop"))?;
        }
        let master = RealDisk::new(&self.nodes.at(Who::Master).join("data"))?;
        let cluster = Identity::load(&master)?.cluster;
        let mut stores = BTreeMap::new();
        for server in 0..SERVERS {
            let disk = RealDisk::new(&self.disk_under(server))?;
            let config = StoreConfig { chunk_size: ChunkSize::try_from(CHUNK)?, open_files: OPEN_FILES };
            let (store, _) =
                Store::open(disk, Expect { cluster, server: None, os_boot: OsBootId(0) }, config)?;
            stores.insert(Who::Server(server).to_string(), store);
        }
        for held in &held {
            let mut first: Option<Vec<u8>> = None;
            for member in &held.members {
                let store = stores.get(member).ok_or_else(|| anyhow!("no server {member}"))?;
                let bytes = stored(store, held.chunk).with_context(|| format!("{held:?} at {member}"))?;
                if first.get_or_insert_with(|| bytes.clone()) != &bytes {
                    self.report.violations.push(format!("equal: {held:?}: {member} has other bytes"));
                }
            }
        }
        self.report.chunks = held.len();
        Ok(())
    }
}

/// The bytes of a replica without trailing zeros; each was checked against its checksum.
fn stored(store: &Store<RealDisk>, chunk: ChunkId) -> anyhow::Result<Vec<u8>> {
    let mut bytes = match store.read(chunk, 0, CHUNK, ReadMode::MayBlock) {
        Ok(blocks) => blocks.data.to_vec(),
        // Nothing was ever written to it.
        Err(StoreError::NoChunk(_)) => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    bytes.truncate(used);
    Ok(bytes)
}
