//! Recalls, writing without a grant, and the order in which things happen then.

use std::time::Duration;

use bytes::Bytes;
use dfs_client::{CacheState, Error, Patience, SetAttrs};
use dfs_proto::ids::GrantId;
use dfs_proto::meta::{Access, GrantKind, Recall, SetTime};
use dfs_proto::request::Op;
use dfs_proto::status::Status;
use dfs_proto::units::{ChunkIndex, Timespec};

use crate::fake::{FakeNet, Fault, WHO, pattern};
use crate::{RW, get, make, put};

fn grant_of(net: &FakeNet, file: &dfs_client::FileHandle) -> GrantId {
    net.world().master.files[&file.ino()].grant.unwrap().1.id
}

#[tokio::test(start_paused = true)]
async fn a_recall_writes_commits_invalidates_and_only_then_gives_back() {
    let net = FakeNet::new();
    let (client, kernel) = net.client_with(|_| ()).await;
    let file = make(&client, "a").await;
    assert!(file.cached() && !file.keep_cache());
    put(&client, &file, 0, &pattern(5000, 1)).await;
    net.take_log();
    let recall = Recall { ino: file.ino(), grant: grant_of(&net, &file) };
    net.notify(&recall);
    net.notify(&recall);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(kernel.invalidated.lock().unwrap().clone(), [(file.ino(), 2)]);
    assert_eq!(net.take_log(), [Op::Write, Op::Commit, Op::GrantBack]);
    assert_eq!(client.cache_state(file.ino()), CacheState::Shared);
    // From here on everything goes through.
    assert_eq!(client.try_write(&file, 0, b"x", false), None);
    put(&client, &file, 4999, &pattern(2, 9)).await;
    let log = net.take_log();
    assert_eq!(log[log.len() - 2..], [Op::Write, Op::Commit]);
    assert_eq!(net.world().master.files[&file.ino()].attr.size, 5001);
    assert_eq!(get(&client, &file, 4990, 100).await.len(), 11);
    assert_eq!(net.take_log(), [Op::MapRead, Op::Read]);
}

#[tokio::test(start_paused = true)]
async fn a_recall_is_answered_though_another_open_was_told_that_no_grant_stands() {
    let net = FakeNet::new();
    let maker = net.client().await;
    let made = make(&maker, "a").await;
    let ino = made.ino();
    net.world().master.files.get_mut(&ino).unwrap().grant = None;
    let (client, kernel) = net.client_with(|_| ()).await;
    let ro = Access { read: true, write: false };
    let file = client.open(ino, ro, false, WHO).await.unwrap();
    let grant = grant_of(&net, &file);
    // The master answers so while it has the grant recalled.
    net.world().master.shared = true;
    let second = client.open(ino, ro, false, WHO).await.unwrap();
    assert!(file.cached() && !second.cached());
    // A third waits for just that recall.
    net.fault(Op::Open, Fault::Slow(Duration::from_secs(5)));
    let (theirs, began) = (client.clone(), tokio::time::Instant::now());
    let third = tokio::spawn(async move { theirs.open(ino, RW, true, WHO).await.map(|_| ()) });
    tokio::time::sleep(Duration::from_millis(100)).await;
    net.notify(&Recall { ino, grant });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!third.is_finished() && began.elapsed() < Duration::from_secs(1));
    assert_eq!(net.world().master.given_back, [grant]);
    assert_eq!(kernel.invalidated.lock().unwrap().first().map(|(ino, _)| *ino), Some(ino));
    third.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_grant_on_its_way_back_is_not_taken_up_again() {
    let net = FakeNet::new();
    let client = net.client().await;
    let file = make(&client, "a").await;
    put(&client, &file, 0, &pattern(5000, 1)).await;
    // The message is lost with its connection: the master, which goes on, believes the grant held.
    net.fault(Op::GrantBack, Fault::LoseRequest);
    let grant = grant_of(&net, &file);
    net.notify(&Recall { ino: file.ino(), grant });
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(net.take_log().contains(&Op::ResumeSession));
    assert_eq!(net.world().master.given_back, [grant]);
    assert_eq!(client.cache_state(file.ino()), CacheState::Shared);
}

