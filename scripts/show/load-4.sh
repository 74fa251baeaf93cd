#!/usr/bin/env bash
# Show 4: `dfs policy replay`: what other thresholds would have done with a recorded log of loads. Records one with show 2, or
# takes LOG, a file or directory of one. With its own settings every decision must be the recorded one; then two others.
. "$(dirname "$0")/../lib.sh"
need_packages jq
[ -x "$bin/dfs" ] || build_release
work=$(mktemp -d "${TMPDIR:-/var/tmp}/dfs.XXXXXX")
trap 'rm -rf "$work"' EXIT
log=${LOG:-}
if [ -z "$log" ]; then
  say "recording: show 2"
  log=$work/load
  KEEP_LOG=$log "$(dirname "$0")/load-2.sh" >"$work/show-2" 2>&1 || { cat "$work/show-2"; die "nothing was recorded"; }
fi
replay() { "$bin/dfs" policy replay "$log" "$@"; }
json() { "$bin/dfs" --json policy replay "$log" "$@"; }

say "with the settings of the record"
replay
json | jq -e '.first_difference_unix_ms == null and .recorded == .replayed and .replayed.raises > 0' >/dev/null ||
  die "its own settings come to other decisions"
say "twenty times as hot: max threshold 600, min threshold 200"
replay --max-threshold 600 --min-threshold 200
json --max-threshold 600 --min-threshold 200 | jq -e '.replayed.copies < .recorded.copies' >/dev/null || die "it copies no less"
say "half as hot: max threshold 15, min threshold 5, at most 3 replicas"
replay --max-threshold 15 --min-threshold 5 --max-replicas 3
json --max-threshold 15 --min-threshold 5 --max-replicas 3 | jq -e '.replayed.raises > 0 and .replayed.most_above_goals <= 1' >/dev/null ||
  die "it raises nothing, or above the bound"

say "a file that is no log is refused"
mkdir "$work/bad"
find "$log" -name 'load.jsonl' -exec cat {} + | head -n 3 >"$work/bad/load.jsonl"
echo '{"version":1,' >>"$work/bad/load.jsonl"
if said=$("$bin/dfs" policy replay "$work/bad/load.jsonl" 2>&1); then die "it was taken"; fi
echo "$said"
grep -q 'line 4: ' <<<"$said" || die "the line is not named"
