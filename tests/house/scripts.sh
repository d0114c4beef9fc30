#!/usr/bin/env bash
# Every shell script parses, and shellcheck, where there is one, finds nothing.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
if ! git rev-parse --is-inside-work-tree >/dev/null 2>&1; then echo "SKIP not a git repository"; exit 77; fi
bad=0 found=0
while IFS= read -r -d '' file; do
  if [[ ! -f $file ]] || ! IFS= read -r first <"$file" || [[ $first != '#!'*bash* ]]; then continue; fi
  found=$((found + 1))
  bash -n "$file" || bad=1
  [[ -x $file ]] || { echo "$file: is not executable"; bad=1; }
  if command -v shellcheck >/dev/null; then shellcheck "$file" || bad=1; fi
done < <(git ls-files -z -- calm '*.sh' .ci)
(( found >= 3 )) || { echo "only $found scripts found"; exit 1; }
exit "$bad"
