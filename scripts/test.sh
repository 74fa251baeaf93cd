#!/usr/bin/env bash
# Installs what the tests need and runs all of them: the checks, the unit, model and crash tests, seeds of the simulator,
# the mounted and kill tests with real processes, power cuts on loop-mounted filesystems, faults in
# network namespaces, and the POSIX suites. As root, with /dev/fuse, loop devices and network namespaces.
. "$(dirname "$0")/lib.sh"
cd "$root"
[ "$(id -u)" = 0 ] || die "run as root: the tests mount file systems"
need_packages fuse3 acl attr git procps util-linux e2fsprogs xfsprogs iproute2 nftables
need_fuse
begin=$(now_ms)
took() { say "$1: $((($(now_ms) - begin) / 1000)) s since the start"; }
scripts/check.sh; took "checks done"
build_release; took "release build done"
say "simulated clusters"
"$bin/simulate" --seed 1 --seeds "${SEEDS:-2500}"; took "simulation done"
say "tests"
# The mounted tests run the release binaries, so they are told where those are.
DFS_BIN=$bin cargo test --workspace --locked --quiet; took "tests done"
scripts/posix.sh; took "POSIX suites done"
say "all passed"
