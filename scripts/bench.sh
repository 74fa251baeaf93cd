#!/usr/bin/env bash
# The yardstick.
#   scripts/bench.sh DIR                  one round on any mounted directory
#   scripts/bench.sh compare moosefs      dfs and MooseFS in one sitting, 2 replicas each: a table of ratios, saved
#                                         as docs/bench/compare-moosefs.md; exits 1 when a line misses its bar
# For compare: ROUNDS (1) rounds of each in turn, medians are compared; SIZE (1G) of the big file.
# The bars: no line slower than MooseFS (5 % is equal), create, untar and cp -a at least 2x faster. The line that
# syncs each write has no bar: MooseFS's fsync syncs nothing.
. "$(dirname "$0")/lib.sh"
need_packages fio jq gcc libc6-dev fuse3
bench=$root/scripts/bench
case "${1:-}" in
  "") sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2 ;;
  compare) [ "${2:-}" = moosefs ] || die "compare with what? Known: moosefs" ;;
  *) exec "$bench/fsbench.sh" "$1" ;;
esac

need_packages moosefs-master moosefs-chunkserver moosefs-client iproute2 perl
need_fuse
build_release
out=$(mktemp -d "${TMPDIR:-/var/tmp}/dfs-bench.XXXXXX")
rounds=${ROUNDS:-1}
trap 'rm -rf "$out"' EXIT
trap 'exit 130' INT TERM
# Each system is up only while it is measured, so that neither pays for the other's memory and dirty pages; what
# it stored goes at the end of all, since ext4 makes new files slowly for minutes after many were deleted, and
# whoever comes second would pay for the first.
export KEEP=1
for round in $(seq "$rounds"); do
  say "MooseFS, round $round"
  sync
  export ROOT=$out/moosefs.$round.d MNT=$out/mfs-mnt
  "$bench/moosefs.sh" up >/dev/null 2>&1
  "$bench/fsbench.sh" "$MNT" | tee "$out/moosefs.$round"
  "$bench/moosefs.sh" down >/dev/null 2>&1 || true
  unset ROOT MNT
  for kind in tcp unix; do
    say "dfs over $kind, round $round"
    sync
    ( flag=(); [ $kind = unix ] || flag=(--tcp)
      export TMPDIR=$out
      start_cluster --replicas 2 "${flag[@]}"
      "$bench/fsbench.sh" "$mnt" | tee "$out/dfs-$kind.$round" )
  done
done

table=$root/docs/bench/compare-moosefs.md
mkdir -p "$root/docs/bench"
perl - "$out" "$rounds" >"$table.new" <<'P' && status=0 || status=$?
use strict; use warnings;
my ($out, $rounds) = @ARGV; my (%v, @order, %unit);
for my $sys ('moosefs', 'dfs-tcp', 'dfs-unix') { for my $r (1 .. $rounds) {
  open my $f, '<', "$out/$sys.$r" or die "$sys: $!";
  while (<$f>) { my ($n, $x, $u) = split; next unless defined $x;
    push @order, $n unless exists $unit{$n}; $unit{$n} = $u || ''; push @{$v{$n}{$sys}}, $x; } } }
sub median { my @s = sort { $a <=> $b } grep { /^[\d.]+$/ } @{$_[0] || []}; @s ? $s[$#s / 2] : undef }
my ($missed, $lines) = (0, 0);
print "| workload | unit | MooseFS | dfs, TCP | ratio | dfs, Unix sockets | bar |\n|---|---|---|---|---|---|---|\n";
for my $n (@order) {
  my ($m, $t, $x) = map { median($v{$n}{$_}) } 'moosefs', 'dfs-tcp', 'dfs-unix';
  my $less = $unit{$n} eq 'ms';
  my $ratio = (defined $m && defined $t && $m > 0 && $t > 0) ? ($less ? $m / $t : $t / $m) : 0;
  my $bar = $n eq 'randwrite4k-fsync' ? undef : $n =~ /^(md\d-create|untar|cp-r)$/ ? 2.0 : 0.95;
  my $ok = !defined $bar || $ratio >= $bar; $missed++ unless $ok; $lines++;
  printf "| %s | %s | %s | %s | %.2f | %s | %s |\n", $n, $unit{$n}, $m // 'failed', $t // 'failed', $ratio, $x // 'failed',
    !defined $bar ? 'none' : ($bar == 2 ? '2x' : '1x') . ($ok ? '' : ' MISSED');
}
print "\nRatio: how many times faster dfs over TCP is (more is better in every line). $lines lines, $missed missed.\n";
exit($missed ? 1 : 0);
P
{
  echo "# dfs beside MooseFS"
  echo
  echo "One sitting on $(date -u +%F): $(nproc) CPUs, kernel $(uname -r | cut -d- -f1), one disk. Both: a master, three chunk servers and one"
  echo "mount on one machine, 2 replicas. MooseFS $(dpkg-query -W -f='${Version}' moosefs-master) as it comes: it syncs neither data nor metadata"
  echo "on fsync. dfs: fsync puts data on the disks of both replicas and metadata on the master's disk."
  echo "Made by \`scripts/bench.sh compare moosefs\` ($rounds round(s), SIZE=${SIZE:-1G})."
  echo
  cat "$table.new"
} >"$table"
rm -f "$table.new"
say "$table"
cat "$table"
exit $status
