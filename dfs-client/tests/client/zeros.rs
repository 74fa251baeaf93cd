//! Zeros and growth: what is sent of them, and what they do to what is buffered.

use std::time::Duration;

use dfs_client::Error;
use dfs_proto::meta::Recall;
use dfs_proto::request::Op;
use dfs_proto::status::Status;

use crate::fake::{CHUNK, FakeNet, Fault, pattern};
use crate::{get, make, put};

#[tokio::test(start_paused = true)]
async fn zeros_take_one_write_a_chunk_and_none_where_there_is_no_chunk() {
    let net = FakeNet::new();
    let client = net.client().await;
    let file = make(&client, "a").await;
    let chunk = u64::from(CHUNK);
    put(&client, &file, 0, &pattern(3 * CHUNK as usize, 1)).await;
    // A chunk's worth of hole behind them, and one chunk more.
    put(&client, &file, 4 * chunk, &pattern(100, 2)).await;
    client.flush(&file).await.unwrap();
    net.take_log();
    client.punch(&file, 10, 4 * chunk).await.unwrap();
    let log = net.take_log();
    let writes = log.iter().filter(|op| **op == Op::Write).count();
    // The three in the middle are holes now, whole.
    assert_eq!((log[0], writes, log.len()), (Op::MapRead, 4, 6), "{log:?}");
    assert_eq!((log[5], net.world().dropped), (Op::DropHoles, 2));
    assert_eq!(net.world().master.files[&file.ino()].attr.size, 4 * chunk + 100);
    let bytes = get(&client, &file, 0, 1 << 20).await;
    assert_eq!(bytes.len() as u64, 4 * chunk + 100);
    assert!(bytes[..10] == pattern(10, 1)[..] && bytes[10..4 * CHUNK as usize + 10].iter().all(|b| *b == 0));
    assert_eq!(bytes[4 * CHUNK as usize + 10..], pattern(100, 2)[10..]);
}

#[tokio::test(start_paused = true)]
async fn zeros_over_buffered_bytes_leave_nothing_to_write_and_the_size() {
    let net = FakeNet::new();
    let client = net.client().await;
    let file = make(&client, "a").await;
    put(&client, &file, 0, &pattern(5000, 1)).await;
    net.take_log();
    client.punch(&file, 1000, 1 << 40).await.unwrap();
    assert_eq!(net.take_log(), [Op::MapRead, Op::Write]);
    assert_eq!(get(&client, &file, 0, 1 << 20).await.len(), 5000);
    net.take_log();
    client.flush(&file).await.unwrap();
    assert_eq!(net.take_log(), [Op::Write, Op::Commit]);
    {
        let world = net.world();
        let stored = world.servers.chunks.values().map(Vec::len).sum::<usize>();
        assert_eq!((stored, world.master.files[&file.ino()].attr.size), (4096, 5000), "the first 1000 bytes");
    }
    let again = client.open(file.ino(), crate::RW, false, crate::fake::WHO).await.unwrap();
    let bytes = get(&client, &again, 0, 1 << 20).await;
    assert!(bytes[..1000] == pattern(1000, 1)[..] && bytes[1000..].iter().all(|b| *b == 0));
}

#[tokio::test(start_paused = true)]
async fn a_chunk_that_is_dropped_is_written_again_as_another() {
    let net = FakeNet::new();
    let client = net.client().await;
    let file = make(&client, "a").await;
    let chunk = u64::from(CHUNK);
    put(&client, &file, 0, &pattern(2 * CHUNK as usize, 1)).await;
    client.flush(&file).await.unwrap();
    // Some of it only in the buffer, and the file's last chunk not full.
    put(&client, &file, 2 * chunk, &pattern(100, 2)).await;
    client.fsync(&file, false).await.unwrap();
    put(&client, &file, chunk + 5, &pattern(100, 3)).await;
    client.punch(&file, chunk, chunk + 100).await.unwrap();
    assert_eq!(net.world().dropped, 2);
    assert_eq!(client.getattr(file.ino()).await.unwrap().blocks, chunk / 512);
    assert!(get(&client, &file, chunk, 1 << 20).await.iter().all(|byte| *byte == 0));
    net.take_log();
    put(&client, &file, chunk + 50, &pattern(100, 4)).await;
    client.fsync(&file, false).await.unwrap();
    let log = net.take_log();
    assert_eq!(log.iter().filter(|op| **op == Op::Write).count(), 1, "the old place is not tried: {log:?}");
    let bytes = get(&client, &file, chunk, 1 << 20).await;
    assert!(bytes.len() as u64 == chunk + 100 && bytes[50..150] == pattern(100, 4)[..]);
    assert!(bytes[..50].iter().chain(&bytes[150..]).all(|byte| *byte == 0));
}

