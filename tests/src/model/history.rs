//! What programs asked of files and were answered, in order. It records and judges nothing.

use super::stamp::{Found, Stamp};
use super::{Actor, FileNum, Tick};

/// How an operation ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    Done,
    /// It was reported as failed; a write may have taken effect all the same, now or later.
    Failed,
}

/// A return, with when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Returned {
    pub at: Tick,
    pub outcome: Outcome,
}

/// What an operation does to its sectors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Bytes,
    /// A truncation cuts them off.
    Cut,
    /// They become zeros where they are, in the order of writes; `grows`: the file reaches to their end afterwards.
    Hole {
        grows: bool,
    },
}

/// Bytes that one operation sets, in sectors: a write, or what a truncation cuts off.
#[derive(Clone, Debug)]
pub struct Write {
    pub kind: Kind,
    pub actor: Actor,
    pub file: FileNum,
    /// [`Stamp::ZERO`] but for bytes.
    pub stamp: Stamp,
    pub first: u64,
    /// First sector behind.
    pub end: u64,
    pub invoke: Tick,
    /// `None` while it is under way, and for ever if its actor died.
    pub returned: Option<Returned>,
    /// It was on the servers when it returned, so its actor's death does not touch it.
    pub through: bool,
}

/// What a flush promises.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FlushKind {
    /// On all replicas.
    Close,
    /// On the disks of all replicas.
    Fsync,
}

#[derive(Clone, Debug)]
pub struct Flush {
    pub actor: Actor,
    pub file: FileNum,
    pub kind: FlushKind,
    pub invoke: Tick,
    pub returned: Option<Returned>,
}

/// A descriptor that a program got. It has one at a time.
#[derive(Clone, Copy, Debug)]
pub struct Opened {
    pub actor: Actor,
    pub file: FileNum,
    pub at: Tick,
}

/// A read that returned.
#[derive(Clone, Debug)]
pub struct Read {
    pub actor: Actor,
    pub file: FileNum,
    pub first: u64,
    /// One a sector; what the file did not reach to counts as zeros.
    pub found: Vec<Found>,
    pub invoke: Tick,
    pub at: Tick,
    /// It may have come out of its mount's cache.
    pub cached: bool,
}

/// An event after which what was not synced may be gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// The power of a chunk server failed, or its disk did and took what was not synced.
    Server { server: u16, at: Tick },
    /// The process of a chunk server ended, and with it what it knew of writes that were done.
    Process { server: u16, at: Tick },
    /// The master lost the records that it wrote after `since`.
    Tail { since: Tick, at: Tick },
}

impl Loss {
    #[must_use]
    pub fn at(self) -> Tick {
        match self {
            Loss::Server { at, .. } | Loss::Process { at, .. } | Loss::Tail { at, .. } => at,
        }
    }
}

/// A number by which a recorder finds its entry again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WriteRef(usize);
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlushRef(usize);

/// Everything of one run.
#[derive(Clone, Debug, Default)]
pub struct History {
    tick: u64,
    stamps: u64,
    pub writes: Vec<Write>,
    pub flushes: Vec<Flush>,
    pub opens: Vec<Opened>,
    pub reads: Vec<Read>,
    pub losses: Vec<Loss>,
}

impl History {
    /// The next point in the order.
    pub fn tick(&mut self) -> Tick {
        self.tick += 1;
        Tick(self.tick)
    }

    /// The last point given out.
    #[must_use]
    pub fn now(&self) -> Tick {
        Tick(self.tick)
    }

    /// A stamp that no write has.
    pub fn stamp(&mut self) -> Stamp {
        self.stamps += 1;
        Stamp(self.stamps)
    }

    /// A write or truncation begins.
    pub fn write(&mut self, actor: Actor, file: FileNum, stamp: Stamp, first: u64, end: u64) -> WriteRef {
        let kind = if stamp == Stamp::ZERO { Kind::Cut } else { Kind::Bytes };
        self.begin(kind, actor, file, stamp, (first, end))
    }

    /// A write of zeros begins.
    pub fn hole(&mut self, actor: Actor, file: FileNum, first: u64, end: u64, grows: bool) -> WriteRef {
        self.begin(Kind::Hole { grows }, actor, file, Stamp::ZERO, (first, end))
    }

    fn begin(
        &mut self,
        kind: Kind,
        actor: Actor,
        file: FileNum,
        stamp: Stamp,
        (first, end): (u64, u64),
    ) -> WriteRef {
        let invoke = self.tick();
        let (returned, through) = (None, false);
        self.writes.push(Write { kind, actor, file, stamp, first, end, invoke, returned, through });
        WriteRef(self.writes.len() - 1)
    }

