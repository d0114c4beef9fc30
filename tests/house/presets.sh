#!/usr/bin/env bash
# CMake reads every preset, each configure preset can be built and tested by its name, and the promised ones are there.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
bad=0
names() { cmake --list-presets="$1" 2>&1 | sed -n 's/^ *"\([^"]*\)".*/\1/p' | sort; }
configure=$(names configure)
for kind in build test; do
  [[ $(names "$kind") == "$configure" ]] || { echo "the $kind presets are not those of configure:"; names "$kind"; bad=1; }
done
for name in release debug asan relassert; do
  grep -qx "$name" <<<"$configure" || { echo "there is no preset $name"; bad=1; }
done
exit "$bad"
