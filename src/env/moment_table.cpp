#include "env/moment_table.h"

#include <algorithm>
#include <cmath>

namespace calm {

float snap_to_moment(float time, float dt) {
  const float grid = dt / kMomentsPerStep;
  return std::floor(time / grid + 1e-3f) * grid;
}

MomentTable::MomentTable(const MotionLibrary& library, float dt)
    : grid_(dt / kMomentsPerStep), num_features_(library.character().motion_feature_size()) {
  for (int clip = 0; clip < library.num_clips(); ++clip) {
    first_.push_back(num_moments());
    const int moments = static_cast<int>(std::floor(library.clip(clip).length() / grid_ + 1e-3f)) + 1;
    clip_of_.insert(clip_of_.end(), moments, clip);
  }
  first_.push_back(num_moments());
  features_.resize(clip_of_.size() * num_features_);
  for (int64_t m = 0; m < num_moments(); ++m)
    library.window_features({clip_of(m), time_of(m)}, 1, dt, &features_[static_cast<size_t>(m) * num_features_]);
}

int64_t MomentTable::moment(const Window& window) const {
  const auto offset = static_cast<int64_t>(std::floor(window.time / grid_ + 1e-2f));
  return std::clamp(first_of(window.clip) + offset, first_of(window.clip), last_of(window.clip));
}

}  // namespace calm