#[tokio::test(start_paused = true)]
async fn a_chunk_that_a_write_is_still_repeated_to_is_not_dropped() {
    let net = FakeNet::new();
    let client = net.client().await;
    net.world().master.shared = true;
    let file = make(&client, "a").await;
    put(&client, &file, 0, &pattern(9000, 1)).await;
    // It goes through without a grant, is applied, and its answer is long in coming.
    net.fault(Op::Write, Fault::Slow(Duration::from_secs(1)));
    let write = client.write(&file, 0, pattern(4096, 2), false);
    let (written, ()) = tokio::join!(write, async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        net.world().master.shared = false;
        // An open that brings the write grant.
        let again = client.open(file.ino(), crate::RW, false, crate::fake::WHO).await.unwrap();
        client.punch(&again, 0, u64::from(CHUNK)).await.unwrap();
        assert_eq!(net.world().dropped, 0);
    });
    written.unwrap();
    client.punch(&file, 0, u64::from(CHUNK)).await.unwrap();
    assert_eq!(net.world().dropped, 1);
}

#[tokio::test(start_paused = true)]
async fn refused_zeros_lose_nothing() {
    let net = FakeNet::new();
    let client = net.client().await;
    let file = make(&client, "a").await;
    put(&client, &file, 0, &pattern(CHUNK as usize, 1)).await;
    client.flush(&file).await.unwrap();
    put(&client, &file, 100, &pattern(100, 7)).await;
    net.fault(Op::Write, Fault::Answer(Status::NoSpace));
    assert_eq!(client.punch(&file, 50, 1000).await, Err(Error::NoSpace));
    assert_eq!(get(&client, &file, 100, 100).await, pattern(100, 7));
    client.flush(&file).await.unwrap();
    assert_eq!(get(&client, &file, 100, 100).await, pattern(100, 7));
}

#[tokio::test(start_paused = true)]
async fn without_a_grant_zeros_and_growth_are_committed_before_they_return() {
    let net = FakeNet::new();
    let client = net.client().await;
    net.world().master.shared = true;
    let file = make(&client, "a").await;
    put(&client, &file, 0, &pattern(9000, 1)).await;
    let before = net.world().master.files[&file.ino()].attr.mtime;
    tokio::time::sleep(Duration::from_secs(1)).await;
    net.take_log();
    client.punch(&file, 0, 4096).await.unwrap();
    assert_eq!(net.take_log(), [Op::MapRead, Op::Write, Op::Commit], "and no chunk is dropped");
    let attr = net.world().master.files[&file.ino()].attr;
    assert!(attr.mtime > before && attr.size == 9000);
    // Cut meanwhile: what is to be long is long all the same, and the cut bytes stay cut.
    net.world().master.cut(file.ino(), 10);
    client.extend(&file, 20_000).await.unwrap();
    client.extend(&file, 5).await.unwrap();
    assert_eq!(net.world().master.files[&file.ino()].attr.size, 20_000);
}

#[tokio::test(start_paused = true)]
async fn a_recall_waits_for_zeros_under_way() {
    let net = FakeNet::new();
    let client = net.client().await;
    let file = make(&client, "a").await;
    put(&client, &file, 0, &pattern(9000, 1)).await;
    client.flush(&file).await.unwrap();
    net.take_log();
    net.fault(Op::Write, Fault::Slow(Duration::from_millis(200)));
    let grant = net.world().master.files[&file.ino()].grant.unwrap().1.id;
    let (punched, ()) = tokio::join!(client.punch(&file, 0, 5000), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        net.notify(&Recall { ino: file.ino(), grant });
    });
    punched.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let log = net.take_log();
    let at = |op| log.iter().position(|logged| *logged == op);
    assert!(at(Op::Write) < at(Op::Commit) && at(Op::Commit) < at(Op::GrantBack), "{log:?}");
    assert!(at(Op::GrantBack).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_place_from_before_a_truncation_is_not_where_zeros_go() {
    let net = FakeNet::new();
    let (one, two) = (net.client().await, net.client().await);
    net.world().master.shared = true;
    let file = make(&one, "a").await;
    put(&one, &file, 0, &pattern(9000, 1)).await;
    let there = two.open(file.ino(), crate::RW, false, crate::fake::WHO).await.unwrap();
    net.world().master.cut(file.ino(), 0);
    put(&two, &there, 0, &pattern(9000, 2)).await;
    // It has heard of the truncation, and what it remembers is another chunk than the map names.
    one.getattr(file.ino()).await.unwrap();
    one.punch(&file, 0, 5000).await.unwrap();
    assert!(get(&two, &there, 0, 5000).await.iter().all(|b| *b == 0));
    assert_eq!(get(&two, &there, 5000, 4000).await, pattern(9000, 2)[5000..]);
}

#[tokio::test(start_paused = true)]
async fn zeros_for_a_chunk_that_is_truncated_away_make_none() {
    let net = FakeNet::new();
    let (one, two) = (net.client().await, net.client().await);
    net.world().master.shared = true;
    let file = make(&one, "a").await;
    // The second chunk: an open tells the place of the first.
    put(&one, &file, u64::from(CHUNK), &pattern(9000, 1)).await;
    let there = two.open(file.ino(), crate::RW, false, crate::fake::WHO).await.unwrap();
    net.fault(Op::MapWrite, Fault::Slow(Duration::from_millis(50)));
    let (punched, ()) = tokio::join!(two.punch(&there, u64::from(CHUNK), 5000), async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        net.world().master.cut(file.ino(), 0);
    });
    punched.unwrap();
    assert_eq!(net.world().faults.values().map(|faults| faults.len()).sum::<usize>(), 0);
    assert!(net.world().master.files[&file.ino()].chunks.is_empty(), "a chunk that nobody writes");
}
