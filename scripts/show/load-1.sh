#!/usr/bin/env bash
# Show 1: one hot file through limited links, with the policy, without it, and on MooseFS. As root. Options are those of
# scripts/bench-hot.sh; without any the figures and the plot go to docs/bench.
exec "$(dirname "$0")/../bench-hot.sh" "$@"
