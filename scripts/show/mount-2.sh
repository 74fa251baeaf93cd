#!/usr/bin/env bash
# Show 2: 10,000 entries through cp -a, diff -r clean before and after restarting everything; a 1 GiB file by
# sha256, read while a chunk server holding it is killed, and written while another is.
. "$(dirname "$0")/../lib.sh"
need_packages fuse3 jq
[ -x "$bin/dfs-fuse" ] || build_release
start_cluster --servers 3 --replicas 2
say "a tree of 10,000 entries"
src=$work/src
mkdir "$src"
for d in $(seq 100); do
  mkdir "$src/d$d"
  for f in $(seq 97); do printf '%s %s\n%*s' "$d" "$f" $((d * f % 9000)) x >"$src/d$d/f$f"; done
  ln -s f1 "$src/d$d/link"
  ln "$src/d$d/f2" "$src/d$d/hard"
done
echo "entries: $(find "$src" | wc -l)"
t=$(now_ms); cp -a "$src" "$mnt/tree"; echo "cp -a: $(($(now_ms) - t)) ms"
t=$(now_ms); diff -r --no-dereference "$src" "$mnt/tree"; echo "diff -r before the restart: clean, $(($(now_ms) - t)) ms"
for m in mount cs1 cs2 cs3 master; do dev stop $m; done
t=$(now_ms); for m in master cs1 cs2 cs3 mount; do dev start $m; done; echo "everything restarted: $(($(now_ms) - t)) ms"
t=$(now_ms); diff -r --no-dereference "$src" "$mnt/tree"; echo "diff -r after the restart: clean, $(($(now_ms) - t)) ms"

say "1 GiB, read while a holder is killed"
head -c 1G /dev/urandom >"$work/big"
want=$(sha256sum <"$work/big")
cp "$work/big" "$mnt/big"
holder=$("$bin/dfs" --json file info "$mnt/big" | jq -r '.chunks[0].members[0].name')
echo 3 >/proc/sys/vm/drop_caches
sha256sum <"$mnt/big" >"$work/sum" &
reader=$!
dev kill "$holder"
wait $reader
[ "$(cat "$work/sum")" = "$want" ] || die "the sum differs with $holder killed"
echo "sha256 equal, $holder killed during the read"
dev start "$holder"

say "1 GiB, written while another is killed"
other=$(printf 'cs1\ncs2\ncs3\n' | grep -vx "$holder" | head -n 1)
t=$(now_ms)
cp "$work/big" "$mnt/big2" &
writer=$!
while [ "$(stat -c %s "$mnt/big2" 2>/dev/null || echo 0)" -lt 100000000 ]; do kill -0 $writer || break; done
dev kill "$other"
wait $writer
sync -f "$mnt/big2"
echo "written in $(($(now_ms) - t)) ms, $other killed during the write"
echo 3 >/proc/sys/vm/drop_caches
[ "$(sha256sum <"$mnt/big2")" = "$want" ] || die "the written file's sum differs"
dev start "$other"
echo 3 >/proc/sys/vm/drop_caches
[ "$(sha256sum <"$mnt/big2")" = "$want" ] || die "the sum differs once $other is back"
echo "sha256 equal with $other down and back"
