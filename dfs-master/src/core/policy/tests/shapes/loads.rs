//! The shapes. Each draws its cluster and its load from the seed, and says what the load is a reason for.

use super::super::model::*;
use super::super::*;
use super::Came;
use crate::core::placement::Rng;

/// What one server of 1 Gbit/s serves: 1,907 units a second.
const LINK: f64 = 125e6 / UNIT;
/// A chunk of 64 MiB in requests of 1 MiB.
const WHOLE: f64 = 1088.0;

/// From `low` to `high`, both of them possible.
fn between(rng: &mut Rng, low: usize, high: usize) -> usize {
    low + rng.below(high - low + 1)
}

fn count(of: usize) -> u16 {
    u16::try_from(of).unwrap()
}

/// A thousand files read as a Zipf distribution says; by clients that go where it is less busy, with the policy, and by clients
/// that go anywhere, with static replicas.
fn files_of(views: &[ServerView], busy: f64, seed: u64) -> (Came, Cluster) {
    let run = |follows: bool, sharing: Sharing| {
        let mut cluster = Cluster { sharing, follows, ..Cluster::new(views.to_vec(), Thresholds::default()) };
        cluster.fill(1000, 2, seed);
        let all: f64 = views.iter().map(|view| view.capacity_bytes_per_s as f64 / UNIT).sum();
        for (item, share) in cluster.items.iter_mut().zip(super::super::model::zipf(1000, 1.1)) {
            item.asked = share * all * busy;
        }
        // Without the policy there is nothing to wait for but the routing.
        cluster.run(if follows { 90 } else { 0 });
        let settled = cluster.changes();
        cluster.run(20);
        (cluster.changes() - settled, cluster)
    };
    let (_, still) = run(false, Sharing::Equal);
    let (_, routed) = run(false, Sharing::ByCost);
    let (unsettled, cluster) = run(true, Sharing::ByCost);
    let of_still = |cluster: &Cluster| Some(cluster.spread() / still.spread());
    let (spread, routed) = (of_still(&cluster), of_still(&routed));
    (Came { unsettled, spread, routed, ..Came::of(&cluster) }, cluster)
}

pub(super) fn zipf(seed: u64) -> Came {
    let mut rng = Rng(seed);
    let busy = between(&mut rng, 40, 60) as f64 / 100.0;
    files_of(&servers(12), busy, seed).0
}

/// Links of 0.5, 1 and 2 Gbit/s in any order, four of each.
pub(super) fn unequal_servers(seed: u64) -> Came {
    let mut rng = Rng(seed);
    let mut views = servers(12);
    let mut links = [62_500_000, 125_000_000, 250_000_000].repeat(4);
    for view in &mut views {
        view.capacity_bytes_per_s = links.swap_remove(rng.below(links.len()));
    }
    let busy = between(&mut rng, 40, 55) as f64 / 100.0;
    files_of(&views, busy, seed).0
}

/// One is ten times slower than the others. It gets no replicas.
pub(super) fn slow_server(seed: u64) -> Came {
    let mut rng = Rng(seed);
    let mut views = servers(12);
    let slow = rng.below(views.len());
    views[slow].capacity_bytes_per_s = 12_500_000;
    let slow = views[slow].server;
    let on_it =
        |cluster: &Cluster| cluster.items.iter().filter(|item| item.view.replicas.contains(&slow)).count();
    let mut before = Cluster::new(views.clone(), Thresholds::default());
    before.fill(1000, 2, seed);
    let (came, cluster) = files_of(&views, between(&mut rng, 40, 55) as f64 / 100.0, seed);
    Came { unwanted: on_it(&cluster).saturating_sub(on_it(&before)), ..came }
}

/// Two days that are twenty minutes long, each chunk with an hour of its own. At night nothing is above its goal.
pub(super) fn diurnal(seed: u64) -> Came {
    const DAY: u64 = 1_200;
    let mut rng = Rng(seed);
    let thresholds = Thresholds { lower_after_ms: 90_000, ..Thresholds::default() };
    let views = between(&mut rng, 6, 14);
    let mut cluster = Cluster::new(servers(count(views)), thresholds);
    cluster.fill(40, between(&mut rng, 1, 3), seed);
    let shares = super::super::model::zipf(40, 1.1);
    let shifts: Vec<u64> = shares.iter().map(|_| rng.below(120) as u64).collect();
    let busy = between(&mut rng, 30, 60) as f64 / 100.0;
    for second in 0..2 * DAY {
        for ((item, share), shift) in cluster.items.iter_mut().zip(&shares).zip(&shifts) {
            let phase = ((second + shift) % DAY) as f64 / DAY as f64 * std::f64::consts::TAU;
            item.asked = share * ((1.0 - phase.cos()) / 2.0).powi(2) * views as f64 * LINK * busy;
        }
        cluster.second();
    }
    Came { unsettled: cluster.surplus(), ..Came::of(&cluster) }
}

