#!/usr/bin/env bash
# Show 5: a cluster of 5 servers loses one for good under load: back at its goal, replicas equal, `dfs fsck` clean, no
# program saw an error. 100 chunks beside the load; prints when repair began and how fast it went.
. "$(dirname "$0")/../lib.sh"
need_packages fuse3 jq fio
[ -x "$bin/dfs-fuse" ] || build_release
start_cluster --servers 5 --replicas 3 --chunk-size $((8 << 20)) -- master --close-after 5
say "100 chunks of 8 MiB, 3 replicas each"
mkdir "$mnt/data" "$mnt/load" "$work/src"
for f in $(seq 100); do head -c 8M /dev/urandom >"$work/src/f$f"; done
cp "$work"/src/* "$mnt/data/"
sync -f "$mnt"

say "load: 4 programs write at random places and verify what they wrote"
fio --name=load --directory="$mnt/load" --size=24M --numjobs=4 --rw=randwrite --bs=16k --ioengine=psync --loops=40 \
  --verify=crc32c --verify_backlog=512 --verify_fatal=1 --verify_state_save=0 --output-format=json --output="$work/fio.json" &
load=$!
until [ -s "$mnt/load/load.3.0" ]; do kill -0 $load || die "the load does not run"; sleep 0.1; done

say "cs3 dies for good"
dev kill cs3
died=$(now_ms)
rm -rf "$work/cluster/cs3"
wait_status "begin of the repair" 90 '.servers_up == 4 and .chunks_below_goal > 0'
before=$(status | jq .chunks_below_goal)
wait_status "repair" 300 ".chunks_below_goal < $before"
began=$(now_ms)
wait_status "goal" 600 '.chunks_below_goal == 0 and .chunks_recovering == 0'
ended=$(now_ms)
echo "below goal at most after the death: $before chunks"
echo "first chunk repaired $(((began - died) / 1000)) s after the death, the last $(((ended - died) / 1000)) s after it"
kill -0 $load 2>/dev/null && kill -INT $load
wait $load || true
# Above its JSON fio says which signal ended it.
sed -i '/^{/,$!d' "$work/fio.json"
errors=$(jq '[.jobs[].error] | add' "$work/fio.json")
echo "load: $(jq '[.jobs[].write.io_kbytes] | add / 1024 | floor' "$work/fio.json") MiB written, errors $errors"
[ "$errors" = 0 ] || die "a program saw an error"

say "replicas equal, everything there"
wait_status "close of every chunk" 120 '.chunks_open == 0'
[ "$(status | jq .replicas_diverged)" = 0 ] || die "replicas differed"
echo 3 >/proc/sys/vm/drop_caches
for f in $(seq 100); do cmp "$work/src/f$f" "$mnt/data/f$f" || die "f$f differs"; done
"$bin/dfs" --master "$master" fsck
echo "100 files equal, every replica of every chunk has the same digest, fsck clean"
