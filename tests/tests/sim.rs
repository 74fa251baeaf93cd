//! The simulator itself: seeds that must hold on every commit, and that a seed is one run.

use dfs_tests::sim::{self, Options};

/// Seeds of an unoptimised build; `scripts/test.sh` runs a thousand more with `simulate`.
const SEEDS: u64 = 50;

#[test]
fn a_seed_is_one_run() {
    for seed in 1..=8 {
        let runs = [0, 1].map(|_| sim::run(seed, &Options::default()));
        assert_eq!(runs[0].hash, runs[1].hash, "seed {seed}");
        assert_eq!(runs[0].events, runs[1].events, "seed {seed}");
    }
}

#[test]
fn seeds_keep_every_promise() {
    for seed in 1..=SEEDS {
        let outcome = sim::run(seed, &Options::default());
        let replay = format!("cargo run --release -p dfs-tests --bin simulate -- --seed {seed}");
        assert!(outcome.violations.is_empty(), "{replay}\n{:#?}", outcome.violations);
    }
}
