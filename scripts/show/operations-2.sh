#!/usr/bin/env bash
# Show: the status page of a cluster that is well, of one with a server down, and of one with a file that is read so much
# that its chunk got more replicas. Pictures of a real browser, saved in docs/img; fails if the page does not show what the
# picture is of. OUT=DIR saves them elsewhere.
. "$(dirname "$0")/../lib.sh"
[ "$(id -u)" = 0 ] || die "run as root: it mounts a file system"
need_packages fuse3 jq chromium fonts-dejavu-core e2fsprogs pngquant
[ -x "$bin/pageshot" ] || build_release
out=${OUT:-$root/docs/img}
mkdir -p "$out"
# More is too much for a picture in a document.
limit=200000
readers=()
before_stop() { [ ${#readers[@]} -eq 0 ] || kill "${readers[@]}" 2>/dev/null; }
# How fast the servers are is given, so that a few readers fill them.
start_cluster_apart --servers 5 --replicas 2 --chunk-size $((4 << 20)) -- cs --capacity 8
page=http://$("$bin/dfs" dev admin --dir "$work/cluster" master)/
# shot NAME WHEN: a picture once the expression is true on the page.
shot() {
  "$bin/pageshot" "$page" 1100 1420 "$2" | base64 -d | pngquant 128 - >"$out/$1.png"
  local size
  size=$(stat -c %s "$out/$1.png")
  [ "$size" -le $limit ] || die "$1.png has $size bytes, more than $limit"
  echo "$out/$1.png: $size bytes"
}
wait_status "cluster of five" 30 '.servers_up == 5'
mkdir -p "$mnt/photos" "$mnt/db"
for n in 1 2 3 4 5 6; do head -c 6M /dev/urandom >"$mnt/photos/holiday-$n.raw"; done
head -c 4M /dev/urandom >"$mnt/db/hot.table"
sync -f "$mnt"

say "healthy"
(while dd if="$mnt/photos/holiday-1.raw" of=/dev/null bs=1M iflag=direct status=none; do sleep 0.7; done) & readers+=($!)
shot status-healthy "document.querySelectorAll('#server-table .good').length === 5 && document.querySelectorAll('.cells i').length >= 8"
kill "${readers[@]}"; wait "${readers[@]}" 2>/dev/null || true; readers=()

say "a server down"
dev kill cs3
shot status-server-down "document.querySelector('#server-table .bad') !== null && document.querySelector('#alerts').innerText.includes('cs3 is down')"
dev start cs3
wait_status "cluster of five again" 60 '.servers_up == 5'

say "a hot file"
"$bin/dfs" --master "$master" policy set --max-threshold 30 --min-threshold 10 --raise-after 3 >/dev/null
for _ in 1 2 3 4; do
  (while dd if="$mnt/db/hot.table" of=/dev/null bs=1M iflag=direct status=none; do sleep 0.05; done) & readers+=($!)
done
shot status-hot-file "document.querySelector('#change-list').innerText.includes('serves it: 3 replicas') && document.querySelector('#heat-table').innerText.includes('/db/hot.table') && document.querySelectorAll('.cells i').length >= 20"
kill "${readers[@]}"; wait "${readers[@]}" 2>/dev/null || true; readers=()
echo "three pictures in $out"
