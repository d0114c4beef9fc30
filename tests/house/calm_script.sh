#!/usr/bin/env bash
# The calm script, tried in a toy project in a folder with a space: what it passes on, what it counts, how it refuses.
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
folder="$(mktemp -d)/a toy"
trap 'rm -rf "${folder%/*}"' EXIT
mkdir -p "$folder/elsewhere"
cp "$root/calm" "$folder/"
unset CALM_PRESET CALM_NO_INSTALL CMAKE_PREFIX_PATH
: >"$folder/packages.txt"
cat >"$folder/CMakePresets.json" <<'JSON'
{ "version": 3,
  "configurePresets": [ { "name": "release", "generator": "Ninja", "binaryDir": "${sourceDir}/build/${presetName}" } ],
  "buildPresets": [ { "name": "release", "configurePreset": "release" } ] }
JSON
cat >"$folder/program" <<'SH'
#!/usr/bin/env bash
echo "$PWD"
printf '<%s>\n' "$@"
exit 7
SH
chmod +x "$folder/program"
cat >"$folder/CMakeLists.txt" <<'CMAKE'
cmake_minimum_required(VERSION 3.22)
project(toy LANGUAGES NONE)
set(program ${PROJECT_BINARY_DIR}/bin/calm)
add_custom_command(OUTPUT ${program} DEPENDS program COMMAND cmake -E copy ${PROJECT_SOURCE_DIR}/program ${program} VERBATIM)
add_custom_target(calm ALL DEPENDS ${program})
enable_testing()
add_test(NAME good COMMAND true)
add_test(NAME better COMMAND true)
add_test(NAME bad COMMAND false)
add_test(NAME absent COMMAND sh -c "echo SKIP no folder of clips; exit 77")
set_tests_properties(absent PROPERTIES SKIP_RETURN_CODE 77)
CMAKE

bad=0
complain() { echo "$*"; bad=1; }
expect_line() { grep -qxF -- "$1" <<<"$output" || complain "no line \`$1\` in:"$'\n'"$output"; }
cd "$folder/elsewhere" || exit 1

# arguments, the caller's folder and the exit code go through; stdout is the program's alone
output=$(../calm play 'a b' --seconds 1 2>log)
(( $? == 7 )) || complain "the program's exit code is lost: $(cat log)"
[[ $output == "$folder/elsewhere"$'\n<play>\n<a b>\n<--seconds>\n<1>' ]] || complain "the program saw: $output"
ln -s "$folder/calm" "$folder/elsewhere/link"
output=$(./link x 2>/dev/null)
expect_line '<x>'
output=$(../calm help eval 2>/dev/null)
expect_line '<eval>'
expect_line '<--help>'

# help
for arguments in --help -h help 'test --help' 'demo --help'; do
  # shellcheck disable=SC2086
  output=$(../calm $arguments 2>&1) || complain "calm $arguments fails"
  [[ $output == 'usage: ./calm '* ]] || complain "calm $arguments prints: $output"
done
../calm >/dev/null 2>&1 && complain "calm without a verb succeeds"

# counting
output=$(../calm test 2>&1) && complain "calm test succeeds with a failing test"
expect_line '2 passed, 1 failed, 1 skipped'
expect_line 'calm: FAILED bad'
expect_line 'calm: skipped absent: no folder of clips'
[[ ${output##*$'\n'} == '2 passed, 1 failed, 1 skipped' ]] || complain "the count is not the last line"
output=$(../calm test better 2>&1) || complain "calm test fails with a passing test"
expect_line '1 passed, 0 failed, 0 skipped'
output=$(../calm test --preset release --preset release good 2>&1) || complain "calm test fails on two presets"
expect_line '2 passed, 0 failed, 0 skipped'
output=$(../calm test no_such_test 2>&1) && complain "calm test succeeds without a test"
expect_line '0 passed, 0 failed, 0 skipped'

# refusals: exit code and a line that says what to do
refuses() {  # EXPECTED COMMAND…
  local expected=$1
  shift
  output=$("$@" 2>&1) && complain "$* succeeds"
  [[ $output == *"$expected"* ]] || complain "$* says: $output"
}
refuses 'no such policy' ../calm demo
refuses 'unknown option --nope' ../calm test --nope
refuses 'no preset is called nope; there are: release' env CALM_PRESET=nope ../calm play
echo 'no-such-package-here' >"$folder/packages.txt"
refuses 'apt-get install --no-install-recommends no-such-package-here' env CALM_NO_INSTALL=1 ../calm play
: >"$folder/packages.txt"

# a build that fails shows why
echo 'message(FATAL_ERROR "the moon is wrong")' >>"$folder/CMakeLists.txt"
refuses 'the moon is wrong' ../calm play
exit "$bad"
