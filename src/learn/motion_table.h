// The moment table on the learner's device: windows are gathered by their newest moment instead of rebuilt, exact at
// grid moments, and cheap.
#pragma once

#include <torch/torch.h>

#include "env/moment_table.h"

namespace calm {

class MotionTable {
 public:
  // On the CPU the features are those of `moments` themselves, which must then outlive this.
  MotionTable(const MomentTable& moments, torch::Device device);

  const torch::Tensor& features() const { return features_; }  // (moments, features)

  // Rows of `table` (moments, f), one of this table's shape (raw or normalised): `frames` frames, `stride` control
  // steps apart, newest first; before the clip's start its first moment repeats. newest (n) int64 -> (n, frames * f).
  torch::Tensor gather(const torch::Tensor& table, const torch::Tensor& newest, int frames, int stride = 1) const;

 private:
  torch::Tensor features_, first_of_;  // (moments, f), (moments) first moment of the same clip
};

}  // namespace calm
