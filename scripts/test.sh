#!/usr/bin/env bash
# Installs what the tests need and runs all of them: the checks, the unit, model and crash tests, seeds of the simulator,
# the mounted and kill tests with real processes, the status page in a browser, power cuts on loop-mounted filesystems, faults in
# network namespaces, the POSIX suites, and packages on machines that boot systemd. As root, with /dev/fuse, loop devices,
# network namespaces and a cgroup hierarchy.
. "$(dirname "$0")/lib.sh"
cd "$root"
[ "$(id -u)" = 0 ] || die "run as root: the tests mount file systems"
need_packages fuse3 chromium fonts-dejavu-core acl attr git procps util-linux e2fsprogs xfsprogs iproute2 nftables
need_fuse
begin=$(now_ms)
took() { say "$1: $((($(now_ms) - begin) / 1000)) s since the start"; }
scripts/check.sh; took "checks done"
scripts/check-units.sh; took "units done"
build_trial; took "build done"
say "simulated clusters"
# As many at a time as there are processors: one is a single thread.
seeds=${SEEDS:-2500} jobs=$(nproc)
runs=()
for job in $(seq 0 $((jobs - 1))); do
  first=$((1 + seeds * job / jobs)) next=$((1 + seeds * (job + 1) / jobs))
  "$bin/simulate" --seed $first --seeds $((next - first)) & runs+=($!)
done
failed=0
for run in "${runs[@]}"; do wait "$run" || failed=1; done
[ $failed = 0 ] || die "the simulator found violations"
took "simulation done"
say "tests"
# Each test of real processes has a limit of its own; this one is for what was not thought of.
timeout --kill-after=10 2400 cargo test --workspace --locked --quiet || die "tests failed, or did not end in 40 minutes"
took "tests done"
scripts/posix.sh; took "POSIX suites done"
# What was built is packed; a release build would take longer than the rest of it.
scripts/test-systemd.sh; took "machines done"
say "all passed"