#[tokio::test(start_paused = true)]
async fn a_recall_of_what_is_not_held_is_answered() {
    let net = FakeNet::new();
    let client = net.client().await;
    let file = make(&client, "a").await;
    net.notify(&Recall { ino: file.ino(), grant: GrantId(7) });
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(net.world().master.given_back, [GrantId(7)]);
    assert!(matches!(client.cache_state(file.ino()), CacheState::Granted(_)));
}

#[tokio::test(start_paused = true)]
async fn appends_without_a_grant_go_to_the_end_that_the_master_knows() {
    let net = FakeNet::new();
    let client = net.client().await;
    net.world().master.shared = true;
    let file = make(&client, "a").await;
    assert!(!file.cached());
    let two = [Bytes::from_static(b"one."), Bytes::from_static(b"two.")];
    let (a, b) = tokio::join!(
        client.write(&file, 0, two[0].clone(), true),
        client.write(&file, 0, two[1].clone(), true)
    );
    assert_eq!((a, b), (Ok(4), Ok(4)));
    assert_eq!(get(&client, &file, 0, 100).await.len(), 8);
}

#[tokio::test(start_paused = true)]
async fn a_write_meets_a_truncation_by_another() {
    let net = FakeNet::new();
    let client = net.client().await;
    net.world().master.shared = true;
    let file = make(&client, "a").await;
    put(&client, &file, 0, &pattern(70_000, 2)).await;
    net.world().master.cut(file.ino(), 0);
    put(&client, &file, 10, &pattern(10, 3)).await;
    let bytes = get(&client, &file, 0, 100).await;
    assert_eq!(bytes, Bytes::from([vec![0; 10], pattern(10, 3).to_vec()].concat()));
}

#[tokio::test(start_paused = true)]
async fn a_place_from_before_a_truncation_is_forgotten_with_the_first_answer_from_after_it() {
    let net = FakeNet::new();
    let client = net.client().await;
    net.world().master.shared = true;
    let file = make(&client, "a").await;
    put(&client, &file, 0, &pattern(5000, 2)).await;
    net.world().master.cut(file.ino(), 0);
    client.fsync(&file, false).await.unwrap();
    net.take_log();
    put(&client, &file, 0, &pattern(10, 3)).await;
    assert_eq!(net.take_log(), [Op::MapWrite, Op::Write, Op::Commit]);
    assert_eq!(get(&client, &file, 0, 100).await, pattern(10, 3));
}

/// A write that is on all replicas, and whose size is long under way: another mount writes over it and cuts the file
/// behind both, and then this mount gets the file alone.
#[tokio::test(start_paused = true)]
async fn what_is_on_the_replicas_is_not_written_once_more_under_a_grant() {
    let net = FakeNet::new();
    let client = net.client().await;
    net.world().master.shared = true;
    let file = make(&client, "a").await;
    put(&client, &file, 0, &pattern(50_000, 1)).await;
    net.fault(Op::Commit, Fault::Slow(Duration::from_millis(100)));
    let theirs = pattern(4096, 9);
    let others = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        {
            let mut world = net.world();
            let chunk = world.master.files[&file.ino()].chunks[&ChunkIndex(0)];
            let bytes = world.servers.chunks.get_mut(&chunk).unwrap();
            assert_eq!(bytes[8192..12288], pattern(4096, 2), "the write is not on the replicas yet");
            bytes[8192..12288].copy_from_slice(&theirs);
            world.master.cut(file.ino(), 40_000);
            world.master.shared = false;
        }
        client.open(file.ino(), RW, false, WHO).await.unwrap()
    };
    let write = async {
        put(&client, &file, 8192, &pattern(4096, 2)).await;
    };
    let (granted, ()) = tokio::join!(others, write);
    assert!(granted.cached());
    client.flush(&granted).await.unwrap();
    assert!(get(&client, &granted, 8192, 4096).await == theirs, "the write came back");
    assert_eq!(net.world().master.files[&file.ino()].attr.size, 40_000);
}

