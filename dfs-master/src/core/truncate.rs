//! Setting a size. Cutting inside a chunk takes two records with a ZERO at the chunk's primary between
//! them; everything else takes one.
//!
//! Invariant: from the first record to the second no capability of the inode is given out and no size is
//! committed; a new leader takes the second half up from the log, and zeroing twice does no harm.

use std::collections::BTreeMap;

use dfs_proto::control::Zero;
use dfs_proto::ids::{Ino, LogIndex, SizeEpoch};
use dfs_proto::meta::{self, Done};
use dfs_proto::planted;
use dfs_proto::status::Status;
use dfs_proto::units::Micros;

use super::Core;
use super::command::{Answer, Command, Origin};
use super::dispatch::{Client, Then};
use super::namespace::Caller as By;
use super::ops::{self, NsCommand, TruncateBy, TruncateStep};
use super::recovery::MemberStanding;
use super::reply::{Asked, COMMAND_DEADLINE_MS, Caller};

/// How long after a failed ZERO the next is sent.
const AGAIN_MS: u64 = 200;

/// A change of size between two of its records.
#[derive(Clone, Debug)]
pub(super) struct Cut {
    pub(super) caller: Option<Caller>,
    ino: Ino,
    /// Attributes that were to be set along with the size.
    rest: Option<ops::Setattr>,
    /// Whose answer the last record is.
    origin: Option<Origin>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Until the time for the next try.
    Waiting(Micros),
    Zeroing,
    Ending,
}

/// Cuts whose boundary chunk is being zeroed.
#[derive(Clone, Debug, Default)]
pub(super) struct Truncates {
    jobs: BTreeMap<Ino, (Cut, Phase)>,
}

impl Truncates {
    /// Whether a repeated request is one of these; its caller waits then.
    pub(super) fn adopt(&mut self, origin: Origin, caller: Caller) -> bool {
        let same = |cut: &&mut (Cut, Phase)| {
            cut.0.origin.is_some_and(|other| (other.session, other.rid) == (origin.session, origin.rid))
        };
        match self.jobs.values_mut().find(same) {
            Some((cut, _)) => {
                cut.caller = Some(caller);
                true
            }
            None => false,
        }
    }

    /// Takes the job out that `origin` asked for. Another's stays: an intent that came second fails, and the
    /// first goes on.
    fn end(&mut self, ino: Ino, origin: Option<Origin>) -> Option<Cut> {
        let mine = self.jobs.get(&ino).is_some_and(|(cut, _)| cut.origin == origin);
        if mine { self.jobs.remove(&ino).map(|(cut, _)| cut) } else { None }
    }
}

impl Core {
    pub(super) fn setattr(&mut self, client: &Client, request: &meta::Setattr) -> Result<(), Status> {
        let meta::Setattr { ino, handle, mode, uid, gid, size, atime, mtime, ref creds } = *request;
        let (now, by) = (self.now.wall, By::from(creds));
        let rest = ops::Setattr { ino, mode, uid, gid, atime, mtime, now, by: by.clone() };
        let Some(size) = size else { return self.change(client, NsCommand::Setattr(rest)) };
        let alone = mode.is_none() && uid.is_none() && gid.is_none() && atime.is_none() && mtime.is_none();
        if !alone {
            self.state.ns.check(&NsCommand::Setattr(rest.clone()))?;
        }
        let by_handle = handle.is_some_and(|handle| self.soft.grants.writes(ino, client.session, handle));
        let by = TruncateBy { caller: by, by_handle };
        let step = self.state.ns.truncate_step(ino, size)?;
        if let TruncateStep::Boundary { chunk, .. } = step
            && let Some(meta) = self.state.chunks.get(chunk)
        {
            // Once it is in the log, nothing can be done with the file until the chunk was zeroed.
            self.check_disks(chunk, &meta)?;
        }
        let (command, cuts) = match step {
            TruncateStep::Direct => (NsCommand::Truncate(ops::Truncate { ino, size, now, by }), false),
            TruncateStep::Boundary { .. } => {
                (NsCommand::TruncateIntent(ops::TruncateIntent { ino, size, now, by }), true)
            }
        };
        self.state.ns.check(&command)?;
        self.clear_grants(ino, client.session, true)?;
        if alone && !cuts {
            self.propose(client.origin, Command::Ns(command), Then::Reply(client.caller))?;
            return Ok(());
        }
        let rest = (!alone).then_some(rest);
        let cut = Cut { caller: Some(client.caller), ino, rest, origin: client.origin };
        // With attributes to follow, the answer is theirs.
        let origin = if alone { client.origin } else { None };
        self.propose(origin, Command::Ns(command), Then::Cut(Box::new(cut)))?;
        Ok(())
    }

    /// A record of a cut was applied.
    pub(super) fn cut_goes_on(&mut self, cut: Cut, _: Option<Origin>, answer: &Answer, index: LogIndex) {
        let ino = cut.ino;
        match answer {
            Answer::Intended => {
                if let Some(intent) = self.state.ns.intent(ino) {
                    let chunk = intent.boundary.chunk;
                    self.soft.closing.opened(chunk, index);
                }
                self.soft.truncate.jobs.insert(ino, (cut, Phase::Waiting(self.now.mono)));
                self.zero(ino);
                return;
            }
            Answer::Failed(status) => {
                let mine = self.soft.truncate.end(ino, cut.origin).is_some();
                if mine && self.state.ns.intent(ino).is_some() {
                    // The session's end came into the log before the cut's: nobody waits for it, and it ends all the same.
                    let cut = Cut { caller: None, ino, rest: None, origin: None };
                    self.soft.truncate.jobs.insert(ino, (cut, Phase::Waiting(self.now.mono)));
                }
                if let Some(caller) = cut.caller {
                    self.fail(caller, *status);
                }
                return;
            }
            Answer::Attr(_)
            | Answer::Done
            | Answer::Created(_)
            | Answer::Removed(_)
            | Answer::Renamed(_)
            | Answer::Placed(_)
            | Answer::Session(_)
            | Answer::Server(_) => {}
        }
        // A caller that asked again meanwhile waits in the job.
        let caller = self.soft.truncate.end(ino, cut.origin).and_then(|job| job.caller).or(cut.caller);
        match (cut.rest, caller) {
            (Some(rest), Some(caller)) => {
                let command = Command::Ns(NsCommand::Setattr(rest));
                if let Err(status) = self.propose(cut.origin, command, Then::Reply(caller)) {
                    self.fail(caller, status);
                }
            }
            (_, Some(caller)) => self.answer(caller, answer, index, false),
            (_, None) => {}
        }
    }

