// Control steps per second of the simulation backends: what training spends most of its time on.
//
// Every environment starts standing and is driven by targets drawn around the default pose; `spread` is the standard
// deviation of the action. At 0.05 it stands (two feet on the floor), at 1 it falls and lies about thrashing.
// Characters are read from assets/ in the source tree.
#include <benchmark/benchmark.h>

#include "base/rng.h"
#include "sim/simulator.h"
#ifdef CALM_WITH_CUDA
#include "sim/cuda/cuda_simulator.h"
#endif

namespace calm {
namespace {

constexpr int kEnvs = 64;
constexpr int kEpisode = 100;  // steps until an environment is stood up again

void step(benchmark::State& bench, const char* backend, const char* name, float spread, bool self_collision) {
  const Character character = load_character(std::filesystem::path(CALM_SOURCE_DIR) / "assets/characters" / name);
  ThreadPool pool(static_cast<int>(bench.range(0)));
  PhysicsSettings settings;
  settings.self_collision = self_collision;
  const auto simulator = make_simulator(backend, character, settings, kEnvs, pool);
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

CALM_STEP_BENCHMARK(human_stands_mujoco, "mujoco", "human.xml", 0.05f, true);
CALM_STEP_BENCHMARK(human_stands_scalar, "scalar", "human.xml", 0.05f, true);
CALM_STEP_BENCHMARK(human_stands_simd, "simd", "human.xml", 0.05f, true);
CALM_STEP_BENCHMARK(human_stands_simd_no_self_collision, "simd", "human.xml", 0.05f, false);
CALM_STEP_BENCHMARK(human_random_mujoco, "mujoco", "human.xml", 1.0f, true);
CALM_STEP_BENCHMARK(human_random_simd, "simd", "human.xml", 1.0f, true);
CALM_STEP_BENCHMARK(knight_stands_mujoco, "mujoco", "knight.xml", 0.05f, true);
CALM_STEP_BENCHMARK(knight_stands_simd, "simd", "knight.xml", 0.05f, true);

#ifdef CALM_WITH_CUDA
// Nothing goes through the processor; where each DoF is serves as its target, so that characters slump and lie.
void step_on_device(benchmark::State& bench, const char* name) {
  if (!CudaEngine::available()) return bench.SkipWithError("no GPU here");
  const Character character = load_character(std::filesystem::path(CALM_SOURCE_DIR) / "assets/characters" / name);
  ThreadPool pool(1);
  const int envs = static_cast<int>(bench.range(0)), steps = 30;
  CudaSimulator simulator(character, {}, {}, envs, pool);
  for (auto _ : bench) {
    for (int i = 0; i < steps; ++i) simulator.step_on_device(simulator.device_state().dof_pos);
    benchmark::DoNotOptimize(simulator.num_diverged());  // waits
  }
  if (simulator.num_diverged() + simulator.num_overflows() != 0) bench.SkipWithError("environments diverged");
  bench.counters["control_steps"] =
      benchmark::Counter(static_cast<double>(bench.iterations()) * steps * envs, benchmark::Counter::kIsRate);
}
BENCHMARK_CAPTURE(step_on_device, human, "human.xml")->ArgName("envs")->Arg(4096)->Arg(16384)->UseRealTime();
BENCHMARK_CAPTURE(step_on_device, knight, "knight.xml")->ArgName("envs")->Arg(4096)->Arg(16384)->UseRealTime();
#endif

}  // namespace
}  // namespace calm

BENCHMARK_MAIN();
