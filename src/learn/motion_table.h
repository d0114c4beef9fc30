// Motion features of every clip at every moment of a grid (kMomentsPerStep a control step), computed once. A window is
// then the index of its newest moment, and windows are gathered instead of rebuilt: exact at grid moments, and cheap.
#pragma once

#include <torch/torch.h>

#include <vector>

#include "env/batch_env.h"
#include "motion/library.h"

namespace calm {

class MotionTable {
 public:
  MotionTable(const MotionLibrary& library, float dt, torch::Device device);

  // Moment of a window's newest frame.
  int64_t moment(const Window& window) const;
  int clip_of(int64_t moment) const { return clip_of_[static_cast<size_t>(moment)]; }

  const torch::Tensor& features() const { return features_; }  // (moments, features)

  // Rows of `table` (moments, f), one of this table's shape (raw or normalised): `frames` frames, `stride` control
  // steps apart, newest first; before the clip's start its first moment repeats. newest (n) int64 -> (n, frames * f).
  torch::Tensor gather(const torch::Tensor& table, const torch::Tensor& newest, int frames, int stride = 1) const;

 private:
  std::vector<int64_t> first_;  // (clips) first moment
  std::vector<int> clip_of_;    // (moments)
  float grid_;
  torch::Tensor features_, first_of_;  // (moments, f), (moments) first moment of the same clip
};

}  // namespace calm
