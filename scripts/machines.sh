# Sourced after lib.sh: machines that boot real systemd, as containers of systemd-nspawn on a private network.
# Each has an overlay of one Debian tree, a network namespace and a cgroup of its own. They go away with the script.
# shellcheck shell=bash
tree=$root/target/systemd/tree
lab=dfs-lab-$$
net=10.77.0
declare -A leader

# What a machine has, beside Debian's smallest system. rpm, to install the other kind of packages with.
inside=systemd,systemd-sysv,dbus,fuse3,iproute2,procps,iputils-ping,rpm

# make_tree: the Debian tree, once. Its directory is kept under target/.
make_tree() {
  need_packages debootstrap systemd-container iproute2
  can_boot
  [ "$(cat "$tree.done" 2>/dev/null)" != "$inside" ] || return 0
  say "a Debian tree, by debootstrap"
  rm -rf "$tree"
  mkdir -p "${tree%/*}"
  debootstrap --variant=minbase --include="$inside" bookworm "$tree" "${DEBIAN_MIRROR:-http://deb.debian.org/debian}" >"$tree.log" || die "see $tree.log"
  rm -f "$tree/etc/machine-id"
  # What would wait for hardware or a network manager that is not there.
  chroot "$tree" systemctl mask --quiet systemd-networkd-wait-online.service systemd-udev-trigger.service
  # Nothing of this is read once it is installed.
  rm -rf "$tree"/var/cache/apt/archives/*.deb "$tree"/var/lib/apt/lists/*
  echo "$inside" >"$tree.done"
}

# can_boot: says what this machine lacks that machines inside it need.
can_boot() {
  local at groups=
  for at in /sys/fs/cgroup/systemd /sys/fs/cgroup; do
    [ ! -e "$at/cgroup.procs" ] || { mkdir "$at/$lab-try" 2>/dev/null && rmdir "$at/$lab-try" && groups=1; } || true
  done
  [ -n "$groups" ] || die "cannot boot machines here: no cgroup hierarchy below /sys/fs/cgroup that can be written (a container has to be given it)"
  [ -c /dev/autofs ] || die "cannot boot machines here: /dev/autofs is missing, which mounts of fstab are made by: load autofs4"
  unshare -m -n -p -f -u -i true || die "cannot boot machines here: no namespaces of their own: run as the machine's root"
}

# start_machines NAME...: sets $work; addresses are $net.1, $net.2, ... in this order.
start_machines() {
  work=$(mktemp -d "${TMPDIR:-/var/tmp}/dfs-systemd.XXXXXX")
  trap 'stop_machines' EXIT
  trap 'exit 130' INT TERM
  machines=("$@")
  # The switch is in a namespace, too: nothing of this machine's network changes.
  ip netns add "$lab"
  ip -n "$lab" link add sw type bridge
  ip -n "$lab" link set sw up
  local number=0 name
  for name in "${machines[@]}"; do
    number=$((number + 1))
    ip netns add "$lab-$name"
    ip -n "$lab-$name" link add host0 type veth peer name "p$number" netns "$lab"
    ip -n "$lab" link set "p$number" master sw up
    ip -n "$lab-$name" addr add "$net.$number/24" dev host0
    ip -n "$lab-$name" link set host0 up
    ip -n "$lab-$name" link set lo up
    mkdir -p "$work/$name"/{upper,work,root,disk}
    mount -t overlay overlay -o "lowerdir=$tree,upperdir=$work/$name/upper,workdir=$work/$name/work" "$work/$name/root"
    echo "$name" >"$work/$name/root/etc/hostname"
    for n in $(seq ${#machines[@]}); do echo "$net.$n ${machines[n - 1]}"; done >>"$work/$name/root/etc/hosts"
    mkdir -p "$work/$name/root/srv/dfs/disk1" "$work/$name/root/packages"
    run_machine "$name" &
    echo $! >"$work/$name/runner"
  done
  for name in "${machines[@]}"; do await_boot "$name"; done
}

# run_machine NAME: boots it again whenever it reboots, which nspawn tells by its exit code.
run_machine() {
  trap - EXIT INT TERM
  local code=133
  while [ $code = 133 ]; do
    (
      join_cgroup "$lab-$1"
      exec systemd-nspawn --quiet -M "$lab-$1" -D "$work/$1/root" --boot --register=no --keep-unit \
        --bind=/dev/fuse --bind=/dev/autofs --bind="$work/$1/disk:/srv/dfs/disk1" \
        --bind-ro="$root/target/packages:/packages" --network-namespace-path="/run/netns/$lab-$1"
    ) >>"$work/$1/console" 2>&1 </dev/null &
    echo $! >"$work/$1/nspawn"
    code=0
    wait $! || code=$?
  done
}

# Where services would fail without: nspawn makes the machine's groups under the caller's.
join_cgroup() {
  local at
  for at in /sys/fs/cgroup/systemd /sys/fs/cgroup/unified /sys/fs/cgroup; do
    [ -e "$at/cgroup.procs" ] || continue
    mkdir -p "$at/$1"
    echo "$BASHPID" >"$at/$1/cgroup.procs"
  done
}

leave_cgroup() {
  local at left=0
  for at in /sys/fs/cgroup/systemd /sys/fs/cgroup/unified /sys/fs/cgroup; do
    [ -d "$at/$1" ] || continue
    # find itself does not fail when rmdir does.
    find "$at/$1" -depth -type d -exec rmdir {} \; 2>/dev/null || true
    [ ! -d "$at/$1" ] || left=1
  done
  return $left
}

# await NAME SECONDS WHAT COMMAND...: until the command succeeds on this machine (or here, for NAME -).
await() {
  local end=$(($(now_ms) + $2 * 1000)) began
  began=$(now_ms)
  until if [ "$1" = - ]; then "${@:4}"; else on "$1" "${@:4}"; fi >/dev/null 2>&1; do
    if [ "$(now_ms)" -ge $end ]; then
      [ "$1" = - ] || on "$1" journalctl -b --no-pager -n 30 >&2 || tail -n 30 "$work/$1/console" >&2
      die "$1: no $3 within $2 s"
    fi
    sleep 0.1
  done
  took=$(($(now_ms) - began))
}

# Not by pgrep, which reads every process's memory: one that waits for a stuck mount would hold it.
find_leader() {
  local nspawn
  # The list ends without a newline.
  nspawn=$(cat "$work/$1/nspawn") && leader[$1]=$(tr -d ' ' <"/proc/$nspawn/task/$nspawn/children") && [ -n "${leader[$1]}" ]
}

is_up() { on "$1" systemctl is-system-running --quiet || [ "$(on "$1" systemctl is-system-running)" = degraded ]; }

await_boot() {
  await - 120 "init of $1" find_leader "$1"
  await - 120 "boot of $1" is_up "$1"
}

# on NAME COMMAND...: runs it there.
on() { nsenter -t "${leader[$1]}" -m -u -i -n -p -r -w -- "${@:2}"; }

# reboot_machine NAME: returns when it is up again.
reboot_machine() {
  local before
  before=$(cat "$work/$1/nspawn")
  on "$1" systemctl reboot
  await - 60 "reboot of $1" rebooted "$1" "$before"
  await_boot "$1"
}
rebooted() { [ "$(cat "$work/$1/nspawn")" != "$2" ] && ! kill -0 "$2" 2>/dev/null; }

stop_machines() {
  local code=$? name
  trap - EXIT
  for name in "${machines[@]}"; do
    # One that did not boot has no leader.
    [ $code = 0 ] || [ -z "${leader[$name]:-}" ] || timeout 10 nsenter -t "${leader[$name]}" -m -n -p sh -c "systemctl list-jobs --no-pager; journalctl -b --no-pager" >"$work/$name/journal" 2>&1 || true
    # Not to boot again, then the end of all that runs in it.
    kill "$(cat "$work/$name/runner")" 2>/dev/null || true
    kill -9 "$(cat "$work/$name/nspawn")" ${leader[$name]:+"${leader[$name]}"} 2>/dev/null || true
  done
  wait 2>/dev/null || true
  for name in "${machines[@]}"; do
    for _ in $(seq 50); do umount -R "$work/$name/root" 2>/dev/null && break; sleep 0.1; done
    ip netns del "$lab-$name" 2>/dev/null || true
    # Processes that were killed leave their groups a little later, a mount's daemon after 10 s at most.
    for _ in $(seq 200); do leave_cgroup "$lab-$name" && break; sleep 0.1; done
  done
  ip netns del "$lab" 2>/dev/null || true
  if [ $code -eq 0 ]; then rm -rf "$work"; exit; fi
  # What a machine said last, where the files are not kept.
  for name in "${machines[@]}"; do
    echo "-- console of $name" >&2
    tail -n 5 "$work/$name/console" | sed 's/\x1b\[[0-9;]*m//g' >&2 || true
  done
  echo "consoles and journals are in $work" >&2
  exit $code
}
