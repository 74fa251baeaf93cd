//! What it costs to make and to read frames, without any socket.

#![allow(clippy::unwrap_used, reason = "a benchmark may stop by panicking")]

use std::hint::black_box;

use bytes::{BufMut, Bytes};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dfs_proto::checksum::{block_crcs, crc32c};
use dfs_proto::conn::{Hello, Role};
use dfs_proto::frame::wire::WireFrame;
use dfs_proto::frame::{Decoder, Frame, Outgoing};
use dfs_proto::header::{CallId, Limits};
use dfs_proto::ids::ClusterId;
use dfs_proto::request::Op;

fn decode(decoder: &mut Decoder, bytes: &[u8]) -> Frame {
    let mut rest = bytes;
    loop {
        let mut space = decoder.space();
        let n = rest.len().min(space.remaining_mut());
        space.put_slice(&rest[..n]);
        rest = &rest[n..];
        if let Some(frame) = decoder.next_frame().unwrap() {
            return frame;
        }
    }
}

fn frames(c: &mut Criterion) {
    let mut group = c.benchmark_group("frame");
    for (name, meta, payload) in
        [("64B meta", 64, 0), ("4KiB payload", 64, 4096), ("1MiB payload", 1100, 1 << 20)]
    {
        let out = Outgoing::new(Op::Read)
            .with_meta(Bytes::from(vec![1; meta]))
            .with_payload(Bytes::from(vec![2; payload]));
        let bytes = WireFrame::new(out.clone(), CallId(1), 0).unwrap().to_vec();
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(format!("encode/{name}"), |b| {
            b.iter(|| WireFrame::new(black_box(out.clone()), CallId(1), 1000).unwrap());
        });
        let mut decoder = Decoder::new(Limits::NORMAL);
        group.bench_function(format!("decode/{name}"), |b| {
            b.iter(|| decode(&mut decoder, black_box(&bytes)));
        });
    }
    group.finish();
}

fn messages(c: &mut Criterion) {
    let hello = Hello::new(Role::Client, "a-host-name:/mnt/dfs", Some(ClusterId(u128::MAX / 3)));
    c.bench_function("hello/encode", |b| b.iter(|| Outgoing::request(black_box(&hello)).unwrap()));
    let bytes = WireFrame::new(Outgoing::request(&hello).unwrap(), CallId(0), 0).unwrap().to_vec();
    let frame = decode(&mut Decoder::new(Limits::HANDSHAKE), &bytes);
    c.bench_function("hello/decode", |b| b.iter(|| frame.decode::<Hello>().unwrap()));
}

fn checksums(c: &mut Criterion) {
    let mut group = c.benchmark_group("crc32c");
    for len in [64usize, 4096, 1 << 20] {
        let data = vec![7u8; len];
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(format!("{len}"), |b| b.iter(|| crc32c(black_box(&data))));
    }
    let data = vec![7u8; 1 << 20];
    group.bench_function("blocks of 1MiB", |b| {
        b.iter(|| block_crcs(black_box(&data)).fold(0, |sum, crc| sum ^ crc.0));
    });
    group.finish();
}

criterion_group!(benches, frames, messages, checksums);
criterion_main!(benches);
