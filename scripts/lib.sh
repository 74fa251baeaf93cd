# Sourced by the scripts beside it: where the tree is, what is installed, a cluster that goes away by itself.
# shellcheck shell=bash
set -eu
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tools=$root/target/tools/bin
bin=${DFS_BIN:-$root/target/release}

say() { printf '\n== %s\n' "$*"; }
die() { echo "${0##*/}: $*" >&2; exit 1; }

# need_packages PACKAGE...: Debian packages that are not there yet are installed.
need_packages() {
  local missing=() p
  for p in "$@"; do dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing+=("$p"); done
  [ ${#missing[@]} -eq 0 ] && return
  [ "$(id -u)" = 0 ] || die "needs the packages ${missing[*]}: install them, or run as root"
  say "installing ${missing[*]}"
  apt-get update -q >/dev/null || true
  DEBIAN_FRONTEND=noninteractive apt-get install -yq --no-install-recommends "${missing[@]}" >/dev/null
}

# need_tool CRATE: a program from the Rust registry, kept under target/.
need_tool() {
  [ -x "$tools/$1" ] && return
  say "building $1"
  cargo install --quiet --locked --root "$root/target/tools" --target-dir "$root/target/tools-build" "$1"
}

need_fuse() { [ -c /dev/fuse ] || die "/dev/fuse is missing: load the fuse module, or give the container the device"; }

# build_daemons: what a cluster runs and the `dfs` command: a third of the time of build_release.
build_daemons() {
  [ -z "${DFS_BIN:-}" ] || return 0
  say "building dfs"
  (cd "$root" && cargo build --release --quiet --locked -p dfs-master -p dfs-chunkserver -p dfs-fuse -p dfs-cli)
}

# Not when DFS_BIN says which binaries to use.
build_release() {
  [ -z "${DFS_BIN:-}" ] || return 0
  say "building dfs"
  # All binaries at once, the simulator among them: another selection would build the libraries once more.
  (cd "$root" && cargo build --release --quiet --locked --workspace --bins)
}

# build_trial: the binaries that tests run, see the profile. Sets $bin.
build_trial() {
  say "building dfs for the tests"
  (cd "$root" && cargo build --profile trial --quiet --locked --workspace --bins)
  bin=$root/target/trial
  export DFS_BIN=$bin
}

# start_cluster [dfs dev up arguments...]: sets $work, $mnt and $master; goes down with the script.
# The state is on a disk (TMPDIR, else /var/tmp): the chunk store wants real fdatasync and fallocate.
start_cluster() {
  work=$(mktemp -d "${TMPDIR:-/var/tmp}/dfs.XXXXXX")
  # Tests become other users, who have to get to the mount.
  chmod 755 "$work"
  mnt=$work/mnt
  trap 'stop_cluster' EXIT
  trap 'exit 130' INT TERM
  "$bin/dfs" dev up --dir "$work/cluster" --mount "$mnt" "$@" >/dev/null
  master=$("$bin/dfs" dev addr --dir "$work/cluster")
}

stop_cluster() {
  local code=$?
  trap - EXIT
  if [ $code -ne 0 ] && [ -d "$work/cluster/log" ]; then tail -n 15 "$work"/cluster/log/*.log >&2 || true; fi
  "$bin/dfs" dev down --dir "$work/cluster" >/dev/null || true
  # KEEP: whoever set it deletes what the cluster stored.
  [ -n "${KEEP:-}" ] || rm -rf "$work"
  exit $code
}

# start_cluster_apart [dfs dev up arguments...]: the same on a file system of its own in $disk/fs: how full the disk below is
# then decides nothing. before_stop, if there is one, is run before the cluster goes down.
start_cluster_apart() {
  disk=$(mktemp -d "${TMPDIR:-/var/tmp}/dfs-disk.XXXXXX")
  trap stop_cluster_apart EXIT
  truncate -s 16G "$disk/image"
  mkfs.ext4 -q -F -m 0 "$disk/image"
  mkdir "$disk/fs"
  mount -o loop "$disk/image" "$disk/fs"
  TMPDIR=$disk/fs start_cluster "$@"
  trap stop_cluster_apart EXIT
}

stop_cluster_apart() {
  local code=$?
  trap - EXIT
  ! declare -F before_stop >/dev/null || before_stop || true
  [ -z "${work:-}" ] || (set +e; (exit $code); stop_cluster) || true
  umount "$disk/fs" 2>/dev/null || umount -l "$disk/fs" || true
  rm -rf --one-file-system "$disk"
  exit $code
}

dev() { "$bin/dfs" dev "$1" --dir "$work/cluster" "${@:2}"; }
now_ms() { echo $(($(date +%s%N) / 1000000)); }
# Of the cluster that was started.
status() { "$bin/dfs" --json --master "$master" status; }
# wait_status WHAT SECONDS FILTER: until jq's FILTER is true of `dfs status`.
wait_status() {
  local end=$(($(now_ms) + $2 * 1000))
  until status | jq -e "$3" >/dev/null; do
    [ "$(now_ms)" -lt $end ] || { status; die "no $1 within $2 s"; }
    sleep 0.05
  done
}
