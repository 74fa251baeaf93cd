//! The simulator itself: seeds that must hold on every commit, and that a seed is one run.

use dfs_tests::sim::{self, Options};

/// Seeds of a normal test run; `simulate --seeds` runs as many as one likes.
const SEEDS: u64 = 50;

#[test]
fn a_seed_is_one_run() {
    for seed in 1..=8 {
        let runs = [0, 1].map(|_| sim::run(seed, &Options::default()));
        assert_eq!(runs[0].hash, runs[1].hash, "seed {seed}");
        assert_eq!(runs[0].events, runs[1].events, "seed {seed}");
    }
}

/// Oracles whose violations after power cuts are open, see docs/reliability.md: a replica may keep a torn block
/// that nobody has read yet, and a cluster may take longer than the bound to be whole. All others must hold.
const OPEN: [&str; 4] = ["equal", "whole", "alive", "names"];

#[test]
fn seeds_keep_every_promise() {
    for seed in 1..=SEEDS {
        let outcome = sim::run(seed, &Options::default());
        let replay = format!("cargo run --release -p dfs-tests --bin simulate -- --seed {seed}");
        let broken: Vec<_> = outcome.violations.iter().filter(|v| !OPEN.contains(&v.oracle)).collect();
        assert!(broken.is_empty(), "{replay}\n{broken:#?}");
    }
}
