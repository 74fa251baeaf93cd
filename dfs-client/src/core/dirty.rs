//! The write-behind buffer of one file: bytes that programs wrote and no chunk server has yet.
//!
//! Dirty extents are disjoint and never cross a window (see `split::window`), so that what goes out in
//! one request lies in one chunk. Growing a sequential run adds extents of doubling size instead of
//! moving bytes. A batch that was taken is *flying*: it still covers reads until it has landed.
//! Invariant: flying extents are disjoint, and a dirty byte under a flying one stays until that landed,
//! so that two requests for the same byte are never under way together.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use dfs_proto::chunk::{RANGES_MAX, Range};
use dfs_proto::units::{ChunkIndex, ChunkSize};

use crate::core::split::{part_crcs, window};

/// Names a batch that is flying.
pub(crate) type FlightId = u64;

/// A request's worth of dirty bytes, all of one chunk.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub(crate) flight: FlightId,
    pub(crate) index: ChunkIndex,
    /// Ascending, disjoint, not adjacent.
    pub(crate) ranges: Vec<Range>,
    /// The ranges' bytes, one behind the other.
    pub(crate) parts: Vec<Bytes>,
    /// Of each range, which part is its first.
    firsts: Vec<usize>,
    pub(crate) bytes: u64,
    /// Where in the file the last byte ends.
    pub(crate) end: u64,
}

