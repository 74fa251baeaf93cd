//! Which servers get a replica: a pure function of the cluster as it was last seen.
//!
//! Distinct servers always; distinct racks if there are enough, else distinct hosts. Among equals two are
//! drawn and the one with more room and less to do wins, which spreads well without herding.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use dfs_proto::ids::ServerNum;

/// A server that can take replicas.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candidate {
    pub server: ServerNum,
    /// The label `rack`, if it has one.
    pub rack: Option<String>,
    pub host: String,
    pub total_bytes: u64,
    /// Its reserve left out.
    pub free_bytes: u64,
    pub utilisation_permille: u16,
}

/// A server gets nothing new when less than this share of it is free. It has left its reserve of 5 % out of what it
/// calls free, and refuses writes from here on.
const FULL_PARTS: u64 = 100;

/// Two servers whose scores are no further apart are equals: else what a second's load makes of them would have all new
/// chunks go to one, until it is the busy one.
const NOISE: u64 = 20;

/// Why there is no place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoPlace {
    /// Too few servers are up.
    Servers,
    /// Enough are up, and too few have room.
    Space,
    /// Enough are up, and none has a disk that takes writes.
    Disks,
}

impl Candidate {
    fn has_room(&self) -> bool {
        self.free_bytes > self.total_bytes / FULL_PARTS
    }

    /// Bytes that it would still take.
    #[must_use]
    pub fn room(&self) -> u64 {
        self.free_bytes.saturating_sub(self.total_bytes / FULL_PARTS)
    }

    /// More is better: free permille, less what is in use of its speed.
    fn score(&self) -> u64 {
        let free = u128::from(self.free_bytes) * 1000 / u128::from(self.total_bytes.max(1));
        let idle = 1000_u64.saturating_sub(u64::from(self.utilisation_permille));
        u64::try_from(free).unwrap_or(0) + idle
    }

    fn site(&self) -> Site<'_> {
        Site { rack: self.rack.as_deref(), host: &self.host }
    }

    fn shares(&self, taken: &[&Candidate]) -> u8 {
        self.site().shares(taken.iter().map(|other| other.site()))
    }
}

/// Where a server stands.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    pub rack: Option<&'a str>,
    pub host: &'a str,
}

impl<'a> Site<'a> {
    /// How much a replica here would share with those that exist: 1 for the rack, 2 for the host. Servers of
    /// one host can be of several racks where one machine plays many.
    pub fn shares(self, taken: impl Iterator<Item = Site<'a>> + Clone) -> u8 {
        let host = taken.clone().any(|other| other.host == self.host);
        let rack = self.rack.is_some() && taken.clone().any(|other| other.rack == self.rack);
        2 * u8::from(host) + u8::from(rack)
    }
}

/// How many servers have room for replicas, and how many hosts these are.
#[must_use]
pub fn takers(cluster: &[Candidate]) -> (usize, usize) {
    let with_room = || cluster.iter().filter(|candidate| candidate.has_room());
    let hosts: BTreeSet<&str> = with_room().map(|candidate| candidate.host.as_str()).collect();
    (with_room().count(), hosts.len())
}

/// Draws numbers: splitmix64, which passes through every seed.
#[derive(Clone, Copy, Debug)]
pub struct Rng(pub u64);

impl Rng {
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.draw() % end).unwrap_or(0)
    }
}

/// Chooses up to `want` servers, at least `least`, none of `holders`, apart from each other and from
/// `holders` as far as the cluster allows. The first is to be the primary.
///
/// # Errors
/// When there are fewer than `least`.
pub fn choose(
    cluster: &[Candidate],
    holders: &[ServerNum],
    want: usize,
    least: usize,
    rng: &mut Rng,
) -> Result<Vec<ServerNum>, NoPlace> {
    let up = cluster.iter().filter(|candidate| !holders.contains(&candidate.server));
    let mut taken: Vec<&Candidate> =
        cluster.iter().filter(|candidate| holders.contains(&candidate.server)).collect();
    let mut left: Vec<&Candidate> =
        cluster.iter().filter(|c| c.has_room() && !holders.contains(&c.server)).collect();
    let mut chosen = Vec::with_capacity(want);
    while chosen.len() < want {
        let Some(best) = left.iter().map(|candidate| candidate.shares(&taken)).min() else { break };
        let equals: Vec<usize> =
            left.iter().enumerate().filter(|(_, c)| c.shares(&taken) == best).map(|(at, _)| at).collect();
        let (a, b) = (equals[rng.below(equals.len())], equals[rng.below(equals.len())]);
        let at = if left[b].score() > left[a].score() + NOISE { b } else { a };
        let pick = left.swap_remove(at);
        taken.push(pick);
        chosen.push(pick.server);
    }
    if chosen.len() >= least && !chosen.is_empty() { Ok(chosen) } else { Err(why_none(up, least)) }
}

