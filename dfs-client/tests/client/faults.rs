//! What programs see when something fails.

use std::time::Duration;

use bytes::Bytes;
use dfs_client::{Error, Patience};
use dfs_proto::ids::{ChunkVersion, Ino, ServerNum};
use dfs_proto::request::Op;
use dfs_proto::status::Status;

use crate::fake::{CHUNK, FakeNet, Fault, WHO, pattern};
use crate::{RW, get, make, put};

#[tokio::test(start_paused = true)]
async fn a_write_whose_answer_was_lost_takes_effect_once() {
    let net = FakeNet::new();
    let client = net.client().await;
    let file = make(&client, "a").await;
    net.fault(Op::Write, Fault::LoseReply);
    net.fault(Op::Write, Fault::LoseReply);
    put(&client, &file, 0, &pattern(500, 1)).await;
    client.flush(&file).await.unwrap();
    let world = net.world();
    assert_eq!((world.servers.applied, world.servers.repeated), (1, 2));
    assert!(world.log.contains(&Op::MapWrite) && world.log.contains(&Op::Suspect));
}

#[tokio::test(start_paused = true)]
async fn a_create_whose_answer_was_lost_takes_effect_once() {
    let net = FakeNet::new();
    let client = net.client().await;
    net.take_log();
    net.fault(Op::Create, Fault::LoseReply);
    net.fault(Op::Create, Fault::LoseRequest);
    let made = client.create(Ino::ROOT, b"a", 0o600, RW, true, false, WHO).await;
    assert!(made.is_ok(), "{made:?}");
    assert_eq!(net.world().master.files.len(), 1);
    let log = net.take_log();
    assert_eq!(log, [Op::Create, Op::ResumeSession, Op::ResumeSession, Op::Create]);
}

#[tokio::test(start_paused = true)]
async fn a_commit_overtaken_by_a_truncating_open_takes_nothing_of_what_came_after() {
    let net = FakeNet::new();
    let client = net.client().await;
    let a = make(&client, "a").await;
    put(&client, &a, 0, &pattern(9000, 1)).await;
    client.flush(&a).await.unwrap();
    // It brings a time and no size, so the open need not wait for it.
    put(&client, &a, 0, &pattern(10, 2)).await;
    net.fault(Op::Commit, Fault::Slow(Duration::from_millis(50)));
    net.fault(Op::Getattr, Fault::Slow(Duration::from_millis(50)));
    let (theirs, flushed) = (client.clone(), a.clone());
    let flush = tokio::spawn(async move { theirs.flush(&flushed).await });
    tokio::time::sleep(Duration::from_millis(10)).await;
    let b = client.open(a.ino(), RW, true, WHO).await.unwrap();
    put(&client, &b, 0, &pattern(5000, 3)).await;
    client.flush(&b).await.unwrap();
    flush.await.unwrap().unwrap();
    let attr = net.world().master.files[&a.ino()].attr;
    assert_eq!((attr.size, attr.size_epoch.0), (5000, 1));
    assert_eq!(
        net.take_log().iter().filter(|op| **op == Op::Getattr).count(),
        1,
        "the commit was not overtaken"
    );
    assert_eq!(get(&client, &b, 0, 9000).await, pattern(5000, 3));
}

#[tokio::test(start_paused = true)]
async fn a_place_that_a_truncation_overtook_is_not_written_at() {
    let net = FakeNet::new();
    let client = net.client().await;
    let a = make(&client, "a").await;
    put(&client, &a, 0, &pattern(9000, 1)).await;
    client.flush(&a).await.unwrap();
    net.fault(Op::Open, Fault::LateReply(Duration::from_millis(50)));
    let (theirs, ino) = (client.clone(), a.ino());
    let late = tokio::spawn(async move { theirs.open(ino, RW, false, WHO).await.map(|_| ()) });
    tokio::time::sleep(Duration::from_millis(10)).await;
    let b = client.open(ino, RW, true, WHO).await.unwrap();
    assert!(!late.is_finished(), "the open was not overtaken");
    late.await.unwrap().unwrap();
    put(&client, &b, 0, &pattern(5000, 3)).await;
    client.flush(&b).await.unwrap();
    assert_eq!(net.world().master.files[&ino].attr.size, 5000);
    assert_eq!(get(&client, &b, 0, 9000).await, pattern(5000, 3));
}

