#!/usr/bin/env bash
# From packages to a cluster of five machines that boot real systemd: a master, three chunk servers and a client on a
# private network. Installs, mounts by fstab and by a unit, copies a tree; kills daemons, reboots machines one by one,
# upgrades and purges, and looks at the tree after each. Then RPM packages over what the purge left, upgrade and removal.
# As root, with /dev/fuse.
# KEEP_PACKAGES=1 takes the packages that are there; DFS_BIN packs these programs.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/machines.sh"
cd "$root"
[ "$(id -u)" = 0 ] || die "run as root: it boots machines"
need_packages procps util-linux
need_fuse
servers=(cs1 cs2 cs3)
begin=$(now_ms)
step() { say "$(($(now_ms) - begin)) ms: $*"; }

make_tree
if [ -z "${KEEP_PACKAGES:-}" ] || [ ! -d target/packages/upgrade ]; then
  scripts/package.sh 1
  scripts/package.sh 2 upgrade
fi
scripts/check-packages.sh
step "boot of five machines"
start_machines master "${servers[@]}" client

step "install"
master=$net.1:9400
on master sh -ec 'dpkg -i /packages/dfs-master_*.deb /packages/dfs-tools_*.deb >/dev/null
  runuser -u dfs-master -- dfs-master init --data /var/lib/dfs-master --replicas 2
  systemctl enable --now --quiet dfs-master'
number=1
for server in "${servers[@]}"; do
  number=$((number + 1))
  on "$server" sh -ec "dpkg -i /packages/dfs-chunkserver_*.deb >/dev/null
    chown dfs-chunkserver: /srv/dfs/disk1
    cat >/etc/dfs/chunkserver-a.toml <<T
master = '$master'
listen = '0.0.0.0:9720'
advertise = '$net.$number:9720'
disk = ['/srv/dfs/disk1']
T
    systemctl enable --now --quiet dfs-chunkserver@a"
done
on client sh -ec "dpkg -i /packages/dfs-client_*.deb /packages/dfs-tools_*.deb >/dev/null
  mkdir /mnt/dfs
  echo '$master /mnt/dfs dfs _netdev,nofail,x-systemd.automount 0 0' >>/etc/fstab
  systemctl daemon-reload
  systemctl start mnt-dfs.automount"
for server in "${servers[@]}"; do on "$server" systemctl show -P StatusText dfs-chunkserver@a; done
on master systemctl show -P StatusText dfs-master

up() { on client dfs --json --master "$master" status | jq -e '.servers_up == 3'; }
# After a kill or a reboot of the client nothing of it is in a cache.
same() { on client diff -r --no-dereference /root/share "${1:-/mnt/dfs}/share"; }

step "copy of a tree to the mount that fstab makes"
# Upgrades change the original. Text, programs and links: more would only take longer to compare.
on client sh -ec 'mkdir /root/share; cp -a /usr/share/doc /usr/share/perl /usr/share/locale /root/share'
on client sh -ec 'cp -a /root/share /mnt/dfs/share; sync /mnt/dfs/share; findmnt -n -t fuse.dfs /mnt/dfs; du -sh /mnt/dfs/share | cut -f 1
  find /mnt/dfs/share -type f | wc -l'
same

step "mount by a unit"
on client sh -ec "mkdir /mnt/unit
  printf 'master = \"%s\"\nmount-point = \"/mnt/unit\"\noptions = [\"noatime\"]\n' $master >/etc/dfs/fuse-b.toml
  systemctl enable --now --quiet dfs-fuse@b"
on client systemctl show -P StatusText dfs-fuse@b
on client findmnt -n -t fuse.dfs /mnt/unit
same /mnt/unit

pid() { on "$1" systemctl show -P MainPID "$2"; }
# back NAME UNIT PID: whether another process serves as this unit. One question: between two it could be between both.
back() {
  local now
  now=$(on "$1" systemctl show -p ActiveState,MainPID "$2" | sort | tr '\n' ' ')
  [[ $now =~ ^ActiveState=active\ MainPID=([1-9][0-9]*)\ $ ]] && [ "${BASH_REMATCH[1]}" != "$3" ]
}
for where in "master dfs-master" "cs1 dfs-chunkserver@a" "cs2 dfs-chunkserver@a" "cs3 dfs-chunkserver@a"; do
  read -r name unit <<<"$where"
  step "kill -9 of $unit on $name"
  old=$(pid "$name" "$unit")
  on "$name" kill -9 "$old"
  await - 60 "other $unit on $name" back "$name" "$unit" "$old"
  echo "serves again after $took ms"
  same
done

# The daemon is the child of the supervisor; both are in the mount unit's cgroup.
mount_daemon() { on client sh -ec 'for p in $(pgrep -x mount.dfs); do [ "$(ps -o ppid= -p $p | tr -d " ")" = 1 ] || echo $p; done'; }
# mounts DIR: ids of the mounts of dfs that are there, without going into it.
mounts() { on client findmnt -n -t fuse.dfs -o ID "$1" || true; }
# replaced DIR ID: another mount is there, and no second one.
replaced() { local now; now=$(mounts "$1"); [[ $now =~ ^[0-9]+$ ]] && [ "$now" != "$2" ]; }
step "kill -9 of the mount's daemon on client"
on client grep -H mount /proc/"$(mount_daemon)"/cgroup || true
old=$(mounts /mnt/dfs)
on client sh -c "kill -9 $(mount_daemon)"
# Nobody goes in before it is back: whoever does in the moment between the dead mount and the new one has the automount
# make a second one over it (docs/reliability.md, Open).
await - 20 "mount" replaced /mnt/dfs "$old"
on client ls /mnt/dfs/share >/dev/null
echo "the mount is back after $took ms"
[ "$took" -le 2000 ] || die "the mount was away for longer than 2 s"
same

