// How far a motion is from each clip of a library.
//
// Both are cut into windows; a window's distance is the mean squared difference of normalised motion features to the
// other, at the best time alignment (least over all shifts); the distance is the mean over the motion's windows against
// the clip and over the clip's windows against the motion, half each. Both ways, as a character that freezes in a pose
// of the clip would otherwise pass. Features are normalised by mean and standard deviation over all clips, each
// weighing the same.
#pragma once

#include <vector>

#include "motion/library.h"

namespace calm {

class MotionDistance {
 public:
  using Rows = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;  // (frames x motion features)

  // dt: of a control step, s. window: frames.
  MotionDistance(const MotionLibrary& library, float dt, int window);

  // Of raw features at the control rate to every clip. Any thread.
  std::vector<double> to_clips(const Rows& motion) const;

  // Groups of clips nearer to each other than `near`, directly or by way of others: the group of each clip, numbered
  // from 0 in the order of clips.
  std::vector<int> groups(double near) const;

 private:
  Rows normalised(const Rows& rows) const;

  int window_;
  Eigen::RowVectorXf mean_, inv_std_;
  std::vector<Rows> clips_;  // normalised
};

}  // namespace calm
