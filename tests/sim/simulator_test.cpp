// Every backend against the laws of physics, and the promises of the seam: nothing depends on threads or on how many
// environments there are, saved states repeat bitwise, an environment that goes wrong harms no other.
#include "sim/simulator.h"

#include <gtest/gtest.h>

#include <limits>

#include "base/error.h"
#include "base/rng.h"
#include "character/mujoco_model.h"

namespace calm {
namespace {

constexpr float kGravity = 9.81f;

const Character& human() {
  static const Character character =
      load_character(std::filesystem::path(CALM_SOURCE_DIR) / "assets/characters/human.xml");
  return character;
}

class Backend : public testing::TestWithParam<std::string> {};

std::vector<float> repeat(const std::vector<float>& row, int n) {
  std::vector<float> rows;
  for (int i = 0; i < n; ++i) rows.insert(rows.end(), row.begin(), row.end());
  return rows;
}

RootState lifted(float height) {
  RootState root = default_state(human()).root();
  root.pos.z() += height;
  return root;
}

// Centre of mass, momentum and energy of a batch's first environment, from its views alone.
struct Mechanics {
  Eigen::Vector3d momentum = Eigen::Vector3d::Zero(), angular_momentum = Eigen::Vector3d::Zero();
  double energy = 0.0, height = 0.0;

