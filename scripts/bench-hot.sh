#!/usr/bin/env bash
# Replicas follow the load: one hot file of one chunk, read by all clients over and over through limited links.
# Every chunk server and every client is a host of its own: a network namespace whose link is limited in both
# directions. Another client writes and syncs a file of its own all the time. When the readers stop, the replicas
# have to go again, and the space with them.
#   scripts/bench-hot.sh [options]
#     --servers N     chunk servers (6)
#     --clients M     readers (4)
#     --rate MBIT     of each link, each direction (400)
#     --size MIB      of the hot file, at most a chunk (64)
#     --seconds S     of reading (40)
#     --systems LIST  what is shown, in this order (dfs,dfs-off,moosefs); dfs-off is dfs without the policy
#     --out DIR       for hot.csv and hot.svg; without any option docs/bench, else nowhere if not said
# Judged, for dfs alone: readers are sent 90 % of min(servers, clients) links in the seconds 15 to 20, 95 % after, and
# 90 % of that are bytes that they asked for and got once; the writer keeps 80 % of its calm rate while copies are
# made; goal and space are back 10 s after lower-after. Exits 1 if not. Of all systems: no cache answers for them.
. "$(dirname "$0")/lib.sh"
servers=6 clients=4 rate=400 size=64 seconds=40 systems=dfs,dfs-off,moosefs out=
[ $# -gt 0 ] || out=$root/docs/bench
while [ $# -gt 0 ]; do
  case $1 in
    --servers | --clients | --rate | --size | --seconds)
      [[ ${2:-} =~ ^[1-9][0-9]*$ ]] || die "$1 wants a number"
      declare "${1#--}=$2" ;;
    --systems | --out)
      [ -n "${2:-}" ] || die "$1 wants a value"
      declare "${1#--}=$2" ;;
    *) sed -n '2,17s/^# \{0,1\}//p' "$0"; exit 2 ;;
  esac
  shift 2
done
[ "$seconds" -ge 25 ] || die "--seconds: 25 at least, as the seconds 20 and later are judged"
[ "$size" -le 64 ] || die "--size: a chunk has 64 MiB"
[ $((servers > clients ? servers : clients)) -le 200 ] || die "addresses are for 200 hosts of a kind"
IFS=, read -ra systems <<<"$systems"
for system in "${systems[@]}"; do
  case $system in dfs | dfs-off | moosefs) ;; *) die "unknown system $system: dfs, dfs-off, moosefs" ;; esac
done
[ "$(id -u)" = 0 ] || die "network namespaces and mounts are root's to make"
need_packages fio iperf3 iproute2 jq python3 fuse3 e2fsprogs
[[ " ${systems[*]} " != *' moosefs '* ]] || need_packages moosefs-master moosefs-chunkserver moosefs-client
need_fuse
[ -x "$bin/dfs-fuse" ] || build_release

goal=2 lower_after=10 raise_after=3
# The writer runs alone for so long before the readers come: what it gets then is its calm rate.
calm=5
# Requests that a reader has in flight.
flight=4
# tbf sends so much at once: two of the 64 KiB packets that a veth carries unsplit, with room for a late timer.
# Packets wait for so long at most: a few round trips of a full window, as a switch with small buffers has them.
burst=256kb queue=50ms

# --- the network ---

# Names are of the machine, so that they have our process id in them; addresses are inside of the bridge's namespace.
net=hot-$$
hosts=()
work=$(mktemp -d "${TMPDIR:-/var/tmp}/dfs-hot.XXXXXX")
sampler=
trap 'clean_up' EXIT
trap 'exit 130' INT TERM HUP

# on HOST COMMAND...: with the host's network, and the mounts of this script.
on() { nsenter --net="/run/netns/$net-$1" "${@:2}"; }

# start HOST LOG COMMAND...: in the background; $! is the command itself.
start() { nsenter --net="/run/netns/$net-$1" "${@:3}" >>"$work/log/$2" 2>&1 </dev/null & }

