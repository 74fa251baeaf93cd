//! A cluster in memory behind the library's network seam: one master, chunk servers that share one store
//! (replication is not what is tested here), and faults on demand. Time is tokio's paused clock.

mod master;
mod servers;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use dfs_client::net::{LinkId, Net, NetError, Notice, Notices, Peer};
use dfs_client::{Ack, Caller, Client, Config, Upcalls};
use dfs_proto::frame::{Frame, Outgoing};
use dfs_proto::header::{CallId, Flags, Header};
use dfs_proto::ids::{ChunkVersion, Ino, OsBootId};
use dfs_proto::request::{Op, Request};
use dfs_proto::status::Status;
use dfs_proto::units::Micros;
use tokio::time::Instant;

pub(crate) use master::Master;
pub(crate) use servers::Servers;

pub(crate) const CHUNK: u32 = 64 << 10;
const TRIP: Duration = Duration::from_micros(100);

/// What happens to the next request of an operation.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// It is done, but the link breaks before the answer.
    LoseReply,
    /// It never arrives, and the connection breaks.
    LoseRequest,
    Answer(Status),
    Unreachable {
        dead: bool,
    },
    /// It takes so much longer, before it is done.
    Slow(Duration),
    /// The answer takes so much longer.
    LateReply(Duration),
    /// The answer is altered.
    Spoil(fn(&mut Outgoing)),
}

pub(crate) struct World {
    pub(crate) master: Master,
    pub(crate) servers: Servers,
    pub(crate) faults: BTreeMap<Op, VecDeque<Fault>>,
    /// Requests that arrived, in order.
    pub(crate) log: Vec<Op>,
    pub(crate) links: BTreeMap<LinkId, Notices>,
    next_link: u64,
    pub(crate) master_down: bool,
    /// Chunks that left their file's map.
    pub(crate) dropped: usize,
}

#[derive(Clone)]
pub(crate) struct FakeNet {
    world: Arc<Mutex<World>>,
    start: Instant,
}

impl FakeNet {
    pub(crate) fn new() -> FakeNet {
        let world = World {
            master: Master::new(),
            servers: Servers::default(),
            faults: BTreeMap::new(),
            log: Vec::new(),
            links: BTreeMap::new(),
            next_link: 0,
            master_down: false,
            dropped: 0,
        };
        FakeNet { world: Arc::new(Mutex::new(world)), start: Instant::now() }
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    pub(crate) fn fault(&self, op: Op, fault: Fault) {
        self.world().faults.entry(op).or_default().push_back(fault);
    }

    /// The operations since the last call, those of the background left out.
    pub(crate) fn take_log(&self) -> Vec<Op> {
        let background = [Op::KeepAlive, Op::OpenSession, Op::Suspect];
        let log = std::mem::take(&mut self.world().log);
        log.into_iter().filter(|op| !background.contains(op)).collect()
    }

    pub(crate) fn cut_links(&self) {
        for (link, notices) in std::mem::take(&mut self.world().links) {
            drop(notices.try_send(Notice::Closed(link)));
        }
    }

    /// A one-way request of the master to the only client there is.
    pub(crate) fn notify<R: Request>(&self, request: &R) {
        let mut out = Outgoing::request(request).unwrap();
        out.flags = out.flags.with(Flags::ONE_WAY);
        let frame = arrive(out);
        let world = self.world();
        let (link, notices) = world.links.last_key_value().unwrap();
        drop(notices.try_send(Notice::Frame(*link, frame)));
    }

    pub(crate) async fn client(&self) -> Client<FakeNet> {
        self.client_with(|_| ()).await.0
    }

    pub(crate) async fn client_with(
        &self,
        change: impl FnOnce(&mut Config),
    ) -> (Client<FakeNet>, Arc<Kernel>) {
        let mut config = Config::new("test", OsBootId(1), 7);
        change(&mut config);
        let kernel = Arc::new(Kernel { net: self.clone(), invalidated: Mutex::default() });
        let upcalls: Arc<dyn Upcalls> = Arc::clone(&kernel) as Arc<dyn Upcalls>;
        (Client::connect(config, self.clone(), upcalls).await.unwrap(), kernel)
    }
}

/// The mount's side.
pub(crate) struct Kernel {
    net: FakeNet,
    /// What was invalidated, and how many requests had arrived by then.
    pub(crate) invalidated: Mutex<Vec<(Ino, usize)>>,
}

impl Upcalls for Kernel {
    fn invalidate(&self, ino: Ino, done: Ack) {
        let seen = self.net.world().log.len();
        self.invalidated.lock().unwrap().push((ino, seen));
        done.ack();
    }

