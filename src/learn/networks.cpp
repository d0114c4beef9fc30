#include "learn/networks.h"

#include <algorithm>

#include "learn/dense.h"

namespace calm {

MlpNet::MlpNet(const std::vector<int>& sizes) {
  for (size_t i = 0; i + 1 < sizes.size(); ++i)
    layers_.push_back(register_module(std::to_string(i), torch::nn::Linear(sizes[i], sizes[i + 1])));
}

torch::Tensor MlpNet::forward(torch::Tensor x, torch::Tensor s) const {
  // without gradients a block goes through all layers at once, so that nothing in between leaves the cache
  const int64_t n = x.size(0);
  if (!torch::GradMode::is_enabled() && x.is_cpu() && n > kDenseBlock) {
    auto y = torch::empty({n, layers_.back()->weight.size(0)}, x.options());
    for (int64_t begin = 0; begin < n; begin += kDenseBlock) {
      const int64_t rows = std::min(kDenseBlock, n - begin);
      y.narrow(0, begin, rows)
          .copy_(forward(x.narrow(0, begin, rows), s.defined() ? s.narrow(0, begin, rows) : torch::Tensor()));
    }
    return y;
  }
  for (size_t i = 0; i < layers_.size(); ++i) {
    x = dense(x, s, layers_[i]->weight, layers_[i]->bias, i + 1 < layers_.size());
    s = torch::Tensor();
  }
  return x;
}

namespace {

std::vector<int> body_sizes(int input, int style, const std::vector<int>& hidden, int output) {
  std::vector<int> sizes = {input + style};
  sizes.insert(sizes.end(), hidden.begin(), hidden.end());
  sizes.push_back(output);
  return sizes;
}

}  // namespace

StyledNet::StyledNet(int input, const std::vector<int>& style_sizes, const std::vector<int>& body_hidden, int output)
    : input_(input),
      style_(register_module("style", std::make_shared<MlpNet>(style_sizes))),
      body_(register_module("body",
                            std::make_shared<MlpNet>(body_sizes(input, style_sizes.back(), body_hidden, output)))) {}

LogitsWithGradient logits_with_gradient(const StyledNet& discriminator, const torch::Tensor& features,
                                        const torch::Tensor& style) {
  const auto& layers = discriminator.body().layers();
  const size_t last = layers.size() - 1;

  // forward, keeping which units are on
  std::vector<torch::Tensor> on;
  torch::Tensor x = features, s = style;
  for (size_t i = 0; i < last; ++i) {
    x = dense(x, s, layers[i]->weight, layers[i]->bias, true);
    s = torch::Tensor();
    on.push_back((x.detach() > 0).to(torch::kFloat32));
  }
  LogitsWithGradient out;
  out.logits = dense(x, s, layers[last]->weight, layers[last]->bias, false);

  // chain rule backwards to the first layer's units, as ordinary differentiable products
  torch::Tensor units = torch::ones({features.size(0), 1}, features.options());
  for (size_t i = last; i > 0; --i) units = product(units, layers[i]->weight) * on[i - 1];

  // the gradient is units W, and its squared norm units (W Wᵀ) unitsᵀ: W has far more columns than rows
  const auto weight = layers[0]->weight.narrow(1, 0, features.size(1));
  out.squared_gradient = (product(units, gram(weight)) * units).sum(1);
  return out;
}

void init_uniform(const torch::nn::Linear& layer, float bound, Rng& rng) {
  const torch::NoGradGuard no_grad;
  auto weight = torch::empty_like(layer->weight, torch::kCPU).contiguous();
  float* data = weight.data_ptr<float>();
  for (int64_t i = 0; i < weight.numel(); ++i) data[i] = rng.uniform(-bound, bound);
  layer->weight.copy_(weight);
  layer->bias.zero_();
}

void init_default(const MlpNet& net, Rng& rng) {
  for (const auto& layer : net.layers())
    init_uniform(layer, 1.0f / std::sqrt(static_cast<float>(layer->weight.size(1))), rng);
}

}  // namespace calm