impl Batch {
    /// One checksum for every part of a block that a range covers. Takes its time: not under a lock.
    pub(crate) fn crcs(&self) -> Vec<u32> {
        let mut crcs = Vec::new();
        for (nth, range) in self.ranges.iter().enumerate() {
            let stop = self.firsts.get(nth + 1).copied().unwrap_or(self.parts.len());
            part_crcs(range.offset, &self.parts[self.firsts[nth]..stop], &mut crcs);
        }
        crcs
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Dirty {
    chunk: ChunkSize,
    window: u64,
    extents: BTreeMap<u64, BytesMut>,
    bytes: u64,
    /// Dirty bytes of each window that has any.
    windows: BTreeMap<u64, u64>,
    /// How many windows are wholly dirty.
    full: usize,
    flying: BTreeMap<u64, Bytes>,
    flights: BTreeMap<FlightId, Vec<u64>>,
    flying_bytes: u64,
    next_flight: FlightId,
    /// Flights before this one are to end.
    given_up: FlightId,
}

fn len_of(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// A distance within one buffer.
fn index_of(distance: u64) -> usize {
    usize::try_from(distance).unwrap_or(usize::MAX)
}

impl Dirty {
    pub(crate) fn new(chunk: ChunkSize) -> Dirty {
        Dirty {
            chunk,
            window: window(chunk),
            extents: BTreeMap::new(),
            bytes: 0,
            windows: BTreeMap::new(),
            full: 0,
            flying: BTreeMap::new(),
            flights: BTreeMap::new(),
            flying_bytes: 0,
            next_flight: 1,
            given_up: 0,
        }
    }

    /// Bytes that no request carries yet.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Nothing dirty, nothing flying.
    pub(crate) fn is_clean(&self) -> bool {
        self.extents.is_empty() && self.flying.is_empty()
    }

    /// Requests under way.
    pub(crate) fn flights(&self) -> usize {
        self.flights.len()
    }

    /// Windows that are wholly dirty: worth sending before anybody asks.
    pub(crate) fn full_windows(&self) -> usize {
        self.full
    }

    /// Where the last byte held ends.
    pub(crate) fn end(&self) -> Option<u64> {
        let dirty = self.extents.last_key_value().map(|(at, data)| at + len_of(data));
        let flying = self.flying.last_key_value().map(|(at, data)| at + len_of(data));
        dirty.max(flying)
    }

    /// Whether any byte held lies within.
    pub(crate) fn overlaps(&self, offset: u64, len: u64) -> bool {
        let end = offset.saturating_add(len);
        hits(&self.extents, offset, end) || hits(&self.flying, offset, end)
    }

    /// Takes a copy of `data`. Returns by how much the dirty bytes grew.
    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) -> u64 {
        let before = self.bytes;
        let mut at = offset;
        let mut rest = data;
        while !rest.is_empty() {
            let room = index_of(self.window - at % self.window);
            let (head, tail) = rest.split_at(rest.len().min(room));
            self.write_window(at, head);
            at += len_of(head);
            rest = tail;
        }
        self.bytes - before
    }

    /// A write within one window: over what is there in place, into gaps by new bytes.
    fn write_window(&mut self, offset: u64, data: &[u8]) {
        let end = offset + len_of(data);
        let mut at = offset;
        while at < end {
            let covering = self.extents.range_mut(..=at).next_back();
            if let Some((start, extent)) = covering
                && *start + len_of(extent) > at
            {
                let from = index_of(at - *start);
                let stop = end.min(*start + len_of(extent));
                let len = index_of(stop - at);
                let source = index_of(at - offset);
                extent[from..from + len].copy_from_slice(&data[source..source + len]);
                at = stop;
            } else {
                let next = self.extents.range(at..end).next().map_or(end, |(start, _)| *start);
                self.fill_gap(at, &data[index_of(at - offset)..index_of(next - offset)]);
                at = next;
            }
        }
    }

    /// New bytes where there are none: into spare room of the extent before, or as a new one.
    fn fill_gap(&mut self, at: u64, data: &[u8]) {
        self.count(at, len_of(data));
        let window_start = at / self.window * self.window;
        let mut run = 0;
        let mut at = at;
        let mut data = data;
        if let Some((start, extent)) = self.extents.range_mut(window_start..at).next_back()
            && *start + len_of(extent) == at
        {
            let spare = (extent.capacity() - extent.len()).min(data.len());
            extent.extend_from_slice(&data[..spare]);
            at += len_of(&data[..spare]);
            data = &data[spare..];
            run = extent.len();
        }
        if !data.is_empty() {
            let left = index_of(window_start + self.window - at);
            let capacity = data.len().max(run.saturating_mul(2)).min(left.max(data.len()));
            let mut extent = BytesMut::with_capacity(capacity);
            extent.extend_from_slice(data);
            self.extents.insert(at, extent);
        }
    }

    fn count(&mut self, at: u64, len: u64) {
        self.bytes += len;
        let in_window = self.windows.entry(at / self.window).or_default();
        *in_window += len;
        self.full += usize::from(*in_window == self.window);
    }

    fn uncount(&mut self, at: u64, len: u64) {
        self.bytes -= len;
        let key = at / self.window;
        if let Some(in_window) = self.windows.get_mut(&key) {
            self.full -= usize::from(*in_window == self.window);
            *in_window -= len;
            if *in_window == 0 {
                self.windows.remove(&key);
            }
        }
    }

    /// What is held of a stretch, as it is now.
    pub(crate) fn held(&self, offset: u64, len: u64) -> Held {
        let end = offset.saturating_add(len);
        let mut parts = Vec::new();
        for (start, extent) in self.flying.range(first_hit(&self.flying, offset)..end) {
            parts.extend(cut(*start, extent, offset, end, |bytes, from, to| bytes.slice(from..to)));
        }
        for (start, extent) in self.extents.range(first_hit(&self.extents, offset)..end) {
            let copy = |bytes: &BytesMut, from, to| Bytes::copy_from_slice(&bytes[from..to]);
            parts.extend(cut(*start, extent, offset, end, copy));
        }
        Held { parts }
    }

    /// Drops dirty bytes from `size` on. Nothing may be flying there. Returns how many were dropped.
    pub(crate) fn truncate(&mut self, size: u64) -> u64 {
        let before = self.bytes;
        while let Some((&start, extent)) = self.extents.last_key_value() {
            let end = start + len_of(extent);
            if end <= size {
                break;
            }
            let Some(mut extent) = self.extents.remove(&start) else { break };
            let keep = size.saturating_sub(start);
            self.uncount(start, end - start.max(size));
            if keep > 0 {
                extent.truncate(index_of(keep));
                self.extents.insert(start, extent);
            }
        }
        before - self.bytes
    }

    /// Drops dirty bytes within `from..to`. Nothing may be flying there. Returns how many were dropped.
    pub(crate) fn punch(&mut self, from: u64, to: u64) -> u64 {
        let before = self.bytes;
        let candidates = self.extents.range(first_hit(&self.extents, from)..to);
        let hit =
            candidates.filter(|(start, extent)| **start + len_of(extent) > from).map(|(start, _)| *start);
        for start in hit.collect::<Vec<u64>>() {
            let Some(mut extent) = self.extents.remove(&start) else { continue };
            let end = start + len_of(&extent);
            let (first, last) = (from.clamp(start, end), to.clamp(start, end));
            let tail = extent.split_off(index_of(last - start));
            extent.truncate(index_of(first - start));
            self.uncount(start, last - first);
            for (at, part) in [(start, extent), (last, tail)] {
                if !part.is_empty() {
                    self.extents.insert(at, part);
                }
            }
        }
        before - self.bytes
    }

    /// Drops everything dirty, and gives up what is flying, which fails by itself. Returns how many bytes were dropped.
    pub(crate) fn drop_dirty(&mut self) -> u64 {
        self.given_up = self.next_flight;
        self.truncate(0)
    }

    /// Whether a batch is not to be sent again.
    pub(crate) fn is_given_up(&self, flight: FlightId) -> bool {
        flight < self.given_up
    }

    /// The next request: of the first window that is wholly dirty, or (`all`) of the first dirty bytes
    /// with those behind them in the same chunk, as far as one request carries them.
    pub(crate) fn take(&mut self, all: bool) -> Option<Batch> {
        if all { self.take_from(0, u64::MAX) } else { self.take_full() }
    }

    fn take_full(&mut self) -> Option<Batch> {
        if self.full == 0 {
            return None;
        }
        let full: Vec<u64> =
            self.windows.iter().filter(|(_, len)| **len == self.window).map(|(key, _)| *key).collect();
        full.into_iter().find_map(|key| {
            let start = key * self.window;
            let stop = start.saturating_add(self.window);
            if hits(&self.flying, start, stop) { None } else { self.take_from(start, stop) }
        })
    }

    fn take_from(&mut self, from: u64, to: u64) -> Option<Batch> {
        let (starts, index) = self.choose(from, to)?;
        let flight = self.next_flight;
        self.next_flight += 1;
        let mut batch = Batch {
            flight,
            index,
            ranges: Vec::new(),
            parts: Vec::with_capacity(starts.len()),
            firsts: Vec::new(),
            bytes: 0,
            end: 0,
        };
        for start in &starts {
            let Some(extent) = self.extents.remove(start) else { continue };
            let bytes = extent.freeze();
            let len = len_of(&bytes);
            self.uncount(*start, len);
            self.flying_bytes += len;
            let (_, offset) = self.chunk.locate(*start);
            let len32 = u32::try_from(len).unwrap_or(u32::MAX);
            match batch.ranges.last_mut() {
                Some(last) if last.end() == offset => last.len += len32,
                Some(_) | None => {
                    batch.firsts.push(batch.parts.len());
                    batch.ranges.push(Range { offset, len: len32 });
                }
            }
            batch.bytes += len;
            batch.end = start + len;
            batch.parts.push(bytes.clone());
            self.flying.insert(*start, bytes);
        }
        self.flights.insert(flight, starts);
        Some(batch)
    }

    /// Which extents one request takes from those that begin in `from..to`.
    fn choose(&self, from: u64, to: u64) -> Option<(Vec<u64>, ChunkIndex)> {
        let mut starts: Vec<u64> = Vec::new();
        let mut index = None;
        let (mut bytes, mut ranges, mut last_end) = (0, 0, None);
        for (&start, extent) in self.extents.range(from..to) {
            let end = start + len_of(extent);
            if hits(&self.flying, start, end) {
                continue;
            }
            let (chunk, _) = self.chunk.locate(start);
            let more = usize::from(last_end != Some(start));
            let fits = *index.get_or_insert(chunk) == chunk
                && bytes + (end - start) <= self.window
                && ranges + more <= RANGES_MAX;
            if !fits {
                break;
            }
            bytes += end - start;
            ranges += more;
            last_end = Some(end);
            starts.push(start);
        }
        if starts.is_empty() { None } else { index.map(|index| (starts, index)) }
    }

    /// A request has its final answer, good or bad: its bytes are the servers' or lost. Returns how many.
    pub(crate) fn landed(&mut self, flight: FlightId) -> u64 {
        let mut bytes = 0;
        for start in self.flights.remove(&flight).unwrap_or_default() {
            if let Some(extent) = self.flying.remove(&start) {
                bytes += len_of(&extent);
            }
        }
        self.flying_bytes -= bytes;
        bytes
    }
}

/// Whether any extent has a byte in `offset..end`.
fn hits<T: AsRef<[u8]>>(extents: &BTreeMap<u64, T>, offset: u64, end: u64) -> bool {
    let before = extents.range(..end).next_back();
    before.is_some_and(|(start, extent)| offset < end && start + len_of(extent.as_ref()) > offset)
}

/// Where to begin looking for extents with bytes from `offset` on.
fn first_hit<T>(extents: &BTreeMap<u64, T>, offset: u64) -> u64 {
    extents.range(..=offset).next_back().map_or(offset, |(start, _)| *start)
}

/// The part of an extent within `offset..end`, with its place in the file.
fn cut<T: AsRef<[u8]>>(
    start: u64,
    extent: &T,
    offset: u64,
    end: u64,
    take: impl FnOnce(&T, usize, usize) -> Bytes,
) -> Option<(u64, Bytes)> {
    let from = start.max(offset);
    let stop = end.min(start + len_of(extent.as_ref()));
    (from < stop).then(|| (from, take(extent, index_of(from - start), index_of(stop - start))))
}

/// Bytes that lie over those of the servers; later parts over earlier ones.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held {
    parts: Vec<(u64, Bytes)>,
}

impl Held {
    pub(crate) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Lays them over `out`, which was read from `offset`.
    pub(crate) fn lay(&self, offset: u64, out: &mut [u8]) {
        for (start, part) in &self.parts {
            let at = index_of(start.saturating_sub(offset));
            out[at..at + part.len()].copy_from_slice(part);
        }
    }

    /// Those of them that lie below `end`.
    pub(crate) fn below(&self, end: u64) -> Held {
        let clip = |(start, part): &(u64, Bytes)| {
            let len = len_of(part).min(end.saturating_sub(*start));
            (len > 0).then(|| (*start, part.slice(..index_of(len))))
        };
        Held { parts: self.parts.iter().filter_map(clip).collect() }
    }

    /// Whether they leave nothing of the stretch to be read.
    pub(crate) fn covers(&self, offset: u64, len: u64) -> bool {
        let mut spans: Vec<(u64, u64)> =
            self.parts.iter().map(|(start, part)| (*start, start + len_of(part))).collect();
        spans.sort_unstable();
        let reach = spans.iter().fold(
            offset,
            |reach, (start, end)| {
                if *start <= reach { reach.max(*end) } else { reach }
            },
        );
        reach >= offset.saturating_add(len)
    }
}

#[cfg(test)]
mod tests;
