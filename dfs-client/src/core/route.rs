//! Which member of a chunk a read goes to: the better of two at random.
//!
//! A server's cost is a decaying peak of the service time that was seen, per unit of work, times the
//! requests that we have there, corrected by the load that it reported last. A server that is new or was
//! quiet for long costs nothing, so it is tried at once; with a request under way it counts as the quickest of the
//! others, so that not all go there before it has answered.

use std::collections::BTreeMap;

use dfs_proto::chunk::Member;
use dfs_proto::header::Load;
use dfs_proto::ids::ServerNum;
use dfs_proto::units::Micros;

use crate::core::rng::Rng;

/// The peak halves in this time without worse news.
const HALF_LIFE_US: u64 = 5_000_000;
/// A unit of work: one request and one for each so many bytes, as the servers count load.
const UNIT_BYTES: u64 = 64 << 10;
/// A failure counts as a service time of this long: the server is not asked first for a while.
const FAILURE_US: u64 = 1_000_000;
/// A server of this host wins unless it costs more than this many quarters of the other.
const LOCAL_QUARTERS: u64 = 5;

/// What this client saw of each server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Routes {
    servers: BTreeMap<ServerNum, Seen>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// Microseconds a unit of work, at `at`.
    peak_us: u64,
    at: Micros,
    in_flight: u64,
    load: Load,
}

impl Seen {
    fn peak(&self, now: Micros) -> u64 {
        let halvings = now.0.saturating_sub(self.at.0) / HALF_LIFE_US;
        u32::try_from(halvings).ok().and_then(|by| self.peak_us.checked_shr(by)).unwrap_or(0)
    }

    /// `guess` is the service time of one that has shown none.
    fn cost(&self, guess: u64, now: Micros) -> u64 {
        let busy = 1000 + u64::from(self.load.utilisation.min(4000));
        let us = match (self.peak(now), self.in_flight) {
            (0, 0) => return 0,
            (0, _) => guess,
            (peak, _) => peak,
        };
        us.saturating_mul(self.in_flight + 1).saturating_mul(busy) / 1000
    }

    fn news(&mut self, us: u64, now: Micros) {
        let old = self.peak(now);
        // Worse news count at once; better ones by an eighth each.
        self.peak_us = if us >= old { us } else { old - (old - us) / 8 };
        self.at = now;
    }
}

fn units(bytes: u64) -> u64 {
    1 + bytes / UNIT_BYTES
}

impl Routes {
    /// A request to `server` begins.
    pub(crate) fn started(&mut self, server: ServerNum) {
        self.servers.entry(server).or_default().in_flight += 1;
    }

    /// It was answered after `us` with `bytes` moved.
    pub(crate) fn answered(&mut self, server: ServerNum, us: u64, bytes: u64, load: Load, now: Micros) {
        let seen = self.servers.entry(server).or_default();
        seen.in_flight = seen.in_flight.saturating_sub(1);
        seen.load = load;
        seen.news(us / units(bytes), now);
    }

    /// It failed, or was given up.
    pub(crate) fn failed(&mut self, server: ServerNum, now: Micros) {
        let seen = self.servers.entry(server).or_default();
        seen.in_flight = seen.in_flight.saturating_sub(1);
        seen.news(FAILURE_US, now);
    }

    /// It has not answered for long; the request is still under way.
    pub(crate) fn silent(&mut self, server: ServerNum, now: Micros) {
        self.servers.entry(server).or_default().news(FAILURE_US, now);
    }

    /// Another member's answer to the same was quicker, after `us`: this one takes longer than that, which is no failure.
    pub(crate) fn outrun(&mut self, server: ServerNum, us: u64, bytes: u64, now: Micros) {
        let seen = self.servers.entry(server).or_default();
        let us = us / units(bytes);
        if us > seen.peak(now) {
            seen.news(us, now);
        }
    }

    /// It was dropped before it ended; nothing is learned.
    pub(crate) fn dropped(&mut self, server: ServerNum) {
        let seen = self.servers.entry(server).or_default();
        seen.in_flight = seen.in_flight.saturating_sub(1);
    }

