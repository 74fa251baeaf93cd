//! What operations cost in requests.

use std::time::Duration;

use bytes::Bytes;
use dfs_client::{CacheState, SetAttrs};
use dfs_proto::ids::Ino;
use dfs_proto::meta::{Access, SetTime};
use dfs_proto::request::Op;
use dfs_proto::units::Timespec;

use crate::fake::{CHUNK, FakeNet, WHO, pattern};
use crate::{RW, get, make, put};

#[tokio::test(start_paused = true)]
async fn a_small_file_costs_three_round_trips() {
    let net = FakeNet::new();
    let client = net.client().await;
    net.take_log();
    let file = make(&client, "a").await;
    assert_eq!(client.try_write(&file, 0, b"hello", false), Some(Ok(5)));
    assert_eq!(client.try_flush(&file), None);
    client.flush(&file).await.unwrap();
    assert_eq!(client.try_flush(&file), Some(Ok(())));
    client.release(file);
    assert_eq!(net.take_log(), [Op::Create, Op::Write, Op::Commit]);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(net.take_log(), [Op::Release]);
    assert_eq!(net.world().master.releases, 1);
}

#[tokio::test(start_paused = true)]
async fn a_copied_file_is_on_its_way_before_its_close() {
    let net = FakeNet::new();
    let client = net.client().await;
    let file = make(&client, "a").await;
    net.take_log();
    put(&client, &file, 0, &pattern(10, 3)).await;
    let time = SetTime::At(Timespec { sec: 5, nsec: 6 });
    let set = SetAttrs { mtime: Some(time), ..SetAttrs::default() };
    client.setattr(file.ino(), Some(&file), set, WHO).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(net.take_log(), [Op::Write]);
    client.flush(&file).await.unwrap();
    assert_eq!(net.take_log(), [Op::Commit]);
}