/// The master loses the record of the chunk, and only then a program begins to write there.
#[tokio::test(start_paused = true)]
async fn a_write_to_a_chunk_that_the_master_forgot_is_repeated() {
    let net = FakeNet::new();
    let client = net.client().await;
    net.world().master.shared = true;
    let file = make(&client, "a").await;
    put(&client, &file, 0, &pattern(5000, 1)).await;
    {
        let mut world = net.world();
        let lost = world.master.files.get_mut(&file.ino()).unwrap();
        lost.chunks.clear();
        lost.attr.size = 0;
        world.master.tail_lost = true;
    }
    net.take_log();
    net.fault(Op::Commit, Fault::LoseRequest);
    put(&client, &file, 0, &pattern(6000, 2)).await;
    let log = net.take_log();
    assert_eq!(log.first(), Some(&Op::Write), "the place was not remembered");
    assert!(log.contains(&Op::ResumeSession), "{log:?}");
    assert!(get(&client, &file, 0, 9000).await == pattern(6000, 2), "the bytes are nowhere");
}

/// Bytes that could not be written before the grant had to go are lost, and are not written afterwards.
#[tokio::test(start_paused = true)]
async fn nothing_is_written_under_a_grant_that_was_given_back() {
    let net = FakeNet::new();
    let soft = |config: &mut dfs_client::Config| config.patience = Patience::Soft(Duration::from_secs(7));
    let client = net.client_with(soft).await.0;
    let file = make(&client, "a").await;
    put(&client, &file, 0, &pattern(5000, 1)).await;
    client.flush(&file).await.unwrap();
    for _ in 0..10_000 {
        net.fault(Op::Write, Fault::Answer(Status::Recovering));
    }
    put(&client, &file, 0, &pattern(5000, 2)).await;
    let flush = async { client.flush(&file).await };
    let rest = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        // Goes out when what is under way there has failed, with patience of its own.
        put(&client, &file, 0, &pattern(5000, 3)).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        net.notify(&Recall { ino: file.ino(), grant: grant_of(&net, &file) });
        let returned = || net.world().master.given_back.len();
        while returned() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        net.world().faults.clear();
        tokio::time::sleep(Duration::from_secs(20)).await;
    };
    let (flushed, ()) = tokio::join!(flush, rest);
    assert_eq!(flushed, Err(Error::TimedOut));
    assert_eq!(net.world().servers.applied, 1, "a write came after the grant");
    assert_eq!(client.fsync(&file, false).await, Err(Error::Io), "the second write is lost as well");
    assert_eq!(client.fsync(&file, false).await, Ok(()));
    assert!(get(&client, &file, 0, 9000).await == pattern(5000, 1));
    assert_eq!(client.memory_used(), 0);
}

#[tokio::test(start_paused = true)]
async fn times_that_a_program_sets_stay() {
    let net = FakeNet::new();
    let client = net.client().await;
    let file = make(&client, "a").await;
    put(&client, &file, 0, &pattern(10, 3)).await;
    let time = Timespec { sec: 5, nsec: 6 };
    let set = SetAttrs { mtime: Some(SetTime::At(time)), ..SetAttrs::default() };
    client.setattr(file.ino(), Some(&file), set, WHO).await.unwrap();
    client.flush(&file).await.unwrap();
    let attr = client.getattr(file.ino()).await.unwrap();
    assert_eq!((attr.mtime, attr.size), (time, 10));
}

