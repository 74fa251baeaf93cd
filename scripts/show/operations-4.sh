#!/usr/bin/env bash
# Show 4: kill -9 of a mount's daemon under a running cp, five times. How long the mount is away, and what cp says.
# The mount is made as mount(8) makes it from /etc/fstab: by mount.dfs, whose supervisor mounts again.
. "$(dirname "$0")/../lib.sh"
need_packages fuse3 procps
need_fuse
build_release
start_cluster --replicas 2
at=$work/supervised
mkdir "$at"
ln -s "$bin/dfs-fuse" "$work/mount.dfs"
"$work/mount.dfs" "$master" "$at" -o _netdev,noatime
trap 'code=$?; set +e; umount -l "$at" 2>/dev/null; (exit $code); stop_cluster' EXIT
head -c 268435456 /dev/urandom >"$work/big"
echo kept >"$at/kept"

# The daemon is the child of the supervisor; both have the same command line.
daemon() {
  local p
  for p in $(pgrep -f "^$work/mount.dfs $master $at"); do
    if [ "$(ps -o comm= -p "$(ps -o ppid= -p "$p" | tr -d ' ')")" = "mount.dfs" ]; then echo "$p"; fi
  done
}

worst=0
for round in 1 2 3 4 5; do
  # Again and again: it is to be copying when the daemon dies.
  (while cp "$work/big" "$at/copy"; do :; done) 2>"$work/said" & copying=$!
  until [ -s "$at/copy" ]; do sleep 0.01; done
  began=$(now_ms)
  kill -9 "$(daemon)"
  until [ "$(cat "$at/kept" 2>/dev/null)" = kept ]; do
    [ $(($(now_ms) - began)) -lt 60000 ] || die "the mount did not come back"
    sleep 0.005
  done
  away=$(($(now_ms) - began))
  wait $copying || true
  echo "round $round: away for $away ms; $(sed "s|$work/||g" "$work/said" | tail -n 1)"
  grep -qE 'Transport endpoint is not connected|Software caused connection abort' "$work/said" ||
    die "cp saw something else: $(cat "$work/said")"
  [ "$away" -le "$worst" ] || worst=$away
  cp "$work/big" "$at/copy"
  cmp "$work/big" "$at/copy"
  rm "$at/copy"
done
say "longest away: $worst ms (2000 are allowed); each time cp then ran again and the copy was whole"
[ "$worst" -le 2000 ] || die "the mount was away for longer than 2 s"
umount "$at"
