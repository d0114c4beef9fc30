#!/usr/bin/env bash
# Includes run one way: a module includes only itself and the modules listed here, and LibTorch is learn's alone.
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

declare -A may_include=(
  [base]=''
  [character]='base'
  [features]='base character'
  [draw]='base character'
  [motion]='base character features'
  [sim]='base character'
  [env]='base character motion sim features runtime'
  [direct]='base character motion sim features env runtime'
  [learn]='base character draw motion sim features env runtime direct'
  [runtime]='base character features'
  [play]='base character motion sim features runtime env direct'
  [tools]='base character features draw motion sim env direct learn runtime play'
)

# Prints a line for each include that runs the wrong way; fails if there is one, or if there is nothing to look at.
check() {  # SOURCE_FOLDER
  local file line text module target found=0 bad=0
  while IFS=: read -r file line text; do
    found=1
    module=${file#"$1"/} module=${module%%/*}
    [[ -v may_include[$module] ]] || { echo "$file: the module \`$module\` is not listed in ${BASH_SOURCE[0]}"; bad=1; continue; }
    if [[ $text =~ ^[[:space:]]*#[[:space:]]*include[[:space:]]*[\<\"](torch|ATen|c10|caffe2)[/.] ]]; then
      [[ $module == learn ]] || { echo "$file:$line: only learn may include LibTorch: $text"; bad=1; }
    elif [[ $text =~ \"([a-z_0-9]+)/[^\"]*\" ]]; then
      target=${BASH_REMATCH[1]}
      [[ $target == "$module" || " ${may_include[$module]} " == *" $target "* ]] ||
        { echo "$file:$line: $module may not include $target: $text"; bad=1; }
    elif [[ $text =~ \"([^\"/]*)\" ]]; then
      echo "$file:$line: write includes from src/ (\"$module/${BASH_REMATCH[1]}\"): $text"
      bad=1
    fi
  done < <(grep -rnE '^[[:space:]]*#[[:space:]]*include' --include='*.h' --include='*.cpp' --include='*.cu' "$1")
  (( found && !bad ))
}

# the check itself must see what it is there for
plant=$(mktemp -d)
trap 'rm -rf "$plant"' EXIT
expect_bad() {  # FILE LINE
  mkdir -p "$plant/src/$(dirname "$1")"
  echo "$2" >"$plant/src/$1"
  if check "$plant/src" >/dev/null; then echo "the check does not see \`$2\` in $1"; exit 1; fi
  rm -r "$plant/src"
}
expect_bad base/a.h '#include "motion/clip.h"'
expect_bad runtime/a.cpp '#include "motion/clip.h"'
expect_bad runtime/a.cpp '#include <torch/torch.h>'
expect_bad env/a.cpp '  # include "learn/a.h"'
expect_bad sim/a.cpp '#include "simulator.h"'
expect_bad elsewhere/a.cpp '#include <vector>'

check "$root/src"
