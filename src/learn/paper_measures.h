// The measures of the CALM paper, and those that it leaves to people, as numbers without people.
//
// All rollouts act without noise. Episodes of 10 s start at random moments of a clip under that clip's latent; their
// first two seconds do not count. Near duplicates (clips nearer to each other than kNearDuplicate by MotionDistance)
// count as one class wherever a motion is named. What each measure is and where it comes from: measure_definitions() in
// learn/paper_report.h, which the JSON and the page print.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/threads.h"
#include "motion/library.h"
#include "runtime/encoder.h"
#include "sim/simulator.h"

namespace calm {

inline constexpr double kNearDuplicate = 0.15;

// With the bounds of its 95 % confidence interval: Wilson's for shares, the normal one for means.
struct Estimate {
  double value = 0.0, low = 0.0, high = 0.0;
  int count = 0;
};
Estimate share_of(int successes, int count);
Estimate mean_of(const std::vector<double>& values);

// Of points (rows) by class. Infinite where all classes have the same mean.
double fisher_concentration(const std::vector<Eigen::MatrixXd>& classes);
// Of probabilities (windows x classes), each row a distribution.
double inception_score(const Eigen::MatrixXd& probabilities);

// Mean distance of each body to where the clip has it, m. Both (frames x 3 bodies), positions in the root's heading
// frame, seen from the point of the floor below the root. The motion is cut into windows of `window` frames; each is
// held against the stretch of the clip of that length that it is nearest to, all bodies together.
std::vector<double> distance_by_body(const Eigen::MatrixXf& motion, const Eigen::MatrixXf& clip, int window);

struct PaperMeasureSettings {
  int episodes_per_clip = 16;
  int falls = 256, pushes = 256, interpolations = 128;
  float push_speed = 1.0f;                  // m/s
  float box_mass = 5.0f, box_speed = 5.0f;  // kg, m/s
  int seed = 1;
};

struct PaperMeasures {
  std::vector<std::vector<std::string>> near_duplicates;  // groups of more than one
  int classes = 0;
  std::optional<double> fisher;  // where there is an encoder
  double classifier_held_out = 0.0, still_named_right = 0.0;
  double inception = 0.0, inception_of_clips = 0.0;
  Estimate classifier_top1, classifier_top3, nearest_clip;
  double chance = 0.0;
  Estimate stays_up;
  Estimate gets_up_within_4s, gets_up_after_s;  // the second of those that do within 8 s
  Estimate push_recovery, box_recovery;
  double foot_slide = 0.0, foot_slide_of_clips = 0.0;
  double jerk_ratio = 0.0;
  Estimate interpolation_smoothness, interpolation_stays_up;
  std::vector<double> get_up_seconds;  // of each that gets up within 8 s

  std::vector<std::string> clips, class_names;  // a class is named after its first clip
  Eigen::MatrixXd named_as;                     // (clips x classes) share of its episodes that the classifier names so
  std::vector<double> named_right, clip_stays_up;  // (clips) shares of its episodes
  std::vector<std::string> bodies;
  std::vector<double> body_distance;  // (bodies) m
};

// encoder may be null. Deterministic for a seed and backend. Prints progress. Throws Error if the policy lacks a clip.
PaperMeasures measure_as_the_paper(const Policy& policy, const MotionEncoder* encoder, const Character& character,
                                   const MotionLibrary& library, const PhysicsSettings& physics,
                                   const std::string& backend, const PaperMeasureSettings& settings, ThreadPool& pool);

}  // namespace calm
