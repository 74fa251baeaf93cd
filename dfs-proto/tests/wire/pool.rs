//! The pool: one connection per address, one dial at a time, and rest after failures.

use std::sync::Arc;
use std::time::Duration;

use dfs_proto::conn::{CallsOnly, ConnError, PeerAddr, Pool};
use tokio::task::JoinSet;

use crate::support::{SOON, hello, serve, serve_at, until};

fn pool() -> Arc<Pool> {
    Arc::new(Pool::new(hello(), Arc::new(CallsOnly), SOON))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_who_ask_share_one_dial() {
    let served = serve().await;
    let pool = pool();
    assert!(pool.live(&served.addr).is_none());
    let mut asking = JoinSet::new();
    for _ in 0..50 {
        let (pool, addr) = (Arc::clone(&pool), served.addr.clone());
        asking.spawn(async move { pool.get(&addr).await.unwrap().id() });
    }
    let ids: std::collections::BTreeSet<u64> = asking.join_all().await.into_iter().collect();
    assert_eq!(ids.len(), 1);
    until(|| served.echo.opened.lock().unwrap().len() == 1).await;
    assert!(pool.live(&served.addr).is_some());
}

#[tokio::test]
async fn a_dead_connection_is_replaced() {
    let served = serve().await;
    let pool = pool();
    let first = pool.get(&served.addr).await.unwrap();
    served.their_end().await.close();
    first.wait_closed().await;
    let second = pool.get(&served.addr).await.unwrap();
    assert_ne!(first.id(), second.id());
    pool.forget(&served.addr);
    assert!(second.is_closed());
    let third = pool.get(&served.addr).await.unwrap();
    pool.close_all();
    assert!(third.is_closed());
}

#[tokio::test]
async fn a_failing_address_rests_and_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let addr = PeerAddr::Unix(path.clone());
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let pool = pool();
    assert!(pool.get(&addr).await.unwrap_err().proves_death());
    let error = pool.get(&addr).await.unwrap_err();
    assert!(matches!(error, ConnError::BackedOff { .. }), "{error}");
    assert!(!error.proves_death(), "what was true a moment ago proves nothing now");

    let served = serve_at(&addr).await;
    for _ in 0..100 {
        match pool.get(&addr).await {
            Ok(_) => break,
            Err(ConnError::BackedOff { retry_in, .. }) => {
                assert!(retry_in <= Duration::from_secs(1));
                tokio::time::sleep(retry_in).await;
            }
            Err(other) => panic!("{other}"),
        }
    }
    until(|| served.echo.opened.lock().unwrap().len() == 1).await;
}

#[tokio::test]
async fn a_dial_given_up_still_teaches_the_next_caller() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = PeerAddr::Tcp(silent.local_addr().unwrap());
    let pool = Pool::new(hello(), Arc::new(CallsOnly), Duration::from_millis(100));
    assert!(tokio::time::timeout(Duration::from_millis(20), pool.get(&addr)).await.is_err());
    let error = pool.get(&addr).await.unwrap_err();
    assert!(matches!(error, ConnError::TimedOut { .. }), "{error}");
    let error = pool.get(&addr).await.unwrap_err();
    assert!(matches!(error, ConnError::BackedOff { .. }), "{error}");
}
