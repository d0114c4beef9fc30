#include "learn/training_health.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace calm {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

const std::map<std::string, double> kWell = {{"accuracy_simulated", 0.96}, {"accuracy_clips", 1.0},
                                             {"style_reward", 0.4},        {"style_reward_spread", 0.3},
                                             {"follow_share", 0.0},        {"uniformity", -2.5},
                                             {"episode_steps", 250.0},     {"falls_share", 0.1},
                                             {"value_explained", 0.7},     {"kl", 0.03}};

// Lines after many iterations of the same curves.
std::vector<std::string> said(std::map<std::string, double> stats, int iterations = 1000) {
  LowLevelSettings settings;
  settings.update.target_kl = 0.03f;
  TrainingHealth health(settings);
  std::vector<std::string> all;
  for (int i = 0; i < iterations; ++i)
    for (const std::string& line : health.observe(stats)) all.push_back(line);
  return all;
}

std::map<std::string, double> with(std::map<std::string, double> changes) {
  changes.insert(kWell.begin(), kWell.end());
  return changes;
}

TEST(TrainingHealth, SaysNothingWhileAllIsWell) { EXPECT_TRUE(said(kWell).empty()); }

TEST(TrainingHealth, NamesEachFailureOnceAndWhatToDo) {
  const std::map<std::string, double> wins = {
      {"accuracy_simulated", 1.0}, {"style_reward", 0.01}, {"style_reward_spread", 0.01}};
  EXPECT_THAT(said(with(wins)), ElementsAre(HasSubstr("discriminator_rate")));
  auto follows = with(wins);
  follows["follow_share"] = 1.0;
  EXPECT_TRUE(said(follows).empty());
  EXPECT_THAT(said(with({{"uniformity", -0.1}})), ElementsAre(HasSubstr("uniformity_weight")));
  EXPECT_THAT(said(with({{"episode_steps", 8.0}, {"falls_share", 1.0}})), ElementsAre(HasSubstr("motion check")));
  EXPECT_THAT(said(with({{"value_explained", -2.0}})), ElementsAre(HasSubstr("critic")));
  EXPECT_THAT(said(with({{"kl", 1.0}})), ElementsAre(HasSubstr("learning_rate")));
  EXPECT_TRUE(said(with({{"kl", 1.0}}), 100).empty());  // the start is always odd
}

TEST(TrainingHealth, SaysItAgainOnlyAfterItWasWell) {
  LowLevelSettings settings;
  settings.update.target_kl = 0.03f;
  TrainingHealth health(settings);
  int lines = 0;
  for (int round = 0; round < 2; ++round) {
    for (int i = 0; i < 500; ++i) lines += static_cast<int>(health.observe(with({{"kl", 1.0}})).size());
    for (int i = 0; i < 500; ++i) lines += static_cast<int>(health.observe(kWell).size());
  }
  EXPECT_EQ(lines, 2);
}

TEST(TrainingHealth, SeesOneClipSwallowTheRestAndStandingStill) {
  TrainingHealth health(LowLevelSettings{});
  Evaluation evaluation;
  evaluation.joint_speed = 0.9;
  for (int c = 0; c < 6; ++c) {
    ClipEvaluation& clip = evaluation.clips.emplace_back();
    clip.name = clip.taken_for = "clip" + std::to_string(c);
  }
  EXPECT_TRUE(health.observe(evaluation).empty());
  for (int c = 1; c < 4; ++c) evaluation.clips[c].taken_for = "clip0";
  EXPECT_THAT(health.observe(evaluation), ElementsAre(HasSubstr("3 of 5 other clips are acted out like `clip0`")));
  EXPECT_TRUE(health.observe(evaluation).empty());
  evaluation.joint_speed = 0.1;
  EXPECT_THAT(health.observe(evaluation), ElementsAre(HasSubstr("hardly moves")));
}

}  // namespace
}  // namespace calm
