#!/usr/bin/env bash
# Format, lints, docs and dependency rules. Warnings are errors here.
# The advisory database is not asked: it can't be reached everywhere this runs.
. "$(dirname "$0")/lib.sh"
cd "$root"
need_tool cargo-deny
say "format"; cargo fmt --all --check
say "clippy"; cargo clippy --workspace --all-targets --locked --quiet -- -D warnings
say "docs"; RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --quiet
say "dependencies"; "$tools/cargo-deny" --log-level error check bans licenses sources
say "scripts"
for s in scripts/*.sh scripts/*/*.sh .ci/run; do bash -n "$s"; done
# Every source file says what it is for.
bad=$(git ls-files '*/src/*.rs' | while read -r f; do head -n 1 "$f" | grep -q '^//!' || echo "$f"; done)
[ -z "$bad" ] || die "no //! header: $bad"