make_namespace() {
  ip netns add "$net-$1"
  hosts+=("$1")
  ip -n "$net-$1" link set lo up
}

# make_host NAME ADDRESS [limited]
make_host() {
  make_namespace "$1"
  ip -n "$net-switch" link add name "$1" type veth peer name eth0 netns "$net-$1"
  ip -n "$net-switch" link set dev "$1" master br0 up
  ip -n "$net-$1" addr add "$2/16" dev eth0
  ip -n "$net-$1" link set eth0 up
  [ -n "${3:-}" ] || return 0
  # What a host sends is limited where it leaves the host, what it gets where it leaves the bridge.
  tc -n "$net-$1" qdisc replace dev eth0 root tbf rate "${rate}mbit" burst $burst latency $queue
  tc -n "$net-switch" qdisc replace dev "$1" root tbf rate "${rate}mbit" burst $burst latency $queue
}

master_ip=10.77.0.1 writer_ip=10.77.0.2
server_ip() { echo "10.77.1.$1"; }
client_ip() { echo "10.77.2.$1"; }

make_network() {
  local i
  make_namespace switch
  ip -n "$net-switch" link add br0 type bridge
  ip -n "$net-switch" link set br0 up
  make_host master $master_ip
  make_host writer $writer_ip limited
  for i in $(seq "$servers"); do make_host "s$i" "$(server_ip "$i")" limited; done
  for i in $(seq "$clients"); do make_host "c$i" "$(client_ip "$i")" limited; done
}

# --- processes and mounts ---

# make_disks: all state on one new file system. How full the disk below is must not decide where replicas go.
make_disks() {
  mkdir "$work/disks"
  truncate -s 16G "$work/image"
  mkfs.ext4 -q -F -m 0 "$work/image"
  mount -o loop "$work/image" "$work/disks"
}

# drop_mount DIR: lazily, if something still holds it.
drop_mount() { ! mountpoint -q "$1" 2>/dev/null || umount "$1" 2>/dev/null || umount -l "$1" || true; }

# poll WHAT SECONDS COMMAND...: until the command succeeds.
poll() {
  local end=$(($(now_ms) + $2 * 1000))
  until "${@:3}"; do
    [ "$(now_ms)" -lt $end ] || die "no $1 within $2 s"
    sleep 0.05
  done
}

processes() { local host; for host in "${hosts[@]}"; do ip netns pids "$net-$host"; done; }
no_processes() { [ -z "$(processes)" ]; }
ended() { ! kill -0 "$1" 2>/dev/null; }

stop_sampler() {
  [ -n "$sampler" ] || return 0
  kill "$sampler" 2>/dev/null || true
  wait "$sampler" 2>/dev/null || true
  sampler=
}

