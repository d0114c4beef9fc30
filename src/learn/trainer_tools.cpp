#include "learn/trainer_tools.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include <chrono>
#include <limits>

namespace calm {

double now_s() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

torch::Tensor normalise_rows(const torch::Tensor& x) { return x / x.norm(2, 1, true).clamp_min(1e-8f); }

std::vector<int> mlp_sizes(int input, std::vector<int> hidden, int output) {
  hidden.insert(hidden.begin(), input);
  hidden.push_back(output);
  return hidden;
}

Tensor to_runtime(const torch::Tensor& t) {
  const auto cpu = t.detach().to(torch::kCPU, torch::kFloat32).contiguous();
  Tensor out;
  out.shape.assign(cpu.sizes().begin(), cpu.sizes().end());
  out.data.assign(cpu.data_ptr<float>(), cpu.data_ptr<float>() + cpu.numel());
  return out;
}

torch::Tensor flatten(const torch::nn::Module& net) {
  const torch::NoGradGuard no_grad;
  auto parameters = net.parameters();
  int64_t count = 0, at = 0;
  for (const auto& parameter : parameters) count += parameter.numel();
  auto flat = torch::empty({count}, parameters.front().options().requires_grad(false));
  auto gradient = torch::zeros_like(flat);
  for (auto& parameter : parameters) {
    const auto part = flat.narrow(0, at, parameter.numel()).view(parameter.sizes());
    part.copy_(parameter);
    parameter.set_data(part);
    parameter.mutable_grad() = gradient.narrow(0, at, parameter.numel()).view(parameter.sizes());
    at += parameter.numel();
  }
  flat.requires_grad_();
  flat.mutable_grad() = gradient;
  return flat;
}

void set_rate(torch::optim::Adam& optimiser, size_t group, float rate) {
  static_cast<torch::optim::AdamOptions&>(optimiser.param_groups()[group].options()).lr(rate);
}

float adapted_rate(float rate, double kl, float target_kl) {
  if (kl > 1.5 * target_kl) return std::max(rate / 1.3f, 1e-6f);
  if (kl < target_kl / 1.5) return std::min(rate * 1.3f, 1e-3f);
  return rate;
}

void clip_gradients(torch::optim::Adam& optimiser, float norm) {
  if (norm <= 0.0f) return;
  for (auto& group : optimiser.param_groups()) torch::nn::utils::clip_grad_norm_(group.params(), norm);
}

torch::Tensor bytes_to_tensor(const std::string& bytes) {
  auto t = torch::empty({static_cast<int64_t>(bytes.size())}, torch::kUInt8);
  std::copy(bytes.begin(), bytes.end(), t.data_ptr<uint8_t>());
  return t;
}

std::string tensor_to_bytes(const torch::Tensor& t) {
  const auto* data = t.data_ptr<uint8_t>();
  return {data, data + t.numel()};
}

torch::Tensor read_tensor(torch::serialize::InputArchive& archive, const std::string& name) {
  torch::Tensor tensor;
  archive.read(name, tensor);
  return tensor;
}

void write_normaliser(torch::serialize::OutputArchive& archive, const std::string& name, const Normaliser& norm) {
  const auto state = norm.state();
  for (size_t i = 0; i < state.size(); ++i) archive.write(name + "." + std::to_string(i), state[i]);
}

void read_normaliser(torch::serialize::InputArchive& archive, const std::string& name, Normaliser& norm) {
  std::vector<torch::Tensor> state(3);
  for (size_t i = 0; i < state.size(); ++i) state[i] = read_tensor(archive, name + "." + std::to_string(i));
  norm.set_state(state);
}

void keep_freed_memory() {
#ifdef __GLIBC__
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
  mallopt(M_TOP_PAD, 64 << 20);
  mallopt(M_ARENA_MAX, 1);
#endif
}

}  // namespace calm