    fn groups(&self, _pid: u32) -> Option<Vec<u32>> {
        Some(vec![4242])
    }
}

/// What a frame is on the other side of a wire.
fn arrive(out: Outgoing) -> Frame {
    let payload = Bytes::from(out.payload.parts().concat());
    let header = Header {
        op: out.op,
        flags: out.flags,
        status: out.status,
        call: CallId(1),
        words: out.words,
        deadline_ms: 0,
        load: out.load,
        meta_len: u32::try_from(out.meta.len()).unwrap(),
        payload_len: u32::try_from(payload.len()).unwrap(),
    };
    Frame { header, meta: out.meta, payload }
}

impl Net for FakeNet {
    fn now(&self) -> Micros {
        Micros(u64::try_from((Instant::now() - self.start).as_micros()).unwrap() + 1_000_000)
    }

    async fn dial_master(&self, notices: Notices) -> Result<LinkId, NetError> {
        tokio::time::sleep(TRIP).await;
        let mut world = self.world();
        if world.master_down {
            return Err(NetError::Unreachable { dead: false });
        }
        world.next_link += 1;
        let link = LinkId(world.next_link);
        world.links.insert(link, notices);
        Ok(link)
    }

    fn hang_up(&self, link: LinkId) {
        self.world().links.remove(&link);
    }

    async fn call(&self, to: &Peer, out: Outgoing, deadline: Duration) -> Result<Frame, NetError> {
        let work = async {
            tokio::time::sleep(TRIP).await;
            let frame = arrive(out);
            let op = frame.header.op;
            if let (Op::Read, Peer::Server(addr)) = (op, to) {
                let slow = {
                    let servers = &mut self.world().servers;
                    *servers.asked.entry(addr.num).or_default() += 1;
                    servers.slow.get(&addr.num).copied().unwrap_or_default()
                };
                tokio::time::sleep(slow).await;
            }
            let fault = self.world().faults.get_mut(&op).and_then(VecDeque::pop_front);
            match &fault {
                Some(Fault::LoseRequest) => return Err(self.broken(to)),
                Some(Fault::Unreachable { dead }) => return Err(NetError::Unreachable { dead: *dead }),
                Some(Fault::Answer(status)) => {
                    self.world().log.push(op);
                    return Err(NetError::Status(*status, "as planned".into()));
                }
                Some(Fault::Slow(wait)) => tokio::time::sleep(*wait).await,
                Some(Fault::LoseReply | Fault::LateReply(_) | Fault::Spoil(_)) | None => {}
            }
            let mut reply = self.serve(to, &frame)?;
            tokio::time::sleep(TRIP).await;
            match fault {
                Some(Fault::LoseReply) => Err(self.broken(to)),
                Some(Fault::LateReply(wait)) => {
                    tokio::time::sleep(wait).await;
                    Ok(arrive(reply))
                }
                Some(Fault::Spoil(spoil)) => {
                    spoil(&mut reply);
                    Ok(arrive(reply))
                }
                _ => Ok(arrive(reply)),
            }
        };
        match tokio::time::timeout(deadline, work).await {
            Ok(answer) => answer,
            Err(_) => Err(NetError::Deadline),
        }
    }
}

impl FakeNet {
    fn broken(&self, to: &Peer) -> NetError {
        if let Peer::Master(link) = to
            && let Some(notices) = self.world().links.remove(link)
        {
            drop(notices.try_send(Notice::Closed(*link)));
        }
        NetError::Closed
    }

    fn serve(&self, to: &Peer, frame: &Frame) -> Result<Outgoing, NetError> {
        let now = self.now();
        let mut world = self.world();
        let world = &mut *world;
        let reply = match to {
            Peer::Master(link) => {
                if world.master_down || !world.links.contains_key(link) {
                    return Err(NetError::Closed);
                }
                world.log.push(frame.header.op);
                let reply = world.master.serve(*link, frame, now);
                for (chunk, offset, epoch) in std::mem::take(&mut world.master.zeros) {
                    world.servers.zero(chunk, offset, epoch);
                }
                for chunk in std::mem::take(&mut world.master.dropped) {
                    world.servers.versions.insert(chunk, ChunkVersion(u32::MAX));
                    world.dropped += 1;
                }
                reply
            }
            Peer::Server(addr) => {
                world.log.push(frame.header.op);
                let reply = world.servers.serve(addr.num, frame, now);
                world.master.written = world.servers.chunks.keys().copied().collect();
                reply
            }
        };
        reply.map_err(|status| NetError::Status(status, String::new()))
    }
}

pub(crate) const WHO: Caller = Caller { uid: 0, gid: 0, pid: 1 };

pub(crate) fn pattern(len: usize, seed: u8) -> Bytes {
    (0..len).map(|i| (i % 251) as u8 ^ seed).collect::<Vec<u8>>().into()
}
