#!/usr/bin/env bash
# Show 3: a rolled-back master, an emptied one and a disk of an older image, with real processes: no chunk file goes
# away, the hold is explained, the way out works.
. "$(dirname "$0")/../lib.sh"
need_packages fuse3
need_fuse
[ -x "$bin/dfs-fuse" ] || build_release
cd "$root"
DFS_BIN=$bin exec cargo test --locked --quiet -p dfs-tests --test hold
