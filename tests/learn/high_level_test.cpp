// Stage 2's trainer: it learns, a resumed run is the unbroken run, and its policy files are read defensively.
#include <gtest/gtest.h>

#include "base/error.h"
#include "learn/high_level_trainer.h"
#include "learn/tiny_world.h"
#include "play/test_policy.h"
#include "runtime/high_level_policy.h"

namespace calm {
namespace {

const Policy& holds_still() {
  static const Policy policy =
      parse_policy(serialise_safetensors(make_test_policy(human(), "human.xml")), "test policy");
  return policy;
}

HighLevelSettings tiny_high() {
  HighLevelSettings s;
  s.threads = 1, s.num_envs = 16, s.horizon = 8, s.base_clip = "stand";
  s.env.reset_from_clip = 0.0f, s.env.end_at_fall = false;
  s.network.actor_hidden = s.network.critic_hidden = {32};
  s.network.output = "clips", s.network.log_sigma = -1.1f;
  s.update.minibatch = 64, s.update.passes = 3, s.update.learning_rate = 1e-3f;
  return s;
}

HighLevelTrainer trainer_of(const HighLevelSettings& s, const char* task = "reach") {
  return {s, find_task(task), holds_still(), nullptr, human(), generated(), PhysicsSettings{}};
}

TEST(HighLevel, ResumedIsBitwiseTheUnbrokenRun) {
  auto straight = trainer_of(tiny_high());
  for (int i = 0; i < 2; ++i) straight.iterate();
  const std::string saved = straight.save();
  for (int i = 0; i < 2; ++i) straight.iterate();
  auto resumed = trainer_of(tiny_high());
  resumed.load(saved, "test");
  for (int i = 0; i < 2; ++i) resumed.iterate();
  EXPECT_TRUE(serialise_safetensors(straight.export_policy()) == serialise_safetensors(resumed.export_policy()));
  EXPECT_EQ(straight.stats().at("reward"), resumed.stats().at("reward"));
}

// A policy whose clips bend one joint each can bring its hand to a point by choosing among them.
TEST(HighLevel, LearnsToReach) {
  auto s = tiny_high();
  s.num_envs = 64, s.horizon = 16, s.update.minibatch = 256, s.update.advantage_clip = 4.0f;
  auto trainer = trainer_of(s);
  double first = 0.0, last = 0.0;
  constexpr int kIterations = 40, kShare = 8;
  for (int i = 0; i < kIterations; ++i) {
    trainer.iterate();
    const double reward = trainer.stats().at("task_reward");
    if (i < kShare) first += reward / kShare;
    if (i >= kIterations - kShare) last += reward / kShare;
  }
  EXPECT_GT(last, 1.3 * first) << first << " -> " << last;
}

TEST(HighLevel, StyledTasksNeedStylesOfThePolicy) {
  auto s = tiny_high();
  s.styles = {"walk"};
  EXPECT_THROW(trainer_of(s, "directed"), Error);
}

TEST(HighLevel, BadSettingsAreNamed) {
  auto s = tiny_high();
  s.network.output = "words";
  EXPECT_THROW(trainer_of(s), Error);
  s = tiny_high(), s.update.minibatch = 1 << 20;
  EXPECT_THROW(trainer_of(s), Error);
  s = tiny_high(), s.base_clip = "fly";
  EXPECT_THROW(trainer_of(s), Error);
}

TEST(HighLevel, PolicyFileActsAsTheTrainer) {
  auto trainer = trainer_of(tiny_high());
  trainer.iterate();
  const auto policy = parse_high_level_policy(serialise_safetensors(trainer.export_policy()), "test", holds_still());
  EXPECT_EQ(policy.task, "reach");
  EXPECT_FALSE(policy.styled);
  RowMatrix inputs = RowMatrix::Random(2, human().observation_size() + policy.goal_size);
  const RowMatrix z = policy.latents(inputs);
  EXPECT_EQ(z.cols(), holds_still().latent_size);
  EXPECT_NEAR(z.row(0).norm(), 1.0f, 1e-5f);
}

TEST(HighLevel, DamagedPolicyFilesAreRefused) {
  auto trainer = trainer_of(tiny_high());
  const SafeTensors good = trainer.export_policy();
  const auto refused = [](const SafeTensors& file) {
    EXPECT_THROW(parse_high_level_policy(serialise_safetensors(file), "test", holds_still()), Error);
  };
  for (const char* key :
       {"format", "version", "task", "goal_size", "decision_steps", "reach", "low_level_hash", "styles"}) {
    SafeTensors bad = good;
    bad.metadata[key] = "?";
    if (std::string(key) != "task") refused(bad);
    bad.metadata.erase(key);
    refused(bad);
  }
  for (const auto& [name, tensor] : good.tensors) {
    SafeTensors bad = good;
    bad.tensors.erase(name);
    if (!name.ends_with("1.weight")) refused(bad);
    bad = good;
    bad.tensors[name].data[0] = std::nanf("");
    refused(bad);
  }
  SafeTensors other = good;
  other.metadata["low_level_hash"] = "0123456789abcdef";
  refused(other);
}

}  // namespace
}  // namespace calm
