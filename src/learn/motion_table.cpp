#include "learn/motion_table.h"

namespace calm {

MotionTable::MotionTable(const MotionLibrary& library, float dt, torch::Device device) : grid_(dt / kMomentsPerStep) {
  const int size = library.character().motion_feature_size();
  std::vector<float> rows;
  std::vector<int64_t> first_of;
  for (int clip = 0; clip < library.num_clips(); ++clip) {
    const auto first = static_cast<int64_t>(clip_of_.size());
    first_.push_back(first);
    const int moments = static_cast<int>(std::floor(library.clip(clip).length() / grid_ + 1e-3f)) + 1;
    rows.resize(rows.size() + static_cast<size_t>(moments) * size);
    for (int m = 0; m < moments; ++m) {
      library.window_features({clip, static_cast<float>(m) * grid_}, 1, dt,
                              &rows[static_cast<size_t>(first + m) * size]);
      clip_of_.push_back(clip);
      first_of.push_back(first);
    }
  }
  const auto count = static_cast<int64_t>(clip_of_.size());
  features_ = torch::from_blob(rows.data(), {count, size}, torch::kFloat32).clone().to(device);
  first_of_ = torch::from_blob(first_of.data(), {count}, torch::kInt64).clone().to(device);
}

int64_t MotionTable::moment(const Window& window) const {
  const auto offset = static_cast<int64_t>(std::floor(window.time / grid_ + 1e-2f));
  int64_t m = first_[window.clip] + std::max<int64_t>(offset, 0);
  const int64_t end = window.clip + 1 < static_cast<int>(first_.size()) ? first_[window.clip + 1]
                                                                        : static_cast<int64_t>(clip_of_.size());
  return std::min(m, end - 1);
}

torch::Tensor MotionTable::gather(const torch::Tensor& table, const torch::Tensor& newest, int frames,
                                  int stride) const {
  const auto back = torch::arange(frames, newest.options()) * (stride * kMomentsPerStep);
  const auto index =
      torch::max(newest.unsqueeze(1) - back.unsqueeze(0), first_of_.index_select(0, newest).unsqueeze(1));
  return table.index_select(0, index.reshape({-1})).reshape({newest.size(0), frames * table.size(1)});
}

}  // namespace calm
