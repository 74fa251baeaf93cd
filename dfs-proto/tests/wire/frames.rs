//! The decoder: every split of a stream gives the same frames, and no bytes make it panic or allocate.

use bytes::{BufMut, Bytes};
use dfs_proto::frame::decoder::DIRECT_MIN;
use dfs_proto::frame::wire::WireFrame;
use dfs_proto::frame::{DETAIL_MAX, Decoder, Frame, Outgoing, Payload};
use dfs_proto::header::{
    CallId, FrameError, HEADER_LEN, Limits, Load, META_MAX, PAYLOAD_MAX, RawHeader, Words,
};
use dfs_proto::request::Op;
use dfs_proto::status::Status;
use proptest::prelude::*;

/// Puts bytes where a reader would.
pub(crate) fn feed(decoder: &mut Decoder, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let mut space = decoder.space();
        let n = bytes.len().min(space.remaining_mut());
        assert!(n > 0, "no space to read into");
        space.put_slice(&bytes[..n]);
        bytes = &bytes[n..];
        if !bytes.is_empty() {
            assert!(decoder.next_frame().unwrap().is_none(), "feed takes one frame at most");
        }
    }
}

/// All frames of a stream that arrives in pieces of these lengths, over and over.
fn decode_in_pieces(mut stream: &[u8], pieces: &[usize]) -> Result<Vec<Frame>, FrameError> {
    let mut decoder = Decoder::new(Limits::NORMAL);
    let mut frames = Vec::new();
    let mut pieces = pieces.iter().cycle();
    while !stream.is_empty() {
        let mut space = decoder.space();
        let n = (*pieces.next().unwrap()).min(space.remaining_mut()).min(stream.len());
        space.put_slice(&stream[..n]);
        stream = &stream[n..];
        while let Some(frame) = decoder.next_frame()? {
            frames.push(frame);
        }
    }
    Ok(frames)
}

fn out(meta: usize, payload: usize) -> Outgoing {
    Outgoing::new(Op::Write).with_meta(pattern(meta)).with_payload(pattern(payload))
}

