// Motion features of every clip at every moment of a grid (kMomentsPerStep a control step), computed once: a window is
// then the index of its newest moment, and what a simulated character is compared with is a row of the table.
// Const after construction; any thread.
#pragma once

#include <cstdint>
#include <vector>

#include "env/episode.h"
#include "motion/library.h"

namespace calm {

class MomentTable {
 public:
  // dt: of a control step, s.
  MomentTable(const MotionLibrary& library, float dt);

  Moments view() const { return {grid_, num_features_, first_.data(), clip_of_.data(), features_.data()}; }

  int64_t num_moments() const { return static_cast<int64_t>(clip_of_.size()); }
  int num_features() const { return num_features_; }

  // Moment of a window's newest frame; the clip's first or last if it lies outside.
  int64_t moment(const Window& window) const { return view().at(window); }
  int clip_of(int64_t moment) const { return clip_of_[static_cast<size_t>(moment)]; }
  int64_t first_of(int clip) const { return first_[static_cast<size_t>(clip)]; }
  int64_t last_of(int clip) const { return first_[static_cast<size_t>(clip) + 1] - 1; }
  float time_of(int64_t moment) const { return static_cast<float>(moment - first_of(clip_of(moment))) * grid_; }

  const std::vector<float>& features() const { return features_; }  // (moment x feature)
  const float* row(int64_t moment) const { return &features_[static_cast<size_t>(moment) * num_features_]; }

 private:
  float grid_;  // s
  int num_features_;
  std::vector<int64_t> first_;  // (clips + 1) first moment; the last entry is the number of moments
  std::vector<int> clip_of_;    // (moments)
  std::vector<float> features_;
};

}  // namespace calm
