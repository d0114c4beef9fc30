// Control steps per second of the simulation backends: what training spends most of its time on.
//
// Every environment starts standing and is driven by targets drawn around the default pose; `spread` is the standard
// deviation of the action. At 0.05 it stands (two feet on the floor), at 1 it falls and lies about thrashing.
// Characters are read from assets/ in the source tree.
// `smooth` is what a substep computes before constraints (kinematics, mass matrix and its factors, bias forces), by
// MuJoCo and by ours, of one environment in double and of as many in float as the processor has lanes.
#include <benchmark/benchmark.h>

#include <experimental/simd>

#include "base/rng.h"
#include "character/mujoco_model.h"
#include "sim/simulator.h"
#include "sim/smooth_dynamics.h"

namespace calm {
namespace {

constexpr int kEnvs = 32;
constexpr int kEpisode = 100;  // steps until an environment is stood up again

void step(benchmark::State& bench, const char* name, float spread, bool self_collision) {
  const Character character = load_character(std::filesystem::path(CALM_SOURCE_DIR) / "assets/characters" / name);
  ThreadPool pool(static_cast<int>(bench.range(0)));
  PhysicsSettings settings;
  settings.self_collision = self_collision;
  const auto simulator = make_simulator("mujoco", character, settings, kEnvs, pool);
  const CharacterState standing = default_state(character);
  std::vector<float> targets(static_cast<size_t>(kEnvs) * character.num_dofs);
  Rng rng(1);

  int64_t steps = 0;
  for (auto _ : bench) {
    for (int env = 0; env < kEnvs; ++env) {
      // spread the starts, so that every iteration meets all phases of an episode
      if ((steps + env * kEpisode / kEnvs) % kEpisode == 0) {
        simulator->set_state(env, standing.root(), standing.dof_pos, standing.dof_vel);
      }
      for (int i = 0; i < character.num_dofs; ++i) {
        targets[static_cast<size_t>(env) * character.num_dofs + i] =
            standing.dof_pos[i] + character.action_scale[i] * std::clamp(spread * rng.normal(), -1.0f, 1.0f);
      }
    }
    simulator->step(targets);
    ++steps;
  }
  if (simulator->num_diverged() != 0) bench.SkipWithError("environments diverged");
  bench.counters["control_steps"] = benchmark::Counter(static_cast<double>(steps * kEnvs), benchmark::Counter::kIsRate);
}

#define CALM_STEP_BENCHMARK(label, ...) \
  BENCHMARK_CAPTURE(step, label, __VA_ARGS__)->ArgName("threads")->Arg(1)->Arg(2)->UseRealTime()

CALM_STEP_BENCHMARK(human_stands, "human.xml", 0.05f, true);
CALM_STEP_BENCHMARK(human_stands_no_self_collision, "human.xml", 0.05f, false);
CALM_STEP_BENCHMARK(human_random, "human.xml", 1.0f, true);
CALM_STEP_BENCHMARK(human_random_no_self_collision, "human.xml", 1.0f, false);
CALM_STEP_BENCHMARK(knight_stands, "knight.xml", 0.05f, true);
CALM_STEP_BENCHMARK(knight_random, "knight.xml", 1.0f, true);

void smooth_of_mujoco(benchmark::State& bench) {
  const Character character = load_character(CALM_SOURCE_DIR "/assets/characters/human.xml");
  const MujocoModel model = compile_mjcf(to_mjcf(character), character.name);
  const MujocoData data(mj_makeData(model.get()));
  for (auto _ : bench) {
    mj_kinematics(model.get(), data.get());
    mj_comPos(model.get(), data.get());
    mj_crb(model.get(), data.get());
    mj_factorM(model.get(), data.get());
    mj_comVel(model.get(), data.get());
    mj_rne(model.get(), data.get(), 0, data->qfrc_bias);
    benchmark::DoNotOptimize(data->qfrc_bias[0]);
  }
  bench.counters["substeps"] = benchmark::Counter(static_cast<double>(bench.iterations()), benchmark::Counter::kIsRate);
}

template <class Real>
void smooth(benchmark::State& bench) {
  const Articulation a = make_articulation(load_character(CALM_SOURCE_DIR "/assets/characters/human.xml"));
  SmoothDynamics<Real> dynamics(a);
  std::vector<Real> positions(a.num_positions, Real(0)), velocities(a.num_velocities, Real(0.1f));
  positions[3] = Real(1);
  for (const auto& joint : a.joints)
    if (joint.kind == JointKind::kBall) positions[joint.position] = Real(1);
  for (auto _ : bench) {
    dynamics.forward(positions, velocities, 9.81);
    dynamics.factorise({});
    benchmark::DoNotOptimize(dynamics.factor.data());
    benchmark::ClobberMemory();
  }
  bench.counters["substeps"] = benchmark::Counter(
      static_cast<double>(bench.iterations()) * (sizeof(Real) > 8 ? sizeof(Real) / 4 : 1), benchmark::Counter::kIsRate);
}

BENCHMARK(smooth_of_mujoco);
BENCHMARK(smooth<double>);
BENCHMARK(smooth<std::experimental::native_simd<float>>);

}  // namespace
}  // namespace calm

BENCHMARK_MAIN();
