#include "env/moment_table.h"

#include <algorithm>
#include <cmath>

namespace calm {

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

}  // namespace calm
