//! Whether the members of a chunk that nobody writes to have the same bytes: the primary, when its scrub is through
//! with the chunk, has every member say its digest. Each replica may match its own checksums and be another: a
//! write that a disk lost with its checksum, or a fault of ours.
//!
//! Nothing is locked: the answers count if no write began since they were asked for. Of replicas that differ the
//! one that is as all were at the chunk's close is believed, the digest of which the header has; of a chunk that is
//! open the most common, the primary's among as many. The others are reported, and the master has them filled anew,
//! block by block, by comparison.

use std::collections::BTreeMap;

use dfs_proto::chunk::{ForwardSyncChunk, Member};
use dfs_proto::control::ReportTrouble;
use dfs_proto::ids::{ChunkId, ChunkVersion, Seq};
use dfs_proto::meta::{SuspectReport, Suspicion};
use dfs_proto::status::Status;

use crate::core::Core;
use crate::core::io::{DiskDone, DiskOp, Effect, PeerAnswer};
use crate::core::lead::Lead;
use crate::core::replica::Standing;
use crate::core::work::{DiskWork, PeerWork};

/// Digests that are being asked for.
#[derive(Debug)]
pub(crate) struct Agreeing {
    /// The last write when they were.
    last: Seq,
    waits: usize,
    digests: BTreeMap<Member, u128>,
}

impl Core {
    /// Asks every member of a chunk that this server leads, unless something is under way in it.
    pub(crate) fn agree(&mut self, chunk: ChunkId, out: &mut Vec<Effect>) {
        let Some(me) = self.me() else { return };
        let hurt = self.damage.is_hurt(chunk);
        let Some(replica) = self.replicas.get_mut(&chunk) else { return };
        let leads = replica.is_primary(me.server) && replica.standing == Standing::Active && replica.made;
        if !leads || hurt || replica.members.len() < 2 {
            return;
        }
        let seq = replica.applied.highest();
        let lead = replica.lead.get_or_insert_with(|| Box::new(Lead::starting_at(seq)));
        if !lead.is_at_rest() || lead.agreeing.is_some() {
            return;
        }
        let waits = replica.members.len();
        lead.agreeing = Some(Agreeing { last: lead.last, waits, digests: BTreeMap::new() });
        let (version, config, seq) = (replica.version, replica.config, lead.last);
        let others: Vec<Member> = replica.members.iter().copied().filter(|member| *member != me).collect();
        self.work.disk(replica.disk, DiskWork::Agree { chunk, version }, DiskOp::Digest { chunk }, out);
        for member in others {
            let ask = ForwardSyncChunk { chunk, version, config, seq, to: member.boot };
            let work = PeerWork::Agree { chunk, version, member };
            self.work.sync(member, work, vec![ask], true, out);
        }
    }

    pub(crate) fn own_digest(
        &mut self,
        chunk: ChunkId,
        version: ChunkVersion,
        done: &DiskDone,
        out: &mut Vec<Effect>,
    ) {
        let digest = if let DiskDone::Digest(digest) = done { Some(*digest) } else { None };
        if let Some(me) = self.me() {
            self.digest_here(chunk, version, me, digest, out);
        }
    }

    pub(crate) fn their_digest(
        &mut self,
        chunk: ChunkId,
        version: ChunkVersion,
        member: Member,
        reply: &PeerAnswer,
        out: &mut Vec<Effect>,
    ) {
        let digest = match reply {
            PeerAnswer::Synced { results, digest } if results.as_slice() == [Status::Ok] => *digest,
            _ => None,
        };
        self.digest_here(chunk, version, member, digest, out);
    }

    fn digest_here(
        &mut self,
        chunk: ChunkId,
        version: ChunkVersion,
        member: Member,
        digest: Option<u128>,
        out: &mut Vec<Effect>,
    ) {
        let replica = self.replicas.get_mut(&chunk).filter(|replica| replica.version == version);
        let Some(lead) = replica.and_then(|replica| replica.lead.as_mut()) else { return };
        let at_rest = lead.is_at_rest();
        let Some(agreeing) = &mut lead.agreeing else { return };
        agreeing.waits = agreeing.waits.saturating_sub(1);
        if let Some(digest) = digest {
            agreeing.digests.insert(member, digest);
        }
        if agreeing.waits > 0 {
            return;
        }
        let Some(Agreeing { last, digests, .. }) = lead.agreeing.take() else { return };
        if at_rest && last == lead.last && !self.damage.is_hurt(chunk) {
            self.compare_digests(chunk, &digests, out);
        }
    }

    fn compare_digests(&mut self, chunk: ChunkId, digests: &BTreeMap<Member, u128>, out: &mut Vec<Effect>) {
        let own = self.me().and_then(|me| digests.get(&me).copied());
        let closed = self.replicas.get(&chunk).filter(|replica| replica.closed);
        let agreed = closed.and_then(|replica| replica.digest);
        let Some(believed) = believed(digests, own, agreed) else { return };
        let others: Vec<Member> =
            digests.iter().filter(|(_, digest)| **digest != believed).map(|(member, _)| *member).collect();
        if others.is_empty() {
            return;
        }
        self.scrubs.note_diverged();
        log::error!(
            "chunk {chunk}: its replicas differ though nobody writes; {others:?} are to be filled anew"
        );
        let report = |member: &Member| SuspectReport {
            server: member.server,
            boot: member.boot,
            chunk: Some(chunk),
            what: Suspicion::Diverged,
        };
        let reports = others.iter().map(report).collect();
        out.push(Effect::Trouble(ReportTrouble { reports, failed: Vec::new() }));
    }
}

/// The digest that the members agreed on, if one has it; else the one that most have, of those that as many have the
/// primary's.
fn believed(digests: &BTreeMap<Member, u128>, own: Option<u128>, agreed: Option<u128>) -> Option<u128> {
    let count = |digest: u128| digests.values().filter(|other| **other == digest).count();
    let rank = |digest: u128| (agreed == Some(digest), count(digest), own == Some(digest));
    digests.values().copied().max_by_key(|digest| rank(*digest))
}

#[cfg(test)]
mod tests {
    use dfs_proto::ids::{BootId, ServerNum};

    use super::*;

    #[test]
    fn what_was_agreed_on_is_believed_then_the_most_common_then_the_primarys() {
        let of = |digests: &[u128]| -> BTreeMap<Member, u128> {
            let member = |n: u16| Member { server: ServerNum(n), boot: BootId(1) };
            digests
                .iter()
                .enumerate()
                .map(|(n, digest)| (member(u16::try_from(n).unwrap()), *digest))
                .collect()
        };
        assert_eq!(believed(&of(&[1, 2, 2]), Some(1), None), Some(2));
        assert_eq!(believed(&of(&[1, 2]), Some(1), None), Some(1));
        assert_eq!(believed(&of(&[1, 2]), Some(2), None), Some(2));
        assert_eq!(believed(&of(&[1, 2, 3]), Some(2), None), Some(2));
        assert_eq!(believed(&of(&[1, 2]), Some(1), Some(2)), Some(2));
        assert_eq!(believed(&of(&[1, 1, 2]), Some(1), Some(2)), Some(2));
        assert_eq!(believed(&of(&[1, 2, 2]), Some(1), Some(3)), Some(2));
        assert_eq!(believed(&of(&[]), None, Some(1)), None);
    }
}
