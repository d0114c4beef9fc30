// Losses, returns, rewards and the conditional discriminator's gradients against golden numbers.
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "golden/golden_file.h"
#include "learn/losses.h"
#include "learn/networks.h"

namespace calm {
namespace {

torch::Tensor tensor(const Json& object, const std::string& key, std::vector<int64_t> shape) {
  size_t size = 1;
  for (const int64_t side : shape) size *= static_cast<size_t>(side);
  return torch::tensor(golden_floats(object, key, size)).view(shape);
}

// shape inferred: as many rows of `columns` as there are numbers
torch::Tensor rows_of(const Json& object, const std::string& key, int64_t columns) {
  const auto values = golden_floats(object, key);
  if (values.empty() || values.size() % columns != 0)
    fail("golden file: '{}' has {} numbers, not rows of {}", key, values.size(), columns);
  return torch::tensor(values).view({-1, columns});
}

void expect_tensor(const std::string& name, const torch::Tensor& ours, const Json& golden) {
  ASSERT_TRUE(ours.defined()) << name;
  ASSERT_EQ(ours.scalar_type(), torch::kFloat32) << name;
  const auto flat = ours.detach().contiguous();
  expect_golden(name, {flat.data_ptr<float>(), static_cast<size_t>(flat.numel())}, golden);
}

TEST(LearningGolden, EncoderRegulariser) {
  CALM_GOLDEN_OR_SKIP(golden, "learning.json");
  const Json& part = golden_at(golden, "encoder_regulariser");
  const int n = golden_int(part, "n"), dim = golden_int(part, "dim");
  const auto x = tensor(part, "x", {n, dim}), y = tensor(part, "y", {n, dim});
  expect_tensor("uniformity", uniformity_loss(x), golden_at(part, "uniformity"));
  expect_tensor("alignment", alignment_loss(x, y), golden_at(part, "alignment"));
  expect_tensor("loss", encoder_regulariser(x, y), golden_at(part, "loss"));
}

TEST(LearningGolden, Gae) {
  CALM_GOLDEN_OR_SKIP(golden, "learning.json");
  const Json& part = golden_at(golden, "gae");
  const int steps = golden_int(part, "steps"), envs = golden_int(part, "envs");
  torch::Tensor advantages, returns;
  compute_gae(tensor(part, "rewards", {steps, envs}), tensor(part, "values", {steps, envs}),
              tensor(part, "next_values", {steps, envs}), tensor(part, "dones", {steps, envs}),
              golden_float(part, "gamma"), golden_float(part, "lam"), advantages, returns);
  expect_tensor("advantages", advantages, golden_at(part, "advantages"));
  expect_tensor("returns", returns, golden_at(part, "returns"));
}

TEST(LearningGolden, DiscriminatorReward) {
  CALM_GOLDEN_OR_SKIP(golden, "learning.json");
  const Json& part = golden_at(golden, "discriminator_reward");
  const auto reward = discriminator_reward(rows_of(part, "logits", 1), golden_float(part, "scale"));
  expect_tensor("reward", reward, golden_at(part, "reward"));
}

TEST(LearningGolden, BoundLoss) {
  CALM_GOLDEN_OR_SKIP(golden, "learning.json");
  const Json& part = golden_at(golden, "bound_loss");
  const auto mean_action = tensor(part, "mu", {golden_int(part, "rows"), golden_int(part, "cols")});
  expect_tensor("loss", bound_loss(mean_action), golden_at(part, "loss"));
}

TEST(LearningGolden, PpoWithExplorationMask) {
  CALM_GOLDEN_OR_SKIP(golden, "learning.json");
  const Json& part = golden_at(golden, "ppo");
  const int rows = golden_int(part, "rows"), cols = golden_int(part, "cols");
  const float log_sigma = golden_float(part, "log_sigma");
  const auto actions = tensor(part, "actions", {rows, cols});
  const auto old_neglogp = neg_log_prob(actions, tensor(part, "mu_old", {rows, cols}), log_sigma);
  const auto new_neglogp = neg_log_prob(actions, tensor(part, "mu_new", {rows, cols}), log_sigma);
  expect_tensor("neglogp_old", old_neglogp, golden_at(part, "neglogp_old"));
  expect_tensor("neglogp_new", new_neglogp, golden_at(part, "neglogp_new"));

  // from the file's own log probabilities: their difference is small, so rounding of the actions would be blown up
  const auto loss =
      ppo_actor_loss(tensor(part, "neglogp_old", {rows}), tensor(part, "neglogp_new", {rows}),
                     tensor(part, "advantages", {rows}), tensor(part, "mask", {rows}), golden_float(part, "e_clip"));
  expect_tensor("actor_loss", loss, golden_at(part, "actor_loss"));
}

TEST(LearningGolden, StyleReward) {
  CALM_GOLDEN_OR_SKIP(golden, "learning.json");
  const Json& part = golden_at(golden, "style_reward");
  const int rows = golden_int(part, "rows"), dim = golden_int(part, "dim"), styles = golden_int(part, "styles");
  const auto reward = style_reward(tensor(part, "actions", {rows, dim}), tensor(part, "style_latents", {styles, dim}));
  expect_tensor("reward", reward, golden_at(part, "reward"));
}

TEST(LearningGolden, ExplorationProbability) {
  CALM_GOLDEN_OR_SKIP(golden, "learning.json");
  const Json& part = golden_at(golden, "exploration_probability");
  const auto probability = exploration_probabilities(golden_int(part, "envs"));
  expect_golden("probability", probability, golden_at(part, "probability"));
}

// The file's layers by name, in our StyledNet. It calls the last layer of the style branch "style.out" and that of the
// body "logit"; ours are numbered through.
std::map<std::string, torch::nn::Linear> layers_by_golden_name(const StyledNet& net) {
  std::map<std::string, torch::nn::Linear> layers;
  const auto name_all = [&layers](const MlpNet& part, const std::string& hidden, const std::string& last) {
    const size_t n = part.layers().size();
    for (size_t i = 0; i < n; ++i) layers.emplace(i + 1 < n ? fmt::format("{}.{}", hidden, i) : last, part.layers()[i]);
  };
  name_all(net.style(), "style", "style.out");
  name_all(net.body(), "body", "logit");
  return layers;
}

// Outputs of layers prefix.0, prefix.1, ... as far as the file has them.
std::vector<int> hidden_sizes(const Json& weights, const std::string& prefix) {
  std::vector<int> sizes;
  while (weights.contains(fmt::format("{}.{}.weight", prefix, sizes.size())))
    sizes.push_back(golden_at(weights.at(fmt::format("{}.{}.weight", prefix, sizes.size())), "shape").at(0).get<int>());
  return sizes;
}

TEST(LearningGolden, ConditionalDiscriminator) {
  CALM_GOLDEN_OR_SKIP(golden, "learning.json");
  const Json& part = golden_at(golden, "conditional_discriminator");
  const int features = golden_int(part, "obs_dim"), latent = golden_int(part, "latent_dim");
  const Json& weights = golden_at(part, "weights");

  // the network with the file's sizes and weights
  std::vector<int> style_sizes = hidden_sizes(weights, "style");
  style_sizes.insert(style_sizes.begin(), latent);
  style_sizes.push_back(golden_at(golden_at(weights, "style.out.weight"), "shape").at(0).get<int>());
  StyledNet net(features, style_sizes, hidden_sizes(weights, "body"), 1);
  const auto layers = layers_by_golden_name(net);
  std::map<std::string, torch::Tensor> parameters;
  for (const auto& [name, layer] : layers) {
    parameters[name + ".weight"] = layer->weight;
    parameters[name + ".bias"] = layer->bias;
  }
  ASSERT_EQ(parameters.size(), weights.size());
  for (auto& [name, parameter] : parameters) {
    const Json& entry = golden_at(weights, name);
    ASSERT_EQ(golden_at(entry, "shape").get<std::vector<int64_t>>(), parameter.sizes().vec()) << name;
    const torch::NoGradGuard no_grad;
    parameter.copy_(tensor(entry, "data", parameter.sizes().vec()));
  }

  // logits
  const auto obs_agent = rows_of(part, "obs_agent", features), z_agent = rows_of(part, "z_agent", latent);
  const auto obs_replay = rows_of(part, "obs_replay", features), z_replay = rows_of(part, "z_replay", latent);
  const auto obs_demo = rows_of(part, "obs_demo", features), z_demo = rows_of(part, "z_demo", latent);
  expect_tensor("logit_agent", net.forward(obs_agent, z_agent), golden_at(part, "logit_agent"));
  expect_tensor("logit_replay", net.forward(obs_replay, z_replay), golden_at(part, "logit_replay"));
  expect_tensor("logit_demo", net.forward(obs_demo, z_demo), golden_at(part, "logit_demo"));

  // losses
  const auto losses =
      discriminator_losses(net, torch::cat({obs_agent, obs_replay}), torch::cat({z_agent, z_replay}), obs_demo, z_demo);
  expect_tensor("fake_logits", losses.fake_logits, [&] {
    Json joined = golden_at(part, "logit_agent");
    for (const Json& logit : golden_at(part, "logit_replay")) joined.push_back(logit);
    return joined;
  }());
  expect_tensor("clip_logits", losses.clip_logits, golden_at(part, "logit_demo"));
  expect_tensor("prediction_loss", losses.prediction, golden_at(part, "prediction_loss"));
  expect_tensor("gradient_penalty", losses.gradient_penalty, golden_at(part, "gradient_penalty"));
  expect_tensor("loss", losses.total, golden_at(part, "loss"));

  // gradients of all parameters
  losses.total.backward();
  const Json& gradients = golden_at(part, "grads");
  ASSERT_EQ(parameters.size(), gradients.size());
  for (const auto& [name, parameter] : parameters)
    expect_tensor("gradient of " + name, parameter.grad(), golden_at(gradients, name));
}

}  // namespace
}  // namespace calm
