// A sign of convergence: what a policy does from its clips' latents, measured.
//
// For each clip, episodes of 10 s start at random moments of that clip with the clip's latent in force throughout, and
// actions without noise. Reported: the share of episodes that stay up, and how well the motion matches the clip.
//
// A motion's distance to the clips is MotionDistance's, over windows of 1 s. The first 2 s of an episode do not count,
// as the start state gives the clip away. A clip is recognised in an episode when it is the nearest of all clips; the
// clip counts as recognised when it is in most of its episodes.
#pragma once

#include <string>
#include <vector>

#include "env/batch_env.h"
#include "runtime/policy.h"

namespace calm {

struct EvalSettings {
  int episodes_per_clip = 8;
  float seconds = 10.0f;
  float skip_seconds = 2.0f;
  float window_seconds = 1.0f;
  int seed = 1;
};

struct ClipEvaluation {
  std::string name;
  double own_distance = 0.0;      // to the clip itself, mean over episodes
  double other_distance = 0.0;    // to the nearest other clip, mean over episodes
  double recognised_share = 0.0;  // of its episodes
  bool recognised = false;
  double stays_up = 0.0;  // share of its episodes
  std::string taken_for;  // the clip most often nearest
};

struct Evaluation {
  double stays_up = 0.0;     // share of all episodes
  double recognised = 0.0;   // share of episodes whose motion is nearest to the clip asked for
  double chance = 0.0;       // 1 / clips
  double joint_speed = 0.0;  // mean absolute joint velocity over the clips'
  int episodes = 0;
  std::vector<ClipEvaluation> clips;
};

// Deterministic for a seed. Throws Error if the policy lacks a clip of the library.
Evaluation evaluate_low_level(const Policy& policy, const Character& character, const MotionLibrary& library,
                              const PhysicsSettings& physics, const std::string& backend, const EvalSettings& settings,
                              ThreadPool& pool);

}  // namespace calm