fn why_none<'a>(up: impl Iterator<Item = &'a Candidate> + Clone, least: usize) -> NoPlace {
    if up.clone().count() < least.max(1) {
        NoPlace::Servers
    } else if up.clone().all(|candidate| candidate.total_bytes == 0) {
        NoPlace::Disks
    } else {
        NoPlace::Space
    }
}

/// Whether one more replica beside `holders` has a place.
///
/// # Errors
/// When it has none.
pub fn has_place(cluster: &[Candidate], holders: &[ServerNum]) -> Result<(), NoPlace> {
    let up = cluster.iter().filter(|candidate| !holders.contains(&candidate.server));
    if up.clone().any(Candidate::has_room) { Ok(()) } else { Err(why_none(up, 1)) }
}

/// The one of `preferred` that is as far apart from `holders` as any server that could be chosen, if there is
/// one: for a replica of which it has the most already.
#[must_use]
pub fn prefer(cluster: &[Candidate], holders: &[ServerNum], preferred: &[ServerNum]) -> Option<ServerNum> {
    let taken: Vec<&Candidate> = cluster.iter().filter(|c| holders.contains(&c.server)).collect();
    let left = || cluster.iter().filter(|c| c.has_room() && !holders.contains(&c.server));
    let best = left().map(|candidate| candidate.shares(&taken)).min()?;
    let fit = left().filter(|c| c.shares(&taken) == best && preferred.contains(&c.server));
    fit.max_by_key(|candidate| candidate.score()).map(|candidate| candidate.server)
}