#[tokio::test(start_paused = true)]
async fn what_another_open_writes_under_a_truncating_one_is_before_it_or_after_it() {
    let net = FakeNet::new();
    let maker = net.client().await;
    let ino = make(&maker, "a").await.ino();
    let client = net.client().await;
    net.fault(Op::Open, Fault::LateReply(Duration::from_millis(50)));
    let theirs = client.clone();
    let cutting = tokio::spawn(async move { theirs.open(ino, RW, true, WHO).await });
    tokio::time::sleep(Duration::from_millis(10)).await;
    let a = client.open(ino, RW, false, WHO).await.unwrap();
    // A whole window, which leaves at once and is long under way.
    net.fault(Op::Write, Fault::Slow(Duration::from_millis(100)));
    put(&client, &a, 0, &pattern(CHUNK as usize, 1)).await;
    assert!(!cutting.is_finished(), "the open was not overtaken");
    let b = cutting.await.unwrap().unwrap();
    put(&client, &b, 0, &pattern(5000, 3)).await;
    client.flush(&b).await.unwrap();
    client.flush(&a).await.unwrap();
    assert_eq!(net.world().master.files[&ino].attr.size, 5000);
    assert_eq!(get(&client, &b, 0, 9000).await, pattern(5000, 3));
}

#[tokio::test(start_paused = true)]
async fn refusals_that_pass_are_waited_for() {
    let net = FakeNet::new();
    let client = net.client().await;
    for status in [Status::Recalling, Status::Recovering, Status::NoServers, Status::Overloaded] {
        net.fault(Op::Create, Fault::Answer(status));
    }
    let file = make(&client, "a").await;
    for status in [Status::Recovering, Status::NotServing, Status::Overloaded, Status::WrongChunkVersion] {
        net.fault(Op::Write, Fault::Answer(status));
    }
    put(&client, &file, 0, &pattern(10, 1)).await;
    client.flush(&file).await.unwrap();
    net.fault(Op::Create, Fault::Answer(Status::Exists));
    let refused = client.create(Ino::ROOT, b"b", 0, RW, true, false, WHO).await;
    assert_eq!(refused.map(|_| ()), Err(Error::Exists));
}

