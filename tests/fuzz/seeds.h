// Small valid files, made by code, from which the fuzz tests start where no other data is at hand.
#pragma once

#include <string>

#include "character/character.h"
#include "motion/clip.h"

namespace calm::fuzz {

// A poselib clip file of the character standing, turned a little from frame to frame.
// wide: float64 numbers and the rate as a NumPy scalar, as some such files have them.
std::string npy_seed(const Character& character, int frames, bool wide);

// A BVH file whose joints have the character's body names and offsets; z up, metres. Angles wander a little.
std::string bvh_seed(const Character& character, int frames);

// The joint map that fits it.
std::string bvh_seed_map(const Character& character);

// A clip of the character standing.
Clip clip_seed(const Character& character, const std::string& name, int frames);

}  // namespace calm::fuzz
