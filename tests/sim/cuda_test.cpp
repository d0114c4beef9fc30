// The GPU against the reference in double: the same states and targets, one control step at a time, since contacts make
// motion chaotic. simulator_test.cpp holds "cuda" to what every backend promises; here is what it alone has.
#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.h"
#include "base/rng.h"
#include "sim/simulator.h"
#ifdef CALM_WITH_CUDA
#include "sim/cuda/cuda_simulator.h"
#endif

namespace calm {
namespace {

Character load(const std::string& name) {
  return load_character(std::filesystem::path(CALM_SOURCE_DIR) / "assets/characters" / (name + ".xml"));
}

bool gpu() { return std::ranges::count(available_backends(), "cuda") > 0; }

#define NEEDS_GPU() \
  if (!gpu()) GTEST_SKIP() << "needs a GPU, and a build with CUDA"

TEST(Cuda, SaysWhyItIsNotThere) {
  if (gpu()) GTEST_SKIP() << "it is here";
  const Character human = load("human");
  ThreadPool pool(1);
  try {
    make_simulator("cuda", human, {}, 1, pool);
    FAIL() << "made a simulator without a GPU";
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    EXPECT_NE(std::string(error.what()).find("cuda"), std::string::npos) << error.what();
  }
}

#ifdef CALM_WITH_CUDA

// Environments that fall, lie and thrash, each its own way.
struct Thrash {
  Thrash(const Character& c, Simulator& sim, int envs, int first = 0) : character(c), num_envs(envs) {
    const CharacterState standing = default_state(c);
    targets.resize(static_cast<size_t>(envs) * c.num_dofs);
    for (int e = 0; e < envs; ++e) {
      rngs.emplace_back(17, first + e);
      RootState root = standing.root();
      root.pos.z() += 0.3f;
      root.rot = quat_from_exp_map(Vec3(rngs[e].normal(), rngs[e].normal(), rngs[e].normal()));
      sim.set_state(e, root, standing.dof_pos, standing.dof_vel);
    }
  }
  const std::vector<float>& next() {
    for (int e = 0; e < num_envs; ++e)
      for (int k = 0; k < character.num_dofs; ++k)
        targets[static_cast<size_t>(e) * character.num_dofs + k] =
            character.action_offset[k] + 0.7f * character.action_scale[k] * rngs[e].uniform(-1.0f, 1.0f);
    return targets;
  }

