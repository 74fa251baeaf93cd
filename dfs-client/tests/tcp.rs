//! The real network seam: which address is taken, what a refusal proves, what the master may send.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dfs_client::net::tcp::{TcpConfig, TcpNet};
use dfs_client::net::{Net, NetError, Notice, Peer};
use dfs_proto::conn::{Acceptor, Conn, Handler, Listener, PeerAddr, Responder, RoleSet, Welcome};
use dfs_proto::frame::{Frame, Outgoing};
use dfs_proto::ids::{BootId, ClusterId, GrantId, Ino, OsBootId, ServerId, ServerNum};
use dfs_proto::meta::{KeepAlive, Recall, ServerAddr};
use dfs_proto::request::Op;
use dfs_proto::status::Status;
use tokio::sync::mpsc;

const WAIT: Duration = Duration::from_secs(5);

/// Answers everything, and sends a recall first.
struct Echo;

impl Handler for Echo {
    fn handle(&self, conn: &Conn, frame: Frame, reply: Responder) {
        let recall = Recall { ino: Ino(7), grant: GrantId(8) };
        conn.notify(Outgoing::request(&recall).unwrap()).unwrap();
        reply.send(Outgoing::reply_to(&frame.header));
    }
}

async fn listen(addr: &PeerAddr) -> PeerAddr {
    listen_as(addr, ClusterId(1)).await
}

async fn listen_as(addr: &PeerAddr, cluster: ClusterId) -> PeerAddr {
    let listener = Listener::bind(addr).await.unwrap();
    let bound = listener.local_addr().clone();
    let welcome = Welcome::new("peer", cluster, BootId(1));
    tokio::spawn(listener.serve(Acceptor { welcome, roles: RoleSet::ALL, handler: Arc::new(Echo) }));
    bound
}

fn net(masters: Vec<String>) -> TcpNet {
    TcpNet::new(TcpConfig {
        masters,
        name: "test".into(),
        os_boot: OsBootId(1),
        cluster: None,
        unix: true,
        dial_timeout: WAIT,
    })
}

fn server(tcp: &PeerAddr, unix: &Path) -> Peer {
    let unix = Some(unix.to_str().unwrap().to_owned());
    let (num, id) = (ServerNum(1), ServerId(1));
    Peer::Server(Arc::new(ServerAddr { num, id, tcp: tcp.to_string(), unix, os_boot: OsBootId(1) }))
}

fn ask() -> Outgoing {
    Outgoing::request(&KeepAlive { servers_epoch: 0 }).unwrap()
}

#[tokio::test]
async fn the_master_may_send_unasked_and_its_link_ends_once() {
    let bound = listen(&"127.0.0.1:0".parse().unwrap()).await;
    let net = net(vec![bound.to_string()]);
    let (notices, mut incoming) = mpsc::channel(8);
    let link = net.dial_master(notices).await.unwrap();
    net.call(&Peer::Master(link), ask(), WAIT).await.unwrap();
    let Some(Notice::Frame(from, frame)) = incoming.recv().await else { panic!("no recall") };
    assert_eq!((from, frame.header.op), (link, Op::Recall));
    net.hang_up(link);
    assert!(matches!(incoming.recv().await, Some(Notice::Closed(over)) if over == link));
    assert_eq!(net.call(&Peer::Master(link), ask(), WAIT).await.unwrap_err(), NetError::Closed);
}

#[tokio::test]
async fn every_master_has_its_turn() {
    let bound = listen(&"127.0.0.1:0".parse().unwrap()).await;
    let net = net(vec!["127.0.0.1:1".into(), bound.to_string()]);
    let (notices, _incoming) = mpsc::channel(8);
    let first = net.dial_master(notices.clone()).await;
    assert_eq!(first.unwrap_err(), NetError::Unreachable { dead: false });
    assert!(net.dial_master(notices).await.is_ok());
}

#[tokio::test]
async fn another_clusters_master_is_refused_however_it_comes_by_the_address() {
    let any = "127.0.0.1:0".parse().unwrap();
    let ours = listen_as(&any, ClusterId(1)).await;
    let theirs = listen_as(&any, ClusterId(2)).await;
    let net = net(vec![ours.to_string(), theirs.to_string(), ours.to_string()]);
    let (notices, _incoming) = mpsc::channel(8);
    assert!(net.dial_master(notices.clone()).await.is_ok());
    let refused = net.dial_master(notices.clone()).await.unwrap_err();
    assert!(matches!(&refused, NetError::Status(Status::WrongCluster, _)), "{refused}");
    assert!(net.dial_master(notices).await.is_ok());
}

#[tokio::test]
async fn a_missing_socket_is_no_proof_and_tcp_serves() {
    let dir = tempfile::tempdir().unwrap();
    let bound = listen(&"127.0.0.1:0".parse().unwrap()).await;
    let net = net(Vec::new());
    let peer = server(&bound, &dir.path().join("none"));
    assert!(net.call(&peer, ask(), WAIT).await.is_ok());
}

#[tokio::test]
async fn a_refusal_on_the_socket_is_proof_for_the_dial_that_met_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    // Bound, and never listened at again: what a killed process leaves.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let bound = listen(&"127.0.0.1:0".parse().unwrap()).await;
    let net = net(Vec::new());
    let peer = server(&bound, &path);
    assert_eq!(net.call(&peer, ask(), WAIT).await.unwrap_err(), NetError::Unreachable { dead: true });
    // Within the rest after a failed dial nothing new is proven.
    assert!(net.call(&peer, ask(), WAIT).await.is_ok());
}
