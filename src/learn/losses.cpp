#include "learn/losses.h"

#include <cmath>
#include <numbers>

namespace calm {

torch::Tensor uniformity_loss(const torch::Tensor& z) {
  // squared distances from products: n² numbers, not n² rows. (pdist's backward is slow on CPU)
  const auto norms = z.square().sum(1);
  const auto squared = (norms.unsqueeze(1) + norms.unsqueeze(0) - 2.0f * z.matmul(z.t())).clamp_min(0.0f);
  const int64_t n = z.size(0);
  // the diagonal's ones are taken out of the sum
  const auto sum = torch::exp(-2.0f * squared).sum() - static_cast<double>(n);
  return torch::log(sum.clamp_min(1e-30f) / static_cast<double>(n * (n - 1)));
}

torch::Tensor alignment_loss(const torch::Tensor& a, const torch::Tensor& b) { return (a - b).square().sum(1).mean(); }

torch::Tensor encoder_regulariser(const torch::Tensor& x, const torch::Tensor& y, float uniformity_weight) {
  return alignment_loss(x, y) + uniformity_weight * uniformity_loss(x);
}

void compute_gae(const torch::Tensor& rewards, const torch::Tensor& values, const torch::Tensor& next_values,
                 const torch::Tensor& dones, float gamma, float lambda, torch::Tensor& advantages,
                 torch::Tensor& returns) {
  advantages = torch::zeros_like(rewards);
  torch::Tensor last = torch::zeros_like(rewards[0]);
  for (int64_t t = rewards.size(0); t-- > 0;) {
    const auto delta = rewards[t] + gamma * next_values[t] - values[t];
    last = delta + gamma * lambda * (1.0f - dones[t]) * last;
    advantages[t] = last;
  }
  returns = advantages + values;
}

torch::Tensor discriminator_reward(const torch::Tensor& logits, float scale) {
  return -scale * torch::log(torch::clamp_min(1.0f - torch::sigmoid(logits), 1e-4f));
}

torch::Tensor bound_loss(const torch::Tensor& mean_action) {
  return torch::clamp_min(mean_action.abs() - 1.0f, 0.0f).square().sum(1);
}

torch::Tensor neg_log_prob(const torch::Tensor& action, const torch::Tensor& mean, float log_sigma) {
  const double n = static_cast<double>(action.size(1));
  const double constant = n * (0.5 * std::log(2.0 * std::numbers::pi) + log_sigma);
  return 0.5f * ((action - mean) * std::exp(-log_sigma)).square().sum(1) + constant;
}

torch::Tensor ppo_actor_loss(const torch::Tensor& old_neglogp, const torch::Tensor& new_neglogp,
                             const torch::Tensor& advantages, const torch::Tensor& mask, float clip) {
  // with little noise a mean that has moved by a few of its deviations makes a ratio of thousands, or one that is not
  // finite, and one bad sample then outweighs the batch
  constexpr float kMostLikelier = 2.3025851f;  // log 10
  const auto ratio = torch::exp((old_neglogp - new_neglogp).clamp_max(kMostLikelier));
  const auto loss = torch::max(-advantages * ratio, -advantages * torch::clamp(ratio, 1.0f - clip, 1.0f + clip));
  return (loss * mask).sum() / mask.sum().clamp_min(1.0f);
}

torch::Tensor style_reward(const torch::Tensor& output, const torch::Tensor& style_latents) {
  const auto z = torch::nn::functional::normalize(output, torch::nn::functional::NormalizeFuncOptions().dim(1));
  const auto latents =
      torch::nn::functional::normalize(style_latents, torch::nn::functional::NormalizeFuncOptions().dim(1));
  return (std::get<0>(z.matmul(latents.t()).max(1)) + 1.0f) * 0.5f;
}

std::vector<float> exploration_probabilities(int num_envs) {
  std::vector<float> probabilities(num_envs, 1.0f);
  for (int i = 1; i < num_envs; ++i)  // the first is 1 exactly
    probabilities[i] = static_cast<float>(1.0 - std::exp(10.0 * (static_cast<double>(i) / (num_envs - 1) - 1.0)));
  return probabilities;
}

DiscriminatorLosses discriminator_losses(const StyledNet& discriminator, const torch::Tensor& fake_features,
                                         const torch::Tensor& fake_z, const torch::Tensor& clip_features,
                                         const torch::Tensor& clip_z, const DiscriminatorWeights& weights) {
  DiscriminatorLosses out;
  const auto clips = logits_with_gradient(discriminator, clip_features, discriminator.embed(clip_z));
  out.clip_logits = clips.logits;
  out.fake_logits = discriminator.forward(fake_features, fake_z);
  // cross-entropy against 0 is softplus(logit), against 1 softplus(-logit)
  out.prediction = 0.5f * (torch::softplus(out.fake_logits).mean() + torch::softplus(-out.clip_logits).mean());
  out.gradient_penalty = clips.squared_gradient.mean();

  torch::Tensor all_weights = torch::zeros({}, fake_features.options());
  for (const MlpNet* net : {&discriminator.style(), &discriminator.body()})
    for (const auto& layer : net->layers()) all_weights = all_weights + layer->weight.square().sum();
  out.total = 2.0f * weights.prediction * out.prediction +
              weights.logit_weights * discriminator.body().layers().back()->weight.square().sum() +
              weights.gradient_penalty * out.gradient_penalty + weights.weight_decay * all_weights;
  return out;
}

}  // namespace calm
