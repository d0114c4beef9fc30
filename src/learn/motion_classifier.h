// Names the clip that a second of motion is of: a small network trained on a library's clips alone, the judge of the
// measures that the paper puts to people (controllability) and to a classifier (Inception Score).
//
// It sees ten frames of motion features, a tenth of a second apart. A quarter of each clip is held out: of the moments
// a window may end at, every fourth block of a quarter second; the held-out windows overlap in part with those learnt
// from, as a clip of two seconds leaves no other way. Learnt with noise and with the clip's time up to a sixth faster
// or slower, since a simulated character is never exactly on its clip.
#pragma once

#include <memory>
#include <vector>

#include "motion/library.h"

namespace calm {

struct ClassifierSettings {
  int frames = 10, stride = 3;  // frames seen; control steps between them
  int steps = 1500, minibatch = 256;
  float learning_rate = 1e-3f;
  float noise = 0.15f;   // standard deviation added to normalised features
  float speed = 0.167f;  // greatest change of the clip's time
  int seed = 1;
};

class MotionClassifier {
 public:
  // Learns; some seconds. class_of: of each clip, from 0. dt: of a control step, s.
  MotionClassifier(const MotionLibrary& library, std::vector<int> class_of, float dt,
                   const ClassifierSettings& settings = {});
  ~MotionClassifier();

  int num_classes() const;
  int span() const;  // control steps from a window's oldest frame to its newest
  double held_out_accuracy() const;

  // Probabilities of the classes (windows x classes) in consecutive windows of a motion, its raw features at the
  // control rate (frames x motion features), one every `every` control steps. Empty where the motion is shorter than a
  // window.
  using Rows = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  Eigen::MatrixXd probabilities(const Rows& motion, int every = 3) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace calm
