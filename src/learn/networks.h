// The networks of stage 1: actor, critic, conditional discriminator, motion encoder.
// Layers are named as in the files we write: "style.0.weight", "body.1.bias". Weights (out x in). All float32.
#pragma once

#include <torch/torch.h>

#include <string>
#include <vector>

#include "base/rng.h"

namespace calm {

// Fully connected layers, ReLU between them, none after the last. sizes: input, hidden..., output. Biases start at 0,
// weights as PyTorch's Linear does.
class MlpNet : public torch::nn::Module {
 public:
  explicit MlpNet(const std::vector<int>& sizes);
  // s: further inputs, which follow x's; undefined if there are none. (n, inputs) -> (n, outputs)
  torch::Tensor forward(torch::Tensor x, torch::Tensor s = {}) const;
  const std::vector<torch::nn::Linear>& layers() const { return layers_; }

 private:
  std::vector<torch::nn::Linear> layers_;
};

// A network whose second input passes through a branch of its own: body([x, tanh(style(z))]).
class StyledNet : public torch::nn::Module {
 public:
  // style_sizes: latent, hidden..., style; body_hidden: hidden layers of the body.
  StyledNet(int input, const std::vector<int>& style_sizes, const std::vector<int>& body_hidden, int output);
  torch::Tensor embed(const torch::Tensor& z) const { return torch::tanh(style_->forward(z)); }
  torch::Tensor forward(const torch::Tensor& x, const torch::Tensor& z) const { return forward_styled(x, embed(z)); }
  // style: what embed made of the latents; few latents serve many rows.
  torch::Tensor forward_styled(const torch::Tensor& x, const torch::Tensor& style) const {
    return body_->forward(x, style);
  }
  const MlpNet& style() const { return *style_; }
  const MlpNet& body() const { return *body_; }
  int input_size() const { return input_; }

 private:
  int input_;
  std::shared_ptr<MlpNet> style_, body_;
};

// Logits of (features, style), and the squared norm of their gradient by the features, written out layer by layer so
// that one ordinary backward pass differentiates it (ReLU's second derivative is zero, so this is exact).
struct LogitsWithGradient {
  torch::Tensor logits;            // (n, 1)
  torch::Tensor squared_gradient;  // (n)
};
LogitsWithGradient logits_with_gradient(const StyledNet& discriminator, const torch::Tensor& features,
                                        const torch::Tensor& style);

// Sets weights to uniform in [-bound, bound], biases to zero.
void init_uniform(const torch::nn::Linear& layer, float bound, Rng& rng);
// As PyTorch's Linear initialises its weights (uniform within 1/sqrt(inputs)), from our own random stream; zero biases.
void init_default(const MlpNet& net, Rng& rng);

}  // namespace calm
