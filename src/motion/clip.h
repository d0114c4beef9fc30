// A motion clip on one character: compact, immutable once built, independent of where it came from.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "character/state.h"

namespace calm {

struct Clip {
  std::string name;  // unique in a library
  std::vector<std::string> tags;
  std::string source;   // file it was imported from, for messages
  float weight = 1.0f;  // relative probability of being sampled
  float fps = 30.0f;
  int num_frames = 0;

  // Rows are frames.
  std::vector<float> root_pos;      // (frames x 3) world, m
  std::vector<float> body_rot;      // (frames x bodies x 4) local rotations x y z w; the root's is its world rotation
  std::vector<float> root_vel;      // (frames x 3) world, m/s
  std::vector<float> root_ang_vel;  // (frames x 3) world, rad/s
  std::vector<float> dof_vel;       // (frames x dofs) rad/s

  float length() const { return static_cast<float>(num_frames - 1) / fps; }  // s
};

// Fills root_vel, root_ang_vel (finite differences, then a Gaussian of sigma 2 frames, as the reference's clip files)
// and dof_vel (finite differences, not smoothed) from root_pos and body_rot.
void compute_velocities(const Character& character, Clip& clip);

// dof_vel alone: at frame f inverse(q_f) q_(f+1) as axis times angle over dt; the last frame repeats the one before.
void compute_dof_velocities(const Character& character, Clip& clip);

// Joint positions of a frame's (bodies x 4) local rotations.
void dof_pos_from_rotations(const Character& character, const float* body_rot, float* dof_pos);

}  // namespace calm
