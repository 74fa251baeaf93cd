#!/usr/bin/env bash
# The packages in target/packages: an RPM has the files of the Debian package, byte for byte, with their modes and links, marks
# the same of them as configuration, and has a scriptlet for each maintainer script, which the shell can read.
. "$(dirname "$0")/lib.sh"
need_packages dpkg-dev rpm
packages=$root/target/packages
work=$(mktemp -d "${TMPDIR:-/var/tmp}/dfs-packages.XXXXXX")
trap 'rm -rf "$work"' EXIT

# files DIR: each with its mode, and where a link leads. Directories belong to whoever has something in them.
files() { (cd "$1" && find . ! -type d -printf '%P %M %l\n' | LC_ALL=C sort); }
# same DEB RPM: the trees they were unpacked to.
same() { diff <(files "$1") <(files "$2") && diff -r --no-dereference "$1" "$2"; }

for name in dfs-master dfs-chunkserver dfs-client dfs-tools; do
  deb=("$packages/$name"_*.deb) rpm=("$packages/$name"-*.rpm)
  [ ${#deb[@]} = 1 ] && [ -e "${deb[0]}" ] || die "no $name.deb, or several: run scripts/package.sh"
  [ ${#rpm[@]} = 1 ] && [ -e "${rpm[0]}" ] || die "no $name.rpm, or several: run scripts/package.sh"
  dpkg-deb --extract "${deb[0]}" "$work/$name.deb"
  mkdir "$work/$name.rpm"
  # An empty root: what has no shell to run scriptlets with.
  # --force-debian: Debian's rpm warns who might mean this machine's packages.
  rpm --root "$work/$name.rpm" --dbpath /rpmdb --force-debian --nodeps --noscripts -i "${rpm[0]}"
  [ "$(rpm --root "$work/$name.rpm" --dbpath /rpmdb -q "$name")" = "$(basename "${rpm[0]}" .rpm)" ] || die "$name.rpm is not installed"
  listed=$(rpm -qpl "${rpm[0]}" | LC_ALL=C sort)
  rm -rf "$work/$name.rpm/rpmdb"
  same "$work/$name.deb" "$work/$name.rpm" || die "$name: the packages differ"
  while read -r file; do
    grep -qxF "/$file" <<<"$listed" || die "$name.rpm does not list /$file"
  done < <(cd "$work/$name.deb" && find . ! -type d -printf '%P\n')

  diff <(dpkg-deb --info "${deb[0]}" conffiles 2>/dev/null || true) <(rpm -qpc "${rpm[0]}") || die "$name: other files are configuration"
  dpkg-deb --control "${deb[0]}" "$work/$name.control"
  scripts=0
  for pair in postinst:POSTIN prerm:PREUN postrm:POSTUN; do
    script=$work/$name.control/${pair%:*}
    rpm -qp --qf "%{${pair#*:}}\n" "${rpm[0]}" >"$work/scriptlet"
    if [ -e "$script" ]; then
      sh -n "$script" || die "$name: ${pair%:*}"
      sh -n "$work/scriptlet" || die "$name: %${pair#*:}"
      # All of it is there, behind the line that says what is done.
      diff <(sed 1d "$script") <(sed 1d "$work/scriptlet") || die "$name: %${pair#*:} is not ${pair%:*}"
      scripts=$((scripts + 1))
    else
      [ "$(cat "$work/scriptlet")" = "(none)" ] || die "$name: a scriptlet that the Debian package has not"
    fi
  done
  echo "$name: $(files "$work/$name.rpm" | wc -l) files and $scripts scripts in both"
done

# Packages that differ have to be found so, or the looks above say nothing.
rm "$work/dfs-tools.rpm/usr/bin/dfs"
if same "$work/dfs-tools.deb" "$work/dfs-tools.rpm" >/dev/null; then die "a file that is missing is not found"; fi
say "the packages are as they have to be"
