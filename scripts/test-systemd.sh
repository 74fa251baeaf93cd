#!/usr/bin/env bash
# From packages to a cluster of five machines that boot real systemd: a master, three chunk servers and a client on a
# private network. Installs, mounts by fstab, copies a tree; kills daemons, reboots machines one by one, upgrades and
# purges, and looks at the tree after each. As root, with /dev/fuse.
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
same() { on client diff -r /root/share /mnt/dfs/share; }

step "copy of a tree to the mount that fstab makes"
# Upgrades change the original.
on client cp -r /usr/share /root/share
on client sh -ec 'cp -r /root/share /mnt/dfs/share; sync /mnt/dfs/share; findmnt -n -t fuse.dfs /mnt/dfs; du -sh /mnt/dfs/share | cut -f 1
  find /mnt/dfs/share -type f | wc -l'
same

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
step "kill -9 of the mount's daemon on client"
on client grep -H mount /proc/"$(mount_daemon)"/cgroup || true
on client sh -c "kill -9 $(mount_daemon)"
await client 20 "mount" ls /mnt/dfs/share
echo "the mount is back after $took ms"
[ "$took" -le 2000 ] || die "the mount was away for longer than 2 s"
same

for name in master "${servers[@]}" client; do
  step "reboot of $name"
  reboot_machine "$name"
  echo "up again after $(($(now_ms) - begin)) ms"
  await - 60 "three servers" up
  same
done
on client systemctl --failed --no-legend

step "upgrade"
old=$(pid master dfs-master)
on master sh -ec 'dpkg -i /packages/upgrade/dfs-master_*.deb /packages/upgrade/dfs-tools_*.deb >/dev/null'
await - 60 "master of the new package" back master dfs-master "$old"
for server in "${servers[@]}"; do
  old=$(pid "$server" dfs-chunkserver@a)
  on "$server" sh -ec 'dpkg -i /packages/upgrade/dfs-chunkserver_*.deb >/dev/null'
  await - 60 "server of the new package" back "$server" dfs-chunkserver@a "$old"
  await - 60 "three servers" up
done
on client sh -ec 'dpkg -i /packages/upgrade/dfs-client_*.deb /packages/upgrade/dfs-tools_*.deb >/dev/null'
same

step "purge"
on client sh -ec 'umount /mnt/dfs; systemctl stop mnt-dfs.automount; dpkg --purge dfs-client dfs-tools'
for server in "${servers[@]}"; do on "$server" dpkg --purge dfs-chunkserver; done
on master dpkg --purge dfs-master dfs-tools
for name in master "${servers[@]}" client; do
  left=$(on "$name" sh -c 'ls /usr/bin/dfs* /usr/sbin/mount.dfs /usr/lib/systemd/system/dfs* /etc/systemd/system/*.wants/dfs*' 2>/dev/null) || true
  [ -z "$left" ] || die "$name: left by the purge: $left"
done
on master test -e /var/lib/dfs-master/cluster.json || die "the purge took the cluster's names"
step "all passed"
