// All settings of stage 2 training. Defaults are the specification's where it has a number; the presets say where they
// depart (configs/high_level).
#pragma once

#include <string>
#include <vector>

#include "env/task_env.h"

namespace calm {

struct HighLevelNetworkSettings {
  std::vector<int> actor_hidden = {1024, 512};
  std::vector<int> critic_hidden = {1024, 512};
  float actor_last_layer = 0.01f;  // scale of the actor's last layer at the start: it begins by acting out the base
  float log_sigma = -2.3f;         // of the actor's exploration noise
  std::string output = "latent";   // or `clips`: what the actor's numbers mean (runtime/high_level_policy.h)
  float reach = 0.5f;              // of `latent`
  float pull = 3.5f, gain = 4.0f;  // of `clips`
  std::vector<std::string> tags;   // of `clips`: it chooses among those with one of these tags; none: among all
};

struct HighLevelUpdateSettings {
  int passes = 6;         // over the rollout
  int minibatch = 16384;  // decisions
  float gamma = 0.99f, lambda = 0.95f;
  float clip = 0.2f;  // PPO
  float learning_rate = 2e-5f;
  float target_kl = 0.0f;       // > 0: the actor's rate is adapted to this KL divergence an iteration
  float advantage_clip = 0.0f;  // > 0: normalised advantages are clamped to +- this
  float max_gradient_norm = 0.0f;
  float value_weight = 5.0f, bound_weight = 10.0f;
};

struct HighLevelRewardSettings {
  float task_weight = 0.5f, style_weight = 0.5f;  // the latter only of styled tasks
};

struct HighLevelSettings {
  std::string backend = "simd";
  int seed = 1;
  int threads = 0;  // 0: all cores
  int num_envs = 4096;
  int horizon = 32;      // decisions a rollout
  double samples = 1e8;  // decisions in all
  double checkpoint_minutes = 10.0;
  // Clips to move like; none: every clip whose root moves at least at min_speed along the floor and that is not tagged
  // `bend`.
  std::vector<std::string> styles;
  float min_speed = 0.3f;          // m/s
  std::string base_clip = "walk";  // whose latent a task without styles departs from
  TaskSettings env;
  HighLevelNetworkSettings network;
  HighLevelUpdateSettings update;
  HighLevelRewardSettings reward;
};

template <class Visitor>
void visit(Visitor& v, HighLevelNetworkSettings& s) {
  v("actor_hidden", s.actor_hidden);
  v("critic_hidden", s.critic_hidden);
  v("actor_last_layer", s.actor_last_layer);
  v("log_sigma", s.log_sigma);
  v("output", s.output);
  v("reach", s.reach);
  v("pull", s.pull);
  v("gain", s.gain);
  v("tags", s.tags);
}

template <class Visitor>
void visit(Visitor& v, HighLevelUpdateSettings& s) {
  v("passes", s.passes);
  v("minibatch", s.minibatch);
  v("gamma", s.gamma);
  v("lambda", s.lambda);
  v("clip", s.clip);
  v("learning_rate", s.learning_rate);
  v("target_kl", s.target_kl);
  v("advantage_clip", s.advantage_clip);
  v("max_gradient_norm", s.max_gradient_norm);
  v("value_weight", s.value_weight);
  v("bound_weight", s.bound_weight);
}

template <class Visitor>
void visit(Visitor& v, HighLevelRewardSettings& s) {
  v("task_weight", s.task_weight);
  v("style_weight", s.style_weight);
}

template <class Visitor>
void visit(Visitor& v, HighLevelSettings& s) {
  v("backend", s.backend);
  v("seed", s.seed);
  v("threads", s.threads);
  v("num_envs", s.num_envs);
  v("horizon", s.horizon);
  v("samples", s.samples);
  v("checkpoint_minutes", s.checkpoint_minutes);
  v("styles", s.styles);
  v("min_speed", s.min_speed);
  v("base_clip", s.base_clip);
  v("env", s.env);
  v("network", s.network);
  v("update", s.update);
  v("reward", s.reward);
}

// Throws Error naming the setting that cannot work.
void validate(const HighLevelSettings& settings);

}  // namespace calm
