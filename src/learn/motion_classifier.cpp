#include "learn/motion_classifier.h"

#include <torch/torch.h>

#include "learn/networks.h"
#include "learn/normaliser.h"

namespace calm {

namespace {

constexpr float kBlock = 0.25f;  // s; every fourth is held out

}  // namespace

struct MotionClassifier::Impl {
  Impl(const MotionLibrary& library, std::vector<int> classes, float step, const ClassifierSettings& s);

  int features() const { return library.character().motion_feature_size(); }
  float earliest() const { return static_cast<float>((settings.frames - 1) * settings.stride) * dt; }
  static bool held_out(float since_earliest) { return static_cast<int>(since_earliest / kBlock) % 4 == 3; }
  void write_window(int clip, float newest, float speed, float* out) const {
    library.window_features({clip, newest}, settings.frames, static_cast<float>(settings.stride) * dt * speed, out);
  }
  torch::Tensor normalised(const torch::Tensor& windows) const {
    const auto rows = windows.reshape({-1, features()});
    return norm.normalise(rows.contiguous()).reshape(windows.sizes());
  }

  const MotionLibrary& library;
  std::vector<int> class_of;
  int classes;
  float dt;
  ClassifierSettings settings;
  Normaliser norm;
  std::unique_ptr<MlpNet> net;
  double accuracy = 0.0;
};

MotionClassifier::Impl::Impl(const MotionLibrary& l, std::vector<int> groups, float step, const ClassifierSettings& s)
    : library(l),
      class_of(std::move(groups)),
      classes(*std::ranges::max_element(class_of) + 1),
      dt(step),
      settings(s),
      norm(l.character().motion_feature_size(), torch::kCPU) {
  const int64_t width = static_cast<int64_t>(settings.frames) * features();
  Rng rng(static_cast<uint64_t>(settings.seed), 0xc1a5ull);
  net = std::make_unique<MlpNet>(std::vector<int>{static_cast<int>(width), 256, 128, classes});
  init_default(*net, rng);

  // statistics from all clips, each weighing the same
  auto sample = torch::empty({64 * library.num_clips(), features()});
  for (int64_t i = 0; i < sample.size(0); ++i) {
    const int clip = static_cast<int>(i) % library.num_clips();
    library.window_features({clip, rng.uniform() * library.clip(clip).length()}, 1, dt, sample[i].data_ptr<float>());
  }
  norm.update(sample);

  torch::optim::Adam adam(net->parameters(), torch::optim::AdamOptions(settings.learning_rate).weight_decay(1e-4));
  auto windows = torch::empty({settings.minibatch, width});
  auto labels = torch::empty({settings.minibatch}, torch::kInt64);
  for (int i = 0; i < settings.steps; ++i) {
    for (int row = 0; row < settings.minibatch; ++row) {
      const int clip = rng.below(library.num_clips());
      const float room = std::max(library.clip(clip).length() - earliest(), 0.0f);
      float since = 0.0f;
      do since = rng.uniform() * room;
      while (room > kBlock && held_out(since));
      const float speed = 1.0f + settings.speed * rng.uniform(-1.0f, 1.0f);
      write_window(clip, earliest() + since, speed, windows[row].data_ptr<float>());
      labels.data_ptr<int64_t>()[row] = class_of[clip];
    }
    auto input = normalised(windows);
    float* number = input.data_ptr<float>();
    for (int64_t k = 0; k < input.numel(); ++k) number[k] += settings.noise * rng.uniform(-1.73f, 1.73f);
    const auto loss = torch::nn::functional::cross_entropy(net->forward(input), labels);
    adam.zero_grad();
    loss.backward();
    adam.step();
  }

  // held-out windows, clip by clip
  const torch::NoGradGuard no_grad;
  int right = 0, count = 0;
  auto window = torch::empty({1, width});
  for (int clip = 0; clip < library.num_clips(); ++clip)
    for (float since = 0.0f; since <= library.clip(clip).length() - earliest(); since += dt) {
      if (!held_out(since)) continue;
      write_window(clip, earliest() + since, 1.0f, window.data_ptr<float>());
      right += net->forward(normalised(window)).argmax(1).item<int64_t>() == class_of[clip], ++count;
    }
  accuracy = count ? static_cast<double>(right) / count : 0.0;
}

MotionClassifier::MotionClassifier(const MotionLibrary& library, std::vector<int> class_of, float dt,
                                   const ClassifierSettings& settings)
    : impl_(std::make_unique<Impl>(library, std::move(class_of), dt, settings)) {}
MotionClassifier::~MotionClassifier() = default;

int MotionClassifier::num_classes() const { return impl_->classes; }
int MotionClassifier::span() const { return (impl_->settings.frames - 1) * impl_->settings.stride; }
double MotionClassifier::held_out_accuracy() const { return impl_->accuracy; }

Eigen::MatrixXd MotionClassifier::probabilities(const Rows& motion, int every) const {
  const torch::NoGradGuard no_grad;
  const int features = impl_->features(), frames = impl_->settings.frames, stride = impl_->settings.stride;
  const Eigen::Index first = span(), count = motion.rows() > first ? (motion.rows() - first - 1) / every + 1 : 0;
  auto windows = torch::empty({count, static_cast<int64_t>(frames) * features});
  for (Eigen::Index w = 0; w < count; ++w)
    for (int f = 0; f < frames; ++f)
      std::copy_n(motion.row(first + w * every - f * stride).data(), features,
                  windows.data_ptr<float>() + (w * frames + f) * features);
  Eigen::MatrixXd out(count, num_classes());
  if (count == 0) return out;
  const auto p = torch::softmax(impl_->net->forward(impl_->normalised(windows)), 1);
  for (Eigen::Index w = 0; w < count; ++w)
    for (int c = 0; c < num_classes(); ++c) out(w, c) = p[w][c].item<float>();
  return out;
}

}  // namespace calm
