//! Lines to seconds. A file comes from a disk or from somebody else: nothing in it is believed.

use std::collections::{BTreeMap, BTreeSet};

use dfs_proto::ids::{ChunkId, ServerNum};
use dfs_proto::units::{Micros, Timespec};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::line::{Begins, ChunkLine, DecisionLine, Line, VERSION};
use crate::core::policy::{ChunkView, CostRate, Decision, Kind, Memory, Pace, ServerView, Thresholds};
use crate::core::{ChunkSeen, LoadSecond, Rest};

/// Chunks that a log may name, so that one that is made up does not fill the memory.
const CHUNKS_MAX: usize = 4_000_000;

/// Why a line is none of the log.
#[derive(Debug, thiserror::Error)]
pub enum BadLine {
    #[error("it is no JSON of a line: {0}")]
    Json(#[from] serde_json::Error),
    #[error("its version is {0}, and this build reads {VERSION}")]
    Version(u32),
    #[error("it is the first, and begins no log: it leaves out what the lines before it said")]
    NoBegin,
    #[error("it begins a log, and says nothing of {0}")]
    Missing(&'static str),
    #[error("time goes back: {now_us} us after {before_us} us")]
    TimeGoesBack { before_us: u64, now_us: u64 },
    #[error("the thresholds can't be: {0}")]
    Policy(String),
    #[error("{0} of it says not whose it is")]
    Nameless(&'static str),
    #[error("the {what} {name} is not whole: {why}")]
    Entry { what: &'static str, name: String, why: serde_json::Error },
    #[error("chunk {chunk} is on server {server}, of which nothing is said")]
    NoServer { chunk: ChunkId, server: ServerNum },
    #[error("chunk {0} has no replicas, or one twice")]
    Replicas(ChunkId),
    #[error("the decision on chunk {0} is neither to raise nor to lower it, or both")]
    NoDecision(ChunkId),
    #[error("it names more than {CHUNKS_MAX} chunks")]
    TooMany,
}

/// A line, read.
#[derive(Debug)]
pub struct Decoded {
    pub second: LoadSecond,
    pub begins: Option<Begins>,
    /// Seconds before it that were not written.
    pub lost_seconds: u64,
}

/// Reads a file's lines, or those of several one after the other.
#[derive(Debug, Default)]
pub struct Decoder {
    chunks: BTreeMap<ChunkId, Map<String, Value>>,
    servers: BTreeMap<ServerNum, (Map<String, Value>, ServerView)>,
    policy: Option<Thresholds>,
    pace: Option<Pace>,
    budget_bytes: Option<u64>,
    at: Option<Micros>,
}

impl Decoder {
    /// The next line, without its end. Its chunks are those that it names; of the others nothing has changed, and they are not
    /// read or written.
    ///
    /// # Errors
    /// When it is none; then nothing after it can be read either.
    pub fn line(&mut self, text: &[u8]) -> Result<Decoded, BadLine> {
        let line: Line = serde_json::from_slice(text)?;
        if line.version != VERSION {
            return Err(BadLine::Version(line.version));
        }
        if line.begins.is_some() {
            // The clock of another boot begins anew.
            *self = Decoder::default();
        } else if self.at.is_none() {
            return Err(BadLine::NoBegin);
        }
        if let Some(before) = self.at.filter(|before| before.0 > line.at_us) {
            return Err(BadLine::TimeGoesBack { before_us: before.0, now_us: line.at_us });
        }
        self.at = Some(Micros(line.at_us));
        if let Some(policy) = &line.policy {
            self.policy = Some(Thresholds::default().changed_by(policy).map_err(BadLine::Policy)?);
        }
        self.pace = line.pace_permille.map(Pace::of_permille).or(self.pace);
        self.budget_bytes = line.budget_bytes.or(self.budget_bytes);
        for entry in line.servers {
            self.server(entry)?;
        }
        let servers: Vec<ServerView> = self.servers.values().map(|(_, server)| server.clone()).collect();
        let thresholds = self.policy.ok_or(BadLine::Missing("the policy"))?;
        let chunks = line.chunks.into_iter().map(|entry| self.chunk(entry)).collect::<Result<_, _>>()?;
        for chunk in &line.gone {
            self.chunks.remove(chunk);
        }
        let rest = line.rest.map_or(Rest::default(), |rest| Rest {
            chunks: rest.chunks,
            read: CostRate(rest.read_milli),
            write: CostRate(rest.write_milli),
        });
        let wall = Timespec {
            sec: line.unix_ms.div_euclid(1000),
            nsec: u32::try_from(line.unix_ms.rem_euclid(1000) * 1_000_000).unwrap_or(0),
        };
        let second = LoadSecond {
            at: Micros(line.at_us),
            wall,
            first: line.begins == Some(Begins::Leader),
            thresholds,
            limits: thresholds.limits(&servers),
            pace: self.pace.ok_or(BadLine::Missing("the pace"))?,
            budget_bytes: self.budget_bytes.ok_or(BadLine::Missing("the budget"))?,
            chunks,
            rest,
            gone: line.gone,
            servers,
            decisions: line.decisions.into_iter().map(decision).collect::<Result<_, _>>()?,
        };
        Ok(Decoded { second, begins: line.begins, lost_seconds: line.lost_seconds })
    }

    fn server(&mut self, entry: Map<String, Value>) -> Result<(), BadLine> {
        let num: ServerNum = name(&entry, "server")?;
        let mut fields = self.servers.remove(&num).map_or_else(Map::new, |(fields, _)| fields);
        fields.extend(entry);
        let server = whole(&fields, "server", &num.to_string())?;
        self.servers.insert(num, (fields, server));
        Ok(())
    }

    fn chunk(&mut self, entry: Map<String, Value>) -> Result<ChunkSeen, BadLine> {
        let id: ChunkId = name(&entry, "chunk")?;
        if self.chunks.len() >= CHUNKS_MAX {
            return Err(BadLine::TooMany);
        }
        let fields = self.chunks.entry(id).or_default();
        fields.remove("read_milli");
        fields.remove("write_milli");
        fields.extend(entry);
        let line: ChunkLine = whole(fields, "chunk", &id.to_string())?;
        let distinct: BTreeSet<ServerNum> = line.on.iter().copied().collect();
        if line.on.is_empty() || distinct.len() != line.on.len() {
            return Err(BadLine::Replicas(id));
        }
        if let Some(server) = distinct.into_iter().find(|server| !self.servers.contains_key(server)) {
            return Err(BadLine::NoServer { chunk: id, server });
        }
        let view = ChunkView {
            chunk: id,
            bytes: line.bytes,
            read: CostRate(line.read_milli),
            write: CostRate(line.write_milli),
            replicas: line.on,
            goal: line.goal,
            max_replicas: line.max_replicas,
            written: line.written,
            closed: line.closed,
            under_way: line.under_way,
            memory: Memory::default(),
        };
        Ok(ChunkSeen { view, ino: line.inode, index: line.index, held: line.held })
    }
}

fn name<T: DeserializeOwned>(entry: &Map<String, Value>, what: &'static str) -> Result<T, BadLine> {
    let value = entry.get(what).cloned().ok_or(BadLine::Nameless(what))?;
    serde_json::from_value(value).map_err(|_| BadLine::Nameless(what))
}

fn whole<T: DeserializeOwned>(
    fields: &Map<String, Value>,
    what: &'static str,
    name: &str,
) -> Result<T, BadLine> {
    T::deserialize(fields).map_err(|why| BadLine::Entry { what, name: name.to_owned(), why })
}

fn decision(line: DecisionLine) -> Result<Decision, BadLine> {
    let kind = match (line.raise, line.lower) {
        (Some(copies), None) => Kind::Raise { copies },
        (None, Some(server)) => Kind::Lower { server },
        (None, None) | (Some(_), Some(_)) => return Err(BadLine::NoDecision(line.chunk)),
    };
    Ok(Decision { chunk: line.chunk, kind, reason: line.inputs })
}
