//! Whole servers over real sockets and disks, with a master that says yes: what the bench of the core can't
//! show, that frames, threads and files fit together.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use dfs_chunkserver::config::Args;
use dfs_chunkserver::run::run;
use dfs_proto::checksum::{block_crcs, crc32c};
use dfs_proto::chunk::{Capability, Member, Range, Rights, Sync, SyncChunk, Synced, WriteMeta, version_word};
use dfs_proto::conn::{
    Acceptor, CallError, CallsOnly, Conn, Handler, Hello, Listener, PeerAddr, Responder, Role, RoleSet,
    Welcome,
};
use dfs_proto::control::{Heartbeat, HeartbeatReply, Register, Registered};
use dfs_proto::frame::{Frame, Outgoing};
use dfs_proto::header::Words;
use dfs_proto::ids::{
    BootId, ChunkId, ChunkVersion, ClusterId, ConfigNum, Generation, Ino, KeyId, LogIndex, OpId, OpenNum,
    ServerId, ServerNum, SessionId, SizeEpoch, Term,
};
use dfs_proto::key::IssuedKey;
use dfs_proto::meta::{Done, ServerAddr, Servers};
use dfs_proto::request::Op;
use dfs_proto::status::Status;
use dfs_proto::units::{ChunkIndex, ChunkSize, MasterMs};

const CLUSTER: ClusterId = ClusterId(0xabc);
const CHUNK: ChunkId = ChunkId(1);
const LIMIT: Duration = Duration::from_secs(5);

fn key() -> IssuedKey {
    IssuedKey::derive(&[3; 16], ServerNum(1), KeyId(1))
}

/// A master that takes everyone and grants every lease.
#[derive(Default)]
struct YesMaster {
    known: Mutex<BTreeMap<ServerId, (ServerNum, Register)>>,
}

impl YesMaster {
    fn register(&self, body: Register) -> Registered {
        let mut known = self.known.lock().unwrap();
        let next = ServerNum(u16::try_from(known.len()).unwrap() + 1);
        let num = known.get(&body.server).map_or(next, |known| known.0);
        known.insert(body.server, (num, body));
        Registered {
            num,
            cluster: CLUSTER,
            generation: Generation(1),
            term: Term(1),
            chunk_size: ChunkSize::DEFAULT,
            lease_ms: 6000,
            heartbeat_ms: 100,
            key: key(),
            given_since: MasterMs(0),
        }
    }

    fn directory(&self) -> Servers {
        let known = self.known.lock().unwrap();
        let list = known.values().map(|(num, body)| ServerAddr {
            num: *num,
            id: body.server,
            tcp: body.tcp.clone(),
            unix: body.unix.clone(),
            os_boot: body.os_boot,
        });
        Servers { epoch: 1, list: list.collect() }
    }
}

impl Handler for YesMaster {
    fn handle(&self, _conn: &Conn, frame: Frame, reply: Responder) {
        let header = &frame.header;
        match header.op {
            Op::Register => reply.send(Outgoing::reply(header, &self.register(frame.decode().unwrap()))),
            Op::Servers => reply.send(Outgoing::reply(header, &self.directory())),
            Op::Heartbeat => {
                let body: Heartbeat = frame.decode().unwrap();
                let granted = HeartbeatReply {
                    t_send: body.t_send,
                    granted: true,
                    term: Term(1),
                    now: MasterMs(1000),
                    durable: LogIndex(1),
                    events: Vec::new(),
                    key: None,
                };
                reply.send(Outgoing::reply(header, &granted));
            }
            _ => reply.send(Outgoing::reply(header, &Done {})),
        }
    }
}

struct Cluster {
    master: Arc<YesMaster>,
    members: Vec<Member>,
    conns: Vec<Conn>,
    _dir: tempfile::TempDir,
}

