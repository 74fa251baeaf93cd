//! A client's place in the simulation: the library's [`Net`] over the simulated network. The library itself
//! is the production one and runs as tasks on a runtime whose time is the simulation's.
//!
//! A client that was killed never hears anything again: its tasks wait for ever and go with the run.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use dfs_client::net::{LinkId, Net, NetError, Notice, Notices, Peer};
use dfs_proto::conn::Role;
use dfs_proto::frame::{Frame, Outgoing};
use dfs_proto::request::Request;
use dfs_proto::status::Status;
use dfs_proto::units::Micros;
use tokio::sync::oneshot;

use super::fabric::{CallEnd, CallRef, ConnRef, DialRef, Fabric, Happening, Links, Node, Who};
use super::{Shared, node_of_address};

type CallResult = Result<Frame, NetError>;

/// What the simulation keeps of a client.
#[derive(Debug)]
pub struct ClientNode {
    who: Who,
    servers: Links,
    calls: BTreeMap<CallRef, oneshot::Sender<CallResult>>,
    dials: BTreeMap<DialRef, (oneshot::Sender<Result<LinkId, NetError>>, Notices)>,
    links: BTreeMap<ConnRef, Notices>,
    /// Dropped when the client is killed, which tells the program that runs on it.
    _alive: oneshot::Sender<()>,
}

impl ClientNode {
    /// With what resolves when it is killed.
    #[must_use]
    pub fn new(node: Node, role: Role) -> (ClientNode, oneshot::Receiver<()>) {
        let name = format!("{node:?}");
        let (alive, killed) = oneshot::channel();
        let client = ClientNode {
            who: Who { node, role, name, server: None, boot: None },
            servers: Links::default(),
            calls: BTreeMap::new(),
            dials: BTreeMap::new(),
            links: BTreeMap::new(),
            _alive: alive,
        };
        (client, killed)
    }

    /// Something happened to the client's connections.
    pub fn happening(&mut self, fabric: &mut Fabric, what: Happening) {
        let me = self.who.node;
        match what {
            Happening::Dialled { dial, conn, refused } => match self.dials.remove(&dial) {
                Some((waiter, notices)) => {
                    let link = conn.map(|conn| LinkId(conn.0)).ok_or(NetError::Unreachable { dead: false });
                    if let Some(conn) = conn {
                        self.links.insert(conn, notices);
                    }
                    // Who asked may have given up.
                    let _ = waiter.send(link);
                }
                None => {
                    self.servers.dialled(fabric, me, dial, conn, refused);
                }
            },
            Happening::Answered { call, end } => {
                if let Some(waiter) = self.calls.remove(&call) {
                    let _ = waiter.send(result_of(end));
                }
            }
            Happening::Frame { conn, frame } => {
                if let Some(notices) = self.links.get(&conn) {
                    let _ = notices.try_send(Notice::Frame(LinkId(conn.0), frame));
                }
            }
            Happening::Closed { conn } => {
                if let Some(notices) = self.links.remove(&conn) {
                    let _ = notices.try_send(Notice::Closed(LinkId(conn.0)));
                }
                self.servers.closed(conn);
            }
            Happening::Opened { conn, .. } => fabric.close(me, conn),
            Happening::Timer(_) => {}
        }
    }

    fn call(
        &mut self,
        fabric: &mut Fabric,
        to: &Peer,
        out: Outgoing,
        deadline: Duration,
    ) -> Result<oneshot::Receiver<CallResult>, NetError> {
        let me = self.who.node;
        let deadline_us = u64::try_from(deadline.as_micros()).unwrap_or(u64::MAX);
        let call = match to {
            Peer::Master(link) => {
                let conn = ConnRef(link.0);
                if !fabric.is_open(me, conn) {
                    return Err(NetError::Closed);
                }
                fabric.call(me, conn, out, deadline_us)
            }
            Peer::Server(addr) => {
                let node = node_of_address(&addr.tcp).ok_or(NetError::Unreachable { dead: false })?;
                self.servers.call(fabric, &self.who, node, out, deadline_us)
            }
        };
        let (waiter, result) = oneshot::channel();
        self.calls.insert(call, waiter);
        Ok(result)
    }
}

fn result_of(end: CallEnd) -> CallResult {
    match end {
        CallEnd::Reply(frame) if frame.header.status == Status::Ok => Ok(frame),
        CallEnd::Reply(frame) => Err(NetError::Status(frame.header.status, frame.detail())),
        CallEnd::Deadline => Err(NetError::Deadline),
        CallEnd::Closed => Err(NetError::Closed),
        CallEnd::Unreachable { dead } => Err(NetError::Unreachable { dead }),
    }
}

/// The simulated network as one client has it.
#[derive(Clone, Debug)]
pub struct SimNet {
    shared: Arc<Shared>,
    node: Node,
}

impl SimNet {
    #[must_use]
    pub fn new(shared: Arc<Shared>, node: Node) -> SimNet {
        SimNet { shared, node }
    }

    /// Acts on this client's part of the simulation. `None` once it was killed.
    fn act<R>(&self, act: impl FnOnce(&mut ClientNode, &mut Fabric) -> R) -> Option<R> {
        self.shared.act(|world| world.with_client(self.node, act))
    }

    /// Answers come over a connection in order, but each is taken in by a task of its own, when a busy machine gets
    /// round to it.
    async fn get_round_to_it(&self) {
        let late_us = self.shared.act(|world| {
            let late = world.shape.crowded && world.fabric.one_in(8);
            if late { world.fabric.rng.below(4_000) } else { 0 }
        });
        if late_us > 0 {
            self.shared.sleep_us(late_us).await;
        }
    }

    /// Asks the master, as a tool does.
    ///
    /// # Errors
    /// As the call failed.
    pub async fn ask<R: Request>(&self, link: LinkId, request: &R) -> Result<R::Reply, NetError> {
        let out = Outgoing::request(request).map_err(|_| NetError::Malformed)?;
        let frame = self.call(&Peer::Master(link), out, Duration::from_secs(2)).await?;
        frame.decode().map_err(|_| NetError::Malformed)
    }
}

impl Net for SimNet {
    fn now(&self) -> Micros {
        self.shared.act(|world| world.fabric.clock_of(self.node))
    }

    async fn dial_master(&self, notices: Notices) -> Result<LinkId, NetError> {
        let dialled = self.act(|client, fabric| {
            let (waiter, result) = oneshot::channel();
            let dial = fabric.dial(client.who.clone(), Node::Master);
            client.dials.insert(dial, (waiter, notices));
            result
        });
        match dialled {
            Some(result) => match result.await {
                Ok(link) => link,
                Err(_) => pending().await,
            },
            None => pending().await,
        }
    }

    fn hang_up(&self, link: LinkId) {
        self.act(|client, fabric| {
            let conn = ConnRef(link.0);
            client.links.remove(&conn);
            fabric.close(client.who.node, conn);
        });
    }

    async fn call(&self, to: &Peer, out: Outgoing, deadline: Duration) -> Result<Frame, NetError> {
        match self.act(|client, fabric| client.call(fabric, to, out, deadline)) {
            Some(Ok(result)) => match result.await {
                Ok(result) => {
                    self.get_round_to_it().await;
                    result
                }
                Err(_) => pending().await,
            },
            Some(Err(error)) => Err(error),
            None => pending().await,
        }
    }
}
