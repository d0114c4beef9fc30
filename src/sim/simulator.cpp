#include "sim/simulator.h"

#include <algorithm>

#include <fmt/ranges.h>

#include "base/error.h"
#include "sim/lane_simulator.h"
#include "sim/mujoco_simulator.h"
#ifdef CALM_WITH_CUDA
#include "sim/cuda/cuda_simulator.h"
#endif

namespace calm {

namespace {

using MakeLanes = std::unique_ptr<Engine<float>> (*)(const ModelView<float>&);

struct Width {
  const char* name;
  bool (*here)();
  MakeLanes make;
};

// Widest first.
constexpr Width kWidths[] = {
#ifdef CALM_WITH_X86_LANES
    {"simd:avx512", [] { return __builtin_cpu_supports("x86-64-v4") != 0; }, make_avx512_engine},
    {"simd:avx2", [] { return __builtin_cpu_supports("x86-64-v3") != 0; }, make_avx2_engine},
#endif
    {"simd:base", [] { return true; }, make_base_engine}};

}  // namespace

void BatchState::resize(const Character& character, int envs, int props) {
  num_envs = envs, num_bodies = character.num_bodies(), num_dofs = character.num_dofs, num_props = props;
  const size_t bodies = static_cast<size_t>(envs) * num_bodies, dofs = static_cast<size_t>(envs) * num_dofs;
  const size_t all_props = static_cast<size_t>(envs) * props;
  body_pos.resize(3 * bodies), body_rot.resize(4 * bodies), body_vel.resize(3 * bodies),
      body_ang_vel.resize(3 * bodies);
  dof_pos.resize(dofs), dof_vel.resize(dofs);
  contact_force.resize(3 * bodies);
  prop_pos.resize(3 * all_props), prop_rot.resize(4 * all_props), prop_vel.resize(3 * all_props);
  prop_ang_vel.resize(3 * all_props), prop_force.resize(3 * all_props);
  diverged.resize(envs), num_contacts.resize(envs), solver_residual.resize(envs), solver_iterations.resize(envs);
}

std::unique_ptr<Simulator> make_simulator(const std::string& backend, const Character& character,
                                          const PhysicsSettings& settings, int num_envs, ThreadPool& pool,
                                          const std::vector<Prop>& props) {
  if (backend == "mujoco") return std::make_unique<MujocoSimulator>(character, props, settings, num_envs, pool);
  if (backend == "scalar")
    return std::make_unique<LaneSimulator<double>>(character, props, settings, num_envs, pool, make_scalar_engine);
  if (backend == "cuda") {
#ifdef CALM_WITH_CUDA
    return std::make_unique<CudaSimulator>(character, props, settings, num_envs, pool);
#else
    fail("simulator \"cuda\": this program was built without it; it is built where CMake finds nvcc (CALM_CUDA)");
#endif
  }
  for (const Width& width : kWidths) {
    if (backend != "simd" && backend != width.name) continue;
    if (width.here())
      return std::make_unique<LaneSimulator<float>>(character, props, settings, num_envs, pool, width.make);
    if (backend == width.name) fail("simulator \"{}\": this processor lacks it; \"simd\" takes what it has", backend);
  }
  fail("unknown simulator \"{}\"; known here: {}", backend, fmt::join(available_backends(), ", "));
}

std::vector<std::string> available_backends() {
  std::vector<std::string> names = {"simd"};
  for (const Width& width : kWidths)
    if (width.here()) names.emplace_back(width.name);
  names.emplace_back("scalar");
#ifdef CALM_WITH_CUDA
  if (CudaEngine::available()) names.emplace_back("cuda");
#endif
  names.emplace_back("mujoco");
  return names;
}

}  // namespace calm
