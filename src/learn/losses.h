// Losses, rewards and returns of CALM as pure functions (specification: "Stage 1"; Tessler et al. 2023, Peng et al.
// 2022 for the discriminator's terms, Schulman et al. 2016 and 2017 for GAE and PPO). Shapes in comments; float32.
#pragma once

#include <torch/torch.h>

#include <vector>

#include "learn/discriminator_weights.h"
#include "learn/networks.h"

namespace calm {

// log mean over distinct pairs of exp(-2 |zi - zj|²). z (n, d), n >= 2.
torch::Tensor uniformity_loss(const torch::Tensor& z);
// mean |a - b|². a, b (n, d).
torch::Tensor alignment_loss(const torch::Tensor& a, const torch::Tensor& b);
// alignment(x, y) + weight * uniformity(x): x and y are latents of overlapping windows of one clip.
torch::Tensor encoder_regulariser(const torch::Tensor& x, const torch::Tensor& y, float uniformity_weight = 0.5f);

// Generalised advantage estimation. All (T, N); next_values: of the state after the step, 0 after a fall, the critic's
// after a time-out; dones: 1 where the episode ended, either way.
void compute_gae(const torch::Tensor& rewards, const torch::Tensor& values, const torch::Tensor& next_values,
                 const torch::Tensor& dones, float gamma, float lambda, torch::Tensor& advantages,
                 torch::Tensor& returns);

// -scale log(max(1 - sigmoid(logit), 1e-4)).
torch::Tensor discriminator_reward(const torch::Tensor& logits, float scale = 2.0f);

// Sum over DoFs of max(|mean action| - 1, 0)². (n, a) -> (n).
torch::Tensor bound_loss(const torch::Tensor& mean_action);

// Of a Gaussian with one fixed standard deviation exp(log_sigma). (n, a) -> (n).
torch::Tensor neg_log_prob(const torch::Tensor& action, const torch::Tensor& mean, float log_sigma);

// Clipped surrogate, averaged over the samples whose mask is 1; one that has become more than ten times likelier has no
// gradient. All (n); scalar.
torch::Tensor ppo_actor_loss(const torch::Tensor& old_neglogp, const torch::Tensor& new_neglogp,
                             const torch::Tensor& advantages, const torch::Tensor& mask, float clip);

// max over styles' latents of (cos(output, latent) + 1) / 2; `output` is the high-level policy's, unnormalised (the
// clamp to [-1, 1] belongs to the latent that the controller gets). (n, d), (s, d) -> (n).
torch::Tensor style_reward(const torch::Tensor& output, const torch::Tensor& style_latents);

// Probability that environment i of n acts stochastically: 1 - exp(10 (i / (n - 1) - 1)).
std::vector<float> exploration_probabilities(int num_envs);

struct DiscriminatorLosses {
  torch::Tensor prediction, gradient_penalty, total;  // scalars
  torch::Tensor fake_logits, clip_logits;             // (n, 1)
};

// fake: windows to be told from clips (simulated, replayed, and clip windows with another motion's latent), joined.
DiscriminatorLosses discriminator_losses(const StyledNet& discriminator, const torch::Tensor& fake_features,
                                         const torch::Tensor& fake_z, const torch::Tensor& clip_features,
                                         const torch::Tensor& clip_z, const DiscriminatorWeights& weights = {});

}  // namespace calm
