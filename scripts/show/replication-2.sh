#!/usr/bin/env bash
# Show 2: real faults. The matrix of processes in network namespaces, TIMES times; CUTS power cuts on each of ext4 and
# xfs, half of one host that has everything and half of hosts of their own; IMAGES crash images. As root.
. "$(dirname "$0")/../lib.sh"
[ "$(id -u)" = 0 ] || die "run as root: it mounts filesystems and makes network namespaces"
need_packages fuse3 e2fsprogs xfsprogs iproute2 nftables util-linux
need_fuse
for b in dfs-fuse powercut crashimages matrix; do [ -x "$bin/$b" ] || { build_release; break; }; done
export DFS_BIN=$bin
cuts=${CUTS:-100}
say "crash images"
"$bin/crashimages" --images "${IMAGES:-2000}" --runs 4
for fs in ext4 xfs; do
  say "power cuts on $fs"
  "$bin/powercut" --quiet --fs "$fs" --spread one --cuts $((cuts / 2))
  "$bin/powercut" --quiet --fs "$fs" --spread each --cuts $((cuts - cuts / 2))
done
say "the matrix"
"$bin/matrix" --times "${TIMES:-3}"
