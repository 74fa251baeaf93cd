#!/usr/bin/env bash
# How fast an idle cluster makes the replicas of a lost server anew, against what the disk can do: the same bytes
# copied by cp and synced. All servers share one disk here, which reads and writes each byte once in both cases.
# Fails below half of it, or when the first copy begins later than 30 s after the dead server's lease is over.
# Usage: scripts/bench-repair.sh; CHUNKS (100) how many, CHUNK_MIB (32) of what size.
. "$(dirname "$0")/lib.sh"
need_packages fuse3 jq
[ -x "$bin/dfs-fuse" ] || build_release
chunks=${CHUNKS:-100} chunk=${CHUNK_MIB:-32}
start_cluster --servers 4 --replicas 2 --chunk-size $((chunk << 20)) -- master --close-after 2
cold() { sync; echo 3 >/proc/sys/vm/drop_caches; }

say "$chunks chunks of $chunk MiB, 2 replicas each, on 4 servers"
# Half of the replicas' servers hold half of the chunks each.
head -c $((2 * chunks * chunk))M /dev/urandom >"$mnt/data"
wait_status "close of every chunk" 300 '.chunks_open == 0'

say "the disk: cp of $chunks files of $chunk MiB, and sync"
mkdir "$work/from" "$work/to"
for f in $(seq "$chunks"); do head -c ${chunk}M /dev/urandom >"$work/from/$f"; done
cold
began=$(now_ms)
cp "$work"/from/* "$work/to"
sync -f "$work/to"
disk=$((chunks * chunk * 1000 / ($(now_ms) - began)))
echo "disk: $disk MiB/s"
rm -rf "$work/from" "$work/to"

say "cs4 is lost"
cold
dev kill cs4
rm -rf "$work/cluster/cs4"
died=$(now_ms)
wait_status "the server's end" 60 '.servers_up == 3 and .chunks_below_goal > 0'
lost=$(status | jq .chunks_below_goal)
wait_status "begin of the repair" 90 ".chunks_below_goal < $lost"
began=$(now_ms) left=$(status | jq .chunks_below_goal)
wait_status "goal" 900 '.chunks_below_goal == 0'
took=$(($(now_ms) - began))
[ "$left" -gt 0 ] || die "all $lost chunks were copied between two looks: give more, or larger ones"
speed=$((left * chunk * 1000 / took))
# A lease lasts 6 s.
waited=$(((began - died) / 1000 - 6))
echo "repair: $lost chunks, the last $left in $((took / 1000)) s, $speed MiB/s, begun $waited s after the lease was over"
printf 'ratio %s of %s MiB/s, bar 0.5\n' "$(jq -n "$speed / $disk * 100 | floor / 100")" "$disk"
[ $waited -le 30 ] || die "the repair began late"
[ $((2 * speed)) -ge "$disk" ] || die "below half of the disk's speed"
