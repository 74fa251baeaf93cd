#!/usr/bin/env bash
# Show 1: from a clone in an empty directory to packages, and from these to a cluster of five machines that boot systemd:
# mounts, kills, reboots, upgrade, purge, a tree compared after each (scripts/test-systemd.sh). Prints how long it took.
# DFS_BIN packs programs that are there instead of building them. Fails if anything of it does, or is left behind.
. "$(dirname "$0")/../lib.sh"
[ "$(id -u)" = 0 ] || die "run as root: it boots machines"
need_packages git iproute2
clone=$(mktemp -d /var/tmp/dfs-clone.XXXXXX)
trap 'rm -rf --one-file-system "$clone"' EXIT
git clone -q "$root" "$clone/tree"
begin=$(now_ms)
"$clone/tree/scripts/test-systemd.sh"
took=$((($(now_ms) - begin) / 1000))
left=$({ ip netns list; grep "$clone" /proc/mounts; find /sys/fs/cgroup -maxdepth 2 -type d; } | grep -E 'dfs-lab|dfs-clone|dfs-systemd') || true
[ -z "$left" ] || die "left behind: $left"
say "from a clone to the end in $took s"
