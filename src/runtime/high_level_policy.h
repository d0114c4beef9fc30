// A trained high-level controller: from an observation, a goal, and a style's latent if its task has styles, to the
// latent that the low-level policy is given. Inference with Eigen, no LibTorch.
//
// The network says how to depart from a base, the style's latent, or for a task without styles that of one clip, and
// starts from acting it out. With a = clamp(actor(normalised input), -1, 1):
//   latent: z = normalize(base + reach a), one number for each of the latent's
//   clips:  z = normalize(e^pull base + sum over clips of e^(gain a_k) z_k), one number for each clip: the policy's, or
//           those with certain tags
// A low-level policy acts out the clip whose latent is nearest, and hardly anything between two: the way from walking
// to turning is not a small step from one latent but the choice of another. `clips` makes such choices easy to try.
#pragma once

#include "runtime/policy.h"

namespace calm {

struct LatentOutput {
  bool of_clips = true;
  float reach = 0.5f;              // latent
  float pull = 3.5f, gain = 4.0f;  // clips
  RowMatrix clips;                 // (clips x latent_size) unit

  int size(int latent_size) const { return of_clips ? static_cast<int>(clips.rows()) : latent_size; }
  // actions: (n x size), clamped here; bases: (n x latent_size) unit. Unit rows.
  RowMatrix latents(const RowMatrix& actions, const RowMatrix& bases) const;
};
// The latents of a policy's clips that have one of the tags, or of all if none is named, in its order.
RowMatrix clip_latents(const Policy& policy, const std::vector<std::string>& tags = {});

struct HighLevelPolicy {
  std::string task;
  std::string settings;         // the training's resolved settings, YAML
  uint64_t low_level_hash = 0;  // of the low-level policy that it directs (policy_hash)
  int goal_size = 0;
  bool styled = false;
  int decision_steps = 5;  // control steps that a latent is held
  LatentOutput output;
  Mlp actor;  // normalised (observation, goal, style latent if styled) -> latent_size
  Eigen::VectorXf input_mean, input_inv_std;
  Eigen::VectorXf base;             // unit; unused if styled
  std::vector<std::string> styles;  // clips it was trained with; others work as far as they are like these
  std::vector<float> speeds;        // of those clips, m/s

  // inputs: (n x observation + goal + style) raw; a styled task's base is the last latent_size of a row. Unit rows.
  RowMatrix latents(const RowMatrix& inputs) const;
};

// Tells low-level policies apart: of every weight and the clips' names.
uint64_t policy_hash(const Policy& policy);

// Reads NAME.safetensors, a run folder that holds high_level.safetensors, or such a file's bytes. Throws Error: what,
// where, what to do; also if it was trained for another low-level policy.
HighLevelPolicy load_high_level_policy(const std::filesystem::path& path, const Policy& policy);
HighLevelPolicy parse_high_level_policy(const std::string& bytes, const std::string& where, const Policy& policy);

}  // namespace calm
