#include "runtime/high_level_policy.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"

namespace calm {

RowMatrix LatentOutput::latents(const RowMatrix& actions, const RowMatrix& bases) const {
  const RowMatrix a = actions.cwiseMax(-1.0f).cwiseMin(1.0f);
  RowMatrix z;
  if (of_clips) {
    const RowMatrix weights = (gain * a).array().exp();
    z = std::exp(pull) * bases + weights * clips;
  } else {
    z = bases + reach * a;
  }
  for (Eigen::Index i = 0; i < z.rows(); ++i) z.row(i) /= std::max(z.row(i).norm(), 1e-8f);
  return z;
}

RowMatrix clip_latents(const Policy& policy, const std::vector<std::string>& tags) {
  std::vector<const NamedLatent*> taken;
  for (const NamedLatent& latent : policy.latents)
    if (tags.empty() || std::ranges::find_first_of(latent.tags, tags) != latent.tags.end()) taken.push_back(&latent);
  RowMatrix rows(taken.size(), policy.latent_size);
  for (size_t i = 0; i < taken.size(); ++i) rows.row(static_cast<Eigen::Index>(i)) = taken[i]->z.transpose();
  return rows;
}

RowMatrix HighLevelPolicy::latents(const RowMatrix& inputs) const {
  const RowMatrix normalised =
      ((inputs.rowwise() - input_mean.transpose()).array().rowwise() * input_inv_std.transpose().array())
          .cwiseMax(-5.0f)
          .cwiseMin(5.0f);
  const RowMatrix bases =
      styled ? RowMatrix(inputs.rightCols(base.size())) : RowMatrix(base.transpose().replicate(inputs.rows(), 1));
  return output.latents(actor(normalised), bases);
}

uint64_t policy_hash(const Policy& policy) {
  uint64_t hash = 0xcbf29ce484222325ull;  // FNV-1a
  const auto add = [&hash](const void* data, size_t bytes) {
    for (size_t i = 0; i < bytes; ++i) hash = (hash ^ static_cast<const unsigned char*>(data)[i]) * 0x100000001b3ull;
  };
  for (const Mlp* mlp : {&policy.style, &policy.actor})
    for (const auto& layer : mlp->layers)
      add(layer.weight.data(), sizeof(float) * static_cast<size_t>(layer.weight.size()));
  for (const auto& latent : policy.latents) add(latent.name.data(), latent.name.size());
  return hash;
}

HighLevelPolicy load_high_level_policy(const std::filesystem::path& path, const Policy& policy) {
  const auto file = std::filesystem::is_directory(path) ? path / "high_level.safetensors" : path;
  return parse_high_level_policy(read_file(file), file.string(), policy);
}

HighLevelPolicy parse_high_level_policy(const std::string& bytes, const std::string& where, const Policy& policy) {
  const SafeTensors file = parse_safetensors(bytes, where);
  const auto metadata = [&](const char* key) -> const std::string& {
    const auto it = file.metadata.find(key);
    if (it == file.metadata.end()) fail("{}: metadata `{}` is missing; is it a high-level policy?", where, key);
    return it->second;
  };
  if (metadata("format") != "calm.high_level")
    fail("{}: is a `{}`, not a high-level policy", where, file.metadata.at("format"));
  if (metadata("version") != "1")
    fail("{}: high-level policy version {}, this program reads 1", where, file.metadata.at("version"));
  HighLevelPolicy out;
  std::vector<std::string> tags;
  out.task = metadata("task"), out.settings = metadata("settings");
  try {
    out.low_level_hash = std::stoull(metadata("low_level_hash"), nullptr, 16);
    out.goal_size = std::stoi(metadata("goal_size"));
    out.decision_steps = std::stoi(metadata("decision_steps"));
    out.output.of_clips = metadata("output") == "clips";
    out.output.reach = std::stof(metadata("reach"));
    out.output.pull = std::stof(metadata("pull")), out.output.gain = std::stof(metadata("gain"));
    out.styled = metadata("styled") == "true";
    if (file.metadata.contains("tags")) tags = nlohmann::json::parse(metadata("tags")).get<std::vector<std::string>>();
    const auto styles = nlohmann::json::parse(metadata("styles"));
    for (const auto& style : styles) {
      out.styles.push_back(style.at("clip").get<std::string>());
      out.speeds.push_back(style.at("speed").get<float>());
    }
  } catch (const std::exception& e) {
    fail("{}: damaged metadata: {}", where, e.what());
  }
  if (out.low_level_hash != policy_hash(policy))
    fail("{}: was trained for another low-level policy; use that one, or train it again (calm train high-level)",
         where);
  const auto small = [](float x) { return x > 0.0f && x < 20.0f; };
  if (out.goal_size < 0 || out.goal_size > 64 || out.decision_steps < 1 || out.decision_steps > 300 ||
      !small(out.output.reach) || !small(out.output.pull) || !small(out.output.gain))
    fail("{}: damaged metadata: goal_size, decision_steps, reach, pull or gain is out of range", where);
  if (out.output.of_clips) out.output.clips = clip_latents(policy, tags);
  out.actor = read_mlp(file, "actor", where);
  const auto vector_of = [&](const char* name) {
    const Tensor& tensor = file.at(name, where);
    return Eigen::VectorXf(
        Eigen::Map<const Eigen::VectorXf>(tensor.data.data(), static_cast<Eigen::Index>(tensor.data.size())));
  };
  out.input_mean = vector_of("input_norm.mean"), out.input_inv_std = vector_of("input_norm.inv_std");
  out.base = vector_of("base");
  const auto inputs = policy.obs_mean.size() + out.goal_size + (out.styled ? policy.latent_size : 0);
  if (out.actor.input_size() != inputs || out.input_mean.size() != inputs || out.input_inv_std.size() != inputs ||
      out.actor.output_size() != out.output.size(policy.latent_size) || out.base.size() != policy.latent_size)
    fail("{}: its sizes do not fit the low-level policy", where);
  for (const auto& [name, tensor] : file.tensors)
    for (const float x : tensor.data)
      if (!std::isfinite(x)) fail("{}: tensor `{}` holds numbers that are not finite", where, name);
  return out;
}

}  // namespace calm
