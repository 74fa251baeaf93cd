//! What is done while a chunk server has not answered yet: a read is asked of another member as well, a
//! write or a sync asks the master whether its chunk has gone on without that server.
//!
//! A read is asked of another member twice over: soon, when it is slow beside others of its size, as long as that is
//! rare ([`Hedges`](crate::core::hedge::Hedges)); and whatever it costs, once its server is silent. Only reads are:
//! whichever answer is used, it is judged by its stamp and its checksums, and the other one leaves no trace.
//!
//! Nothing here decides that a server is dead: only the master does, when it is fenced. A server that is
//! merely slow keeps its request and may answer it.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use dfs_proto::chunk::Member;
use dfs_proto::frame::{Frame, Outgoing};
use dfs_proto::ids::ServerNum;
use dfs_proto::meta::{ChunkPlace, MapWrite};

use crate::call::{Refused, Scope};
use crate::core::retry::{Backoff, ChunkNext, after_chunk};
use crate::error::Error;
use crate::inode::{Inode, Mapped};
use crate::net::{Net, NetError};
use crate::shared::{Shared, Until, lock};

/// A read that is older is asked of another member too: long beside what a busy disk takes, and two of it
/// are less than the second that a read may stall.
const READ_SILENT: Duration = Duration::from_millis(400);
/// The same where reads take so long that twice what is slow for them is more.
const SILENT_MOST: Duration = Duration::from_secs(2);
/// A write or a sync that is older asks the master: most are done in a hundredth of it.
const WRITE_SILENT: Duration = Duration::from_secs(1);
/// The same while a server is being left out: its other chunks are about to go on too.
const WRITE_SILENT_AGAIN: Duration = Duration::from_millis(100);
/// How long after such a discovery. It is made anew by every chunk that has gone on.
const LEFT_OUT_US: u64 = 10_000_000;
/// How often it asks again. What is waited for is the end of a lease, some seconds.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// Where a chunk is.
enum Whereabouts {
    /// Where it was.
    Same,
    /// Nowhere for the moment, or the master did not answer.
    Changing,
    /// At a newer version, or another chunk is in its place.
    Moved,
}

impl<N: Net> Shared<N> {
    /// Asks `first`, and once that is slow or silent another of the members, none of `tried`. `bytes` are what
    /// is read. The answer, and whose it is.
    pub(crate) async fn call_either(
        &self,
        (members, tried): (&[Member], &[ServerNum]),
        first: Member,
        bytes: u32,
        message: impl Fn(ServerNum) -> Outgoing,
        deadline: Duration,
    ) -> (Member, Result<Frame, NetError>) {
        let sent = self.now();
        let is_open = |member: &Member| member.server != first.server && !tried.contains(&member.server);
        let is_slow_after =
            members.iter().any(is_open).then(|| lock(&self.servers).hedges.asked(bytes)).flatten();
        // On links that are full every read takes long: asked twice, all of them would take longer still.
        let silent = is_slow_after.map_or(READ_SILENT, |after| (2 * after).clamp(READ_SILENT, SILENT_MOST));
        let patience = is_slow_after.filter(|after| *after < silent);
        let wait = patience.unwrap_or(silent);
        let mut slow = pin!(self.call_server(first.server, message(first.server), deadline));
        if let Ok(answer) = tokio::time::timeout(wait, &mut slow).await {
            if answer.is_ok() {
                lock(&self.servers).hedges.took(bytes, self.now().0.saturating_sub(sent.0));
            }
            return (first, answer);
        }
        let silent_at = tokio::time::Instant::now() + (silent - wait);
        let slow = async {
            if let Ok(answer) = tokio::time::timeout_at(silent_at, &mut slow).await {
                return answer;
            }
            lock(&self.servers).routes.silent(first.server, self.now());
            slow.await
        };
        let tried = [tried, &[first.server]].concat();
        let other = async {
            if patience.is_some()
                && let Some(second) = self.hedge(members, &tried)
            {
                self.counts.hedged.one_more();
                log::debug!("{} is slow; asking {}", first.server, second.server);
                match self.call_server(second.server, message(second.server), deadline).await {
                    Ok(frame) => {
                        self.counts.hedges_won.one_more();
                        return (second, Ok(frame));
                    }
                    // It was only to help: what it refuses is asked of the first still.
                    Err(error) => log::debug!("{}: {error}", second.server),
                }
            }
            tokio::time::sleep_until(silent_at).await;
            let Some(second) = self.choose(members, &tried) else { return std::future::pending().await };
            self.counts.silent.one_more();
            log::debug!("{} is silent; asking {}", first.server, second.server);
            (second, self.insist(second, &message, deadline).await)
        };
        let (from, answer) = tokio::select! {
            biased;
            answer = slow => (first, answer),
            answer = other => answer,
        };
        if answer.is_ok() {
            let now = self.now();
            let took = now.0.saturating_sub(sent.0);
            let mut servers = lock(&self.servers);
            servers.hedges.took(bytes, took);
            if from != first {
                servers.routes.outrun(first.server, took, bytes.into(), now);
            }
        }
        (from, answer)
    }