#[tokio::test(start_paused = true)]
async fn what_is_set_on_a_file_being_made_goes_with_its_first_commit() {
    let net = FakeNet::new();
    let client = net.client().await;
    let file = make(&client, "a").await;
    put(&client, &file, 0, &pattern(10, 3)).await;
    let time = Timespec { sec: 5, nsec: 6 };
    let set = |set| client.setattr(file.ino(), None, set, WHO);
    let asked = || {
        let world = net.world();
        (world.master.setattrs, world.master.commits.len())
    };
    set(SetAttrs { mtime: Some(SetTime::At(time)), ..SetAttrs::default() }).await.unwrap();
    let wider = SetAttrs { mode: Some(0o755), ..SetAttrs::default() };
    let shown = set(wider).await.unwrap();
    assert_eq!((shown.mode, shown.mtime, shown.size), (0o755, time, 10));
    assert_eq!(asked(), (0, 0));
    client.flush(&file).await.unwrap();
    assert_eq!(asked(), (0, 1));
    let attr = client.getattr(file.ino()).await.unwrap();
    assert_eq!((attr.mode, attr.mtime, attr.size), (0o755, time, 10));
    // Made: from now on the master is asked at once.
    set(wider).await.unwrap();
    assert_eq!(asked(), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_mode_that_keeps_somebody_out_does_not_wait() {
    let net = FakeNet::new();
    let client = net.client().await;
    let file = make(&client, "a").await;
    let narrower = SetAttrs { mode: Some(0o600), ..SetAttrs::default() };
    client.setattr(file.ino(), None, narrower, WHO).await.unwrap();
    assert_eq!(net.world().master.setattrs, 1);
}

#[tokio::test(start_paused = true)]
async fn grants_of_closed_files_are_kept_up_to_a_bound() {
    let net = FakeNet::new();
    let client = net.client_with(|config| config.idle_grants = 2).await.0;
    let mut files = Vec::new();
    for name in ["a", "b", "c"] {
        let file = make(&client, name).await;
        put(&client, &file, 0, &pattern(10, 3)).await;
        client.flush(&file).await.unwrap();
        files.push(file);
    }
    let inos: Vec<_> = files.iter().map(|file| file.ino()).collect();
    for file in files {
        client.release(file);
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(net.world().master.given_back.len(), 1);
    let read = Access { read: true, write: false };
    let first = client.open(inos[0], read, false, WHO).await.unwrap();
    let third = client.open(inos[2], read, false, WHO).await.unwrap();
    assert!(!first.keep_cache() && third.keep_cache());
    assert_eq!(get(&client, &first, 0, 100).await, pattern(10, 3));
}

#[tokio::test(start_paused = true)]
async fn a_master_that_forgot_the_grant_gets_the_bytes_all_the_same() {
    let net = FakeNet::new();
    let (client, kernel) = net.client_with(|_| ()).await;
    let file = make(&client, "a").await;
    put(&client, &file, 0, &pattern(10, 3)).await;
    net.world().master.files.get_mut(&file.ino()).unwrap().grant = None;
    net.cut_links();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(client.cache_state(file.ino()), CacheState::Shared);
    assert_eq!(kernel.invalidated.lock().unwrap().len(), 1);
    assert_eq!(net.world().master.files[&file.ino()].attr.size, 10);
    assert_eq!(client.flush(&file).await, Ok(()));
    let again = client.open(file.ino(), RW, false, WHO).await.unwrap();
    assert!(again.cached());
    assert_eq!(net.world().master.files[&file.ino()].grant.unwrap().1.kind, GrantKind::Write);
}

#[tokio::test(start_paused = true)]
async fn a_silent_session_is_kept_alive_and_a_long_writer_commits() {
    let net = FakeNet::new();
    let client = net.client().await;
    let file = make(&client, "a").await;
    put(&client, &file, 0, &pattern(10, 3)).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(net.world().master.files[&file.ino()].attr.size, 10);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(net.world().log.iter().filter(|op| **op == Op::KeepAlive).count() >= 11);
    assert!(matches!(client.cache_state(file.ino()), CacheState::Granted(_)));
}

#[tokio::test(start_paused = true)]
async fn what_is_written_behind_a_cut_is_committed_however_long_the_file_was() {
    let net = FakeNet::new();
    let client = net.client().await;
    let file = make(&client, "a").await;
    let chunk = u64::from(crate::fake::CHUNK);
    put(&client, &file, 2 * chunk, &pattern(100, 1)).await;
    client.flush(&file).await.unwrap();
    // By an open of the same mount that truncates, whose answer is still on its way.
    net.world().master.cut(file.ino(), 0);
    put(&client, &file, chunk, &pattern(100, 2)).await;
    client.flush(&file).await.unwrap();
    assert_eq!(net.world().master.files[&file.ino()].attr.size, chunk + 100);
}