impl Cluster {
    async fn up(servers: usize) -> Cluster {
        let master = Arc::new(YesMaster::default());
        let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
        let at = listener.local_addr().to_string();
        let acceptor = Acceptor {
            welcome: Welcome::new("yes", CLUSTER, BootId(1)),
            roles: RoleSet::ALL,
            handler: master.clone(),
        };
        tokio::spawn(listener.serve(acceptor));
        let dir = tempfile::tempdir().unwrap();
        let mut members = Vec::new();
        let mut conns = Vec::new();
        for n in 0..servers {
            let disk = dir.path().join(format!("disk{n}"));
            std::fs::create_dir(&disk).unwrap();
            let port = dir.path().join(format!("port{n}"));
            let (disk, port_file) = (disk.display().to_string(), port.display().to_string());
            let args = ["dfs-chunkserver", "--master", &at, "--listen", "127.0.0.1:0", "--disk", &disk];
            let args = Args::try_parse_from(args.into_iter().chain(["--port-file", &port_file])).unwrap();
            tokio::spawn(async move { run(args.check().unwrap()).await.unwrap() });
            let addr = loop {
                if let Ok(text) = std::fs::read_to_string(&port) {
                    break text.trim().parse::<PeerAddr>().unwrap();
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            };
            let hello = Hello::new(Role::Client, "test", Some(CLUSTER));
            let (conn, welcome) = Conn::connect(&addr, hello, Arc::new(CallsOnly), LIMIT).await.unwrap();
            conns.push(conn);
            members.push(Member { server: ServerNum(u16::try_from(n).unwrap() + 1), boot: welcome.boot });
        }
        Cluster { master, members, conns, _dir: dir }
    }

    fn cap(&self) -> Capability {
        self.cap_of(1)
    }

    fn cap_of(&self, session: u64) -> Capability {
        let cap = Capability {
            chunk: CHUNK,
            session: SessionId(session),
            ino: Ino(2),
            index: ChunkIndex(0),
            expires: MasterMs(u64::MAX),
            version: ChunkVersion(1),
            config: ConfigNum(1),
            open_num: OpenNum(1),
            size_epoch: SizeEpoch(0),
            rights: Rights { read: true, write: true },
            key: KeyId(0),
            mac: [0; 16],
        };
        cap.sealed(key().seal(&cap))
    }

    /// Whole blocks.
    async fn write(&self, op: u64, offset: u32, data: Bytes, create: bool) -> Result<u64, CallError> {
        self.write_as(1, op, offset, data, create).await
    }

    async fn write_as(
        &self,
        session: u64,
        op: u64,
        offset: u32,
        data: Bytes,
        create: bool,
    ) -> Result<u64, CallError> {
        let cap = self.cap_of(session);
        let meta = WriteMeta {
            capability: cap,
            op: OpId(op),
            done: OpId(op),
            ranges: vec![Range { offset, len: u32::try_from(data.len()).unwrap() }],
            crcs: block_crcs(&data).map(|crc| crc.0).collect(),
            zeros: false,
            create: if create { self.members.clone() } else { Vec::new() },
            note: None,
        };
        let out = Outgoing::new(Op::Write).with_words(words(&cap, offset, 0));
        let out = out.with_meta(Bytes::from(meta.to_bytes())).with_payload(data);
        Ok(self.conns[0].call_frame(out, LIMIT).await?.header.words.word1)
    }

    async fn read(&self, at: usize, offset: u32, len: u32) -> Result<Bytes, CallError> {
        let cap = self.cap();
        let out = Outgoing::new(Op::Read).with_words(words(&cap, offset, len));
        let meta = Bytes::copy_from_slice(&cap.to_bytes());
        let frame = self.conns[at].call_frame(out.with_meta(meta), LIMIT).await?;
        assert_eq!(frame.header.words.word1, 1000, "the lease's stamp");
        let crcs: Vec<u8> =
            frame.payload.chunks(4096).flat_map(|block| crc32c(block).0.to_le_bytes()).collect();
        assert_eq!(frame.meta, crcs);
        Ok(frame.payload)
    }
}

fn words(cap: &Capability, offset: u32, len: u32) -> Words {
    Words { word0: cap.chunk.0, word1: version_word(cap.version, cap.config), word2: offset, word3: len }
}

fn status<T: std::fmt::Debug>(result: Result<T, CallError>) -> Status {
    result.unwrap_err().status()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_servers_write_sync_and_read() {
    let cluster = Cluster::up(3).await;
    assert_eq!(cluster.master.known.lock().unwrap().len(), 3);
    assert_eq!(status(cluster.read(0, 0, 4096).await), Status::NoChunk);
    let first = Bytes::from(vec![1; 64 << 10]);
    assert_eq!(cluster.write(1, 0, first.clone(), true).await.unwrap(), 1);
    let one_mib = Bytes::from(vec![2; 1 << 20]);
    assert_eq!(cluster.write(2, 1 << 20, one_mib.clone(), true).await.unwrap(), 2);
    assert_eq!(cluster.write(2, 1 << 20, first.clone(), true).await.unwrap(), 2, "a retry");
    let sync = Sync { chunks: vec![SyncChunk { capability: cluster.cap(), since: ChunkVersion(1) }] };
    let Synced { results } = cluster.conns[0].call(&sync, LIMIT).await.unwrap().body;
    assert_eq!(results, [Status::Ok]);
    for at in 0..3 {
        // What a secondary has not heard to be everywhere it sends to the primary.
        let data = loop {
            match cluster.read(at, 0, 64 << 10).await {
                Err(CallError::Status(Status::Redirect, _)) => {
                    tokio::time::sleep(Duration::from_millis(1)).await
                }
                other => break other.unwrap(),
            }
        };
        assert_eq!(data, first);
        assert_eq!(cluster.read(at, 1 << 20, 1 << 20).await.unwrap(), one_mib);
        assert_eq!(cluster.read(at, 100 << 10, 4096).await.unwrap(), vec![0; 4096], "a hole");
        assert!(cluster.read(at, 4 << 20, 4096).await.unwrap().is_empty(), "behind the end");
    }
    let Synced { results } = cluster.conns[1].call(&sync, LIMIT).await.unwrap().body;
    assert_eq!(results, [Status::Redirect], "syncs are the primary's");
}

/// Not a test of anything: `cargo test --release -p dfs-chunkserver --test servers -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn speed() {
    for servers in [1, 3] {
        let cluster = Arc::new(Cluster::up(servers).await);
        let mut op = 1;
        cluster.write(op, 0, Bytes::from(vec![1; 4096]), true).await.unwrap();
        for (len, count) in [(4096usize, 4000u32), (1 << 20, 256)] {
            let data = Bytes::from(vec![3; len]);
            let step = u32::try_from(len).unwrap();
            let began = started();
            for n in 0..count {
                op += 1;
                cluster.write(op, n * step % (64 << 20), data.clone(), true).await.unwrap();
            }
            report(servers, "write", len, count, started() - began);
            tokio::time::sleep(Duration::from_millis(5)).await;
            let began = started();
            for n in 0..count {
                cluster.read(servers - 1, n * step % (64 << 20), step).await.unwrap();
            }
            report(servers, "read", len, count, started() - began);
            let began = started();
            let lanes = 8;
            let mut tasks = Vec::new();
            for lane in 0..lanes {
                let (cluster, data, first) = (Arc::clone(&cluster), data.clone(), op);
                let session = u64::from(lane) + 2;
                tasks.push(tokio::spawn(async move {
                    for n in 0..count / lanes {
                        let at = (lane * (count / lanes) + n) * step % (64 << 20);
                        let id = first + u64::from(n) + 1;
                        cluster.write_as(session, id, at, data.clone(), true).await.unwrap();
                    }
                }));
            }
            for task in tasks {
                task.await.unwrap();
            }
            op += u64::from(count);
            report(servers, "write x8", len, count, started() - began);
        }
    }
}

fn started() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::new(u64::try_from(time.tv_sec).unwrap(), u32::try_from(time.tv_nsec).unwrap())
}

fn report(servers: usize, what: &str, len: usize, count: u32, took: Duration) {
    let each = took / count;
    let mib = f64::from(count) * len as f64 / took.as_secs_f64() / f64::from(1 << 20);
    println!("{servers} servers, {what:9} {len:8} bytes: {each:?} each, {mib:.0} MiB/s");
}
