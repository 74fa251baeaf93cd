//! Calls: many at once in both directions, and every way in which one ends without a reply.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use dfs_proto::conn::{CallError, CallsOnly, Conn, PeerAddr};
use dfs_proto::frame::Outgoing;
use dfs_proto::header::Words;
use dfs_proto::request::Op;
use dfs_proto::status::Status;
use tokio::task::JoinSet;

use crate::support::{Echo, SOON, act, ask, serve, serve_at, until};

fn status_of(result: Result<impl std::fmt::Debug, CallError>) -> Status {
    match result {
        Err(CallError::Status(status, _)) => status,
        other => panic!("{other:?}"),
    }
}

async fn echoes(conn: &Conn, from: usize, payload: usize) {
    let act = if from.is_multiple_of(2) { act::ECHO } else { act::ECHO_LATER };
    let meta = Bytes::from(from.to_string());
    let payload = Bytes::from(vec![u8::try_from(from % 256).unwrap(); payload]);
    let out = ask(act).with_meta(meta.clone()).with_payload(payload.clone());
    let frame = conn.call_frame(out, SOON).await.unwrap();
    assert_eq!((frame.meta, frame.payload), (meta, payload));
}

async fn thousand_both_ways(addr: &PeerAddr) {
    let served = serve_at(addr).await;
    let ours = served.dial().await;
    let theirs = served.their_end().await;
    let mut calls = JoinSet::new();
    for i in 0..1000 {
        let payload = if i % 50 == 0 { 1 << 20 } else { i * 37 % 40_000 };
        for conn in [ours.clone(), theirs.clone()] {
            calls.spawn(async move { echoes(&conn, i, payload).await });
        }
    }
    while let Some(result) = calls.join_next().await {
        result.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_calls_each_way_over_tcp() {
    thousand_both_ways(&"127.0.0.1:0".parse().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_calls_each_way_over_a_unix_socket() {
    let dir = tempfile::tempdir().unwrap();
    thousand_both_ways(&PeerAddr::Unix(dir.path().join("socket"))).await;
}

#[tokio::test]
async fn a_thousand_calls_on_one_thread() {
    thousand_both_ways(&"127.0.0.1:0".parse().unwrap()).await;
}

#[tokio::test]
async fn an_error_reply_has_status_and_detail() {
    let conn = serve().await.dial().await;
    let error = conn.call_frame(ask(act::FAIL), SOON).await.unwrap_err();
    assert!(matches!(&error, CallError::Status(Status::NotFound, detail) if detail == "nothing here"));
    assert_eq!(error.to_string(), "no such file or directory: nothing here");
}

#[tokio::test]
async fn a_dropped_responder_answers() {
    let conn = serve().await.dial().await;
    assert_eq!(status_of(conn.call_frame(ask(act::DROP), SOON).await), Status::Io);
}

#[tokio::test]
async fn a_deadline_ends_the_call_and_frees_its_slot() {
    let served = serve().await;
    let conn = served.dial().await;
    let long = conn.call_frame(ask(act::HOLD), SOON);
    tokio::pin!(long);
    assert!(tokio::time::timeout(Duration::from_millis(20), &mut long).await.is_err());
    for _ in 0..3 {
        let started = tokio::time::Instant::now();
        let error = conn.call_frame(ask(act::HOLD), Duration::from_millis(50)).await.unwrap_err();
        assert!(matches!(error, CallError::Deadline), "{error}");
        assert!(started.elapsed() >= Duration::from_millis(50));
        assert!(started.elapsed() < Duration::from_secs(5));
    }
    // Late replies reach nobody, least of all the slot's next user.
    let held = std::mem::take(&mut *served.echo.held.lock().unwrap());
    let next = conn.call_frame(ask(act::ECHO).with_meta(Bytes::from_static(b"mine")), SOON);
    for reply in held {
        reply.fail(Status::Stale, "late");
    }
    assert_eq!(next.await.unwrap().meta, "mine");
    assert_eq!(status_of(long.await), Status::Stale);
}

#[tokio::test]
async fn a_call_given_up_frees_its_slot() {
    let conn = serve().await.dial().await;
    for _ in 0..5000 {
        let call = conn.call_frame(ask(act::HOLD), SOON);
        tokio::pin!(call);
        assert!(futures_poll_once(call).await.is_none());
    }
    // 1024 are held over there by now, so that this one is refused there, not here.
    assert_eq!(status_of(conn.call_frame(ask(act::ECHO), SOON).await), Status::Overloaded);
}

async fn futures_poll_once<F: Future>(mut future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    std::future::poll_fn(|cx| {
        std::task::Poll::Ready(match future.as_mut().poll(cx) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

#[tokio::test]
async fn a_broken_connection_ends_all_calls_at_once() {
    let served = serve().await;
    let handler = Arc::new(Echo::default());
    let conn = served.dial_with(handler.clone()).await;
    let mut calls = JoinSet::new();
    for _ in 0..100 {
        let conn = conn.clone();
        calls.spawn(async move { conn.call_frame(ask(act::HOLD), Duration::from_secs(600)).await });
    }
    until(|| served.echo.held.lock().unwrap().len() == 100).await;
    let last = conn.call_frame(ask(act::CLOSE), Duration::from_secs(600)).await;
    assert!(matches!(last, Err(CallError::Closed)), "{last:?}");
    while let Some(result) = calls.join_next().await {
        assert!(matches!(result.unwrap(), Err(CallError::Closed)));
    }
    conn.wait_closed().await;
    assert!(conn.is_closed());
    until(|| handler.closed.load(Ordering::Relaxed) == 1).await;
    until(|| served.echo.closed.load(Ordering::Relaxed) == 1).await;
    assert!(matches!(conn.call_frame(ask(act::ECHO), SOON).await, Err(CallError::Closed)));
    assert!(matches!(conn.notify(ask(act::ECHO)), Err(CallError::Closed)));
}

#[tokio::test]
async fn closing_ends_our_own_calls() {
    let served = serve().await;
    let conn = served.dial().await;
    let call = tokio::spawn({
        let conn = conn.clone();
        async move { conn.call_frame(ask(act::HOLD), Duration::from_secs(600)).await }
    });
    until(|| served.echo.held.lock().unwrap().len() == 1).await;
    conn.close();
    assert!(matches!(call.await.unwrap(), Err(CallError::Closed)));
    until(|| served.echo.closed.load(Ordering::Relaxed) == 1).await;
}

#[tokio::test]
async fn a_panicking_handler_ends_its_connection_alone() {
    let served = serve().await;
    let (one, other) = (served.dial().await, served.dial().await);
    let result = one.call_frame(ask(act::PANIC), Duration::from_secs(600)).await;
    // The responder is dropped by the panic, and that answer may still get out.
    assert!(matches!(result, Err(CallError::Closed | CallError::Status(Status::Io, _))), "{result:?}");
    one.wait_closed().await;
    other.call_frame(ask(act::ECHO), SOON).await.unwrap();
}

#[tokio::test]
async fn too_many_requests_in_flight_are_refused() {
    let served = serve().await;
    let conn = served.dial().await;
    let mut held = JoinSet::new();
    for _ in 0..1024 {
        let conn = conn.clone();
        held.spawn(async move { conn.call_frame(ask(act::HOLD), SOON).await });
    }
    until(|| served.echo.held.lock().unwrap().len() == 1024).await;
    assert_eq!(status_of(conn.call_frame(ask(act::ECHO), SOON).await), Status::Overloaded);
    for reply in std::mem::take(&mut *served.echo.held.lock().unwrap()) {
        reply.fail(Status::Busy, "");
    }
    while let Some(result) = held.join_next().await {
        assert_eq!(status_of(result.unwrap()), Status::Busy);
    }
    conn.call_frame(ask(act::ECHO), SOON).await.unwrap();
}

#[tokio::test]
async fn a_one_way_request_is_served_and_not_answered() {
    let served = serve().await;
    let conn = served.dial().await;
    for act in [act::ECHO, act::DROP, act::FAIL] {
        conn.notify(ask(act)).unwrap();
    }
    conn.call_frame(ask(act::ECHO), SOON).await.unwrap();
    assert_eq!(served.echo.served.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn ping_is_answered_without_the_handler() {
    let served = serve().await;
    let conn = served.dial_with(Arc::new(CallsOnly)).await;
    conn.call_frame(Outgoing::new(Op::Ping), SOON).await.unwrap();
    let theirs = served.their_end().await;
    theirs.call_frame(Outgoing::new(Op::Ping), SOON).await.unwrap();
    assert_eq!(status_of(theirs.call_frame(ask(act::ECHO), SOON).await), Status::NotSupported);
    assert_eq!(served.echo.served.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_frame_over_the_limit_is_refused_here() {
    let conn = serve().await.dial().await;
    let out = ask(act::ECHO).with_payload(Bytes::from(vec![0; 2 << 20]));
    assert!(matches!(conn.call_frame(out, SOON).await, Err(CallError::TooLong(_))));
    let words = Words { word0: act::FILL, word2: 2 << 20, ..Words::default() };
    assert_eq!(status_of(conn.call_frame(ask(0).with_words(words), SOON).await), Status::Io);
}
