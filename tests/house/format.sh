#!/usr/bin/env bash
# Our sources are as clang-format 14, Debian 12's, leaves them; other versions differ in details.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
if ! git rev-parse --is-inside-work-tree >/dev/null 2>&1; then echo "SKIP not a git repository"; exit 77; fi
for program in clang-format clang-format-14; do
  "$program" --version 2>/dev/null | grep -q 'version 14\.' || continue
  git ls-files -z -- 'src/*.h' 'src/*.cpp' 'src/*.cu' 'tests/*.h' 'tests/*.cpp' 'bench/*.cpp' |
    xargs -0 -n 16 -P 2 "$program" --dry-run -Werror || { echo "./calm format mends it"; exit 1; }
  exit 0
done
echo "SKIP clang-format 14 is not installed"
exit 77
