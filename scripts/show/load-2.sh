#!/usr/bin/env bash
# Show 2: why a chunk has the replicas that it has. A file is read until its chunk is raised, and left alone until it is
# lowered; `dfs chunk explain` tells the whole story with what decided it. Fails if a part of the story is missing. On one
# machine nothing is as full as a link: servers say that they can 8 MB/s, so that a few readers fill them.
# KEEP_LOG=DIR keeps the master's log of loads there, for load-4.sh.
. "$(dirname "$0")/../lib.sh"
[ "$(id -u)" = 0 ] || die "run as root: it mounts a file system"
need_packages fuse3 jq e2fsprogs
[ -x "$bin/dfs-fuse" ] || build_release

before_stop() { touch "$disk/stop"; wait; }
start_cluster_apart --servers 5 --replicas 2 --chunk-size $((4 << 20)) -- cs --capacity 8
dfs() { "$bin/dfs" --master "$master" "$@"; }
explain() { dfs --json chunk explain "$mnt/hot"; }
# until_so WHAT SECONDS FILTER: until jq's FILTER is true of the chunk.
until_so() {
  local end=$(($(now_ms) + $2 * 1000))
  until explain | jq -e "$3" >/dev/null; do
    [ "$(now_ms)" -lt $end ] || { dfs chunk explain "$mnt/hot"; die "no $1 within $2 s"; }
    sleep 0.2
  done
}

say "a file of one chunk with 2 replicas; a replica is hot above 30/s, and too many under 10/s for 8 s"
dfs policy set --max-threshold 30 --min-threshold 10 --raise-after 3 --lower-after 8 >/dev/null
head -c 4M /dev/urandom >"$mnt/hot"
sync -f "$mnt"

say "four readers"
stop=$disk/stop
for _ in 1 2 3 4; do
  (until [ -e "$stop" ]; do dd if="$mnt/hot" of=/dev/null bs=1M iflag=direct status=none || break; sleep 0.05; done) &
done
until_so "raise" 30 '.replicas | length > 2'
until_so "end of the raise" 30 '.to_come == 0'
dfs heat top -n 3
say "nobody reads it any more"
touch "$stop"
until_so "way back to the goal" 60 '.to_come == 0 and (.replicas | length) == 2'

say "the whole story"
dfs chunk explain "$mnt/hot"
story=$(explain)
# part WHAT REGEX: the story has it.
part() { jq -e --arg re "$2" '[.past[].what] | any(test($re))' <<<"$story" >/dev/null || die "the story has no $1"; }
part "decision to raise, with load, threshold, time and the busy holder" \
  'raise, to cs.*: [0-9.]+/s on each of 2 replicas, above 30/s for [0-9.]+ s, and s[0-9]+ is [0-9.]+ % busy'
part "copy that serves" 'cs[0-9]+ serves it: [0-9]+ replicas, [0-9]+ to come'
part "decision to lower, with the highest load, the time and the threshold" \
  'lower, on cs[0-9]+: at most [0-9.]+/s in 8 s: with [0-9]+ replicas? [0-9.]+/s each, under 10/s'
part "replica that went" 'cs[0-9]+ gave it back: 2 replicas'
jq -e '.past == (.past | sort_by(.unix_s)) and all(.past[]; .unix_s > 0)' <<<"$story" >/dev/null || die "its dates are not in order"
jq -e '(.replicas | length) == .goal and .max_milli == 30000 and .min_milli == 10000' <<<"$story" >/dev/null || die "what holds now is missing"
[ -z "${KEEP_LOG:-}" ] || cp -r "$work/cluster/master/load" "$KEEP_LOG"
echo "raised and lowered, each with what decided it"
