//! The server's one lease with the master (L1), the stamp that reads carry (R4), and a bound on the
//! master's clock for judging whether a capability is over (L7).
//!
//! Keeps I8's half of this side: the lease counts from when the heartbeat was *sent*, so this server always
//! stops before the master stops counting on it.

use dfs_proto::chunk::Given;
use dfs_proto::control::{HeartbeatReply, Registered};
use dfs_proto::ids::Term;
use dfs_proto::planted;
use dfs_proto::units::{MasterMs, Micros};

use crate::core::io::Stamp;

/// Two clocks drift apart by at most one part in this many: the fault model's 1 % each.
const DRIFT_PARTS: u64 = 100;

#[derive(Debug, Default)]
pub(crate) struct Lease {
    registered: Option<Registration>,
    grant: Option<Grant>,
}

#[derive(Clone, Copy, Debug)]
struct Registration {
    term: Term,
    lease_ms: u64,
    given_since: Given,
}

#[derive(Clone, Copy, Debug)]
struct Grant {
    /// When the heartbeat that it answers was sent, on our clock.
    sent: Micros,
    until: Micros,
    stamp: Stamp,
}

impl Lease {
    /// A master took us in. What another one granted before is void: it may not know who serves now.
    pub(crate) fn register(&mut self, body: &Registered) {
        let given_since = Given { key: body.key.id, expires: body.given_since };
        self.registered = Some(Registration { term: body.term, lease_ms: body.lease_ms, given_since });
        self.grant = None;
    }

    /// Whether the capability was given since the master took us in.
    pub(crate) fn was_given_since(&self, given: Given) -> bool {
        let since = self.registered.map(|registration| registration.given_since);
        since.is_some_and(|since| given.key.same_term(since.key) && given.expires > since.expires)
    }

    /// Takes a grant. A reply to an older heartbeat never shortens what a newer one gave.
    pub(crate) fn granted(&mut self, reply: &HeartbeatReply) {
        let Some(registration) = self.registered else { return };
        if reply.term != registration.term || self.grant.is_some_and(|grant| grant.sent >= reply.t_send) {
            return;
        }
        self.grant = Some(Grant {
            sent: reply.t_send,
            until: reply.t_send.plus_ms(registration.lease_ms),
            stamp: Stamp { term: reply.term, now: reply.now },
        });
    }

    /// A new registration begins: nothing of the last one is taken from now on. What it granted runs on.
    pub(crate) fn unregister(&mut self) {
        self.registered = None;
    }

    /// Gives the lease up: no lease until registered again.
    pub(crate) fn drop_grant(&mut self) {
        self.registered = None;
        self.grant = None;
    }

    /// The stamp of the grant in force.
    pub(crate) fn stamp(&self, now: Micros) -> Option<Stamp> {
        self.grant.filter(|grant| now < grant.until || planted!(ServeWithoutLease)).map(|grant| grant.stamp)
    }

    pub(crate) fn is_valid(&self, now: Micros) -> bool {
        self.stamp(now).is_some()
    }

    /// Whether the master of `term` is the one that took us in.
    pub(crate) fn is_registered_at(&self, term: Term) -> bool {
        self.registered.is_some_and(|registration| registration.term == term)
    }

    /// Whether the master's clock can have passed `expires` by now. The master read its clock after we sent
    /// the heartbeat, so its time now is at most the stamp plus all that went by since the sending.
    pub(crate) fn may_be_past(&self, expires: MasterMs, now: Micros) -> bool {
        let Some(grant) = self.grant else { return true };
        let since = now.ms_since(grant.sent);
        let bound = grant.stamp.now.0.saturating_add(since).saturating_add(since.div_ceil(DRIFT_PARTS / 2));
        bound > expires.0
    }
}

#[cfg(test)]
mod tests {
    use dfs_proto::ids::{ClusterId, Generation, KeyId, LogIndex, ServerNum};
    use dfs_proto::key::{IssuedKey, KEY_TURN_BITS};
    use dfs_proto::units::ChunkSize;

    use super::*;

    fn reply(term: u64, t_send: u64, now: u64) -> HeartbeatReply {
        HeartbeatReply {
            t_send: Micros(t_send),
            granted: true,
            term: Term(term),
            now: MasterMs(now),
            durable: LogIndex(0),
            events: Vec::new(),
            key: None,
        }
    }

    fn registered() -> Registered {
        Registered {
            num: ServerNum(1),
            cluster: ClusterId(1),
            generation: Generation(1),
            term: Term(1),
            chunk_size: ChunkSize::DEFAULT,
            lease_ms: 6000,
            heartbeat_ms: 1000,
            key: IssuedKey::derive(&[1; 16], ServerNum(1), KeyId((1 << KEY_TURN_BITS) + 5)),
            given_since: MasterMs(40_000),
        }
    }

    #[test]
    fn what_was_given_before_a_registration_makes_nothing() {
        let mut lease = Lease::default();
        let given =
            |term: u32, expires| Given { key: KeyId(term << KEY_TURN_BITS), expires: MasterMs(expires) };
        assert!(!lease.was_given_since(given(1, 50_000)));
        lease.register(&registered());
        assert!(lease.was_given_since(given(1, 40_001)));
        assert!(!lease.was_given_since(given(1, 40_000)));
        assert!(!lease.was_given_since(given(0, 50_000)), "another master's clock");
    }

    #[test]
    fn counts_from_the_sending() {
        let mut lease = Lease::default();
        lease.granted(&reply(1, 0, 0));
        assert!(!lease.is_valid(Micros(0)), "no registration, no lease");
        lease.register(&registered());
        lease.granted(&reply(1, 1_000_000, 50));
        assert!(lease.is_valid(Micros(6_999_999)));
        assert!(!lease.is_valid(Micros(7_000_000)));
        lease.granted(&reply(1, 500_000, 40));
        assert!(lease.is_valid(Micros(6_999_999)), "a late reply shortens nothing");
        lease.granted(&reply(2, 5_000_000, 40));
        assert!(!lease.is_valid(Micros(7_000_000)), "another term's grant is not ours");
    }

    #[test]
    fn a_capability_ends_early_rather_than_late() {
        let mut lease = Lease::default();
        lease.register(&registered());
        lease.granted(&reply(1, 0, 10_000));
        assert!(!lease.may_be_past(MasterMs(11_100), Micros(1_000_000)));
        assert!(lease.may_be_past(MasterMs(11_000), Micros(1_000_000)));
    }
}
