#!/usr/bin/env bash
# Debian and RPM packages of the master, the chunk server, the client and the tools, in target/packages.
# Usage: scripts/package.sh [REVISION [DIR]]      (DIR: of target/packages)
# DFS_BIN: a directory of programs to pack instead of building them.
# What is in a package is said once, by `package.metadata.deb` of its crate and packaging/deb; both kinds are made of the
# same directory. The metadata has cargo-deb's form; that program takes longer to compile than all of this to run.
. "$(dirname "$0")/lib.sh"
cd "$root"
umask 022
need_packages dpkg-dev binutils rpm jq
build_release
revision=${1:-1}
out=$root/target/packages${2:+/$2}
stage=$root/target/packages/stage
rm -rf "$out" "$stage"
mkdir -p "$out" "$stage/bin" "$stage/pages"
for program in dfs-master dfs-chunkserver dfs-fuse dfs; do
  install -m 755 "$bin/$program" "$stage/bin/"
  # Names of functions stay, for backtraces; line tables are nine tenths of the file.
  strip --strip-debug "$stage/bin/$program"
  # Manual pages and completions come from the program that they are about.
  "$stage/bin/$program" --generate-pages "$stage/pages"
done
# Pages of dfs's subcommands have names like those of the daemons' pages.
mkdir "$stage/pages/man-dfs"
for page in "$stage"/pages/man/dfs-*.8; do
  case ${page##*/} in dfs-master*|dfs-chunkserver*|dfs-fuse*) ;; *) mv "$page" "$stage/pages/man-dfs/" ;; esac
done
ln -s ../bin/dfs-fuse "$stage/mount.dfs"
metadata=$(cargo metadata --no-deps --offline --locked --format-version 1)

# of FILTER: of the crate's metadata; nothing where there is none.
of() { jq -r "$1 // empty" <<<"$about"; }
listed() { tr ',' '\n' <<<"$1" | sed -E 's/^ +| +$//g' | sed '/^$/d'; }

# lay_out: the files of the crate's package, as they are when it is installed, in $tree.
lay_out() {
  local from to mode file target found
  while read -r from to mode; do
    found=
    for file in "$crate"/$from; do
      [ -e "$file" ] || [ -L "$file" ] || continue
      found=1 target=$tree/$to
      case $to in */) target+=${file##*/} ;; esac
      mkdir -p "${target%/*}"
      if [ -L "$file" ]; then cp -P "$file" "$target"; else install -m "$mode" "$file" "$target"; fi
    done
    [ -n "$found" ] || die "$crate: there is no $from"
  done < <(of '.metadata.deb.assets[] | join(" ")')
  [ -n "$found" ] || die "$crate: no assets"
  {
    printf 'Copyright: the dfs authors\nLicense: %s\n\n' "$(of .license)"
    cat LICENSE LICENSE-MIT LICENSE-APACHE
  } >"$tree/usr/share/doc/$name/copyright"
  find "$tree/usr/share/man" -type f -exec gzip -9n {} +
}

# scriptlet NAME SCRIPT LINE: a maintainer script behind the line that turns what rpm tells it into what dpkg would.
scriptlet() {
  [ -e "$scripts/$2" ] || return 0
  echo "%$1"
  echo "$3"
  # Without the line of its shell; rpm reads what begins with a percent sign.
  sed -e 1d -e 's/%/%%/g' "$scripts/$2"
}

make_rpm() {
  local spec=$stage/$name.spec package
  {
    echo "Name: $name"
    echo "Version: $version"
    echo "Release: $revision"
    echo "Summary: $(of .description)"
    echo "License: $(of .license)"
    # Libraries are found by rpm itself. What is called otherwise there:
    listed "$(of .metadata.deb.depends)" | sed -e '/^\$auto$/d' -e 's/^mount$/util-linux/' -e 's/^/Requires: /'
    listed "$(of .metadata.deb.recommends)" | sed 's/^/Recommends: /'
    printf '%%description\n%s\n' "$(of '.metadata.deb."extended-description"')"
    printf '%%install\ncp -a "%s/." "%%{buildroot}"\n' "$tree"
    printf '%%files\n%%defattr(-,root,root)\n'
    (cd "$tree" && find . -mindepth 1 \( -path './usr/share/doc/*' -o -path ./etc/dfs \) -type d -printf '%%dir "/%P"\n' -o \
      -path './etc/*' ! -type d -printf '%%config(noreplace) "/%P"\n' -o ! -type d -printf '"/%P"\n')
    scriptlet post postinst 'if [ "$1" -gt 1 ]; then set -- configure older; else set -- configure; fi'
    scriptlet preun prerm 'if [ "$1" = 0 ]; then set -- remove; else set -- upgrade; fi'
    scriptlet postun postrm 'if [ "$1" = 0 ]; then set -- purge; else set -- upgrade; fi'
  } >"$spec"
  # The files as they are: nothing is stripped or compressed once more, and no links by build id.
  rpmbuild --quiet -bb --define "_topdir $stage/rpm" --define "_dbpath $stage/rpm/db" --define "_rpmdir $out" \
    --define '_rpmfilename %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm' --define '__os_install_post %{nil}' \
    --define 'debug_package %{nil}' --define '_build_id_links none' --define '_binary_payload w3.zstdio' \
    "$spec" >"$spec.log" 2>&1 || die "$name: $(cat "$spec.log")"
}

make_deb() {
  local depends
  mkdir -p "$stage/shlibs/debian" "$tree/DEBIAN"
  printf 'Source: dfs\n\nPackage: dfs\nArchitecture: any\n' >"$stage/shlibs/debian/control"
  depends=$(cd "$stage/shlibs" && dpkg-shlibdeps -O "$tree"/usr/bin/*)
  (cd "$tree" && find . -path ./DEBIAN -prune -o -type f -printf '%P\0' | LC_ALL=C sort -z | xargs -0 md5sum) >"$stage/md5sums"
  {
    echo "Package: $name"
    echo "Version: $version-$revision"
    echo "Architecture: $(dpkg --print-architecture)"
    echo "Maintainer: $(of .metadata.deb.maintainer)"
    echo "Section: $(of .metadata.deb.section)"
    echo "Priority: optional"
    echo "Installed-Size: $(du -sk "$tree" | cut -f 1)"
    of .metadata.deb.depends | sed -e "s/\\\$auto/${depends#shlibs:Depends=}/" -e 's/^/Depends: /'
    of .metadata.deb.recommends | sed 's/^/Recommends: /'
    echo "Description: $(of .description)"
    of '.metadata.deb."extended-description"' | sed 's/^/ /'
  } >"$tree/DEBIAN/control"
  mv "$stage/md5sums" "$tree/DEBIAN/"
  (cd "$tree" && find etc -type f -printf '/%p\n' 2>/dev/null) >"$tree/DEBIAN/conffiles" || rm "$tree/DEBIAN/conffiles"
  [ -z "$scripts" ] || install -m 755 "$scripts"/* "$tree/DEBIAN/"
  dpkg-deb --root-owner-group -Zxz -z1 --build "$tree" "$out/" >/dev/null
}

for crate in dfs-master dfs-chunkserver dfs-fuse dfs-cli; do
  about=$(jq --arg crate "$crate" '.packages[] | select(.name == $crate)' <<<"$metadata")
  name=$(of .metadata.deb.name)
  version=$(of .version)
  scripts=$(of '.metadata.deb."maintainer-scripts"')
  [ -z "$scripts" ] || scripts=$crate/$scripts
  tree=$stage/$name
  lay_out
  make_rpm
  make_deb
done
say "in ${out#"$root/"}"
for package in "$out"/*.deb; do
  echo "${package##*/}: $(du -k "$package" | cut -f 1) KiB, $(dpkg-deb --contents "$package" | grep -vc '/$') files"
done
for package in "$out"/*.rpm; do
  echo "${package##*/}: $(du -k "$package" | cut -f 1) KiB, $(rpm -qlvp "$package" | grep -vc '^d') files"
done