  Mechanics(const Character& character, const CharacterStateView& view) {
    Eigen::Vector3d com = Eigen::Vector3d::Zero();
    for (int pass = 0; pass < 2; ++pass) {
      for (int b = 0; b < character.num_bodies(); ++b) {
        const Body& body = character.bodies[b];
        const Eigen::Quaterniond rot = Quat(view.rot(b)).cast<double>();
        const Eigen::Vector3d arm = rot * body.com.cast<double>(), w = view.ang_vel(b).cast<double>();
        const Eigen::Vector3d pos = view.pos(b).cast<double>() + arm;
        if (pass == 0) {
          com += body.mass / character.total_mass() * pos;
          continue;
        }
        const Eigen::Vector3d vel = view.vel(b).cast<double>() + w.cross(arm);
        const Eigen::Matrix3d axes = (rot * body.inertia_rot.cast<double>()).toRotationMatrix();
        const Eigen::Vector3d spin = axes * body.inertia.cast<double>().asDiagonal() * axes.transpose() * w;
        momentum += body.mass * vel;
        angular_momentum += body.mass * (pos - com).cross(vel) + spin;
        energy += 0.5 * body.mass * vel.squaredNorm() + 0.5 * w.dot(spin) + body.mass * kGravity * pos.z();
      }
    }
    height = com.z();
  }
};

TEST_P(Backend, FallsFreely) {
  ThreadPool pool(1);
  const auto sim = make_simulator(GetParam(), human(), {}, 1, pool);
  const CharacterState standing = default_state(human());
  sim->set_state(0, lifted(5.0f), standing.dof_pos, standing.dof_vel);
  const double start = Mechanics(human(), sim->state().view(0)).height;
  const int steps = 24;
  for (int i = 0; i < steps; ++i) sim->step(standing.dof_pos);
  // semi-implicit Euler falls by g h² n (n + 1) / 2, which is g t² / 2 and half a substep more
  const double h = 1.0 / 120.0, n = 4.0 * steps, t = n * h;
  const Mechanics end(human(), sim->state().view(0));
  EXPECT_NEAR(start - end.height, kGravity * h * h * n * (n + 1) / 2, 1e-4);
  EXPECT_NEAR(start - end.height, kGravity * t * t / 2, 0.02 * kGravity * t * t / 2);
  EXPECT_NEAR(end.momentum.z(), -human().total_mass() * kGravity * t, 0.02);
  for (float force : sim->state().contact_force) EXPECT_EQ(force, 0.0f);
}

TEST_P(Backend, StandsOnItsFeetWithItsWeight) {
  // with its own gains a body held straight tips over, as an inverted pendulum on springs does: ankles, knees and hips
  // in series yield more than gravity pulls; stiff ones show the contacts alone
  Character stiff = human();
  for (float& kp : stiff.kp) kp *= 10.0f;
  ThreadPool pool(1);
  const auto sim = make_simulator(GetParam(), stiff, {}, 1, pool);
  const CharacterState standing = default_state(stiff);
  for (int i = 0; i < 60; ++i) sim->step(standing.dof_pos);
  const Vec3 settled = sim->state().view(0).pos(0);
  for (int i = 0; i < 60; ++i) sim->step(standing.dof_pos);

  Vec3 total = Vec3::Zero();
  for (int b = 0; b < stiff.num_bodies(); ++b) {
    const Vec3 force = ConstVec3Map(&sim->state().contact_force[3 * b]);
    total += force;
    const bool foot = std::ranges::find(stiff.feet, b) != stiff.feet.end();
    EXPECT_EQ(force.norm() > 1.0f, foot) << stiff.bodies[b].name;
  }
  const float weight = stiff.total_mass() * kGravity;
  EXPECT_NEAR(total.z(), weight, 0.01f * weight);
  EXPECT_LT(total.head<2>().norm(), 0.01f * weight);
  EXPECT_LT((sim->state().view(0).pos(0) - settled).norm(), 0.005f);
  EXPECT_NEAR(settled.z(), stiff.stand_height, 0.01f);
  EXPECT_EQ(sim->num_diverged(), 0);
}

TEST_P(Backend, KeepsMomentumAndEnergyInTheAir) {
  Character passive = human();
  std::ranges::fill(passive.kp, 0.0f);
  std::ranges::fill(passive.kd, 0.0f);
  std::ranges::fill(passive.armature, 0.0f);
  // hinges must not meet their limits, which dissipate
  std::ranges::fill(passive.limit_lower, -3.0f);
  std::ranges::fill(passive.limit_upper, 3.0f);
  PhysicsSettings settings;
  settings.self_collision = false;
  settings.substeps = 40;
  ThreadPool pool(1);
  const auto sim = make_simulator(GetParam(), passive, settings, 1, pool);
  CharacterState pose = default_state(passive);
  RootState root = lifted(20.0f);
  root.vel = Vec3(1.0f, -0.5f, 3.0f);
  root.ang_vel = Vec3(0.3f, 2.0f, -0.4f);
  Rng rng(3);
  for (int i = 0; i < passive.num_dofs; ++i)
    pose.dof_pos[i] = 0.2f * rng.normal(), pose.dof_vel[i] = 0.5f * rng.normal();
  sim->set_state(0, root, pose.dof_pos, pose.dof_vel);
  const Mechanics start(passive, sim->state().view(0));
  for (int i = 0; i < 30; ++i) sim->step(pose.dof_pos);
  const Mechanics end(passive, sim->state().view(0));
  const Eigen::Vector3d fall(0.0, 0.0, -kGravity * passive.total_mass());
  EXPECT_LT((end.momentum - start.momentum - fall).norm(), 2e-4 * fall.norm());
  EXPECT_LT((end.angular_momentum - start.angular_momentum).norm(), 0.01 * start.angular_momentum.norm());
  // potential energy is thousands of joules; what counts is the change against the kinetic energy
  const double kinetic = start.energy - passive.total_mass() * kGravity * start.height;
  EXPECT_NEAR(end.energy, start.energy, 0.02 * kinetic + 0.05 * passive.total_mass());
}

TEST_P(Backend, DrivesReachTheirTargets) {
  PhysicsSettings settings;
  settings.self_collision = false;
  ThreadPool pool(1);
  const auto sim = make_simulator(GetParam(), human(), settings, 1, pool);
  const CharacterState standing = default_state(human());
  RootState root = lifted(50.0f);  // falling freely, so that nothing loads the drives
  sim->set_state(0, root, standing.dof_pos, standing.dof_vel);
  std::vector<float> target(human().num_dofs);
  Rng rng(5);
  for (int i = 0; i < human().num_dofs; ++i) {
    target[i] = rng.uniform(0.6f * human().limit_lower[i], 0.6f * human().limit_upper[i]);
  }
  for (int i = 0; i < 60; ++i) sim->step(target);
  for (int i = 0; i < human().num_dofs; ++i) EXPECT_NEAR(sim->state().dof_pos[i], target[i], 0.03f) << i;
}

// One substep without contact must be the implicit step of the spring and damper, worked out here from MuJoCo's own
// mass matrix: (M + h kd + h² kp) v' = M v + h (kp (target - q) - bias).
TEST_P(Backend, DrivesAreImplicit) {
  PhysicsSettings settings;
  settings.self_collision = false;
  settings.substeps = 1;
  settings.control_rate = 120.0f;
  ThreadPool pool(1);
  const auto sim = make_simulator(GetParam(), human(), settings, 1, pool);
  CharacterState pose = default_state(human());
  Rng rng(8);
  std::vector<float> target(human().num_dofs);
  for (int i = 0; i < human().num_dofs; ++i) {
    const float middle = 0.5f * (human().limit_lower[i] + human().limit_upper[i]);
    const float half = 0.5f * (human().limit_upper[i] - human().limit_lower[i]);
    pose.dof_pos[i] = middle + 0.5f * half * rng.uniform(-1.0f, 1.0f);
    target[i] = middle + half * rng.uniform(-1.0f, 1.0f);
    pose.dof_vel[i] = rng.normal();
  }
  RootState root = lifted(5.0f);
  root.ang_vel = Vec3(1.0f, 2.0f, 3.0f);
  sim->set_state(0, root, pose.dof_pos, pose.dof_vel);
  const auto before = sim->save(0);

  const MujocoModel m = compile_mjcf(to_mjcf(human()), "human");
  const MujocoData d(mj_makeData(m.get()));
  for (int i = 0; i < human().num_dofs; ++i) m->dof_armature[6 + i] = human().armature[i];
  std::copy_n(before.begin(), m->nq, d->qpos);
  std::copy_n(before.begin() + m->nq, m->nv, d->qvel);
  mj_forward(m.get(), d.get());
  Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> mass(m->nv, m->nv);
  for (int i = 0; i < m->nv; ++i) mj_mulM(m.get(), d.get(), &mass(i, 0), Eigen::VectorXd::Unit(m->nv, i).eval().data());
  const double h = 1.0 / 120.0;
  Eigen::VectorXd right(m->nv);
  mj_mulM(m.get(), d.get(), right.data(), d->qvel);
  right -= h * Eigen::Map<Eigen::VectorXd>(d->qfrc_bias, m->nv);
  for (int i = 0; i < human().num_dofs; ++i) {
    mass(6 + i, 6 + i) += h * human().kd[i] + h * h * human().kp[i];
    right[6 + i] += h * human().kp[i] * (target[i] - sim->state().dof_pos[i]);
  }
  std::vector<double> expected(m->nv);
  mju_cholFactor(mass.data(), m->nv, 0.0);
  mju_cholSolve(expected.data(), mass.data(), right.data(), m->nv);
  sim->step(target);
  const auto after = sim->save(0);
  for (int i = 0; i < m->nv; ++i) EXPECT_NEAR(after[m->nq + i], expected[i], 1e-4) << i;
}

// The oracle for contacts: stock mj_step of the same MJCF with drives in armature and applied force, all options at
// their defaults but the time step. Followed substep by substep through a landing on the feet and what comes after.
TEST_P(Backend, AgreesWithStockMujocoInContact) {
  PhysicsSettings settings;
  settings.substeps = 1;
  settings.control_rate = 120.0f;
  settings.solver_iterations = 100;
  ThreadPool pool(1);
  const auto sim = make_simulator(GetParam(), human(), settings, 1, pool);
  const CharacterState standing = default_state(human());
  RootState root = lifted(0.05f);
  root.ang_vel = Vec3(0.0f, 0.5f, 0.2f);
  sim->set_state(0, root, standing.dof_pos, standing.dof_vel);

  const MujocoModel m = compile_mjcf(to_mjcf(human()), "human");
  const MujocoData d(mj_makeData(m.get()));
  const double h = 1.0 / 120.0;
  m->opt.timestep = h;
  for (int i = 0; i < human().num_dofs; ++i) {
    m->dof_armature[6 + i] = human().armature[i] + h * human().kd[i] + h * h * human().kp[i];
  }
  mj_setConst(m.get(), d.get());
  int contacts = 0;
  for (int step = 0; step < 90; ++step) {
    const auto before = sim->save(0);
    std::copy_n(before.begin(), m->nq, d->qpos);
    std::copy_n(before.begin() + m->nq, m->nv, d->qvel);
    for (int i = 0; i < human().num_dofs; ++i) {
      const double kp = human().kp[i], kd = human().kd[i];
      d->qfrc_applied[6 + i] = kp * (standing.dof_pos[i] - sim->state().dof_pos[i]) - (kd + h * kp) * d->qvel[6 + i];
      if (human().joints[human().dof_joint[i]].kind == JointKind::kBall) {  // stock MuJoCo lacks the limits per axis
        ASSERT_GT(sim->state().dof_pos[i], human().limit_lower[i]);
        ASSERT_LT(sim->state().dof_pos[i], human().limit_upper[i]);
      }
    }
    mj_step(m.get(), d.get());
    contacts += d->ncon;
    sim->step(standing.dof_pos);
    const auto after = sim->save(0);
    // our target minus position is read from float32 here: 1e-7 rad of a drive of 1000 N m / rad
    for (int i = 0; i < m->nv; ++i) ASSERT_NEAR(after[m->nq + i], d->qvel[i], 2e-4) << step << ", velocity " << i;
  }
  EXPECT_GT(contacts, 100);
}

TEST_P(Backend, BallJointLimitsHoldPerAxis) {
  PhysicsSettings settings;
  settings.self_collision = false;
  ThreadPool pool(1);
  const auto sim = make_simulator(GetParam(), human(), settings, 1, pool);
  const CharacterState standing = default_state(human());
  for (int i = 0; i < human().num_dofs; ++i) {
    if (human().joints[human().dof_joint[i]].kind != JointKind::kBall) continue;
    for (const float limit : {human().limit_lower[i], human().limit_upper[i]}) {
      if (std::abs(limit) > 2.0f) continue;  // so near half a turn the exponential map would jump
      const float beyond = std::copysign(0.5f, limit);
      sim->set_state(0, lifted(50.0f), standing.dof_pos, standing.dof_vel);
      std::vector<float> target = standing.dof_pos;
      target[i] = limit + beyond;
      for (int step = 0; step < 45; ++step) sim->step(target);
      const float excess = (sim->state().dof_pos[i] - limit) * std::copysign(1.0f, limit);
      EXPECT_GT(excess, 0.0f) << i;  // it does get there
      EXPECT_LT(excess, 0.04f) << i;
    }
  }
}

TEST_P(Backend, HingeLimitsHold) {
  ThreadPool pool(1);
  const auto sim = make_simulator(GetParam(), human(), {}, 1, pool);
  const CharacterState standing = default_state(human());
  for (int i = 0; i < human().num_dofs; ++i) {
    if (human().joints[human().dof_joint[i]].kind != JointKind::kHinge) continue;
    const bool lower = human().limit_upper[i] > 0.5f;  // push against the straight limb
    const float limit = lower ? human().limit_lower[i] : human().limit_upper[i];
    sim->set_state(0, lifted(50.0f), standing.dof_pos, standing.dof_vel);
    std::vector<float> target = standing.dof_pos;
    target[i] = limit + (lower ? -0.5f : 0.5f);
    for (int step = 0; step < 45; ++step) sim->step(target);
    EXPECT_NEAR(sim->state().dof_pos[i], limit, 0.1f) << i;
  }
}

TEST_P(Backend, ReportsTheStateItWasSetTo) {
  ThreadPool pool(1);
  const auto sim = make_simulator(GetParam(), human(), {}, 2, pool);
  CharacterState pose = default_state(human());
  RootState root;
  root.pos = Vec3(1.0f, -2.0f, 3.0f);
  root.rot = quat_from_exp_map(Vec3(0.5f, -1.0f, 2.0f));
  root.vel = Vec3(0.1f, 0.2f, 0.3f);
  root.ang_vel = Vec3(1.0f, -2.0f, 0.5f);
  Rng rng(2);
  for (int i = 0; i < human().num_dofs; ++i) pose.dof_pos[i] = 0.5f * rng.normal(), pose.dof_vel[i] = rng.normal();
  forward_kinematics(human(), root, pose);
  sim->set_state(1, root, pose.dof_pos, pose.dof_vel);
  const auto view = sim->state().view(1);
  for (int b = 0; b < human().num_bodies(); ++b) {
    EXPECT_LT((view.pos(b) - pose.view().pos(b)).norm(), 1e-5f);
    EXPECT_LT(Quat(view.rot(b)).angularDistance(Quat(pose.view().rot(b))), 2e-3f);
    EXPECT_LT((view.vel(b) - pose.view().vel(b)).norm(), 1e-5f);
    EXPECT_LT((view.ang_vel(b) - pose.view().ang_vel(b)).norm(), 1e-5f);
  }
}

// The views are computed by our own kinematics; a small step must move them as their velocities say.
TEST_P(Backend, VelocitiesAreRatesOfPositions) {
  PhysicsSettings settings;
  settings.substeps = 1;
  settings.control_rate = 10000.0f;
  ThreadPool pool(1);
  const auto sim = make_simulator(GetParam(), human(), settings, 1, pool);
  CharacterState pose = default_state(human());
  RootState root = lifted(5.0f);
  root.pos.z() = 0.9f;  // small coordinates keep float32 exact enough
  root.rot = quat_from_exp_map(Vec3(0.0f, 0.0f, 1.0f));
  root.pos.z() += 1.0f;
  root.vel = Vec3(1.0f, 2.0f, 3.0f);
  root.ang_vel = Vec3(3.0f, -2.0f, 1.0f);
  Rng rng(2);
  for (int i = 0; i < human().num_dofs; ++i)
    pose.dof_pos[i] = 0.2f * rng.normal(), pose.dof_vel[i] = 2.0f * rng.normal();
  sim->set_state(0, root, pose.dof_pos, pose.dof_vel);
  const BatchState before = sim->state();
  const int steps = 10;
  for (int i = 0; i < steps; ++i) sim->step(before.dof_pos);
  for (int b = 0; b < human().num_bodies(); ++b) {
    const Vec3 rate = (sim->state().view(0).pos(b) - before.view(0).pos(b)) * (10000.0f / steps);
    const Vec3 mean = 0.5f * (sim->state().view(0).vel(b) + before.view(0).vel(b));
    EXPECT_LT((rate - mean).norm(), 0.05f) << human().bodies[b].name;
  }
}

TEST_P(Backend, FloorFrictionIsTheSetting) {
  // slid along the floor, friction slows it by no more than mu g
  Character slippery = human();
  for (Shape& shape : slippery.shapes) shape.friction = Vec3::Zero();
  ThreadPool pool(1);
  const CharacterState standing = default_state(slippery);
  float speed[2];
  for (int rough = 0; rough < 2; ++rough) {
    PhysicsSettings settings;
    settings.floor_friction = rough ? 1.0f : 0.01f;
    const auto sim = make_simulator(GetParam(), slippery, settings, 1, pool);
    RootState root = standing.root();
    root.vel = Vec3(0.0f, 0.3f, 0.0f);
    sim->set_state(0, root, standing.dof_pos, standing.dof_vel);
    for (int i = 0; i < 10; ++i) sim->step(standing.dof_pos);
    speed[rough] = sim->state().view(0).vel(slippery.feet[0]).y();
  }
  EXPECT_NEAR(speed[0], 0.3f - 0.01f * kGravity / 3.0f, 0.03f);
  EXPECT_LT(std::abs(speed[1]), 0.1f);
}

TEST_P(Backend, SelfCollisionKeepsLimbsApart) {
  // both legs driven inwards, in the air: without self-collision they pass through each other
  const CharacterState standing = default_state(human());
  ThreadPool pool(1);
  std::vector<float> target = standing.dof_pos;
  for (const Joint& joint : human().joints) {
    if (joint.name == "right_hip") target[joint.dof] = 0.5f;
    if (joint.name == "left_hip") target[joint.dof] = -0.5f;
  }
  float distance[2];
  float force[2];
  for (int on = 0; on < 2; ++on) {
    PhysicsSettings settings;
    settings.self_collision = on == 1;
    const auto sim = make_simulator(GetParam(), human(), settings, 1, pool);
    sim->set_state(0, lifted(20.0f), standing.dof_pos, standing.dof_vel);
    for (int i = 0; i < 30; ++i) sim->step(target);
    const auto view = sim->state().view(0);
    const int right = human().body_index("right_shin"), left = human().body_index("left_shin");
    distance[on] = (Quat(view.rot(0)).conjugate() * (view.pos(left) - view.pos(right))).y();
    Vec3 total = Vec3::Zero();
    force[on] = 0.0f;
    for (int b = 0; b < human().num_bodies(); ++b) {
      total += ConstVec3Map(&sim->state().contact_force[3 * b]);
      force[on] += ConstVec3Map(&sim->state().contact_force[3 * b]).norm();
    }
    EXPECT_LT(total.norm(), 0.01f);  // action and reaction
  }
  EXPECT_LT(distance[0], 0.0f);
  EXPECT_GT(distance[1], 0.03f);
  EXPECT_EQ(force[0], 0.0f);
  EXPECT_GT(force[1], 1.0f);
}

TEST_P(Backend, PushChangesTheSpeedOfABody) {
  ThreadPool pool(1);
  PhysicsSettings settings;
  settings.control_rate = 3000.0f;  // short, so that drives and gravity change little
  const auto sim = make_simulator(GetParam(), human(), settings, 1, pool);
  const CharacterState standing = default_state(human());
  const int head = human().body_index("head");
  const Vec3 change(1.0f, -0.5f, 0.25f);
  sim->set_state(0, lifted(5.0f), standing.dof_pos, standing.dof_vel);
  sim->push(0, head, change);
  sim->step(standing.dof_pos);
  const auto view = sim->state().view(0);
  const Vec3 arm = view.rot(head) * human().bodies[head].com;
  const Vec3 vel = view.vel(head) + view.ang_vel(head).cross(arm);
  EXPECT_LT((vel - change).norm(), 0.1f) << vel.transpose();
  EXPECT_THROW(sim->push(0, human().num_bodies(), change), Error);
}

// Random targets over fallen characters: the harshest ordinary states.
std::vector<std::vector<float>> random_run(const std::string& backend, int threads, int envs, int steps, float spread) {
  ThreadPool pool(threads);
  const auto sim = make_simulator(backend, human(), {}, envs, pool);
  const CharacterState standing = default_state(human());
  std::vector<Rng> rngs;
  for (int e = 0; e < envs; ++e) {
    rngs.emplace_back(7, e);
    RootState root = lifted(0.3f);
    root.rot = quat_from_exp_map(Vec3(rngs[e].normal(), rngs[e].normal(), rngs[e].normal()));
    sim->set_state(e, root, standing.dof_pos, standing.dof_vel);
  }
  std::vector<float> targets(static_cast<size_t>(envs) * human().num_dofs);
  for (int i = 0; i < steps; ++i) {
    for (int e = 0; e < envs; ++e) {
      for (int k = 0; k < human().num_dofs; ++k) {
        targets[static_cast<size_t>(e) * human().num_dofs + k] =
            human().action_offset[k] + spread * human().action_scale[k] * rngs[e].uniform(-1.0f, 1.0f);
      }
    }
    sim->step(targets);
  }
  EXPECT_EQ(sim->num_diverged(), 0);
  std::vector<std::vector<float>> rows;
  const BatchState& s = sim->state();
  for (int e = 0; e < envs; ++e) {
    auto& row = rows.emplace_back();
    const auto add = [&](const std::vector<float>& values, int width) {
      row.insert(row.end(), values.begin() + e * width, values.begin() + (e + 1) * width);
    };
    add(s.body_pos, 3 * s.num_bodies), add(s.body_rot, 4 * s.num_bodies), add(s.body_vel, 3 * s.num_bodies);
    add(s.body_ang_vel, 3 * s.num_bodies), add(s.dof_pos, s.num_dofs), add(s.dof_vel, s.num_dofs);
    add(s.contact_force, 3 * s.num_bodies);
  }
  return rows;
}

TEST_P(Backend, ResultsDependNeitherOnThreadsNorOnTheBatch) {
  const auto reference = random_run(GetParam(), 1, 5, 45, 0.7f);
  for (const auto& [threads, envs] : {std::pair{2, 5}, {3, 5}, {1, 1}, {2, 37}}) {
    const auto rows = random_run(GetParam(), threads, envs, 45, 0.7f);
    for (int e = 0; e < std::min(envs, 5); ++e) EXPECT_EQ(rows[e], reference[e]) << threads << " threads, env " << e;
  }
}

TEST_P(Backend, SavedStatesRepeatBitwise) {
  ThreadPool pool(2);
  const auto sim = make_simulator(GetParam(), human(), {}, 3, pool);
  const auto other = make_simulator(GetParam(), human(), {}, 2, pool);
  const CharacterState standing = default_state(human());
  std::vector<float> targets = repeat(standing.dof_pos, 3);
  Rng rng(4);
  for (float& t : targets) t += 0.6f * rng.normal();
  for (int i = 0; i < 30; ++i) sim->step(targets);
  const auto saved = sim->save(1);
  const BatchState middle = sim->state();

  for (int i = 0; i < 20; ++i) sim->step(targets);
  const auto expected = sim->save(1);
  sim->restore(1, saved);
  EXPECT_EQ(sim->state().body_vel[3 * human().num_bodies()], middle.body_vel[3 * human().num_bodies()]);
  for (int i = 0; i < 20; ++i) sim->step(targets);
  EXPECT_EQ(sim->save(1), expected);

  // in another simulator, at another place
  other->restore(0, saved);
  const std::vector<float> its = repeat({&targets[human().num_dofs], &targets[2 * human().num_dofs]}, 2);
  for (int i = 0; i < 20; ++i) other->step(its);
  EXPECT_EQ(other->save(0), expected);
  EXPECT_THROW(sim->restore(0, std::span(saved).first(saved.size() - 1)), Error);
}

TEST_P(Backend, PutsBackWhatIsNotFinite) {
  ThreadPool pool(2);
  const CharacterState standing = default_state(human());
  const auto sim = make_simulator(GetParam(), human(), {}, 3, pool);
  const auto clean = make_simulator(GetParam(), human(), {}, 3, pool);
  for (int i = 0; i < 20; ++i) {
    std::vector<float> targets = repeat(standing.dof_pos, 3);
    for (int k = 0; k < human().num_dofs; ++k) targets[k] += 0.3f * std::sin(static_cast<float>(i * k));
    clean->step(targets);
    const bool bad = i == 7 || i == 12;
    if (i == 7) targets[human().num_dofs + 3] = std::numeric_limits<float>::quiet_NaN();
    if (i == 12) targets[human().num_dofs] = std::numeric_limits<float>::max();
    sim->step(targets);
    EXPECT_EQ(sim->state().diverged[1], bad);
    EXPECT_EQ(sim->state().diverged[0] + sim->state().diverged[2], 0);
    if (bad) {
      for (int k = 0; k < 3; ++k) EXPECT_NEAR(sim->state().view(1).pos(4)[k], standing.view().pos(4)[k], 1e-5f);
    }
  }
  EXPECT_EQ(sim->num_diverged(), 2);
  EXPECT_EQ(sim->save(0), clean->save(0));
  EXPECT_EQ(sim->save(2), clean->save(2));
  for (float value : sim->state().body_pos) EXPECT_TRUE(std::isfinite(value));
}

TEST_P(Backend, HugeTargetsStayFinite) {
  ThreadPool pool(1);
  const CharacterState standing = default_state(human());
  const auto sim = make_simulator(GetParam(), human(), {}, 1, pool);
  for (const float size : {10.0f, 1e3f, 1e6f, 1e20f, -1e38f}) {
    std::vector<float> targets = standing.dof_pos;
    for (int k = 0; k < human().num_dofs; k += 2) targets[k] = size;
    for (int i = 0; i < 10; ++i) sim->step(targets);
    for (float value : sim->state().body_vel) ASSERT_TRUE(std::isfinite(value)) << size;
    for (float value : sim->state().body_pos) ASSERT_TRUE(std::isfinite(value)) << size;
  }
  for (int i = 0; i < 5; ++i) sim->step(standing.dof_pos);
  EXPECT_EQ(sim->state().diverged[0], 0);
}

TEST_P(Backend, DroppedOnItsHeadAndThrashingItStaysInBounds) {
  ThreadPool pool(1);
  PhysicsSettings settings;
  const auto sim = make_simulator(GetParam(), human(), settings, 2, pool);
  const CharacterState standing = default_state(human());
  RootState root = lifted(1.5f);
  root.rot = quat_from_exp_map(Vec3(0.0f, kPi, 0.0f));
  for (int e = 0; e < 2; ++e) sim->set_state(e, root, standing.dof_pos, standing.dof_vel);
  Rng rng(11);
  std::vector<float> targets(2 * static_cast<size_t>(human().num_dofs));
  for (int i = 0; i < 300; ++i) {
    for (size_t k = 0; k < targets.size(); ++k) {
      const size_t dof = k % human().num_dofs;
      targets[k] = human().action_offset[dof] + human().action_scale[dof] * rng.uniform(-1.0f, 1.0f);
    }
    sim->step(targets);
    for (int e = 0; e < 2; ++e) {
      const auto view = sim->state().view(e);
      ASSERT_TRUE(view.pos(0).allFinite());
      ASSERT_LT(view.pos(0).z(), 5.0f) << i;
      ASSERT_GT(view.pos(0).z(), -0.5f) << i;  // not through the floor
      ASSERT_LE(view.ang_vel(0).norm(), settings.max_ang_vel * 1.001f);
    }
  }
  EXPECT_EQ(sim->num_diverged(), 0);
  EXPECT_EQ(sim->num_overflows(), 0);
}

TEST_P(Backend, RefusesWhatItCannotDo) {
  ThreadPool pool(1);
  EXPECT_THROW(make_simulator("physx", human(), {}, 1, pool), Error);
  EXPECT_THROW(make_simulator(GetParam(), human(), {}, 0, pool), Error);
  PhysicsSettings settings;
  settings.substeps = 0;
  EXPECT_THROW(make_simulator(GetParam(), human(), settings, 1, pool), Error);
  const auto sim = make_simulator(GetParam(), human(), {}, 2, pool);
  EXPECT_THROW(sim->step(std::vector<float>(human().num_dofs)), Error);
  CharacterState pose = default_state(human());
  pose.dof_pos[3] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THROW(sim->set_state(0, pose.root(), pose.dof_pos, pose.dof_vel), Error);
}

std::string test_name(const testing::TestParamInfo<std::string>& backend) {
  std::string name = backend.param;
  std::ranges::replace(name, ':', '_');
  return name;
}
INSTANTIATE_TEST_SUITE_P(, Backend, testing::ValuesIn(available_backends()), test_name);

}  // namespace
}  // namespace calm