  const Character& character;
  int num_envs;
  std::vector<Rng> rngs;
  std::vector<float> targets;
};

// Greatest difference in each environment.
std::vector<float> differences(const std::vector<float>& a, const std::vector<float>& b, int envs) {
  std::vector<float> out(envs, 0.0f);
  const size_t width = a.size() / envs;
  for (size_t i = 0; i < a.size(); ++i) out[i / width] = std::max(out[i / width], std::abs(a[i] - b[i]));
  return out;
}

float part(std::vector<float> values, double share) {
  std::ranges::sort(values);
  return values[static_cast<size_t>(share * static_cast<double>(values.size() - 1))];
}

class CudaCharacter : public testing::TestWithParam<const char*> {};

TEST_P(CudaCharacter, StepsAsTheReferenceDoes) {
  NEEDS_GPU();
  const Character character = load(GetParam());
  ThreadPool pool;
  const int envs = 32, rounds = 45;
  const auto reference = make_simulator("scalar", character, {}, envs, pool);
  const auto sim = make_simulator("cuda", character, {}, envs, pool);
  Thrash thrash(character, *reference, envs);
  std::vector<float> pos, vel, dof;
  int64_t contacts = 0;
  for (int round = 0; round < rounds; ++round) {
    for (int e = 0; e < envs; ++e) sim->restore(e, reference->save(e));
    const std::vector<float>& targets = thrash.next();
    reference->step(targets), sim->step(targets);
    const BatchState &a = reference->state(), &b = sim->state();
    const auto add = [&](std::vector<float>& to, const std::vector<float>& x, const std::vector<float>& y) {
      for (float d : differences(x, y, envs)) to.push_back(d);
    };
    add(pos, a.body_pos, b.body_pos), add(vel, a.body_vel, b.body_vel), add(dof, a.dof_pos, b.dof_pos);
    for (int count : b.num_contacts) contacts += count;
    for (float residual : b.solver_residual) EXPECT_LT(residual, 1e-3f);
  }
  EXPECT_GT(contacts, envs * rounds);
  EXPECT_EQ(sim->num_diverged(), 0);
  EXPECT_EQ(sim->num_overflows(), 0);
  // most steps differ by rounding, some by a contact that comes a substep sooner or has another of two equal normals
  EXPECT_LT(part(pos, 0.5), 1e-5f);
  EXPECT_LT(part(pos, 0.98), 1e-3f);
  EXPECT_LT(part(pos, 1.0), 0.3f);
  EXPECT_LT(part(vel, 0.5), 2e-3f);
  EXPECT_LT(part(vel, 0.95), 0.1f);
  EXPECT_LT(part(dof, 0.5), 1e-4f);
}

TEST_P(CudaCharacter, ASecondInTheAirIsTheReferences) {
  NEEDS_GPU();
  const Character character = load(GetParam());
  ThreadPool pool(1);
  PhysicsSettings settings;
  settings.self_collision = false;
  const auto reference = make_simulator("scalar", character, settings, 1, pool);
  const auto sim = make_simulator("cuda", character, settings, 1, pool);
  const CharacterState standing = default_state(character);
  RootState root = standing.root();
  root.pos.z() += 30.0f, root.ang_vel = Vec3(1.0f, 0.5f, -0.5f);
  std::vector<float> targets = standing.dof_pos;
  for (size_t k = 0; k < targets.size(); ++k) targets[k] += 0.3f * character.action_scale[k] * (k % 2 ? 1.0f : -1.0f);
  for (Simulator* s : {reference.get(), sim.get()}) s->set_state(0, root, standing.dof_pos, standing.dof_vel);
  for (int i = 0; i < 30; ++i) reference->step(targets), sim->step(targets);
  EXPECT_LT(differences(reference->state().body_pos, sim->state().body_pos, 1)[0], 2e-3f);
  EXPECT_LT(differences(reference->state().dof_pos, sim->state().dof_pos, 1)[0], 2e-3f);
}

INSTANTIATE_TEST_SUITE_P(, CudaCharacter, testing::Values("human", "knight"));

TEST(Cuda, OrderAndNumberOfEnvironmentsDoNotMatter) {
  NEEDS_GPU();
  const Character human = load("human");
  ThreadPool pool;
  const int many = 300, few = 7, first = 100;
  const auto all = make_simulator("cuda", human, {}, many, pool), some = make_simulator("cuda", human, {}, few, pool);
  Thrash of_all(human, *all, many), of_some(human, *some, few, first);
  for (int i = 0; i < 60; ++i) all->step(of_all.next()), some->step(of_some.next());
  for (int e = 0; e < few; ++e) EXPECT_EQ(some->save(e), all->save(first + e)) << e;
  EXPECT_EQ(all->num_diverged(), 0);
}

TEST(Cuda, StepsThatStayOnTheGpuAreTheSame) {
  NEEDS_GPU();
  const Character human = load("human");
  ThreadPool pool;
  const int envs = 40;
  CudaSimulator staying(human, {}, {}, envs, pool), going(human, {}, {}, envs, pool);
  Thrash first(human, staying, envs), second(human, going, envs);
  const CharacterState standing = default_state(human);
  for (int i = 0; i < 30; ++i) {
    // where each DoF is serves as its target
    staying.step_on_device(staying.device_state().dof_pos);
    going.step(std::vector<float>(going.state().dof_pos));
    if (i % 7 != 3) continue;
    for (CudaSimulator* sim : {&staying, &going}) {
      sim->set_state(i, standing.root(), standing.dof_pos, standing.dof_vel);
      sim->push(i + 1, 0, Vec3(0.5f, 0.0f, 0.0f));
    }
  }
  const BatchState &a = staying.state(), &b = going.state();
  EXPECT_EQ(a.body_pos, b.body_pos);
  EXPECT_EQ(a.body_rot, b.body_rot);
  EXPECT_EQ(a.body_vel, b.body_vel);
  EXPECT_EQ(a.body_ang_vel, b.body_ang_vel);
  EXPECT_EQ(a.dof_pos, b.dof_pos);
  EXPECT_EQ(a.dof_vel, b.dof_vel);
  EXPECT_EQ(a.contact_force, b.contact_force);
  EXPECT_EQ(a.num_contacts, b.num_contacts);
  for (int e = 0; e < envs; ++e) EXPECT_EQ(staying.save(e), going.save(e)) << e;
}

TEST(Cuda, WhatIsSetShowsBeforeAndAfterItIsSent) {
  NEEDS_GPU();
  const Character human = load("human");
  const std::vector<Prop> props = {
      {.name = "crate", .size = Vec3(0.2f, 0.2f, 0.2f), .mass = 5.0f, .pos = Vec3(2.0f, 0.0f, 0.2f)},
      {.name = "ball", .kind = ShapeKind::kSphere, .size = Vec3(0.1f, 0.0f, 0.0f), .pos = Vec3(0.0f, 2.0f, 3.0f)}};
  ThreadPool pool(1);
  CudaSimulator sim(human, props, {}, 3, pool);
  const auto reference = make_simulator("scalar", human, {}, 3, pool, props);
  const CharacterState standing = default_state(human);
  RootState root = standing.root(), prop;
  root.pos = Vec3(1.0f, 2.0f, 5.0f), root.vel = Vec3(0.0f, 1.0f, 0.0f);
  prop.pos = Vec3(-1.0f, 0.5f, 4.0f), prop.vel = Vec3(2.0f, 0.0f, 0.0f);
  const std::vector<float> still(3 * static_cast<size_t>(human.num_dofs), 0.0f);
  sim.step(still), reference->step(still);
  for (Simulator* s : {static_cast<Simulator*>(&sim), reference.get()}) {
    s->set_state(1, root, standing.dof_pos, standing.dof_vel);
    s->set_prop(2, 1, prop);
    s->push(0, 0, Vec3(1.0f, 0.0f, 0.0f));
  }
  const auto same = [&](float tolerance) {
    const BatchState &a = reference->state(), &b = sim.state();
    for (const auto& [x, y] : {std::pair{&a.body_pos, &b.body_pos},
                               {&a.body_rot, &b.body_rot},
                               {&a.body_vel, &b.body_vel},
                               {&a.dof_pos, &b.dof_pos},
                               {&a.prop_pos, &b.prop_pos},
                               {&a.prop_rot, &b.prop_rot},
                               {&a.prop_vel, &b.prop_vel}})
      for (float d : differences(*x, *y, 3)) EXPECT_LT(d, tolerance);
  };
  same(1e-3f);
  (void)sim.device_state();  // sends it
  same(1e-3f);
  for (int i = 0; i < 3; ++i) sim.step(still), reference->step(still);
  same(1e-2f);
  const auto saved = sim.save(2);
  sim.restore(0, saved);
  EXPECT_EQ(sim.save(0), saved);
  EXPECT_EQ(sim.state().prop_pos[3], sim.state().prop_pos[2 * 6 + 3]);
}

TEST(Cuda, CountsWhatItHasNoRoomFor) {
  NEEDS_GPU();
  // forty boxes on the floor: a hundred and sixty contacts
  std::string boxes;
  for (int i = 0; i < 40; ++i)
    boxes += fmt::format(R"(<geom type="box" size=".05 .05 .05" pos="{} {} .05" mass="1"/>)", i % 5, i / 5);
  const Character table = parse_character("<mujoco><worldbody><body name=\"table\"><freejoint/>" + boxes +
                                              "<body name=\"lid\" pos=\"0 0 1\"><joint name=\"lid\" axis=\"0 1 0\"/>"
                                              "<geom type=\"sphere\" size=\".1\"/></body></body></worldbody></mujoco>",
                                          "", "table");
  ThreadPool pool(1);
  const auto sim = make_simulator("cuda", table, {}, 2, pool);
  RootState root;
  root.pos.z() = -0.001f;
  const std::vector<float> zero(1, 0.0f);
  for (int e = 0; e < 2; ++e) sim->set_state(e, root, zero, zero);
  for (int i = 0; i < 10; ++i) sim->step(std::vector<float>(2, 0.0f));
  EXPECT_GT(sim->num_overflows(), 0);
  EXPECT_EQ(sim->num_diverged(), 0);
  for (float x : sim->state().body_pos) EXPECT_TRUE(std::isfinite(x));
}

TEST(Cuda, RefusesWhatAThreadHasNoMemoryFor) {
  NEEDS_GPU();
  const Character human = load("human");
  std::vector<Prop> props;
  for (int i = 0; i < 30; ++i)
    props.push_back({.name = fmt::format("crate{}", i), .size = Vec3(0.1f, 0.1f, 0.1f), .pos = Vec3(i, 5.0f, 0.1f)});
  ThreadPool pool(1);
  EXPECT_THROW(make_simulator("cuda", human, {}, 1, pool, props), Error);
}

#endif

}  // namespace
}  // namespace calm