/// A crowd that asks for one chunk, for a minute. It is settled 45 s after it came, and all is as before when it has gone.
pub(super) fn flash_crowd(seed: u64) -> Came {
    let mut rng = Rng(seed);
    let thresholds = Thresholds { lower_after_ms: 120_000, ..Thresholds::default() };
    let views = between(&mut rng, 4, 20);
    let mut cluster = Cluster::new(servers(count(views)), thresholds);
    cluster.fill(100, between(&mut rng, 1, 2), seed);
    let at = rng.below(100);
    cluster.run(between(&mut rng, 5, 30) as u64);
    cluster.items[at].asked = between(&mut rng, 15, 160) as f64 / 10.0 * LINK;
    cluster.run(45);
    let settled = cluster.changes();
    cluster.run(15);
    let late = cluster.changes() - settled;
    cluster.items[at].asked = 0.0;
    // A tenth of the time is not told apart, and one replica goes in a second.
    cluster.run(120 + 12 + 30);
    Came { unsettled: late + cluster.surplus(), ..Came::of(&cluster) }
}

/// Up to three readers that go through all chunks, each from a place of its own, as fast as a server gives them.
pub(super) fn scan(seed: u64) -> Came {
    const CHUNKS: usize = 400;
    let mut rng = Rng(seed);
    let link = [12_500_000, 125_000_000, 1_250_000_000_u64][rng.below(3)];
    let mut views = servers(count(between(&mut rng, 6, 12)));
    views.iter_mut().for_each(|view| view.capacity_bytes_per_s = link);
    let mut cluster = Cluster::new(views, Thresholds::default());
    cluster.fill(CHUNKS as u64, 2, seed);
    let mut readers: Vec<(usize, f64)> = (0..between(&mut rng, 1, 3))
        .map(|reader| (reader * CHUNKS / 3 + rng.below(CHUNKS / 4), WHOLE))
        .collect();
    for _ in 0..200 {
        cluster.items.iter_mut().for_each(|item| item.asked = 0.0);
        for (at, left) in &mut readers {
            let mut room = link as f64 / UNIT;
            while room > 0.0 {
                let part = left.min(room);
                cluster.items[*at].asked += part;
                (room, *left) = (room - part, *left - part);
                if *left <= 0.0 {
                    (*at, *left) = ((*at + 1) % CHUNKS, WHOLE);
                }
            }
        }
        cluster.second();
    }
    Came { unwanted: cluster.changes(), ..Came::of(&cluster) }
}

/// Each second another chunk is read whole by a few at once, on servers that are busy anyhow.
pub(super) fn one_hit_wonders(seed: u64) -> Came {
    let mut rng = Rng(seed);
    let mut cluster = Cluster::new(servers(8), Thresholds::default());
    cluster.fill(600, 2, seed);
    let (steady, crowd) = (between(&mut rng, 20, 60) as f64, between(&mut rng, 1, 4) as f64);
    for item in &mut cluster.items[..200] {
        item.asked = steady;
    }
    let mut last = 200;
    for _ in 0..300 {
        cluster.items[last].asked = 0.0;
        last = 200 + rng.below(400);
        cluster.items[last].asked = crowd * WHOLE;
        cluster.second();
    }
    Came { unwanted: cluster.changes(), ..Came::of(&cluster) }
}

/// Loads that rise just when replicas have gone, and cease just when they have come; disks that are short in turn; more heat
/// than the budget is for.
pub(super) fn flapping(seed: u64) -> Came {
    let mut rng = Rng(seed);
    let thresholds = Thresholds {
        lower_after_ms: between(&mut rng, 4, 20) as u64 * 1000,
        cooldown_ms: between(&mut rng, 30, 180) as u64 * 1000,
        budget: CopyBudget::PerSecond(between(&mut rng, 10, 60) as u64 * 1_000_000),
        ..super::super::thresholds(60, 20)
    };
    let mut cluster = Cluster::new(servers(8), thresholds);
    cluster.fill(60, 2, seed);
    let period = between(&mut rng, 20, 90) as u64;
    let heat = between(&mut rng, 170, 240) as f64;
    for second in 0..1_500 {
        for item in &mut cluster.items {
            let up = item.view.replicas.len() == item.view.goal;
            item.asked = if up { heat } else { 0.0 };
        }
        let short = (second / period).is_multiple_of(3);
        for server in cluster.servers.iter_mut().filter(|server| server.server.0 <= 2) {
            // As another user of the disk would.
            server.total_bytes = if short { 20_000 << 30 } else { 1000 << 30 };
        }
        cluster.second();
    }
    // A load that changed nothing would show nothing.
    Came { unsettled: usize::from(cluster.changes() < 20), ..Came::of(&cluster) }
}
