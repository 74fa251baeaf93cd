#!/usr/bin/env bash
# Show 4: git clone of a local repository and cargo build of a small crate work on the mount.
. "$(dirname "$0")/../lib.sh"
need_packages fuse3 git
[ -x "$bin/dfs-fuse" ] || build_release
start_cluster --servers 3 --replicas 2
t=$(now_ms); git clone -q --no-hardlinks "$root" "$mnt/clone"; echo "git clone: $(($(now_ms) - t)) ms"
git -C "$mnt/clone" fsck --strict --no-progress
git -C "$mnt/clone" status --porcelain | grep . && die "git status is not clean"
cargo new -q --vcs none "$mnt/words"
cat >"$mnt/words/src/main.rs" <<'R'
use std::collections::BTreeMap;
fn main() {
    let words: BTreeMap<&str, usize> = "a b c".split(' ').map(|w| (w, w.len())).collect();
    println!("{} words", words.len());
}
R
t=$(now_ms); (cd "$mnt/words" && cargo build -q); echo "cargo build: $(($(now_ms) - t)) ms"
[ "$("$mnt/words/target/debug/words")" = "3 words" ] || die "the program built on the mount does not run"
echo "the program built on the mount runs"
(cd "$mnt/words" && touch src/main.rs && cargo build -q && cargo test -q >/dev/null); echo "rebuild and test: fine"
