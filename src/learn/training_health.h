// Watches a stage 1 training for the ways in which adversarial imitation is known to fail, and says what to do.
// Looks at curves and evaluations only; changes nothing.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "learn/evaluate.h"
#include "learn/low_level_settings.h"

namespace calm {

class TrainingHealth {
 public:
  explicit TrainingHealth(const LowLevelSettings& settings);

  // stats: of an iteration, by name of the curve (LowLevelTrainer::stats). Returns what has gone wrong since the last
  // call, a line each: the sign, with its number, and what to do. What stays wrong is said again only after it was
  // well.
  std::vector<std::string> observe(const std::map<std::string, double>& stats);
  // The same of what the policy does from its clips' latents.
  std::vector<std::string> observe(const Evaluation& evaluation);

 private:
  void judge(const std::string& sign, bool wrong, const std::string& line, std::vector<std::string>& lines);

  LowLevelSettings settings_;
  int iterations_ = 0;
  std::map<std::string, double> mean_;  // of curves, over the last kMemory iterations or so
  std::set<std::string> wrong_;         // signs now
};

}  // namespace calm