    /// Sends the ZERO, if the boundary chunk's primary serves.
    fn zero(&mut self, ino: Ino) {
        let Some((_, phase)) = self.soft.truncate.jobs.get(&ino) else { return };
        if !matches!(phase, Phase::Waiting(_)) {
            return;
        }
        let Some(boundary) = self.state.ns.intent(ino).map(|intent| intent.boundary) else {
            return self.cut_is_void(ino);
        };
        let (chunk, size_epoch) = (boundary.chunk, boundary.size_epoch);
        if planted!(SkipZero) {
            return self.end_cut(ino, size_epoch);
        }
        let Some(meta) = self.state.chunks.get(chunk) else { return self.cut_is_void(ino) };
        let again = Phase::Waiting(self.now.mono.plus_ms(AGAIN_MS));
        let primary = meta.members.primary().filter(|server| {
            meta.is_active()
                && matches!(self.member_standing(chunk, &meta, 0, *server), MemberStanding::Serving(_))
        });
        let sent = primary.is_some_and(|primary| {
            let (version, config, open_num) = (meta.version, meta.config, meta.open_num);
            let offset = boundary.from;
            let request = Zero { term: self.term(), chunk, version, config, open_num, offset, size_epoch };
            let asked = Asked::Zero { ino, size_epoch };
            self.call(primary, &request, asked, COMMAND_DEADLINE_MS, self.state.applied)
        });
        if let Some((_, phase)) = self.soft.truncate.jobs.get_mut(&ino) {
            *phase = if sent { Phase::Zeroing } else { again };
        }
        if !sent {
            self.recover_on_demand(chunk, &meta);
        }
    }

    /// The inode went while it was being cut.
    fn cut_is_void(&mut self, ino: Ino) {
        if let Some((Cut { caller: Some(caller), .. }, _)) = self.soft.truncate.jobs.remove(&ino) {
            self.fail(caller, Status::Stale);
        }
    }

    pub(super) fn zeroed(&mut self, ino: Ino, size_epoch: SizeEpoch, result: Result<Done, Status>) {
        let intent = self.state.ns.intent(ino).map(|intent| intent.boundary);
        let Some(boundary) = intent.filter(|boundary| boundary.size_epoch == size_epoch) else { return };
        let Some((_, phase)) = self.soft.truncate.jobs.get_mut(&ino) else { return };
        *phase = Phase::Waiting(self.now.mono.plus_ms(AGAIN_MS));
        let Some(meta) = self.state.chunks.get(boundary.chunk) else { return self.cut_is_void(ino) };
        match result {
            Ok(Done {}) => self.end_cut(ino, size_epoch),
            // Nothing was written yet. A recovery voids the old capabilities, so that no late write of an
            // older epoch makes the file, and the primary then knows the chunk and can zero it.
            Err(Status::NoChunk) => self.recover_anyway(boundary.chunk, &meta),
            Err(status) => {
                log::debug!("inode {ino}: the chunk it is cut in is not zeroed yet: {status}");
                self.recover_on_demand(boundary.chunk, &meta);
            }
        }
    }

    fn end_cut(&mut self, ino: Ino, size_epoch: SizeEpoch) {
        let Some((cut, _)) = self.soft.truncate.jobs.get(&ino) else { return };
        let cut = cut.clone();
        let origin = if cut.rest.is_none() { cut.origin } else { None };
        let ends = NsCommand::TruncateFinal(ops::TruncateFinal { ino, size_epoch, now: self.now.wall });
        // The record's answer is the client's, whose session may have ended: the cut ends all the same.
        let origin = origin.filter(|origin| self.state.sessions.get(origin.session).is_some());
        let proposed = self.propose(origin, Command::Ns(ends), Then::Cut(Box::new(cut))).is_ok();
        if proposed && let Some((_, phase)) = self.soft.truncate.jobs.get_mut(&ino) {
            *phase = Phase::Ending;
        }
    }

    pub(super) fn truncate_tick(&mut self) {
        let now = self.now.mono;
        let due = |phase: &Phase| matches!(phase, Phase::Waiting(until) if *until <= now);
        let jobs = self.soft.truncate.jobs.iter();
        let due: Vec<Ino> = jobs.filter(|(_, (_, phase))| due(phase)).map(|(ino, _)| *ino).collect();
        due.into_iter().for_each(|ino| self.zero(ino));
    }

    /// A new leader goes on where the one before stopped.
    pub(super) fn take_up_truncations(&mut self) {
        let now = self.now.mono;
        let inos: Vec<Ino> = self.state.ns.intents().map(|(ino, _)| ino).collect();
        for ino in inos {
            let origin = self.state.cuts.get(&ino).copied();
            let cut = Cut { caller: None, ino, rest: None, origin };
            self.soft.truncate.jobs.insert(ino, (cut, Phase::Waiting(now)));
        }
    }
}
