// Stage 2's environments: what tasks ask, and that a saved batch goes on bitwise.
#include "env/task_env.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "play/test_policy.h"
#include "runtime/high_level_policy.h"
#include "runtime/safetensors.h"

namespace calm {
namespace {

const Character& human() {
  static const Character character = load_character(CALM_SOURCE_DIR "/assets/characters/human.xml");
  return character;
}

const MotionLibrary& generated() {
  static const MotionLibrary library(human(), load_motions(human(), "builtin:"));
  return library;
}

const Policy& holds_still() {
  static const Policy policy =
      parse_policy(serialise_safetensors(make_test_policy(human(), "human.xml")), "test policy");
  return policy;
}

struct World {
  explicit World(const std::string& task_name, int size = 4, int threads = 1) : pool(threads) {
    const Task& task = find_task(task_name);
    TaskWorld world;
    std::vector<StyleLatents> styles;
    if (task.styled)
      for (int i = 0; i < 3; ++i) {
        const NamedLatent& latent = holds_still().latents[i];
        world.styles.push_back({i, latent.name, 1.0f});
        styles.push_back({latent.z, latent.z.transpose()});
      }
    actors = std::make_unique<Actors>(holds_still(), human(), PhysicsSettings{}, "simd", size, pool, task.props);
    env = std::make_unique<TaskEnv>(task, world, styles, generated(), *actors, pool, settings, 1.0f / 30.0f, 7);
    env->reset_all();
  }
  RowMatrix latents() const {
    RowMatrix z = RowMatrix::Zero(env->size(), holds_still().latent_size);
    z.col(0).setOnes();
    return z;
  }
  TaskSettings settings;
  ThreadPool pool;
  std::unique_ptr<Actors> actors;
  std::unique_ptr<TaskEnv> env;
};

TEST(TaskEnv, EveryTaskRunsWithRewardsInRange) {
  for (const Task& task : all_tasks()) {
    if (task.name == "block") continue;  // a human has no shield
    World w(task.name);
    EXPECT_EQ(w.env->num_inputs(),
              human().observation_size() + task.goal_size + (task.styled ? holds_still().latent_size : 0));
    for (int i = 0; i < 12; ++i) {
      w.env->decide(w.latents());
      for (const float r : w.env->task_reward()) EXPECT_TRUE(r >= 0.0f && r <= 1.0f) << task.name << " " << r;
      for (const float r : w.env->style_reward()) EXPECT_TRUE(r >= 0.0f && r <= 1.0f) << task.name << " " << r;
      EXPECT_TRUE(w.env->inputs().allFinite()) << task.name;
      w.env->reset_finished();
    }
  }
}

TEST(TaskEnv, BlockNeedsAShield) { EXPECT_THROW(World("block"), Error); }

TEST(TaskEnv, StyleScoreIsTheNearestWindow) {
  StyleLatents style{Eigen::VectorXf::Unit(3, 0), RowMatrix::Identity(2, 3)};
  EXPECT_FLOAT_EQ(style_score(style, Eigen::VectorXf::Unit(3, 1)), 1.0f);
  EXPECT_FLOAT_EQ(style_score(style, Eigen::VectorXf::Unit(3, 2)), 0.5f);
}

TEST(TaskEnv, GoalTurnsWithTheCharacterAndStyleIsObserved) {
  World w("directed", 1);
  TaskTarget& target = w.env->target(0);
  const float facing = heading(Quat(w.actors->view(0).rot(0)));
  target.direction = {std::cos(facing + kPi / 2), std::sin(facing + kPi / 2)};
  target.speed = 1.5f, target.style = 2;
  w.env->refresh(0);
  const auto row = w.env->inputs().row(0);
  const int at = human().observation_size();
  EXPECT_NEAR(row[at], 0.0f, 1e-5f);
  EXPECT_NEAR(row[at + 1], 1.0f, 1e-5f);
  EXPECT_FLOAT_EQ(row[at + 2], 1.5f);
  EXPECT_FLOAT_EQ(row[at + 3 + 2], 1.0f);
}

std::vector<float> run(World& w, int decisions) {
  std::vector<float> out;
  for (int i = 0; i < decisions; ++i) {
    w.env->decide(w.latents());
    w.env->reset_finished();
    out.insert(out.end(), w.env->inputs().data(), w.env->inputs().data() + w.env->inputs().size());
    out.insert(out.end(), w.env->task_reward().begin(), w.env->task_reward().end());
  }
  return out;
}

TEST(TaskEnv, SavedGoesOnBitwiseAndThreadsChangeNothing) {
  for (const char* task : {"directed", "strike"}) {
    World one(task), two(task, 4, 2), three(task);
    run(one, 20), run(two, 20);
    three.env->restore(one.env->save());
    const auto straight = run(one, 50);
    EXPECT_EQ(straight, run(two, 50)) << task;
    EXPECT_EQ(straight, run(three, 50)) << task;
  }
}

TEST(TaskEnv, PillarThatIsPushedOverIsASuccess) {
  World w("strike", 1);
  w.env->decide(w.latents());
  EXPECT_FALSE(w.env->success()[0]);
  RootState lying = w.actors->prop(0, 0);
  lying.rot = Quat(Eigen::AngleAxisf(kPi / 2, Vec3::UnitX())), lying.pos.z() = 0.2f;
  w.actors->simulator().set_prop(0, 0, lying);
  w.env->decide(w.latents());
  EXPECT_TRUE(w.env->success()[0]);
  EXPECT_FLOAT_EQ(w.env->task_reward()[0], 1.0f);
}

TEST(LatentOutput, StartsFromTheBaseAndCanGoToAnyClip) {
  LatentOutput output;
  output.clips = clip_latents(holds_still());
  const RowMatrix base = RowMatrix(holds_still().latents[0].z.transpose());
  RowMatrix action = RowMatrix::Zero(1, output.size(holds_still().latent_size));
  EXPECT_GT(output.latents(action, base).row(0).dot(base.row(0)), 0.98f);
  action.setConstant(-1.0f), action(0, 3) = 1.0f;
  EXPECT_GT(output.latents(action, base).row(0).dot(output.clips.row(3)), 0.8f);
  action(0, 3) = 50.0f;  // clamped
  EXPECT_LT(output.latents(action, base).row(0).dot(output.clips.row(3)), 0.9f);
  EXPECT_NEAR(output.latents(action, base).row(0).norm(), 1.0f, 1e-5f);
}

TEST(LatentOutput, ChoosesAmongTheClipsWithATag) {
  const Policy& p = holds_still();
  EXPECT_EQ(clip_latents(p).rows(), static_cast<Eigen::Index>(p.latents.size()));
  const RowMatrix rest = clip_latents(p, {"rest", "nothing has this"});
  ASSERT_EQ(rest.rows(), 1);
  EXPECT_EQ(rest.row(0).transpose(), p.latents[0].z);
  EXPECT_EQ(clip_latents(p, {"nothing has this"}).rows(), 0);
}

TEST(Actors, ActRowsAsOneByOne) {
  const Policy& p = holds_still();
  ThreadPool pool(2);
  Actors actors(p, human(), PhysicsSettings{}, "simd", 3, pool);
  for (int i = 0; i < 3; ++i) actors.set_latent(i, p.latents[i].z);
  const RowMatrix obs = actors.observations();
  const RowMatrix z = clip_latents(p).topRows(3);
  const RowMatrix actions = p.act(ConstRowMatrixMap(obs.data(), obs.rows(), obs.cols()), p.embed(z));
  for (int i = 0; i < 3; ++i)
    EXPECT_TRUE(actions.row(i).transpose().isApprox(p.act(obs.row(i).transpose(), p.latents[i].z), 1e-4f));
}

TEST(Tasks, UnknownOneNamesTheNearest) {
  try {
    find_task("directd");
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("directed"), std::string::npos);
  }
}

TEST(DirectedReward, IsFullAtTheSpeedAndDirectionAskedFor) {
  RootMotion root;
  root.dt = 0.2f, root.pos = Vec3(0.2f, 0.0f, 1.0f), root.prev_pos = Vec3(0.0f, 0.0f, 1.0f);  // 1 m/s along x
  EXPECT_NEAR(directed_reward(root, {Vec2::UnitX(), 1.0f}), 1.0f, 1e-6f);
  EXPECT_NEAR(directed_reward(root, {Vec2::UnitX(), 2.0f}), 0.6f + 0.4f * std::exp(-1.0f), 1e-6f);
  EXPECT_NEAR(directed_reward(root, {-Vec2::UnitX(), 1.0f}), 0.6f * std::exp(-4.0f), 1e-6f);
  EXPECT_NEAR(directed_reward(root, {Vec2::UnitY(), 1.0f}), 0.6f * std::exp(-2.0f * std::sqrt(2.0f)), 1e-6f);
}

}  // namespace
}  // namespace calm
