// The measures of the CALM paper, and those that it leaves to people, as numbers without people.
//
// All rollouts act without noise. Episodes of 10 s start at random moments of a clip under that clip's latent; their
// first two seconds do not count. Near duplicates (clips nearer to each other than kNearDuplicate by MotionDistance)
// count as one class wherever a motion is named.
//
// - fisher: scatter of latents within a clip over scatter between clips' means; a class is all windows of the encoder's
//   2 s in one clip, a control step apart (Tessler et al. 2023, section 7.1; lower is better).
// - inception: exp of the mean Kullback-Leibler divergence of a window's classes from all windows' (Salimans et al.
// 2016),
//   by MotionClassifier, over the episodes' windows; of_clips: what the clips themselves get, the most there is.
// - controllability: share of episodes whose windows, taken together, the classifier names right (top 1, top 3), and
// whose
//   nearest clip is the one asked for.
// - stays_up: share of those episodes without a fall.
// - get_up: characters dropped and thrashed as for training's bank of fallen states, then under the latent of a random
//   clip that stands upright; up when the root has been above three quarters of its standing height and within 45
//   degrees of upright for half a second.
// - push_recovery: share still up three seconds after a push of the trunk by `push_speed`, or after a box of `box_mass`
//   thrown at it at `box_speed`, in a random direction, under random upright clips.
// - foot_slide: mean horizontal speed of feet that are down (their origin within 2 cm of where it is in standing), m/s.
// - jerk_ratio: mean third difference of the bodies' positions, of the episodes over that of the clips.
// - interpolation_smoothness: the same third difference while the latent moves from one clip's to another's in a
// straight
//   line on the sphere over 100 control steps, over that in the second before and after; 1 is as smooth as the motions.
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
  std::vector<std::string> clips;
  std::vector<double> named_right;  // (clips) share of its episodes that the classifier names right
};

// encoder may be null. Deterministic for a seed and backend. Prints progress. Throws Error if the policy lacks a clip.
PaperMeasures measure_as_the_paper(const Policy& policy, const MotionEncoder* encoder, const Character& character,
                                   const MotionLibrary& library, const PhysicsSettings& physics,
                                   const std::string& backend, const PaperMeasureSettings& settings, ThreadPool& pool);

}  // namespace calm
