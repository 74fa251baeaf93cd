//! What a mount's own programs read while one of them cuts the file, or makes zeros of its end.

use std::time::Duration;

use bytes::Bytes;
use dfs_client::{Client, FileHandle, SetAttrs};
use dfs_proto::ids::SessionId;
use dfs_proto::request::Op;
use dfs_proto::status::Status;
use dfs_proto::units::ChunkIndex;

use crate::fake::{CHUNK, FakeNet, Fault, WHO, pattern};
use crate::{RW, get, make, put};

const AT: u64 = CHUNK as u64 + 8192;

async fn after(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

async fn cut(client: &Client<FakeNet>, file: &FileHandle, size: u64) {
    let set = SetAttrs { size: Some(size), ..SetAttrs::default() };
    client.setattr(file.ino(), Some(file), set, WHO).await.unwrap();
}

/// Two reads of zeros that the servers have made, by `op`, and whose maker has no answer yet: one that was under way
/// since before, and one that begins when that has ended. Before it was done, all of the file was fetched ahead, twice.
async fn read_under(op: Op, change: impl AsyncFnOnce(&Client<FakeNet>, &FileHandle)) -> [Bytes; 2] {
    let net = FakeNet::new();
    let client = net.client().await;
    let file = make(&client, "a").await;
    put(&client, &file, 0, &pattern(2 * CHUNK as usize, 1)).await;
    client.flush(&file).await.unwrap();
    let [slow, next, ahead] = std::array::from_fn(|_| client.open(file.ino(), RW, false, WHO));
    let (slow, next, ahead) = (slow.await.unwrap(), next.await.unwrap(), ahead.await.unwrap());
    net.fault(Op::Read, Fault::Slow(Duration::from_millis(200)));
    net.fault(op, Fault::Answer(Status::Recovering));
    net.fault(op, Fault::Answer(Status::Recovering));
    net.fault(op, Fault::LateReply(Duration::from_millis(500)));
    let reads = async {
        let first = get(&client, &slow, AT, 4096).await;
        [first, get(&client, &next, AT, 4096).await]
    };
    let fetch = async {
        after(1).await;
        get(&client, &ahead, 0, 4096).await;
        after(2).await;
        // The change was refused, and is about to be tried again.
        get(&client, &ahead, 0, 4096).await;
    };
    let changed = async {
        after(2).await;
        change(&client, &file).await;
    };
    tokio::select! {
        biased;
        (reads, ()) = async { tokio::join!(reads, fetch) } => reads,
        () = async { changed.await; after(u64::MAX / 2).await } => panic!("the reads came too late"),
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_reads_bytes_that_were_fetched_ahead_once_zeros_were_read() {
    let chunk = u64::from(CHUNK);
    let cut = read_under(Op::Setattr, async |client, file| cut(client, file, chunk + 100).await).await;
    let punched = read_under(Op::Write, async |client, file| {
        client.punch(file, chunk, chunk).await.unwrap();
    })
    .await;
    for bytes in [cut, punched].as_flattened() {
        assert!(bytes.len() == 4096 && bytes.iter().all(|byte| *byte == 0), "{:?}", &bytes[..8]);
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_reads_a_chunk_that_was_cut_off_once_a_hole_was_read() {
    let net = FakeNet::new();
    let maker = net.client().await;
    let ino = make(&maker, "a").await.ino();
    let theirs = maker.open(ino, RW, false, WHO).await.unwrap();
    put(&maker, &theirs, 0, &pattern(4 * CHUNK as usize, 1)).await;
    maker.flush(&theirs).await.unwrap();
    let client = net.client().await;
    let file = client.open(ino, RW, false, WHO).await.unwrap();
    net.fault(Op::MapRead, Fault::LateReply(Duration::from_millis(20)));
    net.fault(Op::Setattr, Fault::LateReply(Duration::from_millis(500)));
    let chunk = u64::from(CHUNK);
    let whole = async {
        // Its map, of before the cut, names the chunks behind too, and comes late.
        get(&client, &file, chunk, 4096).await;
    };
    let reads = async {
        after(5).await;
        let first = get(&client, &file, 2 * chunk, 4096).await;
        after(30).await;
        [first, get(&client, &file, 2 * chunk, 4096).await]
    };
    let cutting = async {
        after(1).await;
        cut(&client, &file, 100).await;
    };
    let ((), reads, ()) = tokio::join!(whole, reads, cutting);
    assert!(reads.iter().flatten().all(|byte| *byte == 0), "{:?}", reads.map(|bytes| bytes.len()));
}

/// The master knows of no bytes, so that the cut leaves the size epoch as it is.
#[tokio::test(start_paused = true)]
async fn a_read_shows_no_bytes_behind_a_cut_of_what_was_only_buffered() {
    let net = FakeNet::new();
    let client = net.client().await;
    let file = make(&client, "a").await;
    put(&client, &file, AT + 16384, &pattern(4096, 1)).await;
    net.fault(Op::MapRead, Fault::Slow(Duration::from_millis(200)));
    let read = get(&client, &file, AT, 4096);
    let cutting = async {
        after(5).await;
        cut(&client, &file, 0).await;
        // Another mount writes there: it has not committed how far that reaches.
        let world = &mut *net.world();
        let place = world.master.place(SessionId(99), file.ino(), ChunkIndex(1));
        world.servers.chunks.insert(place.chunk(), pattern(CHUNK as usize, 2).to_vec());
    };
    let (read, ()) = tokio::join!(read, cutting);
    assert!(read.is_empty(), "{:?}", &read[..8]);
}
