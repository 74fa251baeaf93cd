//! What a failed try means: repeat, repeat elsewhere, or give up; and how long to wait before.

use std::time::Duration;

use dfs_proto::status::Status;

use crate::core::rng::Rng;
use crate::error::Error;
use crate::net::NetError;

/// Waits before the second, third, ... try, in milliseconds. The first are short: most of what is waited
/// for (a recall, a recovery after a proof of death) takes some ten milliseconds.
const WAITS_MS: [u64; 6] = [5, 10, 20, 50, 100, 200];
/// The waits after those, as long as a lease lasts that may be waited for, about six seconds.
const LEASE_WAIT_MS: u64 = 250;
const LEASE_TRIES: usize = 24;
/// Every later wait: a cluster that is down for minutes is asked once a second by each caller.
const WAIT_MAX_MS: u64 = 1000;

/// The waits of one operation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backoff {
    tries: usize,
}

impl Backoff {
    /// The next wait, up to a quarter shorter at random so that callers spread.
    pub(crate) fn next(&mut self, rng: &mut Rng) -> Duration {
        let later = if self.tries < WAITS_MS.len() + LEASE_TRIES { LEASE_WAIT_MS } else { WAIT_MAX_MS };
        let ms = WAITS_MS.get(self.tries).copied().unwrap_or(later);
        self.tries = self.tries.saturating_add(1);
        let us = ms * 1000;
        let spread = usize::try_from(us / 4).unwrap_or(1).max(1);
        Duration::from_micros(us - u64::try_from(rng.below(spread)).unwrap_or(0))
    }
}

/// What to do after a try at the master failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum MasterNext {
    /// Wait and send again on the same link.
    Again,
    /// The link is of no use: a new one, then again.
    NewLink,
    /// The session is over.
    NoSession,
    /// The caller's groups are needed.
    Groups,
    /// That is the answer.
    Fail(Error),
    /// The writes were made under an older truncation epoch.
    OldEpoch,
}

/// After a try at the master.
pub(crate) fn after_master(error: &NetError) -> MasterNext {
    let status = match error {
        NetError::Closed | NetError::Unreachable { .. } | NetError::Malformed => return MasterNext::NewLink,
        NetError::Deadline => return MasterNext::Again,
        NetError::Status(status, _) => *status,
    };
    match status {
        passing if passing.passes() => MasterNext::Again,
        Status::NotLeader | Status::Disconnected | Status::NoHello => MasterNext::NewLink,
        Status::NoSession => MasterNext::NoSession,
        Status::NeedGroups => MasterNext::Groups,
        Status::OldEpoch => MasterNext::OldEpoch,
        other => MasterNext::Fail(Error::from_status(other)),
    }
}

/// What to do after a try at a chunk server failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ChunkNext {
    /// The same server, after a wait.
    Again,
    /// Another member at once; the master need not know.
    Elsewhere,
    /// The primary at once.
    Primary,
    /// Another member at once, and the master is told of this one.
    Suspect { dead: bool },
    /// Another member at once, and the master is told of the stored block.
    Corrupt,
    /// The place is out of date: ask the master.
    NewPlace,
    /// The file was truncated: ask the master.
    OldEpoch,
    /// That is the answer.
    Fail(Error),
}

/// After a try at a chunk server.
pub(crate) fn after_chunk(error: &NetError) -> ChunkNext {
    let status = match error {
        NetError::Closed | NetError::Deadline => return ChunkNext::Suspect { dead: false },
        NetError::Unreachable { dead } => return ChunkNext::Suspect { dead: *dead },
        NetError::Malformed => return ChunkNext::Elsewhere,
        NetError::Status(status, _) => *status,
    };
    match status {
        Status::Overloaded | Status::BadChecksum | Status::Deadline => ChunkNext::Again,
        Status::NotServing | Status::Disconnected | Status::Io | Status::DiskFailed | Status::NoHello => {
            ChunkNext::Elsewhere
        }
        Status::Redirect => ChunkNext::Primary,
        Status::Corrupt => ChunkNext::Corrupt,
        Status::WrongChunkVersion
        | Status::Recovering
        | Status::BadCapability
        | Status::NoSession
        | Status::NoChunk
        | Status::Behind => ChunkNext::NewPlace,
        Status::OldEpoch => ChunkNext::OldEpoch,
        other => ChunkNext::Fail(Error::from_status(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_second() {
        let (mut backoff, mut rng) = (Backoff::default(), Rng::new(1));
        let first = backoff.next(&mut rng);
        assert!(first <= Duration::from_millis(5) && first > Duration::from_millis(3));
        for _ in 0..30 {
            backoff.next(&mut rng);
        }
        let late = backoff.next(&mut rng);
        assert!(late <= Duration::from_secs(1) && late > Duration::from_millis(740));
    }

    #[test]
    fn answers_for_programs_are_final() {
        for status in Status::ALL {
            let error = NetError::Status(*status, String::new());
            let code = u16::from(*status);
            if (1..100).contains(&code) {
                assert_eq!(after_master(&error), MasterNext::Fail(Error::from_status(*status)));
            }
        }
        assert_eq!(after_master(&NetError::Closed), MasterNext::NewLink);
        assert_eq!(after_chunk(&NetError::Unreachable { dead: true }), ChunkNext::Suspect { dead: true });
        assert_eq!(after_chunk(&NetError::Status(Status::Redirect, String::new())), ChunkNext::Primary);
    }
}
