//! The library against a cluster in memory: what it sends, in which order, and what programs see of faults.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::cast_possible_truncation, reason = "numbers in tests are small")]

mod fake;

mod cost;
mod cuts;
mod faults;
mod grants;
mod hedge;
mod model;
mod zeros;

use bytes::Bytes;
use dfs_client::{Client, FileHandle};
use dfs_proto::ids::Ino;
use dfs_proto::meta::Access;

use fake::{FakeNet, WHO};

const RW: Access = Access { read: true, write: true };

/// A new file of the root, open for reading and writing.
async fn make(client: &Client<FakeNet>, name: &str) -> FileHandle {
    client.create(Ino::ROOT, name.as_bytes(), 0o644, RW, false, false, WHO).await.unwrap().1
}

async fn put(client: &Client<FakeNet>, file: &FileHandle, offset: u64, data: &Bytes) {
    assert_eq!(client.write(file, offset, data.clone(), false).await, Ok(data.len()));
}

async fn get(client: &Client<FakeNet>, file: &FileHandle, offset: u64, len: u32) -> Bytes {
    client.read(file, offset, len).await.unwrap()
}
