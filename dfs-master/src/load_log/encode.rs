//! Seconds to lines.

use std::collections::BTreeMap;

use dfs_proto::ids::{ChunkId, ServerNum};
use serde::Serialize;
use serde_json::{Map, Value};

use super::line::{Begins, ChunkLine, DecisionLine, LimitsLine, Line, RestLine, VERSION};
use crate::core::policy::{Decision, Kind, Limits, Thresholds};
use crate::core::{ChunkSeen, LoadSecond};

/// Writes a file's lines; knows what the lines before say.
#[derive(Debug, Default)]
pub struct Encoder {
    chunks: BTreeMap<ChunkId, Map<String, Value>>,
    servers: BTreeMap<ServerNum, Map<String, Value>>,
    policy: Option<Thresholds>,
    limits: Option<LimitsLine>,
    pace_permille: Option<u16>,
    budget_bytes: Option<u64>,
}

impl Encoder {
    /// The second's line, with its end. Where it begins anew, so must the encoder be; `lost_seconds` were not written before it.
    #[must_use]
    pub fn line(&mut self, second: &LoadSecond, begins: Option<Begins>, lost_seconds: u64) -> Vec<u8> {
        for chunk in &second.gone {
            self.chunks.remove(chunk);
        }
        let limits = limits_line(&second.limits);
        let pace_permille = second.pace.permille();
        let rest = second.rest;
        let line = Line {
            version: VERSION,
            begins,
            unix_ms: second
                .wall
                .sec
                .saturating_mul(1000)
                .saturating_add(i64::from(second.wall.nsec / 1_000_000)),
            at_us: second.at.0,
            lost_seconds,
            policy: news(&mut self.policy, second.thresholds).map(|policy| policy.as_written()),
            limits: news(&mut self.limits, limits),
            pace_permille: news(&mut self.pace_permille, pace_permille),
            budget_bytes: news(&mut self.budget_bytes, second.budget_bytes),
            servers: second
                .servers
                .iter()
                .filter_map(|server| changed(&mut self.servers, server.server, server, "server", &[]))
                .collect(),
            chunks: second
                .chunks
                .iter()
                .filter_map(|chunk| {
                    changed(
                        &mut self.chunks,
                        chunk.view.chunk,
                        &chunk_line(chunk),
                        "chunk",
                        &["read_milli", "write_milli"],
                    )
                })
                .collect(),
            gone: second.gone.clone(),
            rest: (rest.chunks > 0).then_some(RestLine {
                chunks: rest.chunks,
                read_milli: rest.read.0,
                write_milli: rest.write.0,
            }),
            decisions: second.decisions.iter().map(decision_line).collect(),
        };
        // Serialising into memory fails only for maps with keys that are no strings, of which a line has none.
        let mut bytes = serde_json::to_vec(&line).expect("a line serialises");
        bytes.push(b'\n');
        bytes
    }
}

/// What is not as it was the last time.
fn news<T: PartialEq + Copy>(last: &mut Option<T>, now: T) -> Option<T> {
    (last.replace(now) != Some(now)).then_some(now)
}

/// The fields that are not as they were the last time, and the one that says whose they are; nothing if there are none.
/// `loads` are said whenever they are not 0.
fn changed<K: Ord>(
    last: &mut BTreeMap<K, Map<String, Value>>,
    key: K,
    entry: &impl Serialize,
    name: &str,
    loads: &[&str],
) -> Option<Map<String, Value>> {
    let Ok(Value::Object(now)) = serde_json::to_value(entry) else { return None };
    let before = last.entry(key).or_default();
    let mut said = Map::new();
    for (field, value) in &now {
        let is_load = loads.contains(&field.as_str());
        let says = if is_load { value.as_u64() != Some(0) } else { before.get(field) != Some(value) };
        if says && field != name {
            said.insert(field.clone(), value.clone());
        }
    }
    if said.is_empty() {
        return None;
    }
    said.insert(name.to_owned(), now.get(name)?.clone());
    *before = now;
    Some(said)
}

fn limits_line(limits: &Limits) -> LimitsLine {
    let Limits { max, min, budget_bytes_per_s, .. } = *limits;
    LimitsLine { max_milli: max.0, min_milli: min.0, budget_bytes_per_s }
}

fn chunk_line(seen: &ChunkSeen) -> ChunkLine {
    let view = &seen.view;
    ChunkLine {
        chunk: view.chunk,
        read_milli: view.read.0,
        write_milli: view.write.0,
        inode: seen.ino,
        index: seen.index,
        bytes: view.bytes,
        on: view.replicas.clone(),
        goal: view.goal,
        max_replicas: view.max_replicas,
        written: view.written,
        closed: view.closed,
        under_way: view.under_way,
        held: seen.held.clone(),
    }
}

fn decision_line(decision: &Decision) -> DecisionLine {
    let (raise, lower) = match &decision.kind {
        Kind::Raise { copies } => (Some(copies.clone()), None),
        Kind::Lower { server } => (None, Some(*server)),
    };
    DecisionLine {
        chunk: decision.chunk,
        raise,
        lower,
        reason: decision.reason.name().to_owned(),
        inputs: decision.reason.clone(),
        why: decision.reason.to_string(),
    }
}
