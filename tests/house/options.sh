#!/usr/bin/env bash
# CMake configures with each optional part off, and with all of them off.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
options=(CALM_LEARN CALM_PLAY CALM_RENDER CALM_TESTS CALM_BENCH)
bad=0

configures() {  # OPTION…
  cmake --preset release -B "$folder/build" -DCMAKE_CXX_COMPILER_LAUNCHER= "$@" >"$folder/log" 2>&1 ||
    { echo "does not configure with $*:"; tail -n 20 "$folder/log"; bad=1; }
}

all_on=("${options[@]/%/=ON}")
for option in "${options[@]}"; do configures "${all_on[@]/#/-D}" "-D$option=OFF"; done
all_off=("${options[@]/%/=OFF}")
configures "${all_off[@]/#/-D}"
exit "$bad"