    /// The member to ask, not one of `tried`. `local` says whether a server is on this host.
    pub(crate) fn choose(
        &self,
        members: &[Member],
        tried: &[ServerNum],
        local: impl Fn(ServerNum) -> bool,
        now: Micros,
        rng: &mut Rng,
    ) -> Option<Member> {
        let open: Vec<Member> = members.iter().filter(|m| !tried.contains(&m.server)).copied().collect();
        let seen = |member: &Member| self.servers.get(&member.server);
        let peaks = open.iter().filter_map(seen).map(|seen| seen.peak(now)).filter(|peak| *peak > 0);
        let guess = peaks.min().unwrap_or(1);
        let cost = |member: Member| seen(&member).map_or(0, |seen| seen.cost(guess, now));
        let best = match open.as_slice() {
            [] => return None,
            [only] => return Some(*only),
            several => {
                let first = rng.below(several.len());
                let second = (first + 1 + rng.below(several.len() - 1)) % several.len();
                let (a, b) = (several[first], several[second]);
                if cost(b) < cost(a) { b } else { a }
            }
        };
        let here = open.iter().copied().find(|member| local(member.server));
        match here {
            Some(here) if cost(here) <= cost(best).saturating_mul(LOCAL_QUARTERS) / 4 => Some(here),
            Some(_) | None => Some(best),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfs_proto::ids::BootId;

    fn members(n: u16) -> Vec<Member> {
        (0..n).map(|num| Member { server: ServerNum(num), boot: BootId(1) }).collect()
    }

    #[test]
    fn slow_and_busy_servers_are_avoided() {
        let mut routes = Routes::default();
        let now = Micros(1_000_000);
        for (num, us) in [(0, 10_000), (1, 100), (2, 10_000)] {
            routes.started(ServerNum(num));
            routes.answered(ServerNum(num), us, 0, Load::default(), now);
        }
        let mut rng = Rng::new(7);
        let mut hits = [0; 3];
        for _ in 0..300 {
            let chosen = routes.choose(&members(3), &[], |_| false, now, &mut rng).unwrap();
            hits[usize::from(chosen.server.0)] += 1;
        }
        assert!(hits[1] > 150, "{hits:?}");
        // Requests in flight there raise its cost until the others are better.
        for _ in 0..200 {
            routes.started(ServerNum(1));
        }
        let mut again = 0;
        for _ in 0..300 {
            let chosen = routes.choose(&members(3), &[], |_| false, now, &mut rng).unwrap();
            again += usize::from(chosen.server == ServerNum(1));
        }
        assert_eq!(again, 0);
    }

    #[test]
    fn new_servers_and_long_idle_ones_are_tried() {
        let mut routes = Routes::default();
        routes.started(ServerNum(0));
        routes.answered(ServerNum(0), 500, 0, Load::default(), Micros(0));
        let mut rng = Rng::new(3);
        let chosen = routes.choose(&members(2), &[], |_| false, Micros(0), &mut rng).unwrap();
        assert_eq!(chosen.server, ServerNum(1));
        assert_eq!(routes.servers[&ServerNum(0)].cost(1, Micros(3_600_000_000)), 0);
    }

    #[test]
    fn a_new_server_does_not_get_all_before_it_has_answered_once() {
        let mut routes = Routes::default();
        for num in [0, 1] {
            routes.started(ServerNum(num));
            routes.answered(ServerNum(num), 500, 0, Load::default(), Micros(0));
        }
        let mut rng = Rng::new(3);
        let mut hits = [0; 3];
        for _ in 0..30 {
            let chosen = routes.choose(&members(3), &[], |_| false, Micros(0), &mut rng).unwrap();
            routes.started(chosen.server);
            hits[usize::from(chosen.server.0)] += 1;
        }
        assert!(hits.iter().all(|hits| (7..=13).contains(hits)), "{hits:?}");
    }

    #[test]
    fn requests_at_once_spread_over_servers_that_nobody_knows() {
        let mut routes = Routes::default();
        let mut rng = Rng::new(3);
        let mut hits = [0; 4];
        for _ in 0..40 {
            let chosen = routes.choose(&members(4), &[], |_| false, Micros(0), &mut rng).unwrap();
            routes.started(chosen.server);
            hits[usize::from(chosen.server.0)] += 1;
        }
        assert!(hits.iter().all(|hits| (8..=12).contains(hits)), "{hits:?}");
    }

    #[test]
    fn who_was_outrun_is_known_to_be_slow_and_did_not_fail() {
        let mut routes = Routes::default();
        for num in [0, 1] {
            routes.started(ServerNum(num));
            routes.answered(ServerNum(num), 500, 0, Load::default(), Micros(0));
        }
        routes.started(ServerNum(1));
        routes.outrun(ServerNum(1), 9_000, 0, Micros(0));
        routes.dropped(ServerNum(1));
        assert_eq!(routes.servers[&ServerNum(1)].cost(1, Micros(0)), 9_000);
        let mut rng = Rng::new(3);
        for _ in 0..20 {
            let chosen = routes.choose(&members(2), &[], |_| false, Micros(0), &mut rng).unwrap();
            assert_eq!(chosen.server, ServerNum(0));
        }
        // What is known already was worse.
        routes.outrun(ServerNum(1), 10, 0, Micros(0));
        assert_eq!(routes.servers[&ServerNum(1)].cost(1, Micros(0)), 9_000);
    }

    #[test]
    fn this_host_wins_ties_and_tried_ones_are_left_out() {
        let routes = Routes::default();
        let mut rng = Rng::new(3);
        for _ in 0..20 {
            let chosen = routes.choose(&members(5), &[], |s| s == ServerNum(3), Micros(0), &mut rng);
            assert_eq!(chosen.unwrap().server, ServerNum(3));
        }
        let tried = [ServerNum(0), ServerNum(1)];
        assert_eq!(routes.choose(&members(2), &tried, |_| false, Micros(0), &mut rng), None);
    }
}
