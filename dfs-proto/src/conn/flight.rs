//! What is under way on the connections of this process: requests that peers wait for, and calls that wait for peers. Each
//! end answers [`InFlight`] with it where frames are taken in, so that a daemon which hangs behind that still tells
//! what it hangs at.
//!
//! What took long is remembered for a while. On the way of a request this costs a look at the clock at either end of
//! it, and a slot of a table that its connection has for itself.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::{Inner, PeerAddr, PeerInfo, PeerSaid};
use crate::ids::{ChunkId, Ino};
use crate::meta::{Flight, Flights, InFlight, Side};
use crate::request::Op;

/// What took longer is remembered: the second that a read may stall while a server dies.
const SLOW: Duration = Duration::from_secs(1);
/// So many of them, the last.
const SLOW_KEPT: usize = 64;
/// Most of one answer, whatever is asked for.
const REPORT_MAX: usize = 1000;

/// Connections of this process. Taken alone, when one begins and when somebody asks.
static CONNS: Mutex<Vec<Weak<Inner>>> = Mutex::new(Vec::new());
/// The last that took long. Taken alone.
static LATE: Mutex<VecDeque<Late>> = Mutex::new(VecDeque::new());
/// What else is under way here, if the process told.
static MORE: OnceLock<Box<dyn Fn() -> Vec<Flight> + Send + Sync>> = OnceLock::new();

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a request is about, as far as its first bytes tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Subject {
    ino: Option<Ino>,
    chunk: Option<ChunkId>,
}

impl Subject {
    fn of(op: Op, meta: &[u8]) -> Subject {
        match op {
            // A capability, or what a forward says in its place: chunk, session, inode.
            Op::Read | Op::Write | Op::Forward => {
                let word = |at: usize| {
                    let bytes = meta.get(at..at + 8)?;
                    Some(u64::from_le_bytes(bytes.try_into().ok()?))
                };
                Subject { chunk: word(0).map(ChunkId), ino: word(16).map(Ino) }
            }
            Op::Lookup
            | Op::Getattr
            | Op::Setattr
            | Op::Create
            | Op::Mkdir
            | Op::Mknod
            | Op::Symlink
            | Op::Readlink
            | Op::Link
            | Op::Unlink
            | Op::Rmdir
            | Op::Rename
            | Op::Readdir
            | Op::Getxattr
            | Op::Setxattr
            | Op::Listxattr
            | Op::Removexattr
            | Op::Open
            | Op::MapRead
            | Op::MapWrite
            | Op::Commit
            | Op::OpenChunks
            | Op::DropHoles
            | Op::Recall => Subject { ino: first_number(meta).map(Ino), chunk: None },
            _ => Subject::default(),
        }
    }
}

