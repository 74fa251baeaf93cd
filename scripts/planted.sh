#!/usr/bin/env bash
# Plants known mistakes, one at a time, and says which part of the suite finds each: the simulator, or a test. Fails if
# one goes unnoticed, or if the suite complains without any.
# Usage: scripts/planted.sh [--few | MISTAKE...]; SEED and SEEDS choose the simulated clusters, JOBS how many run at once.
. "$(dirname "$0")/lib.sh"
cd "$root"
seed=${SEED:-1} seeds=${SEEDS:-2000} jobs=${JOBS:-$(nproc)}
target=$root/target/planted
source=dfs-proto/src/planted.rs
# Those of a few seeds each, from each part of the protocol.
few=(AckOneShort SkipDataSync ServeWithoutLease NewMasterDoesNotWait SkipZero ReuseIds)
# What the simulator can't reach, or not within the seeds here, is a test's: package, target, name.
declare -A tests=(
  [SkipReadBound]="dfs-client --test client reads_that_may_be_old_or_are_spoiled_are_made_elsewhere"
  [MergeUnverified]="dfs-chunkserver --test store every_rotten_bit_of_data_is_noticed"
  [SyncErrorForgotten]="dfs-chunkserver --test store a_failed_sync_is_final"
  [SuspectForgotten]="dfs-chunkserver --test store a_failed_sync_is_known_until_the_kernel_is_gone"
  [BegunOnTrash]="dfs-chunkserver --lib a_learner_begins_when_what_was_there_is_gone"
  [CacheUnsettled]="dfs-master --test core_flows a_file_is_cached_when_what_was_given_up_is_over"
  [GoneIsEmpty]="dfs-chunkserver --lib who_left_and_was_removed_does_not_say_that_nothing_was_written"
  [DeleteFromInventory]="dfs-master --test core_flows an_unknown_replica_is_left_alone"
  [DropBesideOthers]="dfs-master --test core_flows beside_other_opens_it_stays_until_nobody_writes_it"
  [OvertakenRead]="dfs-chunkserver --lib a_write_that_overtakes_a_read_sends_it_back"
  [OldEpochWrite]="dfs-chunkserver --lib a_truncation_refuses_older_writes"
  [ReplyBeforeDurable]="dfs-master --test core_flows a_new_session_waits_for_the_disk"
  [SessionCutShort]="dfs-master --test core_flows a_silent_session_ends_with_its_lease"
  [ObeyOlderMaster]="dfs-chunkserver --lib an_older_master_is_not_obeyed"
)
mapfile -t all < <(sed -n '/mistakes! {$/,/^    }$/s/^        \([A-Z][A-Za-z]*\),$/\1/p' $source)
what() { grep -B1 "^        $1,$" $source | sed -n 's|^ */// ||p'; }
where() { grep -rl "planted!($1)" dfs-*/src | paste -sd' '; }

case "${1:-}" in
  --few) chosen=("${few[@]}") ;;
  '') chosen=("${all[@]}") ;;
  *) chosen=("$@") ;;
esac
for m in "${chosen[@]}"; do [[ " ${all[*]} " == *" $m "* ]] || die "$m is none of ${all[*]}"; done

# Nothing of it is in what is built to be used.
for b in "$bin"/dfs*; do
  [ -f "$b" ] && [ -x "$b" ] && grep -q DFS_PLANTED "$b" && die "$b was built with --cfg dfs_planted: rebuild it"
done

build() {
  RUSTFLAGS="--cfg dfs_planted" CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
    CARGO_PROFILE_RELEASE_DEBUG=none cargo "$1" --release --locked --quiet --target-dir "$target" "${@:2}"
}
simulate=$target/release/simulate
out=$(mktemp -d "${TMPDIR:-/var/tmp}/dfs.XXXXXX")
trap 'rm -rf "$out"' EXIT
say "building with planted mistakes"
build build -p dfs-tests --bin simulate
say "without a mistake"
"$simulate" --seed "$seed" --seeds "$((seeds < 100 ? seeds : 100))"

# by_simulation MISTAKE: one line with what found it, after how many seeds.
by_simulation() {
  local log=$out/$1.log found code=0
  DFS_PLANTED=$1 timeout 900 "$simulate" --seed "$seed" --seeds "$seeds" --last 0 >"$log" 2>&1 || code=$?
  found=$(sed -n 's/^seed \([0-9]*\): .* violations$/\1/p' "$log")
  if [ $code != 1 ] || [ -z "$found" ]; then
    echo "MISSED (code $code): $(tail -n 1 "$log")"
  elif ! "$simulate" --seed "$found" >"$log.without" 2>&1; then
    echo "MISSED: seed $found is violated without it"
  else
    echo "simulator, \`$(sed -n '3s/^ *\([A-Za-z0-9]*\): \?\(panicked.*\|.*\)$/\1/p' "$log")\`|$((found - seed + 1))"
  fi
}

# by_test MISTAKE PACKAGE TARGET... NAME: the same for a test, built as the simulator was, so that nothing is built twice.
by_test() {
  local log=$out/$1.log
  build test -p dfs-tests -p "${@:2}" >"$log" 2>&1 && grep -q '^test result: ok. [1-9]' "$log" || { echo "MISSED: the test fails without it"; return; }
  if DFS_PLANTED=$1 build test -p dfs-tests -p "${@:2}" >"$log" 2>&1; then echo "MISSED: the test passes"; else echo "\`${*: -1}\`|-"; fi
}

hunt() {
  local begin
  begin=$(now_ms)
  # Tests go one at a time: each begins with a build.
  if [ -n "${tests[$1]:-}" ]; then exec 9>"$out/lock"; flock 9; by_test "$1" ${tests[$1]} >"$out/$1"; else by_simulation "$1" >"$out/$1"; fi
  echo "$((($(now_ms) - begin + 500) / 1000))" >"$out/$1.s"
}

say "${#chosen[@]} mistakes, $jobs at once"
for m in "${chosen[@]}"; do
  while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n; done
  hunt "$m" &
done
wait
missed=0
echo "| mistake | what | where | found by | seeds | s |"
echo "|---|---|---|---|---|---|"
for m in "${chosen[@]}"; do
  IFS='|' read -r by took <"$out/$m"
  [[ $by == MISSED* ]] && missed=$((missed + 1))
  echo "| $m | $(what "$m") | $(where "$m") | $by | ${took:--} | $(cat "$out/$m.s") |"
done
[ $missed = 0 ] || die "$missed of ${#chosen[@]} went unnoticed"
echo "${#chosen[@]} of ${#chosen[@]} were found"
