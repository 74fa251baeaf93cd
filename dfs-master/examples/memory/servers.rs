//! Three chunk servers as far as the master hears of them: they register, send heartbeats and take events.
//! They hold nothing, or say that they hold everything.

use bytes::Bytes;
use dfs_master::core::ConnId;
use dfs_master::core::chunks::ChunkMeta;
use dfs_proto::control::{
    Applied, Apply, DiskReport, Heartbeat, INVENTORY_PART, Inventory, Register, ReplicaInfo, ScrubReport,
    ServerEvent, ServerLoad,
};
use dfs_proto::ids::{BootId, ChunkId, DiskId, Generation, LogIndex, OsBootId, ServerId, ServerNum, Term};
use dfs_proto::units::Micros;

#[derive(Debug)]
struct Server {
    conn: ConnId,
    id: u64,
    /// The last event taken.
    applied: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Servers {
    list: Vec<Server>,
}

fn disks(id: u64) -> Vec<DiskReport> {
    vec![DiskReport {
        disk: DiskId(u128::from(id)),
        path: "/d".into(),
        total_bytes: 1 << 44,
        free_bytes: 1 << 43,
        replicas: 0,
        failed: None,
    }]
}

impl Servers {
    pub(crate) fn register(id: u64) -> Register {
        Register {
            cluster: None,
            generation: Generation(1),
            server: ServerId(u128::from(id)),
            boot: BootId(id),
            os_boot: OsBootId(u128::from(id)),
            hb_ctr: 1,
            name: format!("server{id}"),
            version: "1".into(),
            tcp: format!("10.0.0.{id}:9401"),
            unix: None,
            labels: Vec::new(),
            disks: disks(id),
            max_term: Term(0),
            max_meta_index: LogIndex(0),
            max_chunk: None,
        }
    }

    pub(crate) fn inventory(id: u64) -> Inventory {
        Inventory { boot: BootId(id), replicas: Vec::new(), last: true }
    }

    /// The next part of an inventory that names all chunks, and its last chunk if another part follows.
    pub(crate) fn inventory_of(
        id: u64,
        chunks: impl Iterator<Item = (ChunkId, ChunkMeta)>,
    ) -> (Inventory, Option<ChunkId>) {
        let info = |(chunk, meta): (ChunkId, ChunkMeta)| ReplicaInfo {
            chunk,
            version: meta.version,
            config: meta.config,
            open_num: meta.open_num,
            disk: DiskId(u128::from(id)),
            learner: false,
            fenced: false,
            closed: None,
            ino: meta.ino,
            index: meta.index,
        };
        let replicas: Vec<ReplicaInfo> = chunks.take(INVENTORY_PART).map(info).collect();
        let next = replicas.last().filter(|_| replicas.len() == INVENTORY_PART).map(|info| info.chunk);
        (Inventory { boot: BootId(id), replicas, last: next.is_none() }, next)
    }

    pub(crate) fn add(&mut self, conn: ConnId, id: u64, num: ServerNum) {
        assert!(num != ServerNum(0), "a registered server has a number");
        self.list.push(Server { conn, id, applied: 0 });
    }

    pub(crate) fn heartbeats(&self, t_send: Micros) -> Vec<(ConnId, Heartbeat)> {
        let heartbeat = |server: &Server| Heartbeat {
            boot: BootId(server.id),
            t_send,
            applied: server.applied,
            load: ServerLoad::default(),
            disks: disks(server.id),
            hot: Vec::new(),
            lost: Vec::new(),
            key: dfs_proto::ids::KeyId(0),
            scrub: ScrubReport::default(),
            copy: dfs_proto::control::CopyReport::default(),
        };
        self.list.iter().map(|server| (server.conn, heartbeat(server))).collect()
    }

    pub(crate) fn applied(&mut self, conn: ConnId, events: &[(u64, ServerEvent)]) {
        if let Some(server) = self.list.iter_mut().find(|server| server.conn == conn)
            && let Some((last, _)) = events.last()
        {
            server.applied = server.applied.max(*last);
        }
    }

    /// Answers a push of events.
    pub(crate) fn apply(&mut self, conn: ConnId, body: &[u8]) -> Bytes {
        let apply: Apply = rmp_serde::from_slice(body).expect("the master's own message");
        self.applied(conn, &apply.events);
        let applied = self.list.iter().find(|server| server.conn == conn).map_or(0, |server| server.applied);
        Bytes::from(rmp_serde::to_vec_named(&Applied { applied }).expect("a reply serialises"))
    }
}