#[tokio::test(start_paused = true)]
async fn a_lost_write_is_reported_once_by_every_handle() {
    let net = FakeNet::new();
    let client = net.client().await;
    let a = make(&client, "a").await;
    let b = client.open(a.ino(), RW, false, WHO).await.unwrap();
    net.fault(Op::Write, Fault::Answer(Status::NoSpace));
    put(&client, &a, 0, &pattern(10, 1)).await;
    assert_eq!(client.flush(&a).await, Err(Error::NoSpace), "the close of a copy of the descriptor");
    assert_eq!(client.fsync(&a, false).await, Err(Error::NoSpace));
    assert_eq!(client.fsync(&a, false).await, Ok(()));
    assert_eq!(client.flush(&a).await, Ok(()));
    assert_eq!(client.try_write(&b, 0, b"x", false), Some(Err(Error::NoSpace)));
    assert_eq!(client.try_write(&b, 0, b"x", false), Some(Ok(1)));
    let late = client.open(a.ino(), RW, false, WHO).await.unwrap();
    assert_eq!(client.flush(&late).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn what_the_last_close_said_is_not_said_to_who_opens_next() {
    let net = FakeNet::new();
    let client = net.client().await;
    let a = make(&client, "a").await;
    let ino = a.ino();
    net.fault(Op::Write, Fault::Answer(Status::NoSpace));
    put(&client, &a, 0, &pattern(10, 1)).await;
    assert_eq!(client.flush(&a).await, Err(Error::NoSpace));
    let between = client.open(ino, RW, false, WHO).await.unwrap();
    assert_eq!(
        client.fsync(&between, false).await,
        Err(Error::NoSpace),
        "that close may be of one copy of two"
    );
    client.release(between);
    client.release(a);
    let next = client.open(ino, RW, false, WHO).await.unwrap();
    assert_eq!(client.fsync(&next, false).await, Ok(()));
    net.fault(Op::Write, Fault::Answer(Status::NoSpace));
    put(&client, &next, 0, &pattern(10, 1)).await;
    assert_eq!(client.flush(&next).await, Err(Error::NoSpace));
    client.release(next);
    let last = client.open(ino, RW, false, WHO).await.unwrap();
    assert_eq!(client.fsync(&last, false).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn an_evicted_session_loses_its_files_and_says_so() {
    let net = FakeNet::new();
    let (client, kernel) = net.client_with(|_| ()).await;
    let clean = make(&client, "clean").await;
    let dirty = make(&client, "dirty").await;
    let other = client.open(dirty.ino(), RW, false, WHO).await.unwrap();
    assert_eq!(client.try_write(&dirty, 0, b"buffered", false), Some(Ok(8)));
    net.world().master.end_sessions();
    net.cut_links();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(client.write(&dirty, 0, Bytes::from_static(b"x"), false).await, Err(Error::Io));
    assert_eq!(client.write(&dirty, 0, Bytes::from_static(b"x"), false).await, Err(Error::Stale));
    assert_eq!(client.fsync(&other, false).await, Err(Error::Io));
    assert_eq!(client.flush(&other).await, Ok(()));
    assert_eq!(client.flush(&clean).await, Ok(()));
    assert_eq!(client.read(&clean, 0, 1).await, Err(Error::Stale));
    assert_eq!(kernel.invalidated.lock().unwrap().len(), 2);
    let again = client.open(dirty.ino(), RW, false, WHO).await.unwrap();
    put(&client, &again, 0, &pattern(10, 1)).await;
    client.flush(&again).await.unwrap();
    assert_eq!(get(&client, &again, 0, 10).await, pattern(10, 1));
}

/// How many closes the master heard of, and of which files writes may still take effect.
fn heard(net: &FakeNet) -> (usize, Vec<Ino>) {
    let world = net.world();
    (world.master.releases, world.master.unsettled.clone())
}

#[tokio::test(start_paused = true)]
async fn the_master_hears_of_writes_that_were_given_up() {
    let net = FakeNet::new();
    let soft = net.client_with(|config| config.patience = Patience::Soft(Duration::from_secs(7))).await.0;
    let fine = make(&soft, "fine").await;
    put(&soft, &fine, 0, &pattern(10, 1)).await;
    soft.flush(&fine).await.unwrap();
    let file = make(&soft, "a").await;
    let ino = file.ino();
    put(&soft, &file, 0, &pattern(10, 1)).await;
    for _ in 0..20 {
        net.fault(Op::Write, Fault::LateReply(Duration::from_secs(60)));
    }
    assert_eq!(soft.flush(&file).await, Err(Error::TimedOut));
    net.world().faults.clear();
    soft.release(fine);
    soft.release(file);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(heard(&net), (2, vec![ino]));
    // Once is enough, until the next.
    let again = soft.open(ino, RW, false, WHO).await.unwrap();
    put(&soft, &again, 0, &pattern(10, 1)).await;
    soft.flush(&again).await.unwrap();
    soft.release(again);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(heard(&net), (3, vec![ino]));
}

#[tokio::test(start_paused = true)]
async fn soft_mounts_give_up_and_hard_ones_wait() {
    let net = FakeNet::new();
    let soft = net.client_with(|config| config.patience = Patience::Soft(Duration::from_secs(7))).await.0;
    let hard = net.client().await;
    net.world().master_down = true;
    net.cut_links();
    let start = tokio::time::Instant::now();
    assert_eq!(soft.lookup(Ino::ROOT, b"x", WHO).await.map(|_| ()), Err(Error::TimedOut));
    assert_eq!((tokio::time::Instant::now() - start).as_secs(), 7);
    let waiting = tokio::spawn(async move { hard.lookup(Ino::ROOT, b"x", WHO).await.map(|_| ()) });
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert!(!waiting.is_finished());
    net.world().master_down = false;
    assert_eq!(waiting.await.unwrap(), Err(Error::NotFound));
}

#[tokio::test(start_paused = true)]
async fn reads_that_may_be_old_or_are_spoiled_are_made_elsewhere() {
    let net = FakeNet::new();
    let client = net.client().await;
    let file = make(&client, "a").await;
    let data = pattern(5000, 4);
    put(&client, &file, 0, &data).await;
    client.flush(&file).await.unwrap();
    // So that the master's clock shows more than the stale server's stamps lie behind.
    tokio::time::sleep(Duration::from_secs(10)).await;
    net.world().servers.stale.insert(ServerNum(1), 6_500);
    net.world().servers.reads.clear();
    for _ in 0..8 {
        assert_eq!(get(&client, &file, 100, 300).await, data.slice(100..400));
        let again = client.open(file.ino(), RW, false, WHO).await.unwrap();
        assert_eq!(get(&client, &again, 4000, 9000).await, data.slice(4000..));
    }
    assert!(net.world().servers.reads.contains_key(&ServerNum(1)), "the stale server was never asked");
    net.world().servers.stale.clear();
    net.fault(
        Op::Read,
        Fault::Spoil(|reply| {
            let mut bytes = reply.payload.parts().concat();
            bytes[7] ^= 1;
            reply.payload = Bytes::from(bytes).into();
        }),
    );
    for status in [Status::NotServing, Status::Redirect, Status::Corrupt, Status::Recovering] {
        net.fault(Op::Read, Fault::Answer(status));
    }
    net.fault(Op::Read, Fault::Unreachable { dead: true });
    assert_eq!(get(&client, &file, 0, 5000).await, data);
}

#[tokio::test(start_paused = true)]
async fn a_new_version_is_asked_for() {
    let net = FakeNet::new();
    let client = net.client().await;
    let file = make(&client, "a").await;
    put(&client, &file, 0, &pattern(5000, 4)).await;
    client.flush(&file).await.unwrap();
    {
        let mut world = net.world();
        let world = &mut *world;
        for (chunk, version) in &mut world.master.versions {
            *version = ChunkVersion(2);
            world.servers.versions.insert(*chunk, ChunkVersion(2));
        }
    }
    assert_eq!(get(&client, &file, 0, 5000).await, pattern(5000, 4));
    put(&client, &file, 10, &pattern(10, 7)).await;
    client.fsync(&file, false).await.unwrap();
    assert_eq!(get(&client, &file, 10, 10).await, pattern(10, 7));
}

#[tokio::test(start_paused = true)]
async fn groups_are_told_when_they_matter() {
    let net = FakeNet::new();
    let client = net.client().await;
    make(&client, "a").await;
    net.world().master.want_groups = true;
    net.take_log();
    assert!(client.lookup(Ino::ROOT, b"a", WHO).await.is_ok());
    assert_eq!(net.take_log(), [Op::Lookup, Op::Lookup]);
}

#[tokio::test(start_paused = true)]
async fn shutdown_writes_back_and_says_goodbye() {
    let net = FakeNet::new();
    let client = net.client().await;
    let file = make(&client, "a").await;
    put(&client, &file, 0, &pattern(10, 1)).await;
    net.take_log();
    client.shutdown(Duration::from_secs(5)).await.unwrap();
    assert_eq!(net.take_log(), [Op::Write, Op::Commit, Op::CloseSession]);
    assert_eq!(client.getattr(file.ino()).await, Err(Error::Io));
}

/// The chunks' versions go on, as after a recovery without the silent server.
fn recover(net: &FakeNet) {
    let mut world = net.world();
    let world = &mut *world;
    for (chunk, version) in &mut world.master.versions {
        *version = ChunkVersion(version.0 + 1);
        world.servers.versions.insert(*chunk, *version);
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_given_up_once_the_chunk_went_on() {
    let net = FakeNet::new();
    let client = net.client().await;
    let file = make(&client, "a").await;
    put(&client, &file, 0, &pattern(5000, 1)).await;
    client.fsync(&file, false).await.unwrap();
    for op in [Op::Write, Op::Sync] {
        put(&client, &file, 0, &pattern(5000, 2)).await;
        if op == Op::Sync {
            client.flush(&file).await.unwrap();
        }
        let applied = net.world().servers.applied;
        net.fault(op, Fault::Slow(Duration::from_secs(60)));
        let start = tokio::time::Instant::now();
        let synced = async { client.fsync(&file, false).await.unwrap() };
        let recovered = async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            // Asked all the while, and nobody was blamed.
            let log = net.take_log();
            assert!(log.iter().filter(|op| **op == Op::MapWrite).count() >= 4, "{log:?}");
            recover(&net);
        };
        tokio::join!(synced, recovered);
        let took = tokio::time::Instant::now() - start;
        assert!(took < Duration::from_secs(4), "{op:?}: {took:?}");
        let world = net.world();
        assert_eq!(world.servers.applied - applied, usize::from(op == Op::Write));
        assert!(!world.log.contains(&Op::Suspect));
    }
    assert_eq!(get(&client, &file, 0, 5000).await, pattern(5000, 2));
}

#[tokio::test(start_paused = true)]
async fn a_slow_server_that_still_serves_may_answer_late() {
    let net = FakeNet::new();
    let client = net.client().await;
    let file = make(&client, "a").await;
    net.fault(Op::Write, Fault::Slow(Duration::from_secs(4)));
    put(&client, &file, 0, &pattern(500, 1)).await;
    client.flush(&file).await.unwrap();
    let world = net.world();
    assert_eq!((world.servers.applied, world.servers.repeated), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_read_does_not_wait_for_a_silent_server() {
    let net = FakeNet::new();
    let client = net.client().await;
    let file = make(&client, "a").await;
    put(&client, &file, 0, &pattern(5000, 1)).await;
    client.flush(&file).await.unwrap();
    net.fault(Op::Read, Fault::Slow(Duration::from_secs(60)));
    let start = tokio::time::Instant::now();
    assert_eq!(get(&client, &file, 0, 5000).await, pattern(5000, 1));
    assert!(tokio::time::Instant::now() - start < Duration::from_millis(500));
    // A second one that may not say what it has leaves it to the first.
    net.fault(Op::Read, Fault::Slow(Duration::from_secs(1)));
    net.fault(Op::Read, Fault::Answer(Status::Redirect));
    net.fault(Op::Read, Fault::Answer(Status::Redirect));
    let again = client.open(file.ino(), RW, false, WHO).await.unwrap();
    assert_eq!(get(&client, &again, 100, 300).await, pattern(5000, 1).slice(100..400));
}
