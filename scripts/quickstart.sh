#!/usr/bin/env bash
# From a fresh clone to a mounted cluster on this machine: builds, starts a master and three chunk servers,
# mounts, and runs cp, cat and ls on the mount. Needs root, /dev/fuse and a Rust toolchain.
# Usage: scripts/quickstart.sh [DIR]      (DIR: where the cluster lives, default /var/tmp/dfs-quickstart)
. "$(dirname "$0")/lib.sh"
dir=${1:-/var/tmp/dfs-quickstart}
mnt=$dir/mnt
need_packages fuse3
need_fuse
build_daemons

say "a master, three chunk servers and a mount, all under $dir"
if [ -e "$dir/cluster/dev.json" ]; then "$bin/dfs" dev down --dir "$dir/cluster"; fi
"$bin/dfs" dev up --dir "$dir/cluster" --servers 3 --replicas 2 --mount "$mnt"
export PATH="$bin:$PATH"

say "cp, cat and ls"
set -x
rm -rf "$mnt/docs"
cp -a "$root/docs" "$mnt/docs"
cat "$mnt/docs/semantics.md" | head -n 3
ls -l "$mnt/docs"
diff -r "$root/docs" "$mnt/docs"
dfs file info "$mnt/docs/semantics.md"
dfs --master "$(dfs dev addr --dir "$dir/cluster")" status
{ set +x; } 2>/dev/null

cat <<T

The cluster is mounted at $mnt. Try:

  export PATH=$bin:\$PATH
  cp -a /usr/include $mnt/ && diff -r /usr/include $mnt/include
  dfs server list
  dfs dev kill  --dir $dir/cluster cs1      # reads go on from the other replicas
  dfs dev start --dir $dir/cluster cs1
  dfs dev down  --dir $dir/cluster          # stops it, keeps the data; --wipe deletes it
T
