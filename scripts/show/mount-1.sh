#!/usr/bin/env bash
# Show 1: in a fresh clone, quickstart.sh ends with a mounted cluster and a tree copied in and compared;
# test.sh passes. (QUICK=1 leaves test.sh out.)
. "$(dirname "$0")/../lib.sh"
clone=$(mktemp -d /var/tmp/dfs-clone.XXXXXX)
cluster=$(mktemp -d /var/tmp/dfs-quick.XXXXXX)
cleanup() { "$clone/tree/target/release/dfs" dev down --dir "$cluster/cluster" --wipe >/dev/null 2>&1 || true; rm -rf "$clone" "$cluster"; }
trap cleanup EXIT
git clone -q "$root" "$clone/tree"
begin=$(now_ms)
"$clone/tree/scripts/quickstart.sh" "$cluster"
mountpoint -q "$cluster/mnt" || die "quickstart left no mount"
echo "quickstart: $((($(now_ms) - begin) / 1000)) s"
"$clone/tree/target/release/dfs" dev down --dir "$cluster/cluster" --wipe
[ -n "${QUICK:-}" ] && exit
begin=$(now_ms)
"$clone/tree/scripts/test.sh"
echo "test.sh: $((($(now_ms) - begin) / 1000)) s"
