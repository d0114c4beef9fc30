// The GPU's half of CudaEnv: launches over all environments, queued on the default stream. Every pointer is to the
// GPU's memory; rows are environments. Errors of CUDA are thrown as Error.
#pragma once

#include <cstdint>

#include "env/episode.h"
#include "features/feature_rows.h"

namespace calm::env_kernels {

// The simulator's rows (DeviceState) that are read here.
struct SimulatedRows {
  const float *body_pos, *body_rot, *body_vel, *body_ang_vel, *dof_pos, *dof_vel, *contact_force, *diverged;
};

struct Batch {
  EpisodeRules rules;
  FeatureLayout layout;
  int num_envs = 0;
  SimulatedRows simulated{};
  const float *action_offset = nullptr, *action_scale = nullptr;  // (dofs)

  Episode* episodes = nullptr;           // (env)
  Window* windows = nullptr;             // (env) of the latent in force
  float* history = nullptr;              // (env x discriminator frames x features)
  float* observations = nullptr;         // (env x observation)
  uint8_t* terminated = nullptr;         // (env)
  uint8_t* truncated = nullptr;          // (env)
  int* reset_row = nullptr;              // (env) of the table of states, or -1
  int first_fallen = 0, standing = 0;    // rows of that table: moments of clips, then the bank, then standing
  unsigned long long* counts = nullptr;  // episodes, falls, timeouts, episode steps
};

// What a step leaves for learning, as of before anything was reset.
struct StepRows {
  float* windows = nullptr;       // (env x discriminator frames x features)
  float* observations = nullptr;  // (env x observation)
  float* tracking = nullptr;      // (env)
  float* falls = nullptr;         // (env) 0 or 1
  float* dones = nullptr;         // (env) 0 or 1
  uint8_t* changed = nullptr;     // (env) 1: the latent has changed, by a reset or because it was due
  int64_t* moments = nullptr;     // (env) newest moment of the window of the latent now in force
};

// mask: 1 where the environment explores, with its probability; there actions are means with noise, else means.
void explore(const Batch& batch, const float* means, const float* probability, float sigma, float* actions,
             float* mask);
// PD targets of actions, which are clamped to [-1, 1].
void find_targets(const Batch& batch, const float* actions, float* targets);
// After a simulated step: the rows of `out` but the last two, and terminated, truncated, counts.
void observe(const Batch& batch, const StepRows& out);
// Starts new episodes and latents where they are due: reset_row, `changed` and `moments`.
void draw_resets(const Batch& batch, const StepRows& out);
// After the states are set: history and observations of what was reset; the others' as they are in `out`.
void refresh(const Batch& batch, const StepRows& out);

// Draws for the discriminator's and the encoder's losses, a row each (n): the moments of a discriminator window, of an
// encoder window that holds it, and of one at most `apart` seconds from that; and a row whose clip is another, or -1.
void draw_clip_rows(const EpisodeRules& rules, float apart, uint64_t seed, uint64_t stream, int n, int64_t* newest,
                    int64_t* moments, int64_t* near, int64_t* other);

}  // namespace calm::env_kernels
