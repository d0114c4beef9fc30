#include "learn/motion_distance.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace calm {

namespace {

using Rows = MotionDistance::Rows;

// Features of a clip at the control rate.
Rows clip_features(const MotionLibrary& library, int clip, float dt) {
  const int frames = std::max(1, static_cast<int>(std::floor(library.clip(clip).length() / dt + 1e-3f)) + 1);
  Rows rows(frames, library.character().motion_feature_size());
  for (int f = 0; f < frames; ++f)
    library.window_features({clip, static_cast<float>(f) * dt}, 1, dt, rows.row(f).data());
  return rows;
}

// Mean over the windows of `from` of the least mean squared difference to any stretch of `to`. Where either is shorter
// than a window, by as many frames as there are.
double one_way_distance(const Rows& from, const Rows& to, int window) {
  const int length = static_cast<int>(std::min<Eigen::Index>({window, from.rows(), to.rows()}));
  double sum = 0.0;
  int count = 0;
  for (int begin = 0; begin + length <= from.rows(); begin += std::max(1, length / 2), ++count) {
    double best = std::numeric_limits<double>::infinity();
    for (int shift = 0; shift + length <= to.rows(); ++shift)
      best = std::min<double>(best, (from.middleRows(begin, length) - to.middleRows(shift, length)).squaredNorm());
    sum += best / (static_cast<double>(length) * static_cast<double>(to.cols()));
  }
  return count ? sum / count : std::numeric_limits<double>::infinity();
}

double distance(const Rows& motion, const Rows& clip, int window) {
  return 0.5 * (one_way_distance(motion, clip, window) + one_way_distance(clip, motion, window));
}

}  // namespace

MotionDistance::MotionDistance(const MotionLibrary& library, float dt, int window) : window_(window) {
  const int features = library.character().motion_feature_size();
  Eigen::RowVectorXd sum = Eigen::RowVectorXd::Zero(features), squares = sum;
  for (int c = 0; c < library.num_clips(); ++c) {
    clips_.push_back(clip_features(library, c, dt));
    const Eigen::MatrixXd rows = clips_.back().cast<double>();
    sum += rows.colwise().mean(), squares += rows.array().square().matrix().colwise().mean();
  }
  const double count = library.num_clips();
  mean_ = (sum / count).cast<float>();
  inv_std_ = ((squares / count).array() - (sum / count).array().square()).max(1e-4).rsqrt().matrix().cast<float>();
  for (Rows& clip : clips_) clip = normalised(clip);
}

Rows MotionDistance::normalised(const Rows& rows) const {
  return ((rows.rowwise() - mean_).array().rowwise() * inv_std_.array()).matrix();
}

std::vector<double> MotionDistance::to_clips(const Rows& motion) const {
  const Rows rows = normalised(motion);
  std::vector<double> out;
  for (const Rows& clip : clips_) out.push_back(distance(rows, clip, window_));
  return out;
}

std::vector<int> MotionDistance::groups(double near) const {
  const auto count = static_cast<int>(clips_.size());
  std::vector<int> group(count, -1);
  int groups = 0;
  for (int first = 0; first < count; ++first) {
    if (group[first] >= 0) continue;
    std::vector<int> open = {first};
    group[first] = groups;
    while (!open.empty()) {
      const int a = open.back();
      open.pop_back();
      for (int b = 0; b < count; ++b)
        if (group[b] < 0 && distance(clips_[a], clips_[b], window_) < near) group[b] = groups, open.push_back(b);
    }
    ++groups;
  }
  return group;
}

}  // namespace calm
