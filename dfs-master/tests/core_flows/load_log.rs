//! The log of loads: what the core hands out is written, read back, and replayed to the same decisions.

use std::collections::BTreeMap;

use dfs_master::core::LoadSecond;
use dfs_master::core::policy::{Direction, Memory};
use dfs_master::load_log::{Begins, Decoder, Encoder};
use dfs_master::replay::{Replay, Report};
use dfs_proto::meta::Policy;

use crate::load::hot_logged;

fn lines(seconds: &[LoadSecond]) -> Vec<Vec<u8>> {
    let mut encoder = Encoder::default();
    let line = |second: &LoadSecond| encoder.line(second, second.first.then_some(Begins::Leader), 0);
    seconds.iter().map(line).collect()
}

fn replayed(lines: &[Vec<u8>], change: Policy) -> Report {
    let (mut decoder, mut replay) = (Decoder::default(), Replay::new(change));
    for line in lines {
        replay.second(&decoder.line(line).unwrap()).unwrap();
    }
    replay.report()
}

/// A chunk that is raised, in two steps as its load grows, and lowered again when it is cold.
fn raised_and_lowered() -> Vec<LoadSecond> {
    let mut hot = hot_logged();
    hot.read(0, 3_000);
    hot.read(700, 12_000);
    hot.read(1_300, 12_000);
    hot.read(0, 40_000);
    assert_eq!(hot.replicas(), 2);
    hot.cluster.loads
}

#[test]
fn what_is_written_is_read_as_it_was() {
    let seconds = raised_and_lowered();
    assert!(seconds[0].first && seconds.iter().filter(|second| second.first).count() == 1);
    let mut decoder = Decoder::default();
    let mut known = BTreeMap::new();
    for (second, line) in seconds.iter().zip(lines(&seconds)) {
        let read = decoder.line(&line).unwrap().second;
        for chunk in &read.chunks {
            known.insert(chunk.view.chunk, chunk.clone());
        }
        for chunk in &second.chunks {
            let mut chunk = chunk.clone();
            chunk.view.memory = Memory::default();
            assert_eq!(known[&chunk.view.chunk], chunk);
        }
        assert_eq!(
            LoadSecond { chunks: Vec::new(), ..read },
            LoadSecond { chunks: Vec::new(), ..second.clone() }
        );
    }
}

#[test]
fn a_replay_with_the_recorded_thresholds_decides_what_was_decided() {
    let seconds = raised_and_lowered();
    let of = |direction: Direction| {
        let all = seconds.iter().flat_map(|second| &second.decisions);
        all.filter(|decision| decision.direction() == direction).count() as u64
    };
    let (raises, lowers) = (of(Direction::Up), of(Direction::Down));
    assert!(raises == 2 && lowers >= 3, "{raises}, {lowers}");
    let report = replayed(&lines(&seconds), Policy::default());
    assert_eq!(report.first_difference_unix_ms, None);
    assert_eq!((report.replayed.raises, report.replayed.lowers), (raises, lowers));
    assert_eq!((report.recorded, report.same), (report.replayed, raises + lowers));
    assert!(!report.begins_in_the_middle && report.seconds == seconds.len() as u64);
}

#[test]
fn a_replay_with_other_thresholds_says_what_they_would_have_done() {
    let lines = lines(&raised_and_lowered());
    let with = |max: &str, min: &str| {
        let (max_threshold, min_threshold) = (Some(max.to_owned()), Some(min.to_owned()));
        replayed(&lines, Policy { max_threshold, min_threshold, ..Policy::default() })
    };
    let never = with("5000", "100");
    assert_eq!((never.replayed.raises, never.replayed.lowers, never.replayed.copied_bytes), (0, 0, 0));
    assert!(never.recorded.raises == 2 && never.first_difference_unix_ms.is_some());
    let more = with("150", "50");
    // All servers have it at once, where the record gets there in two steps.
    let (here, there) = (more.replayed, more.recorded);
    assert!(here.raises == 1 && here.above_goal_seconds > there.above_goal_seconds, "{here:?} {there:?}");
    assert_eq!(more.course.last().unwrap().replayed, 0, "it is cold in the end");
    let one = Policy { max_replicas: Some(1), ..Policy::default() };
    assert_eq!(replayed(&lines, one).replayed.raises, 0);
}

#[test]
fn a_log_that_begins_in_the_middle_is_replayed_and_said_to() {
    let seconds = raised_and_lowered();
    let (mut encoder, mut decoder, mut replay) =
        (Encoder::default(), Decoder::default(), Replay::new(Policy::default()));
    for (at, second) in seconds[2..].iter().enumerate() {
        let line = encoder.line(second, (at == 0).then_some(Begins::Rotated), 0);
        replay.second(&decoder.line(&line).unwrap()).unwrap();
    }
    let report = replay.report();
    assert!(report.begins_in_the_middle);
    assert_eq!(report.recorded, report.replayed);
}

#[test]
fn a_bad_line_is_refused_with_its_reason() {
    let lines = lines(&raised_and_lowered());
    let said = |line: &[u8]| Decoder::default().line(line).unwrap_err().to_string();
    assert!(said(b"{\"version\":1").contains("no JSON of a line"));
    assert!(said(&lines[1]).contains("begins no log"), "{}", said(&lines[1]));
    let text = String::from_utf8(lines[0].clone()).unwrap();
    assert!(said(text.replace("\"version\":1", "\"version\":2").as_bytes()).contains("its version is 2"));
    let mut decoder = Decoder::default();
    decoder.line(&lines[0]).unwrap();
    decoder.line(&lines[3]).unwrap();
    assert!(decoder.line(&lines[2]).unwrap_err().to_string().contains("time goes back"));
}