    pub fn write_returned(&mut self, which: WriteRef, outcome: Outcome, through: bool) {
        let at = self.tick();
        let write = &mut self.writes[which.0];
        write.returned = Some(Returned { at, outcome });
        write.through = through;
    }

    pub fn opened(&mut self, actor: Actor, file: FileNum) {
        let at = self.tick();
        self.opens.push(Opened { actor, file, at });
    }

    pub fn flush(&mut self, actor: Actor, file: FileNum, kind: FlushKind) -> FlushRef {
        let invoke = self.tick();
        self.flushes.push(Flush { actor, file, kind, invoke, returned: None });
        FlushRef(self.flushes.len() - 1)
    }

    pub fn flush_returned(&mut self, which: FlushRef, outcome: Outcome) {
        let at = self.tick();
        self.flushes[which.0].returned = Some(Returned { at, outcome });
    }

    pub fn read(
        &mut self,
        actor: Actor,
        file: FileNum,
        first: u64,
        found: Vec<Found>,
        invoke: Tick,
        cached: bool,
    ) {
        let at = self.tick();
        self.reads.push(Read { actor, file, first, found, invoke, at, cached });
    }

    /// Since when the bytes of a read were on the servers for certain: a cache may have had them from the mount's
    /// first open on.
    #[must_use]
    pub fn fetched_since(&self, read: &Read) -> Tick {
        let opens = self.opens.iter().filter(|open| read.cached && open.actor.client == read.actor.client);
        opens.map(|open| open.at).min().unwrap_or(read.invoke)
    }

    /// The history from here on, when all that `files` hold was just read and is durable: `actor` synced it. No
    /// stamp is given out twice, and no loss counts that came before.
    #[must_use]
    pub fn continued(&self, actor: Actor, files: &[(FileNum, Vec<Found>)]) -> History {
        let mut next = History { tick: self.tick, stamps: self.stamps, ..History::default() };
        for (file, found) in files {
            let mut first = 0;
            for run in found.chunk_by(|a, b| a == b) {
                let end = first + run.len() as u64;
                if let Found::Stamp(stamp) = run[0]
                    && stamp != Stamp::ZERO
                {
                    let written = next.write(actor, *file, stamp, first, end);
                    next.write_returned(written, Outcome::Done, true);
                }
                first = end;
            }
            let synced = next.flush(actor, *file, FlushKind::Fsync);
            next.flush_returned(synced, Outcome::Done);
        }
        next
    }

    /// Everything in order, a line each: for whoever has to find out what went wrong.
    #[must_use]
    pub fn story(&self) -> String {
        let end = |returned: Option<Returned>| match returned {
            Some(Returned { at, outcome }) => format!("until {} {outcome:?}", at.0),
            None => "without an end".to_owned(),
        };
        let mut lines: Vec<(Tick, String)> = Vec::new();
        for Write { kind, actor, file, stamp, first, end: behind, invoke, returned, .. } in &self.writes {
            let what = match kind {
                Kind::Bytes => format!("writes {stamp:?}"),
                Kind::Cut => "cuts".to_owned(),
                Kind::Hole { grows } => format!("punches (grows {grows})"),
            };
            let what = format!("{file:?} {actor:?} {what} {first}..{behind} {}", end(*returned));
            lines.push((*invoke, what));
        }
        for Flush { actor, file, kind, invoke, returned } in &self.flushes {
            lines.push((*invoke, format!("{file:?} {actor:?} {kind:?} {}", end(*returned))));
        }
        for Opened { actor, file, at } in &self.opens {
            lines.push((*at, format!("{file:?} {actor:?} has it open")));
        }
        for Read { actor, file, first, found, invoke, at, .. } in &self.reads {
            let mut sector = *first;
            let runs = found.chunk_by(|a, b| a == b).map(|run| {
                let from = sector;
                sector += run.len() as u64;
                format!(" {from}..{sector} {:?}", run[0])
            });
            let what = runs.collect::<String>();
            lines.push((*invoke, format!("{file:?} {actor:?} reads until {}:{what}", at.0)));
        }
        lines.extend(self.losses.iter().map(|loss| (loss.at(), format!("{loss:?}"))));
        lines.sort();
        lines.into_iter().map(|(at, line)| format!("{} {line}\n", at.0)).collect()
    }

    pub fn server_lost_power(&mut self, server: u16) {
        let at = self.tick();
        self.losses.push(Loss::Server { server, at });
    }

    pub fn server_ended(&mut self, server: u16) {
        let at = self.tick();
        self.losses.push(Loss::Process { server, at });
    }

    pub fn tail_lost(&mut self, since: Tick) {
        let at = self.tick();
        self.losses.push(Loss::Tail { since, at });
    }
}