step "kill -9 of dfs-fuse@b on client"
old=$(pid client dfs-fuse@b)
on client kill -9 "$old"
await - 20 "other dfs-fuse@b" back client dfs-fuse@b "$old"
echo "serves again after $took ms"
[ "$took" -le 2000 ] || die "the mount was away for longer than 2 s"
[ "$(mounts /mnt/unit | wc -l)" = 1 ] || die "not one mount at /mnt/unit: $(mounts /mnt/unit)"
same /mnt/unit

for name in master "${servers[@]}" client; do
  step "reboot of $name"
  reboot_machine "$name"
  echo "up again after $(($(now_ms) - begin)) ms"
  await - 60 "three servers" up
  same
done
# It is enabled.
await client 20 "mount of dfs-fuse@b" systemctl is-active dfs-fuse@b
same /mnt/unit
for name in master "${servers[@]}" client; do
  failed=$(on "$name" systemctl --failed --no-legend)
  [ -z "$failed" ] || die "$name: failed: $failed"
done

step "stop of dfs-fuse@b"
on client systemctl disable --now --quiet dfs-fuse@b
[ -z "$(mounts /mnt/unit)" ] || die "the mount is there after the stop"
[ "$(on client systemctl show -p ActiveState,Result dfs-fuse@b | sort | tr '\n' ' ')" = "ActiveState=inactive Result=success " ] ||
  die "the stop was not clean: $(on client systemctl status --no-pager dfs-fuse@b)"
# Empty, and nothing hangs there.
on client rmdir /mnt/unit
on client rm /etc/dfs/fuse-b.toml

# put NAME DIR PACKAGE...: installs or upgrades, with what $kind of packages is used.
put() {
  local files=("${@:3}")
  if [ "$kind" = deb ]; then
    on "$1" sh -ec "dpkg -i $(printf " $2/%s_*.deb" "${files[@]}") >/dev/null"
  else
    # Not by its dependencies: this is no system of RPM packages.
    on "$1" sh -ec "rpm -U --force-debian --nodeps $(printf " $2/%s-[0-9]*.rpm" "${files[@]}")"
  fi
}
upgrade() {
  local old server
  old=$(pid master dfs-master)
  put master /packages/upgrade dfs-master dfs-tools
  await - 60 "master of the new package" back master dfs-master "$old"
  for server in "${servers[@]}"; do
    old=$(pid "$server" dfs-chunkserver@a)
    put "$server" /packages/upgrade dfs-chunkserver
    await - 60 "server of the new package" back "$server" dfs-chunkserver@a "$old"
    await - 60 "three servers" up
  done
  put client /packages/upgrade dfs-client dfs-tools
  same
}
# purge COMMAND...: of a package and what it made, but not of what the cluster stored.
purge() {
  local name server left
  on client sh -ec "umount /mnt/dfs; systemctl stop mnt-dfs.automount; $* dfs-client dfs-tools"
  for server in "${servers[@]}"; do on "$server" "$@" dfs-chunkserver; done
  on master "$@" dfs-master dfs-tools
  for name in master "${servers[@]}" client; do
    # shellcheck disable=SC2016
    left=$(on "$name" sh -c 'ls /usr/bin/dfs* /usr/sbin/mount.dfs /usr/lib/systemd/system/dfs* /etc/systemd/system/*.wants/dfs* \
      /usr/lib/sysusers.d/dfs* /usr/lib/tmpfiles.d/dfs* /etc/dfs/master.toml; pgrep -a dfs || true' 2>/dev/null) || true
    [ -z "$left" ] || die "$name: left by the purge: $left"
  done
  on master test -e /var/lib/dfs-master/cluster.json || die "the purge took the cluster's names"
}

step "upgrade"
kind=deb
upgrade
step "purge"
purge dpkg --purge

step "RPM packages, on machines without the users"
for name in master "${servers[@]}"; do
  # The files keep their numbers: who is made anew gets the same, being the only one.
  on "$name" sh -ec 'for user in dfs-master dfs-chunkserver; do ! getent passwd $user >/dev/null || userdel $user; done'
done
kind=rpm
put master /packages dfs-master dfs-tools
on master systemctl enable --now --quiet dfs-master
for server in "${servers[@]}"; do
  put "$server" /packages dfs-chunkserver
  on "$server" systemctl enable --now --quiet dfs-chunkserver@a
done
put client /packages dfs-client dfs-tools
on client sh -ec 'systemctl daemon-reload; systemctl start mnt-dfs.automount'
await - 60 "three servers" up
same
step "upgrade of RPM packages"
upgrade
step "removal of RPM packages"
purge rpm -e --force-debian
step "all passed"