/// The member, but never the first, that the others miss least: one that shares a host or a rack with another, then
/// the one with the least room and the most to do.
#[must_use]
pub fn least_useful(cluster: &[Candidate], members: &[ServerNum]) -> Option<ServerNum> {
    let known: Vec<&Candidate> = cluster.iter().filter(|c| members.contains(&c.server)).collect();
    let misses = |candidate: &&&Candidate| {
        let others: Vec<&Candidate> =
            known.iter().filter(|c| c.server != candidate.server).copied().collect();
        (Reverse(candidate.shares(&others)), candidate.score())
    };
    let may_go = known.iter().filter(|candidate| members.first() != Some(&candidate.server));
    may_go.min_by_key(misses).map(|candidate| candidate.server)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn server(num: u16, rack: &str, host: &str) -> Candidate {
        Candidate {
            server: ServerNum(num),
            rack: (!rack.is_empty()).then(|| rack.to_owned()),
            host: host.to_owned(),
            total_bytes: 1000,
            free_bytes: 500,
            utilisation_permille: 100,
        }
    }

    fn chosen(cluster: &[Candidate], holders: &[u16], want: usize, seed: u64) -> Vec<u16> {
        let holders: Vec<ServerNum> = holders.iter().map(|n| ServerNum(*n)).collect();
        let mut picked: Vec<u16> =
            choose(cluster, &holders, want, 1, &mut Rng(seed)).unwrap().iter().map(|s| s.0).collect();
        picked.sort_unstable();
        picked
    }

    #[test]
    fn racks_count_on_one_host_too() {
        let cluster = [server(1, "a", "h"), server(2, "a", "h"), server(3, "b", "h"), server(4, "b", "h")];
        for seed in 0..50 {
            let racks: Vec<bool> = chosen(&cluster, &[], 2, seed).iter().map(|num| *num <= 2).collect();
            assert_eq!(racks, [true, false], "seed {seed}");
        }
    }

    #[test]
    fn racks_first_then_hosts() {
        let cluster = [
            server(1, "a", "h1"),
            server(2, "a", "h2"),
            server(3, "a", "h2"),
            server(4, "b", "h3"),
            server(5, "b", "h4"),
        ];
        for seed in 0..200 {
            let two = chosen(&cluster, &[], 2, seed);
            assert!(two[0] <= 3 && two[1] >= 4, "{two:?}");
            let four = chosen(&cluster, &[], 4, seed);
            // With every rack taken, hosts are still kept apart.
            assert!(!(four.contains(&2) && four.contains(&3)), "{four:?}");
            let added = chosen(&cluster, &[1, 4], 1, seed);
            assert_ne!(added, [1], "{added:?}");
            assert_eq!(chosen(&cluster, &[], 9, seed), [1, 2, 3, 4, 5]);
        }
    }

    #[test]
    fn without_labels_hosts_count() {
        let cluster = [server(1, "", "h1"), server(2, "", "h1"), server(3, "", "h2")];
        for seed in 0..100 {
            assert!(chosen(&cluster, &[], 2, seed).contains(&3));
            assert_eq!(chosen(&cluster, &[1], 1, seed), [3]);
        }
    }

    #[test]
    fn preferred_only_where_it_costs_no_distance() {
        let mut cluster =
            [server(1, "a", "h1"), server(2, "a", "h2"), server(3, "b", "h3"), server(4, "b", "h4")];
        let prefer = |cluster: &[Candidate], num: u16| prefer(cluster, &[ServerNum(1)], &[ServerNum(num)]);
        assert_eq!(prefer(&cluster, 3), Some(ServerNum(3)));
        assert_eq!(prefer(&cluster, 4), Some(ServerNum(4)));
        assert_eq!(prefer(&cluster, 2), None, "the rack of one that has it");
        assert_eq!(prefer(&cluster, 1), None, "it has it");
        cluster[2].free_bytes = 0;
        assert_eq!(prefer(&cluster, 3), None, "full");
    }

    #[test]
    fn who_is_missed_least_goes() {
        let mut cluster =
            [server(1, "a", "h1"), server(2, "b", "h2"), server(3, "b", "h3"), server(4, "c", "h4")];
        let goes = |cluster: &[Candidate], members: &[u16]| {
            let members: Vec<ServerNum> = members.iter().map(|n| ServerNum(*n)).collect();
            least_useful(cluster, &members).map(|server| server.0)
        };
        cluster[3].free_bytes = 1;
        assert!(
            matches!(goes(&cluster, &[1, 2, 3, 4]), Some(2 | 3)),
            "two in one rack, however full another is"
        );
        assert_eq!(goes(&cluster, &[1, 2, 4]), Some(4), "the fullest");
        assert_eq!(goes(&cluster, &[4, 1, 2]).map(|server| server != 4), Some(true), "never the primary");
        assert_eq!(goes(&cluster, &[9]), None);
    }

    #[test]
    fn room_and_load_decide_among_equals() {
        let mut cluster: Vec<Candidate> = (1..=4).map(|n| server(n, "", &format!("h{n}"))).collect();
        cluster[0].free_bytes = 10;
        cluster[1].utilisation_permille = 1000;
        let mut count = BTreeMap::new();
        for seed in 0..3000 {
            *count.entry(chosen(&cluster, &[], 1, seed)[0]).or_insert(0) += 1;
        }
        assert_eq!(count.get(&1), None, "a full server gets nothing");
        assert!(count[&2] * 3 < count[&3], "{count:?}");
        // A second's load on one is no reason to give all to the others.
        cluster.remove(0);
        cluster[0].utilisation_permille = cluster[1].utilisation_permille + 10;
        let first = (0..3000).filter(|seed| chosen(&cluster, &[], 1, *seed)[0] == 2).count();
        assert!((900..1100).contains(&first), "{first}");
    }

    #[test]
    fn too_few() {
        let mut cluster = vec![server(1, "", "h1"), server(2, "", "h2")];
        let choose =
            |cluster: &[Candidate], least| choose(cluster, &[], 3, least, &mut Rng(7)).map(|c| c.len());
        assert_eq!(choose(&cluster, 2), Ok(2));
        assert_eq!(choose(&cluster, 3), Err(NoPlace::Servers));
        cluster[1].free_bytes = 0;
        assert_eq!(choose(&cluster, 2), Err(NoPlace::Space));
        assert_eq!(choose(&cluster, 1), Ok(1));
        cluster.iter_mut().for_each(|server| (server.total_bytes, server.free_bytes) = (0, 0));
        assert_eq!(choose(&cluster, 2), Err(NoPlace::Disks));
        assert_eq!(choose(&[], 1), Err(NoPlace::Servers));
    }

    #[test]
    fn equal_seeds_choose_equally() {
        let cluster: Vec<Candidate> = (1..=9).map(|n| server(n, "", &format!("h{n}"))).collect();
        let run = |seed| choose(&cluster, &[], 3, 1, &mut Rng(seed));
        assert_eq!(run(5), run(5));
        assert!((0..20).any(|seed| run(seed) != run(seed + 1)));
    }
}
