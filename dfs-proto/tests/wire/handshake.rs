//! Who is let in, and what the others are told.

use std::sync::Arc;
use std::time::Duration;

use bytes::BufMut;
use dfs_proto::conn::{BindError, CallsOnly, Conn, ConnError, Hello, Listener, PeerAddr, PeerSaid, Role};
use dfs_proto::frame::wire::WireFrame;
use dfs_proto::frame::{Decoder, Frame, Outgoing};
use dfs_proto::header::{CallId, Flags, Limits};
use dfs_proto::ids::ClusterId;
use dfs_proto::status::Status;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{CLUSTER, SOON, Served, act, ask, hello, serve, serve_at, until, welcome};

async fn refusal(hello: Hello) -> (Status, String) {
    let served = serve().await;
    match Conn::connect(&served.addr, hello, Arc::new(CallsOnly), SOON).await {
        Err(ConnError::Handshake { status, detail, .. }) => (status, detail),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn both_ends_know_each_other() {
    let served = serve().await;
    let (conn, said) = Conn::connect(&served.addr, hello(), Arc::new(CallsOnly), SOON).await.unwrap();
    assert_eq!(said, welcome());
    assert!(matches!(&conn.peer().said, PeerSaid::Welcome(said) if *said == welcome()));
    let theirs = served.their_end().await;
    assert!(matches!(&theirs.peer().said, PeerSaid::Hello(said) if *said == hello()));
    assert_ne!(conn.id(), theirs.id());
}

#[tokio::test]
async fn one_that_joins_learns_the_cluster() {
    let served = serve().await;
    let joining = Hello::new(Role::ChunkServer, "new", None);
    let (_conn, said) = Conn::connect(&served.addr, joining, Arc::new(CallsOnly), SOON).await.unwrap();
    assert_eq!(said.cluster, CLUSTER);
}

#[tokio::test]
async fn strangers_are_told_why() {
    let (status, detail) = refusal(Hello { cluster: Some(ClusterId(1)), ..hello() }).await;
    assert_eq!(status, Status::WrongCluster);
    assert!(detail.contains(&CLUSTER.to_string()), "{detail}");
    assert_eq!(refusal(Hello { protocol: 2, ..hello() }).await.0, Status::WrongVersion);
    assert_eq!(refusal(Hello { role: Role::Tool, ..hello() }).await.0, Status::WrongRole);
}

/// Sends raw bytes and returns what is answered before the connection is closed.
async fn answer_to(served: &Served, bytes: &[u8]) -> Frame {
    let PeerAddr::Tcp(addr) = served.addr else { panic!("not TCP") };
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut all = Vec::new();
    tokio::time::timeout(SOON, stream.read_to_end(&mut all)).await.unwrap().unwrap();
    let mut decoder = Decoder::new(Limits::HANDSHAKE);
    decoder.space().put_slice(&all);
    let frame = decoder.next_frame().unwrap().unwrap();
    assert!(frame.header.flags.contains(Flags::REPLY.with(Flags::CLOSING)));
    frame
}

fn hello_bytes() -> Vec<u8> {
    WireFrame::new(Outgoing::request(&hello()).unwrap(), CallId(77), 0).unwrap().to_vec()
}

#[tokio::test]
async fn another_protocol_version_is_told() {
    let mut bytes = hello_bytes();
    bytes[4] = 2;
    let frame = answer_to(&serve().await, &bytes).await;
    assert_eq!(frame.header.status, Status::WrongVersion);
    assert!(frame.detail().contains("protocol 2"), "{}", frame.detail());
}

#[tokio::test]
async fn another_first_frame_is_told() {
    let bytes = WireFrame::new(ask(act::ECHO), CallId(77), 0).unwrap().to_vec();
    let frame = answer_to(&serve().await, &bytes).await;
    assert_eq!((frame.header.status, frame.header.call), (Status::NoHello, CallId(77)));
}

#[tokio::test]
async fn garbage_is_told() {
    let request = b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: some browser or other\r\n\r\n";
    assert_eq!(answer_to(&serve().await, request).await.header.status, Status::Malformed);
    let mut flipped = hello_bytes();
    flipped[70] ^= 1;
    assert_eq!(answer_to(&serve().await, &flipped).await.header.status, Status::Malformed);
    let mut large = hello_bytes();
    large[44..48].copy_from_slice(&1_000_000u32.to_le_bytes());
    assert_eq!(answer_to(&serve().await, &large).await.header.status, Status::TooLarge);
}

#[tokio::test]
async fn silence_is_refused_in_time() {
    let frame = answer_to(&serve().await, b"").await;
    assert_eq!(frame.header.status, Status::NoHello);
}

#[tokio::test]
async fn a_bad_frame_later_ends_that_connection_alone() {
    let served = serve().await;
    let good = served.dial().await;
    let PeerAddr::Tcp(addr) = served.addr else { panic!("not TCP") };
    let mut bad = TcpStream::connect(addr).await.unwrap();
    bad.write_all(&hello_bytes()).await.unwrap();
    bad.write_all(&[0xee; 64]).await.unwrap();
    let mut all = Vec::new();
    tokio::time::timeout(SOON, bad.read_to_end(&mut all)).await.unwrap().unwrap();
    let mut decoder = Decoder::new(Limits::NORMAL);
    decoder.space().put_slice(&all);
    assert_eq!(decoder.next_frame().unwrap().unwrap().header.status, Status::Ok);
    let last = decoder.next_frame().unwrap().unwrap();
    assert_eq!(last.header.status, Status::Malformed);
    assert!(last.header.flags.contains(Flags::CLOSING));
    good.call_frame(ask(act::ECHO), SOON).await.unwrap();
    drop(bad);
    until(|| served.echo.closed.load(std::sync::atomic::Ordering::Relaxed) == 1).await;
}

#[tokio::test]
async fn refused_on_a_unix_socket_proves_death() {
    let dir = tempfile::tempdir().unwrap();
    let addr = PeerAddr::Unix(dir.path().join("socket"));
    drop(std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap());
    let error = Conn::connect(&addr, hello(), Arc::new(CallsOnly), SOON).await.unwrap_err();
    assert!(error.proves_death(), "{error}");

    let absent = PeerAddr::Unix(dir.path().join("absent"));
    let error = Conn::connect(&absent, hello(), Arc::new(CallsOnly), SOON).await.unwrap_err();
    assert!(!error.proves_death(), "{error}");

    let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
    let tcp = listener.local_addr().clone();
    drop(listener);
    let error = Conn::connect(&tcp, hello(), Arc::new(CallsOnly), SOON).await.unwrap_err();
    assert!(matches!(error, ConnError::Refused { unix: false, .. }), "{error}");
}

#[tokio::test]
async fn a_dead_socket_file_is_replaced_and_a_live_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let addr = PeerAddr::Unix(path.clone());
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let served = serve_at(&addr).await;
    assert!(matches!(Listener::bind(&addr).await, Err(BindError::InUse(_))));
    served.dial().await.call_frame(ask(act::ECHO), SOON).await.unwrap();

    let other = dir.path().join("other");
    let unlocked = std::os::unix::net::UnixListener::bind(&other).unwrap();
    assert!(matches!(Listener::bind(&PeerAddr::Unix(other)).await, Err(BindError::InUse(_))));
    drop(unlocked);

    let file = dir.path().join("file");
    drop(std::fs::File::create(&file).unwrap());
    assert!(matches!(Listener::bind(&PeerAddr::Unix(file)).await, Err(BindError::NotASocket(_))));
}

#[tokio::test]
async fn a_taken_port_is_in_use() {
    let served = serve().await;
    assert!(matches!(Listener::bind(&served.addr).await, Err(BindError::InUse(_))));
}

#[tokio::test]
async fn a_silent_server_times_out() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = PeerAddr::Tcp(silent.local_addr().unwrap());
    let limit = Duration::from_millis(100);
    let error = Conn::connect(&addr, hello(), Arc::new(CallsOnly), limit).await.unwrap_err();
    assert!(matches!(error, ConnError::TimedOut { .. }), "{error}");
}