# stop_system: its mounts, then all that runs on the hosts.
stop_system() {
  local dir pid end signal
  stop_sampler
  for dir in "$work"/mnt/*; do drop_mount "$dir"; done
  for signal in TERM KILL; do
    for pid in $(processes); do kill -$signal "$pid" 2>/dev/null || true; done
    end=$(($(now_ms) + 5000))
    until no_processes || [ "$(now_ms)" -ge $end ]; do sleep 0.05; done
  done
  drop_mount "$work/disks"
  rm -rf "${work:?}/disks" "${work:?}/mnt" "$work/image"
}

clean_up() {
  local code=$? host
  trap - EXIT
  trap '' INT TERM HUP
  # What the daemons said last is of use if it went wrong, and noise if a number was missed.
  if [ $code -ne 0 ] && [ -z "${judged:-}" ] && [ -d "$work/log" ]; then tail -n 5 "$work"/log/* >&2 || true; fi
  stop_system
  for host in "${hosts[@]}"; do ip netns del "$net-$host" || true; done
  rm -rf "$work"
  exit $code
}

# --- what the network and this machine can carry ---

listens() { [ -n "$(on "$1" ss -Hltn "sport = :$2")" ]; }

# streams SECONDS PAIRS: TCP from s1 to c1, s2 to c2 and so on, all at once; reports in iperf.N.
streams() {
  local i pids=()
  for i in $(seq "$2"); do
    start "c$i" iperf iperf3 --server --one-off
    poll "iperf3 on c$i" 10 listens "c$i" 5201
  done
  for i in $(seq "$2"); do
    # The first second is the start of TCP.
    on "s$i" iperf3 --client "$(client_ip "$i")" --time "$1" --omit 1 --json >"$work/iperf.$i" &
    pids+=($!)
  done
  for i in "${pids[@]}"; do wait "$i" || die "iperf3 failed: $(jq -r '.error // empty' "$work"/iperf.*)"; done
}

# measure_link: sets $link, the bytes a second that one TCP stream gets, and $carried of all pairs at once.
measure_link() {
  local pairs=$((servers < clients ? servers : clients))
  say "links of $rate Mbit/s: $servers servers, $clients readers and a writer"
  streams 5 1
  link=$(jq '.end.sum_received.bits_per_second / 8 | floor' "$work/iperf.1")
  jq -r '[.intervals[].sum | select(.omitted | not) | .bits_per_second / 8e6] | "one TCP stream: \(add / length * 10 | round / 10)" +
    " MB/s, its seconds from \(min * 10 | round / 10) to \(max * 10 | round / 10)"' "$work/iperf.1"
  streams 3 $pairs
  carried=$(jq -s 'map(.end.sum_received.bits_per_second / 8) | add | floor' "$work"/iperf.*)
  rm "$work/log/iperf"
  echo "streams at once, $pairs of them: $((carried / 1000000)) MB/s, $((carried * 100 / (link * pairs))) % of so many links"
}

# --- dfs ---

ctl() { on master "$bin/dfs" --master $master_ip:9400 "$@"; }
status() { ctl --json status; }

up_dfs() {
  local i
  "$bin/dfs-master" init --data "$work/disks/master" --replicas $goal --chunk-size $((64 << 20)) >/dev/null
  start master master "$bin/dfs-master" run --data "$work/disks/master" --listen $master_ip:9400 \
    --port-file "$work/disks/port" --close-after 1
  poll "master" 30 test -s "$work/disks/port"
  for i in $(seq "$servers"); do
    mkdir "$work/disks/s$i"
    # Its address makes it a host of its own.
    start "s$i" "s$i" "$bin/dfs-chunkserver" --master $master_ip:9400 --listen "$(server_ip "$i"):9720" --name "s$i" \
      --disk "$work/disks/s$i"
  done
  wait_status "cluster of $servers servers" 60 ".servers_up == $servers"
}

mount_dfs() {
  start "$1" "mount-$1" "$bin/dfs-fuse" --master $master_ip:9400 --foreground "$work/mnt/$1"
  poll "mount on $1" 30 mountpoint -q "$work/mnt/$1"
}

# The hosts that have the one chunk of a file, a line each.
holders_dfs() { on master timeout 5 "$bin/dfs" --json file info "$1" | jq -r '.chunks[0].members[].name'; }
settle_dfs() { wait_status "close of every chunk" 60 '.chunks_open == 0'; }

# --- MooseFS ---

up_moosefs() {
  local i dir=$work/disks
  mkdir "$dir/master"
  # As its package has it: an empty cluster.
  printf 'MFSM NEW' >"$dir/master/metadata.mfs"
  printf '* / rw,alldirs,admin,maproot=0:0\n' >"$dir/exports.cfg"
  : >"$dir/topology.cfg"
  cat >"$dir/master.cfg" <<C
WORKING_USER = root
WORKING_GROUP = root
DATA_PATH = $dir/master
EXPORTS_FILENAME = $dir/exports.cfg
TOPOLOGY_FILENAME = $dir/topology.cfg
C
  start master master mfsmaster -f -c "$dir/master.cfg" start
  for i in $(seq "$servers"); do
    mkdir "$dir/s$i" "$dir/s$i.data"
    echo "$dir/s$i" >"$dir/s$i.hdd"
    cat >"$dir/s$i.cfg" <<C
WORKING_USER = root
WORKING_GROUP = root
DATA_PATH = $dir/s$i.data
HDD_CONF_FILENAME = $dir/s$i.hdd
MASTER_HOST = $master_ip
C
    start "s$i" "s$i" mfschunkserver -f -c "$dir/s$i.cfg" start
  done
  # Its command that lists servers is in a package of its own; a connection each says the same.
  poll "cluster of $servers servers" 60 moosefs_has_servers
}

moosefs_has_servers() { [ "$(on master ss -Htn state established 'sport = :9420' | wc -l)" = "$servers" ]; }

mount_moosefs() {
  # As dfs with O_DIRECT: no page of the file stays with the reader.
  start "$1" "mount-$1" mfsmount -f -H $master_ip -o mfscachemode=DIRECT "$work/mnt/$1"
  poll "mount on $1" 30 mountpoint -q "$work/mnt/$1"
  [ "$1" != master ] || on master mfssetgoal $goal "$work/mnt/master" >/dev/null
}

holders_moosefs() { on master timeout 5 mfsfileinfo "$1" | sed -n 's/.*copy [0-9]*: 10\.77\.1\.\([0-9]*\):.*VALID.*/s\1/p'; }
settle_moosefs() { poll "second replica" 60 has_goal moosefs; }

# --- one system's run ---

# The mount of the master's host has no load: through it the script looks.
hot=$work/mnt/master/hot
replicas() { "holders_$1" "$hot" | wc -l; }
has_goal() { [ "$(replicas "$1")" = $goal ]; }
has_space() { [ "$(used)" -le $((before + size * 512)) ]; }
used() { du -sk "$work"/disks/s*/ | awk '{ sum += $1 } END { print sum }'; }

# place_writer KIND: the writer's file, elsewhere: on servers that do not have the hot chunk, if there are enough.
# Where a file goes is not ours to say, so that several are made and one is taken.
place_writer() {
  local try file
  for try in $(seq 40); do
    file=$work/mnt/writer/w$try
    head -c 1M /dev/zero >"$file"
    sync "$file"
    "holders_$1" "$hot" >"$work/hot-holders"
    if ! "holders_$1" "$work/mnt/master/w$try" | grep -qxFf "$work/hot-holders"; then break; fi
    [ $((servers - goal)) -ge $goal ] || break
    rm "$file"
  done
  # At its full size, or fio would make the file anew.
  head -c 64M /dev/zero | dd of="$file" bs=1M conv=notrunc,fsync iflag=fullblock status=none
  mv "$file" "$work/mnt/writer/written"
}

# sample KIND: a line a second: ms, replicas, busy and all ticks of the CPUs, and for each port of the bridge the
# bytes that its host has sent and received.
sample() {
  local count=0 answer next
  next=$(now_ms)
  while :; do
    # A question that was not answered in time changes nothing.
    answer=$(replicas "$1" 2>/dev/null) || answer=0
    [ "$answer" = 0 ] || count=$answer
    # How long the question took does not matter: rates are taken between the moments of the counters.
    echo "$(now_ms) $count $(awk '/^cpu / { print $2 + $3 + $4 + $7 + $8 + $9, $2 + $3 + $4 + $5 + $6 + $7 + $8 + $9 }' /proc/stat)" \
      "$(on switch cat /proc/self/net/dev | awk '{ sub(":", " ") } $1 ~ /^([sc][0-9]+|writer)$/ { printf "%s=%s/%s ", $1, $2, $10 }')"
    next=$((next + 1000))
    while [ $next -le "$(now_ms)" ]; do next=$((next + 1000)); done
    sleep "$(awk -v ms=$((next - $(now_ms))) 'BEGIN { print (ms > 0 ? ms : 0) / 1000 }')"
  done
}

# run SYSTEM: leaves SYSTEM.samples, SYSTEM.facts and fio's SYSTEM.cN_bw.1.log in $work, prints its table.
run() {
  local system=$1 kind=${1%-off} i began stopped at_goal='' space='' limit fios=() writer
  say "$system: one file of $size MiB with $goal replicas, $clients readers"
  sync
  mkdir "$work/mnt"
  make_disks
  "up_$kind"
  case $system in
    dfs) ctl policy set --lower-after $lower_after --raise-after $raise_after || die "dfs policy set failed: no policy in this dfs?" ;;
    dfs-off) ctl policy set --max-replicas 1 || die "dfs policy set failed: no policy in this dfs?" ;;
  esac
  for i in master writer $(seq -f 'c%g' "$clients"); do
    mkdir "$work/mnt/$i"
    "mount_$kind" "$i"
  done
  head -c "${size}M" /dev/urandom >"$work/mnt/c1/hot"
  sync -f "$work/mnt/c1"
  "settle_$kind"
  has_goal "$kind" || die "the hot file has not $goal replicas"
  place_writer "$kind"
  echo "hot on $("holders_$kind" "$hot" | paste -sd' '), the writer's file on $("holders_$kind" "$work/mnt/master/written" | paste -sd' ')"

  start writer writer fio --name=writer --thread --filename="$work/mnt/writer/written" --size=64M --rw=write --bs=1M \
    --ioengine=psync --fsync=16 --time_based --runtime=1h --output="$work/writer.fio"
  writer=$!
  sample "$kind" >"$work/$system.samples" &
  sampler=$!
  # Two seconds more than are looked at, for a start and so that the calm ones lie between samples.
  sleep $((calm + 2))
  before=$(used)

  began=$(now_ms)
  for i in $(seq "$clients"); do
    start "c$i" readers timeout $((seconds + 60)) fio --name="c$i" --thread --filename="$work/mnt/c$i/hot" --readonly --size="${size}M" \
      --rw=read --bs=1M --direct=1 --ioengine=libaio --iodepth=$flight --time_based --runtime="$seconds" \
      --write_bw_log="$work/$system.c$i" --log_avg_msec=1000 --log_unix_epoch=1 --output-format=json --output="$work/c$i.fio"
    fios+=($!)
  done
  for i in "${fios[@]}"; do wait "$i" || die "a reader failed"; done
  stopped=$(now_ms)
  ended "$writer" && die "the writer failed"
  kill "$writer"
  wait "$writer" || true

  # Twice the bound, to say how late it is rather than that it is.
  limit=$((stopped + 2000 * (lower_after + 10)))
  while [ "$(now_ms)" -lt $limit ]; do
    if [ -z "$at_goal" ] && has_goal "$kind"; then at_goal=$(now_ms); fi
    if [ -z "$space" ] && has_space; then space=$(now_ms); fi
    [ -z "$at_goal" ] || [ -z "$space" ] || break
    sleep 0.2
  done
  # The last second wants its end.
  sleep 1.5
  stop_sampler
  jq -s --arg system "$system" --argjson facts "{\"began\": $began, \"stopped\": $stopped, \"goal\": ${at_goal:-null}, \"space\": ${space:-null},
    \"link\": $link, \"carried\": $carried, \"calm\": $calm, \"servers\": $servers, \"clients\": $clients, \"lower_after\": $lower_after,
    \"seconds\": $seconds}" \
    '$facts + {system: $system, read: ([.[].jobs[].read.io_bytes] | add)}' "$work"/c*.fio >"$work/$system.facts"
  stop_system
  python3 "$root/scripts/bench/hot.py" table "$work/$system.facts"
}

mkdir "$work/log"
make_network
measure_link
facts=()
for system in "${systems[@]}"; do
  run "$system"
  facts+=("$work/$system.facts")
done
judged=yes
[ -z "$out" ] || mkdir -p "$out"
python3 "$root/scripts/bench/hot.py" report --out "$out" "${facts[@]}"
