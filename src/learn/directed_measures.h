// Measures of directing: how well a high-level policy and state machines make a character do what is asked, as far as
// they can be told without people. Beside those of the low-level policy in `calm eval paper`
// (learn/paper_measures.h); definitions in learn/paper_report.h.
//
// All rollouts act without noise. "Strict" counts a fall as a failure; "loose" is the reference's rule.
#pragma once

#include "direct/director.h"
#include "learn/paper_measures.h"

namespace calm {

struct DirectedSettings {
  std::vector<std::string> styles = {"run", "walk", "sneak"};
  std::vector<std::string> strikes = {"kick_right", "punch_right", "lunge_punch_right"};  // final acts at a pillar
  std::vector<std::string> stays = {"stand", "raise_arms", "crouch"};                     // at a place
  std::string slow_style = "walk";  // which a style faster than 2 m/s gives way to near the target
  int episodes = 504;               // of each style and of each machine
  int seed = 1;
};

struct StyledHeading {
  std::string style;
  double style_score = 0.0;  // in [0, 1], mean over decisions
  // Means over episodes; what follows a fall counts 0. The first without the 1.5 s after each new direction, in which a
  // person turns half round.
  Estimate heading_cosine, heading_cosine_with_turns;
  double speed_asked = 0.0, speed_error = 0.0;  // m/s, mean absolute
  Estimate stays_up;
};

struct MachineCell {
  std::string style, act;
  Estimate loose, strict;
};

struct DirectedMeasures {
  std::vector<StyledHeading> styled_heading;
  std::vector<MachineCell> strike, location;
  Estimate transitions;                                           // pairs of clips that succeed
  Estimate transitions_stay_up;                                   // of them, those without a fall
  std::vector<std::pair<std::string, double>> worst_transitions;  // by the clip that is gone to: share that succeeds
};

// Deterministic for a seed and backend. Prints progress. Throws Error on a style or act that the policy does not know.
DirectedMeasures measure_directing(const Policy& policy, const HighLevelPolicy& high, const MotionEncoder* encoder,
                                   const Character& character, const MotionLibrary& library,
                                   const PhysicsSettings& physics, const std::string& backend,
                                   const DirectedSettings& settings, ThreadPool& pool);

}  // namespace calm
