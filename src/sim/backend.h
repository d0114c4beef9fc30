// What the backends behind the seam have in common.
#pragma once

#include <span>
#include <vector>

#include "sim/simulator.h"

namespace calm {

// Sets environments [0, num_envs) standing, and their props where they start.
void start_standing(Simulator& simulator, int num_envs, const Character& character, const std::vector<Prop>& props);

// Throws Error where there are not as many PD targets as the environments have DoFs.
void check_targets(std::span<const float> pd_targets, const BatchState& state);

// Throws Error on a saved state that is not of `expected` finite numbers.
void check_saved(std::span<const double> saved, size_t expected);

// Contact forces of an environment's character, or of its props too, become 0.
void clear_forces(BatchState& state, int env);
void clear_all_forces(BatchState& state, int env);

}  // namespace calm
