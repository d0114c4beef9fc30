#include "motion/generator.h"

#include "motion/library.h"
#include "motion/motion_test_support.h"
#include "motion/retarget.h"

namespace calm {
namespace {

using testing::HasSubstr;

class Generator : public testing::TestWithParam<const Character* (*)()> {};

TEST_P(Generator, ClipsStandOnTheFloorWithinLimits) {
  const Character& character = *GetParam()();
  const std::vector<Clip> clips = generate_clips(character);
  EXPECT_GE(clips.size(), 8u);
  const MotionLibrary library(character, clips);
  const int feet[2] = {character.body_index("right_foot"), character.body_index("left_foot")};
  for (const Clip& clip : clips) {
    SCOPED_TRACE(clip.name);
    EXPECT_GE(clip.length(), 2.0f);
    EXPECT_LE(clip.length(), 6.0f);
    EXPECT_EQ(clip.fps, 30.0f);
    CharacterState state(character);
    Vec3 before[2];
    bool stood[2] = {};
    for (int f = 0; f < clip.num_frames; ++f) {
      clip_pose(character, clip, f, state);
      bool any = false;
      for (int side = 0; side < 2; ++side) {
        const Vec3 pos = state.view().pos(feet[side]);
        const float low = lowest_point(character, feet[side], pos, state.view().rot(feet[side]));
        EXPECT_GT(low, -1e-3f) << "frame " << f;
        const bool stands = low < 1e-3f;
        if (stands && stood[side]) {
          EXPECT_LT((pos - before[side]).norm(), 2e-3f) << "slides at frame " << f;
        }
        before[side] = pos;
        stood[side] = stands;
        any |= stands;
      }
      EXPECT_TRUE(any) << "floats at frame " << f;
      for (int b = 0; b < character.num_bodies(); ++b)
        EXPECT_GT(lowest_point(character, b, state.view().pos(b), state.view().rot(b)), -1e-3f)
            << character.bodies[b].name << " in the floor at frame " << f;
      for (int d = 0; d < character.num_dofs; ++d) {
        EXPECT_GE(state.dof_pos[d], character.limit_lower[d] - 1e-3f)
            << character.joints[character.dof_joint[d]].name << " at frame " << f;
        EXPECT_LE(state.dof_pos[d], character.limit_upper[d] + 1e-3f)
            << character.joints[character.dof_joint[d]].name << " at frame " << f;
      }
    }
    for (const float v : clip.dof_vel) EXPECT_LT(std::abs(v), 12.0f);
  }
  const int walk = library.clip_index("walk");
  ASSERT_GE(walk, 0);
  EXPECT_GT(clips[walk].root_pos[clips[walk].root_pos.size() - 3], 2.0f);
}

TEST_P(Generator, IsTheSameEveryTime) {
  const Character& character = *GetParam()();
  EXPECT_EQ(generate_clips(character)[1].body_rot, generate_clips(character)[1].body_rot);
}

INSTANTIATE_TEST_SUITE_P(Characters, Generator, testing::Values([]() { return &human(); }, []() { return &knight(); }),
                         [](const auto& test) { return test.param()->name; });

TEST(Builtin, ClipsByName) {
  EXPECT_EQ(load_motions(human(), "builtin:").size(), generate_clips(human()).size());
  const auto clips = load_motions(human(), "builtin:walk,stand");
  ASSERT_EQ(clips.size(), 2u);
  EXPECT_EQ(clips[0].name, "walk");
  EXPECT_EQ(clips[1].name, "stand");
  EXPECT_THAT(error_of([] { load_motions(human(), "builtin:fly"); }), HasSubstr("no generated clip `fly`"));
}

TEST(Builtin, MissingBodiesAreNamed) {
  const Character ball = parse_character(
      R"(<mujoco><worldbody><body name="pelvis" pos="0 0 1"><freejoint/><geom size=".1"/></body></worldbody></mujoco>)",
      "", "ball");
  EXPECT_THAT(error_of([&] { generate_clips(ball); }), HasSubstr("left_shin"));
}

}  // namespace
}  // namespace calm
