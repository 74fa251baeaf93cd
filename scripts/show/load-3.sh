#!/usr/bin/env bash
# Show 3: the policy under loads of every shape, 1,000 seeds of each (or SEEDS): zipf, diurnal, flash crowd, scan, one-hit
# wonders, flapping, unequal servers, a slow server. Prints the worst of each property, and fails if a seed violates one:
#   early turns  turns of a chunk within a cooldown of its last turn: none
#   budget       bytes of copies over what the budget had by then: at most 105 %
#   unsettled    changes after the time to settle, replicas that stay when the load has gone: none
#   spread       between the busiest and the median server, over static replicas with random routing: at most half
#   routed       the same with static replicas and the clients' routing alone: not judged, says whose merit it is
#   unwanted     replicas for scans and one-hit wonders, copies to the slow server: none
# A replica below a goal or above a bound fails the seed at once.
. "$(dirname "$0")/../lib.sh"
cd "$root"
say "building"
cargo test --profile trial --quiet --locked -p dfs-master --lib --no-run
say "${SEEDS:-1000} seeds of each shape"
began=$(now_ms)
if ! LOAD_SEEDS=${SEEDS:-1000} cargo test --profile trial --quiet --locked -p dfs-master --lib -- \
  --exact core::policy::tests::shapes::every_shape_keeps_the_properties --nocapture; then
  die "a property was violated"
fi
echo "$((($(now_ms) - began) / 1000)) s"
