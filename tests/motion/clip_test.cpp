#include "motion/clip.h"

#include "motion/clip_edit.h"
#include "motion/library.h"
#include "motion/motion_test_support.h"

namespace calm {
namespace {

TEST(Clip, VelocitiesOfSteadyMotionAreThatMotion) {
  const Clip clip = gliding_clip(human(), 61, 30.0f);
  for (int f = 0; f < clip.num_frames; ++f) {
    EXPECT_LT((ConstVec3Map(&clip.root_vel[3 * f]) - Vec3(1, 0, 0)).norm(), 1e-4f) << f;
    EXPECT_LT((ConstVec3Map(&clip.root_ang_vel[3 * f]) - Vec3(0, 0, 0.5f)).norm(), 1e-4f) << f;
    for (const Joint& joint : human().joints) {
      const float* vel = &clip.dof_vel[static_cast<size_t>(f) * human().num_dofs + joint.dof];
      const Vec3 rate = joint.kind == JointKind::kBall ? Vec3(ConstVec3Map(vel)) : Vec3(vel[0] * joint.axis);
      EXPECT_LT((rate - Vec3(0, 0.4f, 0)).norm(), 1e-4f) << joint.name << " at frame " << f;
    }
  }
}

TEST(Clip, SmoothingIsAGaussianOfTwoFrames) {
  // a single step of the root: its raw velocity is a box of two frames, and the sum over time is the step
  Clip clip = gliding_clip(human(), 41, 30.0f);
  for (int f = 0; f < 41; ++f) clip.root_pos[3 * f] = f < 20 ? 0.0f : 0.3f;
  compute_velocities(human(), clip);
  float sum = 0.0f, moment = 0.0f;
  for (int f = 0; f < 41; ++f) {
    sum += clip.root_vel[3 * f];
    const float from = static_cast<float>(f) - 19.5f;
    moment += clip.root_vel[3 * f] * from * from;
  }
  EXPECT_NEAR(sum / 30.0f, 0.3f, 1e-4f);
  EXPECT_NEAR(moment / sum, 4.0f + 0.25f, 0.02f);  // variance of the Gaussian and of the two frames
}

TEST(Clip, VelocitiesTakeNoNoticeOfAQuaternionsSign) {
  Clip clip = gliding_clip(human(), 31, 30.0f);
  const Clip expected = clip;
  for (int f = 0; f < 31; f += 2)
    for (size_t i = 0; i < 4 * human().bodies.size(); ++i) clip.body_rot[4 * human().bodies.size() * f + i] *= -1.0f;
  compute_velocities(human(), clip);
  for (size_t i = 0; i < clip.dof_vel.size(); ++i) EXPECT_NEAR(clip.dof_vel[i], expected.dof_vel[i], 1e-5f);
  for (size_t i = 0; i < clip.root_ang_vel.size(); ++i)
    EXPECT_NEAR(clip.root_ang_vel[i], expected.root_ang_vel[i], 1e-5f);
}

TEST(Clip, JointPositionsAndKinematicsAreInverse) {
  CharacterState state = default_state(knight());
  Rng rng(3);
  for (float& q : state.dof_pos) q = rng.uniform(-0.9f, 0.9f);
  const std::vector<float> expected = state.dof_pos;
  forward_kinematics(knight(), {}, state);
  std::vector<float> local(4 * knight().bodies.size());
  for (int b = 0; b < knight().num_bodies(); ++b) {
    const Quat parent = b == 0 ? Quat::Identity() : Quat(state.view().rot(knight().bodies[b].parent));
    QuatMap{&local[4 * b]} = parent.conjugate() * state.view().rot(b);
  }
  std::vector<float> dof_pos(knight().num_dofs);
  dof_pos_from_rotations(knight(), local.data(), dof_pos.data());
  for (size_t i = 0; i < dof_pos.size(); ++i) EXPECT_NEAR(dof_pos[i], expected[i], 1e-5f) << i;
}

TEST(Clip, TwoHingesOnOneBodyAreToldApart) {
  const Character character = parse_character(R"(<mujoco><compiler angle="radian"/><worldbody>
    <body name="root" pos="0 0 1"><freejoint/><geom size=".1"/>
      <body name="arm" pos="0 0 .2">
        <joint name="a" axis="0 0 1" limited="true" range="-2 2"/><joint name="b" axis="0 1 0" limited="true" range="-2 2"/>
        <geom size=".1"/></body></body></worldbody></mujoco>)",
                                              "", "two_hinges");
  ASSERT_EQ(character.num_dofs, 2);
  const float wanted[2] = {0.8f, -0.6f};
  CharacterState state(character);
  state.dof_pos.assign(wanted, wanted + 2);
  forward_kinematics(character, {}, state);
  float found[2];
  dof_pos_from_rotations(character, state.body_rot.data(), found);
  EXPECT_NEAR(found[0], wanted[0], 1e-4f);
  EXPECT_NEAR(found[1], wanted[1], 1e-4f);
}

TEST(ClipEdit, CutKeepsTheFramesBetween) {
  const Clip clip = gliding_clip(human(), 91, 30.0f);
  const Clip part = cut(clip, 1.0f, 2.0f);
  EXPECT_EQ(part.num_frames, 31);
  EXPECT_FLOAT_EQ(part.length(), 1.0f);
  EXPECT_FLOAT_EQ(part.root_pos[0], clip.root_pos[90]);
  EXPECT_EQ(part.body_rot.size(), 31 * 4 * human().bodies.size());
  EXPECT_EQ(part.dof_vel.size(), 31u * human().num_dofs);
  EXPECT_EQ(cut(clip, 2.0f, 0.0f).num_frames, 31);
  EXPECT_EQ(cut(clip, 2.0f, 99.0f).num_frames, 31);
  EXPECT_THAT(error_of([&] { cut(clip, 3.5f, 4.0f); }), testing::HasSubstr("lasts 3.000 s"));
}

TEST(ClipEdit, MirroredTwiceIsTheClip) {
  Clip clip = gliding_clip(human(), 31, 30.0f);
  Rng rng(5);
  for (size_t i = 0; i < clip.body_rot.size(); i += 4) {
    Quat q(rng.normal(), rng.normal(), rng.normal(), rng.normal());
    QuatMap(&clip.body_rot[i]) = q.normalized();
  }
  compute_velocities(human(), clip);
  const Clip twice = mirror(human(), mirror(human(), clip));
  EXPECT_EQ(twice.root_pos, clip.root_pos);
  EXPECT_EQ(twice.body_rot, clip.body_rot);
  EXPECT_EQ(twice.root_vel, clip.root_vel);
  EXPECT_EQ(twice.root_ang_vel, clip.root_ang_vel);
  EXPECT_EQ(twice.dof_vel, clip.dof_vel);
}

TEST(ClipEdit, MirrorReflectsEveryBody) {
  Clip clip = gliding_clip(human(), 2, 30.0f);
  Rng rng(7);
  clip.root_pos = {0.1f, 0.2f, 0.9f, 0.1f, 0.2f, 0.9f};
  for (size_t i = 0; i < clip.body_rot.size(); i += 4) {
    const int body = static_cast<int>(i / 4) % human().num_bodies();
    const int joints = human().bodies[body].num_joints;
    const bool free = body == 0 || (joints == 1 && human().joints[human().bodies[body].first_joint].num_dofs == 3);
    QuatMap(&clip.body_rot[i]) = free          ? Quat(1.0f, 0.4f * rng.normal(), 0.4f * rng.normal(), 0.4f).normalized()
                                 : joints == 1 ? quat_from_exp_map({0.0f, 0.7f, 0.0f})
                                               : Quat::Identity();
  }
  compute_velocities(human(), clip);
  const auto pose = [&](const Clip& c) {
    CharacterState state(human());
    dof_pos_from_rotations(human(), c.body_rot.data(), state.dof_pos.data());
    RootState root;
    root.pos = ConstVec3Map(c.root_pos.data());
    root.rot = ConstQuatMap(c.body_rot.data());
    root.vel = ConstVec3Map(c.root_vel.data());
    root.ang_vel = ConstVec3Map(c.root_ang_vel.data());
    std::copy_n(c.dof_vel.begin(), human().num_dofs, state.dof_vel.begin());
    forward_kinematics(human(), root, state);
    return state;
  };
  const CharacterState before = pose(clip), after = pose(mirror(human(), clip));
  for (const auto& [a, b] : {std::pair{"right_hand", "left_hand"}, {"left_foot", "right_foot"}, {"head", "head"}}) {
    Vec3 reflected = before.view().pos(human().body_index(a));
    reflected.y() *= -1.0f;
    EXPECT_LT((after.view().pos(human().body_index(b)) - reflected).norm(), 1e-5f) << a;
    Vec3 velocity = before.view().vel(human().body_index(a));
    velocity.y() *= -1.0f;
    EXPECT_LT((after.view().vel(human().body_index(b)) - velocity).norm(), 1e-3f) << a;
  }
}

TEST(ClipEdit, MirrorNeedsPairsWithTheSameJoints) {
  // the knight's right hand turns, its left one does not
  EXPECT_THAT(error_of([] { mirror(knight(), gliding_clip(knight(), 3, 30.0f)); }), testing::HasSubstr("right_hand"));
}

TEST(ClipEdit, ResampleKeepsTheMotion) {
  const Clip clip = gliding_clip(human(), 61, 60.0f);
  const Clip slow = resample(human(), clip, 30.0f);
  EXPECT_EQ(slow.num_frames, 31);
  EXPECT_FLOAT_EQ(slow.length(), 1.0f);
  for (int f = 0; f < 31; ++f) EXPECT_NEAR(slow.root_pos[3 * f], static_cast<float>(f) / 30.0f, 1e-5f);
  EXPECT_NEAR(slow.root_vel[30], 1.0f, 1e-4f);
  EXPECT_EQ(resample(human(), clip, 25.0f).num_frames, 26);
  EXPECT_THROW(resample(human(), clip, 0.0f), Error);
}

// (frames) of a body, world.
std::vector<Vec3> places(const Clip& clip, int body) {
  std::vector<Vec3> out;
  CharacterState state(human());
  for (int f = 0; f < clip.num_frames; ++f) {
    const float* rotations = &clip.body_rot[4 * human().bodies.size() * f];
    RootState root;
    root.pos = ConstVec3Map(&clip.root_pos[3 * f]), root.rot = Quat(ConstQuatMap(rotations));
    dof_pos_from_rotations(human(), rotations, state.dof_pos.data());
    forward_kinematics(human(), root, state);
    out.emplace_back(state.view().pos(body));
  }
  return out;
}

TEST(Bend, TurnsThePathAndPlantsTheFeet) {
  const MotionLibrary library(human(), load_motions(human(), "builtin:"));
  const Clip& walk = library.clip(library.clip_index("walk"));
  const float rate = 1.2f;
  const Clip bent = bend(human(), walk, rate);
  ASSERT_EQ(bent.num_frames, walk.num_frames);
  const auto heading_at = [](const Clip& clip, int f) {
    return heading(Quat(ConstQuatMap(&clip.body_rot[4 * human().bodies.size() * f])));
  };
  const int last = walk.num_frames - 1;
  const float turned = heading_at(bent, last) - heading_at(walk, last);
  EXPECT_NEAR(std::remainder(turned - rate * walk.length(), 2.0f * kPi), 0.0f, 0.1f);
  // it walks as far, and where a foot stood on the straight path it hardly moves on the bent one
  float far = 0.0f, far_bent = 0.0f;
  for (int f = 1; f <= last; ++f) {
    const auto way = [f](const Clip& c) {
      return (ConstVec3Map(&c.root_pos[3 * f]) - ConstVec3Map(&c.root_pos[3 * (f - 1)])).norm();
    };
    far += way(walk), far_bent += way(bent);
  }
  EXPECT_NEAR(far_bent, far, 0.15f * far);  // the hips are lower where it leans, and cut the corner
  int stands = 0;
  float slides = 0.0f, slid = 0.0f;
  for (const int foot : human().feet) {
    const auto was = places(walk, foot), is = places(bent, foot);
    for (int f = 1; f <= last; ++f) {
      const float before = (was[f] - was[f - 1]).norm() * walk.fps;
      if (before > 0.2f) continue;
      ++stands, slid += before, slides += (is[f] - is[f - 1]).norm() * walk.fps;
      EXPECT_NEAR(is[f].z(), was[f].z(), 0.03f);
    }
  }
  ASSERT_GT(stands, 20);
  EXPECT_LT(slides / stands, slid / stands + 0.08f);
}

TEST(Bend, OfNothingChangesNothing) {
  const MotionLibrary library(human(), load_motions(human(), "builtin:"));
  const Clip& walk = library.clip(library.clip_index("walk"));
  const Clip same = bend(human(), walk, 0.0f);
  for (int b = 0; b < human().num_bodies(); ++b) {
    const auto was = places(walk, b), is = places(same, b);
    for (int f = 0; f < walk.num_frames; ++f) EXPECT_LT((is[f] - was[f]).norm(), 0.01f) << human().bodies[b].name;
  }
  EXPECT_THROW(bend(human(), walk, 9.0f), Error);
}

}  // namespace
}  // namespace calm
