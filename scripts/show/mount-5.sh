#!/usr/bin/env bash
# Show 5: the tables of bench.sh compare moosefs and of memory per file, in docs/bench/.
. "$(dirname "$0")/../lib.sh"
cd "$root"
say "memory per file, restart and snapshot pause at a million files"
cargo run --release --quiet --locked -p dfs-master --example memory
exec scripts/bench.sh compare moosefs
