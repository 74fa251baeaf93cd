#!/usr/bin/env bash
# The units under packaging/systemd: systemd finds nothing wrong with them, what they may do is rated 2.0 or less for
# the master and the chunk server, and the mount's makes no mount namespace.
. "$(dirname "$0")/lib.sh"
need_packages systemd
most=20 # in tenths
stage=$root/target/units
rm -rf "$stage"
mkdir -p "$stage/usr/lib/systemd" "$stage/usr/bin" "$stage/bin" "$stage/etc/systemd/system"
# Units that ours refer to. An instance of each template, as an operator would have it.
cp -a /usr/lib/systemd/system "$stage/usr/lib/systemd/"
install -m 644 "$root"/packaging/systemd/*.service "$stage/usr/lib/systemd/system/"
units=(dfs-master.service dfs-chunkserver@a.service dfs-fuse@a.service)
for program in usr/bin/dfs-master usr/bin/dfs-chunkserver usr/bin/dfs-fuse bin/kill; do
  install -m 755 /bin/true "$stage/$program"
done

say "systemd-analyze verify"
wrong=$(systemd-analyze verify --root="$stage" --man=no --recursive-errors=no "${units[@]}" 2>&1) || true
[ -z "$wrong" ] || die "$wrong"
# A unit that is wrong has to be found so, or the look above says nothing.
sed 's/^Type=notify/Type=sometimes/' "$root/packaging/systemd/dfs-master.service" >"$stage/usr/lib/systemd/system/dfs-wrong.service"
wrong=$(systemd-analyze verify --root="$stage" --man=no --recursive-errors=no dfs-wrong.service 2>&1) || true
[ -n "$wrong" ] || die "systemd-analyze verify finds nothing in a unit that is wrong"

say "systemd-analyze security"
for unit in "${units[@]}"; do
  rated=$(systemd-analyze security --offline=yes --root="$stage" --no-pager "$unit" | grep 'Overall exposure')
  echo "$unit: ${rated#*for }"
  tenths=$(sed -E 's/.*: ([0-9]+)\.([0-9]).*/\1\2/' <<<"$rated")
  case $unit in dfs-fuse*) continue ;; esac
  [ "$((10#$tenths))" -le $most ] || die "$unit: rated worse than 2.0"
done

say "mount namespaces"
# systemd.exec(5): whatever of these is set gives the processes a view of their own.
makes='ProtectSystem|ProtectHome|ProtectKernel|ProtectControlGroups|ProtectProc|ProcSubset|PrivateTmp|PrivateDevices|PrivateMounts'
makes+='|PrivateIPC|PrivateUsers|ReadWritePaths|ReadOnlyPaths|InaccessiblePaths|ExecPaths|NoExecPaths|BindPaths|BindReadOnlyPaths'
makes+='|TemporaryFileSystem|MountFlags|MountAPIVFS|Root[A-Z]|StateDirectory|RuntimeDirectory|DynamicUser|ProtectHostname|ProtectClock|User='
if grep -nE "^($makes)" "$root/packaging/systemd/dfs-fuse@.service"; then die "dfs-fuse@.service: nobody would see its mount"; fi
say "the units are as they have to be"