fn pattern(len: usize) -> Bytes {
    (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect::<Vec<u8>>().into()
}

fn wire(out: Outgoing) -> Vec<u8> {
    WireFrame::new(out, CallId(5), 0).unwrap().to_vec()
}

fn lengths() -> impl Strategy<Value = (usize, usize)> {
    let meta = prop_oneof![Just(0usize), 1..600usize, 60_000..140_000usize];
    let payload = prop_oneof![
        Just(0usize),
        1..600usize,
        DIRECT_MIN - 2..DIRECT_MIN + 2,
        100_000..300_000usize,
        Just(PAYLOAD_MAX as usize)
    ];
    (meta, payload)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_split_gives_the_same_frames(
        frames in prop::collection::vec(lengths(), 1..6),
        pieces in prop::collection::vec(prop_oneof![1..200usize, 4_000..200_000usize], 1..8),
    ) {
        let stream: Vec<u8> = frames.iter().flat_map(|&(m, p)| wire(out(m, p))).collect();
        let got = decode_in_pieces(&stream, &pieces).unwrap();
        prop_assert_eq!(got.len(), frames.len());
        for (frame, (meta, payload)) in got.iter().zip(frames) {
            prop_assert_eq!(&frame.meta, &pattern(meta));
            prop_assert_eq!(&frame.payload, &pattern(payload));
        }
    }

    #[test]
    fn header_fields_come_back(
        op in prop::sample::select(Op::ALL),
        status in prop::sample::select(Status::ALL),
        (call, word0, word1, word2, word3) in any::<(u64, u64, u64, u32, u32)>(),
        (deadline, flags, utilisation, queue) in any::<(u32, u16, u16, u16)>(),
        meta in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let out = Outgoing {
            flags: dfs_proto::header::Flags(flags),
            status,
            words: Words { word0, word1, word2, word3 },
            load: Load { utilisation, queue },
            meta: meta.clone().into(),
            ..Outgoing::new(op)
        };
        let bytes = WireFrame::new(out, CallId(call), deadline).unwrap().to_vec();
        let raw = RawHeader::at_start_of(&bytes).unwrap();
        raw.check_crc(&meta).unwrap();
        let header = raw.check(Limits::NORMAL).unwrap();
        prop_assert_eq!(header.op, op);
        prop_assert_eq!(header.status, status);
        prop_assert_eq!(header.words, Words { word0, word1, word2, word3 });
        prop_assert_eq!((header.call, header.deadline_ms, header.flags.0), (CallId(call), deadline, flags));
        prop_assert_eq!(header.load, Load { utilisation, queue });
    }

    #[test]
    fn one_flipped_bit_is_noticed(meta in 0..200usize, bit in 0..(HEADER_LEN + 200) * 8) {
        let mut bytes = wire(out(meta, 0));
        let bit = bit % (bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        let mut decoder = Decoder::new(Limits::NORMAL);
        decoder.space().put_slice(&bytes);
        // A flip in a length may make the decoder wait for bytes that never come; it never gives a frame.
        prop_assert!(!matches!(decoder.next_frame(), Ok(Some(_))));
    }

    #[test]
    fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(decode_in_pieces(&bytes, &[7, 64]).map_or(true, |frames| frames.is_empty()));
    }
}

/// A header of a correct frame with one field overwritten; its checksum no longer holds.
fn header_with(at: usize, bytes: &[u8]) -> RawHeader {
    let mut frame = wire(out(0, 0));
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    RawHeader::at_start_of(&frame).unwrap()
}

#[test]
fn each_wrong_field_has_its_error() {
    let check = |at, bytes: &[u8]| header_with(at, bytes).check(Limits::NORMAL).unwrap_err();
    assert_eq!(check(0, b"HTTP"), FrameError::BadMagic(u32::from_le_bytes(*b"HTTP")));
    assert_eq!(check(4, &[9]), FrameError::WrongVersion(9));
    assert_eq!(check(5, &[65]), FrameError::BadHeaderLen(65));
    assert_eq!(check(6, &[0xff, 0xff]), FrameError::UnknownOp(0xffff));
    assert_eq!(check(54, &[0xff, 0xff]), FrameError::UnknownStatus(0xffff));
    let (meta, payload) = (META_MAX + 1, PAYLOAD_MAX + 1);
    assert_eq!(check(40, &meta.to_le_bytes()), FrameError::MetaTooLarge { len: meta, max: META_MAX });
    assert_eq!(
        check(44, &payload.to_le_bytes()),
        FrameError::PayloadTooLarge { len: payload, max: PAYLOAD_MAX }
    );
    assert!(header_with(44, &[1]).check(Limits::HANDSHAKE).is_err(), "no payload before the handshake");
    assert!(header_with(41, &[0x40, 1]).check(Limits::HANDSHAKE).is_err(), "more than 16 KiB before it");
    assert!(matches!(header_with(8, &[1]).check_crc(&[]), Err(FrameError::BadCrc { .. })));
}

#[test]
fn a_truncated_frame_is_no_frame() {
    for (meta, payload) in [(0, 0), (100, 50), (10, DIRECT_MIN)] {
        let bytes = wire(out(meta, payload));
        let mut decoder = Decoder::new(Limits::NORMAL);
        for byte in &bytes[..bytes.len() - 1] {
            decoder.space().put_u8(*byte);
            assert!(decoder.next_frame().unwrap().is_none());
        }
        assert!(!decoder.is_at_border());
        decoder.space().put_u8(bytes[bytes.len() - 1]);
        assert!(decoder.next_frame().unwrap().is_some());
    }
}

#[test]
fn what_a_peer_would_refuse_is_not_sent() {
    assert!(WireFrame::new(out(META_MAX as usize, PAYLOAD_MAX as usize), CallId(1), 0).is_ok());
    assert!(WireFrame::new(out(META_MAX as usize + 1, 0), CallId(1), 0).is_err());
    assert!(WireFrame::new(out(0, PAYLOAD_MAX as usize + 1), CallId(1), 0).is_err());
}

#[test]
fn a_payload_in_pieces_is_one_payload() {
    let whole = pattern(50_000);
    let parts = vec![whole.slice(..10), whole.slice(10..10), whole.slice(10..40_000), whole.slice(40_000..)];
    let bytes = wire(Outgoing::new(Op::Write).with_payload(Payload::Many(parts)));
    let frames = decode_in_pieces(&bytes, &[1000]).unwrap();
    assert_eq!(frames[0].payload, whole);
}

#[test]
fn slices_go_on_where_the_last_write_ended() {
    let frame = WireFrame::new(out(33, 100), CallId(1), 0).unwrap();
    let whole = frame.to_vec();
    for skip in 0..whole.len() {
        let mut slices = [std::io::IoSlice::new(&[]); 8];
        let used = frame.slices_after(skip, &mut slices);
        let rest: Vec<u8> = slices[..used].iter().flat_map(|slice| slice.to_vec()).collect();
        assert_eq!(rest, whole[skip..]);
    }
}

#[test]
fn a_long_detail_is_cut_between_characters() {
    let request = decode_in_pieces(&wire(out(0, 0)), &[64]).unwrap().remove(0);
    let bytes = wire(Outgoing::error(&request.header, Status::Io, &"ä".repeat(DETAIL_MAX)));
    let detail = decode_in_pieces(&bytes, &[64]).unwrap()[0].detail();
    assert_eq!(detail, "ä".repeat(DETAIL_MAX / 2));
}
