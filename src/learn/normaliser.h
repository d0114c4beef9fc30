// Running mean and variance of vectors, accumulated in double; normalised values are clamped to +-5.
#pragma once

#include <torch/torch.h>

#include <algorithm>

namespace calm {

class Normaliser {
 public:
  Normaliser(int64_t size, torch::Device device)
      : count_(torch::zeros({1}, torch::TensorOptions(torch::kFloat64).device(device))),
        mean_(torch::zeros({size}, count_.options())),
        m2_(torch::zeros({size}, count_.options())) {
    refresh();
  }

  // rows (n, size); duplicates count as often as they occur (Chan et al. 1983, parallel variance).
  void update(const torch::Tensor& rows) {
    const torch::NoGradGuard no_grad;
    const auto x = rows.to(torch::kFloat64);
    const double n = static_cast<double>(x.size(0));
    const auto mean = x.mean(0);
    const auto m2 = (x - mean).square().sum(0);
    const auto delta = mean - mean_;
    const auto total = count_ + n;
    mean_ = mean_ + delta * (n / total);
    m2_ = m2_ + m2 + delta.square() * (count_ * n / total);
    count_ = total;
    refresh();
  }

  // Limits how much the past weighs, so that the statistics go on following the policy.
  void cap_count(double count) {
    const double now = count_.item<double>();
    if (now <= count) return;
    m2_ = m2_ * (count / now);
    count_.fill_(count);
  }

  torch::Tensor normalise(const torch::Tensor& x) const {
    if (!x.is_cpu() || !x.is_contiguous() || x.requires_grad()) return ((x - mean_f_) * inv_std_f_).clamp(-5.0f, 5.0f);
    // the same in one pass over what may be tens of megabytes
    auto out = torch::empty_like(x);
    const int64_t size = mean_f_.size(0), rows = x.numel() / size;
    const float *in = x.data_ptr<float>(), *mean = mean_f_.data_ptr<float>(), *scale = inv_std_f_.data_ptr<float>();
    float* to = out.data_ptr<float>();
    for (int64_t row = 0; row < rows; ++row, in += size, to += size)
      for (int64_t i = 0; i < size; ++i) to[i] = std::min(std::max((in[i] - mean[i]) * scale[i], -5.0f), 5.0f);
    return out;
  }
  torch::Tensor denormalise(const torch::Tensor& x) const { return x / inv_std_f_ + mean_f_; }
  const torch::Tensor& mean() const { return mean_f_; }        // (size) float32
  const torch::Tensor& inv_std() const { return inv_std_f_; }  // (size) float32

  std::vector<torch::Tensor> state() const { return {count_, mean_, m2_}; }
  void set_state(const std::vector<torch::Tensor>& s) {
    count_ = s[0].to(count_.device()), mean_ = s[1].to(count_.device()), m2_ = s[2].to(count_.device());
    refresh();
  }

 private:
  void refresh() {
    mean_f_ = mean_.to(torch::kFloat32);
    const auto variance = m2_ / count_.clamp_min(1.0);
    inv_std_f_ =
        torch::where(count_ > 0, torch::rsqrt(variance + 1e-5), torch::ones_like(variance)).to(torch::kFloat32);
  }

  torch::Tensor count_, mean_, m2_;  // double
  torch::Tensor mean_f_, inv_std_f_;
};

}  // namespace calm
