// A few simple clips of our own, so that tests and a first training need no recorded motion.
//
// Input: any humanoid that has the bodies of ours by name (pelvis, torso, head, right_/left_ upper_arm lower_arm hand
// thigh shin foot), z up, facing +x, straight and with hanging arms at zero joint positions. Output: clips of 2 to 6 s
// at 30 frames per second that start and end at rest (a walk: after some steps), feet planted on the floor, joints
// within their limits. The same numbers on every call. Errors: Error naming the bodies that are missing.
#pragma once

#include <vector>

#include "motion/clip.h"

namespace calm {

std::vector<Clip> generate_clips(const Character& character);

}  // namespace calm
