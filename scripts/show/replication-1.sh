#!/usr/bin/env bash
# Show 1: 10,000 simulated clusters with faults, without a violation. SEED and SEEDS choose others.
. "$(dirname "$0")/../lib.sh"
[ -x "$bin/simulate" ] || build_release
exec "$bin/simulate" --seed "${SEED:-1}" --seeds "${SEEDS:-10000}"
