#include "env/batch_env.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "features/features.h"
#include "motion/clip_edit.h"

namespace calm {
namespace {

struct World {
  explicit World(EnvSettings settings, int num_envs = 6, int threads = 2, uint64_t seed = 3)
      : character(load_character(CALM_SOURCE_DIR "/assets/characters/human.xml")),
        library(character, load_motions(character, "builtin:")),
        pool(threads),
        simulator(make_simulator("mujoco", character, {}, num_envs, pool)),
        env(character, library, *simulator, pool, settings, {}, seed),
        zero(static_cast<size_t>(num_envs) * character.num_dofs, 0.0f) {
    env.reset_all();
  }
  Character character;
  MotionLibrary library;
  ThreadPool pool;
  std::unique_ptr<Simulator> simulator;
  BatchEnv env;
  std::vector<float> zero;
};

EnvSettings quick() {
  EnvSettings s;
  s.fallen_bank = 6, s.fallen_settle_steps = 10;
  return s;
}

std::vector<float> run(World& world, int steps) {
  std::vector<float> trace;
  for (int i = 0; i < steps; ++i) {
    world.env.step(world.zero);
    world.env.reset_finished();
    trace.insert(trace.end(), world.env.observations().begin(), world.env.observations().end());
  }
  return trace;
}

TEST(BatchEnv, DoesNotDependOnThreads) {
  World one(quick(), 6, 1), three(quick(), 6, 3);
  EXPECT_EQ(run(one, 60), run(three, 60));
}

TEST(BatchEnv, RestoredIsBitwiseTheSame) {
  World world(quick());
  run(world, 40);
  const std::string saved = world.env.save();
  const auto first = run(world, 40);
  world.env.restore(saved);
  EXPECT_EQ(run(world, 40), first);
  EXPECT_THROW(world.env.restore(saved.substr(0, saved.size() - 1)), Error);
  EXPECT_THROW(world.env.restore(saved + "x"), Error);
}

TEST(BatchEnv, FallsAndTimeoutsAreKeptApart) {
  auto settings = quick();
  settings.episode_steps = 40;
  settings.reset_fallen = settings.recover_in_place = 0.0f;
  World world(settings, 8);
  int falls = 0, timeouts = 0;
  for (int i = 0; i < 200; ++i) {
    world.env.step(world.zero);  // knees half bent: most fall, some are cut short by time
    for (int e = 0; e < 8; ++e) {
      EXPECT_FALSE(world.env.terminated()[e] && world.env.truncated()[e]);
      falls += world.env.terminated()[e], timeouts += world.env.truncated()[e];
    }
    world.env.reset_finished();
  }
  EXPECT_GT(falls + timeouts, 30);
  EXPECT_EQ(world.env.counts().falls, falls);
  EXPECT_EQ(world.env.counts().timeouts, timeouts);
  EXPECT_EQ(world.env.counts().episodes, falls + timeouts);
}

TEST(BatchEnv, ALyingCharacterFallsOnlyAfterItsGrace) {
  auto settings = quick();
  settings.reset_fallen = 1.0f;
  settings.recovery_grace = 25;
  settings.recover_in_place = 0.0f;
  settings.fallen_settle_steps = 60;
  World world(settings, 6);
  int first_fall = -1;
  for (int i = 0; i < 40 && first_fall < 0; ++i) {
    world.env.step(world.zero);
    for (int e = 0; e < 6; ++e)
      if (world.env.terminated()[e]) first_fall = i;
  }
  EXPECT_EQ(first_fall, 25);
}

TEST(BatchEnv, DiscriminatorWindowIsNewestFirst) {
  auto settings = quick();
  settings.reset_fallen = 0.0f;
  World world(settings, 2);
  const size_t f = world.character.motion_feature_size();
  std::vector<float> before(world.env.discriminator_windows().begin(), world.env.discriminator_windows().end());
  world.env.step(world.zero);
  const auto after = world.env.discriminator_windows();
  const size_t window = f * settings.discriminator_frames;
  for (int e = 0; e < 2; ++e) {
    EXPECT_TRUE(std::equal(after.begin() + static_cast<std::ptrdiff_t>(e * window + f),
                           after.begin() + static_cast<std::ptrdiff_t>((e + 1) * window),
                           before.begin() + static_cast<std::ptrdiff_t>(e * window)));
    std::vector<float> newest(f);
    write_motion_features(world.character, world.simulator->state().view(e), newest.data());
    EXPECT_TRUE(std::equal(newest.begin(), newest.end(), after.begin() + static_cast<std::ptrdiff_t>(e * window)));
  }
}

TEST(BatchEnv, LatentsAreHeldForTheirTime) {
  auto settings = quick();
  settings.latent_steps_min = settings.latent_steps_max = 7;
  settings.reset_fallen = 0.0f, settings.reset_from_clip = 1.0f;
  settings.episode_steps = 1000;
  World world(settings, 4);
  std::vector<int> held(4, 0);
  for (int i = 0; i < 20; ++i) {
    world.env.step(world.zero);
    const std::vector<uint8_t> ended(world.env.terminated().begin(), world.env.terminated().end());
    world.env.reset_finished();
    for (int e = 0; e < 4; ++e) {
      ++held[e];
      if (!world.env.window_changed()[e]) continue;
      EXPECT_TRUE(ended[e] || held[e] == 7) << held[e];
      held[e] = 0;
    }
  }
}

TEST(BatchEnv, TrackingIsPerfectAtTheClipsOwnState) {
  auto settings = quick();
  settings.reset_fallen = 0.0f;
  World world(settings, 1);
  const int stand = world.library.clip_index("stand");
  ASSERT_GE(stand, 0);
  world.env.start_from_clip(0, stand, 0.5f, {stand, 2.0f});
  // hold the clip's own pose: one step later it is still near
  std::vector<float> action(world.character.num_dofs);
  for (int d = 0; d < world.character.num_dofs; ++d)
    action[d] = (world.simulator->state().view(0).dof_pos[d] - world.character.action_offset[d]) /
                world.character.action_scale[d];
  world.env.step(action);
  EXPECT_GT(world.env.tracking()[0], 0.9f);
  world.env.reset_finished();
  for (int i = 0; i < 10; ++i) world.env.step(world.zero);  // knees bend: far from standing
  EXPECT_LT(world.env.tracking()[0], 0.7f);
}

EnvSettings following() {
  auto settings = quick();
  settings.reset_fallen = settings.recover_in_place = 0.0f;
  settings.reset_from_clip = settings.latent_of_start = 1.0f;
  return settings;
}

TEST(BatchEnv, AFollowingEpisodeEndsWhereItStrays) {
  auto settings = following();
  World world(settings, 8);
  settings.follow_limit = 0.5f;
  World strict(settings, 8);
  int strayed = 0, ends = 0;
  for (int i = 0; i < 60; ++i) {
    for (World* w : {&world, &strict}) w->env.step(w->zero);
    for (int e = 0; e < 8; ++e) {
      const float tracking = strict.env.tracking()[e];
      const bool strays = tracking >= 0.0f && tracking < 0.5f;  // negative: too near the clip's end to follow it
      strayed += strays;
      ends += strict.env.terminated()[e];
      EXPECT_TRUE(!strays || strict.env.terminated()[e]);
    }
    for (World* w : {&world, &strict}) w->env.reset_finished();
  }
  EXPECT_GT(strayed, 10);
  EXPECT_GE(ends, strayed);
  EXPECT_LT(world.env.counts().falls, strict.env.counts().falls);
}

TEST(BatchEnv, TheEndOfTheFollowedClipIsATimeout) {
  auto settings = following();
  settings.episode_steps = 10000;
  World world(settings, 8);
  for (int i = 0; i < 200; ++i) {
    world.env.step(world.zero);
    world.env.reset_finished();
  }
  EXPECT_GT(world.env.counts().timeouts, 3);
}

TEST(BatchEnv, NoneFollowsWhereTheShareIsZero) {
  World world(following(), 6);
  world.env.set_follow_share(0.0);
  world.env.reset_all();
  world.env.step(world.zero);
  for (const float tracking : world.env.tracking()) EXPECT_LT(tracking, 0.0f);
}

// Where a policy learns more clips: these are followed, from wherever the character is when their latent comes, over
// and over; the others never are.
TEST(BatchEnv, OnlyNewClipsAreFollowedWheneverTheirLatentIsInForce) {
  auto settings = following();
  settings.latent_steps_min = settings.latent_steps_max = 12;
  settings.episode_steps = 200;
  World world(settings, 24);
  const int first_new = world.library.num_clips() / 2;
  ASSERT_GT(first_new, 0);
  world.env.set_first_new(first_new);
  world.env.reset_all();
  int followed = 0, came_later = 0;
  std::vector<int> since(24, 0);
  for (int i = 0; i < 100; ++i) {
    world.env.step(world.zero);
    for (int e = 0; e < 24; ++e) {
      const bool is_new = world.env.windows()[e].clip >= first_new;
      EXPECT_EQ(world.env.tracking()[e] >= 0.0f, is_new) << e << " in step " << i;
      followed += is_new, came_later += is_new && since[e] >= 12;
      ++since[e];
    }
    const std::vector<uint8_t> fell(world.env.terminated().begin(), world.env.terminated().end()),
        late(world.env.truncated().begin(), world.env.truncated().end());
    world.env.reset_finished();
    for (int e = 0; e < 24; ++e)
      if (fell[e] || late[e]) since[e] = 0;
  }
  EXPECT_GT(followed, 100);
  EXPECT_GT(came_later, 20);
  EXPECT_LT(followed, 2000);

  // saved and restored, they go on alike
  const std::string saved = world.env.save();
  World again(settings, 24);
  again.env.set_first_new(first_new);
  again.env.restore(saved);
  for (int i = 0; i < 20; ++i)
    for (World* w : {&world, &again}) w->env.step(w->zero), w->env.reset_finished();
  EXPECT_TRUE(std::ranges::equal(world.env.tracking(), again.env.tracking()));
}

// A character that stands still strays from a clip that turns, though poses and speeds are alike.
TEST(BatchEnv, TurningTooLittleAddsUp) {
  const Character character = load_character(CALM_SOURCE_DIR "/assets/characters/human.xml");
  const MotionLibrary library(character, load_motions(character, "builtin:"));
  const auto straight = library.clip(library.clip_index("stand"));
  Clip bent = bend(character, straight, 1.5f);
  bent.name = "turns";
  const MotionLibrary turning(character, {straight, bent});
  auto settings = following();
  settings.follow_limit = 0.0f;
  ThreadPool pool(1);
  const PhysicsSettings physics;
  const auto simulator = make_simulator("simd", character, physics, 1, pool);
  BatchEnv env(character, turning, *simulator, pool, settings, physics, 3);
  env.set_first_new(1);
  env.start_from_clip(0, 1, 0.2f, {1, 2.0f});
  std::vector<float> hold(character.num_dofs);
  for (int d = 0; d < character.num_dofs; ++d)
    hold[d] = (simulator->state().view(0).dof_pos[d] - character.action_offset[d]) / character.action_scale[d];
  env.step(hold);
  const float at_first = env.tracking()[0];
  for (int i = 0; i < 25; ++i) env.step(hold);
  EXPECT_GT(at_first, 0.6f);
  EXPECT_LT(env.tracking()[0], 0.8f * at_first);
}

// The clip's time waits for a slower character and hurries after a faster one, by half a step a step.
TEST(BatchEnv, TheClipsTimeAdapts) {
  auto settings = following();
  World world(settings, 1);
  const int raise = world.library.clip_index("raise_arms");
  ASSERT_GE(raise, 0);
  world.env.start_from_clip(0, raise, 0.5f, {raise, 2.0f});
  CharacterState state(world.character);
  for (int i = 1; i <= 12; ++i) {  // the clip's own states, at half its speed
    world.library.state(raise, 0.5f + 0.5f * static_cast<float>(i) / 30.0f, state);
    world.simulator->set_state(0, state.root(), state.dof_pos, state.dof_vel);
    std::vector<float> hold(world.character.num_dofs);
    for (int d = 0; d < world.character.num_dofs; ++d)
      hold[d] = (state.dof_pos[d] - world.character.action_offset[d]) / world.character.action_scale[d];
    world.env.step(hold);
  }
  EXPECT_GT(world.env.tracking()[0], 0.7f);
}

TEST(BatchEnv, SettingsThatCannotWorkAreErrors) {
  auto settings = quick();
  settings.latent_steps_min = 9, settings.latent_steps_max = 3;
  EXPECT_THROW(World{settings}, Error);
  settings = quick();
  settings.discriminator_frames = 100;
  EXPECT_THROW(World{settings}, Error);
}

TEST(BatchEnv, RecoveriesAreScoredByHowNearlyTheyStand) {
  auto settings = quick();
  settings.reset_fallen = 1.0f, settings.recovery_grace = 20, settings.recovery_score = true;
  World world(settings);
  for (int step = 0; step < 25; ++step) {
    world.env.step(world.zero);
    for (int e = 0; e < 6; ++e) {
      const auto view = world.simulator->state().view(e);
      const float up = (Quat(view.rot(0)) * Vec3::UnitZ()).z();
      const float score =
          std::clamp(view.pos(0).z() / (0.9f * world.character.stand_height), 0.0f, 1.0f) * (0.5f + 0.5f * up);
      EXPECT_NEAR(world.env.tracking()[e], step < 20 ? score : -1.0f, 1e-4f) << step;
    }
  }
}

}  // namespace
}  // namespace calm
