//! Back pressure: what a peer does not read is bounded here, and nobody else suffers.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use dfs_proto::conn::{CallError, PeerAddr};
use dfs_proto::frame::wire::WireFrame;
use dfs_proto::frame::{Decoder, Outgoing};
use dfs_proto::header::{CallId, Limits, Words};
use dfs_proto::status::Status;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{SOON, act, ask, hello, serve};

const MIB: u32 = 1 << 20;

fn fill() -> Outgoing {
    ask(0).with_words(Words { word0: act::FILL, word2: MIB, ..Words::default() })
}

/// A peer that shakes hands and then only does what the test does.
async fn raw_peer(addr: &PeerAddr) -> TcpStream {
    let PeerAddr::Tcp(addr) = addr else { panic!("not TCP") };
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let bytes = WireFrame::new(Outgoing::request(&hello()).unwrap(), CallId(0), 0).unwrap().to_vec();
    stream.write_all(&bytes).await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_not_read_while_replies_are_not_taken() {
    const REQUESTS: u64 = 600;
    let served = serve().await;
    let mut slow = raw_peer(&served.addr).await;
    for call in 1..=REQUESTS {
        slow.write_all(&WireFrame::new(fill(), CallId(call), 0).unwrap().to_vec()).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let served_now = served.echo.served.load(Ordering::Relaxed);
    // 64 MiB queued and up to 10 MiB in the buffers of both sockets.
    assert!(served_now < 100, "{served_now} replies of 1 MiB were made for nobody");
    served.dial().await.call_frame(ask(act::ECHO), SOON).await.unwrap();

    let mut decoder = Decoder::new(Limits::NORMAL);
    let mut replies = 0;
    while replies < REQUESTS {
        assert!(slow.read_buf(&mut decoder.space()).await.unwrap() > 0);
        while let Some(frame) = decoder.next_frame().unwrap() {
            if !frame.payload.is_empty() {
                replies += 1;
                assert_eq!(frame.header.call, CallId(replies), "replies in the order they were made");
            }
        }
    }
}

/// Asked for more than the buffers of both sockets hold.
async fn asks_for_much(stream: &mut TcpStream) {
    for call in 1..=20 {
        stream.write_all(&WireFrame::new(fill(), CallId(call), 0).unwrap().to_vec()).await.unwrap();
    }
}

async fn until(what: impl Fn() -> bool) {
    let wait = async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, wait).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_handler_is_told_while_a_peer_does_not_take_what_is_sent() {
    let served = serve().await;
    let mut slow = raw_peer(&served.addr).await;
    asks_for_much(&mut slow).await;
    let waits = || served.echo.waits().0 == served.echo.waits().1 + 1;
    until(waits).await;
    let sent = || served.echo.sent.load(Ordering::Relaxed);
    assert!((1..16 << 20).contains(&sent()), "{} bytes left, of 20 MiB", sent());
    let mut sink = vec![0; 1 << 20];
    let mut taken = 0;
    while taken < 20 << 20 {
        taken += slow.read(&mut sink).await.unwrap();
    }
    until(|| served.echo.waits().0 == served.echo.waits().1).await;
    assert!(sent() > 20 << 20);
    let before = served.echo.waits().0;
    served.dial().await.call_frame(ask(act::ECHO), SOON).await.unwrap();
    assert_eq!(served.echo.waits(), (before, before), "a small reply does not wait");
    // A peer that goes away waits for nothing any more.
    asks_for_much(&mut slow).await;
    until(waits).await;
    drop(slow);
    until(|| served.echo.waits().0 == served.echo.waits().1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_wait_for_room_until_their_deadline() {
    let served = serve().await;
    let mut slow = raw_peer(&served.addr).await;
    let conn = served.their_end().await;
    let payload = Bytes::from(vec![1; 1 << 20]);
    let mut sent = 0;
    let refused = loop {
        match conn.notify(ask(act::ECHO).with_payload(payload.clone())) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, CallError::Status(Status::Overloaded, _)), "{refused}");
    assert!(sent < 64, "{sent} MiB went out to nobody");
    let error = conn.call_frame(ask(act::ECHO), Duration::from_millis(100)).await.unwrap_err();
    assert!(matches!(error, CallError::Deadline), "{error}");

    let waiting = tokio::spawn({
        let conn = conn.clone();
        async move { conn.call_frame(ask(act::ECHO), SOON).await }
    });
    let mut decoder = Decoder::new(Limits::NORMAL);
    loop {
        assert!(slow.read_buf(&mut decoder.space()).await.unwrap() > 0);
        while let Some(frame) = decoder.next_frame().unwrap() {
            if frame.payload.is_empty() && !frame.header.is_reply() {
                let reply = Outgoing::reply_to(&frame.header);
                let bytes = WireFrame::new(reply, frame.header.call, 0).unwrap().to_vec();
                slow.write_all(&bytes).await.unwrap();
                waiting.await.unwrap().unwrap();
                return;
            }
        }
    }
}

#[tokio::test]
async fn requests_that_hold_many_bytes_are_refused() {
    let served = serve().await;
    let conn = served.dial().await;
    let payload = Bytes::from(vec![1; 1 << 20]);
    let mut held = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let (conn, payload) = (conn.clone(), payload.clone());
        let call = async move { conn.call_frame(ask(act::HOLD).with_payload(payload), SOON).await };
        held.spawn(call);
    }
    for _ in 0..40 {
        let refused = held.join_next().await.unwrap().unwrap();
        assert!(matches!(refused, Err(CallError::Status(Status::Overloaded, _))), "{refused:?}");
    }
    assert_eq!(served.echo.held.lock().unwrap().len(), 160);
}
