#include "learn/motion_table.h"

namespace calm {

MotionTable::MotionTable(const MomentTable& moments, torch::Device device) {
  const int64_t count = moments.num_moments();
  std::vector<int64_t> first_of(count);
  for (int64_t m = 0; m < count; ++m) first_of[m] = moments.first_of(moments.clip_of(m));
  features_ =
      torch::from_blob(const_cast<float*>(moments.features().data()), {count, moments.num_features()}, torch::kFloat32)
          .to(device);
  first_of_ = torch::tensor(first_of).to(device);
}

torch::Tensor MotionTable::gather(const torch::Tensor& table, const torch::Tensor& newest, int frames,
                                  int stride) const {
  const auto back = torch::arange(frames, newest.options()) * (stride * kMomentsPerStep);
  const auto index =
      torch::max(newest.unsqueeze(1) - back.unsqueeze(0), first_of_.index_select(0, newest).unsqueeze(1));
  return table.index_select(0, index.reshape({-1})).reshape({newest.size(0), frames * table.size(1)});
}

}  // namespace calm
