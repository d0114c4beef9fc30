// Import of poselib motion clips: `.npy` files that hold one pickled dictionary.
//
// Unpickling in general runs whatever the file says. This reader has no such power: it knows the opcodes and the five
// globals that such files contain, builds plain values from them, and refuses everything else with the opcode's or
// global's name and its place in the file. Nothing larger than the file is ever allocated.
//
// Input: NumPy format 1.0, `|O`, one pickle of protocol 2 or 3; metres, z up, x forward. Element type and frames per
// second are the file's.
// Errors: Error naming the file, what is wrong and where.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "motion/clip.h"

namespace calm {

// The skeleton's nodes are matched to the character's bodies by name, and their offsets must agree within 2 cm. Bodies
// that only one side has are left out (and named in `warnings`, which may be null) where nothing is lost but the motion
// of a body that carries nothing: sword and shield, or a hand that is fixed on the character.
// Root velocities are the file's, joint velocities are computed. name: the file's stem.
Clip import_npy(const Character& character, const std::filesystem::path& path, std::vector<std::string>* warnings);

// As above from a file's bytes; `name` stands in for the path in errors.
Clip parse_npy(const Character& character, std::string_view bytes, const std::string& name,
               std::vector<std::string>* warnings);

}  // namespace calm
