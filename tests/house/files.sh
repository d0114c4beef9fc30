#!/usr/bin/env bash
# What is committed: nothing that is made (builds, runs, pages, packages), nothing large, and nothing of the data that
# lies beside the repository, three files of golden numbers excepted. The starter clips are our own.
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
shared=$root/../shared
max_bytes=$((8 << 20))

cd "$root" || exit 1
if ! git rev-parse --is-inside-work-tree >/dev/null 2>&1; then echo "SKIP not a git repository"; exit 77; fi
mapfile -d '' -t files < <(git ls-files -z)
(( ${#files[@]} )) || { echo "git lists no files"; exit 1; }
bad=0

# by name
for file in "${files[@]}"; do
  case /$file in
    /assets/motions/starter/*.calmlib) ;;  # recorded from our own policy
    /build/* | /runs/* | */node_modules/* | */dist/* | *.tmp | *.calmlib | */events.out.tfevents.*)
      echo "$file: is made, not written; take it out of the repository"
      bad=1 ;;
    *.npy | *.bvh | *.amc | *.asf)
      echo "$file: looks like a recorded clip; clips stay outside the repository"
      bad=1 ;;
  esac
done

# by size, of which those that equal a file beside the repository are told by content
declare -A beside=()
if [[ -d $shared ]]; then
  while IFS=$'\t' read -r size path; do
    beside[$size]+="$path"$'\n'
  done < <(find "$shared" -type f -size +0 -printf '%s\t%p\n')
fi
while IFS=$'\t' read -r size file; do
  (( size <= max_bytes )) || { echo "$file: $size bytes, more than $max_bytes"; bad=1; }
  [[ -n ${beside[$size]:-} ]] || continue
  while IFS= read -r path; do
    if [[ -z $path ]] || ! cmp -s "$path" "$file"; then continue; fi
    case ${path##*/} in
      observation.json | tasks.json | learning.json) ;;  # random numbers, which may be copied
      *) echo "$file: is the same as $path, which may not be committed"; bad=1 ;;
    esac
  done <<<"${beside[$size]}"
done < <(printf '%s\0' "${files[@]}" | xargs -0 -r stat --printf '%s\t%n\n' 2>/dev/null)
exit "$bad"
