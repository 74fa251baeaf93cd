#!/usr/bin/env bash
# The POSIX suites on a mounted cluster of its own: pjdfstest, and fsx with small chunks so that it crosses
# chunk borders. Exits 1 when fewer than PJD_MIN cases pass or one fails that scripts/posix-known.txt does not name.
# Usage: scripts/posix.sh [FSX_OPERATIONS]    (default 20000)
. "$(dirname "$0")/lib.sh"
ops=${1:-20000}
PJD_MIN=${PJD_MIN:-375}
need_packages fuse3 acl
need_fuse
need_tool pjdfstest
need_tool fsx
[ -x "$bin/dfs-fuse" ] || build_release
start_cluster --chunk-size 65536

say "pjdfstest"
# Two users without rights of their own; the suite switches between them.
cat >"$work/pjd.toml" <<C
[features]
posix_fallocate = {}
rename_ctime = {}
stat_st_birthtime = {}
utimensat = {}
utime_now = {}
[settings]
naptime = 0.02
allow_remount = false
[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"]]
C
umask 022
mkdir "$mnt/pjd"
out=$work/pjd.out
"$tools/pjdfstest" -c "$work/pjd.toml" -p "$mnt/pjd" >"$out" 2>&1 || true
grep '^Summary' "$out" || { tail -n 30 "$out"; die "pjdfstest did not come to its end"; }
passed=$(sed -n 's/^Summary.* \([0-9]*\) passed.*/\1/p' "$out")
sed -n 's/^\([^ ]*\) .*FAILED$/\1/p' "$out" | sort >"$work/failed"
sed 's/[[:space:]]*#.*//; /^$/d' "$root/scripts/posix-known.txt" | sort >"$work/known"
new=$(comm -23 "$work/failed" "$work/known")
if [ -n "$new" ]; then
  for case in $new; do grep -A 2 "^$case " "$out"; done
  die "cases fail that posix-known.txt does not name"
fi
[ "$passed" -ge "$PJD_MIN" ] || die "only $passed cases pass, the bar is $PJD_MIN"

say "fsx, $ops operations"
cat >"$work/fsx.toml" <<C
flen = 1048576
[opsize]
max = 131072
[weights]
close_open = 1.0
invalidate = 1.0
read = 10.0
write = 10.0
mapread = 5.0
mapwrite = 0.0
truncate = 5.0
fsync = 1.0
fdatasync = 1.0
punch_hole = 5.0
posix_fallocate = 2.0
copy_file_range = 0.0
sendfile = 2.0
posix_fadvise = 1.0
C
(cd "$mnt" && "$tools/fsx" -N "$ops" -S "${SEED:-7}" -f "$work/fsx.toml" "$mnt/fsx.bin" >"$work/fsx.out" 2>&1) || { tail -n 30 "$work/fsx.out"; die "fsx failed"; }
tail -n 1 "$work/fsx.out"
