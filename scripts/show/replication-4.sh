#!/usr/bin/env bash
# Show 4: mistakes of which each would lose or garble bytes, planted one at a time: the suite finds all of them.
exec "$(dirname "$0")/../planted.sh" "$@"
