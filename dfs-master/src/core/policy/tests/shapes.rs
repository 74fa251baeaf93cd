//! The policy's properties under loads of every shape, each drawn from a seed. A few seeds of each by default; as many as
//! `LOAD_SEEDS` says for `scripts/show/load-3.sh`, which prints the table.

mod loads;

use std::panic::catch_unwind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::model::Cluster;

/// Of each shape in the tests that everybody runs.
const SEEDS: u64 = 4;

/// What one run came to.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
struct Came {
    /// Turns of a chunk that came within a cooldown of its last turn.
    early_turns: usize,
    /// Bytes of copies that were decided on, over what the budget had by then.
    budget: f64,
    /// Changes, or replicas, that are still there when all should be settled.
    unsettled: usize,
    /// Between the busiest server and the median one, over what it is with static replicas and random routing.
    spread: Option<f64>,
    /// The same with static replicas and the routing alone: what part of it the policy has.
    routed: Option<f64>,
    /// Changes that this load is no reason for.
    unwanted: usize,
    changes: usize,
}

impl Came {
    fn of(cluster: &Cluster) -> Came {
        let cooldown_s = cluster.thresholds.cooldown_ms / 1000;
        let budget = cluster.decided as f64 / cluster.allowed.max(1.0);
        let early_turns = cluster.turns_within(cooldown_s);
        Came { early_turns, budget, changes: cluster.changes(), ..Came::default() }
    }

    /// The worse of both, property by property.
    fn worse(self, other: Came) -> Came {
        let worse = |a: Option<f64>, b: Option<f64>| a.into_iter().chain(b).reduce(f64::max);
        Came {
            early_turns: self.early_turns.max(other.early_turns),
            budget: self.budget.max(other.budget),
            unsettled: self.unsettled.max(other.unsettled),
            spread: worse(self.spread, other.spread),
            routed: worse(self.routed, other.routed),
            unwanted: self.unwanted.max(other.unwanted),
            changes: self.changes.max(other.changes),
        }
    }

    fn keeps(&self) -> bool {
        self.early_turns == 0
            && self.budget <= 1.05
            && self.unsettled == 0
            && self.spread.is_none_or(|spread| spread <= 0.5)
            && self.unwanted == 0
    }
}

struct Shape {
    name: &'static str,
    run: fn(u64) -> Came,
}

const SHAPES: [Shape; 8] = [
    Shape { name: "zipf", run: loads::zipf },
    Shape { name: "diurnal", run: loads::diurnal },
    Shape { name: "flash crowd", run: loads::flash_crowd },
    Shape { name: "scan", run: loads::scan },
    Shape { name: "one-hit wonders", run: loads::one_hit_wonders },
    Shape { name: "flapping", run: loads::flapping },
    Shape { name: "unequal servers", run: loads::unequal_servers },
    Shape { name: "slow server", run: loads::slow_server },
];

/// Of one shape's seeds: the worst of each property, and those that keep one not. A replica below a goal, above a bound, or a
/// copy above what servers take is an assertion of the model: it counts as the seed's failure.
fn run(shape: &Shape, seeds: u64) -> (Came, Vec<u64>) {
    let next = AtomicU64::new(1);
    let came: Mutex<(Came, Vec<u64>)> = Mutex::default();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > seeds {
                        return;
                    }
                    let one = catch_unwind(|| (shape.run)(seed));
                    let mut came = came.lock().unwrap_or_else(PoisonError::into_inner);
                    came.0 = came.0.worse(*one.as_ref().unwrap_or(&Came::default()));
                    if !one.is_ok_and(|one| one.keeps()) {
                        came.1.push(seed);
                    }
                }
            });
        }
    });
    came.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn every_shape_keeps_the_properties() {
    let seeds =
        std::env::var("LOAD_SEEDS").map_or(SEEDS, |seeds| seeds.parse().expect("LOAD_SEEDS is a number"));
    println!(
        "{:<16}{:>6}{:>12}{:>9}{:>11}{:>8}{:>8}{:>10}{:>9}  violated by seeds",
        "SHAPE", "SEEDS", "EARLY TURNS", "BUDGET", "UNSETTLED", "SPREAD", "ROUTED", "UNWANTED", "CHANGES"
    );
    let mut broken = 0;
    for shape in &SHAPES {
        let (worst, mut violated) = run(shape, seeds);
        violated.sort_unstable();
        let percent =
            |part: Option<f64>| part.map_or_else(|| "-".to_owned(), |part| format!("{:.0} %", part * 100.0));
        let (spread, routed) = (percent(worst.spread), percent(worst.routed));
        let some: Vec<String> = violated.iter().take(8).map(u64::to_string).collect();
        println!(
            "{:<16}{seeds:>6}{:>12}{:>7.0} %{:>11}{spread:>8}{routed:>8}{:>10}{:>9}  {}",
            shape.name,
            worst.early_turns,
            worst.budget * 100.0,
            worst.unsettled,
            worst.unwanted,
            worst.changes,
            if some.is_empty() {
                "none".to_owned()
            } else {
                format!("{}: {}", violated.len(), some.join(" "))
            },
        );
        broken += violated.len();
    }
    assert_eq!(broken, 0, "runs that violated a property");
}
