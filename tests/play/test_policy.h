// A policy without training, for tests: it holds the standing pose, and each of its clips holds another pose, so that
// a command visibly changes what the character does.
#pragma once

#include <nlohmann/json.hpp>

#include "character/character.h"
#include "runtime/high_level_policy.h"
#include "runtime/safetensors.h"

namespace calm {

// Clips: "stand", tagged "rest", then one per joint, named "bend <joint>" and tagged "bend", which turns its first DoF
// away from standing. `mjcf`: the character's file, as the policy's metadata is to name it.
inline SafeTensors make_test_policy(const Character& character, const std::string& mjcf) {
  const int64_t obs = character.observation_size(), dofs = character.num_dofs;
  const int64_t poses = character.num_joints() + 1;
  SafeTensors file;
  auto zeros = [&](const std::string& name, std::vector<int64_t> shape) -> Tensor& {
    int64_t size = 1;
    for (const int64_t n : shape) size *= n;
    return file.tensors[name] = {std::move(shape), std::vector<float>(static_cast<size_t>(size))};
  };

  // latents are unit vectors along the axes, the style branch hands them through: tanh(3) is nearly 1
  Tensor& latents = zeros("latents", {poses, poses});
  Tensor& style = zeros("actor.style.0.weight", {poses, poses});
  zeros("actor.style.0.bias", {poses});
  for (int64_t i = 0; i < poses; ++i) latents.data[i * poses + i] = 1.0f, style.data[i * poses + i] = 3.0f;

  // the action does not depend on the observation: the standing pose, plus what the clip's latent adds
  Tensor& body = zeros("actor.body.0.weight", {dofs, obs + poses});
  Tensor& bias = zeros("actor.body.0.bias", {dofs});
  for (int64_t d = 0; d < dofs; ++d)
    bias.data[d] = (character.default_dof_pos[d] - character.action_offset[d]) / character.action_scale[d];
  nlohmann::json clips = {{{"name", "stand"}, {"tags", {"rest"}}, {"duration", 2.0}}};
  for (int64_t j = 0; j < character.num_joints(); ++j) {
    const Joint& joint = character.joints[j];
    body.data[joint.dof * (obs + poses) + obs + j + 1] = bias.data[joint.dof] > 0.0f ? -0.5f : 0.5f;
    clips.push_back({{"name", "bend " + joint.name}, {"tags", {"bend"}}, {"duration", 1.0}});
  }

  zeros("obs_norm.mean", {obs});
  for (float& x : zeros("obs_norm.inv_std", {obs}).data) x = 1.0f;
  file.metadata = {{"format", "calm.low_level"},
                   {"version", "1"},
                   {"character", character.name},
                   {"character_mjcf", mjcf},
                   {"character_hash", fmt::format("{:016x}", character.hash)},
                   {"settings", "{}"},
                   {"clips", clips.dump()}};
  return file;
}

// A high-level policy of the task `directed` without training: it acts out the style that it is asked for.
inline SafeTensors make_test_high_level_policy(const Policy& low) {
  const int64_t inputs = low.obs_mean.size() + 3 + low.latent_size, clips = static_cast<int64_t>(low.latents.size());
  SafeTensors file;
  file.tensors["actor.0.weight"] = {{clips, inputs}, std::vector<float>(static_cast<size_t>(clips * inputs))};
  file.tensors["actor.0.bias"] = {{clips}, std::vector<float>(static_cast<size_t>(clips), -1.0f)};
  file.tensors["input_norm.mean"] = {{inputs}, std::vector<float>(static_cast<size_t>(inputs))};
  file.tensors["input_norm.inv_std"] = {{inputs}, std::vector<float>(static_cast<size_t>(inputs), 1.0f)};
  file.tensors["base"] = {{low.latent_size}, std::vector<float>(static_cast<size_t>(low.latent_size))};
  file.metadata = {{"format", "calm.high_level"},
                   {"version", "1"},
                   {"task", "directed"},
                   {"styled", "true"},
                   {"goal_size", "3"},
                   {"decision_steps", "5"},
                   {"output", "clips"},
                   {"reach", "0.5"},
                   {"pull", "3.5"},
                   {"gain", "4"},
                   {"low_level_hash", fmt::format("{:016x}", policy_hash(low))},
                   {"settings", "{}"},
                   {"styles", "[]"}};
  return file;
}

}  // namespace calm
