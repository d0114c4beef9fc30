#!/usr/bin/env bash
# Records the starter clips anew from the committed policy. `./calm record --help` says what the options mean.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
calm=${CALM:-./calm}

clip() {  # NAME OPTIONS…
  "$calm" record assets/policies/human --out "assets/motions/starter/$1.calmlib" "${@:2}"
}

# what goes on and on, once it is under way
clip stand --act stand:5 --skip 2
clip walk_slow --act walk_slow:6 --skip 2
clip walk --act walk:6 --skip 2
clip walk_fast --act walk_fast:7 --skip 3
clip run --act walk_fast:2 --act run_start:5 --skip 4
clip walk_back --act walk_back:6 --skip 2
clip turn_left --act turn_left:6 --skip 2
clip turn_right --act turn_right:6 --skip 2
clip turn_around_left --act turn_around_left:5 --skip 2
clip turn_around_right --act turn_around_right:5 --skip 2
clip side_left --act crouch_side_left:6 --skip 2
clip side_right --act crouch_side_right:6 --skip 2
clip sneak --act sneak:6 --skip 2
clip crouch --act crouch:5 --skip 2
clip punch_left --act stand:1 --act punch_left:4 --skip 1.5
clip punch_right --act stand:1 --act punch_right:4 --skip 1.5
clip jump_forward --act jump_forward:6 --skip 2
clip wave_right --act stand:1 --act wave_right:4 --skip 1.3

# what begins in standing and ends in a pose
clip kick_left --act stand:1 --act kick_left:2 --skip 1
clip kick_right --act stand:1 --act kick_right:2 --skip 1
clip lunge_punch_right --act stand:1 --act lunge_punch_right:2 --skip 1
clip low_block_right --act stand:1 --act low_block_right:2.2 --skip 1
clip knife_block_left --act stand:1 --act knife_block_left:2.2 --skip 1
clip raise_arms --act stand:1 --act raise_arms:3 --skip 1
clip reach_up --act stand:1 --act reach_up:3 --skip 1

# from one to another
clip walk_to_run --act walk:3 --act run_start:2.5 --skip 2.8
