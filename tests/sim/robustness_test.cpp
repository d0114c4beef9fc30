// What a simulator meets in training besides ordinary motion: an hour of random actions, characters set into the floor,
// dropped without muscles, light bodies against heavy ones, props thrown at it. Nothing may go wild, and no energy may
// come from nothing.
#include <gtest/gtest.h>

#include "base/rng.h"
#include "sim/compile.h"
#include "sim/simulator.h"

namespace calm {
namespace {

constexpr float kGravity = 9.81f;

Character load(const char* name) {
  return load_character(std::filesystem::path(CALM_SOURCE_DIR) / "assets/characters" / name);
}

class Robust : public testing::TestWithParam<std::string> {};

// Kinetic and potential energy of a character's bodies, J.
double energy_of(const Character& character, const CharacterStateView& view) {
  double energy = 0.0;
  for (int b = 0; b < character.num_bodies(); ++b) {
    const Body& body = character.bodies[b];
    const Eigen::Quaterniond rot = Quat(view.rot(b)).cast<double>();
    const Eigen::Vector3d arm = rot * body.com.cast<double>(), w = view.ang_vel(b).cast<double>();
    const Eigen::Vector3d vel = view.vel(b).cast<double>() + w.cross(arm);
    const Eigen::Vector3d local = (rot * body.inertia_rot.cast<double>()).conjugate() * w;
    energy += 0.5 * body.mass * vel.squaredNorm() + body.mass * kGravity * (view.pos(b).z() + arm.z()) +
              0.5 * local.cwiseAbs2().dot(body.inertia.cast<double>());
  }
  return energy;
}

bool is_sane(const BatchState& state, float bound) {
  for (const float v : state.body_pos)
    if (!(std::abs(v) < bound)) return false;
  for (const auto* values : {&state.body_vel, &state.body_ang_vel, &state.body_rot, &state.contact_force})
    for (const float v : *values)
      if (!std::isfinite(v)) return false;
  return true;
}

// 64 environments x 1700 control steps at 30 Hz are an hour.
TEST_P(Robust, AnHourOfRandomActions) {
  const bool fast = GetParam().starts_with("simd");
  for (const char* name : {"human.xml", "knight.xml"}) {
    const Character character = load(name);
    ThreadPool pool(2);
    const int envs = fast ? 64 : 8, steps = fast ? 1700 : 200;
    const auto sim = make_simulator(GetParam(), character, {}, envs, pool);
    std::vector<float> targets(static_cast<size_t>(envs) * character.num_dofs);
    Rng rng(3);
    float residual = 0.0f;
    for (int i = 0; i < steps; ++i) {
      for (size_t k = 0; k < targets.size(); ++k) {
        const size_t dof = k % character.num_dofs;
        targets[k] = character.action_offset[dof] + character.action_scale[dof] * rng.uniform(-1.0f, 1.0f);
      }
      sim->step(targets);
      for (const float r : sim->state().solver_residual) residual = std::max(residual, r);
    }
    EXPECT_TRUE(is_sane(sim->state(), 100.0f)) << name;
    EXPECT_EQ(sim->num_diverged(), 0) << name;
    EXPECT_EQ(sim->num_overflows(), 0) << name;
    EXPECT_LT(residual, 1e-3f) << name;  // solved, in the worst of the hour's substeps too
  }
}

// Deep in the floor in any pose: pushed out at a bounded speed, and at rest on it in the end.
TEST_P(Robust, ComesOutOfTheFloor) {
  const Character character = load("knight.xml");
  ThreadPool pool(1);
  const int envs = 16;
  const auto sim = make_simulator(GetParam(), character, {}, envs, pool);
  const CharacterState standing = default_state(character);
  Rng rng(5);
  std::vector<float> targets;
  for (int e = 0; e < envs; ++e) {
    RootState root = standing.root();
    root.rot = Quat(rng.normal(), rng.normal(), rng.normal(), rng.normal()).normalized();
    root.pos.z() = rng.uniform(-0.3f, 0.2f);
    sim->set_state(e, root, standing.dof_pos, standing.dof_vel);
    targets.insert(targets.end(), standing.dof_pos.begin(), standing.dof_pos.end());
  }
  for (int i = 0; i < 150; ++i) {
    sim->step(targets);
    for (int e = 0; e < envs; ++e) {
      const float speed = sim->state().view(e).vel(0).norm();
      ASSERT_LT(speed, 30.0f) << "env " << e << ", step " << i;
    }
  }
  EXPECT_EQ(sim->num_diverged(), 0);
  for (int e = 0; e < envs; ++e) EXPECT_GT(sim->state().view(e).pos(0).z(), 0.0f) << e;
}

// Without muscles, dropped on its head: its energy never rises by more than soft contacts had stored.
TEST_P(Robust, NoEnergyFromNothing) {
  for (const char* name : {"human.xml", "knight.xml"}) {
    Character limp = load(name);
    std::ranges::fill(limp.kp, 0.0f);
    std::ranges::fill(limp.kd, 0.5f);  // of joints without any damping Coriolis forces feed on themselves at 120 Hz
    ThreadPool pool(1);
    const auto sim = make_simulator(GetParam(), limp, {}, 1, pool);
    const CharacterState standing = default_state(limp);
    RootState root = standing.root();
    root.pos.z() += 0.8f;
    root.rot = quat_from_exp_map(Vec3(0.1f, 3.0f, 0.0f));
    sim->set_state(0, root, standing.dof_pos, standing.dof_vel);
    const double start = energy_of(limp, sim->state().view(0));
    double least = start;
    for (int i = 0; i < 240; ++i) {
      sim->step(standing.dof_pos);
      const double now = energy_of(limp, sim->state().view(0));
      EXPECT_LT(now, least + 0.01 * start) << name << ", step " << i;
      least = std::min(least, now);
    }
    EXPECT_LT(least, 0.5 * start) << name << ": it fell";
  }
}

// A hand of a hundredth of the body's mass times five hundred.
TEST_P(Robust, MassRatiosOfFiveHundred) {
  constexpr const char* kSword = R"(<mujoco><worldbody><body name="trunk"><freejoint/>
    <geom type="box" size=".2 .2 .2" mass="50"/>
    <body name="arm" pos=".25 0 0"><joint name="arm" axis="0 1 0"/><geom type="capsule" size=".03" fromto="0 0 0 .3 0 0" mass="1"/>
      <body name="tip" pos=".35 0 0"><joint name="tip" type="ball"/><geom type="box" size=".05 .005 .005" pos=".05 0 0" mass=".1"/>
      </body></body></body></worldbody></mujoco>)";
  const Character character = parse_character(kSword, "", "sword");
  ThreadPool pool(1);
  const auto sim = make_simulator(GetParam(), character, {}, 4, pool);
  const CharacterState pose = default_state(character);
  Rng rng(9);
  std::vector<float> targets(4 * static_cast<size_t>(character.num_dofs));
  for (int i = 0; i < 300; ++i) {
    for (float& t : targets) t = rng.uniform(-3.0f, 3.0f);
    sim->step(targets);
  }
  EXPECT_TRUE(is_sane(sim->state(), 50.0f));
  EXPECT_EQ(sim->num_diverged(), 0);
}

// A heavy box thrown at the character knocks it over; both come to rest on the floor.
TEST_P(Robust, ABoxThrownKnocksItOver) {
  const Character character = load("human.xml");
  ThreadPool pool(1);
  const std::vector<Prop> props = {{.name = "crate", .size = Vec3(0.2f, 0.2f, 0.2f), .mass = 20.0f}};
  const auto sim = make_simulator(GetParam(), character, {}, 2, pool, props);
  const CharacterState standing = default_state(character);
  RootState thrown, away;
  thrown.pos = Vec3(1.2f, 0.0f, 1.2f);
  thrown.vel = Vec3(-8.0f, 0.0f, 1.0f);
  away.pos = Vec3(10.0f, 0.0f, 0.2f);
  sim->set_prop(0, 0, thrown);
  sim->set_prop(1, 0, away);
  std::vector<float> targets = standing.dof_pos;
  targets.insert(targets.end(), standing.dof_pos.begin(), standing.dof_pos.end());
  float hit = 0.0f;
  for (int i = 0; i < 15; ++i) {
    sim->step(targets);
    if (i < 6) hit = std::max(hit, ConstVec3Map(sim->state().prop_force.data()).norm());
  }
  EXPECT_GT(hit, 100.0f);
  EXPECT_LT(sim->state().view(0).pos(0).x(), sim->state().view(1).pos(0).x() - 0.1f);
  for (int i = 0; i < 135; ++i) sim->step(targets);
  EXPECT_LT(sim->state().view(0).pos(0).z(), 0.4f);
  // the other environment's crate lies on the floor with its weight
  EXPECT_NEAR(sim->state().prop_pos[3 + 2], 0.2f, 0.002f);
  EXPECT_NEAR(sim->state().prop_force[3 + 2], 20.0f * kGravity, 0.2f);
}

// A ball joint driven beyond a per-axis limit, against the same equation of motion integrated in double with steps of a
// microsecond: I w' + w x I w = kp (target - q) - kd w, less the limit's spring and damper beyond it.
TEST_P(Robust, PerAxisLimitsFollowTheirEquation) {
  constexpr const char* kBall = R"(<mujoco><size nuser_jnt="6"/><worldbody><body name="anchor"><freejoint/>
    <geom type="sphere" size=".1" mass="1e5"/>
    <body name="arm"><joint name="ball" type="ball" stiffness="20" damping="2" armature="0" user="-30 30 -40 40 -50 50"/>
      <inertial pos="0 0 0" mass="1" diaginertia=".1 .2 .15"/><geom type="sphere" size=".01" contype="0" conaffinity="0"/>
    </body></body></worldbody></mujoco>)";
  const Character character = parse_character(kBall, "", "ball");
  PhysicsSettings settings;
  settings.substeps = 100;  // 3 kHz: Euler's steps are then within a part in a hundred of the motion
  settings.self_collision = false;
  ThreadPool pool(1);
  const auto sim = make_simulator(GetParam(), character, settings, 1, pool);
  CharacterState pose = default_state(character);
  RootState root;
  root.pos.z() = 1000.0f;
  sim->set_state(0, root, pose.dof_pos, pose.dof_vel);
  const std::vector<float> target = {1.2f, -0.9f, 0.2f};