#[tokio::test(start_paused = true)]
async fn big_writes_go_out_early_and_small_ones_together() {
    let net = FakeNet::new();
    let client = net.client().await;
    let file = make(&client, "a").await;
    net.take_log();
    for i in 0..16u64 {
        put(&client, &file, i * 65_536, &pattern(65_536, 3)).await;
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    let writes = net.take_log().iter().filter(|op| **op == Op::Write).count();
    assert_eq!(writes, 16);
    for i in 0..100u64 {
        put(&client, &file, i * 600, &Bytes::from_static(b"xyz")).await;
    }
    client.flush(&file).await.unwrap();
    assert_eq!(net.take_log(), [Op::Write, Op::Commit]);
    assert_eq!(net.world().servers.ranges.last(), Some(&100));
    assert_eq!(&get(&client, &file, 599, 5).await[..2], &[pattern(65_536, 3)[599], b'x']);
}

#[tokio::test(start_paused = true)]
async fn a_sequential_read_is_fetched_ahead() {
    let net = FakeNet::new();
    let client = net.client().await;
    let file = make(&client, "a").await;
    let data = pattern(3 << 20, 9);
    put(&client, &file, 0, &data).await;
    client.flush(&file).await.unwrap();
    net.take_log();
    let mut inline = 0;
    for i in 0..96usize {
        let at = i * 32_768;
        let want = data.slice(at..at + 32_768);
        let offset = u64::try_from(at).unwrap();
        if let Some(bytes) = client.try_read(&file, offset, 32_768) {
            assert_eq!(bytes.unwrap(), want);
            inline += 1;
        } else {
            assert_eq!(get(&client, &file, offset, 32_768).await, want);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(inline > 80, "{inline} of 96 reads were answered at once");
    assert_eq!(client.try_read(&file, 3 << 20, 10), Some(Ok(Bytes::new())));
    let world = net.world();
    let reads: Vec<usize> = world.servers.reads.values().copied().collect();
    assert!(reads.len() == 2 && reads.iter().all(|n| *n > 5), "both replicas serve: {reads:?}");
    assert!(world.log.iter().filter(|op| **op == Op::Read).count() <= 56);
}

#[tokio::test(start_paused = true)]
async fn fsync_syncs_then_commits() {
    let net = FakeNet::new();
    let client = net.client().await;
    let file = make(&client, "a").await;
    put(&client, &file, 0, &pattern(100, 1)).await;
    net.take_log();
    client.fsync(&file, false).await.unwrap();
    assert_eq!(net.take_log(), [Op::Write, Op::Sync, Op::Commit]);
    let last = net.world().master.commits.last().cloned().unwrap();
    assert!(last.durable && last.synced.len() == 1 && last.size_at_least == Some(100));
    client.fsync(&file, false).await.unwrap();
    assert_eq!(net.take_log(), []);
    // Data over data that was synced before: the master need not know.
    put(&client, &file, 0, &pattern(50, 2)).await;
    client.fsync(&file, true).await.unwrap();
    assert_eq!(net.take_log(), [Op::Write, Op::Sync]);
}

#[tokio::test(start_paused = true)]
async fn attributes_are_those_of_this_mount() {
    let net = FakeNet::new();
    let client = net.client().await;
    let file = make(&client, "a").await;
    let before = client.getattr(file.ino()).await.unwrap();
    assert!(client.try_getattr(file.ino()).is_some());
    put(&client, &file, 0, &pattern(1000, 1)).await;
    assert_eq!(client.try_getattr(file.ino()), None, "its mtime is the master's to give");
    let attr = client.getattr(file.ino()).await.unwrap();
    assert_eq!(attr.size, 1000);
    assert!(attr.mtime > before.mtime);
    client.flush(&file).await.unwrap();
    assert_eq!(client.getattr(file.ino()).await.unwrap().mtime, attr.mtime, "a close changes no time");
    assert!(client.has_no_xattrs(file.ino()));
    let CacheState::Granted(left) = client.cache_state(file.ino()) else { panic!("no grant") };
    assert!(left > Duration::from_secs(20) && left < Duration::from_secs(28));
}

#[tokio::test(start_paused = true)]
async fn listings_come_in_pages() {
    let net = FakeNet::new();
    let client = net.client().await;
    for i in 0..2000 {
        let name = format!("{i:05}");
        let (_, file) = client
            .create(Ino::ROOT, name.as_bytes(), 0, Access { read: true, write: false }, true, false, WHO)
            .await
            .unwrap();
        client.release(file);
    }
    net.take_log();
    let dir = client.opendir(Ino::ROOT);
    let (mut cookie, mut names, mut inline) = (0, Vec::new(), 0);
    loop {
        let page = match client.try_readdir(&dir, cookie, true) {
            Some(page) => {
                inline += 1;
                page
            }
            None => client.readdir(&dir, cookie, true).await.unwrap(),
        };
        cookie = page.entries.last().map_or(cookie, |entry| entry.cookie);
        names.extend(page.entries.into_iter().map(|entry| entry.name.into_vec()));
        if page.end {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(names.len(), 2000);
    assert!(names.is_sorted());
    assert!(inline >= 6, "{inline}");
    assert_eq!(net.take_log().iter().filter(|op| **op == Op::Readdir).count(), 2);
}

#[tokio::test(start_paused = true)]
async fn fsync_covers_what_other_mounts_wrote() {
    let net = FakeNet::new();
    let writer = net.client().await;
    let file = make(&writer, "a").await;
    put(&writer, &file, 0, &pattern(2 * CHUNK as usize, 1)).await;
    writer.shutdown(Duration::from_secs(5)).await.unwrap();
    {
        let mut world = net.world();
        let chunks = world.master.files[&file.ino()].chunks.clone();
        assert_eq!(chunks.len(), 2);
        world.master.owed = chunks.into_iter().collect();
        world.master.shared = true;
    }
    let client = net.client().await;
    let read = client.open(file.ino(), Access { read: true, write: false }, false, WHO).await.unwrap();
    net.take_log();
    client.fsync(&read, false).await.unwrap();
    let log = net.take_log();
    assert_eq!(log.iter().filter(|op| **op == Op::OpenChunks).count(), 2, "{log:?}");
    assert!(log.contains(&Op::Sync) && !log.contains(&Op::MapWrite), "{log:?}");
    // Without the right to keep others from writing it is asked each time.
    client.fsync(&read, false).await.unwrap();
    assert!(net.take_log().contains(&Op::Sync));

    net.world().master.shared = false;
    let write = client.open(file.ino(), RW, false, WHO).await.unwrap();
    net.take_log();
    client.fsync(&write, false).await.unwrap();
    assert!(net.take_log().contains(&Op::Sync));
    client.fsync(&write, false).await.unwrap();
    assert_eq!(net.take_log(), []);
    net.world().master.owed = Vec::new();
    put(&client, &write, 10, &pattern(1, 2)).await;
    client.fsync(&write, false).await.unwrap();
    assert!(!net.take_log().contains(&Op::OpenChunks));
}
