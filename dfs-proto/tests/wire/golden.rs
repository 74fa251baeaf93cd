//! The bytes of version 1, fixed for ever.

use bytes::Bytes;
use dfs_proto::checksum::Crc;
use dfs_proto::chunk::{BadMeta, Capability, Range, Rights, WriteMeta};
use dfs_proto::conn::{Hello, Role, Welcome};
use dfs_proto::control::{
    ClusterFacts, ListLog, ListedSegment, ListedSnapshot, LogBytes, LogFile, LogListing, ReadLog,
};
use dfs_proto::frame::wire::WireFrame;
use dfs_proto::frame::{Decoder, Frame, Outgoing};
use dfs_proto::header::{CallId, Flags, Limits, Load, Words};
use dfs_proto::ids::{
    BootId, ChunkId, ChunkVersion, ConfigNum, Generation, Ino, KeyId, LogIndex, OpId, OpenNum, ServerNum,
    SessionId, SizeEpoch,
};
use dfs_proto::request::Op;
use dfs_proto::status::Status;
use dfs_proto::units::{ChunkIndex, ChunkSize, MasterMs};

use crate::support::{CLUSTER, welcome};

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(pair).collect()
}

fn decode(bytes: &[u8]) -> Frame {
    let mut decoder = Decoder::new(Limits::NORMAL);
    crate::frames::feed(&mut decoder, bytes);
    let frame = decoder.next_frame().unwrap().unwrap();
    assert!(decoder.is_at_border());
    frame
}

/// The frame encodes to the fixture, which decodes to what is returned.
fn check(name: &str, frame: &WireFrame, fixture: &str) -> Frame {
    let hex: Vec<String> =
        frame.to_vec().chunks(16).map(|row| row.iter().map(|b| format!("{b:02x}")).collect()).collect();
    assert_eq!(frame.to_vec(), unhex(fixture), "{name} is now\n{}", hex.join("\n"));
    decode(&unhex(fixture))
}

#[test]
fn a_frame_with_every_field() {
    let out = Outgoing {
        op: Op::Read,
        flags: Flags::REPLY.with(Flags(0x0100)),
        status: Status::Recovering,
        words: Words { word0: 0x1122_3344_5566_7788, word1: 0x99aa_bbcc_ddee_ff00, word2: 4096, word3: 8192 },
        load: Load { utilisation: 750, queue: 17 },
        meta: Bytes::from_static(b"meta"),
        payload: Bytes::from_static(b"payload").into(),
    };
    let wire = WireFrame::new(out.clone(), CallId(0x0102_0304_0506_0708), 30_000).unwrap();
    let frame = check("frame", &wire, include_str!("../fixtures/frame.hex"));
    assert_eq!(frame.header.op, out.op);
    assert_eq!(frame.header.flags, out.flags);
    assert_eq!(frame.header.status, out.status);
    assert_eq!(frame.header.words, out.words);
    assert_eq!(frame.header.load, out.load);
    assert_eq!(frame.header.call, CallId(0x0102_0304_0506_0708));
    assert_eq!(frame.header.deadline_ms, 30_000);
    assert_eq!((&frame.meta[..], &frame.payload[..]), (&b"meta"[..], &b"payload"[..]));
}

#[test]
fn hello() {
    let said = Hello {
        server: Some(ServerNum(3)),
        boot: Some(BootId(0x1234)),
        ..Hello::new(Role::ChunkServer, "cs-1", Some(CLUSTER))
    };
    let wire = WireFrame::new(Outgoing::request(&said).unwrap(), CallId(0), 0).unwrap();
    let frame = check("hello", &wire, include_str!("../fixtures/hello.hex"));
    assert_eq!(frame.decode::<Hello>().unwrap(), said);
}

#[test]
fn hello_of_one_that_joins() {
    let said = Hello::new(Role::Tool, "dfs", None);
    let wire = WireFrame::new(Outgoing::request(&said).unwrap(), CallId(0), 0).unwrap();
    let frame = check("hello_joining", &wire, include_str!("../fixtures/hello_joining.hex"));
    assert_eq!(frame.decode::<Hello>().unwrap(), said);
}

#[test]
fn welcome_reply() {
    let request = decode(&unhex(include_str!("../fixtures/hello.hex")));
    let wire = WireFrame::new(Outgoing::reply(&request.header, &welcome()), CallId(0), 0).unwrap();
    let frame = check("welcome", &wire, include_str!("../fixtures/welcome.hex"));
    assert_eq!(frame.decode::<Welcome>().unwrap(), welcome());
}