  const Eigen::Vector3d inertia(0.1, 0.2, 0.15);
  Eigen::Quaterniond rot = Eigen::Quaterniond::Identity();
  Eigen::Vector3d w = Eigen::Vector3d::Zero(), q = w;
  const double h = 1e-6;
  float furthest = 0.0f;
  for (int step = 0; step < 20; ++step) {
    sim->step(target);
    for (int i = 0; i < static_cast<int>(std::round(1.0 / 30.0 / h)); ++i) {
      const Eigen::AngleAxisd turn(rot);
      q = turn.angle() * turn.axis();
      Eigen::Vector3d torque;
      for (int k = 0; k < 3; ++k) {
        const double excess = q[k] > character.limit_upper[k] ? q[k] - character.limit_upper[k]
                                                              : std::min(q[k] - character.limit_lower[k], 0.0);
        const LimitSpring spring = limit_spring(character, settings, k);
        torque[k] = character.kp[k] * (target[k] - q[k]) - character.kd[k] * w[k];
        if (excess != 0.0) torque[k] -= spring.stiffness * excess + spring.damping * w[k];
      }
      w += h * (torque - w.cross(inertia.cwiseProduct(w).eval())).cwiseQuotient(inertia);
      const double angle = w.norm() * h;
      if (angle > 0.0) rot = (rot * Eigen::Quaterniond(Eigen::AngleAxisd(angle, w.normalized()))).normalized();
    }
    for (int k = 0; k < 3; ++k) ASSERT_NEAR(sim->state().dof_pos[k], q[k], 0.005) << "step " << step << ", axis " << k;
    furthest = std::max(furthest, sim->state().dof_pos[0] - character.limit_upper[0]);
  }
  EXPECT_GT(furthest, 0.01f);  // it was beyond its limit
}

std::string test_name(const testing::TestParamInfo<std::string>& backend) { return backend.param; }
INSTANTIATE_TEST_SUITE_P(, Robust, testing::Values("simd", "scalar", "mujoco"), test_name);

}  // namespace
}  // namespace calm
