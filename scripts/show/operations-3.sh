#!/usr/bin/env bash
# Show 3: the units are sound and rated 2.0 or better, and what the daemons' admin ports show is sound: names, types and
# units of every figure; each that the alert rules and the dashboard name is there; each alert is explained; the JSON has the keys that
# its document has. With real daemons. DFS_BIN: programs that are there.
. "$(dirname "$0")/../lib.sh"
[ "$(id -u)" = 0 ] || die "run as root: it mounts a file system"
need_packages fuse3
need_fuse
cd "$root"
scripts/check-units.sh
# The test runs the programs of its own profile where it is not told others.
[ -x "$bin/dfs-fuse" ] || build_release
say "figures, rules, dashboard"
DFS_BIN=$bin cargo test --locked --quiet -p dfs-tests --test admin || die "what the admin ports show is not as it has to be"
alerts=$(grep -c '^ *- alert:' packaging/prometheus/dfs.rules.yml)
panels=$(grep -c '"expr":' packaging/grafana/dfs.json)
say "units, figures, $alerts alerts and $panels queries of the dashboard are as they have to be"
