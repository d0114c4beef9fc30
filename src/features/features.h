// Observations and motion features: pure functions of a character state, for clips and simulation alike
// (specification: "Observation of the policy", "Motion feature").
#pragma once

#include "character/state.h"
#include "features/feature_rows.h"

namespace calm {

// Policy observation, 1 + 15 n - 3 numbers: root height; positions of all bodies but the root, relative to it; all
// rotations as tangent and normal; all linear velocities; all angular velocities. All in the root's heading frame.
// out: (character.observation_size()).
void write_observation(const Character& character, const CharacterStateView& state, float* out);

// As above but with the root's own rotation left in the world frame (the reference's `global root` variant).
void write_observation_global_root(const Character& character, const CharacterStateView& state, float* out);

// Motion features of one moment: root height (1), root rotation in the heading frame (6), root linear and angular
// velocity in the heading frame (3 + 3), joint rotations (6 each), joint velocities, key-body positions relative to
// the root in the heading frame (3 each). out: (character.motion_feature_size()).
void write_motion_features(const Character& character, const CharacterStateView& state, float* out);

FeatureJoint feature_joint(const Joint& joint);

}  // namespace calm
