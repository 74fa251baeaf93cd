#!/usr/bin/env bash
# Debian packages of the master, the chunk server, the client and the tools, in target/packages.
# Usage: scripts/package.sh [REVISION [DIR]]      (DIR: of target/packages)
# DFS_BIN: a directory of programs to pack instead of building them.
. "$(dirname "$0")/lib.sh"
cd "$root"
need_packages dpkg-dev binutils
need_tool cargo-deb
build_release
revision=${1:-1}
out=$root/target/packages${2:+/$2}
stage=$root/target/packages/stage
rm -rf "$out" "$stage"
mkdir -p "$stage/bin" "$stage/pages"
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
for crate in dfs-master dfs-chunkserver dfs-fuse dfs-cli; do
  "$tools/cargo-deb" --quiet --no-build --deb-revision "$revision" --package "$crate" --output "$out/"
done
say "in ${out#"$root/"}"
for package in "$out"/*.deb; do
  echo "${package##*/}: $(du -k "$package" | cut -f 1) KiB, $(dpkg-deb --contents "$package" | grep -vc '/$') files"
done
