// All settings of stage 1 training. Defaults are the specification's (configs/low_level/paper.yaml repeats them);
// the presets for small machines say where and why they depart.
#pragma once

#include <string>
#include <vector>

#include "env/batch_env.h"
#include "learn/discriminator_weights.h"
#include "sim/simulator.h"

namespace calm {

struct NetworkSettings {
  int latent_size = 64;
  std::vector<int> style_hidden = {512, 256};  // of actor's and discriminator's style branches
  int style_size = 64;
  std::vector<int> actor_hidden = {1024, 1024, 512};
  std::vector<int> critic_hidden = {1024, 1024, 512};
  std::vector<int> discriminator_hidden = {1024, 1024, 512};
  std::vector<int> encoder_hidden = {1024, 1024, 512};
  int encoder_stride = 1;         // the encoder sees every n-th frame of its window
  float actor_last_layer = 1.0f;  // scale of the actor's last layer at the start
  float log_sigma = -2.9f;        // of the actor's exploration noise
  float log_sigma_end = -2.9f;    // which it narrows to
  double narrow_from = 0.0;       // between so many samples
  double narrow_to = 0.0;         // and so many; 0: it does not
};

struct UpdateSettings {
  int passes = 6;         // over the rollout
  int minibatch = 16384;  // samples of policy and value losses
  int discriminator_minibatch = 4096;
  float gamma = 0.99f, lambda = 0.95f;
  float clip = 0.2f;            // PPO
  float learning_rate = 2e-5f;  // Adam; the factors below are of single networks
  float actor_rate = 1.0f, critic_rate = 1.0f, discriminator_rate = 1.0f, encoder_rate = 1.0f;
  float target_kl = 0.0f;          // > 0: the actor's rate is adapted to this KL divergence an iteration
  float advantage_clip = 0.0f;     // > 0: normalised advantages are clamped to +- this
  float max_gradient_norm = 0.0f;  // > 0: gradients are scaled down to this norm
  float value_weight = 5.0f, bound_weight = 10.0f, discriminator_weight = 5.0f, encoder_weight = 0.1f;
  float uniformity_weight = 0.5f;
  float alignment_seconds = 0.5f;  // the two windows of a pair are at most so far apart
  DiscriminatorWeights discriminator;
  bool negatives = true;      // clip windows with another motion's latent, as negatives
  int replay_size = 200000;   // windows
  float replay_keep = 0.01f;  // share of new windows kept once the buffer is full
  // > 0: only getting up and new clips are learnt, and this weighs the divergence of all else from the controller
  // started from
  float keep_weight = 0.0f;
  float keep_weight_start = 0.0f;  // until keep_from samples, rising to keep_weight at keep_to
  // 0: keep_weight from the start. From keep_from on what was learnt of new clips is held too, to the policy then.
  double keep_from = 0.0, keep_to = 0.0;
  bool new_clips = false;  // learn the clips that the policy started from does not know; they are the last of the list
};

// Before the first rollout: the actor (and the encoder with it) learns, supervised, the PD targets that would make the
// joints follow each clip. Not in the paper; the controller then starts from the clips' poses instead of from nothing.
struct WarmStartSettings {
  int steps = 0;  // 0: none
  int minibatch = 1024;
  float learning_rate = 1e-3f;
  float observation_noise = 0.1f;  // standard deviation added to normalised observations
};

struct RewardSettings {
  float discriminator_scale = 2.0f;
  // Of episodes that follow their clip (env/batch_env.h; not in the paper).
  float tracking_weight = 0.0f;  // of the tracking score in their reward; 0: none follows
  double tracking_full = 0.0;    // samples until which all episodes that can follow do
  double tracking_fade = 0.0;    // samples from which none does; 0: they always do
};

struct LowLevelSettings {
  std::string character = "assets/characters/human.xml";
  std::string backend = "auto";  // of make_simulator, or auto: cuda where learning has a GPU, else simd
  std::string device = "auto";   // auto, cpu, cuda
  int seed = 1;
  int threads = 0;       // 0: all cores
  bool overlap = false;  // simulate the next rollout, with the policy of before, during an update
  int num_envs = 4096;
  int horizon = 32;      // control steps a rollout
  double samples = 5e9;  // control steps in all
  double checkpoint_minutes = 10.0;
  double eval_minutes = 20.0;  // 0: none during training
  PhysicsSettings physics;
  EnvSettings env;
  NetworkSettings network;
  UpdateSettings update;
  RewardSettings reward;
  WarmStartSettings warm_start;
};

template <class Visitor>
void visit(Visitor& v, NetworkSettings& s) {
  v("latent_size", s.latent_size);
  v("style_hidden", s.style_hidden);
  v("style_size", s.style_size);
  v("actor_hidden", s.actor_hidden);
  v("critic_hidden", s.critic_hidden);
  v("discriminator_hidden", s.discriminator_hidden);
  v("encoder_hidden", s.encoder_hidden);
  v("encoder_stride", s.encoder_stride);
  v("actor_last_layer", s.actor_last_layer);
  v("log_sigma", s.log_sigma);
  v("log_sigma_end", s.log_sigma_end);
  v("narrow_from", s.narrow_from);
  v("narrow_to", s.narrow_to);
}

template <class Visitor>
void visit(Visitor& v, UpdateSettings& s) {
  v("passes", s.passes);
  v("minibatch", s.minibatch);
  v("discriminator_minibatch", s.discriminator_minibatch);
  v("gamma", s.gamma);
  v("lambda", s.lambda);
  v("clip", s.clip);
  v("learning_rate", s.learning_rate);
  v("actor_rate", s.actor_rate);
  v("critic_rate", s.critic_rate);
  v("discriminator_rate", s.discriminator_rate);
  v("encoder_rate", s.encoder_rate);
  v("target_kl", s.target_kl);
  v("advantage_clip", s.advantage_clip);
  v("max_gradient_norm", s.max_gradient_norm);
  v("value_weight", s.value_weight);
  v("bound_weight", s.bound_weight);
  v("discriminator_weight", s.discriminator_weight);
  v("encoder_weight", s.encoder_weight);
  v("uniformity_weight", s.uniformity_weight);
  v("alignment_seconds", s.alignment_seconds);
  v("discriminator", s.discriminator);
  v("negatives", s.negatives);
  v("replay_size", s.replay_size);
  v("replay_keep", s.replay_keep);
  v("keep_weight", s.keep_weight);
  v("keep_weight_start", s.keep_weight_start);
  v("keep_from", s.keep_from);
  v("keep_to", s.keep_to);
  v("new_clips", s.new_clips);
}

template <class Visitor>
void visit(Visitor& v, RewardSettings& s) {
  v("discriminator_scale", s.discriminator_scale);
  v("tracking_weight", s.tracking_weight);
  v("tracking_full", s.tracking_full);
  v("tracking_fade", s.tracking_fade);
}

template <class Visitor>
void visit(Visitor& v, WarmStartSettings& s) {
  v("steps", s.steps);
  v("minibatch", s.minibatch);
  v("learning_rate", s.learning_rate);
  v("observation_noise", s.observation_noise);
}

template <class Visitor>
void visit(Visitor& v, LowLevelSettings& s) {
  v("character", s.character);
  v("backend", s.backend);
  v("device", s.device);
  v("seed", s.seed);
  v("threads", s.threads);
  v("overlap", s.overlap);
  v("num_envs", s.num_envs);
  v("horizon", s.horizon);
  v("samples", s.samples);
  v("checkpoint_minutes", s.checkpoint_minutes);
  v("eval_minutes", s.eval_minutes);
  v("physics", s.physics);
  v("env", s.env);
  v("network", s.network);
  v("update", s.update);
  v("reward", s.reward);
  v("warm_start", s.warm_start);
}

// Throws Error naming the setting that cannot work (sizes, shares, minibatch larger than a rollout, ...).
void validate(const LowLevelSettings& settings);

}  // namespace calm