#[test]
fn an_error_reply() {
    let request = decode(&unhex(include_str!("../fixtures/hello.hex")));
    let out = Outgoing::error(&request.header, Status::WrongCluster, "not ours");
    let frame =
        check("error", &WireFrame::new(out, CallId(9), 0).unwrap(), include_str!("../fixtures/error.hex"));
    assert_eq!((frame.header.status, frame.detail().as_str()), (Status::WrongCluster, "not ours"));
}

#[test]
fn what_a_copy_of_the_log_is_asked_for_with() {
    let wire = WireFrame::new(Outgoing::request(&ListLog {}).unwrap(), CallId(1), 0).unwrap();
    let asked = check("list_log", &wire, include_str!("../fixtures/list_log.hex"));
    let listing = LogListing {
        generation: Generation(2),
        about: ClusterFacts {
            made_in: Generation(1),
            chunk_size: ChunkSize::DEFAULT,
            goal: 3,
            created: 1_700_000_000,
        },
        snapshots: vec![ListedSnapshot { index: LogIndex(400_000), len: 1 << 33 }],
        segments: vec![
            ListedSegment { first: 1, len: 64 << 20 },
            ListedSegment { first: 300_000, len: 4711 },
        ],
        durable: LogIndex(400_123),
    };
    let wire = WireFrame::new(Outgoing::reply(&asked.header, &listing), CallId(1), 0).unwrap();
    let frame = check("log_listing", &wire, include_str!("../fixtures/log_listing.hex"));
    assert_eq!(frame.decode::<LogListing>().unwrap(), listing);
    for (name, fixture, file, before) in [
        (
            "read_log",
            include_str!("../fixtures/read_log.hex"),
            LogFile::Segment(300_000),
            Some(Crc(0x0102_0304)),
        ),
        (
            "read_snapshot",
            include_str!("../fixtures/read_snapshot.hex"),
            LogFile::Snapshot(LogIndex(400_000)),
            None,
        ),
    ] {
        let read = ReadLog { generation: Generation(2), file, offset: 1 << 20, len: 1 << 20, before };
        let wire = WireFrame::new(Outgoing::request(&read).unwrap(), CallId(2), 0).unwrap();
        let asked = check(name, &wire, fixture);
        assert_eq!(asked.decode::<ReadLog>().unwrap(), read);
        let out = Outgoing::reply(&asked.header, &LogBytes { same: true, crc: Crc(0xa1b2_c3d4) });
        let out = out.with_payload(Bytes::from_static(b"bytes of the log"));
        let wire = WireFrame::new(out, CallId(2), 0).unwrap();
        let frame = check("log_bytes", &wire, include_str!("../fixtures/log_bytes.hex"));
        assert_eq!(frame.decode::<LogBytes>().unwrap(), LogBytes { same: true, crc: Crc(0xa1b2_c3d4) });
        assert_eq!(&frame.payload[..], b"bytes of the log");
    }
}

fn capability() -> Capability {
    Capability {
        chunk: ChunkId(0x0001_0000_0000_002a),
        version: ChunkVersion(3),
        config: ConfigNum(4),
        open_num: OpenNum(5),
        size_epoch: SizeEpoch(6),
        ino: Ino(7),
        index: ChunkIndex(8),
        session: SessionId(9),
        rights: Rights { read: true, write: true },
        expires: MasterMs(10),
        key: KeyId(11),
        mac: [0x5e; 16],
    }
}

#[test]
fn a_write_of_zeros() {
    let meta = WriteMeta {
        capability: capability(),
        op: OpId(12),
        done: OpId(11),
        ranges: vec![Range { offset: 100, len: 40_000_000 }],
        crcs: Vec::new(),
        zeros: true,
        create: Vec::new(),
        note: None,
    };
    let out = Outgoing::new(Op::Write).with_meta(Bytes::from(meta.to_bytes()));
    let wire = WireFrame::new(out, CallId(1), 0).unwrap();
    let frame = check("punch", &wire, include_str!("../fixtures/punch.hex"));
    assert_eq!(WriteMeta::from_bytes(&frame.meta, 0), Ok(meta.clone()));
    assert_eq!(WriteMeta::from_bytes(&frame.meta, 1), Err(BadMeta::Payload), "zeros bring no bytes");
    let bytes = WriteMeta { zeros: false, ..meta };
    assert_eq!(WriteMeta::from_bytes(&bytes.to_bytes(), 0), Err(BadMeta::Checksums));
}
