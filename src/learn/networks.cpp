#include "learn/networks.h"

namespace calm {

MlpNet::MlpNet(const std::vector<int>& sizes) {
  for (size_t i = 0; i + 1 < sizes.size(); ++i)
    layers_.push_back(register_module(std::to_string(i), torch::nn::Linear(sizes[i], sizes[i + 1])));
}

torch::Tensor MlpNet::forward(torch::Tensor x) const {
  for (size_t i = 0; i < layers_.size(); ++i) {
    x = torch::linear(x, layers_[i]->weight, layers_[i]->bias);
    if (i + 1 < layers_.size()) x = torch::relu(x);
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

torch::Tensor StyledNet::forward(const torch::Tensor& x, const torch::Tensor& z) const {
  return body_->forward(torch::cat({x, embed(z)}, 1));
}

LogitsWithGradient logits_with_gradient(const StyledNet& discriminator, const torch::Tensor& features,
                                        const torch::Tensor& z) {
  const auto& layers = discriminator.body().layers();

  // forward, keeping which units are on
  std::vector<torch::Tensor> on;
  torch::Tensor x = torch::cat({features, discriminator.embed(z)}, 1);
  for (size_t i = 0; i + 1 < layers.size(); ++i) {
    x = torch::relu(torch::linear(x, layers[i]->weight, layers[i]->bias));
    on.push_back((x.detach() > 0).to(torch::kFloat32));
  }
  LogitsWithGradient out;
  out.logits = torch::linear(x, layers.back()->weight, layers.back()->bias);

  // chain rule backwards, as ordinary differentiable products
  torch::Tensor gradient = layers.back()->weight.expand({features.size(0), layers.back()->weight.size(1)});
  for (size_t i = layers.size() - 1; i-- > 0;) {
    gradient = gradient * on[i];
    const torch::Tensor weight = i == 0 ? layers[0]->weight.narrow(1, 0, features.size(1)) : layers[i]->weight;
    gradient = gradient.matmul(weight);
  }
  out.gradient = gradient;
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