    /// Who is asked what another member is slow to answer, if that may be.
    fn hedge(&self, members: &[Member], tried: &[ServerNum]) -> Option<Member> {
        let second = self.choose(members, tried)?;
        lock(&self.servers).hedges.take().then_some(second)
    }

    /// Asks until there is an answer, or a word that the chunk has gone on.
    async fn insist(
        &self,
        member: Member,
        message: impl Fn(ServerNum) -> Outgoing,
        deadline: Duration,
    ) -> Result<Frame, NetError> {
        loop {
            let answer = self.call_server(member.server, message(member.server), deadline).await;
            let useful =
                answer.as_ref().map_or_else(|error| after_chunk(error) == ChunkNext::NewPlace, |_| true);
            if useful {
                return answer;
            }
            // It may be waiting for the silent one itself; that ends with a new version.
            tokio::time::sleep(READ_SILENT).await;
        }
    }

    /// Waits for a call under `places`, or until one of their chunks has gone on to a newer version: then
    /// `None`, the newer places are remembered, and the call's outcome is unknown.
    pub(crate) async fn unless_moved<T>(
        &self,
        inode: &Inode,
        places: &[Arc<ChunkPlace>],
        call: impl Future<Output = T>,
        until: Until,
    ) -> Option<T> {
        let mut call = pin!(call);
        let moved = lock(&self.servers).moved;
        let again = moved.is_some_and(|at| self.now().0.saturating_sub(at.0) < LEFT_OUT_US);
        let wait = if again { WRITE_SILENT_AGAIN } else { WRITE_SILENT };
        if let Ok(answer) = tokio::time::timeout(wait, &mut call).await {
            return Some(answer);
        }
        tokio::select! {
            biased;
            answer = &mut call => Some(answer),
            () = self.until_moved(inode, places, until) => None,
        }
    }

    async fn until_moved(&self, inode: &Inode, places: &[Arc<ChunkPlace>], until: Until) {
        let mut backoff = Backoff::default();
        loop {
            let (mut moved, mut changing) = (false, false);
            for place in places {
                match self.whereabouts(inode, place, until).await {
                    Ok(Whereabouts::Same) => {}
                    Ok(Whereabouts::Changing) => changing = true,
                    Ok(Whereabouts::Moved) => moved = true,
                    Err(refused) => {
                        // The call's own end says what follows.
                        log::debug!("asking where {} is: {refused}", place.chunk());
                        return std::future::pending().await;
                    }
                }
            }
            let wait = match (moved, changing) {
                (true, false) => {
                    lock(&self.servers).moved = Some(self.now());
                    return;
                }
                // One that stays behind would be waited for again.
                (_, true) => backoff.next(&mut lock(&self.rng)),
                (false, false) => ASK_EVERY,
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// Where the chunk is now. No server is blamed.
    async fn whereabouts(
        &self,
        inode: &Inode,
        old: &ChunkPlace,
        until: Until,
    ) -> Result<Whereabouts, Refused> {
        let differs = |new: &ChunkPlace| {
            (new.capability.chunk, new.capability.version) != (old.capability.chunk, old.capability.version)
        };
        let _turn = inode.map_turn(old.index).await;
        if let Some(Mapped::Place(known)) = inode.lock().places.get(&old.index)
            && known.capability.rights.write
            && differs(known)
        {
            return Ok(Whereabouts::Moved);
        }
        let only = Some(old.chunk());
        let request = MapWrite { ino: inode.ino, index: old.index, failed: None, only };
        let answer = match self.ask_once(&request, Scope::Session(inode.incarnation), until).await {
            Err(Refused::Final(Error::Stale)) => {
                inode.forget_place(old);
                return Ok(Whereabouts::Moved);
            }
            answer => answer?,
        };
        let Some(place) = answer else { return Ok(Whereabouts::Changing) };
        if !differs(&place) {
            return Ok(Whereabouts::Same);
        }
        inode.lock().take_place(&Arc::new(place));
        Ok(Whereabouts::Moved)
    }
}