/// The first field of a message, which is a map with names in MessagePack, if it is a number.
fn first_number(meta: &[u8]) -> Option<u64> {
    let (head, rest) = meta.split_first()?;
    if !(0x81..=0x8f).contains(head) {
        return None;
    }
    let (name, rest) = rest.split_first()?;
    if !(0xa0..=0xbf).contains(name) {
        return None;
    }
    let (mark, rest) = rest.get(usize::from(name & 0x1f)..)?.split_first()?;
    let len = match mark {
        0..=0x7f => return Some(u64::from(*mark)),
        0xcc => 1,
        0xcd => 2,
        0xce => 4,
        0xcf => 8,
        _ => return None,
    };
    Some(rest.get(..len)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// Whether it is this that is asked: it is under way itself then.
fn is_question(op: Op) -> bool {
    matches!(op, Op::InFlight | Op::Ops)
}

/// One that is under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    op: Op,
    subject: Subject,
    began: Instant,
}

impl Entry {
    pub(crate) fn new(op: Op, meta: &[u8], began: Instant) -> Entry {
        Entry { op, subject: Subject::of(op, meta), began }
    }

    fn flight(&self, side: Side, peer: &PeerInfo, age: Duration) -> Flight {
        Flight {
            side,
            op: format!("{:?}", self.op),
            ino: self.subject.ino,
            chunk: self.subject.chunk,
            peer: name_of(peer),
            age_us: u64::try_from(age.as_micros()).unwrap_or(u64::MAX),
            ended_ms: None,
        }
    }

    /// It is over: remembered if it took long.
    pub(crate) fn over(&self, side: Side, peer: &PeerInfo) {
        let now = Instant::now();
        let took = now.saturating_duration_since(self.began);
        if took < SLOW || is_question(self.op) {
            return;
        }
        let flight = self.flight(side, peer, took);
        let mut late = lock(&LATE);
        if late.len() >= SLOW_KEPT {
            late.pop_front();
        }
        late.push_back(Late { flight, at: now });
    }
}

#[derive(Debug)]
struct Late {
    flight: Flight,
    at: Instant,
}

/// Requests of one peer that are being served.
#[derive(Debug, Default)]
pub(crate) struct Serving {
    /// Held for some loads and stores only. No other lock is taken under it.
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    slots: Vec<Option<Entry>>,
    free: Vec<usize>,
}

impl Serving {
    pub(crate) fn begin(&self, entry: Entry) -> usize {
        let mut table = lock(&self.table);
        match table.free.pop() {
            Some(at) => {
                table.slots[at] = Some(entry);
                at
            }
            None => {
                table.slots.push(Some(entry));
                table.slots.len() - 1
            }
        }
    }

    pub(crate) fn end(&self, at: usize) -> Option<Entry> {
        let mut table = lock(&self.table);
        let entry = table.slots.get_mut(at)?.take()?;
        table.free.push(at);
        Some(entry)
    }

    fn entries(&self) -> Vec<Entry> {
        lock(&self.table).slots.iter().flatten().copied().collect()
    }
}

/// A connection begins.
pub(crate) fn enter(inner: Weak<Inner>) {
    let mut conns = lock(&CONNS);
    if conns.len() == conns.capacity() {
        conns.retain(|conn| conn.strong_count() > 0);
    }
    conns.push(inner);
}

/// Has what `more` names told as well, by whoever asks this process. Once; later calls change nothing.
pub fn tell_more(more: impl Fn() -> Vec<Flight> + Send + Sync + 'static) {
    drop(MORE.set(Box::new(more)));
}

/// What is under way here and has taken as long as is asked for, the oldest first, and what took long lately.
#[must_use]
pub fn in_flight(asked: &InFlight) -> Flights {
    let most = usize::try_from(asked.most).unwrap_or(REPORT_MAX).min(REPORT_MAX);
    let conns: Vec<_> = lock(&CONNS).iter().filter_map(Weak::upgrade).collect();
    let now = Instant::now();
    let mut flights = MORE.get().map_or_else(Vec::new, |more| more());
    for inner in conns {
        let age = |entry: &Entry| now.saturating_duration_since(entry.began);
        let served = inner.serving_now.entries();
        let served = served.iter().filter(|entry| !is_question(entry.op));
        flights.extend(served.map(|entry| entry.flight(Side::Serves, &inner.peer, age(entry))));
        let called = inner.calls.entries();
        let called = called.iter().filter(|entry| !is_question(entry.op));
        flights.extend(called.map(|entry| entry.flight(Side::Calls, &inner.peer, age(entry))));
    }
    flights.retain(|flight| flight.age_us >= asked.min_us);
    flights.sort_by_key(|flight| std::cmp::Reverse(flight.age_us));
    let count = u64::try_from(flights.len()).unwrap_or(u64::MAX);
    flights.truncate(most);
    let ended_ms =
        |at: Instant| u64::try_from(now.saturating_duration_since(at).as_millis()).unwrap_or(u64::MAX);
    let slow = lock(&LATE)
        .iter()
        .rev()
        .take(most)
        .map(|late| Flight { ended_ms: Some(ended_ms(late.at)), ..late.flight.clone() })
        .collect();
    Flights { count, flights, slow }
}

/// A peer as people know it.
fn name_of(peer: &PeerInfo) -> String {
    let PeerInfo { addr, said } = peer;
    let name = match said {
        PeerSaid::Hello(hello) => format!("{} {}", hello.role.word(), hello.name),
        // Whoever was dialled says no role.
        PeerSaid::Welcome(welcome) => welcome.name.clone(),
    };
    match addr {
        // Who dials over a socket of this machine has no address there.
        PeerAddr::Unix(path) if path.as_os_str().is_empty() => name,
        addr => format!("{name} {addr}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Outgoing;
    use crate::meta::{Getattr, MapRead};
    use crate::units::ChunkIndex;

    #[test]
    fn the_first_number_of_a_message_is_found() {
        for ino in [1, 127, 128, 255, 256, 70_000, u64::MAX] {
            let out = Outgoing::request(&Getattr { ino: Ino(ino) }).unwrap();
            assert_eq!(Subject::of(out.op, &out.meta).ino, Some(Ino(ino)));
            let out = Outgoing::request(&MapRead { ino: Ino(ino), first: ChunkIndex(3), count: 1 }).unwrap();
            assert_eq!(Subject::of(out.op, &out.meta).ino, Some(Ino(ino)));
        }
        assert_eq!(first_number(b""), None);
        assert_eq!(first_number(&[0x81]), None);
        assert_eq!(first_number(&[0x81, 0xa1]), None);
        assert_eq!(first_number(&[0x81, 0xa1, b'i', 0xcf, 1, 2]), None);
        assert_eq!(first_number(&[0x81, 0xa1, b'i', 0xa1, b'x']), None);
        assert_eq!(Subject::of(Op::Read, &[1, 2, 3]), Subject::default());
    }

    #[test]
    fn slots_are_used_again() {
        let serving = Serving::default();
        let entry = Entry::new(Op::Ping, b"", Instant::now());
        let (a, b) = (serving.begin(entry), serving.begin(entry));
        assert!(serving.end(a).is_some());
        assert!(serving.end(a).is_none());
        assert_eq!(serving.begin(entry), a);
        assert_eq!(serving.entries().len(), 2);
        assert!(serving.end(b).is_some());
    }
}
